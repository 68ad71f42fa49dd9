/*
 * flag_view.c
 *
 * The view of a table's live rows, as an object: made, adopted where there is
 * one that means the same, brought in line with the table's columns, and
 * dropped.
 *
 * The view belongs to the table's owner and has the rights of who uses it
 * (security_invoker): one with its owner's rights would show rows past row
 * security. It is no barrier, so plans through it are those of a hand-written
 * WHERE, partial indexes included.
 */
#include "soft_delete/soft_delete.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_view_is_live);

/* What a view selects, where it is as simple as ours. */
typedef struct LiveView
{
	Oid			base;
	int			count;
	AttrNumber *columns;		/* of base, behind each column of the view */
	AttrNumber	live;			/* base's column that is NULL; 0: another
								 * condition */
} LiveView;

/* ---- reading a view ---- */

static AttrNumber
plain_column(Node *node, int base)
{
	Var		   *var = (Var *) node;

	return IsA(node, Var) && var->varno == base && var->varlevelsup == 0 && var->varattno > 0
		? var->varattno : 0;
}

static bool
is_plain_query(const Query *query)
{
	return query->commandType == CMD_SELECT && !query->hasAggs && !query->hasWindowFuncs &&
		!query->hasTargetSRFs && !query->hasSubLinks && !query->hasDistinctOn &&
		query->cteList == NIL && query->groupClause == NIL && query->groupingSets == NIL &&
		query->havingQual == NULL && query->windowClause == NIL && query->distinctClause == NIL &&
		query->sortClause == NIL && query->limitOffset == NULL && query->limitCount == NULL &&
		query->rowMarks == NIL && query->setOperations == NULL;
}

/* Read a view that shows plain columns of one table; false: it does not. */
static bool
read_view(Relation view, LiveView *result)
{
	Query	   *query = get_view_query(view);
	RangeTblEntry *base;
	ListCell   *lc;
	int			number;

	memset(result, 0, sizeof(LiveView));
	if (!is_plain_query(query) || list_length(query->jointree->fromlist) != 1 ||
		!IsA(linitial(query->jointree->fromlist), RangeTblRef))
		return false;
	number = linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex;
	base = rt_fetch(number, query->rtable);
	if (base->rtekind != RTE_RELATION || base->tablesample != NULL ||
		(base->relkind != RELKIND_RELATION && base->relkind != RELKIND_PARTITIONED_TABLE))
		return false;

	result->base = base->relid;
	result->columns = palloc(RelationGetDescr(view)->natts * sizeof(AttrNumber));
	foreach(lc, query->targetList)
	{
		TargetEntry *entry = lfirst(lc);

		if (!entry->resjunk)
			result->columns[result->count++] = plain_column((Node *) entry->expr, number);
	}
	if (query->jointree->quals != NULL && IsA(query->jointree->quals, NullTest))
	{
		NullTest   *test = (NullTest *) query->jointree->quals;

		if (test->nulltesttype == IS_NULL && !test->argisrow)
			result->live = plain_column((Node *) test->arg, number);
	}
	return true;
}

static bool
read_view_by_oid(Oid relid, LiveView *result)
{
	Relation	view;
	bool		found;

	if (get_rel_relkind(relid) != RELKIND_VIEW)
		return false;
	view = table_open(relid, AccessShareLock);
	found = read_view(view, result);
	table_close(view, NoLock);
	return found;
}

/* The table that a view shows; InvalidOid where it is no plain view of one. */
Oid
rk_flag_view_base(Oid view)
{
	LiveView	live;

	return read_view_by_oid(view, &live) ? live.base : InvalidOid;
}

/* The columns of its table behind those of a view; 0 behind an expression. */
AttrNumber *
rk_flag_view_columns(Relation view, int *count)
{
	LiveView	live;

	*count = 0;
	if (!read_view(view, &live))
		return NULL;
	*count = live.count;
	return live.columns;
}

/* Whether a view shows the live rows of a table, with all of its columns or fewer. */
static bool
shows_live_rows(const LiveView *live, Oid root, const RkSoftDeleteOptions *options)
{
	if (live->base != root || live->live == 0 || live->live != get_attnum(root, options->deleted_at))
		return false;
	for (int i = 0; i < live->count; i++)
		if (live->columns[i] == 0)
			return false;
	return true;
}

/* ---- which view it is ---- */

static Oid
named_relation(const RkSoftDeleteOptions *options)
{
	Oid			schema = get_namespace_oid(options->view_schema, true);

	return OidIsValid(schema) ? get_relname_relid(options->view_name, schema) : InvalidOid;
}

/*
 * Whether a view is the table's owner's. Not only one that he may alter: a
 * superuser may alter everybody's, and whose it is can alter it later.
 */
bool
rk_flag_view_is_owned(Oid view, Oid root)
{
	return rk_relation_owner(view) == rk_relation_owner(root);
}

/*
 * The view of a table in flag mode; InvalidOid where it is not there. Another
 * role's view that merely has the name and shows the table is not it: only
 * soft_delete() puts our trigger on a view.
 */
Oid
rk_flag_view_of(Oid root, const RkSoftDeleteOptions *options)
{
	Oid			view = named_relation(options);
	RkTriggerRow row;

	if (!OidIsValid(view) || rk_flag_view_base(view) != root)
		return InvalidOid;
	return rk_flag_view_is_owned(view, root) ||
		rk_trigger_read(view, RK_SOFT_DELETE_TRIGGER, "_soft_delete_view", &row) ? view : InvalidOid;
}

/* ---- making it ---- */

static bool
list_has_column(const LiveView *live, AttrNumber column)
{
	for (int i = 0; live != NULL && i < live->count; i++)
		if (live->columns[i] == column)
			return true;
	return false;
}

/*
 * The SELECT of the view: the columns that it has already (live, or NULL) in
 * their order, then the table's others; *added says how many those are.
 */
static char *
select_live_rows(Oid root, const RkSoftDeleteOptions *options, const LiveView *live, int *added)
{
	Relation	rel = table_open(root, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData sql;

	*added = 0;
	initStringInfo(&sql);
	for (int i = 0; live != NULL && i < live->count; i++)
		appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "SELECT ",
						 quote_identifier(get_attname(root, live->columns[i], false)));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped || list_has_column(live, column->attnum))
			continue;
		appendStringInfo(&sql, "%s%s", sql.len > 0 ? ", " : "SELECT ",
						 quote_identifier(NameStr(column->attname)));
		(*added)++;
	}
	appendStringInfo(&sql, " FROM %s WHERE %s IS NULL", rk_relation_name(root),
					 quote_identifier(options->deleted_at));
	table_close(rel, NoLock);
	return sql.data;
}

/* The rights on the table, which are those that its view needs as well. */
static void
copy_grants(FunctionCallInfo fcinfo, Oid root, Oid view)
{
	ListCell   *lc;

	foreach(lc, rk_fetch_texts_about(GetUserId(), root,
									 psprintf("SELECT format('GRANT %%s ON %%s TO %%s%%s',"
											  " string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), %s,"
											  " CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,"
											  " CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)"
											  " FROM pg_class c, aclexplode(c.relacl) a"
											  " WHERE c.oid = $1 AND a.grantee <> c.relowner"
											  " AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')"
											  " GROUP BY a.grantee, a.is_grantable ORDER BY 1",
											  quote_literal_cstr(rk_relation_name(view)))))
		rk_run_step(fcinfo, rk_relation_owner(view), lfirst(lc));
}

static void
create_view(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options)
{
	int			added;

	rk_run_step(fcinfo, rk_relation_owner(root),
				psprintf("CREATE VIEW %s WITH (security_invoker = true) AS %s",
						 quote_qualified_identifier(options->view_schema, options->view_name),
						 select_live_rows(root, options, NULL, &added)));
	if (!options->hidden)
		copy_grants(fcinfo, root, named_relation(options));
}

/* ---- adopting it, and keeping it in line ---- */

RK_NORETURN static void
refuse_view(Oid view, Oid root, const char *reason)
{
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_TABLE),
			 errmsg("%s exists and is not the view of the live rows of %s",
					rk_relation_name(view), rk_relation_name(root)),
			 errdetail("%s", reason),
			 errhint("Drop or rename it, or give the view another name: view_name => '...'.")));
}

static bool
has_other_instead_trigger(Relation view)
{
	TriggerDesc *triggers = view->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (TRIGGER_FOR_INSTEAD(triggers->triggers[i].tgtype) &&
			TRIGGER_FOR_DELETE(triggers->triggers[i].tgtype) &&
			strcmp(triggers->triggers[i].tgname, RK_SOFT_DELETE_TRIGGER) != 0)
			return true;
	return view->rd_rules != NULL && view->rd_rules->numLocks > 1;
}

/* Raise 42P07 where what has the view's name is something else. */
static void
check_view(Oid relid, Oid root, const RkSoftDeleteOptions *options, LiveView *live)
{
	Relation	view;
	Bitmapset  *key;
	int			column = -1;
	Relation	table;

	if (get_rel_relkind(relid) != RELKIND_VIEW)
		refuse_view(relid, root, "It is not a view.");
	if (!rk_is_relation_owner(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, get_rel_name(relid));
	if (!rk_flag_view_is_owned(relid, root))
		refuse_view(relid, root, "It belongs to another role than the table.");
	view = table_open(relid, AccessShareLock);
	if (!read_view(view, live) || !shows_live_rows(live, root, options))
		refuse_view(relid, root,
					psprintf("It does not select columns of the table where %s is null.",
							 quote_identifier(options->deleted_at)));
	if (has_other_instead_trigger(view))
		refuse_view(relid, root, "It has rules or triggers of its own for DELETE.");
	table_close(view, NoLock);

	table = table_open(root, AccessShareLock);
	key = RelationGetIndexAttrBitmap(table, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	while ((column = bms_next_member(key, column)) >= 0)
		if (!list_has_column(live, column + FirstLowInvalidHeapAttributeNumber))
			refuse_view(relid, root, "It does not show the whole primary key.");
	table_close(table, NoLock);
}

/* A view keeps its column's name when the table's is renamed: follow. */
static bool
follow_names(FunctionCallInfo fcinfo, Oid view, Oid root, const LiveView *live)
{
	bool		changed = false;

	for (int i = 0; i < live->count; i++)
	{
		char	   *shown = get_attname(view, i + 1, false);
		char	   *name = get_attname(root, live->columns[i], false);

		if (strcmp(shown, name) == 0)
			continue;
		rk_run_step(fcinfo, rk_relation_owner(view),
					psprintf("ALTER VIEW %s RENAME COLUMN %s TO %s", rk_relation_name(view),
							 quote_identifier(shown), quote_identifier(name)));
		changed = true;
	}
	return changed;
}

/* The options that a view has, as WITH takes them; the replaced view keeps them. */
static char *
view_options(Oid view)
{
	List	   *options = rk_fetch_texts_about(GetUserId(), view,
											   "SELECT o FROM pg_class c, unnest(c.reloptions) o WHERE c.oid = $1");
	StringInfoData list;
	ListCell   *lc;

	initStringInfo(&list);
	foreach(lc, options)
		appendStringInfo(&list, "%s%s", foreach_current_index(lc) > 0 ? ", " : "", (char *) lfirst(lc));
	return list.data;
}

static bool
is_invoker(Oid view)
{
	Relation	rel = table_open(view, AccessShareLock);
	bool		result = RelationHasSecurityInvoker(rel);

	table_close(rel, NoLock);
	return result;
}

static bool
follow_columns(FunctionCallInfo fcinfo, Oid view, Oid root, const RkSoftDeleteOptions *options,
			   const LiveView *live)
{
	int			added;
	char	   *select = select_live_rows(root, options, live, &added);

	if (added == 0)
		return false;
	rk_run_step(fcinfo, rk_relation_owner(view),
				psprintf("CREATE OR REPLACE VIEW %s WITH (%s) AS %s",
						 rk_relation_name(view), view_options(view), select));
	return true;
}

/*
 * Make the view as the options and the table's columns want it: create it,
 * adopt the one there is, rename and add columns, put back its triggers.
 * Returns whether anything had to be done; sets options->adopted. Errors:
 * 42P07 the name is taken by something else, 42501 the view is another
 * role's. Locks: ACCESS EXCLUSIVE on the view where it is changed.
 */
bool
rk_flag_view_set(FunctionCallInfo fcinfo, Oid root, RkSoftDeleteOptions *options)
{
	Oid			view = named_relation(options);
	LiveView	live;
	bool		changed = false;

	if (!OidIsValid(view))
	{
		create_view(fcinfo, root, options);
		if (!options->hidden)
			options->adopted = false;
		view = named_relation(options);
		changed = true;
	}
	else
	{
		RkTriggerRow ours;

		check_view(view, root, options, &live);
		if (!rk_trigger_read(view, RK_SOFT_DELETE_TRIGGER, "_soft_delete_view", &ours))
			options->adopted = true;
		if (!is_invoker(view))
		{
			rk_run_step(fcinfo, rk_relation_owner(view), psprintf("ALTER VIEW %s SET (security_invoker = true)",
																  rk_relation_name(view)));
			changed = true;
		}
		changed |= follow_names(fcinfo, view, root, &live);
		changed |= follow_columns(fcinfo, view, root, options, &live);
	}
	changed |= rk_flag_view_triggers_set(fcinfo, view);
	return changed;
}

/* The table was given to another role: so is its view, which whoever had it could alter. */
static void
follow_owner(Oid view, Oid root)
{
	Relation	rel = table_open(view, AccessShareLock);
	bool		others = has_other_instead_trigger(rel);

	table_close(rel, NoLock);
	if (others)
		ereport(WARNING,
				(errmsg("view %s was not given to the owner of its table: it has rules or triggers of its own",
						rk_relation_name(view))));
	else
		(void) rk_run(rk_extension_owner(),
					  psprintf("ALTER VIEW %s OWNER TO %s", rk_relation_name(view),
							   quote_identifier(GetUserNameFromId(rk_relation_owner(root), false))));
}

/*
 * After DDL on the table: the view there is follows its owner and columns. A
 * view that is missing, or not ours any more, is left to the doctor.
 */
void
rk_flag_view_follow(Oid root, RkSoftDeleteOptions *options)
{
	Oid			view = rk_flag_view_of(root, options);
	LiveView	live;
	RkTriggerRow row;

	if (!OidIsValid(view) ||
		!rk_trigger_read(view, RK_SOFT_DELETE_TRIGGER, "_soft_delete_view", &row) ||
		!read_view_by_oid(view, &live) || !shows_live_rows(&live, root, options))
		return;
	if (!rk_flag_view_is_owned(view, root))
		follow_owner(view, root);
	(void) follow_names(NULL, view, root, &live);
	(void) follow_columns(NULL, view, root, options, &live);
}

/* ---- taking it away ---- */

/* What an attempt to drop a view is told. */
typedef struct ViewDrop
{
	FunctionCallInfo fcinfo;
	Oid			view;
} ViewDrop;

static void
drop_view(void *arg)
{
	ViewDrop   *drop = arg;

	rk_run_step(drop->fcinfo, rk_relation_owner(drop->view),
				psprintf("DROP VIEW %s", rk_relation_name(drop->view)));
}

/*
 * Soft delete goes: so does a view that it made, for a DELETE through it would
 * now be for good. One that was adopted, or that something else needs, stays.
 */
void
rk_flag_view_drop(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options)
{
	ViewDrop	drop = {.fcinfo = fcinfo,.view = rk_flag_view_of(root, options)};
	ErrorData  *error;

	if (!OidIsValid(drop.view))
		return;
	if (!options->adopted)
	{
		error = rk_attempt(drop_view, &drop);
		if (error == NULL)
			return;
		ereport(WARNING,
				(errmsg("view %s stays: %s", rk_relation_name(drop.view), error->message),
				 errdetail("A DELETE through it now deletes for good.")));
	}
	rk_flag_view_triggers_drop(fcinfo, drop.view);
}

/* ---- for doctor() ---- */

/*
 * rowkeeper._soft_delete_view_is_live(target regclass) returns text: what is
 * wrong with the view of a table in flag mode, NULL: nothing. Locks: ACCESS
 * SHARE on the view. For doctor().
 */
Datum
rowkeeper_soft_delete_view_is_live(PG_FUNCTION_ARGS)
{
	Oid			root = PG_GETARG_OID(0);
	RkSoftDeleteOptions *options = rk_flag_options_of(root);
	Oid			view;
	LiveView	live;
	RkTriggerRow row;
	int			added;

	if (options == NULL)
		PG_RETURN_NULL();
	if (options->hidden)
		PG_RETURN_TEXT_P(cstring_to_text("view is hidden"));
	view = named_relation(options);
	if (!OidIsValid(view))
		PG_RETURN_TEXT_P(cstring_to_text("view is missing"));
	if (!read_view_by_oid(view, &live) || !shows_live_rows(&live, root, options))
		PG_RETURN_TEXT_P(cstring_to_text("view does not show the live rows"));
	if (!rk_flag_view_is_owned(view, root))
		PG_RETURN_TEXT_P(cstring_to_text("view belongs to another role than its table"));
	if (!is_invoker(view))
		PG_RETURN_TEXT_P(cstring_to_text("view shows rows past row security: it has its owner's rights"));
	if (!rk_trigger_read(view, RK_SOFT_DELETE_TRIGGER, "_soft_delete_view", &row))
		PG_RETURN_TEXT_P(cstring_to_text("view has no trigger: a DELETE through it is for good"));
	(void) select_live_rows(root, options, &live, &added);
	if (added > 0)
		PG_RETURN_TEXT_P(cstring_to_text("view does not show all columns"));
	PG_RETURN_NULL();
}
