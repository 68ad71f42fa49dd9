/*
 * own.c
 *
 * Partitioned tables of other features of ours (core/partitioned.c). What they
 * want is known from them and in no registry; the rest is as for every table.
 * They need partitions in the middle of a user's transaction, too.
 */
#include "partition/partition.h"

#include "storage/lmgr.h"

/* What partition() would have been told of such a table. */
static RkPartitionOptions *
options_for(const RkPartitioned *table)
{
	RkPartitionOptions *options = palloc0(sizeof(RkPartitionOptions));

	options->every = pstrdup(table->every);
	options->origin = pstrdup(table->origin);
	options->ahead = pstrdup(table->ahead);
	options->keep = table->keep != NULL ? rk_partition_interval_text(table->keep) : NULL;
	options->on_expiry = "drop";
	options->timezone = "UTC";
	options->template = table->template;
	return options;
}

/* Of a table of ours; NULL: it is none. */
RkPartitionOptions *
rk_partition_own_options_of(Oid root)
{
	ListCell   *lc;

	foreach(lc, rk_partitioned_tables())
	{
		const RkPartitioned *table = lfirst(lc);

		if (table->root == root)
			return options_for(table);
	}
	return NULL;
}

/* All tables of ours: RkPartitionTable *. */
List *
rk_partition_own_tables(void)
{
	List	   *tables = NIL;
	ListCell   *lc;

	foreach(lc, rk_partitioned_tables())
	{
		const RkPartitioned *own = lfirst(lc);
		RkPartitionTable *table = palloc(sizeof(RkPartitionTable));

		table->root = own->root;
		table->options = options_for(own);
		tables = lappend(tables, table);
	}
	return tables;
}

/* Of two transactions that make partitions the second waits, and looks again. */
static RkPartitionSet *
lock_and_load(const RkPartitioned *table)
{
	LockRelationOid(rk_root_of(table->root), ShareUpdateExclusiveLock);
	LockRelationOid(table->root, ShareUpdateExclusiveLock);
	return rk_partition_set_load(table->root, options_for(table));
}

static Oid
make(const RkPartitionSet *set, const RkWanted *wanted)
{
	Oid			relid = rk_partition_build(NULL, set, wanted);

	rk_partition_attach(NULL, set, wanted, relid);
	return relid;
}

static void
make_ahead(const RkPartitioned *table)
{
	RkPartitionSet *set = rk_partition_set_load(table->root, options_for(table));
	bool		more;
	ListCell   *lc;

	if (rk_partitions_wanted(set, 1, &more) == NIL)
		return;
	set = lock_and_load(table);
	foreach(lc, rk_partitions_wanted(set, RK_MAX_CREATED, &more))
		(void) make(set, lfirst(lc));
}

static Oid
make_at(const RkPartitioned *table, Datum value)
{
	RkPartitionSet *set = rk_partition_set_load(table->root, options_for(table));
	int64		position = rk_key_position(set->key, value);
	int			number = rk_partition_covering(set, position);
	RkWanted   *wanted;

	if (number < 0)
	{
		set = lock_and_load(table);
		wanted = rk_partition_wanted_for(set, position);
		if (wanted != NULL)
			return make(set, wanted);
		number = rk_partition_covering(set, position);
	}
	return number < 0 ? InvalidOid : set->parts[number].relid;
}

void
rk_partition_own_init(void)
{
	static const RkPartitionMaker maker = {
		.make_ahead = make_ahead,
		.make_at = make_at
	};

	rk_partitioned_maker_register(&maker);
}
