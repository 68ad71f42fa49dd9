/*
 * split_swap.c
 *
 * The end of a split. The copy takes the wide partition's place, in one
 * transaction; nobody's snapshot misses a row there (split_copy.c). What was
 * looked at before is looked at again once the locks are had: nothing may have
 * come in between.
 *
 * Who may read or write the table may do so to the copy from the swap on, or later
 * where there are many partitions: until then it has none of the table's triggers,
 * and nobody looks at its rows again. Whoever reads and writes through the table
 * needs no rights there.
 *
 * The old partition is empty from then on, so that no foreign key finds a row in
 * it, and has another name: whoever has waited for the swap with the old one (a
 * dump that goes on from table to table, say) is to fail, and not to find
 * nothing. Who still has it by its OID, and writes, is refused: those rows would go
 * with it. So its triggers stay until it is dropped (split_apply.c).
 */
#include "partition/partition.h"

#include "access/table.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* ---- the swap ---- */

/* Tables that are made the table's own while others wait, and when that is given up. */
#define TABLES_AT_ONCE 16
#define OPEN_UNTIL_MS 50

typedef struct Swap
{
	RkSplitCall *call;
	const RkSplit *split;
	List	   *tree;			/* of the copy */
	char	   *lower;
	char	   *upper;
} Swap;

/* As the table is, with its rights and row security where access is true. */
static void
dress(const RkSplit *split, List *tables, bool access, TimestampTz deadline)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		Oid			relid = lfirst_oid(lc);

		/* it may be dropped by now */
		if (get_rel_relispartition(relid))
			rk_partition_dress(get_partition_parent(relid, true), relid, split->owner, access, deadline);
	}
}

typedef struct Opening
{
	const RkSplit *split;
	List	   *tables;
	TimestampTz deadline;
} Opening;

static void
open_tables(void *arg)
{
	const Opening *opening = arg;

	dress(opening->split, opening->tables, true, opening->deadline);
}

/* The copy is the table's own: so are its rights and row security, and what ATTACH went by goes. */
static void
open_all(void *arg)
{
	open_tables(arg);
	rk_split_drop_constraint(((const Opening *) arg)->split);
}

void
rk_split_open_at_once(const RkSplit *split)
{
	Opening		opening = {split, rk_relation_tree(split->history, NoLock), DT_NOEND};

	open_all(&opening);
}

/*
 * The same within the swap, where others wait. Where there are many tables or
 * grants, or the owner may not, or an event trigger is slow or refuses it: false,
 * and all of it is left for later.
 */
static bool
try_to_open(const RkSplit *split, List *tree, TimestampTz deadline)
{
	Opening		opening = {split, tree, deadline};

	return list_length(tree) <= TABLES_AT_ONCE && rk_attempt(open_all, &opening) == NULL;
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

/* An index with its constraint, if any; no event trigger is told. */
static void
drop_index(Oid index)
{
	Oid			constraint = get_index_constraint(index);
	ObjectAddress object;

	if (OidIsValid(constraint))
		ObjectAddressSet(object, ConstraintRelationId, constraint);
	else
		ObjectAddressSet(object, RelationRelationId, index);
	performDeletion(&object, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
}

/*
 * What refers to the rows of the old partition, or acts on them, does so to the
 * rows of the new ones. It has none from here on, and no trigger is told. To
 * build an index waits for the disk, even an empty one: it has none from here on
 * either. What is left in its TOAST table goes with it.
 */
static void
empty(Oid wide)
{
	Relation	rel = table_open(wide, AccessExclusiveLock);
	ListCell   *lc;

	CheckTableNotInUse(rel, "TRUNCATE");
	foreach(lc, RelationGetIndexList(rel))
		drop_index(lfirst_oid(lc));
	CommandCounterIncrement();
	rk_relation_empty(rel);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* Its name is nobody's from here on. */
static void
rename_old(Oid wide)
{
	Oid			schema = get_rel_namespace(wide);
	char	   *name;
	int			number = 0;

	do
	{
		name = rk_name_fit(get_rel_name(wide), number == 0 ? "_divided" : psprintf("_divided%d", number));
		number++;
	} while (OidIsValid(get_relname_relid(name, schema)) ||
			 SearchSysCacheExists2(TYPENAMENSP, CStringGetDatum(name), ObjectIdGetDatum(schema)));
	RenameRelationInternal(wide, name, true, false);
	CommandCounterIncrement();
}

/*
 * The commit waits for no standby, but for the disk, since files go with it; what
 * others have written is there before, so that it is little (see swap()).
 */
static void
swap_under_locks(void *arg)
{
	Swap	   *swap = arg;
	const RkSplit *split = swap->split;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), OPEN_UNTIL_MS);
	char	   *root;

	rk_partition_note_locked();
	/* what was found before is to be true now */
	swap->call->altered = !rk_split_is_unaltered(split);
	if (swap->call->altered)
		return;
	rk_split_check(split->root, split->wide);
	check_not_read(split->wide);
	root = rk_relation_name(split->root);
	rk_partition_run(split->owner, psprintf("ALTER TABLE %s DETACH PARTITION %s", root, rk_relation_name(split->wide)));
	rename_old(split->wide);
	empty(split->wide);
	rk_partition_run(split->owner, psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)", root,
											rk_relation_name(split->history), swap->lower, swap->upper));
	/* by an index: which one is the table's they know only now */
	if (!try_to_open(split, swap->tree, deadline) &&
		rk_exists_about(rk_extension_owner(), split->root, "SELECT 1 FROM pg_class WHERE oid = $1 AND relreplident = 'i'"))
		dress(split, swap->tree, false, DT_NOEND);
	rk_split_note(split, "swapped = true");
	swap->call->swapped = true;
}

static void
add_tree_locks(RkLockRequest *locks, int *count, List *tree)
{
	ListCell   *lc;

	foreach(lc, tree)
		rk_partition_add_lock(locks, count, lfirst_oid(lc), AccessExclusiveLock);
}

/*
 * The table's own first, as everybody does who locks it and then others: whoever
 * is about to write to the copy, too, has to come to his end.
 */
static RkLockRequest *
swap_locks(const RkSplit *split, List *tree)
{
	int			count;
	RkLockRequest *partners = rk_split_partner_locks(split->root, ShareRowExclusiveLock, 0, &count);
	RkLockRequest *locks = palloc0(sizeof(RkLockRequest) * (list_length(tree) + count + 3));
	int			number = 0;

	rk_partition_add_lock(locks, &number, split->root, AccessExclusiveLock);
	rk_partition_add_lock(locks, &number, split->wide, AccessExclusiveLock);
	for (int i = 0; i < count; i++)
		locks[number++] = partners[i];
	add_tree_locks(locks, &number, tree);
	return locks;
}

static void
swap(RkSplitCall *call)
{
	RkSplit    *split = rk_split_useful(call);
	RkPartitionSet *set;
	const RkPartition *wide;
	Swap		swap = {.call = call,.split = split};

	rk_progress_update(6, 0);
	if (split == NULL)
		return;
	/* what is read under the locks is in the caches then */
	rk_split_check(split->root, split->wide);
	call->altered = !rk_split_is_unaltered(split);
	if (call->altered)
		return;
	wide = rk_split_load_wide(call, split, &set);
	if (wide == NULL)
		return;
	swap.lower = rk_partition_lower_text(set, wide);
	swap.upper = rk_partition_upper_text(set, wide);
	swap.tree = rk_relation_tree(split->history, NoLock);
	rk_partition_dress_prepare(split->root);
	/* nobody waits for us while we wait for them */
	call->failure = rk_attempt(look_for_readers, &split->wide);
	if (call->failure != NULL && call->failure->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(call->failure);
	if (call->failure != NULL)
		return;
	call->attempts++;
	XLogFlush(GetLastImportantRecPtr());
	(void) rk_partition_try_for(RK_LONGEST_SWAP_MS, swap_locks(split, swap.tree), swap_under_locks, &swap,
								call->insist, &call->failure);
}

void
rk_split_swap(RkSplitCall *call)
{
	rk_split_insist(call, swap);
	if (call->swapped)
		rk_partition_say_locked(call->attempts);
}

/* ---- after it ---- */

static void
drop_constraint(void *arg)
{
	rk_split_drop_constraint(arg);
}

/*
 * The CHECK for which ATTACH has read no rows. To drop it takes longer than the
 * swap where there are many partitions: nobody is to wait for both at once.
 */
static void
release(RkSplitCall *call)
{
	RkSplit    *split = rk_split_current(call->root);
	List	   *tree;
	RkLockRequest *locks;
	int			count = 0;

	rk_progress_update(7, 0);
	if (!rk_split_has_constraint(split))
		return;
	tree = rk_relation_tree(split->history, NoLock);
	locks = palloc0(sizeof(RkLockRequest) * (list_length(tree) + 1));
	add_tree_locks(locks, &count, tree);
	(void) rk_partition_try_for(RK_LONGEST_SWAP_MS, locks, drop_constraint, split, call->insist, &call->failure);
}

/* Some of the new tables are made as the table is now. */
static void
open_next(RkSplitCall *call)
{
	RkSplit    *split = rk_split_current(call->root);
	RkLockRequest locks[TABLES_AT_ONCE + 1] = {{InvalidOid, NoLock}};
	int			count = 0;
	Opening		opening = {.split = split,.deadline = DT_NOEND};

	call->more = false;
	if (!OidIsValid(split->history) || !get_rel_relispartition(split->history))
		return;
	opening.tables = rk_fetch_oids(psprintf("SELECT t.relid FROM pg_partition_tree(%u) t JOIN pg_policy y ON y.polrelid = t.relid"
											" WHERE y.polname = '" RK_SPLIT_POLICY "'"
											"  AND NOT EXISTS (SELECT FROM pg_policy r WHERE r.polrelid = %u AND r.polname = y.polname)"
											" ORDER BY t.level, t.relid LIMIT %d",
											split->history, split->root, TABLES_AT_ONCE));
	if (opening.tables == NIL)
		return;
	call->more = true;
	add_tree_locks(locks, &count, opening.tables);
	(void) rk_partition_try(locks, open_tables, &opening, call->insist, &call->failure);
}

/* What the swap has not done, if any. */
void
rk_split_open(RkSplitCall *call)
{
	rk_split_insist(call, release);
	do
		rk_split_insist(call, open_next);
	while (call->more);
}

/* Once somebody has attached it again it is his. */
static void
drop_wide(void *arg)
{
	const RkSplit *split = arg;

	rk_split_drop_triggers(split->wide);
	if (!get_rel_relispartition(split->wide))
		(void) rk_split_drop_table(split->wide);
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
	(void) rk_partition_try(locks, drop_wide, split, call->insist, &call->failure);
}

void
rk_split_finish(RkSplitCall *call)
{
	rk_progress_update(8, 0);
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
