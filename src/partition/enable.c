/*
 * enable.c
 *
 * partition() and partition_off(): whether a table's partitions are
 * maintained, and how. An option that is not named stays as it is; the first
 * time it has its default, or what the table's partitions show. All that the
 * call is told is checked here, before anything is done: a table that passes
 * can be maintained.
 */
#include "partition/partition.h"

#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_partition);
PG_FUNCTION_INFO_V1(rowkeeper_partition_off);

/* The arguments of partition() and partition_convert(). */
enum
{
	ARG_TARGET, ARG_BY, ARG_EVERY, ARG_AHEAD, ARG_KEEP, ARG_ON_EXPIRY, ARG_ARCHIVE_SCHEMA,
	ARG_TIMEZONE, ARG_PARTITION_SCHEMA, ARG_BRIN, ARG_EPOCH
};

/* ---- what can be maintained ---- */

RK_NORETURN static void
refuse_table(Oid relid, const char *reason, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot maintain partitions of %s: %s", rk_relation_name(relid), reason),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/* Whether a table is yet to be converted; raises where it never can be maintained. */
bool
rk_partition_is_plain(Oid relid)
{
	char	   *schema = get_namespace_name(get_rel_namespace(relid));
	Oid			root = rk_root_of(relid);

	if (IsCatalogRelationOid(relid) || strcmp(schema, "information_schema") == 0)
		refuse_table(relid, "it is a system table", NULL);
	if (strcmp(schema, "rowkeeper") == 0 || strncmp(schema, "rowkeeper_", 10) == 0)
		refuse_table(relid, "it belongs to rowkeeper itself", NULL);
	if (get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		refuse_table(relid, "it is temporary", NULL);
	if (root != relid)
		refuse_table(relid, psprintf("it is a partition of %s", rk_relation_name(root)),
					 psprintf("SELECT rowkeeper.partition(%s) makes its partitions with those of that table.",
							  quote_literal_cstr(rk_relation_name(root))));
	if (get_rel_relkind(relid) != RELKIND_RELATION &&
		get_rel_relkind(relid) != RELKIND_PARTITIONED_TABLE)
		refuse_table(relid, "it is not a partitioned table", NULL);
	return get_rel_relkind(relid) == RELKIND_RELATION;
}

static AttrNumber
check_key(Oid relid)
{
	AttrNumber	column;
	char	   *problem = rk_partition_key_problem(relid, &column);

	if (problem != NULL)
		refuse_table(relid, problem, "Tables partitioned by RANGE of one column are.");
	return column;
}

/* ---- options ---- */

static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

static char *
name_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : pstrdup(NameStr(*PG_GETARG_NAME(number)));
}

static void
check_by(FunctionCallInfo fcinfo, Oid relid, AttrNumber column)
{
	char	   *by = name_argument(fcinfo, ARG_BY);

	if (by == NULL)
		return;
	if (get_attnum(relid, by) == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("option \"by\": %s has no column \"%s\"", rk_relation_name(relid), by)));
	if (get_attnum(relid, by) != column)
		rk_refuse_option("by", psprintf("%s is partitioned by %s, not by %s", rk_relation_name(relid),
										quote_identifier(get_attname(relid, column, false)),
										quote_identifier(by)),
						 NULL);
}

static char *
check_on_expiry(const char *word)
{
	static const char *const words[] = {"drop", "detach", "archive"};

	for (int i = 0; i < lengthof(words); i++)
		if (strcmp(words[i], word) == 0)
			return pstrdup(word);
	rk_refuse_option("on_expiry", psprintf("\"%s\" is not one of its values", word),
					 "Use 'drop', 'detach' or 'archive'.");
}

/* Options that are words and names; those of lengths follow the key. */
static void
merge_names(FunctionCallInfo fcinfo, RkPartitionOptions *options, Oid owner)
{
	if (!PG_ARGISNULL(ARG_ON_EXPIRY))
		options->on_expiry = check_on_expiry(text_argument(fcinfo, ARG_ON_EXPIRY));
	if (!PG_ARGISNULL(ARG_ARCHIVE_SCHEMA))
	{
		options->archive_schema = name_argument(fcinfo, ARG_ARCHIVE_SCHEMA);
		rk_partition_check_schema("archive_schema", options->archive_schema, owner);
	}
	if (!PG_ARGISNULL(ARG_PARTITION_SCHEMA))
	{
		options->partition_schema = name_argument(fcinfo, ARG_PARTITION_SCHEMA);
		rk_partition_check_schema("partition_schema", options->partition_schema, owner);
	}
	if (!PG_ARGISNULL(ARG_BRIN))
		options->brin = PG_GETARG_BOOL(ARG_BRIN);
	if (strcmp(options->on_expiry, "archive") == 0 && options->archive_schema == NULL)
		rk_refuse_option("on_expiry", "'archive' needs a schema to move partitions to",
						 "Name it: archive_schema => 'archive'.");
}

/* The zone, before lengths of the partitions there are can be read. */
static void
merge_zone(FunctionCallInfo fcinfo, RkPartitionSet *set, bool first)
{
	RkPartitionOptions *options = set->options;

	if (!PG_ARGISNULL(ARG_TIMEZONE))
		options->timezone = text_argument(fcinfo, ARG_TIMEZONE);
	else if (first)
	{
		options->timezone = rk_partition_shown_zone(set);
		if (options->timezone == NULL)
			rk_refuse_option("timezone", psprintf("the partitions of %s begin at midnight neither in UTC nor in the session's time zone",
												  rk_relation_name(set->root)),
							 "Name their zone: timezone => 'Europe/Berlin'.");
	}
	set->grid.zone = rk_partition_zone(options->timezone);
}

static char *
merge_length(FunctionCallInfo fcinfo, const RkKey *key, int argument, const char *option,
			 bool zero, char *before)
{
	return PG_ARGISNULL(argument) ? before
		: rk_partition_check_length(key, option, text_argument(fcinfo, argument), zero);
}

/* What steps are, and from where they are reckoned. */
static void
merge_grid(FunctionCallInfo fcinfo, RkPartitionSet *set, const RkPartitionOptions *before)
{
	RkPartitionOptions *options = set->options;

	options->every = merge_length(fcinfo, set->key, ARG_EVERY, "every", false, options->every);
	if (options->every == NULL)
		options->every = rk_partition_shown_every(set);
	if (options->every == NULL)
		rk_refuse_option("every", psprintf("%s has no partition that shows how long they are",
										   rk_relation_name(set->root)),
						 rk_key_is_time(set->key) ? "Say it: every => '1 month'." : "Say it: every => '1000000'.");
	set->grid.step = rk_partition_step(set->key, options->every);
	if (before == NULL || options->origin == NULL ||
		strcmp(before->every, options->every) != 0 || strcmp(before->timezone, options->timezone) != 0)
	{
		set->grid.origin = rk_partition_shown_origin(set);
		options->origin = rk_partition_origin_text(&set->grid, set->grid.origin);
	}
	else
		set->grid.origin = rk_partition_origin(&set->grid, options->origin);
}

/*
 * What the call and the table together say; raises where that cannot be. The
 * table may be yet to be converted.
 */
RkPartitionSet *
rk_partition_merge_options(FunctionCallInfo fcinfo, Oid root, AttrNumber column, const RkPartitionOptions *before)
{
	RkPartitionSet *set = palloc0(sizeof(RkPartitionSet));
	RkPartitionOptions *options = palloc0(sizeof(RkPartitionOptions));

	set->root = root;
	set->owner = rk_relation_owner(root);
	set->options = options;
	if (before != NULL)
		*options = *before;
	else
		options->on_expiry = "drop";
	merge_names(fcinfo, options, set->owner);
	if (!PG_ARGISNULL(ARG_EPOCH))
	{
		options->epoch = text_argument(fcinfo, ARG_EPOCH);
		if (before != NULL && (before->epoch == NULL || strcmp(before->epoch, options->epoch) != 0))
			options->origin = NULL;
	}
	set->key = rk_key_create(root, column, options->epoch);
	set->grid.key = set->key;
	rk_partition_set_read(set);
	merge_zone(fcinfo, set, before == NULL);
	merge_grid(fcinfo, set, before);
	options->ahead = merge_length(fcinfo, set->key, ARG_AHEAD, "ahead", false, options->ahead);
	options->keep = merge_length(fcinfo, set->key, ARG_KEEP, "keep", true, options->keep);
	rk_partition_check_ahead(set);
	return set;
}

static void
notice_change(Oid root, const char *option, const char *was, const char *is)
{
	if (was == NULL ? is != NULL : is == NULL || strcmp(was, is) != 0)
		ereport(NOTICE,
				(errmsg("partitions of %s: %s changes from %s to %s", rk_relation_name(root), option,
						was != NULL ? was : "-", is != NULL ? is : "-")));
}

static void
notice_changes(Oid root, const RkPartitionOptions *before, const RkPartitionOptions *after)
{
	notice_change(root, "every", before->every, after->every);
	notice_change(root, "ahead", before->ahead, after->ahead);
	notice_change(root, "keep", before->keep, after->keep);
	notice_change(root, "on_expiry", before->on_expiry, after->on_expiry);
	notice_change(root, "archive_schema", before->archive_schema, after->archive_schema);
	notice_change(root, "timezone", before->timezone, after->timezone);
	notice_change(root, "partition_schema", before->partition_schema, after->partition_schema);
	notice_change(root, "brin", before->brin ? "true" : "false", after->brin ? "true" : "false");
	notice_change(root, "epoch", before->epoch, after->epoch);
}

/* ---- checks that read ---- */

#define UUIDS_LOOKED_AT 1000

/*
 * Of uuids only version 7 says when. A look at some rows, of which the table's
 * row security hides none.
 */
static void
check_uuids(const RkPartitionSet *set)
{
	bool		isnull;
	const char *key = quote_identifier(set->key->name);

	if (set->key->kind != RK_KEY_UUIDV7)
		return;
	(void) rk_fetch(set->owner,
					psprintf("SELECT 1 FROM (SELECT %s::text AS v FROM %s WHERE %s IS NOT NULL LIMIT %d) x"
							 " WHERE pg_catalog.substr(x.v, 15, 1) OPERATOR(pg_catalog.<>) '7'",
							 key, rk_relation_name(set->root), key, UUIDS_LOOKED_AT),
					0, NULL, NULL, NULL, &isnull);
	if (!isnull)
		refuse_table(set->root, psprintf("%s has values that are not of version 7, which do not say when they were made", key),
					 NULL);
}

/* Retention would keep a table that references this one locked for long. */
void
rk_partition_check_referencing(const RkPartitionSet *set)
{
	char	   *remedy;

	if (set->options->keep == NULL)
		return;
	remedy = rk_fetch_text_about(rk_extension_owner(), set->root,
								 "SELECT remedy FROM rowkeeper._partition_unindexed_keys WHERE root = $1 ORDER BY 1 LIMIT 1");
	if (remedy != NULL)
		rk_refuse_option("keep", psprintf("a foreign key that references %s has no index on its columns",
										  rk_relation_name(set->root)),
						 remedy);
}

/* ---- doing it ---- */

static char *
describe(const RkPartitionSet *set)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "-- %s is maintained: a partition every %s, %s ahead",
					 rk_relation_name(set->root), set->options->every,
					 set->options->ahead != NULL ? set->options->ahead : "four of them");
	if (set->options->keep != NULL)
		appendStringInfo(&text, ", kept for %s, then %s", set->options->keep, set->options->on_expiry);
	return text.data;
}

/* From here on it is maintained as these options say. */
void
rk_partition_register(FunctionCallInfo fcinfo, const RkPartitionSet *set)
{
	rk_partition_options_store(set->root, set->options);
	if (fcinfo != NULL)
		rk_step(fcinfo, describe(set));
}

/*
 * Make what is missing within the caller's transaction, unless others would
 * wait for its end: then maintain() does.
 */
void
rk_partition_create_missing(FunctionCallInfo fcinfo, const RkPartitionSet *set)
{
	bool		more;
	List	   *wanted = rk_partitions_wanted(set, RK_MAX_CREATED, &more);
	ListCell   *lc;

	if (wanted == NIL)
		return;
	if (!rk_partition_may_attach(set))
	{
		ereport(NOTICE,
				(errmsg("partitions of %s are made by the next maintenance", rk_relation_name(set->root)),
				 errdetail("It has foreign keys or a default partition, which would stay locked until this transaction ends."),
				 errhint("CALL rowkeeper.maintain(%s) after it.",
						 quote_literal_cstr(rk_relation_name(set->root)))));
		return;
	}
	rk_trigger_check_pending(list_make1_oid(set->root));
	foreach(lc, wanted)
	{
		Oid			relid = rk_partition_build(fcinfo, set, lfirst(lc));

		rk_partition_attach(fcinfo, set, lfirst(lc), relid);
	}
	if (more)
		ereport(NOTICE,
				(errmsg("%d partitions of %s were made, the rest by the next maintenance",
						list_length(wanted), rk_relation_name(set->root))));
}

/*
 * rowkeeper.partition(target regclass, by name, every text, ahead text, keep
 * text, on_expiry text, archive_schema name, timezone text, partition_schema
 * name, brin boolean, epoch text) returns SETOF text.
 *
 * Has a table's partitions maintained, or changes how, and makes those that
 * are missing, 1,000 at most, as the table's owner. Locks until commit: SHARE
 * UPDATE EXCLUSIVE on the table, which stops no reader or writer; a table with
 * foreign keys or a default partition is only registered, unless it was
 * created in the same transaction. A table that is not partitioned becomes so
 * (convert.c), below rowkeeper.inline_rows; ACCESS EXCLUSIVE then. The caller
 * must own the table. Errors: 55000 it has more rows, or is being converted;
 * 42501 not the owner, or he may not create tables where they would be; 0A000
 * what cannot be maintained; 22023 an option, 42703 "by" names no column,
 * 3F000 a schema that does not exist; 42P07 a partition's name is taken.
 */
Datum
rowkeeper_partition(PG_FUNCTION_ARGS)
{
	Oid			target;
	AttrNumber	column;
	RkPartitionOptions *before;
	RkPartitionSet *set;

	rk_steps_begin(fcinfo);
	target = rk_target_argument(fcinfo);
	rk_check_owner(target);
	if (rk_partition_is_plain(target))
	{
		rk_partition_convert_now(fcinfo, target);
		return (Datum) 0;
	}
	column = check_key(target);

	/* two calls for one table wait for each other, writers do not */
	LockRelationOid(target, ShareUpdateExclusiveLock);
	check_by(fcinfo, target, column);
	before = rk_partition_options_of(target);
	set = rk_partition_merge_options(fcinfo, target, column, before);
	check_uuids(set);
	rk_partition_check_referencing(set);
	if (before != NULL)
		notice_changes(target, before, set->options);
	if (before == NULL ||
		strcmp(rk_partition_options_format(before), rk_partition_options_format(set->options)) != 0)
		rk_partition_register(fcinfo, set);
	rk_partition_create_missing(fcinfo, set);
	return (Datum) 0;
}

/* ---- off ---- */

/* Nobody but its owner ends it from now on. */
static void
warn_of_pending(Oid root)
{
	bool		isnull;
	Datum		pending = rk_fetch_about(rk_extension_owner(), root,
										 "SELECT i.inhrelid FROM pg_inherits i WHERE i.inhdetachpending"
										 " AND pg_partition_root(i.inhparent) = $1", &isnull);
	Oid			partition = isnull ? InvalidOid : DatumGetObjectId(pending);
	Oid			parent = isnull ? InvalidOid : get_partition_parent(partition, true);

	if (!isnull)
		ereport(WARNING,
				(errmsg("the detach of %s from %s is pending", rk_relation_name(partition), rk_relation_name(parent)),
				 errhint("ALTER TABLE %s DETACH PARTITION %s FINALIZE", rk_relation_name(parent), rk_relation_name(partition))));
}

static bool
disable_partitions(FunctionCallInfo fcinfo, Oid root)
{
	if (rk_partition_convert_give_up(fcinfo, root) || rk_partition_split_give_up(fcinfo, root))
		return true;
	if (!rk_partition_options_forget(root))
		return false;
	warn_of_pending(root);
	rk_partition_intents_forget(root);
	if (fcinfo != NULL)
		rk_step(fcinfo, psprintf("-- %s is maintained no more, its partitions stay", rk_relation_name(root)));
	return true;
}

/*
 * rowkeeper.partition_off(target regclass) returns SETOF text: its partitions
 * are maintained no more, and stay. NULL: nothing; not maintained: a NOTICE.
 * The caller must own the table. No locks on it.
 */
Datum
rowkeeper_partition_off(PG_FUNCTION_ARGS)
{
	Oid			target;

	rk_steps_begin(fcinfo);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	target = PG_GETARG_OID(0);
	rk_check_owner(target);
	if (!disable_partitions(fcinfo, target))
		ereport(NOTICE,
				(errmsg("partitions of %s are not maintained", rk_relation_name(target))));
	return (Datum) 0;
}

static List *
maintained_tables(void)
{
	List	   *tables = rk_partition_conversions();
	ListCell   *lc;

	foreach(lc, rk_partition_tables())
		tables = list_append_unique_oid(tables, ((RkPartitionTable *) lfirst(lc))->root);
	return tables;
}

/* ---- what happens to tables as objects ---- */

/* Before an update of the extension its tables may not be there. */
static bool
has_registry(void)
{
	return OidIsValid(get_relname_relid("_partition_intents", get_namespace_oid("rowkeeper", false)));
}

/* At once: its name and its OID may come again. */
static void
relation_dropped(const RkDrop *drop)
{
	if (!has_registry())
		return;
	rk_partition_table_dropped(drop->object, drop->identity);
	rk_partition_intent_forget(drop->object);
}

/*
 * A maintained table is followed under its new name. A new one is nobody's yet,
 * whatever was said of one of its name; but what a dump brings later than the
 * registry is what that was said of.
 */
static void
relation_altered(const RkDdlCommand *command)
{
	if (get_rel_relkind(command->relid) != RELKIND_PARTITIONED_TABLE || !has_registry())
		return;
	if (OidIsValid(command->detached) && rk_in_errand())
		rk_partition_intent_detached(command->detached);
	if (IsA(command->parsetree, RenameStmt))
	{
		const RenameStmt *rename = (const RenameStmt *) command->parsetree;

		if (rename->renameType != OBJECT_COLUMN && rename->renameType != OBJECT_TABCONSTRAINT)
			rk_partition_table_renamed(command->relid, get_namespace_name(get_rel_namespace(command->relid)),
									   rename->relation->relname);
	}
	else if (IsA(command->parsetree, AlterObjectSchemaStmt))
		rk_partition_table_renamed(command->relid,
								   ((const AlterObjectSchemaStmt *) command->parsetree)->relation->schemaname,
								   get_rel_name(command->relid));
	else if (strncmp(command->tag, "CREATE", 6) == 0 && !rk_is_loading_dump())
		rk_partition_table_created(command->relid);
}

static void
schema_altered(const RkDdlCommand *command)
{
	if (IsA(command->parsetree, RenameStmt) && has_registry())
		rk_partition_schema_renamed(((const RenameStmt *) command->parsetree)->subname,
									((const RenameStmt *) command->parsetree)->newname);
}

void
rk_partition_enable_init(void)
{
	static const RkFeature feature = {
		.name = "partition",
		.off = disable_partitions,
		.tables = maintained_tables
	};
	static const RkEventListener listener = {
		.relation_altered = relation_altered,
		.schema_altered = schema_altered,
		.relation_dropped = relation_dropped
	};

	rk_feature_register(&feature);
	rk_events_listen(&listener);
}

void
rk_partition_init(void)
{
	rk_partition_enable_init();
	rk_partition_upkeep_init();
	rk_partition_convert_init();
	rk_partition_split_init();
	rk_partition_own_init();
}
