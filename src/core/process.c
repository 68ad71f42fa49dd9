/*
 * process.c
 *
 * Processes of ours: background workers that anybody's session can start, as
 * the role for whom they work. A process is that role from its first moment to
 * its last, as a session is that logged in as it: what it runs cannot make it
 * a superuser. What it is told comes with its registration, and is never SQL.
 *
 * Before 17 the server starts no worker as a role that may not log in, which
 * owners of schemas often are. Such a process begins as superuser, gives that
 * up by setting its session authorization, and closes the way back: nobody
 * can set it a second time, and no parallel worker of it would know another
 * past.
 */
#include "rowkeeper.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "mb/pg_wchar.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

StaticAssertDecl(sizeof(RkProcess) <= BGW_EXTRALEN, "RkProcess must fit into bgw_extra");

/* A process of a role in this database; 42704 where there is no such role. */
RkProcess
rk_process_of(Oid role)
{
	RkProcess	process = {.database = MyDatabaseId,.role = role};
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", role)));
	process.may_log_in = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	return process;
}

/*
 * Start a process; false: no slot is free. Who gives a handle can wait for its
 * end. Without one this may be called while a transaction commits: it reads no
 * catalog and allocates nothing.
 */
bool
rk_process_start(const RkProcess *process, const char *main_function,
				 const char *kind, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "rowkeeper", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, main_function, BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "rowkeeper %s", kind);
	snprintf(worker.bgw_type, BGW_MAXLEN, "rowkeeper %s", kind);
	memcpy(worker.bgw_extra, process, sizeof(RkProcess));
	if (handle != NULL)
		worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/* Set it, and let nobody set it again. */
static void
set_for_good(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
	rk_find_setting(name)->context = PGC_INTERNAL;
}

/*
 * Be the role that the process is of, whoever the database's owner has set
 * sessions in it to be: he may set that, and the server takes it from him. Who
 * was connected as the superuser of initdb becomes another, or stays, for good.
 */
static void
become_for_good(Oid role, bool as_superuser)
{
	StartTransactionCommand();
	SetConfigOption("role", "none", PGC_SUSET, PGC_S_OVERRIDE);
	if (as_superuser)
		set_for_good("session_authorization",
					 GetUserNameFromId(OidIsValid(role) ? role : BOOTSTRAP_SUPERUSERID, false));
	if (as_superuser && OidIsValid(role))
		set_for_good("max_parallel_workers", "0");
	CommitTransactionCommand();
}

/*
 * The beginning of each process's main function: who it is. Where that cannot
 * be, the process ends, and the server's log says why.
 */
const RkProcess *
rk_process_become(void)
{
	const RkProcess *process = (const RkProcess *) MyBgworkerEntry->bgw_extra;
	bool		as_superuser = !OidIsValid(process->role) ||
		!(process->may_log_in || RK_WORKER_AS_ANY_ROLE);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(process->database,
											  as_superuser ? InvalidOid : process->role,
											  OidIsValid(process->role) ? RK_WORKER_CONNECTION : 0);
	become_for_good(process->role, as_superuser);

	MessageContext = AllocSetContextCreate(TopMemoryContext, "rowkeeper command",	/* one a process */
										   ALLOCSET_DEFAULT_SIZES);
	return process;
}

/* Transactions of the process from here on, whatever the database or role has for its own. */
void
rk_process_set_transactions(void)
{
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_deferrable", "off", PGC_USERSET, PGC_S_SESSION);
}

/*
 * Begin a transaction of ours, whatever those of the role are like by default
 * or have come to be by what it ran.
 */
void
rk_process_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	XactDeferrable = false;
}

/* The shared memory that the process was sent with; within a transaction. */
void *
rk_process_attach(const RkProcess *process)
{
	dsm_segment *segment = dsm_attach(process->segment);

	if (segment == NULL)
		proc_exit(0);			/* who sent us has gone */
	dsm_pin_mapping(segment);
	return dsm_segment_address(segment);
}

static void
copy_text(char *to, const char *from)
{
	int			length = from == NULL ? 0 : pg_mbcliplen(from, strlen(from), RK_MAX_MESSAGE - 1);

	memcpy(to, from == NULL ? "" : from, length);
	to[length] = '\0';
}

/* The last that a process does: to say how it ended, NULL: well. */
void
rk_process_answer(RkAnswer *answer, const ErrorData *error)
{
	if (error != NULL)
	{
		answer->sqlerrcode = error->sqlerrcode;
		copy_text(answer->message, error->message);
		copy_text(answer->detail, error->detail);
		copy_text(answer->hint, error->hint);
	}
	answer->ended = true;
}

static void
terminate_process(int code, Datum handle)
{
	TerminateBackgroundWorker((BackgroundWorkerHandle *) DatumGetPointer(handle));
}

/* To a process's end; where we are cancelled or go before, it goes, too. */
void
rk_process_wait(BackgroundWorkerHandle *handle)
{
	PG_ENSURE_ERROR_CLEANUP(terminate_process, PointerGetDatum(handle));
	{
		if (WaitForBackgroundWorkerShutdown(handle) == BGWH_POSTMASTER_DIED)
			ereport(FATAL,
					(errcode(ERRCODE_ADMIN_SHUTDOWN),
					 errmsg("the server has gone")));
	}
	PG_END_ENSURE_ERROR_CLEANUP(terminate_process, PointerGetDatum(handle));
}
