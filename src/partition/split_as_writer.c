/*
 * split_as_writer.c
 *
 * A statement on the copy of a partition that is divided, with the rights of the
 * table's owner and past row security, but by the writer. What runs meanwhile of
 * users' code (functions of CHECK constraints, of indexes, of types) runs as he,
 * as it does for the partition. As the owner it would run what the writer's
 * session has made of it: that keeps what a function's names were found to be
 * since its first call, whatever the search_path is by then.
 *
 * So the statement is analyzed as the owner, who finds the names and whom row
 * security does not hold; then, in the planner's hook, all that it reads and
 * writes is to be checked as the owner, as what a view reads is, and it is planned
 * and run as the writer. It is known by the address of its text: nobody else has
 * that.
 */
#include "partition/partition.h"

#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/planner.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"

/* Where it is run: further up the stack may be another. */
typedef struct Run
{
	const char *sql;
	Oid			owner;
	RkIdentity	writer;
	struct Run *outer;
} Run;

static Run *current = NULL;
static planner_hook_type next_planner = NULL;
static ExecutorStart_hook_type next_executor_start = NULL;

static bool
is_current(const char *sql)
{
	return current != NULL && sql == current->sql;
}

/* A tree walker. */
static bool
check_as(Node *node, void *role)
{
	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, check_as, role);
	rk_query_check_as((Query *) node, *(Oid *) role);
	return query_tree_walker((Query *) node, check_as, role, 0);
}

static void
become_writer(void)
{
	SetUserIdAndSecContext(current->writer.user, current->writer.sec_context);
}

static PlannedStmt *
plan_as_writer(Query *query, const char *sql, int options, ParamListInfo parameters)
{
	bool		ours = is_current(sql);
	Oid			user;
	int			context;
	PlannedStmt *plan;

	GetUserIdAndSecContext(&user, &context);
	if (ours)
	{
		(void) check_as((Node *) query, &current->owner);
		become_writer();
	}
	plan = next_planner != NULL ? next_planner(query, sql, options, parameters)
		: standard_planner(query, sql, options, parameters);
	/* whose plan it is in the cache */
	if (ours)
		SetUserIdAndSecContext(user, context);
	return plan;
}

static void
start_as_writer(QueryDesc *query, int flags)
{
	if (is_current(query->sourceText))
		become_writer();
	if (next_executor_start != NULL)
		next_executor_start(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

void
rk_split_as_writer_init(void)
{
	next_planner = planner_hook;
	planner_hook = plan_as_writer;
	next_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = start_as_writer;
}

/* Become the owner; the writer's settings stay, but what would lock too much. */
void
rk_split_become_owner(Oid owner, RkIdentity *saved)
{
	GetUserIdAndSecContext(&saved->user, &saved->sec_context);
	SetUserIdAndSecContext(owner, saved->sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	saved->users_code = false;
	saved->guc_level = NewGUCNestLevel();
	if (plan_cache_mode == PLAN_CACHE_MODE_FORCE_GENERIC_PLAN)
		(void) set_config_option("plan_cache_mode", "auto", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Run a plan of one statement with the latest snapshot; returns how many rows it
 * has written. Deferred constraints are the transaction's.
 */
uint64
rk_split_run_as_writer(SPIPlanPtr plan, Oid owner, Datum *values, const char *nulls)
{
	Run			run = {.owner = owner,.outer = current};
	uint64		count;

	run.sql = ((CachedPlanSource *) linitial(SPI_plan_get_plan_sources(plan)))->query_string;
	rk_split_become_owner(owner, &run.writer);
	SPI_connect();
	current = &run;
	PG_TRY();
	{
		if (SPI_execute_snapshot(plan, values, nulls, GetLatestSnapshot(), InvalidSnapshot, false, true, 0) < 0)
			elog(ERROR, "could not write to the copy of a partition");
	}
	PG_FINALLY();
	{
		current = run.outer;
	}
	PG_END_TRY();
	count = SPI_processed;
	SPI_finish();
	rk_identity_restore(&run.writer);
	return count;
}
