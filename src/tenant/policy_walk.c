/*
 * policy_walk.c
 *
 * What a policy reads and calls, for the doctor: its expressions are walked as
 * trees, because their text says neither which column a name stands for nor
 * what an operator calls.
 */
#include "tenant/tenant.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

typedef struct Traits
{
	int			depth;			/* of sub-selects */
	Bitmapset  *columns;
	bool		is_volatile;
	bool		is_unsafe;		/* for parallel workers */
} Traits;

PG_FUNCTION_INFO_V1(rowkeeper_tenant_policy);

/* Called for every function in a node; true would stop the walk. */
static bool
note_function(Oid function, void *context)
{
	Traits	   *traits = context;

	traits->is_volatile |= func_volatile(function) == PROVOLATILE_VOLATILE;
	traits->is_unsafe |= func_parallel(function) != PROPARALLEL_SAFE;
	return false;
}

static bool
walk(Node *node, void *context)
{
	Traits	   *traits = context;

	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, note_function, traits);
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varlevelsup == traits->depth && var->varattno > 0)
			traits->columns = bms_add_member(traits->columns, var->varattno);
		return false;
	}
	if (IsA(node, Query))
	{
		traits->depth++;
		(void) query_tree_walker((Query *) node, walk, traits, 0);
		traits->depth--;
		return false;
	}
	return expression_tree_walker(node, walk, traits);
}

static void
walk_expression(HeapTuple tuple, TupleDesc desc, AttrNumber column, Traits *traits)
{
	bool		isnull;
	Datum		stored = heap_getattr(tuple, column, desc, &isnull);

	if (!isnull)
		(void) walk(stringToNode(TextDatumGetCString(stored)), traits);
}

/*
 * rowkeeper._tenant_policy(policy oid) returns its columns smallint[], and
 * whether it calls what is volatile or not parallel safe. No privileges, no
 * locks; nulls where there is no such policy.
 */
Datum
rowkeeper_tenant_policy(PG_FUNCTION_ARGS)
{
	Relation	catalog = table_open(PolicyRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Traits		traits = {0};
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	Datum	   *columns;
	int			count = 0;
	int			column = -1;

	ScanKeyInit(&key, Anum_pg_policy_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(PG_GETARG_OID(0)));
	scan = systable_beginscan(catalog, PolicyOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		walk_expression(tuple, RelationGetDescr(catalog), Anum_pg_policy_polqual, &traits);
		walk_expression(tuple, RelationGetDescr(catalog), Anum_pg_policy_polwithcheck, &traits);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);

	columns = palloc(sizeof(Datum) * (bms_num_members(traits.columns) + 1));
	while ((column = bms_next_member(traits.columns, column)) >= 0)
		columns[count++] = Int16GetDatum(column);
	values[0] = PointerGetDatum(construct_array(columns, count, INT2OID, sizeof(int16), true, TYPALIGN_SHORT));
	values[1] = BoolGetDatum(traits.is_volatile);
	values[2] = BoolGetDatum(traits.is_unsafe);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
