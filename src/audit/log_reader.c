/*
 * log_reader.c
 *
 * audit_history(): the entries of one row. With log_writer.c the only C file
 * that knows what a row of the log looks like.
 *
 * The log has many leaves and a planned query pays for each of them, so this
 * one probes the index on (table_id, key_hash) of every leaf by itself and
 * compares the key of what it finds. Who acted is looked up in the leaf of the
 * entry, the table's name in the dictionary.
 *
 * A row whose key was changed has its entries under several keys. The UPDATE
 * that changed it is under the old key and says the new one; a link beside it,
 * under the new key, leads back. From the key that was asked for, all entries
 * belong to the answer; of a key that a change leads to, only those of the one
 * life, from INSERT to DELETE, that the change was part of.
 */
#include "audit/audit.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "partitioning/partdesc.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inet.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(rowkeeper_audit_history);
PG_FUNCTION_INFO_V1(rowkeeper_audit_history_key);

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

typedef struct Leaf
{
	Relation	rel;
	Relation	index;			/* on (table_id, key_hash) */
	TupleTableSlot *slot;
} Leaf;

typedef struct Entry
{
	int64		id;
	TimestampTz changed_at;
	int64		txid;
	int64		who;
	char		action;
	bool		taken;			/* is in the answer */
	Leaf	   *leaf;
	Jsonb	   *record_id;
	Jsonb	   *old_data;
	Jsonb	   *new_data;
	Jsonb	   *detail;
	text	   *tenant;
} Entry;

/* A key and everything that is in the log under it, oldest first. */
typedef struct KeyEntries
{
	Jsonb	   *key;
	int			count;
	int			size;
	Entry	   *entries;
} KeyEntries;

typedef struct TableName
{
	int64		from_id;
	int64		to_id;			/* PG_INT64_MAX: current */
	Name		schema;
	Name		name;
} TableName;

typedef struct WhoRecord
{
	Leaf	   *leaf;
	int64		id;
	Jsonb	   *data;			/* NULL: not found */
} WhoRecord;

typedef struct History
{
	Oid			root;
	Relation	rel;
	int32		table_id;
	AttrNumber *key_columns;
	int			key_count;
	RkKey	   *key;
	RkEncoder  *key_encoder;

	List	   *leaves;
	List	   *keys;			/* of KeyEntries, as they were read */
	List	   *names;			/* of TableName */
	List	   *whos;			/* of WhoRecord, the last used first */
} History;

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
open_leaves(History *history, Oid parent_oid)
{
	Relation	parent = table_open(parent_oid, AccessShareLock);
	PartitionDesc partitions = RelationGetPartitionDesc(parent, false);

	/* newest first: what was written last is most likely in memory */
	for (int i = partitions->nparts - 1; i >= 0; i--)
	{
		Oid			child = partitions->oids[i];
		Relation	rel;
		Leaf	   *leaf;

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
		leaf = palloc(sizeof(Leaf));
		leaf->rel = rel;
		leaf->index = open_key_index(rel);
		leaf->slot = table_slot_create(rel, NULL);
		history->leaves = lappend(history->leaves, leaf);
	}
	table_close(parent, NoLock);
}

static void
close_leaves(History *history)
{
	ListCell   *lc;

	foreach(lc, history->leaves)
	{
		Leaf	   *leaf = lfirst(lc);

		ExecDropSingleTupleTableSlot(leaf->slot);
		index_close(leaf->index, NoLock);
		table_close(leaf->rel, NoLock);
	}
}

static IndexScanDesc
begin_probe(Leaf *leaf, int32 table_id, int32 key_hash)
{
	IndexScanDesc scan = rk_index_beginscan(leaf->rel, leaf->index, GetActiveSnapshot(), 2);
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(table_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(key_hash));
	index_rescan(scan, keys, 2, NULL, 0);
	return scan;
}

static Datum
column(Leaf *leaf, AttrNumber number, bool *isnull)
{
	return slot_getattr(leaf->slot, number, isnull);
}

static int64
int64_column(Leaf *leaf, AttrNumber number)
{
	bool		isnull;

	return DatumGetInt64(column(leaf, number, &isnull));
}

static Jsonb *
jsonb_column(Leaf *leaf, AttrNumber number)
{
	bool		isnull;
	Datum		value = column(leaf, number, &isnull);

	return isnull ? NULL : (Jsonb *) PG_DETOAST_DATUM_COPY(value);
}

/* ---- keys as jsonb ---- */

#define MAX_KEY_MEMBERS INDEX_MAX_KEYS

typedef struct KeyMember
{
	JsonbValue	name;
	JsonbValue	value;
} KeyMember;

static int
read_key_members(Jsonb *key, KeyMember *members)
{
	JsonbIterator *it = JsonbIteratorInit(&key->root);
	JsonbValue	value;
	JsonbIteratorToken token;
	int			count = 0;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY && count < MAX_KEY_MEMBERS)
			members[count].name = value;
		else if (token == WJB_VALUE && count < MAX_KEY_MEMBERS)
			members[count++].value = value;
	}
	return count;
}

static bool
same_string(const JsonbValue *a, const JsonbValue *b)
{
	return a->val.string.len == b->val.string.len &&
		memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
}

/* Length without trailing blanks: char(n) may since have become longer. */
static int
trimmed_length(const JsonbValue *value)
{
	int			length = value->val.string.len;

	while (length > 0 && value->val.string.val[length - 1] == ' ')
		length--;
	return length;
}

static bool
same_key_value(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvString:
			return trimmed_length(a) == trimmed_length(b) &&
				memcmp(a->val.string.val, b->val.string.val, trimmed_length(a)) == 0;
		case jbvNumeric:
			return DatumGetBool(DirectFunctionCall2(numeric_eq,
													NumericGetDatum(a->val.numeric),
													NumericGetDatum(b->val.numeric)));
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		case jbvNull:
			return true;
		default:
			return false;		/* no key type is a container */
	}
}

static bool
same_names(const KeyMember *a, const KeyMember *b, int count)
{
	for (int i = 0; i < count; i++)
		if (!same_string(&a[i].name, &b[i].name))
			return false;
	return true;
}

/* Whether each value of one has its own equal among the other's. */
static bool
same_values(const KeyMember *a, const KeyMember *b, int count)
{
	bool		used[MAX_KEY_MEMBERS] = {false};

	for (int i = 0; i < count; i++)
	{
		int			j = 0;

		while (j < count && (used[j] || !same_key_value(&a[i].value, &b[j].value)))
			j++;
		if (j == count)
			return false;
		used[j] = true;
	}
	return true;
}

/*
 * Whether two keys with the same hash are the same key. Where columns were
 * renamed between them the names differ, and values are what counts.
 */
static bool
same_key(Jsonb *a, Jsonb *b)
{
	KeyMember	members_a[MAX_KEY_MEMBERS];
	KeyMember	members_b[MAX_KEY_MEMBERS];
	int			count;

	if (VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0)
		return true;
	count = read_key_members(a, members_a);
	if (count != read_key_members(b, members_b))
		return false;
	if (!same_names(members_a, members_b, count))
		return same_values(members_a, members_b, count);
	for (int i = 0; i < count; i++)
		if (!same_key_value(&members_a[i].value, &members_b[i].value))
			return false;
	return true;
}

/* A key's value as the text that its column's input function takes. */
static char *
value_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return value->val.boolean ? "true" : "false";
		case jbvNull:
			return NULL;
		default:
			return JsonbToCString(NULL, value->val.binary.data, value->val.binary.len);
	}
}

/* ---- keys as values ---- */

static Form_pg_attribute
key_column(const History *history, int i)
{
	return TupleDescAttr(RelationGetDescr(history->rel), history->key_columns[i] - 1);
}

/* "id bigint, line integer": what a call has to give. */
static char *
describe_key(const History *history)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < history->key_count; i++)
	{
		Form_pg_attribute column = key_column(history, i);

		appendStringInfo(&text, "%s%s %s", i > 0 ? ", " : "", NameStr(column->attname),
						 format_type_with_typemod(column->atttypid, column->atttypmod));
	}
	return text.data;
}

typedef struct KeyInput
{
	const History *history;
	int			column;
} KeyInput;

static void
explain_key_input(void *arg)
{
	const KeyInput *input = arg;

	errcontext("value of key column \"%s\"",
			   NameStr(key_column(input->history, input->column)->attname));
	errhint("The primary key of %s is (%s).",
			rk_relation_name(input->history->root), describe_key(input->history));
}

/*
 * Turn texts in key order into values; raises where one is no value of its
 * column. The result is indexed by attribute number - 1.
 */
static Datum *
read_key_values(const History *history, char **texts)
{
	Datum	   *values = palloc0(RelationGetDescr(history->rel)->natts * sizeof(Datum));
	KeyInput	input = {.history = history};
	ErrorContextCallback context = {
		.previous = error_context_stack,.callback = explain_key_input,.arg = &input
	};

	error_context_stack = &context;
	for (int i = 0; i < history->key_count; i++)
	{
		Form_pg_attribute column = key_column(history, i);
		Oid			function;
		Oid			ioparam;

		input.column = i;
		if (texts[i] == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("value of key column \"%s\" must not be null",
							NameStr(column->attname))));
		getTypeInputInfo(column->atttypid, &function, &ioparam);
		values[column->attnum - 1] = OidInputFunctionCall(function, texts[i], ioparam,
														  column->atttypmod);
	}
	error_context_stack = context.previous;
	return values;
}

RK_NORETURN static void
refuse_key(const History *history, const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message),
			 errhint("The primary key of %s is (%s).",
					 rk_relation_name(history->root), describe_key(history))));
}

static void
check_key_count(const History *history, int count)
{
	if (count != history->key_count)
		refuse_key(history, psprintf("%d key %s given, the primary key has %d %s",
									 count, count == 1 ? "value" : "values",
									 history->key_count,
									 history->key_count == 1 ? "column" : "columns"));
}

/* The key in an object as a user wrote it: all columns by name, no others. */
static char **
texts_of_object(const History *history, Jsonb *key)
{
	char	  **texts = palloc0(history->key_count * sizeof(char *));

	check_key_count(history, JB_ROOT_COUNT(key));
	for (int i = 0; i < history->key_count; i++)
	{
		char	   *name = NameStr(key_column(history, i)->attname);
		JsonbValue	value;

		if (getKeyJsonValueFromContainer(&key->root, name, strlen(name), &value) == NULL)
			refuse_key(history, psprintf("the key has no member \"%s\"", name));
		texts[i] = value_text(&value);
	}
	return texts;
}

static char **
texts_of_scalar(const History *history, Jsonb *key)
{
	char	  **texts = palloc0(sizeof(char *));
	JsonbValue	value;

	if (history->key_count != 1)
		refuse_key(history, "a single value is not the key of this table");
	(void) JsonbExtractScalar(&key->root, &value);
	texts[0] = value_text(&value);
	return texts;
}

/* The same for a key from the log, whose columns may have been renamed since. */
static bool
texts_of_stored(const History *history, Jsonb *key, char **texts)
{
	KeyMember	members[MAX_KEY_MEMBERS];
	int			count = read_key_members(key, members);
	bool		used[MAX_KEY_MEMBERS] = {false};
	int			unnamed = -1;

	if (count != history->key_count)
		return false;
	for (int i = 0; i < count; i++)
	{
		char	   *name = NameStr(key_column(history, i)->attname);
		JsonbValue	wanted = {.type = jbvString,.val.string = {strlen(name), name}};
		int			j = 0;

		while (j < count && !same_string(&members[j].name, &wanted))
			j++;
		if (j < count)
		{
			texts[i] = value_text(&members[j].value);
			used[j] = true;
		}
		else if (unnamed >= 0)
			return false;		/* two renamed: which is which? */
		else
			unnamed = i;
	}
	for (int j = 0; j < count && unnamed >= 0; j++)
		if (!used[j])
			texts[unnamed] = value_text(&members[j].value);
	return true;
}

/*
 * The hash of a key from the log; false where it cannot be a key of the table
 * as it is now (its type was changed), so that nothing can be under it.
 */
static bool
hash_stored_key(const History *history, Jsonb *key, int32 *hash)
{
	char	   *texts[MAX_KEY_MEMBERS] = {NULL};
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool fits = false;

	if (!texts_of_stored(history, key, texts))
		return false;

	/* input functions of 15 raise, and only a subtransaction survives that */
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		*hash = rk_audit_key_hash(history->key, read_key_values(history, texts));
		ReleaseCurrentSubTransaction();
		fits = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return fits;
}

/* ---- entries of one key ---- */

static void
add_entry(KeyEntries *found, Leaf *leaf, Jsonb *record_id)
{
	Entry	   *entry;
	bool		isnull;
	Datum		tenant;

	if (found->count == found->size)
	{
		found->size = found->size == 0 ? 16 : found->size * 2;
		found->entries = found->entries == NULL
			? palloc(found->size * sizeof(Entry))
			: repalloc_huge(found->entries, found->size * sizeof(Entry));
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
	entry->detail = jsonb_column(leaf, COL_DETAIL);
	tenant = column(leaf, COL_TENANT, &isnull);
	entry->tenant = isnull ? NULL : DatumGetTextPCopy(tenant);
}

static int
compare_entries(const void *a, const void *b)
{
	int64		ida = ((const Entry *) a)->id;
	int64		idb = ((const Entry *) b)->id;

	return (ida > idb) - (ida < idb);
}

static KeyEntries *
read_key_entries(History *history, Jsonb *key, int32 hash)
{
	KeyEntries *found = palloc0(sizeof(KeyEntries));
	ListCell   *lc;

	found->key = key;
	foreach(lc, history->leaves)
	{
		Leaf	   *leaf = lfirst(lc);
		IndexScanDesc scan = begin_probe(leaf, history->table_id, hash);

		while (index_getnext_slot(scan, ForwardScanDirection, leaf->slot))
		{
			Jsonb	   *record_id = jsonb_column(leaf, COL_RECORD_ID);

			CHECK_FOR_INTERRUPTS();
			if (record_id != NULL && same_key(record_id, key))
				add_entry(found, leaf, record_id);
			else if (record_id != NULL)
				pfree(record_id);
		}
		index_endscan(scan);
	}
	qsort(found->entries, found->count, sizeof(Entry), compare_entries);
	history->keys = lappend(history->keys, found);
	return found;
}

/* The entries of a key that an entry refers to; NULL: there can be none. */
static KeyEntries *
get_key_entries(History *history, Jsonb *key)
{
	ListCell   *lc;
	int32		hash;

	foreach(lc, history->keys)
	{
		KeyEntries *known = lfirst(lc);

		if (same_key(known->key, key))
			return known;
	}
	return hash_stored_key(history, key, &hash) ? read_key_entries(history, key, hash) : NULL;
}

/* ---- rows whose key was changed ---- */

/* The key an UPDATE left the row with, or NULL where it did not change it. */
static Jsonb *
changed_key(const Entry *update)
{
	KeyMember	members[MAX_KEY_MEMBERS];
	int			count;
	bool		changed = false;
	JsonbParseState *state = NULL;

	if (update->action != RK_LOG_UPDATE || update->new_data == NULL)
		return NULL;
	count = read_key_members(update->record_id, members);
	for (int i = 0; i < count; i++)
	{
		JsonbValue	value;

		if (getKeyJsonValueFromContainer(&update->new_data->root,
										 members[i].name.val.string.val,
										 members[i].name.val.string.len, &value) != NULL &&
			!same_key_value(&value, &members[i].value))
		{
			members[i].value = value;
			changed = true;
		}
	}
	if (!changed)
		return NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < count; i++)
	{
		pushJsonbValue(&state, WJB_KEY, &members[i].name);
		pushJsonbValue(&state, WJB_VALUE, &members[i].value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Whether an entry is the last of a row's life under its key. */
static bool
ends_life(const Entry *entry)
{
	return entry->action == RK_LOG_DELETE || changed_key(entry) != NULL;
}

/*
 * Whether another row had the key when an entry was written and left it later
 * in the same transaction, as a deferrable key allows. Who came first leaves
 * first.
 */
static bool
is_crowded(const KeyEntries *life, int i)
{
	int			end = i + 1;

	if (i == 0 || ends_life(&life->entries[i - 1]))
		return false;
	while (end < life->count && !ends_life(&life->entries[end]))
		end++;
	return end < life->count && life->entries[end].txid == life->entries[i].txid;
}

/* The life of a key that begins with a change to it, after the entry "id". */
static void
follow_forward(History *history, Jsonb *key, int64 id)
{
	while (key != NULL)
	{
		KeyEntries *life = get_key_entries(history, key);
		int			i = 0;

		key = NULL;
		if (life == NULL)
			return;
		while (i < life->count && life->entries[i].id <= id)
			i++;
		if (i < life->count && life->entries[i].action == RK_LOG_KEY_LINK)
		{
			/* the link of this very change */
			if (is_crowded(life, i++))
			{
				while (i < life->count && !ends_life(&life->entries[i]))
					i++;
				i++;
			}
		}
		for (; i < life->count; i++)
		{
			Entry	   *entry = &life->entries[i];

			if (entry->taken || entry->action == RK_LOG_INSERT ||
				entry->action == RK_LOG_KEY_LINK)
				return;			/* known already, or another row's life */
			entry->taken = true;
			if (entry->action == RK_LOG_DELETE)
				return;
			key = changed_key(entry);
			if (key != NULL)
			{
				id = entry->id;
				break;
			}
		}
	}
}

/* The life of a key that ends with a change of it, before the link "id". */
static void
follow_backward(History *history, Jsonb *key, int64 id)
{
	while (key != NULL)
	{
		KeyEntries *life = get_key_entries(history, key);
		bool		last = true;

		key = NULL;
		if (life == NULL)
			return;
		for (int i = life->count - 1; i >= 0; i--)
		{
			Entry	   *entry = &life->entries[i];

			if (entry->id >= id)
				continue;
			if ((entry->action == RK_LOG_KEY_LINK || entry->action == RK_LOG_INSERT) &&
				is_crowded(life, i))
				continue;		/* another row, before ours had left */
			if (entry->taken || entry->action == RK_LOG_DELETE)
				return;
			if (entry->action == RK_LOG_KEY_LINK)
			{
				key = entry->old_data;
				id = entry->id;
				break;
			}
			if (!last && changed_key(entry) != NULL)
				return;			/* an earlier row went away from this key */
			last = false;
			entry->taken = true;
			if (entry->action == RK_LOG_INSERT)
				return;
		}
	}
}

/* Take all entries of the key that was asked for, and follow its changes. */
static void
take_history(History *history, KeyEntries *asked)
{
	for (int i = 0; i < asked->count; i++)
		asked->entries[i].taken = asked->entries[i].action != RK_LOG_KEY_LINK;
	for (int i = 0; i < asked->count; i++)
	{
		Entry	   *entry = &asked->entries[i];
		Jsonb	   *key;

		if (entry->action == RK_LOG_KEY_LINK)
			follow_backward(history, entry->old_data, entry->id);
		else if ((key = changed_key(entry)) != NULL)
			follow_forward(history, key, entry->id);
	}
}

/* ---- who and what ---- */

static Jsonb *
read_who(Leaf *leaf, int64 id)
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
find_who(History *history, const Entry *entry)
{
	WhoRecord  *who;
	ListCell   *lc;

	foreach(lc, history->whos)
	{
		who = lfirst(lc);
		if (who->id == entry->who && who->leaf == entry->leaf)
			return who->data;
	}
	who = palloc(sizeof(WhoRecord));
	who->id = entry->who;
	who->leaf = entry->leaf;
	who->data = read_who(entry->leaf, entry->who);
	history->whos = lcons(who, history->whos);
	return who->data;
}

static void
read_names(History *history)
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
find_name(History *history, int64 id)
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

/* ---- the result ---- */

static const char *
action_name(char action)
{
	switch (action)
	{
		case RK_LOG_INSERT:
			return "INSERT";
		case RK_LOG_UPDATE:
			return "UPDATE";
		case RK_LOG_DELETE:
			return "DELETE";
		default:
			return psprintf("%c", action);
	}
}

/* The members of new_data whose value is not the one in old_data. */
static Datum
changed_fields(const Entry *entry)
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
put_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL;
	if (text != NULL)
		values[column] = CStringGetTextDatum(text);
}

static void
put_name(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL;
	if (text != NULL)
		values[column] = DirectFunctionCall1(namein, CStringGetDatum(text));
}

static void
put_pointer(Datum *values, bool *nulls, int column, const void *pointer)
{
	nulls[column] = pointer == NULL;
	values[column] = PointerGetDatum(pointer);
}

static void
put_entry(ReturnSetInfo *result, History *history, const Entry *entry)
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
	nulls[10] = entry->action != RK_LOG_UPDATE || entry->new_data == NULL;
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

static void
put_history(ReturnSetInfo *result, History *history)
{
	List	   *taken = NIL;
	int			count = 0;
	Entry	   *entries;
	ListCell   *lc;

	foreach(lc, history->keys)
	{
		KeyEntries *known = lfirst(lc);

		for (int i = 0; i < known->count; i++)
			if (known->entries[i].taken)
				taken = lappend(taken, &known->entries[i]);
	}
	entries = palloc_extended(Max(1, list_length(taken)) * sizeof(Entry), MCXT_ALLOC_HUGE);
	foreach(lc, taken)
		entries[count++] = *(Entry *) lfirst(lc);
	qsort(entries, count, sizeof(Entry), compare_entries);
	for (int i = 0; i < count; i++)
		put_entry(result, history, &entries[i]);
}

/* ---- the call ---- */

/*
 * Whoever may read the whole table may read its history: SELECT on the table
 * (not on columns of it), and no row security that would hide rows from him.
 */
static void
check_may_read(Oid root)
{
	Oid			role = GetUserId();

	if (has_privs_of_role(role, rk_extension_owner()))
		return;
	if (pg_class_aclcheck(root, role, ACL_SELECT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the history of %s", rk_relation_name(root)),
				 errhint("GRANT SELECT ON %s TO %s.", rk_relation_name(root),
						 quote_identifier(GetUserNameFromId(role, false)))));
	if (check_enable_rls(root, role, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the history of %s", rk_relation_name(root)),
				 errdetail("Row security hides rows of this table from you, and the history would show them."),
				 errhint("Ask as the table's owner or as a role with BYPASSRLS.")));
}

static void
begin_history(History *history, Oid target)
{
	if (get_rel_name(target) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", target)));
	memset(history, 0, sizeof(History));
	history->root = rk_root_of(target);
	check_may_read(history->root);
	if (!rk_audit_dictionary_find(history->root, &history->table_id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s was never audited", rk_relation_name(history->root)),
				 errhint("SELECT rowkeeper.audit(%s) begins its history.",
						 quote_literal_cstr(rk_relation_name(history->root)))));

	history->rel = table_open(history->root, AccessShareLock);
	history->key_columns = rk_audit_key_columns(history->rel, &history->key_count);
	if (history->key_columns == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s has no primary key any more", rk_relation_name(history->root)),
				 errhint("Its entries are in rowkeeper.audit_log.")));
	history->key = rk_audit_key_create(RelationGetDescr(history->rel),
									   history->key_columns, history->key_count);
}

static Jsonb *
encode_key(const History *history, const Datum *values)
{
	int			natts = RelationGetDescr(history->rel)->natts;
	bool	   *nulls = palloc0(natts * sizeof(bool));
	Bitmapset  *columns = NULL;

	for (int i = 0; i < history->key_count; i++)
		columns = bms_add_member(columns, history->key_columns[i]);
	return rk_audit_encode(rk_audit_encoder_create(RelationGetDescr(history->rel), columns),
						   values, nulls, NULL, NULL);
}

static void
put_history_of(FunctionCallInfo fcinfo, History *history, char **texts)
{
	Datum	   *values = read_key_values(history, texts);
	KeyEntries *asked;

	open_leaves(history, rk_audit_log_relation("log"));
	asked = read_key_entries(history, encode_key(history, values),
							 rk_audit_key_hash(history->key, values));
	take_history(history, asked);
	read_names(history);
	put_history((ReturnSetInfo *) fcinfo->resultinfo, history);
	close_leaves(history);
	table_close(history->rel, NoLock);
}

static Oid
get_target(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target table must not be null")));
	return PG_GETARG_OID(0);
}

static char *
text_of_value(Datum value, Oid type)
{
	Oid			output;
	bool		is_varlena;

	if (type == UNKNOWNOID)
		return DatumGetCString(value);
	getTypeOutputInfo(type, &output, &is_varlena);
	return OidOutputFunctionCall(output, value);
}

static char **
texts_of_array(const History *history, ArrayType *array)
{
	TypeCacheEntry *type = lookup_type_cache(ARR_ELEMTYPE(array), 0);
	char	  **texts = palloc0(history->key_count * sizeof(char *));
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	deconstruct_array(array, type->type_id, type->typlen, type->typbyval, type->typalign,
					  &elements, &nulls, &count);
	check_key_count(history, count);
	for (int i = 0; i < count; i++)
		if (!nulls[i])
			texts[i] = text_of_value(elements[i], type->type_id);
	return texts;
}

static char **
texts_of_arguments(const History *history, FunctionCallInfo fcinfo)
{
	char	  **texts = palloc0(history->key_count * sizeof(char *));

	check_key_count(history, PG_NARGS() - 1);
	for (int i = 1; i < PG_NARGS(); i++)
		if (!PG_ARGISNULL(i))
			texts[i - 1] = text_of_value(PG_GETARG_DATUM(i),
										 get_fn_expr_argtype(fcinfo->flinfo, i));
	return texts;
}

/*
 * rowkeeper.audit_history(target regclass, VARIADIC key "any" | text[])
 *
 * The entries of one row, oldest first, also from before its key was changed
 * and after; of a partition: of its root. key: the primary key's values in its
 * order. No row: no entries. Locks: ACCESS SHARE on the table and the log.
 * Privileges: SELECT on the table, and no row security that applies to the
 * caller; members of the extension's owner always. Errors: 22004 null, 22023
 * wrong number of values, those of the key's types, 42501 not readable, 55000
 * never audited.
 */
Datum
rowkeeper_audit_history(PG_FUNCTION_ARGS)
{
	Oid			target = get_target(fcinfo);
	History		history;
	char	  **texts;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	begin_history(&history, target);
	if (type_is_array(get_fn_expr_argtype(fcinfo->flinfo, 1)) &&
		get_fn_expr_variadic(fcinfo->flinfo))
	{
		if (PG_ARGISNULL(1))
			refuse_key(&history, "the array of key values must not be null");
		texts = texts_of_array(&history, PG_GETARG_ARRAYTYPE_P(1));
	}
	else
		texts = texts_of_arguments(&history, fcinfo);
	put_history_of(fcinfo, &history, texts);
	return (Datum) 0;
}

/*
 * rowkeeper.audit_history(target regclass, key jsonb): the same with the key
 * as an object, {"id": 42}, or as a scalar where it has one column.
 */
Datum
rowkeeper_audit_history_key(PG_FUNCTION_ARGS)
{
	Oid			target = get_target(fcinfo);
	History		history;
	Jsonb	   *key;
	char	  **texts;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	begin_history(&history, target);
	if (PG_ARGISNULL(1))
		refuse_key(&history, "key must not be null");
	key = PG_GETARG_JSONB_P(1);
	if (JB_ROOT_IS_SCALAR(key))
		texts = texts_of_scalar(&history, key);
	else if (JB_ROOT_IS_OBJECT(key))
		texts = texts_of_object(&history, key);
	else
		refuse_key(&history, "key must be a JSON object or a single value");
	put_history_of(fcinfo, &history, texts);
	return (Datum) 0;
}
