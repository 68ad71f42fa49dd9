/*
 * flag_view_delete.c
 *
 * DELETE through the view of the live rows: the INSTEAD OF trigger, which
 * stamps the row that it is given. A trigger never sees the statement's
 * WHERE. So the row is looked up by its primary key with the statement's own
 * snapshot, which finds the very version that the statement saw, and locked;
 * only where that leads to a newer version is there a question, and the
 * answer is to compare what the view shows of both. A difference is 40001,
 * never a delete of a row that may no longer be meant.
 *
 * Where the table has foreign keys that point to it, the lock is the one that
 * DELETE takes, and it makes those wait who are about to reference the row.
 */
#include "soft_delete/soft_delete.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/execPartition.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "partitioning/partdesc.h"
#include "rewrite/rowsecurity.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

/* One relation that holds rows: the table, or a partition. */
typedef struct Target
{
	RkRowWriter *writer;
	bool		referenced;
	RkFlagStamp stamp;
	AttrNumber *columns;		/* of each of the view's; 0: it shows none */
	int			nkeys;
	int			keys[INDEX_MAX_KEYS];	/* the view's column for each of the
										 * primary key's, from 0 */
} Target;

/* How rows find their partition. */
typedef struct Router
{
	EState	   *estate;
	Relation	rel;
	ResultRelInfo *target;
	ModifyTableState *state;
	PartitionTupleRouting *routing;
	TupleTableSlot *slot;
	MemoryContextCallback callback;
	ResourceOwner owner;
} Router;

/* What one DELETE statement knows; in the memory of its executor. */
typedef struct ViewDelete
{
	Oid			root;
	int			ncolumns;		/* of the view */
	AttrNumber *columns;		/* the root's column behind each */
	Router	   *router;			/* partitioned tables only */
	List	   *targets;		/* Target * */
	int64		batch;
	SPIPlanPtr	update;			/* where row security must be asked: the
								 * statement that asks it */
} ViewDelete;

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_view);

/* ---- partitions ---- */

static void
close_router(void *arg)
{
	Router	   *router = arg;
	ResourceOwner current = CurrentResourceOwner;

	if (!IsTransactionState())
		return;					/* aborting: all is released already */
	CurrentResourceOwner = router->owner;
	ExecCleanupTupleRouting(router->state, router->routing);
	if (router->estate->es_partition_directory != NULL)
		DestroyPartitionDirectory(router->estate->es_partition_directory);
	ExecResetTupleTable(router->estate->es_tupleTable, false);
	table_close(router->rel, NoLock);
	CurrentResourceOwner = current;
}

static Router *
open_router(Oid root)
{
	EState	   *estate = CreateExecutorState();
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	Router	   *router = palloc0(sizeof(Router));

	router->estate = estate;
	router->owner = CurrentResourceOwner;
	router->rel = table_open(root, RowExclusiveLock);
	rk_init_range_table(estate, router->rel, NULL);
	router->target = makeNode(ResultRelInfo);
	InitResultRelInfo(router->target, router->rel, 1, NULL, 0);
	router->state = makeNode(ModifyTableState);
	router->state->ps.state = estate;
	router->state->operation = CMD_UPDATE;
	router->state->resultRelInfo = router->target;
	router->state->rootResultRelInfo = router->target;
	router->routing = ExecSetupPartitionTupleRouting(estate, router->rel);
	router->slot = ExecInitExtraTupleSlot(estate, RelationGetDescr(router->rel), &TTSOpsVirtual);

	/*
	 * The partition directory has a context of its own, and children go
	 * before their parent's callbacks are called, the youngest first.
	 */
	router->callback.func = close_router;
	router->callback.arg = router;
	MemoryContextRegisterResetCallback(AllocSetContextCreate(estate->es_query_cxt, "rowkeeper router",
															 ALLOCSET_SMALL_SIZES),
									   &router->callback);
	MemoryContextSwitchTo(old);
	return router;
}

/* The partition that holds a row of the view. */
static Oid
find_partition(ViewDelete *state, const Datum *values, const bool *nulls)
{
	Router	   *router = state->router;
	TupleTableSlot *slot = router->slot;
	Oid			leaf;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts);
	for (int i = 0; i < state->ncolumns; i++)
	{
		AttrNumber	column = state->columns[i];

		if (column <= 0)
			continue;
		slot->tts_values[column - 1] = values[i];
		slot->tts_isnull[column - 1] = nulls[i];
	}
	ExecStoreVirtualTuple(slot);
	leaf = RelationGetRelid(ExecFindPartition(router->state, router->target, router->routing,
											  slot, router->estate)->ri_RelationDesc);
	ResetPerTupleExprContext(router->estate);
	return leaf;
}

/* ---- what a statement needs ---- */

/*
 * What a delete changes, as pull_varattnos() numbers it: the whole row, the
 * columns of its stamp, and those that are computed, perhaps from these.
 */
static Bitmapset *
changed_columns(TupleDesc desc, const RkFlagStamp *stamp)
{
	Bitmapset  *changed = bms_make_singleton(-FirstLowInvalidHeapAttributeNumber);

	for (int i = 0; i < stamp->count; i++)
		changed = bms_add_member(changed, stamp->columns[i] - FirstLowInvalidHeapAttributeNumber);
	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attgenerated != '\0')
			changed = bms_add_member(changed, i + 1 - FirstLowInvalidHeapAttributeNumber);
	return changed;
}

/*
 * Whether all policies of a table ask the same of every command, and nothing
 * of the columns that a delete changes. The view has asked them then.
 */
static bool
are_policies_uniform(Relation rel, const RkFlagStamp *stamp)
{
	Bitmapset  *changed = changed_columns(RelationGetDescr(rel), stamp);
	ListCell   *lc;

	foreach(lc, rel->rd_rsdesc->policies)
	{
		RowSecurityPolicy *policy = lfirst(lc);
		Bitmapset  *used = NULL;

		if (policy->polcmd != '*' || policy->hassublinks ||
			(policy->with_check_qual != NULL && !equal(policy->qual, policy->with_check_qual)))
			return false;
		pull_varattnos((Node *) policy->qual, 1, &used);
		if (bms_overlap(used, changed))
			return false;
	}
	return true;
}

/* The UPDATE that row security is asked about, as the user. */
static SPIPlanPtr
prepare_update(Relation rel, const RkFlagStamp *stamp)
{
	StringInfoData sql;
	Oid			types[3 + INDEX_MAX_KEYS];
	int			ntypes = 0;
	Relation	index = index_open(rk_primary_key_index(rel), AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	SPIPlanPtr	plan;

	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s SET ", rk_relation_name(RelationGetRelid(rel)));
	for (int i = 0; i < stamp->count; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, stamp->columns[i] - 1);

		types[ntypes++] = column->atttypid;
		appendStringInfo(&sql, "%s%s = $%d", i > 0 ? ", " : "",
						 quote_identifier(NameStr(column->attname)), ntypes);
	}
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, index->rd_index->indkey.values[i] - 1);

		types[ntypes++] = column->atttypid;
		appendStringInfoString(&sql, i > 0 ? " AND " : " WHERE ");
		generate_operator_clause(&sql, quote_identifier(NameStr(column->attname)), column->atttypid,
								 rk_key_equality(index, i), psprintf("$%d", ntypes), column->atttypid);
	}
	index_close(index, NoLock);
	plan = SPI_prepare(sql.data, ntypes, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql.data, SPI_result_code_string(SPI_result));
	return plan;
}

/*
 * Whoever deletes through the view needs DELETE on the table: the view has
 * the rights of who uses it.
 */
static void
check_rights(ViewDelete *state, const RkFlagTable *table)
{
	Relation	rel;
	RkFlagStamp stamp;

	if (pg_class_aclcheck(state->root, GetUserId(), ACL_DELETE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(state->root));
	if (check_enable_rls(state->root, InvalidOid, false) != RLS_ENABLED)
		return;
	rel = table_open(state->root, RowExclusiveLock);
	rk_flag_columns(table, rel, &stamp);
	if (!are_policies_uniform(rel, &stamp))
	{
		SPI_connect();
		state->update = prepare_update(rel, &stamp);
		SPI_keepplan(state->update);
		SPI_finish();
	}
	table_close(rel, NoLock);
}

static void
free_plan(void *arg)
{
	SPI_freeplan(((ViewDelete *) arg)->update);
}

static ViewDelete *
open_state(FunctionCallInfo fcinfo, Relation view)
{
	MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	ViewDelete *state = palloc0(sizeof(ViewDelete));
	const RkFlagTable *table;

	state->columns = rk_flag_view_columns(view, &state->ncolumns);
	state->root = rk_flag_view_base(view->rd_id);

	/*
	 * who makes a foreign key to it must be done, or wait for us, when we
	 * look
	 */
	if (OidIsValid(state->root))
		LockRelationOid(state->root, RowExclusiveLock);
	table = OidIsValid(state->root) ? rk_flag_table(state->root) : NULL;
	if (table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot delete from view %s: its table is not soft-deleted in flag mode",
						rk_relation_name(RelationGetRelid(view))),
				 errhint("Call rowkeeper.soft_delete() for its table again, or drop the view.")));
	check_rights(state, table);
	if (state->update != NULL)
	{
		MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));

		callback->func = free_plan;
		callback->arg = state;
		MemoryContextRegisterResetCallback(fcinfo->flinfo->fn_mcxt, callback);
	}
	if (get_rel_relkind(state->root) == RELKIND_PARTITIONED_TABLE)
		state->router = open_router(state->root);
	state->batch = rk_batch_current();
	fcinfo->flinfo->fn_extra = state;
	MemoryContextSwitchTo(old);
	return state;
}

/* The view's column, from 0, that shows a column of the table. */
static int
view_column_of(const Target *target, int ncolumns, AttrNumber column)
{
	for (int i = 0; i < ncolumns; i++)
		if (target->columns[i] == column)
			return i;
	elog(ERROR, "column %d of the primary key is not in the view", column);
}

static Target *
open_target(FunctionCallInfo fcinfo, ViewDelete *state, Oid relid)
{
	MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	Target	   *target = palloc0(sizeof(Target));
	Relation	rel = table_open(relid, RowExclusiveLock);
	const RkFlagTable *table = rk_flag_table(relid);
	Relation	index;

	if (table == NULL)
		elog(ERROR, "partition %u has no options of soft delete", relid);
	target->referenced = table->referenced;
	rk_flag_columns(table, rel, &target->stamp);
	rk_flag_stamp(rel, &target->stamp, GetCurrentTransactionStartTimestamp(), state->batch);
	target->writer = rk_row_writer_open(relid, target->stamp.columns, target->stamp.count,
										target->referenced ? RK_TRIGGERS_ALL : RK_TRIGGERS_NOT_OURS);
	target->columns = palloc(state->ncolumns * sizeof(AttrNumber));
	for (int i = 0; i < state->ncolumns; i++)
		target->columns[i] = state->columns[i] <= 0 || relid == state->root ? state->columns[i]
			: get_attnum(relid, get_attname(state->root, state->columns[i], false));

	index = index_open(rk_primary_key_index(rel), AccessShareLock);
	target->nkeys = IndexRelationGetNumberOfKeyAttributes(index);
	for (int i = 0; i < target->nkeys; i++)
		target->keys[i] = view_column_of(target, state->ncolumns, index->rd_index->indkey.values[i]);
	index_close(index, NoLock);
	table_close(rel, NoLock);
	state->targets = lappend(state->targets, target);
	MemoryContextSwitchTo(old);
	return target;
}

static Target *
target_of(FunctionCallInfo fcinfo, ViewDelete *state, Oid relid)
{
	ListCell   *lc;

	foreach(lc, state->targets)
	{
		Target	   *target = lfirst(lc);

		if (RelationGetRelid(rk_row_writer_relation(target->writer)) == relid)
			return target;
	}
	return open_target(fcinfo, state, relid);
}

/* ---- one row ---- */

static bool
is_deleted(const Target *target, TupleTableSlot *row)
{
	return !slot_attisnull(row, target->stamp.columns[0]);
}

RK_NORETURN static void
raise_changed(Oid relid, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent %s", what),
			 errdetail("A row of %s that a DELETE through its view was to delete is not what the statement saw any more.",
					   rk_relation_name(relid))));
}

/* Whether the view shows the same of a row as it did to the statement. */
static bool
shows_the_same(const ViewDelete *state, const Target *target, TupleTableSlot *row,
			   const Datum *values, const bool *nulls)
{
	TupleDesc	desc = row->tts_tupleDescriptor;

	slot_getallattrs(row);
	for (int i = 0; i < state->ncolumns; i++)
	{
		AttrNumber	column = target->columns[i];
		Form_pg_attribute attribute;

		if (column <= 0)
			continue;
		attribute = TupleDescAttr(desc, column - 1);
		if (rk_is_virtual(attribute))
			continue;
		if (row->tts_isnull[column - 1] != nulls[i] ||
			(!nulls[i] && !datum_image_eq(row->tts_values[column - 1], values[i],
										  attribute->attbyval, attribute->attlen)))
			return false;
	}
	return true;
}

/*
 * The row was changed before in this transaction, after the statement began:
 * by the statement itself, which met it twice, or by a trigger on its behalf.
 */
static bool
was_deleted_by_us(const Target *target, const Datum *key)
{
	TupleTableSlot *row = rk_row_writer_find(target->writer, key, SnapshotSelf);

	return row == NULL || is_deleted(target, row);
}

/* Find and lock the row; NULL where it is no longer there to be deleted. */
static TupleTableSlot *
lock_row(const ViewDelete *state, const Target *target, const Datum *values, const bool *nulls)
{
	Oid			relid = RelationGetRelid(rk_row_writer_relation(target->writer));
	TM_FailureData failure = {0};
	Datum		key[INDEX_MAX_KEYS];
	TupleTableSlot *row;

	for (int i = 0; i < target->nkeys; i++)
		key[i] = values[target->keys[i]];
	row = rk_row_writer_find(target->writer, key, GetActiveSnapshot());
	if (row == NULL)
		return NULL;
	switch (rk_row_writer_lock(target->writer, row,
							   target->referenced ? LockTupleExclusive : LockTupleNoKeyExclusive,
							   &failure))
	{
		case TM_Ok:
			if (!failure.traversed)
				return row;
			if (is_deleted(target, row))
				return NULL;
			if (!shows_the_same(state, target, row, values, nulls))
				raise_changed(relid, "update");
			return row;
		case TM_SelfModified:
		case TM_Invisible:
			if (was_deleted_by_us(target, key))
				return NULL;
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
					 errmsg("tuple to be deleted was already modified by an operation triggered by the current command"),
					 errhint("Consider using an AFTER trigger instead of a BEFORE trigger to propagate changes to other rows.")));
			break;
		case TM_Deleted:
			if (IsolationUsesXactSnapshot())
				raise_changed(relid, "delete");
			return NULL;
		default:
			break;
	}
	raise_changed(relid, "update");
}

/* Where row security must be asked again: an UPDATE as the user. */
static bool
update_by_statement(const ViewDelete *state, const Target *target,
					const Datum *values)
{
	Datum		arguments[3 + INDEX_MAX_KEYS];
	char		nulls[3 + INDEX_MAX_KEYS];
	int			count = target->stamp.count;
	uint64		processed;

	for (int i = 0; i < count; i++)
	{
		arguments[i] = target->stamp.values[i];
		nulls[i] = target->stamp.nulls[i] ? 'n' : ' ';
	}
	for (int i = 0; i < target->nkeys; i++)
	{
		arguments[count + i] = values[target->keys[i]];
		nulls[count + i] = ' ';
	}
	SPI_connect();
	if (SPI_execute_snapshot(state->update, arguments, nulls, InvalidSnapshot, InvalidSnapshot,
							 false, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not delete a row");
	processed = SPI_processed;
	SPI_finish();
	return processed > 0;
}

static bool
delete_row(FunctionCallInfo fcinfo, ViewDelete *state, const Datum *values, const bool *nulls)
{
	Oid			relid = state->router == NULL ? state->root : find_partition(state, values, nulls);
	Target	   *target = target_of(fcinfo, state, relid);
	TupleTableSlot *row = lock_row(state, target, values, nulls);

	if (row == NULL)
		return false;
	if (state->update != NULL)
		return update_by_statement(state, target, values);
	if (!rk_row_writer_update(target->writer, row, target->stamp.values, target->stamp.nulls))
		return false;
	if (!target->referenced)
		rk_flag_note(state->batch, state->root, 1);
	return true;
}

/*
 * rowkeeper._soft_delete_view() is the INSTEAD OF DELETE trigger
 * "rowkeeper_soft_delete" of the view of a table's live rows: stamps the row.
 * A row that somebody else deleted meanwhile is passed over, as DELETE does.
 * Locks: ROW EXCLUSIVE on the table; the row as UPDATE does, as DELETE does
 * where foreign keys point to the table. The user needs DELETE on the view
 * and on the table, and where policies differ by command or look at the
 * stamp, UPDATE on the table, whose policies are asked then. Errors: 40001 the
 * row was changed by another transaction since the statement began, 42501.
 */
Datum
rowkeeper_soft_delete_view(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	ViewDelete *state = fcinfo->flinfo->fn_extra;
	int			natts;
	Datum	   *values;
	bool	   *nulls;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_INSTEAD(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired INSTEAD OF DELETE", "_soft_delete_view")));
	if (state == NULL)
		state = open_state(fcinfo, trigger->tg_relation);

	natts = RelationGetDescr(trigger->tg_relation)->natts;
	values = palloc(natts * sizeof(Datum));
	nulls = palloc(natts * sizeof(bool));
	heap_deform_tuple(trigger->tg_trigtuple, RelationGetDescr(trigger->tg_relation), values, nulls);
	return PointerGetDatum(delete_row(fcinfo, state, values, nulls) ? trigger->tg_trigtuple : NULL);
}
