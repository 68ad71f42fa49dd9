/*
 * convert_swap.c
 *
 * The swap: a table gives its name to a new partitioned one and becomes its
 * first partition, in one transaction and without reading a row. All of it is
 * a list of statements that a query makes of the catalog
 * (rowkeeper._partition_convert_statements()), before the first of them is
 * run: so texts of views and triggers have the table's name, and mean the new
 * table once that has it. Each statement runs as the owner of what it alters,
 * triggers of the extension as the extension's.
 *
 * What need not wait for the locks is done before they are asked for: the new
 * table, its indexes and rights, while nobody can alter the table but all use
 * it. What others may alter all the same (views that read it, grants) has
 * versions in the catalog, which are compared under the locks.
 *
 * Nobody sees anything of it before the commit, and an error leaves nothing.
 */
#include "partition/partition.h"

#include "access/table.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define LOCKED_AT_STEP 10
#define COMPARED_AT_STEP 60		/* ATTACH */

typedef struct Statement
{
	int			step;
	Oid			role;
	bool		quiet;			/* no feature is told */
	char	   *sql;
} Statement;

/* ---- statements before it ---- */

/* Rows are held below the bound, and to have a value: all that ATTACH asks. */
char *
rk_convert_check_sql(const RkConversion *conversion, bool valid)
{
	char	   *key = pstrdup(quote_identifier(conversion->key));

	return psprintf("ALTER TABLE %s ADD CONSTRAINT rowkeeper_convert CHECK (%s IS NOT NULL%s)%s",
					rk_relation_name(conversion->relid), key,
					strcmp(conversion->bound, "MAXVALUE") == 0 ? "" : psprintf(" AND %s < %s", key, conversion->bound),
					valid ? "" : " NOT VALID");
}

static char *
text_about(Oid relid, const char *key, const char *query)
{
	Oid			types[2] = {OIDOID, TEXTOID};
	Datum		values[2];
	bool		isnull;
	Datum		result;

	values[0] = ObjectIdGetDatum(relid);
	values[1] = CStringGetTextDatum(key);
	result = rk_fetch(rk_extension_owner(), query, 2, types, values, NULL, &isnull);
	return isnull ? NULL : TextDatumGetCString(result);
}

/*
 * The index that becomes the primary key, of the key's columns and the
 * partition key's; NULL: the primary key contains that already, or there is none.
 */
char *
rk_convert_index_sql(const RkConversion *conversion, bool concurrently)
{
	char	   *rest = text_about(conversion->relid, conversion->key,
								  "SELECT format('%I ON %I.%I (%s)%s%s%s', rowkeeper._partition_convert_index(c.oid), n.nspname, c.relname,"
								  "  (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY x.position)"
								  "   FROM unnest(k.conkey || p.attnum) WITH ORDINALITY x (attnum, position)"
								  "   JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.attnum),"
								  "  rowkeeper._partition_convert_included(k.conindid, p.attnum),"
								  "  (SELECT ' WITH (' || string_agg(o.option, ', ') || ')' FROM unnest(i.reloptions) o (option)),"
								  "  (SELECT ' TABLESPACE ' || quote_ident(s.spcname) FROM pg_tablespace s WHERE s.oid = i.reltablespace))"
								  " FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
								  " JOIN pg_namespace n ON n.oid = c.relnamespace"
								  " JOIN pg_class i ON i.oid = k.conindid"
								  " JOIN pg_attribute p ON p.attrelid = c.oid AND p.attname = $2"
								  " WHERE k.conrelid = $1 AND k.contype = 'p' AND NOT p.attnum = ANY (k.conkey)");

	return rest == NULL ? NULL
		: psprintf("CREATE UNIQUE INDEX %s%s", concurrently ? "CONCURRENTLY " : "", rest);
}

/* ---- the list ---- */

/* The table's name as a partition: <table>_before_p20260101. */
char *
rk_convert_wide_name(const RkConversion *conversion)
{
	RkPartitionSet *set = rk_convert_set(conversion);

	return rk_name_fit(get_rel_name(conversion->relid),
					   conversion->upper == RK_NO_END ? "_all"
					   : psprintf("_before_%s", rk_grid_name(&set->grid, conversion->upper)));
}

/* Run the query, planned once a session: others wait meanwhile. Within SPI. */
static void
query_statements(const RkConversion *conversion)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[4] = {OIDOID, NAMEOID, NAMEOID, TEXTOID};
	NameData	key;
	NameData	wide;
	Datum		values[4];
	RkIdentity	saved;

	namestrcpy(&key, conversion->key);
	namestrcpy(&wide, rk_convert_wide_name(conversion));
	values[0] = ObjectIdGetDatum(conversion->relid);
	values[1] = NameGetDatum(&key);
	values[2] = NameGetDatum(&wide);
	values[3] = CStringGetTextDatum(conversion->bound);
	rk_identity_assume(&saved, rk_extension_owner(), false);
	(void) rk_plan_once(&plan, "SELECT step, role, quiet, statement"
						" FROM rowkeeper._partition_convert_statements($1, $2, $3, $4) ORDER BY step, number", 4, types);
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the statements of a conversion");
	rk_identity_restore(&saved);
}

static Statement *
read_statement(HeapTuple row, TupleDesc desc)
{
	Statement  *statement = palloc(sizeof(Statement));
	bool		isnull;

	statement->step = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
	statement->role = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
	statement->quiet = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));
	statement->sql = SPI_getvalue(row, desc, 4);
	if (statement->sql == NULL)
		elog(ERROR, "a statement of a conversion (step %d) could not be written", statement->step);
	return statement;
}

static List *
read_statements(const RkConversion *conversion)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *statements = NIL;

	SPI_connect();
	query_statements(conversion);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		statements = lappend(statements, read_statement(SPI_tuptable->vals[i], SPI_tuptable->tupdesc));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return statements;
}

/* The versions of what the statements are made of. */
static char *
read_state(const RkConversion *conversion)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(conversion->relid)};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old;
	RkIdentity	saved;
	char	   *state;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	(void) rk_plan_once(&plan, "SELECT s FROM rowkeeper._partition_convert_state($1) s", 1, types);
	if (SPI_execute_plan(plan, values, NULL, false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the state of a conversion");
	old = MemoryContextSwitchTo(caller);
	state = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	MemoryContextSwitchTo(old);
	SPI_finish();
	rk_identity_restore(&saved);
	return state;
}

/* ---- the locks ---- */

/* The table's own first, as everybody does who locks it and then others. */
RkLockRequest *
rk_convert_locks(const RkConversion *conversion)
{
	RkIdentity	saved;
	List	   *others;
	RkLockRequest *locks;
	int			count = 0;
	ListCell   *lc;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	others = rk_fetch_oids(psprintf("SELECT relation FROM rowkeeper._partition_convert_locks(%u)", conversion->relid));
	rk_identity_restore(&saved);
	locks = palloc0(sizeof(RkLockRequest) * (list_length(others) + 2));
	locks[count++] = (RkLockRequest)
	{
		conversion->relid, AccessExclusiveLock
	};
	foreach(lc, others)
		locks[count++] = (RkLockRequest)
	{
		lfirst_oid(lc), AccessExclusiveLock
	};
	return locks;
}

/* ---- doing it ---- */

/* Run DDL as a role that may not have called for it; quiet: no feature is told. */
void
rk_convert_run(Oid role, bool quiet, const char *sql)
{
	RkIdentity	saved;
	int			result;

	rk_identity_assume(&saved, role, true);
	if (quiet)
		rk_identity_own_ddl();
	SPI_connect();
	result = SPI_execute(sql, false, 0);
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
	SPI_finish();
	rk_identity_restore(&saved);
}

/* Take an index out of a list that the server will find to be like another one. */
static bool
take_equal_index(List **candidates, Relation wanted, const AttrMap *map)
{
	ListCell   *lc;

	foreach(lc, *candidates)
	{
		Relation	index = index_open(lfirst_oid(lc), NoLock);
		bool		equal = CompareIndexInfo(BuildIndexInfo(index), BuildIndexInfo(wanted),
											 index->rd_indcollation, wanted->rd_indcollation,
											 index->rd_opfamily, wanted->rd_opfamily, (AttrMap *) map);

		index_close(index, NoLock);
		if (equal)
		{
			*candidates = foreach_delete_current(*candidates, lc);
			return true;
		}
	}
	return false;
}

/*
 * ATTACH builds what indexes it does not find, while others wait. A definition
 * that reads as another than it was would be such.
 */
static void
check_indexes(Oid root, Oid partition)
{
	Relation	parent = table_open(root, NoLock);
	Relation	child = table_open(partition, NoLock);
	AttrMap    *map = rk_attrmap_by_name(RelationGetDescr(child), RelationGetDescr(parent));
	List	   *candidates = RelationGetIndexList(child);
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(parent))
	{
		Relation	index = index_open(lfirst_oid(lc), NoLock);

		if (!take_equal_index(&candidates, index, map))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot convert %s: its index %s would have to be built anew",
							rk_relation_name(root), quote_identifier(RelationGetRelationName(index))),
					 errhint("Drop it before, and create it after.")));
		index_close(index, NoLock);
	}
	table_close(child, NoLock);
	table_close(parent, NoLock);
}

static void
run_statement(FunctionCallInfo fcinfo, const Statement *statement)
{
	rk_convert_run(statement->role, statement->quiet, statement->sql);
	if (fcinfo != NULL)
		rk_step(fcinfo, statement->sql);
}

/*
 * Make the new table, and read what is to be done under the locks, for a role
 * that asks for it. The caller keeps others from altering the table (SHARE
 * UPDATE EXCLUSIVE) until the swap, and there is a valid CHECK of the bound.
 */
RkConvertSwap *
rk_convert_prepare(FunctionCallInfo fcinfo, const RkConversion *conversion, Oid role)
{
	RkConvertSwap *swap = palloc0(sizeof(RkConvertSwap));
	ListCell   *lc;

	swap->state = read_state(conversion);
	rk_convert_check(conversion->relid, conversion->key, role);
	foreach(lc, read_statements(conversion))
	{
		Statement  *statement = lfirst(lc);

		if (statement->step < LOCKED_AT_STEP)
			run_statement(fcinfo, statement);
		else
			swap->statements = lappend(swap->statements, statement);
	}
	swap->root = get_relname_relid(psprintf("rowkeeper_%u", conversion->relid), get_rel_namespace(conversion->relid));
	if (!OidIsValid(swap->root))
		elog(ERROR, "there are no statements to convert a table");
	rk_partition_dress(conversion->relid, swap->root, conversion->owner, RK_DRESS_ALL);
	return swap;
}

/* Whether the statements are no longer those of the catalog: they are to be read again. */
bool
rk_convert_is_altered(const RkConversion *conversion, const RkConvertSwap *swap)
{
	return strcmp(read_state(conversion), swap->state) != 0;
}

void
rk_convert_check_prepared(const RkConversion *conversion, const RkConvertSwap *swap)
{
	if (rk_convert_is_altered(conversion, swap))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("%s or what refers to it was altered meanwhile", rk_relation_name(conversion->relid))));
}

/* The table becomes the first partition of the new one. Locks: the caller's, rk_convert_locks(). */
void
rk_convert_swap(FunctionCallInfo fcinfo, const RkConversion *conversion, const RkConvertSwap *swap)
{
	bool		compared = false;
	ListCell   *lc;

	foreach(lc, swap->statements)
	{
		Statement  *statement = lfirst(lc);

		if (statement->step >= COMPARED_AT_STEP && !compared)
		{
			check_indexes(swap->root, conversion->relid);
			compared = true;
		}
		run_statement(fcinfo, statement);
	}
	rk_tell_replaced(conversion->relid, swap->root);
}
