/*
 * ddl_describe.c
 *
 * What the log says of a command on an audited table, as JSON: the command,
 * what it did in words an auditor knows, and the columns there are after it.
 */
#include "audit/audit.h"

#include "access/table.h"
#include "commands/event_trigger.h"
#include "nodes/parsenodes.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"
#include "utils/rel.h"

/* Add a member to an object; nothing where there is no value. */
void
rk_audit_push_text(JsonbParseState **state, const char *key, const char *value)
{
	JsonbValue	k = {.type = jbvString};
	JsonbValue	v = {.type = jbvString};

	if (value == NULL || value[0] == '\0')
		return;
	k.val.string.val = (char *) key;
	k.val.string.len = strlen(key);
	v.val.string.val = (char *) value;
	v.val.string.len = strlen(value);
	pushJsonbValue(state, WJB_KEY, &k);
	pushJsonbValue(state, WJB_VALUE, &v);
}

/* An object of text members: key, value, ..., NULL. */
Jsonb *
rk_audit_detail(const char *key, const char *value,...)
{
	JsonbParseState *state = NULL;
	va_list		more;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	va_start(more, value);
	while (key != NULL)
	{
		rk_audit_push_text(&state, key, value);
		key = va_arg(more, const char *);
		if (key != NULL)
			value = va_arg(more, const char *);
	}
	va_end(more);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* What a subcommand of ALTER TABLE is called, for those an auditor asks about. */
static const char *
subcommand_name(AlterTableType type)
{
	switch (rk_plain_subcommand(type))
	{
		case AT_AddColumn:
			return "ADD COLUMN";
		case AT_DropColumn:
			return "DROP COLUMN";
		case AT_AlterColumnType:
			return "ALTER COLUMN TYPE";
		case AT_ColumnDefault:
			return "ALTER COLUMN DEFAULT";
		case AT_SetNotNull:
			return "SET NOT NULL";
		case AT_DropNotNull:
			return "DROP NOT NULL";
		case AT_AddConstraint:
			return "ADD CONSTRAINT";
		case AT_DropConstraint:
			return "DROP CONSTRAINT";
		case AT_ValidateConstraint:
			return "VALIDATE CONSTRAINT";
		case AT_ChangeOwner:
			return "OWNER TO";
		case AT_EnableTrig:
		case AT_EnableAlwaysTrig:
		case AT_EnableReplicaTrig:
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
			return "ENABLE TRIGGER";
		case AT_DisableTrig:
		case AT_DisableTrigAll:
		case AT_DisableTrigUser:
			return "DISABLE TRIGGER";
		case AT_AttachPartition:
			return "ATTACH PARTITION";
		case AT_DetachPartition:
		case AT_DetachPartitionFinalize:
			return "DETACH PARTITION";
		case AT_EnableRowSecurity:
			return "ENABLE ROW LEVEL SECURITY";
		case AT_DisableRowSecurity:
			return "DISABLE ROW LEVEL SECURITY";
		case AT_ForceRowSecurity:
			return "FORCE ROW LEVEL SECURITY";
		case AT_NoForceRowSecurity:
			return "NO FORCE ROW LEVEL SECURITY";
		case AT_SetLogged:
			return "SET LOGGED";
		case AT_SetUnLogged:
			return "SET UNLOGGED";
		default:
			return NULL;
	}
}

static const AlterTableCmd *
subcommand_node(ListCell *lc)
{
	CollectedATSubcmd *collected = lfirst(lc);

	return IsA(collected->parsetree, AlterTableCmd)
		? (const AlterTableCmd *) collected->parsetree : NULL;
}

static const char *
subcommand_object(const AlterTableCmd *command)
{
	if (rk_plain_subcommand(command->subtype) == AT_AddColumn && command->def != NULL && IsA(command->def, ColumnDef))
		return ((ColumnDef *) command->def)->colname;
	if (rk_plain_subcommand(command->subtype) == AT_AddConstraint && command->def != NULL && IsA(command->def, Constraint))
		return ((Constraint *) command->def)->conname;
	return command->name;
}

/* "ADD COLUMN note, DROP COLUMN memo", or NULL where there is nothing to name. */
static char *
describe_subcommands(List *subcommands)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, subcommands)
	{
		const AlterTableCmd *command = subcommand_node(lc);
		const char *name = command == NULL ? NULL : subcommand_name(command->subtype);
		const char *object = command == NULL ? NULL : subcommand_object(command);

		if (name == NULL)
			continue;
		appendStringInfo(&text, "%s%s%s%s", text.len > 0 ? ", " : "", name,
						 object != NULL ? " " : "", object != NULL ? object : "");
	}
	return text.len > 0 ? text.data : NULL;
}

/* Whether one of the subcommands has this name. */
bool
rk_audit_has_subcommand(List *subcommands, const char *wanted)
{
	ListCell   *lc;

	foreach(lc, subcommands)
	{
		const AlterTableCmd *command = subcommand_node(lc);
		const char *name = command == NULL ? NULL : subcommand_name(command->subtype);

		if (name != NULL && strcmp(name, wanted) == 0)
			return true;
	}
	return false;
}

/* Whether the command dropped this column; there may be another of its name since. */
bool
rk_audit_drops_column(List *subcommands, const char *column)
{
	ListCell   *lc;

	foreach(lc, subcommands)
	{
		const AlterTableCmd *command = subcommand_node(lc);

		if (command != NULL && rk_plain_subcommand(command->subtype) == AT_DropColumn &&
			strcmp(command->name, column) == 0)
			return true;
	}
	return false;
}

/* {"name": "type", ...}: the columns a table has now. */
static void
push_columns(JsonbParseState **state, Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	JsonbValue	key = {.type = jbvString,.val.string = {7, "columns"}};

	pushJsonbValue(state, WJB_KEY, &key);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped)
			rk_audit_push_text(state, NameStr(column->attname),
							   format_type_extended(column->atttypid, column->atttypmod,
													FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	}
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
	table_close(rel, NoLock);
}

/* What an ALTER entry says of the command, and the columns there are after it. */
Jsonb *
rk_audit_describe_alter(const RkDdlCommand *command, Oid root)
{
	JsonbParseState *state = NULL;
	char	   *actions = describe_subcommands(command->subcommands);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	rk_audit_push_text(&state, "command", command->tag);
	if (actions != NULL)
		rk_audit_push_text(&state, "actions", actions);
	if (IsA(command->parsetree, RenameStmt))
	{
		const RenameStmt *rename = (const RenameStmt *) command->parsetree;

		if (rename->renameType == OBJECT_COLUMN || rename->renameType == OBJECT_ATTRIBUTE)
			rk_audit_push_text(&state, "renamed_column", rename->subname);
		if (rename->newname != NULL)
			rk_audit_push_text(&state, "new_name", rename->newname);
	}
	if (command->relid != root)
		rk_audit_push_text(&state, "partition", rk_relation_name(command->relid));
	push_columns(&state, command->relid);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* As pg_event_trigger_table_rewrite_reason() numbers them. */
const char *
rk_audit_rewrite_reason(int reason)
{
	if (reason & AT_REWRITE_COLUMN_REWRITE)
		return "column type";
	if (reason & AT_REWRITE_DEFAULT_VAL)
		return "default value";
	if (reason & AT_REWRITE_ALTER_PERSISTENCE)
		return "persistence";
	return "access method";
}
