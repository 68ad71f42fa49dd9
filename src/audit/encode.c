/*
 * encode.c
 *
 * Rows as jsonb, byte for byte what to_jsonb(row) makes of them under fixed
 * settings (TimeZone UTC, DateStyle ISO, IntervalStyle postgres, bytea_output
 * hex, extra_float_digits 1, lc_monetary C, empty search_path), without the
 * tree of JsonbValues and the texts that to_jsonb goes through.
 *
 * A jsonb object is a count, one JEntry for each key and then for each value,
 * and then their bytes, keys first. Keys are sorted by length, then bytes, so
 * their order is known when the encoder is made. A JEntry holds its item's
 * length, every JB_OFFSET_STRIDE'th the offset of its end instead. Numerics
 * and nested containers are aligned to 4 bytes, the padding being part of the
 * item; as every container starts aligned, one that is stored already is
 * embedded by copying it.
 *
 * Two passes over a row: first whatever runs foreign code (output functions,
 * to_jsonb), which may do anything, encode another row included; then
 * everything is written into one scratch buffer that no foreign code sees.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "audit/audit.h"
#include "audit/encode.h"

#define SCRATCH_FIRST_SIZE (8 * 1024)
#define SCRATCH_KEPT_SIZE (1024 * 1024)
#define SCRATCH_LARGEST_SIZE ((Size) JENTRY_OFFLENMASK + VARHDRSZ + RK_VALUE_ROOM)

typedef struct EncoderColumn
{
	AttrNumber	attno;
	uint8		kind;			/* plan.kind, close to what is used with it */
	uint8		name_len;
	uint32		name_offset;	/* in the encoder's names */
	RkTypePlan	plan;
} EncoderColumn;

struct RkEncoder
{
	MemoryContext context;		/* where all of it lives */
	int			ncolumns;
	bool		calls_out;		/* some column's kind runs foreign code */
	bool		has_as_text;
	EncoderColumn *columns;		/* in the order of keys */
	AttrNumber *attnos;			/* theirs, close together */
	char	   *names;			/* in that order, without separators */
	uint32		names_len;
	JEntry	   *name_entries;	/* of an object with all columns */
};

/* What the first pass leaves for the second. */
typedef struct Prepared
{
	const char *printed;
	Jsonb	   *jsonb;			/* if printed is NULL */
} Prepared;

typedef struct Writer
{
	char	   *base;			/* the varlena header */
	char	   *at;
	char	   *end;
} Writer;

/*
 * One buffer for the backend: it holds nothing between calls. A row of
 * unusual size does not keep its memory.
 */
static MemoryContext scratch_context = NULL;
static char *scratch = NULL;
static Size scratch_size = 0;

static int
compare_keys(const void *a, const void *b)
{
	const Form_pg_attribute *left = a;
	const Form_pg_attribute *right = b;
	Size		left_len = strlen(NameStr((*left)->attname));
	Size		right_len = strlen(NameStr((*right)->attname));

	if (left_len != right_len)
		return left_len < right_len ? -1 : 1;
	return memcmp(NameStr((*left)->attname), NameStr((*right)->attname), left_len);
}

/*
 * Prepare to encode those of the columns (attribute numbers) that a tuple of
 * this descriptor has values for: dropped and virtual generated ones do not.
 * Allocates in CurrentMemoryContext and keeps nothing of desc.
 */
RkEncoder *
rk_audit_encoder_create(TupleDesc desc, const Bitmapset *columns)
{
	RkEncoder  *encoder = palloc0(sizeof(RkEncoder));
	Form_pg_attribute *atts = palloc(sizeof(Form_pg_attribute) * Max(desc->natts, 1));
	int			natts = 0;
	uint32		offset = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && att->attgenerated != 'v' &&
			bms_is_member(att->attnum, columns))
			atts[natts++] = att;
	}
	qsort(atts, natts, sizeof(Form_pg_attribute), compare_keys);

	encoder->context = CurrentMemoryContext;
	encoder->ncolumns = natts;
	encoder->columns = palloc0(sizeof(EncoderColumn) * Max(natts, 1));
	encoder->attnos = palloc(sizeof(AttrNumber) * Max(natts, 1));
	encoder->names = palloc(NAMEDATALEN * Max(natts, 1));
	encoder->name_entries = palloc(sizeof(JEntry) * Max(natts, 1));
	for (int i = 0; i < natts; i++)
	{
		EncoderColumn *column = &encoder->columns[i];
		Size		len = strlen(NameStr(atts[i]->attname));

		column->attno = atts[i]->attnum;
		encoder->attnos[i] = atts[i]->attnum;
		column->name_len = len;
		column->name_offset = offset;
		memcpy(encoder->names + offset, NameStr(atts[i]->attname), len);
		offset += len;
		encoder->name_entries[i] = JENTRY_ISSTRING |
			(i % JB_OFFSET_STRIDE == 0 ? offset | JENTRY_HAS_OFF : len);

		rk_type_plan(&column->plan, atts[i]->atttypid);
		column->kind = column->plan.kind;
		if (rk_kind_calls_out(column->kind))
			encoder->calls_out = true;
		if (column->plan.as_text)
			encoder->has_as_text = true;
	}
	encoder->names_len = offset;
	pfree(atts);
	return encoder;
}

static void
report_too_large(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("row is too large for the audit log"),
			 errdetail("Its values as jsonb exceed the maximum of %u bytes.",
					   JENTRY_OFFLENMASK),
			 errhint("Leave the large columns out with the option \"exclude\" of rowkeeper.audit().")));
}

/* The slow half of ensure_room(). */
static pg_noinline void
enlarge(Writer *w, Size room)
{
	Size		used = w->at - w->base;
	Size		size = Max(scratch_size, SCRATCH_FIRST_SIZE);

	if (used + room > SCRATCH_LARGEST_SIZE)
		report_too_large();
	while (size < used + room)
		size *= 2;
	size = Min(size, SCRATCH_LARGEST_SIZE);

	if (scratch_context == NULL)
		scratch_context = AllocSetContextCreate(TopMemoryContext,
												"rowkeeper row encoder",
												ALLOCSET_SMALL_SIZES);
	if (scratch == NULL)
		scratch = MemoryContextAlloc(scratch_context, size);
	else
		scratch = repalloc(scratch, size);
	scratch_size = size;
	w->base = scratch;
	w->at = scratch + used;
	w->end = scratch + size;
}

static inline void
ensure_room(Writer *w, Size room)
{
	if (unlikely((Size) (w->end - w->at) < room))
		enlarge(w, room);
}

static inline void
put_bytes(Writer *w, const void *bytes, Size len)
{
	ensure_room(w, len);
	memcpy(w->at, bytes, len);
	w->at += len;
}

/* Leaves room for a number, so that callers need not ask again. */
static inline void
put_padding(Writer *w)
{
	Size		used = w->at - w->base;

	ensure_room(w, RK_VALUE_ROOM);
	memset(w->at, 0, sizeof(int32));
	w->at = w->base + INTALIGN(used);
}

static pg_noinline JEntry
put_numeric_value(Writer *w, Numeric value)
{
	RkNumeric	num;
	Size		len;

	rk_numeric_parse(&num, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	if (num.special)
	{
		char	   *text = DatumGetCString(DirectFunctionCall1(numeric_out,
															   NumericGetDatum(value)));

		put_bytes(w, text, strlen(text));
		return JENTRY_ISSTRING;
	}

	/* made by an old server, and carried here by pg_upgrade */
	if (!num.canonical)
	{
		Datum		printed = DirectFunctionCall1(numeric_out, NumericGetDatum(value));

		value = DatumGetNumeric(DirectFunctionCall3(numeric_in, printed,
													ObjectIdGetDatum(InvalidOid),
													Int32GetDatum(-1)));
	}

	put_padding(w);
	len = VARSIZE_ANY_EXHDR(value);
	ensure_room(w, len + VARHDRSZ);
	SET_VARSIZE(w->at, len + VARHDRSZ);
	memcpy(w->at + VARHDRSZ, VARDATA_ANY(value), len);
	w->at += len + VARHDRSZ;
	return JENTRY_ISNUMERIC;
}

/* An array or object is embedded whole, a scalar comes out of its wrapping. */
static JEntry
put_jsonb_value(Writer *w, const struct varlena *value)
{
	const char *root = VARDATA_ANY(value);
	Size		len = VARSIZE_ANY_EXHDR(value);
	uint32		header;
	JEntry		entry;

	memcpy(&header, root, sizeof(header));
	if ((header & JB_FSCALAR) == 0)
	{
		put_padding(w);
		put_bytes(w, root, len);
		return JENTRY_ISCONTAINER;
	}

	memcpy(&entry, root + sizeof(header), sizeof(entry));
	if (JBE_ISNUMERIC(entry))
		put_padding(w);
	put_bytes(w, root + sizeof(header) + sizeof(entry),
			  len - sizeof(header) - sizeof(entry));
	return entry & JENTRY_TYPEMASK;
}

static JEntry put_array_value(Writer *w, const RkTypePlan *plan, Datum value);

/*
 * Append one value's bytes, if it has any, and return its type bits.
 */
static pg_attribute_always_inline JEntry
put_value(Writer *w, RkKind kind, const RkTypePlan *plan, Datum value)
{
	bool		is_string;

	switch (kind)
	{
		case RK_KIND_BOOL:
			return DatumGetBool(value) ? JENTRY_ISBOOL_TRUE : JENTRY_ISBOOL_FALSE;

		case RK_KIND_INT2:
			put_padding(w);
			w->at = rk_put_int64(w->at, DatumGetInt16(value));
			return JENTRY_ISNUMERIC;

		case RK_KIND_INT4:
			put_padding(w);
			w->at = rk_put_int64(w->at, DatumGetInt32(value));
			return JENTRY_ISNUMERIC;

		case RK_KIND_INT8:
			put_padding(w);
			w->at = rk_put_int64(w->at, DatumGetInt64(value));
			return JENTRY_ISNUMERIC;

		case RK_KIND_FLOAT4:
		case RK_KIND_FLOAT8:
			{
				double		number = kind == RK_KIND_FLOAT4 ?
					(double) DatumGetFloat4(value) : DatumGetFloat8(value);

				/* a string is not aligned */
				if (isfinite(number))
					put_padding(w);
				else
					ensure_room(w, RK_VALUE_ROOM);
				w->at = rk_put_float(w->at, number, kind == RK_KIND_FLOAT4, &is_string);
				return is_string ? JENTRY_ISSTRING : JENTRY_ISNUMERIC;
			}

		case RK_KIND_NUMERIC:
			return put_numeric_value(w, (Numeric) PG_DETOAST_DATUM_PACKED(value));

		case RK_KIND_TEXT:
			{
				struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

				put_bytes(w, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
				return JENTRY_ISSTRING;
			}

		case RK_KIND_NAME:
			put_bytes(w, NameStr(*DatumGetName(value)), strlen(NameStr(*DatumGetName(value))));
			return JENTRY_ISSTRING;

		case RK_KIND_UUID:
			ensure_room(w, RK_VALUE_ROOM);
			w->at = rk_put_uuid(w->at, DatumGetUUIDP(value));
			return JENTRY_ISSTRING;

		case RK_KIND_DATE:
			ensure_room(w, RK_VALUE_ROOM);
			w->at = rk_put_date(w->at, DatumGetDateADT(value));
			return JENTRY_ISSTRING;

		case RK_KIND_TIME:
			ensure_room(w, RK_VALUE_ROOM);
			w->at = rk_put_time(w->at, DatumGetTimeADT(value));
			return JENTRY_ISSTRING;

		case RK_KIND_TIMESTAMP:
		case RK_KIND_TIMESTAMPTZ:
			ensure_room(w, RK_VALUE_ROOM);
			w->at = rk_put_timestamp(w->at, DatumGetTimestamp(value),
									 kind == RK_KIND_TIMESTAMPTZ);
			return JENTRY_ISSTRING;

		case RK_KIND_JSONB:
			return put_jsonb_value(w, PG_DETOAST_DATUM_PACKED(value));

		case RK_KIND_ENUM:
			{
				uint32		len;
				const char *label = rk_enum_label(DatumGetObjectId(value), &len);

				put_bytes(w, label, len);
				return JENTRY_ISSTRING;
			}

		case RK_KIND_BYTEA:
			{
				struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);
				Size		len = VARSIZE_ANY_EXHDR(bytes);

				ensure_room(w, len * 2 + 2);
				*w->at++ = '\\';
				*w->at++ = 'x';
				w->at = rk_put_hex(w->at, VARDATA_ANY(bytes), len);
				return JENTRY_ISSTRING;
			}

		case RK_KIND_ARRAY:
			return put_array_value(w, plan, value);

		case RK_KIND_OUTPUT:
		case RK_KIND_ROW:
		case RK_KIND_ROW_ARRAY:
		case RK_KIND_TO_JSONB:
			break;				/* come prepared */
	}
	elog(ERROR, "unexpected kind of value: %d", (int) kind);
	return 0;					/* keep compiler quiet */
}

/*
 * Complete the JEntry of item i of a container whose items' bytes begin at
 * data: their common offset base.
 */
static inline JEntry
finish_entry(JEntry bits, int i, Size item_start, Size item_end, Size data)
{
	if (i % JB_OFFSET_STRIDE == 0)
		return bits | JENTRY_HAS_OFF | (JEntry) (item_end - data);
	return bits | (JEntry) (item_end - item_start);
}

typedef struct ArrayCursor
{
	const RkTypePlan *plan;
	int			ndim;
	const int  *dims;
	const char *element;
	const bits8 *nulls;
	int			position;
} ArrayCursor;

static JEntry
put_array_dimension(Writer *w, ArrayCursor *cursor, int dim)
{
	const RkTypePlan *plan = cursor->plan;
	int			count = dim < cursor->ndim ? cursor->dims[dim] : 0;
	uint32		header = count | JB_FARRAY;
	Size		entries;
	Size		data;

	put_padding(w);
	ensure_room(w, sizeof(header) + sizeof(JEntry) * (Size) count);
	memcpy(w->at, &header, sizeof(header));
	entries = w->at + sizeof(header) - w->base;
	w->at += sizeof(header) + sizeof(JEntry) * (Size) count;
	data = w->at - w->base;

	for (int i = 0; i < count; i++)
	{
		Size		start = w->at - w->base;
		JEntry		entry;

		if (dim + 1 < cursor->ndim)
			entry = put_array_dimension(w, cursor, dim + 1);
		else if (cursor->nulls != NULL &&
				 (cursor->nulls[cursor->position / 8] & (1 << (cursor->position % 8))) == 0)
		{
			cursor->position++;
			entry = JENTRY_ISNULL;
		}
		else
		{
			Datum		value = fetch_att(cursor->element, plan->typbyval, plan->typlen);

			cursor->element = att_addlength_pointer(cursor->element, plan->typlen,
													cursor->element);
			cursor->element = (const char *) att_align_nominal(cursor->element,
															   plan->typalign);
			cursor->position++;
			entry = put_value(w, plan->element, NULL, value);
		}
		entry = finish_entry(entry, i, start, w->at - w->base, data);
		memcpy(w->base + entries + sizeof(JEntry) * i, &entry, sizeof(entry));
	}
	return JENTRY_ISCONTAINER;
}

static pg_noinline JEntry
put_array_value(Writer *w, const RkTypePlan *plan, Datum value)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	ArrayCursor cursor = {0};

	cursor.plan = plan;
	cursor.ndim = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) > 0 ? ARR_NDIM(array) : 0;
	cursor.dims = ARR_DIMS(array);
	cursor.element = ARR_DATA_PTR(array);
	cursor.nulls = ARR_NULLBITMAP(array);
	return put_array_dimension(w, &cursor, 0);
}

static inline bool
is_included(const EncoderColumn *column, const bool *include)
{
	return include == NULL || include[column->attno - 1];
}

/* A value of a named row type, as an object of its attributes. */
static Datum
encode_row(const RkTypePlan *plan, Datum value)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(value);
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header),.t_data = header};
	Datum	   *values = palloc(sizeof(Datum) * Max(plan->row->natts, 1));
	bool	   *isnull = palloc(sizeof(bool) * Max(plan->row->natts, 1));

	check_stack_depth();
	heap_deform_tuple(&tuple, plan->row, values, isnull);
	return JsonbPGetDatum(rk_audit_encode(plan->row_encoder, values, isnull, NULL, NULL));
}

/* An array of rows: as one of jsonb, in which to_jsonb finds nothing to do. */
static Datum
encode_rows(RkTypePlan *plan, Datum value)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	Datum	   *elements;
	bool	   *isnull;
	int			count;

	deconstruct_array(array, ARR_ELEMTYPE(array), plan->typlen, plan->typbyval, plan->typalign,
					  &elements, &isnull, &count);
	for (int i = 0; i < count; i++)
		if (!isnull[i])
			elements[i] = encode_row(plan, elements[i]);
	array = construct_md_array(elements, isnull, ARR_NDIM(array), ARR_DIMS(array),
							   ARR_LBOUND(array), JSONBOID, -1, false, TYPALIGN_INT);
	return FunctionCall1(&plan->call, PointerGetDatum(array));
}

static Jsonb *
encode_foreign(RkTypePlan *plan, RkKind kind, Datum value)
{
	switch (kind)
	{
		case RK_KIND_ROW:
			return DatumGetJsonbP(encode_row(plan, value));
		case RK_KIND_ROW_ARRAY:
			return DatumGetJsonbP(encode_rows(plan, value));
		default:
			return DatumGetJsonbP(FunctionCall1(&plan->call, value));
	}
}

/*
 * The first pass: run the foreign code, under the pinned settings that the
 * columns at hand depend on. NULL if there is none to run.
 */
static pg_noinline Prepared *
prepare_values(RkEncoder *encoder, const Datum *values, const bool *isnull,
			   const bool *include)
{
	Prepared   *prepared = NULL;
	uint32		pins = 0;
	int			guc_level;

	for (int i = 0; i < encoder->ncolumns; i++)
	{
		EncoderColumn *column = &encoder->columns[i];

		if (!is_included(column, include) || isnull[column->attno - 1])
			continue;
		if (column->plan.nrowtypes > 0 && !rk_type_plan_current(&column->plan))
		{
			MemoryContext previous = MemoryContextSwitchTo(encoder->context);
			RkTypePlan	plan;

			rk_type_plan(&plan, column->plan.typid);
			column->plan = plan;
			column->kind = plan.kind;
			encoder->has_as_text |= plan.as_text;
			MemoryContextSwitchTo(previous);
		}
		if (!rk_kind_calls_out(column->kind))
			continue;
		pins |= column->plan.pins;
		if (prepared == NULL)
			prepared = palloc0(sizeof(Prepared) * encoder->ncolumns);
	}
	if (prepared == NULL)
		return NULL;

	guc_level = rk_pin_settings(pins);
	for (int i = 0; i < encoder->ncolumns; i++)
	{
		EncoderColumn *column = &encoder->columns[i];
		Datum		value = values[column->attno - 1];

		if (!is_included(column, include) || isnull[column->attno - 1] ||
			!rk_kind_calls_out(column->kind))
			continue;
		if (column->kind == RK_KIND_OUTPUT)
			prepared[i].printed = OutputFunctionCall(&column->plan.call, value);
		else
			prepared[i].jsonb = encode_foreign(&column->plan, column->kind, value);
	}
	rk_unpin_settings(guc_level);
	return prepared;
}

/*
 * The row as a jsonb object of the encoder's columns, or of those for which
 * include[attno - 1] is set. Columns kept as text are added to *as_text, if
 * that is wanted and the value is not null. The result is in
 * CurrentMemoryContext, and so is whatever had to be detoasted for it.
 */
Jsonb *
rk_audit_encode(RkEncoder *encoder, const Datum *values, const bool *isnull,
				const bool *include, Bitmapset **as_text)
{
	Prepared   *prepared = NULL;
	Writer		w;
	Jsonb	   *result;
	uint32		header;
	int			count = encoder->ncolumns;
	int			item;
	Size		entries;
	Size		data;
	Size		size;

	if (encoder->calls_out)
		prepared = prepare_values(encoder, values, isnull, include);

	w.base = scratch;
	w.at = scratch;
	w.end = scratch + scratch_size;

	/* count, JEntries, keys */
	entries = VARHDRSZ + sizeof(header);
	if (include == NULL)
	{
		data = entries + sizeof(JEntry) * 2 * count;
		ensure_room(&w, data + encoder->names_len);
		memcpy(w.base + entries, encoder->name_entries, sizeof(JEntry) * count);
		memcpy(w.base + data, encoder->names, encoder->names_len);
		w.at = w.base + data + encoder->names_len;
	}
	else
	{
		count = 0;
		for (int i = 0; i < encoder->ncolumns; i++)
			count += include[encoder->attnos[i] - 1];

		data = entries + sizeof(JEntry) * 2 * count;
		ensure_room(&w, data + encoder->names_len);
		w.at = w.base + data;
		item = 0;
		for (int i = 0; i < encoder->ncolumns; i++)
		{
			EncoderColumn *column = &encoder->columns[i];
			Size		start = w.at - w.base;
			JEntry		entry;

			if (!include[encoder->attnos[i] - 1])
				continue;
			memcpy(w.at, encoder->names + column->name_offset, column->name_len);
			w.at += column->name_len;
			entry = finish_entry(JENTRY_ISSTRING, item, start, w.at - w.base, data);
			memcpy(w.base + entries + sizeof(JEntry) * item, &entry, sizeof(entry));
			item++;
		}
	}
	header = count | JB_FOBJECT;
	memcpy(w.base + VARHDRSZ, &header, sizeof(header));

	/* values */
	item = count;
	for (int i = 0; i < encoder->ncolumns; i++)
	{
		int			at = encoder->attnos[i] - 1;
		EncoderColumn *column = &encoder->columns[i];
		Size		start = w.at - w.base;
		JEntry		entry;

		if (include != NULL && !include[at])
			continue;
		if (isnull[at])
			entry = JENTRY_ISNULL;
		else if (!rk_kind_calls_out(column->kind))
			entry = put_value(&w, column->kind, &column->plan, values[at]);
		else if (prepared[i].printed != NULL)
		{
			put_bytes(&w, prepared[i].printed, strlen(prepared[i].printed));
			entry = JENTRY_ISSTRING;
		}
		else
			entry = put_jsonb_value(&w, (struct varlena *) prepared[i].jsonb);
		entry = finish_entry(entry, item, start, w.at - w.base, data);
		memcpy(w.base + entries + sizeof(JEntry) * item, &entry, sizeof(entry));
		item++;
	}

	size = w.at - w.base;
	if (size - VARHDRSZ > JENTRY_OFFLENMASK)
		report_too_large();
	result = palloc(size);
	memcpy(result, w.base, size);
	SET_VARSIZE(result, size);

	if (scratch_size > SCRATCH_KEPT_SIZE)
	{
		pfree(scratch);
		scratch = NULL;
		scratch_size = 0;
	}

	if (encoder->has_as_text && as_text != NULL)
	{
		for (int i = 0; i < encoder->ncolumns; i++)
		{
			EncoderColumn *column = &encoder->columns[i];

			if (column->plan.as_text && is_included(column, include) &&
				!isnull[column->attno - 1])
				*as_text = bms_add_member(*as_text, column->attno);
		}
	}
	return result;
}
