/*
 * who_records.c
 *
 * Who acted is stored once, as a record of its own in the leaf of the entries
 * that refer to it, so that retention drops both together. Here is what such
 * a record says, and which records a backend may refer to again: only those
 * that are there for sure, written by a transaction of its own that
 * committed, or by this one in a subtransaction that still stands. Other
 * backends' records are never waited for: each writes its own.
 */
#include "audit/audit.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#define MAX_WHO_RECORDS 1024

/* A who-record that may be referred to again. */
typedef struct WhoRecordKey
{
	const RkWho *who;
	uint64		leaf;			/* an Oid, as wide as it leaves no padding */
} WhoRecordKey;

typedef struct WhoRecord
{
	WhoRecordKey key;
	int64		id;
	SubTransactionId subid;		/* 0: its transaction committed */
} WhoRecord;

static HTAB *who_records = NULL;
static uint64 who_records_generation = 0;
static int	unsettled_who_records = 0;	/* those of this transaction */

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
		rk_audit_push_text(state, "session_replication_role", "replica");
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

/* Who, as a record's new_data has it. */
Jsonb *
rk_audit_who_describe(const RkWho *who)
{
	JsonbParseState *state = NULL;
	char	   *db_user = GetUserNameFromId(who->session_user, true);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	rk_audit_push_text(&state, "actor", who->actor != NULL ? who->actor : db_user);
	rk_audit_push_text(&state, "actor_source", who->actor_source);
	rk_audit_push_text(&state, "db_user", db_user);
	rk_audit_push_text(&state, "db_role", GetUserNameFromId(who->role, true));
	rk_audit_push_text(&state, "client_addr", client_address());
	rk_audit_push_text(&state, "application_name", who->application_name);
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

static HTAB *
get_who_records(void)
{
	if (who_records != NULL && who_records_generation != rk_who_generation)
	{
		hash_destroy(who_records);
		who_records = NULL;
		unsettled_who_records = 0;
	}
	if (who_records == NULL)
		create_who_cache();
	return who_records;
}

static WhoRecordKey
make_key(const RkWho *who, Oid leaf)
{
	return (WhoRecordKey)
	{
		.who = who,.leaf = leaf
	};
}

/* The id of a record in this leaf that may be referred to, or 0. */
int64
rk_audit_who_record_find(const RkWho *who, Oid leaf)
{
	WhoRecordKey key = make_key(who, leaf);
	WhoRecord  *record = hash_search(get_who_records(), &key, HASH_FIND, NULL);

	return record == NULL ? 0 : record->id;
}

/* A record is being written by the current subtransaction. */
void
rk_audit_who_record_remember(const RkWho *who, Oid leaf, int64 id)
{
	WhoRecordKey key = make_key(who, leaf);
	WhoRecord  *record = hash_search(get_who_records(), &key, HASH_ENTER, NULL);

	record->id = id;
	record->subid = GetCurrentSubTransactionId();
	unsettled_who_records++;
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
forget_leaf(Datum arg, Oid relid)
{
	forget_who_records(is_of_leaf, relid);
}

void
rk_audit_who_records_init(void)
{
	RegisterXactCallback(settle_who_records, NULL);
	RegisterSubXactCallback(settle_sub_who_records, NULL);
	rk_relcache_listen(forget_leaf);
}
