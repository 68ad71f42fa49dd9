/*
 * enable.c
 *
 * soft_delete() and soft_delete_off(): soft delete of a table switched on,
 * changed and off, in either mode. An option that is not named stays as it
 * is; the first time it has its default. What the call is told is checked
 * here, whole, before anything is done.
 */
#include "soft_delete/soft_delete.h"

#include "access/relation.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete);
PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_off);

/* ---- what can be soft-deleted ---- */

RK_NORETURN static void
refuse_table(Oid relid, const char *reason, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot soft-delete rows of %s: %s", rk_relation_name(relid), reason),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/* Why a relation cannot have soft delete, or NULL; by the catalog alone. */
static const char *
unfit_storage(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class class;
	const char *reason = NULL;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	class = (Form_pg_class) GETSTRUCT(tuple);
	if (class->relkind == RELKIND_VIEW)
		reason = "it is a view";
	else if (class->relkind == RELKIND_FOREIGN_TABLE)
		reason = "it is a foreign table, whose rows are elsewhere";
	else if (class->relkind != RELKIND_RELATION && class->relkind != RELKIND_PARTITIONED_TABLE)
		reason = "it is not a table";
	else if (class->relkind == RELKIND_RELATION && class->relam != HEAP_TABLE_AM_OID)
		reason = "its access method is not heap";
	else if (class->relpersistence == RELPERSISTENCE_TEMP)
		reason = "it is temporary";
	ReleaseSysCache(tuple);
	return reason;
}

static bool
is_of_ours(Relation rel)
{
	char	   *schema = get_namespace_name(RelationGetNamespace(rel));

	return strncmp(schema, "rowkeeper", strlen("rowkeeper")) == 0 &&
		(strcmp(schema, "rowkeeper") == 0 || strcmp(schema, "rowkeeper_log") == 0 ||
		 strcmp(schema, RK_TRASH_SCHEMA) == 0);
}

static void
check_inheritance(Oid root)
{
	if (get_rel_relkind(root) != RELKIND_RELATION)
		return;
	if (has_subclass(root) && list_length(rk_relation_tree(root, NoLock)) > 1)
		refuse_table(root, "other tables inherit from it", NULL);
	if (has_superclass(root))
		refuse_table(root, "it inherits from another table", NULL);
}

/* Raise 0A000 where a table, with its partitions, cannot have soft delete. */
static void
check_table(Oid root)
{
	Relation	rel;
	ListCell   *lc;

	foreach(lc, rk_relation_tree(root, NoLock))
	{
		const char *reason = unfit_storage(lfirst_oid(lc));

		if (reason != NULL)
			refuse_table(root, lfirst_oid(lc) == root ? reason :
						 psprintf("of its partition %s: %s", rk_relation_name(lfirst_oid(lc)), reason),
						 NULL);
	}
	rel = relation_open(root, AccessShareLock);
	if (IsSystemRelation(rel) || RelationGetNamespace(rel) == get_namespace_oid("information_schema", true))
		refuse_table(root, "it is a system table", NULL);
	if (is_of_ours(rel))
		refuse_table(root, "it belongs to rowkeeper itself", NULL);
	check_inheritance(root);
	list_free(RelationGetIndexList(rel));
	if (!OidIsValid(rk_primary_key_index(rel)))
		refuse_table(root, "it has no primary key",
					 psprintf("ALTER TABLE %s ADD PRIMARY KEY (...), not deferrable: deleted rows are found by it.",
							  rk_relation_name(root)));
	relation_close(rel, NoLock);
}

/* ---- what the call is told ---- */

/* The arguments from "mode" on; NULL: not named. */
typedef struct Arguments
{
	char	   *mode;
	char	   *deleted_at;
	char	   *deleted_by;
	char	   *batch;
	char	   *on_delete;
	char	   *view_name;
	char	   *view_schema;
	Interval   *keep;
	bool		cascade_given;
	bool		cascade;
} Arguments;

static char *
name_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : pstrdup(NameStr(*PG_GETARG_NAME(number)));
}

static char *
text_argument(FunctionCallInfo fcinfo, int number)
{
	return PG_ARGISNULL(number) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(number));
}

static Arguments
read_arguments(FunctionCallInfo fcinfo)
{
	Arguments	arguments = {0};

	arguments.mode = text_argument(fcinfo, 1);
	arguments.deleted_at = name_argument(fcinfo, 2);
	arguments.deleted_by = name_argument(fcinfo, 3);
	arguments.batch = name_argument(fcinfo, 4);
	arguments.on_delete = text_argument(fcinfo, 5);
	arguments.view_name = name_argument(fcinfo, 6);
	arguments.view_schema = name_argument(fcinfo, 7);
	if (!PG_ARGISNULL(8))
		arguments.keep = PG_GETARG_INTERVAL_P(8);
	arguments.cascade_given = !PG_ARGISNULL(9);
	if (arguments.cascade_given)
		arguments.cascade = PG_GETARG_BOOL(9);
	return arguments;
}

static bool
read_mode(Oid root, const char *mode, const RkSoftDeleteOptions *before)
{
	bool		trash = before != NULL && before->trash;

	if (mode != NULL && strcmp(mode, "trash") == 0)
		trash = true;
	else if (mode != NULL && strcmp(mode, "flag") == 0)
		trash = false;
	else if (mode != NULL)
		rk_refuse_option("mode", psprintf("\"%s\" is not a mode", mode), "Use 'flag' or 'trash'.");
	if (before != NULL && before->trash != trash)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change the mode of soft delete of %s", rk_relation_name(root)),
				 errdetail("Deleted rows are kept elsewhere in the other mode."),
				 errhint("SELECT rowkeeper.soft_delete_off(%s) first; it leaves them as they are.",
						 quote_literal_cstr(rk_relation_name(root)))));
	return trash;
}

static bool
read_on_delete(const char *value)
{
	if (strcmp(value, "allow") == 0)
		return true;
	if (strcmp(value, "error") != 0)
		rk_refuse_option("on_delete", psprintf("\"%s\" is not known", value), "Use 'error' or 'allow'.");
	return false;
}

/* Columns whose values say what is deleted: another one would say nothing. */
static char *
read_fixed_column(Oid root, const char *option, const char *given, const char *before,
				  const char *absent)
{
	const char *name = given != NULL ? given : before != NULL ? before : absent;

	if (strcmp(name, "-") == 0)
		rk_refuse_option(option, "cannot be left out", NULL);
	if (before != NULL && strcmp(before, name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("option \"%s\": cannot change from \"%s\" to \"%s\"", option, before, name),
				 errhint("ALTER TABLE %s RENAME COLUMN is followed; else SELECT rowkeeper.soft_delete_off(%s) first.",
						 rk_relation_name(root), quote_literal_cstr(rk_relation_name(root)))));
	return pstrdup(name);
}

static void
refuse_flag_options(const Arguments *arguments)
{
	const char *option = arguments->deleted_at != NULL ? "deleted_at" :
		arguments->deleted_by != NULL ? "deleted_by" :
		arguments->batch != NULL ? "batch" :
		arguments->on_delete != NULL ? "on_delete" : NULL;

	if (option != NULL)
		rk_refuse_option(option, "is of flag mode only", NULL);
}

static void
merge_flag_options(Oid root, RkSoftDeleteOptions *options, const RkSoftDeleteOptions *before,
				   const Arguments *arguments)
{
	options->deleted_at = read_fixed_column(root, "deleted_at", arguments->deleted_at,
											before ? before->deleted_at : NULL, "deleted_at");
	options->batch = read_fixed_column(root, "batch", arguments->batch,
									   before ? before->batch : NULL, "delete_batch");
	if (arguments->deleted_by != NULL)
		options->deleted_by = strcmp(arguments->deleted_by, "-") == 0 ? NULL : arguments->deleted_by;
	else if (before == NULL)
		options->deleted_by = "deleted_by";
	if (arguments->on_delete != NULL)
		options->allow_hard = read_on_delete(arguments->on_delete);
	if (options->view_name == NULL)
		options->view_name = makeObjectName("active", get_rel_name(root), NULL);
	if (options->view_schema == NULL)
		options->view_schema = get_namespace_name(get_rel_namespace(root));
}

static RkSoftDeleteOptions *
merge_options(Oid root, const RkSoftDeleteOptions *before, const Arguments *arguments)
{
	RkSoftDeleteOptions *options = palloc0(sizeof(RkSoftDeleteOptions));

	if (before != NULL)
		*options = *before;
	else
		options->cascade = true;
	options->trash = read_mode(root, arguments->mode, before);
	if (arguments->keep != NULL)
		options->keep = rk_option_keep(arguments->keep);
	if (arguments->cascade_given)
		options->cascade = arguments->cascade;
	if (arguments->view_name != NULL)
		options->view_name = arguments->view_name;
	if (arguments->view_schema != NULL)
	{
		(void) get_namespace_oid(arguments->view_schema, false);
		options->view_schema = arguments->view_schema;
	}
	if (options->trash)
		refuse_flag_options(arguments);
	else
		merge_flag_options(root, options, before, arguments);
	return options;
}

/* ---- saying what changed ---- */

static void
notice_change(Oid root, const char *option, const char *before, const char *after)
{
	before = before != NULL ? before : "none";
	after = after != NULL ? after : "none";
	if (strcmp(before, after) != 0)
		ereport(NOTICE,
				(errmsg("soft delete of %s: %s changes from %s to %s",
						rk_relation_name(root), option, before, after)));
}

static const char *
boolean_text(bool value)
{
	return value ? "true" : "false";
}

static void
notice_changes(Oid root, const RkSoftDeleteOptions *before, const RkSoftDeleteOptions *after)
{
	notice_change(root, "deleted_by", before->deleted_by, after->deleted_by);
	notice_change(root, "on_delete", before->allow_hard ? "allow" : "error",
				  after->allow_hard ? "allow" : "error");
	notice_change(root, "view_name", before->view_name, after->view_name);
	notice_change(root, "view_schema", before->view_schema, after->view_schema);
	notice_change(root, "keep", before->keep ? before->keep : "for ever",
				  after->keep ? after->keep : "for ever");
	notice_change(root, "cascade", boolean_text(before->cascade), boolean_text(after->cascade));
}

/* ---- doing it ---- */

/* The view has another name now: take it there, with its rights. */
static void
move_view(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *before,
		  const RkSoftDeleteOptions *options)
{
	Oid			view = rk_flag_view_of(root, before);

	if (before->hidden && (strcmp(before->view_name, options->view_name) != 0 ||
						   strcmp(before->view_schema, options->view_schema) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot give the view of %s another name while it is hidden", rk_relation_name(root)),
				 errhint("SELECT rowkeeper.soft_delete_refresh(%s) first.",
						 quote_literal_cstr(rk_relation_name(root)))));
	if (!OidIsValid(view))
		return;
	if (strcmp(before->view_name, options->view_name) != 0)
		rk_run_step(fcinfo, rk_relation_owner(view),
					psprintf("ALTER VIEW %s RENAME TO %s", rk_relation_name(view),
							 quote_identifier(options->view_name)));
	if (strcmp(before->view_schema, options->view_schema) != 0)
		rk_run_step(fcinfo, rk_relation_owner(view),
					psprintf("ALTER VIEW %s SET SCHEMA %s",
							 quote_qualified_identifier(before->view_schema, options->view_name),
							 quote_identifier(options->view_schema)));
}

static void
enable_flag(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *before,
			RkSoftDeleteOptions *options)
{
	char	   *add = rk_flag_columns_check(root, options);

	if (add != NULL)
		rk_run_step(fcinfo, rk_relation_owner(root), add);
	if (before != NULL)
		move_view(fcinfo, root, before, options);
	if (!options->hidden)
		(void) rk_flag_view_set(fcinfo, root, options);
	(void) rk_flag_row_trigger_set(fcinfo, root, options);
	(void) rk_soft_delete_triggers_set(fcinfo, root, options);
	(void) rk_flag_guards_set(fcinfo, root, true);
}

static void
check_target(Oid target)
{
	Oid			root;

	if (creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot enable soft delete within an extension script")));
	rk_check_owner(target);
	root = rk_root_of(target);
	if (root != target)
		refuse_table(target, psprintf("it is a partition of %s", rk_relation_name(root)),
					 psprintf("SELECT rowkeeper.soft_delete(%s) covers all its partitions.",
							  quote_literal_cstr(rk_relation_name(root))));
}

/*
 * Guards are made on the tables that reference this one. Those are locked
 * before it, in the order in which the server locks for a foreign key: who
 * makes one at the same time waits for us, or we for him.
 */
static void
lock_unguarded(FunctionCallInfo fcinfo, Oid root)
{
	ListCell   *lc;

	foreach(lc, rk_links_to(root))
	{
		const RkLink *link = lfirst(lc);

		if (link->child != root && !rk_flag_is_guarded(fcinfo, link))
			LockRelationOid(link->child, ShareRowExclusiveLock);
	}
}

static bool
may_be_flag(Oid root, const char *mode)
{
	return (mode == NULL || strcmp(mode, "flag") == 0) && rk_trash_options_of(root) == NULL;
}

static void
enable_soft_delete(FunctionCallInfo fcinfo, Oid root, const Arguments *arguments)
{
	RkSoftDeleteOptions *before;
	RkSoftDeleteOptions *options;

	check_target(root);
	if (may_be_flag(root, arguments->mode))
		lock_unguarded(fcinfo, root);
	/* two calls for one table wait for each other, writers do not */
	LockRelationOid(root, ShareUpdateExclusiveLock);
	rk_trigger_check_pending(rk_relation_tree(root, AccessShareLock));
	check_table(root);
	before = rk_soft_delete_options_of(root);
	options = merge_options(root, before, arguments);
	rk_graph_check(root, options);

	if (before != NULL)
		notice_changes(root, before, options);
	rk_batch_store_ensure(fcinfo);
	if (options->trash)
	{
		rk_trash_enable(fcinfo, root, options);
		(void) rk_soft_delete_triggers_set(fcinfo, root, options);
	}
	else
		enable_flag(fcinfo, root, before, options);
}

/*
 * rowkeeper.soft_delete(target regclass, mode text, deleted_at name,
 * deleted_by name, batch name, on_delete text, view_name name, view_schema
 * name, keep interval, cascade boolean) returns SETOF text.
 *
 * Gives a table soft delete, or changes how. It scans nothing and builds no
 * index. Locks, until commit: SHARE UPDATE EXCLUSIVE on the table (writers go
 * on); ACCESS EXCLUSIVE while missing columns are added, SHARE ROW EXCLUSIVE
 * on it, its partitions and, for guards, on tables that reference it, where
 * triggers change. The caller must own the table; a view that is adopted must
 * be its owner's. Errors: 42501 not the owner, 0A000 what cannot be soft-deleted or an unsafe
 * foreign key, 22023 an option, 42P07 the view's name is taken.
 */
Datum
rowkeeper_soft_delete(PG_FUNCTION_ARGS)
{
	Arguments	arguments;
	Oid			target;

	rk_steps_begin(fcinfo);
	target = rk_target_argument(fcinfo);
	arguments = read_arguments(fcinfo);
	enable_soft_delete(fcinfo, target, &arguments);
	return (Datum) 0;
}

/*
 * Stop the soft delete of one table; false where it had none. With its column
 * it may have lost its options, but not all of its triggers.
 */
static bool
disable_soft_delete(FunctionCallInfo fcinfo, Oid root)
{
	RkSoftDeleteOptions *options;

	LockRelationOid(root, ShareUpdateExclusiveLock);	/* as soft_delete() does */
	options = rk_soft_delete_options_of(root);
	if (options == NULL && rk_soft_delete_triggers_left(root))
	{
		rk_soft_delete_triggers_drop(fcinfo, root);
		rk_flag_guards_drop(fcinfo, root);
		return true;
	}
	if (options == NULL)
		return false;
	if (options->trash)
		(void) rk_trash_disable(fcinfo, root);
	else
		rk_flag_view_drop(fcinfo, root, options);
	rk_soft_delete_triggers_drop(fcinfo, root);
	if (!options->trash)
		rk_flag_guards_drop(fcinfo, root);
	return true;
}

/* Tables that still pass their deletes on: what becomes of that now. */
static void
warn_of_parents(Oid child)
{
	ListCell   *lc;

	foreach(lc, rk_links_from(child))
	{
		RkLink	   *link = lfirst(lc);
		RkSoftDeleteOptions *parent = link->parent == child ? NULL
			: rk_soft_delete_options_of(link->parent);

		if (parent != NULL && link->on_delete == FKCONSTR_ACTION_CASCADE)
			ereport(WARNING,
					(errmsg("%s still has soft delete, and foreign key \"%s\" passes its deletes on to %s",
							rk_relation_name(link->parent), link->name, rk_relation_name(child)),
					 parent->trash ? errdetail("Rows that go with it are deleted for good.")
					 : errdetail("A row that is referenced can no longer be deleted.")));
	}
}

/*
 * rowkeeper.soft_delete_off(target regclass) returns SETOF text: takes soft
 * delete from a table. Rows, columns and trash stay as they are; a view of
 * ours goes. NULL: nothing; no soft delete: a NOTICE; a WARNING where a table
 * that has it still cascades to this one. The caller must own the
 * table. Locks: ACCESS EXCLUSIVE on the table, its partitions and its view,
 * and on tables that reference it while their guards are dropped.
 */
Datum
rowkeeper_soft_delete_off(PG_FUNCTION_ARGS)
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
				 errmsg("%s is a partition of %s and soft-deleted as part of it",
						rk_relation_name(target), rk_relation_name(rk_root_of(target)))));
	if (disable_soft_delete(fcinfo, target))
		warn_of_parents(target);
	else
		ereport(NOTICE,
				(errmsg("%s has no soft delete", rk_relation_name(target))));
	return (Datum) 0;
}

/* Every table that leave() must take something from: roots. */
static List *
tables_to_leave(void)
{
	List	   *tables = NIL;
	List	   *candidates = rk_fetch_oids("SELECT c.oid FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid"
										   " WHERE g.tgname = '" RK_SOFT_DELETE_TRIGGER "_truncate'"
										   " AND NOT c.relispartition ORDER BY c.oid");
	ListCell   *lc;

	foreach(lc, candidates)
		if (rk_soft_delete_triggers_left(lfirst_oid(lc)))
		tables = lappend_oid(tables, lfirst_oid(lc));
	return list_concat_unique_oid(rk_soft_delete_tables(), tables);
}

void
rk_soft_delete_enable_init(void)
{
	static const RkFeature feature = {
		.name = "soft_delete",
		.off = disable_soft_delete,
		.tables = tables_to_leave
	};

	rk_feature_register(&feature);
}

/* The start of all of soft delete; events are heard in this order. */
void
rk_soft_delete_init(void)
{
	rk_soft_delete_enable_init();
	rk_soft_delete_meaning_init();
	rk_flag_table_init();
	rk_flag_children_init();
	rk_flag_notes_init();
	rk_flag_guard_init();
	rk_batch_init();
	rk_trash_init();
	rk_trash_ddl_init();
	rk_purge_init();
	rk_soft_delete_ddl_init();
}
