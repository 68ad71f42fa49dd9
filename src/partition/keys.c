/*
 * keys.c
 *
 * What the values of a partition key say. Whatever its type, a value has a
 * position on one scale of int64 (partition.h), on which periods are reckoned
 * (grid.c), and a position is written as a bound of that type. Nothing here
 * depends on a session's settings: bounds are written as ISO and in UTC
 * whatever DateStyle and TimeZone say, and read as the values they are.
 */
#include "partition/partition.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/uuid.h"

#define POSTGRES_UNIX_SECONDS ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)
#define POSTGRES_UNIX_US (POSTGRES_UNIX_SECONDS * USECS_PER_SEC)
#define MAX_SHIFT 40
#define UUID_MS_BITS 48

static int64
floor_div(int64 a, int64 b)
{
	int64		quotient = a / b;

	return a % b < 0 ? quotient - 1 : quotient;
}

/* Whether its periods are of time. */
bool
rk_key_is_time(const RkKey *key)
{
	return key->kind != RK_KEY_ID;
}

/* Whether its positions are moments, and not wall time. */
bool
rk_key_is_instant(const RkKey *key)
{
	return rk_key_is_time(key) && key->kind != RK_KEY_TIMESTAMP && key->kind != RK_KEY_DATE;
}

/* ---- which key ---- */

static bool
is_number(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID || type == NUMERICOID;
}

static void
refuse_epoch(const char *epoch)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"epoch\": \"%s\" is not one of its values", epoch),
			 errhint("Use 's', 'ms', 'us', 'ns', 'uuidv7' or 'snowflake:<origin in ms>:<shift>', such as 'snowflake:1288834974657:22'.")));
}

static bool
parse_whole(const char *text, const char *end, int64 *value)
{
	int64		result = 0;

	if (text == end)
		return false;
	for (const char *c = text; c < end; c++)
		if (*c < '0' || *c > '9' ||
			pg_mul_s64_overflow(result, 10, &result) ||
			pg_add_s64_overflow(result, *c - '0', &result))
			return false;
	*value = result;
	return true;
}

/* snowflake:<milliseconds since 1970>:<bits> */
static void
parse_snowflake(RkKey *key, const char *epoch)
{
	const char *start = epoch + strlen("snowflake:");
	const char *colon = strchr(start, ':');
	int64		shift;

	if (colon == NULL || !parse_whole(start, colon, &key->start_ms) ||
		!parse_whole(colon + 1, epoch + strlen(epoch), &shift) ||
		shift < 1 || shift > MAX_SHIFT ||
		key->start_ms > END_TIMESTAMP / 1000)
		refuse_epoch(epoch);
	key->shift = (int) shift;
	key->kind = RK_KEY_SNOWFLAKE;
}

static void
apply_epoch(RkKey *key, const char *epoch)
{
	static const struct
	{
		const char *name;
		int64		per_second;
	}			units[] = {{"s", 1}, {"ms", 1000}, {"us", 1000000}, {"ns", 1000000000}};

	if (strcmp(epoch, "uuidv7") == 0)
	{
		if (key->type != UUIDOID)
			rk_refuse_option("epoch", psprintf("'uuidv7' does not fit a key of type %s",
											   format_type_be(key->type)), NULL);
		return;
	}
	if (!is_number(key->type))
		rk_refuse_option("epoch", psprintf("it is of keys that are numbers, not %s",
										   format_type_be(key->type)), NULL);
	for (int i = 0; i < lengthof(units); i++)
		if (strcmp(epoch, units[i].name) == 0)
		{
			key->kind = RK_KEY_EPOCH;
			key->per_second = units[i].per_second;
			return;
		}
	if (strncmp(epoch, "snowflake:", strlen("snowflake:")) != 0)
		refuse_epoch(epoch);
	if (key->type != INT8OID && key->type != NUMERICOID)
		rk_refuse_option("epoch", psprintf("snowflake ids do not fit into %s",
										   format_type_be(key->type)), NULL);
	parse_snowflake(key, epoch);
}

/*
 * The key that a column is, with the option "epoch" (NULL: none). Raises 22023
 * where it does not fit, 0A000 for a type that has no periods.
 */
RkKey *
rk_key_create(Oid relid, AttrNumber column, const char *epoch)
{
	RkKey	   *key = palloc0(sizeof(RkKey));

	key->column = column;
	key->name = get_attname(relid, column, false);
	key->type = getBaseType(get_atttype(relid, column));
	switch (key->type)
	{
		case TIMESTAMPTZOID:
			key->kind = RK_KEY_TIMESTAMPTZ;
			break;
		case TIMESTAMPOID:
			key->kind = RK_KEY_TIMESTAMP;
			break;
		case DATEOID:
			key->kind = RK_KEY_DATE;
			break;
		case UUIDOID:
			key->kind = RK_KEY_UUIDV7;
			break;
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
			key->kind = RK_KEY_ID;
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot maintain partitions of %s: its key %s is of type %s",
							rk_relation_name(relid), quote_identifier(key->name),
							format_type_be(key->type)),
					 errhint("Keys are timestamptz, timestamp, date, smallint, integer, bigint, numeric, or uuid (version 7).")));
	}
	if (epoch != NULL)
		apply_epoch(key, epoch);
	return key;
}

/* ---- positions of values ---- */

/* A number; what is out of the range of int64 is without end. */
static int64
number_of(Oid type, Datum value)
{
	switch (type)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		case INT8OID:
			return DatumGetInt64(value);
		default:
			break;
	}
	value = DirectFunctionCall1(numeric_floor, value);
	if (DatumGetBool(DirectFunctionCall2(numeric_gt, value,
										 NumericGetDatum(int64_to_numeric(PG_INT64_MAX)))))
		return RK_NO_END;
	if (DatumGetBool(DirectFunctionCall2(numeric_lt, value,
										 NumericGetDatum(int64_to_numeric(PG_INT64_MIN)))))
		return RK_NO_START;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, value));
}

/* Seconds since 1970 in some unit, as a position. */
static int64
position_of_epoch(const RkKey *key, int64 number)
{
	int64		us;

	if (number == RK_NO_START || number == RK_NO_END)
		return number;
	if (key->per_second > USECS_PER_SEC)
		us = floor_div(number, key->per_second / USECS_PER_SEC);
	else if (pg_mul_s64_overflow(number, USECS_PER_SEC / key->per_second, &us))
		return number < 0 ? RK_NO_START : RK_NO_END;
	if (pg_sub_s64_overflow(us, POSTGRES_UNIX_US, &us))
		return RK_NO_START;
	return us;
}

static int64
position_of_ms(int64 ms)
{
	int64		us;

	if (pg_mul_s64_overflow(ms, 1000, &us) || pg_sub_s64_overflow(us, POSTGRES_UNIX_US, &us))
		return ms < 0 ? RK_NO_START : RK_NO_END;
	return us;
}

static int64
position_of_uuid(const pg_uuid_t *uuid)
{
	int64		ms = 0;

	for (int i = 0; i < UUID_MS_BITS / 8; i++)
		ms = ms << 8 | uuid->data[i];
	return position_of_ms(ms);
}

/* Where a value of the key lies. */
int64
rk_key_position(const RkKey *key, Datum value)
{
	int64		number;

	switch (key->kind)
	{
		case RK_KEY_TIMESTAMPTZ:
		case RK_KEY_TIMESTAMP:
			return DatumGetTimestamp(value);	/* infinite ones are the same */
		case RK_KEY_DATE:
			if (DATE_IS_NOBEGIN(DatumGetDateADT(value)))
				return RK_NO_START;
			if (DATE_IS_NOEND(DatumGetDateADT(value)))
				return RK_NO_END;
			if (pg_mul_s64_overflow(DatumGetDateADT(value), USECS_PER_DAY, &number))
				return DatumGetDateADT(value) < 0 ? RK_NO_START : RK_NO_END;
			return number;
		case RK_KEY_EPOCH:
			return position_of_epoch(key, number_of(key->type, value));
		case RK_KEY_SNOWFLAKE:
			number = number_of(key->type, value);
			if (number == RK_NO_START || number == RK_NO_END)
				return number;
			return position_of_ms((number >> key->shift) + key->start_ms);
		case RK_KEY_UUIDV7:
			return position_of_uuid(DatumGetUUIDP(value));
		case RK_KEY_ID:
			break;
	}
	return number_of(key->type, value);
}

/* ---- bounds ---- */

/* A position of time as ISO text; zone: a moment, in UTC. */
char *
rk_time_text(int64 position, bool zone)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		buffer[MAXDATELEN + 1];

	if (timestamp2tm(position, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	tm.tm_isdst = 0;			/* there is a zone, if one is shown */
	EncodeDateTime(&tm, fsec, zone, 0, NULL, USE_ISO_DATES, buffer);
	return pstrdup(buffer);
}

static char *
date_text(int64 position)
{
	struct pg_tm tm;
	char		buffer[MAXDATELEN + 1];

	j2date((int) floor_div(position, USECS_PER_DAY) + POSTGRES_EPOCH_JDATE,
		   &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	EncodeDateOnly(&tm, USE_ISO_DATES, buffer);
	return pstrdup(buffer);
}

/* The range of a number's type. */
static bool
fits(Oid type, int64 number)
{
	switch (type)
	{
		case INT2OID:
			return number >= PG_INT16_MIN && number <= PG_INT16_MAX;
		case INT4OID:
			return number >= PG_INT32_MIN && number <= PG_INT32_MAX;
		default:
			return true;
	}
}

/*
 * A number as a bound. What lies past the type's range is past every row, so
 * the partition is open at that end.
 */
static char *
number_bound(const RkKey *key, bool overflow, int64 number)
{
	if (!overflow && fits(key->type, number))
		return psprintf("'" INT64_FORMAT "'", number);
	return pstrdup(number < 0 ? "MINVALUE" : "MAXVALUE");
}

static char *
epoch_bound(const RkKey *key, int64 position)
{
	int64		us;
	int64		number;
	bool		overflow = pg_add_s64_overflow(position, POSTGRES_UNIX_US, &us);

	number = overflow ? PG_INT64_MAX : us;
	if (!overflow && key->per_second > USECS_PER_SEC)
		overflow = pg_mul_s64_overflow(us, key->per_second / USECS_PER_SEC, &number);
	else if (!overflow)
		number = floor_div(us, USECS_PER_SEC / key->per_second);
	return number_bound(key, overflow, overflow ? position : number);
}

static char *
snowflake_bound(const RkKey *key, int64 position)
{
	int64		ms = floor_div(position, 1000) + POSTGRES_UNIX_US / 1000 - key->start_ms;
	int64		number;

	/* before its origin there are none */
	if (ms < 0)
		return pstrdup("MINVALUE");
	if (pg_mul_s64_overflow(ms, INT64CONST(1) << key->shift, &number))
		return pstrdup("MAXVALUE");
	return number_bound(key, false, number);
}

static char *
uuid_bound(int64 position)
{
	int64		ms = floor_div(position, 1000) + POSTGRES_UNIX_US / 1000;

	if (ms < 0)
		return pstrdup("MINVALUE");
	if (ms >= INT64CONST(1) << UUID_MS_BITS)
		return pstrdup("MAXVALUE");
	return psprintf("'%08x-%04x-0000-0000-000000000000'",
					(uint32) (ms >> 16), (uint32) (ms & 0xffff));
}

/* A position as a bound of a partition, in SQL. */
char *
rk_key_bound(const RkKey *key, int64 position)
{
	if (position == RK_NO_START)
		return pstrdup("MINVALUE");
	if (position == RK_NO_END)
		return pstrdup("MAXVALUE");
	switch (key->kind)
	{
		case RK_KEY_TIMESTAMPTZ:
			return psprintf("'%s'", rk_time_text(position, true));
		case RK_KEY_TIMESTAMP:
			return psprintf("'%s'", rk_time_text(position, false));
		case RK_KEY_DATE:
			return psprintf("'%s'", date_text(position));
		case RK_KEY_EPOCH:
			return epoch_bound(key, position);
		case RK_KEY_SNOWFLAKE:
			return snowflake_bound(key, position);
		case RK_KEY_UUIDV7:
			return uuid_bound(position);
		case RK_KEY_ID:
			break;
	}
	return number_bound(key, false, position);
}

/*
 * A bound as it is stored, in SQL: exactly that value, also where it lies
 * between two positions.
 */
char *
rk_key_stored_bound(const RkKey *key, Datum value)
{
	Oid			output;
	bool		varlena;

	switch (key->kind)
	{
		case RK_KEY_TIMESTAMPTZ:
		case RK_KEY_TIMESTAMP:
			if (TIMESTAMP_IS_NOBEGIN(DatumGetTimestamp(value)))
				return pstrdup("'-infinity'");
			if (TIMESTAMP_IS_NOEND(DatumGetTimestamp(value)))
				return pstrdup("'infinity'");
			return rk_key_bound(key, DatumGetTimestamp(value));
		case RK_KEY_DATE:
			if (DATE_IS_NOBEGIN(DatumGetDateADT(value)))
				return pstrdup("'-infinity'");
			if (DATE_IS_NOEND(DatumGetDateADT(value)))
				return pstrdup("'infinity'");
			return psprintf("'%s'", date_text((int64) DatumGetDateADT(value) * USECS_PER_DAY));
		default:
			break;
	}
	getTypeOutputInfo(key->type, &output, &varlena);
	return quote_literal_cstr(OidOutputFunctionCall(output, value));
}
