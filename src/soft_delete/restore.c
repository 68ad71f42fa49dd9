/*
 * restore.c
 *
 * soft_delete_restore() and soft_delete_restore_batch(), for both modes. What
 * belongs together is found and locked first (deleted.c, last_deleted.c); then
 * all rows come back as one statement of the caller's (restore_rows.c), so the
 * order matters to nobody, not even within a table that refers to itself.
 *
 * dry_run does the same and takes it back. Where that fails, rows are tried
 * one by one, parents first, each in a subtransaction, and what keeps a row
 * from coming back is its conflict; a row that fails is tried again as long as
 * others succeed.
 */
#include "soft_delete/deleted.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_restore);
PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_restore_key);
PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_restore_batch);

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
	rk_restore_all(arg);
	rk_constraints_immediate();
	SPI_finish();
}

static void
restore_one(void *arg)
{
	OneRow	   *one = arg;

	SPI_connect();
	one->row->store->plans = NIL;	/* they go with each attempt */
	rk_restore_rows(one->set, one->row->store, list_make1(one->row), true);
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
restore_set(FunctionCallInfo fcinfo, RkDeletedSet *set, RkLastDeleted *last, bool dry_run)
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
			rk_restore_all(set);
			if (last != NULL)
				rk_last_deleted_check(last);
			rk_restore_remove_kept(set);
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
	RkLastDeleted *last = rk_last_deleted_lock(set, store, texts);

	if (last == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("%s has no deleted row with this key", rk_relation_name(store->root))));
	if (last->row->batch != 0)
		rk_deleted_find_children(set, list_make1(last->row), last->row->batch);
	restore_set(fcinfo, set, last, dry_run);
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
