/*
 * leave.c
 *
 * rowkeeper.leave(): every feature off, of one table or of all, so that the
 * extension can be dropped without CASCADE. Data, columns and logs stay as
 * ordinary objects. Each feature says how it is taken away.
 */
#include "rowkeeper.h"

#include "catalog/objectaccess.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#define MAX_FEATURES 8

static const RkFeature *features[MAX_FEATURES];
static int	feature_count = 0;

PG_FUNCTION_INFO_V1(rowkeeper_leave);

/* Announce a feature; called once, at load. */
void
rk_feature_register(const RkFeature *feature)
{
	if (feature_count == MAX_FEATURES)
		elog(ERROR, "too many features");
	features[feature_count++] = feature;
}

static void
leave_table(FunctionCallInfo fcinfo, Oid relid)
{
	rk_check_owner(relid);
	for (int i = feature_count - 1; i >= 0; i--)
		(void) features[i]->off(fcinfo, relid);
}

/* Later features build on earlier ones, so they go first. */
static void
leave_everything(FunctionCallInfo fcinfo)
{
	for (int i = feature_count - 1; i >= 0; i--)
	{
		ListCell   *lc;

		foreach(lc, features[i]->tables())
		{
			rk_check_owner(lfirst_oid(lc));
			(void) features[i]->off(fcinfo, lfirst_oid(lc));
		}
		if (features[i]->leave != NULL)
			features[i]->leave(fcinfo);
	}
}

/*
 * rowkeeper.leave() and rowkeeper.leave(target regclass) return SETOF text,
 * what was done. A NULL target: nothing. The caller must own each table. Takes
 * ACCESS EXCLUSIVE on each while its triggers are dropped.
 */
Datum
rowkeeper_leave(PG_FUNCTION_ARGS)
{
	rk_steps_begin(fcinfo);
	if (PG_NARGS() == 0)
		leave_everything(fcinfo);
	else if (!PG_ARGISNULL(0))
		leave_table(fcinfo, PG_GETARG_OID(0));
	return (Datum) 0;
}
