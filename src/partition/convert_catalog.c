/*
 * convert_catalog.c
 *
 * What the swap (convert_swap.c) has of the catalog itself, because DDL would
 * do more than is wanted: to drop a primary key would drop its index, and so a
 * file, for which the commit would wait for the disk while everybody waits for
 * the commit; an identity column cannot hand its sequence to another table; and
 * a right is granted by nobody else than who says GRANT.
 *
 * Each is a function for the statements of the swap, not for users: it trusts
 * that the tables are locked, and that what it is told fits.
 */
#include "partition/partition.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_partition_convert_demote_key);
PG_FUNCTION_INFO_V1(rowkeeper_partition_convert_move_identity);
PG_FUNCTION_INFO_V1(rowkeeper_partition_convert_copy_rights);

/* ---- the old primary key ---- */

/* The index of a primary key is one that is only unique. */
static void
unmark_primary(Oid index)
{
	Relation	catalog = table_open(IndexRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(INDEXRELID, ObjectIdGetDatum(index));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for index %u", index);
	((Form_pg_index) GETSTRUCT(tuple))->indisprimary = false;
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	table_close(catalog, RowExclusiveLock);
}

/* It goes with the columns that it is of, no longer with the constraint. */
static void
depend_on_columns(Oid index, Relation rel)
{
	Relation	opened = relation_open(index, AccessExclusiveLock);
	Form_pg_index form = opened->rd_index;
	ObjectAddress address;
	ObjectAddress column;

	if (deleteDependencyRecordsForClass(RelationRelationId, index, ConstraintRelationId, DEPENDENCY_INTERNAL) != 1)
		elog(ERROR, "index %u is not of one constraint", index);
	ObjectAddressSet(address, RelationRelationId, index);
	for (int i = 0; i < form->indnatts; i++)
	{
		ObjectAddressSubSet(column, RelationRelationId, RelationGetRelid(rel), form->indkey.values[i]);
		recordDependencyOn(&address, &column, DEPENDENCY_AUTO);
	}
	relation_close(opened, NoLock);
}

/*
 * rowkeeper._partition_convert_demote_key(target regclass): drop the primary
 * key and keep its index. Locks: the caller's, ACCESS EXCLUSIVE. Private.
 */
Datum
rowkeeper_partition_convert_demote_key(PG_FUNCTION_ARGS)
{
	Relation	rel = table_open(PG_GETARG_OID(0), AccessExclusiveLock);
	Oid			index = rk_primary_key_index(rel);
	Oid			constraint = OidIsValid(index) ? get_index_constraint(index) : InvalidOid;
	ObjectAddress address;

	if (!OidIsValid(constraint))
		elog(ERROR, "table %u has no primary key", RelationGetRelid(rel));
	unmark_primary(index);
	depend_on_columns(index, rel);
	CacheInvalidateRelcache(rel);
	CommandCounterIncrement();
	ObjectAddressSet(address, ConstraintRelationId, constraint);
	performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	table_close(rel, NoLock);
	PG_RETURN_VOID();
}

/* ---- identity columns ---- */

/* What a column is of these: GENERATED ALWAYS, BY DEFAULT, or not; returns what it was. */
static char
set_identity(Oid relid, AttrNumber column, char identity)
{
	Relation	catalog = table_open(AttributeRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(column));
	char		before;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for column %d of table %u", column, relid);
	before = ((Form_pg_attribute) GETSTRUCT(tuple))->attidentity;
	((Form_pg_attribute) GETSTRUCT(tuple))->attidentity = identity;
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	table_close(catalog, RowExclusiveLock);
	return before;
}

/*
 * rowkeeper._partition_convert_move_identity(sequence regclass, target
 * regclass): the column of that name in the other table is the identity column
 * from now on, with the same sequence. Locks: the caller's, ACCESS EXCLUSIVE on
 * both tables. Private.
 */
Datum
rowkeeper_partition_convert_move_identity(PG_FUNCTION_ARGS)
{
	Oid			sequence = PG_GETARG_OID(0);
	Oid			target = PG_GETARG_OID(1);
	Oid			source;
	int32		column;
	AttrNumber	target_column;
	ObjectAddress address;
	ObjectAddress owner;

	if (!sequenceIsOwned(sequence, DEPENDENCY_INTERNAL, &source, &column))
		elog(ERROR, "sequence %u is of no identity column", sequence);
	target_column = get_attnum(target, get_attname(source, column, false));
	(void) set_identity(target, target_column, set_identity(source, column, '\0'));
	(void) deleteDependencyRecordsForClass(RelationRelationId, sequence, RelationRelationId, DEPENDENCY_INTERNAL);
	ObjectAddressSet(address, RelationRelationId, sequence);
	ObjectAddressSubSet(owner, RelationRelationId, target, target_column);
	recordDependencyOn(&address, &owner, DEPENDENCY_INTERNAL);
	PG_RETURN_VOID();
}

/* ---- rights ---- */

/* The rights are depended on by the roles that have them, as GRANT notes it. */
static void
note_members(Oid relid, AttrNumber column, Oid owner, Datum before, bool before_is_null, Datum after, bool after_is_null)
{
	Oid		   *old_members = NULL;
	Oid		   *new_members = NULL;
	int			old_count = before_is_null ? 0 : aclmembers(DatumGetAclP(before), &old_members);
	int			new_count = after_is_null ? 0 : aclmembers(DatumGetAclP(after), &new_members);

	updateAclDependencies(RelationRelationId, relid, column, owner,
						  old_count, old_members, new_count, new_members);
}

static void
replace_attribute(Oid catalog_id, HeapTuple tuple, int number, Datum value, bool isnull)
{
	Relation	catalog = table_open(catalog_id, RowExclusiveLock);
	int			count = RelationGetDescr(catalog)->natts;
	Datum	   *values = palloc0(sizeof(Datum) * count);
	bool	   *nulls = palloc0(sizeof(bool) * count);
	bool	   *replaced = palloc0(sizeof(bool) * count);
	HeapTuple	changed;

	values[number - 1] = value;
	nulls[number - 1] = isnull;
	replaced[number - 1] = true;
	changed = heap_modify_tuple(tuple, RelationGetDescr(catalog), values, nulls, replaced);
	CatalogTupleUpdate(catalog, &tuple->t_self, changed);
	table_close(catalog, RowExclusiveLock);
}

static void
copy_table_rights(Oid source, Oid target)
{
	HeapTuple	from = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(source));
	HeapTuple	to = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(target));
	bool		before_is_null;
	bool		isnull;
	Datum		before = SysCacheGetAttr(RELOID, to, Anum_pg_class_relacl, &before_is_null);
	Datum		acl = SysCacheGetAttr(RELOID, from, Anum_pg_class_relacl, &isnull);

	replace_attribute(RelationRelationId, to, Anum_pg_class_relacl, acl, isnull);
	note_members(target, 0, ((Form_pg_class) GETSTRUCT(to))->relowner, before, before_is_null, acl, isnull);
}

static void
copy_column_rights(Oid source, AttrNumber column, Oid target, Oid owner)
{
	HeapTuple	from = SearchSysCacheCopy2(ATTNUM, ObjectIdGetDatum(source), Int16GetDatum(column));
	HeapTuple	to;
	bool		isnull;
	Datum		acl = SysCacheGetAttr(ATTNUM, from, Anum_pg_attribute_attacl, &isnull);

	if (isnull)
		return;
	to = SearchSysCacheCopyAttName(target, NameStr(((Form_pg_attribute) GETSTRUCT(from))->attname));
	replace_attribute(AttributeRelationId, to, Anum_pg_attribute_attacl, acl, false);
	note_members(target, ((Form_pg_attribute) GETSTRUCT(to))->attnum, owner, (Datum) 0, true, acl, false);
}

/*
 * rowkeeper._partition_convert_copy_rights(source regclass, target regclass):
 * the target, which was made LIKE the other and by the same owner, has its
 * rights, of columns too, granted by whom they were. Locks: the caller's;
 * nobody else sees the target. Private.
 */
Datum
rowkeeper_partition_convert_copy_rights(PG_FUNCTION_ARGS)
{
	Oid			source = PG_GETARG_OID(0);
	Oid			target = PG_GETARG_OID(1);
	Relation	rel = table_open(source, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);

	copy_table_rights(source, target);
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			copy_column_rights(source, i + 1, target, rel->rd_rel->relowner);
	table_close(rel, NoLock);
	PG_RETURN_VOID();
}
