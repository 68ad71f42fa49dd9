/*
 * database.c
 *
 * The worker's process in one database: CALL rowkeeper.maintain(), as the
 * superuser of initdb, and it is gone. Whose table is maintained, as he the
 * work is done (internal_statement.c); jobs get processes of their own.
 *
 * A database without the extension, or with another version of it than this
 * library, is left alone: the library would look for what is not there yet.
 */
#include "rowkeeper.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

PGDLLEXPORT void rowkeeper_database_main(Datum arg);

/* The version of the extension in this database; NULL: it is not installed. */
static char *
installed_version(void)
{
	Relation	catalog = table_open(ExtensionRelationId, AccessShareLock);
	char	   *version = NULL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("rowkeeper"));
	scan = systable_beginscan(catalog, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(catalog), &isnull);

		version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return version;
}

static bool
is_for_us(void)
{
	char	   *version;
	bool		result;

	rk_process_begin();
	rk_process_set_transactions();
	version = installed_version();
	result = version != NULL && strcmp(version, RK_EXTENSION_VERSION) == 0;
	if (version != NULL && !result)
		ereport(DEBUG1,
				(errmsg_internal("database has rowkeeper %s, not %s: not maintained", version, RK_EXTENSION_VERSION)));
	CommitTransactionCommand();
	return result;
}

void
rowkeeper_database_main(Datum arg)
{
	(void) rk_process_become();
	if (is_for_us())
		(void) rk_toplevel_execute("CALL rowkeeper.maintain()", NULL, true);
}
