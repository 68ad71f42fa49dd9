/*
 * hide_view.c
 *
 * soft_delete_hide_view() and soft_delete_refresh(), for both modes: a view
 * stands in the way of DDL on its table (a column cannot be dropped, nor change
 * its type), so it is taken away and brought back. In flag mode it may be the
 * application's own: all that was said of it is remembered as statements. The
 * other mode's view is made anew from nothing.
 */
#include "soft_delete/soft_delete.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_hide_view);
PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_refresh);

/* What brings back all that was said of a view, as statements for its owner. */
static List *
view_statements(Oid view)
{
	return rk_fetch_texts_about(GetUserId(), view,
								"SELECT s FROM ("
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
								") x ORDER BY rank, s");
}

/* What nothing here brings back must not go. */
static void
check_can_hide(Oid view)
{
	List	   *others = rk_fetch_texts_about(GetUserId(), view,
											  "SELECT format('trigger %I', tgname) FROM pg_trigger WHERE tgrelid = $1"
											  " AND NOT tgisinternal AND tgname !~ '^rowkeeper_'"
											  " UNION ALL SELECT format('rule %I', rulename) FROM pg_rewrite WHERE ev_class = $1"
											  " AND rulename <> '_RETURN' ORDER BY 1");

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
	Oid			view;

	if (options->trash)
	{
		rk_trash_view_drop(fcinfo, root, options);
		return (Datum) 0;
	}
	view = rk_flag_view_of(root, options);
	if (!OidIsValid(view))
		return (Datum) 0;
	check_can_hide(view);
	options->hidden = true;
	options->grants = view_statements(view);
	rk_run_step(fcinfo, rk_relation_owner(view), psprintf("DROP VIEW %s", rk_relation_name(view)));
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
		run_statements(fcinfo, rk_relation_owner(rk_flag_view_of(root, options)), options->grants);
		options->hidden = false;
		options->grants = NIL;
		(void) rk_flag_row_trigger_set(fcinfo, root, options);
	}
	return (Datum) 0;
}
