/*
 * flag_guard.c
 *
 * The guard of a foreign key that points to a table in flag mode: a live row
 * of the child must not come to reference a deleted row, be it inserted,
 * given another key or brought back itself. A constraint trigger on the
 * child, deferrable as its foreign key is; a key that references nothing is
 * left to the foreign key.
 *
 * Lock first, then look. The KEY SHARE lock goes to the newest version of the
 * parent's row: if somebody is deleting it and has come to the point where he
 * looks for children, he holds a lock that we wait for; if he has not come
 * that far, he will wait for ours, and see our row. So a look with a snapshot
 * taken after the lock tells the truth until we are done. (The lock itself
 * does not: it is content with the old version of a row whose key did not
 * change, even after waiting.)
 */
#include "soft_delete/soft_delete.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* What one guard (its trigger on one relation) knows; for the session. */
typedef struct Guard
{
	Oid			trigger;		/* hash key */
	bool		valid;
	bool		active;			/* there is something to guard */
	Oid			relid;			/* of the trigger */
	Oid			child;
	Oid			parent;
	char		constraint[NAMEDATALEN];
	int			nkeys;
	AttrNumber	keys[INDEX_MAX_KEYS];	/* in relid */
	AttrNumber	deleted_at;		/* in relid; 0: its rows are always live */
	SPIPlanPtr	lock;
	SPIPlanPtr	look;
} Guard;

static HTAB *guards = NULL;
static uint64 guard_changes = 0;	/* invalidations so far */

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_guard);

/* ---- what a guard knows ---- */

static SPIPlanPtr
prepare(const RkLink *link, const char *select, const char *suffix)
{
	Oid			types[INDEX_MAX_KEYS];
	StringInfoData sql;
	SPIPlanPtr	plan;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s FROM %s%s", select,
					 get_rel_relkind(link->parent) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					 rk_relation_name(link->parent));
	for (int i = 0; i < link->nkeys; i++)
	{
		types[i] = get_atttype(link->child, link->child_keys[i]);
		appendStringInfoString(&sql, i > 0 ? " AND " : " WHERE ");
		generate_operator_clause(&sql,
								 quote_identifier(get_attname(link->parent, link->parent_keys[i], false)),
								 get_atttype(link->parent, link->parent_keys[i]),
								 link->operators[i], psprintf("$%d", i + 1), types[i]);
	}
	appendStringInfoString(&sql, suffix);
	plan = SPI_prepare(sql.data, link->nkeys, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql.data, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

static void
free_plans(Guard *guard)
{
	SPIPlanPtr	lock = guard->lock;
	SPIPlanPtr	look = guard->look;

	guard->lock = guard->look = NULL;
	if (lock != NULL)
		SPI_freeplan(lock);
	if (look != NULL)
		SPI_freeplan(look);
}

/* The foreign key of a relation, or of what it is a partition of. */
static const RkLink *
link_named(Oid child, Oid parent, const char *name)
{
	for (;;)
	{
		ListCell   *lc;

		foreach(lc, rk_links_of(child))
		{
			RkLink	   *link = lfirst(lc);

			if (link->parent == parent && strcmp(link->name, name) == 0)
				return link;
		}
		if (!get_rel_relispartition(child))
			return NULL;
		child = get_partition_parent(child, true);
	}
}

/* Where the child itself says that a row is deleted; 0: nowhere. */
static AttrNumber
stamp_column(const Guard *guard)
{
	RkSoftDeleteOptions *options = rk_flag_options_of(guard->child);

	return options == NULL ? 0 : get_attnum(guard->relid, options->deleted_at);
}

/* The foreign key may be gone, or its table no longer in flag mode: nothing to guard. */
static void
fill_guard(Guard *guard, const TriggerData *trigger)
{
	uint64		before = guard_changes;
	const RkLink *link;
	RkSoftDeleteOptions *options;

	free_plans(guard);
	guard->relid = RelationGetRelid(trigger->tg_relation);
	guard->child = guard->relid;
	guard->parent = trigger->tg_trigger->tgconstrrelid;
	guard->active = false;
	link = trigger->tg_trigger->tgnargs < 1 ? NULL
		: link_named(guard->relid, guard->parent, trigger->tg_trigger->tgargs[0]);
	options = link == NULL ? NULL : rk_flag_options_of(guard->parent);
	if (options != NULL)
	{
		guard->active = true;
		guard->child = link->child;
		strlcpy(guard->constraint, link->name, NAMEDATALEN);
		guard->nkeys = link->nkeys;
		for (int i = 0; i < link->nkeys; i++)
			guard->keys[i] = guard->relid == guard->child ? link->child_keys[i]
				: get_attnum(guard->relid, get_attname(guard->child, link->child_keys[i], false));
		guard->deleted_at = stamp_column(guard);
		guard->lock = prepare(link, "1", " FOR KEY SHARE");
		guard->look = prepare(link, psprintf("%s IS NULL", quote_identifier(options->deleted_at)), "");
	}
	/* the locks that its statements take may have let news in */
	guard->valid = before == guard_changes;
}

static Guard *
guard_of(const TriggerData *trigger)
{
	bool		found;
	Guard	   *guard = hash_search(guards, &trigger->tg_trigger->tgoid, HASH_ENTER, &found);

	if (!found)
	{
		guard->valid = false;
		guard->lock = guard->look = NULL;
	}
	if (!guard->valid)
		fill_guard(guard, trigger);
	return guard;
}

static void
invalidate_guards(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS scan;
	Guard	   *guard;

	guard_changes++;
	hash_seq_init(&scan, guards);
	while ((guard = hash_seq_search(&scan)) != NULL)
		if (!OidIsValid(relid) || guard->relid == relid || guard->child == relid ||
			guard->parent == relid)
			guard->valid = false;
}

/* ---- one row ---- */

static uint64
run(SPIPlanPtr plan, Datum *values, Snapshot snapshot)
{
	int			result = SPI_execute_snapshot(plan, values, NULL, snapshot, InvalidSnapshot,
											  false, false, 1);

	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not look up a referenced row: %s", SPI_result_code_string(result));
	return SPI_processed;
}

/* Whether the referenced row is live; *found false: there is none. */
static bool
is_live(const Guard *guard, Datum *values, Snapshot snapshot, bool *found)
{
	bool		isnull;

	*found = run(guard->look, values, snapshot) > 0;
	return *found &&
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

RK_NORETURN static void
raise_deleted(const Guard *guard, Relation rel, TupleTableSlot *row)
{
	StringInfoData names;
	StringInfoData values;

	initStringInfo(&names);
	initStringInfo(&values);
	for (int i = 0; i < guard->nkeys; i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(rel), guard->keys[i] - 1);
		bool		isnull;
		Datum		value = slot_getattr(row, guard->keys[i], &isnull);
		Oid			output;
		bool		varlena;

		getTypeOutputInfo(column->atttypid, &output, &varlena);
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", NameStr(column->attname));
		appendStringInfo(&values, "%s%s", i > 0 ? ", " : "", OidOutputFunctionCall(output, value));
	}
	ereport(ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("live row of table \"%s\" violates foreign key constraint \"%s\": what it references is deleted",
					get_rel_name(guard->child), guard->constraint),
			 errdetail("Key (%s)=(%s) is of a deleted row of table \"%s\".",
					   names.data, values.data, get_rel_name(guard->parent)),
			 errhint("Restore that row first."),
			 errtableconstraint(rel, guard->constraint)));
}

/* Lock, look, and say what is wrong. */
static void
check_parent(const Guard *guard, Relation rel, TupleTableSlot *row, Datum *values)
{
	Snapshot	snapshot = InvalidSnapshot; /* one of now */
	bool		found;

	if (IsolationUsesXactSnapshot())
	{
		CommandCounterIncrement();	/* be sure all my own work is visible */
		snapshot = GetLatestSnapshot();
	}
	(void) run(guard->lock, values, snapshot);
	if (IsolationUsesXactSnapshot())
		snapshot = GetLatestSnapshot();
	if (is_live(guard, values, snapshot, &found) || !found)
		return;
	if (IsolationUsesXactSnapshot() &&
		is_live(guard, values, GetTransactionSnapshot(), &found))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent soft delete"),
				 errdetail("The row of table \"%s\" that is referenced was deleted at the same time.",
						   get_rel_name(guard->parent))));
	raise_deleted(guard, rel, row);
}

static void
check_row(const Guard *guard, Relation rel, TupleTableSlot *row)
{
	Datum		values[INDEX_MAX_KEYS];
	TupleTableSlot *newest = NULL;
	bool		check = true;

	/*
	 * the row may have been updated since, at the latest where we are
	 * deferred
	 */
	if (!table_tuple_satisfies_snapshot(rel, row, SnapshotSelf))
	{
		newest = table_slot_create(rel, NULL);
		check = rk_row_fetch_newest(rel, row->tts_tid, newest) &&
			(guard->deleted_at == 0 || slot_attisnull(newest, guard->deleted_at));
		row = newest;
	}
	for (int i = 0; i < guard->nkeys && check; i++)
	{
		bool		isnull;

		values[i] = slot_getattr(row, guard->keys[i], &isnull);
		check = !isnull;
	}
	if (check)
		check_parent(guard, rel, row, values);
	if (newest != NULL)
		ExecDropSingleTupleTableSlot(newest);
}

/*
 * rowkeeper._soft_delete_guard(constraint text, stamp text) is the guard of a
 * foreign key, on the child. Locks: KEY SHARE on the referenced row, as the
 * foreign key. Errors: 23503 it is deleted; 40001 it was deleted at the same
 * time, under REPEATABLE READ and above.
 */
Datum
rowkeeper_soft_delete_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleTableSlot *row;
	Guard	   *guard;
	Oid			user;
	int			context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired AFTER ROW", "_soft_delete_guard")));
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newslot : trigger->tg_trigslot;

	/*
	 * As the parent's owner, past row security: so do foreign keys. The
	 * statements are prepared as he, too: policies are added, or left out,
	 * there.
	 */
	SPI_connect();
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(rk_relation_owner(trigger->tg_trigger->tgconstrrelid),
						   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	guard = guard_of(trigger);
	if (guard->active)
		check_row(guard, trigger->tg_relation, row);
	SetUserIdAndSecContext(user, context);
	SPI_finish();
	PG_RETURN_POINTER(NULL);
}

void
rk_flag_guard_init(void)
{
	guards = rk_cache_create("rowkeeper guards", 64, sizeof(Guard));
	rk_relcache_listen(invalidate_guards);
}
