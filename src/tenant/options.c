/*
 * options.c
 *
 * What tenant() was told of a table: JSON in the arguments of its trigger
 * "rowkeeper_tenant", which refuses TRUNCATE. So it survives dump and restore
 * and is read without a table of ours.
 */
#include "tenant/protect.h"

#include "utils/builtins.h"

static RkTenantOptions *
parse_options(Jsonb *stored)
{
	RkTenantOptions *options = palloc0(sizeof(RkTenantOptions));

	for (int i = 0; i < RK_CLAIM_KINDS; i++)
		options->by[i] = rk_option_text(stored, rk_claim_names[i]);
	options->shared = rk_option_boolean(stored, "shared", false);
	options->force = rk_option_boolean(stored, "force", true);
	options->set_default = rk_option_boolean(stored, "set_default", true);
	options->was_enabled = rk_option_boolean(stored, "was_enabled", false);
	options->was_forced = rk_option_boolean(stored, "was_forced", false);
	return options;
}

static void
push_boolean(JsonbParseState **state, const char *name, bool value)
{
	JsonbValue	boolean = {.type = jbvBool,.val.boolean = value};

	rk_option_push(state, WJB_KEY, name);
	pushJsonbValue(state, WJB_VALUE, &boolean);
}

/* The options as the trigger carries them; equal options are equal text. */
char *
rk_tenant_options_format(const RkTenantOptions *options)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < RK_CLAIM_KINDS; i++)
	{
		rk_option_push(&state, WJB_KEY, rk_claim_names[i]);
		rk_option_push(&state, WJB_VALUE, options->by[i]);
	}
	push_boolean(&state, "shared", options->shared);
	push_boolean(&state, "force", options->force);
	push_boolean(&state, "set_default", options->set_default);
	push_boolean(&state, "was_enabled", options->was_enabled);
	push_boolean(&state, "was_forced", options->was_forced);
	return rk_options_text(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* The options of a protected table; NULL where it is not. */
RkTenantOptions *
rk_tenant_options_of(Oid relid)
{
	RkTriggerRow row;

	if (!rk_trigger_read(relid, RK_TENANT_TRIGGER, "_tenant_truncate", &row) || row.arguments == NIL)
		return NULL;
	return parse_options(DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
															CStringGetDatum(linitial(row.arguments)))));
}
