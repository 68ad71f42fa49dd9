/*
 * values.c
 *
 * What is stamped: the time by the table's clock, the actor as a value of the
 * column's type, the version's number. Each fits its column as a cast would
 * make it: what a BEFORE trigger returns is stored without another look.
 */
#include "stamp/stamp.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* ---- time ---- */

/* The time that a row gets, before it is made to fit a column. */
TimestampTz
rk_stamp_base_time(const RkStampPlan *plan)
{
	return plan->clock == RK_CLOCK_WALL ? GetCurrentTimestamp()
		: GetCurrentTransactionStartTimestamp();
}

/* A time without zone, as the session's clock on the wall shows it. */
static Timestamp
local_time(TimestampTz time)
{
	static TimestampTz last_time = 0;
	static Timestamp last_local = 0;
	static pg_tz *last_zone = NULL;

	if (time != last_time || session_timezone != last_zone)
	{
		last_local = DatumGetTimestamp(DirectFunctionCall1(timestamptz_timestamp,
														   TimestampTzGetDatum(time)));
		last_time = time;
		last_zone = session_timezone;
	}
	return last_local;
}

/* To the precision of a column such as timestamptz(3). */
static int64
round_time(int64 time, int32 typmod)
{
	if (typmod < 0)
		return time;
	return DatumGetTimestamp(DirectFunctionCall2(timestamp_scale, TimestampGetDatum(time),
												 Int32GetDatum(typmod)));
}

/* The smallest step of a column's time, in microseconds. */
static int64
time_step(int32 typmod)
{
	int64		step = 1;

	for (int digits = typmod < 0 ? 6 : typmod; digits < 6; digits++)
		step *= 10;
	return step;
}

/*
 * The time to stamp into a column. A monotonic clock goes on from what the
 * row had before: it never stands still and never goes back.
 */
Datum
rk_stamp_time(const RkStampPlan *plan, const RkStampColumn *column, TimestampTz base,
			  Datum before, bool before_isnull)
{
	int64		time = column->type == TIMESTAMPTZOID ? base : local_time(base);

	time = round_time(time, column->typmod);
	if (plan->clock == RK_CLOCK_MONOTONIC && !before_isnull)
	{
		int64		old = DatumGetTimestampTz(before);

		if (time <= old && !TIMESTAMP_IS_NOEND(old))
			time = old + time_step(column->typmod);
		else if (time <= old)
			time = old;
	}
	return TimestampTzGetDatum(time);
}

/* ---- actor ---- */

typedef struct Cast
{
	RkStampPlan *plan;
	RkStampColumn *column;
	const char *actor;
	const char *source;
	Datum		result;
} Cast;

static void
explain_cast(void *arg)
{
	Cast	   *cast = arg;

	errcontext("stamp of column \"%s\" of %s from the actor \"%s\" (%s)",
			   cast->column->name, rk_relation_name(cast->plan->root), cast->actor, cast->source);
}

static void
run_cast(void *arg)
{
	Cast	   *cast = arg;
	RkStampColumn *column = cast->column;

	cast->result = InputFunctionCall(&column->input, (char *) cast->actor,
									 column->input_param, column->typmod);
}

static void
cast_or_raise(Cast *cast)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,.callback = explain_cast,.arg = cast
	};

	error_context_stack = &callback;
	run_cast(cast);
	error_context_stack = callback.previous;
}

/* A short text in its stored form, so that it can be written over another. */
static Datum
pack(const RkStampColumn *column, Datum value)
{
	struct varlena *stored = (struct varlena *) DatumGetPointer(value);
	Size		length;
	char	   *packed;

	if (!column->may_be_short || VARATT_IS_SHORT(stored) || !VARATT_CAN_MAKE_SHORT(stored))
		return value;
	length = VARATT_CONVERTED_SHORT_SIZE(stored);
	packed = palloc(length);
	SET_VARSIZE_SHORT(packed, length);
	memcpy(packed + 1, VARDATA(stored), length - 1);
	return PointerGetDatum(packed);
}

static void
forget_actor(RkStampColumn *column)
{
	if (column->who != NULL && !column->actor_isnull && !column->layout.byval)
		pfree(DatumGetPointer(column->actor));
	column->who = NULL;
}

/*
 * Nobody said who acts, so there is only the session user, whose name may
 * well be no value of the column's type: then it is not known who acts.
 */
static void
remember_actor(RkStampPlan *plan, RkStampColumn *column, const RkWho *who)
{
	bool		session = who->actor == NULL;
	Cast		cast = {
		.plan = plan,.column = column,.source = who->actor_source,
		.actor = session ? GetUserNameFromId(who->session_user, false) : who->actor
	};
	bool		isnull = false;
	Datum		value = (Datum) 0;

	forget_actor(column);
	if (session)
		isnull = rk_attempt(run_cast, &cast) != NULL;
	else
		cast_or_raise(&cast);
	if (!isnull)
	{
		MemoryContext old = MemoryContextSwitchTo(plan->context);

		value = datumCopy(pack(column, cast.result), column->layout.byval, column->layout.len);
		MemoryContextSwitchTo(old);
	}
	column->actor = value;
	column->actor_isnull = isnull;
	column->who_generation = rk_who_generation;
	column->who = who;
}

/*
 * Who acts in this command: asked once a command, as it costs more than the
 * stamp itself.
 */
static const RkWho *
who_of_command(void)
{
	static const RkWho *who = NULL;
	static uint64 generation;
	static TimestampTz statement;
	static TimestampTz transaction;
	static SubTransactionId subid;
	static CommandId command;

	if (who == NULL || generation != rk_who_generation ||
		command != GetCurrentCommandId(false) ||
		subid != GetCurrentSubTransactionId() ||
		statement != GetCurrentStatementStartTimestamp() ||
		transaction != GetCurrentTransactionStartTimestamp())
	{
		who = rk_who_current();
		generation = rk_who_generation;
		command = GetCurrentCommandId(false);
		subid = GetCurrentSubTransactionId();
		statement = GetCurrentStatementStartTimestamp();
		transaction = GetCurrentTransactionStartTimestamp();
	}
	return who;
}

/* The actor as a value of the column's type; raises where it is none. */
Datum
rk_stamp_actor(RkStampPlan *plan, RkStampColumn *column, bool *isnull)
{
	const RkWho *who = who_of_command();

	if (column->who != who || column->who_generation != rk_who_generation)
		remember_actor(plan, column, who);
	*isnull = column->actor_isnull;
	return column->actor;
}

/* ---- version ---- */

int64
rk_stamp_version_value(const RkStampColumn *column, Datum value)
{
	switch (column->type)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}

Datum
rk_stamp_version_datum(const RkStampPlan *plan, const RkStampColumn *column, int64 version)
{
	if (column->type == INT8OID)
		return Int64GetDatum(version);
	if (version > (column->type == INT2OID ? PG_INT16_MAX : PG_INT32_MAX))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("version " INT64_FORMAT " of a row of %s is out of range for type %s",
						version, rk_relation_name(plan->relid), format_type_be(column->type)),
				 errhint("ALTER TABLE %s ALTER COLUMN %s TYPE bigint",
						 rk_relation_name(plan->root), quote_identifier(column->name))));
	return column->type == INT2OID ? Int16GetDatum(version) : Int32GetDatum(version);
}
