/*
 * isolation.c
 *
 * Whether row security holds the caller of a function of ours in what that
 * does with rows. Mostly the server says. But an owner who has forced row
 * security on himself has two sides: in a transaction that acts for a tenant
 * he is an application like any other; in one that acts for nobody he is who
 * looks after the table, to whom every row is shown by a policy would be an
 * error or nothing, and what he asks for is meant for all of them.
 */
#include "rowkeeper.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/rls.h"

RkIsolationOf rk_isolation_of = NULL;

static RkIsolation
isolation_of(Oid root)
{
	return rk_isolation_of == NULL ? RK_NOT_ISOLATED : rk_isolation_of(root);
}

/* Rows of a table that policies hide from the caller are not there for him. */
bool
rk_is_held(Oid root)
{
	return check_enable_rls(root, InvalidOid, true) == RLS_ENABLED &&
		!(rk_is_relation_owner(root, GetUserId()) && isolation_of(root) == RK_ACTS_FOR_NOBODY);
}

/* The same of what is for owners only: by his own claim, not by being forced. */
bool
rk_is_held_by_claim(Oid root)
{
	return check_enable_rls(root, InvalidOid, true) == RLS_ENABLED &&
		isolation_of(root) == RK_ACTS_FOR_TENANT;
}
