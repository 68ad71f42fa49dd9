/*
 * trust.c
 *
 * Who may say for whom he acts. EXECUTE on the functions that say so is the
 * trust itself: there is no list beside the catalog. tenant_role() gives and
 * takes it, tenant_bypass() uses the greatest, and tenant_assert() is how an
 * application makes sure at its start that it is held to isolation at all.
 */
#include "tenant/protect.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

typedef struct Trust
{
	const char *name;
	const char *functions;
} Trust;

static const Trust trusts[] = {
	{"set", "rowkeeper.tenant_set(bigint), rowkeeper.tenant_set(uuid), rowkeeper.tenant_set(text), "
	"rowkeeper.user_set(bigint), rowkeeper.user_set(uuid), rowkeeper.user_set(text)"},
	{"signed", "rowkeeper.tenant_set_signed(text)"},
	{"sign", "rowkeeper.tenant_sign(text,text,interval,name), "
		"rowkeeper.tenant_sign(bigint,text,interval,name), "
	"rowkeeper.tenant_sign(uuid,text,interval,name)"},
	{"bypass", "rowkeeper.tenant_bypass(text)"}
};

PG_FUNCTION_INFO_V1(rowkeeper_tenant_role);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_bypass);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_assert);

/* ---- trust ---- */

/* Whether a role itself was granted all that a trust is. */
static bool
has_all(Oid role, const Trust *trust)
{
	return rk_exists_about(rk_extension_owner(), role,
						   psprintf("SELECT 1 WHERE NOT EXISTS (SELECT FROM unnest(string_to_array(%s, ', ')) f"
									"  WHERE NOT EXISTS (SELECT FROM pg_proc p, aclexplode(p.proacl) a"
									"   WHERE p.oid = f::regprocedure AND a.grantee = $1))",
									quote_literal_cstr(trust->functions)));
}

/* Whether a role may bypass, itself or as a member of one that may. */
bool
rk_tenant_is_trusted_with_bypass(Oid role)
{
	Oid			types[1] = {TEXTOID};
	Oid			function = LookupFuncName(list_make2(makeString("rowkeeper"), makeString("tenant_bypass")),
										  1, types, true);

	return OidIsValid(function) &&
		DatumGetBool(DirectFunctionCall3(has_function_privilege_id_id, ObjectIdGetDatum(role),
										 ObjectIdGetDatum(function), CStringGetTextDatum("EXECUTE")));
}

/* The policies name the roles that may bypass: on every table, a step each. */
void
rk_tenant_bypass_follow(FunctionCallInfo fcinfo)
{
	ListCell   *root;

	foreach(root, rk_tenant_tables())
	{
		ListCell   *lc;

		foreach(lc, rk_relation_tree(lfirst_oid(root), AccessShareLock))
		{
			RkTenantOptions *options = rk_tenant_options_of(lfirst_oid(lc));

			if (options == NULL)
				continue;
			if (rk_tenant_options_fit(lfirst_oid(lc), options))
				(void) rk_tenant_bypass_ensure(fcinfo, lfirst_oid(lc), options);
			else
				ereport(WARNING,
						(errmsg("the column that isolates tenants in %s is gone, skipping it",
								rk_relation_name(lfirst_oid(lc)))));
		}
	}
}

static void
give(FunctionCallInfo fcinfo, Oid role, const Trust *trust)
{
	if (has_all(role, trust))
		return;
	rk_run_step(fcinfo, rk_extension_owner(),
				psprintf("GRANT EXECUTE ON FUNCTION %s TO %s", trust->functions,
						 quote_identifier(GetUserNameFromId(role, false))));
}

static void
check_may_trust(void)
{
	if (!has_privs_of_role(GetUserId(), rk_extension_owner()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only the owner of the extension may say whom to trust")));
}

/* Who gave a role any of a trust's functions; only they can take it away. */
static List *
givers(Oid role, const Trust *trust)
{
	return rk_fetch_oids(psprintf("SELECT DISTINCT a.grantor FROM unnest(string_to_array(%s, ', ')) f"
								  " JOIN pg_proc p ON p.oid = f::regprocedure, aclexplode(p.proacl) a"
								  " WHERE a.grantee = %u", quote_literal_cstr(trust->functions), role));
}

/* Take away what a role is trusted with; whether that is anything. */
bool
rk_tenant_trust_take(FunctionCallInfo fcinfo, Oid role)
{
	bool		found = false;

	for (int i = 0; i < lengthof(trusts); i++)
	{
		ListCell   *giver;

		foreach(giver, givers(role, &trusts[i]))
		{
			check_may_trust();
			found = true;
			rk_run_step(fcinfo, lfirst_oid(giver),
						psprintf("REVOKE EXECUTE ON FUNCTION %s FROM %s CASCADE", trusts[i].functions,
								 quote_identifier(GetUserNameFromId(role, false))));
		}
	}
	return found;
}

static const Trust *
find_trust(const char *name)
{
	for (int i = 0; i < lengthof(trusts); i++)
		if (strcmp(trusts[i].name, name) == 0)
			return &trusts[i];
	rk_refuse_option("trust", psprintf("\"%s\" is not known", name),
					 "Use 'set', 'signed', 'sign', 'bypass' or 'none'.");
}

/*
 * rowkeeper.tenant_role(role name, trust text) returns SETOF text: what a role
 * is trusted with besides what it is already: 'set' to name its tenant and
 * user, 'signed' to hand over tokens, 'sign' to make them, 'bypass' to go past
 * isolation; 'none' takes all of it away. Members of the extension's owner
 * only. Locks: with 'bypass', ACCESS EXCLUSIVE on every protected table, whose
 * policies name the role. 42704 no such role, 22023 no such trust.
 */
Datum
rowkeeper_tenant_role(PG_FUNCTION_ARGS)
{
	Oid			role;
	char	   *trust;

	rk_steps_begin(fcinfo);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("role and trust must not be null")));
	check_may_trust();
	role = get_role_oid(NameStr(*PG_GETARG_NAME(0)), false);
	trust = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (strcmp(trust, "none") == 0)
		(void) rk_tenant_trust_take(fcinfo, role);
	else
		give(fcinfo, role, find_trust(trust));
	rk_tenant_bypass_follow(fcinfo);
	return (Datum) 0;
}

/* ---- bypass ---- */

/*
 * rowkeeper.tenant_bypass(reason text) returns text, the reason: until the
 * transaction ends it sees and writes the rows of all tenants. Recorded in the
 * audit log, where there is one, before it holds, and in the server's log,
 * which a rollback does not undo. Who may execute it is trusted to
 * (tenant_role). 25P01 outside a transaction block, 22023 without a reason.
 */
Datum
rowkeeper_tenant_bypass(PG_FUNCTION_ARGS)
{
	char	   *reason = PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (reason[strspn(reason, " \t\r\n")] == '\0' || strlen(reason) > RK_MAX_CLAIM_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a bypass needs a reason of at most %d characters", RK_MAX_CLAIM_LENGTH)));
	rk_claim_check_lasting("rowkeeper.tenant_bypass(...)");
	ereport(LOG,
			(errmsg("role \"%s\" bypasses the isolation of tenants: %s",
					GetUserNameFromId(GetOuterUserId(), false), reason)));
	rk_tell_bypassed(reason);
	rk_tenant_bypass_begin(reason);
	PG_RETURN_TEXT_P(cstring_to_text(reason));
}

/* ---- assurance ---- */

/* Why no policy holds this role, or NULL. */
static char *
reason_of_escape(Oid role)
{
	return rk_fetch_text_about(rk_extension_owner(), role, "SELECT rowkeeper._tenant_escape($1)");
}

/* What the doctor has to say, or NULL. */
static char *
tenant_errors(void)
{
	bool		isnull;
	Datum		found = rk_fetch(rk_extension_owner(),
								 "SELECT string_agg(concat_ws(': ', object, detail), E'\\n' ORDER BY object, detail)"
								 " FROM rowkeeper._tenant_findings WHERE level = 'error'",
								 0, NULL, NULL, NULL, &isnull);

	return isnull ? NULL : TextDatumGetCString(found);
}

/*
 * rowkeeper.tenant_assert(role name DEFAULT current_user) returns boolean:
 * true where isolation holds for the role and the doctor finds no error in
 * tenant isolation; else 42501 or 55000. For an application's start and for
 * test suites, which prove nothing as a superuser. 42704 no such role.
 */
Datum
rowkeeper_tenant_assert(PG_FUNCTION_ARGS)
{
	Oid			role = PG_ARGISNULL(0) ? GetUserId() : get_role_oid(NameStr(*PG_GETARG_NAME(0)), false);
	char	   *reason = reason_of_escape(role);
	char	   *errors;

	if (reason != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" is not held to the isolation of tenants", GetUserNameFromId(role, false)),
				 errdetail("%s", reason),
				 errhint("Connect as a role without SUPERUSER and BYPASSRLS.")));
	errors = tenant_errors();
	if (errors != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the isolation of tenants has errors"),
				 errdetail("%s", errors),
				 errhint("SELECT * FROM rowkeeper.doctor(NULL, 'tenant') shows the remedies.")));
	PG_RETURN_BOOL(true);
}
