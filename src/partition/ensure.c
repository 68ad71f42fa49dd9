/*
 * ensure.c
 *
 * partition_ensure(): a writer makes sure of the partition that he is about to
 * need, before his INSERT. It is made by a process of ours, as the table's
 * owner, and committed there: it is there for everybody at once, and stays if
 * the writer rolls back. That process waits for locks, and the writer for the
 * process, which no deadlock detector sees; so whoever holds a lock already
 * that would be in its way is told so at once.
 */
#include "partition/partition.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define PATIENCE_MS 5000
#define PAUSE_MS 20

PGDLLEXPORT void rowkeeper_partition_main(Datum arg);

PG_FUNCTION_INFO_V1(rowkeeper_partition_ensure);

/* ---- which position ---- */

RK_NORETURN static void
refuse_value(const RkPartitionSet *set, Oid type)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("the partition key %s of %s is of type %s, not %s", quote_identifier(set->key->name),
					rk_relation_name(set->root), format_type_be(set->key->type), format_type_be(type)),
			 errhint("Say the value as text, or as the key's type.")));
}

static int64
position_of_text(const RkPartitionSet *set, text *value)
{
	Oid			input;
	Oid			parameter;

	getTypeInputInfo(set->key->type, &input, &parameter);
	return rk_key_position(set->key, OidInputFunctionCall(input, text_to_cstring(value), parameter, -1));
}

/* A moment: what the clock shows then, where the key is wall time. */
static int64
position_of_moment(const RkPartitionSet *set, TimestampTz at)
{
	if (!rk_key_is_time(set->key))
		refuse_value(set, TIMESTAMPTZOID);
	return rk_key_is_instant(set->key) || TIMESTAMP_NOT_FINITE(at) ? at : rk_wall_of(at, set->grid.zone);
}

/* The second argument of partition_ensure(), by its type. */
static int64
position_argument(FunctionCallInfo fcinfo, const RkPartitionSet *set)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 1);

	switch (type)
	{
		case TEXTOID:
			return position_of_text(set, PG_GETARG_TEXT_PP(1));
		case INT8OID:
			if (set->key->type != INT2OID && set->key->type != INT4OID && set->key->type != INT8OID &&
				set->key->type != NUMERICOID)
				refuse_value(set, type);
			return position_of_text(set, cstring_to_text(psprintf(INT64_FORMAT, PG_GETARG_INT64(1))));
		case TIMESTAMPTZOID:
			return position_of_moment(set, PG_GETARG_TIMESTAMPTZ(1));
		case TIMESTAMPOID:
			if (set->key->type == TIMESTAMPOID || set->key->type == DATEOID)
				return PG_GETARG_TIMESTAMP(1);
			return position_of_moment(set, TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMP(1)) ? PG_GETARG_TIMESTAMP(1)
									  : rk_instant_of(PG_GETARG_TIMESTAMP(1), session_timezone));
		case UUIDOID:
			if (set->key->type == UUIDOID)
				return rk_key_position(set->key, PG_GETARG_DATUM(1));
			break;
		default:
			break;
	}
	refuse_value(set, type);
}

/* ---- our own locks ---- */

static void
check_lock(Oid relid, LOCKMODE weakest)
{
	Relation	rel = RelationIdGetRelation(relid);
	bool		held = RelationIsValid(rel) && CheckRelationLockedByMe(rel, weakest, true);

	if (RelationIsValid(rel))
		RelationClose(rel);
	if (held)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the partition cannot be made: this transaction holds a lock on %s", rk_relation_name(relid)),
				 errhint("Call partition_ensure() at the transaction's beginning.")));
}

static void
check_own_locks(const RkPartitionSet *set)
{
	ListCell   *lc;

	check_lock(set->root, ShareUpdateExclusiveLock);
	if (OidIsValid(set->default_partition))
		check_lock(set->default_partition, AccessShareLock);
	foreach(lc, rk_partition_partners(set->root))
		check_lock(lfirst_oid(lc), RowExclusiveLock);
}

/* ---- the process ---- */

/* In shared memory; written by the process, read once it has gone. */
typedef struct Request
{
	Oid			root;
	int64		position;
	RkAnswer	answer;
} Request;

typedef struct Trial
{
	const Request *request;
	bool		insist;
	ErrorData  *failure;
} Trial;

static void
make_partition(void *arg)
{
	Trial	   *trial = arg;
	RkPartitionOptions *options = rk_partition_options_of(trial->request->root);
	RkPartitionSet *set;
	RkWanted   *wanted;
	ErrorData  *error;

	trial->failure = NULL;
	if (options == NULL)
		return;
	set = rk_partition_set_load(trial->request->root, options);
	wanted = rk_partition_wanted_for(set, trial->request->position);
	if (wanted == NULL)
		return;
	error = rk_partition_create(set, wanted, rk_partition_attach_locks(set), trial->insist, &trial->failure);
	if (error != NULL)
		ReThrowError(error);
}

/* One attempt in a transaction of its own; true: that was it. */
static bool
attempt_partition(Request *request, bool insist, bool last)
{
	Trial		trial = {.request = request,.insist = insist};
	ErrorData  *error;
	bool		over;

	rk_process_begin();
	PushActiveSnapshot(GetTransactionSnapshot());
	error = rk_attempt(make_partition, &trial);
	PopActiveSnapshot();
	over = error != NULL || trial.failure == NULL || last;
	if (over)
		rk_process_answer(&request->answer, error != NULL ? error : trial.failure);
	CommitTransactionCommand();
	return over;
}

static Request *
attach_request(const RkProcess *process)
{
	Request    *request;

	rk_process_begin();
	request = rk_process_attach(process);
	rk_settings_pin();
	CommitTransactionCommand();
	return request;
}

/* The process: makes one partition, in as many attempts as time allows. */
void
rowkeeper_partition_main(Datum arg)
{
	Request    *request = attach_request(rk_process_become());
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PATIENCE_MS);
	bool		insist = false;

	while (!attempt_partition(request, insist, GetCurrentTimestamp() >= end))
	{
		insist = true;
		pg_usleep(PAUSE_MS * 1000L);
		CHECK_FOR_INTERRUPTS();
	}
}

/* ---- and who sends for it ---- */

static void
raise_answer(const RkAnswer *answer)
{
	if (!answer->ended)
		ereport(ERROR,
				(errcode(ERRCODE_OPERATOR_INTERVENTION),
				 errmsg("the worker that makes the partition has ended before it"),
				 errhint("The server's log says why.")));
	if (answer->sqlerrcode != 0)
		ereport(ERROR,
				(errcode(answer->sqlerrcode),
				 errmsg("could not make the partition: %s", answer->message),
				 answer->hint[0] != '\0' ? errhint("%s", answer->hint) : 0));
}

static void
send_for_partition(const RkPartitionSet *set, int64 position)
{
	RkProcess	process = rk_process_of(set->owner);
	dsm_segment *segment = dsm_create(sizeof(Request), 0);
	Request    *request = dsm_segment_address(segment);
	BackgroundWorkerHandle *handle;

	memset(request, 0, sizeof(Request));
	request->root = set->root;
	request->position = position;
	process.segment = dsm_segment_handle(segment);
	if (!rk_process_start(&process, "rowkeeper_partition_main", "partition", &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no worker could be started to make the partition"),
				 errhint("Raise max_worker_processes, or CALL rowkeeper.maintain() before.")));

	rk_process_wait(handle);
	raise_answer(&request->answer);
	dsm_detach(segment);
}

/* ---- the call ---- */

static void
check_may_write(Oid relid)
{
	if (!rk_is_relation_owner(relid, GetUserId()) &&
		pg_class_aclcheck(relid, GetUserId(), ACL_INSERT | ACL_UPDATE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(relid));
}

static RkPartitionSet *
load_set(Oid relid)
{
	RkPartitionOptions *options = rk_partition_options_of(relid);

	if (options == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("partitions of %s are not maintained", rk_relation_name(relid)),
				 errhint("SELECT rowkeeper.partition(%s) begins.",
						 quote_literal_cstr(rk_relation_name(relid)))));
	return rk_partition_set_load(relid, options);
}

/*
 * rowkeeper.partition_ensure(target regclass, value text | bigint |
 * timestamptz | timestamp | uuid) returns text: the partition that takes the
 * value, made and committed by a worker where there is none. Needs INSERT or
 * UPDATE on the table. Locks of the worker: as maintenance, within the lock
 * budget, for some seconds at most. Errors: 55000 the table is not maintained,
 * 22003 the value is past retention or too far ahead, 55P03 a lock that the
 * caller holds or others do, 53400 no worker, and what making it raised.
 */
Datum
rowkeeper_partition_ensure(PG_FUNCTION_ARGS)
{
	Oid			target = rk_target_argument(fcinfo);
	RkPartitionSet *set;
	int64		position;
	int			number;

	check_may_write(target);
	set = load_set(target);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("value must not be null")));
	position = position_argument(fcinfo, set);
	if (rk_partition_covering(set, position) < 0)
	{
		if (!rk_partition_is_in_reach(set, position))
			ereport(ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("value is out of the range of partitions that %s has or is going to have next",
							rk_relation_name(target)),
					 errdetail("It is older than what is kept, or further ahead than partitions are made.")));
		check_own_locks(set);
		send_for_partition(set, position);
		AcceptInvalidationMessages();	/* who holds a lock on the table is
										 * not told otherwise */
		rk_partition_set_read(set);
	}
	number = rk_partition_covering(set, position);
	if (number < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s has no partition for the value after all", rk_relation_name(target))));
	PG_RETURN_TEXT_P(cstring_to_text(rk_relation_name(set->parts[number].relid)));
}
