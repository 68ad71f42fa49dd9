/*
 * toplevel.c
 *
 * Commands at top level. DETACH PARTITION CONCURRENTLY and CREATE INDEX
 * CONCURRENTLY commit in between, so no function and no procedure may run
 * them. Whoever needs one commits and hands it to a process of its own, which
 * runs it through a portal, as the server does what a client sends, and says
 * how it ended in a piece of shared memory: the errand.
 *
 * The caller must not be in the way of what it waits for: a lock of its, or a
 * snapshot, and the command would wait for the caller, which no deadlock
 * detector sees. So it commits immediately before. The set of commands is
 * closed.
 */
#include "rowkeeper.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "storage/dsm.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

PGDLLEXPORT void rowkeeper_toplevel_main(Datum arg);

/*
 * Raise 25001 unless a procedure may commit. call: how it is called, such as
 * "maintain()".
 */
void
rk_check_non_atomic(FunctionCallInfo fcinfo, const char *call)
{
	if (fcinfo->context != NULL && IsA(fcinfo->context, CallContext) &&
		!castNode(CallContext, fcinfo->context)->atomic)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("rowkeeper.%s cannot run inside a transaction block", call),
			 errdetail("It commits as it goes."),
			 errhint("CALL it by itself, outside of BEGIN and not from a function, or let it run after the commit: SELECT rowkeeper.later('CALL rowkeeper.%s').",
					 call)));
}

/*
 * Commit within a procedure, which may write after that, too, whatever
 * transactions of the session, the role or the database are like by default:
 * who calls for it wants it done, as the worker does.
 */
void
rk_commit(void)
{
	SPI_commit();
	XactReadOnly = false;
}

/* The same at its beginning; raises 25006 on a standby. Within SPI. */
void
rk_begin_writing(const char *command)
{
	PreventCommandDuringRecovery(command);
	if (XactReadOnly)
		rk_commit();
}

/* ---- running a command in a process of ours ---- */

static void
run_portal(const char *command, void (*check) (Node *statement))
{
	List	   *statements;
	RawStmt    *statement;
	List	   *plans;
	Portal		portal;
	QueryCompletion completion;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(MessageContext);	/* the command's transactions end,
											 * it does not */
	statements = pg_parse_query(command);
	if (list_length(statements) != 1)
		elog(ERROR, "a process of rowkeeper runs one command, not %d", list_length(statements));
	statement = linitial_node(RawStmt, statements);
	if (check != NULL)
		check(statement->stmt);

	PushActiveSnapshot(GetTransactionSnapshot());
	plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(statement, command, NULL, 0, NULL),
							command, 0, NULL);
	PopActiveSnapshot();

	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, command, CreateCommandTag(statement->stmt), plans, NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	MemoryContextSwitchTo(TopTransactionContext);
	rk_portal_run(portal, None_Receiver, &completion);
	PortalDrop(portal, false);
	CommitTransactionCommand();
}

/*
 * Run one command as a client would, in a process of ours; check() raises
 * where it is not one that is to be run. NULL, or the error that it ended
 * with, in TopMemoryContext; the transaction is over in any case.
 */
ErrorData *
rk_toplevel_execute(const char *command, void (*check) (Node *statement), bool log)
{
	ErrorData  *volatile error = NULL;

	debug_query_string = command;
	pgstat_report_activity(STATE_RUNNING, command);
	PG_TRY();
	{
		run_portal(command, check);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		MemoryContextSwitchTo(TopMemoryContext);	/* the process ends soon */
		error = CopyErrorData();
		if (log)
			EmitErrorReport();
		AbortCurrentTransaction();
		PortalErrorCleanup();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	debug_query_string = NULL;
	pgstat_report_activity(STATE_IDLE, NULL);
	return error;
}

/* ---- errands: commands of another session ---- */

/* In shared memory; written by the process, read once it has gone. */
typedef struct Errand
{
	int			lock_timeout;
	RkAnswer	answer;
	char		command[FLEXIBLE_ARRAY_MEMBER];
} Errand;

static bool in_errand = false;

/* Whether this process runs an errand: what it does, we do. */
bool
rk_in_errand(void)
{
	return in_errand;
}

static bool
is_concurrent_detach(AlterTableStmt *statement)
{
	AlterTableCmd *command;

	if (list_length(statement->cmds) != 1)
		return false;
	command = linitial_node(AlterTableCmd, statement->cmds);
	return command->subtype == AT_DetachPartitionFinalize ||
		(command->subtype == AT_DetachPartition &&
		 castNode(PartitionCmd, command->def)->concurrent);
}

/* The commands there are. */
static void
check_errand(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_IndexStmt:
			if (((IndexStmt *) statement)->concurrent)
				return;
			break;
		case T_ReindexStmt:
			return;
		case T_DropStmt:
			if (((DropStmt *) statement)->removeType == OBJECT_INDEX &&
				((DropStmt *) statement)->concurrent)
				return;
			break;
		case T_AlterTableStmt:
			if (is_concurrent_detach((AlterTableStmt *) statement))
				return;
			break;
		default:
			break;
	}
	elog(ERROR, "a process of rowkeeper runs no such command");
}

/*
 * Nothing of the session's may keep the command from its work, nor stay away
 * from it: it waits so long for a lock as it was told, and an autovacuum that
 * is in its way gives way when half of that is over.
 */
static void
set_up_errand(const Errand *errand)
{
	rk_settings_pin();
	rk_process_set_transactions();
	SetConfigOption("lock_timeout", psprintf("%d", errand->lock_timeout), PGC_USERSET, PGC_S_SESSION);
	if (errand->lock_timeout > 1)
		SetConfigOption("deadlock_timeout", psprintf("%d", errand->lock_timeout / 2),
						PGC_SUSET, PGC_S_SESSION);
}

static Errand *
attach_errand(const RkProcess *process)
{
	Errand	   *errand;

	rk_process_begin();
	errand = rk_process_attach(process);
	set_up_errand(errand);
	CommitTransactionCommand();
	return errand;
}

/* The process: runs the command of an errand and says how it ended. */
void
rowkeeper_toplevel_main(Datum arg)
{
	Errand	   *errand = attach_errand(rk_process_become());

	in_errand = true;
	rk_process_answer(&errand->answer, rk_toplevel_execute(errand->command, check_errand, false));
}

/* ---- and who sends them ---- */

static dsm_segment *
create_errand(const char *command, int lock_timeout)
{
	Size		size = offsetof(Errand, command) + strlen(command) + 1;
	dsm_segment *segment = dsm_create(size, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	Errand	   *errand;

	if (segment == NULL)
		return NULL;
	errand = dsm_segment_address(segment);
	memset(errand, 0, offsetof(Errand, command));
	errand->lock_timeout = lock_timeout;
	strcpy(errand->command, command);
	return segment;
}

/* The command would wait for us as long as we wait for it. */
static void
check_out_of_the_way(void)
{
	InvalidateCatalogSnapshot();
	if (HaveRegisteredOrActiveSnapshot() || TransactionIdIsValid(MyProc->xmin))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("the session holds a snapshot that the command would wait for"),
				 errhint("Close its cursors.")));
}

static ErrorData *
error_of(const RkAnswer *answer)
{
	ErrorData  *error = palloc0(sizeof(ErrorData));

	error->elevel = ERROR;
	error->assoc_context = CurrentMemoryContext;
	if (!answer->ended)
	{
		error->sqlerrcode = ERRCODE_OPERATOR_INTERVENTION;
		error->message = pstrdup("the worker that ran the command has ended before it");
		error->hint = pstrdup("The server's log says why.");
		return error;
	}
	error->sqlerrcode = answer->sqlerrcode;
	error->message = pstrdup(answer->message);
	error->detail = answer->detail[0] != '\0' ? pstrdup(answer->detail) : NULL;
	error->hint = answer->hint[0] != '\0' ? pstrdup(answer->hint) : NULL;
	return error;
}

/*
 * Commit, then run a command at top level in a process of its own, as "role",
 * under the pinned settings, so that it must name everything with its schema.
 * It waits for no lock longer than lock_timeout (in milliseconds; 0: for
 * ever). Returns how it ended; *error is set where it failed, in the current
 * memory context, which must outlive the commit, as must the command. Where no
 * slot for a worker is free, nothing was done but the commit. From non-atomic
 * procedures only (rk_check_non_atomic()), within SPI.
 */
RkOutcome
rk_toplevel_run(Oid role, const char *command, int lock_timeout, ErrorData **error)
{
	RkProcess	process = rk_process_of(role);
	BackgroundWorkerHandle *handle;
	dsm_segment *segment;
	Errand	   *errand;
	RkOutcome	outcome = RK_OUTCOME_DONE;

	*error = NULL;
	rk_commit();
	segment = create_errand(command, lock_timeout);
	if (segment == NULL)
		return RK_OUTCOME_NO_WORKER;
	process.segment = dsm_segment_handle(segment);
	check_out_of_the_way();
	if (!rk_process_start(&process, "rowkeeper_toplevel_main", "command", &handle))
	{
		dsm_detach(segment);
		return RK_OUTCOME_NO_WORKER;
	}

	rk_process_wait(handle);
	errand = dsm_segment_address(segment);
	if (!errand->answer.ended || errand->answer.sqlerrcode != 0)
	{
		*error = error_of(&errand->answer);
		outcome = RK_OUTCOME_FAILED;
	}
	dsm_detach(segment);
	AcceptInvalidationMessages();	/* of what it changed */
	return outcome;
}
