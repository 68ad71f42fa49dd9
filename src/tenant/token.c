/*
 * token.c
 *
 * Tenant and user named by a signed token (jwt.c), for code that is not trusted
 * to name them itself. A token that fails changes nothing, and no message says
 * more than that it failed: the reason goes to the server's log, a token's text
 * nowhere.
 *
 * rowkeeper.tenant_set_signed() and SET LOCAL rowkeeper.token both end in the
 * check hook of that setting, which replaces the token by what it claims. So
 * SHOW never gives a token back, and a parallel worker, which gets the
 * replaced value, neither needs keys nor looks at the clock.
 *
 * A check hook cannot tell SET LOCAL from SET, so claims hold for the
 * transaction that verified them only (claim.c), and nothing but a running
 * transaction's own SET is listened to: ALTER ROLE SET would plant a token. So
 * would a SET of before the library was loaded, perhaps by another client of
 * the same pooled connection, in whose transaction it is loaded.
 */
#include "tenant/tenant.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

/* The setting's extra: both claims, one allocation as the server frees one. */
typedef struct TokenExtra
{
	RkClaim    *tenant;			/* into this allocation, or NULL */
	RkClaim    *user;
} TokenExtra;

static char *token_value;		/* the server's */
static const TokenExtra *token = NULL;
static bool setting_signed = false; /* tenant_set_signed() is setting it */
static bool defining = false;	/* the library is being loaded */

PG_FUNCTION_INFO_V1(rowkeeper_tenant_set_signed);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_sign);

/* ---- the setting ---- */

/*
 * "transaction tenant length:tenant user length:user", length -1: none. This is
 * what SHOW and parallel workers get.
 */
static char *
format_claims(const RkTokenClaims *claims)
{
	return psprintf("%u %d:%s %d:%s", rk_local_transaction(MyProc),
					claims->tenant == NULL ? -1 : (int) strlen(claims->tenant),
					claims->tenant == NULL ? "" : claims->tenant,
					claims->user == NULL ? -1 : (int) strlen(claims->user),
					claims->user == NULL ? "" : claims->user);
}

/* Read one of the two; returns what follows, or NULL. */
static const char *
scan_claim(const char *from, char **claim)
{
	char	   *colon;
	long		length = strtol(from, &colon, 10);

	*claim = NULL;
	if (*colon != ':' || length < -1 || length > RK_MAX_CLAIM_LENGTH)
		return NULL;
	if (length < 0)
		return colon + 1;
	if (strlen(colon + 1) < length)
		return NULL;
	*claim = pnstrdup(colon + 1, length);
	return colon + 1 + length;
}

/*
 * What the leader of this parallel worker verified. A session's SET outlives
 * its transaction, where its claims are void; so is what a worker gets of it.
 */
static void
scan_claims(const char *value, RkTokenClaims *claims)
{
	char	   *rest;
	LocalTransactionId transaction = strtoul(value, &rest, 10);
	const char *user;

	if (*rest != ' ' || MyProc->lockGroupLeader == NULL ||
		transaction != rk_local_transaction(MyProc->lockGroupLeader))
		return;
	user = scan_claim(rest + 1, &claims->tenant);
	if (user != NULL && *user == ' ')
		(void) scan_claim(user + 1, &claims->user);
}

/* Both claims as one allocation that the server can free. */
static TokenExtra *
make_extra(const RkTokenClaims *claims)
{
	const char *texts[2] = {claims->tenant, claims->user};
	Size		sizes[2];
	Size		total = MAXALIGN(sizeof(TokenExtra));
	RkClaim    *parts[2] = {NULL, NULL};
	char	   *memory;

	for (int i = 0; i < 2; i++)
	{
		sizes[i] = texts[i] == NULL ? 0 : MAXALIGN(rk_claim_size(texts[i]));
		total += sizes[i];
	}
	memory = rk_guc_malloc(total);
	if (memory == NULL)
		return NULL;
	total = MAXALIGN(sizeof(TokenExtra));
	for (int i = 0; i < 2; i++)
		if (texts[i] != NULL)
		{
			parts[i] = (RkClaim *) (memory + total);
			rk_claim_fill(parts[i], texts[i]);
			total += sizes[i];
		}
	((TokenExtra *) memory)->tenant = parts[0];
	((TokenExtra *) memory)->user = parts[1];
	return (TokenExtra *) memory;
}

/* Others of the role see what runs: not the token. */
static void
mask_activity(void)
{
	if (!setting_signed)
		pgstat_report_activity(STATE_RUNNING, "SET rowkeeper.token = '...'");
}

static bool
check_token(char **newval, void **extra, GucSource source)
{
	RkTokenClaims claims = {0};
	const char *reason = NULL;
	char	   *replaced;

	if (*newval == NULL || **newval == '\0')
		return true;
	if (InitializingParallelWorker)
	{
		scan_claims(*newval, &claims);
	}
	else
	{
		if (!(source == PGC_S_SESSION && IsTransactionState()))
			reason = "it does not come from a session's own SET";
		else if (defining)
			reason = "it was set before the library was loaded (see session_preload_libraries)";
		else
		{
			mask_activity();
			reason = rk_jwt_verify(*newval, !setting_signed, &claims);
		}
		if (reason != NULL)
		{
			ereport(LOG, (errmsg("a token was refused: %s", reason), errhidestmt(true)));
			GUC_check_errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION);
			GUC_check_errmsg("the token is not valid");
			return false;
		}
		replaced = rk_guc_strdup(format_claims(&claims));
		if (replaced == NULL)
			return false;
		rk_guc_free(*newval);
		*newval = replaced;
	}
	*extra = make_extra(&claims);
	return *extra != NULL;
}

static void
assign_token(const char *newval, void *extra)
{
	token = extra;
	rk_claims_changed();
}

const RkClaim *
rk_token_tenant(void)
{
	return token == NULL ? NULL : token->tenant;
}

const RkClaim *
rk_token_user(void)
{
	return token == NULL ? NULL : token->user;
}

/*
 * rowkeeper.tenant_set_signed(token text) returns text, the tenant in force:
 * tenant and user that a signed token names, until the transaction ends; NULL
 * clears them. Bind the token as a parameter. Locks: ACCESS SHARE on the table
 * of keys when they have changed. 28000, without a reason, where the token is
 * not valid (the server's log has it); 25P01 outside a transaction block.
 */
Datum
rowkeeper_tenant_set_signed(PG_FUNCTION_ARGS)
{
	char	   *jwt = PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0));

	rk_claim_check_lasting("rowkeeper.tenant_set_signed(...)");
	PG_TRY();
	{
		setting_signed = true;
		(void) set_config_option("rowkeeper.token", jwt, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	}
	PG_FINALLY();
	{
		setting_signed = false;
	}
	PG_END_TRY();
	if (token == NULL || token->tenant == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(token->tenant->value));
}

/* ---- signing ---- */

/* The argument, of any type, as text; NULL where it is NULL. */
static char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL
		: rk_text_of_value(PG_GETARG_DATUM(n), get_fn_expr_argtype(fcinfo->flinfo, n));
}

/*
 * rowkeeper.tenant_sign(tenant text | bigint | uuid, user_name text,
 * valid_for interval, role name DEFAULT NULL) returns text: a token that names
 * them, signed with the newest key that is valid now. Who may execute it is
 * trusted to name any tenant (rowkeeper.tenant_role). Locks: ACCESS SHARE on
 * the table of keys when they have changed. 22023 where there is nothing to
 * name or the time is not positive; 55000 without a key.
 */
Datum
rowkeeper_tenant_sign(PG_FUNCTION_ARGS)
{
	char	   *tenant = text_argument(fcinfo, 0);
	char	   *user = text_argument(fcinfo, 1);
	const RkTokenKey *key = rk_token_key_newest();
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz expires;

	if ((tenant == NULL && user == NULL) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a token needs a tenant or a user, and a time to be valid for")));
	expires = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													  TimestampTzGetDatum(now), PG_GETARG_DATUM(2)));
	if (expires <= now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("valid_for must be positive")));
	if (key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no key to sign with"),
				 errhint("SELECT rowkeeper.tenant_key_add(kid, secret) as a superuser.")));
	PG_RETURN_TEXT_P(cstring_to_text(rk_jwt_sign(key, tenant, user, expires,
												 PG_ARGISNULL(3) ? NULL : NameStr(*PG_GETARG_NAME(3)))));
}

/* ---- start ---- */

void
rk_token_init(void)
{
	defining = true;
	DefineCustomStringVariable("rowkeeper.token",
							   "A signed token (JWT, HS256) that names tenant and user for the transaction.",
							   "Prefer rowkeeper.tenant_set_signed($1): others of the same role can see a SET. "
							   "A token in a SET may be valid for at most 60 seconds.",
							   &token_value, "", PGC_USERSET,
							   GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE | GUC_NO_SHOW_ALL,
							   check_token, assign_token, NULL);
	defining = false;
}
