/*
 * partitioned.c
 *
 * Partitioned tables that features have for themselves, as the audit log has.
 * Their partitions are made and taken away as those of users' tables are, by
 * the partition feature and nobody else. Features do not know each other, so
 * they meet here: one says which tables it has, the other how partitions are
 * made.
 */
#include "rowkeeper.h"

#define MAX_OWNERS 4

static RkPartitionedTables owners[MAX_OWNERS];
static int	owner_count = 0;
static const RkPartitionMaker *maker = NULL;

/* Have the tables that a function names maintained; it is asked each time. */
void
rk_partitioned_register(RkPartitionedTables tables)
{
	if (owner_count == MAX_OWNERS)
		elog(ERROR, "too many owners of partitioned tables");
	owners[owner_count++] = tables;
}

void
rk_partitioned_maker_register(const RkPartitionMaker *registered)
{
	maker = registered;
}

/* All features' own partitioned tables: RkPartitioned *. */
List *
rk_partitioned_tables(void)
{
	List	   *result = NIL;

	for (int i = 0; i < owner_count; i++)
		result = list_concat(result, owners[i] ());
	return result;
}

/*
 * Make the partitions that are missing from now on, in this transaction. Locks,
 * where any is: SHARE UPDATE EXCLUSIVE on the table and its root.
 */
void
rk_partitioned_make_ahead(const RkPartitioned *table)
{
	maker->make_ahead(table);
}

/*
 * The partition that takes a value of the key, made in this transaction where
 * there is none; InvalidOid: it is there, but being detached. Locks as above.
 */
Oid
rk_partitioned_make_at(const RkPartitioned *table, Datum value)
{
	return maker->make_at(table, value);
}
