/*
 * dress.c
 *
 * What CREATE TABLE LIKE leaves out. Rights, row security with its policies,
 * replica identity, statistics targets and comment follow from a comparison of
 * the two tables, which is a query (rowkeeper._partition_differences()) that
 * doctor() asks, too: a new partition is made to have no differences. What a
 * partitioned table cannot have itself (storage parameters, access method,
 * being unlogged) is taken from the newest partition, the model.
 */
#include "partition/partition.h"

#include "access/htup_details.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(rowkeeper_partition_compare);

#define MISSING_GRANTS "missing grants" /* of _partition_differences() */

/* The newest partition of a maintained table that is a table, or InvalidOid. */
Oid
rk_partition_model(const RkPartitionSet *set)
{
	for (int i = set->count - 1; i >= 0; i--)
		if (!set->parts[i].pending &&
			(set->parts[i].relkind == RELKIND_RELATION || set->parts[i].relkind == RELKIND_PARTITIONED_TABLE))
			return set->parts[i].relid;
	return InvalidOid;
}

/* ---- at creation ---- */

static void
append_options(StringInfo list, Oid relid, const char *prefix)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		isnull;
	Datum		stored;
	Datum	   *options;
	int			count;

	if (!HeapTupleIsValid(tuple))
		return;
	stored = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
	if (!isnull)
	{
		deconstruct_array(DatumGetArrayTypeP(stored), TEXTOID, -1, false, TYPALIGN_INT,
						  &options, NULL, &count);
		for (int i = 0; i < count; i++)
		{
			char	   *option = TextDatumGetCString(options[i]);
			char	   *value = strchr(option, '=');

			if (value == NULL)
				continue;
			*value++ = '\0';
			appendStringInfo(list, "%s%s%s = %s", list->len > 0 ? ", " : "", prefix,
							 quote_identifier(option), quote_literal_cstr(value));
		}
	}
	ReleaseSysCache(tuple);
}

static Form_pg_class
class_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relid));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	return (Form_pg_class) GETSTRUCT(tuple);
}

/*
 * The end of CREATE TABLE for a partition like the model (InvalidOid: there is
 * none yet): access method, storage parameters, tablespace. Those of a
 * partition that has partitions itself are theirs.
 */
char *
rk_partition_storage(Oid parent, Oid model)
{
	Form_pg_class table = class_of(parent);
	Oid			method = table->relam;
	StringInfoData sql;
	StringInfoData options;

	initStringInfo(&sql);
	initStringInfo(&options);
	if (OidIsValid(model) && get_rel_relkind(model) == RELKIND_RELATION)
	{
		Form_pg_class leaf = class_of(model);

		if (!OidIsValid(method))
			method = leaf->relam;
		append_options(&options, model, "");
		if (OidIsValid(leaf->reltoastrelid))
			append_options(&options, leaf->reltoastrelid, "toast.");
	}
	if (OidIsValid(method) && method != HEAP_TABLE_AM_OID)	/* the pinned default */
		appendStringInfo(&sql, " USING %s", quote_identifier(get_am_name(method)));
	if (options.len > 0)
		appendStringInfo(&sql, " WITH (%s)", options.data);
	if (OidIsValid(table->reltablespace))
		appendStringInfo(&sql, " TABLESPACE %s", quote_identifier(get_tablespace_name(table->reltablespace)));
	return sql.data;
}

/* ---- after it ---- */

/*
 * Run the comparison, planned once a session; within SPI. The plan is made when
 * there are few partitions and kept while many are made: it reads no catalog as
 * a whole, however small that may be yet.
 */
static void
compare(Oid parent, Oid child)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2];
	RkIdentity	saved;
	Snapshot	snapshot;

	values[0] = ObjectIdGetDatum(parent);
	values[1] = ObjectIdGetDatum(child);
	rk_identity_assume(&saved, rk_extension_owner(), false);
	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) rk_plan_once(&plan, "SELECT statement, what, step FROM rowkeeper._partition_differences($1, $2)"
						" ORDER BY step, statement COLLATE \"C\"", 2, types);

	/*
	 * as they are now: under REPEATABLE READ, too, others may have altered
	 * them
	 */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (SPI_execute_snapshot(plan, values, NULL, snapshot, InvalidSnapshot, false, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not compare a partition with its table");
	UnregisterSnapshot(snapshot);
	rk_identity_restore(&saved);
}

/* Have the comparison planned, before others wait for it. */
void
rk_partition_dress_prepare(Oid relid)
{
	SPI_connect();
	compare(relid, relid);
	SPI_finish();
}

static bool
is_about_access(const char *what)
{
	return strcmp(what, MISSING_GRANTS) == 0 || strcmp(what, "row security") == 0 || strcmp(what, "policies") == 0;
}

static bool
is_wanted(RkDress dress, const char *what)
{
	switch (dress)
	{
		case RK_DRESS_CLOSED:
			return !is_about_access(what);
		case RK_DRESS_GRANTS:
			return strcmp(what, MISSING_GRANTS) == 0;
		case RK_DRESS_ALL:
			break;
	}
	return true;
}

/* Whether a partition is as its table is. */
bool
rk_partition_is_dressed(Oid parent, Oid child)
{
	bool		dressed;

	SPI_connect();
	compare(parent, child);
	dressed = SPI_processed == 0;
	SPI_finish();
	return dressed;
}

/*
 * Run what makes a partition as its table is, or that part of it, as its owner,
 * which no feature need hear of; again after ATTACH, when its indexes are known
 * to be those of the table. Locks: ACCESS EXCLUSIVE on the partition, but for
 * grants.
 */
void
rk_partition_dress(Oid parent, Oid child, Oid owner, RkDress dress)
{
	SPITupleTable *statements;
	uint64		count;

	SPI_connect();
	compare(parent, child);
	count = SPI_processed;
	statements = SPI_tuptable;
	for (uint64 i = 0; i < count; i++)
	{
		if (is_wanted(dress, SPI_getvalue(statements->vals[i], statements->tupdesc, 2)))
			rk_convert_run(owner, true, SPI_getvalue(statements->vals[i], statements->tupdesc, 1));
	}
	SPI_finish();
}

/*
 * rowkeeper._partition_compare(parent oid, child oid) returns TABLE (step,
 * what, statement): rowkeeper._partition_differences(). No privileges: it
 * shows what the catalog shows to everybody.
 */
Datum
rowkeeper_partition_compare(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	compare(PG_GETARG_OID(0), PG_GETARG_OID(1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		Datum		values[3];
		bool		nulls[3];

		for (int column = 0; column < 3; column++)
			values[column] = SPI_getbinval(row, SPI_tuptable->tupdesc, 3 - column, &nulls[column]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	SPI_finish();
	return (Datum) 0;
}
