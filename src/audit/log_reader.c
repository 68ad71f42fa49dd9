/*
 * log_reader.c
 *
 * The log as audit_history() reads it. With log_writer.c the only C file that
 * knows what a row of the log looks like.
 *
 * The log has many leaves and a planned query pays for each of them, so the
 * index on (table_id, key_hash) of every leaf is probed directly, and the key
 * of what is found is compared. Who acted is looked up in the leaf of the
 * entry, the table's name in the dictionary.
 */
#include "audit/history.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inet.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* The columns of a log row. */
enum
{
	COL_ID = 1, COL_CHANGED_AT, COL_TXID, COL_WHO, COL_TABLE_ID, COL_KEY_HASH,
	COL_ACTION, COL_CLASS, COL_RECORD_ID, COL_OLD_DATA, COL_NEW_DATA,
	COL_TENANT, COL_NEW_TENANT, COL_DETAIL
};

/* The columns of the dictionary. */
enum
{
	DICT_TABLE_ID = 1, DICT_RELATION, DICT_SCHEMA, DICT_NAME, DICT_FROM_ID,
	DICT_TO_ID
};

typedef struct TableName
{
	int64		from_id;
	int64		to_id;			/* PG_INT64_MAX: current */
	Name		schema;
	Name		name;
} TableName;

/* A who-record belongs to the entries of its own leaf. */
typedef struct WhoKey
{
	RkLogLeaf  *leaf;
	int64		id;
} WhoKey;

typedef struct WhoRecord
{
	WhoKey		key;
	Jsonb	   *data;			/* NULL: not found */
} WhoRecord;

/* ---- the leaves ---- */

/* The btree index that begins with (table_id, key_hash). */
static Relation
open_key_index(Relation leaf)
{
	List	   *indexes = RelationGetIndexList(leaf);
	Relation	found = NULL;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid &&
			index->rd_index->indnkeyatts >= 2 &&
			index->rd_index->indkey.values[0] == COL_TABLE_ID &&
			index->rd_index->indkey.values[1] == COL_KEY_HASH &&
			RelationGetIndexPredicate(index) == NIL)
		{
			found = index;
			break;
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("partition %s of the audit log has no index on (table_id, key_hash)",
						rk_relation_name(RelationGetRelid(leaf))),
				 errhint("CREATE INDEX ON %s (table_id, key_hash).",
						 rk_relation_name(RelationGetRelid(leaf)))));
	return found;
}

static void
open_leaves(RkHistory *history, Oid parent_oid)
{
	Relation	parent = table_open(parent_oid, AccessShareLock);
	PartitionDesc partitions = RelationGetPartitionDesc(parent, false);

	/* newest first: what was written last is most likely in memory */
	for (int i = partitions->nparts - 1; i >= 0; i--)
	{
		Oid			child = partitions->oids[i];
		Relation	rel;
		RkLogLeaf  *leaf;

		if (!partitions->is_leaf[i])
		{
			open_leaves(history, child);
			continue;
		}
		rel = try_table_open(child, AccessShareLock);
		if (rel == NULL)
			continue;			/* dropped by retention since */
		if (RelationGetNumberOfBlocks(rel) == 0)
		{
			table_close(rel, NoLock);
			continue;
		}
		leaf = palloc(sizeof(RkLogLeaf));
		leaf->rel = rel;
		leaf->index = open_key_index(rel);
		leaf->slot = table_slot_create(rel, NULL);
		history->leaves = lappend(history->leaves, leaf);
	}
	table_close(parent, NoLock);
}

static IndexScanDesc
begin_probe(RkLogLeaf *leaf, int32 table_id, int32 key_hash)
{
	IndexScanDesc scan = rk_index_beginscan(leaf->rel, leaf->index, GetActiveSnapshot(), 2);
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(table_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(key_hash));
	index_rescan(scan, keys, 2, NULL, 0);
	return scan;
}

static Datum
column(RkLogLeaf *leaf, AttrNumber number, bool *isnull)
{
	return slot_getattr(leaf->slot, number, isnull);
}

static int64
int64_column(RkLogLeaf *leaf, AttrNumber number)
{
	bool		isnull;

	return DatumGetInt64(column(leaf, number, &isnull));
}

static Jsonb *
jsonb_column(RkLogLeaf *leaf, AttrNumber number)
{
	bool		isnull;
	Datum		value = column(leaf, number, &isnull);

	return isnull ? NULL : (Jsonb *) PG_DETOAST_DATUM_COPY(value);
}

/* ---- entries of one key ---- */

/* A soft delete or a restore is an UPDATE, or one row less or more. */
static char
kind_of(const RkHistoryEntry *entry)
{
	if (entry->action != RK_SOFT_DELETE && entry->action != RK_RESTORE)
		return entry->action;
	if (entry->old_data != NULL && entry->new_data != NULL)
		return RK_UPDATE;
	return entry->new_data != NULL ? RK_INSERT : RK_DELETE;
}

static void
add_entry(RkKeyEntries *found, RkLogLeaf *leaf, Jsonb *record_id)
{
	RkHistoryEntry *entry;
	bool		isnull;
	Datum		tenant;

	if (found->count == found->size)
	{
		found->size = found->size == 0 ? 16 : found->size * 2;
		found->entries = found->entries == NULL
			? palloc(found->size * sizeof(RkHistoryEntry))
			: repalloc_huge(found->entries, found->size * sizeof(RkHistoryEntry));
	}
	entry = &found->entries[found->count++];
	entry->id = int64_column(leaf, COL_ID);
	entry->changed_at = DatumGetTimestampTz(column(leaf, COL_CHANGED_AT, &isnull));
	entry->txid = int64_column(leaf, COL_TXID);
	entry->who = int64_column(leaf, COL_WHO);
	entry->action = DatumGetChar(column(leaf, COL_ACTION, &isnull));
	entry->taken = false;
	entry->leaf = leaf;
	entry->record_id = record_id;
	entry->old_data = jsonb_column(leaf, COL_OLD_DATA);
	entry->new_data = jsonb_column(leaf, COL_NEW_DATA);
	entry->kind = kind_of(entry);
	entry->detail = jsonb_column(leaf, COL_DETAIL);
	tenant = column(leaf, COL_TENANT, &isnull);
	entry->tenant = isnull ? NULL : DatumGetTextPCopy(tenant);
	tenant = column(leaf, COL_NEW_TENANT, &isnull);
	entry->new_tenant = isnull ? NULL : DatumGetTextPCopy(tenant);
}

int
rk_audit_compare_entries(const void *a, const void *b)
{
	int64		ida = ((const RkHistoryEntry *) a)->id;
	int64		idb = ((const RkHistoryEntry *) b)->id;

	return (ida > idb) - (ida < idb);
}

/* Everything in the log under a key. */
RkKeyEntries *
rk_audit_log_read(RkHistory *history, Jsonb *key, int32 hash)
{
	RkKeyEntries *found = palloc0(sizeof(RkKeyEntries));
	ListCell   *lc;

	found->key = key;
	foreach(lc, history->leaves)
	{
		RkLogLeaf  *leaf = lfirst(lc);
		IndexScanDesc scan = begin_probe(leaf, history->table_id, hash);

		while (index_getnext_slot(scan, ForwardScanDirection, leaf->slot))
		{
			Jsonb	   *record_id = jsonb_column(leaf, COL_RECORD_ID);

			CHECK_FOR_INTERRUPTS();
			if (record_id != NULL && rk_audit_same_key(record_id, key))
				add_entry(found, leaf, record_id);
			else if (record_id != NULL)
				pfree(record_id);
		}
		index_endscan(scan);
	}
	qsort(found->entries, found->count, sizeof(RkHistoryEntry), rk_audit_compare_entries);
	history->keys = lappend(history->keys, found);
	return found;
}

/* ---- who and what ---- */

static Jsonb *
read_who(RkLogLeaf *leaf, int64 id)
{
	IndexScanDesc scan = begin_probe(leaf, 0, (int32) (id & PG_INT32_MAX));
	Jsonb	   *data = NULL;

	while (data == NULL && index_getnext_slot(scan, ForwardScanDirection, leaf->slot))
	{
		bool		isnull;

		if (int64_column(leaf, COL_ID) == id &&
			DatumGetChar(column(leaf, COL_ACTION, &isnull)) == RK_LOG_WHO)
			data = jsonb_column(leaf, COL_NEW_DATA);
	}
	index_endscan(scan);
	return data;
}

static Jsonb *
find_who(RkHistory *history, const RkHistoryEntry *entry)
{
	WhoKey		key;
	WhoRecord  *who;
	bool		found;

	memset(&key, 0, sizeof(key));	/* padding is hashed as well */
	key.leaf = entry->leaf;
	key.id = entry->who;
	who = hash_search(history->whos, &key, HASH_ENTER, &found);
	if (!found)
		who->data = read_who(entry->leaf, entry->who);
	return who->data;
}

static void
read_names(RkHistory *history)
{
	Relation	tables = table_open(rk_audit_log_relation("tables"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, DICT_TABLE_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(history->table_id));
	scan = systable_beginscan(tables, rk_audit_log_relation("tables_pkey"), true,
							  GetActiveSnapshot(), 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TableName  *name = palloc(sizeof(TableName));
		bool		isnull;
		Datum		to_id;

		tuple = heap_copytuple(tuple);
		name->schema = DatumGetName(heap_getattr(tuple, DICT_SCHEMA, RelationGetDescr(tables), &isnull));
		name->name = DatumGetName(heap_getattr(tuple, DICT_NAME, RelationGetDescr(tables), &isnull));
		name->from_id = DatumGetInt64(heap_getattr(tuple, DICT_FROM_ID, RelationGetDescr(tables), &isnull));
		to_id = heap_getattr(tuple, DICT_TO_ID, RelationGetDescr(tables), &isnull);
		name->to_id = isnull ? PG_INT64_MAX : DatumGetInt64(to_id);
		history->names = lappend(history->names, name);
	}
	systable_endscan(scan);
	table_close(tables, NoLock);
}

static TableName *
find_name(RkHistory *history, int64 id)
{
	ListCell   *lc;

	foreach(lc, history->names)
	{
		TableName  *name = lfirst(lc);

		if (name->from_id <= id && id < name->to_id)
			return name;
	}
	return NULL;
}

/* ---- opening and closing ---- */

/*
 * Open what is read, with ACCESS SHARE locks; history->table_id is known.
 */
void
rk_audit_log_open(RkHistory *history)
{
	HASHCTL		control = {
		.keysize = sizeof(WhoKey),
		.entrysize = sizeof(WhoRecord),
		.hcxt = CurrentMemoryContext
	};

	open_leaves(history, rk_audit_log_relation("log"));
	read_names(history);
	history->whos = hash_create("rowkeeper history", 32, &control,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Close it; the locks stay until the transaction ends. */
void
rk_audit_log_close(RkHistory *history)
{
	ListCell   *lc;

	foreach(lc, history->leaves)
	{
		RkLogLeaf  *leaf = lfirst(lc);

		ExecDropSingleTupleTableSlot(leaf->slot);
		index_close(leaf->index, NoLock);
		table_close(leaf->rel, NoLock);
	}
}

/* ---- the result ---- */

static const char *
action_name(char action)
{
	switch (action)
	{
		case RK_INSERT:
			return "INSERT";
		case RK_UPDATE:
			return "UPDATE";
		case RK_DELETE:
			return "DELETE";
		case 'B':
			return "BASELINE";
		case RK_SOFT_DELETE:
			return "SOFT DELETE";
		case RK_RESTORE:
			return "RESTORE";
		default:
			return psprintf("%c", action);
	}
}

/* The members of new_data whose value is not the one in old_data. */
static Datum
changed_fields(const RkHistoryEntry *entry)
{
	JsonbIterator *it = JsonbIteratorInit(&entry->new_data->root);
	ArrayBuildState *names = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	JsonbValue	name;
	JsonbValue	value;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		JsonbValue	old;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &value, true);
		if (entry->old_data != NULL &&
			getKeyJsonValueFromContainer(&entry->old_data->root, name.val.string.val,
										 name.val.string.len, &old) != NULL)
		{
			Jsonb	   *a = JsonbValueToJsonb(&value);
			Jsonb	   *b = JsonbValueToJsonb(&old);

			if (compareJsonbContainers(&a->root, &b->root) == 0)
				continue;
		}
		accumArrayResult(names,
						 PointerGetDatum(cstring_to_text_with_len(name.val.string.val,
																  name.val.string.len)),
						 false, TEXTOID, CurrentMemoryContext);
	}
	return makeArrayResult(names, CurrentMemoryContext);
}

static char *
who_text(Jsonb *who, const char *member)
{
	JsonbValue	value;

	return who != NULL &&
		getKeyJsonValueFromContainer(&who->root, member, strlen(member), &value) != NULL &&
		value.type == jbvString
		? pnstrdup(value.val.string.val, value.val.string.len) : NULL;
}

/* The context that was set, with the entry's own detail over it. */
static Jsonb *
entry_context(Jsonb *who, Jsonb *detail)
{
	JsonbValue	value;
	Jsonb	   *context = NULL;

	if (who != NULL &&
		getKeyJsonValueFromContainer(&who->root, "context", strlen("context"), &value) != NULL)
		context = JsonbValueToJsonb(&value);
	if (context == NULL || detail == NULL)
		return context != NULL ? context : detail;
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(context),
											  JsonbPGetDatum(detail)));
}

#define HISTORY_COLUMNS 19

static void
put_text(Datum *values, bool *nulls, int column, const char *string)
{
	nulls[column] = string == NULL;
	if (string != NULL)
		values[column] = CStringGetTextDatum(string);
}

static void
put_name(Datum *values, bool *nulls, int column, const char *string)
{
	nulls[column] = string == NULL;
	if (string != NULL)
		values[column] = DirectFunctionCall1(namein, CStringGetDatum(string));
}

static void
put_pointer(Datum *values, bool *nulls, int column, const void *pointer)
{
	nulls[column] = pointer == NULL;
	values[column] = PointerGetDatum(pointer);
}

/* Add an entry to the result, in the columns of audit_log. */
void
rk_audit_log_put(ReturnSetInfo *result, RkHistory *history, const RkHistoryEntry *entry)
{
	Datum		values[HISTORY_COLUMNS];
	bool		nulls[HISTORY_COLUMNS] = {false};
	TableName  *name = find_name(history, entry->id);
	Jsonb	   *who = find_who(history, entry);
	char	   *address = who_text(who, "client_addr");

	values[0] = Int64GetDatum(entry->id);
	values[1] = TimestampTzGetDatum(entry->changed_at);
	values[2] = Int64GetDatum(entry->txid);
	put_pointer(values, nulls, 3, name == NULL ? NULL : name->schema);
	put_pointer(values, nulls, 4, name == NULL ? NULL : name->name);
	values[5] = ObjectIdGetDatum(history->root);
	put_text(values, nulls, 6, action_name(entry->action));
	put_pointer(values, nulls, 7, entry->record_id);
	put_pointer(values, nulls, 8, entry->old_data);
	put_pointer(values, nulls, 9, entry->new_data);
	nulls[10] = entry->old_data == NULL || entry->new_data == NULL;
	if (!nulls[10])
		values[10] = changed_fields(entry);
	put_text(values, nulls, 11, who_text(who, "actor"));
	put_text(values, nulls, 12, who_text(who, "actor_source"));
	put_name(values, nulls, 13, who_text(who, "db_user"));
	put_name(values, nulls, 14, who_text(who, "db_role"));
	nulls[15] = address == NULL;
	if (address != NULL)
		values[15] = DirectFunctionCall1(inet_in, CStringGetDatum(address));
	put_text(values, nulls, 16, who_text(who, "application_name"));
	put_pointer(values, nulls, 17, entry_context(who, entry->detail));
	put_pointer(values, nulls, 18, entry->tenant);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}
