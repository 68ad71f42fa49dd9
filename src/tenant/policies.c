/*
 * policies.c
 *
 * The row security of one relation: its policies, its flags and the trigger
 * that refuses TRUNCATE, which no policy covers. The policies are
 *
 *   rowkeeper_tenant_guard   restrictive: no policy beside it widens it
 *   rowkeeper_tenant         permissive, in words that the planner knows how
 *                            to use
 *   rowkeeper_tenant_bypass  permissive, for the roles that may bypass, so
 *                            that only their plans carry the OR
 *
 * and, where rows without a tenant are shared, two more that keep them from
 * being changed. Expressions are written as the server writes them out again,
 * so whether a policy still is what it should be is a comparison of texts.
 */
#include "tenant/protect.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/policy.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#define GUARD_POLICY "rowkeeper_tenant_guard"
#define UPDATE_POLICY "rowkeeper_tenant_update"
#define DELETE_POLICY "rowkeeper_tenant_delete"
#define SEEN_POLICY "rowkeeper_tenant"
#define BYPASS_POLICY "rowkeeper_tenant_bypass"

const char *const rk_claim_names[RK_CLAIM_KINDS] = {"tenant", "user"};

/* A policy as it should be. */
typedef struct Policy
{
	const char *name;
	bool		permissive;
	const char *command;		/* as pg_policy has it */
	const char *using;			/* NULL: there should be no such policy */
	const char *check;			/* NULL: none */
	const char *roles;			/* NULL: everybody */
} Policy;

PG_FUNCTION_INFO_V1(rowkeeper_tenant_truncate);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_is_intact);

/* ---- expressions ---- */

/* The type that a column's claim is compared in, InvalidOid: none will do. */
Oid
rk_tenant_column_type(Oid relid, const char *column)
{
	Oid			type = getBaseType(get_atttype(relid, get_attnum(relid, column)));

	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case UUIDOID:
		case TEXTOID:
			return type;
		case VARCHAROID:
			return TEXTOID;
		default:
			return InvalidOid;
	}
}

/* The function whose result a column of this type is compared with. */
char *
rk_tenant_getter(RkClaimKind kind, Oid type)
{
	return psprintf("rowkeeper.%s_%s()", rk_claim_names[kind],
					type == UUIDOID ? "uuid" : type == TEXTOID ? "text" : "id");
}

/* A column as the server writes it out for us, whose quote_all_identifiers is off. */
static char *
column_reference(const char *column)
{
	bool		quotes_all = quote_all_identifiers;
	char	   *reference;

	quote_all_identifiers = false;
	reference = pstrdup(quote_identifier(column));
	quote_all_identifiers = quotes_all;
	return reference;
}

/* A column in the type it is compared in, as the server writes it out. */
static char *
operand(Oid relid, const char *column)
{
	Oid			type = rk_tenant_column_type(relid, column);

	return get_atttype(relid, get_attnum(relid, column)) == type
		? column_reference(column)
		: psprintf("(%s)::%s", column_reference(column), format_type_be(type));
}

/* Terms joined by AND, in the server's way of writing. */
static char *
join_terms(List *terms)
{
	StringInfoData joined;
	ListCell   *lc;

	if (list_length(terms) == 1)
		return linitial(terms);
	initStringInfo(&joined);
	foreach(lc, terms)
		appendStringInfo(&joined, "%s%s", foreach_current_index(lc) == 0 ? "(" : " AND ",
						 (char *) lfirst(lc));
	appendStringInfoChar(&joined, ')');
	return joined.data;
}

/* With "shared", rows without a tenant are seen by all. */
static char *
or_shared(const RkTenantOptions *options, RkClaimKind kind, char *term)
{
	return options->shared && kind == RK_CLAIM_TENANT
		? psprintf("((%s IS NULL) OR %s)", column_reference(options->by[kind]), term) : term;
}

static char *
guard_expression(Oid relid, const RkTenantOptions *options, bool shared)
{
	List	   *terms = NIL;

	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
	{
		char	   *term;

		if (options->by[kind] == NULL)
			continue;
		term = psprintf("rowkeeper.%s_guard(%s)", rk_claim_names[kind], operand(relid, options->by[kind]));
		terms = lappend(terms, shared ? or_shared(options, kind, term) : term);
	}
	return join_terms(terms);
}

static char *
seen_expression(Oid relid, const RkTenantOptions *options)
{
	List	   *terms = NIL;

	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
	{
		char	   *term;

		if (options->by[kind] == NULL)
			continue;
		term = psprintf("(%s = %s)", operand(relid, options->by[kind]),
						rk_tenant_getter(kind, rk_tenant_column_type(relid, options->by[kind])));
		terms = lappend(terms, or_shared(options, kind, term));
	}
	return join_terms(terms);
}

/* ---- policies ---- */

/* The roles trusted with tenant_bypass(), as a policy's TO has them, or NULL. */
static char *
bypass_roles(void)
{
	bool		isnull;
	Datum		roles = rk_fetch(rk_extension_owner(),
								 "SELECT string_agg(quote_ident(r.rolname), ', ' ORDER BY r.rolname COLLATE \"C\")"
								 " FROM pg_proc p, aclexplode(p.proacl) a JOIN pg_roles r ON r.oid = a.grantee"
								 " WHERE p.oid = 'rowkeeper.tenant_bypass(text)'::regprocedure"
								 " AND a.grantee <> p.proowner",
								 0, NULL, NULL, NULL, &isnull);

	return isnull ? NULL : TextDatumGetCString(roles);
}

typedef enum PolicyState
{
	POLICY_MISSING, POLICY_DIFFERENT, POLICY_RIGHT
} PolicyState;

static PolicyState
policy_state(Oid relid, const Policy *policy)
{
	Oid			types[7] = {OIDOID, TEXTOID, BOOLOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[7] = {
		ObjectIdGetDatum(relid), CStringGetTextDatum(policy->name), BoolGetDatum(policy->permissive),
		CStringGetTextDatum(policy->using == NULL ? "" : policy->using),
		policy->check == NULL ? (Datum) 0 : CStringGetTextDatum(policy->check),
		policy->roles == NULL ? (Datum) 0 : CStringGetTextDatum(policy->roles),
		CStringGetTextDatum(policy->command)
	};
	char		nulls[8] = "       ";
	bool		isnull;
	Datum		right;

	if (policy->check == NULL)
		nulls[4] = 'n';
	if (policy->roles == NULL)
		nulls[5] = 'n';
	right = rk_fetch(rk_relation_owner(relid),
					 "SELECT polpermissive = $3 AND polcmd::text = $7"
					 " AND pg_get_expr(polqual, polrelid) IS NOT DISTINCT FROM $4"
					 " AND pg_get_expr(polwithcheck, polrelid) IS NOT DISTINCT FROM $5"
					 " AND (SELECT string_agg(quote_ident(r.rolname), ', ' ORDER BY r.rolname COLLATE \"C\")"
					 "  FROM pg_roles r WHERE r.oid = ANY (polroles)) IS NOT DISTINCT FROM $6"
					 " FROM pg_policy WHERE polrelid = $1 AND polname = $2",
					 7, types, values, nulls, &isnull);
	return isnull ? POLICY_MISSING : DatumGetBool(right) ? POLICY_RIGHT : POLICY_DIFFERENT;
}

static char *
create_policy_sql(Oid relid, const Policy *policy)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE POLICY %s ON %s", policy->name, rk_relation_name(relid));
	if (!policy->permissive)
		appendStringInfoString(&sql, " AS RESTRICTIVE");
	if (policy->command[0] != '*')
		appendStringInfo(&sql, " FOR %s", policy->command[0] == 'w' ? "UPDATE" : "DELETE");
	if (policy->roles != NULL)
		appendStringInfo(&sql, " TO %s", policy->roles);
	appendStringInfo(&sql, " USING (%s)", policy->using);
	if (policy->check != NULL)
		appendStringInfo(&sql, " WITH CHECK (%s)", policy->check);
	return sql.data;
}

/*
 * DDL on the table, heard by other features (soft delete's trash has the
 * policies of its table), but for what a partition that comes is given.
 */
static void
run_on_table(FunctionCallInfo fcinfo, Oid relid, const char *sql)
{
	if (fcinfo == NULL)
		rk_run_step(NULL, rk_relation_owner(relid), sql);
	else
		rk_run_ddl_step(fcinfo, rk_relation_owner(relid), sql);
}

static bool
ensure_policy(FunctionCallInfo fcinfo, Oid relid, const Policy *policy)
{
	PolicyState state = policy_state(relid, policy);

	if (policy->using == NULL ? state == POLICY_MISSING : state == POLICY_RIGHT)
		return false;
	if (state != POLICY_MISSING)
		run_on_table(fcinfo, relid,
					 psprintf("DROP POLICY %s ON %s", policy->name, rk_relation_name(relid)));
	if (policy->using != NULL)
		run_on_table(fcinfo, relid, create_policy_sql(relid, policy));
	return true;
}

#define POLICY_COUNT 5			/* the last is that of bypasses */

/* What each policy of a relation should be; options NULL: none. */
static void
wanted_policies(Oid relid, const RkTenantOptions *options, Policy wanted[POLICY_COUNT])
{
	char	   *guard = options == NULL ? NULL : guard_expression(relid, options, false);
	bool		shared = options != NULL && options->shared;
	char	   *bypass = options == NULL ? NULL : bypass_roles();
	Policy		policies[POLICY_COUNT] = {
		{GUARD_POLICY, false, "*", options == NULL ? NULL : guard_expression(relid, options, true), guard, NULL},
		{UPDATE_POLICY, false, "w", shared ? guard : NULL, NULL, NULL},
		{DELETE_POLICY, false, "d", shared ? guard : NULL, NULL, NULL},
		{SEEN_POLICY, true, "*", options == NULL ? NULL : seen_expression(relid, options), "true", NULL},
		{BYPASS_POLICY, true, "*", bypass == NULL ? NULL : "rowkeeper._bypassing()", "true", bypass}
	};

	memcpy(wanted, policies, sizeof(policies));
}

/* Give a relation its policies; options NULL: none. Returns whether anything was to do. */
bool
rk_tenant_policies_ensure(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options)
{
	Policy		policies[POLICY_COUNT];
	bool		changed = false;

	wanted_policies(relid, options, policies);
	for (int i = 0; i < POLICY_COUNT; i++)
		changed |= ensure_policy(fcinfo, relid, &policies[i]);
	return changed;
}

/* The same of the policy that names the roles trusted with a bypass, and no other. */
bool
rk_tenant_bypass_ensure(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options)
{
	Policy		policies[POLICY_COUNT];

	wanted_policies(relid, options, policies);
	return ensure_policy(fcinfo, relid, &policies[POLICY_COUNT - 1]);
}

/*
 * rowkeeper._tenant_is_intact(relation regclass) returns boolean: whether the
 * policies are what its options ask for; for the doctor. No privileges, no
 * locks; false where it is not protected or its column is gone.
 */
Datum
rowkeeper_tenant_is_intact(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	RkTenantOptions *options = rk_tenant_options_of(relid);
	Policy		policies[POLICY_COUNT];

	if (options == NULL || !rk_tenant_options_fit(relid, options))
		PG_RETURN_BOOL(false);
	wanted_policies(relid, options, policies);
	for (int i = 0; i < POLICY_COUNT; i++)
		if (policy_state(relid, &policies[i]) != (policies[i].using == NULL ? POLICY_MISSING : POLICY_RIGHT))
			PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(true);
}

/* Whether a policy of this name is one of those above. */
bool
rk_tenant_is_own_policy(const char *name)
{
	static const char *const names[] = {GUARD_POLICY, UPDATE_POLICY, DELETE_POLICY, SEEN_POLICY, BYPASS_POLICY};

	for (int i = 0; i < lengthof(names); i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

/*
 * Whether a relation has our restrictive policy. Its owner can drop the
 * trigger that carries the options; it is isolated still.
 */
bool
rk_tenant_has_guard(Oid relid)
{
	return OidIsValid(get_relation_policy_oid(relid, GUARD_POLICY, true));
}

/* ---- flags and TRUNCATE ---- */

static void
read_flags(Oid relid, bool *enabled, bool *forced)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	*enabled = ((Form_pg_class) GETSTRUCT(tuple))->relrowsecurity;
	*forced = ((Form_pg_class) GETSTRUCT(tuple))->relforcerowsecurity;
	ReleaseSysCache(tuple);
}

static bool
ensure_flags(FunctionCallInfo fcinfo, Oid relid, bool enabled, bool forced)
{
	bool		is_enabled;
	bool		is_forced;

	read_flags(relid, &is_enabled, &is_forced);
	if (is_enabled != enabled)
		run_on_table(fcinfo, relid,
					 psprintf("ALTER TABLE %s %s ROW LEVEL SECURITY", rk_relation_name(relid),
							  enabled ? "ENABLE" : "DISABLE"));
	if (is_forced != forced)
		run_on_table(fcinfo, relid,
					 psprintf("ALTER TABLE %s %s ROW LEVEL SECURITY", rk_relation_name(relid),
							  forced ? "FORCE" : "NO FORCE"));
	return is_enabled != enabled || is_forced != forced;
}

/* The trigger, which carries the options. */
bool
rk_tenant_trigger_ensure(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options)
{
	char	   *wanted = rk_tenant_options_format(options);
	RkTriggerRow row;
	bool		found = rk_trigger_read(relid, RK_TENANT_TRIGGER, "_tenant_truncate", &row);
	bool		right = found && row.arguments != NIL && strcmp(linitial(row.arguments), wanted) == 0;

	if (right && row.state == TRIGGER_FIRES_ON_ORIGIN)
		return false;
	if (!right)
		rk_run_step(fcinfo, rk_extension_owner(),
					psprintf("CREATE OR REPLACE TRIGGER " RK_TENANT_TRIGGER " BEFORE TRUNCATE ON %s"
							 " FOR EACH STATEMENT EXECUTE FUNCTION rowkeeper._tenant_truncate(%s)",
							 rk_relation_name(relid), quote_literal_cstr(wanted)));
	if (found && row.state != TRIGGER_FIRES_ON_ORIGIN)
		rk_run_step(fcinfo, rk_extension_owner(),
					psprintf("ALTER TABLE %s ENABLE TRIGGER " RK_TENANT_TRIGGER, rk_relation_name(relid)));
	return true;
}

static void
drop_trigger(FunctionCallInfo fcinfo, Oid relid)
{
	if (rk_tenant_options_of(relid) != NULL)
		rk_run_step(fcinfo, rk_extension_owner(),
					psprintf("DROP TRIGGER " RK_TENANT_TRIGGER " ON %s", rk_relation_name(relid)));
}

/* ---- one relation as a whole ---- */

/*
 * Protect one relation; returns whether anything was to do, each thing a step
 * (fcinfo NULL: silently). Policies come before row security is switched on,
 * so there is no moment without either. What the flags were before is the
 * relation's own to remember.
 */
bool
rk_tenant_protect(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options)
{
	RkTenantOptions own = *options;
	RkTenantOptions *before = rk_tenant_options_of(relid);
	bool		changed;

	if (before != NULL)
	{
		own.was_enabled = before->was_enabled;
		own.was_forced = before->was_forced;
	}
	else if (rk_tenant_has_guard(relid))

		/* its trigger was lost, and with it what they were: they are ours now */
		own.was_enabled = own.was_forced = false;
	else
		read_flags(relid, &own.was_enabled, &own.was_forced);
	changed = rk_tenant_policies_ensure(fcinfo, relid, &own);
	changed |= ensure_flags(fcinfo, relid, true, own.force);
	return rk_tenant_trigger_ensure(fcinfo, relid, &own) || changed;
}

/* Take it all away, and give the relation back the flags it had. */
void
rk_tenant_unprotect(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options)
{
	(void) ensure_flags(fcinfo, relid, options->was_enabled, options->was_forced);
	(void) rk_tenant_policies_ensure(fcinfo, relid, NULL);
	drop_trigger(fcinfo, relid);
}

/* guard_expression() in plain words, the claims read from plain settings. */
static char *
plain_expression(Oid relid, const RkTenantOptions *options, bool shared)
{
	List	   *terms = NIL;

	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
	{
		char	   *term;

		if (options->by[kind] == NULL)
			continue;
		term = psprintf("(%s = nullif(current_setting('app.%s_id', true), '')::%s)",
						operand(relid, options->by[kind]), rk_claim_names[kind],
						format_type_be(rk_tenant_column_type(relid, options->by[kind])));
		terms = lappend(terms, shared ? or_shared(options, kind, term) : term);
	}
	return join_terms(terms);
}

/* A name that no policy of the relation has. */
static char *
free_policy_name(Oid relid, const char *wanted)
{
	char	   *name = pstrdup(wanted);

	for (int i = 1; OidIsValid(get_relation_policy_oid(relid, name, true)); i++)
		name = psprintf("%s_%d", wanted, i);
	return name;
}

/*
 * Leave a relation that nothing says of how it is isolated: nobody whom row
 * security holds reads there any more, whatever other policies there are.
 */
void
rk_tenant_close(FunctionCallInfo fcinfo, Oid relid)
{
	Policy		closed = {free_policy_name(relid, "tenant_isolation_guard"), false, "*", "false", NULL, NULL};

	run_on_table(fcinfo, relid, create_policy_sql(relid, &closed));
	(void) rk_tenant_policies_ensure(fcinfo, relid, NULL);
}

/*
 * Leave the relation protected without us: policies that need nothing of ours
 * and read the claims from plain settings, as hand-written ones do. As before,
 * a restrictive one keeps a policy beside them from showing more, and shared
 * rows stay nobody's to change.
 */
void
rk_tenant_leave(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options)
{
	bool		fit = rk_tenant_options_fit(relid, options);
	char	   *using = fit ? plain_expression(relid, options, true) : NULL;
	char	   *check = fit && options->shared ? plain_expression(relid, options, false) : NULL;
	Policy		policies[] = {
		{"tenant_isolation", true, "*", using, check, NULL},
		{"tenant_isolation_guard", false, "*", using, check, NULL},
		{"tenant_isolation_update", false, "w", check, NULL, NULL},
		{"tenant_isolation_delete", false, "d", check, NULL, NULL}
	};

	if (fit)
		(void) rk_tenant_policies_ensure(fcinfo, relid, NULL);
	else
	{
		ereport(WARNING,
				(errmsg("%s is closed to all whom row security holds: the column that tells its tenants apart is gone",
						rk_relation_name(relid))));
		rk_tenant_close(fcinfo, relid);
	}
	for (int i = 0; i < lengthof(policies); i++)
	{
		if (policies[i].using == NULL)
			continue;
		policies[i].name = free_policy_name(relid, policies[i].name);
		run_on_table(fcinfo, relid, create_policy_sql(relid, &policies[i]));
	}
	drop_trigger(fcinfo, relid);
}

/*
 * rowkeeper._tenant_truncate() is the BEFORE TRUNCATE trigger
 * "rowkeeper_tenant": no policy covers TRUNCATE, so who is held to policies
 * must not. The owner, who may drop the table, may; so may a bypass. 42501.
 */
Datum
rowkeeper_tenant_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid			relid;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired by TRUNCATE", "_tenant_truncate")));
	relid = RelationGetRelid(trigger->tg_relation);
	if (!rk_is_relation_owner(relid, GetUserId()) && !rk_standing()->bypassing &&
		check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot truncate %s: it holds the rows of other tenants", rk_relation_name(relid)),
				 errhint("DELETE removes the rows of the tenant that the transaction acts for.")));
	PG_RETURN_POINTER(NULL);
}
