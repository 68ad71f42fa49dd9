/*
 * direct_insert.c
 *
 * Finished heap tuples into a table of ours and its indexes, without the
 * executor: the table is known, its triggers and constraints are nobody's
 * concern, and opening an executor's state would be most of what a single-row
 * transaction pays. Indexes that users added are maintained as well, those
 * with expressions and predicates included.
 */
#include "rowkeeper.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "executor/executor.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define BULK_TUPLES 100			/* from here on a bulk-insert state pays */
#define CHUNK_TUPLES 256		/* handed to one multi-insert */
#define KEPT_DESCRIPTORS 4
#define ASCENDING_KEYS 32		/* so many in a row look like an append */

typedef struct DirectIndex
{
	Relation	rel;
	IndexInfo  *info;
	ExprState  *predicate;		/* NULL: every row is in it */
	bool		by_block;		/* one tuple of a block stands for all */
	AttrNumber	front;			/* its only column, where that is soon found
								 * in a tuple; else 0 */
	bool		may_ascend;		/* a btree on a column passed by value */
	int			ascending;		/* keys in a row that were not below the last */
	int64		last_key;
} DirectIndex;

typedef struct DirectInsert
{
	Relation	table;
	DirectIndex *indexes;
	int			nindexes;
	EState	   *estate;			/* NULL: no index has an expression */
	BulkInsertState bulk;		/* NULL for a few tuples */
	int			options;
	CommandId	command;
} DirectInsert;

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

/* The one column of an index, if nothing before it varies in width; else 0. */
static AttrNumber
find_front(const IndexInfo *info, TupleDesc desc)
{
	AttrNumber	column = info->ii_IndexAttrNumbers[0];

	if (info->ii_NumIndexAttrs != 1 || column <= 0)
		return 0;
	for (int i = 0; i < column - 1; i++)
		if (TupleDescAttr(desc, i)->attlen <= 0)
			return 0;
	return column;
}

/*
 * A btree looks first at the page that it inserted into last, if that is the
 * last leaf, but remembers it by itself only where the tree is high. Where keys
 * ascend, as those of old rows that are deleted in bulk do, that saves the
 * descent in a low tree too. It is a hint: what makes the page the right one is
 * checked by the insert, under its lock. The last block is the last leaf most
 * of the time, as leaves at the end come from splits of the one before.
 */
static void
aim_at_last_leaf(Relation index)
{
	BlockNumber blocks;
	Buffer		buffer;
	Page		page;

	if (RelationGetTargetBlock(index) != InvalidBlockNumber)
		return;
	blocks = RelationGetNumberOfBlocks(index);
	if (blocks < 3)
		return;					/* the meta page and a root */
	buffer = ReadBuffer(index, blocks - 1);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	if (!PageIsNew(page) && PageGetSpecialSize(page) == MAXALIGN(sizeof(BTPageOpaqueData)))
	{
		BTPageOpaque opaque = (BTPageOpaque) PageGetSpecialPointer(page);

		if (P_RIGHTMOST(opaque) && P_ISLEAF(opaque) && !P_ISROOT(opaque) && !P_IGNORE(opaque))
			RelationSetTargetBlock(index, blocks - 1);
	}
	UnlockReleaseBuffer(buffer);
}

static void
note_key(DirectIndex *index, int64 key)
{
	index->ascending = key >= index->last_key ? index->ascending + 1 : 0;
	index->last_key = key;
	if (index->ascending >= ASCENDING_KEYS)
	{
		aim_at_last_leaf(index->rel);
		index->ascending = 0;
	}
}

/* Open the table's indexes, users' own included. */
static void
open_indexes(DirectInsert *insert, AttrNumber constant)
{
	List	   *oids = RelationGetIndexList(insert->table);
	ListCell   *lc;

	insert->nindexes = 0;
	insert->estate = NULL;
	insert->indexes = palloc(Max(1, list_length(oids)) * sizeof(DirectIndex));
	foreach(lc, oids)
	{
		DirectIndex *index = &insert->indexes[insert->nindexes++];

		index->rel = index_open(lfirst_oid(lc), RowExclusiveLock);
		index->info = BuildIndexInfo(index->rel);
		index->by_block = is_by_block(index->info, constant);
		index->front = find_front(index->info, RelationGetDescr(insert->table));
		index->may_ascend = index->front > 0 && index->info->ii_Am == BTREE_AM_OID &&
			TupleDescAttr(RelationGetDescr(insert->table), index->front - 1)->attbyval;
		index->ascending = 0;
		index->last_key = 0;
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
satisfies(DirectInsert *insert, ExprState *predicate, TupleTableSlot *slot)
{
	ExprContext *context = GetPerTupleExprContext(insert->estate);

	context->ecxt_scantuple = slot;
	return ExecQual(predicate, context);
}

static void
insert_into_indexes(DirectInsert *insert, TupleTableSlot *slot, HeapTuple tuple,
					BlockNumber previous_block)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	for (int i = 0; i < insert->nindexes; i++)
	{
		DirectIndex *index = &insert->indexes[i];

		if (!index->info->ii_ReadyForInserts ||
			(index->by_block && ItemPointerGetBlockNumber(&slot->tts_tid) == previous_block) ||
			(index->predicate != NULL && !satisfies(insert, index->predicate, slot)))
			continue;
		if (index->front > 0)
		{
			values[0] = heap_getattr(tuple, index->front, slot->tts_tupleDescriptor, &nulls[0]);
			if (index->may_ascend)
				note_key(index, (int64) values[0]);
		}
		else
		{
			if (insert->estate != NULL)
				GetPerTupleExprContext(insert->estate)->ecxt_scantuple = slot;
			FormIndexDatum(index->info, slot, insert->estate, values, nulls);
		}
		(void) index_insert(index->rel, values, nulls, &slot->tts_tid, insert->table,
							index->info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
							false, index->info);
	}
	if (insert->estate != NULL)
		ResetPerTupleExprContext(insert->estate);
}

static void
begin_insert(DirectInsert *insert, Relation table, AttrNumber constant, int count)
{
	insert->table = table;
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
 * Slots for finished tuples. Those of descriptors that live as long as the
 * session (not reference-counted) are kept, as far as there is room: making
 * them anew would cost more than the rest of a small flush.
 */
typedef struct KeptSlots
{
	TupleDesc	desc;			/* NULL: free */
	int			made;
	TupleTableSlot *slots[CHUNK_TUPLES];
} KeptSlots;

static KeptSlots kept_slots[KEPT_DESCRIPTORS];

/* Where the slots of a descriptor are kept; NULL: nowhere. */
static KeptSlots *
find_kept(TupleDesc desc)
{
	if (desc->tdrefcount >= 0)
		return NULL;
	for (int i = 0; i < KEPT_DESCRIPTORS; i++)
	{
		if (kept_slots[i].desc == NULL)
			kept_slots[i].desc = desc;
		if (kept_slots[i].desc == desc)
			return &kept_slots[i];
	}
	return NULL;
}

static TupleTableSlot **
get_slots(KeptSlots *kept, TupleDesc desc, int count)
{
	TupleTableSlot **slots;

	if (kept != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		while (kept->made < count)
		{
			kept->slots[kept->made] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
			kept->made++;
		}
		MemoryContextSwitchTo(old);
		return kept->slots;
	}
	slots = palloc(count * sizeof(TupleTableSlot *));
	for (int i = 0; i < count; i++)
		slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	return slots;
}

static void
release_slots(const KeptSlots *kept, TupleTableSlot **slots, int count)
{
	if (kept != NULL)
		return;
	for (int i = 0; i < count; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	pfree(slots);
}

/* Insert up to CHUNK_TUPLES. */
static void
insert_tuples(DirectInsert *insert, TupleTableSlot **slots, HeapTuple *tuples, int count)
{
	for (int i = 0; i < count; i++)
		ExecStoreHeapTuple(tuples[i], slots[i], false);
	if (count == 1)
		table_tuple_insert(insert->table, slots[0], insert->command, insert->options, insert->bulk);
	else
		table_multi_insert(insert->table, slots, count, insert->command, insert->options, insert->bulk);

	for (int i = 0; i < count; i++)
	{
		insert_into_indexes(insert, slots[i], tuples[i],
							i == 0 ? InvalidBlockNumber
							: ItemPointerGetBlockNumber(&slots[i - 1]->tts_tid));
		if (i > 0)
			ExecClearTuple(slots[i - 1]);
	}
	ExecClearTuple(slots[count - 1]);
}

static void
end_insert(DirectInsert *insert)
{
	if (insert->bulk != NULL)
	{
		table_finish_bulk_insert(insert->table, insert->options);
		FreeBulkInsertState(insert->bulk);
	}
	for (int i = 0; i < insert->nindexes; i++)
	{
		rk_index_insert_cleanup(insert->indexes[i].rel, insert->indexes[i].info);
		index_close(insert->indexes[i].rel, NoLock);
	}
	pfree(insert->indexes);
	if (insert->estate != NULL)
		FreeExecutorState(insert->estate);
}

static void
insert_all(Relation table, TupleDesc desc, AttrNumber constant, KeptSlots *kept,
		   HeapTuple *tuples, int count)
{
	DirectInsert insert;
	int			nslots = Min(count, CHUNK_TUPLES);
	TupleTableSlot **slots;

	begin_insert(&insert, table, constant, count);
	slots = get_slots(kept, desc, nslots);
	for (int done = 0; done < count; done += CHUNK_TUPLES)
		insert_tuples(&insert, slots, tuples + done, Min(CHUNK_TUPLES, count - done));
	release_slots(kept, slots, nslots);
	end_insert(&insert);
}

/*
 * Insert tuples of one descriptor into a table that the caller has locked ROW
 * EXCLUSIVE and whose columns he has compared with it. constant: the column
 * that has one value in all of them (0: none).
 */
void
rk_direct_insert(Relation table, TupleDesc desc, AttrNumber constant,
				 HeapTuple *tuples, int count)
{
	static int	depth = 0;

	if (count == 0)
		return;

	/*
	 * what an index's expression calls may come here too: slots are in use
	 * then
	 */
	depth++;
	PG_TRY();
	{
		insert_all(table, desc, constant, depth == 1 ? find_kept(desc) : NULL, tuples, count);
	}
	PG_FINALLY();
	{
		depth--;
	}
	PG_END_TRY();
}
