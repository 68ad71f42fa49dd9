/*
 * json.c
 *
 * JSON as a tree, read in one pass. jsonb would do, but for three things: it
 * takes the last of two members of one name, where a token must have no two;
 * its input raises errors, where what somebody wrote into a trigger's
 * arguments must not; and a token is read once a transaction, so what it costs
 * to sort and to pack counts.
 */
#include "tenant/json.h"

typedef struct Reading
{
	RkJson	   *root;
	RkJson	   *open;			/* innermost object or array */
	char	   *name;			/* of the member to come */
	bool		repeated;		/* an object has a member twice */
} Reading;

static RkJson *
add_value(Reading *reading, JsonTokenType type, char *text)
{
	RkJson	   *value = palloc0(sizeof(RkJson));
	RkJson	   *open = reading->open;

	value->type = type;
	value->text = text;

	value->outer = open;
	if (open == NULL)
		reading->root = value;
	else
	{
		if (open->type == JSON_TOKEN_OBJECT_START)
			value->name = reading->name;
		if (open->last == NULL)
			open->first = value;
		else
			open->last->next = value;
		open->last = value;
	}
	return value;
}

static RkJsonResult
begin_object(void *state)
{
	Reading    *reading = state;

	reading->open = add_value(reading, JSON_TOKEN_OBJECT_START, NULL);
	RK_JSON_GO_ON;
}

static RkJsonResult
begin_array(void *state)
{
	Reading    *reading = state;

	reading->open = add_value(reading, JSON_TOKEN_ARRAY_START, NULL);
	RK_JSON_GO_ON;
}

static RkJsonResult
end_values(void *state)
{
	Reading    *reading = state;

	reading->open = reading->open->outer;
	RK_JSON_GO_ON;
}

static RkJsonResult
begin_member(void *state, char *name, bool isnull)
{
	Reading    *reading = state;

	for (RkJson *member = reading->open->first; member != NULL; member = member->next)
		reading->repeated |= strcmp(member->name, name) == 0;
	reading->name = name;
	RK_JSON_GO_ON;
}

static RkJsonResult
put_scalar(void *state, char *text, JsonTokenType type)
{
	(void) add_value(state, type, text);
	RK_JSON_GO_ON;
}

/*
 * A JSON object in the server's encoding. NULL where the text is something
 * else, or where an object in it has a member twice: readers differ in which
 * of the two they take, so who wrote it may have meant the other one.
 */
RkJson *
rk_json_object(const char *text)
{
	Reading		reading = {0};
	JsonSemAction action = {
		.semstate = &reading,
		.object_start = begin_object,
		.object_end = end_values,
		.array_start = begin_array,
		.array_end = end_values,
		.object_field_start = begin_member,
		.scalar = put_scalar
	};

	if (pg_parse_json(rk_json_lexer(text, strlen(text)), &action) != JSON_SUCCESS ||
		reading.repeated || reading.root->type != JSON_TOKEN_OBJECT_START)
		return NULL;
	return reading.root;
}

/* What a dotted path leads to; NULL where it leads nowhere. */
const RkJson *
rk_json_find(const RkJson *object, const char *path)
{
	for (;;)
	{
		const char *dot = strchr(path, '.');
		int			length = dot == NULL ? strlen(path) : dot - path;
		const RkJson *member;

		if (object->type != JSON_TOKEN_OBJECT_START)
			return NULL;
		for (member = object->first; member != NULL; member = member->next)
			if (strncmp(member->name, path, length) == 0 && member->name[length] == '\0')
				break;
		if (member == NULL || dot == NULL)
			return member;
		object = member;
		path = dot + 1;
	}
}

bool
rk_json_is_string(const RkJson *value, const char *expected)
{
	return value->type == JSON_TOKEN_STRING && strcmp(value->text, expected) == 0;
}

/* A member that is true or false; absent: neither. */
bool
rk_json_boolean(const RkJson *object, const char *name, bool absent)
{
	const RkJson *value = rk_json_find(object, name);

	if (value != NULL && (value->type == JSON_TOKEN_TRUE || value->type == JSON_TOKEN_FALSE))
		return value->type == JSON_TOKEN_TRUE;
	return absent;
}
