/*
 * flag_view.c
 *
 * The view of a table's live rows, as an object: made, adopted where there is
 * one that means the same, brought in line with the table's columns, hidden
 * around DDL that it would block, and dropped.
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
#include "executor/spi.h"
#include "miscadmin.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_hide_view);
PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_refresh);
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

/* The texts in the first column of a query about a relation. */
static List *
fetch_texts(const char *sql, Oid relid)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(relid)};
	List	   *texts = NIL;
	RkIdentity	saved;

	rk_identity_assume(&saved, GetUserId(), false);
	SPI_connect();
	/* not read-only: it sees what this command did before */
	if (SPI_execute_with_args(sql, 1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", sql);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *text = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		MemoryContext old = MemoryContextSwitchTo(caller);

		texts = lappend(texts, pstrdup(text));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return texts;
}

/* The rights on the table, which are those that its view needs as well. */
static void
copy_grants(FunctionCallInfo fcinfo, Oid root, Oid view)
{
	ListCell   *lc;

	foreach(lc, fetch_texts(psprintf("SELECT format('GRANT %%s ON %%s TO %%s%%s',"
									 " string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), %s,"
									 " CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,"
									 " CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)"
									 " FROM pg_class c, aclexplode(c.relacl) a"
									 " WHERE c.oid = $1 AND a.grantee <> c.relowner"
									 " AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')"
									 " GROUP BY a.grantee, a.is_grantable ORDER BY 1",
									 quote_literal_cstr(rk_relation_name(view))), root))
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
	List	   *options = fetch_texts("SELECT o FROM pg_class c, unnest(c.reloptions) o WHERE c.oid = $1", view);
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

/* ---- around DDL that the view blocks ---- */

/* What brings back all that was said of a view, as statements for its owner. */
static List *
view_statements(Oid view)
{
	return fetch_texts("SELECT s FROM ("
					   "SELECT 1 AS rank, format('ALTER VIEW %I.%I SET (%s)', n.nspname, c.relname, o.list) AS s"
					   " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,"
					   " LATERAL (SELECT string_agg(o, ', ') AS list FROM unnest(c.reloptions) o WHERE o NOT LIKE 'security_invoker=%') o"
					   " WHERE c.oid = $1 AND o.list IS NOT NULL"
					   " UNION ALL "
					   "SELECT 1, format('ALTER VIEW %I.%I ALTER COLUMN %I SET DEFAULT %s', n.nspname, c.relname, a.attname, pg_get_expr(d.adbin, d.adrelid))"
					   " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
					   " JOIN pg_attrdef d ON d.adrelid = c.oid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.adnum"
					   " WHERE c.oid = $1"
					   " UNION ALL "
					   "SELECT 2, format('GRANT %s%s ON %s TO %s%s', a.privilege_type,"
					   "  CASE WHEN a.attname IS NULL THEN '' ELSE format(' (%I)', a.attname) END,"
					   "  format('%I.%I', n.nspname, c.relname),"
					   "  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,"
					   "  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)"
					   " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,"
					   " LATERAL (SELECT x.*, NULL::name AS attname FROM aclexplode(c.relacl) x"
					   "  UNION ALL SELECT x.*, t.attname FROM pg_attribute t, aclexplode(t.attacl) x WHERE t.attrelid = c.oid) a"
					   " WHERE c.oid = $1 AND a.grantee <> c.relowner"
					   " UNION ALL "
					   "SELECT 3, format('COMMENT ON VIEW %I.%I IS %L', n.nspname, c.relname, obj_description(c.oid, 'pg_class'))"
					   " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
					   " WHERE c.oid = $1 AND obj_description(c.oid, 'pg_class') IS NOT NULL"
					   " UNION ALL "
					   "SELECT 3, format('COMMENT ON COLUMN %I.%I.%I IS %L', n.nspname, c.relname, a.attname, col_description(c.oid, a.attnum))"
					   " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid"
					   " WHERE c.oid = $1 AND a.attnum > 0 AND col_description(c.oid, a.attnum) IS NOT NULL"
					   ") x ORDER BY rank, s", view);
}

/* What nothing here brings back must not go. */
static void
check_can_hide(Oid view)
{
	List	   *others = fetch_texts("SELECT format('trigger %I', tgname) FROM pg_trigger WHERE tgrelid = $1"
									 " AND NOT tgisinternal AND tgname !~ '^rowkeeper_'"
									 " UNION ALL SELECT format('rule %I', rulename) FROM pg_rewrite WHERE ev_class = $1"
									 " AND rulename <> '_RETURN' ORDER BY 1", view);

	if (others != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot hide view %s, because it has a %s of its own",
						rk_relation_name(view), (char *) linitial(others)),
				 errhint("Drop it first, and create it again after rowkeeper.soft_delete_refresh().")));
}

/* One statement, which may fail: its role may be gone since. */
typedef struct Statement
{
	FunctionCallInfo fcinfo;
	Oid			owner;
	const char *sql;
} Statement;

static void
run_statement(void *arg)
{
	Statement  *statement = arg;

	rk_run_step(statement->fcinfo, statement->owner, statement->sql);
}

static void
run_statements(FunctionCallInfo fcinfo, Oid owner, List *statements)
{
	ListCell   *lc;

	foreach(lc, statements)
	{
		Statement	statement = {.fcinfo = fcinfo,.owner = owner,.sql = lfirst(lc)};
		ErrorData  *error = rk_attempt(run_statement, &statement);

		if (error != NULL)
			ereport(WARNING,
					(errmsg("could not run \"%s\": %s", statement.sql, error->message)));
	}
}

/* The table of a call that concerns its view. */
static Oid
view_target(FunctionCallInfo fcinfo, RkSoftDeleteOptions **options)
{
	Oid			root;

	rk_steps_begin(fcinfo);
	root = rk_target_argument(fcinfo);
	rk_check_owner(root);
	LockRelationOid(root, ShareUpdateExclusiveLock);	/* as soft_delete() does */
	*options = rk_soft_delete_options_of(root);
	if (*options == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s has no soft delete", rk_relation_name(root))));
	return root;
}

/*
 * rowkeeper.soft_delete_hide_view(target regclass) returns SETOF text: drops
 * the view of a table with soft delete, so that DDL which it blocks can be
 * run; its rights are remembered. Nothing to do: no rows. The caller must own
 * the table. Locks: ACCESS EXCLUSIVE on the view, SHARE ROW EXCLUSIVE on the
 * table. Errors: 55000 no soft delete, 2BP01 something depends on the view, or
 * is on it and could not be brought back.
 */
Datum
rowkeeper_soft_delete_hide_view(PG_FUNCTION_ARGS)
{
	RkSoftDeleteOptions *options;
	Oid			root = view_target(fcinfo, &options);
	ViewDrop	drop = {.fcinfo = fcinfo};

	if (options->trash)
	{
		rk_trash_view_drop(fcinfo, root, options);
		return (Datum) 0;
	}
	drop.view = rk_flag_view_of(root, options);
	if (!OidIsValid(drop.view))
		return (Datum) 0;
	check_can_hide(drop.view);
	options->hidden = true;
	options->grants = view_statements(drop.view);
	drop_view(&drop);
	(void) rk_flag_row_trigger_set(fcinfo, root, options);
	return (Datum) 0;
}

/*
 * rowkeeper.soft_delete_refresh(target regclass) returns SETOF text: brings
 * the view back with its rights, or in line with the table's columns. Nothing
 * to do: no rows. The caller must own the table. Locks: ACCESS EXCLUSIVE on
 * the view, SHARE ROW EXCLUSIVE on the table, where they are changed. Errors:
 * 55000 no soft delete, 42P07 something else has the view's name.
 */
Datum
rowkeeper_soft_delete_refresh(PG_FUNCTION_ARGS)
{
	RkSoftDeleteOptions *options;
	Oid			root = view_target(fcinfo, &options);

	if (options->trash)
	{
		rk_trash_view_refresh(fcinfo, root, options);
		return (Datum) 0;
	}
	(void) rk_flag_view_set(fcinfo, root, options);
	if (options->hidden)
	{
		run_statements(fcinfo, rk_relation_owner(named_relation(options)), options->grants);
		options->hidden = false;
		options->grants = NIL;
		(void) rk_flag_row_trigger_set(fcinfo, root, options);
	}
	return (Datum) 0;
}

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
