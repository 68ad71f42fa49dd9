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

#include "access/amapi.h"
#include "access/attmap.h"
#include "access/genam.h"
#include "access/nbtxlog.h"
#include "access/stratnum.h"
#include "catalog/index.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_namespace.h"
#include "common/jsonapi.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "parser/parse_relation.h"
#include "postmaster/bgworker.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/rel.h"
#include "utils/relcache.h"

/* 18 has it as a word before the declaration. */
#if PG_VERSION_NUM >= 180000
#define RK_NORETURN pg_noreturn
#else
#define RK_NORETURN pg_attribute_noreturn()
#endif

/* 16 gave the number of a relation's file that name. Its rows go with the old file. */
static inline void
rk_relation_empty(Relation rel)
{
#if PG_VERSION_NUM >= 160000
	RelationSetNewRelfilenumber(rel, rel->rd_rel->relpersistence);
#else
	RelationSetNewRelfilenode(rel, rel->rd_rel->relpersistence);
#endif
}

/* The rights in what a query itself reads and writes are checked as a role's. 16 keeps them apart. */
static inline void
rk_query_check_as(Query *query, Oid role)
{
	ListCell   *lc;

#if PG_VERSION_NUM >= 160000
	foreach(lc, query->rteperminfos)
		lfirst_node(RTEPermissionInfo, lc)->checkAsUser = role;
#else
	foreach(lc, query->rtable)
		lfirst_node(RangeTblEntry, lc)->checkAsUser = role;
#endif
}

/*
 * The record by which standbys cancel queries of this database with a snapshot
 * that does not see a transaction. Of the server's records it does that, and
 * nothing else. 16 renamed what is in it.
 */
static inline xl_btree_reuse_page
rk_conflict_record(Relation rel, FullTransactionId horizon)
{
	xl_btree_reuse_page record = {.block = InvalidBlockNumber};

#if PG_VERSION_NUM >= 160000
	record.locator = rel->rd_locator;
	record.snapshotConflictHorizon = horizon;
#else
	record.node = rel->rd_node;
	record.latestRemovedFullXid = horizon;
#endif
	return record;
}

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

/* 16 can do with columns that are missing. */
static inline AttrMap *
rk_attrmap_by_name(TupleDesc from, TupleDesc to)
{
#if PG_VERSION_NUM >= 160000
	return build_attrmap_by_name(from, to, false);
#else
	return build_attrmap_by_name(from, to);
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

/* 16 took the result relations as an argument of their own. */
static inline void
rk_epq_init(EPQState *epq, EState *estate)
{
#if PG_VERSION_NUM >= 160000
	EvalPlanQualInit(epq, estate, NULL, NIL, -1, NIL);
#else
	EvalPlanQualInit(epq, estate, NULL, NIL, -1);
#endif
}

/*
 * A range table of one relation, of which these columns are updated. 16 moved
 * them to a list of their own; 18 says which entries were not pruned.
 */
static inline void
rk_init_range_table(EState *estate, Relation rel, Bitmapset *updated)
{
	RangeTblEntry *entry = makeNode(RangeTblEntry);
#if PG_VERSION_NUM >= 160000
	List	   *permissions = NIL;
#endif

	entry->rtekind = RTE_RELATION;
	entry->relid = RelationGetRelid(rel);
	entry->relkind = rel->rd_rel->relkind;
	entry->rellockmode = RowExclusiveLock;
#if PG_VERSION_NUM >= 160000
	addRTEPermissionInfo(&permissions, entry)->updatedCols = updated;
#else
	entry->updatedCols = updated;
#endif
#if PG_VERSION_NUM >= 180000
	ExecInitRangeTable(estate, list_make1(entry), permissions, bms_make_singleton(1));
#elif PG_VERSION_NUM >= 160000
	ExecInitRangeTable(estate, list_make1(entry), permissions);
#else
	ExecInitRangeTable(estate, list_make1(entry));
#endif
}

/* 18 has foreign keys that are only said to hold. */
static inline bool
rk_is_enforced(Form_pg_constraint constraint)
{
#if PG_VERSION_NUM >= 180000
	return constraint->conenforced;
#else
	return true;
#endif
}

/* 18 has foreign keys over periods, whose columns are not compared by equality. */
static inline bool
rk_is_temporal(Form_pg_constraint constraint)
{
#if PG_VERSION_NUM >= 180000
	return constraint->conperiod;
#else
	return false;
#endif
}

/* 18 has primary keys over periods, whose indexes are no B-trees. */
static inline StrategyNumber
rk_equality_strategy(Relation index, int column)
{
#if PG_VERSION_NUM >= 180000
	return IndexAmTranslateCompareType(COMPARE_EQ, index->rd_rel->relam,
									   index->rd_opfamily[column], false);
#else
	return BTEqualStrategyNumber;
#endif
}

/* 16 knows index methods that do not point to rows, which may stay in place. */
static inline bool
rk_index_is_summarizing(const IndexAmRoutine *method)
{
#if PG_VERSION_NUM >= 160000
	return method->amsummarizing;
#else
	return false;
#endif
}

/* Whether a worker can be a role that may not log in: since 17. */
#if PG_VERSION_NUM >= 170000
#define RK_WORKER_AS_ANY_ROLE true
#define RK_WORKER_CONNECTION (BGWORKER_BYPASS_ALLOWCONN | BGWORKER_BYPASS_ROLELOGINCHECK)
#else
#define RK_WORKER_AS_ANY_ROLE false
#define RK_WORKER_CONNECTION BGWORKER_BYPASS_ALLOWCONN
#endif

/* A setting's record; 16 keeps them in a hash table. */
static inline struct config_generic *
rk_find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, false, ERROR);
#else
	struct config_generic **settings = get_guc_variables();

	for (int i = 0; i < GetNumConfigOptions(); i++)
		if (strcmp(settings[i]->name, name) == 0)
			return settings[i];
	elog(ERROR, "there is no setting \"%s\"", name);
#endif
}

/* 18 does not ask any more whether a portal is run once only. */
static inline void
rk_portal_run(Portal portal, DestReceiver *receiver, QueryCompletion *completion)
{
#if PG_VERSION_NUM >= 180000
	(void) PortalRun(portal, FETCH_ALL, true, receiver, receiver, completion);
#else
	(void) PortalRun(portal, FETCH_ALL, true, true, receiver, receiver, completion);
#endif
}

/* Minor releases since 2023 have a name for one that was not wholly dropped. */
#define RK_CONNLIMIT_INVALID_DATABASE (-2)

/* 16 gave settings an allocator of their own. */
static inline void *
rk_guc_malloc(size_t size)
{
#if PG_VERSION_NUM >= 160000
	return guc_malloc(LOG, size);
#else
	return malloc(size);
#endif
}

static inline char *
rk_guc_strdup(const char *text)
{
#if PG_VERSION_NUM >= 160000
	return guc_strdup(LOG, text);
#else
	return strdup(text);
#endif
}

static inline void
rk_guc_free(void *memory)
{
#if PG_VERSION_NUM >= 160000
	guc_free(memory);
#else
	free(memory);
#endif
}

/* 17 put it into a struct. */
static inline LocalTransactionId
rk_local_transaction(const PGPROC *proc)
{
#if PG_VERSION_NUM >= 170000
	return proc->vxid.lxid;
#else
	return proc->lxid;
#endif
}

/* 16 has callbacks of the JSON parser return whether to go on, 17 its context given. */
#if PG_VERSION_NUM >= 160000
typedef JsonParseErrorType RkJsonResult;
#define RK_JSON_GO_ON return JSON_SUCCESS
#else
typedef void RkJsonResult;
#define RK_JSON_GO_ON return
#endif

static inline JsonLexContext *
rk_json_lexer(const char *text, int length)
{
#if PG_VERSION_NUM >= 170000
	return makeJsonLexContextCstringLen(NULL, text, length, GetDatabaseEncoding(), true);
#else
	return makeJsonLexContextCstringLen((char *) text, length, GetDatabaseEncoding(), true);
#endif
}

#endif							/* RK_COMPAT_H */
