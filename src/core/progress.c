/*
 * progress.c
 *
 * Long work that commits as it goes says in a row of rowkeeper._progress how
 * far it is; what is written in one of its transactions others see with the
 * commit. A row belongs to a backend. One whose backend has died is not shown
 * by rowkeeper.progress and goes when the next work begins.
 */
#include "rowkeeper.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* Begin with the first step of a work on a table; total < 0: not known. */
void
rk_progress_begin(const char *task, Oid relid, int steps, int64 total)
{
	Oid			types[5] = {INT4OID, OIDOID, TEXTOID, INT4OID, INT8OID};
	Datum		values[5];
	char		nulls[6] = "     ";

	values[0] = Int32GetDatum(MyProcPid);
	values[1] = ObjectIdGetDatum(relid);
	values[2] = CStringGetTextDatum(task);
	values[3] = Int32GetDatum(steps);
	values[4] = Int64GetDatum(total);
	nulls[4] = total < 0 ? 'n' : ' ';
	(void) rk_run_args(rk_extension_owner(),
					   "DELETE FROM rowkeeper._progress p WHERE p.pid = $1"
					   " OR NOT EXISTS (SELECT FROM pg_stat_activity a"
					   "  WHERE a.pid = p.pid AND a.backend_start <= p.started_at)",
					   1, types, values, NULL);
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper._progress (pid, relation, task, step, steps, done, total, started_at)"
					   " VALUES ($1, $2, $3, 1, $4, 0, $5, clock_timestamp())",
					   5, types, values, nulls);
}

/* How far it is; seen by others once the transaction is committed. */
void
rk_progress_update(int step, int64 done)
{
	Oid			types[3] = {INT4OID, INT4OID, INT8OID};
	Datum		values[3];

	values[0] = Int32GetDatum(MyProcPid);
	values[1] = Int32GetDatum(step);
	values[2] = Int64GetDatum(done);
	(void) rk_run_args(rk_extension_owner(),
					   "UPDATE rowkeeper._progress SET step = $2, done = $3 WHERE pid = $1",
					   3, types, values, NULL);
}

/* It is done, or has failed. */
void
rk_progress_end(void)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1];

	values[0] = Int32GetDatum(MyProcPid);
	(void) rk_run_args(rk_extension_owner(), "DELETE FROM rowkeeper._progress WHERE pid = $1",
					   1, types, values, NULL);
}
