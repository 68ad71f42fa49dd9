/*
 * steps.c
 *
 * Enabling calls show their work: they return SETOF text, one row a step, as
 * SQL where the step was SQL, and no row when nothing changed. The rows are
 * materialised, so a client that reads none of them still had all of it done.
 * Here is also what they ask of the table that they are about.
 */
#include "rowkeeper.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"

/* Prepare the result of a call declared RETURNS SETOF text. */
void
rk_steps_begin(FunctionCallInfo fcinfo)
{
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
}

/* Add one step. */
void
rk_step(FunctionCallInfo fcinfo, const char *step)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		value = CStringGetTextDatum(step);
	bool		isnull = false;

	tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
}

static void
check_exists(Oid relid)
{
	if (get_rel_name(relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
}

/* The first argument: a table that exists. */
Oid
rk_target_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target table must not be null")));
	check_exists(PG_GETARG_OID(0));
	return PG_GETARG_OID(0);
}

/* The names in an argument of type name[], in their order: char *, NULL where one is null. */
List *
rk_names_argument(ArrayType *array)
{
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	List	   *names = NIL;

	deconstruct_array(array, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
		names = lappend(names, nulls[i] ? NULL : pstrdup(NameStr(*DatumGetName(elements[i]))));
	return names;
}

/* As for ALTER TABLE: the owner of the table or a member of the owner. */
void
rk_check_owner(Oid relid)
{
	check_exists(relid);
	if (!rk_is_relation_owner(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/* Say what stands in a table's way, as the doctor does; view: with root, detail and remedy. */
void
rk_warn_of(const char *view, Oid root)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(root)};
	RkIdentity	saved;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_with_args(psprintf("SELECT detail, remedy FROM rowkeeper.%s WHERE root = $1"
									   " ORDER BY detail COLLATE \"C\"", view),
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read what stands in the way of a table");
	for (uint64 i = 0; i < SPI_processed; i++)
		ereport(WARNING,
				(errmsg("%s", SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1)),
				 errhint("%s", SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2))));
	SPI_finish();
	rk_identity_restore(&saved);
}
