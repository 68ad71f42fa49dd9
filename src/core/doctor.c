/*
 * doctor.c
 *
 * doctor_assert(): raises what rowkeeper.doctor() finds, for CI and
 * monitoring. The findings themselves are SQL, a function a feature.
 */
#include "rowkeeper.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#define MAX_SHOWN 20

PG_FUNCTION_INFO_V1(rowkeeper_doctor_assert);

/* The levels that a level stands for: its own and every worse one. */
static const char *
levels_from(const char *level)
{
	if (strcmp(level, "error") == 0)
		return "{error}";
	if (strcmp(level, "warning") == 0)
		return "{error,warning}";
	if (strcmp(level, "info") == 0)
		return "{error,warning,info}";
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is not a level of findings", level),
			 errhint("Use 'error', 'warning' or 'info'.")));
}

static char *
describe_findings(void)
{
	StringInfoData text;

	initStringInfo(&text);
	for (uint64 i = 0; i < SPI_processed && i < MAX_SHOWN; i++)
		appendStringInfo(&text, "%s%s", i > 0 ? "\n" : "",
						 SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	if (SPI_processed > MAX_SHOWN)
		appendStringInfo(&text, "\nand " UINT64_FORMAT " more", SPI_processed - MAX_SHOWN);
	return text.data;
}

/* A misspelt feature would always be healthy. */
static void
check_feature(Datum feature)
{
	Oid			types[1] = {TEXTOID};
	bool		isnull;

	if (SPI_execute_with_args("SELECT $1 OPERATOR(pg_catalog.=) ANY (rowkeeper._feature_names()),"
							  " pg_catalog.array_to_string(rowkeeper._feature_names(), ', ')",
							  1, types, &feature, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not ask the doctor");
	if (!DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a feature", TextDatumGetCString(feature)),
				 errhint("The features are: %s.",
						 SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2))));
}

/*
 * rowkeeper.doctor_assert(level text DEFAULT 'error', schema name DEFAULT NULL,
 * feature text DEFAULT NULL) returns boolean: true where the doctor finds
 * nothing of that level or worse. Locks and privileges: as
 * rowkeeper.doctor(), whose caller the caller is. Errors: 55000 with the
 * findings in its detail, 22023 a level or feature that does not exist, 3F000
 * such a schema.
 */
Datum
rowkeeper_doctor_assert(PG_FUNCTION_ARGS)
{
	Oid			types[3] = {TEXTOID, NAMEOID, TEXTOID};
	Datum		values[3] = {0};
	char		nulls[4] = "   ";
	const char *level = PG_ARGISNULL(0) ? "error" : text_to_cstring(PG_GETARG_TEXT_PP(0));

	values[0] = CStringGetTextDatum(levels_from(level));
	if (PG_ARGISNULL(1))
		nulls[1] = 'n';
	else
	{
		(void) get_namespace_oid(NameStr(*PG_GETARG_NAME(1)), false);
		values[1] = PG_GETARG_DATUM(1);
	}
	if (PG_ARGISNULL(2))
		nulls[2] = 'n';
	else
		values[2] = PG_GETARG_DATUM(2);

	SPI_connect();
	if (nulls[2] != 'n')
		check_feature(values[2]);
	if (SPI_execute_with_args("SELECT pg_catalog.concat_ws(': ', level, object, detail)"
							  " FROM rowkeeper.doctor($2, $3)"
							  " WHERE level OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[])",
							  3, types, values, nulls, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not ask the doctor");
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_plural("rowkeeper has " UINT64_FORMAT " finding",
							   "rowkeeper has " UINT64_FORMAT " findings",
							   SPI_processed, SPI_processed),
				 errdetail("%s", describe_findings()),
				 errhint("SELECT * FROM rowkeeper.doctor() shows the remedies.")));
	SPI_finish();
	PG_RETURN_BOOL(true);
}
