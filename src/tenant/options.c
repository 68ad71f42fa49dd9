/*
 * options.c
 *
 * What tenant() was told of a table: JSON in the arguments of its trigger
 * "rowkeeper_tenant", which refuses TRUNCATE. So it survives dump and restore
 * and is read without a table of ours.
 */
#include "tenant/protect.h"
#include "tenant/json.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_tenant_options);

/* What we write is shorter: two names, of whose bytes each is \u00XX at worst. */
#define MAX_OPTIONS_LENGTH 1024

/*
 * Whether the text is short, and escapes no characters but those that we do:
 * a parser would take long for what is long, and raise where the server's
 * encoding lacks a character.
 */
static bool
can_be_ours(const char *stored)
{
	if (strlen(stored) > MAX_OPTIONS_LENGTH)
		return false;
	for (const char *c = stored; *c != '\0'; c++)
		if (*c == '\\' && *++c == 'u' && strncmp(c, "u00", 3) != 0)
			return false;
	return true;
}

/*
 * NULL where it is not what we write: the function of the trigger is PUBLIC's,
 * so its arguments are anybody's who owns a table.
 */
static RkTenantOptions *
parse_options(const char *stored)
{
	const RkJson *object = can_be_ours(stored) ? rk_json_object(stored) : NULL;
	RkTenantOptions *options = palloc0(sizeof(RkTenantOptions));

	if (object == NULL)
		return NULL;
	for (int i = 0; i < RK_CLAIM_KINDS; i++)
	{
		const RkJson *column = rk_json_find(object, rk_claim_names[i]);

		if (column != NULL && column->type == JSON_TOKEN_STRING)
			options->by[i] = column->text;
	}
	if (options->by[RK_CLAIM_TENANT] == NULL && options->by[RK_CLAIM_USER] == NULL)
		return NULL;
	options->shared = rk_json_boolean(object, "shared", false);
	options->force = rk_json_boolean(object, "force", true);
	options->set_default = rk_json_boolean(object, "set_default", true);
	options->was_enabled = rk_json_boolean(object, "was_enabled", false);
	options->was_forced = rk_json_boolean(object, "was_forced", false);
	return options;
}

/* The options as the trigger carries them; equal options are equal text. */
char *
rk_tenant_options_format(const RkTenantOptions *options)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < RK_CLAIM_KINDS; i++)
	{
		rk_option_push_text(&state, rk_claim_names[i], options->by[i]);
	}
	rk_option_push_boolean(&state, "shared", options->shared);
	rk_option_push_boolean(&state, "force", options->force);
	rk_option_push_boolean(&state, "set_default", options->set_default);
	rk_option_push_boolean(&state, "was_enabled", options->was_enabled);
	rk_option_push_boolean(&state, "was_forced", options->was_forced);
	return rk_options_text(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* The options of a protected table; NULL where it is not. */
RkTenantOptions *
rk_tenant_options_of(Oid relid)
{
	RkTriggerRow row;

	if (!rk_trigger_read(relid, RK_TENANT_TRIGGER, "_tenant_truncate", &row) || row.arguments == NIL)
		return NULL;
	return parse_options(linitial(row.arguments));
}

/* Whether the columns that options name are there, and of a type that will do. */
bool
rk_tenant_options_fit(Oid relid, const RkTenantOptions *options)
{
	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
		if (options->by[kind] != NULL &&
			(get_attnum(relid, options->by[kind]) <= 0 ||
			 !OidIsValid(rk_tenant_column_type(relid, options->by[kind]))))
			return false;
	return true;
}

/*
 * rowkeeper._tenant_options(relation regclass) returns jsonb: what tenant()
 * was told of it; NULL where it is not isolated. No privileges, no locks.
 */
Datum
rowkeeper_tenant_options(PG_FUNCTION_ARGS)
{
	RkTenantOptions *options = rk_tenant_options_of(PG_GETARG_OID(0));

	if (options == NULL)
		PG_RETURN_NULL();
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(rk_tenant_options_format(options)));
}
