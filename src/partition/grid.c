/*
 * grid.c
 *
 * Where partitions begin and end. A grid's points are its origin plus n steps,
 * always reckoned from the origin: a month after 31 January is 28 February,
 * two months after it 31 March. Steps of a day and more are of wall time in
 * the grid's zone, so that a day has 23 or 25 hours where the clock is changed;
 * shorter ones are of time that has passed, which no clock change touches.
 */
#include "partition/partition.h"

#include "common/int.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#define ONE_WEEK (7 * USECS_PER_DAY)
#define FIRST_MONDAY (2 * USECS_PER_DAY)	/* 2000-01-03, from 2000-01-01 */
#define MAX_YEARS 200000		/* of wall time, after a grid's origin */
#define MIN_YEARS 5000			/* and before it */
#define CLOCK_CHANGE (3 * USECS_PER_HOUR)	/* at most, generously */

/* ---- wall time ---- */

/* The wall clock in a zone at a moment. */
int64
rk_wall_of(TimestampTz at, pg_tz *zone)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;
	Timestamp	wall;

	if (timestamp2tm(at, &offset, &tm, &fsec, NULL, zone) != 0 ||
		tm2timestamp(&tm, fsec, NULL, &wall) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return wall;
}

/* The moment at which the wall clock in a zone shows that. */
TimestampTz
rk_instant_of(int64 wall, pg_tz *zone)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;
	TimestampTz at;

	if (timestamp2tm(wall, NULL, &tm, &fsec, NULL, NULL) == 0)
	{
		offset = DetermineTimeZoneOffset(&tm, zone);
		if (tm2timestamp(&tm, fsec, &offset, &at) == 0)
			return at;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("timestamp out of range")));
}

static bool
is_calendar(const RkGrid *grid)
{
	return grid->step.unit == RK_STEP_DAYS || grid->step.unit == RK_STEP_MONTHS;
}

/* A position as wall time and back, where steps are of the calendar. */
static int64
to_wall(const RkGrid *grid, int64 position)
{
	return rk_key_is_instant(grid->key) ? rk_wall_of(position, grid->zone) : position;
}

static int64
from_wall(const RkGrid *grid, int64 wall)
{
	return rk_key_is_instant(grid->key) ? rk_instant_of(wall, grid->zone) : wall;
}

/* ---- points ---- */

static int64
calendar_point(const RkGrid *grid, int64 steps)
{
	Interval	shift = {0};
	Timestamp	wall;

	/* far past what a timestamp holds, or nearly there */
	if (grid->step.unit == RK_STEP_MONTHS)
	{
		if (steps > MAX_YEARS * MONTHS_PER_YEAR)
			return RK_NO_END;
		if (steps < -MIN_YEARS * MONTHS_PER_YEAR)
			return RK_NO_START;
		shift.month = (int32) steps;
	}
	else
	{
		if (steps > MAX_YEARS * DAYS_PER_YEAR)
			return RK_NO_END;
		if (steps < -MIN_YEARS * DAYS_PER_YEAR)
			return RK_NO_START;
		shift.day = (int32) steps;
	}
	wall = DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval,
												 TimestampGetDatum(grid->origin),
												 IntervalPGetDatum(&shift)));
	return from_wall(grid, wall);
}

/*
 * The first point that is not below 0, from which those that are not of the
 * calendar are counted: from an origin far below, counts would overflow.
 */
static int64
first_point(const RkGrid *grid)
{
	int64		rest = grid->origin % grid->step.count;

	return rest < 0 ? rest + grid->step.count : rest;
}

/* Point "number" of the grid; past what the type of time holds: without end. */
int64
rk_grid_point(const RkGrid *grid, int64 number)
{
	int64		steps;
	int64		position;

	if (pg_mul_s64_overflow(number, grid->step.count, &steps))
		return number < 0 ? RK_NO_START : RK_NO_END;
	if (is_calendar(grid))
		return calendar_point(grid, steps);
	if (pg_add_s64_overflow(first_point(grid), steps, &position))
		return number < 0 ? RK_NO_START : RK_NO_END;
	if (rk_key_is_time(grid->key) && !IS_VALID_TIMESTAMP(position))
		return number < 0 ? RK_NO_START : RK_NO_END;
	return position;
}

static int64
floor_div(int64 a, int64 b)
{
	int64		quotient = a / b;

	return a % b < 0 ? quotient - 1 : quotient;
}

/* Months from the origin's month to that of a wall time. */
static int64
months_between(int64 origin, int64 wall)
{
	struct pg_tm a;
	struct pg_tm b;
	fsec_t		fsec;

	if (timestamp2tm(origin, NULL, &a, &fsec, NULL, NULL) != 0 ||
		timestamp2tm(wall, NULL, &b, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return (int64) (b.tm_year - a.tm_year) * MONTHS_PER_YEAR + b.tm_mon - a.tm_mon;
}

static int64
estimate(const RkGrid *grid, int64 position)
{
	switch (grid->step.unit)
	{
		case RK_STEP_MONTHS:
			return floor_div(months_between(grid->origin, to_wall(grid, position)), grid->step.count);
		case RK_STEP_DAYS:
			return floor_div(floor_div(to_wall(grid, position) - grid->origin, USECS_PER_DAY),
							 grid->step.count);
		default:
			break;
	}
	return floor_div(position, grid->step.count);
}

/* The last point that is not past a position. */
int64
rk_grid_number(const RkGrid *grid, int64 position)
{
	int64		number;

	if (position == RK_NO_START || position == RK_NO_END)
		elog(ERROR, "position without end on a grid");
	number = estimate(grid, position);
	while (rk_grid_point(grid, number) > position)
		number--;
	while (rk_grid_point(grid, number + 1) <= position)
		number++;
	return number;
}

/*
 * The end of a partition that begins at a position. Where a change of the
 * zone's rules has moved the points by an hour since the bound before was
 * stored, the rest of an hour is no partition of its own.
 */
int64
rk_grid_next(const RkGrid *grid, int64 position)
{
	int64		number = rk_grid_number(grid, position) + 1;
	int64		next = rk_grid_point(grid, number);

	if (is_calendar(grid) && next != RK_NO_END && next - position <= CLOCK_CHANGE)
		next = rk_grid_point(grid, number + 1);
	return next;
}

/* ---- now, and lengths of time ---- */

/* The position of this moment; of time only. */
int64
rk_grid_now(const RkGrid *grid)
{
	TimestampTz now = GetCurrentTimestamp();

	return rk_key_is_instant(grid->key) ? now : rk_wall_of(now, grid->zone);
}

/* A position plus (sign 1) or minus (-1) an interval, in the grid's zone. */
int64
rk_grid_shift(const RkGrid *grid, int64 position, const Interval *by, int sign)
{
	Interval	calendar = {.month = by->month * sign,.day = by->day * sign};
	int64		wall = to_wall(grid, position);

	wall = DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval,
												 TimestampGetDatum(wall),
												 IntervalPGetDatum(&calendar)));
	return (by->month != 0 || by->day != 0 ? from_wall(grid, wall) : position) + by->time * sign;
}

/*
 * Where a grid begins that no partition shows: midnight of 1 January 2000, or
 * of the Monday after it where steps are weeks. Days and weeks that divide
 * nothing begin with the present one.
 */
int64
rk_grid_natural_origin(const RkGrid *grid)
{
	int64		today;

	if (grid->step.unit != RK_STEP_DAYS || grid->step.count == 1)
		return 0;
	if (grid->step.count == 7)
		return FIRST_MONDAY;
	today = floor_div(to_wall(grid, rk_grid_now(grid)), USECS_PER_DAY) * USECS_PER_DAY;
	if (grid->step.count % 7 == 0)
		today = FIRST_MONDAY + floor_div(today - FIRST_MONDAY, ONE_WEEK) * ONE_WEEK;
	return today;
}

/* ---- names ---- */

/*
 * What a partition is called after the table's name: the day it begins in the
 * grid's zone, with the time where that is not midnight; where periods are
 * shorter the moment, in UTC, which is unique.
 */
char *
rk_grid_name(const RkGrid *grid, int64 position)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int64		shown = position;

	if (!rk_key_is_time(grid->key))
		return position < 0 ? psprintf("pm" UINT64_FORMAT, (uint64) 0 - (uint64) position)
			: psprintf("p" INT64_FORMAT, position);
	if (is_calendar(grid))
		shown = to_wall(grid, position);
	if (timestamp2tm(shown, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	if (is_calendar(grid) && shown % USECS_PER_DAY == 0)
		return psprintf("p%04d%02d%02d", tm.tm_year, tm.tm_mon, tm.tm_mday);
	if ((is_calendar(grid) || grid->step.count % USECS_PER_MINUTE == 0) && tm.tm_sec == 0)
		return psprintf("p%04d%02d%02d_%02d%02d", tm.tm_year, tm.tm_mon, tm.tm_mday,
						tm.tm_hour, tm.tm_min);
	return psprintf("p%04d%02d%02d_%02d%02d%02d", tm.tm_year, tm.tm_mon, tm.tm_mday,
					tm.tm_hour, tm.tm_min, tm.tm_sec);
}
