/*
 * changes.c
 *
 * The change batch: rows that AFTER ROW triggers saw change, kept until the
 * end of the statement and then handed to the features that asked for them
 * (audit's log, soft delete's trash) all at once. One row trigger serves all:
 * the server queues 16 bytes an event for each trigger, so a second one would
 * double the memory of a bulk update.
 *
 * The batch is a stack of frames, one for each pair of subtransaction and
 * query nesting level. A flush writes only what belongs to the current
 * subtransaction: what an outer level captured must not be written inside an
 * EXCEPTION block that may still roll back. When a subtransaction commits,
 * its frames join its parent's; when it aborts, they go. The nesting level is
 * pg_trigger_depth(): while a statement's row triggers are fired at depth d,
 * every other statement's are fired deeper.
 *
 * A row that moves between partitions arrives as a DELETE and an INSERT. The
 * DELETE carries the server's mark on its tuple; it is held back, and the
 * next INSERT under the same root at the same level completes it as one
 * UPDATE. What is not completed (a BEFORE INSERT trigger swallowed the row)
 * is a DELETE after all. Logical apply moves rows without a mark: there a
 * DELETE and an INSERT made by one command are one move.
 *
 * Entries must be written in the order in which rows changed, and that is not
 * the order of capture: a statement changes all its rows first, then its row
 * triggers fire, and between two of them a user's trigger may change one of
 * those rows again. So what a nested statement changed is kept until the
 * statement around it ends, and then all is written in the order of command
 * ids. Our row trigger's name sorts before any other for the same reason. Two
 * entries of one row stand in the wrong order in two cases only: a statement
 * that changes a row which the statement around it changed before, from a
 * BEFORE trigger or a function that the outer one calls (nothing tells us
 * then that there is an outer one), and a nested frame that grows very large
 * and is written before its time.
 *
 * Statement triggers flush. Logical apply fires none, so what is left is
 * flushed before commit or PREPARE; a large frame is flushed as it grows.
 */
#include "rowkeeper.h"

#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tupconvert.h"
#include "access/xact.h"
#include "replication/logicalworker.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define FLUSH_ENTRIES 1000
#define FLUSH_BYTES (1024 * 1024)
#define NESTED_FLUSH_BYTES (8 * 1024 * 1024)
#define CPU_LINE 64				/* bytes that a CPU fetches at once */
#define PREFETCH_BYTES 512		/* of a row, at most */

typedef struct Batch
{
	RkEntry    *entries;
	int			count;
	int			size;
} Batch;

struct RkFrame
{
	RkFrame    *next;			/* towards the outermost */
	SubTransactionId subid;
	int			depth;			/* of trigger nesting */
	MemoryContext context;		/* entries; reset at a flush */
	const RkWho *who;			/* NULL: read at the next entry */
	Batch		batches[RK_MAX_CONSUMERS];
	int			count;			/* entries of all batches */
	Size		bytes;
	bool		open;			/* its statement still fires row triggers */
	CommandId	statement;		/* the outermost one, see statement_at() */

	HeapTuple	held_row;		/* first half of a move, or NULL */
	Oid			held_relid;
	Oid			held_root;
	bool		held_marked;
	CommandId	held_command;

	TimestampTz truncate_statement; /* what the two lists are of */
	List	   *truncated;		/* relations that TRUNCATE named */
	List	   *truncated_below;	/* partitions it will still come to */
};

static RkFrame *frames = NULL;	/* innermost first; in TopTransactionContext */

PG_FUNCTION_INFO_V1(rowkeeper_changes_row);
PG_FUNCTION_INFO_V1(rowkeeper_changes_flush);

static void release_held(RkFrame *frame);

/* ---- frames ---- */

static RkFrame *
find_frame(SubTransactionId subid, int depth)
{
	for (RkFrame *frame = frames; frame != NULL; frame = frame->next)
		if (frame->subid == subid && frame->depth == depth)
			return frame;
	return NULL;
}

static RkFrame *
push_frame(SubTransactionId subid, int depth)
{
	RkFrame    *frame = MemoryContextAllocZero(TopTransactionContext, sizeof(RkFrame));

	frame->subid = subid;
	frame->depth = depth;
	frame->context = AllocSetContextCreate(TopTransactionContext, "rowkeeper changes",
										   ALLOCSET_DEFAULT_SIZES);
	frame->next = frames;
	frames = frame;
	return frame;
}

static RkFrame *
frame_at(SubTransactionId subid, int depth)
{
	RkFrame    *frame = find_frame(subid, depth);

	return frame != NULL ? frame : push_frame(subid, depth);
}

static void
empty_frame(RkFrame *frame)
{
	MemoryContextReset(frame->context);
	memset(frame->batches, 0, sizeof(frame->batches));
	frame->count = 0;
	frame->bytes = 0;
	frame->who = NULL;
}

/* Where a consumer allocates the tuple of an entry. */
MemoryContext
rk_frame_context(RkFrame *frame)
{
	return frame->context;
}

/* Who makes the changes of a frame now. */
const RkWho *
rk_frame_who(RkFrame *frame)
{
	if (frame->who == NULL)
		frame->who = rk_who_current();
	return frame->who;
}

/* Append an entry, whose tuple must be in the frame's context. */
static void
append_entry(RkFrame *frame, int consumer, RkEntry entry)
{
	Batch	   *batch = &frame->batches[consumer];

	if (batch->count == batch->size)
	{
		batch->size = batch->size == 0 ? 8 : batch->size * 2;
		batch->entries = batch->entries == NULL
			? MemoryContextAlloc(frame->context, batch->size * sizeof(RkEntry))
			: repalloc(batch->entries, batch->size * sizeof(RkEntry));
	}
	batch->entries[batch->count++] = entry;
	frame->count++;
	frame->bytes += entry.tuple->t_len;
}

/*
 * Append what is to be written of a change, for the consumer that captures
 * it; the tuple must be in rk_frame_context().
 */
void
rk_frame_append(RkFrame *frame, const RkChange *change, int consumer,
				HeapTuple tuple, const void *tag)
{
	RkEntry		entry = {
		.tuple = tuple,.tag = tag,.who = rk_frame_who(frame),
		.command = change->command,.statement = frame->statement
	};

	append_entry(frame, consumer, entry);
}

/* ---- flush ---- */

static int
compare_commands(const void *a, const void *b)
{
	const RkEntry *left = a;
	const RkEntry *right = b;

	if (left->command != right->command)
		return left->command < right->command ? -1 : 1;
	return left->position < right->position ? -1 : 1;
}

static bool
belongs_to(const RkFrame *frame, SubTransactionId subid, int depth)
{
	return frame->subid == subid && frame->depth >= depth;
}

/* The entries of several frames for one consumer, in the order of their commands. */
static RkEntry *
collect_entries(int consumer, SubTransactionId subid, int depth, int *count)
{
	RkEntry    *entries;
	int			total = 0;

	for (RkFrame *frame = frames; frame != NULL; frame = frame->next)
		if (belongs_to(frame, subid, depth))
			total += frame->batches[consumer].count;
	*count = total;
	if (total == 0)
		return NULL;

	entries = palloc(total * sizeof(RkEntry));
	for (RkFrame *frame = frames; frame != NULL; frame = frame->next)
		if (belongs_to(frame, subid, depth))
		{
			Batch	   *batch = &frame->batches[consumer];

			/* the list is innermost first: fill from the end */
			total -= batch->count;
			memcpy(entries + total, batch->entries, batch->count * sizeof(RkEntry));
		}
	for (int i = 0; i < *count; i++)
		entries[i].position = i;
	qsort(entries, *count, sizeof(RkEntry), compare_commands);
	return entries;
}

static void
flush_frame(RkFrame *frame)
{
	for (int i = 0; i < RK_MAX_CONSUMERS; i++)
		if (frame->batches[i].count > 0)
			rk_consumer(i)->flush(frame->batches[i].entries, frame->batches[i].count);
	empty_frame(frame);
}

/* Several frames at once, because what they hold must be put in order. */
static void
flush_merged(SubTransactionId subid, int depth)
{
	for (int i = 0; i < RK_MAX_CONSUMERS; i++)
	{
		int			count;
		RkEntry    *entries = collect_entries(i, subid, depth, &count);

		if (count > 0)
		{
			rk_consumer(i)->flush(entries, count);
			pfree(entries);
		}
	}
	for (RkFrame *frame = frames; frame != NULL; frame = frame->next)
		if (belongs_to(frame, subid, depth))
			empty_frame(frame);
}

static bool
is_anything_left(SubTransactionId subid, int depth)
{
	for (RkFrame *frame = frames; frame != NULL; frame = frame->next)
		if (belongs_to(frame, subid, depth) &&
			(frame->count > 0 || frame->held_row != NULL || frame->open))
			return true;
	return false;
}

/*
 * Write what a subtransaction, which must be the current one, holds at a
 * nesting depth and below.
 */
static void
flush_frames(SubTransactionId subid, int depth)
{
	RkFrame    *filled = NULL;
	int			filled_count = 0;
	bool		pushed = false;

	if (!is_anything_left(subid, depth))
		return;

	/* before commit there is no snapshot, which TOAST needs */
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	for (RkFrame *frame = frames; frame != NULL; frame = frame->next)
		if (belongs_to(frame, subid, depth))
		{
			release_held(frame);
			frame->open = false;
			if (frame->count > 0)
			{
				filled = frame;
				filled_count++;
			}
		}
	if (filled_count == 1)
		flush_frame(filled);
	else
		flush_merged(subid, depth);
	if (pushed)
		PopActiveSnapshot();
}

/* Whether a statement around this depth still fires its row triggers. */
static bool
inside_open_statement(int depth)
{
	for (RkFrame *frame = frames; frame != NULL; frame = frame->next)
		if (frame->open && frame->depth < depth)
			return true;
	return false;
}

/*
 * A number for the outermost statement whose row triggers are fired around
 * this depth, the same for all that it does, cascades included: the command
 * id of its snapshot. Two parts of one WITH have it in common, two statements
 * of one transaction never, as each that changed something moves it on. All
 * that logical apply does in a transaction is one statement.
 */
static CommandId
statement_at(int depth)
{
	RkFrame    *outermost = NULL;

	for (RkFrame *frame = frames; frame != NULL; frame = frame->next)
		if (frame->open && frame->depth < depth &&
			(outermost == NULL || frame->depth < outermost->depth))
			outermost = frame;
	if (outermost != NULL)
		return outermost->statement;
	return ActiveSnapshotSet() ? GetActiveSnapshot()->curcid : GetCurrentCommandId(false);
}

/* Write a frame that has grown large, ahead of its statement's end. */
static void
flush_if_large(RkFrame *frame)
{
	bool		large = frame->count >= FLUSH_ENTRIES || frame->bytes >= FLUSH_BYTES;

	if (large && inside_open_statement(frame->depth))
		large = frame->bytes >= NESTED_FLUSH_BYTES;
	if (large)
		flush_frame(frame);

	/* what committed subtransactions left deeper down has no other limit */
	for (RkFrame *inner = frames; inner != NULL; inner = inner->next)
		if (inner != frame && belongs_to(inner, frame->subid, frame->depth) &&
			inner->bytes >= NESTED_FLUSH_BYTES)
		{
			flush_merged(frame->subid, frame->depth);
			break;
		}
}

/* ---- one change ---- */

static void
capture_change(RkFrame *frame, RkChange *change)
{
	RkRelationInfo *info = change->info;

	rk_meaning_apply(change);
	for (int i = 0; i < RK_MAX_CONSUMERS; i++)
	{
		void	   *prepared = info->consumer[i];

		if (prepared == NULL)
			continue;
		info->pins++;
		rk_consumer(i)->capture(frame, prepared, change);
		/* an error leaves the pin: the cost is memory until the session ends */
		if (info->pins > 0)
			info->pins--;
	}
}

static void
forget_held(RkFrame *frame)
{
	heap_freetuple(frame->held_row);
	frame->held_row = NULL;
}

/* A held DELETE was not completed: it is one. */
static void
release_held(RkFrame *frame)
{
	RkChange	change = {
		.kind = RK_DELETE,.old_row = frame->held_row,.command = frame->held_command
	};

	if (frame->held_row == NULL)
		return;
	change.rel = table_open(frame->held_relid, NoLock); /* locked by the DELETE */
	change.info = rk_relation_info_get(change.rel);
	capture_change(frame, &change);
	table_close(change.rel, NoLock);
	forget_held(frame);
}

/*
 * The held row outlives a flush of its frame, so it is not in the frame's
 * context; forget_held() frees it.
 */
static void
hold_delete(RkFrame *frame, const RkChange *change, bool marked)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	frame->held_row = HeapTupleHasExternal(change->old_row)
		? toast_flatten_tuple(change->old_row, RelationGetDescr(change->rel))
		: heap_copytuple(change->old_row);
	frame->held_relid = RelationGetRelid(change->rel);
	frame->held_root = change->info->root;
	frame->held_marked = marked;
	frame->held_command = change->command;
	MemoryContextSwitchTo(old);
}

/*
 * Whether this INSERT is the second half of the held move. One into the
 * partition that the row came from is not: where a trigger swallowed the row,
 * the next INSERT of the same MERGE or WITH may be any other row. (Where that
 * one goes to a third partition, the two are taken for one move; nothing tells
 * them apart.)
 */
static bool
completes_held(RkFrame *frame, const RkChange *insert)
{
	return frame->held_row != NULL &&
		frame->held_root == insert->info->root &&
		frame->held_relid != RelationGetRelid(insert->rel) &&
		(frame->held_marked || frame->held_command == insert->command);
}

/* The held row in the layout of the partition it moved to. */
static HeapTuple
held_row_for(RkFrame *frame, Relation target)
{
	Relation	source = table_open(frame->held_relid, NoLock);
	HeapTuple	row = frame->held_row;
	TupleConversionMap *map = convert_tuples_by_name(RelationGetDescr(source),
													 RelationGetDescr(target));

	if (map != NULL)
	{
		row = execute_attr_map_tuple(row, map);
		free_conversion_map(map);
	}
	table_close(source, NoLock);
	return row;
}

static void
take_change(RkFrame *frame, RkChange *change)
{
	switch (change->kind)
	{
		case RK_DELETE:
			{
				bool		marked = HeapTupleHeaderIndicatesMovedPartitions(change->old_row->t_data);

				release_held(frame);
				if (marked ||
					(IsLogicalWorker() && change->rel->rd_rel->relispartition))
				{
					hold_delete(frame, change, marked);
					return;
				}
				break;
			}
		case RK_INSERT:
			if (completes_held(frame, change))
			{
				change->kind = RK_UPDATE;
				change->old_row = held_row_for(frame, change->rel);
				capture_change(frame, change);
				forget_held(frame);
				return;
			}
			release_held(frame);
			break;
		default:
			release_held(frame);
	}
	capture_change(frame, change);
}

/* ---- triggers ---- */

static TriggerData *
check_trigger_call(FunctionCallInfo fcinfo, const char *name)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", name)));
	return (TriggerData *) fcinfo->context;
}

/*
 * Have the CPU fetch the row that most likely comes next. Row triggers fire
 * when their statement has changed all of its rows, and many rows are out of
 * the CPU's caches by then: waiting for their memory was a tenth of the
 * trigger's time. A page is filled from its end, so what was stored after a
 * row lies right below it. Where it does not, the hint does no harm: prefetching
 * any address is allowed. Inlined, as compilers leave out a call that only
 * prefetches.
 */
static pg_attribute_always_inline void
prefetch_next_row(HeapTuple row)
{
#ifdef __GNUC__
	const char *start = (const char *) row->t_data;
	Size		length = Min(row->t_len, PREFETCH_BYTES);

	for (Size below = CPU_LINE; below < length + CPU_LINE; below += CPU_LINE)
		__builtin_prefetch(start - below);
#endif
}

/*
 * rowkeeper._changes_row() is the AFTER ROW trigger "rowkeeper_changes". Its
 * arguments are pairs of a consumer's name and its options as JSON. Takes no
 * lock beyond those of the statement; may be called by the trigger manager
 * only. Raises whatever keeps a change from being recorded: a change is never
 * let through unrecorded.
 */
Datum
rowkeeper_changes_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = check_trigger_call(fcinfo, "_changes_row");
	RkFrame    *frame = frame_at(GetCurrentSubTransactionId(),
								 DatumGetInt32(pg_trigger_depth(fcinfo)));
	RkChange	change = {.rel = trigger->tg_relation,.statement = fcinfo->flinfo->fn_mcxt};

	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired AFTER ROW", "_changes_row")));

	prefetch_next_row(trigger->tg_trigtuple);
	if (trigger->tg_newtuple != NULL)
		prefetch_next_row(trigger->tg_newtuple);
	change.info = rk_relation_info_get(change.rel);
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		change.kind = RK_INSERT;
		change.new_row = trigger->tg_trigtuple;
		/* COPY FREEZE leaves nothing of the transaction but its command */
		change.command = HeapTupleHeaderXminFrozen(change.new_row->t_data)
			? HeapTupleHeaderGetRawCommandId(change.new_row->t_data)
			: HeapTupleHeaderGetCmin(change.new_row->t_data);
	}
	else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		change.kind = RK_UPDATE;
		change.old_row = trigger->tg_trigtuple;
		change.new_row = trigger->tg_newtuple;
		change.command = HeapTupleHeaderGetCmin(change.new_row->t_data);
	}
	else
	{
		change.kind = RK_DELETE;
		change.old_row = trigger->tg_trigtuple;
		change.command = HeapTupleHeaderGetCmax(change.old_row->t_data);
	}
	if (!frame->open)
	{
		frame->statement = statement_at(frame->depth);
		frame->open = true;
	}
	take_change(frame, &change);
	flush_if_large(frame);
	PG_RETURN_POINTER(NULL);
}

/*
 * TRUNCATE of a partitioned table fires its trigger and then that of
 * everything below it that was not named before it: one change, of what was
 * named. So the partitions below are remembered, and each is passed over
 * once. (A function that truncates a partition and then its parent has the
 * partition named twice: rather one entry too many.)
 */
static void
take_truncate(RkFrame *frame, RkChange *change)
{
	Oid			relid = RelationGetRelid(change->rel);
	TimestampTz statement = GetCurrentStatementStartTimestamp();
	MemoryContext old;

	if (frame->truncate_statement != statement)
	{
		frame->truncate_statement = statement;
		frame->truncated = NIL;
		frame->truncated_below = NIL;
	}
	if (list_member_oid(frame->truncated_below, relid))
	{
		frame->truncated_below = list_delete_oid(frame->truncated_below, relid);
		return;
	}
	capture_change(frame, change);

	old = MemoryContextSwitchTo(TopTransactionContext);
	frame->truncated = lappend_oid(frame->truncated, relid);
	if (change->rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		frame->truncated_below =
			list_concat(frame->truncated_below,
						list_difference_oid(rk_relation_tree(relid, NoLock), frame->truncated));
	MemoryContextSwitchTo(old);
}

/*
 * rowkeeper._changes_flush() is the AFTER STATEMENT trigger
 * "rowkeeper_changes_flush" of the root and of every partition (the server
 * clones row triggers only): writes what the statement changed, and records a
 * TRUNCATE. Locks: ROW EXCLUSIVE on what the consumers write to.
 */
Datum
rowkeeper_changes_flush(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = check_trigger_call(fcinfo, "_changes_flush");
	SubTransactionId subid = GetCurrentSubTransactionId();
	int			depth = DatumGetInt32(pg_trigger_depth(fcinfo));
	RkFrame    *frame;

	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		RkChange	change = {
			.kind = RK_TRUNCATE,.rel = trigger->tg_relation,
			.command = GetCurrentCommandId(false)
		};

		change.info = rk_relation_info_get(change.rel);
		take_truncate(frame_at(subid, depth), &change);
	}

	frame = find_frame(subid, depth);
	if (frame != NULL)
	{
		frame->open = false;
		frame->who = NULL;		/* the next statement's may be another */
	}
	if (!inside_open_statement(depth))
		flush_frames(subid, depth);
	PG_RETURN_POINTER(NULL);
}

/* ---- transactions ---- */

static void
end_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			flush_frames(TopSubTransactionId, 0);
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			frames = NULL;		/* the memory goes with the transaction */
			break;
		default:
			break;
	}
}

/* Append the entries of a committed subtransaction's frame to its parent's. */
static void
splice_frame(RkFrame *parent, RkFrame *child)
{
	MemoryContext old = MemoryContextSwitchTo(parent->context);

	for (int i = 0; i < RK_MAX_CONSUMERS; i++)
		for (int j = 0; j < child->batches[i].count; j++)
		{
			RkEntry		entry = child->batches[i].entries[j];

			/* a context of its own for each would cost 8 kB a subtransaction */
			entry.tuple = heap_copytuple(entry.tuple);
			append_entry(parent, i, entry);
		}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(child->context);
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId subid,
				   SubTransactionId parent, void *arg)
{
	RkFrame   **link = &frames;

	if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
	{
		for (RkFrame *frame = frames; frame != NULL; frame = frame->next)
			if (frame->subid == subid)
				release_held(frame);
		return;
	}
	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;

	while (*link != NULL)
	{
		RkFrame    *frame = *link;
		RkFrame    *outer;

		if (frame->subid != subid)
		{
			link = &frame->next;
			continue;
		}
		if (event == SUBXACT_EVENT_ABORT_SUB)
		{
			*link = frame->next;
			MemoryContextDelete(frame->context);
		}
		else if ((outer = find_frame(parent, frame->depth)) == NULL)
		{
			frame->subid = parent;
			frame->who = NULL;
			link = &frame->next;
		}
		else
		{
			*link = frame->next;
			outer->who = NULL;
			splice_frame(outer, frame);
		}
	}
}

void
rk_changes_init(void)
{
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
}
