/*
 * split_apply.c
 *
 * While a partition is divided (split.c), whatever is written to it is written
 * to the table that takes its place as well, by triggers that fire first and
 * always. What they do depends on the state of the row and not on the order
 * in which rows are told of (a user's trigger may have changed one again
 * before its turn comes): a version is written as long as it is the row's
 * last, and a key is taken away as long as the partition has no row of it.
 *
 * It is done as the table's owner, past row security, whoever writes. The
 * snapshot is the latest one: a transaction's own, where that is kept from
 * statement to statement, knows less than the partition's row locks ensure, so
 * that rows would be missed, or the writer would fail for it. The owner's code
 * that runs meanwhile (functions of CHECK constraints) may do what it may do in
 * the partition, where it runs as the writer. But as the owner it must not find
 * what the writer has put into a search_path of his; it has the one of who
 * called for the split.
 *
 * Once a table was altered, its copy is of no use, and split.c starts anew.
 * Until then nothing is written to it: no writer fails for us. After the swap
 * every writer fails who writes to the partition itself, which is no longer one
 * and about to be dropped: whoever waited for the swap would lose his rows.
 */
#include "partition/partition.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_partition_split_apply);

/* A partition that is divided, as this session knows it. */
typedef struct Mirror
{
	Oid			wide;			/* hash key */
	bool		valid;			/* what follows is true */
	bool		active;			/* there is a copy, and it is of use */
	bool		divided;		/* the copy has taken its place */
	int			running;		/* plans, further up the stack */
	char	   *search_path;	/* of users' code that may run; NULL: none does */
	bool		at_risk;		/* it may run past forced row security */
	Oid			history;
	Oid			owner;
	int			columns;		/* that are written */
	AttrNumber *numbers;
	int			keys;
	AttrNumber *key_numbers;
	SPIPlanPtr	put;
	SPIPlanPtr	take;
	MemoryContext context;		/* of what is allocated */
} Mirror;

static HTAB *mirrors = NULL;

/* ---- what a session knows ---- */

static Oid	changed;				/* a relation; InvalidOid: any */

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
	rk_relcache_listen(relation_changed);
	CacheRegisterSyscacheCallback(NAMESPACEOID, schema_changed, (Datum) 0);
}

static void
forget(Mirror *mirror)
{
	if (mirror->put != NULL)
		SPI_freeplan(mirror->put);
	if (mirror->take != NULL)
		SPI_freeplan(mirror->take);
	if (mirror->context != NULL)
		MemoryContextDelete(mirror->context);
	mirror->put = mirror->take = NULL;
	mirror->context = NULL;
	mirror->search_path = NULL;
	mirror->active = false;
	mirror->divided = false;
	mirror->at_risk = false;
}

/* Run a query on a table's OID as the extension, with the latest snapshot; false: no row. */
static bool
look(const char *query, Oid relid)
{
	SPIPlanPtr	plan = SPI_prepare(query, 1, (Oid[]) {OIDOID});
	Datum		value = ObjectIdGetDatum(relid);

	if (plan == NULL || SPI_execute_snapshot(plan, &value, NULL, GetLatestSnapshot(), InvalidSnapshot,
											 true, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", query);
	return SPI_processed > 0;
}

/* What a row of the registry says; in the mirror's context. */
static void
take_over(Mirror *mirror, HeapTuple row, TupleDesc desc)
{
	bool		isnull;
	MemoryContext old;

	mirror->divided = DatumGetBool(SPI_getbinval(row, desc, 2, &isnull));
	if (mirror->divided)
		return;
	mirror->history = DatumGetObjectId(SPI_getbinval(row, desc, 1, &isnull));
	mirror->at_risk = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull)) && !isnull;
	old = MemoryContextSwitchTo(mirror->context);
	mirror->search_path = SPI_getvalue(row, desc, 4);
	MemoryContextSwitchTo(old);
}

/*
 * The copy of a partition, or that it has taken its place; false: there is none,
 * or what both had when it was begun has changed since. (A constraint or index
 * that was added fails nobody here; that it is there, split.c sees.)
 */
static bool
find_history(Mirror *mirror)
{
	RkIdentity	saved;
	bool		found;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	found = look("SELECT s.history::oid, s.swapped, c.relforcerowsecurity AND x.runs_code,"
				 "  CASE WHEN x.runs_code THEN s.search_path END"
				 " FROM rowkeeper._partition_splits s LEFT JOIN pg_class c ON c.oid = s.history"
				 " CROSS JOIN LATERAL (SELECT rowkeeper._partition_split_runs_code(s.history)) x (runs_code)"
				 " CROSS JOIN LATERAL (SELECT " RK_SPLIT_OBJECTS("s.relation, s.partition, s.history") ") o (objects)"
				 " WHERE s.partition = $1 AND s.watched AND (s.swapped OR c.oid IS NOT NULL AND s.objects <@ o.objects"
				 "  AND ARRAY(SELECT x FROM unnest(o.objects) x WHERE x LIKE 'column %') <@ s.objects)", mirror->wide);
	if (found)
		take_over(mirror, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
	SPI_finish();
	rk_identity_restore(&saved);
	return found;
}

static SPIPlanPtr
keep_plan(const char *sql, int count, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(sql, count, types);

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", sql);
	return plan;
}

static void
prepare_put(Mirror *mirror, Relation rel, const RkRowKey *key)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Oid		   *types = palloc(sizeof(Oid) * desc->natts);
	StringInfoData names;
	StringInfoData values;
	StringInfoData changes;

	initStringInfo(&names);
	initStringInfo(&values);
	initStringInfo(&changes);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		char	   *name;

		if (column->attisdropped || column->attgenerated != '\0')
			continue;
		name = pstrdup(quote_identifier(NameStr(column->attname)));
		mirror->numbers[mirror->columns] = column->attnum;
		types[mirror->columns++] = column->atttypid;
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", name);
		appendStringInfo(&values, "%s$%d", values.len > 0 ? ", " : "", mirror->columns);
		appendStringInfo(&changes, "%s%s = EXCLUDED.%s", changes.len > 0 ? ", " : "", name, name);
	}
	/* the key too: equal is not the same with every type */
	mirror->put = keep_plan(psprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (%s) DO UPDATE SET %s",
									 rk_relation_name(mirror->history), names.data, values.data,
									 rk_split_key_columns(key, ""), changes.data),
							mirror->columns, types);
}

static void
prepare_take(Mirror *mirror, Relation rel, const RkRowKey *key)
{
	StringInfoData here;
	StringInfoData there;

	initStringInfo(&here);
	initStringInfo(&there);
	for (int i = 0; i < key->count; i++)
	{
		char	   *name = pstrdup(quote_identifier(key->names[i]));

		mirror->key_numbers[i] = get_attnum(mirror->wide, key->names[i]);
		appendStringInfo(&here, "%sh.%s %s $%d", i > 0 ? " AND " : "", name, key->equals[i], i + 1);
		appendStringInfo(&there, "%sw.%s %s $%d", i > 0 ? " AND " : "", name, key->equals[i], i + 1);
	}
	mirror->keys = key->count;
	mirror->take = keep_plan(psprintf("DELETE FROM %s h WHERE %s AND NOT EXISTS (SELECT FROM ONLY %s w WHERE %s)",
									  rk_relation_name(mirror->history), here.data,
									  rk_relation_name(mirror->wide), there.data),
							 key->count, (Oid *) key->types);
}

/* Become the owner; the writer's settings stay, but where names are looked for. */
static void
become_owner(const Mirror *mirror, RkIdentity *saved)
{
	GetUserIdAndSecContext(&saved->user, &saved->sec_context);
	SetUserIdAndSecContext(mirror->owner,
						   saved->sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	saved->users_code = mirror->at_risk;
	if (mirror->at_risk)
		rk_plans_at_risk();
	saved->guc_level = NewGUCNestLevel();
	if (mirror->search_path != NULL)
		(void) set_config_option("search_path", mirror->search_path, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (!row_security)
		(void) set_config_option("row_security", "on", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
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
	if (!find_history(mirror) || mirror->divided)
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
	become_owner(mirror, &saved);
	SPI_connect();
	prepare_put(mirror, rel, key);
	prepare_take(mirror, rel, key);
	SPI_finish();
	rk_identity_restore(&saved);
	mirror->active = true;
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
	{
		PG_TRY();
		{
			prepare(mirror, rel);
		}
		PG_CATCH();
		{
			mirror->valid = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	return mirror;
}

/* ---- one row ---- */

static void
run_plan(Mirror *mirror, SPIPlanPtr plan, Datum *values, const char *nulls)
{
	RkIdentity	saved;

	become_owner(mirror, &saved);
	SPI_connect();
	mirror->running++;
	PG_TRY();
	{
		if (SPI_execute_snapshot(plan, values, nulls, GetLatestSnapshot(), InvalidSnapshot, false, true, 0) < 0)
			elog(ERROR, "could not write to the copy of a partition");
	}
	PG_FINALLY();
	{
		mirror->running--;
	}
	PG_END_TRY();
	SPI_finish();
	rk_identity_restore(&saved);
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

static void
put_row(Mirror *mirror, Relation rel, HeapTuple tuple)
{
	Datum	   *values;
	char	   *nulls;

	if (!is_last(rel, tuple))
		return;
	values = palloc(sizeof(Datum) * mirror->columns);
	nulls = palloc(mirror->columns);
	for (int i = 0; i < mirror->columns; i++)
	{
		bool		isnull;

		values[i] = heap_getattr(tuple, mirror->numbers[i], RelationGetDescr(rel), &isnull);
		nulls[i] = isnull ? 'n' : ' ';
	}
	run_plan(mirror, mirror->put, values, nulls);
	pfree(values);
	pfree(nulls);
}

static void
take_row(Mirror *mirror, Relation rel, HeapTuple tuple)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull;

	for (int i = 0; i < mirror->keys; i++)
		values[i] = heap_getattr(tuple, mirror->key_numbers[i], RelationGetDescr(rel), &isnull);
	run_plan(mirror, mirror->take, values, NULL);
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
		take_row(mirror, rel, event->tg_trigtuple);
	else
	{
		if (!has_same_key(mirror, rel, event->tg_trigtuple, event->tg_newtuple))
			take_row(mirror, rel, event->tg_trigtuple);
		put_row(mirror, rel, event->tg_newtuple);
	}
}

static void
apply_truncate(const Mirror *mirror)
{
	RkIdentity	saved;

	become_owner(mirror, &saved);
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
