/*
 * ddl.c
 *
 * What happens to soft-deleted tables as objects, followed: renamed columns
 * and views, added columns, new and detached partitions, new foreign keys.
 * Only what a command itself has locked is touched: a guard is made where the
 * foreign key was, a statement trigger where the partition is.
 *
 * A restore creates the same triggers from the dump, perhaps in parallel, so
 * nothing is made on its behalf.
 */
#include "soft_delete/soft_delete.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_constraint.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

static bool
is_table(Oid relid)
{
	char		kind = get_rel_relkind(relid);

	return kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE;
}

/* ---- names ---- */

/* Options name columns: follow a rename. */
static void
follow_column(const RkDdlCommand *command, Oid root, RkSoftDeleteOptions *options)
{
	const RenameStmt *rename = (const RenameStmt *) command->parsetree;
	char	  **names[] = {&options->deleted_at, &options->deleted_by, &options->batch};
	bool		changed = false;

	if (command->parsetree == NULL || !IsA(rename, RenameStmt) ||
		(rename->renameType != OBJECT_COLUMN && rename->renameType != OBJECT_ATTRIBUTE))
		return;
	for (int i = 0; i < lengthof(names); i++)
		if (*names[i] != NULL && strcmp(*names[i], rename->subname) == 0 &&
			get_attnum(root, *names[i]) == InvalidAttrNumber)
		{
			*names[i] = rename->newname;
			changed = true;
		}
	if (changed)
		(void) rk_flag_row_trigger_set(NULL, root, options);
}

/* A guard is named after its foreign key, and finds it by its name. */
static void
constraint_altered(const RkDdlCommand *command)
{
	const RenameStmt *rename = (const RenameStmt *) command->parsetree;
	HeapTuple	tuple;
	Oid			child;

	if (command->parsetree == NULL || !IsA(rename, RenameStmt) ||
		rename->renameType != OBJECT_TABCONSTRAINT)
		return;
	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(command->relid));
	if (!HeapTupleIsValid(tuple))
		return;
	child = ((Form_pg_constraint) GETSTRUCT(tuple))->conrelid;
	ReleaseSysCache(tuple);
	if (!OidIsValid(child))
		return;
	rk_flag_guard_drop(child, rename->subname);
	(void) rk_flag_guards_set(NULL, child, false);
}

/* A view of ours was renamed or moved: its table's options name it. */
static void
follow_view(Oid view)
{
	RkTriggerRow row;
	Oid			root;
	RkSoftDeleteOptions *options;
	char	   *schema;
	char	   *name;

	if (!rk_trigger_read(view, RK_SOFT_DELETE_TRIGGER, "_soft_delete_view", &row))
		return;
	root = rk_flag_view_base(view);
	options = OidIsValid(root) ? rk_flag_options_of(root) : NULL;
	if (options == NULL || !rk_flag_view_is_owned(view, root))
		return;
	/* somebody may be changing them */
	LockRelationOid(root, ShareUpdateExclusiveLock);
	options = rk_flag_options_of(root);
	if (options == NULL || options->hidden)
		return;
	schema = get_namespace_name(get_rel_namespace(view));
	name = get_rel_name(view);
	if (strcmp(schema, options->view_schema) == 0 && strcmp(name, options->view_name) == 0)
		return;
	if (OidIsValid(rk_flag_view_of(root, options)))
		return;					/* another view is the one */
	options->view_schema = schema;
	options->view_name = name;
	(void) rk_flag_row_trigger_set(NULL, root, options);
}

/* ---- partitions ---- */

/* What was detached has no soft delete any more. */
static void
release_detached(Oid detached)
{
	if (OidIsValid(detached) && rk_root_of(detached) == detached &&
		rk_soft_delete_options_of(detached) == NULL)
		rk_soft_delete_statement_triggers_drop(NULL, detached);
}

/* ---- events ---- */

static void
enabled_table_altered(const RkDdlCommand *command, Oid root, RkSoftDeleteOptions *options)
{
	if (!options->trash)
		follow_column(command, root, options);
	if (rk_is_loading_dump())
		return;
	(void) rk_soft_delete_triggers_set(NULL, root, options);
	if (!options->trash && command->relid == root)
		rk_flag_view_follow(root, options);
}

/* A table's own foreign keys are guarded where they point to tables in flag mode. */
static void
table_altered(const RkDdlCommand *command)
{
	Oid			root;
	RkSoftDeleteOptions *options;

	if (!is_table(command->relid))
		return;
	root = rk_root_of(command->relid);
	options = rk_soft_delete_options_of(root);
	if (options != NULL)
		enabled_table_altered(command, root, options);
	release_detached(command->detached);
	if (rk_is_loading_dump())
		return;
	rk_graph_check_keys(command->relid);
	(void) rk_flag_guards_set(NULL, OidIsValid(command->attached) ? command->attached : command->relid, false);
}

/* A relation was created or altered, and with it what inherits from it. */
static void
relation_altered(const RkDdlCommand *command)
{
	ListCell   *lc;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(command->relid)))
		return;
	if (get_rel_relkind(command->relid) == RELKIND_VIEW)
	{
		follow_view(command->relid);
		return;
	}
	foreach(lc, rk_relations_reached(command->relid))
	{
		RkDdlCommand reached = *command;

		reached.relid = lfirst_oid(lc);
		table_altered(&reached);
	}
}

/* A schema was renamed, and with it all its views. */
static void
schema_altered(const RkDdlCommand *command)
{
	ListCell   *lc;

	foreach(lc, rk_fetch_oids(psprintf("SELECT c.oid FROM pg_class c"
									   " JOIN pg_trigger t ON t.tgrelid = c.oid"
									   " WHERE c.relkind = 'v' AND c.relnamespace = %u"
									   " AND t.tgname = '" RK_SOFT_DELETE_TRIGGER "'",
									   command->relid)))
		follow_view(lfirst_oid(lc));
}

/*
 * The functions of the row triggers must be everybody's, as the server asks
 * whoever adds a partition for EXECUTE. That only soft_delete() makes such
 * triggers (and a superuser, in a restore) is seen to here.
 */
static void
trigger_created(const RkNewTrigger *trigger)
{
	/* not only CREATE TRIGGER creates them: CREATE SCHEMA does, too */
	if (superuser() || strcmp(trigger->tag, "ALTER TRIGGER") == 0)
		return;
	if (trigger->function != NULL &&
		strncmp(trigger->function, "_soft_delete", strlen("_soft_delete")) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("trigger \"%s\" of %s calls a function that is reserved for rowkeeper",
						trigger->name, rk_relation_name(trigger->relid)),
				 errhint("rowkeeper.soft_delete() creates such triggers.")));
}

void
rk_soft_delete_ddl_init(void)
{
	static const RkEventListener listener = {
		.relation_altered = relation_altered,
		.schema_altered = schema_altered,
		.trigger_created = trigger_created,
		.constraint_altered = constraint_altered
	};

	rk_events_listen(&listener);
}
