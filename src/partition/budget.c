/*
 * budget.c
 *
 * Code of a table's owner runs in maintenance: the CHECK of a domain, a
 * function in an index. All that one maintain() does for an owner who did not
 * call it himself has one limit (rowkeeper.owner_budget): neither one slow
 * statement nor many keep it from the tables of others. What is left waits for
 * the next run.
 *
 * Kept for one maintain(), which is told by its statement.
 */
#include "partition/partition.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

typedef struct Share
{
	Oid			owner;
	int			left;			/* milliseconds */
} Share;

static TimestampTz statement;
static List *shares;			/* Share * */
static Share *current;			/* NULL: without limit */

static Share *
share_of(Oid owner)
{
	MemoryContext old;
	Share	   *share;
	ListCell   *lc;

	foreach(lc, shares)
	{
		share = lfirst(lc);
		if (share->owner == owner)
			return share;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);	/* until the next run */
	share = palloc(sizeof(Share));
	share->owner = owner;
	share->left = rk_owner_budget;
	shares = lappend(shares, share);
	MemoryContextSwitchTo(old);
	return share;
}

/* What is done in this statement from here on is done for this owner. */
void
rk_partition_budget_begin(Oid owner)
{
	if (statement != GetCurrentStatementStartTimestamp())
	{
		list_free_deep(shares);
		shares = NIL;
		statement = GetCurrentStatementStartTimestamp();
	}
	current = owner == GetUserId() ? NULL : share_of(owner);
}

static bool
is_limited(void)
{
	return current != NULL && statement == GetCurrentStatementStartTimestamp();
}

/* The limit of a piece of work, or what is left of the budget; raises 57000 where nothing is. */
int
rk_partition_budget_limit(int limit)
{
	if (!is_limited())
		return limit;
	if (current->left <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_OPERATOR_INTERVENTION),
				 errmsg("maintenance of tables of %s took longer than rowkeeper.owner_budget",
						GetUserNameFromId(current->owner, false)),
				 errhint("The next run goes on.")));
	return Min(limit, current->left);
}

void
rk_partition_budget_spend(int milliseconds)
{
	if (is_limited())
		current->left -= milliseconds;
}
