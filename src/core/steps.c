/*
 * steps.c
 *
 * Enabling calls show their work: they return SETOF text, one row a step, as
 * SQL where the step was SQL, and no row when nothing changed. The rows are
 * materialised, so a client that reads none of them still had all of it done.
 */
#include "rowkeeper.h"

#include "funcapi.h"
#include "utils/builtins.h"
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
