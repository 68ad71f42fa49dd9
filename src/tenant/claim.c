/*
 * claim.c
 *
 * Which tenant, and which user, a transaction acts for: a claim that SQL
 * cannot forge, that ends with the transaction and that parallel workers see.
 *
 * A claim is the value of a setting, because settings are what the server
 * already undoes at ROLLBACK TO and hands to parallel workers. The setting is
 * guarded: its check hook takes the empty value, what our own setter is just
 * setting, and what a parallel worker gets from its leader; so SET,
 * set_config(), PGOPTIONS, ALTER ROLE SET, a function's SET clause and UPDATE
 * pg_settings are all refused, and nobody can GRANT his way around it. The
 * claim notes the transaction that set it and is nothing in any other, so
 * whatever a pooler keeps of a session, no claim survives in it.
 *
 * Policies call the getters here, never current_setting(): before the library
 * is loaded a setting of that name is a placeholder that anybody may write,
 * and loading the library throws it away.
 */
#include "tenant/protect.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#define MAXINT8LEN 20

bool		rk_tenant_strict = true;

/* A claim's setting. "extra" of the setting is the RkClaim. */
typedef struct ClaimSetting
{
	const char *name;
	const char *setter;			/* for hints */
	char	   *value;			/* the server's; not read */
	const RkClaim *claim;		/* NULL: none */
} ClaimSetting;

static ClaimSetting tenant_setting = {.name = "rowkeeper.tenant",.setter = "rowkeeper.tenant_set(...)"};
static ClaimSetting user_setting = {.name = "rowkeeper.user_claim",.setter = "rowkeeper.user_set(...)"};

/* Set: the transaction is past the isolation of tenants; its value says why. */
static ClaimSetting bypass_setting = {.name = "rowkeeper.bypass",.setter = "rowkeeper.tenant_bypass(...)"};

RkStanding	rk_standing_now;

static const char *pending = NULL;	/* what our setter is setting just now */

PG_FUNCTION_INFO_V1(rowkeeper_tenant_set);
PG_FUNCTION_INFO_V1(rowkeeper_user_set);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_id);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_uuid);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_text);
PG_FUNCTION_INFO_V1(rowkeeper_user_id);
PG_FUNCTION_INFO_V1(rowkeeper_user_uuid);
PG_FUNCTION_INFO_V1(rowkeeper_user_text);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_claim);

/* ---- parsing ---- */

/* A whole number exactly as bigint is written out: no sign +, no spaces. */
static bool
parse_number(const char *text, int64 *number)
{
	char		canonical[MAXINT8LEN + 1];
	char	   *end;

	errno = 0;
	*number = strtoll(text, &end, 10);
	if (errno != 0 || *end != '\0' || end == text)
		return false;
	pg_lltoa(*number, canonical);
	return strcmp(canonical, text) == 0;
}

/* 8-4-4-4-12 hexadecimal digits, as uuid is written out. */
static bool
parse_uuid(const char *text, pg_uuid_t *uuid)
{
	int			digits = 0;

	if (strlen(text) != 36)
		return false;
	for (int i = 0; i < 36; i++)
	{
		char		c = text[i];
		int			digit;

		if (i == 8 || i == 13 || i == 18 || i == 23)
		{
			if (c != '-')
				return false;
			continue;
		}
		if (c >= '0' && c <= '9')
			digit = c - '0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			digit = (c | 0x20) - 'a' + 10;
		else
			return false;
		if (digits % 2 == 0)
			uuid->data[digits / 2] = digit << 4;
		else
			uuid->data[digits / 2] |= digit;
		digits++;
	}
	return true;
}

/* Bytes that a claim of this value takes. */
Size
rk_claim_size(const char *value)
{
	return offsetof(RkClaim, value) + strlen(value) + 1;
}

/* Make a value a claim of this transaction. In check hooks: raises nothing. */
void
rk_claim_fill(RkClaim *claim, const char *value)
{
	memset(claim, 0, offsetof(RkClaim, value));
	claim->length = strlen(value);
	memcpy(claim->value, value, claim->length + 1);
	claim->inherited = InitializingParallelWorker;
	claim->transaction = rk_local_transaction(MyProc);
	claim->is_number = parse_number(value, &claim->number);
	claim->is_uuid = parse_uuid(value, &claim->uuid);
}

/* ---- the settings' hooks ---- */

static bool
check_claim(const ClaimSetting *setting, char **newval, void **extra)
{
	if (*newval == NULL || **newval == '\0')
		return true;
	if (!InitializingParallelWorker &&
		(pending == NULL || strcmp(pending, *newval) != 0))
	{
		GUC_check_errcode(ERRCODE_INSUFFICIENT_PRIVILEGE);
		GUC_check_errmsg("setting \"%s\" cannot be set directly", setting->name);
		GUC_check_errhint("SELECT %s within the transaction.", setting->setter);
		return false;
	}
	*extra = rk_guc_malloc(rk_claim_size(*newval));
	if (*extra == NULL)
		return false;
	rk_claim_fill(*extra, *newval);
	return true;
}

static bool
check_tenant(char **newval, void **extra, GucSource source)
{
	return check_claim(&tenant_setting, newval, extra);
}

static bool
check_user(char **newval, void **extra, GucSource source)
{
	return check_claim(&user_setting, newval, extra);
}

static bool
check_bypass(char **newval, void **extra, GucSource source)
{
	return check_claim(&bypass_setting, newval, extra);
}

static void
assign_tenant(const char *newval, void *extra)
{
	tenant_setting.claim = extra;
	rk_claims_changed();
}

static void
assign_user(const char *newval, void *extra)
{
	user_setting.claim = extra;
	rk_claims_changed();
}

static void
assign_bypass(const char *newval, void *extra)
{
	bypass_setting.claim = extra;
	rk_claims_changed();
}

/* ---- setting ---- */

/*
 * A claim holds for the transaction. Called directly outside a transaction
 * block it would end with the call, and what follows would run without it.
 */
void
rk_claim_check_lasting(const char *what)
{
	if (!rk_is_within_transaction())
		ereport(ERROR,
				(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s holds for the current transaction only, which ends with this statement", what),
				 errhint("Call it after BEGIN.")));
}

/* Set, for this transaction, or clear (NULL) a claim. */
static void
set_claim(ClaimSetting *setting, const char *value)
{
	PG_TRY();
	{
		pending = value;
		(void) set_config_option(setting->name, value == NULL ? "" : value, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	}
	PG_FINALLY();
	{
		pending = NULL;
	}
	PG_END_TRY();
}

/* The transaction goes past the isolation of tenants from here on. */
void
rk_tenant_bypass_begin(const char *reason)
{
	set_claim(&bypass_setting, reason);
}

/*
 * Whether a bypass holds for the current role: it is the transaction's, and a
 * function with its owner's rights may have begun it.
 */
bool
rk_tenant_may_pass(void)
{
	if (rk_standing_now.passing == GetUserId())
		return true;
	if (!rk_tenant_is_trusted_with_bypass(GetUserId()))
		return false;
	rk_standing_now.passing = GetUserId();
	return true;
}

/* The argument of a setter, of whichever type, as text; NULL: clear. */
static char *
claim_argument(FunctionCallInfo fcinfo, const char *what)
{
	char	   *value;

	if (PG_ARGISNULL(0))
		return NULL;
	value = rk_text_of_value(PG_GETARG_DATUM(0), get_fn_expr_argtype(fcinfo->flinfo, 0));
	if (value[0] == '\0' || strlen(value) > RK_MAX_CLAIM_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a %s must have between 1 and %d characters", what, RK_MAX_CLAIM_LENGTH),
				 errhint("NULL clears it.")));
	return value;
}

static Datum
set_claim_of_call(FunctionCallInfo fcinfo, ClaimSetting *setting, const char *what)
{
	char	   *value = claim_argument(fcinfo, what);

	rk_claim_check_lasting(setting->setter);
	set_claim(setting, value);
	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(value));
}

/*
 * rowkeeper.tenant_set(tenant bigint | uuid | text) returns text, the value
 * set: the tenant that this transaction acts for, undone by ROLLBACK TO; NULL
 * clears it. Who may execute it is trusted to say which tenant it acts for
 * (rowkeeper.tenant_role). No locks. Raises 25P01 outside a transaction block,
 * 22023 for an empty or overlong value.
 */
Datum
rowkeeper_tenant_set(PG_FUNCTION_ARGS)
{
	return set_claim_of_call(fcinfo, &tenant_setting, "tenant");
}

/* rowkeeper.user_set(user_name bigint | uuid | text) returns text: as tenant_set(). */
Datum
rowkeeper_user_set(PG_FUNCTION_ARGS)
{
	return set_claim_of_call(fcinfo, &user_setting, "user");
}

/* ---- getting ---- */

/* The claim, if it is of this transaction. */
static const RkClaim *
valid_claim(const RkClaim *claim)
{
	return claim != NULL &&
		(claim->inherited || claim->transaction == rk_local_transaction(MyProc)) ? claim : NULL;
}

/* What a token says goes before what was set; that both differ is an attack. */
static const RkClaim *
signed_or_set(const RkClaim *of_token, const RkClaim *set, const char *what)
{
	of_token = valid_claim(of_token);
	set = valid_claim(set);
	if (of_token != NULL && set != NULL &&
		(of_token->length != set->length || memcmp(of_token->value, set->value, set->length) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("the token and the claim that was set name different %ss", what)));
	return of_token != NULL ? of_token : set;
}

void
rk_standing_find(void)
{
	rk_standing_now.bypassing = valid_claim(bypass_setting.claim) != NULL;
	rk_standing_now.tenant = signed_or_set(rk_token_tenant(), tenant_setting.claim, "tenant");
	rk_standing_now.user = signed_or_set(rk_token_user(), user_setting.claim, "user");
	rk_standing_now.transaction = rk_local_transaction(MyProc);
}

/* A setting has changed, or has come back to what it was. */
void
rk_claims_changed(void)
{
	memset(&rk_standing_now, 0, sizeof(rk_standing_now));
}

/* The user as the actor. */
static const char *
claimed_actor(bool *is_signed)
{
	const RkClaim *claim = valid_claim(rk_token_user());

	*is_signed = claim != NULL;
	if (claim == NULL)
		claim = valid_claim(user_setting.claim);
	return claim == NULL ? NULL : claim->value;
}

/* An error rather than no rows: "UPDATE 0" in a migration goes unnoticed. */
void
rk_claim_missing(const char *what, const char *setter)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("no %s is set in this transaction", what),
			 errhint("Call %s after BEGIN, or set rowkeeper.tenant_strict to off to see no rows.",
					 setter)));
}

static const RkClaim *
get_claim(const RkClaim *claim, const char *what, const ClaimSetting *setting)
{
	if (claim == NULL && rk_tenant_strict && !rk_standing()->bypassing)
		rk_claim_missing(what, setting->setter);
	return claim;
}

static const RkClaim *
get_tenant(void)
{
	return get_claim(rk_standing()->tenant, "tenant", &tenant_setting);
}

static const RkClaim *
get_user(void)
{
	return get_claim(rk_standing()->user, "user", &user_setting);
}

RK_NORETURN static void
refuse_type(const char *what, const char *type)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("the %s of this transaction is not a %s", what, type)));
}

static Datum
return_number(FunctionCallInfo fcinfo, const RkClaim *claim, const char *what)
{
	if (claim == NULL)
		PG_RETURN_NULL();
	if (!claim->is_number)
		refuse_type(what, "bigint");
	PG_RETURN_INT64(claim->number);
}

static Datum
return_uuid(FunctionCallInfo fcinfo, const RkClaim *claim, const char *what)
{
	pg_uuid_t  *uuid;

	if (claim == NULL)
		PG_RETURN_NULL();
	if (!claim->is_uuid)
		refuse_type(what, "uuid");
	uuid = palloc(sizeof(pg_uuid_t));
	*uuid = claim->uuid;
	PG_RETURN_UUID_P(uuid);
}

static Datum
return_text(FunctionCallInfo fcinfo, const RkClaim *claim)
{
	if (claim == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(claim->value, claim->length));
}

/*
 * rowkeeper.tenant_id() returns bigint, tenant_uuid() uuid, tenant_text() text;
 * user_id(), user_uuid(), user_text(): the claim of this transaction. No locks
 * and no privileges. Without a claim: 42501, or NULL where
 * rowkeeper.tenant_strict is off; 42804 where it is of another type.
 */
Datum
rowkeeper_tenant_id(PG_FUNCTION_ARGS)
{
	return return_number(fcinfo, get_tenant(), "tenant");
}

Datum
rowkeeper_tenant_uuid(PG_FUNCTION_ARGS)
{
	return return_uuid(fcinfo, get_tenant(), "tenant");
}

Datum
rowkeeper_tenant_text(PG_FUNCTION_ARGS)
{
	return return_text(fcinfo, get_tenant());
}

Datum
rowkeeper_user_id(PG_FUNCTION_ARGS)
{
	return return_number(fcinfo, get_user(), "user");
}

Datum
rowkeeper_user_uuid(PG_FUNCTION_ARGS)
{
	return return_uuid(fcinfo, get_user(), "user");
}

Datum
rowkeeper_user_text(PG_FUNCTION_ARGS)
{
	return return_text(fcinfo, get_user());
}

/*
 * rowkeeper._tenant_claim() returns text: the tenant as a column of its type
 * would be written out, NULL where none is set, for what is to be silent.
 */
Datum
rowkeeper_tenant_claim(PG_FUNCTION_ARGS)
{
	const RkClaim *claim = rk_standing()->tenant;

	if (claim == NULL)
		PG_RETURN_NULL();
	if (claim->is_uuid)
		PG_RETURN_TEXT_P(cstring_to_text(DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&claim->uuid)))));
	return return_text(fcinfo, claim);
}

/* ---- start ---- */

void
rk_tenant_init(void)
{
	rk_claim_init();
	rk_token_init();
	rk_token_key_init();
	rk_tenant_enable_init();
	rk_tenant_ddl_init();
	rk_who_claim = claimed_actor;
}

void
rk_claim_init(void)
{
	const int	flags = GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE;

	DefineCustomStringVariable(tenant_setting.name,
							   "The tenant that the transaction acts for.",
							   "Guarded: rowkeeper.tenant_set() sets it, until the transaction ends.",
							   &tenant_setting.value, "", PGC_USERSET, flags,
							   check_tenant, assign_tenant, NULL);
	DefineCustomStringVariable(user_setting.name,
							   "The user that the transaction acts for.",
							   "Guarded: rowkeeper.user_set() sets it, until the transaction ends.",
							   &user_setting.value, "", PGC_USERSET, flags,
							   check_user, assign_user, NULL);
	DefineCustomStringVariable(bypass_setting.name,
							   "Why the transaction is past the isolation of tenants.",
							   "Guarded: rowkeeper.tenant_bypass() sets it, until the transaction ends.",
							   &bypass_setting.value, "", PGC_USERSET, flags,
							   check_bypass, assign_bypass, NULL);
	DefineCustomBoolVariable("rowkeeper.tenant_strict",
							 "Whether a query without a tenant is an error.",
							 "Off: it sees no rows.",
							 &rk_tenant_strict, true, PGC_USERSET, 0,
							 NULL, NULL, NULL);
}
