/*
 * convert.c
 *
 * A plain table becomes a partitioned one. partition() does it within its
 * transaction where the table is small; partition_convert() while the table is
 * in use, in steps, each a short transaction of its own:
 *
 *	1  whether it can be; where its rows end; a CHECK of that, not validated
 *	2  the CHECK is validated
 *	3  the unique index that becomes the primary key, CONCURRENTLY
 *	4  the swap (convert_swap.c)
 *	5  partitions ahead
 *	6  foreign keys that reference it are validated
 *	7  ANALYZE
 *
 * A row of rowkeeper._partition_conversions, written with the CHECK, says that
 * a table is on its way; how far it is, the catalog does. So whatever ends a
 * call, the next goes on. What nobody goes on with is given up by maintain()
 * before rows reach the bound, past which the CHECK would refuse them.
 */
#include "partition/partition.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/wait_event.h"

#define STEPS 7
#define FIRST_PAUSE_MS 40
#define LONGEST_PAUSE_MS 2000
#define ROWS_IN_PAGE 50			/* of a table that was never analyzed */

PG_FUNCTION_INFO_V1(rowkeeper_partition_convert);

/* ---- the registry ---- */

static RkConversion *
read_conversion(Oid relid)
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

static void
write_conversion(const RkConversion *conversion)
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

static void
run_about(Oid relid, const char *sql)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(relid)};

	(void) rk_run_args(rk_extension_owner(), sql, 1, types, values, NULL);
}

static void
forget_conversion(Oid relid)
{
	run_about(relid, "DELETE FROM rowkeeper._partition_conversions WHERE relation = $1");
}

/* The foreign keys that are to be valid again, before they are made anew. */
static void
note_foreign_keys(Oid relid)
{
	run_about(relid,
			  "UPDATE rowkeeper._partition_conversions SET validate = ("
			  " SELECT coalesce(jsonb_agg(jsonb_build_array(n.nspname, c.relname, k.conname)), '[]')"
			  " FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
			  " WHERE k.confrelid = $1 AND k.contype = 'f' AND k.convalidated AND k.conparentid = 0)"
			  " WHERE relation = $1");
}

static void
note_swapped(Oid before, Oid root)
{
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2];

	values[0] = ObjectIdGetDatum(before);
	values[1] = ObjectIdGetDatum(root);
	(void) rk_run_args(rk_extension_owner(),
					   "UPDATE rowkeeper._partition_conversions SET relation = $2, swapped = true WHERE relation = $1",
					   2, types, values, NULL);
}

static char *
fetch_text(Oid relid, const char *sql)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(relid)};
	bool		isnull;
	Datum		result = rk_fetch(rk_extension_owner(), sql, 1, types, values, NULL, &isnull);

	return isnull ? NULL : TextDatumGetCString(result);
}

/* ---- what is there by now ---- */

/* A statement on somebody's table, for him. */
typedef struct Errand
{
	Oid			role;
	char	   *sql;
} Errand;

/* The statements of a query: role, text. */
static List *
fetch_errands(Oid relid, const char *query)
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
		Errand	   *errand = palloc(sizeof(Errand));
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

static bool
has_check(Oid relid, bool valid)
{
	return fetch_text(relid,
					  psprintf("SELECT 'yes' FROM pg_constraint WHERE conrelid = $1 AND contype = 'c'"
							   " AND conname = 'rowkeeper_convert'%s", valid ? " AND convalidated" : "")) != NULL;
}

/* The index that becomes the primary key, as SQL names it; NULL: there is none. */
static char *
find_index(Oid relid, bool *valid)
{
	char	   *found = fetch_text(relid,
								   "SELECT i.indisvalid::int || format('%I.%I', n.nspname, c.relname)"
								   " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
								   " WHERE i.indrelid = $1 AND c.relname = rowkeeper._partition_convert_index($1)");

	if (found == NULL)
		return NULL;
	*valid = found[0] == '1';
	return found + 1;
}

/* ---- within a transaction ---- */

static double
rows_of(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	double		rows = rel->rd_rel->reltuples > 0 ? rel->rd_rel->reltuples
		: (double) RelationGetNumberOfBlocks(rel) * ROWS_IN_PAGE;

	table_close(rel, NoLock);
	return rows;
}

/* The CALL that a table is too big to do without. */
static void
check_size(FunctionCallInfo fcinfo, Oid relid)
{
	double		rows = rows_of(relid);

	if (rows <= rk_inline_rows)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s is not partitioned, and has more rows than rowkeeper.inline_rows to be converted in a transaction",
					rk_relation_name(relid)),
			 errdetail("It has about %.0f rows, and nobody could read or write it meanwhile.", rows),
			 errhint("CALL rowkeeper.partition_convert(%s, %s, %s) converts it while it is in use; within a migration: SELECT rowkeeper.later('CALL ...').",
					 quote_literal_cstr(rk_relation_name(relid)),
					 PG_ARGISNULL(1) ? "..." : quote_literal_cstr(NameStr(*PG_GETARG_NAME(1))),
					 PG_ARGISNULL(2) ? "..." : quote_literal_cstr(text_to_cstring(PG_GETARG_TEXT_PP(2))))));
}

static void
check_not_converting(Oid relid)
{
	if (read_conversion(relid) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s is being converted", rk_relation_name(relid)),
				 errhint("CALL rowkeeper.partition_convert(%s) goes on with it, SELECT rowkeeper.partition_off(%s) gives it up.",
						 quote_literal_cstr(rk_relation_name(relid)), quote_literal_cstr(rk_relation_name(relid)))));
}

/* The name that the table is to have. */
static void
check_name(const RkConversion *conversion)
{
	char	   *name = rk_convert_wide_name(conversion);

	if (OidIsValid(get_relname_relid(name, get_rel_namespace(conversion->relid))))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("cannot convert %s: relation \"%s\" already exists, and the first partition is to have that name",
						rk_relation_name(conversion->relid), name),
				 errhint("Rename it.")));
}

static void
run_and_show(FunctionCallInfo fcinfo, Oid role, const char *sql)
{
	rk_convert_run(role, false, sql);
	rk_step(fcinfo, sql);
}

/* A CHECK that a dump has brought along, or a call that was not ours to end. */
static void
drop_old_check(const RkConversion *conversion)
{
	if (has_check(conversion->relid, false))
		rk_convert_run(conversion->owner, true,
					   psprintf("ALTER TABLE %s DROP CONSTRAINT rowkeeper_convert", rk_relation_name(conversion->relid)));
}

static char *
drop_index_sql(Oid relid, const char *how)
{
	bool		valid;
	char	   *index = find_index(relid, &valid);

	return index == NULL ? NULL : psprintf("DROP INDEX %s%s", how, index);
}

static void
make_index_now(FunctionCallInfo fcinfo, const RkConversion *conversion)
{
	char	   *drop = drop_index_sql(conversion->relid, "");
	char	   *create = rk_convert_index_sql(conversion, false);

	if (drop != NULL)
		rk_convert_run(conversion->owner, true, drop);
	if (create != NULL)
		run_and_show(fcinfo, conversion->owner, create);
}

static char *
validate_sql(const char *table, const char *constraint)
{
	return psprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s", table, quote_identifier(constraint));
}

/*
 * partition() of a plain table: all of it in this transaction, which keeps the
 * table to itself until its end.
 */
void
rk_partition_convert_now(FunctionCallInfo fcinfo, Oid relid)
{
	AttrNumber	column = rk_convert_key_column(fcinfo, relid, NULL);
	Oid			caller = GetUserId();
	RkPartitionSet *set;
	RkConversion *conversion;
	Oid			root;
	List	   *foreign_keys;
	ListCell   *lc;

	check_size(fcinfo, relid);
	check_not_converting(relid);
	LockRelationOid(relid, AccessExclusiveLock);
	rk_trigger_check_pending(list_make1_oid(relid));
	set = rk_partition_merge_options(fcinfo, relid, column, NULL);
	rk_convert_check(relid, set->key->name, caller);
	rk_partition_check_referencing(set);
	conversion = rk_convert_plan(set, true);
	check_name(conversion);
	drop_old_check(conversion);
	run_and_show(fcinfo, conversion->owner, rk_convert_check_sql(conversion, true));
	make_index_now(fcinfo, conversion);
	foreign_keys = fetch_errands(relid,
								 "SELECT c.relowner, format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, k.conname)"
								 " FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
								 " WHERE k.confrelid = $1 AND k.contype = 'f' AND k.convalidated AND k.conparentid = 0"
								 " ORDER BY k.oid");
	root = rk_convert_swap(fcinfo, conversion);
	foreach(lc, foreign_keys)
		run_and_show(fcinfo, ((Errand *) lfirst(lc))->role, ((Errand *) lfirst(lc))->sql);
	set = rk_partition_set_load(root, conversion->options);
	rk_partition_register(fcinfo, set);
	rk_partition_create_missing(fcinfo, set);
}

/* ---- in steps ---- */

/* One call for a table, whichever session it is of. The lock stays from commit to commit. */
static void
lock_conversion(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, relid, 1);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another session converts %s", rk_relation_name(relid)),
				 errhint("rowkeeper.progress shows how far it is.")));
}

static void
unlock_conversion(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, relid, 1);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

typedef struct Call
{
	FunctionCallInfo fcinfo;
	Oid			relid;
	Oid			caller;
	RkConversion *conversion;	/* in memory that outlives transactions */
	MemoryContext context;
	const RkLockRequest *locks;
	bool		insist;
	bool		more;			/* attempts, or commands, are to come */
	int			attempts;		/* at the swap */
	TimestampTz locked_at;		/* the swap has its locks since */
	ErrorData  *failure;		/* of a lock */
	char	   *command;		/* for the top level */
} Call;

typedef void (*Step) (Call *call);

typedef struct StepRun
{
	Step		step;
	Call	   *call;
} StepRun;

static void
run_step(void *arg)
{
	StepRun    *run = arg;

	run->step(run->call);
}

/* A step, committed; its error is raised once the progress is no more. */
static void
commit_step(Call *call, Step step)
{
	StepRun		run = {step, call};
	ErrorData  *error;
	MemoryContext old = MemoryContextSwitchTo(call->context);

	error = rk_attempt(run_step, &run);
	MemoryContextSwitchTo(old);
	if (error != NULL)
		rk_progress_end();
	SPI_commit();
	if (error != NULL)
		ReThrowError(error);
	CHECK_FOR_INTERRUPTS();
}

/* Wait a while, which chance decides, and longer each time. */
static void
pause_between(int attempts)
{
	int			pause = Min(FIRST_PAUSE_MS << Min(attempts, 8), LONGEST_PAUSE_MS);

	pause = (int) pg_prng_uint64_range(&pg_global_prng_state, pause / 2, pause + pause / 2);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, pause, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
give_up_attempts(const Call *call)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not lock %s and what belongs to it: %s", rk_relation_name(call->relid), call->failure->message),
			 errhint("CALL rowkeeper.partition_convert(%s) goes on where it was.",
					 quote_literal_cstr(rk_relation_name(call->relid)))));
}

static void
fail_for_lock(Call *call)
{
	give_up_attempts(call);
}

/* A step that says whether it has to be tried again for a lock. */
static void
insist_on_step(Call *call, Step step)
{
	TimestampTz since = GetCurrentTimestamp();

	for (int attempts = 0;; attempts++)
	{
		call->failure = NULL;
		call->insist = attempts > 0;
		commit_step(call, step);
		if (call->failure == NULL)
			return;
		if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), rk_lock_patience))
			commit_step(call, fail_for_lock);
		pause_between(attempts);
	}
}

static void
show_progress(Call *call, int step)
{
	rk_progress_update(step, 0);
}

/* ---- step 1 ---- */

static void
add_check(void *arg)
{
	Call	   *call = arg;

	drop_old_check(call->conversion);
	rk_convert_run(call->conversion->owner, false, rk_convert_check_sql(call->conversion, false));
	write_conversion(call->conversion);
}

/* What is planned must stay true until the CHECK is there: nobody alters the table. */
static void
begin_conversion(Call *call)
{
	RkPartitionSet *set;
	AttrNumber	column;
	RkLockRequest locks[] = {
		{call->relid, AccessExclusiveLock},
		{InvalidOid, NoLock}
	};

	LockRelationOid(call->relid, ShareUpdateExclusiveLock);
	column = rk_convert_key_column(call->fcinfo, call->relid, NULL);
	set = rk_partition_merge_options(call->fcinfo, call->relid, column, NULL);
	rk_convert_check(call->relid, set->key->name, call->caller);
	rk_partition_check_referencing(set);
	if (call->conversion == NULL)	/* it may read all rows */
		call->conversion = rk_convert_plan(set, false);
	check_name(call->conversion);
	(void) rk_partition_try(locks, add_check, call, call->insist, &call->failure);
}

/* ---- a conversion that was begun ---- */

static void
check_same(Call *call)
{
	RkConversion *conversion = call->conversion;
	RkPartitionSet *set;

	if (!call->fcinfo->args[1].isnull &&
		strcmp(NameStr(*DatumGetName(call->fcinfo->args[1].value)), conversion->key) != 0)
		goto differs;
	set = rk_partition_merge_options(call->fcinfo, call->relid, get_attnum(call->relid, conversion->key),
									 conversion->options);
	if (strcmp(rk_partition_options_format(set->options), rk_partition_options_format(conversion->options)) == 0)
		return;
differs:
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the conversion of %s was begun with other options", rk_relation_name(call->relid)),
			 errhint("CALL rowkeeper.partition_convert(%s) goes on with it, SELECT rowkeeper.partition_off(%s) gives it up.",
					 quote_literal_cstr(rk_relation_name(call->relid)), quote_literal_cstr(rk_relation_name(call->relid)))));
}

static void
resume_conversion(Call *call)
{
	call->conversion = read_conversion(call->relid);
	if (call->conversion == NULL)
		return;
	if (!call->conversion->swapped)
		rk_convert_check(call->relid, call->conversion->key, call->caller);
	check_same(call);
}

/* Rows would be refused soon. */
static void
check_in_time(Call *call)
{
	if (!rk_convert_is_late(call->conversion))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the conversion of %s took longer than planned: rows will reach %s, where it ends as a partition",
					rk_relation_name(call->relid), call->conversion->bound),
			 errhint("SELECT rowkeeper.partition_off(%s) gives it up; then begin again.",
					 quote_literal_cstr(rk_relation_name(call->relid)))));
}

/* ---- steps 2 and 3 ---- */

static void
validate_check(Call *call)
{
	show_progress(call, 2);
	check_in_time(call);
	if (!has_check(call->relid, false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the constraint rowkeeper_convert of %s is gone", rk_relation_name(call->relid)),
				 errhint("SELECT rowkeeper.partition_off(%s) gives the conversion up; then begin again.",
						 quote_literal_cstr(rk_relation_name(call->relid)))));
	if (!has_check(call->relid, true))
		rk_convert_run(call->conversion->owner, false,
					   validate_sql(rk_relation_name(call->relid), "rowkeeper_convert"));
	show_progress(call, 3);
}

/* What is to be done next for the index, at top level. */
static void
next_index_command(Call *call)
{
	bool		valid;
	char	   *index = find_index(call->relid, &valid);

	call->command = NULL;
	if (index != NULL && !valid)
		call->command = drop_index_sql(call->relid, "CONCURRENTLY ");
	else if (index == NULL)
		call->command = rk_convert_index_sql(call->conversion, true);
}

static void
fail_for_worker(Call *call)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("no process is to be had to build an index"),
			 errhint("Raise max_worker_processes; CALL rowkeeper.partition_convert(%s) goes on where it was.",
					 quote_literal_cstr(rk_relation_name(call->relid)))));
}

static void
fail_for_command(Call *call)
{
	ReThrowError(call->failure);
}

static void
make_index(Call *call)
{
	for (commit_step(call, next_index_command); call->command != NULL; commit_step(call, next_index_command))
	{
		RkOutcome	outcome;
		MemoryContext old = MemoryContextSwitchTo(call->context);

		outcome = rk_toplevel_run(call->conversion->owner, call->command, 0, &call->failure);
		MemoryContextSwitchTo(old);
		if (outcome == RK_OUTCOME_NO_WORKER)
			commit_step(call, fail_for_worker);
		else if (outcome == RK_OUTCOME_FAILED)
			commit_step(call, fail_for_command);
	}
}

/* ---- step 4 ---- */

/*
 * The commit waits for no disk or standby while others wait for it: what comes
 * after it does. Should it be lost in a crash, so is all that was written since.
 */
static void
swap_under_locks(void *arg)
{
	Call	   *call = arg;
	Oid			root;

	call->locked_at = GetCurrentTimestamp();
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	rk_convert_check(call->relid, call->conversion->key, call->caller);
	note_foreign_keys(call->relid);
	root = rk_convert_swap(NULL, call->conversion);
	note_swapped(call->relid, root);
	rk_partition_options_store(root, call->conversion->options);
}

static void
swap(Call *call)
{
	bool		valid;

	show_progress(call, 4);
	check_in_time(call);
	if (!has_check(call->relid, true) ||
		(rk_convert_index_sql(call->conversion, true) != NULL &&
		 (find_index(call->relid, &valid) == NULL || !valid)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s was altered while it was converted", rk_relation_name(call->relid)),
				 errhint("CALL rowkeeper.partition_convert(%s) again.",
						 quote_literal_cstr(rk_relation_name(call->relid)))));
	call->attempts++;
	/* what is read under the locks is in the caches then */
	rk_convert_check(call->relid, call->conversion->key, call->caller);
	rk_convert_warm_up(call->conversion);
	(void) rk_partition_try(rk_convert_locks(call->conversion), swap_under_locks, call, call->insist, &call->failure);
}

/* For how long nobody could use the table: for who measures. */
static void
say_how_long(const Call *call)
{
	long		seconds;
	int			microseconds;

	TimestampDifference(call->locked_at, GetCurrentTimestamp(), &seconds, &microseconds);
	ereport(DEBUG1,
			(errmsg_internal("the table was locked for %.1f ms, after %d attempts",
							 seconds * 1000.0 + microseconds / 1000.0, call->attempts)));
}

/* The partitioned table has the table's name. */
static void
go_on_with_root(Call *call)
{
	char	   *root;

	if (call->conversion->swapped)
		return;
	root = fetch_text(call->relid, "SELECT inhparent::text FROM pg_inherits WHERE inhrelid = $1");
	call->relid = (Oid) strtoul(root, NULL, 10);
	call->conversion->relid = call->relid;
	call->conversion->swapped = true;
	lock_conversion(call->relid);
	rk_progress_begin("partition_convert", call->relid, STEPS, -1);
	show_progress(call, 5);
}

/* ---- steps 5 to 7 ---- */

/* One partition; those that others keep us from are made by maintain(). */
static void
make_partition(Call *call)
{
	RkPartitionSet *set = rk_partition_set_load(call->relid, call->conversion->options);
	bool		more;
	List	   *wanted = rk_partitions_wanted(set, 1, &more);
	ErrorData  *error;

	call->more = wanted != NIL;
	if (wanted == NIL)
		return;
	error = rk_partition_create(set, linitial(wanted), rk_partition_attach_locks(set), call->insist, &call->failure);
	if (error != NULL)
		ReThrowError(error);
}

/* A foreign key that is not valid yet. */
static void
validate_foreign_key(Call *call)
{
	List	   *errands = fetch_errands(call->relid,
										"SELECT c.relowner, format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, k.conname)"
										" FROM rowkeeper._partition_conversions v, jsonb_array_elements(v.validate) f (key)"
										" JOIN pg_namespace n ON n.nspname = f.key ->> 0"
										" JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = f.key ->> 1"
										" JOIN pg_constraint k ON k.conrelid = c.oid AND k.conname = f.key ->> 2"
										" WHERE v.relation = $1 AND k.confrelid = $1 AND NOT k.convalidated LIMIT 1");
	Errand	   *errand;

	show_progress(call, 6);
	call->more = errands != NIL;
	if (errands == NIL)
		return;
	errand = linitial(errands);
	rk_convert_run(errand->role, false, errand->sql);
}

static void
analyze(Call *call)
{
	rk_convert_run(call->conversion->owner, false, psprintf("ANALYZE %s", rk_relation_name(call->relid)));
	rk_progress_end();
	forget_conversion(call->relid);
}

static void
begin_progress(Call *call)
{
	rk_progress_begin("partition_convert", call->relid, STEPS, -1);
	show_progress(call, call->conversion->swapped ? 5 : 1);
}

static void
finish_conversion(Call *call)
{
	do
		insist_on_step(call, make_partition);
	while (call->more);
	do
		commit_step(call, validate_foreign_key);
	while (call->more);
	commit_step(call, analyze);
}

static void
convert(Call *call)
{
	commit_step(call, resume_conversion);
	if (call->conversion == NULL)
		insist_on_step(call, begin_conversion);
	commit_step(call, begin_progress);
	if (!call->conversion->swapped)
	{
		commit_step(call, validate_check);
		make_index(call);
		insist_on_step(call, swap);
		say_how_long(call);
		commit_step(call, go_on_with_root);
	}
	finish_conversion(call);
}

/*
 * rowkeeper.partition_convert(target regclass, by name, every text, ...)
 *
 * Makes a plain table a partitioned one while it is in use; options as of
 * partition(). Begun before: goes on, as it was told then. Partitioned
 * already: a NOTICE. Locks: ACCESS EXCLUSIVE twice, for some milliseconds,
 * within rowkeeper.lock_budget and for as long as rowkeeper.lock_patience, on
 * the table and at the swap also on its views, sequences and the tables of its
 * foreign keys; SHARE UPDATE EXCLUSIVE while rows are checked and the index is
 * built. The caller must own the table, its views and what references it.
 * Errors: 25001 in a transaction block, 0A000 what could not follow, 55P03
 * locks were not to be had, 55006 another session does it, 55000 it took too
 * long or was begun otherwise, 53000 no worker, and those of partition().
 */
Datum
rowkeeper_partition_convert(PG_FUNCTION_ARGS)
{
	Call		call = {.fcinfo = fcinfo,.caller = GetUserId()};
	Oid			locked;

	call.relid = locked = rk_target_argument(fcinfo);
	rk_check_non_atomic(fcinfo, "partition_convert()");
	rk_check_owner(call.relid);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	call.context = AllocSetContextCreate(CurrentMemoryContext, "rowkeeper conversion", ALLOCSET_DEFAULT_SIZES);
	lock_conversion(locked);
	if (rk_partition_is_plain(call.relid) || read_conversion(call.relid) != NULL)
		convert(&call);
	else
		ereport(NOTICE,
				(errmsg("%s is partitioned already", rk_relation_name(call.relid)),
				 errhint("SELECT rowkeeper.partition(%s) changes how its partitions are maintained.",
						 quote_literal_cstr(rk_relation_name(call.relid)))));
	unlock_conversion(locked);
	if (call.relid != locked)
		unlock_conversion(call.relid);
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- giving it up ---- */

/* Before the swap nothing was done but to add a CHECK and an index. */
static void
undo(const RkConversion *conversion)
{
	char	   *drop;

	if (!conversion->swapped)
	{
		drop_old_check(conversion);
		drop = drop_index_sql(conversion->relid, "");
		if (drop != NULL)
			rk_convert_run(conversion->owner, true, drop);
	}
	forget_conversion(conversion->relid);
}

/*
 * partition_off() of a table that is being converted; false: it is not, or is
 * partitioned by now. Locks: ACCESS EXCLUSIVE until commit.
 */
bool
rk_partition_convert_give_up(FunctionCallInfo fcinfo, Oid relid)
{
	RkConversion *conversion = read_conversion(relid);

	if (conversion == NULL)
		return false;
	lock_conversion(relid);
	undo(conversion);
	unlock_conversion(relid);
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
		conversion = read_conversion(lfirst_oid(lc));
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
	if (!rk_partition_try(locks, undo_late, conversion, true, &failure))
		ReThrowError(failure);
	run->changed = 1;
	run->more = true;
}

static void
relation_dropped(const RkDrop *drop)
{
	if (OidIsValid(get_relname_relid("_partition_conversions", get_namespace_oid("rowkeeper", false))))
		forget_conversion(drop->object);
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
