/*
 * status.c
 *
 * How a maintained table is: what it covers, what is missing or too old, and
 * what the next maintenance will do about it. Read from the catalog, as the
 * extension; nothing is changed, and no partition is locked.
 */
#include "partition/partition.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_partition_plan);
PG_FUNCTION_INFO_V1(rowkeeper_partition_state);
PG_FUNCTION_INFO_V1(rowkeeper_partition_default_rows);

#define ROWS_COUNTED 10000

/*
 * rowkeeper.partition_plan(target regclass) returns SETOF text: what the next
 * maintenance of a table will do, as SQL: partitions made, then partitions
 * taken away (all of them, one after another). The caller must own the table.
 * Locks: none that anybody waits for. Errors: 42501, 55000 a table whose
 * partitions are not maintained.
 */
Datum
rowkeeper_partition_plan(PG_FUNCTION_ARGS)
{
	Oid			target;
	RkPartitionOptions *options;
	RkPartitionSet *set;
	bool		more;
	ListCell   *lc;

	rk_steps_begin(fcinfo);
	target = rk_target_argument(fcinfo);
	rk_check_owner(target);
	options = rk_partition_options_of(target);
	if (options == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("partitions of %s are not maintained", rk_relation_name(target)),
				 errhint("SELECT rowkeeper.partition(%s) begins.",
						 quote_literal_cstr(rk_relation_name(target)))));
	set = rk_partition_set_load(target, options);
	set->look_at_rows = !rk_key_is_time(set->key);
	foreach(lc, rk_partitions_wanted(set, INT_MAX, &more))
	{
		rk_step(fcinfo, rk_partition_create_sql(set, lfirst(lc)));
		rk_step(fcinfo, rk_partition_attach_sql(set, lfirst(lc)));
	}
	foreach(lc, rk_partitions_expired(set))
	{
		ListCell   *statement;

		foreach(statement, rk_partition_expire_sql(set, ((RkPartition *) lfirst(lc))->relid))
			rk_step(fcinfo, lfirst(statement));
	}
	return (Datum) 0;
}

/* ---- the state of one table ---- */

enum
{
	STATE_PARTITIONS, STATE_AHEAD, STATE_COVERED, STATE_COVERED_UNTIL, STATE_GAP_FROM,
	STATE_PENDING, STATE_DEFAULT, STATE_MISSING, STATE_EXPIRED, STATE_NEXT, STATE_PROBLEM,
	STATE_COLUMNS
};

typedef struct State
{
	Oid			root;
	Datum		values[STATE_COLUMNS];
	bool		nulls[STATE_COLUMNS];
} State;

static void
set_value(State *state, int column, Datum value)
{
	state->values[column] = value;
	state->nulls[column] = false;
}

static void
set_text(State *state, int column, const char *string)
{
	if (string != NULL)
		set_value(state, column, CStringGetTextDatum(string));
}

/* A position for people: a bound without quotes. */
static char *
shown(const RkPartitionSet *set, int64 position)
{
	if (position == RK_NO_START || position == RK_NO_END)
		return pstrdup(position == RK_NO_END ? "MAXVALUE" : "MINVALUE");
	return rk_key_is_time(set->key) ? rk_time_text(position, rk_key_is_instant(set->key))
		: psprintf(INT64_FORMAT, position);
}

/* From the present position on: how far without a gap, and what is after it. */
static void
describe_coverage(const RkPartitionSet *set, State *state)
{
	int64		position = rk_partition_now(set);
	int			number = rk_partition_covering(set, position);
	int			ahead = 0;
	bool		covered = number >= 0 || (!rk_key_is_time(set->key) && set->count == 0);

	set_value(state, STATE_COVERED, BoolGetDatum(covered));
	while (number >= 0 && set->parts[number].upper != RK_NO_END)
	{
		position = set->parts[number].upper;
		number = rk_partition_covering(set, position);
		ahead += number >= 0;
	}
	if (number >= 0)
		position = RK_NO_END;
	set_value(state, STATE_AHEAD, Int32GetDatum(ahead));
	if (covered)
		set_text(state, STATE_COVERED_UNTIL, shown(set, position));
	for (int i = 0; i < set->count; i++)
		if (!set->parts[i].pending && set->parts[i].lower > position)
		{
			set_text(state, STATE_GAP_FROM, shown(set, position));
			break;
		}
}

static void
describe_partitions(const RkPartitionSet *set, State *state)
{
	bool		more;
	List	   *wanted = rk_partitions_wanted(set, RK_MAX_CREATED, &more);
	List	   *expired = rk_partitions_expired(set);

	set_value(state, STATE_PARTITIONS,
			  Int32GetDatum(set->count + (OidIsValid(set->default_partition) ? 1 : 0)));
	for (int i = 0; i < set->count; i++)
		if (set->parts[i].pending)
			set_text(state, STATE_PENDING, rk_relation_name(set->parts[i].relid));
	if (OidIsValid(set->default_partition))
		set_value(state, STATE_DEFAULT, ObjectIdGetDatum(set->default_partition));
	set_value(state, STATE_MISSING, Int32GetDatum(list_length(wanted)));
	set_value(state, STATE_EXPIRED, Int32GetDatum(list_length(expired)));
	if (wanted != NIL)
		set_text(state, STATE_NEXT, rk_partition_attach_sql(set, linitial(wanted)));
	else if (expired != NIL)
		set_text(state, STATE_NEXT, linitial(rk_partition_expire_sql(set, ((RkPartition *) linitial(expired))->relid)));
}

static void
describe(void *arg)
{
	State	   *state = arg;
	RkPartitionOptions *options = rk_partition_options_of(state->root);
	RkPartitionSet *set;

	if (options == NULL)
		return;
	set = rk_partition_set_load(state->root, options);
	describe_partitions(set, state);
	describe_coverage(set, state);
}

/*
 * rowkeeper._partition_state(target oid) returns a record: how a maintained
 * table is, or as "problem" why that cannot be said. For partition_status and
 * doctor(), which show it to who may SELECT the table.
 */
Datum
rowkeeper_partition_state(PG_FUNCTION_ARGS)
{
	State		state = {.root = PG_GETARG_OID(0)};
	TupleDesc	desc;
	ErrorData  *error;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	memset(state.nulls, true, sizeof(state.nulls));
	error = rk_attempt(describe, &state);
	if (error != NULL)
	{
		memset(state.nulls, true, sizeof(state.nulls));
		set_text(&state, STATE_PROBLEM, error->message);
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), state.values, state.nulls)));
}

/*
 * rowkeeper._partition_default_rows(target oid) returns bigint: how many rows
 * are in the default partition of a maintained table, ROWS_COUNTED at most.
 * Counted as the owner of that partition. NULL where it has none, or is locked,
 * and for who is not a member of the table's owner, or is held to row security.
 */
Datum
rowkeeper_partition_default_rows(PG_FUNCTION_ARGS)
{
	Oid			root = PG_GETARG_OID(0);
	RkPartitionOptions *options = NULL;
	RkPartitionSet *set = NULL;
	bool		isnull;
	Datum		count;

	/* a count of all rows is not for whom row security hides some */
	if (get_rel_name(root) != NULL && rk_is_relation_owner(root, GetUserId()) && !rk_is_held(root))
		options = rk_partition_options_of(root);
	if (options != NULL)
		set = rk_partition_set_load(root, options);
	if (set == NULL || !OidIsValid(set->default_partition) ||
		!ConditionalLockRelationOid(set->default_partition, AccessShareLock))
		PG_RETURN_NULL();
	count = rk_fetch(rk_relation_owner(set->default_partition),
					 psprintf("SELECT count(*) FROM (SELECT FROM %s LIMIT %d) x",
							  rk_relation_name(set->default_partition), ROWS_COUNTED),
					 0, NULL, NULL, NULL, &isnull);
	PG_RETURN_DATUM(count);
}
