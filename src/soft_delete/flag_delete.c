/*
 * flag_delete.c
 *
 * What a delete in flag mode does besides, whoever wrote the stamp: the view,
 * an ORM's own UPDATE, a cascade. An AFTER ROW trigger, because a BEFORE one
 * would make every UPDATE of the table lock its rows first, and cost about a
 * third of it, however rarely it fires.
 *
 * Where foreign keys point to the table, the order is: lock the new version
 * of the row against those who are about to reference it, then look for live
 * children with a snapshot of now (flag_children.c). Who referenced the row
 * before holds a KEY SHARE lock that the update has carried to the new version,
 * so the lock waits for him and the snapshot sees his row. Who comes later
 * waits for us, and then finds the row deleted (flag_guard.c). A delete through
 * the view has locked the old version like that, which is as good.
 *
 * A row that is deleted as it moves to another partition fires no UPDATE
 * trigger. It needs none: the partition's column is part of every key that
 * can be referenced, and nobody references the new one yet.
 *
 * An AFTER trigger cannot change the row, so what a hand-written UPDATE left
 * out (who, which batch) is written by a second update of it, which fires no
 * trigger: stamps do not bump twice. Where the change batch captures the
 * table, it asks for that before it captures: one entry in the audit log.
 */
#include "soft_delete/soft_delete.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* What one statement knows of a relation; in its executor's memory. */
typedef struct RowDelete
{
	struct RowDelete *next;
	MemoryContextCallback callback;
	MemoryContext context;
	Oid			relid;
	Oid			root;
	bool		referenced;
	RkFlagStamp stamp;
	List	   *links;			/* RkLink *, to the relation */
	RkRowWriter *writer;		/* opened with the first row to fill */
} RowDelete;

static RowDelete *states = NULL;	/* of the statements that run; innermost
									 * first */

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_row);
PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_direct);

/* ---- the row itself ---- */

/* Whether the row needs a lock that keeps others from referencing it. */
static bool
needs_lock(const RowDelete *state, HeapTuple old_row)
{
	/* who updated it held one, and so still does */
	return state->referenced && !(old_row->t_data->t_infomask2 & HEAP_KEYS_UPDATED);
}

/* What the statement itself wrote is there to be changed from its next command on. */
static void
see_own_version(TupleTableSlot *slot)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, NULL);

	if (HeapTupleHeaderGetCmin(tuple->t_data) >= GetCurrentCommandId(false))
		CommandCounterIncrement();
}

static void
lock_version(Relation rel, TupleTableSlot *slot)
{
	TM_FailureData failure;
	ItemPointerData tid = slot->tts_tid;
	TM_Result	result = table_tuple_lock(rel, &tid, SnapshotAny, slot, GetCurrentCommandId(false),
										  LockTupleExclusive, LockWaitBlock, 0, &failure);

	if (result != TM_Ok)
		elog(ERROR, "could not lock a deleted row: %d", result);
}

static bool
same_value(Relation rel, AttrNumber column, HeapTuple a, HeapTuple b)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), column - 1);
	bool		a_null;
	bool		b_null;
	Datum		a_value = heap_getattr(a, column, RelationGetDescr(rel), &a_null);
	Datum		b_value = heap_getattr(b, column, RelationGetDescr(rel), &b_null);

	if (a_null || b_null)
		return a_null && b_null;
	return datum_image_eq(a_value, b_value, attribute->attbyval, attribute->attlen);
}

/*
 * Whether a value that the statement wrote is taken back: another
 * transaction's batch is not for it to join.
 */
static bool
is_foreign_batch(const RkFlagStamp *stamp, AttrNumber column, Datum value, bool isnull)
{
	return column == stamp->batch && !isnull && !rk_batch_is_own(DatumGetInt64(value));
}

/* What the statement said itself stays; returns whether anything is left to fill. */
static bool
keep_what_was_given(Relation rel, const RkFlagStamp *stamp, HeapTuple old_row, HeapTuple new_row,
					Datum *values, bool *nulls)
{
	bool		left = false;

	for (int i = 1; i < stamp->count; i++)
	{
		bool		isnull;
		Datum		given = heap_getattr(new_row, stamp->columns[i], RelationGetDescr(rel), &isnull);

		if (same_value(rel, stamp->columns[i], old_row, new_row))
			left |= !(nulls[i] && isnull);
		else if (is_foreign_batch(stamp, stamp->columns[i], given, isnull))
			left = true;
		else
		{
			values[i] = given;
			nulls[i] = isnull;
		}
	}
	return left;
}

/*
 * Write into the newest version of a row what its statement left out; false:
 * nothing. "row" holds that version.
 */
static bool
fill_row(RowDelete *state, Relation rel, HeapTuple old_row, TupleTableSlot *row, RkFlagStamp *stamp)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(row, false, NULL);
	MemoryContext old;

	if (!keep_what_was_given(rel, stamp, old_row, tuple, stamp->values, stamp->nulls))
		return false;
	if (state->writer == NULL)
	{
		old = MemoryContextSwitchTo(state->context);
		state->writer = rk_row_writer_open(RelationGetRelid(rel), stamp->columns + 1,
										   stamp->count - 1, RK_TRIGGERS_NONE);
		MemoryContextSwitchTo(old);
	}
	see_own_version(row);
	(void) rk_row_writer_update(state->writer, row, stamp->values + 1, stamp->nulls + 1);
	return true;
}

/* The moment in a row's stamp. */
static TimestampTz
moment_of(Relation rel, AttrNumber column, HeapTuple row)
{
	bool		isnull;
	Datum		value = heap_getattr(row, column, RelationGetDescr(rel), &isnull);

	if (TupleDescAttr(RelationGetDescr(rel), column - 1)->atttypid == TIMESTAMPOID)
		value = DirectFunctionCall1(timestamp_timestamptz, value);
	return DatumGetTimestampTz(value);
}

/*
 * The batch of a row that was just deleted: one of this transaction that its
 * statement wrote (the view, a cascade), else that of the statement.
 */
static int64
batch_of(Relation rel, const RkFlagStamp *stamp, HeapTuple old_row, HeapTuple new_row)
{
	bool		isnull;
	Datum		value;

	if (stamp->batch == 0 || same_value(rel, stamp->batch, old_row, new_row))
		return rk_batch_current();
	value = heap_getattr(new_row, stamp->batch, RelationGetDescr(rel), &isnull);
	return isnull || is_foreign_batch(stamp, stamp->batch, value, isnull)
		? rk_batch_current() : DatumGetInt64(value);
}

/* What a delete writes into a row, or (back) a restore takes out of it. */
static RkFlagStamp
stamp_of(const RowDelete *state, Relation rel, HeapTuple old_row, HeapTuple new_row, bool back)
{
	RkFlagStamp stamp = state->stamp;

	if (!back)
		rk_flag_stamp(rel, &stamp, moment_of(rel, stamp.columns[0], new_row),
					  batch_of(rel, &stamp, old_row, new_row));
	else
		for (int i = 0; i < stamp.count; i++)
			stamp.nulls[i] = true;
	return stamp;
}

static bool
needs_fill(Relation rel, HeapTuple old_row, HeapTuple new_row, const RkFlagStamp *stamp)
{
	RkFlagStamp probe = *stamp;

	return keep_what_was_given(rel, &probe, old_row, new_row, probe.values, probe.nulls);
}

static void
row_deleted(RowDelete *state, Relation rel, HeapTuple old_row, HeapTuple new_row)
{
	RkFlagStamp stamp = stamp_of(state, rel, old_row, new_row, false);
	TimestampTz at = moment_of(rel, stamp.columns[0], new_row);
	int64		batch = batch_of(rel, &stamp, old_row, new_row);
	bool		fill = needs_fill(rel, old_row, new_row, &stamp);

	if (fill || needs_lock(state, old_row))
	{
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		bool		live = !rk_row_fetch_newest(rel, new_row->t_self, slot) ||
			slot_attisnull(slot, stamp.columns[0]);

		if (!live && needs_lock(state, old_row))
		{
			see_own_version(slot);
			lock_version(rel, slot);
		}
		if (!live && fill)
			(void) fill_row(state, rel, old_row, slot, &stamp);
		ExecDropSingleTupleTableSlot(slot);
		if (live)
			return;				/* somebody took it back, or it is gone */
	}
	rk_flag_note(batch, state->root, 1);
	if (state->referenced)
		rk_flag_follow_links(state->links, rel, new_row, at, batch);
}

/* A batch has one row less. */
static void
note_restored(const RowDelete *state, Relation rel, HeapTuple old_row)
{
	bool		isnull;
	Datum		batch;

	if (state->stamp.batch == 0)
		return;
	batch = heap_getattr(old_row, state->stamp.batch, RelationGetDescr(rel), &isnull);
	if (!isnull)
		rk_flag_note(DatumGetInt64(batch), state->root, -1);
}

/* A row came back: what is said of its deletion goes. */
static void
row_restored(RowDelete *state, Relation rel, HeapTuple old_row, HeapTuple new_row)
{
	RkFlagStamp stamp = stamp_of(state, rel, old_row, new_row, true);

	note_restored(state, rel, old_row);
	if (needs_fill(rel, old_row, new_row, &stamp))
	{
		TupleTableSlot *slot = table_slot_create(rel, NULL);

		if (rk_row_fetch_newest(rel, new_row->t_self, slot) && slot_attisnull(slot, stamp.columns[0]))
			(void) fill_row(state, rel, old_row, slot, &stamp);
		ExecDropSingleTupleTableSlot(slot);
	}
}

/* ---- statements ---- */

static void
forget_state(void *arg)
{
	for (RowDelete **link = &states; *link != NULL; link = &(*link)->next)
		if (*link == arg)
		{
			*link = (*link)->next;
			return;
		}
}

/*
 * What the statement whose memory this is knows of a relation; NULL where
 * that is not in flag mode.
 */
static RowDelete *
state_of(MemoryContext context, Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	const RkFlagTable *table;
	MemoryContext old;
	RowDelete  *state;

	for (state = states; state != NULL; state = state->next)
		if (state->context == context && state->relid == relid)
			return state;

	table = rk_flag_table(relid);
	if (table == NULL)
		return NULL;
	old = MemoryContextSwitchTo(context);
	state = palloc0(sizeof(RowDelete));
	state->context = context;
	state->relid = relid;
	state->root = rk_root_of(relid);
	state->referenced = table->referenced;
	rk_flag_columns(table, rel, &state->stamp);
	if (state->referenced)
		state->links = rk_links_to(relid);
	MemoryContextSwitchTo(old);

	state->callback.func = forget_state;
	state->callback.arg = state;
	MemoryContextRegisterResetCallback(context, &state->callback);
	state->next = states;
	states = state;
	return state;
}

/*
 * A row changed its partition as well, and so fires no trigger of an UPDATE.
 * Its key changed then, too: what comes to reference the new one is guarded.
 */
static void
note_moved(const RowDelete *state, const RkChange *change, const RkFlagStamp *stamp, bool back)
{
	if (back)
		note_restored(state, change->rel, change->old_row);
	else
		rk_flag_note(batch_of(change->rel, stamp, change->old_row, change->new_row), state->root, 1);
}

/*
 * The change batch is about to capture a row that was deleted or came back:
 * fill in what its statement left out now, so that this is one change and not
 * two. Returns the row as it then is.
 */
HeapTuple
rk_flag_complete(const RkChange *change)
{
	RowDelete  *state;
	RkFlagStamp stamp;
	HeapTuple	row = change->new_row;
	TupleTableSlot *slot;
	bool		back = change->meaning == RK_RESTORE;

	if (change->statement == NULL ||
		SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ||
		!ItemPointerIsValid(&row->t_self))
		return row;
	state = state_of(change->statement, change->rel);
	if (state == NULL)
		return row;
	stamp = stamp_of(state, change->rel, change->old_row, row, back);
	if (change->old_row->t_tableOid != RelationGetRelid(change->rel))
		note_moved(state, change, &stamp, back);
	if (!needs_fill(change->rel, change->old_row, row, &stamp))
		return row;

	slot = table_slot_create(change->rel, NULL);
	if (rk_row_fetch_newest(change->rel, row->t_self, slot) &&
		slot_attisnull(slot, stamp.columns[0]) == back &&
		fill_row(state, change->rel, change->old_row, slot, &stamp) &&
		rk_row_fetch_newest(change->rel, row->t_self, slot))
		row = ExecCopySlotHeapTuple(slot);
	ExecDropSingleTupleTableSlot(slot);
	return row;
}

/*
 * rowkeeper._soft_delete_row(options text) is the AFTER ROW trigger
 * "rowkeeper_soft_delete" of a table in flag mode: does for a row whose stamp
 * was set or taken away what there is to do besides. Locks: the row as DELETE
 * does, where foreign keys point to the table; ROW EXCLUSIVE on children.
 * Errors: 23503 live children of a key that does not cascade, 40001 children
 * that the transaction cannot see.
 */
Datum
rowkeeper_soft_delete_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	RowDelete  *state;
	Relation	rel;
	AttrNumber	column;
	bool		was;
	bool		is;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) || !TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired AFTER UPDATE, for each row", "_soft_delete_row")));
	rel = trigger->tg_relation;
	state = state_of(fcinfo->flinfo->fn_mcxt, rel);
	if (state == NULL)
		PG_RETURN_POINTER(NULL);

	column = state->stamp.columns[0];
	was = !heap_attisnull(trigger->tg_trigtuple, column, RelationGetDescr(rel));
	is = !heap_attisnull(trigger->tg_newtuple, column, RelationGetDescr(rel));
	if (!was && is)
		row_deleted(state, rel, trigger->tg_trigtuple, trigger->tg_newtuple);
	else if (was && !is)
		row_restored(state, rel, trigger->tg_trigtuple, trigger->tg_newtuple);
	PG_RETURN_POINTER(NULL);
}

/*
 * rowkeeper._soft_delete_direct() is the BEFORE STATEMENT trigger of a
 * soft-deleted table for DELETE ("rowkeeper_soft_delete_direct", in flag mode)
 * and for TRUNCATE ("rowkeeper_soft_delete_truncate"): refuses it. A row
 * trigger would fire for rows that move between partitions, too. Errors: 0A000.
 */
Datum
rowkeeper_soft_delete_direct(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid			root;
	RkSoftDeleteOptions *options;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired for a statement", "_soft_delete_direct")));
	root = rk_root_of(RelationGetRelid(trigger->tg_relation));
	options = rk_purge_reaches(root) ? NULL : rk_soft_delete_options_of(root);
	if (options == NULL)
		PG_RETURN_POINTER(NULL);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot truncate %s: its rows are soft-deleted",
						rk_relation_name(RelationGetRelid(trigger->tg_relation))),
				 errdetail("TRUNCATE could not be taken back."),
				 errhint("Delete the rows, or SELECT rowkeeper.soft_delete_off(%s) first.",
						 quote_literal_cstr(rk_relation_name(root)))));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot delete from %s: its rows are soft-deleted",
					rk_relation_name(RelationGetRelid(trigger->tg_relation))),
			 errdetail("DELETE on the table itself, also one that a foreign key passes on, is for good."),
			 errhint("DELETE FROM %s instead, remove single rows with rowkeeper.soft_delete_hard(), or allow it with on_delete => 'allow'.",
					 quote_qualified_identifier(options->view_schema, options->view_name))));
}
