/*
 * jobs.c
 *
 * later(): a migration inside a transaction asks for work that commits as it
 * goes. It is one CALL of a procedure of ours with constant arguments, kept as
 * a row until a process of its own runs it after the commit, as the role that
 * queued it: job_process.c. The first process is started as the transaction
 * commits, so that no worker is needed; where no slot is free, maintain() or
 * the worker starts it later.
 *
 * A row counts in the database in which it was queued. A dump has none, and
 * in a copy of the database (CREATE DATABASE ... TEMPLATE) it is a record:
 * there nobody asked for the work.
 */
#include "rowkeeper.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(rowkeeper_later);
PG_FUNCTION_INFO_V1(rowkeeper_job_require);
PG_FUNCTION_INFO_V1(rowkeeper_home);

/* ---- which call ---- */

/*
 * Procedures that go on where they were when their process goes away: a job of
 * one is run again.
 */
static const char *const resumable_procedures[] = {
	"maintain",
	"partition_convert",
	"soft_delete_purge",
};

static bool
is_constant(Node *node)
{
	ListCell   *lc;

	switch (nodeTag(node))
	{
		case T_A_Const:
			return true;
		case T_TypeCast:
			return is_constant(((TypeCast *) node)->arg);
		case T_NamedArgExpr:
			return is_constant((Node *) ((NamedArgExpr *) node)->arg);
		case T_A_ArrayExpr:
			foreach(lc, ((A_ArrayExpr *) node)->elements)
				if (!is_constant(lfirst(lc)))
				return false;
			return true;
		default:
			return false;
	}
}

RK_NORETURN static void refuse_call(const char *detail);

static void
refuse_call(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("a job is one CALL of a procedure of rowkeeper with constant arguments"),
			 errdetail("%s", detail),
			 errhint("For example: SELECT rowkeeper.later('CALL rowkeeper.maintain()').")));
}

/* Raise 22023 unless a statement is a call that can be a job. */
void
rk_job_check_call(Node *statement)
{
	FuncCall   *call;
	ListCell   *lc;

	if (!IsA(statement, CallStmt))
		refuse_call("This is another command.");
	call = ((CallStmt *) statement)->funccall;
	if (list_length(call->funcname) != 2 || strcmp(strVal(linitial(call->funcname)), "rowkeeper") != 0)
		refuse_call("The procedure is not named with schema rowkeeper.");
	if (call->agg_order != NIL || call->agg_filter != NULL || call->over != NULL ||
		call->agg_within_group || call->agg_star || call->agg_distinct)
		refuse_call("This is no call of a procedure.");
	foreach(lc, call->args)
		if (!is_constant(lfirst(lc)))
		refuse_call("An argument is an expression.");
}

/* The error is about the text of the call, not about the statement that queues it. */
static void
move_error_position(void *call)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery((const char *) call);
	}
}

/*
 * Check a call as it will be run: that its procedure is there, is ours, and
 * takes these arguments. Returns whether it is resumable.
 */
static bool
check_call(const char *call)
{
	ErrorContextCallback callback = {.previous = error_context_stack,.callback = move_error_position,.arg = (void *) call};
	List	   *statements;
	Query	   *query;
	FuncExpr   *function;
	const char *name;

	error_context_stack = &callback;
	statements = raw_parser(call, RAW_PARSE_DEFAULT);
	if (list_length(statements) != 1)
		refuse_call(list_length(statements) == 0 ? "There is no command." : "These are several commands.");
	rk_job_check_call(linitial_node(RawStmt, statements)->stmt);
	query = linitial_node(Query, pg_analyze_and_rewrite_fixedparams(linitial_node(RawStmt, statements),
																	call, NULL, 0, NULL));
	error_context_stack = callback.previous;

	function = castNode(CallStmt, query->utilityStmt)->funcexpr;
	if (getExtensionOfObject(ProcedureRelationId, function->funcid) != get_extension_oid("rowkeeper", false))
		refuse_call("The procedure is not one of the extension.");
	name = get_func_name(function->funcid);
	for (int i = 0; i < lengthof(resumable_procedures); i++)
		if (strcmp(name, resumable_procedures[i]) == 0)
			return true;
	return false;
}

/* ---- starting processes as the transaction commits ---- */

static List *starts = NIL;		/* of RkProcess, one a role; in
								 * TopTransactionContext */

static void
end_transaction(XactEvent event, void *arg)
{
	ListCell   *lc;

	if (event == XACT_EVENT_COMMIT)
		foreach(lc, starts)
			(void) rk_job_process_start(lfirst(lc));
	if (event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PRE_PREPARE)
		starts = NIL;
}

static void
start_at_commit(const RkProcess *process)
{
	MemoryContext old;
	RkProcess  *copy;
	ListCell   *lc;

	foreach(lc, starts)
		if (((RkProcess *) lfirst(lc))->role == process->role)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	copy = palloc(sizeof(RkProcess));
	*copy = *process;
	starts = lappend(starts, copy);
	MemoryContextSwitchTo(old);
}

/* ---- SQL ---- */

/* This database of this server, as text. */
char *
rk_home(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

Datum
rowkeeper_home(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(rk_home()));
}

/*
 * rowkeeper.later(call text) returns bigint: the id of the job.
 *
 * Queues a call in this transaction. Locks: none but those of an INSERT into
 * the table of jobs. The job runs as the current role, which needs the
 * privileges that the procedure asks for when it runs. Errors: 22023 where it
 * is not one CALL of a procedure of the extension with constant arguments,
 * 42601, 42883 and others of parsing it, 22004 for NULL.
 */
Datum
rowkeeper_later(PG_FUNCTION_ARGS)
{
	Oid			types[6] = {TEXTOID, OIDOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID};
	Datum		values[6];
	RkProcess	process;
	Datum		id;
	char	   *call;
	bool		resumable;
	bool		isnull;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("call must not be null")));
	call = text_to_cstring(PG_GETARG_TEXT_PP(0));
	resumable = check_call(call);
	process = rk_process_of(GetUserId());
	values[0] = CStringGetTextDatum(rk_home());
	values[1] = ObjectIdGetDatum(process.role);
	values[2] = CStringGetTextDatum(GetUserNameFromId(process.role, false));
	values[3] = CStringGetTextDatum(call);
	values[4] = CStringGetTextDatum(GetConfigOption("search_path", false, false));
	values[5] = BoolGetDatum(resumable);
	id = rk_fetch(rk_extension_owner(),
				  "INSERT INTO rowkeeper._jobs (id, home, role, role_name, call, search_path, resumable)"
				  " VALUES (nextval('rowkeeper._job_id'), $1, $2, $3, $4, $5, $6) RETURNING id",
				  6, types, values, NULL, &isnull);
	start_at_commit(&process);
	PG_RETURN_DATUM(id);
}

RK_NORETURN static void refuse_job(int64 id, const char *state, const char *error);

static void
refuse_job(int64 id, const char *state, const char *error)
{
	if (state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("there is no job " INT64_FORMAT, id),
				 errhint("rowkeeper.jobs shows those of the current role.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("job " INT64_FORMAT " is not done but %s", id, state),
			 error == NULL ? 0 : errdetail("%s", error),
			 strcmp(state, "failed") == 0
			 ? errhint("Queue it again when the reason is gone.")
			 : errhint("Wait for it: rowkeeper.jobs shows its progress. What waits too long, CALL rowkeeper.maintain() starts.")));
}

/*
 * rowkeeper.job_require(id bigint) returns boolean: true where that job is
 * done. Errors: 55000 where it is not, with its own error as the detail, P0002
 * where the caller can see no such job, 22004 for NULL.
 */
Datum
rowkeeper_job_require(PG_FUNCTION_ARGS)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	char	   *state = NULL;
	char	   *error = NULL;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("id must not be null")));
	values[0] = PG_GETARG_DATUM(0);
	SPI_connect();
	if (SPI_execute_with_args("SELECT state, error FROM rowkeeper.jobs WHERE id OPERATOR(pg_catalog.=) $1",
							  1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the jobs");
	if (SPI_processed > 0)
	{
		state = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		error = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	}
	if (state == NULL || strcmp(state, "done") != 0)
		refuse_job(PG_GETARG_INT64(0), state, error);
	SPI_finish();
	PG_RETURN_BOOL(true);
}

void
rk_jobs_init(void)
{
	RegisterXactCallback(end_transaction, NULL);
	rk_job_process_init();
}
