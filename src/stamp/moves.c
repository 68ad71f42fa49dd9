/*
 * moves.c
 *
 * Rows that move between partitions. The server makes an UPDATE that moves a
 * row a DELETE from one partition and an INSERT into another, and fires our
 * trigger for that INSERT as for any other: it must not begin the row's
 * history anew. So an UPDATE that may move its row is remembered, and the
 * next INSERT under the same root, at the same depth of triggers, is the
 * other half of it if the old row says that it has moved. The server marks it
 * so in between; where a trigger prevented the move there is no mark.
 */
#include "stamp/stamp.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

typedef struct ExpectedMove
{
	struct ExpectedMove *next;
	int			depth;			/* of trigger nesting */
	bool		open;			/* not yet completed */
	SubTransactionId subid;
	Oid			root;
	Oid			source;			/* where the row was */
	ItemPointerData before;		/* its old version */
	HeapTuple	after;			/* its new one, in the source's layout */
	AttrNumber	number[RK_STAMP_COUNT]; /* of the stamps in it */
} ExpectedMove;

static ExpectedMove *moves = NULL;	/* one a depth; in TopTransactionContext */

static ExpectedMove *
move_at(int depth)
{
	for (ExpectedMove *move = moves; move != NULL; move = move->next)
		if (move->depth == depth)
			return move;
	return NULL;
}

/* This UPDATE, which has its stamps, may be the first half of a move. */
void
rk_stamp_move_expect(const RkStampPlan *plan, int depth, ItemPointer before, HeapTuple after)
{
	ExpectedMove *move = move_at(depth);
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	if (move == NULL)
	{
		move = palloc0(sizeof(ExpectedMove));
		move->depth = depth;
		move->next = moves;
		moves = move;
	}
	move->open = false;
	if (move->after != NULL)
		heap_freetuple(move->after);
	move->after = NULL;
	move->after = heap_copytuple(after);
	MemoryContextSwitchTo(old);

	move->subid = GetCurrentSubTransactionId();
	move->root = plan->root;
	move->source = plan->relid;
	move->before = *before;
	for (int stamp = 0; stamp < RK_STAMP_COUNT; stamp++)
		move->number[stamp] = plan->column[stamp].number;
	move->open = true;
}

/*
 * Whether this transaction moved the row to another partition. What is left
 * there may be anything: the table may have been truncated since.
 */
static bool
has_moved(Relation rel, ItemPointer where)
{
	Buffer		buffer;
	Page		page;
	ItemId		item;
	bool		moved = false;

	if (rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		return true;			/* cannot be asked */
	if (ItemPointerGetBlockNumber(where) >= RelationGetNumberOfBlocks(rel))
		return false;

	buffer = ReadBuffer(rel, ItemPointerGetBlockNumber(where));
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	if (ItemPointerGetOffsetNumber(where) <= PageGetMaxOffsetNumber(page))
	{
		item = PageGetItemId(page, ItemPointerGetOffsetNumber(where));
		if (ItemIdIsNormal(item))
		{
			HeapTupleHeader header = (HeapTupleHeader) PageGetItem(page, item);

			moved = HeapTupleHeaderIndicatesMovedPartitions(header) &&
				TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(header));
		}
	}
	UnlockReleaseBuffer(buffer);
	return moved;
}

static void
read_stamps(const ExpectedMove *move, Relation source, RkStampValues *values)
{
	for (int stamp = 0; stamp < RK_STAMP_COUNT; stamp++)
		if (move->number[stamp] != 0)
			values->value[stamp] = heap_getattr(move->after, move->number[stamp],
												RelationGetDescr(source),
												&values->isnull[stamp]);
}

/*
 * Whether an INSERT is the second half of a move, and the stamps that the
 * first half gave the row. They stay readable until the next UPDATE.
 */
bool
rk_stamp_move_completes(const RkStampPlan *plan, int depth, RkStampValues *values)
{
	ExpectedMove *move = move_at(depth);
	Relation	source;
	bool		moved = false;

	if (move == NULL || !move->open || move->root != plan->root)
		return false;
	move->open = false;
	if (move->subid != GetCurrentSubTransactionId())
		return false;

	/* locked by the UPDATE, if this is its other half */
	source = try_relation_open(move->source, RowExclusiveLock);
	if (source == NULL)
		return false;
	if (has_moved(source, &move->before))
	{
		read_stamps(move, source, values);
		moved = true;
	}
	relation_close(source, NoLock);
	return moved;
}

static void
end_transaction(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		moves = NULL;			/* the memory goes with the transaction */
}

void
rk_stamp_moves_init(void)
{
	RegisterXactCallback(end_transaction, NULL);
}
