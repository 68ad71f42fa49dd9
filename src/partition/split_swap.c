/*
 * split_swap.c
 *
 * The end of a split. The copy gets what protects the table's rows, then takes
 * the wide partition's place, in one transaction; nobody's snapshot misses a row
 * there (split_copy.c). What was looked at before is looked at again once the
 * locks are had: nothing may have come in between.
 *
 * The old partition is empty from then on, so that no foreign key finds a row in
 * it. Whoever writes to it by its own name waits for the swap, too, and is
 * refused after it: those rows would go with it. So its triggers stay until it
 * is dropped (split_apply.c).
 */
#include "partition/partition.h"

#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* ---- before the swap: rights, row security, settings ---- */

/* All that says who may do what with a table's rows, by version. */
static char *
rights_of(Oid relid)
{
	static SPIPlanPtr plan = NULL;

	return rk_fetch_text_planned(&plan, relid,
								 "SELECT ROW(c.relacl, c.relrowsecurity, c.relforcerowsecurity, c.relreplident,"
								 " ARRAY(SELECT ROW(y.oid, y.xmin)::text FROM pg_policy y WHERE y.polrelid = c.oid ORDER BY y.oid),"
								 " ARRAY(SELECT ROW(k.attnum, k.attacl)::text FROM pg_attribute k WHERE k.attrelid = c.oid"
								 "  AND k.attacl IS NOT NULL ORDER BY k.attnum))::text"
								 " FROM pg_class c WHERE c.oid = $1");
}

typedef struct Dressing
{
	const RkSplit *split;
	Oid			relid;
} Dressing;

static void
dress(void *arg)
{
	const Dressing *dressing = arg;
	Oid			parent = dressing->relid == dressing->split->history ? dressing->split->root
		: get_partition_parent(dressing->relid, true);

	rk_tell_partition_built(dressing->split->root, dressing->relid);
	rk_partition_dress(parent, dressing->relid, dressing->split->owner);
}

/* One of the new tables is made as the table is now; call->batches: which. */
static void
dress_next(RkSplitCall *call)
{
	RkSplit    *split = rk_split_useful(call);
	RkLockRequest none[] = {
		{InvalidOid, NoLock}
	};
	Dressing	dressing = {.split = split};
	List	   *tree;

	call->more = false;
	if (split == NULL)
		return;
	/* rights of the owner's that are no more would be none in the copy */
	rk_split_check(split->root, split->wide);
	if (call->batches == 0)
	{
		rk_progress_update(6, 0);
		call->rights = MemoryContextStrdup(call->context, rights_of(split->root));
	}
	tree = rk_relation_tree(split->history, NoLock);
	if (call->batches >= list_length(tree))
		return;
	call->more = true;
	dressing.relid = list_nth_oid(tree, call->batches);
	if (rk_partition_try(none, dress, &dressing, call->insist, &call->failure))
		call->batches++;
}

/* It did not come to the swap: what the table loses now the copy would not. */
void
rk_split_undress(RkSplitCall *call)
{
	RkSplit    *split = rk_split_read(call->root);
	ListCell   *lc;

	if (split == NULL || split->swapped || !OidIsValid(split->history))
		return;
	foreach(lc, rk_relation_tree(split->history, NoLock))
		rk_split_keep_to_owner(split, lfirst_oid(lc));
}

/* ---- the swap ---- */

typedef struct Swap
{
	RkSplitCall *call;
	const RkSplit *split;
	char	   *lower;
	char	   *upper;
} Swap;

static void
dress_tree(const RkSplit *split)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(split->history, NoLock))
		rk_partition_dress(get_partition_parent(lfirst_oid(lc), true), lfirst_oid(lc), split->owner);
}

/*
 * What serializable transactions have read of the partition the server knows by
 * its OID, for as long as it may matter: for others that were begun before they
 * were committed, and may write yet. Those would write to another table.
 */
static bool
is_read(Oid wide)
{
	static SPIPlanPtr plan = NULL;

	return rk_fetch_text_planned(&plan, wide,
								 "SELECT '' FROM pg_locks l WHERE l.mode = 'SIReadLock'"
								 " AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())"
								 " AND (l.relation = $1 OR l.relation IN (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = $1)) LIMIT 1") != NULL;
}

static void
check_not_read(Oid wide)
{
	if (is_read(wide))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("serializable transactions have read %s, and others that were begun before they ended are not over",
						rk_relation_name(wide))));
}

static void
look_for_readers(void *arg)
{
	check_not_read(*(const Oid *) arg);
}

/*
 * What refers to the rows of the old partition, or acts on them, does so to the
 * rows of the new ones. It has none from here on, and no trigger is told.
 */
static void
empty(Oid wide)
{
	Relation	rel = table_open(wide, AccessExclusiveLock);

	CheckTableNotInUse(rel, "TRUNCATE");
	rk_relation_empty(rel);
	if (OidIsValid(rel->rd_rel->reltoastrelid))
	{
		Relation	toast = table_open(rel->rd_rel->reltoastrelid, AccessExclusiveLock);

		rk_relation_empty(toast);
		table_close(toast, NoLock);
	}
	table_close(rel, NoLock);
	rk_relation_reindex(wide);
}

/* What was found before is to be true now. */
static bool
is_still_true(const Swap *swap)
{
	const RkSplit *split = swap->split;

	if (!rk_split_is_unaltered(split))
		swap->call->altered = true;
	else if (strcmp(rights_of(split->root), swap->call->rights) != 0)
		swap->call->more = true;
	return !swap->call->altered && !swap->call->more;
}

/* The commit waits for no disk while others wait for it, as that of a conversion. */
static void
swap_under_locks(void *arg)
{
	Swap	   *swap = arg;
	const RkSplit *split = swap->split;
	char	   *root;

	rk_partition_note_locked();
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	if (!is_still_true(swap))
		return;
	rk_split_check(split->root, split->wide);
	check_not_read(split->wide);
	root = rk_relation_name(split->root);
	rk_partition_run(split->owner, psprintf("ALTER TABLE %s DETACH PARTITION %s", root, rk_relation_name(split->wide)));
	empty(split->wide);
	rk_partition_run(split->owner, psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)", root,
											rk_relation_name(split->history), swap->lower, swap->upper));
	rk_convert_run(split->owner, true, psprintf("ALTER TABLE %s DROP CONSTRAINT " RK_SPLIT_CHECK, rk_relation_name(split->history)));
	/* by an index: which one is the table's they know only now */
	if (rk_exists_about(rk_extension_owner(), split->root, "SELECT 1 FROM pg_class WHERE oid = $1 AND relreplident = 'i'"))
		dress_tree(split);
	rk_split_note(split, "swapped = true");
	swap->call->swapped = true;
}

/* The table's own first, as everybody does who locks it and then others. */
static RkLockRequest *
swap_locks(const RkSplit *split)
{
	List	   *tree = rk_relation_tree(split->history, NoLock);
	int			count;
	RkLockRequest *partners = rk_split_partner_locks(split->root, ShareRowExclusiveLock, 0, &count);
	RkLockRequest *locks = palloc0(sizeof(RkLockRequest) * (list_length(tree) + count + 3));
	int			number = 0;
	ListCell   *lc;

	rk_partition_add_lock(locks, &number, split->root, AccessExclusiveLock);
	rk_partition_add_lock(locks, &number, split->wide, AccessExclusiveLock);
	for (int i = 0; i < count; i++)
		locks[number++] = partners[i];
	foreach(lc, tree)
		rk_partition_add_lock(locks, &number, lfirst_oid(lc), AccessExclusiveLock);
	return locks;
}

/* call->more: the table's rights have changed since the copy got them. */
static void
swap(RkSplitCall *call)
{
	RkSplit    *split = rk_split_useful(call);
	RkPartitionSet *set;
	const RkPartition *wide;
	Swap		swap = {.call = call,.split = split};

	call->more = false;
	if (split == NULL)
		return;
	/* what is read under the locks is in the caches then */
	rk_split_check(split->root, split->wide);
	if (!is_still_true(&swap))
		return;
	wide = rk_split_load_wide(call, split, &set);
	if (wide == NULL)
		return;
	swap.lower = rk_partition_lower_text(set, wide);
	swap.upper = rk_partition_upper_text(set, wide);
	rk_partition_dress_prepare(split->root);
	/* nobody waits for us while we wait for them */
	call->failure = rk_attempt(look_for_readers, &split->wide);
	if (call->failure != NULL && call->failure->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(call->failure);
	if (call->failure != NULL)
		return;
	call->attempts++;
	(void) rk_partition_try_for(RK_LONGEST_SWAP_MS, swap_locks(split), swap_under_locks, &swap,
								call->insist, &call->failure);
}

void
rk_split_swap(RkSplitCall *call)
{
	do
	{
		call->batches = 0;
		do
			rk_split_insist(call, dress_next);
		while (call->more && !call->altered);
		if (!call->altered)
			rk_split_insist(call, swap);
	} while (call->more && !call->altered);
	if (call->swapped)
		rk_partition_say_locked(call->attempts);
}

/* ---- after it ---- */

static void
drop_wide(void *arg)
{
	const RkSplit *split = arg;

	rk_partition_run(rk_relation_owner(split->wide), psprintf("DROP TABLE %s", rk_relation_name(split->wide)));
	rk_split_note(split, "partition = NULL");
}

/* Somebody has attached it again: it is his. */
static void
leave_wide(void *arg)
{
	const RkSplit *split = arg;

	rk_split_drop_triggers(split->wide);
	rk_split_note(split, "partition = NULL");
}

void
rk_split_drop_old(RkSplitCall *call)
{
	RkSplit    *split = rk_split_current(call->root);
	int			count;
	RkLockRequest *locks;

	rk_progress_update(7, 0);
	if (!OidIsValid(split->wide))
		return;
	locks = rk_split_partner_locks(split->wide, AccessExclusiveLock, 1, &count);
	rk_partition_add_lock(locks, &count, split->wide, AccessExclusiveLock);
	(void) rk_partition_try(locks, get_rel_relispartition(split->wide) ? leave_wide : drop_wide, split,
							call->insist, &call->failure);
}

/* What the partitions show of the table only now that they are its own, such as indexes. */
void
rk_split_finish(RkSplitCall *call)
{
	RkSplit    *split = rk_split_current(call->root);

	rk_progress_update(8, 0);
	if (OidIsValid(split->history) && get_rel_relispartition(split->history))
		dress_tree(split);
	rk_split_forget(call->root);
}

static void
analyze_table(void *arg)
{
	Oid			root = *(Oid *) arg;

	rk_convert_run(rk_relation_owner(root), false, psprintf("ANALYZE %s", rk_relation_name(root)));
}

/* All is done by now: code of the owner's that fails here fails nothing else. */
void
rk_split_analyze(RkSplitCall *call)
{
	ErrorData  *error = get_rel_name(call->root) == NULL ? NULL : rk_attempt(analyze_table, &call->root);

	if (error != NULL)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not analyze %s: %s", rk_relation_name(call->root), error->message),
				 errhint("ANALYZE it: autovacuum does not analyze partitioned tables.")));
	rk_progress_end();
}
