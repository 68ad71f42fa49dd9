/*
 * trash_table.c
 *
 * Trash tables as objects: rowkeeper_trash.<schema>__<table>, an ordinary
 * table outside of the extension, with the columns that the source had when it
 * was made (of base types and without any constraint, for the trash must take
 * every row), and <table>_with_deleted, the view of both. The name of the
 * trash table stands with the other options in the arguments of the row
 * trigger, the one registry there is.
 *
 * Readers of a trash table are the source's: owner, SELECT grants, row
 * security and its policies follow the source. Nobody but the owner may write
 * to it; what a delete puts there it puts there directly. What differs is
 * computed by the view rowkeeper._trash_repairs, for doctor() and for here.
 */
#include "soft_delete/soft_delete.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"

#define MAX_NAMES 100			/* tries to find a free one */

PG_FUNCTION_INFO_V1(rowkeeper_policy_expression);

static void rewrite_view(Oid root);

/* ---- options ---- */

/* How a table in trash mode is set up; NULL where it is not. */
RkSoftDeleteOptions *
rk_trash_options_of(Oid root)
{
	Jsonb	   *stored = rk_changes_options(root, "trash");
	RkSoftDeleteOptions *options;

	if (stored == NULL)
		return NULL;
	options = palloc0(sizeof(RkSoftDeleteOptions));
	options->trash = true;
	options->allow_hard = false;
	options->keep = rk_option_text(stored, "keep");
	options->view_schema = rk_option_text(stored, "view_schema");
	options->view_name = rk_option_text(stored, "view_name");
	options->cascade = rk_option_boolean(stored, "cascade", true);
	options->trash_table = rk_option_text(stored, "table");
	return options;
}

static char *
format_options(const RkSoftDeleteOptions *options)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	rk_option_push_text(&state, "mode", "trash");
	rk_option_push_text(&state, "keep", options->keep);
	rk_option_push_text(&state, "table", options->trash_table);
	rk_option_push_text(&state, "view_schema", options->view_schema);
	rk_option_push_text(&state, "view_name", options->view_name);
	rk_option_push_boolean(&state, "cascade", options->cascade);
	return rk_options_text(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

Oid
rk_trash_table_of(Oid root)
{
	RkSoftDeleteOptions *options = rk_trash_options_of(root);

	return options == NULL || options->trash_table == NULL ? InvalidOid
		: rk_trash_relation(options->trash_table);
}

/* ---- names ---- */

static char *
trash_name(const char *table)
{
	return quote_qualified_identifier(RK_TRASH_SCHEMA, table);
}

/* Whether another table keeps its rows in a trash table of this name. */
static bool
is_taken(Oid root, const char *name)
{
	ListCell   *lc;

	foreach(lc, rk_fetch_oids("SELECT tgrelid FROM pg_trigger WHERE tgname = '" RK_CHANGES_TRIGGER "'"
							  " AND tgparentid = 0"))
	{
		RkSoftDeleteOptions *options = lfirst_oid(lc) == root ? NULL : rk_trash_options_of(lfirst_oid(lc));

		if (options != NULL && options->trash_table != NULL && strcmp(options->trash_table, name) == 0)
			return true;
	}
	return false;
}

static bool
has_row_security(Oid relid)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	bool		has = rel->rd_rel->relrowsecurity;

	relation_close(rel, NoLock);
	return has;
}

/* What is asked of the batches that an earlier trash table has rows of. */
typedef struct EarlierBatches
{
	Oid			types[4];
	Datum		values[4];		/* source, its schema and name, the batches */
	bool		none;
} EarlierBatches;

/*
 * The trash table is read as its owner, who may have given it statistics: what
 * their expressions call runs wherever a query of it is planned.
 */
static EarlierBatches
batches_in(Oid root, const char *name)
{
	EarlierBatches batches = {.types = {OIDOID, TEXTOID, TEXTOID, INT8ARRAYOID}};

	batches.values[0] = ObjectIdGetDatum(root);
	batches.values[1] = CStringGetTextDatum(get_namespace_name(get_rel_namespace(root)));
	batches.values[2] = CStringGetTextDatum(get_rel_name(root));
	batches.values[3] = rk_fetch(rk_relation_owner(rk_trash_relation(name)),
								 psprintf("SELECT array_agg(DISTINCT _batch) FROM ONLY %s", trash_name(name)),
								 0, NULL, NULL, NULL, &batches.none);
	return batches;
}

/*
 * Whether rows in a trash table are another table's: two names may make the
 * same one. A dropped table is known by its name only; if row security held the
 * readers of its rows and does not hold those of this table, they stay where
 * they are.
 */
static bool
keeps_others_rows(Oid root, const char *name)
{
	EarlierBatches batches = batches_in(root, name);
	bool		would_open = has_row_security(rk_trash_relation(name)) && !has_row_security(root);

	if (!batches.none)
		(void) rk_fetch(rk_extension_owner(),
						psprintf("SELECT 1 FROM " RK_TRASH_SCHEMA ".batches b WHERE b.batch = ANY ($4)"
								 " GROUP BY b.batch HAVING NOT bool_or(coalesce(b.relation = $1,"
								 "  b.table_schema::text = $2 AND b.table_name::text = $3 AND %s)) LIMIT 1",
								 would_open ? "false" : "true"),
						4, batches.types, batches.values, NULL, &batches.none);
	return !batches.none;
}

/* Whether a table of this name is there for this source: an earlier trash of it. */
static bool
is_earlier_trash(Oid root, const char *name)
{
	Oid			relid = rk_trash_relation(name);

	return OidIsValid(relid) &&
		get_rel_relkind(relid) == RELKIND_RELATION &&
		rk_relation_owner(relid) == rk_relation_owner(root) &&
		get_attnum(relid, "_batch") == 1 && get_atttype(relid, 1) == INT8OID &&
		get_attnum(relid, "_deleted_at") == 2 && get_atttype(relid, 2) == TIMESTAMPTZOID &&
		get_attnum(relid, "_extra") > 0 &&
		!is_taken(root, name) &&
		!keeps_others_rows(root, name);
}

/* The name of a table's trash: an earlier one that is there still, or a new one. */
static char *
choose_name(Oid root)
{
	char	   *full = psprintf("%s__%s", get_namespace_name(get_rel_namespace(root)), get_rel_name(root));

	for (int i = 1; i <= MAX_NAMES; i++)
	{
		char	   *name = rk_name_fit(full, i == 1 ? "" : psprintf("_%d", i));

		if (is_earlier_trash(root, name) || !OidIsValid(rk_trash_relation(name)))
			return name;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_TABLE),
			 errmsg("no name is free for the trash table of %s", rk_relation_name(root)),
			 errhint("Rename or drop tables of schema %s that are not needed any more.", RK_TRASH_SCHEMA)));
}

/* ---- the table ---- */

/* A type without its modifier and what a domain checks. */
char *
rk_trash_type_sql(Oid type)
{
	return format_type_extended(getBaseType(type), -1,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

/* Columns of the trash that are ours, whatever the source has of that name. */
bool
rk_trash_is_own_column(const char *name)
{
	static const char *const own[] = {"_batch", "_deleted_at", "_deleted_by", "_deleted_via", "_db_user", "_extra"};

	for (int i = 0; i < lengthof(own); i++)
		if (strcmp(own[i], name) == 0)
			return true;
	return false;
}

static void
append_columns(StringInfo sql, Relation source)
{
	TupleDesc	desc = RelationGetDescr(source);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped || rk_is_virtual(column) || rk_trash_is_own_column(NameStr(column->attname)))
			continue;
		appendStringInfo(sql, ", %s %s", quote_identifier(NameStr(column->attname)),
						 rk_trash_type_sql(column->atttypid));
		if (OidIsValid(column->attcollation) && column->attcollation != get_typcollation(column->atttypid))
			appendStringInfo(sql, " COLLATE %s", generate_collation_name(column->attcollation));
	}
}

/* The key's columns as a list in SQL; NULL where the table has no primary key. */
static char *
key_columns_sql(Relation source)
{
	StringInfoData list;
	Oid			index_oid;
	Relation	index;

	list_free(RelationGetIndexList(source));
	index_oid = rk_primary_key_index(source);
	if (!OidIsValid(index_oid))
		return NULL;
	initStringInfo(&list);
	index = relation_open(index_oid, AccessShareLock);
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(source),
																index->rd_index->indkey.values[i] - 1)->attname)));
	relation_close(index, AccessShareLock);
	return list.data;
}

static void
create_trash_table(FunctionCallInfo fcinfo, Oid root, const char *name)
{
	Oid			owner = rk_extension_owner();
	Relation	source = relation_open(root, AccessShareLock);
	char	   *key = key_columns_sql(source);
	StringInfoData sql;

	if (key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot keep deleted rows of %s: it has no primary key", rk_relation_name(root)),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (...): rows are restored by it.", rk_relation_name(root))));
	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE TABLE %s (_batch bigint NOT NULL, _deleted_at timestamptz NOT NULL",
					 trash_name(name));
	append_columns(&sql, source);
	appendStringInfoString(&sql, ", _deleted_by text, _deleted_via text, _db_user text, _extra jsonb)");
	rk_run_step(fcinfo, owner, sql.data);
	(void) rk_run(owner, psprintf("CREATE INDEX ON %s (%s) WITH (deduplicate_items = off)",
								  trash_name(name), key));
	(void) rk_run(owner, psprintf("CREATE INDEX ON %s USING brin (_batch) WITH (pages_per_range = 16)", trash_name(name)));
	(void) rk_run(owner, psprintf("ALTER TABLE %s REPLICA IDENTITY FULL", trash_name(name)));
	(void) rk_run(owner, psprintf("COMMENT ON TABLE %s IS %s", trash_name(name),
								  quote_literal_cstr(psprintf("Deleted rows of %s, kept by rowkeeper.soft_delete().",
															  rk_relation_name(root)))));
	relation_close(source, NoLock);
}

/*
 * An earlier trash is taken up again: the batches of its rows are of this
 * table, also where they were of one of this name that was dropped.
 */
static void
adopt_batches(Oid root, const char *name)
{
	EarlierBatches batches = batches_in(root, name);

	if (!batches.none)
		(void) rk_run_args(rk_extension_owner(),
						   "UPDATE " RK_TRASH_SCHEMA ".batches b SET relation = $1"
						   " WHERE b.relation IS NULL AND b.table_schema::text = $2 AND b.table_name::text = $3"
						   " AND b.batch = ANY ($4)",
						   4, batches.types, batches.values, NULL);
}

/* ---- readers ---- */

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

/*
 * Run DDL on a trash table or its view as their owner, who has made neither
 * triggers nor expressions that could do more than he can himself.
 */
static void
run_as_owner_of(Oid relid, const char *sql)
{
	RkIdentity	saved;
	int			result;

	rk_identity_assume(&saved, rk_relation_owner(relid), true);
	rk_identity_own_ddl();
	SPI_connect();
	result = SPI_execute(sql, false, 0);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	SPI_finish();
	rk_identity_restore(&saved);
}

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
			rewrite_view(repair->root);
			(void) rk_run(rk_extension_owner(), repair->statement);
			break;
		case REPAIR_TRASH_OWNER:
			(void) rk_run(rk_extension_owner(), repair->statement);
			break;
		default:
			run_as_owner_of(repair->object, repair->statement);
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
		run_as_owner_of(repair->object,
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

/*
 * Bring owner, grants, row security and policies of the trash table in line
 * with the source, up to a step. As long as a policy cannot be made, nobody
 * reads there.
 */
static void
repair_readers(FunctionCallInfo fcinfo, Oid root, int last_step)
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

/* ---- the view of live and deleted rows ---- */

/*
 * A source column's value in a row of the trash, as an expression: the column
 * of that name where it is of that type still (an index can be used then),
 * else what is in _extra, else the column of that name where its type is
 * assigned to the new one; what is not shows as null.
 */
char *
rk_trash_column_sql(Oid trash, const char *alias, const char *name, Oid type)
{
	AttrNumber	column = rk_trash_is_own_column(name) ? InvalidAttrNumber : get_attnum(trash, name);
	char	   *in_extra = psprintf("(%s._extra ->> %s)::%s", alias, quote_literal_cstr(name),
									rk_trash_type_sql(type));
	char	   *in_column = psprintf("%s.%s", alias, quote_identifier(name));
	Oid			function;

	if (column <= 0)
		return in_extra;
	if (get_atttype(trash, column) == getBaseType(type))
		return in_column;
	if (find_coercion_pathway(getBaseType(type), get_atttype(trash, column), COERCION_ASSIGNMENT,
							  &function) == COERCION_PATH_NONE)
		return in_extra;
	return psprintf("CASE WHEN %s._extra ? %s THEN %s ELSE %s::%s END", alias,
					quote_literal_cstr(name), in_extra, in_column, rk_trash_type_sql(type));
}

static char *
view_name(const RkSoftDeleteOptions *options)
{
	return quote_qualified_identifier(options->view_schema, options->view_name);
}

static Oid
view_oid(const RkSoftDeleteOptions *options)
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

static void
drop_view(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options)
{
	Oid			view = view_oid(options);

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
static void
rewrite_view(Oid root)
{
	(void) rk_run(rk_extension_owner(), view_sql(root, rk_trash_options_of(root)));
}

/* Make the view, or make it show the columns that the source has now. */
static void
ensure_view(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options)
{
	Oid			view = view_oid(options);
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
			drop_view(NULL, root, options);
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

void
rk_trash_view_hide(FunctionCallInfo fcinfo, Oid root)
{
	drop_view(fcinfo, root, rk_trash_options_of(root));
}

void
rk_trash_view_refresh(FunctionCallInfo fcinfo, Oid root)
{
	ensure_view(fcinfo, root, rk_trash_options_of(root));
	repair_readers(fcinfo, root, REPAIR_ALL);
}

/* ---- on and off ---- */

/*
 * Keep the deleted rows of a table from now on. The caller has checked
 * ownership and that the table can have soft delete, and has it locked against
 * another such call. Locks: SHARE ROW EXCLUSIVE where triggers change.
 */
void
rk_trash_enable(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *wanted)
{
	RkSoftDeleteOptions *before = rk_trash_options_of(root);
	RkSoftDeleteOptions options = *wanted;

	rk_batch_store_ensure(fcinfo);
	options.trash = true;
	options.trash_table = before != NULL && before->trash_table != NULL
		? before->trash_table : choose_name(root);
	if (options.view_name == NULL)
		options.view_name = rk_name_fit(get_rel_name(root), "_with_deleted");
	if (options.view_schema == NULL)
		options.view_schema = get_namespace_name(get_rel_namespace(root));
	if (before != NULL &&
		view_oid(before) != view_oid(&options))
		drop_view(fcinfo, root, before);
	if (!OidIsValid(rk_trash_relation(options.trash_table)))
		create_trash_table(fcinfo, root, options.trash_table);
	else if (before == NULL)
		adopt_batches(root, options.trash_table);
	(void) rk_changes_set(fcinfo, root, "trash", format_options(&options), true);
	ensure_view(fcinfo, root, &options);
	repair_readers(fcinfo, root, REPAIR_ALL);
}

/* Keep no more deleted rows; those that are kept stay. False: was not on. */
bool
rk_trash_disable(FunctionCallInfo fcinfo, Oid root)
{
	RkSoftDeleteOptions *options = rk_trash_options_of(root);

	if (options == NULL)
		return false;
	if (options->trash_table != NULL)
		drop_view(fcinfo, root, options);
	return rk_changes_unset(fcinfo, root, "trash");
}

/* ---- what happens to sources as objects ---- */

/* What a column or key of the trash is called that is in the way of another one. */
static char *
name_aside(Oid root, Oid trash, const char *name)
{
	for (int i = 1; i <= MAX_NAMES; i++)
	{
		char	   *aside = rk_name_fit(name, i == 1 ? "_dropped" : psprintf("_dropped_%d", i));

		if (get_attnum(trash, aside) == InvalidAttrNumber && get_attnum(root, aside) == InvalidAttrNumber)
			return aside;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_COLUMN),
			 errmsg("no name is free for column \"%s\" of %s", name, rk_relation_name(trash))));
}

static void
rename_trash_column(Oid trash, const char *from, const char *to)
{
	run_as_owner_of(trash, psprintf("ALTER TABLE %s RENAME COLUMN %s TO %s", rk_relation_name(trash),
									quote_identifier(from), quote_identifier(to)));
}

/*
 * A renamed column's values are under its new name from now on. What the trash
 * has of that name is of a column that was dropped, and moves aside. All that
 * runs as the trash's owner: his triggers and indexes are on it.
 */
static void
follow_rename(const RenameStmt *rename, Oid root, Oid trash)
{
	Oid			types[4] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4];
	char	   *aside;
	bool		moves;			/* from a column of the trash to _extra */
	char	   *column;
	RkIdentity	saved;

	if ((rename->renameType != OBJECT_COLUMN && rename->renameType != OBJECT_ATTRIBUTE) ||
		get_attnum(root, rename->newname) == InvalidAttrNumber)
		return;
	column = psprintf("x.%s", quote_identifier(rename->subname));
	aside = name_aside(root, trash, rename->newname);
	moves = !rk_trash_is_own_column(rename->subname) && get_attnum(trash, rename->subname) > 0 &&
		rk_trash_is_own_column(rename->newname);
	values[0] = CStringGetTextDatum(rename->subname);
	values[1] = CStringGetTextDatum(rename->newname);
	values[2] = CStringGetTextDatum(aside);

	rk_identity_assume(&saved, rk_relation_owner(trash), true);
	SPI_connect();
	if (SPI_execute_with_args(psprintf("UPDATE %s x SET _extra = x._extra - $1 - $2"
									   " || CASE WHEN x._extra ? $2 THEN jsonb_build_object($3, x._extra -> $2) ELSE '{}' END"
									   " || CASE WHEN x._extra ? $1 THEN jsonb_build_object($2, x._extra -> $1) ELSE '{}' END"
									   " WHERE x._extra ?| ARRAY[$1, $2]", rk_relation_name(trash)),
							  3, types, values, NULL, false, 0) < 0 ||
		(moves &&
		 SPI_execute_with_args(psprintf("UPDATE %s x SET _extra = coalesce(x._extra, '{}') || jsonb_build_object($1,"
										" CASE WHEN %s IS NOT NULL THEN format('%%s', %s) END)"
										" WHERE NOT coalesce(x._extra ? $1, false)",
										rk_relation_name(trash), column, column),
							   1, types, &values[1], NULL, false, 0) < 0))
		elog(ERROR, "could not rename what is kept of a column");
	SPI_finish();
	rk_identity_restore(&saved);

	if (rk_trash_is_own_column(rename->newname) || rk_trash_is_own_column(rename->subname))
		return;
	if (get_attnum(trash, rename->newname) > 0)
		rename_trash_column(trash, rename->newname, aside);
	if (get_attnum(trash, rename->subname) > 0)
		rename_trash_column(trash, rename->subname, rename->newname);
}

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
static void
follow_columns(Oid root, const RkSoftDeleteOptions *options)
{
	Oid			view = view_oid(options);
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
		repair_readers(NULL, root, REPAIR_ALL);
}

/* Partitions that came get their flush trigger; those that went lose it. */
static void
follow_partitions(Oid root)
{
	List	   *tree = rk_relation_tree(root, NoLock);
	ListCell   *lc;

	if (list_length(tree) > 1 || get_rel_relkind(root) == RELKIND_PARTITIONED_TABLE)
	{
		for_each_from(lc, tree, 1)
			rk_changes_follow_partition(root, lfirst_oid(lc));
		foreach(lc, rk_fetch_oids("SELECT f.tgrelid FROM pg_trigger f JOIN pg_class c ON c.oid = f.tgrelid"
								  " WHERE f.tgname = '" RK_FLUSH_TRIGGER "' AND c.relkind <> 'v'"
								  " AND NOT EXISTS (SELECT FROM pg_trigger r WHERE r.tgrelid = f.tgrelid"
								  "  AND r.tgname = '" RK_CHANGES_TRIGGER "')"))
			rk_flush_triggers_drop(NULL, lfirst_oid(lc));
	}
}

/* A partition with a trash of its own would keep rows of a table that has none. */
static void
refuse_partition_with_trash(Oid root, Oid attached)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(attached, NoLock))
		if (rk_trash_options_of(lfirst_oid(lc)) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot attach %s to %s: it keeps its deleted rows and the partitioned table does not",
						rk_relation_name(lfirst_oid(lc)), rk_relation_name(root)),
				 errhint("SELECT rowkeeper.soft_delete_off(%s) before, or SELECT rowkeeper.soft_delete(%s) after it.",
						 quote_literal_cstr(rk_relation_name(lfirst_oid(lc))),
						 quote_literal_cstr(rk_relation_name(root)))));
}

/* The options of a table that this view is of, and that do not name it; or NULL. */
static RkSoftDeleteOptions *
options_to_follow(Oid root, Oid view)
{
	RkSoftDeleteOptions *options = rk_trash_options_of(root);

	return options == NULL || options->trash_table == NULL || OidIsValid(view_oid(options)) ||
		!is_our_view(view, root) || !view_reads(view, rk_trash_relation(options->trash_table))
		? NULL : options;
}

/* The view of live and deleted rows was renamed or moved: options name it. */
static void
follow_view(Oid view)
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
		(void) rk_changes_set(NULL, root, "trash", format_options(options), true);
	}
}

/* A schema was renamed, and with it all its views. */
static void
schema_altered(const RkDdlCommand *command)
{
	ListCell   *lc;

	foreach(lc, rk_fetch_oids(psprintf("SELECT c.oid FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
									   " WHERE c.relkind = 'v' AND c.relnamespace = %u"
									   " AND a.attnum = 1 AND a.attname = '_batch'", command->relid)))
		follow_view(lfirst_oid(lc));
}

static void
table_altered(const RkDdlCommand *command)
{
	Oid			root;
	Oid			trash;
	RkSoftDeleteOptions *options;

	if (get_rel_relkind(command->relid) != RELKIND_RELATION &&
		get_rel_relkind(command->relid) != RELKIND_PARTITIONED_TABLE)
		return;
	root = rk_root_of(command->relid);
	options = rk_trash_options_of(root);
	if (options == NULL && OidIsValid(command->attached) && !rk_is_loading_dump())
		refuse_partition_with_trash(root, command->attached);
	if (options == NULL || options->trash_table == NULL)
		return;

	/*
	 * also in a restore: one with --disable-triggers makes them fire less
	 * after it
	 */
	rk_changes_repair(command->relid, true);
	if (rk_is_loading_dump())
		return;
	follow_partitions(root);
	trash = rk_trash_relation(options->trash_table);
	if (!OidIsValid(trash) || root != command->relid)
		return;
	if (command->parsetree != NULL && IsA(command->parsetree, RenameStmt))
		follow_rename((const RenameStmt *) command->parsetree, root, trash);
	repair_readers(NULL, root, REPAIR_ALL);
	follow_columns(root, options);
}

static void
relation_altered(const RkDdlCommand *command)
{
	ListCell   *lc;

	if (get_rel_relkind(command->relid) == RELKIND_VIEW && !rk_is_loading_dump())
		follow_view(command->relid);
	foreach(lc, rk_relations_reached(command->relid))
	{
		RkDdlCommand reached = *command;

		reached.relid = lfirst_oid(lc);
		table_altered(&reached);
	}
}

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
static void
readers_altered(List *relids)
{
	ListCell   *lc;

	/* our own script's grants: what compares them is not there yet */
	if (relids == NIL || creating_extension || rk_is_loading_dump() ||
		!OidIsValid(get_namespace_oid(RK_TRASH_SCHEMA, true)))
		return;
	foreach(lc, sources_of(relids, "root"))
		repair_readers(NULL, lfirst_oid(lc), REPAIR_ALL);
	foreach(lc, sources_of(relids, "trash, view"))
		repair_readers(NULL, lfirst_oid(lc), REPAIR_GRANTS);
}

void
rk_trash_table_init(void)
{
	static const RkEventListener listener = {
		.relation_altered = relation_altered,
		.schema_altered = schema_altered,
		.readers_altered = readers_altered
	};

	rk_events_listen(&listener);
}
