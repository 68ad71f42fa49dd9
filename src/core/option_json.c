/*
 * option_json.c
 *
 * A feature keeps what it was told of a table as a JSON object in the
 * arguments of its trigger: it survives dump and restore, reaches every
 * partition, and each change of it invalidates what is cached of the table.
 * Here is how such objects are read and written.
 */
#include "rowkeeper.h"

#include "utils/builtins.h"

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

/* The finished object as text; equal options are equal text. */
char *
rk_options_text(JsonbValue *object)
{
	Jsonb	   *options = JsonbValueToJsonb(object);

	return JsonbToCString(NULL, &options->root, VARSIZE(options));
}
