/*
 * hard.c
 *
 * soft_delete_hard(): one key's rows removed for good, the live one and those
 * that were deleted, with what the latter took with them.
 */
#include "soft_delete/deleted.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_hard);

/* Remove the live row with a key, past every guard; 1 or 0. Within SPI. */
static int64
remove_live_row(const RkStore *store, Oid *types, Datum *values)
{
	StringInfoData sql;
	RkStore		live = *store;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT x.tableoid, x.ctid, NULL::bigint FROM %s x WHERE ", rk_relation_name(store->root));
	for (int i = 0; i < store->key->count; i++)
		appendStringInfo(&sql, "%sx.%s %s %s", i > 0 ? " AND " : "",
						 quote_identifier(store->key->names[i]), store->key->equals[i],
						 rk_trash_value_sql(psprintf("$%d", i + 1), store->key->types[i]));
	appendStringInfoString(&sql, " FOR UPDATE");
	live.rows = NIL;
	live.rel = rk_relation_name(store->root);
	return rk_remove_rows(&live, rk_deleted_collect(rk_deleted_set_create(RK_HOLDS_CLAIMS), &live, sql.data,
													store->key->count, types, values, false));
}

static int64
remove_kept_rows(RkDeletedSet *set, RkStore *store, Oid *types, Datum *values)
{
	List	   *rows = rk_deleted_collect(set, store,
										  psprintf("SELECT x.tableoid, x.ctid, x.%s FROM %s x WHERE %s AND %s FOR UPDATE",
												   store->batch, store->rel, rk_deleted_key_condition(store, "x"),
												   rk_deleted_condition(store, "x")),
										  store->key->count, types, values, false);
	ListCell   *lc;
	int64		removed = 0;

	if (!store->trash)
		return rk_remove_with_children(set, store, rows);
	foreach(lc, rows)
		rk_deleted_find_children(set, list_make1(lfirst(lc)), ((RkDeletedRow *) lfirst(lc))->batch);
	foreach(lc, set->stores)
		if (((RkStore *) lfirst(lc))->trash)
		removed += rk_remove_rows(lfirst(lc), ((RkStore *) lfirst(lc))->rows);
	return removed;
}

/*
 * rowkeeper.soft_delete_hard(target regclass, VARIADIC key "any" | text[])
 * returns bigint: how many rows were removed for good: the live row with this
 * key, deleted ones, and what the latter took with them. What the server itself
 * deletes by foreign keys is not counted. The caller must own the table (in a
 * transaction that acts for a tenant it is that tenant's rows that there are); where
 * he is not its owner himself, constraints are immediate from here to the
 * transaction's end. Errors:
 * P0002 no such row, 42501, 22023 a wrong key, 55000 no soft delete, 23503 rows
 * that refer to it.
 */
Datum
rowkeeper_soft_delete_hard(PG_FUNCTION_ARGS)
{
	RkDeletedSet *set;
	RkStore    *store;
	char	  **texts;
	Oid			types[INDEX_MAX_KEYS];
	Datum		values[INDEX_MAX_KEYS];
	int64		removed;
	Oid			root;

	root = rk_root_of(rk_target_argument(fcinfo));
	rk_check_owner(root);
	SPI_connect();
	set = rk_deleted_set_create(RK_HOLDS_CLAIMS);
	store = rk_deleted_open_store(set, root);
	texts = rk_row_key_of_arguments(store->key, fcinfo, 1);
	for (int i = 0; i < store->key->count; i++)
	{
		types[i] = TEXTOID;
		values[i] = CStringGetTextDatum(texts[i]);
	}
	removed = remove_kept_rows(set, store, types, values);
	removed += remove_live_row(store, types, values);
	if (removed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("%s has no row with this key, live or deleted", rk_relation_name(root))));
	SPI_finish();
	PG_RETURN_INT64(removed);
}
