/*
 * job_process.c
 *
 * How jobs run: those of one role one after another, in the order in which
 * they were queued, each in a process of its own that is that role
 * (process.c). Such a process holds a lock in its role's name as long as it
 * lives, so a row that says "running" while that lock is free belongs to a
 * process that has gone: its job is queued again if its procedure goes on
 * where it was, else it has failed. When it is done it starts the next one.
 *
 * What could not be started (no slot was free, the server was down) maintain()
 * starts: of the roles whose privileges the caller has.
 */
#include "rowkeeper.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define MAX_ATTEMPTS "5"		/* of a job whose process goes away */
#define MAX_STARTS "5"			/* of a process that does not come to its job */
#define KEEP_JOBS "90 days"

PGDLLEXPORT void rowkeeper_job_main(Datum arg);

static Oid	job_role = InvalidOid;	/* whose job this process runs */

/* Start the process of a role's oldest job; false: no slot is free. */
bool
rk_job_process_start(const RkProcess *process)
{
	return rk_process_start(process, "rowkeeper_job_main", "job", NULL);
}

/*
 * The lock of who runs a role's jobs. It is of the kind of advisory locks,
 * which stay when a transaction is aborted, but under a name that no advisory
 * lock has.
 */
static LOCKTAG
role_lock(Oid role)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, AuthIdRelationId, role, 1);
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	return tag;
}

static bool
lock_role(Oid role, bool session)
{
	LOCKTAG		tag = role_lock(role);

	return LockAcquire(&tag, ExclusiveLock, session, true) != LOCKACQUIRE_NOT_AVAIL;
}

static void
unlock_role(Oid role, bool session)
{
	LOCKTAG		tag = role_lock(role);

	(void) LockRelease(&tag, ExclusiveLock, session);
}

/* A statement on jobs: $1 is this database, $2 a role. */
static uint64
run_on_jobs(const char *sql, Oid role)
{
	Oid			types[2] = {TEXTOID, OIDOID};
	Datum		values[2];

	values[0] = CStringGetTextDatum(rk_jobs_home());
	values[1] = ObjectIdGetDatum(role);
	return rk_run_args(rk_extension_owner(), sql, 2, types, values, NULL);
}

/*
 * Under the lock, where nobody runs them: what is to become of a role's jobs.
 * One whose process has gone is queued again, or has failed; so has one that
 * was started again and again and never ran, because its role does not get
 * into the database. Returns how many had to be settled.
 */
static uint64
settle_jobs(Oid role)
{
	uint64		settled;

	settled = run_on_jobs("UPDATE rowkeeper._jobs SET pid = NULL,"
						  "  state = CASE WHEN resumable AND attempts < " MAX_ATTEMPTS " THEN 'queued' ELSE 'failed' END,"
						  "  finished_at = CASE WHEN resumable AND attempts < " MAX_ATTEMPTS " THEN NULL ELSE clock_timestamp() END,"
						  "  error = format('its process was gone before it was done (attempt %s)', attempts)"
						  " WHERE home = $1 AND role = $2 AND state = 'running'", role);
	settled += run_on_jobs("UPDATE rowkeeper._jobs SET state = 'failed', finished_at = clock_timestamp(),"
						   "  error = 'its process could not start: the server''s log says why'"
						   " WHERE home = $1 AND role = $2 AND state = 'queued' AND starts >= " MAX_STARTS, role);
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		settled += run_on_jobs("UPDATE rowkeeper._jobs SET state = 'failed', finished_at = clock_timestamp(),"
							   "  error = 'its role has been dropped'"
							   " WHERE home = $1 AND role = $2 AND state = 'queued'", role);
	return settled;
}

static bool
has_queued_job(Oid role)
{
	return run_on_jobs("SELECT FROM rowkeeper._jobs WHERE home = $1 AND role = $2 AND state = 'queued' LIMIT 1",
					   role) > 0;
}

/* ---- the process ---- */

/* A transaction of ours on the jobs. */
static void
begin_work(void)
{
	rk_process_begin();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
commit_work(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
}

typedef struct Job
{
	int64		id;
	char	   *call;
	char	   *search_path;
} Job;

/* The oldest job of this role is ours now; false: there is none. */
static bool
take_job(Oid role, Job *job)
{
	Oid			types[3] = {TEXTOID, OIDOID, INT4OID};
	Datum		values[3];
	RkIdentity	saved;
	bool		found;

	values[0] = CStringGetTextDatum(rk_jobs_home());
	values[1] = ObjectIdGetDatum(role);
	values[2] = Int32GetDatum(MyProcPid);
	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_with_args("UPDATE rowkeeper._jobs SET state = 'running', pid = $3, started_at = clock_timestamp(),"
							  "  attempts = attempts + 1, starts = 0, error = NULL"
							  " WHERE id = (SELECT id FROM rowkeeper._jobs WHERE home = $1 AND role = $2 AND state = 'queued'"
							  "  ORDER BY id LIMIT 1)"
							  " RETURNING id, call, search_path",
							  3, types, values, NULL, false, 0) != SPI_OK_UPDATE_RETURNING)
		elog(ERROR, "could not take a job");
	found = SPI_processed > 0;
	if (found)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);	/* as long as the
																		 * process */
		bool		isnull;

		job->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		job->call = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
		job->search_path = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return found;
}

/* Become who runs the role's jobs; false: there is nothing to run, or somebody does. */
static bool
begin_job(Oid role, Job *job)
{
	bool		begun = false;

	begin_work();
	if (OidIsValid(get_extension_oid("rowkeeper", true)) && lock_role(role, true))
	{
		(void) settle_jobs(role);
		begun = take_job(role, job);
	}
	if (begun)
	{
		SetConfigOption("search_path", job->search_path, PGC_USERSET, PGC_S_SESSION);
		SetConfigOption("application_name", psprintf("rowkeeper job " INT64_FORMAT, job->id),
						PGC_USERSET, PGC_S_SESSION);
	}
	commit_work();
	return begun;
}

static void
end_job(const Job *job, const ErrorData *error)
{
	Oid			types[3] = {INT8OID, INT4OID, TEXTOID};
	Datum		values[3];

	begin_work();
	values[0] = Int64GetDatum(job->id);
	values[1] = Int32GetDatum(MyProcPid);
	values[2] = error == NULL ? (Datum) 0 : CStringGetTextDatum(rk_error_text(error));
	(void) rk_run_args(rk_extension_owner(),
					   "UPDATE rowkeeper._jobs SET state = CASE WHEN $3 IS NULL THEN 'done' ELSE 'failed' END,"
					   "  error = $3, pid = NULL, finished_at = clock_timestamp()"
					   " WHERE id = $1 AND pid = $2 AND state = 'running'",
					   3, types, values, error == NULL ? "  n" : "   ");
	commit_work();
}

/*
 * Start the next job's process. Ours has given up the lock before, so that
 * nobody finds it taken after we have looked for the last time.
 */
static void
go_on(const RkProcess *process)
{
	bool		more;

	begin_work();
	more = has_queued_job(process->role);
	commit_work();
	if (more && !rk_job_process_start(process))
		ereport(LOG,
				(errmsg("no worker is free for the next job of a role"),
				 errhint("maintain() starts it; you might need to increase max_worker_processes.")));
}

/* The process: runs the oldest queued job of its role. */
void
rowkeeper_job_main(Datum arg)
{
	const RkProcess *process = rk_process_become();
	Job			job;

	job_role = process->role;
	if (!begin_job(process->role, &job))
		return;
	end_job(&job, rk_toplevel_execute(job.call, rk_job_check_call, true));
	unlock_role(process->role, true);
	go_on(process);
}

/* ---- what maintain() does ---- */

/* Roles of which the caller may start jobs, and which have any. */
static List *
waiting_roles(void)
{
	Oid			types[3] = {TEXTOID, OIDOID, BOOLOID};
	Datum		values[3];
	List	   *roles = NIL;
	MemoryContext caller = CurrentMemoryContext;
	RkIdentity	saved;

	values[0] = CStringGetTextDatum(rk_jobs_home());
	values[1] = ObjectIdGetDatum(GetUserId());
	values[2] = BoolGetDatum(has_privs_of_role(GetUserId(), rk_extension_owner()));
	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_with_args("SELECT DISTINCT role FROM rowkeeper._jobs WHERE home = $1"
							  " AND state IN ('queued', 'running') AND ($3 OR pg_has_role($2, role, 'USAGE'))",
							  3, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the jobs");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			role = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		MemoryContext old = MemoryContextSwitchTo(caller);

		if (role != job_role)
			roles = lappend_oid(roles, role);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return roles;
}

/*
 * Start a role's oldest job; returns whether there was one. That a process was
 * started is noted with the job, which forgets it when it runs.
 */
static bool
start_job(Oid role)
{
	RkProcess	process;

	if (!has_queued_job(role))
		return false;
	process = rk_process_of(role);
	if (!rk_job_process_start(&process))
		return false;
	(void) run_on_jobs("UPDATE rowkeeper._jobs SET starts = starts + 1 WHERE state = 'queued' AND id = ("
					   "  SELECT id FROM rowkeeper._jobs WHERE home = $1 AND role = $2 AND state = 'queued'"
					   "  ORDER BY id LIMIT 1)", role);
	return true;
}

/*
 * First what is to be settled, then, once that is committed and others can see
 * it, what waits. Roles whose jobs run are left alone.
 */
static void
maintain_jobs(RkMaintainRun *run)
{
	List	   *idle = NIL;
	ListCell   *lc;

	if (OidIsValid(run->target))
		return;
	foreach(lc, waiting_roles())
		if (lock_role(lfirst_oid(lc), false))
	{
		idle = lappend_oid(idle, lfirst_oid(lc));
		run->changed += settle_jobs(lfirst_oid(lc));
	}
	run->more = run->changed > 0;
	if (run->more)
		return;
	foreach(lc, idle)
	{
		unlock_role(lfirst_oid(lc), false);
		run->changed += start_job(lfirst_oid(lc));
	}
}

static void
forget_jobs(RkMaintainRun *run)
{
	(void) run_on_jobs("DELETE FROM rowkeeper._jobs"
					   " WHERE coalesce(finished_at, queued_at) < now() - interval '" KEEP_JOBS "'"
					   " AND (state IN ('done', 'failed') OR home <> $1) AND $2 IS NOT NULL", InvalidOid);
}

void
rk_job_process_init(void)
{
	static const RkMaintainTask start = {.name = "jobs",.feature = "jobs",.run = maintain_jobs};
	static const RkMaintainTask forget = {.name = "jobs: retention",.feature = "jobs",.owner_only = true,.run = forget_jobs};

	rk_maintain_register(&start);
	rk_maintain_register(&forget);
}
