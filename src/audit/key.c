/*
 * key.c
 *
 * The hash by which the log finds a row's entries. It is stored, so it must
 * stay what it is for ever: the same on every server version, architecture
 * and encoding of the number in memory. It is therefore ours, and defined
 * here in full, over values and not over their bytes in a tuple. Changing
 * anything below loses every row's history; test/sql/encode.sql has fixed
 * results to fail if that happens.
 *
 * A key of one column that holds an integer v hashes to the low 32 bits of
 * v ^ (v >> 32): rows that are neighbours are so in the log's index, too.
 *
 * Any other key is a sequence of bytes, for each column in key order a tag,
 * the length as 4 bytes, and the bytes named here, all numbers big-endian:
 *
 *	'i'  integers of every type, numerics and floats of integral value that
 *		 fit in an int8: 8 bytes
 *	'n'  other numerics: '+' or '-', the exponent (base 10000) of the first
 *		 digit as 4 bytes, each base-10000 digit as 2 bytes, without zero
 *		 digits at either end (so that 1.50 and 1.5 are one value)
 *	'f'  other floats: the IEEE double as 8 bytes
 *	'?'  NaN 'n', infinity '+', -infinity '-', of either
 *	't'  text, varchar, name, "char" and enum labels: the bytes; char(n): those
 *		 without trailing blanks
 *	'b'  boolean: 1 byte, 0 or 1
 *	'u'  uuid: 16 bytes
 *	'd'  date: days since 2000-01-01 as 4 bytes
 *	'c'  time: microseconds as 8 bytes
 *	's'  timestamp, 'z' timestamptz: microseconds since 2000-01-01 as 8 bytes
 *	'x'  bytea: the bytes
 *	'a'  inet and cidr: 4 or 6, the prefix length, 4 or 16 address bytes
 *	'm'  macaddr and macaddr8: 6 or 8 bytes
 *	'v'  bit and varbit: the length in bits as 4 bytes, the bytes
 *
 * This sequence goes through 64-bit FNV-1a, then the 64-bit finalizer of
 * MurmurHash3; the result is the upper half xor the lower half.
 */
#include "postgres.h"

#include <math.h>
#include <sys/socket.h>

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/inet.h"
#include "utils/lsyscache.h"
#include "utils/varbit.h"

#include "audit/audit.h"
#include "audit/encode.h"

#define FNV_OFFSET UINT64CONST(0xcbf29ce484222325)
#define FNV_PRIME UINT64CONST(0x100000001b3)

typedef struct KeyColumn
{
	AttrNumber	attno;
	Oid			typid;			/* base type; ANYENUMOID for any enum */
} KeyColumn;

struct RkKey
{
	int			ncolumns;
	KeyColumn	columns[FLEXIBLE_ARRAY_MEMBER];
};

static bool
is_hashable(Oid typid)
{
	switch (typid)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case NUMERICOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case BOOLOID:
		case CHAROID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case UUIDOID:
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case BYTEAOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case MACADDR8OID:
		case BITOID:
		case VARBITOID:
			return true;
		default:
			return false;
	}
}

/* The type by which a key's column is hashed, ANYENUMOID for any enum; InvalidOid: it has none. */
static Oid
hashed_type(Form_pg_attribute att)
{
	Oid			typid = getBaseType(att->atttypid);

	if (get_typtype(typid) == TYPTYPE_ENUM)
		return ANYENUMOID;
	return is_hashable(typid) ? typid : InvalidOid;
}

static bool
is_deterministic(Form_pg_attribute att)
{
	return !OidIsValid(att->attcollation) || get_collation_isdeterministic(att->attcollation);
}

/* The first of these columns that rk_audit_key_create() refuses; 0: none. */
AttrNumber
rk_audit_key_unfit(TupleDesc desc, const AttrNumber *columns, int ncolumns)
{
	for (int i = 0; i < ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, columns[i] - 1);

		if (!OidIsValid(hashed_type(att)) || !is_deterministic(att))
			return columns[i];
	}
	return 0;
}

/*
 * Prepare to hash keys of these columns, in this order. Allocates in
 * CurrentMemoryContext and keeps nothing of desc. Raises 0A000 for a column
 * whose equal values need not have one canonical form.
 */
RkKey *
rk_audit_key_create(TupleDesc desc, const AttrNumber *columns, int ncolumns)
{
	RkKey	   *key = palloc0(offsetof(RkKey, columns) + sizeof(KeyColumn) * ncolumns);

	key->ncolumns = ncolumns;
	for (int i = 0; i < ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, columns[i] - 1);
		Oid			typid = hashed_type(att);

		if (!OidIsValid(typid))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot audit a table with a key column of type %s",
							format_type_be(att->atttypid)),
					 errdetail("Rows are found in the log by a hash of their key, which is not defined for the type of column \"%s\".",
							   NameStr(att->attname)),
					 errhint("Give the table a primary key of integers, uuid, text or another type with one form for each value.")));
		if (!is_deterministic(att))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot audit a table with a key column of nondeterministic collation \"%s\"",
							get_collation_name(att->attcollation)),
					 errdetail("Values of column \"%s\" can be equal without being the same.",
							   NameStr(att->attname)),
					 errhint("Give the key column a deterministic collation.")));

		key->columns[i].attno = columns[i];
		key->columns[i].typid = typid;
	}
	return key;
}

static inline uint64
mix_bytes(uint64 hash, const void *bytes, Size len)
{
	const uint8 *p = bytes;

	for (Size i = 0; i < len; i++)
		hash = (hash ^ p[i]) * FNV_PRIME;
	return hash;
}

static inline uint64
mix_number(uint64 hash, uint64 value, int width)
{
	for (int shift = (width - 1) * 8; shift >= 0; shift -= 8)
		hash = (hash ^ ((value >> shift) & 0xFF)) * FNV_PRIME;
	return hash;
}

static inline uint64
mix_tag(uint64 hash, char tag, uint32 len)
{
	hash = (hash ^ (uint8) tag) * FNV_PRIME;
	return mix_number(hash, len, 4);
}

static uint64
mix_tagged(uint64 hash, char tag, const void *bytes, Size len)
{
	return mix_bytes(mix_tag(hash, tag, len), bytes, len);
}

static uint64
mix_tagged_number(uint64 hash, char tag, uint64 value, int width)
{
	return mix_number(mix_tag(hash, tag, width), value, width);
}

/*
 * The value of a numeric that is integral and fits in an int8.
 */
static bool
numeric_is_int64(const RkNumeric *num, int64 *result)
{
	uint64		value = 0;

	if (num->ndigits == 0)
	{
		*result = 0;
		return true;
	}
	if (num->weight < num->ndigits - 1 || num->weight > 4)
		return false;
	for (int i = 0; i <= num->weight; i++)
	{
		uint64		group = i < num->ndigits ? rk_numeric_digit(num, i) : 0;

		if (value > (PG_UINT64_MAX - group) / 10000)
			return false;
		value = value * 10000 + group;
	}
	if (value > (uint64) PG_INT64_MAX + (num->negative ? 1 : 0))
		return false;
	*result = (int64) (num->negative ? -value : value);
	return true;
}

/* Take zero digits off both ends, whoever left them there. */
static void
strip_zeros(RkNumeric *num)
{
	while (num->ndigits > 0 && rk_numeric_digit(num, 0) == 0)
	{
		num->digits += sizeof(int16);
		num->ndigits--;
		num->weight--;
	}
	while (num->ndigits > 0 && rk_numeric_digit(num, num->ndigits - 1) == 0)
		num->ndigits--;
}

static void
parse_numeric(Datum value, RkNumeric *num)
{
	struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

	rk_numeric_parse(num, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	if (!num->special)
		strip_zeros(num);
}

static uint64
mix_numeric(uint64 hash, Datum value)
{
	RkNumeric	num;

	parse_numeric(value, &num);
	if (num.special)
		return mix_tagged(hash, '?', &num.special, 1);

	hash = mix_tag(hash, 'n', 1 + 4 + 2 * num.ndigits);
	hash = mix_bytes(hash, num.negative ? "-" : "+", 1);
	hash = mix_number(hash, (uint32) num.weight, 4);
	for (int i = 0; i < num.ndigits; i++)
		hash = mix_number(hash, rk_numeric_digit(&num, i), 2);
	return hash;
}

static uint64
mix_float(uint64 hash, double value)
{
	uint64		bits;

	if (isnan(value))
		return mix_tagged(hash, '?', "n", 1);
	if (isinf(value))
		return mix_tagged(hash, '?', value < 0 ? "-" : "+", 1);
	memcpy(&bits, &value, sizeof(bits));
	return mix_tagged_number(hash, 'f', bits, 8);
}

/*
 * The value as an integer, if it is one, of whatever type. -0 is 0.
 */
static bool
key_is_int64(Oid typid, Datum value, int64 *result)
{
	switch (typid)
	{
		case INT2OID:
			*result = DatumGetInt16(value);
			return true;

		case INT4OID:
			*result = DatumGetInt32(value);
			return true;

		case INT8OID:
			*result = DatumGetInt64(value);
			return true;

		case OIDOID:
			*result = DatumGetObjectId(value);
			return true;

		case NUMERICOID:
			{
				RkNumeric	num;

				parse_numeric(value, &num);
				return !num.special && numeric_is_int64(&num, result);
			}

		case FLOAT4OID:
		case FLOAT8OID:
			{
				double		number = typid == FLOAT4OID ?
					(double) DatumGetFloat4(value) : DatumGetFloat8(value);

				/* 2^63 itself is outside; false for NaN */
				if (!(number >= -9223372036854775808.0 && number < 9223372036854775808.0) ||
					number != (double) (int64) number)
					return false;
				*result = (int64) number;
				return true;
			}

		default:
			return false;
	}
}

static uint64
mix_column(uint64 hash, Oid typid, Datum value)
{
	struct varlena *bytes;
	int64		number;

	if (key_is_int64(typid, value, &number))
		return mix_tagged_number(hash, 'i', (uint64) number, 8);

	switch (typid)
	{
		case NUMERICOID:
			return mix_numeric(hash, value);

		case FLOAT4OID:
			return mix_float(hash, DatumGetFloat4(value));

		case FLOAT8OID:
			return mix_float(hash, DatumGetFloat8(value));

		case BOOLOID:
			return mix_tagged_number(hash, 'b', DatumGetBool(value) ? 1 : 0, 1);

		case CHAROID:
			{
				char		c = DatumGetChar(value);

				return mix_tagged(hash, 't', &c, c != '\0');
			}

		case TEXTOID:
		case VARCHAROID:
			bytes = PG_DETOAST_DATUM_PACKED(value);
			return mix_tagged(hash, 't', VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));

		case BPCHAROID:
			bytes = PG_DETOAST_DATUM_PACKED(value);
			return mix_tagged(hash, 't', VARDATA_ANY(bytes),
							  bpchartruelen(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)));

		case NAMEOID:
			return mix_tagged(hash, 't', NameStr(*DatumGetName(value)),
							  strlen(NameStr(*DatumGetName(value))));

		case ANYENUMOID:
			{
				uint32		len;
				const char *label = rk_enum_label(DatumGetObjectId(value), &len);

				return mix_tagged(hash, 't', label, len);
			}

		case UUIDOID:
			return mix_tagged(hash, 'u', DatumGetUUIDP(value)->data, UUID_LEN);

		case DATEOID:
			return mix_tagged_number(hash, 'd', (uint32) DatumGetDateADT(value), 4);

		case TIMEOID:
			return mix_tagged_number(hash, 'c', (uint64) DatumGetTimeADT(value), 8);

		case TIMESTAMPOID:
			return mix_tagged_number(hash, 's', (uint64) DatumGetTimestamp(value), 8);

		case TIMESTAMPTZOID:
			return mix_tagged_number(hash, 'z', (uint64) DatumGetTimestampTz(value), 8);

		case BYTEAOID:
			bytes = PG_DETOAST_DATUM_PACKED(value);
			return mix_tagged(hash, 'x', VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));

		case INETOID:
		case CIDROID:
			{
				inet	   *address = DatumGetInetPP(value);
				bool		is_v4 = ip_family(address) == PGSQL_AF_INET;

				/* AF_INET6 has many values, AF_INET but one; neither is used */
				hash = mix_tag(hash, 'a', 2 + (is_v4 ? 4 : 16));
				hash = mix_number(hash, is_v4 ? 4 : 6, 1);
				hash = mix_number(hash, ip_bits(address), 1);
				return mix_bytes(hash, ip_addr(address), is_v4 ? 4 : 16);
			}

		case MACADDROID:
			return mix_tagged(hash, 'm', DatumGetPointer(value), 6);

		case MACADDR8OID:
			return mix_tagged(hash, 'm', DatumGetPointer(value), 8);

		case BITOID:
		case VARBITOID:
			{
				VarBit	   *bits = DatumGetVarBitP(value);

				hash = mix_tag(hash, 'v', 4 + VARBITBYTES(bits));
				hash = mix_number(hash, VARBITLEN(bits), 4);
				return mix_bytes(hash, VARBITS(bits), VARBITBYTES(bits));
			}

		default:
			elog(ERROR, "unexpected type of key column: %u", typid);
			return hash;		/* keep compiler quiet */
	}
}

/*
 * The hash of the key within a row's values (values[attno - 1]), as described
 * at the head of this file.
 */
int32
rk_audit_key_hash(const RkKey *key, const Datum *values)
{
	uint64		hash = FNV_OFFSET;
	int64		number;

	if (key->ncolumns == 1 &&
		key_is_int64(key->columns[0].typid, values[key->columns[0].attno - 1], &number))
		return (int32) (uint32) ((uint64) number ^ ((uint64) number >> 32));

	for (int i = 0; i < key->ncolumns; i++)
		hash = mix_column(hash, key->columns[i].typid, values[key->columns[i].attno - 1]);

	hash ^= hash >> 33;
	hash *= UINT64CONST(0xff51afd7ed558ccd);
	hash ^= hash >> 33;
	hash *= UINT64CONST(0xc4ceb9fe1a85ec53);
	hash ^= hash >> 33;
	return (int32) (uint32) (hash ^ (hash >> 32));
}
