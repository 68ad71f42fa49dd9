/*
 * convert.c
 *
 * partition_convert(): a plain table becomes a partitioned one while it is in
 * use, in steps, each a short transaction of its own:
 *
 *	1  whether it can be; where its rows end; a CHECK of that, not validated
 *	2  the CHECK is validated
 *	3  the unique index that becomes the primary key, CONCURRENTLY
 *	4  the swap (convert_swap.c)
 *	5  what the swap needed is dropped: the index of the old key, which would
 *	   refuse rows that ON CONFLICT does not know of, and the CHECK
 *	6  partitions ahead
 *	7  foreign keys that reference it are validated
 *	8  ANALYZE
 *
 * Each looks at the catalog for what is done already. So whatever ends a call,
 * the next goes on (convert_state.c).
 */
#include "partition/partition.h"

#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#define ARG_SPLIT 11
#define STEPS 8

PG_FUNCTION_INFO_V1(rowkeeper_partition_convert);

typedef struct Call
{
	FunctionCallInfo fcinfo;
	Oid			relid;
	RkConvertSwap *swap;		/* made ready */
	Oid			root;			/* what the swap has made of it */
	Oid			caller;
	RkConversion *conversion;	/* in memory that outlives transactions */
	MemoryContext context;
	bool		insist;
	bool		more;			/* attempts, or commands, are to come */
	int			attempts;		/* at the swap */
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
	rk_commit();
	if (error != NULL)
		ReThrowError(error);
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
		rk_partition_wait(attempts, 0);
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

	rk_partition_commit_at_once();
	rk_convert_drop_check(call->conversion);
	rk_convert_run(call->conversion->owner, false, rk_convert_check_sql(call->conversion, false));
	rk_convert_write(call->conversion);
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
	{
		rk_convert_warn(call->relid, set->key->name);
		call->conversion = rk_convert_plan(set, false);
	}
	rk_convert_check_name(call->conversion);
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
	call->conversion = rk_convert_read(call->relid);
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

static char *
validate_sql(const char *table, const char *constraint)
{
	return psprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s", table, quote_identifier(constraint));
}

static void
validate_check(Call *call)
{
	show_progress(call, 2);
	check_in_time(call);
	if (!rk_convert_has_check(call->relid, false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the constraint rowkeeper_convert of %s is gone", rk_relation_name(call->relid)),
				 errhint("SELECT rowkeeper.partition_off(%s) gives the conversion up; then begin again.",
						 quote_literal_cstr(rk_relation_name(call->relid)))));
	if (!rk_convert_has_check(call->relid, true))
		rk_convert_run(call->conversion->owner, false,
					   validate_sql(rk_relation_name(call->relid), "rowkeeper_convert"));
	show_progress(call, 3);
}

/* What is to be done next for the index, at top level. */
static void
next_index_command(Call *call)
{
	bool		usable;
	char	   *index = rk_convert_find_index(call->conversion, &usable);

	call->command = NULL;
	if (index != NULL && !usable)
		call->command = rk_convert_drop_index_sql(call->conversion, "CONCURRENTLY ");
	else if (index == NULL)
		call->command = rk_convert_index_sql(call->conversion, true);
}

static void
fail_for_worker(Call *call)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("no process is to be had to build or drop an index"),
			 errhint("Raise max_worker_processes; CALL rowkeeper.partition_convert(%s) goes on where it was.",
					 quote_literal_cstr(rk_relation_name(call->relid)))));
}

static void
fail_for_command(Call *call)
{
	ReThrowError(call->failure);
}

/* What a step asks for (call->command), as long as it does. */
static void
run_at_top_level(Call *call, Step next)
{
	for (commit_step(call, next); call->command != NULL; commit_step(call, next))
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

static void
swap_under_locks(void *arg)
{
	Call	   *call = arg;

	rk_partition_note_locked();
	rk_partition_commit_at_once();
	rk_convert_check_prepared(call->conversion, call->swap);
	rk_convert_swap(NULL, call->conversion, call->swap);
	call->root = call->swap->root;
	rk_convert_note_swapped(call->relid, call->root);
	rk_partition_options_store(call->root, call->conversion->options);
}

static void
check_unaltered(Call *call)
{
	bool		needed = rk_convert_index_sql(call->conversion, true) != NULL;
	bool		usable = false;
	bool		found = rk_convert_find_index(call->conversion, &usable) != NULL;

	if (!rk_convert_has_check(call->relid, true) || needed != found || needed != usable)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s was altered while it was converted", rk_relation_name(call->relid)),
				 errhint("CALL rowkeeper.partition_convert(%s) again.",
						 quote_literal_cstr(rk_relation_name(call->relid)))));
}

/* All that can be done while others use the table, and none alters it. */
static void
prepare_swap(void *arg)
{
	Call	   *call = arg;

	rk_check_owner(call->relid);
	call->conversion = rk_convert_read(call->relid);	/* its owner may be
														 * another one by now */
	check_unaltered(call);
	rk_convert_check_name(call->conversion);
	rk_convert_note_foreign_keys(call->relid);
	call->swap = rk_convert_prepare(NULL, call->conversion, call->caller);
}

/* Both parts, or nothing of either. */
static void
attempt_swap(void *arg)
{
	Call	   *call = arg;
	ErrorData  *failure;
	RkLockRequest own[] = {
		{call->relid, ShareUpdateExclusiveLock},
		{InvalidOid, NoLock}
	};

	if (!rk_partition_try(own, prepare_swap, call, call->insist, &failure) ||
		!rk_partition_try_for(RK_LONGEST_SWAP_MS, rk_convert_locks(call->conversion), swap_under_locks, call,
							  call->insist, &failure))
		ReThrowError(failure);
}

static void
swap(Call *call)
{
	ErrorData  *error;

	show_progress(call, 4);
	check_in_time(call);
	call->attempts++;
	call->swap = NULL;
	error = rk_attempt(attempt_swap, call);
	if (error == NULL)
		return;

	/*
	 * what others alter without a lock on the table may make any statement
	 * fail
	 */
	if (!rk_partition_is_for_lock(error) &&
		(call->swap == NULL || !rk_convert_is_altered(call->conversion, call->swap)))
		ReThrowError(error);
	call->failure = error;
}

/* The partitioned table has the table's name. */
static void
go_on_with_root(Call *call)
{
	if (call->conversion->swapped)
		return;
	/* whoever waited for the locks of the swap may do with it as he likes */
	if (get_rel_name(call->root) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table was dropped while it was converted")));
	call->relid = call->root;
	call->conversion->relid = call->relid;
	call->conversion->swapped = true;
	rk_convert_lock(call->relid);
	rk_progress_begin("partition_convert", call->relid, STEPS, -1);
	show_progress(call, 5);
}

/* ---- steps 5 to 8 ---- */

static void
next_left_over_index(Call *call)
{
	show_progress(call, 5);
	call->command = rk_convert_left_over_index(call->relid);
}

static void
drop_left_over(void *arg)
{
	Call	   *call = arg;

	rk_partition_commit_at_once();
	rk_convert_drop_left_over(call->relid);
}

/* Of the partition that was the table; readers of the new one use it, too. */
static void
tidy(Call *call)
{
	List	   *partitions = rk_convert_left_over_in(call->relid);
	RkLockRequest locks[] = {
		{partitions == NIL ? InvalidOid : linitial_oid(partitions), AccessExclusiveLock},
		{InvalidOid, NoLock}
	};

	if (partitions != NIL)
		(void) rk_partition_try(locks, drop_left_over, call, call->insist, &call->failure);
}

/* One partition; those that others keep us from are made by maintain(). */
static void
make_partition(Call *call)
{
	RkPartitionSet *set = rk_partition_set_load(call->relid, call->conversion->options);
	bool		more;
	List	   *wanted = rk_partitions_wanted(set, 1, &more);
	ErrorData  *error;

	show_progress(call, 6);
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
	List	   *errands = rk_convert_errands(call->relid,
											 "SELECT c.relowner, format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, k.conname)"
											 " FROM rowkeeper._partition_conversions v, jsonb_array_elements(v.validate) f (key)"
											 " JOIN pg_namespace n ON n.nspname = f.key ->> 0"
											 " JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = f.key ->> 1"
											 " JOIN pg_constraint k ON k.conrelid = c.oid AND k.conname = f.key ->> 2"
											 " WHERE v.relation = $1 AND k.confrelid = $1 AND NOT k.convalidated LIMIT 1");
	RkConvertErrand *errand;

	show_progress(call, 7);
	call->more = errands != NIL;
	if (errands == NIL)
		return;
	errand = linitial(errands);
	rk_convert_run(errand->role, false, errand->sql);
}

static void
analyze(void *arg)
{
	Call	   *call = arg;

	rk_convert_run(call->conversion->owner, false, psprintf("ANALYZE %s", rk_relation_name(call->relid)));
}

/* It is done, even where a function of an index does not run in ANALYZE. */
static void
end_conversion(Call *call)
{
	ErrorData  *error;

	rk_progress_end();
	rk_convert_forget(call->relid);
	error = rk_attempt(analyze, call);
	if (error != NULL)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not analyze %s: %s", rk_relation_name(call->relid), error->message),
				 errhint("ANALYZE it: autovacuum does not analyze partitioned tables.")));
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
	run_at_top_level(call, next_left_over_index);
	insist_on_step(call, tidy);
	do
		insist_on_step(call, make_partition);
	while (call->more);
	do
		commit_step(call, validate_foreign_key);
	while (call->more);
	commit_step(call, end_conversion);
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
		run_at_top_level(call, next_index_command);
		insist_on_step(call, swap);
		rk_partition_say_locked(call->attempts);
		commit_step(call, go_on_with_root);
	}
	finish_conversion(call);
}

/*
 * rowkeeper.partition_convert(target regclass, by name, every text, ...)
 *
 * Makes a plain table a partitioned one while it is in use; options as of
 * partition(). split: divides what becomes its first partition, or is that
 * (split.c). Begun before: goes on, as it was told then. Partitioned
 * already: a NOTICE. Locks: ACCESS EXCLUSIVE three times, for some
 * milliseconds, within rowkeeper.lock_budget and for as long as
 * rowkeeper.lock_patience, on the table (after the swap: its first partition) and
 * at the swap also on its views, sequences and the tables of its foreign keys;
 * SHARE UPDATE EXCLUSIVE while rows are checked, the index is built and the
 * swap is prepared. The caller must own the table, its views and what references it.
 * Errors: 25001 in a transaction block, 25006 on a standby, 0A000 what could
 * not follow, 55P03 locks were not to be had, 55006 another session does it,
 * 55000 it took too long or was begun otherwise, 53000 no worker, and those of
 * partition().
 */
Datum
rowkeeper_partition_convert(PG_FUNCTION_ARGS)
{
	Call		call = {.fcinfo = fcinfo,.caller = GetUserId()};
	Oid			locked;
	bool		split;

	call.relid = locked = rk_target_argument(fcinfo);
	rk_check_non_atomic(fcinfo, "partition_convert()");
	rk_check_owner(call.relid);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	rk_begin_writing("CALL rowkeeper.partition_convert()");
	call.context = AllocSetContextCreate(CurrentMemoryContext, "rowkeeper conversion", ALLOCSET_DEFAULT_SIZES);
	rk_convert_lock(locked);
	split = (!PG_ARGISNULL(ARG_SPLIT) && PG_GETARG_BOOL(ARG_SPLIT)) || rk_partition_is_splitting(call.relid);
	if (rk_partition_is_plain(call.relid) || rk_convert_read(call.relid) != NULL)
		convert(&call);
	else if (!split)
		ereport(NOTICE,
				(errmsg("%s is partitioned already", rk_relation_name(call.relid)),
				 errhint("SELECT rowkeeper.partition(%s) changes how its partitions are maintained.",
						 quote_literal_cstr(rk_relation_name(call.relid)))));
	if (split)
		rk_partition_split(call.relid);
	rk_convert_unlock(locked);
	if (call.relid != locked)
		rk_convert_unlock(call.relid);
	SPI_finish();
	PG_RETURN_VOID();
}
