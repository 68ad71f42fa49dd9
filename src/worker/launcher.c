/*
 * launcher.c
 *
 * The worker of those who have rowkeeper in shared_preload_libraries. A
 * launcher, which is connected to no database, starts a short-lived process
 * for one database after another (database.c), each time
 * rowkeeper.worker_interval is over: nobody of us stays connected, which would
 * keep a database from being dropped. A process that takes longer than that is
 * left to itself, and its database alone until it is done. It is started when recovery is over, so
 * a standby has none until it is promoted.
 *
 * A reload of the configuration begins a new round at once, with the settings
 * as they are then.
 */
#include "rowkeeper.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#define RESTART_SECONDS 10

static char *worker_databases;
static int	worker_interval = 60;

PGDLLEXPORT void rowkeeper_launcher_main(Datum arg);

static bool
check_databases(char **value, void **extra, GucSource source)
{
	List	   *names;

	if (SplitGUCList(pstrdup(*value), ',', &names))
		return true;
	GUC_check_errdetail("List syntax is invalid.");
	return false;
}

static void
define_settings(void)
{
	DefineCustomStringVariable("rowkeeper.worker_databases",
							   "Databases that the worker maintains.",
							   "A list of names; empty: every database with the extension.",
							   &worker_databases,
							   "",
							   PGC_SIGHUP,
							   GUC_LIST_INPUT,
							   check_databases, NULL, NULL);

	DefineCustomIntVariable("rowkeeper.worker_interval",
							"Time from one round of the worker to the next.",
							NULL,
							&worker_interval,
							60, 1, 86400,
							PGC_SIGHUP,
							GUC_UNIT_S,
							NULL, NULL, NULL);
}

/* ---- which databases ---- */

static bool
is_listed(const char *database)
{
	List	   *names;
	ListCell   *lc;

	if (!SplitGUCList(pstrdup(worker_databases), ',', &names) || names == NIL)
		return true;
	foreach(lc, names)
		if (strcmp(lfirst(lc), database) == 0)
		return true;
	return false;
}

/* The databases to go to, in the current memory context. */
static List *
find_databases(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *databases = NIL;
	Relation	catalog;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	catalog = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(catalog, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!database->datallowconn || database->datistemplate ||
			database->datconnlimit == RK_CONNLIMIT_INVALID_DATABASE ||
			!is_listed(NameStr(database->datname)))
			continue;
		old = MemoryContextSwitchTo(context);
		databases = lappend_oid(databases, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(catalog, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return databases;
}

/* ---- the launcher ---- */

/* Reads the configuration again if told to; returns whether it was. */
static bool
reload(void)
{
	if (!ConfigReloadPending)
		return false;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	return true;
}

/* A process of ours in a database, for which we wait no longer. */
typedef struct Visit
{
	Oid			database;
	BackgroundWorkerHandle *handle;
} Visit;

static List *visits = NIL;		/* of Visit, in TopMemoryContext */

static bool
is_over(BackgroundWorkerHandle *handle)
{
	pid_t		pid;
	BgwHandleStatus status = GetBackgroundWorkerPid(handle, &pid);

	if (status == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	return status == BGWH_STOPPED;
}

/* Whether a process of ours is still in a database, from an earlier round. */
static bool
is_visited(Oid database)
{
	ListCell   *lc;

	foreach(lc, visits)
	{
		Visit	   *visit = lfirst(lc);

		if (visit->database != database)
			continue;
		if (!is_over(visit->handle))
			return true;
		visits = foreach_delete_current(visits, lc);
		pfree(visit->handle);
		pfree(visit);
	}
	return false;
}

/*
 * Wait for a process, but not so long that other databases miss their round:
 * what it runs may wait, or be code of users that does not end.
 */
static void
wait_for_visit(Visit *visit)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), worker_interval * INT64CONST(1000));
	long		left;

	while (!is_over(visit->handle) &&
		   (left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end)) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* One database's turn; false: no slot is free. */
static bool
visit(Oid database)
{
	RkProcess	process = {.database = database};
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);	/* until it is over */
	Visit	   *visit;
	bool		started = true;

	if (!is_visited(database))
	{
		visit = palloc(sizeof(Visit));
		visit->database = database;
		started = rk_process_start(&process, "rowkeeper_database_main", "maintenance", &visit->handle);
		if (started)
		{
			visits = lappend(visits, visit);
			wait_for_visit(visit);
		}
		else
			pfree(visit);
	}
	MemoryContextSwitchTo(old);
	return started;
}

/* Said once, not every minute. */
static void
note_slots(bool missing)
{
	static bool were_missing = false;

	if (missing && !were_missing)
		ereport(LOG,
				(errmsg("rowkeeper maintains nothing: no worker is free"),
				 errhint("You might need to increase max_worker_processes.")));
	were_missing = missing;
}

static void
make_round(void)
{
	ListCell   *lc;

	foreach(lc, find_databases())
	{
		bool		started = visit(lfirst_oid(lc));

		note_slots(!started);
		CHECK_FOR_INTERRUPTS();
		if (!started || ConfigReloadPending)
			return;
	}
}

/* Until then, or the configuration is another one, also since we last looked. */
static void
wait_until(TimestampTz next)
{
	while (!reload())
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next);

		if (left <= 0)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void
rowkeeper_launcher_main(Datum arg)
{
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	context = AllocSetContextCreate(TopMemoryContext, "rowkeeper round",	/* one a process */
									ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		TimestampTz started = GetCurrentTimestamp();

		MemoryContextSwitchTo(context);
		make_round();
		MemoryContextReset(context);
		wait_until(TimestampTzPlusMilliseconds(started, worker_interval * INT64CONST(1000)));
	}
}

/* Settings, and where we are preloaded the launcher. */
void
rk_worker_init(void)
{
	BackgroundWorker worker;

	define_settings();
	if (!process_shared_preload_libraries_in_progress)
		return;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_SECONDS;
	strlcpy(worker.bgw_library_name, "rowkeeper", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "rowkeeper_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "rowkeeper launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "rowkeeper launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
