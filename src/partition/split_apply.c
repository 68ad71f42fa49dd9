/*
 * split_apply.c
 *
 * While a partition is divided (split.c), whatever is written to it is written
 * to the table that takes its place as well, by triggers that fire first and
 * always. What they do depends on the state of the row and not on the order
 * in which rows are told of (a user's trigger may have changed one again
 * before its turn comes): a version is written as long as it is the row's
 * last, and the row of a key is taken away unless the partition has the same
 * one under that key by now.
 *
 * It is done with the rights of the table's owner, past row security, whoever
 * writes; but by the writer (split_as_writer.c). The snapshot is the latest one: a
 * transaction's own, where that is kept from statement to statement, knows less
 * than the partition's row locks ensure, so that rows would be missed, or the
 * writer would fail for it.
 *
 * Once a table was altered, its copy is of no use, and split.c starts anew.
 * Until then nothing is written to it: no writer fails for us. But he leaves a
 * mark, without which what was altered back, or rolled back, would pass for
 * what it was, and what he wrote would be lost. One that is committed is enough.
 * After the swap every writer fails who writes to the partition itself, which
 * is no longer one and about to be dropped: whoever waited for the swap would
 * lose his rows.
 */
#include "partition/partition.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_partition_split_apply);

/* A partition that is divided, as this session knows it. */
typedef struct Mirror
{
	Oid			wide;			/* hash key */
	bool		valid;			/* what follows is true */
	bool		active;			/* there is a copy, and it is of use */
	bool		lost;			/* it never will be: a mark is committed */
	bool		copied;			/* all rows are there, once it is known */
	FullTransactionId missed_by;	/* it has settled that there is none */
	TransactionId missed_in;	/* or that it is of no use; a subtransaction */
	bool		divided;		/* the copy has taken its place */
	int			running;		/* plans, further up the stack */
	Oid			history;
	Oid			owner;
	int			columns;		/* that are written */
	AttrNumber *numbers;
	int			keys;
	AttrNumber *key_numbers;
	SPIPlanPtr	put;
	SPIPlanPtr	change;			/* NULL: there is nothing but the key */
	SPIPlanPtr	refresh;
	SPIPlanPtr	take;
	MemoryContext context;		/* of what is allocated */
} Mirror;

static HTAB *mirrors = NULL;

/* ---- what a session knows ---- */

static Oid	changed;			/* a relation; InvalidOid: any */

static void
invalidate(void *entry)
{
	Mirror	   *mirror = entry;

	if (!OidIsValid(changed) || mirror->wide == changed || mirror->history == changed)
		mirror->valid = false;
}

static void
relation_changed(Datum arg, Oid relid)
{
	if (mirrors == NULL)
		return;
	changed = relid;
	rk_cache_visit(mirrors, InvalidOid, invalidate);
}

/* Plans are made of names. */
static void
schema_changed(Datum arg, int cache, uint32 hash)
{
	relation_changed(arg, InvalidOid);
}

void
rk_split_apply_init(void)
{
	rk_split_as_writer_init();
	rk_relcache_listen(relation_changed);
	CacheRegisterSyscacheCallback(NAMESPACEOID, schema_changed, (Datum) 0);
}

static void
forget(Mirror *mirror)
{
	SPIPlanPtr *plans[] = {&mirror->put, &mirror->change, &mirror->refresh, &mirror->take};

	for (int i = 0; i < lengthof(plans); i++)
	{
		if (*plans[i] != NULL)
			SPI_freeplan(*plans[i]);
		*plans[i] = NULL;
	}
	if (mirror->context != NULL)
		MemoryContextDelete(mirror->context);
	mirror->context = NULL;
	mirror->history = InvalidOid;
	mirror->active = false;
	mirror->lost = false;
	mirror->copied = false;
	mirror->divided = false;
}

/* Run a query on a table's OID with the latest snapshot, planned once a session; false: no row. */
static bool
look(SPIPlanPtr *plan, const char *query, Oid relid)
{
	Oid			types[1] = {OIDOID};
	Datum		value = ObjectIdGetDatum(relid);

	if (SPI_execute_snapshot(rk_plan_once(plan, query, 1, types), &value, NULL, GetLatestSnapshot(), InvalidSnapshot,
							 true, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", query);
	return SPI_processed > 0;
}

/*
 * Whether somebody who has missed the copy has committed: it is of no use for
 * good, and nobody need say so again.
 */
static bool
is_lost(Oid wide)
{
	static SPIPlanPtr plan = NULL;

	if (!look(&plan, "SELECT m.xmin FROM rowkeeper._partition_splits s"
			  " JOIN rowkeeper._partition_split_misses m ON m.history = s.history"
			  " WHERE s.partition = $1 AND s.watched AND NOT s.swapped", wide))
		return false;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		writer = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		if (!TransactionIdIsCurrentTransactionId(DatumGetTransactionId(writer)))
			return true;
	}
	return false;
}

/* What a row of the registry says; whether the copy is of use. */
static bool
take_over(Mirror *mirror, HeapTuple row, TupleDesc desc)
{
	Datum		history;
	bool		isnull;

	mirror->divided = DatumGetBool(SPI_getbinval(row, desc, 2, &isnull));
	if (mirror->divided)
		return false;
	history = SPI_getbinval(row, desc, 1, &isnull);
	if (isnull)
		return false;
	mirror->history = DatumGetObjectId(history);
	return DatumGetBool(SPI_getbinval(row, desc, 3, &isnull)) && !isnull;
}

/*
 * The copy of a partition, or that it has taken its place; false: there is none,
 * or it is of no use: what both had when it was begun has changed since, or the
 * owner has no rights in it.
 */
static bool
find_history(Mirror *mirror)
{
	static SPIPlanPtr plan = NULL;
	RkIdentity	saved;
	bool		useful = false;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	mirror->lost = is_lost(mirror->wide);
	if (!mirror->lost &&
		look(&plan, "SELECT s.history::oid, s.swapped,"
			 "  c.oid IS NOT NULL AND s.objects = rowkeeper._partition_split_objects(s.relation, s.partition, s.history)"
			 "   AND has_table_privilege(c.relowner, c.oid, 'SELECT') AND has_table_privilege(c.relowner, c.oid, 'INSERT')"
			 "   AND has_table_privilege(c.relowner, c.oid, 'UPDATE') AND has_table_privilege(c.relowner, c.oid, 'DELETE')"
			 " FROM rowkeeper._partition_splits s LEFT JOIN pg_class c ON c.oid = s.history"
			 " WHERE s.partition = $1 AND s.watched", mirror->wide))
		useful = take_over(mirror, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
	SPI_finish();
	rk_identity_restore(&saved);
	return useful;
}

static SPIPlanPtr
keep_plan(const char *sql, int count, Oid *types, int options)
{
	SPIPlanPtr	plan = SPI_prepare_cursor(sql, count, types, options);

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", sql);
	return plan;
}

/* The key's columns of a table, each equal to its parameter. */
static char *
key_is(const Mirror *mirror, const RkRowKey *key, const char *prefix, const int *parameters)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < key->count; i++)
		appendStringInfo(&sql, "%s%s%s %s $%d", i > 0 ? " AND " : "", prefix, quote_identifier(key->names[i]),
						 key->equals[i], parameters == NULL ? i + 1 : parameters[i]);
	return sql.data;
}

/* What is written of a row, in SQL. */
typedef struct Columns
{
	StringInfoData names;
	StringInfoData values;		/* parameters */
	StringInfoData here;		/* the copy's own, h */
	StringInfoData there;		/* the partition's, w */
	StringInfoData excluded;	/* SET of what could not be inserted */
	StringInfoData changes;		/* SET of all but the key */
	int			key_parameters[INDEX_MAX_KEYS];
	Oid		   *types;
} Columns;

static void
add_column(Columns *columns, Mirror *mirror, Form_pg_attribute column)
{
	const char *name = quote_identifier(NameStr(column->attname));
	const char *comma = mirror->columns > 0 ? ", " : "";
	bool		is_key = false;

	mirror->numbers[mirror->columns] = column->attnum;
	columns->types[mirror->columns++] = column->atttypid;
	appendStringInfo(&columns->names, "%s%s", comma, name);
	appendStringInfo(&columns->values, "%s$%d", comma, mirror->columns);
	appendStringInfo(&columns->here, "%sh.%s", comma, name);
	appendStringInfo(&columns->there, "%sw.%s", comma, name);
	/* the key too: equal is not the same with every type */
	appendStringInfo(&columns->excluded, "%s%s = EXCLUDED.%s", comma, name, name);
	for (int i = 0; i < mirror->keys; i++)
	{
		if (mirror->key_numbers[i] != column->attnum)
			continue;
		columns->key_parameters[i] = mirror->columns;
		is_key = true;
	}
	if (!is_key)
		appendStringInfo(&columns->changes, "%s%s = $%d", columns->changes.len > 0 ? ", " : "", name, mirror->columns);
}

static void
read_columns(Columns *columns, Mirror *mirror, TupleDesc desc)
{
	StringInfo	lists[] = {&columns->names, &columns->values, &columns->here, &columns->there, &columns->excluded, &columns->changes};

	for (int i = 0; i < lengthof(lists); i++)
		initStringInfo(lists[i]);
	columns->types = palloc(sizeof(Oid) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped && column->attgenerated == '\0')
			add_column(columns, mirror, column);
	}
}

/*
 * put: a row that is new here, whatever is there under its key. change: one that
 * may not be copied yet, and is not copied by who changes it: the copy's foreign
 * keys would be checked, and he wait for rows that he has no business with.
 * refresh: what the partition has of a key by now. take: the row of a key that
 * is another one in the partition by now, or none. What looks for a key is planned
 * for that key each time: a plan for any has all the partitions and their indexes,
 * and the writer would keep a lock on each until he commits.
 */
static void
prepare_plans(Mirror *mirror, Relation rel, const RkRowKey *key)
{
	char	   *history = pstrdup(rk_relation_name(mirror->history));
	char	   *wide = pstrdup(rk_relation_name(mirror->wide));
	char	   *there = key_is(mirror, key, "w.", NULL);
	char	   *conflict;
	Columns		columns;

	mirror->keys = key->count;
	for (int i = 0; i < key->count; i++)
		mirror->key_numbers[i] = get_attnum(mirror->wide, key->names[i]);
	read_columns(&columns, mirror, RelationGetDescr(rel));
	conflict = psprintf("ON CONFLICT (%s) DO UPDATE SET %s", rk_split_key_columns(key, ""), columns.excluded.data);
	mirror->put = keep_plan(psprintf("INSERT INTO %s (%s) VALUES (%s) %s",
									 history, columns.names.data, columns.values.data, conflict),
							mirror->columns, columns.types, 0);
	if (columns.changes.len > 0)
		mirror->change = keep_plan(psprintf("UPDATE %s h SET %s WHERE %s", history, columns.changes.data,
											key_is(mirror, key, "h.", columns.key_parameters)),
								   mirror->columns, columns.types, CURSOR_OPT_CUSTOM_PLAN);
	mirror->refresh = keep_plan(psprintf("INSERT INTO %s (%s) SELECT %s FROM ONLY %s w WHERE %s %s",
										 history, columns.names.data, columns.there.data, wide, there, conflict),
								key->count, (Oid *) key->types, 0);
	/* by the bytes, which asks no code of anybody's */
	mirror->take = keep_plan(psprintf("DELETE FROM %s h WHERE %s AND NOT EXISTS (SELECT FROM ONLY %s w WHERE %s"
									  " AND ROW(%s)::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(%s)::pg_catalog.record)",
									  history, key_is(mirror, key, "h.", NULL), wide, there,
									  columns.there.data, columns.here.data),
							 key->count, (Oid *) key->types, CURSOR_OPT_CUSTOM_PLAN);
}

static void
prepare(Mirror *mirror, Relation rel)
{
	MemoryContext old;
	RkRowKey   *key;
	RkIdentity	saved;

	forget(mirror);
	/* what is read now may change while it is read */
	mirror->valid = true;
	/* as long as the session, like what points to it */
	mirror->context = AllocSetContextCreate(TopMemoryContext, "rowkeeper split", ALLOCSET_SMALL_SIZES);
	if (!find_history(mirror))
		return;
	mirror->owner = rk_relation_owner(mirror->history);
	old = MemoryContextSwitchTo(mirror->context);
	mirror->columns = 0;
	mirror->numbers = palloc(sizeof(AttrNumber) * RelationGetDescr(rel)->natts);
	mirror->key_numbers = palloc(sizeof(AttrNumber) * INDEX_MAX_KEYS);
	MemoryContextSwitchTo(old);
	key = rk_row_key_of(rel);
	if (key == NULL)
		return;
	rk_split_become_owner(mirror->owner, &saved);
	SPI_connect();
	prepare_plans(mirror, rel, key);
	SPI_finish();
	rk_identity_restore(&saved);
	mirror->active = true;
}

/*
 * There is no copy of use to write to. Whoever writes nevertheless, leaves a
 * mark that goes with what he writes where that is rolled back. One is enough
 * for all that is rolled back with it: as long as that lasts nobody can begin
 * another copy.
 */
static void
settle_missed(Mirror *mirror)
{
	mirror->valid = false;
	if (OidIsValid(mirror->history))
		(void) rk_run_about(rk_extension_owner(), mirror->history,
							"INSERT INTO rowkeeper._partition_split_misses (history) VALUES ($1)");
	mirror->missed_by = GetTopFullTransactionId();
	mirror->missed_in = GetCurrentTransactionId();
}

static bool
is_missed(const Mirror *mirror)
{
	return TransactionIdIsValid(mirror->missed_in) &&
		FullTransactionIdEquals(mirror->missed_by, GetTopFullTransactionIdIfAny()) &&
		TransactionIdIsCurrentTransactionId(mirror->missed_in);
}

/*
 * What was found of use is, until the server says that one of the tables has
 * changed; so is what never will be. What was not may be by the next
 * subtransaction: it is not kept.
 */
static void
renew(Mirror *mirror, Relation rel)
{
	if (is_missed(mirror))
	{
		mirror->active = false;
		return;
	}
	PG_TRY();
	{
		prepare(mirror, rel);
	}
	PG_CATCH();
	{
		mirror->valid = false;
		mirror->active = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!mirror->active && !mirror->divided && !mirror->lost)
		settle_missed(mirror);
}

static Mirror *
mirror_of(Relation rel)
{
	Oid			wide = RelationGetRelid(rel);
	Mirror	   *mirror;
	bool		found;

	if (mirrors == NULL)
		mirrors = rk_cache_create("rowkeeper splits", 4, sizeof(Mirror));
	mirror = hash_search(mirrors, &wide, HASH_ENTER, &found);
	if (!found)
		memset((char *) mirror + sizeof(Oid), 0, sizeof(Mirror) - sizeof(Oid));
	if (!mirror->valid && mirror->running == 0)
		renew(mirror, rel);
	return mirror;
}

/* ---- one row ---- */

/* Returns how many rows were written. */
static uint64
run_plan(Mirror *mirror, SPIPlanPtr plan, Datum *values, const char *nulls)
{
	uint64		count = 0;

	mirror->running++;
	PG_TRY();
	{
		count = rk_split_run_as_writer(plan, mirror->owner, values, nulls);
	}
	PG_FINALLY();
	{
		mirror->running--;
	}
	PG_END_TRY();
	return count;
}

/* Whether this version is the row's last one; another has a turn of its own. */
static bool
is_last(Relation rel, HeapTuple tuple)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		found = table_tuple_fetch_row_version(rel, &tuple->t_self, SnapshotSelf, slot);

	ExecDropSingleTupleTableSlot(slot);
	return found;
}

/* Write a row by a plan that takes all of it; returns how many there were. */
static uint64
write_row(Mirror *mirror, SPIPlanPtr plan, Relation rel, HeapTuple tuple)
{
	Datum	   *values = palloc(sizeof(Datum) * mirror->columns);
	char	   *nulls = palloc(mirror->columns);
	uint64		count;

	for (int i = 0; i < mirror->columns; i++)
	{
		bool		isnull;

		values[i] = heap_getattr(tuple, mirror->numbers[i], RelationGetDescr(rel), &isnull);
		nulls[i] = isnull ? 'n' : ' ';
	}
	count = run_plan(mirror, plan, values, nulls);
	pfree(values);
	pfree(nulls);
	return count;
}

/* Run a plan that takes the row's key. */
static void
run_by_key(Mirror *mirror, SPIPlanPtr plan, Relation rel, HeapTuple tuple)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull;

	for (int i = 0; i < mirror->keys; i++)
		values[i] = heap_getattr(tuple, mirror->key_numbers[i], RelationGetDescr(rel), &isnull);
	(void) run_plan(mirror, plan, values, NULL);
}

/* A row is new under its key; what has become of it since may have had its turn. */
static void
put_row(Mirror *mirror, Relation rel, HeapTuple tuple)
{
	if (is_last(rel, tuple))
		(void) write_row(mirror, mirror->put, rel, tuple);
	else
		run_by_key(mirror, mirror->refresh, rel, tuple);
}

/* Whether all rows are there that were not written since; once they are, they are. */
static bool
is_copied(Mirror *mirror)
{
	static SPIPlanPtr plan = NULL;
	RkIdentity	saved;

	if (mirror->copied)
		return true;
	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	mirror->copied = look(&plan, "SELECT FROM rowkeeper._partition_splits WHERE partition = $1 AND copied_at IS NOT NULL",
						  mirror->wide);
	SPI_finish();
	rk_identity_restore(&saved);
	return mirror->copied;
}

/*
 * A row has other values under its key. Where it is not copied yet it is not by
 * us: it is locked until we commit, so that the copy leaves it for later. Where
 * all are copied and this one is not there, it is new, and its own turn comes
 * later; or it was taken from there, by who may do anything.
 */
static void
change_row(Mirror *mirror, Relation rel, HeapTuple tuple)
{
	if (mirror->change == NULL || !is_last(rel, tuple))
		return;
	if (write_row(mirror, mirror->change, rel, tuple) == 0 && is_copied(mirror))
		(void) write_row(mirror, mirror->put, rel, tuple);
}

/* Whether the key is, byte by byte, what it was. */
static bool
has_same_key(const Mirror *mirror, Relation rel, HeapTuple before, HeapTuple after)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < mirror->keys; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, mirror->key_numbers[i] - 1);
		bool		null_before;
		bool		null_after;
		Datum		value_before = heap_getattr(before, mirror->key_numbers[i], desc, &null_before);
		Datum		value_after = heap_getattr(after, mirror->key_numbers[i], desc, &null_after);

		if (null_before != null_after ||
			(!null_before && !datum_image_eq(value_before, value_after, column->attbyval, column->attlen)))
			return false;
	}
	return true;
}

static void
apply_row(Mirror *mirror, TriggerData *event)
{
	Relation	rel = event->tg_relation;

	if (TRIGGER_FIRED_BY_INSERT(event->tg_event))
		put_row(mirror, rel, event->tg_trigtuple);
	else if (TRIGGER_FIRED_BY_DELETE(event->tg_event))
		run_by_key(mirror, mirror->take, rel, event->tg_trigtuple);
	else if (has_same_key(mirror, rel, event->tg_trigtuple, event->tg_newtuple))
		change_row(mirror, rel, event->tg_newtuple);
	else
	{
		run_by_key(mirror, mirror->take, rel, event->tg_trigtuple);
		put_row(mirror, rel, event->tg_newtuple);
	}
}

static void
apply_truncate(const Mirror *mirror)
{
	RkIdentity	saved;

	rk_split_become_owner(mirror->owner, &saved);
	SPI_connect();
	if (SPI_execute(psprintf("TRUNCATE %s", rk_relation_name(mirror->history)), false, 0) < 0)
		elog(ERROR, "could not truncate the copy of a partition");
	SPI_finish();
	rk_identity_restore(&saved);
}

/* Attached again by somebody, it is a partition like any other. */
static void
refuse_divided(Relation rel)
{
	if (rel->rd_rel->relispartition)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s was divided, is no partition any more, and is about to be dropped",
					rk_relation_name(RelationGetRelid(rel))),
			 errhint("Write to the partitioned table.")));
}

/*
 * rowkeeper._partition_split_apply() returns trigger: after rows of a
 * partition that is divided were written, or it was truncated. Nobody may
 * execute it, and so make a trigger of it, but the extension's owner; on
 * another table it does nothing.
 */
Datum
rowkeeper_partition_split_apply(PG_FUNCTION_ARGS)
{
	TriggerData *event = (TriggerData *) fcinfo->context;
	Mirror	   *mirror;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(event->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called as an AFTER trigger", "_partition_split_apply")));
	mirror = mirror_of(event->tg_relation);
	if (mirror->divided)
		refuse_divided(event->tg_relation);
	if (!mirror->active)
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_TRUNCATE(event->tg_event))
		apply_truncate(mirror);
	else if (TRIGGER_FIRED_FOR_ROW(event->tg_event))
		apply_row(mirror, event);
	return PointerGetDatum(NULL);
}
