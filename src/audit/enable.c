/*
 * enable.c
 *
 * audit(), audit_schema() and audit_off(): a table's audit switched on,
 * changed and off. An option that is not named stays as it is; the first time
 * it has its default. What the call is told is checked here, whole, before
 * anything is done.
 */
#include "audit/audit.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(rowkeeper_audit);
PG_FUNCTION_INFO_V1(rowkeeper_audit_schema);
PG_FUNCTION_INFO_V1(rowkeeper_audit_off);

/* ---- what can be audited ---- */

RK_NORETURN static void
refuse_table(Oid relid, const char *reason, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot audit %s: %s", rk_relation_name(relid), reason),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/*
 * Why a relation that holds rows cannot be audited, or NULL. By the catalog
 * alone: no lock is taken.
 */
static const char *
unfit_storage(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;
	const char *reason = NULL;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	class = (Form_pg_class) GETSTRUCT(tuple);
	switch (class->relkind)
	{
		case RELKIND_RELATION:
			if (class->relam != HEAP_TABLE_AM_OID)
				reason = "its access method is not heap";
			break;
		case RELKIND_PARTITIONED_TABLE:
			break;
		case RELKIND_FOREIGN_TABLE:
			reason = "it is a foreign table, whose rows change elsewhere";
			break;
		case RELKIND_VIEW:
			reason = "it is a view";
			break;
		case RELKIND_MATVIEW:
			reason = "it is a materialized view";
			break;
		default:
			reason = "it is not a table";
	}
	if (reason == NULL && class->relpersistence == RELPERSISTENCE_TEMP)
		reason = "it is temporary";
	if (reason == NULL && class->relpersistence == RELPERSISTENCE_UNLOGGED)
		reason = "it is unlogged, so a crash empties it without a trace";
	ReleaseSysCache(tuple);
	return reason;
}

static bool
is_of_ours(Relation rel)
{
	char	   *schema = get_namespace_name(RelationGetNamespace(rel));

	return strcmp(schema, RK_LOG_SCHEMA) == 0 || strcmp(schema, "rowkeeper") == 0;
}

/* The hint to whoever's command would make an audited table unfit. */
static char *
hint_audited(Oid root)
{
	return psprintf("The table is audited, so the command is refused. To go on without its audit: SELECT rowkeeper.audit_off(%s).",
					quote_literal_cstr(rk_relation_name(root)));
}

static void
check_partitions(Oid root, Oid branch, char *hint)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(branch, NoLock))
	{
		const char *reason = lfirst_oid(lc) == root ? NULL : unfit_storage(lfirst_oid(lc));

		if (reason != NULL)
			refuse_table(root, psprintf("of its partition %s: %s",
										rk_relation_name(lfirst_oid(lc)), reason), hint);
	}
}

static void
check_root(Oid root, bool audited, char *hint)
{
	Relation	rel = relation_open(root, AccessShareLock);
	AttrNumber *key;
	int			nkeys;

	if (IsSystemRelation(rel) || RelationGetNamespace(rel) == get_namespace_oid("information_schema", true))
		refuse_table(root, "it is a system table", NULL);
	if (is_of_ours(rel))
		refuse_table(root, "it belongs to rowkeeper itself", NULL);

	key = rk_audit_key_columns(rel, &nkeys);
	if (key == NULL)
		refuse_table(root, "it has no primary key",
					 audited ? hint :
					 psprintf("ALTER TABLE %s ADD PRIMARY KEY (...): its history is kept by row.",
							  rk_relation_name(root)));
	(void) rk_audit_key_create(RelationGetDescr(rel), key, nkeys);
	relation_close(rel, NoLock);
}

/* Raise 0A000 where a table, with its partitions, cannot be audited. */
static void
check_table(Oid root)
{
	const char *reason = unfit_storage(root);

	if (reason != NULL)
		refuse_table(root, reason, NULL);
	check_root(root, false, NULL);
	check_partitions(root, root, NULL);
}

/*
 * The same after DDL on an audited table or one of its partitions. Only what
 * the command has locked is opened: a command on one partition must not wait
 * for one on another.
 */
void
rk_audit_check_altered(Oid root, Oid altered)
{
	char	   *hint = hint_audited(root);
	const char *reason = unfit_storage(altered);

	if (altered == root)
	{
		if (reason != NULL)
			refuse_table(root, reason, hint);
		check_root(root, true, hint);
	}
	check_partitions(root, altered, hint);
}

/* ---- what the call is told ---- */

/* The arguments of audit() from "exclude" on; NULL: not named. */
typedef struct AuditArguments
{
	ArrayType  *exclude;
	text	   *capture;
	Interval   *keep;
	bool		replica_given;
	bool		replica;
} AuditArguments;

static AuditArguments
read_arguments(FunctionCallInfo fcinfo, int first)
{
	AuditArguments arguments = {0};

	if (!PG_ARGISNULL(first))
		arguments.exclude = PG_GETARG_ARRAYTYPE_P(first);
	if (!PG_ARGISNULL(first + 1))
		arguments.capture = PG_GETARG_TEXT_PP(first + 1);
	if (!PG_ARGISNULL(first + 2))
		arguments.keep = PG_GETARG_INTERVAL_P(first + 2);
	arguments.replica_given = !PG_ARGISNULL(first + 3);
	if (arguments.replica_given)
		arguments.replica = PG_GETARG_BOOL(first + 3);
	return arguments;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/* The names to exclude, each once, sorted; refuses what is no loggable column. */
static List *
read_exclude(Oid root, ArrayType *array)
{
	Relation	rel = table_open(root, AccessShareLock);
	int			nkeys;
	AttrNumber *key = rk_audit_key_columns(rel, &nkeys);
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, rk_names_argument(array))
	{
		char	   *name = lfirst(lc);
		AttrNumber	column;

		if (name == NULL)
			rk_refuse_option("exclude", "a column name must not be null", NULL);
		column = get_attnum(root, name);
		if (column <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("option \"exclude\": column \"%s\" of %s does not exist",
							name, rk_relation_name(root))));
		for (int k = 0; k < nkeys; k++)
			if (key[k] == column)
				rk_refuse_option("exclude",
								 psprintf("column \"%s\" is part of the primary key", name),
								 "The key identifies the row in its history.");
		names = list_append_unique(names, makeString(name));
	}
	table_close(rel, NoLock);

	for (int i = 0; i < list_length(names); i++)
		lfirst(list_nth_cell(names, i)) = strVal(list_nth(names, i));
	list_sort(names, compare_names);
	return names;
}

static bool
read_capture(text *capture)
{
	char	   *value = text_to_cstring(capture);

	if (strcmp(value, "full") == 0)
		return true;
	if (strcmp(value, "changes") != 0)
		rk_refuse_option("capture", psprintf("\"%s\" is not a kind of capture", value),
						 "Use 'changes' or 'full'.");
	return false;
}

/*
 * The column whose value says to which tenant an entry belongs: one called
 * tenant_id of a type that a tenant can have.
 */
static char *
find_tenant_column(Oid root)
{
	AttrNumber	column = get_attnum(root, "tenant_id");

	if (column <= 0)
		return NULL;
	switch (getBaseType(get_atttype(root, column)))
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case UUIDOID:
		case TEXTOID:
		case VARCHAROID:
			return "tenant_id";
		default:
			return NULL;
	}
}

static RkAuditOptions *
merge_options(Oid root, const RkAuditOptions *before, const AuditArguments *arguments)
{
	RkAuditOptions *options = palloc0(sizeof(RkAuditOptions));

	if (before != NULL)
		*options = *before;
	else
		options->replica = true;
	if (options->tenant == NULL)
		options->tenant = find_tenant_column(root);
	if (arguments->exclude != NULL)
		options->exclude = read_exclude(root, arguments->exclude);
	if (arguments->capture != NULL)
		options->full = read_capture(arguments->capture);
	if (arguments->keep != NULL)
		options->keep = rk_option_keep(arguments->keep);
	if (arguments->replica_given)
		options->replica = arguments->replica;
	return options;
}

/* ---- saying what changed ---- */

static char *
join_names(List *names)
{
	StringInfoData joined;
	ListCell   *lc;

	initStringInfo(&joined);
	appendStringInfoChar(&joined, '{');
	foreach(lc, names)
		appendStringInfo(&joined, "%s%s", foreach_current_index(lc) > 0 ? ", " : "",
						 (char *) lfirst(lc));
	appendStringInfoChar(&joined, '}');
	return joined.data;
}

static void
notice_change(Oid root, const char *option, const char *before, const char *after)
{
	if (strcmp(before, after) != 0)
		ereport(NOTICE,
				(errmsg("audit of %s: %s changes from %s to %s",
						rk_relation_name(root), option, before, after)));
}

static void
notice_changes(Oid root, const RkAuditOptions *before, const RkAuditOptions *after)
{
	notice_change(root, "exclude", join_names(before->exclude), join_names(after->exclude));
	notice_change(root, "capture", before->full ? "full" : "changes",
				  after->full ? "full" : "changes");
	notice_change(root, "keep", before->keep ? before->keep : "for ever",
				  after->keep ? after->keep : "for ever");
	notice_change(root, "replica", before->replica ? "true" : "false",
				  after->replica ? "true" : "false");
}

/* Columns named like a secret are logged as they are: say so once. */
static void
notice_secrets(Oid root, const RkAuditOptions *options)
{
	static const char *const words[] = {"pass", "secret", "token", "ssn", "card"};
	Relation	rel = table_open(root, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		char	   *name = NameStr(column->attname);

		if (column->attisdropped || rk_audit_excludes(options, name))
			continue;
		for (int w = 0; w < lengthof(words); w++)
			if (strstr(asc_tolower(name, strlen(name)), words[w]) != NULL)
			{
				ereport(NOTICE,
						(errmsg("column \"%s\" of %s is named like a secret and its values will be in the audit log",
								name, rk_relation_name(root)),
						 errhint("Leave it out with exclude => '{%s}'.", name)));
				break;
			}
	}
	table_close(rel, NoLock);
}

/* ---- doing it ---- */

/*
 * Give the table a number and a name in the log's dictionary; false where it
 * was there already.
 */
static bool
ensure_dictionary_row(Oid root)
{
	int32		table_id;
	Oid			types[1] = {REGCLASSOID};
	Datum		values[1] = {ObjectIdGetDatum(root)};

	if (rk_audit_dictionary_find(root, &table_id))
		return false;
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper_log.tables (table_id, relation, table_schema, table_name, from_id, since)"
					   " SELECT nextval('rowkeeper_log.table_id'), c.oid, n.nspname, c.relname, 0, now()"
					   " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
					   1, types, values, NULL);
	return true;
}

/* Write options into the row trigger of an audited table, silently. */
void
rk_audit_options_store(Oid root, const RkAuditOptions *options)
{
	(void) rk_changes_set(NULL, root, "audit", rk_audit_options_format(options), options->replica);
}

static Interval *
parse_keep(const char *keep)
{
	if (keep == NULL)
		return NULL;
	return DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(keep),
												 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

static void
enable_audit(FunctionCallInfo fcinfo, Oid target, const AuditArguments *arguments)
{
	RkAuditOptions *before;
	RkAuditOptions *options;
	Oid			root = rk_root_of(target);
	bool		first_time;

	if (creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("tables cannot be audited by an extension's script"),
				 errdetail("Partitions of the audit log would become members of that extension and go with it.")));
	rk_check_owner(target);
	if (root != target)
		refuse_table(target, psprintf("it is a partition of %s", rk_relation_name(root)),
					 psprintf("SELECT rowkeeper.audit(%s) covers all its partitions.",
							  quote_literal_cstr(rk_relation_name(root))));

	/* two calls for one table wait for each other, writers do not */
	LockRelationOid(root, ShareUpdateExclusiveLock);
	(void) rk_relation_tree(root, AccessShareLock);
	check_table(root);
	before = rk_audit_options_of(root);
	options = merge_options(root, before, arguments);

	rk_audit_store_ensure(fcinfo);
	rk_audit_log_begin();
	first_time = ensure_dictionary_row(root);
	(void) rk_audit_class_ensure(parse_keep(options->keep));
	if (before != NULL)
		notice_changes(root, before, options);
	if (before == NULL || arguments->exclude != NULL)
		notice_secrets(root, options);

	if (rk_changes_set(fcinfo, root, "audit", rk_audit_options_format(options), options->replica))
	{
		rk_audit_partitions_reconcile(root, before != NULL);
		rk_audit_capture_resumed(root, before == NULL && !first_time);
	}
	if (!first_time && options->tenant != NULL &&
		(before == NULL || before->tenant == NULL || strcmp(before->tenant, options->tenant) != 0))
		rk_audit_tenant_begins(root);
	if (before != NULL &&
		strcmp(rk_audit_options_format(before), rk_audit_options_format(options)) != 0)
		(void) rk_audit_event(root, RK_LOG_ALTER,
							  rk_audit_detail("command", "audit",
											  "options", rk_audit_options_format(options), NULL));
}

/*
 * rowkeeper.audit(target regclass, exclude name[], capture text,
 * keep interval, replica boolean) returns SETOF text.
 *
 * Audits a table, or changes how. Locks: SHARE UPDATE EXCLUSIVE on the table
 * (writers go on); SHARE ROW EXCLUSIVE on it and its partitions where
 * triggers change, until commit. The caller must own the table. Errors: 42501
 * not the owner, 0A000 what cannot be audited, 22023 an option, 42703 an
 * excluded column that does not exist.
 */
Datum
rowkeeper_audit(PG_FUNCTION_ARGS)
{
	AuditArguments arguments;
	Oid			target;

	rk_steps_begin(fcinfo);
	target = rk_target_argument(fcinfo);
	arguments = read_arguments(fcinfo, 1);
	enable_audit(fcinfo, target, &arguments);
	return (Datum) 0;
}

static bool
array_has_oid(ArrayType *array, Oid wanted)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (array == NULL)
		return false;
	deconstruct_array(array, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT,
					  &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
		if (!nulls[i] && DatumGetObjectId(elements[i]) == wanted)
			return true;
	return false;
}

/* The tables of a schema that audit_schema() looks at, by name. */
static List *
tables_of_schema(const char *schema)
{
	Oid			namespace = get_namespace_oid(schema, false);

	return rk_fetch_oids(psprintf("SELECT oid FROM pg_class WHERE relnamespace = %u"
								  " AND relkind IN ('r', 'p') AND NOT relispartition"
								  " ORDER BY relname", namespace));
}

/* Why rows of a table cannot be told apart in the log, or NULL. */
static const char *
unfit_key(Oid table)
{
	Relation	rel = table_open(table, AccessShareLock);
	const char *reason = NULL;
	int			nkeys;
	AttrNumber *key = rk_audit_key_columns(rel, &nkeys);
	AttrNumber	unfit;

	if (key == NULL)
		reason = "it has no primary key";
	else if ((unfit = rk_audit_key_unfit(RelationGetDescr(rel), key, nkeys)) != 0)
		reason = psprintf("its rows cannot be found by a hash of key column \"%s\"",
						  NameStr(TupleDescAttr(RelationGetDescr(rel), unfit - 1)->attname));
	table_close(rel, NoLock);
	return reason;
}

/* Why audit_schema() leaves a table out, or NULL. */
static const char *
reason_to_leave_out(Oid table, ArrayType *except)
{
	const char *reason;

	if (array_has_oid(except, table))
		return "named in except_tables";
	if (!rk_is_relation_owner(table, GetUserId()))
		return "owned by another role";
	reason = unfit_storage(table);
	return reason != NULL ? reason : unfit_key(table);
}

/* Those of the names that are columns of the table. */
static ArrayType *
names_in_table(Oid table, ArrayType *names)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	int			kept = 0;

	deconstruct_array(names, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
		if (!nulls[i] && get_attnum(table, NameStr(*DatumGetName(elements[i]))) > 0)
			elements[kept++] = elements[i];
	return construct_array(elements, kept, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR);
}

/*
 * rowkeeper.audit_schema(schema name, except_tables regclass[], exclude
 * name[], capture text, keep interval, replica boolean) returns SETOF text.
 *
 * Audits every ordinary and partitioned table of the schema that is not
 * audited yet; a NOTICE names each that was left out, and why. "exclude"
 * leaves out the columns of these names where a table has them. Locks and
 * errors as of audit().
 */
Datum
rowkeeper_audit_schema(PG_FUNCTION_ARGS)
{
	AuditArguments arguments;
	ArrayType  *except = PG_ARGISNULL(1) ? NULL : PG_GETARG_ARRAYTYPE_P(1);
	ArrayType  *exclude;
	ListCell   *lc;

	rk_steps_begin(fcinfo);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("schema must not be null")));
	arguments = read_arguments(fcinfo, 2);
	exclude = arguments.exclude;
	foreach(lc, tables_of_schema(NameStr(*PG_GETARG_NAME(0))))
	{
		Oid			table = lfirst_oid(lc);
		const char *reason;

		if (rk_audit_options_of(table) != NULL)
			continue;
		reason = reason_to_leave_out(table, except);
		if (reason != NULL)
		{
			ereport(NOTICE,
					(errmsg("%s is left out: %s", rk_relation_name(table), reason)));
			continue;
		}
		arguments.exclude = exclude == NULL ? NULL : names_in_table(table, exclude);
		enable_audit(fcinfo, table, &arguments);
	}
	return (Datum) 0;
}

/* Stop the audit of one table; false where it was not audited. */
static bool
disable_audit(FunctionCallInfo fcinfo, Oid root)
{
	if (rk_audit_options_of(root) == NULL)
		return false;
	(void) rk_audit_event(root, RK_LOG_DISABLE,
						  rk_audit_detail("command", "audit_off", NULL));
	rk_audit_partitions_forget(root);
	return rk_changes_unset(fcinfo, root, "audit");
}

/*
 * rowkeeper.audit_off(target regclass) returns SETOF text: stops the audit of
 * a table; what was logged stays. NULL: nothing; not audited: a NOTICE. The
 * caller must own the table. Locks: ACCESS EXCLUSIVE on the table and its
 * partitions, until commit.
 */
Datum
rowkeeper_audit_off(PG_FUNCTION_ARGS)
{
	rk_steps_begin(fcinfo);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	rk_check_owner(PG_GETARG_OID(0));
	if (rk_root_of(PG_GETARG_OID(0)) != PG_GETARG_OID(0))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s is a partition of %s and audited as part of it",
						rk_relation_name(PG_GETARG_OID(0)),
						rk_relation_name(rk_root_of(PG_GETARG_OID(0))))));
	if (!disable_audit(fcinfo, PG_GETARG_OID(0)))
		ereport(NOTICE,
				(errmsg("%s is not audited", rk_relation_name(PG_GETARG_OID(0)))));
	return (Datum) 0;
}

/* Every audited table: the roots that have our row trigger. */
static List *
audited_tables(void)
{
	List	   *tables = NIL;
	ListCell   *lc;

	foreach(lc, rk_fetch_oids("SELECT tgrelid FROM pg_trigger"
							  " WHERE tgname = '" RK_CHANGES_TRIGGER "' AND tgparentid = 0"
							  " ORDER BY tgrelid"))
		if (rk_audit_options_of(lfirst_oid(lc)) != NULL)
		tables = lappend_oid(tables, lfirst_oid(lc));
	return tables;
}

void
rk_audit_enable_init(void)
{
	static const RkFeature feature = {
		.name = "audit",
		.off = disable_audit,
		.tables = audited_tables
	};

	rk_feature_register(&feature);
}
