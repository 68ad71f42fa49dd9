/*
 * shown.c
 *
 * A table that has partitions already shows how they are to go on: how long
 * they are, in which zone they begin at midnight, and from which point they
 * are reckoned. The last ones count.
 */
#include "partition/partition.h"

#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"

#define BOUNDS_COMPARED 12
#define NEARLY_A_DAY (20 * USECS_PER_HOUR)

/* The last partition that has both ends; NULL: there is none. */
static const RkPartition *
last_whole(const RkPartitionSet *set)
{
	for (int i = set->count - 1; i >= 0; i--)
		if (!set->parts[i].pending &&
			set->parts[i].lower != RK_NO_START && set->parts[i].upper != RK_NO_END)
			return &set->parts[i];
	return NULL;
}

static bool
is_midnight(int64 position, pg_tz *zone)
{
	return rk_wall_of(position, zone) % USECS_PER_DAY == 0;
}

static bool
fits_zone(const RkPartition *part, pg_tz *zone)
{
	return is_midnight(part->lower, zone) && is_midnight(part->upper, zone);
}

/*
 * The zone at whose midnight partitions begin: UTC or the session's. UTC where
 * that does not matter; NULL where it is neither.
 */
char *
rk_partition_shown_zone(const RkPartitionSet *set)
{
	const RkPartition *last = last_whole(set);

	if (last == NULL || !rk_key_is_instant(set->key) || last->upper - last->lower < NEARLY_A_DAY ||
		fits_zone(last, rk_partition_zone("UTC")))
		return pstrdup("UTC");
	if (fits_zone(last, session_timezone))
		return pstrdup(pg_get_timezone_name(session_timezone));
	return NULL;
}

static int64
wall(const RkPartitionSet *set, int64 position)
{
	return rk_key_is_instant(set->key) ? rk_wall_of(position, set->grid.zone) : position;
}

static int
months_of(int64 from, int64 to)
{
	struct pg_tm a;
	struct pg_tm b;
	fsec_t		fsec;

	if (timestamp2tm(from, NULL, &a, &fsec, NULL, NULL) != 0 ||
		timestamp2tm(to, NULL, &b, &fsec, NULL, NULL) != 0)
		return 0;
	return (b.tm_year - a.tm_year) * MONTHS_PER_YEAR + b.tm_mon - a.tm_mon;
}

static bool
is_last_of_month(int64 at)
{
	struct pg_tm tm;
	fsec_t		fsec;

	return timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) == 0 &&
		tm.tm_mday == day_tab[isleap(tm.tm_year)][tm.tm_mon - 1];
}

/* Whether from one to the other it is some months, whatever month ends do. */
static bool
are_months(int64 from, int64 to, int32 months)
{
	Interval	forth = {.month = months};
	Interval	back = {.month = -months};

	if (months <= 0)
		return false;
	if (DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval, TimestampGetDatum(from),
											  IntervalPGetDatum(&forth))) == to)
		return true;
	return is_last_of_month(from) &&
		DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval, TimestampGetDatum(to),
											  IntervalPGetDatum(&back))) == from;
}

/*
 * How long the last partition is, in the set's zone: months, days, or time;
 * NULL: nothing shows it.
 */
char *
rk_partition_shown_every(const RkPartitionSet *set)
{
	const RkPartition *last = last_whole(set);
	Interval	length = {0};
	int64		from;
	int64		to;

	if (last == NULL)
		return NULL;
	if (!rk_key_is_time(set->key))
		return psprintf(INT64_FORMAT, last->upper - last->lower);
	from = wall(set, last->lower);
	to = wall(set, last->upper);
	if (are_months(from, to, months_of(from, to)))
		length.month = months_of(from, to);
	else if ((to - from) % USECS_PER_DAY == 0)
		length.day = (int32) ((to - from) / USECS_PER_DAY);
	else
		length.time = last->upper - last->lower;
	return rk_partition_interval_text(&length);
}

/* ---- the point from which partitions are reckoned ---- */

static bool
is_on_grid(const RkGrid *grid, int64 position)
{
	return rk_grid_point(grid, rk_grid_number(grid, position)) == position;
}

/* The finite bounds of the last partitions, newest first. */
static int
last_bounds(const RkPartitionSet *set, int64 *bounds)
{
	int			count = 0;

	for (int i = set->count - 1; i >= 0 && count < BOUNDS_COMPARED; i--)
	{
		if (count == 0 && set->parts[i].upper != RK_NO_END)
			bounds[count++] = set->parts[i].upper;
		if (count < BOUNDS_COMPARED && set->parts[i].lower != RK_NO_START)
			bounds[count++] = set->parts[i].lower;
	}
	return count;
}

static int
count_on_grid(const RkGrid *grid, const int64 *bounds, int count)
{
	int			fit = 0;

	for (int i = 0; i < count; i++)
		fit += is_on_grid(grid, bounds[i]);
	return fit;
}

/*
 * The origin of the set's grid: the natural one, where the last bound lies on
 * that grid or there is none, or as many bounds do as from any other; else the
 * bound from which most of the others follow (of months that begin on the 31st,
 * one with 31 days), of equal ones the newest.
 */
int64
rk_partition_shown_origin(const RkPartitionSet *set)
{
	int64		bounds[BOUNDS_COMPARED];
	int			count = last_bounds(set, bounds);
	RkGrid		grid = set->grid;
	int64		best_origin;
	int			best;

	grid.origin = best_origin = rk_grid_natural_origin(&grid);
	if (count == 0 || is_on_grid(&grid, bounds[0]))
		return best_origin;
	best = count_on_grid(&grid, bounds, count);
	for (int i = 0; i < count; i++)
	{
		int			fit;

		grid.origin = grid.step.unit == RK_STEP_DAYS || grid.step.unit == RK_STEP_MONTHS
			? wall(set, bounds[i]) : bounds[i];
		fit = count_on_grid(&grid, bounds, count);
		if (fit > best)
		{
			best = fit;
			best_origin = grid.origin;
		}
	}
	return best_origin;
}
