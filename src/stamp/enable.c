/*
 * enable.c
 *
 * stamp() and stamp_off(): a table's stamps switched on, changed and off. An
 * option that is not named stays as it is; the first time it has its default.
 * What the call is told is checked here, whole, before anything is done.
 */
#include "stamp/stamp.h"

#include "access/relation.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_stamp);
PG_FUNCTION_INFO_V1(rowkeeper_stamp_off);
PG_FUNCTION_INFO_V1(rowkeeper_stamp_breaks_hot);

/* ---- our trigger ---- */

/*
 * The trigger of that name, copied: the relation's own list of triggers is
 * made anew whenever the catalog is asked and something has changed.
 */
static RkStampTrigger *
find_trigger(Relation rel, const char *name)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];
		RkStampTrigger *found;

		if (strcmp(trigger->tgname, name) != 0)
			continue;
		found = palloc0(sizeof(RkStampTrigger));
		found->oid = trigger->tgoid;
		found->function = trigger->tgfoid;
		found->state = trigger->tgenabled;
		found->is_clone = trigger->tgisclone;
		found->is_internal = trigger->tgisinternal || OidIsValid(trigger->tgconstraint);
		if (trigger->tgnargs == 1)
			found->argument = pstrdup(trigger->tgargs[0]);
		return found;
	}
	return NULL;
}

static bool
is_our_function(Oid function)
{
	char	   *schema = get_namespace_name(get_func_namespace(function));

	return schema != NULL && strcmp(schema, "rowkeeper") == 0;
}

/*
 * Our trigger of a table or partition that is open, or NULL. A trigger is
 * ours by its name and its function: anybody can name one so.
 */
RkStampTrigger *
rk_stamp_trigger_of(Relation rel)
{
	RkStampTrigger *trigger = find_trigger(rel, RK_STAMP_TRIGGER);
	char	   *function;

	if (trigger == NULL || trigger->argument == NULL || !is_our_function(trigger->function))
		return NULL;
	function = get_func_name(trigger->function);
	return function != NULL && strcmp(function, RK_STAMP_FUNCTION) == 0 ? trigger : NULL;
}

/* What its trigger was told; NULL where the table is not stamped. */
static RkStampOptions *
options_of(Relation rel)
{
	RkStampTrigger *trigger = rk_stamp_trigger_of(rel);

	return trigger == NULL ? NULL : rk_stamp_options_parse(trigger->argument);
}

char *
rk_stamp_create_sql(Oid root, const RkStampOptions *options)
{
	return psprintf("CREATE OR REPLACE TRIGGER \"" RK_STAMP_TRIGGER "\""
					" BEFORE INSERT OR UPDATE ON %s"
					" FOR EACH ROW EXECUTE FUNCTION rowkeeper." RK_STAMP_FUNCTION "(%s)",
					rk_relation_name(root), quote_literal_cstr(rk_stamp_options_format(options)));
}

/* ---- what can be stamped ---- */

RK_NORETURN static void
refuse_table(Oid relid, const char *reason, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot stamp %s: %s", rk_relation_name(relid), reason),
			 hint != NULL ? errhint("%s", hint) : 0));
}

static const char *
unfit_kind(char kind)
{
	switch (kind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			return NULL;
		case RELKIND_FOREIGN_TABLE:
			return "it is a foreign table, whose rows change elsewhere";
		case RELKIND_VIEW:
			return "it is a view";
		case RELKIND_MATVIEW:
			return "it is a materialized view";
		default:
			return "it is not a table";
	}
}

static void
check_table(Oid relid)
{
	char	   *schema = get_namespace_name(get_rel_namespace(relid));
	const char *reason = unfit_kind(get_rel_relkind(relid));
	Oid			root;

	if (reason != NULL)
		refuse_table(relid, reason, NULL);
	if (get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		refuse_table(relid, "it is temporary", NULL);
	if (IsCatalogRelationOid(relid) || strcmp(schema, "information_schema") == 0)
		refuse_table(relid, "it is a system table", NULL);
	if (strcmp(schema, "rowkeeper") == 0 || strncmp(schema, "rowkeeper_", 10) == 0)
		refuse_table(relid, "it belongs to rowkeeper itself", NULL);
	root = rk_root_of(relid);
	if (root != relid)
		refuse_table(relid, psprintf("it is a partition of %s", rk_relation_name(root)),
					 psprintf("SELECT rowkeeper.stamp(%s) covers all its partitions.",
							  quote_literal_cstr(rk_relation_name(root))));
}

static void
check_partitions(Relation root, List *tree, const RkStampOptions *options)
{
	ListCell   *lc;

	foreach(lc, tree)
	{
		const char *reason = unfit_kind(get_rel_relkind(lfirst_oid(lc)));
		Relation	rel;

		if (reason != NULL)
			refuse_table(RelationGetRelid(root),
						 psprintf("of its partition %s: %s",
								  rk_relation_name(lfirst_oid(lc)), reason), NULL);
		rel = relation_open(lfirst_oid(lc), NoLock);
		rk_stamp_check_partition_keys(rel, options);
		relation_close(rel, NoLock);
	}
}

/* ---- what the call is told ---- */

/* Argument number "option" + 1 of stamp() as text; NULL: not named. */
static char *
named_value(FunctionCallInfo fcinfo, RkStampOption option)
{
	if (PG_ARGISNULL(option + 1))
		return NULL;
	return option < RK_STAMP_COUNT ? pstrdup(NameStr(*PG_GETARG_NAME(option + 1)))
		: text_to_cstring(PG_GETARG_TEXT_PP(option + 1));
}

static RkStampOptions *
merge_options(FunctionCallInfo fcinfo, Relation rel, const RkStampOptions *before)
{
	RkStampOptions *options = rk_stamp_options_default();
	char	   *version = named_value(fcinfo, RK_VERSION);

	if (before != NULL)
		*options = *before;
	else if (version == NULL)
		options->value[RK_VERSION] = rk_stamp_default_version(rel);
	for (int option = 0; option < RK_STAMP_OPTION_COUNT; option++)
	{
		char	   *value = named_value(fcinfo, option);

		if (value == NULL)
			continue;
		if (option < RK_STAMP_COUNT && value[0] == '\0')
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\": a column name must not be empty",
							rk_stamp_option_names[option]),
					 errhint("'-' is without.")));
		if (option >= RK_STAMP_COUNT)
			value = rk_stamp_check_word(option, value);
		options->value[option] = strcmp(value, "-") == 0 ? NULL : value;
	}
	rk_stamp_options_check(options);
	return options;
}

static void
notice_changes(Oid root, const RkStampOptions *before, const RkStampOptions *after)
{
	for (int i = 0; i < RK_STAMP_OPTION_COUNT; i++)
	{
		const char *was = before->value[i] != NULL ? before->value[i] : "-";
		const char *is = after->value[i] != NULL ? after->value[i] : "-";

		if (strcmp(was, is) != 0)
			ereport(NOTICE,
					(errmsg("stamps of %s: %s changes from %s to %s",
							rk_relation_name(root), rk_stamp_option_names[i], was, is)));
	}
}

/* ---- triggers of others ---- */

static void
check_replaceable(Oid relid, const char *name, const RkStampTrigger *trigger)
{
	if (trigger->is_internal || is_our_function(trigger->function))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"replace_triggers\": trigger \"%s\" of %s is none that stamps replace",
						name, rk_relation_name(relid)),
				 errhint("Name triggers written by hand that set the same columns.")));
}

/* Drop one trigger from the table and its partitions; steps of the call. */
static bool
replace_trigger(FunctionCallInfo fcinfo, List *tree, const char *name)
{
	bool		found = false;
	ListCell   *lc;

	foreach(lc, tree)
	{
		Relation	rel = relation_open(lfirst_oid(lc), NoLock);
		RkStampTrigger *trigger = find_trigger(rel, name);
		Oid			owner = rel->rd_rel->relowner;

		relation_close(rel, NoLock);
		if (trigger == NULL || trigger->is_clone)
			continue;			/* a clone goes with the table's own */
		check_replaceable(lfirst_oid(lc), name, trigger);
		found = true;
		rk_run_ddl_step(fcinfo, owner,
						psprintf("DROP TRIGGER %s ON %s", quote_identifier(name),
								 rk_relation_name(lfirst_oid(lc))));
	}
	return found;
}

static void
replace_triggers(FunctionCallInfo fcinfo, Oid root, List *tree, ArrayType *names)
{
	ListCell   *lc;

	foreach(lc, rk_names_argument(names))
	{
		const char *name = lfirst(lc);

		if (name != NULL && !replace_trigger(fcinfo, tree, name))
			ereport(NOTICE,
					(errmsg("trigger \"%s\" of %s does not exist, skipping", name, rk_relation_name(root))));
	}
}

/* ---- doing it ---- */

/* Whether our trigger fires on origin, and on origin only, everywhere. */
static bool
fires_everywhere(List *tree)
{
	bool		fires = true;
	ListCell   *lc;

	foreach(lc, tree)
	{
		Relation	rel = relation_open(lfirst_oid(lc), NoLock);
		RkStampTrigger *trigger = rk_stamp_trigger_of(rel);

		fires &= trigger != NULL && trigger->state == TRIGGER_FIRES_ON_ORIGIN;
		relation_close(rel, NoLock);
	}
	return fires;
}

static List *
tree_of(Oid root)
{
	return get_rel_relkind(root) == RELKIND_PARTITIONED_TABLE
		? rk_relation_tree(root, AccessShareLock) : list_make1_oid(root);
}

static void
enable_stamps(FunctionCallInfo fcinfo, Oid root)
{
	Relation	rel;
	List	   *tree;
	RkStampOptions *before;
	RkStampOptions *options;
	char	   *missing;
	Oid			owner;

	/* two calls for one table wait for each other, writers do not */
	LockRelationOid(root, ShareUpdateExclusiveLock);
	tree = tree_of(root);
	rel = relation_open(root, NoLock);
	owner = rel->rd_rel->relowner;
	before = options_of(rel);
	options = merge_options(fcinfo, rel, before);
	rk_stamp_check_columns(rel, options, false);
	check_partitions(rel, tree, options);
	missing = rk_stamp_missing_columns(rel, options);
	relation_close(rel, NoLock);

	if (before != NULL)
		notice_changes(root, before, options);
	rk_trigger_check_pending(tree);
	if (!PG_ARGISNULL(RK_STAMP_OPTION_COUNT + 1))
		replace_triggers(fcinfo, root, tree, PG_GETARG_ARRAYTYPE_P(RK_STAMP_OPTION_COUNT + 1));
	if (missing != NULL)
		rk_run_ddl_step(fcinfo, owner,
						psprintf("ALTER TABLE %s %s", rk_relation_name(root), missing));
	if (before == NULL || !rk_stamp_options_equal(before, options))
		rk_run_step(fcinfo, rk_extension_owner(), rk_stamp_create_sql(root, options));
	if (!fires_everywhere(tree))
		rk_run_step(fcinfo, rk_extension_owner(),
					psprintf("ALTER TABLE %s ENABLE TRIGGER \"" RK_STAMP_TRIGGER "\"",
							 rk_relation_name(root)));
	rk_warn_of("_stamp_other_triggers", root);
}

/*
 * rowkeeper.stamp(target regclass, updated_at name, version name, created_at
 * name, created_by name, updated_by name, on_noop text, client_value text,
 * clock text, stale text, client_version text, sqlstate text,
 * replace_triggers name[]) returns SETOF text.
 *
 * Stamps a table's rows, or changes how. Locks: SHARE UPDATE EXCLUSIVE on the
 * table (writers go on); where the trigger changes SHARE ROW EXCLUSIVE, where
 * columns are added or triggers dropped ACCESS EXCLUSIVE, on it and its
 * partitions, until commit. No row is read or written. The caller must own
 * the table. Errors: 42501 not the owner, 0A000 what cannot be stamped, 22023
 * an option, 42703 a column that is there under a similar name, 42804 its
 * type.
 */
Datum
rowkeeper_stamp(PG_FUNCTION_ARGS)
{
	Oid			target;

	rk_steps_begin(fcinfo);
	target = rk_target_argument(fcinfo);
	rk_check_owner(target);
	check_table(target);
	enable_stamps(fcinfo, target);
	return (Datum) 0;
}

/* Take the stamps of one table away; false where it has none. */
static bool
disable_stamps(FunctionCallInfo fcinfo, Oid root)
{
	Relation	rel;
	bool		stamped;

	if (unfit_kind(get_rel_relkind(root)) != NULL)
		return false;
	LockRelationOid(root, ShareUpdateExclusiveLock);
	rel = relation_open(root, NoLock);
	stamped = rk_stamp_trigger_of(rel) != NULL;
	relation_close(rel, NoLock);
	if (stamped)
	{
		rk_trigger_check_pending(tree_of(root));
		rk_run_step(fcinfo, rk_extension_owner(),
					psprintf("DROP TRIGGER \"" RK_STAMP_TRIGGER "\" ON %s", rk_relation_name(root)));
	}
	return stamped;
}

/*
 * rowkeeper.stamp_off(target regclass) returns SETOF text: columns and what
 * they hold stay, nothing is stamped any more. NULL: nothing; not stamped: a
 * NOTICE. The caller must own the table. Locks: ACCESS EXCLUSIVE on the table
 * and its partitions, until commit.
 */
Datum
rowkeeper_stamp_off(PG_FUNCTION_ARGS)
{
	Oid			target;

	rk_steps_begin(fcinfo);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	target = PG_GETARG_OID(0);
	rk_check_owner(target);
	if (rk_root_of(target) != target)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s is a partition of %s and stamped as part of it",
						rk_relation_name(target), rk_relation_name(rk_root_of(target)))));
	if (!disable_stamps(fcinfo, target))
		ereport(NOTICE,
				(errmsg("%s is not stamped", rk_relation_name(target))));
	return (Datum) 0;
}

/*
 * rowkeeper._stamp_breaks_hot(index regclass) returns boolean: whether an
 * update that changes a column of this index cannot be heap-only. No lock on
 * the index, no privileges; false where it does not exist.
 */
Datum
rowkeeper_stamp_breaks_hot(PG_FUNCTION_ARGS)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(PG_GETARG_OID(0)));
	Oid			method;

	if (!HeapTupleIsValid(tuple))
		PG_RETURN_BOOL(false);
	method = ((Form_pg_class) GETSTRUCT(tuple))->relam;
	ReleaseSysCache(tuple);
	PG_RETURN_BOOL(!rk_index_is_summarizing(GetIndexAmRoutineByAmId(method, false)));
}

/* Every stamped table, of partitioned ones the root. */
static List *
stamped_tables(void)
{
	return rk_fetch_oids("SELECT tgrelid FROM pg_trigger"
						 " WHERE tgname = '" RK_STAMP_TRIGGER "' AND tgparentid = 0"
						 " AND tgfoid = 'rowkeeper." RK_STAMP_FUNCTION "()'::regprocedure"
						 " ORDER BY tgrelid");
}

void
rk_stamp_enable_init(void)
{
	static const RkFeature feature = {
		.name = "stamp",
		.off = disable_stamps,
		.tables = stamped_tables
	};

	rk_feature_register(&feature);
}

void
rk_stamp_init(void)
{
	rk_stamp_plan_init();
	rk_stamp_moves_init();
	rk_stamp_enable_init();
	rk_stamp_ddl_init();
}
