/*
 * batch.c
 *
 * A batch is what one top-level statement deleted, its cascades included. Its
 * number comes from a sequence, because transaction ids repeat in a restored
 * cluster, and one transaction may well delete ten thousand rows one by one
 * that nobody wants back together.
 *
 * rowkeeper_trash.batches says of each batch which tables it concerns and how
 * many of its rows can be brought back. It is only ever appended to: a restore
 * or a purge adds a negative number, so that nobody waits for anybody there.
 * Schema, sequence and table are ordinary objects outside of the extension,
 * as the log's are, made at the first call.
 */
#include "soft_delete/soft_delete.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define REMEMBERED 8

/* The batches of this transaction's last statements; a ring. */
static struct
{
	CommandId	statement;
	int64		batch;			/* 0: empty */
}			known[REMEMBERED];
static int	next_known = 0;

static int64 in_progress = 0;	/* of the cascade that runs now */

/* All that this transaction drew, ascending; in TopTransactionContext. */
static int64 *drawn = NULL;
static int	drawn_count = 0;
static int	drawn_size = 0;

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_batches);

/* ---- objects ---- */

/* A relation in the schema of what is kept; InvalidOid: there is none. */
Oid
rk_trash_relation(const char *name)
{
	Oid			schema = get_namespace_oid(RK_TRASH_SCHEMA, true);

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

/* Default privileges must not let others write here; reading is granted by table. */
static const char *const store_sql[] =
{
	"CREATE SCHEMA IF NOT EXISTS " RK_TRASH_SCHEMA,
	"GRANT USAGE ON SCHEMA " RK_TRASH_SCHEMA " TO PUBLIC",
	"COMMENT ON SCHEMA " RK_TRASH_SCHEMA " IS"
	" 'Deleted rows kept by rowkeeper; not a member of the extension, which it outlives.'",
	"CREATE SEQUENCE IF NOT EXISTS " RK_TRASH_SCHEMA ".batch_id",
	"COMMENT ON SEQUENCE " RK_TRASH_SCHEMA ".batch_id IS 'Numbers of batches of deleted rows.'",
	"CREATE TABLE IF NOT EXISTS " RK_TRASH_SCHEMA ".batches ("
	" batch bigint NOT NULL, deleted_at timestamptz NOT NULL, actor text,"
	" relation regclass, table_schema name NOT NULL, table_name name NOT NULL,"
	" rows bigint NOT NULL)",
	"CREATE INDEX IF NOT EXISTS batches_batch_idx ON " RK_TRASH_SCHEMA ".batches (batch)",
	"ALTER TABLE " RK_TRASH_SCHEMA ".batches ENABLE ROW LEVEL SECURITY",
	"ALTER TABLE " RK_TRASH_SCHEMA ".batches REPLICA IDENTITY FULL",
	"COMMENT ON TABLE " RK_TRASH_SCHEMA ".batches IS"
	" 'What was deleted together; rows that were restored or purged since are negative entries."
	" Read it through rowkeeper.soft_delete_batches.'",
};

static bool
store_is_complete(void)
{
	return OidIsValid(rk_trash_relation("batch_id")) && OidIsValid(rk_trash_relation("batches"));
}

/*
 * Make schema, sequence and table of batches where they are missing, as the
 * extension's owner. Two first calls at the same time: the second waits for
 * the first to commit.
 */
void
rk_batch_store_ensure(FunctionCallInfo fcinfo)
{
	Oid			owner = rk_extension_owner();

	rk_store_check_schema(RK_TRASH_SCHEMA);
	if (store_is_complete())
		return;
	if (creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot enable soft delete within an extension script"),
				 errdetail("What keeps deleted rows would become a member of that extension, and not be dumped.")));

	LockDatabaseObject(ExtensionRelationId, get_extension_oid("rowkeeper", false), 0,
					   ShareRowExclusiveLock);
	if (store_is_complete())
		return;
	for (int i = 0; i < lengthof(store_sql); i++)
	{
		(void) rk_run(owner, store_sql[i]);
		if (i == 0)
			rk_store_reset_schema_acl(RK_TRASH_SCHEMA);
	}
	rk_store_reset_relation_acl(rk_trash_relation("batch_id"));
	rk_store_reset_relation_acl(rk_trash_relation("batches"));
	if (fcinfo != NULL)
		rk_step(fcinfo, "created schema " RK_TRASH_SCHEMA);
}

/* ---- which batch ---- */

static void
remember_drawn(int64 batch)
{
	if (drawn_count == drawn_size)
	{
		drawn_size = drawn_size == 0 ? 8 : drawn_size * 2;
		drawn = drawn == NULL
			? MemoryContextAlloc(TopTransactionContext, drawn_size * sizeof(int64))
			: repalloc_huge(drawn, drawn_size * sizeof(int64));
	}
	drawn[drawn_count++] = batch;
}

/*
 * Whether a batch is of this transaction: who writes the number of another one
 * into his rows would have them restored with that.
 */
bool
rk_batch_is_own(int64 batch)
{
	int			low = 0;
	int			high = drawn_count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (drawn[middle] < batch)
			low = middle + 1;
		else
			high = middle;
	}
	return low < drawn_count && drawn[low] == batch;
}

static int64
draw_batch(void)
{
	Oid			sequence = rk_trash_relation("batch_id");
	int64		batch;

	if (!OidIsValid(sequence))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("sequence \"%s.batch_id\" does not exist", RK_TRASH_SCHEMA),
				 errhint("Call rowkeeper.soft_delete() for a table again; it makes what is missing.")));
	batch = nextval_internal(sequence, false);
	remember_drawn(batch);
	return batch;
}

/*
 * The batch of a top-level statement of this transaction, by the number that
 * core gave it (RkEntry.statement); drawn when it is first asked for.
 */
int64
rk_batch_of_statement(CommandId statement)
{
	for (int i = 0; i < REMEMBERED; i++)
		if (known[i].batch != 0 && known[i].statement == statement)
			return known[i].batch;

	known[next_known].batch = draw_batch();
	known[next_known].statement = statement;
	next_known = (next_known + 1) % REMEMBERED;
	return rk_batch_of_statement(statement);
}

/* The batch of the cascade that runs now, else of the statement that runs. */
int64
rk_batch_current(void)
{
	if (in_progress != 0)
		return in_progress;
	return rk_batch_of_statement(ActiveSnapshotSet() ? GetActiveSnapshot()->curcid
								 : GetCurrentCommandId(false));
}

/*
 * Until rk_batch_leave() with what this returns, all that is deleted is of
 * this batch. Use PG_TRY / PG_FINALLY.
 */
int64
rk_batch_enter(int64 batch)
{
	int64		before = in_progress;

	in_progress = batch;
	return before;
}

void
rk_batch_leave(int64 before)
{
	in_progress = before;
}

static void
end_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			memset(known, 0, sizeof(known));
			in_progress = 0;
			drawn = NULL;		/* the memory goes with the transaction */
			drawn_count = drawn_size = 0;
			break;
		default:
			break;
	}
}

/* ---- the table of batches ---- */

/*
 * Note that a batch holds so many rows more of a table (less, where rows is
 * negative). actor: who acts, NULL: the session user.
 */
void
rk_batch_note(int64 batch, Oid root, int64 rows, const char *actor)
{
	Oid			relid = rk_trash_relation("batches");
	Relation	rel;
	Datum		values[7];
	bool		nulls[7] = {false};
	NameData	schema;
	NameData	table;
	HeapTuple	tuple;

	if (rows == 0)
		return;
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table \"%s.batches\" does not exist", RK_TRASH_SCHEMA),
				 errhint("Call rowkeeper.soft_delete() for a table again; it makes what is missing.")));
	rel = table_open(relid, RowExclusiveLock);
	if (RelationGetNumberOfAttributes(rel) != lengthof(values))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.batches\" has other columns than rowkeeper gave it", RK_TRASH_SCHEMA)));

	namestrcpy(&schema, get_namespace_name(get_rel_namespace(root)));
	namestrcpy(&table, get_rel_name(root));
	values[0] = Int64GetDatum(batch);
	values[1] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[2] = CStringGetTextDatum(actor != NULL ? actor : GetUserNameFromId(GetSessionUserId(), false));
	values[3] = ObjectIdGetDatum(root);
	values[4] = NameGetDatum(&schema);
	values[5] = NameGetDatum(&table);
	values[6] = Int64GetDatum(rows);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	rk_direct_insert(rel, RelationGetDescr(rel), 0, &tuple, 1);
	heap_freetuple(tuple);
	table_close(rel, NoLock);
}

/*
 * rowkeeper._soft_delete_batches() returns the batches of which rows can be
 * brought back: of tables that the caller may read whole (SELECT, and no row
 * security that hides rows from him) or owns (and then acts for no tenant); all for members of the
 * extension's owner. No rows before the first soft_delete().
 */
Datum
rowkeeper_soft_delete_batches(PG_FUNCTION_ARGS)
{
	static const char query[] =
		"SELECT b.batch, min(b.deleted_at), (array_agg(b.actor ORDER BY b.rows < 0))[1],"
		" coalesce(n.nspname, b.table_schema), coalesce(c.relname, b.table_name), sum(b.rows)::bigint, b.relation::oid"
		" FROM " RK_TRASH_SCHEMA ".batches b"
		" LEFT JOIN pg_class c ON c.oid = b.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace"
		" WHERE $2 OR (c.oid IS NOT NULL AND (pg_has_role($1, c.relowner, 'USAGE')"
		"  OR (has_table_privilege($1, c.oid, 'SELECT') AND NOT (c.relrowsecurity AND NOT"
		"   (SELECT r.rolbypassrls FROM pg_roles r WHERE r.oid = $1)))))"
		" GROUP BY b.batch, b.relation, 4, 5 HAVING sum(b.rows) > 0 ORDER BY b.batch";
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			types[2] = {OIDOID, BOOLOID};
	Datum		args[2];
	RkIdentity	saved;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (!store_is_complete())
		return (Datum) 0;
	args[0] = ObjectIdGetDatum(GetUserId());
	args[1] = BoolGetDatum(has_privs_of_role(GetUserId(), rk_extension_owner()));

	rk_identity_assume(&saved, rk_extension_owner(), false);
	SPI_connect();
	if (SPI_execute_with_args(query, 2, types, args, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the batches");
	rk_identity_restore(&saved);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		values[7];
		bool		nulls[7];

		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
		if (!nulls[6] && get_rel_name(DatumGetObjectId(values[6])) != NULL &&
			rk_is_held_by_claim(DatumGetObjectId(values[6])))
			continue;			/* of all tenants */
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	SPI_finish();
	return (Datum) 0;
}

/* A dropped table's OID would come back from a dump as a number. */
static void
relation_dropped(const RkDrop *drop)
{

	if (OidIsValid(rk_trash_relation("batches")))
		(void) rk_run_about(rk_extension_owner(), drop->object,
							"UPDATE " RK_TRASH_SCHEMA ".batches SET relation = NULL WHERE relation = $1");
}

void
rk_batch_init(void)
{
	static const RkEventListener listener = {
		.relation_dropped = relation_dropped
	};

	RegisterXactCallback(end_transaction, NULL);
	rk_events_listen(&listener);
}
