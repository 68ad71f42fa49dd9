/*
 * internal_statement.c
 *
 * The one way by which the extension runs statements of its own. A statement
 * runs as a named role (a table's owner, or the extension's owner for the
 * log), outside the row security that this owner has forced on himself, and
 * under fixed settings: search_path above all, so that nobody's objects stand
 * in for the catalog's, and everything that changes how values are read or
 * where tables go. Without NOFORCE_RLS an owner under forced row security
 * sees no rows, and a validation "succeeds".
 *
 * An error unwinds by itself: the (sub)transaction's abort restores user,
 * security context and settings.
 */
#include "rowkeeper.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

static const struct
{
	const char *name;
	const char *value;
}			pinned_settings[] =

{
	{"search_path", "pg_catalog, pg_temp"},
	{"DateStyle", "ISO, YMD"},
	{"TimeZone", "UTC"},
	{"IntervalStyle", "postgres"},
	{"row_security", "on"},
	{"default_tablespace", ""},
	{"default_table_access_method", "heap"},
	{"check_function_bodies", "off"},
	{"quote_all_identifiers", "off"},
};

/*
 * Become "role" under the pinned settings, remembering what was in *saved.
 * restricted: for work on users' tables in maintenance, where their code must
 * not be able to leave anything behind in the session.
 */
void
rk_identity_assume(RkIdentity *saved, Oid role, bool restricted)
{
	GetUserIdAndSecContext(&saved->user, &saved->sec_context);
	SetUserIdAndSecContext(role,
						   saved->sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS |
						   (restricted ? SECURITY_RESTRICTED_OPERATION : 0));

	saved->guc_level = NewGUCNestLevel();
	(void) set_config_option("rowkeeper.own_statement", "on", PGC_INTERNAL, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	for (int i = 0; i < lengthof(pinned_settings); i++)
		(void) set_config_option(pinned_settings[i].name, pinned_settings[i].value,
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

void
rk_identity_restore(const RkIdentity *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->user, saved->sec_context);
}

/* Whether the running statement is one of ours; no user can set this. */
bool
rk_in_own_statement(void)
{
	return rk_own_statement;
}

/* The owner of the extension, who owns the log as well. */
Oid
rk_extension_owner(void)
{
	Relation	catalog = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("rowkeeper"));
	scan = systable_beginscan(catalog, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"rowkeeper\" is not installed in this database")));
	return owner;
}

/* Run one statement as "role"; returns the number of rows it processed. */
uint64
rk_run(Oid role, const char *sql)
{
	return rk_run_args(role, sql, 0, NULL, NULL, NULL);
}

/* The same with parameters; nulls as SPI has them ('n' for NULL). */
uint64
rk_run_args(Oid role, const char *sql, int nargs, Oid *types, Datum *values,
			const char *nulls)
{
	RkIdentity	saved;
	uint64		processed;
	int			result;

	rk_identity_assume(&saved, role, false);
	SPI_connect();
	result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	processed = SPI_processed;
	SPI_finish();
	rk_identity_restore(&saved);
	return processed;
}

/*
 * Run a query as "role" and return the first column of its first row, copied
 * into the caller's memory context; *isnull is also set where there is no row.
 */
Datum
rk_fetch(Oid role, const char *sql, int nargs, Oid *types, Datum *values,
		 const char *nulls, bool *isnull)
{
	RkIdentity	saved;
	Datum		value = (Datum) 0;
	int			result;

	*isnull = true;
	rk_identity_assume(&saved, role, false);
	SPI_connect();
	result = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 1);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	if (SPI_processed > 0)
	{
		TupleDesc	desc = SPI_tuptable->tupdesc;

		value = SPI_getbinval(SPI_tuptable->vals[0], desc, 1, isnull);
		if (!*isnull)
			value = SPI_datumTransfer(value,
									  TupleDescAttr(desc, 0)->attbyval,
									  TupleDescAttr(desc, 0)->attlen);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return value;
}

/*
 * Run a query of ours as the caller, under the pinned settings, and return
 * the OIDs in its first column.
 */
List *
rk_fetch_oids(const char *sql)
{
	List	   *oids = NIL;
	MemoryContext caller = CurrentMemoryContext;
	RkIdentity	saved;

	rk_identity_assume(&saved, GetUserId(), false);
	SPI_connect();
	if (SPI_execute(sql, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", sql);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		oid = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(caller);

		oids = lappend_oid(oids, DatumGetObjectId(oid));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return oids;
}

/* Run a statement and show it as a step of the call (fcinfo NULL: only run). */
void
rk_run_step(FunctionCallInfo fcinfo, Oid role, const char *sql)
{
	(void) rk_run(role, sql);
	if (fcinfo != NULL)
		rk_step(fcinfo, sql);
}

/*
 * Run DDL on a user's table and show it as a step. It is done for the user,
 * so every feature hears of it as if he had done it himself.
 */
void
rk_run_ddl_step(FunctionCallInfo fcinfo, Oid role, const char *sql)
{
	RkIdentity	saved;
	int			result;

	rk_identity_assume(&saved, role, false);
	(void) set_config_option("rowkeeper.own_statement", "off", PGC_INTERNAL, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	result = SPI_execute(sql, false, 0);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	SPI_finish();
	rk_identity_restore(&saved);
	if (fcinfo != NULL)
		rk_step(fcinfo, sql);
}

/* The relation's name as SQL takes it anywhere: schema-qualified, quoted. */
char *
rk_relation_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		elog(ERROR, "cache lookup failed for relation %u", relid);
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name);
}
