/*
 * encode_sql.c
 *
 * The row encoder and the key hash as SQL functions, so that the tests can
 * hold them against to_jsonb. Nothing in the product calls these.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

#include "audit/audit.h"

PG_FUNCTION_INFO_V1(rowkeeper_audit_encode);
PG_FUNCTION_INFO_V1(rowkeeper_audit_as_text);
PG_FUNCTION_INFO_V1(rowkeeper_audit_key_hash);

/* An encoder of all columns, kept while the row type stays the same. */
typedef struct EncodeState
{
	MemoryContext context;
	Oid			typid;
	int32		typmod;
	uint64		identifier;
	RkEncoder  *encoder;
} EncodeState;

typedef struct Row
{
	TupleDesc	desc;			/* to be released */
	Datum	   *values;
	bool	   *isnull;
} Row;

static void
open_row(Row *row, HeapTupleHeader header)
{
	HeapTupleData tuple;

	row->desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
									   HeapTupleHeaderGetTypMod(header));
	row->values = palloc(sizeof(Datum) * Max(row->desc->natts, 1));
	row->isnull = palloc(sizeof(bool) * Max(row->desc->natts, 1));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, row->desc, row->values, row->isnull);
}

static RkEncoder *
get_encoder(FunctionCallInfo fcinfo, HeapTupleHeader header, TupleDesc desc)
{
	EncodeState *state = fcinfo->flinfo->fn_extra;
	Oid			typid = HeapTupleHeaderGetTypeId(header);
	int32		typmod = HeapTupleHeaderGetTypMod(header);
	uint64		identifier = assign_record_type_identifier(typid, typmod);
	MemoryContext previous;
	Bitmapset  *columns = NULL;

	if (state != NULL && state->typid == typid && state->typmod == typmod &&
		state->identifier == identifier)
		return state->encoder;

	if (state == NULL)
	{
		state = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(EncodeState));
		state->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt,
											   "rowkeeper test encoder",
											   ALLOCSET_SMALL_SIZES);
		fcinfo->flinfo->fn_extra = state;
	}
	state->typid = InvalidOid;
	MemoryContextReset(state->context);
	previous = MemoryContextSwitchTo(state->context);
	for (int i = 1; i <= desc->natts; i++)
		columns = bms_add_member(columns, i);
	state->encoder = rk_audit_encoder_create(desc, columns);
	MemoryContextSwitchTo(previous);
	state->typid = typid;
	state->typmod = typmod;
	state->identifier = identifier;
	return state->encoder;
}

static AttrNumber
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped &&
			strcmp(NameStr(att->attname), name) == 0)
			return att->attnum;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" does not exist", name)));
	return InvalidAttrNumber;	/* keep compiler quiet */
}

/*
 * _audit_encode(row record, columns name[] DEFAULT NULL) RETURNS jsonb
 *
 * The row, or those of its columns, as the audit log stores it. Raises 42703
 * for a column the row does not have, 54000 for a row too large for jsonb.
 */
Datum
rowkeeper_audit_encode(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header;
	Row			row;
	RkEncoder  *encoder;
	bool	   *include = NULL;
	Jsonb	   *result;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	header = PG_GETARG_HEAPTUPLEHEADER(0);
	open_row(&row, header);
	encoder = get_encoder(fcinfo, header, row.desc);
	if (!PG_ARGISNULL(1))
	{
		ListCell   *lc;

		include = palloc0(sizeof(bool) * Max(row.desc->natts, 1));
		foreach(lc, rk_names_argument(PG_GETARG_ARRAYTYPE_P(1)))
		{
			if (lfirst(lc) != NULL)
				include[find_column(row.desc, lfirst(lc)) - 1] = true;
		}
	}
	result = rk_audit_encode(encoder, row.values, row.isnull, include, NULL);
	ReleaseTupleDesc(row.desc);
	PG_RETURN_JSONB_P(result);
}

/*
 * _audit_as_text(row record) RETURNS name[]
 *
 * The columns of this row that the audit log stores as text.
 */
Datum
rowkeeper_audit_as_text(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	Row			row;
	RkEncoder  *encoder;
	Bitmapset  *as_text = NULL;
	Datum	   *names;
	int			count = 0;
	int			attno = -1;

	open_row(&row, header);
	encoder = get_encoder(fcinfo, header, row.desc);
	(void) rk_audit_encode(encoder, row.values, row.isnull, NULL, &as_text);

	names = palloc(sizeof(Datum) * Max(row.desc->natts, 1));
	while ((attno = bms_next_member(as_text, attno)) >= 0)
	{
		Name		name = palloc(sizeof(NameData));

		*name = TupleDescAttr(row.desc, attno - 1)->attname;
		names[count++] = NameGetDatum(name);
	}
	ReleaseTupleDesc(row.desc);
	PG_RETURN_ARRAYTYPE_P(construct_array(names, count, NAMEOID, NAMEDATALEN,
										  false, TYPALIGN_CHAR));
}

/*
 * _audit_key_hash(row record, VARIADIC columns name[]) RETURNS integer
 *
 * The hash of the row's key, were these columns its primary key. Raises 0A000
 * where a table with this key could not be audited.
 */
Datum
rowkeeper_audit_key_hash(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	Row			row;
	List	   *names = rk_names_argument(PG_GETARG_ARRAYTYPE_P(1));
	AttrNumber *columns = palloc(sizeof(AttrNumber) * Max(list_length(names), 1));
	int			count = 0;
	int32		hash;
	ListCell   *lc;

	open_row(&row, header);
	foreach(lc, names)
	{
		const char *name = lfirst(lc);

		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("column name must not be null")));
		columns[count] = find_column(row.desc, name);
		if (row.isnull[columns[count] - 1])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("key column \"%s\" must not be null", name)));
		count++;
	}
	hash = rk_audit_key_hash(rk_audit_key_create(row.desc, columns, count), row.values);
	ReleaseTupleDesc(row.desc);
	PG_RETURN_INT32(hash);
}
