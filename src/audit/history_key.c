/*
 * history_key.c
 *
 * The key of a row whose history is asked for: as callers give it, as the log
 * stores it, and whether two of them are the same. Callers' keys have the
 * columns of the table as it is now. Keys in the log have the names and types
 * of their time: where columns were renamed since, values are what counts.
 */
#include "audit/history.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/typcache.h"

/* ---- as jsonb ---- */

#define MAX_KEY_MEMBERS INDEX_MAX_KEYS

typedef struct KeyMember
{
	JsonbValue	name;
	JsonbValue	value;
} KeyMember;

static int
read_key_members(Jsonb *key, KeyMember *members)
{
	JsonbIterator *it = JsonbIteratorInit(&key->root);
	JsonbValue	value;
	JsonbIteratorToken token;
	int			count = 0;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY && count < MAX_KEY_MEMBERS)
			members[count].name = value;
		else if (token == WJB_VALUE && count < MAX_KEY_MEMBERS)
			members[count++].value = value;
	}
	return count;
}

static bool
same_string(const JsonbValue *a, const JsonbValue *b)
{
	return a->val.string.len == b->val.string.len &&
		memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
}

/* Length without trailing blanks: char(n) may since have become longer. */
static int
trimmed_length(const JsonbValue *value)
{
	int			length = value->val.string.len;

	while (length > 0 && value->val.string.val[length - 1] == ' ')
		length--;
	return length;
}

static bool
same_key_value(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvString:
			return trimmed_length(a) == trimmed_length(b) &&
				memcmp(a->val.string.val, b->val.string.val, trimmed_length(a)) == 0;
		case jbvNumeric:
			return DatumGetBool(DirectFunctionCall2(numeric_eq,
													NumericGetDatum(a->val.numeric),
													NumericGetDatum(b->val.numeric)));
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		case jbvNull:
			return true;
		default:
			return false;		/* no key type is a container */
	}
}

static bool
same_names(const KeyMember *a, const KeyMember *b, int count)
{
	for (int i = 0; i < count; i++)
		if (!same_string(&a[i].name, &b[i].name))
			return false;
	return true;
}

/* Whether each value of one has its own equal among the other's. */
static bool
same_values(const KeyMember *a, const KeyMember *b, int count)
{
	bool		used[MAX_KEY_MEMBERS] = {false};

	for (int i = 0; i < count; i++)
	{
		int			j = 0;

		while (j < count && (used[j] || !same_key_value(&a[i].value, &b[j].value)))
			j++;
		if (j == count)
			return false;
		used[j] = true;
	}
	return true;
}

/*
 * Whether two keys with the same hash are the same key. Where columns were
 * renamed between them the names differ, and values are what counts.
 */
bool
rk_audit_same_key(Jsonb *a, Jsonb *b)
{
	KeyMember	members_a[MAX_KEY_MEMBERS];
	KeyMember	members_b[MAX_KEY_MEMBERS];
	int			count;

	if (VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0)
		return true;
	count = read_key_members(a, members_a);
	if (count != read_key_members(b, members_b))
		return false;
	if (!same_names(members_a, members_b, count))
		return same_values(members_a, members_b, count);
	for (int i = 0; i < count; i++)
		if (!same_key_value(&members_a[i].value, &members_b[i].value))
			return false;
	return true;
}

/* A key's value as the text that its column's input function takes. */
static char *
value_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return value->val.boolean ? "true" : "false";
		case jbvNull:
			return NULL;
		default:
			return JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
	}
}

/* The key an UPDATE left the row with, or NULL where it did not change it. */
Jsonb *
rk_audit_changed_key(const RkHistoryEntry *update)
{
	KeyMember	members[MAX_KEY_MEMBERS];
	int			count;
	bool		changed = false;
	JsonbParseState *state = NULL;

	if (update->kind != RK_UPDATE || update->new_data == NULL)
		return NULL;
	count = read_key_members(update->record_id, members);
	for (int i = 0; i < count; i++)
	{
		JsonbValue	value;

		if (getKeyJsonValueFromContainer(&update->new_data->root,
										 members[i].name.val.string.val,
										 members[i].name.val.string.len, &value) != NULL &&
			!same_key_value(&value, &members[i].value))
		{
			members[i].value = value;
			changed = true;
		}
	}
	if (!changed)
		return NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < count; i++)
	{
		pushJsonbValue(&state, WJB_KEY, &members[i].name);
		pushJsonbValue(&state, WJB_VALUE, &members[i].value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* ---- as values ---- */

static Form_pg_attribute
key_column(const RkHistory *history, int i)
{
	return TupleDescAttr(RelationGetDescr(history->rel), history->key_columns[i] - 1);
}

/* "id bigint, line integer": what a call has to give. */
static char *
describe_key(const RkHistory *history)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < history->key_count; i++)
	{
		Form_pg_attribute column = key_column(history, i);

		appendStringInfo(&text, "%s%s %s", i > 0 ? ", " : "", NameStr(column->attname),
						 format_type_with_typemod(column->atttypid, column->atttypmod));
	}
	return text.data;
}

typedef struct KeyInput
{
	const RkHistory *history;
	int			column;
} KeyInput;

static void
explain_key_input(void *arg)
{
	const KeyInput *input = arg;

	errcontext("value of key column \"%s\"",
			   NameStr(key_column(input->history, input->column)->attname));
	errhint("The primary key of %s is (%s).",
			rk_relation_name(input->history->root), describe_key(input->history));
}

/*
 * Turn texts in key order into values; raises where one is no value of its
 * column. The result is indexed by attribute number - 1.
 */
Datum *
rk_audit_key_values(const RkHistory *history, char **texts)
{
	Datum	   *values = palloc0(RelationGetDescr(history->rel)->natts * sizeof(Datum));
	KeyInput	input = {.history = history};
	ErrorContextCallback context = {
		.previous = error_context_stack,.callback = explain_key_input,.arg = &input
	};

	error_context_stack = &context;
	for (int i = 0; i < history->key_count; i++)
	{
		Form_pg_attribute column = key_column(history, i);
		Oid			function;
		Oid			ioparam;

		input.column = i;
		if (texts[i] == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("value of key column \"%s\" must not be null",
							NameStr(column->attname))));
		getTypeInputInfo(column->atttypid, &function, &ioparam);
		values[column->attnum - 1] = OidInputFunctionCall(function, texts[i], ioparam,
														  column->atttypmod);
	}
	error_context_stack = context.previous;
	return values;
}

void
rk_audit_key_refuse(const RkHistory *history, const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 errhint("The primary key of %s is (%s).",
					 rk_relation_name(history->root), describe_key(history))));
}

static void
check_key_count(const RkHistory *history, int count)
{
	if (count != history->key_count)
		rk_audit_key_refuse(history, psprintf("%d key %s given, the primary key has %d %s",
											  count, count == 1 ? "value" : "values",
											  history->key_count,
											  history->key_count == 1 ? "column" : "columns"));
}

/* The texts of a key from the log, whose columns may have been renamed since. */
static bool
texts_of_stored(const RkHistory *history, Jsonb *key, char **texts)
{
	KeyMember	members[MAX_KEY_MEMBERS];
	int			count = read_key_members(key, members);
	bool		used[MAX_KEY_MEMBERS] = {false};
	int			unnamed = -1;

	if (count != history->key_count)
		return false;
	for (int i = 0; i < count; i++)
	{
		char	   *name = NameStr(key_column(history, i)->attname);
		JsonbValue	wanted = {.type = jbvString,.val.string = {strlen(name), name}};
		int			j = 0;

		while (j < count && !same_string(&members[j].name, &wanted))
			j++;
		if (j < count)
		{
			texts[i] = value_text(&members[j].value);
			used[j] = true;
		}
		else if (unnamed >= 0)
			return false;		/* two renamed: which is which? */
		else
			unnamed = i;
	}
	for (int j = 0; j < count && unnamed >= 0; j++)
		if (!used[j])
			texts[unnamed] = value_text(&members[j].value);
	return true;
}

typedef struct StoredKey
{
	const RkHistory *history;
	char	   *texts[MAX_KEY_MEMBERS];
	int32		hash;
} StoredKey;

static void
hash_stored_key(void *arg)
{
	StoredKey  *key = arg;

	key->hash = rk_audit_key_hash(key->history->key,
								  rk_audit_key_values(key->history, key->texts));
}

/*
 * The hash of a key from the log; false where it cannot be a key of the table
 * as it is now (its type was changed), so that nothing can be under it. Before
 * 16 input functions can only say so by raising.
 */
bool
rk_audit_key_hash_stored(const RkHistory *history, Jsonb *key, int32 *hash)
{
	StoredKey	stored = {.history = history};
	ErrorData  *error;

	if (!texts_of_stored(history, key, stored.texts))
		return false;
	error = rk_attempt(hash_stored_key, &stored);
	if (error != NULL &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
		ReThrowError(error);
	*hash = stored.hash;
	return error == NULL;
}

Jsonb *
rk_audit_key_encode(const RkHistory *history, const Datum *values)
{
	int			natts = RelationGetDescr(history->rel)->natts;
	bool	   *nulls = palloc0(natts * sizeof(bool));
	Bitmapset  *columns = NULL;

	for (int i = 0; i < history->key_count; i++)
		columns = bms_add_member(columns, history->key_columns[i]);
	return rk_audit_encode(rk_audit_encoder_create(RelationGetDescr(history->rel), columns),
						   values, nulls, NULL, NULL);
}

/* ---- as callers give it ---- */

char	  **
rk_audit_key_of_array(const RkHistory *history, ArrayType *array)
{
	TypeCacheEntry *type = lookup_type_cache(ARR_ELEMTYPE(array), 0);
	char	  **texts = palloc0(history->key_count * sizeof(char *));
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	deconstruct_array(array, type->type_id, type->typlen, type->typbyval, type->typalign,
					  &elements, &nulls, &count);
	check_key_count(history, count);
	for (int i = 0; i < count; i++)
		if (!nulls[i])
			texts[i] = rk_text_of_value(elements[i], type->type_id);
	return texts;
}

char	  **
rk_audit_key_of_arguments(const RkHistory *history, FunctionCallInfo fcinfo)
{
	char	  **texts = palloc0(history->key_count * sizeof(char *));

	check_key_count(history, PG_NARGS() - 1);
	for (int i = 1; i < PG_NARGS(); i++)
		if (!PG_ARGISNULL(i))
			texts[i - 1] = rk_text_of_value(PG_GETARG_DATUM(i),
											get_fn_expr_argtype(fcinfo->flinfo, i));
	return texts;
}

/* The key in an object as a user wrote it: all columns by name, no others. */
static char **
texts_of_object(const RkHistory *history, Jsonb *key)
{
	char	  **texts = palloc0(history->key_count * sizeof(char *));

	check_key_count(history, JB_ROOT_COUNT(key));
	for (int i = 0; i < history->key_count; i++)
	{
		char	   *name = NameStr(key_column(history, i)->attname);
		JsonbValue	value;

		if (getKeyJsonValueFromContainer(&key->root, name, strlen(name), &value) == NULL)
			rk_audit_key_refuse(history, psprintf("the key has no member \"%s\"", name));
		texts[i] = value_text(&value);
	}
	return texts;
}

static char **
texts_of_scalar(const RkHistory *history, Jsonb *key)
{
	char	  **texts = palloc0(sizeof(char *));
	JsonbValue	value;

	if (history->key_count != 1)
		rk_audit_key_refuse(history, "a single value is not the key of this table");
	(void) JsonbExtractScalar(&key->root, &value);
	texts[0] = value_text(&value);
	return texts;
}

/* An object, or a scalar where the key has one column. */
char	  **
rk_audit_key_of_jsonb(const RkHistory *history, Jsonb *key)
{
	if (JB_ROOT_IS_SCALAR(key))
		return texts_of_scalar(history, key);
	if (!JB_ROOT_IS_OBJECT(key))
		rk_audit_key_refuse(history, "key must be a JSON object or a single value");
	return texts_of_object(history, key);
}
