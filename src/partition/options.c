/*
 * options.c
 *
 * What partition() was told of a table: JSON in the registry. Lengths are texts, because what they are depends on the key: an interval, or a
 * whole number. They are read here, strictly: '1' is never a second.
 */
#include "partition/partition.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

/* ---- as JSON ---- */

RkPartitionOptions *
rk_partition_options_parse(Jsonb *stored)
{
	RkPartitionOptions *options = palloc0(sizeof(RkPartitionOptions));

	options->every = rk_option_text(stored, "every");
	options->ahead = rk_option_text(stored, "ahead");
	options->keep = rk_option_text(stored, "keep");
	options->on_expiry = rk_option_text(stored, "on_expiry");
	options->archive_schema = rk_option_text(stored, "archive_schema");
	options->timezone = rk_option_text(stored, "timezone");
	options->partition_schema = rk_option_text(stored, "partition_schema");
	options->brin = rk_option_boolean(stored, "brin", false);
	options->epoch = rk_option_text(stored, "epoch");
	options->origin = rk_option_text(stored, "origin");
	return options;
}

/* Equal options are equal text. */
char *
rk_partition_options_format(const RkPartitionOptions *options)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	rk_option_push_text(&state, "every", options->every);
	rk_option_push_text(&state, "ahead", options->ahead);
	rk_option_push_text(&state, "keep", options->keep);
	rk_option_push_text(&state, "on_expiry", options->on_expiry);
	rk_option_push_text(&state, "archive_schema", options->archive_schema);
	rk_option_push_text(&state, "timezone", options->timezone);
	rk_option_push_text(&state, "partition_schema", options->partition_schema);
	rk_option_push_boolean(&state, "brin", options->brin);
	rk_option_push_text(&state, "epoch", options->epoch);
	rk_option_push_text(&state, "origin", options->origin);
	return rk_options_text(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* ---- lengths ---- */

typedef struct Parse
{
	const char *input;
	Interval   *result;
} Parse;

static void
parse_interval(void *arg)
{
	Parse	   *parse = arg;

	parse->result = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(parse->input),
														  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

/* A text that has been checked, or is stored. */
Interval *
rk_partition_interval(const char *text)
{
	Parse		parse;

	parse.input = text;

	parse_interval(&parse);
	return parse.result;
}

int64
rk_partition_number(const char *text)
{
	return DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(text)));
}

/* As it is stored, whatever IntervalStyle says. */
char *
rk_partition_interval_text(const Interval *interval)
{
	int			style = IntervalStyle;
	char	   *text;

	IntervalStyle = INTSTYLE_POSTGRES;	/* nothing in between can fail but
										 * memory */
	text = DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));

	IntervalStyle = style;
	return text;
}

static bool
is_bare_number(const char *text)
{
	return strspn(text, " \t\n+-.0123456789") == strlen(text);
}

static char *
check_interval(const char *option, const char *text, bool zero)
{
	Parse		parse;
	ErrorData  *error;
	Interval   *interval;

	parse.input = text;

	if (zero && strcmp(text, "0") == 0)
		return NULL;
	if (is_bare_number(text))
		rk_refuse_option(option, psprintf("\"%s\" is no length of time", text),
						 "The key is of time: say the unit, as in '1 month' or '6 hours'.");
	error = rk_attempt(parse_interval, &parse);
	if (error != NULL)
		rk_refuse_option(option, psprintf("\"%s\" is no length of time", text),
						 "Such as '1 month', '1 week' or '6 hours'.");
	interval = parse.result;
	if (interval->month == 0 && interval->day == 0 && interval->time == 0)
	{
		if (zero)
			return NULL;
		rk_refuse_option(option, "must be longer than nothing", NULL);
	}
	if (interval->month < 0 || interval->day < 0 || interval->time < 0)
		rk_refuse_option(option, "must not be negative", NULL);
	if (interval->month == PG_INT32_MAX)	/* infinity, where there is one */
		rk_refuse_option(option, "must be finite", NULL);
	if (interval->month / MONTHS_PER_YEAR + interval->day / DAYS_PER_YEAR +
		interval->time / (USECS_PER_DAY * DAYS_PER_YEAR) > RK_MAX_YEARS)
		rk_refuse_option(option, psprintf("\"%s\" is more than %d years", text, RK_MAX_YEARS),
						 zero ? "'0' keeps for ever." : NULL);
	return rk_partition_interval_text(interval);
}

static char *
check_number(const char *option, const char *text, bool zero)
{
	int64		number = 0;
	const char *c = text;

	for (; *c >= '0' && *c <= '9'; c++)
		if (pg_mul_s64_overflow(number, 10, &number) ||
			pg_add_s64_overflow(number, *c - '0', &number))
			rk_refuse_option(option, psprintf("\"%s\" is out of range", text), NULL);
	if (*c != '\0' || c == text)
		rk_refuse_option(option, psprintf("\"%s\" is no whole number above 0", text),
						 "The key is of ids: say how many, as in '1000000'. (A number that says a moment: name its unit with \"epoch\".)");
	if (number == 0 && !zero)
		rk_refuse_option(option, "must be above 0", NULL);
	return number == 0 ? NULL : psprintf(INT64_FORMAT, number);
}

/*
 * A length on the key's scale, as it is stored; NULL for '0' where that is
 * allowed. Raises 22023, naming the option.
 */
char *
rk_partition_check_length(const RkKey *key, const char *option, const char *text, bool zero)
{
	return rk_key_is_time(key) ? check_interval(option, text, zero)
		: check_number(option, text, zero);
}

static void
check_resolution(const RkKey *key, int64 microseconds)
{
	int64		resolution = 1;

	if (key->kind == RK_KEY_DATE)
		rk_refuse_option("every", "a date is not divided", "Use days, weeks, months or years.");
	if (key->kind == RK_KEY_EPOCH && key->per_second < USECS_PER_SEC)
		resolution = USECS_PER_SEC / key->per_second;
	if (key->kind == RK_KEY_SNOWFLAKE || key->kind == RK_KEY_UUIDV7)
		resolution = 1000;
	if (microseconds < USECS_PER_SEC)
		rk_refuse_option("every", "must be a second at least", NULL);
	if (microseconds % resolution != 0)
		rk_refuse_option("every", "the key does not tell moments so close together", NULL);
}

/* The step that a checked "every" is; raises 22023 for mixed units. */
RkStep
rk_partition_step(const RkKey *key, const char *every)
{
	RkStep		step = {.unit = RK_STEP_NUMBER};
	Interval   *interval;

	if (!rk_key_is_time(key))
	{
		step.count = rk_partition_number(every);
		return step;
	}
	interval = rk_partition_interval(every);
	if ((interval->month != 0) + (interval->day != 0) + (interval->time != 0) != 1)
		rk_refuse_option("every", psprintf("\"%s\" mixes units of different length", every),
						 "Months, or days and weeks, or hours and less.");
	if (interval->month != 0)
	{
		step.unit = RK_STEP_MONTHS;
		step.count = interval->month;
	}
	else if (interval->day != 0)
	{
		step.unit = RK_STEP_DAYS;
		step.count = interval->day;
	}
	else
	{
		check_resolution(key, interval->time);
		step.unit = RK_STEP_MICROSECONDS;
		step.count = interval->time;
	}
	return step;
}

/* A time zone by its name; raises 22023. */
pg_tz *
rk_partition_zone(const char *name)
{
	pg_tz	   *zone = pg_tzset(name);

	if (zone == NULL || !pg_tz_acceptable(zone))
		rk_refuse_option("timezone", psprintf("\"%s\" is no time zone", name),
						 "pg_timezone_names lists them, such as 'Europe/Berlin'.");
	return zone;
}

/* ---- origins ---- */

int64
rk_partition_origin(const RkGrid *grid, const char *text)
{
	if (!rk_key_is_time(grid->key))
		return rk_partition_number(text);
	return DatumGetTimestamp(DirectFunctionCall3(timestamp_in, CStringGetDatum(text),
												 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

char *
rk_partition_origin_text(const RkGrid *grid, int64 origin)
{
	return rk_key_is_time(grid->key) ? rk_time_text(origin, false)
		: psprintf(INT64_FORMAT, origin);
}
