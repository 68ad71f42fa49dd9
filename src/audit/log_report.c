/*
 * log_report.c
 *
 * What the log says about tables as a whole, for the views audit_coverage,
 * audit_size and the doctor: since when a table is audited, when capture was
 * off, how much it fills. The log exists only from the first audit() on, so
 * these are functions and not part of the views: before that they return
 * nothing. They read as the log's owner and show what the caller may see: of
 * tables that he may SELECT or owns; members of the log's owner see all.
 */
#include "audit/audit.h"

#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(rowkeeper_audit_tables);
PG_FUNCTION_INFO_V1(rowkeeper_audit_sizes);
PG_FUNCTION_INFO_V1(rowkeeper_audit_overflow);
PG_FUNCTION_INFO_V1(rowkeeper_audit_weeks_ahead);

/* The dictionary's current rows that role $1 may see. */
#define VISIBLE_TABLES \
	"SELECT t.table_id, t.relation, t.table_schema, t.table_name, t.since " \
	"FROM rowkeeper_log.tables t LEFT JOIN pg_class c ON c.oid = t.relation " \
	"WHERE t.to_id IS NULL AND (has_table_privilege($1, c.oid, 'SELECT') " \
	"  OR pg_has_role($1, c.relowner, 'USAGE') " \
	"  OR pg_has_role($1, (SELECT l.relowner FROM pg_class l " \
	"    WHERE l.oid = 'rowkeeper_log.log'::regclass), 'USAGE'))"

/*
 * A gap begins with a DISABLE and ends with the next ALTER that says capture
 * works again. A session with rowkeeper.audit_capture off leaves a gap of one
 * transaction, which ends as it begins.
 */
#define TABLES_SQL \
	"WITH visible AS (" VISIBLE_TABLES "), " \
	"events AS (" \
	"  SELECT e.table_id, e.id, e.changed_at, e.detail, e.action = 'o' AS off, " \
	"    e.detail ? 'setting' AS by_setting " \
	"  FROM rowkeeper_log.log e " \
	"  WHERE e.table_id = ANY (ARRAY(SELECT v.table_id FROM visible v)) AND e.key_hash = 0 " \
	"    AND (e.action = 'o' OR e.action = 'l' AND e.detail ? 'enabled')), " \
	"turns AS (" \
	"  SELECT x.*, lag(x.off, 1, false) OVER w AS was_off, lead(x.changed_at) OVER w AS next_at " \
	"  FROM (SELECT y.*, lag(y.off) OVER (PARTITION BY y.table_id ORDER BY y.id) AS off_before " \
	"    FROM events y WHERE NOT y.by_setting) x " \
	"  WHERE x.off IS DISTINCT FROM x.off_before " \
	"  WINDOW w AS (PARTITION BY x.table_id ORDER BY x.id)), " \
	"gaps AS (" \
	"  SELECT table_id, id, changed_at AS from_at, next_at AS to_at, " \
	"    coalesce(detail ->> 'actions', detail ->> 'command') AS reason FROM turns WHERE off " \
	"  UNION ALL " \
	"  SELECT table_id, id, changed_at, changed_at, detail ->> 'setting' FROM events WHERE by_setting) " \
	"SELECT v.relation, v.table_schema, v.table_name, " \
	"  (SELECT min(s.since) FROM rowkeeper_log.tables s WHERE s.table_id = v.table_id), " \
	"  coalesce((SELECT jsonb_agg(jsonb_build_object('from', g.from_at, 'to', g.to_at, " \
	"      'reason', g.reason) ORDER BY g.id) FROM gaps g WHERE g.table_id = v.table_id), '[]') " \
	"FROM visible v"

static bool
log_exists(void)
{
	return OidIsValid(rk_audit_log_relation("log"));
}

/* Run a query about the log as its owner; $1 is the caller. SPI stays open. */
static void
begin_query(RkIdentity *saved, const char *sql)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(GetUserId())};

	rk_identity_assume(saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_with_args(sql, 1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the audit log's state");
}

static void
end_query(RkIdentity *saved)
{
	SPI_finish();
	rk_identity_restore(saved);
}

static Datum
result_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

/*
 * rowkeeper._audit_tables(): every table that was ever audited: relation
 * (null: dropped), table_schema, table_name, since, gaps. Locks: ACCESS SHARE
 * on the log. Shows each caller what he may see.
 */
Datum
rowkeeper_audit_tables(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RkIdentity	saved;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (!log_exists())
		return (Datum) 0;
	begin_query(&saved, TABLES_SQL);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	end_query(&saved);
	return (Datum) 0;
}

/* ---- sizes ---- */

/* What one table has in the log. */
typedef struct TableSize
{
	int32		table_id;
	Oid			relation;
	NameData	schema;
	NameData	name;
	double		entries;
	double		bytes;
	Oid			oldest;			/* the leaf with its first entries */
	TimestampTz oldest_from;
	Oid			newest;
	TimestampTz newest_from;
} TableSize;

/* What is in one leaf. */
typedef struct LeafSize
{
	Oid			leaf;
	TimestampTz from;
	double		entries;
	double		bytes;
	bool		analyzed;
} LeafSize;

static List *
read_visible_tables(void)
{
	MemoryContext context = CurrentMemoryContext;
	RkIdentity	saved;
	List	   *tables = NIL;

	begin_query(&saved, VISIBLE_TABLES " ORDER BY t.table_schema, t.table_name, t.table_id");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		TableSize  *table = MemoryContextAllocZero(context, sizeof(TableSize));
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;

		table->table_id = DatumGetInt32(result_value(i, 1, &isnull));
		table->relation = DatumGetObjectId(result_value(i, 2, &isnull));
		if (isnull)
			table->relation = InvalidOid;
		table->schema = *DatumGetName(result_value(i, 3, &isnull));
		table->name = *DatumGetName(result_value(i, 4, &isnull));
		tables = lappend(tables, table);
		MemoryContextSwitchTo(old);
	}
	end_query(&saved);
	return tables;
}

/*
 * The leaves, with their entries by the planner's rule: as many a page as
 * there were when it was last analyzed.
 */
static List *
read_leaves(void)
{
	MemoryContext context = CurrentMemoryContext;
	RkIdentity	saved;
	List	   *leaves = NIL;

	begin_query(&saved,
				"SELECT c.oid, CASE WHEN c.relpages > 0 THEN c.reltuples::float8 / c.relpages * "
				"    (pg_relation_size(c.oid) / current_setting('block_size')::integer) ELSE 0 END, "
				"  pg_total_relation_size(c.oid)::float8, "
				"  EXISTS (SELECT FROM pg_statistic s WHERE s.starelid = c.oid AND s.staattnum = 5) "
				"FROM pg_class c WHERE $1 IS NOT NULL AND c.relkind = 'r' AND c.relispartition "
				"  AND c.relnamespace = 'rowkeeper_log'::regnamespace");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		LeafSize   *leaf = MemoryContextAllocZero(context, sizeof(LeafSize));
		MemoryContext old = MemoryContextSwitchTo(context);
		TimestampTz to;
		bool		isnull;

		leaf->leaf = DatumGetObjectId(result_value(i, 1, &isnull));
		leaf->entries = DatumGetFloat8(result_value(i, 2, &isnull));
		leaf->bytes = DatumGetFloat8(result_value(i, 3, &isnull));
		leaf->analyzed = DatumGetBool(result_value(i, 4, &isnull));
		if (!rk_audit_leaf_bounds(leaf->leaf, &leaf->from, &to))
			leaf->from = DT_NOEND;	/* overflow: of any time */
		leaves = lappend(leaves, leaf);
		MemoryContextSwitchTo(old);
	}
	end_query(&saved);
	return leaves;
}

static void
add_share(List *tables, const LeafSize *leaf, int32 table_id, double share)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		TableSize  *table = lfirst(lc);

		if (table->table_id != table_id || share <= 0)
			continue;
		table->entries += leaf->entries * share;
		table->bytes += leaf->bytes * share;
		if (!OidIsValid(table->oldest) || leaf->from < table->oldest_from)
		{
			table->oldest = leaf->leaf;
			table->oldest_from = leaf->from;
		}
		if (!OidIsValid(table->newest) || leaf->from > table->newest_from)
		{
			table->newest = leaf->leaf;
			table->newest_from = leaf->from;
		}
	}
}

/*
 * Share a leaf among the tables: as the planner's statistics have it; until
 * it is analyzed for the first time, by counting.
 */
static void
add_leaf(List *tables, LeafSize *leaf)
{
	RkIdentity	saved;
	bool		isnull;

	if (leaf->analyzed)
		begin_query(&saved,
					psprintf("SELECT v.table_id, f.share::float8, $1 "
							 "FROM pg_stats s, "
							 "  unnest(s.most_common_vals::text::integer[]) WITH ORDINALITY v(table_id, n) "
							 "  JOIN unnest((SELECT most_common_freqs FROM pg_stats"
							 "    WHERE schemaname = 'rowkeeper_log' AND tablename = '%s' AND attname = 'table_id'))"
							 "    WITH ORDINALITY f(share, n) USING (n) "
							 "WHERE s.schemaname = 'rowkeeper_log' AND s.tablename = '%s' AND s.attname = 'table_id'",
							 get_rel_name(leaf->leaf), get_rel_name(leaf->leaf)));
	else
	{
		begin_query(&saved,
					psprintf("SELECT table_id, count(*) / sum(count(*)) OVER ()::float8, $1, "
							 "  (sum(count(*)) OVER ())::float8 "
							 "FROM %s WHERE action <> 'k' GROUP BY table_id",
							 rk_relation_name(leaf->leaf)));
		if (SPI_processed > 0)
			leaf->entries = DatumGetFloat8(result_value(0, 4, &isnull));
	}
	for (uint64 i = 0; i < SPI_processed; i++)
		add_share(tables, leaf, DatumGetInt32(result_value(i, 1, &isnull)),
				  DatumGetFloat8(result_value(i, 2, &isnull)));
	end_query(&saved);
}

/* The time of a table's first or last entry within a leaf. */
static Datum
entry_time(const char *aggregate, Oid leaf, int32 table_id, bool *isnull)
{
	*isnull = true;
	if (!OidIsValid(leaf))
		return (Datum) 0;
	return rk_fetch(rk_extension_owner(),
					psprintf("SELECT %s(changed_at) FROM %s WHERE table_id = %d",
							 aggregate, rk_relation_name(leaf), table_id),
					0, NULL, NULL, NULL, isnull);
}

/* How long a table's entries are kept now; null: for ever, or not audited. */
static Datum
current_keep(const TableSize *table, bool *isnull)
{
	return rk_fetch_about(rk_extension_owner(), table->relation,
						  "SELECT (rowkeeper._changes_options($1, 'audit') ->> 'keep')::interval", isnull);
}

/*
 * rowkeeper._audit_sizes(): table_schema, table_name, keep, entries, bytes,
 * oldest, newest of every table that was ever audited. Locks: ACCESS SHARE on
 * the log. Shows each caller what he may see.
 */
Datum
rowkeeper_audit_sizes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *tables;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (!log_exists())
		return (Datum) 0;
	tables = read_visible_tables();
	foreach(lc, read_leaves())
		add_leaf(tables, lfirst(lc));
	foreach(lc, tables)
	{
		TableSize  *table = lfirst(lc);
		Datum		values[7];
		bool		nulls[7] = {false};

		values[0] = NameGetDatum(&table->schema);
		values[1] = NameGetDatum(&table->name);
		values[2] = current_keep(table, &nulls[2]);
		values[3] = Int64GetDatum((int64) (table->entries + 0.5));
		values[4] = Int64GetDatum((int64) (table->bytes + 0.5));
		values[5] = entry_time("min", table->oldest, table->table_id, &nulls[5]);
		values[6] = entry_time("max", table->newest, table->table_id, &nulls[6]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---- for the doctor ---- */

/*
 * rowkeeper._audit_overflow() returns bigint: entries waiting in the overflow.
 * Locks: ACCESS SHARE on it. Tells everybody their number and no more.
 */
Datum
rowkeeper_audit_overflow(PG_FUNCTION_ARGS)
{
	bool		isnull;

	if (!OidIsValid(rk_audit_log_relation("log_overflow")))
		PG_RETURN_INT64(0);
	PG_RETURN_DATUM(rk_fetch(rk_extension_owner(),
							 "SELECT count(*) FROM rowkeeper_log.log_overflow WHERE action <> 'w'",
							 0, NULL, NULL, NULL, &isnull));
}

static int
weeks_after(Oid class_table, TimestampTz now)
{
	int			weeks = 0;
	ListCell   *lc;

	foreach(lc, find_inheritance_children(class_table, NoLock))
	{
		TimestampTz from;
		TimestampTz to;

		if (rk_audit_leaf_bounds(lfirst_oid(lc), &from, &to) && from > now)
			weeks++;
	}
	return weeks;
}

/*
 * rowkeeper._audit_weeks_ahead(): for every retention class its table and the
 * number of weekly leaves that are made for later. No locks on the log.
 */
Datum
rowkeeper_audit_weeks_ahead(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (!log_exists())
		return (Datum) 0;
	foreach(lc, find_inheritance_children(rk_audit_log_relation("log"), NoLock))
	{
		Datum		values[2];
		bool		nulls[2] = {false};

		if (get_rel_relkind(lfirst_oid(lc)) != RELKIND_PARTITIONED_TABLE)
			continue;
		values[0] = ObjectIdGetDatum(lfirst_oid(lc));
		values[1] = Int32GetDatum(weeks_after(lfirst_oid(lc), now));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
