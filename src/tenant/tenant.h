/*
 * tenant.h
 *
 * What the files of tenant isolation share, under the file that holds it.
 */
#ifndef RK_TENANT_H
#define RK_TENANT_H

#include "rowkeeper.h"

#include "utils/uuid.h"

#define RK_MAX_CLAIM_LENGTH 1024

/*
 * A claim as it was parsed when it was set; it is the "extra" of its setting,
 * so the server brings it back with the value after ROLLBACK TO.
 */
typedef struct RkClaim
{
	LocalTransactionId transaction; /* that set it; no other one sees it */
	bool		inherited;		/* came with the settings of a parallel
								 * query's leader */
	bool		is_number;
	bool		is_uuid;
	int64		number;
	pg_uuid_t	uuid;
	int			length;
	char		value[FLEXIBLE_ARRAY_MEMBER];
} RkClaim;

/* claim.c: the guarded settings, and who may read and set them */

/*
 * What holds for this transaction, worked out when it is first asked for and
 * again after any change: policies ask for every row.
 */
typedef struct RkStanding
{
	LocalTransactionId transaction; /* of which this holds; invalid: of none */
	bool		bypassing;
	Oid			passing;		/* the role last found to be trusted with that */
	const RkClaim *tenant;		/* NULL: none */
	const RkClaim *user;
} RkStanding;

extern RkStanding rk_standing_now;

extern void rk_standing_find(void);

static inline const RkStanding *
rk_standing(void)
{
	if (unlikely(rk_standing_now.transaction != rk_local_transaction(MyProc)))
		rk_standing_find();
	return &rk_standing_now;
}

extern void rk_claims_changed(void);
extern void rk_claim_init(void);
extern Size rk_claim_size(const char *value);
extern void rk_claim_fill(RkClaim *claim, const char *value);
extern void rk_claim_check_lasting(const char *what);
extern void rk_tenant_bypass_begin(const char *reason);
extern bool rk_tenant_may_pass(void);
extern bool rk_tenant_strict;
RK_NORETURN extern void rk_claim_missing(const char *what, const char *setter);

/* trust.c */
extern bool rk_tenant_is_trusted_with_bypass(Oid role);

/* token.c: signed tokens */
extern void rk_token_init(void);
extern const RkClaim *rk_token_tenant(void);
extern const RkClaim *rk_token_user(void);

/* token_key.c: what they are signed with */
typedef struct RkTokenKey
{
	char	   *kid;
	bytea	   *secret;
	TimestampTz not_before;		/* DT_NOBEGIN: always */
	TimestampTz not_after;		/* DT_NOEND: always */
	char	   *tenant_claim;	/* path, dotted */
	char	   *user_claim;
	char	   *audience;		/* NULL: the database's name */
} RkTokenKey;

/* jwt.c: tokens as text */
typedef struct RkTokenClaims
{
	char	   *tenant;			/* NULL: nothing */
	char	   *user;
} RkTokenClaims;

extern const char *rk_jwt_verify(const char *jwt, bool visible, RkTokenClaims *claims);
extern char *rk_jwt_sign(const RkTokenKey *key, const char *tenant, const char *user,
						 TimestampTz expires, const char *role);

/* token_key.c, the rest */
extern void rk_token_key_init(void);
extern const RkTokenKey *rk_token_key_find(const char *kid);
extern const RkTokenKey *rk_token_key_newest(void);

#endif							/* RK_TENANT_H */
