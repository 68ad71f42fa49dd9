/*
 * rowkeeper_bench.c
 *
 * What the benchmark needs inside a backend: a row trigger that does nothing,
 * the CPU time of the backend, and the floor. The floor takes finished log
 * entries that were loaded into memory before and does nothing but insert them
 * into a leaf of the log in batches, as the server's own functions do it:
 * table_multi_insert() a batch, ExecInsertIndexTuples() a tuple. It is the
 * yardstick for src/audit/log_writer.c, which has to find out, encode and form
 * all that and may only save where it knows more than the server does.
 */
#include "postgres.h"

#include <sys/resource.h>

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Debian's valgrind package has it; without it nothing is counted. */
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define HAVE_CALLGRIND true
#else
#define HAVE_CALLGRIND false
#define CALLGRIND_DUMP_STATS_AT(label) ((void) (label))
#endif

PG_MODULE_MAGIC;

/* The loaded entries, in a context of their own until the session ends. */
static MemoryContext entries_context = NULL;
static HeapTuple *entries = NULL;
static int	nentries = 0;

PG_FUNCTION_INFO_V1(bench_empty_trigger);
PG_FUNCTION_INFO_V1(bench_cpu);
PG_FUNCTION_INFO_V1(bench_mark);
PG_FUNCTION_INFO_V1(bench_load);
PG_FUNCTION_INFO_V1(bench_floor);
PG_FUNCTION_INFO_V1(bench_floor_trigger);

/* bench_empty_trigger(): the cost of a row trigger as such. */
Datum
bench_empty_trigger(PG_FUNCTION_ARGS)
{
	return PointerGetDatum(NULL);
}

static double
microseconds(struct timeval time)
{
	return time.tv_sec * 1e6 + time.tv_usec;
}

/* bench_cpu() -> double precision: user and system time of this backend, µs. */
Datum
bench_cpu(PG_FUNCTION_ARGS)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	PG_RETURN_FLOAT8(microseconds(usage.ru_utime) + microseconds(usage.ru_stime));
}

/*
 * bench_mark(label text) -> boolean: under callgrind, write the instructions
 * counted since the last mark; whether callgrind can be told.
 */
Datum
bench_mark(PG_FUNCTION_ARGS)
{
	char	   *label = text_to_cstring(PG_GETARG_TEXT_PP(0));

	CALLGRIND_DUMP_STATS_AT(label);
	PG_RETURN_BOOL(HAVE_CALLGRIND);
}

static void
load_entries(Oid table)
{
	Relation	source = table_open(table, AccessShareLock);
	TableScanDesc scan = table_beginscan(source, GetActiveSnapshot(), 0, NULL);
	int			size = 1024;
	MemoryContext old;
	HeapTuple	tuple;

	if (entries_context != NULL)
		MemoryContextDelete(entries_context);
	entries_context = AllocSetContextCreate(TopMemoryContext, "benchmark entries",
											ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(entries_context);
	entries = palloc(size * sizeof(HeapTuple));
	nentries = 0;
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		if (nentries == size)
		{
			size *= 2;
			entries = repalloc_huge(entries, size * sizeof(HeapTuple));
		}
		entries[nentries++] = heap_copytuple(tuple);
	}
	MemoryContextSwitchTo(old);
	table_endscan(scan);
	table_close(source, AccessShareLock);
}

/* bench_load(source regclass) -> bigint: keep a table's rows in memory. */
Datum
bench_load(PG_FUNCTION_ARGS)
{
	load_entries(PG_GETARG_OID(0));
	PG_RETURN_INT64(nentries);
}

static void
insert_batch(ResultRelInfo *target, EState *estate, TupleTableSlot **slots,
			 HeapTuple *tuples, int count)
{
	Relation	leaf = target->ri_RelationDesc;
	BulkInsertState bulk = GetBulkInsertState();

	for (int i = 0; i < count; i++)
	{
		ExecStoreHeapTuple(tuples[i], slots[i], false);
		slots[i]->tts_tableOid = RelationGetRelid(leaf);
	}
	table_multi_insert(leaf, slots, count, GetCurrentCommandId(true), 0, bulk);
	for (int i = 0; i < count; i++)
	{
#if PG_VERSION_NUM >= 160000
		ExecInsertIndexTuples(target, slots[i], estate, false, false, NULL, NIL, false);
#else
		ExecInsertIndexTuples(target, slots[i], estate, false, false, NULL, NIL);
#endif
		ResetPerTupleExprContext(estate);
	}
	FreeBulkInsertState(bulk);
}

/* Insert some of what was loaded. */
static void
insert_entries(Oid table, HeapTuple *tuples, int count, int batch)
{
	Relation	leaf = table_open(table, RowExclusiveLock);
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *target = makeNode(ResultRelInfo);
	TupleTableSlot **slots = palloc(batch * sizeof(TupleTableSlot *));
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "benchmark floor",
											   ALLOCSET_DEFAULT_SIZES);

	InitResultRelInfo(target, leaf, 1, NULL, 0);
	ExecOpenIndices(target, false);
	for (int i = 0; i < batch; i++)
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(leaf), &TTSOpsHeapTuple);

	for (int done = 0; done < count; done += batch)
	{
		MemoryContext old = MemoryContextSwitchTo(work);

		CHECK_FOR_INTERRUPTS();
		insert_batch(target, estate, slots, tuples + done, Min(batch, count - done));
		MemoryContextSwitchTo(old);
		MemoryContextReset(work);
	}

	for (int i = 0; i < batch; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	ExecCloseIndices(target);
	FreeExecutorState(estate);
	table_close(leaf, NoLock);
}

/*
 * bench_floor(leaf regclass, batch integer) -> bigint: insert what was loaded.
 * Locks: ROW EXCLUSIVE on the leaf.
 */
Datum
bench_floor(PG_FUNCTION_ARGS)
{
	insert_entries(PG_GETARG_OID(0), entries, nentries, PG_GETARG_INT32(1));
	PG_RETURN_INT64(nentries);
}

/*
 * bench_floor_trigger(leaf, inserted, updated): of each row, insert the next of the
 * entries that a table has for its kind, which a session's first row loads.
 */
Datum
bench_floor_trigger(PG_FUNCTION_ARGS)
{
	static int	next = 0;
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	char	  **arguments = trigger->tg_trigger->tgargs;
	char	   *source = arguments[TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? 1 : 2];

	if (nentries == 0)
		load_entries(atooid(source));
	insert_entries(atooid(arguments[0]), &entries[next++ % nentries], 1, 1);
	return PointerGetDatum(NULL);
}
