/*
 * privileges.c
 *
 * The rights on the extension's own objects are those that its script grants
 * to PUBLIC and no others. ALTER DEFAULT PRIVILEGES in force at CREATE
 * EXTENSION may have added more, and who may execute the trigger functions
 * could write history, so the script ends by taking those away.
 */
#include "rowkeeper.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_namespace.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_reset_privileges);

/*
 * Statements that revoke what the script did not grant: everything of named
 * roles, and of PUBLIC all but SELECT on relations; before each the transaction
 * that made the object a member. What was a member before an update has the
 * rights that somebody gave it since: tenant_role() does.
 */
static const char revokes[] =
"WITH members AS (SELECT xmin, classid, objid FROM pg_depend WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass"
"  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'rowkeeper')) "
"SELECT d.xmin, format('REVOKE ALL ON ROUTINE %s FROM %I CASCADE', p.oid::regprocedure, pg_get_userbyid(a.grantee))"
" FROM pg_proc p JOIN members d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid, aclexplode(p.proacl) a"
" WHERE p.pronamespace = 'rowkeeper'::regnamespace AND a.grantee NOT IN (0, p.proowner)"
" UNION "
"SELECT d.xmin, format('REVOKE ALL ON TABLE %s FROM %I CASCADE', c.oid::regclass, pg_get_userbyid(a.grantee))"
" FROM pg_class c JOIN members d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid, aclexplode(c.relacl) a"
" WHERE c.relnamespace = 'rowkeeper'::regnamespace AND c.relkind IN ('r', 'v', 'S')"
" AND a.grantee NOT IN (0, c.relowner)"
" UNION "
"SELECT d.xmin, format('REVOKE %s ON TABLE %s FROM PUBLIC', a.privilege_type, c.oid::regclass)"
" FROM pg_class c JOIN members d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid, aclexplode(c.relacl) a"
" WHERE c.relnamespace = 'rowkeeper'::regnamespace AND c.relkind IN ('r', 'v')"
" AND a.grantee = 0 AND a.privilege_type <> 'SELECT'";

/*
 * CREATE EXTENSION takes a schema that is there already; one of somebody
 * else's could get functions of his beside ours.
 */
static void
check_schema_owner(Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACENAME, CStringGetDatum("rowkeeper"));
	Oid			schema_owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "schema \"rowkeeper\" does not exist");
	schema_owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	if (schema_owner != owner && !superuser_arg(schema_owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("schema \"rowkeeper\" is owned by \"%s\", not by who creates the extension",
						GetUserNameFromId(schema_owner, false)),
				 errhint("Rename that schema, or drop it.")));
}

/*
 * rowkeeper._reset_privileges() returns bigint: how many grants were revoked.
 * Called by the install and update scripts, as their superuser.
 */
Datum
rowkeeper_reset_privileges(PG_FUNCTION_ARGS)
{
	Oid			owner = rk_extension_owner();
	RkIdentity	saved;
	uint64		found;
	int64		count = 0;
	SPITupleTable *statements;

	check_schema_owner(owner);
	rk_identity_assume(&saved, owner, false);
	rk_identity_own_ddl();
	SPI_connect();
	if (SPI_execute(revokes, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the privileges of the extension's objects");
	found = SPI_processed;
	statements = SPI_tuptable;
	for (uint64 i = 0; i < found; i++)
	{
		bool		isnull;

		if (!TransactionIdIsCurrentTransactionId(DatumGetTransactionId(SPI_getbinval(statements->vals[i], statements->tupdesc, 1, &isnull))))
			continue;
		if (SPI_execute(SPI_getvalue(statements->vals[i], statements->tupdesc, 2), false, 0) < 0)
			elog(ERROR, "could not revoke a privilege");
		count++;
	}
	SPI_finish();
	rk_identity_restore(&saved);
	PG_RETURN_INT64(count);
}
