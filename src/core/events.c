/*
 * events.c
 *
 * What happens to tables as objects: the extension's event triggers, which
 * hand each command to the features that listen, in the order in which
 * rowkeeper.c starts them. The triggers are ENABLE ALWAYS, so a session under
 * session_replication_role = replica is heard as well.
 *
 * They see the commands of everybody, so they leave at once where there is
 * nothing to do: under binary upgrade, in the extension's own statements.
 */
#include "rowkeeper.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_trigger.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "tcop/cmdtag.h"
#include "tcop/deparse_utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

#define MAX_LISTENERS 16

static const RkEventListener *listeners[MAX_LISTENERS];
static int	listener_count = 0;

PG_FUNCTION_INFO_V1(rowkeeper_on_ddl_end);
PG_FUNCTION_INFO_V1(rowkeeper_on_drop);
PG_FUNCTION_INFO_V1(rowkeeper_on_rewrite);

/* Announce a listener; called once, at load. */
void
rk_events_listen(const RkEventListener *listener)
{
	if (listener_count == MAX_LISTENERS)
		elog(ERROR, "too many event listeners");
	listeners[listener_count++] = listener;
}

#define tell_listeners(method, ...) \
	do { \
		for (int l_ = 0; l_ < listener_count; l_++) \
			if (listeners[l_]->method != NULL) \
				listeners[l_]->method(__VA_ARGS__); \
	} while (0)

/*
 * A table was made to become a partition, and has what can be copied: what a
 * feature adds of its own it adds now, before anybody can write a row there.
 */
void
rk_tell_partition_built(Oid root, Oid partition)
{
	tell_listeners(partition_built, root, partition);
}

/*
 * Maintenance takes a partition of a table away, which is detached by now:
 * "drop", "archive" or "detach".
 */
void
rk_tell_partition_expired(Oid root, const char *partition, const char *action)
{
	tell_listeners(partition_expired, root, partition, action);
}

/*
 * The relations that a command on one reaches besides: children by INHERITS,
 * and the tables of a composite type. (Partitions are their root's.)
 */
List *
rk_relations_reached(Oid relid)
{
	switch (get_rel_relkind(relid))
	{
		case RELKIND_RELATION:
			return rk_relation_tree(relid, NoLock);
		case RELKIND_COMPOSITE_TYPE:
			return rk_fetch_oids(psprintf("SELECT oid FROM pg_class WHERE reloftype = %u ORDER BY oid",
										  get_rel_type_id(relid)));
		default:
			return list_make1_oid(relid);
	}
}

static EventTriggerData *
check_event_call(FunctionCallInfo fcinfo, const char *name)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by event trigger manager", name)));
	return (EventTriggerData *) fcinfo->context;
}

static bool
nothing_to_hear(void)
{
	return IsBinaryUpgrade || rk_in_own_statement();
}

/*
 * Whether this session loads a dump, whose commands come in any order and
 * bring along all that features have noted: told by the settings that every
 * dump begins with (our own statements have row_security on), and believed only
 * where both the session and the command have the rights of the extension's
 * owner.
 */
bool
rk_is_loading_dump(void)
{
	return !check_function_bodies && !row_security &&
		has_privs_of_role(GetSessionUserId(), rk_extension_owner()) &&
		has_privs_of_role(GetUserId(), rk_extension_owner());
}

/*
 * Run a query on what the event trigger may ask; the result stays with SPI,
 * which the caller finishes.
 */
static void
query_event(SPIPlanPtr *plan, const char *sql)
{
	SPI_connect();
	if (SPI_execute_plan(rk_plan_once(plan, sql, 0, NULL), NULL, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the event's objects");
}

static Datum
event_column(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

/* Grants and policies; those on other kinds of objects concern nobody. */
static bool
alters_readers(const EventTriggerData *event)
{
	switch (event->tag)
	{
		case CMDTAG_GRANT:
		case CMDTAG_REVOKE:
			return IsA(event->parsetree, GrantStmt) &&
				((const GrantStmt *) event->parsetree)->objtype == OBJECT_TABLE;
		case CMDTAG_CREATE_POLICY:
		case CMDTAG_ALTER_POLICY:
			return true;
		default:
			return false;
	}
}

/* The relations whose grants or policies a command altered. */
static List *
read_by_others(void)
{
	static SPIPlanPtr plan = NULL;
	List	   *relids = NIL;

	query_event(&plan, "SELECT p.polrelid, c.command FROM pg_catalog.pg_event_trigger_ddl_commands() c"
				" LEFT JOIN pg_catalog.pg_policy p ON p.oid OPERATOR(pg_catalog.=) c.objid"
				" AND c.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_policy'::pg_catalog.regclass::pg_catalog.oid");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			relid = DatumGetObjectId(event_column(i, 1, &isnull));
		CollectedCommand *collected;

		if (!isnull)
			relids = list_append_unique_oid(relids, relid);
		collected = (CollectedCommand *) DatumGetPointer(event_column(i, 2, &isnull));
		if (!isnull && collected->type == SCT_Grant)
			relids = list_concat_unique_oid(relids, collected->d.grant.istmt->objects);
	}
	return relids;
}

/* The partition that ALTER TABLE attached or detached, and is there; or InvalidOid. */
static Oid
partition_of(const Node *parsetree, bool attached)
{
	const AlterTableStmt *alter = (const AlterTableStmt *) parsetree;
	ListCell   *lc;

	if (parsetree == NULL || !IsA(parsetree, AlterTableStmt))
		return InvalidOid;
	foreach(lc, alter->cmds)
	{
		const AlterTableCmd *subcommand = lfirst_node(AlterTableCmd, lc);
		bool		is_attach = subcommand->subtype == AT_AttachPartition;

		if ((is_attach || subcommand->subtype == AT_DetachPartition ||
			 subcommand->subtype == AT_DetachPartitionFinalize) &&
			is_attach == attached && IsA(subcommand->def, PartitionCmd))
			return RangeVarGetRelid(((const PartitionCmd *) subcommand->def)->name, NoLock, true);
	}
	return InvalidOid;
}

/*
 * Whoever has TRIGGER on a table may make triggers, and put one in the place of
 * another of its name: what our names are is ours to say.
 */
static void
tell_of_new_trigger(const RkDdlCommand *command)
{
	RkNewTrigger trigger = {.tag = command->tag};
	const char *name;

	if (!rk_trigger_describe(command->relid, &trigger))
		return;
	name = trigger.name + strspn(trigger.name, "!~");
	if (trigger.function == NULL && strncmp(name, "rowkeeper_", strlen("rowkeeper_")) == 0)
		rk_trigger_refuse_reserved(&trigger, "Names that begin with rowkeeper_ are kept for the triggers of its features.");
	tell_listeners(trigger_created, &trigger);
}

/*
 * rowkeeper._on_ddl_end(): event trigger "rowkeeper_ddl_end" on
 * ddl_command_end. Tells listeners of every relation that a command created
 * or altered. Raises what they raise: a command that would break a feature's
 * promise is refused here.
 */
Datum
rowkeeper_on_ddl_end(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan = NULL;
	EventTriggerData *event = check_event_call(fcinfo, "_on_ddl_end");

	if (nothing_to_hear())
		PG_RETURN_NULL();

	if (alters_readers(event))
	{
		List	   *relids = read_by_others();

		tell_listeners(readers_altered, relids);
		SPI_finish();
		PG_RETURN_NULL();
	}

	query_event(&plan, "SELECT classid, objid, command FROM pg_catalog.pg_event_trigger_ddl_commands()");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			class = DatumGetObjectId(event_column(i, 1, &isnull));
		RkDdlCommand command = {
			.tag = GetCommandTagName(event->tag),
			.parsetree = event->parsetree,
			.relid = DatumGetObjectId(event_column(i, 2, &isnull))
		};
		CollectedCommand *collected = (CollectedCommand *) DatumGetPointer(event_column(i, 3, &isnull));

		/* CREATE SCHEMA may contain grants */
		if (!isnull && collected->type == SCT_Grant && collected->d.grant.istmt->objtype == OBJECT_TABLE)
			tell_listeners(readers_altered, collected->d.grant.istmt->objects);
		if (!isnull && collected->type == SCT_AlterTable)
			command.subcommands = collected->d.alterTable.subcmds;
		if (get_rel_relkind(command.relid) == RELKIND_PARTITIONED_TABLE)
		{
			command.attached = partition_of(event->parsetree, true);
			command.detached = partition_of(event->parsetree, false);
		}
		if (class == RelationRelationId)
			tell_listeners(relation_altered, &command);
		else if (class == NamespaceRelationId)
			tell_listeners(schema_altered, &command);
		else if (class == TriggerRelationId)
			tell_of_new_trigger(&command);
		else if (class == ConstraintRelationId)
			tell_listeners(constraint_altered, &command);
	}
	SPI_finish();
	PG_RETURN_NULL();
}

/*
 * A column went with something it depended on, such as its type. What ALTER
 * TABLE itself drops is told at the command's end.
 */
static void
tell_of_dropped_column(EventTriggerData *event, Oid relid)
{
	RkDdlCommand command = {
		.tag = GetCommandTagName(event->tag),
		.parsetree = event->parsetree,
		.relid = relid
	};

	if (event->tag != CMDTAG_ALTER_TABLE)
		tell_listeners(relation_altered, &command);
}

/*
 * rowkeeper._on_drop(): event trigger "rowkeeper_drop" on sql_drop. Tells
 * listeners of dropped relations, columns, triggers and policies.
 */
Datum
rowkeeper_on_drop(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan = NULL;
	EventTriggerData *event = check_event_call(fcinfo, "_on_drop");

	if (nothing_to_hear())
		PG_RETURN_NULL();

	query_event(&plan, "SELECT classid, objid, object_identity, address_names[3], objsubid,"
				" CASE WHEN object_type OPERATOR(pg_catalog.=) ANY ('{trigger,policy}') THEN"
				"  pg_catalog.to_regclass(pg_catalog.format('%I.%I', address_names[1], address_names[2])) END"
				" FROM pg_catalog.pg_event_trigger_dropped_objects()"
				" WHERE NOT is_temporary"
				" AND (object_type OPERATOR(pg_catalog.=) ANY ('{table,\"foreign table\",\"table column\",policy}')"
				"  OR (object_type OPERATOR(pg_catalog.=) 'trigger' AND original))");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			class = DatumGetObjectId(event_column(i, 1, &isnull));
		RkDrop		drop = {
			.tag = GetCommandTagName(event->tag),
			.object = DatumGetObjectId(event_column(i, 2, &isnull)),
			.identity = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3),
			.trigger = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 4)
		};
		int32		column = DatumGetInt32(event_column(i, 5, &isnull));
		Datum		table = event_column(i, 6, &isnull);

		drop.table = isnull ? InvalidOid : DatumGetObjectId(table);

		if (class == RelationRelationId && column != 0)
			tell_of_dropped_column(event, drop.object);
		else if (class == RelationRelationId)
			tell_listeners(relation_dropped, &drop);
		else if (class == TriggerRelationId)
			tell_listeners(trigger_dropped, &drop);
		else if (class == PolicyRelationId && OidIsValid(drop.table))
			tell_listeners(readers_altered, list_make1_oid(drop.table));
	}
	SPI_finish();
	PG_RETURN_NULL();
}

/* A transaction is about to go past the isolation of tenants. */
void
rk_tell_bypassed(const char *reason)
{
	tell_listeners(tenants_bypassed, reason);
}

/*
 * A table has become the first partition of a new one, which has its name, its
 * triggers and its readers by now. Features keep what they know of it by OID.
 */
void
rk_tell_replaced(Oid before, Oid root)
{
	tell_listeners(table_replaced, before, root);
}

/* A table is isolated by the tenant in this column. */
void
rk_tell_isolated(Oid root, const char *column)
{
	tell_listeners(tenants_isolated, root, column);
}

/*
 * rowkeeper._on_rewrite(): event trigger "rowkeeper_rewrite" on
 * table_rewrite, before a command writes a table anew.
 */
Datum
rowkeeper_on_rewrite(PG_FUNCTION_ARGS)
{
	EventTriggerData *event = check_event_call(fcinfo, "_on_rewrite");
	Oid			relid;
	int			reason;

	if (nothing_to_hear())
		PG_RETURN_NULL();

	relid = DatumGetObjectId(pg_event_trigger_table_rewrite_oid(fcinfo));
	reason = DatumGetInt32(pg_event_trigger_table_rewrite_reason(fcinfo));
	tell_listeners(relation_rewritten, relid, reason, GetCommandTagName(event->tag));
	PG_RETURN_NULL();
}
