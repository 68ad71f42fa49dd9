/*
 * convert_state.c
 *
 * What is known of a table on its way to partitions: a row of
 * rowkeeper._partition_conversions, written with the CHECK that begins it, and
 * the catalog, which says how far it is. And how all of it is taken back: by
 * partition_off(), or by maintain() before rows reach the bound.
 */
#include "partition/partition.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* ---- the registry ---- */

RkConversion *
rk_convert_read(Oid relid)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(relid)};
	MemoryContext caller = CurrentMemoryContext;
	RkConversion *conversion = NULL;
	RkIdentity	saved;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_with_args("SELECT key::text, options, upper, bound, swapped FROM rowkeeper._partition_conversions WHERE relation = $1",
							  1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the conversions");
	if (SPI_processed > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(caller);
		bool		isnull;

		conversion = palloc0(sizeof(RkConversion));
		conversion->relid = relid;
		conversion->owner = rk_relation_owner(relid);
		conversion->key = SPI_getvalue(row, desc, 1);
		conversion->options = rk_partition_options_parse(DatumGetJsonbPCopy(SPI_getbinval(row, desc, 2, &isnull)));
		conversion->upper = DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
		conversion->bound = SPI_getvalue(row, desc, 4);
		conversion->swapped = DatumGetBool(SPI_getbinval(row, desc, 5, &isnull));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return conversion;
}

void
rk_convert_write(const RkConversion *conversion)
{
	Oid			types[5] = {OIDOID, TEXTOID, TEXTOID, INT8OID, TEXTOID};
	Datum		values[5];

	values[0] = ObjectIdGetDatum(conversion->relid);
	values[1] = CStringGetTextDatum(conversion->key);
	values[2] = CStringGetTextDatum(rk_partition_options_format(conversion->options));
	values[3] = Int64GetDatum(conversion->upper);
	values[4] = CStringGetTextDatum(conversion->bound);
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper._partition_conversions (relation, key, options, upper, bound)"
					   " VALUES ($1, $2::name, $3::jsonb, $4, $5)", 5, types, values, NULL);
}

void
rk_convert_forget(Oid relid)
{
	(void) rk_run_about(rk_extension_owner(), relid, "DELETE FROM rowkeeper._partition_conversions WHERE relation = $1");
}

/* The foreign keys that are to be valid again, before they are made anew. */
void
rk_convert_note_foreign_keys(Oid relid)
{
	(void) rk_run_about(rk_extension_owner(), relid,
						"UPDATE rowkeeper._partition_conversions SET validate = ("
						" SELECT coalesce(jsonb_agg(jsonb_build_array(n.nspname, c.relname, k.conname)), '[]')"
						" FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
						" WHERE k.confrelid = $1 AND k.contype = 'f' AND k.convalidated AND k.conparentid = 0)"
						" WHERE relation = $1");
}

void
rk_convert_note_swapped(Oid before, Oid root)
{
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2];

	values[0] = ObjectIdGetDatum(before);
	values[1] = ObjectIdGetDatum(root);
	(void) rk_run_args(rk_extension_owner(),
					   "UPDATE rowkeeper._partition_conversions SET relation = $2, swapped = true WHERE relation = $1",
					   2, types, values, NULL);
}

/* ---- what is there by now ---- */

/* The statements of a query: role, text. */
List *
rk_convert_errands(Oid relid, const char *query)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(relid)};
	MemoryContext caller = CurrentMemoryContext;
	List	   *errands = NIL;
	RkIdentity	saved;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_with_args(query, 1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", query);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);
		RkConvertErrand *errand = palloc(sizeof(RkConvertErrand));
		bool		isnull;

		errand->role = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		errand->sql = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);
		errands = lappend(errands, errand);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return errands;
}

bool
rk_convert_has_check(Oid relid, bool valid)
{
	return rk_exists_about(rk_extension_owner(), relid,
						   psprintf("SELECT 1 FROM pg_constraint WHERE conrelid = $1 AND contype = 'c'"
									" AND conname = 'rowkeeper_convert'"
									" AND rowkeeper._partition_convert_is_check(pg_get_constraintdef(oid))%s",
									valid ? " AND convalidated" : ""));
}

/*
 * The index that is to become the primary key, as SQL names it; NULL: there is
 * none. usable: it is complete, and of the primary key that there is now.
 */
char *
rk_convert_find_index(const RkConversion *conversion, bool *usable)
{
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2];
	bool		isnull;
	Datum		found;
	char	   *answer;

	values[0] = ObjectIdGetDatum(conversion->relid);
	values[1] = CStringGetTextDatum(conversion->key);
	found = rk_fetch(rk_extension_owner(),
					 "SELECT (i.indisvalid AND i.indisunique AND i.indpred IS NULL AND EXISTS (SELECT FROM pg_constraint k"
					 "   JOIN pg_attribute p ON p.attrelid = k.conrelid AND p.attname = $2 AND NOT p.attnum = ANY (k.conkey)"
					 "   WHERE k.conrelid = $1 AND k.contype = 'p'"
					 "   AND (i.indkey::int2[])[0:i.indnkeyatts - 1] = k.conkey || p.attnum))::int || format('%I.%I', n.nspname, c.relname)"
					 " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
					 " WHERE i.indrelid = $1 AND c.relname = rowkeeper._partition_convert_index($1)",
					 2, types, values, NULL, &isnull);
	if (isnull)
		return NULL;
	answer = TextDatumGetCString(found);
	*usable = answer[0] == '1';
	return answer + 1;
}

/* The partitions that have what the swap needed, and they do not: one, or none. */
List *
rk_convert_left_over_in(Oid root)
{
	RkIdentity	saved;
	List	   *relids;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	relids = rk_fetch_oids(psprintf("SELECT DISTINCT partition FROM rowkeeper._partition_convert_left_over"
									" WHERE root = %u ORDER BY 1", root));
	rk_identity_restore(&saved);
	return relids;
}

/* How its index is dropped while others use the table, or NULL. */
char *
rk_convert_left_over_index(Oid root)
{
	List	   *indexes = rk_convert_errands(root, "SELECT role, 'DROP INDEX CONCURRENTLY' || substr(statement, length('DROP INDEX') + 1)"
											 " FROM rowkeeper._partition_convert_left_over"
											 " WHERE root = $1 AND starts_with(statement, 'DROP INDEX')");

	return indexes == NIL ? NULL : ((RkConvertErrand *) linitial(indexes))->sql;
}

void
rk_convert_drop_left_over(Oid root)
{
	List	   *errands = rk_convert_errands(root, "SELECT role, statement FROM rowkeeper._partition_convert_left_over"
											 " WHERE root = $1 ORDER BY statement COLLATE \"C\"");
	ListCell   *lc;

	foreach(lc, errands)
		rk_convert_run(((RkConvertErrand *) lfirst(lc))->role, true, ((RkConvertErrand *) lfirst(lc))->sql);
}

/* ---- names, locks, what is taken back ---- */

/* The name that the table is to have. */
void
rk_convert_check_name(const RkConversion *conversion)
{
	char	   *name = rk_convert_wide_name(conversion);

	if (OidIsValid(get_relname_relid(name, get_rel_namespace(conversion->relid))))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("cannot convert %s: relation \"%s\" already exists, and the first partition is to have that name",
						rk_relation_name(conversion->relid), name),
				 errhint("Rename it.")));
}

/* A CHECK that a dump has brought along, or a call that was not ours to end. */
void
rk_convert_drop_check(const RkConversion *conversion)
{
	if (rk_convert_has_check(conversion->relid, false))
		rk_convert_run(conversion->owner, true,
					   psprintf("ALTER TABLE %s DROP CONSTRAINT rowkeeper_convert", rk_relation_name(conversion->relid)));
}

char *
rk_convert_drop_index_sql(const RkConversion *conversion, const char *how)
{
	bool		usable;
	char	   *index = rk_convert_find_index(conversion, &usable);

	return index == NULL ? NULL : psprintf("DROP INDEX %s%s", how, index);
}

/* One call for a table, whichever session it is of. The lock stays from commit to commit. */
void
rk_convert_lock(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, relid, 1);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another session converts %s", rk_relation_name(relid)),
				 errhint("rowkeeper.progress shows how far it is.")));
}

void
rk_convert_unlock(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, relid, 1);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

/* ---- giving it up ---- */

/* Before the swap nothing was done but to add a CHECK and an index; after it, these are dropped. */
static void
undo(const RkConversion *conversion)
{
	char	   *drop;

	if (conversion->swapped)
		rk_convert_drop_left_over(conversion->relid);
	else
	{
		rk_convert_drop_check(conversion);
		drop = rk_convert_drop_index_sql(conversion, "");
		if (drop != NULL)
			rk_convert_run(conversion->owner, true, drop);
	}
	rk_convert_forget(conversion->relid);
}

/*
 * partition_off() of a table that is being converted; false: it is not, or is
 * partitioned by now. Locks: ACCESS EXCLUSIVE until commit.
 */
bool
rk_partition_convert_give_up(FunctionCallInfo fcinfo, Oid relid)
{
	RkConversion *conversion = rk_convert_read(relid);

	if (conversion == NULL)
		return false;
	rk_convert_lock(relid);
	undo(conversion);
	rk_convert_unlock(relid);
	if (fcinfo != NULL && !conversion->swapped)
		rk_step(fcinfo, psprintf("-- %s is not converted", rk_relation_name(relid)));
	return !conversion->swapped;
}

/* ---- what nobody goes on with ---- */

static void
undo_late(void *arg)
{
	undo(arg);
}

/* Tables that are on their way, and are not partitioned yet. */
List *
rk_partition_conversions(void)
{
	RkIdentity	saved;
	List	   *relids;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	relids = rk_fetch_oids("SELECT relation::oid FROM rowkeeper._partition_conversions WHERE NOT swapped ORDER BY 1");
	rk_identity_restore(&saved);
	return relids;
}

/* A conversion whose rows are about to reach its bound; NULL: none. */
static RkConversion *
find_late(const RkMaintainRun *run)
{
	ListCell   *lc;

	foreach(lc, rk_partition_conversions())
	{
		RkConversion *conversion;

		if (get_rel_name(lfirst_oid(lc)) == NULL || !rk_is_relation_owner(lfirst_oid(lc), GetUserId()) ||
			(OidIsValid(run->target) && run->target != lfirst_oid(lc)))
			continue;
		conversion = rk_convert_read(lfirst_oid(lc));
		if (conversion != NULL && rk_convert_is_late(conversion))
			return conversion;
	}
	return NULL;
}

static void
maintain_conversions(RkMaintainRun *run)
{
	RkConversion *conversion = find_late(run);
	ErrorData  *failure = NULL;
	RkLockRequest locks[] = {
		{InvalidOid, AccessExclusiveLock},
		{InvalidOid, NoLock}
	};

	if (conversion == NULL)
		return;
	rk_maintain_name_table(run, conversion->relid);
	locks[0].relid = conversion->relid;
	rk_partition_budget_begin(conversion->owner);
	if (!rk_partition_try(locks, undo_late, conversion, true, &failure))
		ReThrowError(failure);
	run->changed = 1;
	run->more = true;
}

static void
relation_dropped(const RkDrop *drop)
{
	if (OidIsValid(get_relname_relid("_partition_conversions", get_namespace_oid("rowkeeper", false))))
		rk_convert_forget(drop->object);
}

void
rk_partition_convert_init(void)
{
	static const RkMaintainTask task = {
		.name = "conversions given up",
		.feature = "partition",
		.run = maintain_conversions
	};
	static const RkEventListener listener = {
		.relation_dropped = relation_dropped
	};

	rk_maintain_register(&task);
	rk_events_listen(&listener);
}
