/*
 * unique.c
 *
 * soft_delete_unique(): uniqueness among the live rows, as a unique index
 * with the live rows' condition, in place of the plain constraint or index on
 * the same columns, under which a deleted row would keep its e-mail address
 * for ever. In trash mode deleted rows are not in the table, and the plain
 * one is right.
 */
#include "soft_delete/soft_delete.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/partition.h"
#include "catalog/pg_constraint.h"
#include "commands/defrem.h"
#include "nodes/primnodes.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_unique);

/* The unique indexes on a set of columns, as the table has them. */
typedef struct Found
{
	bool		live;			/* there is one with our condition */
	Oid			plain;			/* one without any; InvalidOid: none */
	bool		nulls_not_distinct; /* of plain */
} Found;

/* The columns named, in their order. */
static List *
read_columns(Oid root, ArrayType *array)
{
	List	   *columns = NIL;
	ListCell   *lc;

	foreach(lc, rk_names_argument(array))
	{
		const char *name = lfirst(lc);
		AttrNumber	column;

		if (name == NULL)
			rk_refuse_option("columns", "a column name must not be null", NULL);
		column = get_attnum(root, name);
		if (column <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of %s does not exist", name, rk_relation_name(root))));
		columns = list_append_unique_int(columns, column);
	}
	if (columns == NIL)
		rk_refuse_option("columns", "names no column", NULL);
	return columns;
}

static bool
same_columns(Relation index, List *columns)
{
	int			count = IndexRelationGetNumberOfKeyAttributes(index);

	if (count != list_length(columns))
		return false;
	for (int i = 0; i < count; i++)
		if (!list_member_int(columns, index->rd_index->indkey.values[i]))
			return false;
	return true;
}

/* Whether an index is for the rows where this column is null, and those alone. */
static bool
is_of_live_rows(Relation index, AttrNumber deleted_at)
{
	List	   *predicate = RelationGetIndexPredicate(index);
	NullTest   *test;

	if (list_length(predicate) != 1 || !IsA(linitial(predicate), NullTest))
		return false;
	test = linitial(predicate);
	return test->nulltesttype == IS_NULL && IsA(test->arg, Var) &&
		((Var *) test->arg)->varattno == deleted_at;
}

/* Of a key over periods: values are kept from overlapping, not from being equal alone. */
static void
check_not_exclusion(Relation index)
{
	if (index->rd_index->indisexclusion)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot replace unique index %s: it is over periods",
						rk_relation_name(RelationGetRelid(index))),
				 errhint("Drop it and add an exclusion constraint of the live rows: EXCLUDE USING gist (... WITH =, ... WITH &&) WHERE (... IS NULL).")));
}

static Found
find_indexes(Relation rel, List *columns, AttrNumber deleted_at)
{
	Found		found = {0};
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indisunique && same_columns(index, columns) &&
			RelationGetIndexExpressions(index) == NIL)
		{
			if (index->rd_index->indisprimary)
				rk_refuse_option("columns", "they are the primary key", NULL);
			check_not_exclusion(index);
			if (is_of_live_rows(index, deleted_at))
				found.live |= index->rd_index->indisvalid;
			else if (RelationGetIndexPredicate(index) == NIL)
			{
				found.plain = lfirst_oid(lc);
				found.nulls_not_distinct = index->rd_index->indnullsnotdistinct;
			}
		}
		index_close(index, NoLock);
	}
	return found;
}

/* The server wants a foreign key's target unique among all rows. */
static void
check_not_referenced(Oid root, Oid index)
{
	ListCell   *lc;

	foreach(lc, rk_links_to(root))
	{
		RkLink	   *link = lfirst(lc);

		if (OidIsValid(index) && link->index == index)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot replace unique index %s: foreign key \"%s\" of %s points to it",
							rk_relation_name(index), link->name, rk_relation_name(link->child)),
					 errhint("Point the foreign key to the primary key.")));
	}
}

/* A unique index of a partitioned table has the partition key in it. */
static void
check_partition_key(Relation rel, List *columns)
{
	PartitionKey key;

	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return;
	key = RelationGetPartitionKey(rel);
	for (int i = 0; i < key->partnatts; i++)
		if (!list_member_int(columns, key->partattrs[i]))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot make columns of %s unique: the table is partitioned by others",
							rk_relation_name(RelationGetRelid(rel))),
					 errhint("Name the columns of the partition key, too.")));
}

static char *
index_name(Oid root, List *columns)
{
	StringInfoData names;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, columns)
		appendStringInfo(&names, "%s%s", names.len > 0 ? "_" : "",
						 get_attname(root, lfirst_int(lc), false));
	return ChooseRelationName(get_rel_name(root), names.data, "live_key",
							  get_rel_namespace(root), false);
}

static char *
create_sql(Oid root, List *columns, const RkSoftDeleteOptions *options, bool nulls_not_distinct,
		   bool concurrently)
{
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE UNIQUE INDEX %s%s ON %s (", concurrently ? "CONCURRENTLY " : "",
					 quote_identifier(index_name(root, columns)), rk_relation_name(root));
	foreach(lc, columns)
		appendStringInfo(&sql, "%s%s", foreach_current_index(lc) > 0 ? ", " : "",
						 quote_identifier(get_attname(root, lfirst_int(lc), false)));
	appendStringInfo(&sql, ")%s WHERE %s IS NULL",
					 nulls_not_distinct ? " NULLS NOT DISTINCT" : "",
					 quote_identifier(options->deleted_at));
	return sql.data;
}

/* What drops the plain index, or the constraint that it belongs to. */
static char *
drop_sql(Oid root, Oid index)
{
	Oid			constraint = get_index_constraint(index);

	if (OidIsValid(constraint))
		return psprintf("ALTER TABLE %s DROP CONSTRAINT %s", rk_relation_name(root),
						quote_identifier(get_constraint_name(constraint)));
	return psprintf("DROP INDEX %s", rk_relation_name(index));
}

static double
estimated_rows(Oid root)
{
	double		rows = 0;
	ListCell   *lc;

	foreach(lc, rk_relation_tree(root, NoLock))
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessShareLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
			rows += rel->rd_rel->reltuples > 0 ? rel->rd_rel->reltuples
				: RelationGetNumberOfBlocks(rel) > 0 ? RelationGetNumberOfBlocks(rel) * 50.0 : 0;
		table_close(rel, NoLock);
	}
	return rows;
}

static void
check_size(Oid root, List *columns, const RkSoftDeleteOptions *options, const Found *found)
{
	double		rows = estimated_rows(root);

	if (rows <= rk_inline_rows)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table %s has more rows than rowkeeper.inline_rows, so no index is built in it here",
					rk_relation_name(root)),
			 errdetail("It has about %.0f rows.", rows),
			 errhint("Run first:\n%s;\nthen call rowkeeper.soft_delete_unique() again.",
					 create_sql(root, columns, options, found->nulls_not_distinct,
								get_rel_relkind(root) == RELKIND_RELATION))));
}

/*
 * rowkeeper.soft_delete_unique(target regclass, columns name[]) returns SETOF
 * text: makes columns unique among the live rows of a table in flag mode; a
 * plain unique constraint or index on the same columns goes in the same call.
 * Nothing to do: no rows. The caller must own the table. Locks: SHARE while
 * the index is built, ACCESS EXCLUSIVE while the plain one is dropped. Errors:
 * 55000 no soft delete, or more rows than rowkeeper.inline_rows; 23505 live
 * rows are not unique; 0A000 a foreign key points to the plain one, the table
 * is partitioned by other columns, or is in trash mode.
 */
Datum
rowkeeper_soft_delete_unique(PG_FUNCTION_ARGS)
{
	Oid			root;
	RkSoftDeleteOptions *options;
	Relation	rel;
	List	   *columns;
	Found		found;
	RkIdentity	saved;

	rk_steps_begin(fcinfo);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target table and columns must not be null")));
	root = PG_GETARG_OID(0);
	rk_check_owner(root);
	options = rk_soft_delete_options_of(root);
	if (options == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s has no soft delete", rk_relation_name(root))));
	if (options->trash)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s is soft-deleted in trash mode", rk_relation_name(root)),
				 errhint("Its deleted rows are not in the table: use a plain unique constraint.")));

	rel = table_open(root, ShareUpdateExclusiveLock);
	columns = read_columns(root, PG_GETARG_ARRAYTYPE_P(1));
	check_partition_key(rel, columns);
	/* the server evaluates what is constant in an index's predicate */
	rk_identity_assume(&saved, rk_relation_owner(root), true);
	found = find_indexes(rel, columns, get_attnum(root, options->deleted_at));
	rk_identity_restore(&saved);
	table_close(rel, NoLock);
	check_not_referenced(root, found.plain);
	if (!found.live || OidIsValid(found.plain))
		rk_trigger_check_pending(rk_relation_tree(root, NoLock));
	if (!found.live)
	{
		check_size(root, columns, options, &found);
		/* expressions in an index are users' code */
		rk_run_ddl_step(fcinfo, rk_relation_owner(root),
						create_sql(root, columns, options, found.nulls_not_distinct, false));
	}
	if (OidIsValid(found.plain))
		rk_run_step(fcinfo, rk_relation_owner(root), drop_sql(root, found.plain));
	return (Datum) 0;
}
