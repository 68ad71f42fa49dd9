/*
 * schemas.c
 *
 * Schemas that partitions are to be in and that are not their table's. The
 * table's owner must be able to make them there, and nobody but him, whom he
 * belongs to and who owns the whole database may own the schema: its owner can
 * drop what is in it. Looked at whenever one is used, because a schema can go,
 * and come again as somebody else's.
 */
#include "partition/partition.h"

#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static Oid
owner_of(Oid schema)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema %u", schema);
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

static bool
may_create(Oid schema, Oid role)
{
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2] = {ObjectIdGetDatum(role), ObjectIdGetDatum(schema)};
	bool		isnull;

	return DatumGetBool(rk_fetch(rk_extension_owner(), "SELECT has_schema_privilege($1, $2, 'CREATE')",
								 2, types, values, NULL, &isnull));
}

static char *
role_name(Oid role)
{
	return pstrdup(quote_identifier(GetUserNameFromId(role, false)));
}

/* Raise unless partitions of this owner's table may be in the schema; names the option. */
void
rk_partition_check_schema(const char *option, const char *schema, Oid owner)
{
	Oid			namespace = get_namespace_oid(schema, true);
	Oid			schema_owner;

	if (!OidIsValid(namespace))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("option \"%s\": schema \"%s\" does not exist", option, schema)));
	if (!may_create(namespace, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("option \"%s\": the table's owner %s may not create tables in schema \"%s\"",
						option, role_name(owner), schema),
				 errhint("GRANT CREATE ON SCHEMA %s TO %s", quote_identifier(schema), role_name(owner))));
	schema_owner = owner_of(namespace);
	if (!has_privs_of_role(owner, schema_owner) && !superuser_arg(schema_owner) &&
		schema_owner != ROLE_PG_DATABASE_OWNER && !has_privs_of_role(schema_owner, ROLE_PG_DATABASE_OWNER))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("option \"%s\": schema \"%s\" belongs to %s, who could drop the partitions in it",
						option, schema, role_name(schema_owner)),
				 errhint("ALTER SCHEMA %s OWNER TO %s", quote_identifier(schema), role_name(owner))));
}
