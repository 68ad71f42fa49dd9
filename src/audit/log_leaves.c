/*
 * log_leaves.c
 *
 * Retention classes and weekly leaves of the log. A class holds what is kept
 * equally long, because a leaf that all tables share could only be dropped at
 * the longest retention. Below it one leaf a week, Monday 00:00 UTC to the
 * next, made ahead of time: the write path never runs DDL. An entry whose week
 * has no leaf goes to log_overflow with class NULL, and maintenance moves it
 * (log_upkeep.c).
 *
 * A leaf is made by CREATE TABLE LIKE and ATTACH, which takes SHARE UPDATE
 * EXCLUSIVE on its class; PARTITION OF would wait for every reader of the log
 * and make every writer wait behind it. It takes after log_overflow: only
 * leaves have indexes. With partitioned ones over two levels a parallel
 * pg_restore runs into deadlocks (ATTACH of a leaf's index against that of its
 * class's).
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

#define FIRST_MONDAY (2 * USECS_PER_DAY)	/* 2000-01-03, from 2000-01-01 */

/* ---- weeks ---- */

/* The start of the week, Monday 00:00 UTC, that a moment lies in. */
TimestampTz
rk_audit_week_of(TimestampTz at)
{
	TimestampTz offset = (at - FIRST_MONDAY) % RK_LOG_WEEK;

	return at - (offset < 0 ? offset + RK_LOG_WEEK : offset);
}

/* YYYYMMDD or YYYY-MM-DD of a week's first day. */
static char *
week_date(TimestampTz week, const char *format)
{
	int			year;
	int			month;
	int			day;

	j2date((int) (week / USECS_PER_DAY) + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	return psprintf(format, year, month, day);
}

static char *
leaf_name(int16 klass, TimestampTz week)
{
	return psprintf("log_c%d_%s", klass, week_date(week, "%04d%02d%02d"));
}

/* The table that the leaves of a class are partitions of, or InvalidOid. */
Oid
rk_audit_class_table(int16 klass)
{
	return rk_audit_log_relation(psprintf("log_c%d", klass));
}

/* ---- leaves ---- */

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

/* The leaf of one week below a class, or InvalidOid. */
static Oid
find_leaf(Oid parent, TimestampTz week)
{
	ListCell   *lc;

	foreach(lc, find_inheritance_children(parent, NoLock))
	{
		TimestampTz from;
		TimestampTz to;

		if (rk_audit_leaf_bounds(lfirst_oid(lc), &from, &to) &&
			from <= week && week < to)
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

static void
create_leaf(int16 klass, TimestampTz week)
{
	char	   *name = leaf_name(klass, week);

	(void) rk_run(rk_extension_owner(),
				  psprintf("CREATE TABLE rowkeeper_log.%s (LIKE rowkeeper_log.log_overflow INCLUDING ALL);"
						   "ALTER TABLE rowkeeper_log.%s ENABLE ROW LEVEL SECURITY;"
						   "ALTER TABLE rowkeeper_log.%s REPLICA IDENTITY FULL",
						   name, name, name));
	rk_store_reset_relation_acl(rk_audit_log_relation(name));
	(void) rk_run(rk_extension_owner(),
				  psprintf("ALTER TABLE rowkeeper_log.log_c%d ATTACH PARTITION rowkeeper_log.%s "
						   "FOR VALUES FROM ('%s 00:00:00+00') TO ('%s 00:00:00+00')",
						   klass, name,
						   week_date(week, "%04d-%02d-%02d"),
						   week_date(week + RK_LOG_WEEK, "%04d-%02d-%02d")));
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

/* The leaf of one week, created where it is missing. */
Oid
rk_audit_leaf_ensure(int16 klass, TimestampTz week)
{
	Oid			parent = rk_audit_class_table(klass);
	Oid			leaf = find_leaf(parent, week);

	if (OidIsValid(leaf))
		return leaf;

	lock_structure();
	if (!OidIsValid(find_leaf(parent, week)))
		create_leaf(klass, week);
	return find_leaf(parent, week);
}

/* From this week to the last one ahead; how many were missing. */
static int64
ensure_leaves_ahead(int16 klass)
{
	TimestampTz this_week = rk_audit_week_of(GetCurrentTimestamp());
	bool		there[RK_LOG_WEEKS_AHEAD + 1] = {false};
	int64		created = 0;
	ListCell   *lc;

	foreach(lc, find_inheritance_children(rk_audit_class_table(klass), NoLock))
	{
		TimestampTz from;
		TimestampTz to;

		if (rk_audit_leaf_bounds(lfirst_oid(lc), &from, &to))
			for (int i = 0; i <= RK_LOG_WEEKS_AHEAD; i++)
				if (from <= this_week + i * RK_LOG_WEEK && this_week + i * RK_LOG_WEEK < to)
					there[i] = true;
	}
	for (int i = 0; i <= RK_LOG_WEEKS_AHEAD; i++)
		if (!there[i])
		{
			(void) rk_audit_leaf_ensure(klass, this_week + i * RK_LOG_WEEK);
			created++;
		}
	return created;
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
						   "ALTER TABLE rowkeeper_log.log_c%d ENABLE ROW LEVEL SECURITY",
						   klass, klass));
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
	(void) ensure_leaves_ahead((int16) klass);
	return (int16) klass;
}

/*
 * Make the leaves of the weeks ahead, in every class; returns how many. Locks:
 * SHARE UPDATE EXCLUSIVE on the log and a class that lacks one; nobody's reads
 * or writes wait.
 */
int64
rk_audit_maintain_ahead(void)
{
	int64		created = 0;
	ListCell   *lc;

	if (!OidIsValid(rk_audit_log_relation("log")))
		return 0;
	foreach(lc, rk_audit_classes())
	{
		int16		klass = ((RkRetentionClass *) lfirst(lc))->klass;

		ensure_class_table(klass);
		created += ensure_leaves_ahead(klass);
	}
	return created;
}
