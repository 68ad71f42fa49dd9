/*
 * convert_plan.c
 *
 * Before a plain table is converted: whether everything that knows it can
 * follow it, and where its rows end. What cannot follow is found by a query
 * over the catalog (rowkeeper._partition_convert_problems()), which ends with
 * whatever else depends on the table: what is not known to follow is refused.
 *
 * The table becomes the partition of all rows below a bound, which lies so far
 * ahead of the rows and of the clock that none reaches it while the conversion
 * goes on; a CHECK holds them to that from its first step on, so that the swap
 * need not look at them.
 */
#include "partition/partition.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#define LONGEST_RUN (USECS_PER_DAY) /* that is planned for */
#define MARGIN (USECS_PER_HOUR)
#define ROWS_MEANWHILE 4		/* one new id for so many rows there are */

/* ---- what cannot be converted ---- */

/* The column that a table is to be partitioned by; key: NULL, "by" of the call. */
AttrNumber
rk_convert_key_column(FunctionCallInfo fcinfo, Oid relid, const char *key)
{
	AttrNumber	column;

	if (key == NULL && PG_ARGISNULL(1))
		rk_refuse_option("by", psprintf("%s is not partitioned: by which column it is to be has to be said",
										rk_relation_name(relid)),
						 "Such as: by => 'created_at', every => '1 month'.");
	if (key == NULL)
		key = NameStr(*PG_GETARG_NAME(1));
	column = get_attnum(relid, key);
	if (column == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("option \"by\": %s has no column \"%s\"", rk_relation_name(relid), key)));
	if (column < 0)
		rk_refuse_option("by", psprintf("\"%s\" is a system column", key), NULL);
	return column;
}

/* The first row of a query over the table's catalog entries; NULL: none. */
static bool
find_problem(Oid relid, const char *key, Oid role, char **state, char **problem, char **hint)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[3] = {OIDOID, NAMEOID, OIDOID};
	NameData	name;
	Datum		values[3];
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old;
	RkIdentity	saved;
	bool		found;

	namestrcpy(&name, key);
	values[0] = ObjectIdGetDatum(relid);
	values[1] = NameGetDatum(&name);
	values[2] = ObjectIdGetDatum(role);
	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_plan(rk_plan_once(&plan, "SELECT state, problem, hint FROM rowkeeper._partition_convert_problems($1, $2, $3)"
									  " ORDER BY rank, problem COLLATE \"C\" LIMIT 1", 3, types),
						 values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not check a table");
	found = SPI_processed > 0;
	if (found)
	{
		old = MemoryContextSwitchTo(caller);
		*state = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		*problem = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
		*hint = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return found;
}

/* A stamped key would be changed after the row's partition was chosen. */
static void
check_stamps(Oid relid, const char *key)
{
	static const char *const stamps[] = {"updated_at", "version", "created_at", "created_by", "updated_by"};
	RkTriggerRow row;
	Jsonb	   *options;

	if (!rk_trigger_read(relid, "~rowkeeper_stamp", "_stamp", &row) || row.arguments == NIL)
		return;
	options = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(linitial(row.arguments))));
	for (int i = 0; i < lengthof(stamps); i++)
	{
		char	   *column = rk_option_text(options, stamps[i]);

		if (column != NULL && strcmp(column, key) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot convert %s: its column %s is stamped, after the partition of a row is chosen",
							rk_relation_name(relid), quote_identifier(key)),
					 errhint("Leave that column to its default: SELECT rowkeeper.stamp(%s, %s => '-').",
							 quote_literal_cstr(rk_relation_name(relid)), stamps[i])));
	}
}

static void
check_citus(Oid relid)
{
	bool		isnull;

	if (!OidIsValid(get_relname_relid("pg_dist_partition", PG_CATALOG_NAMESPACE)))
		return;
	(void) rk_fetch(rk_extension_owner(),
					psprintf("SELECT 1 FROM pg_catalog.pg_dist_partition WHERE logicalrelid = %u", relid),
					0, NULL, NULL, NULL, &isnull);
	if (!isnull)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot convert %s: it is distributed by Citus", rk_relation_name(relid))));
}

/*
 * What others have altered since must be seen, or it would stay with the first
 * partition.
 */
static void
check_isolation(Oid relid)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot convert %s: the transaction sees the database as it was when it began",
						rk_relation_name(relid)),
				 errhint("BEGIN ISOLATION LEVEL READ COMMITTED, or SET default_transaction_isolation = 'read committed'.")));
}

/*
 * A row's partition is chosen before its BEFORE triggers run, and which of
 * them change the key nobody can tell.
 */
void
rk_convert_warn(Oid relid, const char *key)
{
	char	   *triggers = rk_fetch_text_about(rk_extension_owner(), relid,
												 "SELECT string_agg(quote_ident(g.tgname), ', ' ORDER BY g.tgname COLLATE \"C\")"
												 " FROM pg_trigger g JOIN pg_proc f ON f.oid = g.tgfoid"
												 " JOIN pg_namespace n ON n.oid = f.pronamespace"
												 " WHERE g.tgrelid = $1 AND NOT g.tgisinternal AND n.nspname <> 'rowkeeper'"
												 " AND g.tgtype & 3 = 3 AND g.tgtype & 20 <> 0");

	if (triggers != NULL)
		ereport(WARNING,
				(errmsg("BEFORE triggers of %s run once a row's partition is chosen: %s",
						rk_relation_name(relid), triggers),
				 errhint("One that sets column %s fails from the conversion on: use a DEFAULT.", quote_identifier(key))));
}

/* Raise where a table cannot be converted; role: for whom. */
void
rk_convert_check(Oid relid, const char *key, Oid role)
{
	char	   *state;
	char	   *problem;
	char	   *hint;

	check_isolation(relid);
	if (get_attnum(relid, key) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("cannot convert %s: its column %s is gone", rk_relation_name(relid), quote_identifier(key)),
				 errhint("SELECT rowkeeper.partition_off(%s) gives the conversion up.",
						 quote_literal_cstr(rk_relation_name(relid)))));
	check_citus(relid);
	if (find_problem(relid, key, role, &state, &problem, &hint))
		ereport(ERROR,
				(errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
				 errmsg("cannot convert %s: %s", rk_relation_name(relid), problem),
				 hint != NULL ? errhint("%s", hint) : 0));
	check_stamps(relid, key);
}

/* ---- where its rows end ---- */

/* The newest row's value of the key; false: there is no row. */
static bool
read_newest(const RkPartitionSet *set, Datum *value)
{
	bool		isnull;
	char	   *key = quote_identifier(set->key->name) == set->key->name
		? set->key->name : pstrdup(quote_identifier(set->key->name));

	*value = rk_fetch(set->owner,
					  psprintf("SELECT %s FROM ONLY %s WHERE %s IS NOT NULL ORDER BY %s DESC LIMIT 1",
							   key, rk_relation_name(set->root), key, key),
					  0, NULL, NULL, NULL, &isnull);
	return !isnull;
}

static void
check_nulls(const RkPartitionSet *set)
{
	bool		isnull;
	char	   *key = pstrdup(quote_identifier(set->key->name));

	(void) rk_fetch(set->owner,
					psprintf("SELECT 1 FROM ONLY %s WHERE %s IS NULL LIMIT 1", rk_relation_name(set->root), key),
					0, NULL, NULL, NULL, &isnull);
	if (!isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("cannot convert %s: it has rows without %s", rk_relation_name(set->root), key),
				 errhint("No partition takes them: give them a value, or delete them.")));
}

/* One row far ahead would have all that is written until then in one partition. */
static void
check_not_far(const RkPartitionSet *set, int64 newest, Datum value)
{
	if (rk_key_is_time(set->key)
		? newest <= rk_grid_now(&set->grid) || rk_partition_is_in_reach(set, newest)
		: newest != RK_NO_END)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot convert %s: it has a row with %s = %s, further ahead than partitions are made",
					rk_relation_name(set->root), quote_identifier(set->key->name),
					rk_key_stored_bound(set->key, value)),
			 errhint("Correct that row, or say a longer \"ahead\".")));
}

/* How many rows the catalog says a table has. */
static double
estimated_rows(Oid relid)
{
	bool		isnull;
	Datum		rows;

	rows = rk_fetch_about(rk_extension_owner(), relid,
					 "SELECT greatest(reltuples, 0)::float8 FROM pg_class WHERE oid = $1", &isnull);
	return isnull ? 0 : DatumGetFloat8(rows);
}

/* The first period that begins at least one after a position. */
static int64
period_after(const RkPartitionSet *set, int64 position)
{
	return rk_grid_point(&set->grid, rk_grid_number(&set->grid, position) + 2);
}

static int64
choose_upper(const RkPartitionSet *set, bool empty, int64 newest, bool now)
{
	int64		meanwhile = now ? 0 : (int64) (estimated_rows(set->root) / ROWS_MEANWHILE);

	if (rk_key_is_time(set->key))
		newest = Max(empty ? RK_NO_START : newest, rk_grid_now(&set->grid) + (now ? 0 : LONGEST_RUN));
	else if (empty)
		newest = 0;
	else
		newest = newest > RK_NO_END - meanwhile ? RK_NO_END - 1 : newest + meanwhile;
	return period_after(set, newest);
}

/* What is to be done with a table; now: within this transaction. Reads its rows. */
RkConversion *
rk_convert_plan(const RkPartitionSet *set, bool now)
{
	RkConversion *conversion = palloc0(sizeof(RkConversion));
	Datum		value;
	bool		empty = !read_newest(set, &value);
	int64		newest = empty ? RK_NO_START : rk_key_position(set->key, value);

	check_nulls(set);
	if (!empty)
		check_not_far(set, newest, value);
	conversion->relid = set->root;
	conversion->owner = set->owner;
	conversion->key = set->key->name;
	conversion->options = set->options;
	conversion->upper = choose_upper(set, empty, newest, now);
	conversion->bound = rk_key_bound(set->key, conversion->upper);
	return conversion;
}

/* The table's partitions to be, of which there are none. */
RkPartitionSet *
rk_convert_set(const RkConversion *conversion)
{
	RkPartitionSet *set = palloc0(sizeof(RkPartitionSet));

	set->root = conversion->relid;
	set->owner = rk_relation_owner(conversion->relid);
	set->options = conversion->options;
	set->key = rk_key_create(conversion->relid, get_attnum(conversion->relid, conversion->key),
							 conversion->options->epoch);
	set->grid.key = set->key;
	set->grid.zone = rk_partition_zone(conversion->options->timezone);
	set->grid.step = rk_partition_step(set->key, conversion->options->every);
	set->grid.origin = rk_partition_origin(&set->grid, conversion->options->origin);
	rk_partition_set_read(set);
	return set;
}

static bool
has_index(Oid relid, const char *key)
{
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2];
	bool		isnull;

	values[0] = ObjectIdGetDatum(relid);
	values[1] = CStringGetTextDatum(key);
	(void) rk_fetch(rk_extension_owner(),
					"SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam"
					" JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
					" WHERE i.indrelid = $1 AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree' AND a.attname = $2",
					2, types, values, NULL, &isnull);
	return !isnull;
}

/*
 * Whether rows are about to reach the bound, past which the CHECK refuses them;
 * also where that can no longer be told.
 */
bool
rk_convert_is_late(const RkConversion *conversion)
{
	RkPartitionSet *set;
	Datum		value;

	if (conversion->swapped || conversion->upper == RK_NO_END)
		return false;
	if (get_attnum(conversion->relid, conversion->key) <= 0)
		return true;
	set = rk_convert_set(conversion);
	if (rk_key_is_time(set->key))
		return rk_grid_now(&set->grid) + MARGIN >= conversion->upper;
	return has_index(conversion->relid, conversion->key) && read_newest(set, &value) &&
		rk_key_position(set->key, value) >= conversion->upper - set->grid.step.count / 2;
}
