/*
 * upkeep.c
 *
 * What maintain() does for partitioned tables: a task that makes partitions
 * ahead and one that takes old ones away, each a queue of tables. A table that
 * has something to do does a piece of it and is committed; one whose locks
 * are not to be had goes to the end of the queue, and comes again for as long
 * as rowkeeper.lock_patience; one that fails is recorded, and the next is taken.
 * Nothing is locked or opened for a table that has nothing to do.
 */
#include "partition/partition.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#define CREATED_AT_ONCE 50		/* between commits, where nobody is in the way */
#define NAP_MS 100
#define NAPS_IDLE 10			/* then who had nothing to do is asked again */

typedef RkWork (*Work) (RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run);

/* Whether a task may have something to do for a table. */
typedef bool (*Concerns) (const RkPartitionTable *table, List *intents);

/* What is kept from run to run of one maintain(). */
typedef struct Queue
{
	List	   *turns;			/* RkTurn * */
	List	   *idle;			/* those that had nothing to do */
	int			naps;			/* since those were asked */
	List	   *options;		/* as they were read for all at once:
								 * RkPartitionTable * */
} Queue;

/* ---- the queue ---- */

static Queue *
make_queue(RkMaintainRun *run, Concerns concerns)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	Queue	   *queue = palloc0(sizeof(Queue));
	List	   *intents = rk_partition_intents();
	ListCell   *lc;

	rk_partition_registry_refresh();
	queue->options = list_concat(rk_partition_tables(), rk_partition_own_tables());
	foreach(lc, queue->options)
	{
		RkPartitionTable *table = lfirst(lc);
		RkTurn	   *turn;

		if (!concerns(table, intents) || !rk_is_relation_owner(table->root, GetUserId()) ||
			(OidIsValid(run->target) && run->target != table->root && rk_root_of(run->target) != table->root))
			continue;
		turn = palloc0(sizeof(RkTurn));
		turn->root = table->root;
		turn->intents = list_member_oid(intents, table->root);
		queue->turns = lappend(queue->turns, turn);
	}
	MemoryContextSwitchTo(old);
	return queue;
}

/* What the queue read of a table; only for its first turn. */
static RkPartitionOptions *
take_options(Queue *queue, Oid root)
{
	ListCell   *lc;

	foreach(lc, queue->options)
	{
		RkPartitionTable *table = lfirst(lc);
		RkPartitionOptions *options = table->options;

		if (table->root == root && options != NULL)
		{
			table->options = NULL;
			return options;
		}
		if (table->root == root)
			break;
	}
	return rk_partition_options_of(root);
}

/* The first turn that need not wait, taken out; NULL: all must. */
static RkTurn *
take_turn(Queue *queue)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	foreach(lc, queue->turns)
	{
		RkTurn	   *turn = lfirst(lc);

		if (turn->not_before <= now)
		{
			queue->turns = foreach_delete_current(queue->turns, lc);
			return turn;
		}
	}
	return NULL;
}

static void
put_turn(Queue *queue, RkTurn *turn, RkMaintainRun *run, bool first)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);

	queue->turns = first ? lcons(turn, queue->turns) : lappend(queue->turns, turn);
	MemoryContextSwitchTo(old);
}

static void
put_idle(Queue *queue, RkTurn *turn, RkMaintainRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);

	queue->idle = lappend(queue->idle, turn);
	MemoryContextSwitchTo(old);
}

/*
 * All that have something to do must wait for locks. Others may have come to
 * need something since they were asked.
 */
static void
nap(Queue *queue, RkMaintainRun *run)
{
	MemoryContext old;

	pg_usleep(NAP_MS * 1000L);
	if (++queue->naps < NAPS_IDLE)
		return;
	old = MemoryContextSwitchTo(run->context);
	queue->turns = list_concat(queue->turns, queue->idle);
	MemoryContextSwitchTo(old);
	queue->idle = NIL;
	queue->naps = 0;
}

/* To be recorded in a run of its own, after what was done is committed. */
void
rk_partition_fail_later(RkTurn *turn, RkMaintainRun *run, const ErrorData *error)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	ErrorData  *copy = palloc0(sizeof(ErrorData));

	copy->elevel = ERROR;
	copy->sqlerrcode = error->sqlerrcode;
	copy->message = pstrdup(error->message);
	copy->detail = error->detail != NULL ? pstrdup(error->detail) : NULL;
	copy->hint = error->hint != NULL ? pstrdup(error->hint) : NULL;
	copy->assoc_context = run->context;
	turn->failed = copy;
	MemoryContextSwitchTo(old);
}

/* Who has locks on a table or on those of its foreign keys: "pid, pid". */
static char *
holders_of(Oid root)
{
	return rk_fetch_text_about(rk_extension_owner(), root,
							   "SELECT string_agg(DISTINCT l.pid::text, ', ') FROM pg_locks l"
							   " WHERE l.granted AND l.pid <> pg_backend_pid()"
							   " AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())"
							   " AND l.relation IN (SELECT p.relid FROM pg_partition_tree($1) p"
							   "  UNION SELECT confrelid FROM pg_constraint WHERE conrelid = $1"
							   "  UNION SELECT conrelid FROM pg_constraint WHERE confrelid = $1)");
}

RK_NORETURN static void
give_up(const RkTurn *turn)
{
	char	   *pids = holders_of(turn->root);

	ereport(ERROR,
			(errcode(turn->failed->sqlerrcode),
			 errmsg("could not lock %s and the tables of its foreign keys: %s",
					rk_relation_name(turn->root), turn->failed->message),
			 pids != NULL ? errdetail("Processes that have locks there now: %s.", pids) : 0,
			 errhint("The next run tries again.")));
}

/* Its locks were not to be had: when to try again; raises when for too long. */
static void
postpone(RkTurn *turn)
{
	TimestampTz now = GetCurrentTimestamp();
	int			pause = rk_partition_pause(turn->attempts);

	if (turn->attempts++ == 0)
		turn->since = now;
	if (TimestampDifferenceExceeds(turn->since, now, rk_lock_patience))
		give_up(turn);
	turn->not_before = TimestampTzPlusMilliseconds(now, pause);
	turn->failed = NULL;
}

/* Read a table's partitions and work on it, in memory that is given back. */
static RkWork
run_work(RkTurn *turn, RkPartitionOptions *options, RkMaintainRun *run, Work work)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rowkeeper partitions",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	RkPartitionSet *set = rk_partition_set_load(turn->root, options);
	RkWork		result;

	rk_partition_budget_begin(set->owner);
	result = work(set, turn, run);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return result;
}

/* One table's turn: the queue goes on whatever comes of it. */
static void
run_turn(Queue *queue, RkTurn *turn, RkMaintainRun *run, Work work)
{
	RkPartitionOptions *options;

	rk_maintain_name_table(run, turn->root);
	if (run->table_name == NULL)
		return;					/* dropped in the meantime */
	run->more = true;			/* also where this raises */
	if (turn->failed != NULL)
		ReThrowError(turn->failed);
	options = take_options(queue, turn->root);
	if (options == NULL)
		return;
	switch (run_work(turn, options, run, work))
	{
		case RK_WORK_IDLE:
			put_idle(queue, turn, run);
			break;
		case RK_WORK_AGAIN:
			if (run->changed > 0)
				turn->attempts = 0;
			put_turn(queue, turn, run, true);
			break;
		case RK_WORK_LATER:
			postpone(turn);
			put_turn(queue, turn, run, false);
			break;
	}
}

/* Take turns until one has done something. */
static void
run_queue(RkMaintainRun *run, Concerns concerns, Work work)
{
	Queue	   *queue;

	if (run->state == NULL)
		run->state = make_queue(run, concerns);
	queue = run->state;
	while (queue->turns != NIL)
	{
		RkTurn	   *turn = take_turn(queue);
		int			left = list_length(queue->turns);

		CHECK_FOR_INTERRUPTS();
		if (turn == NULL)
		{
			nap(queue, run);
			run->more = true;
			return;
		}
		run_turn(queue, turn, run, work);
		if (list_length(queue->turns) > left || run->changed > 0)
			return;
		run->more = false;
	}
}

/* ---- partitions ahead ---- */

typedef struct Creation
{
	const RkPartitionSet *set;
	const RkWanted *wanted;
	const RkLockRequest *locks;
	bool		insist;
	Oid			relid;
	ErrorData  *failure;		/* of a lock */
} Creation;

static void
attach_one(void *arg)
{
	Creation   *creation = arg;

	rk_partition_attach(NULL, creation->set, creation->wanted, creation->relid);
}

/*
 * All that can be done before is done before others' tables are locked. The
 * table itself is: of two who make the same partition the second finds it.
 */
static void
create_one(void *arg)
{
	Creation   *creation = arg;
	ErrorData  *failure;

	if (rk_partition_is_made(creation->set, creation->wanted))
		return;
	creation->relid = rk_partition_build(NULL, creation->set, creation->wanted);
	if (!rk_partition_try(creation->locks, attach_one, creation, creation->insist, &failure))
		ReThrowError(failure);
}

static void
try_create(void *arg)
{
	Creation   *creation = arg;
	RkLockRequest table[] = {
		{creation->set->root, ShareUpdateExclusiveLock},
		{InvalidOid, NoLock}
	};

	(void) rk_partition_try(table, create_one, creation, creation->insist, &creation->failure);
}

/*
 * One attempt at one partition, undone as a whole where it fails: NULL, or
 * the error, *failure where a lock could not be had in time.
 */
ErrorData *
rk_partition_create(const RkPartitionSet *set, const RkWanted *wanted, const RkLockRequest *locks,
					bool insist, ErrorData **failure)
{
	Creation	creation = {.set = set,.wanted = wanted,.locks = locks,.insist = insist};
	ErrorData  *error = rk_attempt(try_create, &creation);

	*failure = creation.failure;
	return error;
}

/*
 * Tables in which this task has seen that nothing is expired, so that the next
 * one need not read their partitions again: those of one maintain(), which
 * is told by its statement.
 */
typedef struct Unexpired
{
	TimestampTz statement;
	List	   *roots;
} Unexpired;

static Unexpired unexpired;

static void
note_unexpired(const RkPartitionSet *set)
{
	MemoryContext old;

	if (set->options->keep == NULL || rk_partitions_expired(set) != NIL)
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);	/* of one statement only */
	if (unexpired.statement != GetCurrentStatementStartTimestamp())
	{
		list_free(unexpired.roots);
		unexpired.roots = NIL;
		unexpired.statement = GetCurrentStatementStartTimestamp();
	}
	unexpired.roots = lappend_oid(unexpired.roots, set->root);
	MemoryContextSwitchTo(old);
}

static bool
is_unexpired(Oid root)
{
	return unexpired.statement == GetCurrentStatementStartTimestamp() &&
		list_member_oid(unexpired.roots, root);
}

/* Make what is missing, some of it; what fails does not stop the others. */
static RkWork
make_ahead(RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run)
{
	bool		more;
	List	   *wanted = rk_partitions_wanted(set, CREATED_AT_ONCE, &more);
	const RkLockRequest *locks;
	int			at_once;
	ListCell   *lc;

	if (wanted == NIL)
	{
		note_unexpired(set);
		return RK_WORK_IDLE;
	}
	locks = rk_partition_attach_locks(set);
	/* what others wait for is given back at once */
	at_once = OidIsValid(locks[1].relid) ? 1 : CREATED_AT_ONCE;
	foreach(lc, wanted)
	{
		ErrorData  *failure;
		ErrorData  *error = rk_partition_create(set, lfirst(lc), locks, turn->attempts > 0, &failure);

		if (error == NULL && failure != NULL)
		{
			if (run->changed > 0)
				return RK_WORK_AGAIN;
			rk_partition_fail_later(turn, run, failure);
			return RK_WORK_LATER;
		}
		if (error != NULL && turn->failed == NULL)
			rk_partition_fail_later(turn, run, error);
		if (error == NULL && ++run->changed >= at_once)
			break;
		if (error != NULL && error->sqlerrcode == ERRCODE_OPERATOR_INTERVENTION)
			break;				/* so would the others */
	}
	if (run->changed == 0)
		ReThrowError(turn->failed);
	return RK_WORK_AGAIN;
}

static bool
any_table(const RkPartitionTable *table, List *intents)
{
	return true;
}

static void
maintain_ahead(RkMaintainRun *run)
{
	run_queue(run, any_table, make_ahead);
}

static bool
has_retention(const RkPartitionTable *table, List *intents)
{
	return (table->options->keep != NULL && !is_unexpired(table->root)) ||
		list_member_oid(intents, table->root);
}

static void
maintain_retention(RkMaintainRun *run)
{
	run_queue(run, has_retention, rk_partition_expire);
}

void
rk_partition_upkeep_init(void)
{
	static const RkMaintainTask ahead = {
		.name = "partitions ahead",
		.feature = "partition",
		.run = maintain_ahead
	};
	static const RkMaintainTask retention = {
		.name = "partitions expired",
		.feature = "partition",
		.run = maintain_retention
	};

	rk_maintain_register(&ahead);
	rk_maintain_register(&retention);
}
