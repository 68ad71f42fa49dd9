/*
 * last_deleted.c
 *
 * Which row of a key was deleted last: that is the one which
 * soft_delete_restore() is to bring back, and there may be many. It is found
 * and locked here, and looked at once more when it is back, for others delete
 * and restore rows of the same key meanwhile.
 */
#include "soft_delete/deleted.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

/*
 * Where the row deleted last is to a snapshot: "tableoid ctid"; NULL: there is
 * none. Of a caller whom row security holds: that he sees. Within SPI.
 */
static char *
last_place(RkLastDeleted *search, Snapshot snapshot)
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
lock_place(RkDeletedSet *set, RkLastDeleted *search)
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
 * Find and lock the row deleted last under a key; NULL: there is none. A row of
 * the trash says when its own DELETE was done, which is after whoever deleted
 * the one before has committed; batches may be numbered otherwise, since a
 * cascade draws its number before it comes to the last table. While we waited
 * for the lock, the row may have been restored and deleted again: so look
 * again until what is locked is the last one.
 */
RkLastDeleted *
rk_last_deleted_lock(RkDeletedSet *set, RkStore *store, char **key)
{
	RkLastDeleted *search = palloc0(sizeof(RkLastDeleted));

	search->store = store;
	search->nargs = store->key->count;
	for (int i = 0; i < search->nargs; i++)
	{
		search->types[i] = TEXTOID;
		search->values[i] = CStringGetTextDatum(key[i]);
	}
	search->order = psprintf("ORDER BY x.%s DESC, x.%s DESC NULLS LAST LIMIT 1",
							 store->deleted_at, store->batch);
	for (;;)
	{
		List	   *rows = lock_place(set, search);
		char	   *last = last_place(search, GetTransactionSnapshot());

		if (rows != NIL && last != NULL && is_at(linitial(rows), last))
		{
			search->row = linitial(rows);
			return search;
		}
		if (last == NULL || (rows == NIL && store->by_key))
			return NULL;
		rk_deleted_forget(set, store);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * There may have been a live row of this key, whose DELETE was not committed
 * yet: to insert ours we waited for that, so ours is not the last any more. A
 * snapshot of now, for under REPEATABLE READ the transaction's does not see it.
 */
void
rk_last_deleted_check(RkLastDeleted *search)
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
