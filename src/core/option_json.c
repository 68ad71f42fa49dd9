/*
 * option_json.c
 *
 * A feature keeps what it was told of a table as a JSON object in the
 * arguments of its trigger: it survives dump and restore, reaches every
 * partition, and each change of it invalidates what is cached of the table.
 * Here is how such objects are read and written.
 */
#include "rowkeeper.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static JsonbValue *
find_member(Jsonb *options, const char *name, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(&options->root, name, strlen(name), value);
}

static char *
copy_string(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* A member that is a string, or NULL where it is absent or null. */
char *
rk_option_text(Jsonb *options, const char *name)
{
	JsonbValue	value;

	return find_member(options, name, &value) != NULL && value.type == jbvString
		? copy_string(&value) : NULL;
}

/* A member that is true or false; absent: neither. */
bool
rk_option_boolean(Jsonb *options, const char *name, bool absent)
{
	JsonbValue	value;

	return find_member(options, name, &value) != NULL && value.type == jbvBool
		? value.val.boolean : absent;
}

/* A member that is a list of strings: char *, in its order. */
List *
rk_option_names(Jsonb *options, const char *name)
{
	JsonbValue	list;
	List	   *names = NIL;

	if (find_member(options, name, &list) == NULL || list.type != jbvBinary ||
		!JsonContainerIsArray(list.val.binary.data))
		return NIL;
	for (uint32 i = 0; i < JsonContainerSize(list.val.binary.data); i++)
	{
		JsonbValue *name = getIthJsonbValueFromContainer(list.val.binary.data, i);

		if (name->type == jbvString)
			names = lappend(names, copy_string(name));
	}
	return names;
}

/* Append a key, a value or an element; NULL: null. */
void
rk_option_push(JsonbParseState **state, JsonbIteratorToken token, const char *string)
{
	JsonbValue	value = {.type = jbvNull};

	if (string != NULL)
	{
		value.type = jbvString;
		value.val.string.val = (char *) string;
		value.val.string.len = strlen(string);
	}
	pushJsonbValue(state, token, &value);
}

/* A member that is a string; NULL: null. */
void
rk_option_push_text(JsonbParseState **state, const char *name, const char *value)
{
	rk_option_push(state, WJB_KEY, name);
	rk_option_push(state, WJB_VALUE, value);
}

void
rk_option_push_boolean(JsonbParseState **state, const char *name, bool value)
{
	JsonbValue	boolean = {.type = jbvBool,.val.boolean = value};

	rk_option_push(state, WJB_KEY, name);
	pushJsonbValue(state, WJB_VALUE, &boolean);
}

/* The finished object as text; equal options are equal text. */
char *
rk_options_text(JsonbValue *object)
{
	Jsonb	   *options = JsonbValueToJsonb(object);

	return JsonbToCString(NULL, &options->root, VARSIZE(options));
}

/* Raise 22023: what a call was told cannot be. */
void
rk_refuse_option(const char *option, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\": %s", option, message),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/* The option "keep" as the text that is stored: NULL for '0' and, from 17 on, infinity: for ever. */
char *
rk_option_keep(Interval *keep)
{
	Interval	zero = {0};
	Interval	longest = {.month = RK_MAX_YEARS * MONTHS_PER_YEAR};
	int			style = IntervalStyle;
	int			sign = DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(keep),
														 IntervalPGetDatum(&zero)));
	char	   *result;

	if (sign == 0)
		return NULL;
	if (sign < 0)
		rk_refuse_option("keep", "must not be negative", NULL);
	if (keep->month == PG_INT32_MAX)
		return NULL;			/* infinity */
	if (DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(keep),
										  IntervalPGetDatum(&longest))) > 0)
		rk_refuse_option("keep", psprintf("must be at most %d years", RK_MAX_YEARS),
						 "'0' keeps for ever.");
	if (keep->month == 0 && keep->day == 0 && keep->time < USECS_PER_DAY)
		rk_refuse_option("keep", "must be at least one day", "'0' keeps for ever.");

	IntervalStyle = INTSTYLE_POSTGRES;	/* nothing in between can fail but
										 * memory */
	result = DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(keep)));
	IntervalStyle = style;
	return result;
}
