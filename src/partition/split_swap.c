/*
 * split_swap.c
 *
 * The end of a split. The copy takes the wide partition's place, in one
 * transaction; nobody's snapshot misses a row there (split_copy.c). What was
 * looked at before is looked at again once the locks are had: nothing may have
 * come in between.
 *
 * Who may read or write the table may do so to the copy itself some time later: until
 * then it has none of the table's rights. Whoever reads and writes through the table
 * needs none there.
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
#include "access/xloginsert.h"
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

#define FEW_TABLES 64			/* whose CHECK the swap itself drops: 5 ms */
#define TABLES_AT_ONCE 16
#define OPEN_MS 20				/* then others have their turn */

/* ---- the swap ---- */

typedef struct Swap
{
	RkSplitCall *call;
	const RkSplit *split;
	List	   *tree;			/* of the copy */
	bool		by_index;		/* rows are identified, for replicas */
	char	   *lower;
	char	   *upper;
} Swap;

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

static bool
is_identified_by_index(Oid root)
{
	return rk_exists_about(rk_extension_owner(), root, "SELECT 1 FROM pg_class WHERE oid = $1 AND relreplident = 'i'");
}

/* Which of its indexes is the table's a partition knows only now. */
static void
identify_by_index(const RkSplit *split, List *tables)
{
	ListCell   *lc;

	foreach(lc, tables)
		rk_partition_dress(get_partition_parent(lfirst_oid(lc), true), lfirst_oid(lc), split->owner, RK_DRESS_CLOSED);
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
	if (swap->by_index)
		identify_by_index(split, swap->tree);
	if (list_length(swap->tree) <= FEW_TABLES)
		rk_split_drop_constraint(split);
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

/*
 * On a standby, too, nobody may have a snapshot any more from before the last row
 * was copied: after the swap he would find the table empty. He is cancelled as for a
 * VACUUM.
 */
static void
end_snapshots_of_standbys(const RkSplit *split)
{
	xl_btree_reuse_page record;
	Relation	rel;

	if (!XLogStandbyInfoActive())
		return;
	rel = table_open(split->wide, AccessShareLock);
	record = rk_conflict_record(rel, FullTransactionIdFromU64((uint64) split->copied_at));
	table_close(rel, NoLock);
	XLogBeginInsert();
	XLogRegisterData((char *) &record, SizeOfBtreeReusePage);
	(void) XLogInsert(RM_BTREE_ID, XLOG_BTREE_REUSE_PAGE);
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
	swap.by_index = is_identified_by_index(split->root);
	if (swap.by_index)
		rk_partition_dress_prepare(split->root);
	/* nobody waits for us while we wait for them */
	call->failure = rk_attempt(look_for_readers, &split->wide);
	if (call->failure != NULL && call->failure->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(call->failure);
	if (call->failure != NULL)
		return;
	if (call->attempts++ == 0)
		end_snapshots_of_standbys(split);
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
 * swap where there are many partitions: nobody is to wait for both at once. Where
 * there are few the swap drops it: with somebody who always reads the table, locks
 * on all of them are had rarely.
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

typedef struct Opening
{
	RkSplitCall *call;
	Oid			owner;
	RkDress		dress;
	Oid			relid;
	int			done;
} Opening;

static void
open_table(void *arg)
{
	const Opening *opening = arg;

	/* it may be dropped, or somebody's own, by now */
	if (get_rel_relispartition(opening->relid))
		rk_partition_dress(get_partition_parent(opening->relid, true), opening->relid, opening->owner, opening->dress);
}

/* That harms nobody: not worth to fail for. */
static void
leave_closed(RkSplitCall *call, const ErrorData *error)
{
	if (call->left_closed == NULL)
		call->left_closed = MemoryContextStrdup(call->context, error->message);
}

static void
try_to_open(Opening *opening)
{
	ErrorData  *error = rk_attempt(open_table, opening);

	if (error != NULL && rk_partition_is_for_lock(error))
		ReThrowError(error);
	if (error != NULL)
		leave_closed(opening->call, error);
}

static bool
is_closed(Oid relid)
{
	return get_rel_relispartition(relid) && !rk_partition_is_dressed(get_partition_parent(relid, true), relid);
}

/* The table itself before its partitions, which are compared with it. */
static void
list_new(RkSplitCall *call)
{
	RkSplit    *split = rk_split_current(call->root);
	MemoryContext old = MemoryContextSwitchTo(call->context);

	call->closed = OidIsValid(split->history) ? rk_relation_tree(split->history, NoLock) : NIL;
	MemoryContextSwitchTo(old);
}

static int
count_next(const RkSplitCall *call)
{
	return Min(TABLES_AT_ONCE, list_length(call->closed));
}

/* Row security that the table has only since the swap does not protect it yet. */
static bool
is_protected(Oid relid)
{
	return rk_split_has_row_security(relid) || !rk_split_has_row_security(get_partition_parent(relid, true));
}

/* What fails here is said by open_next(). */
static void
give_rights(RkSplitCall *call)
{
	Opening		opening = {.call = call,.owner = rk_split_current(call->root)->owner,.dress = RK_DRESS_GRANTS};

	for (int i = 0; i < count_next(call); i++)
	{
		opening.relid = list_nth_oid(call->closed, i);
		if (is_protected(opening.relid))
			(void) rk_attempt(open_table, &opening);
	}
}

/* As many of the next as there is time for. */
static void
open_tables(void *arg)
{
	Opening    *opening = arg;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), OPEN_MS);

	for (opening->done = 0; opening->done < count_next(opening->call); opening->done++)
	{
		if (opening->done > 0 && GetCurrentTimestamp() >= deadline)
			return;
		opening->relid = list_nth_oid(opening->call->closed, opening->done);
		try_to_open(opening);
	}
}

static void
lock_and_open(void *arg)
{
	Opening    *opening = arg;
	RkSplitCall *call = opening->call;
	RkLockRequest locks[TABLES_AT_ONCE + 1] = {{InvalidOid, NoLock}};
	int			count = 0;
	bool		any = false;

	for (int i = 0; i < count_next(call); i++)
	{
		Oid			relid = list_nth_oid(call->closed, i);

		/* all or none: once one is open, those below differ from it */
		any |= is_closed(relid);
		if (get_rel_relispartition(relid))
			rk_partition_add_lock(locks, &count, relid, AccessExclusiveLock);
	}
	if (any)
		(void) rk_partition_try_for(RK_LONGEST_SWAP_MS, locks, open_tables, opening, call->insist, &call->failure);
	else
		opening->done = count_next(call);
}

static void
open_next(RkSplitCall *call)
{
	Opening		opening = {.call = call,.owner = rk_split_current(call->root)->owner,.dress = RK_DRESS_ALL};
	ErrorData  *error = rk_attempt(lock_and_open, &opening);

	if (call->failure != NULL)
		return;
	/* what takes that long, or cannot be locked, is no better with the others */
	if (error != NULL)
	{
		opening.done = list_length(call->closed);
		leave_closed(call, error);
	}
	call->closed = list_delete_first_n(call->closed, opening.done);
}

static void
say_left_closed(const RkSplitCall *call)
{
	if (call->left_closed != NULL)
		ereport(WARNING,
				(errmsg("the new partitions of %s have not all of its rights and policies: %s",
						rk_relation_name(call->root), call->left_closed),
				 errhint("Who reads and writes the table needs none of them there. rowkeeper.doctor() has the statements for row security and policies.")));
}

/*
 * The new tables get the table's rights, row security and policies. Rights come
 * first, which takes no locks: where there is row security, the policy that lets
 * nobody see anything is there still. What takes locks is done to some at a time.
 */
void
rk_split_open(RkSplitCall *call)
{
	rk_split_insist(call, release);
	rk_split_commit(call, list_new);
	while (call->closed != NIL)
	{
		rk_split_commit(call, give_rights);
		rk_split_insist(call, open_next);
	}
}

/* The same in the caller's transaction, who waits for the locks himself. */
void
rk_split_open_at_once(const RkSplit *split)
{
	RkSplitCall call = {.root = split->root,.context = CurrentMemoryContext};
	Opening		opening = {.call = &call,.owner = split->owner,.dress = RK_DRESS_ALL};
	ListCell   *lc;

	rk_split_drop_constraint(split);
	list_new(&call);
	foreach(lc, call.closed)
	{
		opening.relid = lfirst_oid(lc);
		try_to_open(&opening);
	}
	say_left_closed(&call);
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
	say_left_closed(call);
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
