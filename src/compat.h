/*
 * compat.h
 *
 * Every difference between the supported server versions (15 to 18), as
 * wrappers under one name, so that no other file tests PG_VERSION_NUM.
 */
#ifndef RK_COMPAT_H
#define RK_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "rowkeeper needs PostgreSQL 15 or later"
#endif

#include "access/genam.h"
#include "access/genam.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/relcache.h"

/* 18 has it as a word before the declaration. */
#if PG_VERSION_NUM >= 180000
#define RK_NORETURN pg_noreturn
#else
#define RK_NORETURN pg_attribute_noreturn()
#endif

/* 17 has access methods that keep something open between inserts. */
static inline void
rk_index_insert_cleanup(Relation index, IndexInfo *info)
{
#if PG_VERSION_NUM >= 170000
	index_insert_cleanup(index, info);
#endif
}

/* 16 replaced the function per kind of object by one for all. */
static inline bool
rk_is_relation_owner(Oid relid, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, role);
#else
	return pg_class_ownercheck(relid, role);
#endif
}

/* 18 asks whether a deferrable primary key will do; before, none did. */
static inline Oid
rk_primary_key_index(Relation rel)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(rel, false);
#else
	return RelationGetPrimaryKeyIndex(rel);
#endif
}

/* 15 marks a subcommand that reaches partitions by a type of its own. */
static inline AlterTableType
rk_plain_subcommand(AlterTableType type)
{
#if PG_VERSION_NUM < 160000
	switch (type)
	{
		case AT_AddColumnRecurse:
			return AT_AddColumn;
		case AT_DropColumnRecurse:
			return AT_DropColumn;
		case AT_AddConstraintRecurse:
			return AT_AddConstraint;
		case AT_DropConstraintRecurse:
			return AT_DropConstraint;
		case AT_ValidateConstraintRecurse:
			return AT_ValidateConstraint;
		default:
			break;
	}
#endif
	return type;
}

/* 18 has virtual generated columns, which have no stored value. */
static inline bool
rk_is_virtual(Form_pg_attribute column)
{
#if PG_VERSION_NUM >= 180000
	return column->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL;
#else
	return false;
#endif
}

/* 18 added a place for statistics of the scan. */
static inline IndexScanDesc
rk_index_beginscan(Relation rel, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(rel, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(rel, index, snapshot, nkeys, 0);
#endif
}

#endif							/* RK_COMPAT_H */
