/*
 * store.c
 *
 * What features keep in schemas of their own (the audit log, the trash) is
 * made of ordinary objects outside the extension: a member is not dumped, and
 * would go with DROP EXTENSION. Whose such a schema may be, and how its objects
 * get the rights that they are meant to have whatever ALTER DEFAULT PRIVILEGES
 * says.
 */
#include "rowkeeper.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * A schema of this name that somebody else made could hold anything: triggers
 * that run as us, tables that others may write. One restored from a dump is
 * owned by whoever restored it, a superuser. One that is not there is no error.
 */
void
rk_store_check_schema(const char *schema)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACENAME, CStringGetDatum(schema));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return;
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);

	if (owner != rk_extension_owner() && !superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("schema \"%s\" is owned by \"%s\", not by the owner of the extension",
						schema, GetUserNameFromId(owner, false)),
				 errhint("Rename that schema, or drop it.")));
}

/* The access control list of a relation or schema; NULL: the default. */
static Acl *
object_acl(int cache, AttrNumber attribute, Oid object)
{
	HeapTuple	tuple = SearchSysCache1(cache, ObjectIdGetDatum(object));
	bool		isnull;
	Datum		value;
	Acl		   *acl = NULL;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for object %u", object);
	value = SysCacheGetAttr(cache, tuple, attribute, &isnull);
	if (!isnull)
		acl = DatumGetAclPCopy(value);
	ReleaseSysCache(tuple);
	return acl;
}

/*
 * Take away what default privileges gave to others, and give back what they
 * took from the owner.
 */
static void
reset_acl(Oid owner, const char *kind, const char *name, const Acl *acl)
{
	StringInfoData sql;

	if (acl == NULL)
		return;

	initStringInfo(&sql);
	for (int i = 0; i < ACL_NUM(acl); i++)
	{
		Oid			grantee = ACL_DAT(acl)[i].ai_grantee;

		if (grantee == owner)
			continue;
		appendStringInfo(&sql, "REVOKE ALL ON %s %s FROM %s CASCADE;", kind, name,
						 grantee == ACL_ID_PUBLIC ? "PUBLIC" :
						 quote_identifier(GetUserNameFromId(grantee, false)));
	}
	appendStringInfo(&sql, "GRANT ALL ON %s %s TO %s", kind, name,
					 quote_identifier(GetUserNameFromId(owner, false)));
	(void) rk_run(owner, sql.data);
}

/*
 * Make the rights on a relation exactly its owner's.
 */
void
rk_store_reset_relation_acl(Oid relid)
{
	bool		sequence = get_rel_relkind(relid) == RELKIND_SEQUENCE;

	reset_acl(rk_extension_owner(), sequence ? "SEQUENCE" : "TABLE",
			  rk_relation_name(relid),
			  object_acl(RELOID, Anum_pg_class_relacl, relid));
}

/* The same of a schema. */
void
rk_store_reset_schema_acl(const char *schema)
{
	reset_acl(rk_extension_owner(), "SCHEMA", schema,
			  object_acl(NAMESPACEOID, Anum_pg_namespace_nspacl, get_namespace_oid(schema, false)));
}
