/*
 * json.h
 *
 * JSON as a tree (json.c), for tokens and for what a trigger carries.
 */
#ifndef RK_TENANT_JSON_H
#define RK_TENANT_JSON_H

#include "tenant/tenant.h"

typedef struct RkJson
{
	JsonTokenType type;			/* of objects and arrays that of their start */
	char	   *name;			/* NULL: not a member of an object */
	char	   *text;			/* of a scalar; of a string without escapes */
	struct RkJson *outer;
	struct RkJson *first;		/* of what is within */
	struct RkJson *last;
	struct RkJson *next;		/* beside it */
} RkJson;

extern RkJson *rk_json_object(const char *text);
extern const RkJson *rk_json_find(const RkJson *object, const char *path);
extern bool rk_json_is_string(const RkJson *value, const char *expected);
extern bool rk_json_boolean(const RkJson *object, const char *name, bool absent);

#endif							/* RK_TENANT_JSON_H */
