/*
 * create.c
 *
 * One new partition: CREATE TABLE LIKE, then everything that LIKE leaves out
 * (dress.c), then ATTACH. PARTITION OF would do most of that at once, but
 * takes ACCESS EXCLUSIVE on the table: it waits for every reader, and everybody
 * waits for it. ATTACH takes SHARE UPDATE EXCLUSIVE, and scans nothing, for
 * the new table is empty.
 *
 * All of it runs as the table's owner under the restrictions of maintenance:
 * what he may not do is not done for him, and no code of his can do more than
 * he.
 */
#include "partition/partition.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_partitioned_table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * Run DDL on a user's table as its owner, for a maintenance that he may not
 * have called. Features hear of it.
 */
void
rk_partition_run(Oid owner, const char *sql)
{
	RkIdentity	saved;
	int			result;

	rk_identity_assume(&saved, owner, true);
	SPI_connect();
	result = SPI_execute(sql, false, 0);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	SPI_finish();
	rk_identity_restore(&saved);
}

static void
run_step(FunctionCallInfo fcinfo, Oid owner, const char *sql)
{
	rk_partition_run(owner, sql);
	if (fcinfo != NULL)
		rk_step(fcinfo, sql);
}

/* ---- names ---- */

char *
rk_partition_schema_of_new(const RkPartitionSet *set)
{
	return set->options->partition_schema != NULL ? set->options->partition_schema
		: get_namespace_name(get_rel_namespace(set->root));
}

static void
check_name_is_free(const char *schema, const char *name, Oid root)
{
	Oid			namespace = get_namespace_oid(schema, false);

	if (OidIsValid(get_relname_relid(name, namespace)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation %s already exists and is no partition of %s for this period",
						quote_qualified_identifier(schema, name), rk_relation_name(root)),
				 errhint("Rename it, attach it, or keep partitions elsewhere with partition_schema.")));
}

/*
 * The name of a partition's partition: what follows the model's name in the
 * name of the model's own, else its number.
 */
static char *
name_below(const char *name, const char *model, const char *model_child, int number)
{
	size_t		prefix = strlen(model);
	char	   *suffix = strncmp(model_child, model, prefix) == 0 && model_child[prefix] != '\0'
		? pstrdup(model_child + prefix) : psprintf("_%d", number);

	return rk_name_fit(psprintf("%s%s", name, suffix), "");
}

/* ---- building ---- */

/* Whether a table is partitioned by a range of the key, too. */
static bool
divides_key(const RkPartitionSet *set, Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(PARTRELID, ObjectIdGetDatum(relid));
	AttrNumber	column = get_attnum(relid, set->key->name);
	Form_pg_partitioned_table form;
	bool		result = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_partitioned_table) GETSTRUCT(tuple);
	if (form->partstrat == PARTITION_STRATEGY_RANGE)
		for (int i = 0; i < form->partnatts; i++)
			result |= form->partattrs.values[i] == column || form->partattrs.values[i] == 0;	/* an expression */
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Whether a new partition is to have partitions as the model's: not where
 * their bounds are of the key, and so of the model's period.
 */
static bool
is_divided(const RkPartitionSet *set, Oid model)
{
	return OidIsValid(model) && get_rel_relkind(model) == RELKIND_PARTITIONED_TABLE &&
		!divides_key(set, model);
}

static char *
create_sql(const RkPartitionSet *set, const char *schema, const char *name, Oid model)
{
	StringInfoData sql;
	bool		is_parent = is_divided(set, model);
	char		persistence = get_rel_persistence(OidIsValid(model) ? model : set->root);

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE %sTABLE %s (LIKE %s INCLUDING ALL EXCLUDING IDENTITY)",
					 persistence == RELPERSISTENCE_UNLOGGED && !is_parent ? "UNLOGGED " : "",
					 quote_qualified_identifier(schema, name),
					 rk_relation_name(OidIsValid(set->options->template) ? set->options->template : set->root));
	if (is_parent)
		appendStringInfo(&sql, " PARTITION BY %s",
						 rk_fetch_text_about(set->owner, model, "SELECT pg_get_partkeydef($1)"));
	appendStringInfoString(&sql, rk_partition_storage(set->root, model));
	return sql.data;
}

static bool
has_brin(const RkPartitionSet *set, Oid relid)
{
	Oid			types[2] = {OIDOID, INT2OID};
	Datum		values[2];
	bool		isnull;

	values[0] = ObjectIdGetDatum(relid);
	values[1] = Int16GetDatum(get_attnum(relid, set->key->name));
	(void) rk_fetch(set->owner,
					"SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
					" JOIN pg_am m ON m.oid = c.relam"
					" WHERE i.indrelid = $1 AND i.indkey[0] = $2 AND m.amname = 'brin'",
					2, types, values, NULL, &isnull);
	return !isnull;
}

static Oid	build(FunctionCallInfo fcinfo, const RkPartitionSet *set, const char *schema,
				  const char *name, Oid model);

/* Partitions of a new partition, as those of the model. */
static void
build_below(FunctionCallInfo fcinfo, const RkPartitionSet *set, const char *schema,
			const char *name, Oid model)
{
	int			number = 0;
	ListCell   *lc;

	foreach(lc, find_inheritance_children(model, NoLock))
	{
		Oid			below = lfirst_oid(lc);
		char	   *below_name = name_below(name, get_rel_name(model), get_rel_name(below), ++number);

		(void) build(fcinfo, set, schema, below_name, below);
		run_step(fcinfo, set->owner,
				 psprintf("ALTER TABLE %s ATTACH PARTITION %s %s",
						  quote_qualified_identifier(schema, name),
						  quote_qualified_identifier(schema, below_name),
						  rk_fetch_text_about(set->owner, below,
											  "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = $1")));
	}
}

/* A table like the model with all that is below it, not attached yet. */
static Oid
build(FunctionCallInfo fcinfo, const RkPartitionSet *set, const char *schema,
	  const char *name, Oid model)
{
	Oid			relid;

	check_name_is_free(schema, name, set->root);
	run_step(fcinfo, set->owner, create_sql(set, schema, name, model));
	relid = get_relname_relid(name, get_namespace_oid(schema, false));
	if (!OidIsValid(relid))
		elog(ERROR, "could not find the new partition \"%s\"", name);
	if (set->options->brin && !has_brin(set, relid))
		run_step(fcinfo, set->owner,
				 psprintf("CREATE INDEX ON %s USING brin (%s)",
						  quote_qualified_identifier(schema, name), quote_identifier(set->key->name)));
	rk_partition_dress(set->root, relid, set->owner, RK_DRESS_ALL);
	rk_tell_partition_built(set->root, relid);
	if (is_divided(set, model))
		build_below(fcinfo, set, schema, name, model);
	return relid;
}

/* ---- what the feature calls ---- */

/* The statements for one partition, as partition_plan() shows them. */
char *
rk_partition_create_sql(const RkPartitionSet *set, const RkWanted *wanted)
{
	return create_sql(set, rk_partition_schema_of_new(set), wanted->name, rk_partition_model(set));
}

char *
rk_partition_attach_sql(const RkPartitionSet *set, const RkWanted *wanted)
{
	return psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)",
					rk_relation_name(rk_partition_parent_for(set, wanted->lower)),
					quote_qualified_identifier(rk_partition_schema_of_new(set), wanted->name),
					wanted->lower_text, wanted->upper_text);
}

/* Whether somebody else has made a partition since the set was read. */
bool
rk_partition_is_made(const RkPartitionSet *set, const RkWanted *wanted)
{
	RkPartitionSet now = *set;

	/* under this name, or it is not there */
	if (!OidIsValid(get_relname_relid(wanted->name, get_namespace_oid(rk_partition_schema_of_new(set), false))))
		return false;
	rk_partition_set_read(&now);
	return rk_partition_wanted_for(&now, wanted->lower) == NULL;
}

/* Make the table of a partition; nobody waits for the locks this takes. */
Oid
rk_partition_build(FunctionCallInfo fcinfo, const RkPartitionSet *set, const RkWanted *wanted)
{
	if (set->options->partition_schema != NULL)
		rk_partition_check_schema("partition_schema", set->options->partition_schema, set->owner);
	return build(fcinfo, set, rk_partition_schema_of_new(set), wanted->name, rk_partition_model(set));
}

/* Whether there is anything that needs the indexes of a partition to be known. */
static bool
has_index_settings(const RkPartitionSet *set)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(set->root)};
	RkIdentity	saved;
	bool		result;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	(void) rk_plan_once(&plan, "SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indexrelid"
						" WHERE i.indrelid = $1 AND (i.indisreplident OR coalesce(a.attstattarget, -1) >= 0)", 1, types);
	if (SPI_execute_plan(plan, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the indexes of a table");
	result = SPI_processed > 0;
	SPI_finish();
	rk_identity_restore(&saved);
	return result;
}

/*
 * Attach what was built. Locks: SHARE UPDATE EXCLUSIVE on the table, ACCESS
 * EXCLUSIVE on its default partition, SHARE ROW EXCLUSIVE on the tables of its
 * foreign keys, out and in.
 */
void
rk_partition_attach(FunctionCallInfo fcinfo, const RkPartitionSet *set, const RkWanted *wanted, Oid relid)
{
	ListCell   *lc;

	run_step(fcinfo, set->owner, rk_partition_attach_sql(set, wanted));

	if (!has_index_settings(set))
		return;
	/* now its indexes are known to be those of the table */
	foreach(lc, rk_relation_tree(relid, NoLock))
		rk_partition_dress(get_partition_parent(lfirst_oid(lc), true), lfirst_oid(lc), set->owner, RK_DRESS_ALL);
}
