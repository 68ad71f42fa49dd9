/*
 * trash_readers.c
 *
 * Who reads a trash table. Its readers are the source's: owner, SELECT grants,
 * row security and its policies follow the source. Nobody but the owner may
 * write to it; what a delete puts there it puts there directly. What differs is
 * computed by the view rowkeeper._trash_repairs, statement by statement, for
 * doctor() and for here, where the statements are run.
 */
#include "soft_delete/soft_delete.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

PG_FUNCTION_INFO_V1(rowkeeper_policy_expression);

/* ---- policies ---- */

/* The source of a policy that refers to its table as a whole or to what is not a column of ours. */
static bool
reads_whole_row(Node *node, int *level)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varlevelsup == *level && ((Var *) node)->varattno <= 0;
	if (IsA(node, Query))
	{
		bool		found;

		(*level)++;
		found = query_tree_walker((Query *) node, reads_whole_row, level, 0);
		(*level)--;
		return found;
	}
	return expression_tree_walker(node, reads_whole_row, level);
}

/*
 * rowkeeper._policy_expression(expression pg_node_tree, relation oid, called
 * text) returns text: a policy's expression as SQL, in which the relation
 * goes by another name. What reads rows as a whole, or system columns, keeps
 * the name, and so cannot be said of another table. NULL: no such relation.
 */
Datum
rowkeeper_policy_expression(PG_FUNCTION_ARGS)
{
	Node	   *expression = stringToNode(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	Relation	rel = try_relation_open(PG_GETARG_OID(1), AccessShareLock);
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(2));
	int			level = 0;
	char	   *sql;

	if (rel == NULL)
		PG_RETURN_NULL();
	if (reads_whole_row(expression, &level))
		name = RelationGetRelationName(rel);
	sql = deparse_expression(expression, deparse_context_for(name, RelationGetRelid(rel)), false, false);
	relation_close(rel, AccessShareLock);
	PG_RETURN_TEXT_P(cstring_to_text(sql));
}

/* ---- repairs ---- */

/* One statement of _trash_repairs. */
typedef struct Repair
{
	Oid			root;
	Oid			object;
	int			step;
	char	   *statement;
	char	   *policy;
} Repair;

/* The order in which it is done, see _trash_repairs. */
enum
{
	REPAIR_VIEW_OWNER, REPAIR_TRASH_OWNER, REPAIR_GRANTS = 4, REPAIR_UNREADABLE = 7,
	REPAIR_ALL = REPAIR_UNREADABLE
};

static void
run_repair(void *arg)
{
	Repair	   *repair = arg;

	switch (repair->step)
	{
		case REPAIR_VIEW_OWNER:
			/* who had it until now may have written anything into it */
			rk_trash_view_rewrite(repair->root);
			(void) rk_run(rk_extension_owner(), repair->statement);
			break;
		case REPAIR_TRASH_OWNER:
			(void) rk_run(rk_extension_owner(), repair->statement);
			break;
		default:
			rk_trash_run_as_owner(repair->object, repair->statement);
	}
}

static bool
is_unreadable(Oid trash)
{
	return rk_exists_about(rk_extension_owner(), trash,
						   "SELECT 1 FROM pg_policy WHERE polrelid = $1 AND polname = 'rowkeeper_unreadable'");
}

/*
 * A policy whose expression cannot be said of the trash table: nobody but the
 * owner reads there, rather than somebody too much.
 */
static void
refuse_readers(const Repair *repair, const char *reason)
{
	if (!is_unreadable(repair->object))
		rk_trash_run_as_owner(repair->object,
							  psprintf("CREATE POLICY rowkeeper_unreadable ON %s AS RESTRICTIVE FOR SELECT USING (false)",
									   rk_relation_name(repair->object)));
	ereport(WARNING,
			(errmsg("policy \"%s\" of %s cannot be given to its trash table: %s",
					repair->policy, rk_relation_name(repair->root), reason),
			 errdetail("Under row security no deleted rows can be read until the policy can.")));
}

/* What has to be repaired of a table, in order. */
static List *
read_repairs(Oid root)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(root)};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old;
	RkIdentity	saved;
	List	   *repairs = NIL;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_with_args("SELECT object, step, statement, policy FROM rowkeeper._trash_repairs"
							  " WHERE root = $1 ORDER BY step, statement",
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not compare the trash table with its source");
	old = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Repair	   *repair = palloc0(sizeof(Repair));
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		repair->root = root;
		repair->object = DatumGetObjectId(SPI_getbinval(row, desc, 1, &isnull));
		repair->step = DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull));
		repair->statement = SPI_getvalue(row, desc, 3);
		repair->policy = SPI_getvalue(row, desc, 4);
		repairs = lappend(repairs, repair);
	}
	MemoryContextSwitchTo(old);
	SPI_finish();
	rk_identity_restore(&saved);
	return repairs;
}

/* What rk_trash_readers_repair() does, up to a step. */
static void
repair_up_to(FunctionCallInfo fcinfo, Oid root, int last_step)
{
	bool		refused = false;
	ListCell   *lc;

	foreach(lc, read_repairs(root))
	{
		Repair	   *repair = lfirst(lc);
		ErrorData  *error = NULL;

		if (repair->step > last_step || (repair->step == REPAIR_UNREADABLE && refused))
			continue;
		if (repair->policy == NULL && repair->step != REPAIR_VIEW_OWNER)
			run_repair(repair);
		else
			error = rk_attempt(run_repair, repair);
		if (error != NULL && repair->policy != NULL)
		{
			refused = true;
			refuse_readers(repair, error->message);
		}
		else if (error != NULL)
			ereport(WARNING,
					(errmsg("view %s could not be given to the owner of its table: %s",
							rk_relation_name(repair->object), error->message)));
		if (fcinfo != NULL && error == NULL)
			rk_step(fcinfo, repair->statement);
	}
}

/*
 * Bring owner, grants, row security and policies of the trash table in line
 * with the source. As long as a policy cannot be made, nobody reads there.
 */
void
rk_trash_readers_repair(FunctionCallInfo fcinfo, Oid root)
{
	repair_up_to(fcinfo, root, REPAIR_ALL);
}

/* ---- what happens to readers ---- */

/* The sources of which one of these relations is the table, or its trash or view. */
static List *
sources_of(List *relids, const char *columns)
{
	StringInfoData list;
	ListCell   *lc;
	List	   *roots;
	RkIdentity	saved;

	initStringInfo(&list);
	foreach(lc, relids)
		appendStringInfo(&list, "%s%u", foreach_current_index(lc) > 0 ? "," : "", lfirst_oid(lc));
	rk_identity_assume(&saved, rk_extension_owner(), false);
	roots = rk_fetch_oids(psprintf("SELECT root FROM rowkeeper._trash_tables"
								   " WHERE ARRAY[%s] && '{%s}'::oid[] ORDER BY root", columns, list.data));
	rk_identity_restore(&saved);
	return roots;
}

/*
 * Grants and policies of these relations alone, whatever others may need. What
 * was granted on a trash table or its view is taken back.
 */
void
rk_trash_readers_altered(List *relids)
{
	ListCell   *lc;

	/* our own script's grants: what compares them is not there yet */
	if (relids == NIL || creating_extension || rk_is_loading_dump() ||
		!OidIsValid(get_namespace_oid(RK_TRASH_SCHEMA, true)))
		return;
	foreach(lc, sources_of(relids, "root"))
		rk_trash_readers_repair(NULL, lfirst_oid(lc));
	foreach(lc, sources_of(relids, "trash, view"))
		repair_up_to(NULL, lfirst_oid(lc), REPAIR_GRANTS);
}
