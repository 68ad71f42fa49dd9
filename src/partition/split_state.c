/*
 * split_state.c
 *
 * What is known of a partition that is being divided: a row of
 * rowkeeper._partition_splits, written with the table that takes its place, and
 * what table, partition and copy had then, object by object, by version. Whether
 * it can be divided at all, and how it is given up.
 *
 * In the database where it was written the row is of relations by OID: whatever
 * becomes of one, it is never found again under an OID that comes again.
 */
#include "partition/partition.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodes.h"
#include "optimizer/optimizer.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

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
split_of_row(Oid root, HeapTuple row, TupleDesc desc)
{
	RkSplit    *split = palloc0(sizeof(RkSplit));
	Datum		value;
	bool		isnull;

	split->root = root;
	split->owner = rk_relation_owner(root);
	split->wide = oid_column(row, desc, 1);
	split->history = oid_column(row, desc, 2);
	split->first = DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
	split->search_path = SPI_getvalue(row, desc, 4);
	split->watched = DatumGetBool(SPI_getbinval(row, desc, 5, &isnull));
	value = SPI_getbinval(row, desc, 6, &isnull);
	if (!isnull)
		split->position = texts_of(value);
	split->scanned = DatumGetBool(SPI_getbinval(row, desc, 7, &isnull));
	value = SPI_getbinval(row, desc, 8, &isnull);
	if (!isnull)
		split->copied_at = DatumGetInt64(value);
	split->swapped = DatumGetBool(SPI_getbinval(row, desc, 9, &isnull));
	return split;
}

/* What is known of the split of a table's partition; NULL: it is not being split. */
RkSplit *
rk_split_read(Oid root)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(root)};
	MemoryContext caller = CurrentMemoryContext;
	RkSplit    *split = NULL;
	RkIdentity	saved;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_plan(rk_plan_once(&plan, "SELECT partition::oid, history::oid, first, search_path, watched, position,"
									  " scanned, copied_at, swapped"
									  " FROM rowkeeper._partition_splits WHERE relation = $1", 1, types),
						 values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the splits");
	if (SPI_processed > 0 && get_rel_name(root) != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		split = split_of_row(root, SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return split;
}

/* Raise where a table is gone, which its owner may drop at any time. */
void
rk_split_check_there(Oid root)
{
	if (get_rel_name(root) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table was dropped while its first partition was split")));
}

static void
fail_for_nothing(Oid root)
{
	rk_split_check_there(root);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the split of %s was given up meanwhile", rk_relation_name(root))));
}

/* The split that a step is of; it may be given up at any time. */
RkSplit *
rk_split_current(Oid root)
{
	RkSplit    *split = rk_split_read(root);

	if (split == NULL)
		fail_for_nothing(root);
	return split;
}

void
rk_split_note(const RkSplit *split, const char *change)
{
	if (rk_run_about(rk_extension_owner(), split->root,
					 psprintf("UPDATE rowkeeper._partition_splits SET %s WHERE relation = $1", change)) != 1)
		fail_for_nothing(split->root);
}

/* The rows up to this key, as texts, are copied. */
void
rk_split_note_position(const RkSplit *split, List *position)
{
	Oid			types[2] = {OIDOID, TEXTARRAYOID};
	Datum		values[2];

	values[0] = ObjectIdGetDatum(split->root);
	values[1] = array_of(position);
	if (rk_run_args(rk_extension_owner(),
					"UPDATE rowkeeper._partition_splits SET position = $2 WHERE relation = $1",
					2, types, values, NULL) != 1)
		fail_for_nothing(split->root);
}

/* SQL: what the partitions of a table are made by. */
#define OPTIONS(target) \
	"(SELECT m.options - '{ahead,keep,on_expiry,archive_schema,brin}'::text[] FROM rowkeeper._partition_registry m WHERE m.root = " target ")"

void
rk_split_write(const RkSplit *split)
{
	Oid			types[5] = {OIDOID, OIDOID, OIDOID, INT8OID, TEXTOID};
	Datum		values[5];

	values[0] = ObjectIdGetDatum(split->root);
	values[1] = ObjectIdGetDatum(split->wide);
	values[2] = ObjectIdGetDatum(split->history);
	values[3] = Int64GetDatum(split->first);
	values[4] = CStringGetTextDatum(split->search_path);
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper._partition_splits (relation, partition, history, first, search_path, objects, options)"
					   " VALUES ($1, $2, $3, $4, $5, rowkeeper._partition_split_objects($1, $2, 0), " OPTIONS("$1") ")",
					   5, types, values, NULL);
}

/* With the marks of who has missed the copy: no other is ever known by its OID. */
void
rk_split_forget(Oid root)
{
	(void) rk_run_about(rk_extension_owner(), root,
						"WITH s AS (DELETE FROM rowkeeper._partition_splits WHERE relation = $1 RETURNING history)"
						" DELETE FROM rowkeeper._partition_split_misses m USING s WHERE m.history = s.history");
}

/*
 * Whether all that was noted is as it was, and nobody has missed the copy. It is
 * so for good under a lock that keeps writers from the partition: whoever has
 * left a mark had written to it.
 */
bool
rk_split_is_unaltered(const RkSplit *split)
{
	static SPIPlanPtr plan = NULL;

	return OidIsValid(split->wide) && OidIsValid(split->history) &&
		get_rel_relispartition(split->wide) && get_partition_parent(split->wide, true) == split->root &&
		rk_fetch_text_planned(&plan, split->root, "SELECT '' FROM rowkeeper._partition_splits s WHERE s.relation = $1 AND NOT EXISTS (SELECT FROM rowkeeper._partition_split_misses m WHERE m.history = s.history)"
							  " AND s.objects = rowkeeper._partition_split_objects(s.relation, s.partition, CASE WHEN s.watched THEN s.history ELSE 0 END)"
	/* as long as its partitions are made */
							  " AND (s.watched OR s.options = " OPTIONS("s.relation") ")") != NULL;
}

/* ---- whether it can be ---- */

static bool
find_problem(Oid root, Oid wide, char **problem, char **hint)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2];
	MemoryContext caller = CurrentMemoryContext;
	RkIdentity	saved;
	bool		found;

	values[0] = ObjectIdGetDatum(root);
	values[1] = ObjectIdGetDatum(wide);
	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_plan(rk_plan_once(&plan, "SELECT problem, hint FROM rowkeeper._partition_split_problems($1, $2)"
									  " ORDER BY rank, problem COLLATE \"C\" LIMIT 1", 2, types),
						 values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not check a partition");
	found = SPI_processed > 0;
	if (found)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		*problem = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		*hint = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return found;
}

/*
 * A CHECK that says something else of a row by now, or of another role, than it
 * did when the row was written: the copy would fail, and so would writers.
 */
static char *
find_mutable_check(Relation rel)
{
	TupleConstr *constr = RelationGetDescr(rel)->constr;

	for (int i = 0; constr != NULL && i < constr->num_check; i++)
		if (contain_mutable_functions(stringToNode(constr->check[i].ccbin)))
			return psprintf("constraint %s depends on more than the row", quote_identifier(constr->check[i].ccname));
	return NULL;
}

static char *
find_problem_of_rows(Oid wide, char **hint)
{
	Relation	rel = table_open(wide, AccessShareLock);
	RkRowKey   *key = rk_row_key_of(rel);
	char	   *problem = find_mutable_check(rel);

	if (problem != NULL)
		*hint = "Drop it before, and add it after: NOT VALID, then VALIDATE CONSTRAINT.";
	else if (key == NULL)
		problem = "it has no primary key";
	else if (!rk_split_can_follow(key))
		problem = "its primary key has a type of an extension";
	table_close(rel, NoLock);
	return problem;
}

/* Raise where a partition cannot be divided. */
void
rk_split_check(Oid root, Oid wide)
{
	char	   *problem = NULL;
	char	   *hint = NULL;

	if (!find_problem(root, wide, &problem, &hint))
		problem = find_problem_of_rows(wide, &hint);
	if (problem == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot split %s: %s", rk_relation_name(wide), problem),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/* ---- giving it up ---- */

void
rk_split_drop_triggers(Oid wide)
{
	RkTriggerRow row;
	static const char *const names[] = {RK_SPLIT_TRIGGER, RK_SPLIT_TRUNCATE_TRIGGER};

	for (int i = 0; i < lengthof(names); i++)
		if (rk_trigger_read(wide, names[i], "_partition_split_apply", &row))
			(void) rk_run(rk_extension_owner(), psprintf("DROP TRIGGER \"%s\" ON %s", names[i], rk_relation_name(wide)));
}

/* What ATTACH went by. */
bool
rk_split_has_constraint(const RkSplit *split)
{
	return OidIsValid(split->history) &&
		rk_exists_about(rk_extension_owner(), split->history,
						"SELECT 1 FROM pg_constraint WHERE conrelid = $1 AND conname = '" RK_SPLIT_CHECK "'");
}

void
rk_split_drop_constraint(const RkSplit *split)
{
	if (rk_split_has_constraint(split))
		rk_convert_run(rk_relation_owner(split->history), true,
					   psprintf("ALTER TABLE %s DROP CONSTRAINT " RK_SPLIT_CHECK, rk_relation_name(split->history)));
}

/*
 * A table of ours, whoever the other one belongs to by now. Of the copy, which is
 * a partitioned table, no feature knows; of what was a partition, some may.
 */
static void
drop_table(void *arg)
{
	Oid			relid = *(Oid *) arg;
	bool		quiet = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE;

	rk_convert_run(rk_relation_owner(relid), quiet, psprintf("DROP TABLE %s", rk_relation_name(relid)));
}

static void
warn_of_rest(Oid relid, const ErrorData *error)
{
	char	   *name = pstrdup(rk_relation_name(relid));

	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not drop %s, which a split has left: %s", name, error->message),
			 errhint("Nobody uses it: DROP TABLE %s CASCADE.", name)));
}

/*
 * Drop what is of no use any more, unless something of somebody's depends on
 * it: anybody may make a view. False: it is there still. Raises for a lock.
 */
bool
rk_split_drop_table(Oid relid)
{
	ErrorData  *error = rk_attempt(drop_table, &relid);

	if (error != NULL && rk_split_is_in_the_way(error))
		ReThrowError(error);
	if (error != NULL)
		warn_of_rest(relid, error);
	return error == NULL;
}

void
rk_split_undo(const RkSplit *split)
{
	if (OidIsValid(split->wide))
		rk_split_drop_triggers(split->wide);
	if (OidIsValid(split->history) && !get_rel_relispartition(split->history))
		(void) rk_split_drop_table(split->history);
	rk_split_forget(split->root);
}

/* A transaction that sees no more than it did when it began may not see the split. */
static void
check_seen(Oid root)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[1] = {OIDOID};
	Datum		value = ObjectIdGetDatum(root);
	RkIdentity	saved;
	bool		there;

	if (!IsolationUsesXactSnapshot())
		return;
	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_snapshot(rk_plan_once(&plan, "SELECT FROM rowkeeper._partition_splits WHERE relation = $1 AND NOT swapped", 1, types),
							 &value, NULL, GetLatestSnapshot(), InvalidSnapshot, true, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the splits");
	there = SPI_processed > 0;
	SPI_finish();
	rk_identity_restore(&saved);
	if (there)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access: the split of %s was begun since this transaction", rk_relation_name(root))));
}

/* What is left of a split that is done but for that. */
static void
finish(FunctionCallInfo fcinfo, const RkSplit *split)
{
	if (OidIsValid(split->history) && get_rel_relispartition(split->history))
		rk_split_open_at_once(split);
	else
		rk_split_drop_constraint(split);
	if (OidIsValid(split->wide))
	{
		char	   *name = pstrdup(rk_relation_name(split->wide));

		rk_split_drop_triggers(split->wide);
		if (!get_rel_relispartition(split->wide) && rk_split_drop_table(split->wide) && fcinfo != NULL)
			rk_step(fcinfo, psprintf("DROP TABLE %s", name));
	}
	rk_split_forget(split->root);
}

/*
 * partition_off() of a table that is being split; false: it is not, or is by
 * now. Locks until commit: ACCESS EXCLUSIVE on the tables of its foreign keys,
 * the partition and its copy.
 */
bool
rk_partition_split_give_up(FunctionCallInfo fcinfo, Oid root)
{
	RkSplit    *split;
	LOCKTAG		tag;

	if (rk_split_read(root) == NULL)
	{
		check_seen(root);
		return false;
	}
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, RelationRelationId, root, 1);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another session splits %s", rk_relation_name(root)),
				 errhint("rowkeeper.progress shows how far it is.")));
	/* as it is now that nobody goes on with it */
	split = rk_split_read(root);
	if (split == NULL)
		return false;
	if (split->swapped)
	{
		finish(fcinfo, split);
		return false;
	}
	rk_split_undo(split);
	if (fcinfo != NULL)
		rk_step(fcinfo, psprintf("-- %s is not split", rk_relation_name(root)));
	return true;
}

/* ---- what is dropped ---- */

/* Half of a split is of no use without the table; who drops that is not failed by it. */
static void
drop_half(Oid root)
{
	bool		isnull;
	Datum		value;
	Oid			half;
	ErrorData  *error;

	value = rk_fetch_about(rk_extension_owner(), root,
						   "SELECT CASE WHEN swapped THEN partition ELSE history END::oid"
						   " FROM rowkeeper._partition_splits WHERE relation = $1", &isnull);
	half = isnull ? InvalidOid : DatumGetObjectId(value);
	if (!OidIsValid(half) || get_rel_name(half) == NULL || get_rel_relispartition(half))
		return;
	error = rk_attempt(drop_table, &half);
	if (error != NULL)
		warn_of_rest(half, error);
}

/* What is gone is not to be found again under an OID that comes again. */
static void
relation_dropped(const RkDrop *drop)
{
	Oid			extension;

	if (!OidIsValid(get_relname_relid("_partition_splits", get_namespace_oid("rowkeeper", false))))
		return;
	extension = rk_extension_owner();
	drop_half(drop->object);
	rk_split_forget(drop->object);
	(void) rk_run_about(extension, drop->object, "UPDATE rowkeeper._partition_splits SET partition = NULL WHERE partition = $1");
	(void) rk_run_about(extension, drop->object, "UPDATE rowkeeper._partition_splits SET history = NULL WHERE history = $1");
	(void) rk_run_about(extension, drop->object, "DELETE FROM rowkeeper._partition_split_misses WHERE history = $1");
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
