/*
 * leaf_insert.c
 *
 * Finished heap tuples into one leaf of the log and its indexes, without the
 * executor: the leaf is known, has no triggers and no constraints beyond its
 * bounds, and opening an executor's state would be most of what a single-row
 * transaction pays. Indexes that users added are maintained as well, those
 * with expressions and predicates included.
 */
#include "audit/audit.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "executor/executor.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define BULK_TUPLES 100			/* from here on a bulk-insert state pays */
#define CHUNK_TUPLES 256		/* handed to one multi-insert */
#define MAX_LEAF_INDEXES 16

typedef struct LeafIndex
{
	Relation	rel;
	IndexInfo  *info;
	ExprState  *predicate;		/* NULL: every row is in it */
	bool		by_block;		/* one tuple of a block stands for all */
} LeafIndex;

typedef struct LeafInsert
{
	Relation	leaf;
	LeafIndex	indexes[MAX_LEAF_INDEXES];
	int			nindexes;
	EState	   *estate;			/* NULL: no index has an expression */
	BulkInsertState bulk;		/* NULL for a few tuples */
	int			options;
	CommandId	command;
} LeafInsert;

/*
 * For a block-range index on the column whose value all tuples share, and on
 * nothing else, the first tuple of each block says what the others would.
 */
static bool
is_by_block(const IndexInfo *info, AttrNumber constant)
{
	return info->ii_Am == BRIN_AM_OID &&
		info->ii_NumIndexAttrs == 1 &&
		info->ii_IndexAttrNumbers[0] == constant;
}

/* Open the leaf's indexes, users' own included. */
static void
open_indexes(LeafInsert *insert, AttrNumber constant)
{
	List	   *oids = RelationGetIndexList(insert->leaf);
	ListCell   *lc;

	insert->nindexes = 0;
	insert->estate = NULL;
	if (list_length(oids) > MAX_LEAF_INDEXES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("partition \"%s\" of the audit log has more than %d indexes",
						RelationGetRelationName(insert->leaf), MAX_LEAF_INDEXES)));
	foreach(lc, oids)
	{
		LeafIndex  *index = &insert->indexes[insert->nindexes++];

		index->rel = index_open(lfirst_oid(lc), RowExclusiveLock);
		index->info = BuildIndexInfo(index->rel);
		index->by_block = is_by_block(index->info, constant);
		index->predicate = NULL;
		if ((index->info->ii_Predicate != NIL || index->info->ii_Expressions != NIL) &&
			insert->estate == NULL)
			insert->estate = CreateExecutorState();
		if (index->info->ii_Predicate != NIL)
			index->predicate = ExecPrepareQual(index->info->ii_Predicate, insert->estate);
	}
	list_free(oids);
}

static bool
satisfies(LeafInsert *insert, ExprState *predicate, TupleTableSlot *slot)
{
	ExprContext *context = GetPerTupleExprContext(insert->estate);

	context->ecxt_scantuple = slot;
	return ExecQual(predicate, context);
}

static void
insert_into_indexes(LeafInsert *insert, TupleTableSlot *slot, BlockNumber previous_block)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	for (int i = 0; i < insert->nindexes; i++)
	{
		LeafIndex  *index = &insert->indexes[i];

		if (!index->info->ii_ReadyForInserts ||
			(index->by_block && ItemPointerGetBlockNumber(&slot->tts_tid) == previous_block) ||
			(index->predicate != NULL && !satisfies(insert, index->predicate, slot)))
			continue;
		if (insert->estate != NULL)
			GetPerTupleExprContext(insert->estate)->ecxt_scantuple = slot;
		FormIndexDatum(index->info, slot, insert->estate, values, nulls);
		(void) index_insert(index->rel, values, nulls, &slot->tts_tid, insert->leaf,
							index->info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
							false, index->info);
	}
	if (insert->estate != NULL)
		ResetPerTupleExprContext(insert->estate);
}

static void
begin_insert(LeafInsert *insert, Relation leaf, AttrNumber constant, int count)
{
	insert->leaf = leaf;
	insert->command = GetCurrentCommandId(true);
	open_indexes(insert, constant);
	if (count >= BULK_TUPLES)
	{
		/* Append: not into the remnants that older pages have left over. */
		insert->bulk = GetBulkInsertState();
		insert->options = TABLE_INSERT_SKIP_FSM;
	}
	else
	{
		insert->bulk = NULL;
		insert->options = 0;
	}
}

/*
 * Slots for finished tuples, kept for the session: making them anew would
 * cost more than the rest of a small flush. They are of the one descriptor
 * that log tuples have, which lives as long and is not reference-counted.
 */
static TupleTableSlot **
get_slots(TupleDesc desc, int count)
{
	static TupleTableSlot *slots[CHUNK_TUPLES];
	static int	made = 0;

	if (made < count)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		while (made < count)
			slots[made++] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
		MemoryContextSwitchTo(old);
	}
	return slots;
}

/* Insert up to CHUNK_TUPLES. */
static void
insert_tuples(LeafInsert *insert, TupleDesc desc, HeapTuple *tuples, int count)
{
	TupleTableSlot **slots = get_slots(desc, count);

	for (int i = 0; i < count; i++)
		ExecStoreHeapTuple(tuples[i], slots[i], false);
	if (count == 1)
		table_tuple_insert(insert->leaf, slots[0], insert->command, insert->options, insert->bulk);
	else
		table_multi_insert(insert->leaf, slots, count, insert->command, insert->options, insert->bulk);

	for (int i = 0; i < count; i++)
	{
		insert_into_indexes(insert, slots[i],
							i == 0 ? InvalidBlockNumber
							: ItemPointerGetBlockNumber(&slots[i - 1]->tts_tid));
		if (i > 0)
			ExecClearTuple(slots[i - 1]);
	}
	ExecClearTuple(slots[count - 1]);
}

static void
end_insert(LeafInsert *insert)
{
	if (insert->bulk != NULL)
	{
		table_finish_bulk_insert(insert->leaf, insert->options);
		FreeBulkInsertState(insert->bulk);
	}
	for (int i = 0; i < insert->nindexes; i++)
	{
		rk_index_insert_cleanup(insert->indexes[i].rel, insert->indexes[i].info);
		index_close(insert->indexes[i].rel, NoLock);
	}
	if (insert->estate != NULL)
		FreeExecutorState(insert->estate);
}

/*
 * Insert tuples of one descriptor, always the same in a session, into a leaf
 * that the caller has locked ROW EXCLUSIVE. constant: the column that has one
 * value in all of them.
 */
void
rk_audit_leaf_insert(Relation leaf, TupleDesc desc, AttrNumber constant,
					 HeapTuple *tuples, int count)
{
	LeafInsert	insert;

	if (RelationGetNumberOfAttributes(leaf) != desc->natts)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("partition \"%s\" of the audit log has other columns than the log",
						RelationGetRelationName(leaf))));
	begin_insert(&insert, leaf, constant, count);
	for (int done = 0; done < count; done += CHUNK_TUPLES)
		insert_tuples(&insert, desc, tuples + done, Min(CHUNK_TUPLES, count - done));
	end_insert(&insert);
}
