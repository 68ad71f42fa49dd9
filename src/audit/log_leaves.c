/*
 * log_leaves.c
 *
 * Retention classes of the log and their weekly leaves. A class holds what is
 * kept equally long, because a leaf that all tables share could only be dropped
 * at the longest retention. Below it one leaf a week, Monday 00:00 UTC to the
 * next, made ahead of time and dropped as a whole: a class is a table whose
 * partitions are maintained like those of users' tables. An entry whose week
 * has no leaf goes to log_overflow with class NULL, and maintenance moves it
 * (log_upkeep.c): the write path never runs DDL.
 *
 * A leaf takes after log_overflow, because only leaves have indexes: with
 * partitioned ones over two levels a parallel pg_restore runs into deadlocks
 * (ATTACH of a leaf's index against that of its class's).
 */
#include "audit/audit.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define LEAF_EVERY "7 days"
#define LEAF_ORIGIN "2000-01-03 00:00:00"	/* a Monday */
#define LEAVES_AHEAD "56 days"

/* The table that the leaves of a class are partitions of, or InvalidOid. */
Oid
rk_audit_class_table(int16 klass)
{
	return rk_audit_log_relation(psprintf("log_c%d", klass));
}

static bool
range_bound(PartitionRangeDatum *bound, TimestampTz *value)
{
	if (bound->kind != PARTITION_RANGE_DATUM_VALUE)
		return false;
	*value = DatumGetTimestampTz(castNode(Const, bound->value)->constvalue);
	return true;
}

/*
 * The bounds of a leaf as stored; false for anything else (overflow, a class,
 * a leaf somebody attached with other bounds than ours).
 */
bool
rk_audit_leaf_bounds(Oid leaf, TimestampTz *from, TimestampTz *to)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(leaf));
	bool		isnull;
	Datum		value;
	bool		found = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	value = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relpartbound, &isnull);
	if (!isnull)
	{
		PartitionBoundSpec *spec = stringToNode(TextDatumGetCString(value));

		if (spec->strategy == PARTITION_STRATEGY_RANGE && !spec->is_default)
			found = range_bound(linitial(spec->lowerdatums), from) &&
				range_bound(linitial(spec->upperdatums), to);
	}
	ReleaseSysCache(tuple);
	return found;
}

/*
 * Whoever adds a class or a leaf holds this one lock, so that two of them wait
 * for each other instead of making the same thing twice, and cannot deadlock
 * over several classes. Neither reads nor writes of the log wait for it.
 */
static void
lock_structure(void)
{
	LockRelationOid(rk_audit_log_relation("log"), ShareUpdateExclusiveLock);
}

/* ---- classes ---- */

static void
ensure_class_table(int16 klass)
{
	Oid			owner = rk_extension_owner();
	Oid			relid = rk_audit_class_table(klass);

	if (OidIsValid(relid))
		return;
	(void) rk_run(owner,
				  psprintf("CREATE TABLE rowkeeper_log.log_c%d (LIKE rowkeeper_log.log INCLUDING ALL) "
						   "PARTITION BY RANGE (changed_at);"
						   "ALTER TABLE rowkeeper_log.log_c%d ENABLE ROW LEVEL SECURITY;"
						   "ALTER TABLE rowkeeper_log.log_c%d REPLICA IDENTITY FULL",
						   klass, klass, klass));
	rk_store_reset_relation_acl(rk_audit_class_table(klass));
	(void) rk_run(owner,
				  psprintf("ALTER TABLE rowkeeper_log.log ATTACH PARTITION rowkeeper_log.log_c%d "
						   "FOR VALUES IN (%d)", klass, klass));
}

static bool
equal_keep(const Interval *a, const Interval *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return DatumGetBool(DirectFunctionCall2(interval_eq, IntervalPGetDatum(a),
											IntervalPGetDatum(b)));
}

/*
 * All classes, as committed by now: under REPEATABLE READ the transaction's
 * own snapshot may not show one that another session has just made.
 */
List *
rk_audit_classes(void)
{
	Relation	classes = table_open(rk_audit_log_relation("classes"), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(classes, NULL);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(classes, snapshot, 0, NULL);
	List	   *result = NIL;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		RkRetentionClass *found = palloc0(sizeof(RkRetentionClass));
		bool		isnull;
		Datum		keep;

		found->klass = DatumGetInt16(slot_getattr(slot, 1, &isnull));
		keep = slot_getattr(slot, 2, &isnull);
		if (!isnull)
		{
			found->keep = palloc(sizeof(Interval));
			*found->keep = *DatumGetIntervalP(keep);
		}
		result = lappend(result, found);
	}
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(classes, AccessShareLock);
	return result;
}

/* The class of what is kept that long, or -1. */
static int
find_class(const Interval *keep)
{
	ListCell   *lc;

	foreach(lc, rk_audit_classes())
	{
		RkRetentionClass *known = lfirst(lc);

		if (equal_keep(known->keep, keep))
			return known->klass;
	}
	return -1;
}

static int16
insert_class(const Interval *keep)
{
	Oid			types[2] = {INT2OID, INTERVALOID};
	Datum		values[2];
	int			next = 0;
	ListCell   *lc;

	if (keep != NULL)
	{
		next = 1;				/* 0 is the class that is kept for ever */
		foreach(lc, rk_audit_classes())
			next = Max(next, ((RkRetentionClass *) lfirst(lc))->klass + 1);
	}
	if (next > PG_INT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many different retentions of the audit log")));

	values[0] = Int16GetDatum((int16) next);
	values[1] = keep == NULL ? (Datum) 0 : IntervalPGetDatum(keep);
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper_log.classes (class, keep) VALUES ($1, $2)",
					   2, types, values, keep == NULL ? " n" : "  ");
	return (int16) next;
}

/* ---- leaves ---- */

/* A class's table as one whose partitions are maintained. */
static RkPartitioned *
make_partitioned(int16 klass, const Interval *keep)
{
	RkPartitioned *table = palloc0(sizeof(RkPartitioned));

	table->root = rk_audit_class_table(klass);
	table->template = rk_audit_log_relation("log_overflow");
	table->every = LEAF_EVERY;
	table->origin = LEAF_ORIGIN;
	table->ahead = LEAVES_AHEAD;
	table->keep = keep;
	return table;
}

/* The tables of all classes: RkPartitioned *. */
static List *
class_tables(void)
{
	List	   *result = NIL;
	ListCell   *lc;

	if (!OidIsValid(rk_audit_log_relation("log")))
		return NIL;
	foreach(lc, rk_audit_classes())
	{
		RkRetentionClass *klass = lfirst(lc);

		if (OidIsValid(rk_audit_class_table(klass->klass)))
			result = lappend(result, make_partitioned(klass->klass, klass->keep));
	}
	return result;
}

/*
 * The leaf of a class that takes a moment, made where it is missing; InvalidOid:
 * the one there is is being taken away.
 */
Oid
rk_audit_leaf_ensure(int16 klass, TimestampTz at)
{
	return rk_partitioned_make_at(make_partitioned(klass, NULL), TimestampTzGetDatum(at));
}

/*
 * The retention class of what is kept that long (NULL: for ever), with its
 * table and its leaves from this week on. Intervals that are equal for the
 * server ('1 month', '30 days') share a class. Of two callers with a new
 * retention the second waits for the first to commit.
 */
int16
rk_audit_class_ensure(const Interval *keep)
{
	int			klass = find_class(keep);

	if (klass < 0)
	{
		lock_structure();
		klass = find_class(keep);
		if (klass < 0)
			klass = insert_class(keep);
	}
	ensure_class_table((int16) klass);
	rk_partitioned_make_ahead(make_partitioned((int16) klass, NULL));
	return (int16) klass;
}

void
rk_audit_leaves_init(void)
{
	rk_partitioned_register(class_tables);
}
