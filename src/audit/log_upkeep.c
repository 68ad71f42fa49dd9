/*
 * log_upkeep.c
 *
 * What maintain() does with the log beside its leaves, which are partitions as
 * others (log_leaves.c): entries that had no leaf when they were written are
 * moved to where they belong.
 */
#include "audit/audit.h"

#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"

/* What is moved at once: entries of one table and one week. */
typedef struct OverflowGroup
{
	int32		table_id;
	TimestampTz week;
} OverflowGroup;

static List *
find_overflow_groups(Oid owner)
{
	MemoryContext context = CurrentMemoryContext;
	RkIdentity	saved;
	List	   *groups = NIL;

	rk_identity_assume(&saved, owner, false);
	SPI_connect();
	if (SPI_execute("SELECT DISTINCT table_id, pg_catalog.date_trunc('week', changed_at, 'UTC') "
					"FROM rowkeeper_log.log_overflow WHERE action <> 'w'",
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the overflow of the audit log");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		OverflowGroup *group = palloc(sizeof(OverflowGroup));
		bool		isnull;

		group->table_id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i],
													  SPI_tuptable->tupdesc, 1, &isnull));
		group->week = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[i],
														SPI_tuptable->tupdesc, 2, &isnull));
		groups = lappend(groups, group);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return groups;
}

/*
 * The class of a table's entries, which they could not keep in the overflow:
 * what its audit says now; where there is none any more, what its last entry
 * before it was dropped has; else the one that is kept for ever.
 */
static int16
class_of_table(Oid owner, int32 table_id)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(table_id)};
	bool		isnull;
	Datum		found;
	Jsonb	   *options = NULL;
	Oid			relid;

	found = rk_fetch(owner,
					 "SELECT c.oid FROM rowkeeper_log.tables t JOIN pg_catalog.pg_class c ON c.oid = t.relation "
					 "WHERE t.table_id = $1 AND t.to_id IS NULL",
					 1, types, values, NULL, &isnull);
	relid = isnull ? InvalidOid : DatumGetObjectId(found);
	if (OidIsValid(relid))
		options = rk_changes_options(relid, "audit");

	if (options != NULL)
	{
		types[0] = JSONBOID;
		values[0] = JsonbPGetDatum(options);
		found = rk_fetch(owner,
						 "SELECT class FROM rowkeeper_log.classes "
						 "WHERE keep IS NOT DISTINCT FROM ($1 ->> 'keep')::interval",
						 1, types, values, NULL, &isnull);
	}
	else
		found = rk_fetch(owner,
						 "SELECT class FROM rowkeeper_log.log WHERE table_id = $1 AND class IS NOT NULL "
						 "AND action <> 'x' ORDER BY changed_at DESC LIMIT 1",
						 1, types, values, NULL, &isnull);
	return isnull ? 0 : DatumGetInt16(found);
}

/*
 * Move a group into its leaf with copies of the who-records it refers to. A
 * copy gets a time within the leaf's week; the record's own time says nothing.
 */
static int64
move_overflow_group(Oid owner, const OverflowGroup *group)
{
	int16		klass = class_of_table(owner, group->table_id);
	Oid			relid = rk_audit_leaf_ensure(klass, group->week);
	char	   *leaf;
	Oid			types[4] = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT2OID};
	Datum		values[4] = {
		Int32GetDatum(group->table_id), TimestampTzGetDatum(group->week),
		TimestampTzGetDatum(group->week + RK_LOG_WEEK), Int16GetDatum(klass)
	};
	StringInfoData sql;

	if (!OidIsValid(relid))
		return 0;
	leaf = rk_relation_name(relid);
	initStringInfo(&sql);
	appendStringInfo(&sql,
					 "WITH moved AS ("
					 "  DELETE FROM rowkeeper_log.log_overflow"
					 "  WHERE table_id = $1 AND changed_at >= $2 AND changed_at < $3"
					 "  RETURNING *), "
					 "who_copied AS ("
					 "  INSERT INTO %s (id, changed_at, txid, who, table_id, key_hash, action, class, new_data)"
					 "  SELECT w.id, $2, w.txid, w.who, 0, w.key_hash, 'w', $4, w.new_data"
					 "  FROM rowkeeper_log.log_overflow w"
					 "  WHERE w.table_id = 0 AND w.id IN (SELECT who FROM moved)"
					 "    AND NOT EXISTS (SELECT FROM %s k WHERE k.table_id = 0"
					 "      AND k.key_hash = w.key_hash AND k.id = w.id)) "
					 "INSERT INTO %s (id, changed_at, txid, who, table_id, key_hash, action, class,"
					 "  record_id, old_data, new_data, tenant, new_tenant, detail) "
					 "SELECT id, changed_at, txid, who, table_id, key_hash, action, $4,"
					 "  record_id, old_data, new_data, tenant, new_tenant, detail FROM moved",
					 leaf, leaf, leaf);
	return (int64) rk_run_args(owner, sql.data, 4, types, values, NULL);
}

/*
 * Once no entry is left, the who-records go too. Writers remember the records
 * they wrote, so they are locked out for this moment and made to forget; where
 * they cannot be, or this transaction might not see what they wrote, the
 * records stay for another time.
 */
static void
clear_overflow_who(Oid owner)
{
	Oid			overflow = rk_audit_log_relation("log_overflow");

	if (IsolationUsesXactSnapshot() ||
		!ConditionalLockRelationOid(overflow, ShareRowExclusiveLock))
		return;
	if (rk_run(owner,
			   "DELETE FROM rowkeeper_log.log_overflow "
			   "WHERE NOT EXISTS (SELECT FROM rowkeeper_log.log_overflow e WHERE e.action <> 'w')") > 0)
		CacheInvalidateRelcacheByRelid(overflow);
}

static bool
overflow_has_rows(Oid owner)
{
	bool		isnull;

	(void) rk_fetch(owner, "SELECT 1 FROM rowkeeper_log.log_overflow LIMIT 1",
					0, NULL, NULL, NULL, &isnull);
	return !isnull;
}

/*
 * Move the entries of the overflow to the leaves where they belong, which are
 * created where missing; returns how many moved. Locks: ROW EXCLUSIVE on
 * overflow and leaves, SHARE UPDATE EXCLUSIVE on the log and a class that gets a
 * leaf, and where it can be had at once SHARE ROW EXCLUSIVE on the overflow.
 */
static int64
move_overflow(void)
{
	Oid			owner;
	int64		moved = 0;
	ListCell   *lc;

	if (!OidIsValid(rk_audit_log_relation("log_overflow")))
		return 0;
	owner = rk_extension_owner();
	if (!overflow_has_rows(owner))
		return 0;
	foreach(lc, find_overflow_groups(owner))
		moved += move_overflow_group(owner, lfirst(lc));
	clear_overflow_who(owner);
	return moved;
}

static void
run_overflow(RkMaintainRun *run)
{
	run->changed = move_overflow();
}

void
rk_audit_upkeep_init(void)
{
	static const RkMaintainTask overflow = {
		.name = "audit log: overflow",
		.feature = "audit",
		.owner_only = true,
		.run = run_overflow
	};

	rk_maintain_register(&overflow);
}
