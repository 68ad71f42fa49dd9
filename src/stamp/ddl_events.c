/*
 * ddl_events.c
 *
 * What happens to stamped tables as objects. The trigger knows its columns by
 * name, so a rename is followed. Whatever would leave it without a column, or
 * with one that it cannot write, is refused as it would be at the call: a
 * version that silently stops counting would lose updates.
 *
 * Only what the command has locked is opened. Each partition has the options
 * in its own trigger, so its root need not be asked.
 */
#include "stamp/stamp.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "nodes/parsenodes.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#define IS_STAMP_FUNCTION "tgfoid = 'rowkeeper." RK_STAMP_FUNCTION "()'::regprocedure"

/* ---- renames ---- */

static const RenameStmt *
column_rename(const RkDdlCommand *command)
{
	const RenameStmt *rename = (const RenameStmt *) command->parsetree;

	return rename != NULL && IsA(rename, RenameStmt) &&
		(rename->renameType == OBJECT_COLUMN || rename->renameType == OBJECT_ATTRIBUTE)
		? rename : NULL;
}

/* Whether the options name a column by the name that it had. */
static bool
rename_in_options(Relation rel, RkStampOptions *options, const RenameStmt *rename)
{
	for (int stamp = 0; stamp < RK_STAMP_COUNT; stamp++)
		if (options->value[stamp] != NULL &&
			strcmp(options->value[stamp], rename->subname) == 0 &&
			rk_stamp_find_column(rel, rename->subname) == 0)
		{
			options->value[stamp] = rename->newname;
			return true;
		}
	return false;
}

/* A replaced trigger is enabled: one that was switched off stays off. */
static void
restore_state(Oid relid, char state)
{
	const char *action = state == TRIGGER_DISABLED ? "DISABLE"
		: state == TRIGGER_FIRES_ALWAYS ? "ENABLE ALWAYS"
		: state == TRIGGER_FIRES_ON_REPLICA ? "ENABLE REPLICA" : NULL;

	if (action != NULL)
		(void) rk_run(rk_extension_owner(),
					  psprintf("ALTER TABLE %s %s TRIGGER \"" RK_STAMP_TRIGGER "\"",
							   rk_relation_name(relid), action));
}

/* ---- one relation ---- */

RK_NORETURN static void
refuse_foreign_partition(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s cannot be a partition of a stamped table: it is a foreign table",
					rk_relation_name(RelationGetRelid(rel))),
			 errhint("SELECT rowkeeper.stamp_off(%s) before.",
					 quote_literal_cstr(rk_relation_name(rk_root_of(RelationGetRelid(rel)))))));
}

/* Check and follow a stamped relation, which the command has locked. */
static void
check_relation(const RkDdlCommand *command, Oid relid)
{
	Relation	rel = relation_open(relid, NoLock);
	RkStampTrigger *trigger = rk_stamp_trigger_of(rel);
	const RenameStmt *rename = column_rename(command);
	RkStampOptions *options;
	char		state;
	bool		renamed = false;

	if (trigger == NULL)
	{
		relation_close(rel, NoLock);
		return;
	}
	if (rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
		refuse_foreign_partition(rel);
	state = trigger->state;
	options = rk_stamp_options_parse(trigger->argument);
	if (rename != NULL && !trigger->is_clone)
		renamed = rename_in_options(rel, options, rename);
	rk_stamp_check_columns(rel, options, true);
	rk_stamp_check_partition_keys(rel, options);
	relation_close(rel, NoLock);

	if (renamed)
	{
		(void) rk_run(rk_extension_owner(), rk_stamp_create_sql(relid, options));
		restore_state(relid, state);
	}
}

/*
 * Stamped tables that a command reaches besides the one it names: children by
 * INHERITS, the tables of a composite type. (Partitions are their root's.)
 */
static List *
stamped_besides(Oid relid)
{
	StringInfoData reached;
	ListCell   *lc;

	initStringInfo(&reached);
	foreach(lc, rk_relations_reached(relid))
		if (lfirst_oid(lc) != relid)
		appendStringInfo(&reached, "%s%u", reached.len > 0 ? "," : "", lfirst_oid(lc));
	if (reached.len == 0)
		return NIL;
	return rk_fetch_oids(psprintf("SELECT tgrelid FROM pg_trigger WHERE tgrelid IN (%s)"
								  " AND tgname = '" RK_STAMP_TRIGGER "' AND " IS_STAMP_FUNCTION
								  " ORDER BY tgrelid", reached.data));
}

/* ---- ATTACH ---- */

/*
 * The partition is stamped by itself: its rows would begin anew whenever they
 * come from another partition.
 */
static void
check_attached(Oid root, Oid attached)
{
	Relation	rel = relation_open(attached, NoLock);
	RkStampTrigger *trigger = rk_stamp_trigger_of(rel);

	if (trigger != NULL && !trigger->is_clone)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot attach %s to %s: it is stamped and the partitioned table is not",
						rk_relation_name(attached), rk_relation_name(root)),
				 errhint("SELECT rowkeeper.stamp_off(%s) before, and SELECT rowkeeper.stamp(%s) after it.",
						 quote_literal_cstr(rk_relation_name(attached)),
						 quote_literal_cstr(rk_relation_name(root)))));
	relation_close(rel, NoLock);
}

static void
check_newcomer(const RkDdlCommand *command)
{
	ListCell   *lc;

	if (!OidIsValid(command->attached))
		return;
	check_attached(command->relid, command->attached);
	/* all of them are locked */
	foreach(lc, rk_relation_tree(command->attached, NoLock))
		check_relation(command, lfirst_oid(lc));
}

/* ---- listeners ---- */

static bool
may_have_triggers(Oid relid)
{
	switch (get_rel_relkind(relid))
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
		case RELKIND_FOREIGN_TABLE:
			return true;
		default:
			return false;
	}
}

static void
relation_altered(const RkDdlCommand *command)
{
	ListCell   *lc;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(command->relid)))
		return;
	if (may_have_triggers(command->relid))
	{
		check_relation(command, command->relid);
		check_newcomer(command);
	}
	foreach(lc, stamped_besides(command->relid))
	{
		Relation	rel = relation_open(lfirst_oid(lc), AccessShareLock);

		check_relation(command, lfirst_oid(lc));
		relation_close(rel, NoLock);
	}
}

/*
 * The trigger's name and its function belong together, and its argument must
 * be what stamp() writes: the catalog's views read it. (An owner may create
 * such a trigger himself, so that a restore can.)
 */
static void
trigger_created(const RkNewTrigger *new)
{
	bool		our_function = new->function != NULL && strcmp(new->function, RK_STAMP_FUNCTION) == 0;
	Relation	rel;
	RkStampTrigger *trigger;

	if (!our_function && strcmp(new->name, RK_STAMP_TRIGGER) != 0)
		return;
	rel = relation_open(new->relid, NoLock);
	trigger = rk_stamp_trigger_of(rel);
	if (trigger == NULL || trigger->oid != new->oid)
		rk_trigger_refuse_reserved(new,
								   psprintf("SELECT rowkeeper.stamp(%s) creates it, stamp_off() drops it.",
											quote_literal_cstr(rk_relation_name(new->relid))));
	(void) rk_stamp_options_parse(trigger->argument);
	relation_close(rel, NoLock);
}

void
rk_stamp_ddl_init(void)
{
	static const RkEventListener listener = {
		.relation_altered = relation_altered,
		.trigger_created = trigger_created
	};

	rk_events_listen(&listener);
}
