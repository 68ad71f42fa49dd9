/*
 * log_writer.c
 *
 * How entries get into the log; with log_reader.c the only file that knows
 * what a leaf's row looks like. An entry is formed as a finished heap tuple
 * when its change is captured. At the flush it gets its id, the time and its
 * who-record's id, all of fixed width and in front, so they are written into
 * the finished tuple. Then all tuples go straight into the leaf of this week.
 *
 * Ids are drawn in blocks, at the flush: under the locks of the rows that
 * changed, so the ids of one row are in the order in which it changed. What
 * is left of a block is thrown away.
 *
 * No partition is ever made here. Where the week has no leaf, or its leaf is
 * being detached, the entry goes to the overflow leaf with class NULL, and
 * maintain() moves it later.
 *
 * Who acted is stored once, as a record of its own in the same leaf, so that
 * retention drops both together. A backend refers to a record again only if
 * it sees it for sure: it was written by a transaction of its own that
 * committed, or by this one in a subtransaction that still stands.
 */
#include "audit/audit.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define BULK_TUPLES 100			/* from here on a bulk-insert state pays */
#define CHUNK_TUPLES 256			/* handed to one multi-insert */
#define MAX_WHO_RECORDS 1024

/* The columns of a log row; the first seven are fixed and NOT NULL. */
enum
{
	LOG_ID, LOG_CHANGED_AT, LOG_TXID, LOG_WHO, LOG_TABLE_ID, LOG_KEY_HASH,
	LOG_ACTION, LOG_CLASS, LOG_RECORD_ID, LOG_OLD_DATA, LOG_NEW_DATA,
	LOG_TENANT, LOG_NEW_TENANT, LOG_DETAIL, LOG_COLUMNS
};

typedef struct LogFixed
{
	int64		id;
	TimestampTz changed_at;
	int64		txid;
	int64		who;
	int32		table_id;
	int32		key_hash;
	char		action;
} LogFixed;

/* A who-record that may be referred to again. */
typedef struct WhoRecordKey
{
	const RkWho *who;
	Oid			leaf;
} WhoRecordKey;

typedef struct WhoRecord
{
	WhoRecordKey key;
	int64		id;
	SubTransactionId subid;		/* 0: its transaction committed */
} WhoRecord;

static TupleDesc log_desc = NULL;
static HTAB *who_records = NULL;
static uint64 who_records_generation = 0;
static int	unsettled_who_records = 0;	/* those of this transaction */

/* ---- forming tuples ---- */

static TupleDesc
get_log_desc(void)
{
	static const struct
	{
		const char *name;
		Oid			type;
	}			columns[LOG_COLUMNS] =
	{
		{"id", INT8OID}, {"changed_at", TIMESTAMPTZOID}, {"txid", INT8OID},
		{"who", INT8OID}, {"table_id", INT4OID}, {"key_hash", INT4OID},
		{"action", CHAROID}, {"class", INT2OID}, {"record_id", JSONBOID},
		{"old_data", JSONBOID}, {"new_data", JSONBOID}, {"tenant", TEXTOID},
		{"new_tenant", TEXTOID}, {"detail", JSONBOID}
	};

	if (log_desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(CacheMemoryContext);
		TupleDesc	desc = CreateTemplateTupleDesc(LOG_COLUMNS);

		for (int i = 0; i < LOG_COLUMNS; i++)
			TupleDescInitEntry(desc, i + 1, columns[i].name, columns[i].type, -1, 0);
		log_desc = desc;
		MemoryContextSwitchTo(old);
	}
	return log_desc;
}

static void
set_value(Datum *values, bool *nulls, int column, void *value)
{
	nulls[column] = value == NULL;
	values[column] = PointerGetDatum(value);
}

/* An entry as a tuple; id, time and who are given at the flush. */
static HeapTuple
form_log_tuple(const RkLogEntry *entry)
{
	Datum		values[LOG_COLUMNS];
	bool		nulls[LOG_COLUMNS] = {0};

	values[LOG_ID] = Int64GetDatum(0);
	values[LOG_CHANGED_AT] = TimestampTzGetDatum(0);
	values[LOG_TXID] = Int64GetDatum((int64) U64FromFullTransactionId(GetTopFullTransactionId()));
	values[LOG_WHO] = Int64GetDatum(0);
	values[LOG_TABLE_ID] = Int32GetDatum(entry->table_id);
	values[LOG_KEY_HASH] = Int32GetDatum(entry->key_hash);
	values[LOG_ACTION] = CharGetDatum(entry->action);
	values[LOG_CLASS] = Int16GetDatum(entry->klass);
	set_value(values, nulls, LOG_RECORD_ID, entry->record_id);
	set_value(values, nulls, LOG_OLD_DATA, entry->old_data);
	set_value(values, nulls, LOG_NEW_DATA, entry->new_data);
	set_value(values, nulls, LOG_TENANT, entry->tenant);
	set_value(values, nulls, LOG_NEW_TENANT, entry->new_tenant);
	set_value(values, nulls, LOG_DETAIL, entry->detail);
	return heap_form_tuple(get_log_desc(), values, nulls);
}

/* ---- the log's objects ---- */

static struct
{
	Oid			sequence;
	Oid			overflow;
	int16		klass;			/* the class last written to, */
	Oid			class_table;	/* and its table */
}			known;				/* InvalidOid: look it up */

static Oid
look_up(const char *name)
{
	return get_relname_relid(name, get_namespace_oid(RK_LOG_SCHEMA, false));
}

/* The table of a class, or InvalidOid. */
static Oid
find_class_table(int16 klass)
{
	if (!OidIsValid(known.class_table) || known.klass != klass)
	{
		known.klass = klass;
		known.class_table = look_up(psprintf("log_c%d", klass));
	}
	return known.class_table;
}

static Oid
find_overflow(void)
{
	if (!OidIsValid(known.overflow))
		known.overflow = look_up("log_overflow");
	return known.overflow;
}

/* One of these was altered, dropped or made anew. */
static void
forget_known(Oid relid)
{
	if (relid == InvalidOid || relid == known.sequence ||
		relid == known.overflow || relid == known.class_table)
		memset(&known, 0, sizeof(known));
}

static bool
owner_sees(const char *query)
{
	bool		isnull;
	Datum		answer = rk_fetch(rk_extension_owner(), query, 0, NULL, NULL, NULL, &isnull);

	return !isnull && DatumGetBool(answer);
}

/*
 * Whether a restore has brought back entries but not yet the sequence: an id
 * drawn now would be one that an entry has already, and a who-record under it
 * would be taken for another.
 */
bool
rk_audit_log_is_half_restored(void)
{
	if (OidIsValid(known.sequence) || !OidIsValid(look_up("log_id")))
		return false;

	/*
	 * Asked again at the end: the first entry ever may have been written
	 * between the two looks, and then its id was drawn as well.
	 */
	return owner_sees("SELECT NOT is_called FROM rowkeeper_log.log_id") &&
		owner_sees("SELECT EXISTS (SELECT FROM rowkeeper_log.log)") &&
		owner_sees("SELECT NOT is_called FROM rowkeeper_log.log_id");
}

static Oid
find_sequence(void)
{
	if (OidIsValid(known.sequence))
		return known.sequence;
	if (rk_audit_log_is_half_restored())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the audit log is being restored, and its sequence is not set yet"),
				 errhint("Restore the data with --disable-triggers, or schema and data together.")));
	known.sequence = look_up("log_id");
	if (!OidIsValid(known.sequence))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("sequence \"%s.log_id\" of the audit log does not exist", RK_LOG_SCHEMA)));
	return known.sequence;
}

/* Draw a block of ids from the log's sequence. */
static int64
draw_id_block(void)
{
	return nextval_internal(find_sequence(), false);
}

static const void *
class_tag(int16 klass)
{
	return (const void *) (intptr_t) klass;
}

/* Append what is to be logged of a change to the frame's batch. */
void
rk_audit_log_append(RkFrame *frame, const RkChange *change, const RkLogEntry *entry)
{
	MemoryContext old = MemoryContextSwitchTo(rk_frame_context(frame));
	HeapTuple	tuple = form_log_tuple(entry);

	MemoryContextSwitchTo(old);
	rk_frame_append(frame, change, rk_audit_consumer, tuple, class_tag(entry->klass));
}

/* Write an entry about a table at once; returns its id. */
int64
rk_audit_log_write(const RkLogEntry *log_entry)
{
	RkEntry		entry = {
		.tuple = form_log_tuple(log_entry),
		.tag = class_tag(log_entry->klass),
		.who = rk_who_current()
	};

	rk_audit_log_flush(&entry, 1);
	return ((LogFixed *) GETSTRUCT(entry.tuple))->id;
}

/* ---- who-records ---- */

static void
push_text(JsonbParseState **state, const char *key, const char *value)
{
	JsonbValue	k = {.type = jbvString};
	JsonbValue	v = {.type = jbvString};

	if (value == NULL || value[0] == '\0')
		return;
	k.val.string.val = (char *) key;
	k.val.string.len = strlen(key);
	v.val.string.val = (char *) value;
	v.val.string.len = strlen(value);
	pushJsonbValue(state, WJB_KEY, &k);
	pushJsonbValue(state, WJB_VALUE, &v);
}

/* The context that was set, with what the session itself adds to it. */
static void
push_context(JsonbParseState **state, const RkWho *who)
{
	JsonbValue	key = {.type = jbvString,.val.string = {7, "context"}};

	if (who->context == NULL && !who->replica)
		return;
	pushJsonbValue(state, WJB_KEY, &key);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	if (who->context != NULL)
	{
		JsonbIterator *it = JsonbIteratorInit(&who->context->root);
		JsonbValue	value;
		JsonbIteratorToken token = JsonbIteratorNext(&it, &value, true);

		/* the object's members, without its own braces */
		while ((token = JsonbIteratorNext(&it, &value, true)) == WJB_KEY ||
			   token == WJB_VALUE)
			pushJsonbValue(state, token, &value);
	}
	if (who->replica)
		push_text(state, "session_replication_role", "replica");
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static const char *
client_address(void)
{
	LOCAL_FCINFO(fcinfo, 0);
	Datum		address;

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	address = inet_client_addr(fcinfo);
	return fcinfo->isnull ? NULL
		: DatumGetCString(DirectFunctionCall1(inet_out, address));
}

static Jsonb *
describe_who(const RkWho *who)
{
	JsonbParseState *state = NULL;
	char	   *db_user = GetUserNameFromId(who->session_user, true);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, "actor", who->actor != NULL ? who->actor : db_user);
	push_text(&state, "actor_source", who->actor_source);
	push_text(&state, "db_user", db_user);
	push_text(&state, "db_role", GetUserNameFromId(who->role, true));
	push_text(&state, "client_addr", client_address());
	push_text(&state, "application_name", who->application_name);
	push_context(&state, who);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
create_who_cache(void)
{
	HASHCTL		control = {
		.keysize = sizeof(WhoRecordKey),
		.entrysize = sizeof(WhoRecord),
		.hcxt = TopMemoryContext	/* as long as the interned RkWho */
	};

	who_records = hash_create("rowkeeper who-records", 64, &control,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	who_records_generation = rk_who_generation;
}

/*
 * The id of the who-record for this leaf; where there is none yet, *tuple is
 * a new one to be written with the entries that refer to it.
 */
static int64
who_record_id(const RkWho *who, Oid leaf, int16 klass, HeapTuple *tuple)
{
	WhoRecordKey key;
	WhoRecord  *record;
	bool		found;

	memset(&key, 0, sizeof(key));
	key.who = who;
	key.leaf = leaf;

	if (who_records != NULL && who_records_generation != rk_who_generation)
	{
		hash_destroy(who_records);
		who_records = NULL;
		unsettled_who_records = 0;
	}
	if (who_records == NULL)
		create_who_cache();

	*tuple = NULL;
	record = hash_search(who_records, &key, HASH_FIND, NULL);
	if (record == NULL)
	{
		int64		id = draw_id_block();
		RkLogEntry	entry = {
			.action = RK_LOG_WHO,.klass = klass,
			.key_hash = (int32) (id & PG_INT32_MAX),
			.new_data = describe_who(who)
		};

		*tuple = form_log_tuple(&entry);
		record = hash_search(who_records, &key, HASH_ENTER, &found);
		record->id = id;
		record->subid = GetCurrentSubTransactionId();
		unsettled_who_records++;
	}
	return record->id;
}

static void
forget_who_records(bool (*doomed) (const WhoRecord *record, Oid id), Oid id)
{
	HASH_SEQ_STATUS scan;
	WhoRecord  *record;

	if (who_records == NULL)
		return;
	hash_seq_init(&scan, who_records);
	while ((record = hash_seq_search(&scan)) != NULL)
		if (doomed(record, id))
			hash_search(who_records, &record->key, HASH_REMOVE, NULL);
}

static bool
is_unsettled(const WhoRecord *record, Oid unused)
{
	return record->subid != InvalidSubTransactionId;
}

static bool
is_of_subtransaction(const WhoRecord *record, Oid subid)
{
	return record->subid == subid;
}

static bool
is_of_leaf(const WhoRecord *record, Oid leaf)
{
	return leaf == InvalidOid || record->key.leaf == leaf;
}

/* Hand the records of a committed (sub)transaction to its parent. */
static void
reparent_who_records(SubTransactionId from, SubTransactionId to)
{
	HASH_SEQ_STATUS scan;
	WhoRecord  *record;

	hash_seq_init(&scan, who_records);
	while ((record = hash_seq_search(&scan)) != NULL)
		if (record->subid == from)
			record->subid = to;
}

static void
settle_who_records(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;

	if (unsettled_who_records > 0 && who_records != NULL)
	{
		if (event != XACT_EVENT_COMMIT)
			forget_who_records(is_unsettled, InvalidOid);
		else if (hash_get_num_entries(who_records) > MAX_WHO_RECORDS)
			forget_who_records(is_of_leaf, InvalidOid);
		else
			reparent_who_records(TopSubTransactionId, InvalidSubTransactionId);
	}
	unsettled_who_records = 0;
}

static void
settle_sub_who_records(SubXactEvent event, SubTransactionId subid,
					   SubTransactionId parent, void *arg)
{
	if (unsettled_who_records == 0 || who_records == NULL)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget_who_records(is_of_subtransaction, subid);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		reparent_who_records(subid, parent);
}

static void
forget_relation(Datum arg, Oid relid)
{
	forget_known(relid);
	forget_who_records(is_of_leaf, relid);
}

/* ---- the leaf ---- */

/* The partition of a class table that holds a moment, or InvalidOid. */
static Oid
find_leaf(Relation class_table, TimestampTz at)
{
	PartitionDesc partitions = RelationGetPartitionDesc(class_table, false);
	PartitionKey key = RelationGetPartitionKey(class_table);
	Datum		bound = TimestampTzGetDatum(at);
	bool		is_equal;
	int			offset;
	int			index;

	if (partitions->detached_exist)
	{
		/*
		 * A leaf pending detach is no leaf any more: an entry written there
		 * would leave the log with it. Whether one is pending is a matter of
		 * now, not of this transaction's snapshot.
		 */
		PushActiveSnapshot(GetLatestSnapshot());
		partitions = RelationGetPartitionDesc(class_table, true);
		PopActiveSnapshot();
	}
	if (partitions->nparts == 0)
		return InvalidOid;

	offset = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
										   partitions->boundinfo, 1, &bound, &is_equal);
	index = partitions->boundinfo->indexes[offset + 1];
	return index < 0 ? InvalidOid : partitions->oids[index];
}

/*
 * Open the leaf that entries of a class written now go to, locked ROW
 * EXCLUSIVE as its parent is, so that neither can be detached under us;
 * *overflow: the week has no leaf, this is the overflow leaf.
 */
static Relation
open_leaf(int16 klass, TimestampTz now, bool *overflow)
{
	Oid			class_table = find_class_table(klass);
	Oid			leaf = InvalidOid;

	if (OidIsValid(class_table))
	{
		Relation	parent = table_open(class_table, RowExclusiveLock);

		/* a lock held already does not do this, and a detach may be pending */
		AcceptInvalidationMessages();
		leaf = find_leaf(parent, now);
		table_close(parent, NoLock);
	}
	*overflow = !OidIsValid(leaf);
	if (*overflow)
		leaf = find_overflow();
	if (!OidIsValid(leaf))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the audit log has no partition for entries of this moment"),
				 errdetail("Neither a partition of \"%s.log_c%d\" nor \"%s.log_overflow\" can take them.",
						   RK_LOG_SCHEMA, klass, RK_LOG_SCHEMA),
				 errhint("CALL rowkeeper.maintain() as the owner of the log.")));
	return table_open(leaf, RowExclusiveLock);
}

/* ---- writing ---- */

#define MAX_LEAF_INDEXES 16

typedef struct LeafIndex
{
	Relation	rel;
	IndexInfo  *info;
	ExprState  *predicate;		/* NULL: every row is in it */
	bool		by_block;		/* one row of a block stands for all of a flush */
} LeafIndex;

typedef struct LeafInsert
{
	Relation	leaf;
	LeafIndex	indexes[MAX_LEAF_INDEXES];
	int			nindexes;
	EState	   *estate;			/* NULL: no index has an expression */
	BulkInsertState bulk;		/* NULL for a few tuples */
	int			options;
	CommandId	command;
} LeafInsert;

/*
 * All rows of a flush have one changed_at, so for a block-range index on
 * nothing else the first row of each block says what the others would.
 */
static bool
is_by_block(const IndexInfo *info)
{
	return info->ii_Am == BRIN_AM_OID &&
		info->ii_NumIndexAttrs == 1 &&
		info->ii_IndexAttrNumbers[0] == LOG_CHANGED_AT + 1;
}

/* Open the leaf's indexes, users' own included. */
static void
open_indexes(LeafInsert *insert)
{
	List	   *oids = RelationGetIndexList(insert->leaf);
	ListCell   *lc;

	insert->nindexes = 0;
	insert->estate = NULL;
	if (list_length(oids) > MAX_LEAF_INDEXES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("partition \"%s\" of the audit log has more than %d indexes",
						RelationGetRelationName(insert->leaf), MAX_LEAF_INDEXES)));
	foreach(lc, oids)
	{
		LeafIndex  *index = &insert->indexes[insert->nindexes++];

		index->rel = index_open(lfirst_oid(lc), RowExclusiveLock);
		index->info = BuildIndexInfo(index->rel);
		index->by_block = is_by_block(index->info);
		index->predicate = NULL;
		if ((index->info->ii_Predicate != NIL || index->info->ii_Expressions != NIL) &&
			insert->estate == NULL)
			insert->estate = CreateExecutorState();
		if (index->info->ii_Predicate != NIL)
			index->predicate = ExecPrepareQual(index->info->ii_Predicate, insert->estate);
	}
	list_free(oids);
}

static bool
satisfies(LeafInsert *insert, ExprState *predicate, TupleTableSlot *slot)
{
	ExprContext *context = GetPerTupleExprContext(insert->estate);

	context->ecxt_scantuple = slot;
	return ExecQual(predicate, context);
}

static void
insert_into_indexes(LeafInsert *insert, TupleTableSlot *slot, BlockNumber previous_block)
{
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	for (int i = 0; i < insert->nindexes; i++)
	{
		LeafIndex  *index = &insert->indexes[i];

		if (!index->info->ii_ReadyForInserts ||
			(index->by_block && ItemPointerGetBlockNumber(&slot->tts_tid) == previous_block) ||
			(index->predicate != NULL && !satisfies(insert, index->predicate, slot)))
			continue;
		if (insert->estate != NULL)
			GetPerTupleExprContext(insert->estate)->ecxt_scantuple = slot;
		FormIndexDatum(index->info, slot, insert->estate, values, nulls);
		(void) index_insert(index->rel, values, nulls, &slot->tts_tid, insert->leaf,
							index->info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
							false, index->info);
	}
	if (insert->estate != NULL)
		ResetPerTupleExprContext(insert->estate);
}

static void
begin_insert(LeafInsert *insert, Relation leaf, int count)
{
	if (RelationGetNumberOfAttributes(leaf) != LOG_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("partition \"%s\" of the audit log has other columns than the log",
						RelationGetRelationName(leaf))));
	insert->leaf = leaf;
	insert->command = GetCurrentCommandId(true);
	open_indexes(insert);
	if (count >= BULK_TUPLES)
	{
		/* Append: not into the remnants that older pages have left over. */
		insert->bulk = GetBulkInsertState();
		insert->options = TABLE_INSERT_SKIP_FSM;
	}
	else
	{
		insert->bulk = NULL;
		insert->options = 0;
	}
}

/*
 * Slots for finished tuples, kept for the session: making them anew would
 * cost more than the rest of a small flush. They are of our own descriptor,
 * which nothing reference-counts.
 */
static TupleTableSlot **
get_slots(int count)
{
	static TupleTableSlot *slots[CHUNK_TUPLES];
	static int	made = 0;

	if (made < count)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		while (made < count)
			slots[made++] = MakeSingleTupleTableSlot(get_log_desc(), &TTSOpsHeapTuple);
		MemoryContextSwitchTo(old);
	}
	return slots;
}

/* Insert up to CHUNK_TUPLES. */
static void
insert_tuples(LeafInsert *insert, HeapTuple *tuples, int count)
{
	TupleTableSlot **slots = get_slots(count);

	for (int i = 0; i < count; i++)
		ExecStoreHeapTuple(tuples[i], slots[i], false);
	if (count == 1)
		table_tuple_insert(insert->leaf, slots[0], insert->command, insert->options, insert->bulk);
	else
		table_multi_insert(insert->leaf, slots, count, insert->command, insert->options, insert->bulk);

	for (int i = 0; i < count; i++)
	{
		insert_into_indexes(insert, slots[i],
							i == 0 ? InvalidBlockNumber
							: ItemPointerGetBlockNumber(&slots[i - 1]->tts_tid));
		if (i > 0)
			ExecClearTuple(slots[i - 1]);
	}
	ExecClearTuple(slots[count - 1]);
}

static void
end_insert(LeafInsert *insert)
{
	if (insert->bulk != NULL)
	{
		table_finish_bulk_insert(insert->leaf, insert->options);
		FreeBulkInsertState(insert->bulk);
	}
	for (int i = 0; i < insert->nindexes; i++)
	{
		rk_index_insert_cleanup(insert->indexes[i].rel, insert->indexes[i].info);
		index_close(insert->indexes[i].rel, NoLock);
	}
	if (insert->estate != NULL)
		FreeExecutorState(insert->estate);
}

/* Complete a formed tuple; returns it, or a copy where its shape changes. */
static HeapTuple
complete_tuple(HeapTuple tuple, int64 id, TimestampTz now, int64 who, bool overflow)
{
	LogFixed   *fixed = (LogFixed *) GETSTRUCT(tuple);

	fixed->id = id;
	fixed->changed_at = now;
	fixed->who = who;
	if (overflow)
	{
		int			column = LOG_CLASS + 1;
		Datum		value = (Datum) 0;
		bool		isnull = true;

		tuple = heap_modify_tuple_by_cols(tuple, get_log_desc(), 1, &column, &value, &isnull);
	}
	return tuple;
}

/* Write the entries of one class. */
static void
write_class(int16 klass, RkEntry *entries, int count)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		overflow;
	Relation	leaf = open_leaf(klass, now, &overflow);
	HeapTuple  *tuples = palloc(2 * count * sizeof(HeapTuple));
	int			ntuples = 0;
	const RkWho *who = NULL;
	int64		who_id = 0;
	int64		next_id = 0;
	int			ids_left = 0;
	LeafInsert	insert;

	for (int i = 0; i < count; i++)
	{
		if ((int16) (intptr_t) entries[i].tag != klass)
			continue;
		if (entries[i].who != who)
		{
			HeapTuple	record;

			who = entries[i].who;
			who_id = who_record_id(who, RelationGetRelid(leaf), klass, &record);
			if (record != NULL)
				tuples[ntuples++] = complete_tuple(record, who_id, now, 0, overflow);
		}
		if (ids_left == 0)
		{
			next_id = draw_id_block();
			ids_left = RK_LOG_ID_BLOCK;
		}
		ids_left--;
		tuples[ntuples++] = complete_tuple(entries[i].tuple, next_id++, now, who_id, overflow);
	}

	begin_insert(&insert, leaf, ntuples);
	for (int done = 0; done < ntuples; done += CHUNK_TUPLES)
		insert_tuples(&insert, tuples + done, Min(CHUNK_TUPLES, ntuples - done));
	end_insert(&insert);
	table_close(leaf, NoLock);
	pfree(tuples);
}

/*
 * Write the entries of a batch; called at the end of a statement, before
 * commit, and when a batch has grown large. Allocates in the current context.
 * Locks: ROW EXCLUSIVE on the leaf and its parent, kept to the transaction's
 * end.
 */
void
rk_audit_log_flush(RkEntry *entries, int count)
{
	Bitmapset  *written = NULL;

	for (int i = 0; i < count; i++)
	{
		int16		klass = (int16) (intptr_t) entries[i].tag;

		if (i > 0 && entries[i].tag == entries[i - 1].tag)
			continue;
		if (bms_is_member(klass, written))
			continue;
		write_class(klass, entries, count);
		written = bms_add_member(written, klass);
	}
	bms_free(written);
}

/* Register what keeps the writer's caches true. */
void
rk_audit_writer_init(void)
{
	RegisterXactCallback(settle_who_records, NULL);
	RegisterSubXactCallback(settle_sub_who_records, NULL);
	CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
}
