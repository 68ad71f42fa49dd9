/*
 * options.c
 *
 * What partition() was told of a table: JSON in a row of
 * rowkeeper._partition_tables, which a dump takes along and which has tables by
 * their names. (A trigger to carry it, as other features have one, would lock
 * out writers whenever it is made or an option changes; nothing of this feature
 * happens per row.)
 *
 * Lengths are texts, because what they are depends on the key: an interval, or a
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

#define MAX_YEARS 6000			/* so far time goes back */

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

/* ---- the registry ---- */

/* The key of a table's row: its schema and name; false: there is no such table. */
static bool
names_of(Oid relid, Datum values[2])
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		return false;
	values[0] = CStringGetTextDatum(get_namespace_name(get_rel_namespace(relid)));
	values[1] = CStringGetTextDatum(name);
	return true;
}

#define OF_TABLE " WHERE table_schema = $1 AND table_name = $2"

/* What is wanted of a table; NULL where it is not maintained. */
RkPartitionOptions *
rk_partition_options_of(Oid root)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];
	bool		isnull;
	Datum		stored;

	if (!names_of(root, values))
		return NULL;
	stored = rk_fetch(rk_extension_owner(), "SELECT options FROM rowkeeper._partition_tables" OF_TABLE,
					  2, types, values, NULL, &isnull);
	return isnull ? rk_partition_own_options_of(root) : rk_partition_options_parse(DatumGetJsonbP(stored));
}

void
rk_partition_options_store(Oid root, const RkPartitionOptions *options)
{
	Oid			types[3] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3];

	if (!names_of(root, values))
		elog(ERROR, "cache lookup failed for relation %u", root);
	values[2] = CStringGetTextDatum(rk_partition_options_format(options));
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper._partition_tables (table_schema, table_name, options) VALUES ($1, $2, $3::jsonb)"
					   " ON CONFLICT (table_schema, table_name) DO UPDATE SET options = EXCLUDED.options",
					   3, types, values, NULL);
}

/* Returns whether it was maintained. */
bool
rk_partition_options_forget(Oid root)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2];

	return names_of(root, values) &&
		rk_run_args(rk_extension_owner(), "DELETE FROM rowkeeper._partition_tables" OF_TABLE,
					2, types, values, NULL) > 0;
}

/* ---- what becomes of the names ---- */

/* A relation is gone that had this identity, as the server writes it. */
void
rk_partition_name_dropped(const char *identity)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(identity)};

	(void) rk_run_args(rk_extension_owner(),
					   "DELETE FROM rowkeeper._partition_tables"
					   " WHERE ARRAY[table_schema, table_name]::text[] = parse_ident($1)",
					   1, types, values, NULL);
}

/*
 * A table of the first names has the others now. Whatever was said of one that
 * had those before is of one that is gone. Returns whether it is maintained.
 */
static bool
move_row(const char *schema, const char *name, const char *new_schema, const char *new_name)
{
	Oid			types[4] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4] = {
		CStringGetTextDatum(new_schema), CStringGetTextDatum(new_name),
		CStringGetTextDatum(schema), CStringGetTextDatum(name)
	};

	(void) rk_run_args(rk_extension_owner(), "DELETE FROM rowkeeper._partition_tables" OF_TABLE,
					   2, types, values, NULL);
	return rk_run_args(rk_extension_owner(),
					   "UPDATE rowkeeper._partition_tables SET table_schema = $1, table_name = $2"
					   " WHERE table_schema = $3 AND table_name = $4",
					   4, types, values, NULL) > 0;
}

/* A table was renamed. */
void
rk_partition_name_changed(Oid relid, const char *old_name)
{
	char	   *schema = get_namespace_name(get_rel_namespace(relid));

	(void) move_row(schema, old_name, schema, get_rel_name(relid));
}

/*
 * A table went into another schema, from this one; NULL: from the first in
 * search_path that had it, and so has none of its name any more.
 */
void
rk_partition_schema_changed(Oid relid, const char *old_schema)
{
	char	   *name = get_rel_name(relid);
	char	   *schema = get_namespace_name(get_rel_namespace(relid));
	ListCell   *lc;

	if (old_schema != NULL)
	{
		(void) move_row(old_schema, name, schema, name);
		return;
	}
	foreach(lc, fetch_search_path(false))
	{
		if (!OidIsValid(get_relname_relid(name, lfirst_oid(lc))) &&
			move_row(get_namespace_name(lfirst_oid(lc)), name, schema, name))
			break;
	}
}

/* A schema was renamed; what was said of one of that name is of one that is gone. */
void
rk_partition_schema_renamed(const char *old_name, const char *new_name)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(new_name), CStringGetTextDatum(old_name)};

	(void) rk_run_args(rk_extension_owner(), "DELETE FROM rowkeeper._partition_tables WHERE table_schema = $1",
					   1, types, values, NULL);
	(void) rk_run_args(rk_extension_owner(),
					   "UPDATE rowkeeper._partition_tables SET table_schema = $1 WHERE table_schema = $2",
					   2, types, values, NULL);
}

/* Every table that partition() was told of and that exists: RkPartitionTable *. */
List *
rk_partition_tables(void)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *tables = NIL;
	RkIdentity	saved;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute("SELECT c.oid, t.options FROM rowkeeper._partition_tables t"
					" JOIN pg_namespace n ON n.nspname = t.table_schema"
					" JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name ORDER BY c.oid",
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the maintained tables");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);
		RkPartitionTable *table = palloc(sizeof(RkPartitionTable));
		bool		isnull;

		table->root = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		table->options = rk_partition_options_parse(DatumGetJsonbP(SPI_getbinval(SPI_tuptable->vals[i],
																				 SPI_tuptable->tupdesc, 2, &isnull)));
		tables = lappend(tables, table);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return tables;
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
		interval->time / (USECS_PER_DAY * DAYS_PER_YEAR) > MAX_YEARS)
		rk_refuse_option(option, psprintf("\"%s\" is more than %d years", text, MAX_YEARS),
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
