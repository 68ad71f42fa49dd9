/*
 * retention.c
 *
 * Partitions that are no longer kept. One is detached CONCURRENTLY, for which
 * nobody waits; that command commits by itself and so cannot be one with what
 * follows. So an intent is committed before, and every run begins with what
 * intents there are: where the partition is now says what is still to do. It
 * is attached: detach it. Its detach is pending: finalize it. It is detached:
 * drop it, or move it to the archive, tell who listens, and forget the intent,
 * all in one transaction. So a crash at any moment leaves nothing undone. What
 * is kept longer by then, or was detached by its owner, is left as it is.
 *
 * Where a concurrent detach cannot be (a default partition, no worker) it is a
 * plain one, within the lock budget.
 */
#include "partition/partition.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#define DETACH_LOCK_TIMEOUT_MS 300	/* it waits for readers and is in nobody's
									 * way meanwhile, but on the tables of
									 * foreign keys */
#define LOOKS_AGAIN 5

/* ---- intents ---- */

static void
note_intent(const RkPartitionSet *set, const RkPartition *part)
{
	Oid			types[3] = {OIDOID, OIDOID, INT8OID};
	Datum		values[3];

	values[0] = ObjectIdGetDatum(part->relid);
	values[1] = ObjectIdGetDatum(set->root);
	values[2] = Int64GetDatum(part->upper);
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper._partition_intents (partition, relation, upper, checks, since)"
					   " VALUES ($1, $2, $3, ARRAY(SELECT conname FROM pg_constraint WHERE conrelid = $1 AND contype = 'c'),"
					   " clock_timestamp()) ON CONFLICT (partition) DO UPDATE SET detached = false, since = clock_timestamp()",
					   3, types, values, NULL);
}

/* We have detached it; what its owner detaches himself is his. */
void
rk_partition_intent_detached(Oid partition)
{

	(void) rk_run_about(rk_extension_owner(), partition,
						"UPDATE rowkeeper._partition_intents SET detached = true WHERE partition = $1");
}

static void
forget_intents(const char *where, Oid object)
{

	(void) rk_run_about(rk_extension_owner(), object,
						psprintf("DELETE FROM rowkeeper._partition_intents WHERE %s = $1", where));
}

void
rk_partition_intent_forget(Oid partition)
{
	forget_intents("partition", partition);
}

void
rk_partition_intents_forget(Oid root)
{
	forget_intents("relation", root);
}

/* The tables that have partitions on their way out. */
List *
rk_partition_intents(void)
{
	RkIdentity	saved;
	List	   *roots;

	rk_identity_assume(&saved, rk_extension_owner(), false);
	roots = rk_fetch_oids("SELECT DISTINCT relation::oid FROM rowkeeper._partition_intents");
	rk_identity_restore(&saved);
	return roots;
}

/* A partition of the table that is on its way out, or InvalidOid. */
static Oid
first_intent(Oid root)
{
	bool		isnull;
	Datum		partition;

	partition = rk_fetch_about(rk_extension_owner(), root,
							   "SELECT partition::oid FROM rowkeeper._partition_intents"
							   " WHERE relation = $1 ORDER BY since, partition LIMIT 1", &isnull);
	return isnull ? InvalidOid : DatumGetObjectId(partition);
}

/* Whether there is an intent of a partition that is like this. */
static bool
intent_is(Oid partition, const char *condition)
{
	return rk_exists_about(rk_extension_owner(), partition,
						   psprintf("SELECT 1 FROM rowkeeper._partition_intents WHERE partition = $1 AND (%s)", condition));
}

/* ---- what is done ---- */

typedef struct Removal
{
	const RkPartitionSet *set;
	Oid			partition;
	bool		detach;			/* it is attached */
} Removal;

static char *
detach_sql(const RkPartitionSet *set, Oid partition, const char *how)
{
	return psprintf("ALTER TABLE %s DETACH PARTITION %s%s", rk_relation_name(rk_partition_parent_of(set, partition)),
					rk_relation_name(partition), how);
}

static bool
is_action(const RkPartitionSet *set, const char *action)
{
	return strcmp(set->options->on_expiry, action) == 0;
}

/* A concurrent detach leaves a CHECK of the bounds that it had. */
static void
drop_added_checks(const RkPartitionSet *set, Oid partition)
{
	char	   *drops = rk_fetch_text_about(rk_extension_owner(), partition,
											"SELECT string_agg(format('DROP CONSTRAINT %I', k.conname), ', ')"
											" FROM pg_constraint k JOIN rowkeeper._partition_intents i ON i.partition = k.conrelid"
											" WHERE k.conrelid = $1 AND k.contype = 'c' AND k.conname <> ALL (i.checks)");

	if (drops != NULL)
		rk_partition_run(set->owner, psprintf("ALTER TABLE %s %s", rk_relation_name(partition), drops));
}

static const char *
drop_command(Oid partition)
{
	return get_rel_relkind(partition) == RELKIND_FOREIGN_TABLE ? "DROP FOREIGN TABLE" : "DROP TABLE";
}

/* "ALTER TABLE ... SET SCHEMA ...", of a partition and of those below it. */
static List *
archive_sql(const RkPartitionSet *set, Oid partition)
{
	List	   *statements = NIL;
	ListCell   *lc;

	foreach(lc, rk_relation_tree(partition, NoLock))
		statements = lappend(statements, psprintf("ALTER TABLE %s SET SCHEMA %s", rk_relation_name(lfirst_oid(lc)),
												  quote_identifier(set->options->archive_schema)));
	return statements;
}

static void
archive(const RkPartitionSet *set, Oid partition)
{
	ListCell   *lc;

	rk_partition_check_schema("archive_schema", set->options->archive_schema, set->owner);
	foreach(lc, archive_sql(set, partition))
		rk_partition_run(set->owner, lfirst(lc));
}

/* The end of a partition that is detached. */
static void
dispose_of(const RkPartitionSet *set, Oid partition)
{
	char	   *name = rk_relation_name(partition);

	rk_tell_partition_expired(set->root, name, set->options->on_expiry);
	if (is_action(set, "drop"))
		rk_partition_run(set->owner, psprintf("%s %s", drop_command(partition), name));
	else
		drop_added_checks(set, partition);
	if (is_action(set, "archive"))
		archive(set, partition);
	rk_partition_intent_forget(partition);
}

static void
remove_partition(void *arg)
{
	Removal    *removal = arg;

	if (removal->detach)
		rk_partition_run(removal->set->owner, detach_sql(removal->set, removal->partition, ""));
	else if (!intent_is(removal->partition, "true"))
		return;					/* another session has done it meanwhile */
	dispose_of(removal->set, removal->partition);
}

static void
finalize_detach(void *arg)
{
	Removal    *removal = arg;

	rk_partition_run(removal->set->owner, detach_sql(removal->set, removal->partition, " FINALIZE"));
	rk_partition_intent_detached(removal->partition);
}

/* One attempt at something under these locks. */
static RkWork
attempt(RkTurn *turn, RkMaintainRun *run, const RkLockRequest *locks, void (*body) (void *arg),
		Removal *removal, int changed)
{
	ErrorData  *failure;

	if (!rk_partition_try(locks, body, removal, turn->attempts > 0, &failure))
	{
		rk_partition_fail_later(turn, run, failure);
		return RK_WORK_LATER;
	}
	run->changed = changed;
	return RK_WORK_AGAIN;
}

/* Detach, if it is attached, and dispose of, in one transaction. */
static RkWork
remove_now(const RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run, Oid partition, bool detach)
{
	Removal		removal = {.set = set,.partition = partition,.detach = detach};

	return attempt(turn, run,
				   rk_partition_removal_locks(set, partition, detach, is_action(set, "drop")),
				   remove_partition, &removal, 1);
}

static RkWork
finalize(const RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run, Oid partition)
{
	Removal		removal = {.set = set,.partition = partition};
	RkLockRequest locks[] = {
		{rk_partition_parent_of(set, partition), ShareUpdateExclusiveLock},
		{partition, AccessExclusiveLock},
		{InvalidOid, NoLock}
	};

	return attempt(turn, run, locks, finalize_detach, &removal, 0);
}

/* Have it detached concurrently, at top level, as the table's owner. */
static RkWork
send_detach(const RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run, Oid partition)
{
	run->toplevel = MemoryContextStrdup(run->context, detach_sql(set, partition, " CONCURRENTLY"));
	run->toplevel_role = set->owner;
	run->toplevel_lock_timeout = rk_partition_partners(set->root) == NIL
		? DETACH_LOCK_TIMEOUT_MS : Max(1, rk_lock_budget / 2);
	turn->sent = true;
	return RK_WORK_AGAIN;
}

/* ---- partitions that are detached, and still intended ---- */

/* Whether it would expire today: "keep" may be longer by now. */
static bool
is_past(const RkPartitionSet *set, Oid partition)
{
	bool		isnull;
	Datum		upper;

	upper = rk_fetch_about(rk_extension_owner(), partition,
						   "SELECT upper FROM rowkeeper._partition_intents WHERE partition = $1", &isnull);
	return !isnull && rk_partition_is_past(set, DatumGetInt64(upper));
}

/* It stays, as a table of its own, and that is recorded. */
static RkWork
leave_detached(const RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run, Oid partition)
{
	ErrorData	error = {.elevel = ERROR,.sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE};

	error.message = psprintf("%s is detached, and not taken away", rk_relation_name(partition));
	error.detail = pstrdup("It is kept longer by now, or it was not maintenance that detached it.");
	error.hint = psprintf("It is a table of its own. Attach it to %s again if its rows belong there.",
						  rk_relation_name(set->root));
	rk_partition_fail_later(turn, run, &error);
	rk_partition_intent_forget(partition);
	return RK_WORK_AGAIN;
}

static RkWork
end_detached(const RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run, Oid partition)
{
	if (intent_is(partition, "detached") && is_past(set, partition))
		return remove_now(set, turn, run, partition, false);
	return leave_detached(set, turn, run, partition);
}

/* ---- deciding ---- */

/* Whether an intent is so young that who noted it may not have begun yet. */
static bool
is_recent(Oid partition)
{
	return intent_is(partition, "since > clock_timestamp() - interval '1 hour'");
}

/* One wrong row must not make all that was before it old. */
static void
check_not_too_much(const RkPartitionSet *set, List *expired)
{
	if (rk_partition_is_most(set, expired))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%d of %d partitions of %s are past what is kept: more than half of them, or of those that have rows",
						list_length(expired), set->count, rk_relation_name(set->root)),
				 errdetail("None was taken away."),
				 errhint("If that is right: CALL rowkeeper.maintain(%s, force => true).",
						 quote_literal_cstr(rk_relation_name(set->root)))));
}

/* What depends on a partition and would keep it from being dropped, or NULL. */
static char *
dependent_of(Oid partition)
{
	return rk_fetch_text_about(rk_extension_owner(), partition,
							   "SELECT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_depend d"
							   " WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.deptype = 'n'"
							   " AND (d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)"
							   "  OR d.classid = 'pg_policy'::regclass"
							   "   AND NOT EXISTS (SELECT FROM pg_policy y WHERE y.oid = d.objid AND y.polrelid = $1)) LIMIT 1");
}

/*
 * A partition that is detached and then cannot be taken away would be lost to
 * its table, and in the way of the next: so what would fail then fails before.
 */
static void
check_removable(const RkPartitionSet *set, Oid partition)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(partition, NoLock))
	{
		Oid			relid = lfirst_oid(lc);
		char	   *dependent = is_action(set, "drop") ? dependent_of(relid) : NULL;

		if (!rk_is_relation_owner(relid, set->owner))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("%s is past what is kept, and does not belong to the owner of %s",
							rk_relation_name(relid), rk_relation_name(set->root)),
					 errhint("ALTER TABLE %s OWNER TO %s", rk_relation_name(relid),
							 quote_identifier(GetUserNameFromId(set->owner, false)))));
		if (dependent != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("%s is past what is kept, but %s depends on it", rk_relation_name(relid), dependent),
					 errhint("Drop that, or have partitions detached: on_expiry => 'detach'.")));
		if (is_action(set, "archive") &&
			OidIsValid(get_relname_relid(get_rel_name(relid),
										 get_namespace_oid(set->options->archive_schema, true))))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_TABLE),
					 errmsg("%s is past what is kept, but relation \"%s\" exists already in schema \"%s\"",
							rk_relation_name(relid), get_rel_name(relid), set->options->archive_schema),
					 errhint("Rename one of them.")));
	}
	if (is_action(set, "archive"))
		rk_partition_check_schema("archive_schema", set->options->archive_schema, set->owner);
}

/* A detach that is not ours to end is in the way of the next. */
static void
check_none_pending(const RkPartitionSet *set)
{
	for (int i = 0; i < set->count; i++)
		if (set->parts[i].pending)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the detach of %s from %s is pending, and maintenance has not begun it",
							rk_relation_name(set->parts[i].relid), rk_relation_name(set->root)),
					 errhint("ALTER TABLE %s DETACH PARTITION %s FINALIZE", rk_relation_name(set->parts[i].parent),
							 rk_relation_name(set->parts[i].relid))));
}

static RkWork
begin_removal(const RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run, const RkPartition *part)
{
	check_removable(set, part->relid);
	check_none_pending(set);
	if (turn->plain || OidIsValid(set->default_partition))
		return remove_now(set, turn, run, part->relid, true);
	note_intent(set, part);
	turn->intents = true;
	return send_detach(set, turn, run, part->relid);
}

/* What has expired at the first look is what this run takes away. */
static void
count_expired(const RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run, List *expired)
{
	MemoryContext old;
	ListCell   *lc;

	if (!run->force)
		check_not_too_much(set, expired);
	old = MemoryContextSwitchTo(run->context);
	foreach(lc, expired)
		turn->expired = lappend_oid(turn->expired, ((RkPartition *) lfirst(lc))->relid);
	/* what a split has put above them goes with the last of them */
	foreach(lc, set->histories)
	{
		const RkPartition *history = lfirst(lc);

		if (rk_partition_is_past(set, history->upper))
			turn->expired = lappend_oid(turn->expired, history->relid);
	}
	MemoryContextSwitchTo(old);
	turn->counted = true;
}

static RkWork
next_expired(const RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run)
{
	List	   *expired = rk_partitions_expired(set);
	ListCell   *lc;

	if (expired == NIL)
		return RK_WORK_IDLE;
	if (!turn->counted)
		count_expired(set, turn, run, expired);
	foreach(lc, expired)
	{
		const RkPartition *part = lfirst(lc);

		if (list_member_oid(turn->expired, part->relid))
			return begin_removal(set, turn, run, part);
	}
	return RK_WORK_IDLE;
}

/*
 * Whether another session, of the table's owner, may have done it or be at it:
 * a second look tells, unless it stays like that.
 */
static bool
is_overtaken(const RkTurn *turn, const ErrorData *error)
{
	return turn->attempts < LOOKS_AGAIN &&
		(error->sqlerrcode == ERRCODE_UNDEFINED_TABLE ||
		 error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
}

/*
 * How the command ended that was asked for. Where it failed for a lock, the
 * catalog says how far it came; another failure is raised.
 */
static bool
take_outcome(RkTurn *turn, RkMaintainRun *run)
{
	bool		sent = turn->sent;

	turn->sent = false;
	if (!sent || run->outcome == RK_OUTCOME_DONE)
		return true;
	if (run->outcome == RK_OUTCOME_NO_WORKER)
	{
		turn->plain = true;
		return true;
	}
	if (run->outcome != RK_OUTCOME_FAILED)
		return true;
	if (!rk_partition_is_for_lock(run->toplevel_error) &&
		!is_overtaken(turn, run->toplevel_error))
		ReThrowError(run->toplevel_error);
	rk_partition_fail_later(turn, run, run->toplevel_error);
	return false;
}

/*
 * A piece of a table's retention: what intents there are, then the next
 * partition that is no longer kept. Locks: of a concurrent detach SHARE UPDATE
 * EXCLUSIVE on the table, of its end ACCESS EXCLUSIVE on the partition and, to
 * drop it, on tables that it references.
 */
RkWork
rk_partition_expire(RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run)
{
	Oid			partition;

	if (!take_outcome(turn, run))
		return RK_WORK_LATER;

	/* what ids expire is told by the last row that there is */
	set->look_at_rows = !rk_key_is_time(set->key) && (turn->intents || rk_partitions_expired(set) != NIL);
	while (turn->intents && OidIsValid(partition = first_intent(set->root)))
	{
		const RkPartition *part = rk_partition_find(set, partition);

		if (get_rel_name(partition) == NULL ||
			(part == NULL && get_rel_relispartition(partition)))
			rk_partition_intent_forget(partition);	/* it is gone, or
													 * another's */
		else if (part == NULL)
			return end_detached(set, turn, run, partition);
		else if (part->pending)
			return finalize(set, turn, run, partition);
		else if (rk_partition_is_past(set, part->upper))
			return begin_removal(set, turn, run, part);
		else if (!is_recent(partition))
			rk_partition_intent_forget(partition);	/* kept longer by now */
		else
			turn->intents = false;	/* of another session, perhaps, which is
									 * about to detach it */
	}
	return next_expired(set, turn, run);
}

/* What is going to be done to a partition, as partition_plan() shows it. */
List *
rk_partition_expire_sql(const RkPartitionSet *set, Oid partition)
{
	char	   *name = rk_relation_name(partition);
	List	   *plan = list_make1(detach_sql(set, partition,
											 OidIsValid(set->default_partition) ? "" : " CONCURRENTLY"));

	if (is_action(set, "drop"))
		plan = lappend(plan, psprintf("%s %s", drop_command(partition), name));
	else if (is_action(set, "archive"))
		plan = list_concat(plan, archive_sql(set, partition));
	return plan;
}
