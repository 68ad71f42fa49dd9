/*
 * locks.c
 *
 * Nobody waits long for maintenance. Who asks for a lock makes everybody
 * behind him wait as well, and lock_timeout counts anew for each lock. So all
 * the locks of an attempt share one deadline (rowkeeper.lock_budget): they are
 * taken one by one before anything is done, each with what remains of it, and
 * what is done then scans nothing. An attempt that does not succeed leaves
 * nothing, and is made again later, after a time that chance decides.
 */
#include "partition/partition.h"

#include "access/relation.h"
#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timeout.h"
#include "utils/wait_event.h"

#define LONGEST_BODY_MS 60000	/* once the locks are had */
#define FIRST_PAUSE_MS 40
#define LONGEST_PAUSE_MS 2000

/* The other tables of a table's foreign keys, out and in. */
List *
rk_partition_partners(Oid root)
{
	return rk_fetch_oids(psprintf("SELECT confrelid FROM pg_constraint"
								  " WHERE conrelid = %u AND contype = 'f' AND conparentid = 0"
								  " UNION SELECT conrelid FROM pg_constraint"
								  " WHERE confrelid = %u AND contype = 'f' AND conparentid = 0 ORDER BY 1",
								  root, root));
}

/* Whether a relation was made in this transaction, so that nobody waits for it. */
static bool
is_private(Oid relid)
{
	Relation	rel;
	bool		result;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	rel = relation_open(relid, NoLock);
	result = rel->rd_createSubid != InvalidSubTransactionId;
	relation_close(rel, AccessShareLock);
	return result;
}

/*
 * Whether partitions can be attached within a transaction of somebody else's
 * without making others wait until its end.
 */
bool
rk_partition_may_attach(const RkPartitionSet *set)
{
	List	   *partners = rk_partition_partners(set->root);
	ListCell   *lc;

	if (is_private(set->root))
		partners = list_delete_oid(partners, set->root);
	else if (OidIsValid(set->default_partition))
		return false;
	foreach(lc, partners)
		if (!is_private(lfirst_oid(lc)))
		return false;
	return true;
}

/* ---- an attempt ---- */

static void
set_milliseconds(const char *setting, int milliseconds)
{
	(void) set_config_option(setting, psprintf("%d", milliseconds), PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Take a lock with what remains of the budget, half of it at most; raises
 * 55P03.
 */
static void
lock_within(Oid relid, LOCKMODE mode, TimestampTz deadline)
{
	long		remaining = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	if (remaining <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not lock %s within rowkeeper.lock_budget", rk_relation_name(relid))));
	set_milliseconds("lock_timeout", (int) Max(1, Min(remaining, rk_lock_budget / 2)));
	LockRelationOid(relid, mode);
}

typedef struct Attempt
{
	const RkLockRequest *locks;
	void		(*body) (void *arg);
	void	   *arg;
	bool		insist;			/* an autovacuum gives way */
	int			limit;			/* of the body, milliseconds */
} Attempt;

static TimeoutId limit_timeout = MAX_TIMEOUTS;	/* not registered yet */
static volatile sig_atomic_t limit_reached;

/* As a cancelled query. */
static void
cancel_body(void)
{
	limit_reached = true;
	QueryCancelPending = true;
	InterruptPending = true;
}

/* A limit of our own: statement_timeout is the session's, or none. */
static void
begin_body(int limit)
{
	if (limit_timeout == MAX_TIMEOUTS)
		limit_timeout = RegisterTimeout(USER_TIMEOUT, cancel_body);
	limit_reached = false;
	enable_timeout_after(limit_timeout, limit);
}

static void
end_body(TimestampTz start)
{
	disable_timeout(limit_timeout, false);
	if (limit_reached)			/* too late to matter */
		QueryCancelPending = false;
	rk_partition_budget_spend((int) TimestampDifferenceMilliseconds(start, GetCurrentTimestamp()));
}

/*
 * Code of the table's owner may run (the CHECK of a domain, of a bound) and not
 * end. That is his failure, and no cancelled query: others are maintained.
 */
static void
run_body(const Attempt *attempt)
{
	MemoryContext context = CurrentMemoryContext;
	int			limit = rk_partition_budget_limit(attempt->limit);
	TimestampTz start = GetCurrentTimestamp();

	begin_body(limit);
	PG_TRY();
	{
		attempt->body(attempt->arg);
	}
	PG_CATCH();
	{
		end_body(start);
		if (!limit_reached || geterrcode() != ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_OPERATOR_INTERVENTION),
				 errmsg("maintenance of a table took longer than %d ms and was given up", limit)));
	}
	PG_END_TRY();
	end_body(start);
}

static void
run_attempt(void *arg)
{
	Attempt    *attempt = arg;
	int			level = NewGUCNestLevel();
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), rk_lock_budget);

	/*
	 * An autovacuum gives way to who has waited for deadlock_timeout, which
	 * is longer than we ever wait.
	 */
	if (attempt->insist)
		set_milliseconds("deadlock_timeout", Max(1, rk_lock_budget / 4));
	for (const RkLockRequest *lock = attempt->locks; OidIsValid(lock->relid); lock++)
		lock_within(lock->relid, lock->mode, deadline);

	/* what it locks besides is nobody's, or nearly */
	set_milliseconds("lock_timeout", Max(1, rk_lock_budget / 2));
	run_body(attempt);
	AtEOXact_GUC(true, level);
}

/* Whether it is worth another attempt. */
bool
rk_partition_is_for_lock(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED;
}

/*
 * The commit of this transaction waits for no disk or standby while others wait
 * for it: what comes after it does. Should it be lost in a crash, so is all that
 * was written since.
 */
void
rk_partition_commit_at_once(void)
{
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Take the locks (the last one's relid is InvalidOid) and do something, or
 * nothing at all: false where a lock could not be had in time. Everything
 * that body() changes settings for ends with it. insist: of later attempts.
 * limit: milliseconds that the body may take.
 */
bool
rk_partition_try_for(int limit, const RkLockRequest *locks, void (*body) (void *arg), void *arg,
					 bool insist, ErrorData **failure)
{
	Attempt		attempt = {.locks = locks,.body = body,.arg = arg,.insist = insist,.limit = limit};
	ErrorData  *error = rk_attempt(run_attempt, &attempt);

	if (error == NULL)
		return true;
	if (!rk_partition_is_for_lock(error))
		ReThrowError(error);
	*failure = error;
	return false;
}

/* The same, where the locks stop nobody's work for long. */
bool
rk_partition_try(const RkLockRequest *locks, void (*body) (void *arg), void *arg,
				 bool insist, ErrorData **failure)
{
	return rk_partition_try_for(LONGEST_BODY_MS, locks, body, arg, insist, failure);
}

void
rk_partition_add_lock(RkLockRequest *locks, int *count, Oid relid, LOCKMODE mode)
{
	locks[*count].relid = relid;
	locks[*count].mode = mode;
	(*count)++;
}

/* Milliseconds until the next attempt: longer each time, and chance decides. */
int
rk_partition_pause(int attempts)
{
	int			pause = Min(FIRST_PAUSE_MS << Min(attempts, 8), LONGEST_PAUSE_MS);

	return (int) pg_prng_uint64_range(&pg_global_prng_state, pause / 2, pause + pause / 2);
}

/* Sleep until then, and no less than so many milliseconds; the transaction goes on. */
void
rk_partition_wait(int attempts, int at_least)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Max(rk_partition_pause(attempts), at_least), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* ---- for who measures ---- */

static TimestampTz locked_at;
static TimestampTz unlocked_at;

/* Locks are given back after this, and files of dropped tables removed later still. */
static void
note_commit(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		unlocked_at = GetCurrentTimestamp();
}

/* From here on nobody can use a table, until this transaction ends. */
void
rk_partition_note_locked(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(note_commit, NULL);
	registered = true;
	locked_at = GetCurrentTimestamp();
}

/* For how long nobody could; in the transaction after that. */
void
rk_partition_say_locked(int attempts)
{
	long		seconds;
	int			microseconds;

	TimestampDifference(locked_at, unlocked_at, &seconds, &microseconds);
	ereport(DEBUG1,
			(errmsg_internal("the table was locked for %.1f ms, after %d attempts",
							 seconds * 1000.0 + microseconds / 1000.0, attempts)));
}

/* The locks that attaching a partition takes, in the order of OIDs. */
RkLockRequest *
rk_partition_attach_locks(const RkPartitionSet *set)
{
	List	   *partners = rk_partition_partners(set->root);
	bool		to_itself = list_member_oid(partners, set->root);
	RkLockRequest *locks = palloc0(sizeof(RkLockRequest) * (list_length(partners) + 3));
	int			count = 0;
	ListCell   *lc;

	partners = list_delete_oid(partners, set->root);

	rk_partition_add_lock(locks, &count, set->root, to_itself ? ShareRowExclusiveLock : ShareUpdateExclusiveLock);
	foreach(lc, partners)
		rk_partition_add_lock(locks, &count, lfirst_oid(lc), ShareRowExclusiveLock);
	if (OidIsValid(set->default_partition))
		rk_partition_add_lock(locks, &count, set->default_partition, AccessExclusiveLock);
	return locks;
}

/*
 * The locks that taking a partition away needs: a plain DETACH locks out
 * everybody, the drop of one that references another table does so there.
 */
RkLockRequest *
rk_partition_removal_locks(const RkPartitionSet *set, Oid partition, bool detach, bool drop)
{
	List	   *partners = list_delete_oid(rk_partition_partners(detach ? set->root : partition), set->root);
	List	   *tree = rk_relation_tree(partition, NoLock);
	RkLockRequest *locks = palloc0(sizeof(RkLockRequest) * (list_length(partners) + list_length(tree) + 3));
	int			count = 0;
	ListCell   *lc;

	if (detach)
		rk_partition_add_lock(locks, &count, rk_partition_parent_of(set, partition), AccessExclusiveLock);
	if (detach && OidIsValid(set->default_partition))
		rk_partition_add_lock(locks, &count, set->default_partition, AccessExclusiveLock);
	if (detach || drop)
		foreach(lc, partners)
			rk_partition_add_lock(locks, &count, lfirst_oid(lc), drop ? AccessExclusiveLock : ShareRowExclusiveLock);
	foreach(lc, tree)
		rk_partition_add_lock(locks, &count, lfirst_oid(lc), AccessExclusiveLock);
	return locks;
}
