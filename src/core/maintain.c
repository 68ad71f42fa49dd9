/*
 * maintain.c
 *
 * CALL rowkeeper.maintain(): all periodic work of all features, for a worker,
 * pg_cron or a shell to call. Features register tasks; each runs in a
 * subtransaction of its own and is committed on its own, so that one failure
 * is recorded in maintain_log and stops nobody else's work, and no lock on a
 * table is held longer than its task. Two sessions may maintain at the same
 * time: a task that the other one runs for everybody, or as the same role, is
 * left to it; owners and superusers meet on single tables, which tasks expect.
 * What no function may run, a task asks for, and it is done between two of its
 * runs.
 *
 * The commits happen outside of rk_attempt() and in a non-atomic context, which is
 * why the procedure carries neither SECURITY DEFINER nor SET.
 */
#include "rowkeeper.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#define MAX_TASKS 32
#define KEEP_LOG "90 days"

static const RkMaintainTask *tasks[MAX_TASKS];
static int	task_count = 0;

PG_FUNCTION_INFO_V1(rowkeeper_maintain);

/* Add a task; tasks run in the order in which they were registered. */
void
rk_maintain_register(const RkMaintainTask *task)
{
	if (task_count == MAX_TASKS)
		elog(ERROR, "too many maintenance tasks");
	tasks[task_count++] = task;
}

/*
 * A lock on a part of the extension itself, which no user's advisory lock can
 * stand in for. Who maintains only what is his has one in his own name: he may
 * take as long as he likes, and others' tables must not wait for that.
 */
static LOCKTAG
task_lock(int number, bool owner)
{
	LOCKTAG		tag;

	if (owner)
		SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId,
						   get_extension_oid("rowkeeper", false), number + 1);
	else
		SET_LOCKTAG_OBJECT(tag, MyDatabaseId, AuthIdRelationId, GetUserId(), number + 1);
	return tag;
}

/*
 * Only for a task that another session does not run already. The lock is the
 * session's, so that it stays from commit to commit; an error gives it up.
 */
static bool
lock_task(int number, bool owner)
{
	LOCKTAG		tag = task_lock(number, owner);

	return LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

static void
unlock_task(int number, bool owner)
{
	LOCKTAG		tag = task_lock(number, owner);

	(void) LockRelease(&tag, ExclusiveLock, true);
}

/* A task and what it is told, as one argument. */
typedef struct TaskRun
{
	const RkMaintainTask *task;
	RkMaintainRun run;
} TaskRun;

static void
run_task(void *arg)
{
	TaskRun    *task_run = arg;

	task_run->task->run(&task_run->run);
}

/* One row for what did something or failed; none for an idle task. */
static void
record_run(const RkMaintainTask *task, const RkMaintainRun *run,
		   TimestampTz started, const ErrorData *error)
{
	Oid			types[7] = {TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID, TEXTOID};
	Datum		values[7];
	char		nulls[8] = "       ";

	values[0] = TimestampTzGetDatum(started);
	values[1] = values[2] = (Datum) 0;
	if (run->table_schema != NULL)
		values[1] = CStringGetTextDatum(run->table_schema);
	else
		nulls[1] = 'n';
	if (run->table_name != NULL)
		values[2] = CStringGetTextDatum(run->table_name);
	else
		nulls[2] = 'n';
	values[3] = CStringGetTextDatum(task->name);
	values[4] = Int64GetDatum(GetCurrentTimestamp() - started);
	values[5] = Int64GetDatum(error != NULL ? 0 : run->changed);
	values[6] = (Datum) 0;
	if (error != NULL)
		values[6] = CStringGetTextDatum(rk_error_text(error));
	else
		nulls[6] = 'n';

	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper._maintain_log "
					   "(ran_at, table_schema, table_name, task, duration, changed, error) "
					   "VALUES ($1, $2, $3, $4, $5 * interval '1 microsecond', $6, $7)",
					   7, types, values, nulls);
}

static void
trim_log(void)
{
	(void) rk_run(rk_extension_owner(),
				  "DELETE FROM rowkeeper._maintain_log WHERE ran_at < pg_catalog.now() - interval '" KEEP_LOG "'");
}

/* Of which table a run is, for the record; NULL names where it is gone. */
void
rk_maintain_name_table(RkMaintainRun *run, Oid relid)
{
	run->table_schema = get_namespace_name(get_rel_namespace(relid));
	run->table_name = get_rel_name(relid);
}

/* What the task says anew each time. */
static void
clear_run(RkMaintainRun *run)
{
	run->changed = 0;
	run->more = false;
	run->table_schema = NULL;
	run->table_name = NULL;
	run->toplevel = NULL;
}

/*
 * One run of a task, committed; returns whether it wants another one. What it
 * asked to be done at top level is done after that.
 */
static bool
run_once(TaskRun *task_run)
{
	RkMaintainRun *run = &task_run->run;
	TimestampTz started = GetCurrentTimestamp();
	ErrorData  *error;

	clear_run(run);
	error = rk_attempt(run_task, task_run);
	if (error != NULL || run->changed > 0)
		record_run(task_run->task, run, started, error);
	rk_commit();
	CHECK_FOR_INTERRUPTS();
	run->outcome = RK_OUTCOME_NONE;
	if (error != NULL || run->toplevel == NULL)
		return run->more;		/* of a task that goes table by table also
								 * where one failed */
	run->outcome = rk_toplevel_run(run->toplevel_role, run->toplevel, run->toplevel_lock_timeout,
								   &run->toplevel_error);
	return true;
}

/* Run one task until it has no more to do, committing each time. */
static void
maintain_task(int number, bool owner, Oid target, bool force)
{
	TaskRun		task_run = {.task = tasks[number],.run = {.target = target,.force = force}};
	MemoryContext context;

	if (!lock_task(number, owner))
		return;
	context = AllocSetContextCreate(CurrentMemoryContext, "rowkeeper task", ALLOCSET_SMALL_SIZES);
	task_run.run.context = context;
	while (run_once(&task_run))
		;
	unlock_task(number, owner);
	MemoryContextDelete(context);
}

/*
 * rowkeeper.maintain(target regclass DEFAULT NULL, force boolean DEFAULT false)
 *
 * Runs the tasks of every feature on one table or (NULL) on all that the
 * caller may maintain: his own; for superusers and members of the extension's
 * owner all, and what concerns no table in particular, such as the audit log.
 * force: retention may expire more than half of a table at once. Failures of
 * tasks are recorded in maintain_log. Locks: what each task documents, until
 * it is committed. Errors: 25001 in a transaction block, 25006 on a standby,
 * 42501 where the caller does not own target.
 */
Datum
rowkeeper_maintain(PG_FUNCTION_ARGS)
{
	Oid			target = PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0);
	bool		force = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	bool		owner;

	rk_check_non_atomic(fcinfo, "maintain()");
	if (OidIsValid(target))
		rk_check_owner(target);
	owner = has_privs_of_role(GetUserId(), rk_extension_owner());

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	rk_begin_writing("CALL rowkeeper.maintain()");
	for (int i = 0; i < task_count; i++)
	{
		if (tasks[i]->owner_only && (!owner || OidIsValid(target)))
			continue;
		maintain_task(i, owner, target, force);
	}
	trim_log();
	SPI_finish();
	PG_RETURN_VOID();
}
