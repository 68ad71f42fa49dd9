/*
 * split_objects.c
 *
 * What must not change while a partition is divided, as one number: of every
 * object that the table, the partition and its copy have, the version of its
 * row in the catalog (xmin). So what is altered and altered back is not the
 * same. Every session asks before it first writes to the partition, all of them
 * at once when that begins to be divided: in SQL the plan alone took 5 ms.
 */
#include "partition/partition.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_shdepend.h"
#include "catalog/pg_trigger.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(rowkeeper_partition_split_objects);

typedef struct Sum
{
	Oid			history;
	Snapshot	snapshot;
	uint64		value;			/* in no order */
} Sum;

typedef void (*AddRow) (Sum *sum, HeapTuple row);

static void
add(Sum *sum, const void *item, Size size)
{
	sum->value += hash_bytes_extended(item, size, 0);
}

static void
add_object(Sum *sum, Oid catalog, Oid object, int number, TransactionId version)
{
	uint32		item[] = {catalog, object, number, version};

	add(sum, item, sizeof(item));
}

static void
add_rows(Sum *sum, Oid catalog, Oid index, ScanKeyData *keys, int count, AddRow add_row)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, index, true, sum->snapshot, count, keys);
	HeapTuple	row;

	while (HeapTupleIsValid(row = systable_getnext(scan)))
		add_row(sum, row);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* The rows in which a column says that they are about a relation. */
static void
add_rows_of(Sum *sum, Oid catalog, Oid index, AttrNumber column, Oid relid, AddRow add_row)
{
	ScanKeyData key;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	add_rows(sum, catalog, index, &key, 1, add_row);
}

/* ---- what there is of each kind ---- */

/* The rights in the copy's columns follow the table's. */
static void
add_column(Sum *sum, HeapTuple row)
{
	Form_pg_attribute column = (Form_pg_attribute) GETSTRUCT(row);
	bool		copied = column->attrelid == sum->history;
	uint32		item[] = {column->attrelid, column->attnum, column->atttypid, column->atttypmod,
	column->attcollation, column->attgenerated};

	if (column->attnum < 0)
		return;
	add_object(sum, AttributeRelationId, column->attrelid, column->attnum,
			   copied ? InvalidTransactionId : HeapTupleHeaderGetRawXmin(row->t_data));
	if (!copied)
		return;
	add(sum, item, sizeof(item));
	sum->value += hash_bytes_extended((unsigned char *) NameStr(column->attname), strlen(NameStr(column->attname)),
									  column->attnum);
}

static void
add_default(Sum *sum, HeapTuple row)
{
	add_object(sum, AttrDefaultRelationId, ((Form_pg_attrdef) GETSTRUCT(row))->oid, 0,
			   HeapTupleHeaderGetRawXmin(row->t_data));
}

static void
add_constraint(Sum *sum, HeapTuple row)
{
	add_object(sum, ConstraintRelationId, ((Form_pg_constraint) GETSTRUCT(row))->oid, 0,
			   HeapTupleHeaderGetRawXmin(row->t_data));
}

/* The copy's replica identity follows the table's. */
static void
add_index(Sum *sum, HeapTuple row)
{
	Form_pg_index index = (Form_pg_index) GETSTRUCT(row);

	add_object(sum, IndexRelationId, index->indexrelid, 0,
			   index->indrelid == sum->history ? InvalidTransactionId : HeapTupleHeaderGetRawXmin(row->t_data));
}

static void
add_class(Sum *sum, HeapTuple row)
{
	Form_pg_class relation = (Form_pg_class) GETSTRUCT(row);
	uint32		item[] = {relation->oid, relation->relowner, relation->relpersistence, relation->relreplident,
	relation->relrowsecurity};

	add(sum, item, sizeof(item));
	/* partitions are made by name, until there are triggers */
	if (!OidIsValid(sum->history))
		sum->value += hash_bytes_extended((unsigned char *) NameStr(relation->relname), strlen(NameStr(relation->relname)),
										  relation->oid);
}

static void
add_owner(Sum *sum, HeapTuple row)
{
	Form_pg_shdepend dependency = (Form_pg_shdepend) GETSTRUCT(row);

	if (dependency->deptype == SHARED_DEPENDENCY_OWNER)
		add_object(sum, SharedDependRelationId, dependency->objid, 0, HeapTupleHeaderGetRawXmin(row->t_data));
}

static void
add_partition(Sum *sum, HeapTuple row)
{
	Form_pg_inherits partition = (Form_pg_inherits) GETSTRUCT(row);

	add_object(sum, InheritsRelationId, partition->inhrelid, partition->inhdetachpending,
			   HeapTupleHeaderGetRawXmin(row->t_data));
}

static void
add_trigger(Sum *sum, HeapTuple row)
{
	Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(row);

	if (strcmp(NameStr(trigger->tgname), RK_SPLIT_TRIGGER) == 0 ||
		strcmp(NameStr(trigger->tgname), RK_SPLIT_TRUNCATE_TRIGGER) == 0)
		add_object(sum, TriggerRelationId, trigger->oid, 0, HeapTupleHeaderGetRawXmin(row->t_data));
}

/* ---- all of it ---- */

static void
add_owner_of(Sum *sum, Oid relid)
{
	ScanKeyData keys[4];

	ScanKeyInit(&keys[0], Anum_pg_shdepend_dbid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(MyDatabaseId));
	ScanKeyInit(&keys[1], Anum_pg_shdepend_classid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[2], Anum_pg_shdepend_objid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	ScanKeyInit(&keys[3], Anum_pg_shdepend_objsubid, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(0));
	add_rows(sum, SharedDependRelationId, SharedDependDependerIndexId, keys, lengthof(keys), add_owner);
}

static void
add_relation(Sum *sum, Oid relid)
{
	add_rows_of(sum, AttributeRelationId, AttributeRelidNumIndexId, Anum_pg_attribute_attrelid, relid, add_column);
	add_rows_of(sum, AttrDefaultRelationId, AttrDefaultIndexId, Anum_pg_attrdef_adrelid, relid, add_default);
	add_rows_of(sum, ConstraintRelationId, ConstraintRelidTypidNameIndexId, Anum_pg_constraint_conrelid, relid, add_constraint);
	add_rows_of(sum, IndexRelationId, IndexIndrelidIndexId, Anum_pg_index_indrelid, relid, add_index);
	add_rows_of(sum, RelationRelationId, ClassOidIndexId, Anum_pg_class_oid, relid, add_class);
	add_owner_of(sum, relid);
}

/*
 * rowkeeper._partition_split_objects(target oid, partition oid, history oid)
 * returns bigint: as they are now, whatever the transaction's snapshot; history
 * 0: there are no triggers yet. No privileges: it says nothing.
 */
Datum
rowkeeper_partition_split_objects(PG_FUNCTION_ARGS)
{
	Oid			root = PG_GETARG_OID(0);
	Oid			wide = PG_GETARG_OID(1);
	Sum			sum = {.history = PG_GETARG_OID(2),.snapshot = RegisterSnapshot(GetLatestSnapshot())};

	add_relation(&sum, root);
	add_relation(&sum, wide);
	add_rows_of(&sum, InheritsRelationId, InheritsRelidSeqnoIndexId, Anum_pg_inherits_inhrelid, wide, add_partition);
	if (OidIsValid(sum.history))
	{
		add_relation(&sum, sum.history);
		add_rows_of(&sum, InheritsRelationId, InheritsRelidSeqnoIndexId, Anum_pg_inherits_inhrelid, sum.history, add_partition);
		add_rows_of(&sum, InheritsRelationId, InheritsParentIndexId, Anum_pg_inherits_inhparent, sum.history, add_partition);
		add_rows_of(&sum, TriggerRelationId, TriggerRelidNameIndexId, Anum_pg_trigger_tgrelid, wide, add_trigger);
	}
	UnregisterSnapshot(sum.snapshot);
	PG_RETURN_INT64((int64) sum.value);
}
