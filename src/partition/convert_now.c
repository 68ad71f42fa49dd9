/*
 * convert_now.c
 *
 * A small table becomes a partitioned one within the transaction of
 * partition(), which keeps it to itself until its end: the same checks, bound,
 * CHECK, index and swap as in steps (convert.c), one after the other.
 */
#include "partition/partition.h"

#include "access/table.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define ROWS_IN_PAGE 50			/* of a table that was never analyzed */

static double
rows_of(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	double		rows = rel->rd_rel->reltuples > 0 ? rel->rd_rel->reltuples
		: (double) RelationGetNumberOfBlocks(rel) * ROWS_IN_PAGE;

	table_close(rel, NoLock);
	return rows;
}

/* The CALL that a table is too big to do without. */
static void
check_size(FunctionCallInfo fcinfo, Oid relid)
{
	double		rows = rows_of(relid);

	if (rows <= rk_inline_rows)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s is not partitioned, and has more rows than rowkeeper.inline_rows to be converted in a transaction",
					rk_relation_name(relid)),
			 errdetail("It has about %.0f rows, and nobody could read or write it meanwhile.", rows),
			 errhint("CALL rowkeeper.partition_convert(%s, %s, %s) converts it while it is in use; within a migration: SELECT rowkeeper.later('CALL ...').",
					 quote_literal_cstr(rk_relation_name(relid)),
					 PG_ARGISNULL(1) ? "..." : quote_literal_cstr(NameStr(*PG_GETARG_NAME(1))),
					 PG_ARGISNULL(2) ? "..." : quote_literal_cstr(text_to_cstring(PG_GETARG_TEXT_PP(2))))));
}

static void
check_not_converting(Oid relid)
{
	if (rk_convert_read(relid) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s is being converted", rk_relation_name(relid)),
				 errhint("CALL rowkeeper.partition_convert(%s) goes on with it, SELECT rowkeeper.partition_off(%s) gives it up.",
						 quote_literal_cstr(rk_relation_name(relid)), quote_literal_cstr(rk_relation_name(relid)))));
}

static void
run_and_show(FunctionCallInfo fcinfo, Oid role, const char *sql)
{
	rk_convert_run(role, false, sql);
	rk_step(fcinfo, sql);
}

static void
make_index_now(FunctionCallInfo fcinfo, const RkConversion *conversion)
{
	char	   *drop = rk_convert_drop_index_sql(conversion, "");
	char	   *create = rk_convert_index_sql(conversion, false);

	if (drop != NULL)
		rk_convert_run(conversion->owner, true, drop);
	if (create != NULL)
		run_and_show(fcinfo, conversion->owner, create);
}

/*
 * partition() of a plain table: all of it in this transaction, which keeps the
 * table to itself until its end.
 */
void
rk_partition_convert_now(FunctionCallInfo fcinfo, Oid relid)
{
	AttrNumber	column = rk_convert_key_column(fcinfo, relid, NULL);
	Oid			caller = GetUserId();
	RkPartitionSet *set;
	RkConversion *conversion;
	RkConvertSwap *swap;
	List	   *foreign_keys;
	ListCell   *lc;

	check_size(fcinfo, relid);
	check_not_converting(relid);
	LockRelationOid(relid, AccessExclusiveLock);
	rk_trigger_check_pending(list_make1_oid(relid));
	set = rk_partition_merge_options(fcinfo, relid, column, NULL);
	rk_convert_check(relid, set->key->name, caller);
	rk_partition_check_referencing(set);
	rk_convert_warn(relid, set->key->name);
	conversion = rk_convert_plan(set, true);
	rk_convert_check_name(conversion);
	rk_convert_drop_check(conversion);
	run_and_show(fcinfo, conversion->owner, rk_convert_check_sql(conversion, true));
	make_index_now(fcinfo, conversion);
	foreign_keys = rk_convert_errands(relid,
									  "SELECT c.relowner, format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, k.conname)"
									  " FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
									  " WHERE k.confrelid = $1 AND k.contype = 'f' AND k.convalidated AND k.conparentid = 0"
									  " ORDER BY k.oid");
	swap = rk_convert_prepare(fcinfo, conversion, caller);
	rk_convert_swap(fcinfo, conversion, swap);
	rk_convert_drop_left_over(swap->root);
	foreach(lc, foreign_keys)
		run_and_show(fcinfo, ((RkConvertErrand *) lfirst(lc))->role, ((RkConvertErrand *) lfirst(lc))->sql);
	set = rk_partition_set_load(swap->root, conversion->options);
	rk_partition_register(fcinfo, set);
	rk_partition_create_missing(fcinfo, set);
}
