/*
 * columns.c
 *
 * What the column of a claim must be like: of a type that a claim can have,
 * never null (but for shared rows), filled by default, and first in an index.
 * What is cheap is done in the call; what would scan or index a large table,
 * or has no one answer, is refused with the statements to run first, all of
 * them at once.
 */
#include "tenant/protect.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/partition.h"
#include "nodes/makefuncs.h"
#include "commands/defrem.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#define MAX_STEPS 20

/* What stands in the way, and the statements that clear it. */
typedef struct Obstacles
{
	StringInfoData found;
	StringInfoData steps;
	int			count;
} Obstacles;

static void
add_line(StringInfo text, const char *line)
{
	appendStringInfo(text, "%s%s", text->len > 0 ? "\n" : "", line);
}

static void
add_step(Obstacles *obstacles, const char *step)
{
	if (obstacles->count++ < MAX_STEPS)
		add_line(&obstacles->steps, psprintf("%s;", step));
	else if (obstacles->count == MAX_STEPS + 1)
		add_line(&obstacles->steps, "...");
}

/* ---- what a column is ---- */

static Form_pg_attribute
fetch_column(Oid relid, const char *name)
{
	HeapTuple	tuple = SearchSysCacheAttName(relid, name);
	Form_pg_attribute column = palloc(sizeof(FormData_pg_attribute));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for column \"%s\" of relation %u", name, relid);
	memcpy(column, GETSTRUCT(tuple), ATTRIBUTE_FIXED_PART_SIZE);
	ReleaseSysCache(tuple);
	return column;
}

static bool
has_deterministic_collation(Oid relid, const char *name)
{
	Oid			collation = fetch_column(relid, name)->attcollation;

	return !OidIsValid(collation) || get_collation_isdeterministic(collation);
}

static void
check_column(Oid root, RkClaimKind kind, const char *name)
{
	char	   *table = rk_relation_name(root);

	if (get_attnum(root, name) == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("%s has no column \"%s\"", table, name),
				 errhint("Name another one, by => '...', or run first:\n"
						 "ALTER TABLE %s ADD COLUMN %s bigint;\n"
						 "UPDATE %s SET %s = ...;",
						 table, quote_identifier(name), table, quote_identifier(name))));
	if (get_attnum(root, name) < 0 || !OidIsValid(rk_tenant_column_type(root, name)))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of %s is of type %s, which no %s has",
						name, table, format_type_be(get_atttype(root, get_attnum(root, name))),
						rk_claim_names[kind]),
				 errhint("Types are smallint, integer, bigint, uuid, text and varchar.")));
	if (!has_deterministic_collation(root, name))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of %s has a nondeterministic collation: keys would take two %ss for one",
						name, table, rk_claim_names[kind]),
				 errhint("ALTER TABLE %s ALTER COLUMN %s TYPE %s COLLATE \"C\";",
						 table, quote_identifier(name),
						 format_type_be(get_atttype(root, get_attnum(root, name))))));
}

/* Raise 42703, 42804 or 0A000 where a column is not there or of a type or collation that will not do. */
void
rk_tenant_check_columns(Oid root, const RkTenantOptions *options)
{
	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
		if (options->by[kind] != NULL)
			check_column(root, kind, options->by[kind]);
	if (options->by[RK_CLAIM_TENANT] != NULL && options->by[RK_CLAIM_USER] != NULL &&
		strcmp(options->by[RK_CLAIM_TENANT], options->by[RK_CLAIM_USER]) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"by\": column \"%s\" cannot be both tenant and user",
						options->by[RK_CLAIM_TENANT])));
}

/* ---- rows ---- */

/* The count that a query of ours gives, as a role. */
int64
rk_tenant_count(Oid role, const char *sql)
{
	bool		isnull;

	return DatumGetInt64(rk_fetch(role, sql, 0, NULL, NULL, NULL, &isnull));
}

/* More rows than a call may look at? Counts no further than that. */
bool
rk_tenant_is_large(Oid relid)
{
	return rk_tenant_count(rk_relation_owner(relid),
						   psprintf("SELECT count(*) FROM (SELECT FROM %s LIMIT " INT64_FORMAT ") rows",
									rk_relation_name(relid), (int64) rk_inline_rows + 1)) > rk_inline_rows;
}

/* Whether a column is NOT NULL, and not of new rows only (NOT VALID, from 18 on). */
static bool
is_not_null(Oid relid, const char *column)
{
	Oid			types[2] = {OIDOID, INT2OID};
	Datum		values[2] = {ObjectIdGetDatum(relid), Int16GetDatum(get_attnum(relid, column))};
	bool		isnull;

	return fetch_column(relid, column)->attnotnull &&
		DatumGetBool(rk_fetch(rk_relation_owner(relid),
							  "SELECT NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1 AND contype = 'n'"
							  " AND conkey[1] = $2 AND NOT convalidated)",
							  2, types, values, NULL, &isnull));
}

/* Whether a validated check constraint says that a column is not null. */
static bool
is_proved_not_null(Oid root, const char *column)
{
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2] = {ObjectIdGetDatum(root), CStringGetTextDatum(psprintf("(%s IS NOT NULL)", quote_identifier(column)))};
	bool		isnull;

	return DatumGetBool(rk_fetch(rk_relation_owner(root),
								 "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1 AND contype = 'c'"
								 " AND convalidated AND NOT connoinherit AND pg_get_expr(conbin, conrelid) = $2)",
								 2, types, values, NULL, &isnull));
}

/* ---- NOT NULL ---- */

static bool
may_be_null(const RkTenantOptions *options, RkClaimKind kind)
{
	return options->shared && kind == RK_CLAIM_TENANT;
}

static void
plan_not_null(Obstacles *obstacles, Oid root, const char *name, bool large)
{
	char	   *table = rk_relation_name(root);
	const char *column = quote_identifier(name);
	int64		nulls;

	if (is_not_null(root, name) || (large && is_proved_not_null(root, name)))
		return;
	if (large)
	{
		char	   *constraint = makeObjectName(get_rel_name(root), name, "not_null");

		add_line(&obstacles->found,
				 psprintf("Column \"%s\" may be null, and the table is too large to look through here.", name));
		add_step(obstacles, psprintf("ALTER TABLE %s ADD CONSTRAINT %s CHECK (%s IS NOT NULL) NOT VALID",
									 table, quote_identifier(constraint), column));
		add_step(obstacles, psprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s",
									 table, quote_identifier(constraint)));
		return;
	}
	nulls = rk_tenant_count(rk_relation_owner(root),
							psprintf("SELECT count(*) FROM %s WHERE %s IS NULL", table, column));
	if (nulls == 0)
		return;
	add_line(&obstacles->found,
			 psprintf(INT64_FORMAT " %s no \"%s\".", nulls, nulls == 1 ? "row has" : "rows have", name));
	add_step(obstacles, psprintf("%sUPDATE %s SET %s = ... WHERE %s IS NULL",
								 rk_tenant_options_of(root) == NULL ? "" :
								 "-- past isolation: as a role with BYPASSRLS, or after rowkeeper.tenant_bypass()\n",
								 table, column, column));
}

static void
set_not_null(FunctionCallInfo fcinfo, Oid root, const char *name)
{
	if (!is_not_null(root, name))
		rk_run_ddl_step(fcinfo, rk_relation_owner(root),
						psprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL",
								 rk_relation_name(root), quote_identifier(name)));
}

/* ---- the index ---- */

/* The column that plans look for first. */
static const char *
leading_column(const RkTenantOptions *options)
{
	return options->by[RK_CLAIM_TENANT] != NULL ? options->by[RK_CLAIM_TENANT] : options->by[RK_CLAIM_USER];
}

static bool
has_leading_index(Oid relid, const char *column)
{
	Relation	rel = table_open(relid, AccessShareLock);
	AttrNumber	number = get_attnum(relid, column);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

		found |= index->indisvalid && index->indkey.values[0] == number &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
		ReleaseSysCache(tuple);
	}
	table_close(rel, NoLock);
	return found;
}

/* Where each partition holds its own tenants, pruning is the index. */
static bool
is_list_partitioned_by(Oid root, const char *column)
{
	Relation	rel = table_open(root, AccessShareLock);
	PartitionKey key = RelationGetPartitionKey(rel);
	bool		by_column = key != NULL && key->strategy == PARTITION_STRATEGY_LIST &&
		key->partattrs[0] == get_attnum(root, column);

	table_close(rel, NoLock);
	return by_column;
}

static bool
needs_index(Oid root, const char *column)
{
	return !has_leading_index(root, column) && !is_list_partitioned_by(root, column);
}

static char *
create_index_sql(Oid relid, const char *column, bool concurrently)
{
	return psprintf("CREATE INDEX %sON %s (%s)", concurrently ? "CONCURRENTLY " : "",
					rk_relation_name(relid), quote_identifier(column));
}

/* On a partitioned table: on each leaf alone; the root's takes them over. */
static void
plan_index(Obstacles *obstacles, Oid root, const char *column)
{
	ListCell   *lc;

	if (!needs_index(root, column))
		return;
	add_line(&obstacles->found,
			 psprintf("No index begins with \"%s\", and the table is too large to make one here.", column));
	foreach(lc, rk_relation_tree(root, AccessShareLock))
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION &&
			!has_leading_index(lfirst_oid(lc), column))
		add_step(obstacles, create_index_sql(lfirst_oid(lc), column, true));
	if (get_rel_relkind(root) == RELKIND_PARTITIONED_TABLE)
		add_step(obstacles, create_index_sql(root, column, false));
}

/* ---- the default ---- */

/* The column's default as the server writes it, or NULL. */
static char *
current_default(Oid relid, const char *column)
{
	Oid			types[2] = {OIDOID, INT2OID};
	Datum		values[2] = {ObjectIdGetDatum(relid), Int16GetDatum(get_attnum(relid, column))};
	bool		isnull;
	Datum		stored = rk_fetch(rk_relation_owner(relid),
								  "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = $1 AND adnum = $2",
								  2, types, values, NULL, &isnull);

	return isnull ? NULL : TextDatumGetCString(stored);
}

static char *
own_default(Oid relid, const RkTenantOptions *options, RkClaimKind kind)
{
	return rk_tenant_getter(kind, rk_tenant_column_type(relid, options->by[kind]));
}

static bool
ensure_default(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options, RkClaimKind kind)
{
	const char *name = options->by[kind];
	Form_pg_attribute column = fetch_column(relid, name);
	char	   *wanted = own_default(relid, options, kind);
	char	   *now = current_default(relid, name);

	if (column->attgenerated != '\0' || column->attidentity != '\0')
		return false;
	if (now != NULL)
	{
		if (strcmp(now, wanted) != 0 && fcinfo != NULL)
			ereport(NOTICE,
					(errmsg("column \"%s\" of %s keeps its default %s", name, rk_relation_name(relid), now)));
		return false;
	}
	rk_run_ddl_step(fcinfo, rk_relation_owner(relid),
					psprintf("ALTER TABLE %s ALTER COLUMN %s SET DEFAULT %s",
							 rk_relation_name(relid), quote_identifier(name), wanted));
	return true;
}

/* New rows are of the claim, where nothing else is said and no other default there is. */
bool
rk_tenant_default_ensure(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options)
{
	bool		changed = false;

	for (RkClaimKind kind = 0; options->set_default && kind < RK_CLAIM_KINDS; kind++)
		if (options->by[kind] != NULL)
			changed |= ensure_default(fcinfo, relid, options, kind);
	return changed;
}

/* Take our default away again, and no other. */
void
rk_tenant_default_drop(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *options, RkClaimKind kind)
{
	char	   *now;

	if (options->by[kind] == NULL || get_attnum(relid, options->by[kind]) <= 0)
		return;
	now = current_default(relid, options->by[kind]);
	if (now == NULL || strcmp(now, own_default(relid, options, kind)) != 0)
		return;
	rk_run_ddl_step(fcinfo, rk_relation_owner(relid),
					psprintf("ALTER TABLE %s ALTER COLUMN %s DROP DEFAULT",
							 rk_relation_name(relid), quote_identifier(options->by[kind])));
}

/* A default that follows a column no more, or is not wanted any more, goes. */
void
rk_tenant_old_defaults_drop(FunctionCallInfo fcinfo, Oid relid, const RkTenantOptions *before,
							const RkTenantOptions *after)
{
	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
		if (before->by[kind] != NULL &&
			(!after->set_default || after->by[kind] == NULL ||
			 strcmp(before->by[kind], after->by[kind]) != 0))
			rk_tenant_default_drop(fcinfo, relid, before, kind);
}

/* ---- all of it ---- */

/* Raise 55000 with everything that must be done first, or return. */
static void
check_obstacles(Oid root, const RkTenantOptions *options, bool large)
{
	Obstacles	obstacles = {0};

	initStringInfo(&obstacles.found);
	initStringInfo(&obstacles.steps);
	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
		if (options->by[kind] != NULL && !may_be_null(options, kind))
			plan_not_null(&obstacles, root, options->by[kind], large);
	if (large)
		plan_index(&obstacles, root, leading_column(options));
	if (obstacles.found.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s is not ready for its tenants", rk_relation_name(root)),
				 errdetail("%s", obstacles.found.data),
				 errhint("Run first, then call again:\n%s", obstacles.steps.data)));
}

static bool
is_ready(Oid root, const RkTenantOptions *options)
{
	for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
		if (options->by[kind] != NULL && !may_be_null(options, kind) &&
			!is_not_null(root, options->by[kind]))
			return false;
	return !needs_index(root, leading_column(options));
}

/* Make the columns what they must be; raises where that is the user's to do. */
void
rk_tenant_prepare_columns(FunctionCallInfo fcinfo, Oid root, const RkTenantOptions *options)
{
	if (!is_ready(root, options))
	{
		check_obstacles(root, options, rk_tenant_is_large(root));
		for (RkClaimKind kind = 0; kind < RK_CLAIM_KINDS; kind++)
			if (options->by[kind] != NULL && !may_be_null(options, kind))
				set_not_null(fcinfo, root, options->by[kind]);
		if (needs_index(root, leading_column(options)))
			rk_run_ddl_step(fcinfo, rk_relation_owner(root),
							create_index_sql(root, leading_column(options), false));
	}
	(void) rk_tenant_default_ensure(fcinfo, root, options);
}
