/*
 * trash_view.c
 *
 * <table>_with_deleted, the view of a table's live rows and of those in its
 * trash: made, brought in line with the columns that both have, followed where
 * it is renamed, and dropped. It has the rights of who uses it
 * (security_invoker), and so shows of either what he may read there.
 */
#include "soft_delete/soft_delete.h"

#include "access/relation.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "parser/parse_coerce.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* ---- which view it is ---- */

static char *
view_name(const RkSoftDeleteOptions *options)
{
	return quote_qualified_identifier(options->view_schema, options->view_name);
}

Oid
rk_trash_view_oid(const RkSoftDeleteOptions *options)
{
	Oid			schema = options->view_schema == NULL ? InvalidOid
		: get_namespace_oid(options->view_schema, true);

	return OidIsValid(schema) && options->view_name != NULL
		? get_relname_relid(options->view_name, schema) : InvalidOid;
}

static bool
view_reads(Oid view, Oid relid)
{
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2] = {ObjectIdGetDatum(view), ObjectIdGetDatum(relid)};
	bool		isnull;

	(void) rk_fetch(rk_extension_owner(),
					"SELECT 1 FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
					" WHERE r.ev_class = $1 AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $2",
					2, types, values, NULL, &isnull);
	return !isnull;
}

/*
 * Ours is the view that reads the table, begins with our columns and is the
 * table's owner's: anybody may make one that looks like it.
 */
static bool
is_our_view(Oid view, Oid root)
{
	return get_rel_relkind(view) == RELKIND_VIEW &&
		get_attnum(view, "_batch") == 1 && get_attnum(view, "_deleted_at") == 2 &&
		rk_relation_owner(view) == rk_relation_owner(root) && view_reads(view, root);
}

/* ---- making it ---- */

/*
 * A source column's value in a row of the trash, as an expression: the column
 * of that name where it is of that type still (an index can be used then),
 * else what is in _extra, else the column of that name where its type is
 * assigned to the new one, by no code of a user's; what is not shows as null.
 */
char *
rk_trash_column_sql(Oid trash, const char *alias, const char *name, Oid type)
{
	AttrNumber	column = rk_trash_is_own_column(name) ? InvalidAttrNumber : get_attnum(trash, name);
	char	   *in_extra = rk_trash_value_sql(psprintf("%s._extra ->> %s", alias, quote_literal_cstr(name)), type);
	char	   *in_column = psprintf("%s.%s", alias, quote_identifier(name));
	Oid			function;

	if (column <= 0)
		return in_extra;
	if (get_atttype(trash, column) == getBaseType(type))
		return in_column;
	if (find_coercion_pathway(getBaseType(type), get_atttype(trash, column), COERCION_ASSIGNMENT,
							  &function) == COERCION_PATH_NONE ||
		function >= FirstNormalObjectId)
		return in_extra;
	return psprintf("CASE WHEN %s._extra ? %s THEN %s ELSE %s::%s END", alias,
					quote_literal_cstr(name), in_extra, in_column, rk_trash_type_sql(type));
}

/* Our columns first: a column that is added to the source is then a new last one. */
static char *
view_query(Oid root, Oid trash)
{
	Relation	source = relation_open(root, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(source);
	StringInfoData live;
	StringInfoData deleted;

	initStringInfo(&live);
	initStringInfo(&deleted);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		char	   *name = NameStr(column->attname);

		if (column->attisdropped || rk_trash_is_own_column(name))
			continue;
		appendStringInfo(&live, ", s.%s", quote_identifier(name));
		if (rk_is_virtual(column))
			appendStringInfo(&deleted, ", NULL::%s", rk_trash_type_sql(column->atttypid));
		else
			appendStringInfo(&deleted, ", %s", rk_trash_column_sql(trash, "d", name, column->atttypid));
	}
	relation_close(source, NoLock);
	return psprintf("SELECT NULL::bigint AS _batch, NULL::timestamptz AS _deleted_at, NULL::text AS _deleted_by%s FROM %s s"
					" UNION ALL SELECT d._batch, d._deleted_at, d._deleted_by%s FROM %s d",
					live.data, rk_relation_name(root), deleted.data, rk_relation_name(trash));
}

void
rk_trash_view_drop(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options)
{
	Oid			view = rk_trash_view_oid(options);

	if (OidIsValid(view) && is_our_view(view, root))
		rk_run_step(fcinfo, rk_relation_owner(root), psprintf("DROP VIEW %s", view_name(options)));
}

typedef struct ViewMaking
{
	Oid			root;
	char	   *sql;
} ViewMaking;

static void
make_view(void *arg)
{
	ViewMaking *making = arg;

	(void) rk_run(rk_relation_owner(making->root), making->sql);
}

/* Whether the view reads the trash and shows the columns its table has now. */
static bool
is_current(Oid view, Oid root, Oid trash)
{
	Relation	source = relation_open(root, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(source);
	AttrNumber	shown = 3;		/* after our columns */
	bool		current = view_reads(view, trash);

	for (int i = 0; i < desc->natts && current; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		char	   *name;

		if (column->attisdropped || rk_trash_is_own_column(NameStr(column->attname)))
			continue;
		name = get_attname(view, ++shown, true);
		current = name != NULL && strcmp(name, NameStr(column->attname)) == 0;
	}
	relation_close(source, NoLock);
	return current;
}

static char *
view_sql(Oid root, const RkSoftDeleteOptions *options)
{
	return psprintf("CREATE OR REPLACE VIEW %s WITH (security_invoker = true) AS %s",
					view_name(options), view_query(root, rk_trash_relation(options->trash_table)));
}

/* Make the view say what it should, whoever it belongs to. */
void
rk_trash_view_rewrite(Oid root)
{
	(void) rk_run(rk_extension_owner(), view_sql(root, rk_trash_options_of(root)));
}

/* Make the view, or make it show the columns that the source has now. */
static void
ensure_view(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options)
{
	Oid			view = rk_trash_view_oid(options);
	ViewMaking	making = {.root = root};

	if (OidIsValid(view) && !is_our_view(view, root))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation %s exists already", view_name(options)),
				 errhint("Name the view of live and deleted rows yourself: soft_delete(..., view_name => ...).")));
	making.sql = view_sql(root, options);
	if (OidIsValid(view))
	{
		if (is_current(view, root, rk_trash_relation(options->trash_table)))
			return;
		/* a column that was renamed or has another type needs a new view */
		if (rk_attempt(make_view, &making) != NULL)
		{
			rk_trash_view_drop(NULL, root, options);
			make_view(&making);
		}
		if (fcinfo != NULL)
			rk_step(fcinfo, making.sql);
		return;
	}
	rk_run_step(fcinfo, rk_relation_owner(root), making.sql);
	(void) rk_run(rk_relation_owner(root),
				  psprintf("COMMENT ON VIEW %s IS %s", view_name(options),
						   quote_literal_cstr(psprintf("Rows of %s, live and deleted ones; _deleted_at is null for the live ones.",
													   rk_relation_name(root)))));
}

/* Make the view show what it should, to those who may read the table. */
void
rk_trash_view_refresh(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options)
{
	ensure_view(fcinfo, root, options);
	rk_trash_readers_repair(fcinfo, root);
}

/* ---- what happens to it, and to its table ---- */

typedef struct Following
{
	Oid			root;
	const RkSoftDeleteOptions *options;
} Following;

static void
make_view_anew(void *arg)
{
	Following  *following = arg;

	ensure_view(NULL, following->root, following->options);
}

/* The view follows the columns of its table; no DDL fails where it cannot. */
void
rk_trash_view_follow_columns(Oid root, const RkSoftDeleteOptions *options)
{
	Oid			view = rk_trash_view_oid(options);
	Following	following = {root, options};
	ErrorData  *error;

	if (!OidIsValid(view) || !is_our_view(view, root) ||
		is_current(view, root, rk_trash_relation(options->trash_table)))
		return;
	error = rk_attempt(make_view_anew, &following);
	if (error != NULL)
		ereport(WARNING,
				(errmsg("view %s could not be made to follow its table: %s",
						view_name(options), error->message),
				 errhint("SELECT rowkeeper.soft_delete_refresh(%s).",
						 quote_literal_cstr(rk_relation_name(root)))));
	else
		rk_trash_readers_repair(NULL, root);
}

/* The options of a table that this view is of, and that do not name it; or NULL. */
static RkSoftDeleteOptions *
options_to_follow(Oid root, Oid view)
{
	RkSoftDeleteOptions *options = rk_trash_options_of(root);

	return options == NULL || options->trash_table == NULL || OidIsValid(rk_trash_view_oid(options)) ||
		!is_our_view(view, root) || !view_reads(view, rk_trash_relation(options->trash_table))
		? NULL : options;
}

/* The view of live and deleted rows was renamed or moved: options name it. */
void
rk_trash_view_follow_name(Oid view)
{
	ListCell   *lc;

	if (get_attnum(view, "_batch") != 1)
		return;
	foreach(lc, rk_fetch_oids(psprintf("SELECT DISTINCT d.refobjid FROM pg_rewrite r"
									   " JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
									   " WHERE d.refclassid = 'pg_class'::regclass AND r.ev_class = %u"
									   " AND d.refobjid <> r.ev_class ORDER BY 1", view)))
	{
		Oid			root = lfirst_oid(lc);
		RkSoftDeleteOptions *options = options_to_follow(root, view);

		if (options == NULL)
			continue;
		/* somebody may be changing them */
		LockRelationOid(root, ShareUpdateExclusiveLock);
		options = options_to_follow(root, view);
		if (options == NULL)
			continue;
		options->view_schema = get_namespace_name(get_rel_namespace(view));
		options->view_name = get_rel_name(view);
		rk_trash_options_set(NULL, root, options);
	}
}
