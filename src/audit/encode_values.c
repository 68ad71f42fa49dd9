/*
 * encode_values.c
 *
 * Single values as jsonb holds them. The server gets a number into jsonb by
 * printing it and reading the text back as numeric, and a timestamp by way of
 * struct pg_tm and the session's time zone; here the same bytes are written
 * directly. That is where most of the encoder's time is won.
 *
 * A numeric on disk is a varlena of a header and digits of base 10000, most
 * significant first, without leading or trailing zero digits. The header has
 * a short form (one uint16) for weights of -64 to 63 and up to 63 decimals,
 * and a long one (two). The format is private to the server's numeric.c, but
 * it is what tables hold, and so cannot change under a running cluster.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/syscache.h"

#include "audit/encode.h"

#define DIGIT_BASE 10000
#define DIGIT_WIDTH 4			/* decimal digits in one of base 10000 */

#define FORM_MASK 0xC000
#define FORM_NEGATIVE 0x4000
#define FORM_SHORT 0x8000
#define FORM_SPECIAL 0xC000

#define SPECIAL_MASK 0xF000
#define SPECIAL_PLUS_INFINITY 0xD000
#define SPECIAL_MINUS_INFINITY 0xF000

#define SHORT_NEGATIVE 0x2000
#define SHORT_DSCALE_MASK 0x1F80
#define SHORT_DSCALE_SHIFT 7
#define SHORT_DSCALE_MAX 63
#define SHORT_WEIGHT_NEGATIVE 0x0040
#define SHORT_WEIGHT_MASK 0x003F
#define SHORT_WEIGHT_MAX 63
#define SHORT_WEIGHT_MIN (-64)

#define LONG_DSCALE_MASK 0x3FFF

#define ENUM_CACHE_SIZE 256

typedef struct EnumLabel
{
	Oid			value;			/* InvalidOid: empty */
	uint32		len;
	NameData	label;
} EnumLabel;

/* Direct-mapped by the value's oid; 18 kB, in no memory context. */
static EnumLabel enum_labels[ENUM_CACHE_SIZE];
static bool enum_callback_registered = false;
static uint64 enum_generation = 0;

static const char two_digits[] =
"00010203040506070809" "10111213141516171819" "20212223242526272829"
"30313233343536373839" "40414243444546474849" "50515253545556575859"
"60616263646566676869" "70717273747576777879" "80818283848586878889"
"90919293949596979899";

#define HEX_ROW(h) h "0" h "1" h "2" h "3" h "4" h "5" h "6" h "7" \
				   h "8" h "9" h "a" h "b" h "c" h "d" h "e" h "f"
static const char hex_pairs[] =
HEX_ROW("0") HEX_ROW("1") HEX_ROW("2") HEX_ROW("3")
HEX_ROW("4") HEX_ROW("5") HEX_ROW("6") HEX_ROW("7")
HEX_ROW("8") HEX_ROW("9") HEX_ROW("a") HEX_ROW("b")
HEX_ROW("c") HEX_ROW("d") HEX_ROW("e") HEX_ROW("f");

static inline char *
put_two(char *to, uint32 value)
{
	memcpy(to, two_digits + value * 2, 2);
	return to + 2;
}

static inline bool
fits_short_form(int dscale, int weight)
{
	return dscale <= SHORT_DSCALE_MAX &&
		weight <= SHORT_WEIGHT_MAX && weight >= SHORT_WEIGHT_MIN;
}

void
rk_numeric_parse(RkNumeric *num, const char *payload, Size len)
{
	uint16		header;
	Size		header_size;

	memcpy(&header, payload, sizeof(header));
	num->special = '\0';
	if ((header & FORM_MASK) == FORM_SPECIAL)
	{
		switch (header & SPECIAL_MASK)
		{
			case SPECIAL_PLUS_INFINITY:
				num->special = '+';
				break;
			case SPECIAL_MINUS_INFINITY:
				num->special = '-';
				break;
			default:
				num->special = 'n';
		}
		return;
	}

	if ((header & FORM_MASK) == FORM_SHORT)
	{
		header_size = sizeof(uint16);
		num->negative = (header & SHORT_NEGATIVE) != 0;
		num->dscale = (header & SHORT_DSCALE_MASK) >> SHORT_DSCALE_SHIFT;
		num->weight = header & SHORT_WEIGHT_MASK;
		if (header & SHORT_WEIGHT_NEGATIVE)
			num->weight |= ~SHORT_WEIGHT_MASK;
		num->canonical = true;
	}
	else
	{
		int16		weight;

		memcpy(&weight, payload + sizeof(uint16), sizeof(weight));
		header_size = sizeof(uint16) + sizeof(int16);
		num->negative = (header & FORM_MASK) == FORM_NEGATIVE;
		num->dscale = header & LONG_DSCALE_MASK;
		num->weight = weight;
		num->canonical = !fits_short_form(num->dscale, num->weight);
	}

	num->digits = payload + header_size;
	num->ndigits = (len - header_size) / sizeof(int16);
	if (num->ndigits > 0 &&
		(rk_numeric_digit(num, 0) == 0 ||
		 rk_numeric_digit(num, num->ndigits - 1) == 0))
		num->canonical = false;
}

/*
 * Write a numeric varlena, 4-byte header, "to" aligned. The digits must be
 * stripped of zeros at both ends.
 */
static char *
put_numeric(char *to, bool negative, int dscale, int weight,
			const int16 *digits, int ndigits)
{
	char	   *start = to;

	if (ndigits == 0)
	{
		negative = false;
		weight = 0;
	}

	to += VARHDRSZ;
	if (fits_short_form(dscale, weight))
	{
		uint16		header = FORM_SHORT |
			(negative ? SHORT_NEGATIVE : 0) |
			(dscale << SHORT_DSCALE_SHIFT) |
			(weight < 0 ? SHORT_WEIGHT_NEGATIVE : 0) |
			(weight & SHORT_WEIGHT_MASK);

		memcpy(to, &header, sizeof(header));
		to += sizeof(header);
	}
	else
	{
		uint16		header = (negative ? FORM_NEGATIVE : 0) | dscale;
		int16		long_weight = weight;

		memcpy(to, &header, sizeof(header));
		memcpy(to + sizeof(header), &long_weight, sizeof(long_weight));
		to += sizeof(header) + sizeof(long_weight);
	}
	memcpy(to, digits, ndigits * sizeof(int16));
	to += ndigits * sizeof(int16);
	SET_VARSIZE(start, to - start);
	return to;
}

char *
rk_put_int64(char *to, int64 value)
{
	int16		digits[5];		/* 10000^5 > 2^64 */
	int			first = lengthof(digits);
	int			last = lengthof(digits);
	uint64		rest = value < 0 ? -(uint64) value : (uint64) value;

	if (rest < DIGIT_BASE)
	{
		digits[0] = (int16) rest;
		return put_numeric(to, value < 0, 0, 0, digits, rest != 0);
	}

	do
	{
		digits[--first] = (int16) (rest % DIGIT_BASE);
		rest /= DIGIT_BASE;
	} while (rest != 0);
	while (digits[last - 1] == 0)
		last--;
	return put_numeric(to, value < 0, 0, (int) lengthof(digits) - 1 - first,
					   digits + first, last - first);
}

/*
 * A float as the numeric of its shortest exact text, which is what
 * extra_float_digits = 1 prints; NaN and the infinities as strings.
 */
char *
rk_put_float(char *to, double value, bool single, bool *is_string)
{
	char		printed[DOUBLE_SHORTEST_DECIMAL_LEN];
	const char *p = printed;
	uint8		decimals[DOUBLE_SHORTEST_DECIMAL_LEN];
	int			ndecimals = 0;
	int			dscale = 0;
	int			dweight = -1;	/* power of ten of the first decimal */
	int			weight;
	int			offset;
	int			ndigits;
	int16		digits[DOUBLE_SHORTEST_DECIMAL_LEN];
	int			first = 0;
	bool		negative = false;
	bool		point = false;
	double		exact = single ? 16777216.0 : 9007199254740992.0;
	int			len;

	*is_string = false;

	/* up to 2^24 or 2^53 the shortest text of an integer is its digits */
	if (value > -exact && value < exact && value == (double) (int64) value)
		return rk_put_int64(to, (int64) value);

	if (single)
		len = float_to_shortest_decimal_buf((float) value, printed);
	else
		len = double_to_shortest_decimal_buf(value, printed);

	if (isnan(value) || isinf(value))
	{
		*is_string = true;
		memcpy(to, printed, len);
		return to + len;
	}

	if (*p == '-')
	{
		negative = true;
		p++;
	}
	for (; *p != '\0' && *p != 'e'; p++)
	{
		if (*p == '.')
		{
			point = true;
			continue;
		}
		decimals[ndecimals++] = *p - '0';
		if (point)
			dscale++;
		else
			dweight++;
	}
	if (*p == 'e')
	{
		int			exponent = atoi(p + 1);

		dweight += exponent;
		dscale = Max(dscale - exponent, 0);
	}

	/* regroup by four, aligned at the decimal point */
	if (dweight >= 0)
		weight = dweight / DIGIT_WIDTH;
	else
		weight = -((-dweight - 1) / DIGIT_WIDTH + 1);
	offset = (weight + 1) * DIGIT_WIDTH - (dweight + 1);
	ndigits = (ndecimals + offset + DIGIT_WIDTH - 1) / DIGIT_WIDTH;
	for (int i = 0; i < ndigits; i++)
	{
		int			group = 0;

		for (int j = 0; j < DIGIT_WIDTH; j++)
		{
			int			at = i * DIGIT_WIDTH + j - offset;

			group = group * 10 + (at >= 0 && at < ndecimals ? decimals[at] : 0);
		}
		digits[i] = group;
	}
	while (ndigits > 0 && digits[first] == 0)
	{
		first++;
		weight--;
		ndigits--;
	}
	while (ndigits > 0 && digits[first + ndigits - 1] == 0)
		ndigits--;
	return put_numeric(to, negative, dscale, weight, digits + first, ndigits);
}

char *
rk_put_hex(char *to, const char *bytes, Size len)
{
	for (Size i = 0; i < len; i++, to += 2)
		memcpy(to, hex_pairs + (uint8) bytes[i] * 2, 2);
	return to;
}

char *
rk_put_uuid(char *to, const pg_uuid_t *uuid)
{
	const char *bytes = (const char *) uuid->data;

	to = rk_put_hex(to, bytes, 4);
	*to++ = '-';
	to = rk_put_hex(to, bytes + 4, 2);
	*to++ = '-';
	to = rk_put_hex(to, bytes + 6, 2);
	*to++ = '-';
	to = rk_put_hex(to, bytes + 8, 2);
	*to++ = '-';
	return rk_put_hex(to, bytes + 10, 6);
}

/*
 * Years 1 to 9999 are written here, by the usual arithmetic on days since
 * 0000-03-01 in eras of 400 years; the rest is left to the server.
 */
#define DAYS_TO_YEAR_ONE (-730119)	/* 0001-01-01, from 2000-01-01 */
#define DAYS_TO_YEAR_10000 2921940	/* 10000-01-01 */
#define DAYS_FROM_MARCH_0000 730425 /* to 2000-01-01 */

static char *
put_day(char *to, int32 day)
{
	uint32		days = day + DAYS_FROM_MARCH_0000;
	uint32		era = days / 146097;
	uint32		of_era = days % 146097;
	uint32		year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	uint32		of_year = of_era - (365 * year + year / 4 - year / 100);
	uint32		month = (5 * of_year + 2) / 153;	/* 0: March */
	uint32		of_month = of_year - (153 * month + 2) / 5 + 1;

	year += era * 400;
	if (month < 10)
		month += 3;
	else
	{
		month -= 9;
		year++;
	}
	to = put_two(to, year / 100);
	to = put_two(to, year % 100);
	*to++ = '-';
	to = put_two(to, month);
	*to++ = '-';
	return put_two(to, of_month);
}

char *
rk_put_time(char *to, TimeADT time)
{
	uint32		seconds = (uint32) (time / USECS_PER_SEC);
	uint32		micros = (uint32) (time % USECS_PER_SEC);

	to = put_two(to, seconds / SECS_PER_HOUR);
	*to++ = ':';
	to = put_two(to, seconds / SECS_PER_MINUTE % MINS_PER_HOUR);
	*to++ = ':';
	to = put_two(to, seconds % SECS_PER_MINUTE);
	if (micros != 0)
	{
		*to++ = '.';
		to = put_two(to, micros / 10000);
		to = put_two(to, micros / 100 % 100);
		to = put_two(to, micros % 100);
		while (to[-1] == '0')
			to--;
	}
	return to;
}

char *
rk_put_date(char *to, DateADT date)
{
	if (date >= DAYS_TO_YEAR_ONE && date < DAYS_TO_YEAR_10000)
		return put_day(to, date);
	JsonEncodeDateTime(to, DateADTGetDatum(date), DATEOID, NULL);
	return to + strlen(to);
}

/* Always in UTC: without a zone that is the value itself. */
char *
rk_put_timestamp(char *to, Timestamp timestamp, bool with_zone)
{
	if (timestamp >= DAYS_TO_YEAR_ONE * USECS_PER_DAY &&
		timestamp < DAYS_TO_YEAR_10000 * USECS_PER_DAY)
	{
		int64		day = timestamp / USECS_PER_DAY;
		int64		time = timestamp % USECS_PER_DAY;

		if (time < 0)
		{
			time += USECS_PER_DAY;
			day--;
		}
		to = put_day(to, (int32) day);
		*to++ = 'T';
		to = rk_put_time(to, time);
		if (with_zone)
		{
			memcpy(to, "+00:00", 6);
			to += 6;
		}
		return to;
	}

	if (with_zone)
	{
		int			utc = 0;

		JsonEncodeDateTime(to, TimestampTzGetDatum(timestamp), TIMESTAMPTZOID, &utc);
	}
	else
		JsonEncodeDateTime(to, TimestampGetDatum(timestamp), TIMESTAMPOID, NULL);
	return to + strlen(to);
}

static void
forget_enum_labels(Datum arg, int cacheid, uint32 hashvalue)
{
	enum_generation++;
	for (int i = 0; i < ENUM_CACHE_SIZE; i++)
		enum_labels[i].value = InvalidOid;
}

const char *
rk_enum_label(Oid value, uint32 *len)
{
	EnumLabel  *slot = &enum_labels[value % ENUM_CACHE_SIZE];
	HeapTuple	tuple;
	uint64		generation;
	const char *label;

	if (likely(slot->value == value && OidIsValid(value)))
	{
		*len = slot->len;
		return NameStr(slot->label);
	}

	if (!enum_callback_registered)
	{
		CacheRegisterSyscacheCallback(ENUMOID, forget_enum_labels, (Datum) 0);
		enum_callback_registered = true;
	}

	generation = enum_generation;
	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(value));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid internal value for enum: %u", value)));
	label = NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel);
	*len = strlen(label);
	if (generation == enum_generation)
	{
		slot->len = *len;
		slot->label = ((Form_pg_enum) GETSTRUCT(tuple))->enumlabel;
		slot->value = value;
		label = NameStr(slot->label);
	}
	else
		label = pnstrdup(label, *len);	/* changed while we looked */
	ReleaseSysCache(tuple);
	return label;
}
