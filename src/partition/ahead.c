/*
 * ahead.c
 *
 * Which partitions a table should have, and which it need no longer: reckoned
 * from its grid, the clock and the data, and nothing is done here.
 *
 * A new partition begins where the one before it ends, as that bound is
 * stored: reckoned anew it might lie elsewhere (the zone's rules have changed
 * since) and leave a gap. Data counts by the partition it is in, not by the
 * row: which of the partitions to come has pages can be asked without reading
 * any. So one row far ahead has no partition to be in and makes none.
 */
#include "partition/partition.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "common/int.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define DEFAULT_AHEAD 4			/* periods */
#define MAX_AHEAD 10000

/* ---- the clock and the data ---- */

/*
 * Whether there is anything in a partition; "unknown" where somebody keeps us
 * from looking, and of one that has no pages here, as a foreign table.
 */
static bool
has_pages(Oid relid, bool unknown)
{
	Relation	rel;
	bool		pages = unknown;

	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
	{
		ListCell   *lc;

		foreach(lc, find_inheritance_children(relid, NoLock))
			if (has_pages(lfirst_oid(lc), unknown))
			return true;
		return false;
	}
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return unknown;
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
	{
		UnlockRelationOid(relid, AccessShareLock);
		return false;
	}
	if (RELKIND_HAS_TABLE_AM(rel->rd_rel->relkind))
		pages = RelationGetNumberOfBlocks(rel) > 0;
	relation_close(rel, AccessShareLock);
	return pages;
}

/*
 * Whether somebody can see a row in a partition. Read as its owner, and taken to
 * be none where it is locked.
 */
static bool
has_rows(Oid relid)
{
	bool		isnull;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	(void) rk_fetch(rk_relation_owner(relid), psprintf("SELECT 1 FROM %s LIMIT 1", rk_relation_name(relid)),
					0, NULL, NULL, NULL, &isnull);
	return !isnull;
}

/*
 * The last partition that has rows, of a key of time only where it is yet to
 * come; NULL: none has.
 */
static const RkPartition *
newest_partition(const RkPartitionSet *set)
{
	int64		now = rk_key_is_time(set->key) ? rk_grid_now(&set->grid) : RK_NO_START;

	for (int i = set->count - 1; i >= 0 && set->parts[i].upper > now; i--)
	{
		const RkPartition *part = &set->parts[i];

		if (part->pending || (rk_key_is_time(set->key) && part->lower <= now))
			continue;
		if (has_pages(part->relid, false) &&	/* the next run sees more */
			(!set->look_at_rows || has_rows(part->relid)))
			return part;
	}
	return NULL;
}

/* A position plus a length of the options, or that many periods. */
static int64
add_length(const RkPartitionSet *set, int64 position, const char *length, int sign)
{
	int64		result;

	if (rk_key_is_time(set->key))
		return rk_grid_shift(&set->grid, position, rk_partition_interval(length), sign);
	if (pg_add_s64_overflow(position, rk_partition_number(length) * sign, &result))
		return sign < 0 ? RK_NO_START : RK_NO_END;
	return result;
}

/* How far partitions reach that are ahead of a position; this included. */
static int64
last_wanted(const RkPartitionSet *set, int64 position)
{
	if (set->options->ahead != NULL)
		return add_length(set, position, set->options->ahead, 1);
	return rk_grid_point(&set->grid, rk_grid_number(&set->grid, position) + 1 + DEFAULT_AHEAD) - 1;
}

/* Raise 22023 where "ahead" is more partitions than anybody wants. */
void
rk_partition_check_ahead(const RkPartitionSet *set)
{
	int64		now = rk_key_is_time(set->key) ? rk_grid_now(&set->grid) : 0;
	int64		last = last_wanted(set, now);

	if (last == RK_NO_END ||
		rk_grid_number(&set->grid, last) - rk_grid_number(&set->grid, now) > MAX_AHEAD)
		rk_refuse_option("ahead", psprintf("that is more than %d partitions", MAX_AHEAD), NULL);
}

/*
 * The position that the table has reached: the clock, or data that is ahead of
 * it, but not by more than partitions are (a client with a wrong clock would
 * drive them on and on). Of ids the data alone.
 */
int64
rk_partition_now(const RkPartitionSet *set)
{
	const RkPartition *newest = newest_partition(set);

	/* its last row may be at its end */
	if (rk_key_is_time(set->key))
	{
		int64		now = rk_grid_now(&set->grid);

		return newest == NULL ? now : Max(now, Min(newest->upper - 1, last_wanted(set, now)));
	}
	if (newest != NULL)
		return newest->upper != RK_NO_END ? newest->upper - 1
			: newest->lower != RK_NO_START ? newest->lower : 0;
	return set->count > 0 && set->parts[0].lower != RK_NO_START ? set->parts[0].lower : 0;
}

/* ---- expiry ---- */

/* What ends here or before is no longer kept; RK_NO_START: all is. */
static int64
expiry_limit(const RkPartitionSet *set)
{
	const RkPartition *newest;

	if (set->options->keep == NULL)
		return RK_NO_START;
	if (rk_key_is_time(set->key))
		return add_length(set, rk_grid_now(&set->grid), set->options->keep, -1);

	/* its last row may be at its beginning */
	newest = newest_partition(set);
	if (newest == NULL || newest->lower == RK_NO_START)
		return RK_NO_START;
	return add_length(set, newest->lower, set->options->keep, -1);
}

/*
 * The partitions that are no longer kept, oldest first: RkPartition *.
 */
List *
rk_partitions_expired(const RkPartitionSet *set)
{
	List	   *expired = NIL;
	int64		limit = expiry_limit(set);

	for (int i = 0; i < set->count; i++)
		if (!set->parts[i].pending && set->parts[i].upper <= limit)
			expired = lappend(expired, &set->parts[i]);
	return expired == NIL ? NIL : rk_split_spare(set, expired);
}

/* Whether what ended there is no longer kept, as a pending partition or one that is detached. */
bool
rk_partition_is_past(const RkPartitionSet *set, int64 upper)
{
	return upper <= expiry_limit(set);
}

/*
 * Whether that many of the oldest partitions are more than half: of all, or of
 * those that have rows. (After a clock's jump many empty ones were made.)
 */
bool
rk_partition_is_most(const RkPartitionSet *set, List *expired)
{
	int			full = 0;
	int			expired_full = 0;
	ListCell   *lc;

	for (int i = 0; i < set->count; i++)
		full += has_pages(set->parts[i].relid, true);
	foreach(lc, expired)
		expired_full += has_pages(((RkPartition *) lfirst(lc))->relid, true);
	return list_length(expired) * 2 > set->count || (expired_full > 1 && expired_full * 2 > full);
}

/* ---- names ---- */

/* <table>_p20260101 */
static char *
partition_name(const RkPartitionSet *set, int64 lower)
{
	return rk_name_fit(get_rel_name(set->root), psprintf("_%s", rk_grid_name(&set->grid, lower)));
}

/* ---- what is wanted ---- */

static RkWanted *
make_wanted(const RkPartitionSet *set, int64 lower, char *lower_text, int64 upper, char *upper_text)
{
	RkWanted   *wanted = palloc(sizeof(RkWanted));

	wanted->lower = lower;
	wanted->lower_text = lower_text != NULL ? lower_text : rk_key_bound(set->key, lower);
	wanted->upper = upper;
	wanted->upper_text = upper_text != NULL ? upper_text : rk_key_bound(set->key, upper);
	wanted->name = partition_name(set, lower);
	return wanted;
}

/* The partition at a position, also one whose detach is pending; or NULL. */
static const RkPartition *
occupant(const RkPartitionSet *set, int64 position)
{
	for (int i = 0; i < set->count; i++)
		if (set->parts[i].lower <= position && position < set->parts[i].upper)
			return &set->parts[i];
	return NULL;
}

static const RkPartition *
first_after(const RkPartitionSet *set, int64 position)
{
	for (int i = 0; i < set->count; i++)
		if (set->parts[i].lower > position)
			return &set->parts[i];
	return NULL;
}

static const RkPartition *
last_before(const RkPartitionSet *set, int64 position)
{
	const RkPartition *last = NULL;

	for (int i = 0; i < set->count; i++)
		if (set->parts[i].upper <= position && (last == NULL || set->parts[i].upper > last->upper))
			last = &set->parts[i];
	return last;
}

/* The partition that would begin at a free position. */
static RkWanted *
wanted_at(const RkPartitionSet *set, int64 lower, char *lower_text)
{
	const RkPartition *next = first_after(set, lower);
	int64		upper = rk_grid_next(&set->grid, lower);

	if (next != NULL && next->lower < upper)
		return make_wanted(set, lower, lower_text, next->lower,
						   rk_partition_lower_text(set, next));
	return make_wanted(set, lower, lower_text, upper, NULL);
}

/*
 * Where to begin: where the last partition ends, so that there is no gap
 * after a time without maintenance. What would be expired at once is left
 * out, and so is all of it where that were too many.
 */
static int64
first_wanted(const RkPartitionSet *set, int64 at, char **text)
{
	const RkPartition *last = last_before(set, at);
	int64		number = rk_grid_number(&set->grid, at);
	int64		limit = expiry_limit(set);
	int64		start;

	*text = NULL;
	if (occupant(set, at) != NULL)
		return at;
	if (last == NULL)
		return rk_grid_point(&set->grid, number);
	if (limit != RK_NO_START && rk_grid_next(&set->grid, last->upper) <= limit)
		start = rk_grid_point(&set->grid, rk_grid_number(&set->grid, Min(limit, at)));
	else
	{
		start = last->upper;
		*text = rk_partition_upper_text(set, last);
	}
	if (number - rk_grid_number(&set->grid, start) <= RK_MAX_CREATED)
		return start;
	*text = NULL;
	return rk_grid_point(&set->grid, number);
}

/*
 * The partitions that are missing, in order: RkWanted *, not more than the
 * limit; *more: there are.
 */
List *
rk_partitions_wanted(const RkPartitionSet *set, int limit, bool *more)
{
	List	   *result = NIL;
	int64		at = rk_partition_now(set);
	int64		until = last_wanted(set, at);
	char	   *text;
	int64		position = first_wanted(set, at, &text);
	const RkPartition *last = NULL; /* the one that ends at the position */

	*more = false;
	while (position <= until && position != RK_NO_END)
	{
		const RkPartition *part = occupant(set, position);
		RkWanted   *wanted;

		if (part != NULL)
		{
			position = part->upper;
			last = part;
			text = NULL;

			continue;
		}
		if (last != NULL)
			text = rk_partition_upper_text(set, last);

		last = NULL;
		wanted = wanted_at(set, position, text);
		if (strcmp(wanted->lower_text, "MAXVALUE") == 0)
			break;				/* past what the key's type holds */
		if (list_length(result) == limit)
		{
			*more = true;
			break;
		}
		result = lappend(result, wanted);
		position = wanted->upper;
		text = wanted->upper_text;

		if (strcmp(text, "MAXVALUE") == 0)
			break;
	}
	return result;
}

/*
 * Whether a position is neither past retention nor further ahead than partitions
 * are made, nor of the first years that there are, where a period would begin
 * before time does.
 */
bool
rk_partition_is_in_reach(const RkPartitionSet *set, int64 position)
{
	if (position == RK_NO_START || position == RK_NO_END || position < expiry_limit(set) ||
		position > last_wanted(set, rk_partition_now(set)))
		return false;
	return !rk_key_is_time(set->key) ||
		rk_grid_point(&set->grid, rk_grid_number(&set->grid, position)) != RK_NO_START;
}

/*
 * The one partition that a value at this position needs; NULL where there is
 * one. Its period, cut to what its neighbours leave of it.
 */
RkWanted *
rk_partition_wanted_for(const RkPartitionSet *set, int64 position)
{
	const RkPartition *last = last_before(set, position);
	int64		lower = rk_grid_point(&set->grid, rk_grid_number(&set->grid, position));

	if (occupant(set, position) != NULL)
		return NULL;
	if (last != NULL && last->upper > lower)
		return wanted_at(set, last->upper, rk_partition_upper_text(set, last));
	return wanted_at(set, lower, NULL);
}
