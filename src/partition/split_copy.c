/*
 * split_copy.c
 *
 * Steps 3 to 5 of a split: the rows of the partition, on their way to the table
 * that takes its place, until nobody misses one there. A batch at a time, in the
 * order of the primary key, each a transaction that lasts some milliseconds:
 * its rows are locked against changes until it commits, and those that somebody
 * else has locked are left for later, so that neither waits long for the other.
 * What is written meanwhile comes by the triggers (split_apply.c), so a row that
 * is there already is the right one.
 *
 * Where a batch comes to its end says nothing of what it left out. So in the
 * end the rows that are missing are looked for, without a lock, until there
 * are none.
 */
#include "partition/partition.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define FIRST_BATCH 200
#define SMALLEST_BATCH 5
#define LARGEST_BATCH 5000
#define BATCH_US 15000
#define PROGRESS_EVERY 16		/* batches */
#define LOOKS_SHARE 4			/* of the time, one part is looking for rows */
#define LONGEST_REST_MS 60000
#define DEADLOCK_MS "5"			/* so that it is us who gives way */
#define LOCK_MS "20"

/* ---- SQL ---- */

/* The columns of a key as a list; each with a prefix such as "w.". */
char *
rk_split_key_columns(const RkRowKey *key, const char *prefix)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < key->count; i++)
		appendStringInfo(&list, "%s%s%s", i > 0 ? ", " : "", prefix, quote_identifier(key->names[i]));
	return list.data;
}

/* The columns that are written, or all. */
static char *
columns_of(Relation rel, const char *prefix, bool written)
{
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped || (written && column->attgenerated != '\0'))
			continue;
		appendStringInfo(&list, "%s%s%s", list.len > 0 ? ", " : "", prefix,
						 quote_identifier(NameStr(column->attname)));
	}
	return list.data;
}

static char *
same_key(const RkRowKey *key)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < key->count; i++)
	{
		char	   *name = pstrdup(quote_identifier(key->names[i]));

		appendStringInfo(&sql, "%sh.%s %s w.%s", i > 0 ? " AND " : "", name, key->equals[i], name);
	}
	return sql.data;
}

/*
 * Rows after a key. As one comparison of rows an index finds them at once; its
 * operator has one name for all columns. Neither here nor elsewhere is a value
 * cast: that of a type that is somebody's may run a function of his.
 */
static char *
after_key(const RkRowKey *key)
{
	StringInfoData values;

	initStringInfo(&values);
	for (int i = 0; i < key->count; i++)
		appendStringInfo(&values, "%s$%d", i > 0 ? ", " : "", i + 1);
	return psprintf("ROW(%s) OPERATOR(pg_catalog.>) ROW(%s)", rk_split_key_columns(key, "w."), values.data);
}

/* Whether keys are compared by operators that everybody has. */
bool
rk_split_can_follow(const RkRowKey *key)
{
	for (int i = 0; i < key->count; i++)
		if (strcmp(key->equals[i], "OPERATOR(pg_catalog.=)") != 0)
			return false;
	return true;
}

static RkRowKey *
key_of(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	RkRowKey   *key = rk_row_key_of(rel);

	table_close(rel, NoLock);
	if (key == NULL)
		elog(ERROR, "%s has no primary key", rk_relation_name(relid));
	return key;
}

/* Insert the first rows of which something is true, but those that somebody has locked: a part of WITH. */
static char *
copy_sql(const RkSplit *split, const RkRowKey *key, const char *where, int limit)
{
	Relation	rel = table_open(split->wide, AccessShareLock);
	char	   *written = columns_of(rel, "", true);

	table_close(rel, NoLock);
	return psprintf("b AS MATERIALIZED (SELECT %s FROM ONLY %s w WHERE %s ORDER BY %s LIMIT %d FOR SHARE OF w SKIP LOCKED),"
					" i AS (INSERT INTO %s (%s) SELECT %s FROM b ON CONFLICT (%s) DO NOTHING)",
					written, rk_relation_name(split->wide), where, rk_split_key_columns(key, "w."), limit,
					rk_relation_name(split->history), written, written, rk_split_key_columns(key, ""));
}

/*
 * The same, and the last key of as many rows that are not locked: a row that is
 * locked is the one that it is by then, whose key may be far ahead. Up to this
 * key all were locked and copied, or left for later.
 */
static char *
copy_and_tell_sql(const RkSplit *split, const RkRowKey *key, const char *where, int limit)
{
	char	   *columns = rk_split_key_columns(key, "w.");
	StringInfoData order;

	initStringInfo(&order);
	for (int i = 0; i < key->count; i++)
		appendStringInfo(&order, "%sr.%s DESC", i > 0 ? ", " : "", quote_identifier(key->names[i]));
	return psprintf("WITH r AS MATERIALIZED (SELECT %s FROM ONLY %s w WHERE %s ORDER BY %s LIMIT %d), %s"
					" SELECT %s, pg_catalog.count(*) OVER () FROM r ORDER BY %s LIMIT 1",
					columns, rk_relation_name(split->wide), where, columns, limit,
					copy_sql(split, key, where, limit), rk_split_key_columns(key, "r."), order.data);
}

/* ---- a batch ---- */

static void
set_local(const char *setting, const char *value)
{
	(void) set_config_option(setting, value, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

/*
 * Become the owner, past row security, with the session's settings, as the
 * functions of a CHECK expect them; but the search path is the split's.
 */
static void
become_owner(const RkSplit *split, RkIdentity *saved)
{
	rk_identity_assume_owner(saved, split->owner);
	(void) set_config_option("search_path", split->search_path, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* In a transaction that copies rows: it gives way to others. */
static void
begin_copying(void)
{
	set_local("deadlock_timeout", DEADLOCK_MS);
	set_local("lock_timeout", LOCK_MS);
	/* another session is to read the key as it was written */
	set_local("DateStyle", "ISO, YMD");
	set_local("IntervalStyle", "postgres");
	set_local("extra_float_digits", "1");
	rk_constraints_immediate();
}

/* A key's values of their texts. */
static void
read_position(const RkRowKey *key, List *position, Oid *types, Datum *values)
{
	for (int i = 0; i < list_length(position); i++)
	{
		Oid			input;
		Oid			parameter;

		/* it has passed the checks of a domain */
		types[i] = getBaseType(key->types[i]);
		getTypeInputInfo(types[i], &input, &parameter);
		values[i] = OidInputFunctionCall(input, list_nth(position, i), parameter, -1);
	}
}

/* Run a query. */
static int
run(const char *sql, int nargs, Oid *types, Datum *values)
{
	int			result = SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0);

	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	return SPI_processed;
}

/*
 * Copy some rows that come after a key (NULL: the first ones; texts). Returns
 * how many were looked at; *last: the key of the last one, in the caller's
 * memory.
 */
int
rk_split_copy(const RkSplit *split, List *position, int limit, List **last)
{
	MemoryContext caller = CurrentMemoryContext;
	RkRowKey   *key = key_of(split->wide);
	Oid			types[INDEX_MAX_KEYS];
	Datum		values[INDEX_MAX_KEYS];
	RkIdentity	saved;
	int			count = 0;
	char	   *sql = copy_and_tell_sql(split, key, position == NIL ? "true" : after_key(key), limit);

	begin_copying();
	become_owner(split, &saved);
	read_position(key, position, types, values);
	SPI_connect();
	*last = NIL;
	if (run(sql, list_length(position), types, values) > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(caller);
		bool		isnull;

		for (int i = 0; i < key->count; i++)
			*last = lappend(*last, SPI_getvalue(row, desc, i + 1));
		count = (int) DatumGetInt64(SPI_getbinval(row, desc, key->count + 1, &isnull));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return count;
}

static char *
missing(const RkSplit *split, const RkRowKey *key)
{
	return psprintf("NOT EXISTS (SELECT FROM %s h WHERE %s)", rk_relation_name(split->history), same_key(key));
}

/* Copy some of the rows that are missing still, which nobody has locked. */
static void
copy_missing(const RkSplit *split, int limit)
{
	RkRowKey   *key = key_of(split->wide);
	RkIdentity	saved;

	begin_copying();
	become_owner(split, &saved);
	SPI_connect();
	(void) run(psprintf("WITH %s SELECT pg_catalog.count(*) FROM b", copy_sql(split, key, missing(split, key), limit)), 0, NULL, NULL);
	SPI_finish();
	rk_identity_restore(&saved);
}

static bool
ask(const RkSplit *split, const char *sql)
{
	RkIdentity	saved;
	bool		isnull;
	bool		result;

	become_owner(split, &saved);
	SPI_connect();
	(void) run(sql, 0, NULL, NULL);
	result = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	rk_identity_restore(&saved);
	return result && !isnull;
}

/* Whether all rows are there: the unlocked read. */
static bool
is_copied(const RkSplit *split)
{
	RkRowKey   *key = key_of(split->wide);

	return ask(split, psprintf("SELECT NOT EXISTS (SELECT FROM ONLY %s w WHERE %s)",
							   rk_relation_name(split->wide), missing(split, key)));
}

/* Whether both have the same rows, in one snapshot. written: but for generated columns. */
static bool
is_same(const RkSplit *split, bool written)
{
	Relation	rel = table_open(split->wide, AccessShareLock);
	char	   *digest = psprintf("SELECT ROW(pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashtextextended(ROW(%s)::pg_catalog.text, 0)))::pg_catalog.text",
								  columns_of(rel, "x.", written));

	table_close(rel, NoLock);
	return ask(split, psprintf("SELECT (%s FROM ONLY %s x) OPERATOR(pg_catalog.=) (%s FROM %s x)",
							   digest, rk_relation_name(split->wide), digest, rk_relation_name(split->history)));
}

/* ---- step 3: the rows ---- */

static void
copy_batch(RkSplitCall *call)
{
	RkSplit    *split = rk_split_current(call->root);
	List	   *last;
	int			count;

	if (call->batches % PROGRESS_EVERY == 0)
	{
		rk_progress_update(3, call->done);
		call->altered = !rk_split_is_unaltered(split);
		if (!call->altered)
			rk_split_check(split->root, split->wide);
	}
	call->more = false;
	if (call->altered || split->scanned)
		return;
	call->for_good = true;
	count = rk_split_copy(split, split->position, call->limit, &last);
	call->for_good = false;
	call->more = count > 0;
	call->done += count;
	if (count == 0)
		rk_split_note(split, "scanned = true");
	else
		rk_split_note_position(split, last);
}

/* So many rows that others wait for them no longer than they would for anybody. */
static void
set_limit(RkSplitCall *call, double limit)
{
	call->limit = Max(SMALLEST_BATCH, Min(LARGEST_BATCH, (int) limit));
}

static void
shorten_batch(RkSplitCall *call)
{
	set_limit(call, call->limit / 2);
}

static void
run_batch(RkSplitCall *call, RkSplitStep step)
{
	long		took = rk_split_give_way(call, step, shorten_batch);

	set_limit(call, Min(call->limit * 2.0, call->limit * (double) BATCH_US / took));
}

static void
copy_rest(RkSplitCall *call)
{
	RkSplit    *split = rk_split_useful(call);

	if (split == NULL || split->copied_at != 0)
		return;
	call->for_good = true;
	copy_missing(split, call->limit);
}

/* All are there, and this transaction is after the last that copied some. */
static void
note_copied(RkSplitCall *call)
{
	RkSplit    *split = rk_split_useful(call);

	call->more = false;
	if (split == NULL || split->copied_at != 0)
		return;
	if (is_copied(split))
		rk_split_note(split, psprintf("copied_at = " INT64_FORMAT,
									  (int64) U64FromFullTransactionId(GetCurrentFullTransactionId())));
	else
		call->more = true;
}

/*
 * All the rows. Those that somebody had locked are looked for until he is done:
 * to look for them is to read the whole partition, so not all of the time.
 */
void
rk_split_copy_rows(RkSplitCall *call)
{
	call->limit = FIRST_BATCH;
	call->batches = 0;
	do
	{
		run_batch(call, copy_batch);
		call->batches++;
	} while (call->more && !call->altered);
	for (int attempts = 0; !call->altered; attempts++)
	{
		TimestampTz begun = GetCurrentTimestamp();

		rk_split_commit(call, note_copied);
		if (!call->more || call->altered)
			return;
		if (attempts > 0)
			rk_partition_wait(attempts, Min(LONGEST_REST_MS,
											LOOKS_SHARE * (int) TimestampDifferenceMilliseconds(begun, GetCurrentTimestamp())));
		run_batch(call, copy_rest);
	}
}

/* ---- step 4: old snapshots ---- */

/*
 * Whether a snapshot of this database may be from before the last rows were
 * copied. All that are there now are asked, every time: one may be handed from
 * session to session.
 */
static void
look_for_snapshots(RkSplitCall *call)
{
	RkSplit    *split = rk_split_useful(call);
	int			count;

	call->more = false;
	if (split == NULL)
		return;
	(void) GetCurrentVirtualXIDs(XidFromFullTransactionId(FullTransactionIdFromU64((uint64) split->copied_at)),
								 true, false, PROC_IS_AUTOVACUUM | PROC_IN_VACUUM, &count);
	call->more = count > 0;
	if (call->batches++ == 0)
		rk_progress_update(4, 0);
}

void
rk_split_wait_for_snapshots(RkSplitCall *call)
{
	call->batches = 0;
	for (int attempts = 0;; attempts++)
	{
		rk_split_commit(call, look_for_snapshots);
		if (!call->more || call->altered)
			return;
		rk_partition_wait(Min(attempts, 4), 0);
	}
}

/* ---- step 5: comparing ---- */

static void
begin_comparing(RkSplitCall *call)
{
	rk_progress_update(5, 0);
}

static void
compare(RkSplitCall *call)
{
	RkSplit    *split = rk_split_useful(call);

	if (split == NULL)
		return;
	call->for_good = true;
	/* a writer may have missed it since that was asked, see split.c */
	if (is_same(split, false))
		return;
	if (is_same(split, true))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("generated columns of %s would have other values", rk_relation_name(split->wide)),
				 errdetail("What they are generated by has changed since some of them were."),
				 errhint("UPDATE the columns that they are generated from (SET them to themselves), then split it.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s does not have the rows of %s", rk_relation_name(split->history), rk_relation_name(split->wide)),
			 errdetail("Somebody has written to it."),
			 errhint("CALL rowkeeper.partition_convert(%s, split => true) begins again.",
					 quote_literal_cstr(rk_relation_name(split->root)))));
}

void
rk_split_compare(RkSplitCall *call)
{
	rk_split_commit(call, begin_comparing);
	rk_split_commit(call, compare);
}
