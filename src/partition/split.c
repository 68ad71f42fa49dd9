/*
 * split.c
 *
 * A wide partition, as a conversion leaves one, is divided into partitions of
 * the table's period while it is in use: partition_convert(..., split => true).
 * They are those of a new partitioned table with the same bounds,
 * <table>_hist, which takes its place:
 *
 *	1  <table>_hist and its partitions, empty
 *	2  triggers that write to it what is written to the partition (split_apply.c)
 *	3  the rows there are (split_copy.c)
 *	4  every snapshot from before the last of them is gone: who has one would
 *	   not see rows there that he sees here
 *	5  both are compared, in one snapshot
 *	6  the swap: one is detached, the other attached, in one transaction
 *	7  the old one is dropped
 *	8  ANALYZE
 *
 * A row of rowkeeper._partition_splits says that a partition is on its way, and
 * how far; so whatever ends a call, the next goes on. What table and partition
 * had when that began is noted there, object by object, by version: whoever
 * alters one of them meanwhile makes the copy useless, and it is begun anew.
 */
#include "partition/partition.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#define STEPS 8
#define ROUNDS 3				/* before we give up against who alters it */
#define FIRST_PAUSE_MS 40
#define LONGEST_PAUSE_MS 2000
#define FIRST_BATCH 200
#define SMALLEST_BATCH 5
#define LARGEST_BATCH 5000
#define BATCH_US 15000
#define PROGRESS_EVERY 16		/* batches */
#define LEAVES_AT_ONCE 20

#define ROW_TRIGGER "!rowkeeper_split"
#define TRUNCATE_TRIGGER "!rowkeeper_split_truncate"
#define CHECK_NAME "rowkeeper_split"

/* ---- the registry ---- */

static Oid
oid_column(HeapTuple row, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

static List *
texts_of(Datum array)
{
	List	   *texts = NIL;
	Datum	   *elements;
	int			count;

	deconstruct_array(DatumGetArrayTypePCopy(array), TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &count);
	for (int i = 0; i < count; i++)
		texts = lappend(texts, TextDatumGetCString(elements[i]));
	return texts;
}

static Datum
array_of(List *texts)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(1, list_length(texts)));

	for (int i = 0; i < list_length(texts); i++)
		elements[i] = CStringGetTextDatum(list_nth(texts, i));
	return PointerGetDatum(construct_array(elements, list_length(texts), TEXTOID, -1, false, TYPALIGN_INT));
}

static RkSplit *
read_split(Oid root)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(root)};
	MemoryContext caller = CurrentMemoryContext;
	RkSplit    *split = NULL;
	RkIdentity	saved;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_with_args("SELECT partition::oid, history::oid, first, watched, position, scanned, copied_at, swapped"
							  " FROM rowkeeper._partition_splits WHERE relation = $1",
							  1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the splits");
	if (SPI_processed > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(caller);
		Datum		value;
		bool		isnull;

		split = palloc0(sizeof(RkSplit));
		split->root = root;
		split->owner = rk_relation_owner(root);
		split->wide = oid_column(row, desc, 1);
		split->history = oid_column(row, desc, 2);
		split->first = DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
		split->watched = DatumGetBool(SPI_getbinval(row, desc, 4, &isnull));
		value = SPI_getbinval(row, desc, 5, &isnull);
		if (!isnull)
			split->position = texts_of(value);
		split->scanned = DatumGetBool(SPI_getbinval(row, desc, 6, &isnull));
		value = SPI_getbinval(row, desc, 7, &isnull);
		if (!isnull)
			split->copied_at = DatumGetInt64(value);
		split->swapped = DatumGetBool(SPI_getbinval(row, desc, 8, &isnull));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return split;
}

static void
note(const RkSplit *split, const char *change)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(split->root)};

	if (rk_run_args(rk_extension_owner(),
					psprintf("UPDATE rowkeeper._partition_splits SET %s WHERE relation = $1", change),
					1, types, values, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the split of %s was given up meanwhile", rk_relation_name(split->root))));
}

static void
run_about(Oid relid, const char *sql)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(relid)};

	(void) rk_run_args(rk_extension_owner(), sql, 1, types, values, NULL);
}

static void
forget_split(Oid root)
{
	run_about(root, "DELETE FROM rowkeeper._partition_splits WHERE relation = $1");
}

static void
write_split(const RkSplit *split)
{
	Oid			types[4] = {OIDOID, OIDOID, OIDOID, INT8OID};
	Datum		values[4];

	values[0] = ObjectIdGetDatum(split->root);
	values[1] = ObjectIdGetDatum(split->wide);
	values[2] = ObjectIdGetDatum(split->history);
	values[3] = Int64GetDatum(split->first);
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper._partition_splits (relation, partition, history, first, objects)"
					   " VALUES ($1, $2, $3, $4, rowkeeper._partition_split_objects($1, $2, 0))",
					   4, types, values, NULL);
}

static bool
is_true(Oid root, const char *condition)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(root)};
	bool		isnull;
	Datum		result;

	result = rk_fetch(rk_extension_owner(),
					  psprintf("SELECT %s FROM rowkeeper._partition_splits s WHERE s.relation = $1", condition),
					  1, types, values, NULL, &isnull);
	return !isnull && DatumGetBool(result);
}

/* Whether all that was noted is as it was. */
static bool
is_unaltered(const RkSplit *split)
{
	return OidIsValid(split->wide) && OidIsValid(split->history) &&
		get_rel_relispartition(split->wide) && get_partition_parent(split->wide, true) == split->root &&
		is_true(split->root,
				split->watched
				? "s.objects = rowkeeper._partition_split_objects(s.relation, s.partition, s.history)"
				: "s.objects = rowkeeper._partition_split_objects(s.relation, s.partition, 0)");
}

/* ---- whether it can be ---- */

static void
check_split(Oid root, Oid wide)
{
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2];
	bool		isnull;
	Datum		problem;
	Relation	rel;
	RkRowKey   *key;

	values[0] = ObjectIdGetDatum(root);
	values[1] = ObjectIdGetDatum(wide);
	problem = rk_fetch(rk_extension_owner(),
					   "SELECT problem FROM rowkeeper._partition_split_problems($1, $2)"
					   " ORDER BY rank, problem COLLATE \"C\" LIMIT 1",
					   2, types, values, NULL, &isnull);
	if (!isnull)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot split %s: %s", rk_relation_name(wide), TextDatumGetCString(problem))));
	rel = table_open(wide, AccessShareLock);
	key = rk_row_key_of(rel);
	table_close(rel, NoLock);
	if (key == NULL || !rk_split_can_follow(key))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot split %s: %s", rk_relation_name(wide),
						key == NULL ? "it has no primary key" : "its primary key has a type of an extension")));
}

/* ---- the partitions to be ---- */

static const RkPartition *
find_part(const RkPartitionSet *set, Oid relid)
{
	for (int i = 0; i < set->count; i++)
		if (set->parts[i].relid == relid)
			return &set->parts[i];
	return NULL;
}

/* The table's set, of which there is only the wide partition: the model of the others. */
static RkPartitionSet
set_of_wide(const RkPartitionSet *set, const RkPartition *wide)
{
	RkPartitionSet result = *set;

	result.parts = palloc(sizeof(RkPartition));
	result.parts[0] = *wide;
	result.count = 1;
	return result;
}

/* The partitions that take its place: RkWanted *; NIL: more than are made by one call. */
static List *
plan_leaves(const RkPartitionSet *set, const RkPartition *wide, int64 first)
{
	RkPartitionSet empty = *set;
	List	   *leaves = NIL;
	int64		position = first;

	empty.count = 0;
	do
	{
		RkWanted   *leaf = rk_partition_wanted_for(&empty, position);

		if (leaves == NIL)
			leaf->lower_text = rk_partition_lower_text(set, wide);
		else
			leaf->lower_text = ((RkWanted *) llast(leaves))->upper_text;
		position = leaf->upper;
		if (position >= wide->upper)
			leaf->upper_text = rk_partition_upper_text(set, wide);
		leaves = lappend(leaves, leaf);
		if (list_length(leaves) > RK_MAX_CREATED)
			return NIL;
	} while (position < wide->upper);
	return leaves;
}

/* Where the period begins that has the oldest row. */
static int64
find_first(const RkPartitionSet *set, const RkPartition *wide)
{
	char	   *key = pstrdup(quote_identifier(set->key->name));
	bool		may_be_infinite = set->key->type == TIMESTAMPTZOID || set->key->type == TIMESTAMPOID ||
		set->key->type == DATEOID;
	bool		isnull;
	Datum		value;
	int64		position;

	value = rk_fetch(set->owner,
					 psprintf("SELECT %s FROM ONLY %s WHERE %s IS NOT NULL%s ORDER BY %s LIMIT 1", key,
							  rk_relation_name(wide->relid), key,
							  may_be_infinite ? psprintf(" AND %s OPERATOR(pg_catalog.>) '-infinity'", key) : "", key),
					 0, NULL, NULL, NULL, &isnull);
	position = isnull ? wide->upper - 1 : rk_key_position(set->key, value);
	if (wide->lower != RK_NO_START)
		position = Max(position, wide->lower);
	return rk_grid_point(&set->grid, rk_grid_number(&set->grid, Min(position, wide->upper - 1)));
}

static char *
history_name(Oid root)
{
	char	   *table = get_rel_name(root);
	int			length = strlen(table);

	if (length + strlen("_hist") < NAMEDATALEN)
		return psprintf("%s_hist", table);
	return psprintf("%.*s_%08x_hist", pg_mbcliplen(table, length, NAMEDATALEN - 1 - 14), table,
					hash_bytes((unsigned char *) table, length));
}

static char *
schema_of_new(const RkPartitionSet *set)
{
	return set->options->partition_schema != NULL ? set->options->partition_schema
		: get_namespace_name(get_rel_namespace(set->root));
}

/* ---- steps ---- */

typedef struct Call
{
	Oid			root;
	MemoryContext context;		/* of all of it */
	MemoryContext step_context;
	bool		insist;
	bool		more;
	bool		altered;		/* begin anew */
	int			limit;			/* rows of a batch */
	int			batches;
	int64		done;
	bool		swapped;
	bool		nothing;		/* is to be split */
	int			attempts;
	TimestampTz locked_at;
	ErrorData  *failure;		/* of a lock, in this step */
	char	   *reason;			/* the last one's */
} Call;

typedef void (*Step) (Call *call);

typedef struct StepRun
{
	Step		step;
	Call	   *call;
} StepRun;

static void
run_step(void *arg)
{
	StepRun    *run = arg;

	run->step(run->call);
}

/*
 * A step, committed. What locks rows must not fail for a snapshot that is
 * older than its statement, whatever the session's isolation is.
 */
static ErrorData *
try_step(Call *call, Step step)
{
	StepRun		run = {step, call};
	ErrorData  *error;
	MemoryContext old = MemoryContextSwitchTo(call->step_context);

	MemoryContextReset(call->step_context);
	XactIsoLevel = XACT_READ_COMMITTED;
	error = rk_attempt(run_step, &run);
	MemoryContextSwitchTo(old);
	if (error == NULL)
	{
		SPI_commit();
		CHECK_FOR_INTERRUPTS();
	}
	return error;
}

static void
commit_step(Call *call, Step step)
{
	ErrorData  *error = try_step(call, step);

	if (error == NULL)
		return;
	rk_progress_end();
	SPI_commit();
	ReThrowError(error);
}

static void
pause_between(int attempts)
{
	int			pause = Min(FIRST_PAUSE_MS << Min(attempts, 8), LONGEST_PAUSE_MS);

	pause = (int) pg_prng_uint64_range(&pg_global_prng_state, pause / 2, pause + pause / 2);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, pause, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
fail_for_lock(Call *call)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not lock %s and what belongs to it: %s", rk_relation_name(call->root), call->reason),
			 errhint("CALL rowkeeper.partition_convert(%s) goes on where it was.",
					 quote_literal_cstr(rk_relation_name(call->root)))));
}

static void
insist_on_step(Call *call, Step step)
{
	TimestampTz since = GetCurrentTimestamp();

	for (int attempts = 0;; attempts++)
	{
		call->failure = NULL;
		call->insist = attempts > 0;
		commit_step(call, step);
		if (call->failure == NULL)
			return;
		call->reason = MemoryContextStrdup(call->context, call->failure->message);
		if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), rk_lock_patience))
			commit_step(call, fail_for_lock);
		pause_between(attempts);
	}
}

/* The split that a step is of; it may be given up at any time. */
static RkSplit *
current_split(Call *call)
{
	RkSplit    *split = read_split(call->root);

	if (split == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the split of %s was given up meanwhile", rk_relation_name(call->root))));
	return split;
}

/* The same, where the copy is of use; NULL: it is not. */
static RkSplit *
useful_split(Call *call)
{
	RkSplit    *split = current_split(call);

	call->altered = !is_unaltered(split);
	return call->altered ? NULL : split;
}

static RkPartitionSet *
load_set(Oid root)
{
	RkPartitionOptions *options = rk_partition_options_of(root);

	if (options == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("partitions of %s are not maintained", rk_relation_name(root)),
				 errhint("SELECT rowkeeper.partition(%s) begins.", quote_literal_cstr(rk_relation_name(root)))));
	return rk_partition_set_load(root, options);
}

static void
add_lock(RkLockRequest *locks, int *count, Oid relid, LOCKMODE mode)
{
	locks[*count].relid = relid;
	locks[*count].mode = mode;
	(*count)++;
}

/* The tables of its foreign keys, for a partition that is to have them. */
static RkLockRequest *
partner_locks(Oid root, LOCKMODE mode, int room, int *count)
{
	List	   *partners = rk_partition_partners(root);
	RkLockRequest *locks = palloc0(sizeof(RkLockRequest) * (list_length(partners) + room + 1));
	ListCell   *lc;

	*count = 0;
	foreach(lc, partners)
		if (lfirst_oid(lc) != root)
		add_lock(locks, count, lfirst_oid(lc), mode);
	return locks;
}

/* ---- step 1: the new table ---- */

typedef struct Beginning
{
	RkPartitionSet *set;
	RkSplit    *split;
} Beginning;

static char *
text_about(Oid relid, const char *query)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(relid)};
	bool		isnull;
	Datum		result = rk_fetch(rk_extension_owner(), query, 1, types, values, NULL, &isnull);

	return isnull ? NULL : TextDatumGetCString(result);
}

static void
add_foreign_keys(const RkSplit *split)
{
	char	   *keys = text_about(split->root,
								  "SELECT string_agg(format('ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)), ', ' ORDER BY oid)"
								  " FROM pg_constraint WHERE conrelid = $1 AND contype = 'f'");

	if (keys != NULL)
		rk_partition_run(split->owner, psprintf("ALTER TABLE %s %s", rk_relation_name(split->history), keys));
}

static void
create_history(void *arg)
{
	Beginning  *beginning = arg;
	RkPartitionSet *set = beginning->set;
	RkSplit    *split = beginning->split;
	char	   *name = history_name(set->root);
	char	   *schema = schema_of_new(set);

	if (OidIsValid(get_relname_relid(name, get_namespace_oid(schema, false))))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation %s already exists, and the partitions of %s are to be under that name",
						quote_qualified_identifier(schema, name), rk_relation_name(split->wide)),
				 errhint("Rename it.")));
	rk_convert_run(split->owner, true,
				   psprintf("CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY) PARTITION BY RANGE (%s)%s",
							quote_qualified_identifier(schema, name), rk_relation_name(set->root),
							quote_identifier(set->key->name), rk_partition_storage(set->root, InvalidOid)));
	split->history = get_relname_relid(name, get_namespace_oid(schema, false));
	add_foreign_keys(split);
	rk_partition_dress(split->root, split->history, split->owner);
	rk_tell_partition_built(split->root, split->history);
	write_split(split);
}

static void
say_what_it_takes(const RkSplit *split)
{
	ereport(NOTICE,
			(errmsg("the rows of %s are copied: that needs about %s of disk space until it is dropped",
					rk_relation_name(split->wide),
					text_about(split->wide, "SELECT pg_size_pretty(pg_total_relation_size($1))"))));
}

static const RkPartition *
choose_wide(const RkPartitionSet *set, int64 *first)
{
	const RkPartition *wide = set->count > 0 ? &set->parts[0] : NULL;
	char	   *why = NULL;
	List	   *leaves;

	if (wide == NULL || wide->parent != set->root)
		return NULL;
	check_split(set->root, wide->relid);
	if (wide->pending)
		why = "its detach is pending";
	else if (wide->upper == RK_NO_END)
		why = "it has no end";
	if (why != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot split %s: %s", rk_relation_name(wide->relid), why)));
	*first = find_first(set, wide);
	leaves = plan_leaves(set, wide, *first);
	if (leaves == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot split %s: it would be more than %d partitions", rk_relation_name(wide->relid), RK_MAX_CREATED),
				 errhint("Its oldest row has %s: look whether that is right, or make partitions longer.",
						 rk_key_bound(set->key, *first))));
	return list_length(leaves) > 1 ? wide : NULL;
}

static void
begin_split(Call *call)
{
	RkPartitionSet *set;
	RkSplit    *split = palloc0(sizeof(RkSplit));
	const RkPartition *wide;
	int			count;
	Beginning	beginning;

	LockRelationOid(call->root, ShareUpdateExclusiveLock);
	set = load_set(call->root);
	wide = choose_wide(set, &split->first);
	if (wide == NULL)
	{
		call->nothing = true;
		ereport(NOTICE,
				(errmsg("the first partition of %s need not be split", rk_relation_name(call->root))));
		return;
	}
	split->root = call->root;
	split->owner = set->owner;
	split->wide = wide->relid;
	if (!call->insist)
		say_what_it_takes(split);
	beginning.set = set;
	beginning.split = split;
	(void) rk_partition_try(partner_locks(call->root, ShareRowExclusiveLock, 0, &count),
							create_history, &beginning, call->insist, &call->failure);
}

typedef struct Leaf
{
	const RkPartitionSet *set;
	const RkSplit *split;
	const RkWanted *wanted;
	Oid			relid;
} Leaf;

static void
attach_leaf(void *arg)
{
	Leaf	   *leaf = arg;

	rk_convert_run(leaf->split->owner, true,
				   psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)",
							rk_relation_name(leaf->split->history), rk_relation_name(leaf->relid),
							leaf->wanted->lower_text, leaf->wanted->upper_text));
}

static void
make_leaf(void *arg)
{
	Leaf	   *leaf = arg;
	int			count;
	RkLockRequest *locks = partner_locks(leaf->split->root, ShareRowExclusiveLock, 0, &count);
	ErrorData  *failure;

	leaf->relid = rk_partition_build(NULL, leaf->set, leaf->wanted);
	if (!rk_partition_try(locks, attach_leaf, leaf, true, &failure))
		ReThrowError(failure);
}

/* Some partitions of the new table. */
static void
make_leaves(Call *call)
{
	RkSplit    *split = useful_split(call);
	RkPartitionSet *set;
	RkPartitionSet model;
	const RkPartition *wide;
	int			made = 0;
	ListCell   *lc;

	call->more = false;
	if (split == NULL || split->watched)
		return;
	set = load_set(call->root);
	wide = find_part(set, split->wide);
	if (wide == NULL)
	{
		call->altered = true;
		return;
	}
	model = set_of_wide(set, wide);
	foreach(lc, plan_leaves(set, wide, split->first))
	{
		Leaf		leaf = {&model, split, lfirst(lc)};
		Oid			there = get_relname_relid(leaf.wanted->name, get_namespace_oid(schema_of_new(set), false));
		ErrorData  *error;

		if (OidIsValid(there) && get_rel_relispartition(there) &&
			get_partition_parent(there, true) == split->history)
			continue;
		error = rk_attempt(make_leaf, &leaf);
		if (error != NULL && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
			ReThrowError(error);
		call->failure = error;
		/* what was locked for it is given back */
		if (error != NULL || ++made == LEAVES_AT_ONCE || rk_partition_partners(call->root) != NIL)
		{
			call->more = true;
			return;
		}
	}
}

/* ---- step 2: the triggers ---- */

static void
create_triggers(void *arg)
{
	const RkSplit *split = arg;
	Oid			extension = rk_extension_owner();
	char	   *wide = rk_relation_name(split->wide);

	(void) rk_run(extension, psprintf("CREATE TRIGGER \"%s\" AFTER INSERT OR UPDATE OR DELETE ON %s"
									  " FOR EACH ROW EXECUTE FUNCTION rowkeeper._partition_split_apply()", ROW_TRIGGER, wide));
	(void) rk_run(extension, psprintf("CREATE TRIGGER \"%s\" AFTER TRUNCATE ON %s"
									  " FOR EACH STATEMENT EXECUTE FUNCTION rowkeeper._partition_split_apply()", TRUNCATE_TRIGGER, wide));
	(void) rk_run(extension, psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER \"%s\", ENABLE ALWAYS TRIGGER \"%s\"",
									  wide, ROW_TRIGGER, TRUNCATE_TRIGGER));
	note(split, "watched = true, objects = rowkeeper._partition_split_objects(relation, partition, history)");
}

/* What the table's own partitions are held to, so that ATTACH reads no row. */
static void
add_check(const RkPartitionSet *set, const RkPartition *wide, const RkSplit *split)
{
	char	   *key = pstrdup(quote_identifier(set->key->name));
	char	   *lower = wide->lower == RK_NO_START ? ""
		: psprintf(" AND %s >= %s", key, rk_partition_lower_text(set, wide));

	if (text_about(split->history, "SELECT conname::text FROM pg_constraint WHERE conrelid = $1 AND conname = '" CHECK_NAME "'") == NULL)
		rk_convert_run(split->owner, true,
					   psprintf("ALTER TABLE %s ADD CONSTRAINT " CHECK_NAME " CHECK (%s IS NOT NULL%s AND %s < %s)",
								rk_relation_name(split->history), key, lower, key, rk_partition_upper_text(set, wide)));
}

static void
watch(Call *call)
{
	RkSplit    *split = useful_split(call);
	RkPartitionSet *set;
	const RkPartition *wide;
	RkLockRequest locks[] = {
		{InvalidOid, ShareRowExclusiveLock},
		{InvalidOid, NoLock}
	};

	rk_progress_update(2, 0);
	if (split == NULL || split->watched)
		return;
	set = load_set(call->root);
	wide = find_part(set, split->wide);
	if (wide == NULL)
	{
		call->altered = true;
		return;
	}
	add_check(set, wide, split);
	locks[0].relid = split->wide;
	(void) rk_partition_try(locks, create_triggers, split, call->insist, &call->failure);
}

/* ---- step 3: the rows ---- */

static void
copy_batch(Call *call)
{
	RkSplit    *split = current_split(call);
	List	   *last;
	int			count;

	if (call->batches % PROGRESS_EVERY == 0)
	{
		rk_progress_update(3, call->done);
		call->altered = !is_unaltered(split);
		if (!call->altered)
			check_split(split->root, split->wide);
	}
	call->more = false;
	if (call->altered || split->scanned)
		return;
	count = rk_split_copy(split, split->position, call->limit, &last);
	call->more = count > 0;
	call->done += count;
	if (count == 0)
		note(split, "scanned = true");
	else
	{
		Oid			types[2] = {OIDOID, TEXTARRAYOID};
		Datum		values[2];

		values[0] = ObjectIdGetDatum(split->root);
		values[1] = array_of(last);
		if (rk_run_args(rk_extension_owner(),
						"UPDATE rowkeeper._partition_splits SET position = $2 WHERE relation = $1",
						2, types, values, NULL) != 1)
			note(split, "scanned = scanned");
	}
}

/* So many rows that others wait for them no longer than they would for anybody. */
static void
adapt_batch(Call *call, TimestampTz since, bool failed)
{
	long		took = Max(1, (long) (GetCurrentTimestamp() - since));

	if (failed)
		call->limit /= 2;
	else
		call->limit = (int) Min(call->limit * 2.0, call->limit * (double) BATCH_US / took);
	call->limit = Max(SMALLEST_BATCH, Min(LARGEST_BATCH, call->limit));
}

static bool
is_in_the_way(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

/* A step whose transaction gives way to others, and comes again. */
static void
give_way_at_step(Call *call, Step step)
{
	int			attempts = 0;

	for (;;)
	{
		TimestampTz since = GetCurrentTimestamp();
		ErrorData  *error = try_step(call, step);

		adapt_batch(call, since, error != NULL);
		if (error == NULL)
			return;
		if (!is_in_the_way(error))
			rk_progress_end();
		SPI_commit();
		if (!is_in_the_way(error))
			ReThrowError(error);
		pause_between(attempts++);
	}
}

static void
copy_rest(Call *call)
{
	RkSplit    *split = useful_split(call);

	if (split == NULL || split->copied_at != 0)
		return;
	rk_split_copy_rest(split, call->limit);
}

/* All are there, and this transaction is after the last that copied some. */
static void
note_copied(Call *call)
{
	RkSplit    *split = useful_split(call);

	call->more = false;
	if (split == NULL || split->copied_at != 0)
		return;
	if (rk_split_is_copied(split))
		note(split, psprintf("copied_at = " INT64_FORMAT, (int64) U64FromFullTransactionId(GetCurrentFullTransactionId())));
	else
		call->more = true;
}

static void
copy_rows(Call *call)
{
	call->limit = FIRST_BATCH;
	call->batches = 0;
	do
	{
		give_way_at_step(call, copy_batch);
		call->batches++;
	} while (call->more && !call->altered);
	for (int attempts = 0; !call->altered; attempts++)
	{
		commit_step(call, note_copied);
		if (!call->more || call->altered)
			return;
		if (attempts > 0)
			pause_between(attempts);
		give_way_at_step(call, copy_rest);
	}
}

/* ---- step 4: old snapshots ---- */

/*
 * Whether a snapshot of this database may be from before the last rows were
 * copied. All that are there now are asked, every time: one may be handed from
 * session to session.
 */
static void
look_for_snapshots(Call *call)
{
	RkSplit    *split = useful_split(call);
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

static void
wait_for_snapshots(Call *call)
{
	call->batches = 0;
	for (int attempts = 0;; attempts++)
	{
		commit_step(call, look_for_snapshots);
		if (!call->more || call->altered)
			return;
		pause_between(Min(attempts, 4));
	}
}

/* ---- step 5: comparing ---- */

static void
begin_comparing(Call *call)
{
	rk_progress_update(5, 0);
}

static void
compare(Call *call)
{
	RkSplit    *split = useful_split(call);

	if (split == NULL || rk_split_is_same(split))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s does not have the rows of %s", rk_relation_name(split->history), rk_relation_name(split->wide)),
			 errdetail("Somebody has written to it."),
			 errhint("SELECT rowkeeper.partition_off(%s) gives the split up; then begin again.",
					 quote_literal_cstr(rk_relation_name(split->root)))));
}

/* ---- step 6: the swap ---- */

typedef struct Swap
{
	Call	   *call;
	const RkSplit *split;
	char	   *lower;
	char	   *upper;
} Swap;

static void
drop_triggers(Oid wide)
{
	RkTriggerRow row;
	static const char *const names[] = {ROW_TRIGGER, TRUNCATE_TRIGGER};

	for (int i = 0; i < lengthof(names); i++)
		if (rk_trigger_read(wide, names[i], "_partition_split_apply", &row))
			(void) rk_run(rk_extension_owner(), psprintf("DROP TRIGGER \"%s\" ON %s", names[i], rk_relation_name(wide)));
}

/* The commit waits for no disk while others wait for it, as that of a conversion. */
static void
swap_under_locks(void *arg)
{
	Swap	   *swap = arg;
	const RkSplit *split = swap->split;
	char	   *root = rk_relation_name(split->root);

	swap->call->locked_at = GetCurrentTimestamp();
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	if (!is_unaltered(split))
	{
		swap->call->altered = true;
		return;
	}
	rk_partition_run(split->owner, psprintf("ALTER TABLE %s DETACH PARTITION %s", root, rk_relation_name(split->wide)));
	drop_triggers(split->wide);
	rk_partition_run(split->owner, psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)", root,
											rk_relation_name(split->history), swap->lower, swap->upper));
	rk_convert_run(split->owner, true, psprintf("ALTER TABLE %s DROP CONSTRAINT " CHECK_NAME, rk_relation_name(split->history)));
	note(split, "swapped = true");
	swap->call->swapped = true;
}

static RkLockRequest *
swap_locks(const RkSplit *split)
{
	List	   *tree = rk_relation_tree(split->history, NoLock);
	int			count;
	RkLockRequest *partners = partner_locks(split->root, ShareRowExclusiveLock, 0, &count);
	RkLockRequest *locks = palloc0(sizeof(RkLockRequest) * (list_length(tree) + count + 3));
	int			number = 0;
	ListCell   *lc;

	add_lock(locks, &number, split->root, AccessExclusiveLock);
	add_lock(locks, &number, split->wide, AccessExclusiveLock);
	for (int i = 0; i < count; i++)
		locks[number++] = partners[i];
	foreach(lc, tree)
		add_lock(locks, &number, lfirst_oid(lc), AccessExclusiveLock);
	return locks;
}

static void
swap(Call *call)
{
	RkSplit    *split = useful_split(call);
	RkPartitionSet *set;
	const RkPartition *wide;
	Swap		swap = {.call = call,.split = split};

	if (split == NULL)
		return;
	if (call->attempts++ == 0)
		rk_progress_update(6, 0);
	check_split(split->root, split->wide);
	set = load_set(call->root);
	wide = find_part(set, split->wide);
	swap.lower = rk_partition_lower_text(set, wide);
	swap.upper = rk_partition_upper_text(set, wide);
	rk_partition_dress_prepare(split->root);
	(void) rk_partition_try(swap_locks(split), swap_under_locks, &swap, call->insist, &call->failure);
}

static void
say_how_long(const Call *call)
{
	long		seconds;
	int			microseconds;

	TimestampDifference(call->locked_at, GetCurrentTimestamp(), &seconds, &microseconds);
	ereport(DEBUG1,
			(errmsg_internal("the table was locked for %.1f ms, after %d attempts",
							 seconds * 1000.0 + microseconds / 1000.0, call->attempts)));
}

/* ---- steps 7 and 8 ---- */

static void
drop_wide(void *arg)
{
	const RkSplit *split = arg;

	rk_partition_run(split->owner, psprintf("DROP TABLE %s", rk_relation_name(split->wide)));
	note(split, "partition = NULL");
}

static void
drop_old(Call *call)
{
	RkSplit    *split = current_split(call);
	int			count;
	RkLockRequest *locks;

	rk_progress_update(7, 0);
	if (!OidIsValid(split->wide))
		return;
	/* somebody has attached it again */
	if (get_rel_relispartition(split->wide))
	{
		note(split, "partition = NULL");
		return;
	}
	locks = partner_locks(split->wide, AccessExclusiveLock, 1, &count);
	add_lock(locks, &count, split->wide, AccessExclusiveLock);
	(void) rk_partition_try(locks, drop_wide, split, call->insist, &call->failure);
}

/* What the partitions show of the table only now that they are its own, such as indexes. */
static void
finish_split(Call *call)
{
	RkSplit    *split = current_split(call);
	ListCell   *lc;

	rk_progress_update(8, 0);
	if (OidIsValid(split->history))
		foreach(lc, rk_relation_tree(split->history, NoLock))
			rk_partition_dress(get_partition_parent(lfirst_oid(lc), true), lfirst_oid(lc), split->owner);
	forget_split(call->root);
}

static void
analyze_table(void *arg)
{
	Oid			root = *(Oid *) arg;

	rk_convert_run(rk_relation_owner(root), false, psprintf("ANALYZE %s", rk_relation_name(root)));
}

/* All is done by now: code of the owner's that fails here fails nothing else. */
static void
analyze(Call *call)
{
	ErrorData  *error = rk_attempt(analyze_table, &call->root);

	if (error != NULL)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not analyze %s: %s", rk_relation_name(call->root), error->message)));
	rk_progress_end();
}

/* ---- giving it up ---- */

static void
undo(void *arg)
{
	const RkSplit *split = arg;

	if (OidIsValid(split->wide))
		drop_triggers(split->wide);
	if (OidIsValid(split->history) && !get_rel_relispartition(split->history))
		rk_convert_run(split->owner, true, psprintf("DROP TABLE %s", rk_relation_name(split->history)));
	forget_split(split->root);
}

static void
undo_split(Call *call)
{
	RkSplit    *split = current_split(call);
	List	   *tree = OidIsValid(split->history) ? rk_relation_tree(split->history, NoLock) : NIL;
	int			count;
	RkLockRequest *locks = partner_locks(split->root, AccessExclusiveLock, list_length(tree) + 1, &count);
	ListCell   *lc;

	if (OidIsValid(split->wide))
		add_lock(locks, &count, split->wide, AccessExclusiveLock);
	foreach(lc, tree)
		add_lock(locks, &count, lfirst_oid(lc), AccessExclusiveLock);
	(void) rk_partition_try(locks, undo, split, call->insist, &call->failure);
}

/* partition_off() of a table that is being split; false: it is not, or is by now. */
bool
rk_partition_split_give_up(FunctionCallInfo fcinfo, Oid root)
{
	RkSplit    *split = read_split(root);
	LOCKTAG		tag;

	if (split == NULL || split->swapped)
		return false;
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, root, 1);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another session splits %s", rk_relation_name(root)),
				 errhint("rowkeeper.progress shows how far it is.")));
	undo(split);
	if (fcinfo != NULL)
		rk_step(fcinfo, psprintf("-- %s is not split", rk_relation_name(root)));
	return true;
}

/* ---- the call ---- */

static void
resume(Call *call)
{
	RkSplit    *split = read_split(call->root);

	call->more = split != NULL;
	call->swapped = split != NULL && split->swapped;
	call->altered = false;
	if (split == NULL || split->swapped)
		return;
	if (!is_unaltered(split))
		call->altered = true;
	else
		check_split(split->root, split->wide);
}

static void
begin_progress(Call *call)
{
	RkSplit    *split = current_split(call);
	char	   *rows = OidIsValid(split->wide)
		? text_about(split->wide, "SELECT greatest(reltuples, 0)::bigint::text FROM pg_class WHERE oid = $1") : NULL;

	rk_progress_begin("partition_split", call->root, STEPS, rows == NULL ? -1 : atoll(rows));
}

/* Up to the swap; anew where the table was altered. */
static void
run_once(Call *call)
{
	do
		insist_on_step(call, make_leaves);
	while (call->more && !call->altered);
	if (!call->altered)
		insist_on_step(call, watch);
	if (!call->altered)
		copy_rows(call);
	if (!call->altered)
		wait_for_snapshots(call);
	if (!call->altered)
		commit_step(call, begin_comparing);
	if (!call->altered)
		commit_step(call, compare);
	if (!call->altered)
		insist_on_step(call, swap);
}

static void
fail_for_changes(Call *call)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s was altered each time while its first partition was split", rk_relation_name(call->root)),
			 errhint("CALL rowkeeper.partition_convert(%s, split => true) once it is not.",
					 quote_literal_cstr(rk_relation_name(call->root)))));
}

/* Whether a split was begun, and not ended. */
bool
rk_partition_is_splitting(Oid root)
{
	return read_split(root) != NULL;
}

/*
 * Divide the first partition of a maintained table, or go on with that. Within
 * SPI of a procedure that may commit. Locks: ACCESS EXCLUSIVE for some
 * milliseconds, within rowkeeper.lock_budget, on the table and what is
 * exchanged; SHARE ROW EXCLUSIVE on the partition and the tables of its foreign
 * keys; ACCESS EXCLUSIVE on those as the old partition is dropped. Rows of a
 * batch are locked for some milliseconds.
 */
void
rk_partition_split(Oid root)
{
	Call		call = {.root = root};
	int			begun = 0;

	call.context = AllocSetContextCreate(CurrentMemoryContext, "rowkeeper split", ALLOCSET_DEFAULT_SIZES);
	call.step_context = AllocSetContextCreate(call.context, "rowkeeper split step", ALLOCSET_DEFAULT_SIZES);
	SPI_commit();
	while (!call.swapped)
	{
		commit_step(&call, resume);
		if (call.swapped)
			break;
		if (call.altered)
		{
			insist_on_step(&call, undo_split);
			continue;
		}
		if (!call.more && begun++ == ROUNDS)
			commit_step(&call, fail_for_changes);
		if (!call.more)
			insist_on_step(&call, begin_split);
		if (call.nothing)
			return;
		commit_step(&call, begin_progress);
		run_once(&call);
		if (call.swapped)
			say_how_long(&call);
	}
	insist_on_step(&call, drop_old);
	commit_step(&call, finish_split);
	commit_step(&call, analyze);
}

/* What is gone is not to be found again under an OID that comes again. */
static void
relation_dropped(const RkDrop *drop)
{
	if (!OidIsValid(get_relname_relid("_partition_splits", get_namespace_oid("rowkeeper", false))))
		return;
	forget_split(drop->object);
	run_about(drop->object, "UPDATE rowkeeper._partition_splits SET partition = NULL WHERE partition = $1");
	run_about(drop->object, "UPDATE rowkeeper._partition_splits SET history = NULL WHERE history = $1");
}

void
rk_partition_split_init(void)
{
	static const RkEventListener listener = {
		.relation_dropped = relation_dropped
	};

	rk_split_apply_init();
	rk_events_listen(&listener);
}
