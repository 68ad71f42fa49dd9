/*
 * row_key.c
 *
 * The key of one row as callers give it: VARIADIC values of any type, an
 * array of text, or jsonb (an object, or a scalar where the key has one
 * column). All become texts in the order of the primary key's columns.
 */
#include "rowkeeper.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "catalog/index.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* The operator by which two values of a column of a key's index are the same one. */
Oid
rk_key_equality(Relation index, int column)
{
	StrategyNumber strategy = rk_equality_strategy(index, column);
	Oid			type = index->rd_opcintype[column];
	Oid			operator = get_opfamily_member(index->rd_opfamily[column], type, type, strategy);

	if (!OidIsValid(operator))
		elog(ERROR, "missing operator %d(%u,%u) in opfamily %u", strategy, type, type,
			 index->rd_opfamily[column]);
	return operator;
}

/* The same in SQL. */
static char *
equality_of(Relation index, int column)
{
	Oid			operator = rk_key_equality(index, column);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *sql;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	sql = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
				   NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return sql;
}

/* The columns of a table's primary key; NULL where it has none. */
RkRowKey *
rk_row_key_of(Relation rel)
{
	RkRowKey   *key;
	Oid			index_oid;
	Relation	index;

	/* fills what the next call reads */
	list_free(RelationGetIndexList(rel));
	index_oid = rk_primary_key_index(rel);
	if (!OidIsValid(index_oid))
		return NULL;
	key = palloc0(sizeof(RkRowKey));
	key->relid = RelationGetRelid(rel);
	index = index_open(index_oid, AccessShareLock);
	key->count = IndexRelationGetNumberOfKeyAttributes(index);
	for (int i = 0; i < key->count; i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(rel),
												 index->rd_index->indkey.values[i] - 1);

		key->names[i] = pstrdup(NameStr(column->attname));
		key->types[i] = column->atttypid;
		key->equals[i] = equality_of(index, i);
	}
	index_close(index, AccessShareLock);
	return key;
}

RK_NORETURN static void
refuse_key(const RkRowKey *key, const char *message)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < key->count; i++)
		appendStringInfo(&text, "%s%s %s", i > 0 ? ", " : "", key->names[i],
						 format_type_be(key->types[i]));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 errhint("The primary key of %s is (%s).", rk_relation_name(key->relid), text.data)));
}

static void
check_count(const RkRowKey *key, int count)
{
	if (count != key->count)
		refuse_key(key, psprintf("%d key %s given, the primary key has %d %s",
								 count, count == 1 ? "value" : "values", key->count,
								 key->count == 1 ? "column" : "columns"));
}

static void
check_null(const RkRowKey *key, int column, bool isnull)
{
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("value of key column \"%s\" must not be null", key->names[column])));
}

/* As its type prints it; a literal of no type yet is text already. */
char *
rk_text_of_value(Datum value, Oid type)
{
	Oid			output;
	bool		is_varlena;

	if (type == UNKNOWNOID)
		return DatumGetCString(value);
	getTypeOutputInfo(type, &output, &is_varlena);
	return OidOutputFunctionCall(output, value);
}

static char **
texts_of_array(const RkRowKey *key, ArrayType *array)
{
	TypeCacheEntry *type = lookup_type_cache(ARR_ELEMTYPE(array), 0);
	char	  **texts = palloc0(key->count * sizeof(char *));
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	deconstruct_array(array, type->type_id, type->typlen, type->typbyval, type->typalign,
					  &elements, &nulls, &count);
	check_count(key, count);
	for (int i = 0; i < count; i++)
	{
		check_null(key, i, nulls[i]);
		texts[i] = rk_text_of_value(elements[i], type->type_id);
	}
	return texts;
}

/* The key in the arguments from "first" on, VARIADIC "any" or text[]. */
char	  **
rk_row_key_of_arguments(const RkRowKey *key, FunctionCallInfo fcinfo, int first)
{
	char	  **texts;

	if (type_is_array(get_fn_expr_argtype(fcinfo->flinfo, first)) &&
		get_fn_expr_variadic(fcinfo->flinfo))
	{
		if (PG_ARGISNULL(first))
			refuse_key(key, "the array of key values must not be null");
		return texts_of_array(key, PG_GETARG_ARRAYTYPE_P(first));
	}
	check_count(key, PG_NARGS() - first);
	texts = palloc0(key->count * sizeof(char *));
	for (int i = 0; i < key->count; i++)
	{
		check_null(key, i, PG_ARGISNULL(first + i));
		texts[i] = rk_text_of_value(PG_GETARG_DATUM(first + i),
									get_fn_expr_argtype(fcinfo->flinfo, first + i));
	}
	return texts;
}

static char *
text_of_json(const RkRowKey *key, int column, const JsonbValue *value)
{
	check_null(key, column, value->type == jbvNull);
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return value->val.boolean ? "true" : "false";
		default:
			return JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
	}
}

/* The key as an object, or as a scalar where it has one column. */
char	  **
rk_row_key_of_jsonb(const RkRowKey *key, Jsonb *json)
{
	char	  **texts = palloc0(key->count * sizeof(char *));
	JsonbValue	value;

	if (JB_ROOT_IS_SCALAR(json))
	{
		if (key->count != 1)
			refuse_key(key, "a single value is not the key of this table");
		(void) JsonbExtractScalar(&json->root, &value);
		texts[0] = text_of_json(key, 0, &value);
		return texts;
	}
	if (!JB_ROOT_IS_OBJECT(json))
		refuse_key(key, "key must be a JSON object or a single value");
	check_count(key, JB_ROOT_COUNT(json));
	for (int i = 0; i < key->count; i++)
	{
		if (getKeyJsonValueFromContainer(&json->root, key->names[i], strlen(key->names[i]), &value) == NULL)
			refuse_key(key, psprintf("the key has no member \"%s\"", key->names[i]));
		texts[i] = text_of_json(key, i, &value);
	}
	return texts;
}
