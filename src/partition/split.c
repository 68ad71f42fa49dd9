/*
 * split.c
 *
 * A wide partition, as a conversion leaves one, is divided into partitions of
 * the table's period while it is in use: partition_convert(..., split => true).
 * They are those of a new partitioned table with the same bounds,
 * <table>_hist, which takes its place:
 *
 *	1  <table>_hist and its partitions, empty (split_leaves.c)
 *	2  triggers that write to it what is written to the partition (split_apply.c)
 *	3  the rows there are (split_copy.c)
 *	4  every snapshot from before the last of them is gone: who has one would
 *	   not see rows there that he sees here
 *	5  both are compared, in one snapshot
 *	6  the swap: one is detached, the other attached (split_swap.c)
 *	7  the old one is dropped, and what the swap left for later is done
 *	8  ANALYZE
 *
 * Here are the order of these steps, and how one is run. A row of
 * rowkeeper._partition_splits (split_state.c) says that a partition is on its
 * way, and how far; so whatever ends a call, the next goes on. Whoever alters
 * the table meanwhile makes the copy useless, and it is begun anew. What fails
 * for the rows that there are is taken back.
 */
#include "partition/partition.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#define STEPS 8
#define ROUNDS 3				/* before we give up against who alters it */

/* ---- running a step ---- */

typedef struct StepRun
{
	RkSplitStep step;
	RkSplitCall *call;
} StepRun;

static void
run_step(void *arg)
{
	StepRun    *run = arg;

	run->step(run->call);
}

/*
 * A step, committed. What locks rows must not fail for a snapshot that is
 * older than its statement, and what others have altered must be seen, whatever
 * the session's isolation is. There are as many as partitions and batches: only
 * the last one waits for the disk; what a crash takes back the next call does.
 */
static ErrorData *
try_step(RkSplitCall *call, RkSplitStep step)
{
	StepRun		run = {step, call};
	ErrorData  *error;
	MemoryContext old = MemoryContextSwitchTo(call->step_context);

	MemoryContextReset(call->step_context);
	call->for_good = false;
	XactIsoLevel = XACT_READ_COMMITTED;
	if (step != rk_split_analyze)
		rk_partition_commit_at_once();
	error = rk_attempt(run_step, &run);
	MemoryContextSwitchTo(old);
	if (error == NULL)
	{
		rk_commit();
		CHECK_FOR_INTERRUPTS();
	}
	return error;
}

/* ---- a step that fails ---- */

bool
rk_split_is_in_the_way(const ErrorData *error)
{
	return rk_partition_is_for_lock(error) || error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

static void
undo(void *arg)
{
	rk_split_undo(arg);
}

static void
drop_triggers(void *arg)
{
	const RkSplit *split = arg;

	rk_split_drop_triggers(split->wide);
}

/* Nobody writes to the copy any more, or fails for it. */
static void
stop_watching(RkSplitCall *call)
{
	RkSplit    *split = rk_split_current(call->root);
	RkLockRequest locks[] = {
		{split->wide, AccessExclusiveLock},
		{InvalidOid, NoLock}
	};

	if (OidIsValid(split->wide))
		(void) rk_partition_try(locks, drop_triggers, split, call->insist, &call->failure);
}

/* The copy goes, too. */
static void
undo_all(RkSplitCall *call)
{
	RkSplit    *split = rk_split_current(call->root);
	List	   *tree = OidIsValid(split->history) ? rk_relation_tree(split->history, NoLock) : NIL;
	int			count;
	RkLockRequest *locks = rk_split_partner_locks(split->root, AccessExclusiveLock, list_length(tree) + 1, &count);
	ListCell   *lc;

	if (OidIsValid(split->wide))
		rk_partition_add_lock(locks, &count, split->wide, AccessExclusiveLock);
	foreach(lc, tree)
		rk_partition_add_lock(locks, &count, lfirst_oid(lc), AccessExclusiveLock);
	(void) rk_partition_try(locks, undo, split, call->insist, &call->failure);
}

/* What a step has failed for may be that somebody has altered the table since. */
static void
judge(RkSplitCall *call)
{
	RkSplit    *split = rk_split_read(call->root);

	call->more = split != NULL && !split->swapped;
	call->altered = call->more && !rk_split_is_unaltered(split);
}

/* A step that takes back, as long as there is patience for its locks; whether it is done. */
static bool
take_back(RkSplitCall *call, RkSplitStep step)
{
	TimestampTz since = GetCurrentTimestamp();
	ErrorData  *error;

	for (int attempts = 0;; attempts++)
	{
		call->failure = NULL;
		call->insist = attempts > 0;
		error = try_step(call, step);
		if (error != NULL)
			rk_commit();
		if (error == NULL && call->failure == NULL)
			return true;
		if ((error != NULL && !rk_split_is_in_the_way(error)) ||
			TimestampDifferenceExceeds(since, GetCurrentTimestamp(), rk_lock_patience))
			return false;
		rk_partition_wait(attempts, 0);
	}
}

/*
 * Whether it fails for the rows that there are, say, or for the room that they
 * need: so would the next call, and in the meantime whoever writes to the table.
 */
static bool
is_for_good(const ErrorData *error, bool for_good)
{
	int			category = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return error->sqlerrcode == ERRCODE_DISK_FULL ||
		(for_good && category != ERRCODE_INSUFFICIENT_RESOURCES && category != ERRCODE_SYSTEM_ERROR);
}

/*
 * A step has failed. Where others were in the way, or the call was to end, the
 * next goes on where it was. Where the table was altered that is why, and it is
 * begun anew. What fails for good is taken back. Anything else may pass, or be
 * done by anybody (a view of the partition): hours of work are not given up for it.
 */
static void
fail(RkSplitCall *call, RkSplitStep step, ErrorData *error)
{
	bool		for_good = call->for_good;
	bool		goes_on = rk_split_is_in_the_way(error) ||
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION;

	/* where the error is stays */
	call->step_context = AllocSetContextCreate(call->context, "rowkeeper split failure", ALLOCSET_DEFAULT_SIZES);
	rk_commit();
	if (!goes_on && try_step(call, judge) == NULL)
	{
		if (call->altered && step != stop_watching && step != undo_all)
			return;
		if (call->more && is_for_good(error, for_good) && take_back(call, stop_watching))
			(void) take_back(call, undo_all);
	}
	rk_progress_end();
	rk_commit();
	ReThrowError(error);
}

/* A step; where that fails and its error is not raised, call->altered is true. */
void
rk_split_commit(RkSplitCall *call, RkSplitStep step)
{
	ErrorData  *error = try_step(call, step);

	if (error != NULL)
		fail(call, step, error);
}

static void
fail_for_lock(RkSplitCall *call)
{
	rk_split_check_there(call->root);
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not lock %s and what belongs to it: %s", rk_relation_name(call->root), call->reason),
			 errhint("CALL rowkeeper.partition_convert(%s) goes on where it was.",
					 quote_literal_cstr(rk_relation_name(call->root)))));
}

/* Somebody was in the way: wait, or fail where that has lasted for too long. */
static void
wait_for_others(RkSplitCall *call, const ErrorData *failure, TimestampTz since, int attempts)
{
	call->reason = MemoryContextStrdup(call->context, failure->message);
	if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), rk_lock_patience))
		rk_split_commit(call, fail_for_lock);
	rk_partition_wait(attempts, 0);
}

/* A step that says whether it has to be tried again for a lock. */
void
rk_split_insist(RkSplitCall *call, RkSplitStep step)
{
	TimestampTz since = GetCurrentTimestamp();

	for (int attempts = 0;; attempts++)
	{
		call->failure = NULL;
		call->insist = attempts > 0;
		rk_split_commit(call, step);
		if (call->failure == NULL)
			return;
		wait_for_others(call, call->failure, since, attempts);
	}
}

/*
 * A step whose transaction gives way to others, and comes again. Returns how
 * long it took, in microseconds.
 */
long
rk_split_give_way(RkSplitCall *call, RkSplitStep step, void (*failed) (RkSplitCall *call))
{
	TimestampTz since = GetCurrentTimestamp();

	for (int attempts = 0;; attempts++)
	{
		TimestampTz begun = GetCurrentTimestamp();
		ErrorData  *error = try_step(call, step);

		if (error == NULL)
			return Max(1, (long) (GetCurrentTimestamp() - begun));
		failed(call);
		if (!rk_split_is_in_the_way(error))
		{
			fail(call, step, error);
			return 1;
		}
		rk_commit();
		wait_for_others(call, error, since, attempts);
	}
}

/* The split, where the copy is of use; NULL: it is not. */
RkSplit *
rk_split_useful(RkSplitCall *call)
{
	RkSplit    *split = rk_split_current(call->root);

	call->altered = !rk_split_is_unaltered(split);
	return call->altered ? NULL : split;
}

/* ---- the steps in their order ---- */

static void
resume(RkSplitCall *call)
{
	RkSplit    *split = rk_split_read(call->root);

	call->more = split != NULL;
	call->swapped = split != NULL && split->swapped;
	call->altered = false;
	if (split == NULL || split->swapped)
		return;
	if (!rk_split_is_unaltered(split))
		call->altered = true;
	else
		rk_split_check(split->root, split->wide);
}

static void
begin_progress(RkSplitCall *call)
{
	RkSplit    *split = rk_split_current(call->root);
	char	   *rows = !OidIsValid(split->wide) ? NULL
		: rk_fetch_text_about(rk_extension_owner(), split->wide,
							  "SELECT greatest(reltuples, 0)::bigint::text FROM pg_class WHERE oid = $1");

	rk_progress_begin("partition_split", call->root, STEPS, rows == NULL ? -1 : atoll(rows));
}

/* Up to the swap, unless the table was altered meanwhile. */
static void
run_once(RkSplitCall *call)
{
	call->attempts = 0;
	do
		rk_split_insist(call, rk_split_make_leaves);
	while (call->more && !call->altered);
	if (!call->altered)
		rk_split_insist(call, rk_split_watch);
	if (!call->altered)
		rk_split_copy_rows(call);
	if (!call->altered)
		rk_split_wait_for_snapshots(call);
	if (!call->altered)
		rk_split_compare(call);
	if (!call->altered)
		rk_split_swap(call);
}

static void
fail_for_changes(RkSplitCall *call)
{
	rk_split_check_there(call->root);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s was altered each time while its first partition was split", rk_relation_name(call->root)),
			 errhint("CALL rowkeeper.partition_convert(%s, split => true) once it is not.",
					 quote_literal_cstr(rk_relation_name(call->root)))));
}

/* Whether a split was begun, and not ended. */
bool
rk_partition_is_splitting(Oid root)
{
	return rk_split_read(root) != NULL;
}

/*
 * What retention may take away of what is no longer kept: not the partition that
 * is being divided, which goes as those that take its place, and none of them
 * before they are the table's like any other.
 */
List *
rk_split_spare(const RkPartitionSet *set, List *expired)
{
	RkSplit    *split = rk_split_read(set->root);
	ListCell   *lc;

	if (split == NULL)
		return expired;
	foreach(lc, expired)
	{
		const RkPartition *partition = lfirst(lc);

		if (partition->relid == split->wide || partition->relid == split->history || partition->parent == split->history)
			expired = foreach_delete_current(expired, lc);
	}
	return expired;
}

/*
 * Divide the first partition of a maintained table, or go on with that. Within
 * SPI of a procedure that may commit. Locks: ACCESS EXCLUSIVE for some
 * milliseconds, within rowkeeper.lock_budget, on the table and what is
 * exchanged; SHARE ROW EXCLUSIVE on the partition and the tables of its foreign
 * keys; ACCESS EXCLUSIVE on those as the old partition is dropped. Rows of a
 * batch are locked for some milliseconds. Errors: 0A000 it cannot be divided,
 * 54000 into too many, 42P07 a name is taken, 55P03 locks were not to be had,
 * 55000 it was altered or given up meanwhile, 42P01 dropped.
 */
void
rk_partition_split(Oid root)
{
	RkSplitCall call = {.root = root};
	int			begun = 0;

	call.context = AllocSetContextCreate(CurrentMemoryContext, "rowkeeper split", ALLOCSET_DEFAULT_SIZES);
	call.step_context = AllocSetContextCreate(call.context, "rowkeeper split step", ALLOCSET_DEFAULT_SIZES);
	rk_commit();
	while (!call.swapped)
	{
		rk_split_commit(&call, resume);
		if (call.swapped)
			break;
		if (call.altered)
		{
			rk_split_insist(&call, stop_watching);
			rk_split_insist(&call, undo_all);
			continue;
		}
		if (!call.more && begun++ == ROUNDS)
			rk_split_commit(&call, fail_for_changes);
		if (!call.more)
			rk_split_insist(&call, rk_split_begin);
		if (call.nothing)
			return;
		rk_split_commit(&call, begin_progress);
		run_once(&call);
	}
	rk_split_open(&call);
	rk_split_insist(&call, rk_split_drop_old);
	rk_split_commit(&call, rk_split_finish);
	rk_split_commit(&call, rk_split_analyze);
}
