/*
 * flag_delete.c
 *
 * What a delete in flag mode takes with it, whoever wrote the stamp: the view,
 * an ORM's own UPDATE, a cascade. An AFTER ROW trigger, because a BEFORE one
 * would make every UPDATE of the table lock its rows first, and cost about a
 * third of it, however rarely it fires.
 *
 * Where foreign keys point to the table, the order is: lock the new version
 * of the row against those who are about to reference it, then look for live
 * children with a snapshot of now. Who referenced the row before holds a KEY
 * SHARE lock that the update has carried to the new version, so the lock
 * waits for him and the snapshot sees his row. Who comes later waits for us,
 * and then finds the row deleted (flag_guard.c). A delete through the view has
 * locked the old version like that, which is as good.
 *
 * A row that is deleted as it moves to another partition fires no UPDATE
 * trigger. It needs none: the partition's column is part of every key that
 * can be referenced, and nobody references the new one yet.
 *
 * An AFTER trigger cannot change the row, so what a hand-written UPDATE left
 * out (who, which batch) is written by a second update of it, which fires no
 * trigger: stamps do not bump twice. Where the change batch captures the
 * table, it asks for that before it captures: one entry in the audit log.
 *
 * Under REPEATABLE READ a snapshot of now may find children that the
 * transaction cannot see. As in the server's own foreign keys its snapshot is
 * then the crosscheck: 40001.
 */
#include "soft_delete/soft_delete.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* What happens to the children of a link: a statement, kept for the session. */
typedef struct ChildAction
{
	Oid			constraint;		/* hash key */
	bool		deletes;		/* else it looks for live ones */
	int			running;		/* a table that references itself: how deep */
	SPIPlanPtr	plan;			/* NULL: to be made */
	Oid			stamp_type;		/* of the child's columns, where it deletes */
	int32		stamp_typmod;
	Oid			by_type;		/* InvalidOid: without */
	int32		by_typmod;
	bool		has_batch;
} ChildAction;

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

bool		rk_flag_cascading = false;

static HTAB *actions = NULL;
static RowDelete *states = NULL;	/* of the statements that run; innermost
									 * first */

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_row);
PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_direct);

/* ---- one foreign key's children ---- */

static bool
is_cascade(const RkLink *link, const RkSoftDeleteOptions *parent,
		   const RkSoftDeleteOptions *child)
{
	return link->on_delete == FKCONSTR_ACTION_CASCADE && parent->cascade &&
		child != NULL && !child->trash;
}

/* " WHERE key = $1 AND deleted_at IS NULL" for the live children of a row. */
static void
append_children(StringInfo sql, const RkLink *link, const RkSoftDeleteOptions *child, Oid *types,
				int first)
{
	for (int i = 0; i < link->nkeys; i++)
	{
		types[first + i] = get_atttype(link->parent, link->parent_keys[i]);
		appendStringInfoString(sql, i > 0 ? " AND " : " WHERE ");
		generate_operator_clause(sql, psprintf("$%d", first + i + 1), types[first + i],
								 link->operators[i],
								 quote_identifier(get_attname(link->child, link->child_keys[i], false)),
								 get_atttype(link->child, link->child_keys[i]));
	}
	if (child != NULL && !child->trash)
		appendStringInfo(sql, " AND %s IS NULL", quote_identifier(child->deleted_at));
}

static const char *
only(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";
}

static void
column_type(Oid relid, const char *name, Oid *type, int32 *typmod)
{
	Oid			collation;

	get_atttypetypmodcoll(relid, get_attnum(relid, name), type, typmod, &collation);
}

static void
append_stamp(StringInfo sql, ChildAction *action, Oid child, const RkSoftDeleteOptions *options,
			 Oid *types, int *ntypes)
{
	column_type(child, options->deleted_at, &action->stamp_type, &action->stamp_typmod);
	types[(*ntypes)++] = action->stamp_type;
	appendStringInfo(sql, "%s = $%d", quote_identifier(options->deleted_at), *ntypes);
	action->by_type = InvalidOid;
	if (options->deleted_by != NULL)
	{
		column_type(child, options->deleted_by, &action->by_type, &action->by_typmod);
		types[(*ntypes)++] = action->by_type;
		appendStringInfo(sql, ", %s = $%d", quote_identifier(options->deleted_by), *ntypes);
	}
	action->has_batch = options->batch != NULL;
	if (action->has_batch)
	{
		types[(*ntypes)++] = INT8OID;
		appendStringInfo(sql, ", %s = $%d", quote_identifier(options->batch), *ntypes);
	}
}

static void
prepare_action(ChildAction *action, const RkLink *link, const RkSoftDeleteOptions *parent)
{
	RkSoftDeleteOptions *child = rk_soft_delete_options_of(link->child);
	Oid			types[3 + INDEX_MAX_KEYS];
	int			ntypes = 0;
	StringInfoData sql;
	SPIPlanPtr	plan;

	initStringInfo(&sql);
	action->deletes = is_cascade(link, parent, child);
	if (action->deletes)
	{
		appendStringInfo(&sql, "UPDATE %s%s SET ", only(link->child), rk_relation_name(link->child));
		append_stamp(&sql, action, link->child, child, types, &ntypes);
	}
	else
		appendStringInfo(&sql, "SELECT 1 FROM %s%s", only(link->child), rk_relation_name(link->child));
	append_children(&sql, link, child, types, ntypes);
	ntypes += link->nkeys;
	if (!action->deletes)
		appendStringInfoString(&sql, " FOR KEY SHARE");

	plan = SPI_prepare(sql.data, ntypes, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql.data, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	action->plan = plan;
}

/*
 * The statement for a link. It is made anew once anything that it was made of
 * changed, but not while it runs further up the stack, which keeps the tables
 * as they are.
 */
static ChildAction *
action_of(const RkLink *link, const RkSoftDeleteOptions *parent)
{
	bool		found;
	ChildAction *action = hash_search(actions, &link->constraint, HASH_ENTER, &found);

	if (!found)
	{
		action->plan = NULL;
		action->running = 0;
	}
	if (action->plan != NULL && action->running == 0 &&
		(!SPI_plan_is_valid(action->plan) ||
		 action->deletes != is_cascade(link, parent, rk_soft_delete_options_of(link->child))))
	{
		SPIPlanPtr	old = action->plan;

		action->plan = NULL;
		SPI_freeplan(old);
	}
	if (action->plan == NULL)
		prepare_action(action, link, parent);
	return action;
}

/* ---- cascade and restrict ---- */

RK_NORETURN static void
raise_still_referenced(const RkLink *link, Relation rel, HeapTuple row)
{
	StringInfoData names;
	StringInfoData values;

	initStringInfo(&names);
	initStringInfo(&values);
	for (int i = 0; i < link->nkeys; i++)
	{
		char	   *name = get_attname(link->parent, link->parent_keys[i], false);
		int			column = SPI_fnumber(RelationGetDescr(rel), name);
		char	   *value = SPI_getvalue(row, RelationGetDescr(rel), column);

		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", name);
		appendStringInfo(&values, "%s%s", i > 0 ? ", " : "", value != NULL ? value : "null");
	}
	ereport(ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("soft delete from table \"%s\" violates foreign key constraint \"%s\" on table \"%s\"",
					get_rel_name(link->parent), link->name, get_rel_name(link->child)),
	/* who deletes the row may see it */
			 errdetail("Key (%s)=(%s) is still referenced from a live row of table \"%s\".",
					   names.data, values.data, get_rel_name(link->child)),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, get_namespace_name(get_rel_namespace(link->child))),
			 err_generic_string(PG_DIAG_TABLE_NAME, get_rel_name(link->child)),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, link->name)));
}

/* The arguments of an action: the child's stamp, then the parent's key. */
static int
fill_arguments(const ChildAction *action, const RkLink *link, Relation rel, HeapTuple row,
			   TimestampTz at, int64 batch, Datum *values, char *nulls)
{
	int			count = 0;
	bool		isnull;

	if (action->deletes)
	{
		nulls[count] = ' ';
		values[count++] = rk_flag_timestamp(action->stamp_type, action->stamp_typmod, at);
		if (OidIsValid(action->by_type))
		{
			values[count] = rk_flag_actor(action->by_type, action->by_typmod, &isnull);
			nulls[count++] = isnull ? 'n' : ' ';
		}
		if (action->has_batch)
		{
			nulls[count] = ' ';
			values[count++] = Int64GetDatum(batch);
		}
	}
	for (int i = 0; i < link->nkeys; i++)
	{
		int			column = link->parent_keys[i];

		if (RelationGetRelid(rel) != link->parent)
			column = get_attnum(RelationGetRelid(rel),
								get_attname(link->parent, link->parent_keys[i], false));
		values[count] = heap_getattr(row, column, RelationGetDescr(rel), &isnull);
		if (isnull)
			return -1;			/* nobody can reference it */
		nulls[count++] = ' ';
	}
	return count;
}

static uint64
run_action(const ChildAction *action, Datum *values, char *nulls)
{
	Snapshot	snapshot = InvalidSnapshot;
	Snapshot	crosscheck = InvalidSnapshot;
	int			result;

	if (IsolationUsesXactSnapshot())
	{
		CommandCounterIncrement();	/* be sure all my own work is visible */
		snapshot = GetLatestSnapshot();
		crosscheck = GetTransactionSnapshot();
	}
	result = SPI_execute_snapshot(action->plan, values, nulls, snapshot, crosscheck, false, true,
								  action->deletes ? 0 : 1);
	if (result < 0)
		elog(ERROR, "could not follow a foreign key: %s", SPI_result_code_string(result));
	return SPI_processed;
}

/* Whether rows of a table have triggers that are not the extension's; of partitions perhaps. */
static bool
has_users_triggers(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	const TriggerDesc *triggers = rel->trigdesc;
	Oid			ours = get_namespace_oid("rowkeeper", true);
	bool		found = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		found |= !triggers->triggers[i].tgisinternal &&
			get_func_namespace(triggers->triggers[i].tgfoid) != ours;
	table_close(rel, NoLock);
	return found;
}

/*
 * Triggers of children run past a row security that their owner has forced on
 * himself: what they plan is forgotten when the statement ends.
 */
static void
watch_plans(Oid child)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(child));
	bool		forced = HeapTupleIsValid(tuple) && ((Form_pg_class) GETSTRUCT(tuple))->relforcerowsecurity;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (forced && has_users_triggers(child))
		rk_plans_at_risk();
}

/*
 * As the child's owner, past row security, as foreign keys do. The statement
 * is prepared as he, too: its policies are added, or left out, there.
 */
static void
follow_link(const RkLink *link, const RkSoftDeleteOptions *parent, Relation rel, HeapTuple row,
			TimestampTz at, int64 batch)
{
	Datum		values[3 + INDEX_MAX_KEYS];
	char		nulls[3 + INDEX_MAX_KEYS];
	ChildAction *action;
	int64		batch_before;
	bool		cascading_before = rk_flag_cascading;
	Oid			user;
	int			context;

	SPI_connect();
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(rk_relation_owner(link->child),
						   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	action = action_of(link, parent);
	watch_plans(link->child);
	if (fill_arguments(action, link, rel, row, at, batch, values, nulls) >= 0)
	{
		batch_before = rk_batch_enter(batch);
		rk_flag_cascading = true;
		action->running++;
		PG_TRY();
		{
			if (run_action(action, values, nulls) > 0 && !action->deletes)
				raise_still_referenced(link, rel, row);
		}
		PG_FINALLY();
		{
			action->running--;
			rk_flag_cascading = cascading_before;
			rk_batch_leave(batch_before);
		}
		PG_END_TRY();
	}
	SetUserIdAndSecContext(user, context);
	SPI_finish();
}

/* What ON DELETE of the foreign keys says; SET NULL keeps the link for a restore. */
static void
follow_links(const RowDelete *state, Relation rel, HeapTuple row, TimestampTz at, int64 batch)
{
	const RkFlagTable *table = rk_flag_table(state->relid);
	ListCell   *lc;

	if (table == NULL)
		return;
	check_stack_depth();
	foreach(lc, state->links)
	{
		RkLink	   *link = lfirst(lc);

		if (link->on_delete != FKCONSTR_ACTION_SETNULL &&
			link->on_delete != FKCONSTR_ACTION_SETDEFAULT)
			follow_link(link, table->options, rel, row, at, batch);
	}
}

/* Raise 23503 where a row is referenced over one of these keys from a live row. */
void
rk_soft_delete_keep_children(List *links, const RkSoftDeleteOptions *parent, Relation rel, HeapTuple row)
{
	ListCell   *lc;

	foreach(lc, links)
		follow_link(lfirst(lc), parent, rel, row, 0, 0);
}

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
		follow_links(state, rel, new_row, at, batch);
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

void
rk_flag_delete_init(void)
{
	actions = rk_cache_create("rowkeeper foreign keys", 64, sizeof(ChildAction));
}
