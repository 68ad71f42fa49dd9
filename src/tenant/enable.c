/*
 * enable.c
 *
 * tenant() and tenant_off(): a table under its tenants' row security, with
 * all its partitions. An option that is not named stays as it is; the first
 * time it has its default. What the call is told is checked here, whole,
 * before anything is done.
 */
#include "tenant/protect.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_tenant);
PG_FUNCTION_INFO_V1(rowkeeper_tenant_off);

/* ---- what can be protected ---- */

RK_NORETURN static void
refuse_table(Oid relid, const char *reason, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot isolate tenants in %s: %s", rk_relation_name(relid), reason),
			 hint != NULL ? errhint("%s", hint) : 0));
}

static const char *
unfit_kind(Oid relid)
{
	switch (get_rel_relkind(relid))
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			return get_rel_persistence(relid) == RELPERSISTENCE_TEMP ? "it is temporary" : NULL;
		case RELKIND_FOREIGN_TABLE:
			return "it is a foreign table, which has no row security";
		case RELKIND_VIEW:
			return "it is a view";
		case RELKIND_MATVIEW:
			return "it is a materialized view, which has no row security";
		default:
			return "it is not a table";
	}
}

static void
check_table(Oid relid)
{
	const char *reason = unfit_kind(relid);
	char	   *schema = get_namespace_name(get_rel_namespace(relid));
	Oid			root = rk_root_of(relid);
	ListCell   *lc;

	if (reason != NULL)
		refuse_table(relid, reason, NULL);
	if (IsCatalogRelationOid(relid) || strcmp(schema, "information_schema") == 0)
		refuse_table(relid, "it is a system table", NULL);
	if (strcmp(schema, "rowkeeper") == 0 || strncmp(schema, "rowkeeper_", 10) == 0)
		refuse_table(relid, "it belongs to rowkeeper itself", NULL);
	if (root != relid)
		refuse_table(relid, psprintf("it is a partition of %s", rk_relation_name(root)),
					 psprintf("SELECT rowkeeper.tenant(%s) covers all its partitions.",
							  quote_literal_cstr(rk_relation_name(root))));
	if (get_rel_relkind(relid) == RELKIND_RELATION &&
		(has_superclass(relid) || list_length(rk_relation_tree(relid, NoLock)) > 1))
		refuse_table(relid, "it inherits from another table or another from it", NULL);
	foreach(lc, rk_relation_tree(relid, AccessShareLock))
	{
		reason = unfit_kind(lfirst_oid(lc));
		if (reason != NULL)
			refuse_table(relid, psprintf("of its partition %s: %s", rk_relation_name(lfirst_oid(lc)), reason),
						 NULL);
	}
}

/* ---- what the call is told ---- */

static RkClaimKind
read_kind(FunctionCallInfo fcinfo, int argument, bool *given)
{
	char	   *name;

	*given = !PG_ARGISNULL(argument);
	if (!*given)
		return RK_CLAIM_TENANT;
	name = text_to_cstring(PG_GETARG_TEXT_PP(argument));
	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
		if (strcmp(name, rk_claim_names[kind]) == 0)
			return kind;
	rk_refuse_option("claim", psprintf("\"%s\" is not a claim", name), "Use 'tenant' or 'user'.");
}

static RkTenantOptions *
merge_options(FunctionCallInfo fcinfo, const RkTenantOptions *before)
{
	RkTenantOptions *options = palloc0(sizeof(RkTenantOptions));
	bool		given;
	RkClaimKind kind = read_kind(fcinfo, 2, &given);

	if (before != NULL)
		*options = *before;
	else
	{
		options->force = true;
		options->set_default = true;
	}
	if (!PG_ARGISNULL(1))
		options->by[kind] = pstrdup(NameStr(*PG_GETARG_NAME(1)));
	else if (options->by[kind] == NULL && (given || before == NULL))
		options->by[kind] = psprintf("%s_id", rk_claim_names[kind]);
	if (!PG_ARGISNULL(4))
		options->shared = PG_GETARG_BOOL(4);
	if (!PG_ARGISNULL(5))
		options->force = PG_GETARG_BOOL(5);
	if (!PG_ARGISNULL(6))
		options->set_default = PG_GETARG_BOOL(6);
	if (options->shared && options->by[RK_CLAIM_TENANT] == NULL)
		rk_refuse_option("shared", "is of the claim \"tenant\" only, by which this table is not isolated", NULL);
	return options;
}

static void
notice_change(Oid root, const char *option, const char *was, const char *is)
{
	if (strcmp(was, is) != 0)
		ereport(NOTICE,
				(errmsg("tenant isolation of %s: %s changes from %s to %s",
						rk_relation_name(root), option, was, is)));
}

static const char *
boolean_text(bool value)
{
	return value ? "true" : "false";
}

static void
notice_changes(Oid root, const RkTenantOptions *before, const RkTenantOptions *after)
{
	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
		notice_change(root, rk_claim_names[kind],
					  before->by[kind] == NULL ? "none" : before->by[kind],
					  after->by[kind] == NULL ? "none" : after->by[kind]);
	notice_change(root, "shared", boolean_text(before->shared), boolean_text(after->shared));
	notice_change(root, "force", boolean_text(before->force), boolean_text(after->force));
	notice_change(root, "set_default", boolean_text(before->set_default), boolean_text(after->set_default));
}

/* ---- policies of others ---- */

/* Drop the policies that were named, wherever in the tree they are. */
static bool
replace_policy(FunctionCallInfo fcinfo, List *tree, const char *name)
{
	bool		found = false;
	ListCell   *lc;

	if (rk_tenant_is_own_policy(name))
		rk_refuse_option("replace_policies", psprintf("policy \"%s\" is rowkeeper's own", name), NULL);
	foreach(lc, tree)
	{
		if (rk_fetch_oids(psprintf("SELECT oid FROM pg_policy WHERE polrelid = %u AND polname = %s",
								   lfirst_oid(lc), quote_literal_cstr(name))) == NIL)
			continue;
		found = true;
		rk_run_ddl_step(fcinfo, rk_relation_owner(lfirst_oid(lc)),
						psprintf("DROP POLICY %s ON %s", quote_identifier(name), rk_relation_name(lfirst_oid(lc))));
	}
	return found;
}

static void
replace_policies(FunctionCallInfo fcinfo, Oid root, List *tree, ArrayType *names)
{
	ListCell   *lc;

	foreach(lc, rk_names_argument(names))
	{
		const char *name = lfirst(lc);

		if (name != NULL && !replace_policy(fcinfo, tree, name))
			ereport(NOTICE,
					(errmsg("policy \"%s\" of %s does not exist, skipping", name, rk_relation_name(root))));
	}
}

/* ---- doing it ---- */

/* Partitions attached further down while we waited for the locks of those there were. */
static void
protect_latecomers(FunctionCallInfo fcinfo, Oid root, const RkTenantOptions *options)
{
	bool		found;

	do
	{
		ListCell   *lc;

		found = false;
		foreach(lc, rk_relation_tree(root, AccessShareLock))
		{
			if (rk_tenant_options_of(lfirst_oid(lc)) != NULL)
				continue;
			(void) rk_tenant_protect(fcinfo, lfirst_oid(lc), options);
			found = true;
		}
	} while (found);
}

static void
protect_tree(FunctionCallInfo fcinfo, Oid root, const RkTenantOptions *before,
			 const RkTenantOptions *options)
{
	List	   *tree = rk_relation_tree(root, AccessShareLock);

	rk_trigger_check_pending(tree);
	if (before != NULL)
		rk_tenant_old_defaults_drop(fcinfo, root, before, options);
	rk_tenant_prepare_columns(fcinfo, root, options);

	/* the partitions first: who may read them directly must not, meanwhile */
	for (int i = list_length(tree) - 1; i >= 0; i--)
		(void) rk_tenant_protect(fcinfo, list_nth_oid(tree, i), options);
	protect_latecomers(fcinfo, root, options);
	if (options->by[RK_CLAIM_TENANT] != NULL)
		rk_tell_isolated(root, options->by[RK_CLAIM_TENANT]);
}

static void
enable_tenant(FunctionCallInfo fcinfo, Oid root)
{
	RkTenantOptions *before;
	RkTenantOptions *options;

	/* two calls for one table wait for each other, writers do not */
	LockRelationOid(root, ShareUpdateExclusiveLock);
	check_table(root);
	before = rk_tenant_options_of(root);
	options = merge_options(fcinfo, before);
	rk_tenant_check_columns(root, options);
	if (before != NULL)
		notice_changes(root, before, options);
	if (!PG_ARGISNULL(3))
		replace_policies(fcinfo, root, rk_relation_tree(root, AccessShareLock), PG_GETARG_ARRAYTYPE_P(3));
	protect_tree(fcinfo, root, before, options);
	rk_warn_of("_tenant_company", root);
}

/*
 * rowkeeper.tenant(target regclass, by name, claim text, replace_policies
 * name[], shared boolean, force boolean, set_default boolean) returns SETOF
 * text.
 *
 * Isolates the tenants in a table, or changes how. Locks: SHARE UPDATE
 * EXCLUSIVE on the table; where anything is to do ACCESS EXCLUSIVE on it and
 * its partitions, SHARE while an index is made in a small one, until commit.
 * Rows are looked at only where a column may be null, and no more than
 * rowkeeper.inline_rows. The caller must own the table. Errors: 42501 not the
 * owner, 0A000 what cannot be protected, 22023 an option, 42703 and 42804 the
 * column, 55000 with the statements to run first.
 */
Datum
rowkeeper_tenant(PG_FUNCTION_ARGS)
{
	Oid			target;

	rk_steps_begin(fcinfo);
	target = rk_target_argument(fcinfo);
	rk_check_owner(target);
	enable_tenant(fcinfo, target);
	return (Datum) 0;
}

/* ---- taking it away ---- */

typedef void (*Undo) (FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options);

static bool
undo_all(FunctionCallInfo fcinfo, Oid root, Undo undo)
{
	RkTenantOptions *options = rk_tenant_options_of(root);
	List	   *tree;
	ListCell   *lc;

	/* a partition is its root's to isolate */
	if (options == NULL || rk_root_of(root) != root)
		return false;
	LockRelationOid(root, ShareUpdateExclusiveLock);
	tree = rk_relation_tree(root, AccessShareLock);
	rk_trigger_check_pending(tree);
	foreach(lc, tree)
	{
		RkTenantOptions *own = rk_tenant_options_of(lfirst_oid(lc));

		if (own != NULL)
			undo(fcinfo, lfirst_oid(lc), own);
	}
	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
		rk_tenant_default_drop(fcinfo, root, options, kind);
	return true;
}

/* leave(): the isolation stays, without us. */
static bool
leave_tenant(FunctionCallInfo fcinfo, Oid root)
{
	return undo_all(fcinfo, root, rk_tenant_leave);
}

/* One of two claims; the other one stays. */
static void
take_claim_away(FunctionCallInfo fcinfo, Oid root, RkTenantOptions *options, RkClaimKind kind)
{
	RkTenantOptions before = *options;

	LockRelationOid(root, ShareUpdateExclusiveLock);
	options->by[kind] = NULL;
	if (kind == RK_CLAIM_TENANT)
		options->shared = false;
	protect_tree(fcinfo, root, &before, options);
}

static bool
disable_tenant(FunctionCallInfo fcinfo, Oid root)
{
	RkTenantOptions *options = rk_tenant_options_of(root);
	bool		given;
	RkClaimKind kind = read_kind(fcinfo, 1, &given);

	if (options == NULL || (given && options->by[kind] == NULL))
		return false;
	if (given && options->by[RK_CLAIM_TENANT] != NULL && options->by[RK_CLAIM_USER] != NULL)
		take_claim_away(fcinfo, root, options, kind);
	else
		(void) undo_all(fcinfo, root, rk_tenant_unprotect);
	return true;
}

/*
 * rowkeeper.tenant_off(target regclass, claim text) returns SETOF text: the
 * table is isolated by this claim (NULL: by any) no more, and has the row
 * security flags it had before; its columns, NOT NULL and indexes stay. NULL
 * target: nothing; not isolated: a NOTICE. The caller must own the table.
 * Locks: ACCESS EXCLUSIVE on the table and its partitions, until commit.
 */
Datum
rowkeeper_tenant_off(PG_FUNCTION_ARGS)
{
	Oid			target;

	rk_steps_begin(fcinfo);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	target = PG_GETARG_OID(0);
	rk_check_owner(target);
	if (rk_root_of(target) != target)
		refuse_table(target, psprintf("it is a partition of %s", rk_relation_name(rk_root_of(target))),
					 psprintf("SELECT rowkeeper.tenant_off(%s) concerns all its partitions.",
							  quote_literal_cstr(rk_relation_name(rk_root_of(target)))));
	if (!disable_tenant(fcinfo, target))
		ereport(NOTICE,
				(errmsg("tenants in %s are not isolated", rk_relation_name(target))));
	return (Datum) 0;
}

/* Every protected table, of partitioned ones the root. */
List *
rk_tenant_tables(void)
{
	return rk_fetch_oids("SELECT t.tgrelid FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
						 " WHERE t.tgname = '" RK_TENANT_TRIGGER "' AND NOT c.relispartition"
						 " AND t.tgfoid = 'rowkeeper._tenant_truncate()'::regprocedure"
						 " ORDER BY t.tgrelid");
}

/*
 * What leave() finds where no table leads to it any more, the trash of one that
 * has no soft delete now: our policies go, which need us, and one comes that
 * lets nobody read whom row security holds.
 */
static void
leave_rest(FunctionCallInfo fcinfo)
{
	ListCell   *lc;

	foreach(lc, rk_fetch_oids("SELECT DISTINCT p.polrelid FROM pg_policy p"
							  " JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
							  " WHERE p.polname ~ '^rowkeeper_tenant(_guard|_update|_delete|_bypass)?$' AND n.nspname = 'rowkeeper_trash' ORDER BY 1"))
	{
		rk_check_owner(lfirst_oid(lc));
		rk_tenant_close(fcinfo, lfirst_oid(lc));
	}
}

/* For whom a transaction works on an isolated table. */
static RkIsolation
isolation_of(Oid root)
{
	const RkStanding *standing;

	if (rk_tenant_options_of(root) == NULL)
		return RK_NOT_ISOLATED;
	standing = rk_standing();
	return standing->tenant != NULL || standing->user != NULL ? RK_ACTS_FOR_TENANT : RK_ACTS_FOR_NOBODY;
}

void
rk_tenant_enable_init(void)
{
	static const RkFeature feature = {
		.name = "tenant",
		.off = leave_tenant,
		.tables = rk_tenant_tables,
		.leave = leave_rest
	};

	rk_feature_register(&feature);
	rk_isolation_of = isolation_of;
}
