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
 * They are created as the extension's owner. EXECUTE on the row function is
 * PUBLIC's, because the server asks for it when a table's owner adds a
 * partition; that nobody creates such a trigger by hand is seen to by the
 * event trigger (audit/ddl_events.c), and one on a table that the log does not
 * know can write nothing.
 */
#include "rowkeeper.h"

#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(rowkeeper_changes_options);

/* The root and all its partitions, locked unless lockmode is NoLock. */
List *
rk_relation_tree(Oid root, LOCKMODE lockmode)
{
	return find_all_inheritors(root, lockmode, NULL);
}

/* One of our two triggers of a table; false where it has none. */
static bool
read_trigger(Oid relid, const char *name, RkTriggerRow *row)
{
	return rk_trigger_read(relid, name,
						   strcmp(name, RK_CHANGES_TRIGGER) == 0 ? "_changes_row" : "_changes_flush",
						   row);
}

/* The options a consumer has in the row trigger of a table, as text, or NULL. */
static char *
options_text(Oid relid, const char *consumer)
{
	RkTriggerRow row;

	if (!read_trigger(relid, RK_CHANGES_TRIGGER, &row))
		return NULL;
	for (int i = 0; i + 1 < list_length(row.arguments); i += 2)
		if (strcmp(list_nth(row.arguments, i), consumer) == 0)
			return list_nth(row.arguments, i + 1);
	return NULL;
}

/*
 * The options a consumer has on a table or partition, in the current memory
 * context; NULL where it has none. Takes no lock on the table.
 */
Jsonb *
rk_changes_options(Oid relid, const char *consumer)
{
	char	   *options = options_text(relid, consumer);

	return options == NULL ? NULL
		: DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(options)));
}

/*
 * rowkeeper._changes_options(target regclass, consumer text) returns jsonb:
 * the options that a feature has in the row trigger of a table, NULL where
 * there is none. Shows what pg_trigger shows to everybody. No locks on the
 * table, no privileges, no errors.
 */
Datum
rowkeeper_changes_options(PG_FUNCTION_ARGS)
{
	Jsonb	   *options = rk_changes_options(PG_GETARG_OID(0),
											 text_to_cstring(PG_GETARG_TEXT_PP(1)));

	if (options == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(options);
}

static char
trigger_state(Oid relid, const char *name)
{
	RkTriggerRow row;

	return read_trigger(relid, name, &row) ? row.state : '\0';
}

/* How our row trigger of a table fires ('O', 'A', 'D', 'R'); 0: it has none. */
char
rk_changes_state(Oid relid)
{
	return trigger_state(relid, RK_CHANGES_TRIGGER);
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
	RkTriggerRow row = {0};
	List	   *arguments = NIL;
	bool		found = false;

	(void) read_trigger(relid, RK_CHANGES_TRIGGER, &row);
	for (int i = 0; i + 1 < list_length(row.arguments); i += 2)
	{
		char	   *name = list_nth(row.arguments, i);
		bool		ours = strcmp(name, consumer) == 0;

		found |= ours;
		if (ours && options == NULL)
			continue;
		arguments = lappend(arguments, name);
		arguments = lappend(arguments, ours ? pstrdup(options) : list_nth(row.arguments, i + 1));
	}
	if (!found && options != NULL)
	{
		arguments = lappend(arguments, pstrdup(consumer));
		arguments = lappend(arguments, pstrdup(options));
	}
	return arguments;
}

/*
 * The events that the consumers among a row trigger's arguments want. A move
 * between partitions is known as one by its INSERT.
 */
static const char *
wanted_events(Oid relid, List *arguments)
{
	int			events = 0;
	StringInfoData list;

	for (int i = 0; i < list_length(arguments); i += 2)
	{
		const RkChangeConsumer *consumer = rk_consumer_named(list_nth(arguments, i));

		if (consumer != NULL)
			events |= consumer->events;
	}
	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		events |= TRIGGER_TYPE_INSERT;

	initStringInfo(&list);
	if (events & TRIGGER_TYPE_INSERT)
		appendStringInfoString(&list, " OR INSERT");
	if (events & TRIGGER_TYPE_UPDATE)
		appendStringInfoString(&list, " OR UPDATE");
	if (events & TRIGGER_TYPE_DELETE)
		appendStringInfoString(&list, " OR DELETE");
	return list.data + strlen(" OR ");
}

static void
create_row_trigger(FunctionCallInfo fcinfo, Oid relid, List *arguments)
{
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE OR REPLACE TRIGGER \"" RK_CHANGES_TRIGGER "\""
					 " AFTER %s ON %s"
					 " FOR EACH ROW EXECUTE FUNCTION rowkeeper._changes_row(",
					 wanted_events(relid, arguments), rk_relation_name(relid));
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
	char	   *before = options_text(relid, consumer);
	bool		changed = before == NULL || strcmp(before, options) != 0;

	if (changed)
	{
		rk_trigger_check_pending(tree);
		/* what others have in there must not change until it is written again */
		LockRelationOid(relid, ShareRowExclusiveLock);
		create_row_trigger(fcinfo, relid, merge_arguments(relid, consumer, options));
	}
	changed |= ensure_row_trigger_state(fcinfo, tree, replica);
	changed |= ensure_flush_triggers(fcinfo, tree, replica);
	return changed;
}

/*
 * After a user's ENABLE or DISABLE TRIGGER: a row trigger that was enabled
 * for origin only fires always again, and no flush trigger stays off. A row
 * trigger that was switched off is left so: somebody wanted it. Only what was
 * altered and what is below it is touched: a command on one partition must not
 * wait for one on another.
 */
void
rk_changes_repair(Oid altered, bool replica)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(altered, NoLock))
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

	rk_trigger_check_pending(rk_relation_tree(relid, AccessShareLock));
	LockRelationOid(relid, ShareRowExclusiveLock);
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
