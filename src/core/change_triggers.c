/*
 * change_triggers.c
 *
 * The triggers that feed the change batch, as objects of the catalog:
 *
 *   !rowkeeper_changes       AFTER ROW, on the root; the server clones it to
 *                            every partition, present and future, and fires
 *                            it before any other (the order of names). Its
 *                            arguments are the configuration: pairs of a
 *                            consumer's name and that consumer's options.
 *   rowkeeper_changes_flush  AFTER STATEMENT and TRUNCATE, on the root and on
 *                            every partition: the server does not clone it.
 *
 * They are created as the extension's owner, because EXECUTE on their
 * functions is nobody's: whoever could attach them to a table of his own could
 * write history for another.
 */
#include "rowkeeper.h"

#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/rel.h"

/* The root and all its partitions, locked. */
List *
rk_relation_tree(Oid root, LOCKMODE lockmode)
{
	return find_all_inheritors(root, lockmode, NULL);
}

static Trigger *
find_trigger(Relation rel, const char *name)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (strcmp(triggers->triggers[i].tgname, name) == 0)
			return &triggers->triggers[i];
	return NULL;
}

/* Our row trigger of a relation whose descriptor is open, or NULL. */
Trigger *
rk_changes_trigger(Relation rel)
{
	return find_trigger(rel, RK_CHANGES_TRIGGER);
}

/* The options a consumer has in our row trigger's arguments, or NULL. */
char *
rk_trigger_options(const Trigger *trigger, const char *consumer)
{
	for (int i = 0; trigger != NULL && i + 1 < trigger->tgnargs; i += 2)
		if (strcmp(trigger->tgargs[i], consumer) == 0)
			return trigger->tgargs[i + 1];
	return NULL;
}

/*
 * The options a consumer has on a table, in the current memory context; NULL
 * where it has none.
 */
Jsonb *
rk_changes_options(Oid relid, const char *consumer)
{
	Relation	rel = table_open(relid, AccessShareLock);
	char	   *options = rk_trigger_options(rk_changes_trigger(rel), consumer);
	Jsonb	   *result = NULL;

	if (options != NULL)
		result = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(options)));
	table_close(rel, NoLock);
	return result;
}

/* A trigger's firing state ('O', 'A', 'D', 'R'), or 0 where it is missing. */
static char
trigger_state(Oid relid, const char *name)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Trigger    *trigger = find_trigger(rel, name);
	char		state = trigger == NULL ? '\0' : trigger->tgenabled;

	table_close(rel, NoLock);
	return state;
}

/* DDL on a table whose deferred triggers are pending fails: say how to go on. */
static void
check_no_pending_events(List *relids)
{
	ListCell   *lc;

	foreach(lc, relids)
	{
		if (AfterTriggerPendingOnRel(lfirst_oid(lc)))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("table %s has pending trigger events",
							rk_relation_name(lfirst_oid(lc))),
					 errhint("Deferred constraints of this transaction are not checked yet: run SET CONSTRAINTS ALL IMMEDIATE first.")));
	}
}

static void
set_trigger_state(FunctionCallInfo fcinfo, Oid relid, const char *name, bool replica)
{
	rk_run_step(fcinfo, rk_extension_owner(),
				psprintf("ALTER TABLE %s ENABLE %sTRIGGER %s",
						 rk_relation_name(relid), replica ? "ALWAYS " : "",
						 quote_identifier(name)));
}

static char
wanted_state(bool replica)
{
	return replica ? TRIGGER_FIRES_ALWAYS : TRIGGER_FIRES_ON_ORIGIN;
}

/* Give every relation of the tree its flush trigger, in the wanted state. */
static bool
ensure_flush_triggers(FunctionCallInfo fcinfo, List *tree, bool replica)
{
	bool		changed = false;
	ListCell   *lc;

	foreach(lc, tree)
	{
		Oid			relid = lfirst_oid(lc);
		char		state = trigger_state(relid, RK_FLUSH_TRIGGER);

		if (state == wanted_state(replica))
			continue;
		if (state == '\0')
			rk_run_step(fcinfo, rk_extension_owner(),
						psprintf("CREATE TRIGGER " RK_FLUSH_TRIGGER
								 " AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s"
								 " FOR EACH STATEMENT EXECUTE FUNCTION rowkeeper._changes_flush()",
								 rk_relation_name(relid)));
		if (trigger_state(relid, RK_FLUSH_TRIGGER) != wanted_state(replica))
			set_trigger_state(fcinfo, relid, RK_FLUSH_TRIGGER, replica);
		changed = true;
	}
	return changed;
}

/* A partition may have been switched off alone, so all of them are looked at. */
static bool
ensure_row_trigger_state(FunctionCallInfo fcinfo, List *tree, bool replica)
{
	ListCell   *lc;

	foreach(lc, tree)
	{
		char		state = trigger_state(lfirst_oid(lc), RK_CHANGES_TRIGGER);

		if (state != '\0' && state != wanted_state(replica))
		{
			set_trigger_state(fcinfo, linitial_oid(tree), RK_CHANGES_TRIGGER, replica);
			return true;
		}
	}
	return false;
}

/*
 * The row trigger's arguments with one consumer's options replaced, or taken
 * out where options is NULL: a list of strings.
 */
static List *
merge_arguments(Oid relid, const char *consumer, const char *options)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Trigger    *trigger = rk_changes_trigger(rel);
	List	   *arguments = NIL;
	bool		found = false;

	for (int i = 0; trigger != NULL && i + 1 < trigger->tgnargs; i += 2)
	{
		bool		ours = strcmp(trigger->tgargs[i], consumer) == 0;

		found |= ours;
		if (ours && options == NULL)
			continue;
		arguments = lappend(arguments, pstrdup(trigger->tgargs[i]));
		arguments = lappend(arguments, pstrdup(ours ? options : trigger->tgargs[i + 1]));
	}
	if (!found && options != NULL)
	{
		arguments = lappend(arguments, pstrdup(consumer));
		arguments = lappend(arguments, pstrdup(options));
	}
	table_close(rel, NoLock);
	return arguments;
}

static void
create_row_trigger(FunctionCallInfo fcinfo, Oid relid, List *arguments)
{
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE OR REPLACE TRIGGER \"" RK_CHANGES_TRIGGER "\""
					 " AFTER INSERT OR UPDATE OR DELETE ON %s"
					 " FOR EACH ROW EXECUTE FUNCTION rowkeeper._changes_row(",
					 rk_relation_name(relid));
	foreach(lc, arguments)
		appendStringInfo(&sql, "%s%s", foreach_current_index(lc) > 0 ? ", " : "",
						 quote_literal_cstr(lfirst(lc)));
	appendStringInfoChar(&sql, ')');
	rk_run_step(fcinfo, rk_extension_owner(), sql.data);
}

/*
 * Make a table (with its partitions) feed a consumer with these options;
 * returns whether anything had to be done, each thing a step of the call
 * (fcinfo NULL: done silently). Locks: SHARE ROW EXCLUSIVE on what is changed,
 * ACCESS SHARE where nothing is.
 */
bool
rk_changes_set(FunctionCallInfo fcinfo, Oid relid, const char *consumer,
			   const char *options, bool replica)
{
	List	   *tree = rk_relation_tree(relid, AccessShareLock);
	Relation	rel = table_open(relid, AccessShareLock);
	char	   *before = rk_trigger_options(rk_changes_trigger(rel), consumer);
	bool		changed = before == NULL || strcmp(before, options) != 0;

	table_close(rel, NoLock);
	if (changed)
	{
		check_no_pending_events(tree);
		create_row_trigger(fcinfo, relid, merge_arguments(relid, consumer, options));
	}
	changed |= ensure_row_trigger_state(fcinfo, tree, replica);
	changed |= ensure_flush_triggers(fcinfo, tree, replica);
	return changed;
}

/*
 * After a user's ENABLE or DISABLE TRIGGER: a row trigger that was enabled
 * for origin only fires always again, and no flush trigger stays off. A row
 * trigger that was switched off is left so: somebody wanted it.
 */
void
rk_changes_repair(Oid root, bool replica)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(root, AccessShareLock))
	{
		Oid			relid = lfirst_oid(lc);
		char		flush = trigger_state(relid, RK_FLUSH_TRIGGER);

		if (replica && trigger_state(relid, RK_CHANGES_TRIGGER) == TRIGGER_FIRES_ON_ORIGIN)
			set_trigger_state(NULL, relid, RK_CHANGES_TRIGGER, true);
		if (flush != '\0' && flush != wanted_state(replica))
			set_trigger_state(NULL, relid, RK_FLUSH_TRIGGER, replica);
	}
}

/* Drop a trigger where there is one. */
static void
drop_trigger(FunctionCallInfo fcinfo, Oid relid, const char *name)
{
	if (trigger_state(relid, name) != '\0')
		rk_run_step(fcinfo, rk_extension_owner(),
					psprintf("DROP TRIGGER %s ON %s", quote_identifier(name), rk_relation_name(relid)));
}

/* Take the flush triggers from a relation and its partitions. */
void
rk_flush_triggers_drop(FunctionCallInfo fcinfo, Oid relid)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(relid, AccessShareLock))
		drop_trigger(fcinfo, lfirst_oid(lc), RK_FLUSH_TRIGGER);
}

/*
 * Stop feeding a consumer; the triggers go with the last one. Returns whether
 * there was anything to do. Locks: ACCESS EXCLUSIVE on the table and its
 * partitions while triggers are dropped.
 */
bool
rk_changes_unset(FunctionCallInfo fcinfo, Oid relid, const char *consumer)
{
	List	   *arguments;
	bool		replica = trigger_state(relid, RK_CHANGES_TRIGGER) == TRIGGER_FIRES_ALWAYS;

	if (rk_changes_options(relid, consumer) == NULL)
		return false;

	check_no_pending_events(rk_relation_tree(relid, AccessShareLock));
	arguments = merge_arguments(relid, consumer, NULL);
	if (arguments != NIL)
	{
		create_row_trigger(fcinfo, relid, arguments);
		(void) ensure_row_trigger_state(fcinfo, list_make1_oid(relid), replica);
	}
	else
	{
		drop_trigger(fcinfo, relid, RK_CHANGES_TRIGGER);
		rk_flush_triggers_drop(fcinfo, relid);
	}
	return true;
}

/* A new partition of a table that feeds the batch gets its flush trigger. */
void
rk_changes_follow_partition(Oid root, Oid partition)
{
	char		state = trigger_state(root, RK_CHANGES_TRIGGER);

	if (state != '\0')
		(void) ensure_flush_triggers(NULL, list_make1_oid(partition),
									 state == TRIGGER_FIRES_ALWAYS);
}
