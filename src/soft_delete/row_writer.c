/*
 * row_writer.c
 *
 * Rows of one relation found, locked and updated at heap level, without a
 * statement for each: what an UPDATE of a few columns does, the table's own
 * triggers, constraints and indexes included, minus parsing, planning and an
 * executor start. A writer lives as long as the memory context in which it
 * was opened: that of the statement in whose trigger it is used. When the
 * context goes, the writer lets go of its relation, its indexes and its
 * buffers by itself; in an abort the server has done that before.
 *
 * Row events that it queues are fired at the end of the statement around it.
 */
#include "soft_delete/soft_delete.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

struct RkRowWriter
{
	Relation	rel;
	EState	   *estate;			/* everything is in its context */
	ResultRelInfo *target;
	EPQState	epq;
	ResourceOwner owner;
	MemoryContextCallback callback;

	TupleTableSlot *found;
	TupleTableSlot *changed;
	int			ncolumns;
	AttrNumber *columns;

	Relation	index;			/* primary key; opened with the first search */
	IndexScanDesc scan;
	MemoryContext scan_context;
	ScanKeyData keys[INDEX_MAX_KEYS];
};

/* ---- opening and closing ---- */

static void
close_writer(void *arg)
{
	RkRowWriter *writer = arg;
	ResourceOwner current = CurrentResourceOwner;

	if (!IsTransactionState())
		return;					/* aborting: all is released already */
	CurrentResourceOwner = writer->owner;
	ExecResetTupleTable(writer->estate->es_tupleTable, false);
	if (writer->scan != NULL)
	{
		index_endscan(writer->scan);
		MemoryContextDelete(writer->scan_context);
	}
	if (writer->index != NULL)
		index_close(writer->index, NoLock);
	ExecCloseIndices(writer->target);
	table_close(writer->rel, NoLock);
	CurrentResourceOwner = current;
}

static bool
is_left_out(const Trigger *trigger, RkRowTriggers triggers)
{
	switch (triggers)
	{
		case RK_TRIGGERS_ALL:
			return false;
		case RK_TRIGGERS_NOT_OURS:
			return strcmp(trigger->tgname, RK_SOFT_DELETE_TRIGGER) == 0;
		case RK_TRIGGERS_NONE:
			return true;
	}
	return false;
}

/*
 * Switch triggers off in the writer's own copy of what the relation has. An
 * event that no trigger waits for is not even looked at.
 */
static void
leave_out_triggers(TriggerDesc *description, RkRowTriggers triggers)
{
	bool		before = false;
	bool		after = false;

	if (description == NULL)
		return;
	for (int i = 0; i < description->numtriggers; i++)
	{
		Trigger    *trigger = &description->triggers[i];

		if (is_left_out(trigger, triggers))
			trigger->tgenabled = TRIGGER_DISABLED;
		else if (TRIGGER_FOR_UPDATE(trigger->tgtype) && TRIGGER_FOR_ROW(trigger->tgtype))
		{
			before |= TRIGGER_FOR_BEFORE(trigger->tgtype);
			after |= TRIGGER_FOR_AFTER(trigger->tgtype);
		}
	}
	description->trig_update_before_row &= before;
	description->trig_update_after_row &= after;
}

/*
 * Open a writer of these columns of a relation that holds rows, in
 * CurrentMemoryContext. Locks the relation ROW EXCLUSIVE until the
 * transaction ends, as UPDATE does.
 */
RkRowWriter *
rk_row_writer_open(Oid relid, const AttrNumber *columns, int count, RkRowTriggers triggers)
{
	EState	   *estate = CreateExecutorState();
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	RkRowWriter *writer = palloc0(sizeof(RkRowWriter));
	Bitmapset  *updated = NULL;

	writer->estate = estate;
	writer->owner = CurrentResourceOwner;
	writer->rel = table_open(relid, RowExclusiveLock);
	writer->ncolumns = count;
	writer->columns = palloc(count * sizeof(AttrNumber));
	for (int i = 0; i < count; i++)
	{
		writer->columns[i] = columns[i];
		updated = bms_add_member(updated, columns[i] - FirstLowInvalidHeapAttributeNumber);
	}

	rk_init_range_table(estate, writer->rel, updated);
	writer->target = makeNode(ResultRelInfo);
	InitResultRelInfo(writer->target, writer->rel, 1, NULL, 0);
	leave_out_triggers(writer->target->ri_TrigDesc, triggers);
	ExecOpenIndices(writer->target, false);
	estate->es_opened_result_relations =
		lappend(estate->es_opened_result_relations, writer->target);
	rk_epq_init(&writer->epq, estate);
	writer->found = ExecInitExtraTupleSlot(estate, RelationGetDescr(writer->rel),
										   table_slot_callbacks(writer->rel));
	writer->changed = ExecInitExtraTupleSlot(estate, RelationGetDescr(writer->rel), &TTSOpsVirtual);

	writer->callback.func = close_writer;
	writer->callback.arg = writer;
	MemoryContextRegisterResetCallback(estate->es_query_cxt, &writer->callback);
	MemoryContextSwitchTo(old);
	return writer;
}

Relation
rk_row_writer_relation(RkRowWriter *writer)
{
	return writer->rel;
}

/* ---- finding ---- */

/*
 * The scan is not in the writer's context: a GiST index gives it one of its
 * own below, which would be gone before the writer's callback ends the scan.
 */
static void
open_key_scan(RkRowWriter *writer)
{
	MemoryContext old = MemoryContextSwitchTo(writer->estate->es_query_cxt);
	Oid			index = rk_primary_key_index(writer->rel);

	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s has no primary key", rk_relation_name(RelationGetRelid(writer->rel))),
				 errdetail("Rows deleted through its view are found by it.")));
	writer->index = index_open(index, RowExclusiveLock);
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(writer->index); i++)
	{
		ScanKeyInit(&writer->keys[i], i + 1, rk_equality_strategy(writer->index, i),
					get_opcode(rk_key_equality(writer->index, i)), (Datum) 0);
		writer->keys[i].sk_collation = writer->index->rd_indcollation[i];
	}
	writer->scan_context = AllocSetContextCreate(CurTransactionContext, "rowkeeper key scan",
												 ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(writer->scan_context);
	writer->scan = rk_index_beginscan(writer->rel, writer->index, GetActiveSnapshot(),
									  IndexRelationGetNumberOfKeyAttributes(writer->index));
	MemoryContextSwitchTo(old);
}

/* Whether a row has the key that is searched for, where the index is not sure of it. */
static bool
has_key(RkRowWriter *writer, int nkeys)
{
	for (int i = 0; i < nkeys; i++)
	{
		ScanKey		key = &writer->keys[i];
		bool		isnull;
		Datum		value = slot_getattr(writer->found, writer->index->rd_index->indkey.values[i], &isnull);

		if (!DatumGetBool(FunctionCall2Coll(&key->sk_func, key->sk_collation, value, key->sk_argument)))
			return false;
	}
	return true;
}

/*
 * The row with this primary key, in the order of its index, that a snapshot
 * sees; NULL: none. It is good until the next search.
 */
TupleTableSlot *
rk_row_writer_find(RkRowWriter *writer, const Datum *key, Snapshot snapshot)
{
	MemoryContext old;
	int			nkeys;
	bool		found;

	if (writer->scan == NULL)
		open_key_scan(writer);
	nkeys = IndexRelationGetNumberOfKeyAttributes(writer->index);
	for (int i = 0; i < nkeys; i++)
		writer->keys[i].sk_argument = key[i];
	writer->scan->xs_snapshot = snapshot;

	/* the scan keeps what it allocates for as long as it is open */
	old = MemoryContextSwitchTo(writer->scan_context);
	index_rescan(writer->scan, writer->keys, nkeys, NULL, 0);
	do
		found = index_getnext_slot(writer->scan, ForwardScanDirection, writer->found);
	while (found && writer->scan->xs_recheck && !has_key(writer, nkeys));
	MemoryContextSwitchTo(old);
	return found ? writer->found : NULL;
}

/*
 * Lock a row; under READ COMMITTED its newest version, which is then what
 * "row" holds and "failure" says (traversed). Waits.
 */
TM_Result
rk_row_writer_lock(RkRowWriter *writer, TupleTableSlot *row, LockTupleMode mode,
				   TM_FailureData *failure)
{
	ItemPointerData tid = row->tts_tid;

	return table_tuple_lock(writer->rel, &tid, GetActiveSnapshot(), row,
							GetActiveSnapshot()->curcid, mode, LockWaitBlock,
							IsolationUsesXactSnapshot() ? 0 : TUPLE_LOCK_FLAG_FIND_LAST_VERSION,
							failure);
}

/*
 * The newest version of a row that this transaction wrote: a trigger that is
 * told of one may find that another has updated it since. False: it is gone.
 */
bool
rk_row_fetch_newest(Relation rel, ItemPointerData tid, TupleTableSlot *slot)
{
	TableScanDesc scan = table_beginscan_tid(rel, SnapshotSelf);

	table_tuple_get_latest_tid(scan, &tid);
	table_endscan(scan);
	return table_tuple_fetch_row_version(rel, &tid, SnapshotSelf, slot);
}

/* ---- updating ---- */

/*
 * Give the writer's columns of a row new values; false where a BEFORE trigger
 * of the table would not have it.
 */
bool
rk_row_writer_update(RkRowWriter *writer, TupleTableSlot *row,
					 const Datum *values, const bool *nulls)
{
	EState	   *estate = writer->estate;
	TupleTableSlot *changed = writer->changed;
	int			natts = RelationGetDescr(writer->rel)->natts;
	MemoryContext old = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	bool		updated;

	slot_getallattrs(row);
	ExecClearTuple(changed);
	memcpy(changed->tts_values, row->tts_values, natts * sizeof(Datum));
	memcpy(changed->tts_isnull, row->tts_isnull, natts * sizeof(bool));
	for (int i = 0; i < writer->ncolumns; i++)
	{
		changed->tts_values[writer->columns[i] - 1] = values[i];
		changed->tts_isnull[writer->columns[i] - 1] = nulls[i];
	}
	ExecStoreVirtualTuple(changed);
	changed->tts_tableOid = RelationGetRelid(writer->rel);
	ItemPointerSetInvalid(&changed->tts_tid);

	estate->es_snapshot = GetActiveSnapshot();
	estate->es_output_cid = GetCurrentCommandId(true);
	ExecSimpleRelationUpdate(writer->target, estate, &writer->epq, row, changed);

	/* the new version's place is known only where there is one */
	updated = ItemPointerIsValid(&changed->tts_tid) &&
		!ItemPointerEquals(&changed->tts_tid, &row->tts_tid);
	MemoryContextSwitchTo(old);
	ResetPerTupleExprContext(estate);
	return updated;
}
