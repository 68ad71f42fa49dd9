/*
 * protect.h
 *
 * What the files share that put a table under its tenants' row security.
 */
#ifndef RK_TENANT_PROTECT_H
#define RK_TENANT_PROTECT_H

#include "tenant/tenant.h"

#define RK_TENANT_TRIGGER "rowkeeper_tenant"

/* The claims a table can be protected by: functions are rowkeeper.<name>_id(). */
typedef enum RkClaimKind
{
	RK_CLAIM_TENANT,
	RK_CLAIM_USER,
	RK_CLAIM_KINDS
} RkClaimKind;

extern const char *const rk_claim_names[RK_CLAIM_KINDS];

typedef struct RkTenantOptions
{
	char	   *by[RK_CLAIM_KINDS]; /* column, NULL: not by this claim */
	bool		shared;			/* rows without a tenant are everybody's to
								 * read */
	bool		force;			/* the owner is held to it, too */
	bool		set_default;	/* a new row is the claim's */
	bool		was_enabled;	/* the table's flags before the first call */
	bool		was_forced;
} RkTenantOptions;

/* options.c */
extern RkTenantOptions *rk_tenant_options_of(Oid relid);
extern bool rk_tenant_options_fit(Oid relid, const RkTenantOptions *options);
extern char *rk_tenant_options_format(const RkTenantOptions *options);

/* policies.c: the row security of one relation */
extern Oid	rk_tenant_column_type(Oid relid, const char *column);
extern char *rk_tenant_getter(RkClaimKind kind, Oid type);
extern bool rk_tenant_is_own_policy(const char *name);
extern bool rk_tenant_has_guard(Oid relid);
extern bool rk_tenant_protect(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options);
extern void rk_tenant_unprotect(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options);
extern void rk_tenant_leave(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options);
extern bool rk_tenant_bypass_ensure(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options);
extern void rk_tenant_close(FunctionCallInfo fcinfo, Oid relid);
extern bool rk_tenant_policies_ensure(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options);
extern bool rk_tenant_trigger_ensure(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options);

/* columns.c: what the column of a claim must be like */
extern void rk_tenant_check_columns(Oid root, const RkTenantOptions *options);
extern void rk_tenant_prepare_columns(FunctionCallInfo fcinfo, Oid root, const RkTenantOptions *options);
extern bool rk_tenant_default_ensure(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options);
extern void rk_tenant_default_drop(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options, RkClaimKind kind);

extern void rk_tenant_old_defaults_drop(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *before,
										const RkTenantOptions *after);
extern bool rk_tenant_is_large(Oid relid);
extern int64 rk_tenant_count(Oid role, const char *sql);

/* enable.c: tenant(), tenant_off() */
extern void rk_tenant_enable_init(void);
extern List *rk_tenant_tables(void);

/* trust.c */
extern bool rk_tenant_trust_take(FunctionCallInfo fcinfo, Oid role);
extern void rk_tenant_bypass_follow(FunctionCallInfo fcinfo);

/* ddl.c: what happens to protected tables as objects */
extern void rk_tenant_ddl_init(void);

#endif							/* RK_TENANT_PROTECT_H */
