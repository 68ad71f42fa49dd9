/*
 * ddl.c
 *
 * What happens to protected tables as objects. A partition, whoever makes or
 * attaches it and by whatever command, has the policies before the command
 * ends: read directly, it would show the rows of all. Nor does a protected
 * table come under a parent that is not, which would show them as well. A
 * renamed column is followed. What a restore creates it creates itself: triggers and policies
 * come last in a dump, so its partitions find their root not yet protected.
 */
#include "tenant/protect.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static bool
is_table(Oid relid)
{
	char		kind = get_rel_relkind(relid);

	return kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE || kind == RELKIND_FOREIGN_TABLE;
}

/* The subcommand of this kind, with what it was done to; NULL: none. */
static const CollectedATSubcmd *
find_subcommand(const RkDdlCommand *command, AlterTableType type)
{
	ListCell   *lc;

	foreach(lc, command->subcommands)
	{
		const CollectedATSubcmd *collected = lfirst(lc);
		const AlterTableCmd *subcommand = (const AlterTableCmd *) collected->parsetree;

		if (IsA(subcommand, AlterTableCmd) && subcommand->subtype == type)
			return collected;
	}
	return NULL;
}

/* The relation that a command made, or attached as a partition; else InvalidOid. */
static Oid
find_newcomer(const RkDdlCommand *command)
{
	if (OidIsValid(command->attached))
		return command->attached;
	return strncmp(command->tag, "CREATE", 6) == 0 || strncmp(command->tag, "IMPORT", 6) == 0
		? command->relid : InvalidOid;
}

/* Read through a parent that is not isolated, a table shows the rows of all. */
static void
refuse_parent(Oid parent, Oid child, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s cannot be under %s: tenants are isolated in it, and not in its parent",
					rk_relation_name(child), rk_relation_name(parent)),
			 errhint("%s", hint)));
}

static char *
off_hint(Oid relid)
{
	return psprintf("SELECT rowkeeper.tenant_off(%s) first, if its rows need no isolation.",
					quote_literal_cstr(rk_relation_name(relid)));
}

static void
check_children(Oid root, Oid newcomer)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(newcomer, NoLock))
		if (rk_tenant_has_guard(lfirst_oid(lc)))
		refuse_parent(root, lfirst_oid(lc),
					  psprintf("SELECT rowkeeper.tenant(%s) before it, or rowkeeper.tenant_off(%s), if its rows need no isolation.",
							   quote_literal_cstr(rk_relation_name(root)),
							   quote_literal_cstr(rk_relation_name(lfirst_oid(lc)))));
}

static void
check_inherited(Oid relid, const CollectedATSubcmd *inherit)
{
	if (inherit != NULL && rk_tenant_has_guard(relid))
		refuse_parent(inherit->address.objectId, relid, off_hint(relid));
}

/*
 * Give a partition what its root has, whatever it has of an earlier time: one
 * that was detached may be isolated otherwise.
 */
static void
protect_partition(Oid root, Oid partition, const RkTenantOptions *options)
{
	RkTenantOptions *before = rk_tenant_options_of(partition);

	if (get_rel_relkind(partition) == RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot be a partition of %s: a foreign table has no row security",
						rk_relation_name(partition), rk_relation_name(root)),
				 errhint("SELECT rowkeeper.tenant_off(...) first, if its rows need no isolation.")));
	if (before != NULL)
		rk_tenant_old_defaults_drop(NULL, partition, before, options);
	(void) rk_tenant_protect(NULL, partition, options);
	(void) rk_tenant_default_ensure(NULL, partition, options);
}

/* A relation has come: into a protected tree, or into one that is not. */
static void
follow_newcomer(Oid newcomer)
{
	Oid			root = rk_root_of(newcomer);
	RkTenantOptions *options;
	ListCell   *lc;

	if (root == newcomer)
		return;
	options = rk_tenant_options_of(root);
	if (options == NULL)
	{
		/* what a dump protects it protects later */
		if (!rk_is_loading_dump())
			check_children(root, newcomer);
		return;
	}
	rk_tenant_check_columns(root, options);
	foreach(lc, rk_relation_tree(newcomer, NoLock))
		protect_partition(root, lfirst_oid(lc), options);
}

/*
 * What is to become a partition is isolated before it is one, and remembers the
 * flags that its table had before: it was made with those.
 */
static void
partition_built(Oid root, Oid partition)
{
	RkTenantOptions *options = rk_tenant_options_of(root);

	if (options == NULL)
		return;
	(void) rk_tenant_trigger_ensure(NULL, partition, options);
	(void) rk_tenant_protect(NULL, partition, options);
}

/* Policies follow a renamed column by themselves; the options by name. */
static void
follow_rename(const RenameStmt *rename, Oid relid)
{
	ListCell   *lc;

	if (rename->renameType != OBJECT_COLUMN)
		return;
	foreach(lc, rk_relation_tree(relid, NoLock))
	{
		RkTenantOptions *options = rk_tenant_options_of(lfirst_oid(lc));
		bool		changed = false;

		for (RkClaimKind kind = 0; options != NULL && kind < RK_CLAIM_KINDS; kind++)
			if (options->by[kind] != NULL && strcmp(options->by[kind], rename->subname) == 0)
			{
				options->by[kind] = rename->newname;
				changed = true;
			}
		if (changed)
			(void) rk_tenant_trigger_ensure(NULL, lfirst_oid(lc), options);
	}
}

/* Without the column our policies are gone, and others may stand alone. */
static void
check_columns_there(Oid relid)
{
	RkTenantOptions *options = rk_tenant_options_of(relid);

	if (options != NULL && !rk_tenant_options_fit(relid, options))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the column that tells the tenants of %s apart cannot be dropped", rk_relation_name(relid)),
				 errhint("%s", off_hint(relid))));
}

static void
relation_altered(const RkDdlCommand *command)
{
	Oid			newcomer;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(command->relid)) || !is_table(command->relid))
		return;
	newcomer = find_newcomer(command);
	if (OidIsValid(newcomer))
		follow_newcomer(newcomer);
	check_inherited(command->relid, find_subcommand(command, AT_AddInherit));
	if (IsA(command->parsetree, RenameStmt))
		follow_rename((const RenameStmt *) command->parsetree, command->relid);
	else
		check_columns_there(command->relid);
}

/*
 * The name and the function of our trigger belong together, and what it says of
 * the isolation is the table's owner's alone to say.
 */
static void
trigger_created(const RkNewTrigger *trigger)
{
	bool		our_function = trigger->function != NULL && strcmp(trigger->function, "_tenant_truncate") == 0;
	bool		our_name = strcmp(trigger->name, RK_TENANT_TRIGGER) == 0;

	if (our_function != our_name)
		rk_trigger_refuse_reserved(trigger,
								   psprintf("SELECT rowkeeper.tenant(%s) creates it, tenant_off() drops it.",
											quote_literal_cstr(rk_relation_name(trigger->relid))));
	if (our_function && !rk_is_relation_owner(trigger->relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only the owner of %s may say how tenants are isolated in it",
						rk_relation_name(trigger->relid))));
}

void
rk_tenant_ddl_init(void)
{
	static const RkEventListener listener = {
		.trigger_created = trigger_created,
		.relation_altered = relation_altered,
		.partition_built = partition_built
	};

	rk_events_listen(&listener);
}
