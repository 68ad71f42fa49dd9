/*
 * trash_table.c
 *
 * Trash tables as objects: rowkeeper_trash.<schema>__<table>, an ordinary
 * table outside of the extension, with the columns that the source had when it
 * was made (of base types and without any constraint, for the trash must take
 * every row). Its name stands with the other options in the arguments of the
 * row trigger, the one registry there is.
 *
 * Beside it: who reads it (trash_readers.c), the view that shows its rows with
 * the live ones (trash_view.c), what happens to its source (trash_ddl.c), and
 * how rows come into it (trash.c).
 */
#include "soft_delete/soft_delete.h"

#include "access/relation.h"
#include "access/transam.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define MAX_NAMES 100			/* tries to find a free one */

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

/* Write the options where they are kept: in the arguments of the row trigger. */
void
rk_trash_options_set(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options)
{
	(void) rk_changes_set(fcinfo, root, "trash", format_options(options), true);
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

/*
 * A text as a value of that type, as an expression. Whoever owns a type can
 * make a cast from text to it, which would run as whoever we act for; so not
 * by a cast, but where only superusers make them, but by its input function.
 */
char *
rk_trash_value_sql(const char *text, Oid type)
{
	char	   *name = rk_trash_type_sql(type);

	if (getBaseType(type) < FirstNormalObjectId)
		return psprintf("(%s)::%s", text, name);
	return psprintf("(SELECT r.v FROM pg_catalog.jsonb_to_record(pg_catalog.jsonb_build_object('v', %s)) AS r (v %s))",
					text, name);
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

/* With its schema, which is not in the search_path where the table is made. */
static char *
collation_sql(Oid collation)
{
	ObjectAddress address;

	ObjectAddressSet(address, CollationRelationId, collation);
	return getObjectIdentity(&address, false);
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
			appendStringInfo(sql, " COLLATE %s", collation_sql(column->attcollation));
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

/*
 * Run DDL on a trash table or its view as their owner, who has made neither
 * triggers nor expressions that could do more than he can himself.
 */
void
rk_trash_run_as_owner(Oid relid, const char *sql)
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

	options.trash_table = before != NULL && before->trash_table != NULL
		? before->trash_table : choose_name(root);
	if (options.view_name == NULL)
		options.view_name = rk_name_fit(get_rel_name(root), "_with_deleted");
	if (options.view_schema == NULL)
		options.view_schema = get_namespace_name(get_rel_namespace(root));
	if (before != NULL && rk_trash_view_oid(before) != rk_trash_view_oid(&options))
		rk_trash_view_drop(fcinfo, root, before);
	if (!OidIsValid(rk_trash_relation(options.trash_table)))
		create_trash_table(fcinfo, root, options.trash_table);
	else if (before == NULL)
		adopt_batches(root, options.trash_table);
	rk_trash_options_set(fcinfo, root, &options);
	rk_trash_view_refresh(fcinfo, root, &options);
}

/* Keep no more deleted rows; those that are kept stay. False: was not on. */
bool
rk_trash_disable(FunctionCallInfo fcinfo, Oid root)
{
	RkSoftDeleteOptions *options = rk_trash_options_of(root);

	if (options == NULL)
		return false;
	if (options->trash_table != NULL)
		rk_trash_view_drop(fcinfo, root, options);
	return rk_changes_unset(fcinfo, root, "trash");
}
