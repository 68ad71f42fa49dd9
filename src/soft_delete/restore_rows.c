/*
 * restore_rows.c
 *
 * How rows come back, once it is known which: each as the caller would bring
 * it back himself, by INSERT (from the trash) or UPDATE (flag mode) under his
 * rights, row security and settings, with all triggers. The rows of a set are
 * one statement to the server: its AFTER triggers, foreign keys among them,
 * fire when the last row is there.
 */
#include "soft_delete/deleted.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define CHUNK 500				/* rows that are read at a time */

/* How rows with the same columns are inserted. */
typedef struct RestorePlan
{
	Bitmapset  *columns;		/* of the source that the row has */
	SPIPlanPtr	plan;
} RestorePlan;

/* ---- one row ---- */

static Datum
value_of_text(Oid type, char *text)
{
	Oid			input;
	Oid			ioparam;

	getTypeInputInfo(type, &input, &ioparam);
	return OidInputFunctionCall(input, text, ioparam, -1);
}

/*
 * The value of a source column in a row of the trash; false where the row was
 * deleted before there was such a column.
 */
static bool
trashed_value(HeapTuple tuple, TupleDesc desc, Jsonb *extra, Form_pg_attribute column,
			  Datum *value, bool *isnull)
{
	char	   *name = NameStr(column->attname);
	Oid			type = getBaseType(column->atttypid);
	JsonbValue	kept;
	int			number;
	Oid			kept_type;

	*isnull = true;
	*value = (Datum) 0;
	if (extra != NULL &&
		getKeyJsonValueFromContainer(&extra->root, name, strlen(name), &kept) != NULL)
	{
		*isnull = kept.type != jbvString;
		if (!*isnull)
			*value = value_of_text(type, pnstrdup(kept.val.string.val, kept.val.string.len));
		return true;
	}
	number = SPI_fnumber(desc, name);
	if (number <= 0 || rk_trash_is_own_column(name))
		return false;
	*value = SPI_getbinval(tuple, desc, number, isnull);
	kept_type = SPI_gettypeid(desc, number);
	if (!*isnull && kept_type != type)
		*value = value_of_text(type, rk_text_of_value(*value, kept_type));
	return true;
}

/* " RETURNING key": whoever is shown a key must be allowed to read it. */
static void
append_returning(StringInfo sql, const RkStore *store)
{
	for (int i = 0; i < store->key->count; i++)
		appendStringInfo(sql, "%s%s", i > 0 ? ", " : " RETURNING ",
						 quote_identifier(store->key->names[i]));
}

static SPIPlanPtr
insert_plan(RkStore *store, TupleDesc source, Bitmapset *columns)
{
	StringInfoData names;
	StringInfoData values;
	StringInfoData sql;
	Oid		   *types = palloc(source->natts * sizeof(Oid));
	int			nargs = 0;
	int			i = -1;
	RestorePlan *restore;
	ListCell   *lc;

	foreach(lc, store->plans)
		if (bms_equal(((RestorePlan *) lfirst(lc))->columns, columns))
		return ((RestorePlan *) lfirst(lc))->plan;

	initStringInfo(&names);
	initStringInfo(&values);
	while ((i = bms_next_member(columns, i)) >= 0)
	{
		Form_pg_attribute column = TupleDescAttr(source, i);

		appendStringInfo(&names, "%s%s", nargs > 0 ? ", " : "", quote_identifier(NameStr(column->attname)));
		appendStringInfo(&values, "%s$%d", nargs > 0 ? ", " : "", nargs + 1);
		types[nargs++] = getBaseType(column->atttypid);
	}
	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE VALUES (%s)",
					 rk_relation_name(store->root), names.data, values.data);
	append_returning(&sql, store);

	restore = palloc(sizeof(RestorePlan));
	restore->columns = bms_copy(columns);
	restore->plan = SPI_prepare(sql.data, nargs, types);
	if (restore->plan == NULL)
		elog(ERROR, "could not prepare \"%s\"", sql.data);
	store->plans = lappend(store->plans, restore);
	return restore->plan;
}

/* One row by one statement of the caller's, which must change one row. */
static void
run_as_caller(RkStore *store, SPIPlanPtr plan, Datum *values, const char *nulls,
			  bool fire_triggers, const char *key)
{
	int			result = SPI_execute_snapshot(plan, values, nulls, InvalidSnapshot, InvalidSnapshot,
											  false, fire_triggers, 0);

	if (result < 0)
		elog(ERROR, "could not restore a row: %s", SPI_result_code_string(result));
	SPI_freetuptable(SPI_tuptable);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 store->key_shown
				 ? errmsg("row %s of %s was not restored", key, rk_relation_name(store->root))
				 : errmsg("a row of %s was not restored", rk_relation_name(store->root)),
				 errdetail("A trigger or row security kept it from being written.")));
}

static void
insert_row(RkStore *store, TupleDesc source, HeapTuple tuple, TupleDesc desc, bool fire_triggers,
		   const char *key)
{
	Datum	   *values = palloc(source->natts * sizeof(Datum));
	char	   *nulls = palloc0(source->natts + 1);
	Bitmapset  *columns = NULL;
	Jsonb	   *extra = NULL;
	int			nargs = 0;
	bool		isnull;
	Datum		stored = SPI_getbinval(tuple, desc, SPI_fnumber(desc, "_extra"), &isnull);

	if (!isnull)
		extra = DatumGetJsonbP(stored);
	for (int i = 0; i < source->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(source, i);

		if (column->attisdropped || column->attgenerated != '\0' ||
			!trashed_value(tuple, desc, extra, column, &values[nargs], &isnull))
			continue;
		columns = bms_add_member(columns, i);
		nulls[nargs++] = isnull ? 'n' : ' ';
	}
	run_as_caller(store, insert_plan(store, source, columns), values, nulls, fire_triggers, key);
}

/* Flag mode: the row is there; its stamps go. */
static void
unstamp_row(RkStore *store, TupleDesc desc, HeapTuple tuple, bool fire_triggers, const char *key)
{
	Datum		values[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	RestorePlan *restore;

	for (int i = 0; i < store->key->count; i++)
	{
		bool		isnull;
		int			number = SPI_fnumber(desc, store->key->names[i]);

		types[i] = SPI_gettypeid(desc, number);
		values[i] = SPI_getbinval(tuple, desc, number, &isnull);
	}
	if (store->plans == NIL)
	{
		StringInfoData sql;

		initStringInfo(&sql);
		appendStringInfo(&sql, "UPDATE %s SET %s = NULL", rk_relation_name(store->root), store->deleted_at);
		if (store->options->deleted_by != NULL)
			appendStringInfo(&sql, ", %s = NULL", quote_identifier(store->options->deleted_by));
		appendStringInfo(&sql, ", %s = NULL WHERE ", store->batch);
		for (int i = 0; i < store->key->count; i++)
			appendStringInfo(&sql, "%s%s %s $%d", i > 0 ? " AND " : "",
							 quote_identifier(store->key->names[i]), store->key->equals[i], i + 1);
		append_returning(&sql, store);
		restore = palloc0(sizeof(RestorePlan));
		restore->plan = SPI_prepare(sql.data, store->key->count, types);
		if (restore->plan == NULL)
			elog(ERROR, "could not prepare \"%s\"", sql.data);
		store->plans = lappend(store->plans, restore);
	}
	restore = linitial(store->plans);
	run_as_caller(store, restore->plan, values, NULL, fire_triggers, key);
}

/* ---- several rows ---- */

static void
explain_restore(void *arg)
{
	const RkDeletedRow *const *row = arg;

	if (*row != NULL && (*row)->record_id != NULL && (*row)->store->key_shown)
		errcontext("restoring row %s of %s",
				   JsonbToCString(NULL, &(*row)->record_id->root, VARSIZE((*row)->record_id)),
				   rk_relation_name((*row)->store->root));
}

/*
 * A row that was locked stays where it is, but for what a trigger does to it
 * while others are restored: it may have a newer version by now.
 */
static void
follow_versions(List *rows)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		RkDeletedRow *row = lfirst(lc);
		Relation	rel = table_open(row->place.tableoid, RowShareLock);
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
		TableScanDesc scan = table_beginscan_tid(rel, snapshot);

		row->tid = row->place.tid;
		table_tuple_get_latest_tid(scan, &row->tid);
		table_endscan(scan);
		UnregisterSnapshot(snapshot);
		table_close(rel, NoLock);
	}
}

/* Read rows of a store, as its owner, as they are now. */
static SPITupleTable *
read_rows(const char *sql, const RkStore *store, List *rows)
{
	Oid			types[2] = {OIDARRAYOID, TIDARRAYOID};
	Datum		values[2];
	RkIdentity	saved;

	rk_deleted_places(rows, &values[0], &values[1]);
	rk_identity_assume_reader(&saved, store->owner);
	if (SPI_execute_with_args(sql, 2, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read deleted rows");
	rk_identity_restore(&saved);
	return SPI_tuptable;
}

/* Bring rows of one store back; their record_id is filled in on the way. */
void
rk_restore_rows(RkDeletedSet *set, RkStore *store, List *rows, bool fire_triggers)
{
	char	   *sql = psprintf("SELECT %s AS \"!key\", k.n AS \"!number\", x.*"
							   " FROM unnest($1, $2) WITH ORDINALITY AS k (t, i, n)"
							   " JOIN %s x ON x.ctid = k.i AND x.tableoid = k.t ORDER BY k.n",
							   rk_deleted_record_id(store, "x"), store->rel);
	Relation	source = table_open(store->root, AccessShareLock);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "rowkeeper restored row",
													  ALLOCSET_DEFAULT_SIZES);
	SPITupleTable *found;
	RkDeletedRow *current = NULL;
	ErrorContextCallback context = {
		.previous = error_context_stack,.callback = explain_restore,.arg = &current
	};

	found = read_rows(sql, store, rows);
	if (found->numvals != list_length(rows))
	{
		SPI_freetuptable(found);
		follow_versions(rows);
		found = read_rows(sql, store, rows);
	}
	if (found->numvals != list_length(rows))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("deleted rows of %s were removed while others were restored",
						rk_relation_name(store->root)),
				 errdetail("A trigger did that.")));

	error_context_stack = &context;
	for (uint64 i = 0; i < found->numvals; i++)
	{
		bool		isnull;
		Datum		record_id = SPI_getbinval(found->vals[i], found->tupdesc, 1, &isnull);
		MemoryContext old;
		char	   *text;

		current = list_nth(rows, DatumGetInt64(SPI_getbinval(found->vals[i], found->tupdesc, 2, &isnull)) - 1);
		old = MemoryContextSwitchTo(set->context);
		current->record_id = (Jsonb *) PG_DETOAST_DATUM_COPY(record_id);
		MemoryContextSwitchTo(row_context);
		text = JsonbToCString(NULL, &current->record_id->root, VARSIZE(current->record_id));

		MemoryContextSwitchTo(old);
		if (store->trash)
			insert_row(store, RelationGetDescr(source), found->vals[i], found->tupdesc, fire_triggers, text);
		else
			unstamp_row(store, found->tupdesc, found->vals[i], fire_triggers, text);
		MemoryContextReset(row_context);
	}
	error_context_stack = context.previous;
	MemoryContextDelete(row_context);
	SPI_freetuptable(found);
	table_close(source, NoLock);
}

/* All rows of a set as one statement: triggers fire when the last is there. */
void
rk_restore_all(void *arg)
{
	RkDeletedSet *set = arg;
	ListCell   *lc;
	EState	   *estate;

	AfterTriggerBeginQuery();
	foreach(lc, set->stores)
	{
		RkStore    *store = lfirst(lc);

		for (int done = 0; done < list_length(store->rows); done += CHUNK)
			rk_restore_rows(set, store,
							list_copy_head(list_copy_tail(store->rows, done), CHUNK), false);
	}
	estate = CreateExecutorState();
	AfterTriggerEndQuery(estate);
	ExecCloseResultRelations(estate);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
	CommandCounterIncrement();
}

/* Rows that came back leave the trash and their batch. */
void
rk_restore_remove_kept(RkDeletedSet *set)
{
	ListCell   *lc;

	foreach(lc, set->stores)
	{
		RkStore    *store = lfirst(lc);
		Oid			types[2] = {OIDARRAYOID, TIDARRAYOID};
		Datum		values[2];
		RkIdentity	saved;

		if (!store->trash || store->rows == NIL)
			continue;
		rk_deleted_places(store->rows, &values[0], &values[1]);
		rk_identity_assume(&saved, store->owner, true);
		if (SPI_execute_with_args(psprintf("DELETE FROM %s x USING unnest($1, $2) AS k (t, i)"
										   " WHERE x.ctid = k.i AND x.tableoid = k.t", store->rel),
								  2, types, values, NULL, false, 0) != SPI_OK_DELETE)
			elog(ERROR, "could not remove restored rows");
		rk_identity_restore(&saved);
		if (SPI_processed != list_length(store->rows))
			ereport(ERROR,
					(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
					 errmsg("restored rows could not be removed from %s", store->rel),
					 errdetail("A trigger or policy of that table kept them there.")));
		rk_deleted_note_gone(store, store->rows);
	}
}
