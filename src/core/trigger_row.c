/*
 * trigger_row.c
 *
 * Triggers of ours as the catalog has them. Features keep what they were told
 * of a table in their trigger's arguments; here is how they are read. A
 * trigger is ours by its name and its function: anybody can name one so.
 */
#include "rowkeeper.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_trigger.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* The name of a function of ours; NULL: it is another's. */
static char *
our_function_name(Oid function)
{
	char	   *schema = get_namespace_name(get_func_namespace(function));

	return schema != NULL && strcmp(schema, "rowkeeper") == 0 ? get_func_name(function) : NULL;
}

static bool
is_our_function(Oid function, const char *expected)
{
	char	   *name = our_function_name(function);

	return name != NULL && strcmp(name, expected) == 0;
}

/* The arguments, which the catalog keeps as one text each, NUL after each. */
static List *
split_arguments(HeapTuple tuple, TupleDesc desc)
{
	List	   *arguments = NIL;
	bool		isnull;
	Datum		stored = heap_getattr(tuple, Anum_pg_trigger_tgargs, desc, &isnull);
	char	   *position;

	if (isnull)
		return NIL;
	position = VARDATA_ANY(DatumGetByteaPCopy(stored));
	for (int i = 0; i < ((Form_pg_trigger) GETSTRUCT(tuple))->tgnargs; i++)
	{
		arguments = lappend(arguments, position);
		position += strlen(position) + 1;
	}
	return arguments;
}

/*
 * Read the trigger of this name that calls this function of ours; false where
 * the table has none. The table itself is neither opened nor locked, so
 * nobody who asks waits for a table that is being altered, and no DDL on one
 * partition for another's.
 */
bool
rk_trigger_read(Oid relid, const char *name, const char *function, RkTriggerRow *row)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&keys[0], Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_trigger_tgname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(name));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple) &&
		is_our_function(((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid, function))
	{
		found = true;
		row->state = ((Form_pg_trigger) GETSTRUCT(tuple))->tgenabled;
		row->deferrable = ((Form_pg_trigger) GETSTRUCT(tuple))->tgdeferrable;
		row->deferred = ((Form_pg_trigger) GETSTRUCT(tuple))->tginitdeferred;
		row->arguments = split_arguments(tuple, RelationGetDescr(catalog));
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

/* What a trigger is; false where it is gone again. */
bool
rk_trigger_describe(Oid oid, RkNewTrigger *trigger)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(oid));
	scan = systable_beginscan(catalog, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		trigger->oid = oid;
		trigger->relid = ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid;
		trigger->name = pstrdup(NameStr(((Form_pg_trigger) GETSTRUCT(tuple))->tgname));
		trigger->function = our_function_name(((Form_pg_trigger) GETSTRUCT(tuple))->tgfoid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/* Raise 42501: a trigger has a name, or calls a function, that only we bring together. */
void
rk_trigger_refuse_reserved(const RkNewTrigger *trigger, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("trigger \"%s\" of %s is reserved: its name or its function is rowkeeper's",
					trigger->name, rk_relation_name(trigger->relid)),
			 errhint("%s", hint)));
}

/* DDL on a table whose deferred triggers are pending fails: say how to go on. */
void
rk_trigger_check_pending(List *relids)
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
