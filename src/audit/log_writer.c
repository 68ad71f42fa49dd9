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
 */
#include "audit/audit.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

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

static TupleDesc log_desc = NULL;

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

/* Bytes a value takes in a tuple: as heap_form_tuple() stores it. */
static inline Size
stored_size(const struct varlena *value, Size offset)
{
	return VARATT_CAN_MAKE_SHORT(value) ? VARATT_CONVERTED_SHORT_SIZE(value)
		: INTALIGN(offset) - offset + VARSIZE(value);
}

static inline char *
store_value(char *to, const struct varlena *value)
{
	Size		size = VARSIZE(value);

	if (VARATT_CAN_MAKE_SHORT(value))
	{
		size = VARATT_CONVERTED_SHORT_SIZE(value);
		SET_VARSIZE_SHORT(to, size);
		memcpy(to + 1, VARDATA(value), size - 1);
		return to + size;
	}
	while (to != (char *) INTALIGN(to))
		*to++ = 0;
	memcpy(to, value, size);
	return to + size;
}

/*
 * Form the tuple of an entry: what heap_form_tuple() would make of it, in one
 * pass, as this is the hot path. The values are plain: neither toasted nor
 * with a short header yet. MAXALIGNed data begins with LogFixed.
 */
static HeapTuple
form_log_tuple(const RkLogEntry *entry)
{
	const struct varlena *values[] = {
		(struct varlena *) entry->record_id, (struct varlena *) entry->old_data,
		(struct varlena *) entry->new_data, (struct varlena *) entry->tenant,
		(struct varlena *) entry->new_tenant, (struct varlena *) entry->detail
	};
	const Size	hoff = MAXALIGN(SizeofHeapTupleHeader + BITMAPLEN(LOG_COLUMNS));
	const Size	fixed_size = SHORTALIGN(offsetof(LogFixed, action) + 1) + sizeof(int16);
	Size		size = fixed_size;
	uint32		present = (1 << LOG_RECORD_ID) - 1;
	HeapTuple	tuple;
	HeapTupleHeader header;
	LogFixed   *fixed;
	char	   *to;

	for (int i = 0; i < lengthof(values); i++)
		if (values[i] != NULL)
		{
			size += stored_size(values[i], size);
			present |= 1 << (LOG_RECORD_ID + i);
		}

	tuple = palloc(HEAPTUPLESIZE + hoff + size);
	header = tuple->t_data = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);
	tuple->t_len = hoff + size;
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = InvalidOid;

	memset(header, 0, hoff + fixed_size);
	HeapTupleHeaderSetDatumLength(header, tuple->t_len);
	HeapTupleHeaderSetTypeId(header, RECORDOID);
	HeapTupleHeaderSetTypMod(header, -1);
	ItemPointerSetInvalid(&header->t_ctid);
	HeapTupleHeaderSetNatts(header, LOG_COLUMNS);
	header->t_hoff = hoff;
	header->t_infomask = HEAP_HASVARWIDTH | HEAP_HASNULL;
	header->t_bits[0] = present & 0xFF;
	header->t_bits[1] = present >> 8;

	fixed = (LogFixed *) ((char *) header + hoff);
	fixed->txid = (int64) U64FromFullTransactionId(GetTopFullTransactionId());
	fixed->table_id = entry->table_id;
	fixed->key_hash = entry->key_hash;
	fixed->action = entry->action;
	to = (char *) fixed + fixed_size;
	*((int16 *) to - 1) = entry->klass;
	for (int i = 0; i < lengthof(values); i++)
		if (values[i] != NULL)
			to = store_value(to, values[i]);
	Assert(to == (char *) fixed + size);
	return tuple;
}

/* ---- the log's objects ---- */

/*
 * What was found of the log; all is looked up again when any of it changes.
 * That can be heard of during each lookup, so what belongs together is stored
 * together, after it.
 */
typedef struct KnownLog
{
	Oid			sequence;
	Oid			overflow;
	int16		klass;			/* the class last written to, */
	Oid			class_table;	/* its table, */
	Oid			leaf;			/* and the leaf, of moments with */
	TimestampTz leaf_from;		/* leaf_from <= moment */
	TimestampTz leaf_to;		/* < leaf_to */
} KnownLog;

static KnownLog known;			/* InvalidOid: look it up */

/* The table of a class, or InvalidOid. */
static Oid
find_class_table(int16 klass)
{
	Oid			found;

	if (OidIsValid(known.class_table) && known.klass == klass)
		return known.class_table;
	found = rk_audit_log_relation(psprintf("log_c%d", klass));
	known.klass = klass;
	known.class_table = found;
	known.leaf = InvalidOid;
	return found;
}

static Oid
find_overflow(void)
{
	if (!OidIsValid(known.overflow))
		known.overflow = rk_audit_log_relation("log_overflow");
	return known.overflow;
}

/* One of these was altered, dropped or made anew. */
static void
forget_known(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == known.sequence ||
		relid == known.overflow || relid == known.class_table || relid == known.leaf)
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
	if (OidIsValid(known.sequence) || !OidIsValid(rk_audit_log_relation("log_id")))
		return false;

	return owner_sees("SELECT NOT is_called FROM rowkeeper_log.log_id");
}

/*
 * A log without entries may begin: draws the first id, so that an untouched
 * sequence means a restore that is not finished. Called by audit().
 */
void
rk_audit_log_begin(void)
{
	if (rk_audit_log_is_half_restored() &&
		!owner_sees("SELECT EXISTS (SELECT FROM rowkeeper_log.log)"))
		(void) nextval_internal(rk_audit_log_relation("log_id"), false);
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
	known.sequence = rk_audit_log_relation("log_id");

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

/* ---- the leaf ---- */

/* The partition of a class's table that holds a moment, or InvalidOid. */
static Oid
find_leaf(int16 klass, Relation class_table, TimestampTz at)
{
	PartitionDesc partitions = RelationGetPartitionDesc(class_table, false);
	PartitionKey key = RelationGetPartitionKey(class_table);
	PartitionBoundInfo bounds;
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

	bounds = partitions->boundinfo;
	offset = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
										   bounds, 1, &bound, &is_equal);
	index = bounds->indexes[offset + 1];
	if (index < 0)
		return InvalidOid;

	if (bounds->kind[offset][0] == PARTITION_RANGE_DATUM_VALUE &&
		bounds->kind[offset + 1][0] == PARTITION_RANGE_DATUM_VALUE)
	{
		known.klass = klass;
		known.class_table = RelationGetRelid(class_table);
		known.leaf = partitions->oids[index];
		known.leaf_from = DatumGetTimestampTz(bounds->datums[offset][0]);
		known.leaf_to = DatumGetTimestampTz(bounds->datums[offset + 1][0]);
	}
	return partitions->oids[index];
}

/*
 * Lock the leaf last written to, where it is that of this moment still, and
 * return it; else InvalidOid. A detach that has begun before we have the lock
 * is heard of here, and one that begins later waits for us before it ends: so
 * the parent need not be locked.
 */
static Oid
lock_known_leaf(int16 klass, TimestampTz now)
{
	Oid			leaf = known.leaf;

	if (!OidIsValid(leaf) || known.klass != klass ||
		now < known.leaf_from || now >= known.leaf_to)
		return InvalidOid;
	LockRelationOid(leaf, RowExclusiveLock);
	/* a lock held already does not do this, and a detach may be pending */
	AcceptInvalidationMessages();
	if (known.leaf == leaf)
		return leaf;
	UnlockRelationOid(leaf, RowExclusiveLock);
	return InvalidOid;
}

/*
 * Open the leaf that entries of a class written now go to, locked ROW
 * EXCLUSIVE, so that it cannot be detached under us; *overflow: the week has
 * no leaf, this is the overflow leaf.
 */
static Relation
open_leaf(int16 klass, TimestampTz now, bool *overflow)
{
	Oid			leaf = lock_known_leaf(klass, now);
	Oid			class_table;

	*overflow = false;
	if (OidIsValid(leaf))
		return table_open(leaf, NoLock);

	class_table = find_class_table(klass);
	if (OidIsValid(class_table))
	{
		Relation	parent = table_open(class_table, RowExclusiveLock);

		AcceptInvalidationMessages();
		leaf = find_leaf(klass, parent, now);
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

static HeapTuple
form_who_record(const RkWho *who, int64 id, int16 klass)
{
	RkLogEntry	record = {
		.action = RK_LOG_WHO,.klass = klass,
		.key_hash = (int32) (id & PG_INT32_MAX),
		.new_data = rk_audit_who_describe(who)
	};

	return form_log_tuple(&record);
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

	if (RelationGetNumberOfAttributes(leaf) != LOG_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("partition \"%s\" of the audit log has other columns than the log",
						RelationGetRelationName(leaf))));
	for (int i = 0; i < count; i++)
	{
		if ((int16) (intptr_t) entries[i].tag != klass)
			continue;
		if (entries[i].who != who)
		{
			who = entries[i].who;
			who_id = rk_audit_who_record_find(who, RelationGetRelid(leaf));
			if (who_id == 0)
			{
				who_id = draw_id_block();
				rk_audit_who_record_remember(who, RelationGetRelid(leaf), who_id);
				tuples[ntuples++] = complete_tuple(form_who_record(who, who_id, klass),
												   who_id, now, 0, overflow);
			}
		}
		if (ids_left == 0)
		{
			next_id = draw_id_block();
			ids_left = RK_LOG_ID_BLOCK;
		}
		ids_left--;
		tuples[ntuples++] = complete_tuple(entries[i].tuple, next_id++, now, who_id, overflow);
	}

	rk_direct_insert(leaf, get_log_desc(), LOG_CHANGED_AT + 1, tuples, ntuples);
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
	rk_relcache_listen(forget_known);
	rk_audit_who_records_init();
}
