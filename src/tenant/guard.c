/*
 * guard.c
 *
 * What a tenant's policies call for every row. Each protected table has two:
 * a restrictive one, rowkeeper.tenant_guard(tenant_id), that no other policy
 * can widen, and a permissive one, tenant_id = rowkeeper.tenant_id(), that the
 * planner knows how to use. The guard says the same again, so its support
 * function tells the planner that it takes nothing away.
 */
#include "tenant/tenant.h"

#include "nodes/supportnodes.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(rowkeeper_tenant_guard_int2);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_guard_int4);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_guard_int8);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_guard_uuid);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_guard_text);
PG_FUNCTION_INFO_V1(rowkeeper_user_guard_int2);
PG_FUNCTION_INFO_V1(rowkeeper_user_guard_int4);
PG_FUNCTION_INFO_V1(rowkeeper_user_guard_int8);
PG_FUNCTION_INFO_V1(rowkeeper_user_guard_uuid);
PG_FUNCTION_INFO_V1(rowkeeper_user_guard_text);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_guard_support);
PG_FUNCTION_INFO_V1(rowkeeper_bypassing);

/* What a claim decides before the row is looked at; else it is compared. */
#define RETURN_IF_DECIDED(kind, standing) \
	do { \
		if (unlikely((standing)->bypassing) && rk_tenant_may_pass()) \
			PG_RETURN_BOOL(true); \
		if (unlikely((standing)->kind == NULL)) \
		{ \
			if (rk_tenant_strict) \
				rk_claim_missing(#kind, "rowkeeper." #kind "_set(...)"); \
			PG_RETURN_BOOL(false); \
		} \
		if (PG_ARGISNULL(0)) \
			PG_RETURN_BOOL(false); \
	} while (0)

static inline bool
is_number_of(const RkClaim *claim, int64 number)
{
	return claim->is_number && claim->number == number;
}

static inline bool
is_uuid_of(const RkClaim *claim, const pg_uuid_t *uuid)
{
	return claim->is_uuid && memcmp(&claim->uuid, uuid, UUID_LEN) == 0;
}

static inline bool
is_text_of(const RkClaim *claim, text *value)
{
	return claim->length == VARSIZE_ANY_EXHDR(value) &&
		memcmp(claim->value, VARDATA_ANY(value), claim->length) == 0;
}

/*
 * rowkeeper.tenant_guard(smallint | int | bigint | uuid | text) returns
 * boolean: whether a row of this tenant may be seen or written by this
 * transaction; of NULL only past a bypass. user_guard() is the same of users.
 * No locks and no privileges; 42501 where there is no claim and
 * rowkeeper.tenant_strict is on.
 */
#define GUARDS(kind) \
Datum \
rowkeeper_##kind##_guard_int2(PG_FUNCTION_ARGS) \
{ \
	const RkStanding *standing = rk_standing(); \
\
	RETURN_IF_DECIDED(kind, standing); \
	PG_RETURN_BOOL(is_number_of(standing->kind, PG_GETARG_INT16(0))); \
} \
\
Datum \
rowkeeper_##kind##_guard_int4(PG_FUNCTION_ARGS) \
{ \
	const RkStanding *standing = rk_standing(); \
\
	RETURN_IF_DECIDED(kind, standing); \
	PG_RETURN_BOOL(is_number_of(standing->kind, PG_GETARG_INT32(0))); \
} \
\
Datum \
rowkeeper_##kind##_guard_int8(PG_FUNCTION_ARGS) \
{ \
	const RkStanding *standing = rk_standing(); \
\
	RETURN_IF_DECIDED(kind, standing); \
	PG_RETURN_BOOL(is_number_of(standing->kind, PG_GETARG_INT64(0))); \
} \
\
Datum \
rowkeeper_##kind##_guard_uuid(PG_FUNCTION_ARGS) \
{ \
	const RkStanding *standing = rk_standing(); \
\
	RETURN_IF_DECIDED(kind, standing); \
	PG_RETURN_BOOL(is_uuid_of(standing->kind, PG_GETARG_UUID_P(0))); \
} \
\
Datum \
rowkeeper_##kind##_guard_text(PG_FUNCTION_ARGS) \
{ \
	const RkStanding *standing = rk_standing(); \
\
	RETURN_IF_DECIDED(kind, standing); \
	PG_RETURN_BOOL(is_text_of(standing->kind, PG_GETARG_TEXT_PP(0))); \
} \
extern int	no_such_variable

GUARDS(tenant);
GUARDS(user);

/*
 * rowkeeper._bypassing() returns boolean: whether this transaction is past the
 * isolation of tenants, for the policies of the roles that may do that.
 */
Datum
rowkeeper_bypassing(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(rk_standing()->bypassing);
}

/* Support function of the guard: it filters nothing that the policy beside it leaves. */
Datum
rowkeeper_tenant_guard_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (!IsA(request, SupportRequestSelectivity))
		PG_RETURN_POINTER(NULL);
	((SupportRequestSelectivity *) request)->selectivity = 1.0;
	PG_RETURN_POINTER(request);
}
