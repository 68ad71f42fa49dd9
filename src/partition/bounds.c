/*
 * bounds.c
 *
 * The partitions that a table has, as the catalog has them: bounds are read
 * from relpartbound as values, never from names or rendered text, which depend
 * on the session's settings. Neither the table nor a partition is opened or
 * locked, so that looking at a hundred tables costs a scan of pg_inherits and
 * waits for nobody.
 */
#include "partition/partition.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_partitioned_table.h"
#include "nodes/primnodes.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * The column that a partitioned table is partitioned by; NULL, or why its
 * partitions cannot be maintained.
 */
char *
rk_partition_key_problem(Oid relid, AttrNumber *column)
{
	HeapTuple	tuple = SearchSysCache1(PARTRELID, ObjectIdGetDatum(relid));
	Form_pg_partitioned_table form;
	char	   *problem = NULL;

	if (!HeapTupleIsValid(tuple))
		return pstrdup("it is not partitioned");
	form = (Form_pg_partitioned_table) GETSTRUCT(tuple);
	*column = form->partattrs.values[0];
	if (form->partstrat != PARTITION_STRATEGY_RANGE)
		problem = form->partstrat == PARTITION_STRATEGY_LIST ? pstrdup("it is partitioned by LIST")
			: pstrdup("it is partitioned by HASH");
	else if (form->partnatts != 1)
		problem = pstrdup("its partition key has several columns");
	else if (*column == 0)
		problem = pstrdup("its partition key is an expression");
	ReleaseSysCache(tuple);
	return problem;
}

static int64
bound_position(const RkKey *key, const PartitionRangeDatum *bound)
{
	switch (bound->kind)
	{
		case PARTITION_RANGE_DATUM_MINVALUE:
			return RK_NO_START;
		case PARTITION_RANGE_DATUM_MAXVALUE:
			return RK_NO_END;
		case PARTITION_RANGE_DATUM_VALUE:
			break;
	}
	return rk_key_position(key, castNode(Const, bound->value)->constvalue);
}

static char *
bound_text(const RkKey *key, const PartitionRangeDatum *bound)
{
	switch (bound->kind)
	{
		case PARTITION_RANGE_DATUM_MINVALUE:
			return pstrdup("MINVALUE");
		case PARTITION_RANGE_DATUM_MAXVALUE:
			return pstrdup("MAXVALUE");
		case PARTITION_RANGE_DATUM_VALUE:
			break;
	}
	return rk_key_stored_bound(key, castNode(Const, bound->value)->constvalue);
}

/* A partition's bounds as SQL takes them, exactly as they are stored. */
char *
rk_partition_lower_text(const RkPartitionSet *set, const RkPartition *part)
{
	return bound_text(set->key, linitial_node(PartitionRangeDatum, part->spec->lowerdatums));
}

char *
rk_partition_upper_text(const RkPartitionSet *set, const RkPartition *part)
{
	return bound_text(set->key, linitial_node(PartitionRangeDatum, part->spec->upperdatums));
}

/* Read one partition; false: it is the default one, or has no bounds. */
static bool
read_partition(const RkKey *key, HeapTuple tuple, RkPartition *part, bool *is_default)
{
	bool		isnull;
	Datum		value = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relpartbound, &isnull);
	PartitionBoundSpec *spec;

	*is_default = false;
	if (isnull)
		return false;
	spec = stringToNode(TextDatumGetCString(value));
	*is_default = spec->is_default;
	if (spec->is_default || spec->strategy != PARTITION_STRATEGY_RANGE)
		return false;
	part->relkind = ((Form_pg_class) GETSTRUCT(tuple))->relkind;
	part->spec = spec;
	part->lower = bound_position(key, linitial(spec->lowerdatums));
	part->upper = bound_position(key, linitial(spec->upperdatums));
	return true;
}

static int
compare_partitions(const void *a, const void *b)
{
	const RkPartition *x = a;
	const RkPartition *y = b;

	return x->lower < y->lower ? -1 : x->lower > y->lower ? 1 : 0;
}

/*
 * Whether a partition is what a split has made: of several periods, and
 * partitioned by the key itself, so that its own partitions are as the table's.
 * (One of a single period may be partitioned by the key, too: that is the
 * affair of who did so.) As long as the period is not known, none is.
 */
static bool
is_history(const RkPartitionSet *set, const RkPartition *part)
{
	AttrNumber	column;

	if (set->grid.step.count == 0 || rk_partition_key_problem(part->relid, &column) != NULL ||
		strcmp(get_attname(part->relid, column, false), set->key->name) != 0)
		return false;
	return part->lower == RK_NO_START || rk_grid_next(&set->grid, part->lower) < part->upper;
}

static void
add_partition(RkPartitionSet *set, const RkPartition *part, int *room)
{
	if (set->count == *room)
	{
		*room *= 2;
		set->parts = repalloc(set->parts, sizeof(RkPartition) * *room);
	}
	set->parts[set->count++] = *part;
}

static void
read_children(RkPartitionSet *set, Oid parent, int *room)
{
	Relation	catalog = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;

	ScanKeyInit(&key, Anum_pg_inherits_inhparent, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(parent));
	scan = systable_beginscan(catalog, InheritsParentIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(row = systable_getnext(scan)))
	{
		Form_pg_inherits form = (Form_pg_inherits) GETSTRUCT(row);
		HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(form->inhrelid));
		RkPartition part = {.relid = form->inhrelid,.parent = parent,.pending = form->inhdetachpending};
		bool		is_default;

		if (!HeapTupleIsValid(tuple))
			continue;			/* dropped at this moment */
		if (read_partition(set->key, tuple, &part, &is_default))
		{
			int			before = set->count;

			if (parent == set->root && !part.pending && part.relkind == RELKIND_PARTITIONED_TABLE &&
				is_history(set, &part))
				read_children(set, part.relid, room);
			if (set->count == before)
				add_partition(set, &part, room);
			else
				set->histories = lappend(set->histories, memcpy(palloc(sizeof(RkPartition)), &part, sizeof(RkPartition)));
		}
		else if (is_default && parent == set->root)
			set->default_partition = form->inhrelid;
		ReleaseSysCache(tuple);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

/*
 * Read the partitions that there are now, committed or our own. Those of what a
 * split has made stand for it, as long as it has any.
 */
void
rk_partition_set_read(RkPartitionSet *set)
{
	int			room = 64;

	set->parts = palloc(sizeof(RkPartition) * room);
	set->count = 0;
	set->histories = NIL;
	set->default_partition = InvalidOid;
	read_children(set, set->root, &room);
	qsort(set->parts, set->count, sizeof(RkPartition), compare_partitions);
}

/* The table that a new partition at a position is to be attached to. */
Oid
rk_partition_parent_for(const RkPartitionSet *set, int64 position)
{
	ListCell   *lc;

	foreach(lc, set->histories)
	{
		const RkPartition *history = lfirst(lc);

		if (history->lower <= position && position < history->upper)
			return history->relid;
	}
	return set->root;
}

const RkPartition *
rk_partition_find(const RkPartitionSet *set, Oid partition)
{
	for (int i = 0; i < set->count; i++)
		if (set->parts[i].relid == partition)
			return &set->parts[i];
	return NULL;
}

/* The table that a partition is attached to. */
Oid
rk_partition_parent_of(const RkPartitionSet *set, Oid partition)
{
	const RkPartition *part = rk_partition_find(set, partition);

	return part == NULL ? set->root : part->parent;
}

/*
 * A maintained table with its grid and partitions. Raises where it can no
 * longer be maintained: the key's type was changed, the zone is gone.
 */
RkPartitionSet *
rk_partition_set_load(Oid root, RkPartitionOptions *options)
{
	RkPartitionSet *set = palloc0(sizeof(RkPartitionSet));
	AttrNumber	column;
	char	   *problem = rk_partition_key_problem(root, &column);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot maintain partitions of %s: %s", rk_relation_name(root), problem)));
	set->root = root;
	set->owner = rk_relation_owner(root);
	set->options = options;
	set->key = rk_key_create(root, column, options->epoch);
	set->grid.key = set->key;
	set->grid.zone = rk_partition_zone(options->timezone);
	set->grid.step = rk_partition_step(set->key, options->every);
	set->grid.origin = rk_partition_origin(&set->grid, options->origin);
	rk_partition_set_read(set);
	return set;
}

/* The number of the partition that takes a position, or -1. */
int
rk_partition_covering(const RkPartitionSet *set, int64 position)
{
	for (int i = 0; i < set->count; i++)
		if (set->parts[i].lower <= position && position < set->parts[i].upper && !set->parts[i].pending)
			return i;
	return -1;
}
