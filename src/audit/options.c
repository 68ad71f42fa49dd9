/*
 * options.c
 *
 * What audit() was told of a table, kept as JSON in the arguments of the row
 * trigger: it survives dump and restore, reaches every partition, and each
 * change of it invalidates what is cached of the table.
 */
#include "audit/audit.h"

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
static char *
get_text(Jsonb *options, const char *name)
{
	JsonbValue	value;

	return find_member(options, name, &value) != NULL && value.type == jbvString
		? copy_string(&value) : NULL;
}

static bool
get_boolean(Jsonb *options, const char *name, bool absent)
{
	JsonbValue	value;

	return find_member(options, name, &value) != NULL && value.type == jbvBool
		? value.val.boolean : absent;
}

static List *
get_names(Jsonb *options, const char *name)
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

/* Read the options that a row trigger carries. */
RkAuditOptions *
rk_audit_options_parse(Jsonb *stored)
{
	RkAuditOptions *options = palloc0(sizeof(RkAuditOptions));
	char	   *capture = get_text(stored, "capture");

	options->full = capture != NULL && strcmp(capture, "full") == 0;
	options->exclude = get_names(stored, "exclude");
	options->keep = get_text(stored, "keep");
	options->tenant = get_text(stored, "tenant");
	options->replica = get_boolean(stored, "replica", true);
	return options;
}

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, const char *string)
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

/* The options as a row trigger carries them; equal options are equal text. */
char *
rk_audit_options_format(const RkAuditOptions *options)
{
	JsonbParseState *state = NULL;
	JsonbValue	replica = {.type = jbvBool,.val.boolean = options->replica};
	Jsonb	   *result;
	ListCell   *lc;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_string(&state, WJB_KEY, "capture");
	push_string(&state, WJB_VALUE, options->full ? "full" : "changes");
	push_string(&state, WJB_KEY, "exclude");
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	foreach(lc, options->exclude)
		push_string(&state, WJB_ELEM, lfirst(lc));
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	push_string(&state, WJB_KEY, "keep");
	push_string(&state, WJB_VALUE, options->keep);
	push_string(&state, WJB_KEY, "tenant");
	push_string(&state, WJB_VALUE, options->tenant);
	push_string(&state, WJB_KEY, "replica");
	pushJsonbValue(&state, WJB_VALUE, &replica);
	result = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	return JsonbToCString(NULL, &result->root, VARSIZE(result));
}

/* The options of an audited table; NULL where it is not audited. */
RkAuditOptions *
rk_audit_options_of(Oid root)
{
	Jsonb	   *stored = rk_changes_options(root, "audit");

	return stored == NULL ? NULL : rk_audit_options_parse(stored);
}

bool
rk_audit_excludes(const RkAuditOptions *options, const char *column)
{
	ListCell   *lc;

	foreach(lc, options->exclude)
		if (strcmp(lfirst(lc), column) == 0)
		return true;
	return false;
}
