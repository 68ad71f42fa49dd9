/*
 * ddl.c
 *
 * What happens to protected tables as objects. A partition, whoever makes or
 * attaches it and by whatever command, has the policies before the command
 * ends: read directly, it would show the rows of all. A renamed column is
 * followed. What a restore creates it creates itself: triggers and policies
 * come last in a dump, so its partitions find their root not yet protected.
 */
#include "tenant/protect.h"

#include "nodes/parsenodes.h"
#include "tcop/deparse_utility.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static bool
is_table(Oid relid)
{
	char		kind = get_rel_relkind(relid);

	return kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE || kind == RELKIND_FOREIGN_TABLE;
}

static bool
attaches_partition(const RkDdlCommand *command)
{
	ListCell   *lc;

	foreach(lc, command->subcommands)
	{
		const AlterTableCmd *subcommand = (const AlterTableCmd *) ((CollectedATSubcmd *) lfirst(lc))->parsetree;

		if (IsA(subcommand, AlterTableCmd) && subcommand->subtype == AT_AttachPartition)
			return true;
	}
	return false;
}

static bool
may_bring_partitions(const RkDdlCommand *command)
{
	return strncmp(command->tag, "CREATE", 6) == 0 ||
		strncmp(command->tag, "IMPORT", 6) == 0 || attaches_partition(command);
}

static void
protect_partition(Oid root, Oid partition, const RkTenantOptions *options)
{
	if (get_rel_relkind(partition) == RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot be a partition of %s: a foreign table has no row security",
						rk_relation_name(partition), rk_relation_name(root)),
				 errhint("SELECT rowkeeper.tenant_off(...) first, if its rows need no isolation.")));
	(void) rk_tenant_protect(NULL, partition, options);
	(void) rk_tenant_default_ensure(NULL, partition, options);
}

/* Partitions of a protected table that are not protected themselves. */
static void
follow_partitions(Oid relid)
{
	Oid			root = rk_root_of(relid);
	RkTenantOptions *options = rk_tenant_options_of(root);
	ListCell   *lc;

	if (options == NULL)
		return;
	foreach(lc, rk_relation_tree(root, NoLock))
		if (lfirst_oid(lc) != root && rk_tenant_options_of(lfirst_oid(lc)) == NULL)
		protect_partition(root, lfirst_oid(lc), options);
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

static void
relation_altered(const RkDdlCommand *command)
{
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(command->relid)) || !is_table(command->relid))
		return;
	if (may_bring_partitions(command))
		follow_partitions(command->relid);
	if (IsA(command->parsetree, RenameStmt))
		follow_rename((const RenameStmt *) command->parsetree, command->relid);
}

void
rk_tenant_ddl_init(void)
{
	static const RkEventListener listener = {
		.relation_altered = relation_altered
	};

	rk_events_listen(&listener);
}
