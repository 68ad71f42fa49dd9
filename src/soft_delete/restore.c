/*
 * restore.c
 *
 * soft_delete_restore() and soft_delete_restore_batch(), for both modes. What
 * belongs together is found and locked first (deleted.c). Then every row comes
 * back as the caller would bring it back himself: by INSERT or UPDATE under
 * his rights, row security and settings, with all triggers. All rows are one
 * statement to the server: foreign keys are checked once the last row is
 * there, so the order matters to nobody, not even within a table that refers
 * to itself.
 *
 * dry_run does the same and takes it back. Where that fails, rows are tried
 * one by one, parents first, each in a subtransaction, and what keeps a row
 * from coming back is its conflict; a row that fails is tried again as long as
 * others succeed.
 */
#include "soft_delete/deleted.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#define CHUNK 500				/* rows that are read at a time */

/* How rows with the same columns are inserted. */
typedef struct RestorePlan
{
	Bitmapset  *columns;		/* of the source that the row has */
	SPIPlanPtr	plan;
} RestorePlan;

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_restore);
PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_restore_key);
PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_restore_batch);

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

/* ---- who may see what ---- */

static bool
may_read_all(const RkStore *store)
{
	return pg_class_aclcheck(store->root, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(store->root, InvalidOid, true) != RLS_ENABLED;
}

/* Whether the caller may read every key; under row security that is not known. */
static bool
may_read_keys(const RkStore *store)
{
	bool		may = check_enable_rls(store->root, InvalidOid, true) != RLS_ENABLED;

	for (int i = 0; i < store->key->count && may; i++)
		may = pg_attribute_aclcheck(store->root, get_attnum(store->root, store->key->names[i]),
									GetUserId(), ACL_SELECT) == ACLCHECK_OK;
	return may || may_read_all(store);
}

/* Of an error in restoring a row, for whoever may not read all of it. */
static void
conceal_values(ErrorData *error)
{
	error->detail = NULL;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_DATA_EXCEPTION)
		error->message = "a value of a deleted row is not one of its column's type any more";
}

static bool
may_restore(const RkStore *store)
{
	AclMode		mode = store->trash ? ACL_INSERT : ACL_UPDATE;

	return pg_class_aclcheck(store->root, GetUserId(), mode) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(store->root, GetUserId(), mode, ACLMASK_ANY) == ACLCHECK_OK;
}

/* Whoever may write such rows may restore them; what exactly, the server says. */
static void
check_may_restore(const RkStore *store)
{
	if (!may_restore(store))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to restore rows of %s", rk_relation_name(store->root)),
				 errhint("Rows are restored by %s; the %s privilege on the table is needed.",
						 store->trash ? "INSERT" : "UPDATE", store->trash ? "INSERT" : "UPDATE")));
}

/* A set whose rows are locked where the caller may restore them. */
static RkDeletedSet *
create_set(void)
{
	RkDeletedSet *set = rk_deleted_set_create(RK_HOLDS_CALLER);

	set->may_lock = may_restore;
	return set;
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
static void
restore_rows(RkDeletedSet *set, RkStore *store, List *rows, bool fire_triggers)
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
static void
restore_all(void *arg)
{
	RkDeletedSet *set = arg;
	ListCell   *lc;
	EState	   *estate;

	AfterTriggerBeginQuery();
	foreach(lc, set->stores)
	{
		RkStore    *store = lfirst(lc);

		for (int done = 0; done < list_length(store->rows); done += CHUNK)
			restore_rows(set, store,
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
static void
remove_from_trash(RkDeletedSet *set)
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

/* ---- dry run ---- */

typedef struct OneRow
{
	RkDeletedSet *set;
	RkDeletedRow *row;
} OneRow;

static void
set_constraints_immediate(void *arg)
{
	rk_constraints_immediate();
}

/* What is checked at commit is a conflict as well. To be undone: in an SPI level of its own. */
static void
restore_and_check(void *arg)
{
	SPI_connect();
	restore_all(arg);
	rk_constraints_immediate();
	SPI_finish();
}

static void
restore_one(void *arg)
{
	OneRow	   *one = arg;

	SPI_connect();
	one->row->store->plans = NIL;	/* they go with each attempt */
	restore_rows(one->set, one->row->store, list_make1(one->row), true);
	SPI_finish();
}

static char *
describe_conflict(const RkStore *store, ErrorData *error)
{
	if (!may_read_all(store))
		conceal_values(error);
	return error->detail == NULL ? pstrdup(error->message)
		: psprintf("%s: %s", error->message, error->detail);
}

/* Try rows one by one until no more of them succeed. */
static void
find_conflicts(void *arg)
{
	RkDeletedSet *set = arg;
	bool		progress = true;
	List	   *todo = NIL;
	ListCell   *lc;

	SPI_connect();
	(void) rk_attempt(set_constraints_immediate, NULL);
	foreach(lc, set->stores)
		todo = list_concat(todo, ((RkStore *) lfirst(lc))->rows);
	while (progress && todo != NIL)
	{
		List	   *failed = NIL;

		progress = false;
		foreach(lc, todo)
		{
			OneRow		one = {set, lfirst(lc)};
			ErrorData  *error;

			CHECK_FOR_INTERRUPTS();
			one.row->conflict = NULL;
			error = rk_attempt(restore_one, &one);
			if (error == NULL)
				progress = true;
			else
			{
				MemoryContext old = MemoryContextSwitchTo(set->context);

				/*
				 * a row that he may not write, or does not see, is none of
				 * his
				 */
				if (!one.row->store->key_shown &&
					(error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE ||
					 error->sqlerrcode == ERRCODE_TRIGGERED_ACTION_EXCEPTION))
					one.row->record_id = NULL;
				one.row->conflict = describe_conflict(one.row->store, error);
				MemoryContextSwitchTo(old);
				failed = lappend(failed, one.row);
			}
		}
		todo = failed;
	}
	SPI_finish();
}

/* Leave plans of an undone subtransaction behind. */
static void
forget_plans(RkDeletedSet *set)
{
	ListCell   *lc;

	foreach(lc, set->stores)
		((RkStore *) lfirst(lc))->plans = NIL;
}

/* ---- the calls ---- */

static void
put_row(ReturnSetInfo *result, const RkDeletedRow *row)
{
	Datum		values[4];
	bool		nulls[4] = {false};
	NameData	schema;
	NameData	table;

	namestrcpy(&schema, get_namespace_name(get_rel_namespace(row->store->root)));
	namestrcpy(&table, get_rel_name(row->store->root));
	values[0] = NameGetDatum(&schema);
	values[1] = NameGetDatum(&table);
	values[2] = JsonbPGetDatum(row->record_id);
	nulls[2] = row->record_id == NULL;
	values[3] = (Datum) 0;
	nulls[3] = row->conflict == NULL;
	if (row->conflict != NULL)
		values[3] = CStringGetTextDatum(row->conflict);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* A search for the row deleted last under a key. */
typedef struct KeySearch
{
	RkStore    *store;
	int			nargs;			/* of the key; one more says where it is */
	Oid			types[INDEX_MAX_KEYS + 1];
	Datum		values[INDEX_MAX_KEYS + 1];
	char	   *order;
	RkDeletedRow *row;			/* found and locked */
} KeySearch;

/*
 * Where the row deleted last is to a snapshot: "tableoid ctid"; NULL: there is
 * none. Of a caller whom row security holds: that he sees. Within SPI.
 */
static char *
last_place(KeySearch *search, Snapshot snapshot)
{
	const RkStore *store = search->store;
	RkIdentity	saved;
	char	   *place = NULL;
	bool		as_caller = store->held && !store->by_key;

	if (!as_caller)
		rk_identity_assume_reader(&saved, store->owner);
	PushActiveSnapshot(snapshot);
	/* read-only: with the snapshot that is active */
	if (SPI_execute_with_args(psprintf("SELECT pg_catalog.format('%%s %%s', x.tableoid, x.ctid) FROM %s x WHERE %s AND %s %s",
									   store->rel, rk_deleted_key_condition(store, "x"),
									   rk_deleted_condition(store, "x"), search->order),
							  search->nargs, search->types, search->values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read deleted rows");
	PopActiveSnapshot();
	if (!as_caller)
		rk_identity_restore(&saved);
	if (SPI_processed > 0)
		place = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	SPI_freetuptable(SPI_tuptable);
	return place;
}

static bool
is_at(const RkDeletedRow *row, const char *place)
{
	return strcmp(place, psprintf("%u (%u,%u)", row->place.tableoid,
								  ItemPointerGetBlockNumber(&row->place.tid),
								  ItemPointerGetOffsetNumber(&row->place.tid))) == 0;
}

/*
 * Lock what is the last row; where row security holds the caller, in that
 * place only: he must not wait for rows that he does not see.
 */
static List *
lock_place(RkDeletedSet *set, KeySearch *search)
{
	RkStore    *store = search->store;
	int			nargs = search->nargs;
	bool		there_only = store->held && !store->by_key;
	const char *place = there_only ? last_place(search, GetTransactionSnapshot()) : NULL;

	if (there_only && place == NULL)
		return NIL;
	if (there_only)
	{
		search->types[nargs] = TEXTOID;
		search->values[nargs] = CStringGetTextDatum(place);
	}
	return rk_deleted_collect(set, store,
							  psprintf("SELECT x.tableoid, x.ctid, x.%s FROM %s x WHERE %s AND %s%s %s FOR UPDATE",
									   store->batch, store->rel, rk_deleted_key_condition(store, "x"),
									   rk_deleted_condition(store, "x"),
									   !there_only ? "" :
									   psprintf(" AND format('%%s %%s', x.tableoid, x.ctid) = $%d", nargs + 1),
									   search->order),
							  there_only ? nargs + 1 : nargs, search->types, search->values, false);
}

/*
 * Find and lock the row deleted last under a key; false: there is none. A row of
 * the trash says when its own DELETE was done, which is after whoever deleted
 * the one before has committed; batches may be numbered otherwise, since a
 * cascade draws its number before it comes to the last table. While we waited
 * for the lock, the row may have been restored and deleted again: so look
 * again until what is locked is the last one.
 */
static bool
lock_last(RkDeletedSet *set, KeySearch *search)
{
	RkStore    *store = search->store;

	search->order = psprintf("ORDER BY x.%s DESC, x.%s DESC NULLS LAST LIMIT 1",
							 store->deleted_at, store->batch);
	for (;;)
	{
		List	   *rows = lock_place(set, search);
		char	   *last = last_place(search, GetTransactionSnapshot());

		if (rows != NIL && last != NULL && is_at(linitial(rows), last))
		{
			search->row = linitial(rows);
			return true;
		}
		if (last == NULL || (rows == NIL && store->by_key))
			return false;
		rk_deleted_forget(set, store);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * There may have been a live row of this key, whose DELETE was not committed
 * yet: to insert ours we waited for that, so ours is not the last any more. A
 * snapshot of now, for under REPEATABLE READ the transaction's does not see it.
 */
static void
check_is_last(KeySearch *search)
{
	char	   *last;

	if (!search->store->trash)
		return;
	last = last_place(search, GetLatestSnapshot());
	if (last == NULL || !is_at(search->row, last))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a row of this key of %s was deleted while an earlier one was restored",
						rk_relation_name(search->store->root)),
				 errhint("Try again.")));
}

/*
 * Whether the caller restores past a row security that he has forced on
 * himself: of every table with rows in the set that would hold him otherwise.
 */
static bool
is_past_isolation(const RkDeletedSet *set)
{
	bool		past = false;
	ListCell   *lc;

	foreach(lc, set->stores)
	{
		const RkStore *store = lfirst(lc);

		if (store->rows == NIL || check_enable_rls(store->root, InvalidOid, true) != RLS_ENABLED)
			continue;
		if (store->held)
			return false;
		past = true;
	}
	return past;
}

/* Restore, or try to, what was found. Within SPI. */
static void
restore_set(FunctionCallInfo fcinfo, RkDeletedSet *set, KeySearch *search, bool dry_run)
{
	int			before;
	bool		past = is_past_isolation(set);
	Oid			user;
	int			context;
	bool		readable = true;
	ListCell   *lc;

	rk_deleted_order(set);
	foreach(lc, set->stores)
	{
		RkStore    *store = lfirst(lc);

		if (store->rows == NIL)
			continue;
		check_may_restore(store);
		readable &= may_read_all(store);
		store->key_shown = may_read_keys(store);
	}

	GetUserIdAndSecContext(&user, &context);
	if (past)
	{
		rk_plans_at_risk();
		SetUserIdAndSecContext(user, context | SECURITY_NOFORCE_RLS);
	}
	before = rk_restoring_begin();
	PG_TRY();
	{
		if (!dry_run)
		{
			restore_all(set);
			if (search != NULL)
				check_is_last(search);
			remove_from_trash(set);
		}
		else if (rk_attempt_and_undo(restore_and_check, set) != NULL)
		{
			forget_plans(set);
			(void) rk_attempt_and_undo(find_conflicts, set);
			forget_plans(set);
		}
	}
	PG_CATCH();
	{
		ErrorData  *error;

		rk_restoring_end(before);
		if (readable)
			PG_RE_THROW();
		MemoryContextSwitchTo(set->context);
		error = CopyErrorData();
		FlushErrorState();
		conceal_values(error);
		ReThrowError(error);
	}
	PG_END_TRY();
	rk_restoring_end(before);
	SetUserIdAndSecContext(user, context);
	if (past)
		rk_plans_forget();

	foreach(lc, set->stores)
	{
		ListCell   *r;

		foreach(r, ((RkStore *) lfirst(lc))->rows)
			put_row((ReturnSetInfo *) fcinfo->resultinfo, lfirst(r));
	}
}

static RkStore *
open_target(RkDeletedSet *set, Oid root)
{
	RkStore    *store = rk_deleted_open_store(set, root);

	check_may_restore(store);
	return store;
}

/* The last deleted row with a key, and what of its batch hangs on it. */
static void
restore_key(FunctionCallInfo fcinfo, RkDeletedSet *set, RkStore *store, char **texts, bool dry_run)
{
	KeySearch	search = {.store = store,.nargs = store->key->count};

	for (int i = 0; i < store->key->count; i++)
	{
		search.types[i] = TEXTOID;
		search.values[i] = CStringGetTextDatum(texts[i]);
	}
	if (!lock_last(set, &search))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("%s has no deleted row with this key", rk_relation_name(store->root))));
	if (search.row->batch != 0)
		rk_deleted_find_children(set, list_make1(search.row), search.row->batch);
	restore_set(fcinfo, set, &search, dry_run);
}

/*
 * rowkeeper.soft_delete_restore(target regclass, VARIADIC key "any" | text[])
 * returns table_schema, table_name, record_id, conflict (NULL).
 *
 * Restores the row deleted last under this key, and the rows that its delete
 * took with it: those of its batch that hang on it by foreign keys. Locks: the
 * deleted rows FOR UPDATE, ROW EXCLUSIVE on the tables. Privileges: those to
 * INSERT (trash) or UPDATE (flag) the rows and to read their keys; row security
 * applies: rows that it hides are not found. It does not hold the owner of an
 * isolated table while he acts for no tenant. Errors: P0002 no such deleted
 * row, 42501, 22023 a wrong key, 55000 no soft delete, 40001 one of this key was
 * deleted meanwhile, and whatever keeps a row from being written; then nothing
 * was restored.
 */
Datum
rowkeeper_soft_delete_restore(PG_FUNCTION_ARGS)
{
	Oid			root = rk_root_of(rk_target_argument(fcinfo));
	RkDeletedSet *set;
	RkStore    *store;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	SPI_connect();
	set = create_set();
	store = open_target(set, root);
	restore_key(fcinfo, set, store, rk_row_key_of_arguments(store->key, fcinfo, 1), false);
	SPI_finish();
	return (Datum) 0;
}

/*
 * rowkeeper.soft_delete_restore(target regclass, key jsonb, dry_run boolean
 * DEFAULT false): the same with the key as an object or a scalar. dry_run:
 * restores nothing and says of each row what would keep it from coming back;
 * fires triggers, whose work is undone.
 */
Datum
rowkeeper_soft_delete_restore_key(PG_FUNCTION_ARGS)
{
	Oid			root = rk_root_of(rk_target_argument(fcinfo));
	RkDeletedSet *set;
	RkStore    *store;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("key must not be null")));
	SPI_connect();
	set = create_set();
	store = open_target(set, root);
	restore_key(fcinfo, set, store, rk_row_key_of_jsonb(store->key, PG_GETARG_JSONB_P(1)),
				!PG_ARGISNULL(2) && PG_GETARG_BOOL(2));
	SPI_finish();
	return (Datum) 0;
}

/*
 * The tables that a batch has rows of: only a delete notes that, while a row
 * that comes back may have been given any number. Within SPI.
 */
static void
open_batch_stores(RkDeletedSet *set, int64 batch)
{
	ListCell   *lc;
	RkIdentity	saved;
	List	   *roots;

	if (!OidIsValid(rk_trash_relation("batches")))
		return;
	rk_identity_assume(&saved, rk_extension_owner(), false);
	roots = rk_fetch_oids(psprintf("SELECT DISTINCT b.relation::oid FROM " RK_TRASH_SCHEMA ".batches b"
								   " JOIN pg_class c ON c.oid = b.relation WHERE b.batch = " INT64_FORMAT
								   " AND b.rows > 0 ORDER BY 1", batch));
	rk_identity_restore(&saved);
	foreach(lc, roots)
		(void) rk_deleted_store(set, lfirst_oid(lc));
}

/* Rows whose parent is in the set are not restored. */
static void
drop_children(RkDeletedSet *set, int64 batch)
{
	ListCell   *lc;
	List	   *stores = list_copy(set->stores);

	foreach(lc, stores)
		rk_deleted_find_children(set, ((RkStore *) lfirst(lc))->rows, batch);
	foreach(lc, set->stores)
	{
		RkStore    *store = lfirst(lc);
		List	   *kept = NIL;
		ListCell   *r;

		foreach(r, store->rows)
			if (!((RkDeletedRow *) lfirst(r))->child)
			kept = lappend(kept, lfirst(r));
		store->rows = kept;
	}
}

/*
 * rowkeeper.soft_delete_restore_batch(batch bigint, cascade boolean DEFAULT
 * true, dry_run boolean DEFAULT false): all rows of a batch; cascade => false:
 * only those that no other row of the batch took with it. Locks, privileges
 * and errors as of soft_delete_restore(), on every table that has rows in it.
 */
Datum
rowkeeper_soft_delete_restore_batch(PG_FUNCTION_ARGS)
{
	int64		batch;
	bool		cascade = PG_ARGISNULL(1) || PG_GETARG_BOOL(1);
	bool		dry_run = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	RkDeletedSet *set;
	Oid			types[1] = {INT8OID};
	Datum		values[1];
	ListCell   *lc;
	bool		any = false;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("batch must not be null")));
	batch = PG_GETARG_INT64(0);
	values[0] = Int64GetDatum(batch);
	SPI_connect();
	set = create_set();
	open_batch_stores(set, batch);
	rk_deleted_order(set);
	foreach(lc, set->stores)
	{
		RkStore    *store = lfirst(lc);

		any |= rk_deleted_collect(set, store,
								  psprintf("SELECT x.tableoid, x.ctid, x.%s FROM %s x WHERE x.%s = $1 AND %s%s",
										   store->batch, store->rel, store->batch,
										   rk_deleted_condition(store, "x"), rk_deleted_lock(set, store, "x")),
								  1, types, values, false) != NIL;
	}
	if (!any)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("batch " INT64_FORMAT " has no deleted rows", batch),
				 errdetail("There was none, or its rows were restored or purged.")));
	if (!cascade)
		drop_children(set, batch);
	restore_set(fcinfo, set, NULL, dry_run);
	SPI_finish();
	return (Datum) 0;
}
