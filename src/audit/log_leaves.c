/*
 * log_leaves.c
 *
 * Retention classes and weekly leaves of the log, and what maintenance does
 * with them. A class holds what is kept equally long, because a leaf that all
 * tables share could only be dropped at the longest retention. Below it one
 * leaf a week, Monday 00:00 UTC to the next, made ahead of time: the write
 * path never runs DDL. An entry whose week has no leaf goes to log_overflow
 * with class NULL, and maintenance moves it.
 *
 * A leaf is made by CREATE TABLE LIKE and ATTACH, which takes SHARE UPDATE
 * EXCLUSIVE on its class; PARTITION OF would wait for every reader of the log
 * and make every writer wait behind it.
 */
#include "audit/audit.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define LOG_WEEK (7 * USECS_PER_DAY)
#define FIRST_MONDAY (2 * USECS_PER_DAY)	/* 2000-01-03, from 2000-01-01 */

/* ---- weeks ---- */

/* The start of the week, Monday 00:00 UTC, that a moment lies in. */
TimestampTz
rk_audit_week_of(TimestampTz at)
{
	TimestampTz offset = (at - FIRST_MONDAY) % LOG_WEEK;

	return at - (offset < 0 ? offset + LOG_WEEK : offset);
}

/* YYYYMMDD or YYYY-MM-DD of a week's first day. */
static char *
week_date(TimestampTz week, const char *format)
{
	int			year;
	int			month;
	int			day;

	j2date((int) (week / USECS_PER_DAY) + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	return psprintf(format, year, month, day);
}

static char *
leaf_name(int16 klass, TimestampTz week)
{
	return psprintf("log_c%d_%s", klass, week_date(week, "%04d%02d%02d"));
}

static Oid
class_table(int16 klass)
{
	return rk_audit_log_relation(psprintf("log_c%d", klass));
}

/* ---- leaves ---- */

static bool
range_bound(PartitionRangeDatum *bound, TimestampTz *value)
{
	if (bound->kind != PARTITION_RANGE_DATUM_VALUE)
		return false;
	*value = DatumGetTimestampTz(castNode(Const, bound->value)->constvalue);
	return true;
}

/*
 * The bounds of a leaf as stored; false for anything else (overflow, a class,
 * a leaf somebody attached with other bounds than ours).
 */
bool
rk_audit_leaf_bounds(Oid leaf, TimestampTz *from, TimestampTz *to)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(leaf));
	bool		isnull;
	Datum		value;
	bool		found = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	value = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relpartbound, &isnull);
	if (!isnull)
	{
		PartitionBoundSpec *spec = stringToNode(TextDatumGetCString(value));

		if (spec->strategy == PARTITION_STRATEGY_RANGE && !spec->is_default)
			found = range_bound(linitial(spec->lowerdatums), from) &&
				range_bound(linitial(spec->upperdatums), to);
	}
	ReleaseSysCache(tuple);
	return found;
}

/* The leaf of one week below a class, or InvalidOid. */
static Oid
find_leaf(Oid parent, TimestampTz week)
{
	ListCell   *lc;

	foreach(lc, find_inheritance_children(parent, NoLock))
	{
		TimestampTz from;
		TimestampTz to;

		if (rk_audit_leaf_bounds(lfirst_oid(lc), &from, &to) &&
			from <= week && week < to)
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

static void
create_leaf(int16 klass, TimestampTz week)
{
	char	   *name = leaf_name(klass, week);

	(void) rk_run(rk_extension_owner(),
				  psprintf("CREATE TABLE rowkeeper_log.%s (LIKE rowkeeper_log.log INCLUDING ALL);"
						   "ALTER TABLE rowkeeper_log.%s ENABLE ROW LEVEL SECURITY;"
						   "ALTER TABLE rowkeeper_log.%s REPLICA IDENTITY FULL",
						   name, name, name));
	rk_audit_reset_relation_acl(rk_audit_log_relation(name));
	(void) rk_run(rk_extension_owner(),
				  psprintf("ALTER TABLE rowkeeper_log.log_c%d ATTACH PARTITION rowkeeper_log.%s "
						   "FOR VALUES FROM ('%s 00:00:00+00') TO ('%s 00:00:00+00')",
						   klass, name,
						   week_date(week, "%04d-%02d-%02d"),
						   week_date(week + LOG_WEEK, "%04d-%02d-%02d")));
}

/* The leaf of one week, created where it is missing. */
static Oid
ensure_leaf(int16 klass, TimestampTz week)
{
	Oid			parent = class_table(klass);
	Oid			leaf = find_leaf(parent, week);

	if (OidIsValid(leaf))
		return leaf;

	/* ATTACH takes the same lock: whoever is second finds the leaf made. */
	LockRelationOid(parent, ShareUpdateExclusiveLock);
	if (!OidIsValid(find_leaf(parent, week)))
		create_leaf(klass, week);
	return find_leaf(parent, week);
}

/* From this week to the last one ahead; how many were missing. */
static int64
ensure_leaves_ahead(int16 klass)
{
	TimestampTz this_week = rk_audit_week_of(GetCurrentTimestamp());
	bool		there[RK_LOG_WEEKS_AHEAD + 1] = {false};
	int64		created = 0;
	ListCell   *lc;

	foreach(lc, find_inheritance_children(class_table(klass), NoLock))
	{
		TimestampTz from;
		TimestampTz to;

		if (rk_audit_leaf_bounds(lfirst_oid(lc), &from, &to))
			for (int i = 0; i <= RK_LOG_WEEKS_AHEAD; i++)
				if (from <= this_week + i * LOG_WEEK && this_week + i * LOG_WEEK < to)
					there[i] = true;
	}
	for (int i = 0; i <= RK_LOG_WEEKS_AHEAD; i++)
		if (!there[i])
		{
			(void) ensure_leaf(klass, this_week + i * LOG_WEEK);
			created++;
		}
	return created;
}

/* ---- classes ---- */

static void
ensure_class_table(int16 klass)
{
	Oid			owner = rk_extension_owner();
	Oid			relid = class_table(klass);

	if (OidIsValid(relid))
		return;
	(void) rk_run(owner,
				  psprintf("CREATE TABLE rowkeeper_log.log_c%d (LIKE rowkeeper_log.log INCLUDING ALL) "
						   "PARTITION BY RANGE (changed_at);"
						   "ALTER TABLE rowkeeper_log.log_c%d ENABLE ROW LEVEL SECURITY",
						   klass, klass));
	rk_audit_reset_relation_acl(class_table(klass));
	(void) rk_run(owner,
				  psprintf("ALTER TABLE rowkeeper_log.log ATTACH PARTITION rowkeeper_log.log_c%d "
						   "FOR VALUES IN (%d)", klass, klass));
}

static bool
equal_keep(const Interval *a, const Interval *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return DatumGetBool(DirectFunctionCall2(interval_eq, IntervalPGetDatum(a),
											IntervalPGetDatum(b)));
}

/* A class as a row of rowkeeper_log.classes. */
typedef struct RetentionClass
{
	int16		klass;
	Interval   *keep;			/* NULL: for ever */
} RetentionClass;

/*
 * All classes, as committed by now: under REPEATABLE READ the transaction's
 * own snapshot may not show one that another session has just made.
 */
static List *
read_classes(void)
{
	Relation	classes = table_open(rk_audit_log_relation("classes"), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(classes, NULL);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(classes, snapshot, 0, NULL);
	List	   *result = NIL;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		RetentionClass *found = palloc0(sizeof(RetentionClass));
		bool		isnull;
		Datum		keep;

		found->klass = DatumGetInt16(slot_getattr(slot, 1, &isnull));
		keep = slot_getattr(slot, 2, &isnull);
		if (!isnull)
		{
			found->keep = palloc(sizeof(Interval));
			*found->keep = *DatumGetIntervalP(keep);
		}
		result = lappend(result, found);
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(classes, AccessShareLock);
	return result;
}

static bool
find_class(const Interval *keep, int16 *klass)
{
	ListCell   *lc;

	foreach(lc, read_classes())
	{
		RetentionClass *known = lfirst(lc);

		if (equal_keep(known->keep, keep))
		{
			*klass = known->klass;
			return true;
		}
	}
	return false;
}

static int16
insert_class(const Interval *keep)
{
	Oid			types[2] = {INT2OID, INTERVALOID};
	Datum		values[2];
	int			next = 0;
	ListCell   *lc;

	if (keep != NULL)
	{
		next = 1;				/* 0 is the class that is kept for ever */
		foreach(lc, read_classes())
			next = Max(next, ((RetentionClass *) lfirst(lc))->klass + 1);
	}
	if (next > PG_INT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many different retentions of the audit log")));

	values[0] = Int16GetDatum((int16) next);
	values[1] = keep == NULL ? (Datum) 0 : IntervalPGetDatum(keep);
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper_log.classes (class, keep) VALUES ($1, $2)",
					   2, types, values, keep == NULL ? " n" : "  ");
	return (int16) next;
}

/*
 * The retention class of what is kept that long (NULL: for ever), with its
 * table and its leaves from this week on. Intervals that are equal for the
 * server ('1 month', '30 days') share a class. Of two callers with a new
 * retention the second waits for the first to commit.
 */
int16
rk_audit_class_ensure(const Interval *keep)
{
	int16		klass;

	if (!find_class(keep, &klass))
	{
		LockRelationOid(rk_audit_log_relation("classes"), ShareRowExclusiveLock);
		if (!find_class(keep, &klass))
			klass = insert_class(keep);
	}
	ensure_class_table(klass);
	(void) ensure_leaves_ahead(klass);
	return klass;
}

/* ---- maintenance ---- */

/*
 * Make the leaves of the weeks ahead, in every class; returns how many. Locks:
 * SHARE UPDATE EXCLUSIVE on a class that lacks one; nobody's reads or writes
 * wait.
 */
int64
rk_audit_maintain_ahead(void)
{
	int64		created = 0;
	ListCell   *lc;

	if (!OidIsValid(rk_audit_log_relation("log")))
		return 0;
	foreach(lc, read_classes())
	{
		int16		klass = ((RetentionClass *) lfirst(lc))->klass;

		ensure_class_table(klass);
		created += ensure_leaves_ahead(klass);
	}
	return created;
}

/* ---- retention ---- */

#define LOCK_PATIENCE_MS 20		/* how long others may queue behind one attempt */
#define LOCK_ATTEMPTS 50

/*
 * One attempt to lock a class and a leaf of it against everybody. Writers
 * queue behind a waiting lock, so an attempt is short and repeated.
 */
static bool
try_lock_leaf(Oid parent, Oid leaf)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool locked = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			level = NewGUCNestLevel();

		(void) set_config_option("lock_timeout", CppAsString2(LOCK_PATIENCE_MS),
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		LockRelationOid(parent, AccessExclusiveLock);
		LockRelationOid(leaf, AccessExclusiveLock);
		AtEOXact_GUC(true, level);
		ReleaseCurrentSubTransaction();
		locked = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return locked;
}

static void
drop_leaf(Oid parent, Oid leaf)
{
	char	   *parent_name = rk_relation_name(parent);
	char	   *leaf_name = rk_relation_name(leaf);

	for (int i = 0; !try_lock_leaf(parent, leaf); i++)
	{
		if (i == LOCK_ATTEMPTS)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not lock %s to drop it", leaf_name),
					 errdetail("Other sessions read or write the audit log all the time."),
					 errhint("The next run tries again.")));
		CHECK_FOR_INTERRUPTS();
		pg_usleep((20 + i) * 1000L);
	}
	(void) rk_run(rk_extension_owner(),
				  psprintf("ALTER TABLE %s DETACH PARTITION %s; DROP TABLE %s",
						   parent_name, leaf_name, leaf_name));
}

/* Everything before this moment is past the class's retention. */
static TimestampTz
retention_limit(const Interval *keep)
{
	Oid			types[1] = {INTERVALOID};
	Datum		values[1] = {IntervalPGetDatum(keep)};
	bool		isnull;

	return DatumGetTimestampTz(rk_fetch(rk_extension_owner(),
										"SELECT pg_catalog.clock_timestamp() - $1",
										1, types, values, NULL, &isnull));
}

static Oid
find_expired_leaf(Oid parent, const Interval *keep)
{
	TimestampTz limit = retention_limit(keep);
	ListCell   *lc;

	foreach(lc, find_inheritance_children(parent, NoLock))
	{
		TimestampTz from;
		TimestampTz to;

		if (rk_audit_leaf_bounds(lfirst_oid(lc), &from, &to) && to <= limit)
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

/*
 * Drop one leaf that is wholly older than its class is kept; returns how many
 * were dropped, and whether there may be more. One a transaction, because the
 * locks (ACCESS EXCLUSIVE on the class and the leaf) are held until it ends.
 */
int64
rk_audit_maintain_retention(bool *more)
{
	ListCell   *lc;

	*more = false;
	if (!OidIsValid(rk_audit_log_relation("log")))
		return 0;
	foreach(lc, read_classes())
	{
		RetentionClass *klass = lfirst(lc);
		Oid			parent = class_table(klass->klass);
		Oid			leaf = InvalidOid;

		if (klass->keep != NULL && OidIsValid(parent))
			leaf = find_expired_leaf(parent, klass->keep);
		if (OidIsValid(leaf))
		{
			drop_leaf(parent, leaf);
			*more = true;
			return 1;
		}
	}
	return 0;
}

/* ---- overflow ---- */

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
	char	   *leaf = rk_relation_name(ensure_leaf(klass, group->week));
	Oid			types[4] = {INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT2OID};
	Datum		values[4] = {
		Int32GetDatum(group->table_id), TimestampTzGetDatum(group->week),
		TimestampTzGetDatum(group->week + LOG_WEEK), Int16GetDatum(klass)
	};
	StringInfoData sql;

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
 * overflow and leaves, SHARE UPDATE EXCLUSIVE on a class that gets a leaf, and
 * where it can be had at once SHARE ROW EXCLUSIVE on the overflow.
 */
int64
rk_audit_maintain_overflow(void)
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

/* ---- as tasks of maintain() ---- */

static void
run_ahead(RkMaintainRun *run)
{
	run->changed = rk_audit_maintain_ahead();
}

static void
run_overflow(RkMaintainRun *run)
{
	run->changed = rk_audit_maintain_overflow();
}

static void
run_retention(RkMaintainRun *run)
{
	run->changed = rk_audit_maintain_retention(&run->more);
}

void
rk_audit_leaves_init(void)
{
	static const RkMaintainTask tasks[] = {
		{.name = "audit log: leaves ahead",.feature = "audit",.owner_only = true,.run = run_ahead},
		{.name = "audit log: overflow",.feature = "audit",.owner_only = true,.run = run_overflow},
		{.name = "audit log: retention",.feature = "audit",.owner_only = true,.run = run_retention},
	};

	for (int i = 0; i < lengthof(tasks); i++)
		rk_maintain_register(&tasks[i]);
}
