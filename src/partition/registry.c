/*
 * registry.c
 *
 * Which tables are maintained: a row each in rowkeeper._partition_tables, which
 * a dump takes along. (A trigger to carry the options, as other features have
 * one, would lock out writers whenever it is made or an option changes; nothing
 * of this feature happens per row.)
 *
 * In the database where it was written ("home") a row is of the relation with
 * its OID, whatever that is called; in a copy OIDs say nothing, and it is of the
 * table that has its names. Maintenance makes the rows of a copy its own, and
 * writes down anew what tables are called. So no swap of names, heard or
 * unheard, gives one table the retention of another.
 */
#include "partition/partition.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* Change the registry; $1 is this home, $2 a relation, $3 and $4 names. */
static bool
change(const char *sql, Oid relid, const char *schema, const char *name)
{
	Oid			types[4] = {TEXTOID, OIDOID, NAMEOID, NAMEOID};
	Datum		values[4];
	char		nulls[5] = "    ";

	values[0] = CStringGetTextDatum(rk_home());
	values[1] = ObjectIdGetDatum(relid);
	values[2] = values[3] = (Datum) 0;
	if (schema != NULL)
		values[2] = DirectFunctionCall1(namein, CStringGetDatum(schema));
	else
		nulls[2] = 'n';
	if (name != NULL)
		values[3] = DirectFunctionCall1(namein, CStringGetDatum(name));
	else
		nulls[3] = 'n';
	return rk_run_args(rk_extension_owner(), sql, 4, types, values, nulls) > 0;
}

#define NAMED " AND table_schema = $3 AND table_name = $4"

/* ---- what is known of a table ---- */

/* What is wanted of a table; NULL where it is not maintained. */
RkPartitionOptions *
rk_partition_options_of(Oid root)
{
	bool		isnull;
	Datum		stored;

	stored = rk_fetch_about(rk_extension_owner(), root,
							"SELECT options FROM rowkeeper._partition_registry WHERE root = $1", &isnull);
	return isnull ? rk_partition_own_options_of(root) : rk_partition_options_parse(DatumGetJsonbP(stored));
}

/* Every table that partition() was told of and that exists: RkPartitionTable *. */
List *
rk_partition_tables(void)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *tables = NIL;
	RkIdentity	saved;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute("SELECT root, options FROM rowkeeper._partition_registry ORDER BY root", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the maintained tables");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);
		RkPartitionTable *table = palloc(sizeof(RkPartitionTable));
		bool		isnull;

		table->root = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		table->options = rk_partition_options_parse(DatumGetJsonbP(SPI_getbinval(SPI_tuptable->vals[i],
																				 SPI_tuptable->tupdesc, 2, &isnull)));
		tables = lappend(tables, table);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	rk_identity_restore(&saved);
	return tables;
}

/* ---- what becomes of it ---- */

/* A row of a copy's is of this table now, which was called so when it was copied. */
static void
adopt(Oid relid, const char *schema, const char *name)
{
	(void) change("UPDATE rowkeeper._partition_tables t SET home = $1, relation = $2 WHERE home <> $1" NAMED
				  " AND NOT EXISTS (SELECT FROM rowkeeper._partition_tables o WHERE o.home = $1 AND o.relation = $2)",
				  relid, schema, name);
}

/* Whatever a copy says of a table of these names is of one that is gone. */
static void
forget_copied(Oid relid, const char *schema, const char *name)
{
	(void) change("DELETE FROM rowkeeper._partition_tables WHERE home <> $1" NAMED,
				  relid, schema, name);
}

static char *
schema_of(Oid relid)
{
	return get_namespace_name(get_rel_namespace(relid));
}

void
rk_partition_options_store(Oid root, const RkPartitionOptions *options)
{
	Oid			types[5] = {TEXTOID, OIDOID, NAMEOID, NAMEOID, TEXTOID};
	Datum		values[5];

	adopt(root, schema_of(root), get_rel_name(root));
	values[0] = CStringGetTextDatum(rk_home());
	values[1] = ObjectIdGetDatum(root);
	values[2] = DirectFunctionCall1(namein, CStringGetDatum(schema_of(root)));
	values[3] = DirectFunctionCall1(namein, CStringGetDatum(get_rel_name(root)));
	values[4] = CStringGetTextDatum(rk_partition_options_format(options));
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper._partition_tables (home, relation, table_schema, table_name, options)"
					   " VALUES ($1, $2, $3, $4, $5::jsonb)"
					   " ON CONFLICT (home, relation) DO UPDATE SET table_schema = EXCLUDED.table_schema,"
					   " table_name = EXCLUDED.table_name, options = EXCLUDED.options",
					   5, types, values, NULL);
}

/* Returns whether it was maintained. */
bool
rk_partition_options_forget(Oid root)
{
	adopt(root, schema_of(root), get_rel_name(root));
	return change("DELETE FROM rowkeeper._partition_tables WHERE home = $1 AND relation = $2", root, NULL, NULL);
}

/* A relation is gone that had this identity, as the server writes it. */
void
rk_partition_table_dropped(Oid relid, const char *identity)
{
	Oid			types[3] = {TEXTOID, OIDOID, TEXTOID};
	Datum		values[3];

	values[0] = CStringGetTextDatum(rk_home());
	values[1] = ObjectIdGetDatum(relid);
	values[2] = CStringGetTextDatum(identity);
	(void) rk_run_args(rk_extension_owner(),
					   "DELETE FROM rowkeeper._partition_tables WHERE home = $1 AND relation = $2"
					   " OR home <> $1 AND ARRAY[table_schema, table_name]::text[] = parse_ident($3)",
					   3, types, values, NULL);
}

/* A table is new, but not out of a dump, which brings the registry first. */
void
rk_partition_table_created(Oid relid)
{
	forget_copied(relid, schema_of(relid), get_rel_name(relid));
}

/* A table has other names than before; NULL: that is not known. */
void
rk_partition_table_renamed(Oid relid, const char *old_schema, const char *old_name)
{
	if (old_schema != NULL)
		adopt(relid, old_schema, old_name);
	forget_copied(relid, schema_of(relid), get_rel_name(relid));
	(void) change("UPDATE rowkeeper._partition_tables SET table_schema = $3, table_name = $4"
				  " WHERE home = $1 AND relation = $2", relid, schema_of(relid), get_rel_name(relid));
}

/*
 * A schema was renamed, and what a copy says of its tables with it, and where
 * partitions are to be.
 */
void
rk_partition_schema_renamed(const char *old_name, const char *new_name)
{
	static const char *const options[] = {"partition_schema", "archive_schema"};

	for (int i = 0; i < lengthof(options); i++)
		(void) change(psprintf("UPDATE rowkeeper._partition_tables"
							   " SET options = jsonb_set(options, '{%s}', to_jsonb($4::text))"
							   " WHERE options ->> '%s' = $3::text",
							   options[i], options[i]),
					  InvalidOid, old_name, new_name);
	(void) change("DELETE FROM rowkeeper._partition_tables"
				  " WHERE home <> $1 AND table_schema = $4",
				  InvalidOid, old_name, new_name);
	(void) change("UPDATE rowkeeper._partition_tables SET table_schema = $4"
				  " WHERE table_schema = $3",
				  InvalidOid, old_name, new_name);
}

/*
 * Make the rows of a copy our own, and write down what tables are called that
 * were renamed unheard; what is of a relation that is gone goes. Before the
 * registry is worked through.
 */
void
rk_partition_registry_refresh(void)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1] = {CStringGetTextDatum(rk_home())};
	static const char *const statements[] = {
		"UPDATE rowkeeper._partition_tables t SET home = $1, relation = r.root FROM rowkeeper._partition_registry r"
		" WHERE t.home <> $1 AND (r.home, r.relation) = (t.home, t.relation)",
		"DELETE FROM rowkeeper._partition_tables t WHERE home = $1"
		" AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.relation AND c.relkind = 'p')",
		"UPDATE rowkeeper._partition_tables t SET table_schema = n.nspname, table_name = c.relname"
		" FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
		" WHERE t.home = $1 AND c.oid = t.relation AND (t.table_schema, t.table_name) <> (n.nspname, c.relname)"
	};

	for (int i = 0; i < lengthof(statements); i++)
		(void) rk_run_args(rk_extension_owner(), statements[i], 1, types, values, NULL);
}
