/*
 * purge.c
 *
 * Deleted rows that are older than they are to be kept: soft_delete_purge()
 * and maintain() remove them for good (removal.c); a row that something else
 * still refers to stays, with a warning.
 *
 * Purging goes through the table in the order of storage and commits after
 * each chunk. Rows that a restore has locked are passed over.
 */
#include "soft_delete/deleted.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#define BATCH_SIZE 5000			/* as the procedure has it by default */

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_purge);

/* ---- purging ---- */

typedef struct Purge
{
	Oid			root;
	TimestampTz cutoff;
	int			batch_size;

	/* where it is */
	List	   *leaves;			/* relations that hold the rows; the first is
								 * the current one */
	ItemPointerData last;
	int64		done;
	int64		skipped;

	/* of the chunk that was tried last */
	int64		removed;
	int64		found;
	bool		one_by_one;
} Purge;

/* The relations that hold the deleted rows of a table. */
static List *
leaves_of(const RkStore *store)
{
	List	   *leaves = NIL;
	ListCell   *lc;

	foreach(lc, rk_relation_tree(store->relid, AccessShareLock))
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION)
		leaves = lappend_oid(leaves, lfirst_oid(lc));
	return leaves;
}

/*
 * The cutoff as the store's stamps have it: a timestamp has the time zone of
 * the session that deleted the row, which is taken to be that of this one.
 */
static Datum
cutoff_value(const RkStore *store, TimestampTz cutoff, Oid *type)
{
	*type = TIMESTAMPTZOID;
	if (store->trash ||
		get_atttype(store->root, get_attnum(store->root, store->options->deleted_at)) != TIMESTAMPOID)
		return TimestampTzGetDatum(cutoff);
	*type = TIMESTAMPOID;
	return DirectFunctionCall1(timestamptz_timestamp, TimestampTzGetDatum(cutoff));
}

/*
 * Find and lock the next rows, in the order of storage: a plan with another
 * one, or a scan that begins in the middle, would pass rows over.
 */
static List *
find_chunk(Purge *purge, RkDeletedSet *set, RkStore *store)
{
	static const char *const storage_order[][2] = {
		{"synchronize_seqscans", "off"}, {"enable_indexscan", "off"},
		{"enable_indexonlyscan", "off"}, {"enable_seqscan", "on"}, {"enable_tidscan", "on"}
	};
	Oid			types[3] = {TIDOID, TIMESTAMPTZOID, INT4OID};
	Datum		values[3];
	List	   *rows;
	int			level = NewGUCNestLevel();

	values[0] = PointerGetDatum(&purge->last);
	values[1] = cutoff_value(store, purge->cutoff, &types[1]);
	values[2] = Int32GetDatum(purge->batch_size);
	for (int i = 0; i < lengthof(storage_order); i++)
		(void) set_config_option(storage_order[i][0], storage_order[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	rows = rk_deleted_collect(set, store,
							  psprintf("SELECT x.tableoid, x.ctid, x.%s FROM ONLY %s x"
									   " WHERE x.ctid > $1 AND x.%s < $2 LIMIT $3 FOR UPDATE SKIP LOCKED",
									   store->batch, rk_relation_name(linitial_oid(purge->leaves)),
									   store->deleted_at),
							  3, types, values, false);
	AtEOXact_GUC(false, level);
	return rows;
}

typedef struct OneRow
{
	RkDeletedSet *set;
	RkDeletedRow *row;
	int64		removed;
} OneRow;

static void
remove_one(void *arg)
{
	OneRow	   *one = arg;

	one->removed = rk_remove_with_children(one->set, one->row->store, list_make1(one->row));
}

/* Rows that cannot go because something refers to them stay. */
static int64
remove_one_by_one(Purge *purge, RkDeletedSet *set, List *rows)
{
	int64		removed = 0;
	ListCell   *lc;

	foreach(lc, rows)
	{
		OneRow		one = {set, lfirst(lc)};
		ErrorData  *error = rk_attempt(remove_one, &one);

		if (error == NULL)
			removed += one.removed;
		else if (error->sqlerrcode == ERRCODE_FOREIGN_KEY_VIOLATION)
			purge->skipped++;
		else
			ReThrowError(error);
	}
	return removed;
}

/* One chunk, in a subtransaction. */
static void
purge_chunk(void *arg)
{
	Purge	   *purge = arg;
	RkDeletedSet *set;
	RkStore    *store;
	List	   *rows;

	SPI_connect();
	set = rk_deleted_set_create(RK_HOLDS_NOBODY);
	store = rk_deleted_open_store(set, purge->root);
	rows = find_chunk(purge, set, store);
	purge->found = list_length(rows);
	purge->removed = purge->one_by_one
		? remove_one_by_one(purge, set, rows) : rk_remove_with_children(set, store, rows);
	if (rows != NIL)
		purge->last = ((RkDeletedRow *) llast(rows))->place.tid;
	SPI_finish();
}

/*
 * Purge the next chunk; false: there is none. Raises what keeps it from being
 * purged, but for foreign keys.
 */
static bool
purge_next(Purge *purge)
{
	while (purge->leaves != NIL)
	{
		ErrorData  *error;

		if (get_rel_name(linitial_oid(purge->leaves)) == NULL)
			purge->found = 0;	/* dropped since the last commit */
		else
		{
			purge->one_by_one = false;
			error = rk_attempt(purge_chunk, purge);
			if (error != NULL && error->sqlerrcode == ERRCODE_FOREIGN_KEY_VIOLATION)
			{
				purge->one_by_one = true;
				error = rk_attempt(purge_chunk, purge);
			}
			if (error != NULL)
				ReThrowError(error);
		}
		if (purge->found > 0)
		{
			purge->done += purge->removed;
			return true;
		}
		purge->leaves = list_delete_first(purge->leaves);
		ItemPointerSet(&purge->last, 0, 0);
	}
	return false;
}

static TimestampTz
cutoff_of(Interval *older_than)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   IntervalPGetDatum(older_than)));
}

static Interval *
parse_interval(const char *text)
{
	return DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(text),
												 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

/* Begin at the start of the table, or its trash. */
static void
start_purge(Purge *purge, const RkStore *store, Interval *older_than, int batch_size)
{
	memset(purge, 0, sizeof(Purge));
	purge->root = store->root;
	purge->cutoff = cutoff_of(older_than);
	purge->batch_size = batch_size;
	purge->leaves = leaves_of(store);
	ItemPointerSet(&purge->last, 0, 0);
}

/* What there is to do; counts the rows. */
static int64
begin_purge(Purge *purge, Oid root, Interval *older_than, int batch_size)
{
	RkDeletedSet *set = rk_deleted_set_create(RK_HOLDS_NOBODY);
	RkStore    *store = rk_deleted_open_store(set, root);
	Oid			types[1] = {TIMESTAMPTZOID};
	Datum		values[1];
	bool		isnull;

	if (older_than == NULL && store->options->keep == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("deleted rows of %s are kept for ever", rk_relation_name(root)),
				 errhint("Name older_than, or let soft_delete(%s, keep => ...) say how long.",
						 quote_literal_cstr(rk_relation_name(root)))));
	start_purge(purge, store, older_than != NULL ? older_than : parse_interval(store->options->keep),
				batch_size);
	values[0] = cutoff_value(store, purge->cutoff, &types[0]);
	return DatumGetInt64(rk_fetch(store->owner,
								  psprintf("SELECT count(*) FROM %s x WHERE x.%s < $1",
										   store->rel, store->deleted_at),
								  1, types, values, NULL, &isnull));
}

static void
warn_skipped(const Purge *purge)
{
	if (purge->skipped > 0)
		ereport(WARNING,
				(errmsg_plural("%lld row of %s is older and stays: other rows refer to it",
							   "%lld rows of %s are older and stay: other rows refer to them",
							   (unsigned long) purge->skipped,
							   (long long) purge->skipped, rk_relation_name(purge->root))));
}

/* What is old enough of all tenants is not for one of them to remove. */
static void
check_acts_for_nobody(Oid root)
{
	if (rk_is_held_by_claim(root))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot purge %s while the transaction acts for a tenant", rk_relation_name(root)),
				 errhint("Purging is of the rows of all tenants: call it in a transaction without a claim.")));
}

typedef struct NextChunk
{
	Purge	   *purge;
	bool		more;
} NextChunk;

static void
purge_next_chunk(void *arg)
{
	NextChunk  *next = arg;

	next->more = purge_next(next->purge);
}

/*
 * rowkeeper.soft_delete_purge(target regclass, older_than interval DEFAULT
 * NULL, batch_size integer DEFAULT 5000)
 *
 * Removes for good what was deleted longer ago than older_than (NULL: the
 * table's "keep"), so many rows a transaction. Locks: the rows FOR UPDATE, those
 * of others are passed over; ROW EXCLUSIVE on the table or its trash until
 * each commit. The caller must own the table, and act for no tenant. Errors: 25001 in a transaction
 * block, 42501, 55000 no soft delete, 22023 no time, or a batch size below 1.
 */
Datum
rowkeeper_soft_delete_purge(PG_FUNCTION_ARGS)
{
	Purge	   *purge;
	int			batch_size = PG_ARGISNULL(2) ? BATCH_SIZE : PG_GETARG_INT32(2);
	Interval   *older_than = NULL;
	Interval	none = {0};
	NextChunk	next;
	Oid			root;

	rk_check_non_atomic(fcinfo, "soft_delete_purge(...)");
	root = rk_root_of(rk_target_argument(fcinfo));
	rk_check_owner(root);
	check_acts_for_nobody(root);
	if (batch_size < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("batch_size must be at least 1")));

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	rk_begin_writing("CALL rowkeeper.soft_delete_purge()");
	purge = palloc(sizeof(Purge));
	if (!PG_ARGISNULL(1))
	{
		older_than = palloc(sizeof(Interval));
		*older_than = *PG_GETARG_INTERVAL_P(1);
		if (DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(older_than),
											  IntervalPGetDatum(&none))) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("older_than must not be negative")));
	}
	rk_progress_begin("soft_delete_purge", root, 1, begin_purge(purge, root, older_than, batch_size));
	rk_commit();
	next.purge = purge;
	do
	{
		ErrorData  *error = rk_attempt(purge_next_chunk, &next);

		if (error != NULL || !next.more)
			rk_progress_end();
		else
			rk_progress_update(1, purge->done);
		rk_commit();
		if (error != NULL)
			ReThrowError(error);
		CHECK_FOR_INTERRUPTS();
	} while (next.more);
	warn_skipped(purge);
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- maintain() ---- */

/* Batches of which nothing is left. */
static int64
forget_empty_batches(void)
{
	if (!OidIsValid(rk_trash_relation("batches")))
		return 0;
	return (int64) rk_run(rk_extension_owner(),
						  "DELETE FROM " RK_TRASH_SCHEMA ".batches b"
						  " USING (SELECT batch, relation FROM " RK_TRASH_SCHEMA ".batches"
						  "  GROUP BY batch, relation HAVING sum(rows) <= 0) e"
						  " WHERE b.batch = e.batch AND b.relation IS NOT DISTINCT FROM e.relation");
}

/*
 * What is left of a maintenance: each run goes on where the last one was. It
 * lives in the context of that.
 */
typedef struct KeepRun
{
	MemoryContext context;
	List	   *roots;			/* tables still to be purged; the first is the
								 * current one */
	bool		begun;			/* with that */
	Purge		purge;
	ErrorData  *failed;			/* the first error, */
	Oid			failed_root;	/* in this table */
} KeepRun;

/* The caller's tables that keep deleted rows for some time only. */
static List *
tables_to_purge(Oid target)
{
	List	   *roots = NIL;
	ListCell   *lc;

	foreach(lc, rk_soft_delete_tables())
	{
		Oid			root = lfirst_oid(lc);

		if (rk_soft_delete_options_of(root)->keep != NULL &&
			(!OidIsValid(target) || rk_root_of(target) == root) &&
			rk_is_relation_owner(root, GetUserId()))
			roots = lappend_oid(roots, root);
	}
	return roots;
}

static void
begin_kept(KeepRun *keep, Oid root, const char *kept_for)
{
	RkStore    *store = rk_deleted_open_store(rk_deleted_set_create(RK_HOLDS_NOBODY), root);
	MemoryContext old = MemoryContextSwitchTo(keep->context);

	start_purge(&keep->purge, store, parse_interval(kept_for), BATCH_SIZE);
	MemoryContextSwitchTo(old);
	keep->begun = true;
}

/* The next rows of the current table that are older than it keeps them. */
static void
purge_kept(void *arg)
{
	KeepRun    *keep = arg;
	Oid			root = linitial_oid(keep->roots);
	RkSoftDeleteOptions *options = rk_soft_delete_options_of(root);
	Purge	   *purge = &keep->purge;

	/* it may have changed since the last commit */
	purge->done = 0;
	if (options == NULL || options->keep == NULL)
		return;
	SPI_connect();
	rk_constraints_immediate(); /* what fails at the commit would stop
								 * maintain() */
	if (!keep->begun)
		begin_kept(keep, root, options->keep);
	while (purge_next(purge) && purge->done == 0)
		;						/* a chunk of nothing but rows that stay */
	if (purge->done == 0)
		warn_skipped(purge);	/* it came to the end: say it once */
	SPI_finish();
}

/*
 * One chunk of one table a run. A table that fails does not keep the others
 * from their turn: its error is raised once they have nothing more to do.
 */
static void
maintain_purge(RkMaintainRun *run)
{
	KeepRun    *keep = run->state;

	if (keep == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(run->context);

		keep = run->state = palloc0(sizeof(KeepRun));
		keep->context = run->context;
		keep->roots = tables_to_purge(run->target);
		MemoryContextSwitchTo(old);
	}
	while (keep->roots != NIL)
	{
		Oid			root = linitial_oid(keep->roots);
		ErrorData  *error = rk_attempt(purge_kept, keep);

		if (error == NULL && keep->purge.done > 0)
		{
			run->changed = keep->purge.done;
			run->more = true;
			rk_maintain_name_table(run, root);
			return;
		}
		if (error != NULL && keep->failed == NULL)
		{
			keep->failed = error;
			keep->failed_root = root;
		}
		keep->roots = list_delete_first(keep->roots);
		keep->begun = false;
	}
	if (keep->failed != NULL)
	{
		rk_maintain_name_table(run, keep->failed_root);
		ReThrowError(keep->failed);
	}
}

static void
maintain_batches(RkMaintainRun *run)
{
	run->changed = forget_empty_batches();
}

void
rk_purge_init(void)
{
	static const RkMaintainTask purge = {
		.name = "soft_delete_purge",
		.feature = "soft_delete",
		.run = maintain_purge
	};
	static const RkMaintainTask batches = {
		.name = "soft_delete_batches",
		.feature = "soft_delete",
		.owner_only = true,
		.run = maintain_batches
	};

	rk_maintain_register(&purge);
	rk_maintain_register(&batches);
}
