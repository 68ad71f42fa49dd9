/*
 * features.c
 *
 * What a feature was told of a table, for views: read from the arguments of
 * the table's row trigger as the catalog has them. Unlike
 * rk_changes_options() this opens and locks no table, so a view over all
 * tables does not wait for one that is being altered.
 */
#include "rowkeeper.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_trigger.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

PG_FUNCTION_INFO_V1(rowkeeper_changes_options);

/* The argument after the one that equals "consumer"; they come in pairs. */
static char *
find_options(bytea *arguments, int count, const char *consumer)
{
	char	   *position = VARDATA_ANY(arguments);

	for (int i = 0; i + 1 < count; i += 2)
	{
		char	   *options = position + strlen(position) + 1;

		if (strcmp(position, consumer) == 0)
			return options;
		position = options + strlen(options) + 1;
	}
	return NULL;
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
	Oid			relid = PG_GETARG_OID(0);
	char	   *consumer = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *options = NULL;

	ScanKeyInit(&keys[0], Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[1], Anum_pg_trigger_tgname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(RK_CHANGES_TRIGGER));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 2, keys);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		arguments = heap_getattr(tuple, Anum_pg_trigger_tgargs,
											 RelationGetDescr(catalog), &isnull);

		if (!isnull)
			options = find_options(DatumGetByteaPCopy(arguments),
								   ((Form_pg_trigger) GETSTRUCT(tuple))->tgnargs,
								   consumer);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);

	if (options == NULL)
		PG_RETURN_NULL();
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(options));
}
