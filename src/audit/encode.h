/*
 * encode.h
 *
 * What the files of the row encoder and of the key hash share among
 * themselves; the rest of the feature sees audit.h only.
 */
#ifndef RK_ENCODE_H
#define RK_ENCODE_H

#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "utils/date.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* encode_values.c: the forms a value takes in jsonb, written into memory */

/* What any of the rk_put_* may write, whatever the value. */
#define RK_VALUE_ROOM 160

/* A numeric taken apart; digits are int16 of base 10000, maybe unaligned. */
typedef struct RkNumeric
{
	char		special;		/* 'n', '+' or '-': NaN, infinite; or 0 */
	bool		negative;
	int			dscale;
	int			weight;
	int			ndigits;
	const char *digits;
	bool		canonical;		/* the bytes numeric_in would have made */
} RkNumeric;

static inline int
rk_numeric_digit(const RkNumeric *num, int i)
{
	int16		result;

	memcpy(&result, num->digits + i * sizeof(int16), sizeof(int16));
	return result;
}

extern void rk_numeric_parse(RkNumeric *num, const char *payload, Size len);

/* Each writes at "to" and returns the end of what it wrote. */
extern char *rk_put_int64(char *to, int64 value);
extern char *rk_put_float(char *to, double value, bool single, bool *is_string);
extern char *rk_put_uuid(char *to, const pg_uuid_t *uuid);
extern char *rk_put_hex(char *to, const char *bytes, Size len);
extern char *rk_put_date(char *to, DateADT date);
extern char *rk_put_time(char *to, TimeADT time);
extern char *rk_put_timestamp(char *to, Timestamp timestamp, bool with_zone);

/* Labels of enum values, cached until pg_enum changes. */
extern const char *rk_enum_label(Oid value, uint32 *len);

/* encode_types.c: how a type is to be encoded */
typedef enum RkKind
{
	/* written by us, without calling anything of the type's */
	RK_KIND_BOOL,
	RK_KIND_INT2,
	RK_KIND_INT4,
	RK_KIND_INT8,
	RK_KIND_FLOAT4,
	RK_KIND_FLOAT8,
	RK_KIND_NUMERIC,
	RK_KIND_TEXT,				/* varlena whose bytes are the string */
	RK_KIND_NAME,
	RK_KIND_UUID,
	RK_KIND_DATE,
	RK_KIND_TIME,
	RK_KIND_TIMESTAMP,
	RK_KIND_TIMESTAMPTZ,
	RK_KIND_JSONB,
	RK_KIND_ENUM,
	RK_KIND_BYTEA,
	RK_KIND_ARRAY,				/* its elements one of the above */

	/* foreign code runs */
	RK_KIND_OUTPUT,				/* the type's output function, as a string */
	RK_KIND_ROW,				/* an object of its attributes */
	RK_KIND_ROW_ARRAY,			/* rows as objects, to_jsonb of their array */
	RK_KIND_TO_JSONB			/* to_jsonb */
} RkKind;

#define rk_kind_calls_out(kind) ((kind) >= RK_KIND_OUTPUT)

/* The settings an output may depend on. */
#define RK_PIN_DATETIME 0x01	/* DateStyle, TimeZone */
#define RK_PIN_INTERVAL 0x02	/* IntervalStyle */
#define RK_PIN_BYTEA 0x04		/* bytea_output */
#define RK_PIN_FLOAT 0x08		/* extra_float_digits */
#define RK_PIN_MONEY 0x10		/* lc_monetary */
#define RK_PIN_NAMES 0x20		/* search_path, quote_all_identifiers */
#define RK_PIN_ALL 0x3F

/* A row type met while walking a type, to notice when it changes. */
typedef struct RkRowType
{
	Oid			typid;
	uint64		identifier;
} RkRowType;

typedef struct RkTypePlan
{
	Oid			typid;			/* never a domain */
	RkKind		kind;
	bool		as_text;		/* to_jsonb would fail or lose: output text */
	uint32		pins;			/* settings the foreign code depends on */
	FmgrInfo	call;			/* OUTPUT, TO_JSONB, ROW_ARRAY */

	/* ROW, ROW_ARRAY */
	TupleDesc	row;
	struct RkEncoder *row_encoder;

	/* ARRAY, ROW_ARRAY */
	RkKind		element;
	int16		typlen;
	bool		typbyval;
	char		typalign;

	/* row types inside, at any depth */
	int			nrowtypes;
	RkRowType  *rowtypes;
} RkTypePlan;

extern void rk_type_plan(RkTypePlan *plan, Oid typid);
extern bool rk_type_plan_current(const RkTypePlan *plan);
extern int	rk_pin_settings(uint32 pins);
extern void rk_unpin_settings(int guc_level);

#endif							/* RK_ENCODE_H */
