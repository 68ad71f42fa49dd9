/*
 * row.c
 *
 * The trigger: reads what the row has, decides what it gets, writes it, once
 * for all stamps. What the statement assigned is known from tg_updatedcols;
 * a value that merely differs may come from another trigger.
 *
 * In MERGE and in INSERT ... ON CONFLICT DO UPDATE the server has one such
 * set for the whole statement: a column is assigned if any of its UPDATE
 * actions assigns it.
 */
#include "stamp/stamp.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(rowkeeper_stamp_row);

/* An UPDATE of a row on its way through. */
typedef struct Update
{
	RkStampPlan *plan;
	Relation	rel;
	HeapTuple	before;
	const Bitmapset *assigned;	/* by the statement */
	bool		stamps_assigned;	/* some of them */
	RkStampRow	row;			/* after, as the statement would have it */
	RkStampValues old;			/* the stamps before */
	RkStampValues wanted;		/* and after */
} Update;

static bool
is_assigned(const Update *update, RkStampOption stamp)
{
	return update->stamps_assigned &&
		bms_is_member(update->plan->column[stamp].number - FirstLowInvalidHeapAttributeNumber,
					  update->assigned);
}

static bool
is_different(const Update *update, RkStampOption stamp)
{
	return !rk_stamp_same_value(&update->plan->column[stamp].layout,
								update->old.value[stamp], update->old.isnull[stamp],
								update->row.now.value[stamp], update->row.now.isnull[stamp]);
}

static void
read_old_stamps(Update *update)
{
	RkStampPlan *plan = update->plan;

	for (int i = 0; i < plan->count; i++)
	{
		RkStampOption stamp = plan->order[i];

		if (plan->other_triggers || is_assigned(update, stamp))
			update->old.value[stamp] = heap_getattr(update->before, plan->column[stamp].number,
													RelationGetDescr(update->rel),
													&update->old.isnull[stamp]);
		else
		{
			/* carried over by the executor, and already found */
			update->old.value[stamp] = update->row.now.value[stamp];
			update->old.isnull[stamp] = update->row.now.isnull[stamp];
		}
	}
}

/* ---- version ---- */

static char *
describe_version(const RkStampColumn *column, Datum value, bool isnull)
{
	return isnull ? "null" : psprintf(INT64_FORMAT, rk_stamp_version_value(column, value));
}

/*
 * The row is not as the client read it. What ON CONFLICT DO UPDATE SET
 * version = excluded.version sends is the column's default, 1.
 */
RK_NORETURN static void
raise_stale(const Update *update)
{
	const RkStampPlan *plan = update->plan;
	const RkStampColumn *column = &plan->column[RK_VERSION];
	const RkStampRow *row = &update->row;
	bool		is_first = !row->now.isnull[RK_VERSION] &&
		rk_stamp_version_value(column, row->now.value[RK_VERSION]) <= 1;

	ereport(ERROR,
			(errcode(plan->sqlstate),
			 errmsg("row of %s is not as the client read it",
					rk_relation_name(plan->root)),
			 errdetail("Its %s is %s; the statement sets %s, where %s is expected.",
					   column->name,
					   describe_version(column, update->old.value[RK_VERSION],
										update->old.isnull[RK_VERSION]),
					   describe_version(column, row->now.value[RK_VERSION],
										row->now.isnull[RK_VERSION]),
					   plan->client_sends_next ? "the next one" : "the same"),
			 is_first ? errhint("Read the row again. In ON CONFLICT DO UPDATE leave column \"%s\" out of SET.",
								column->name)
			 : errhint("Read the row again.")));
}

RK_NORETURN static void
refuse_client_value(const RkStampPlan *plan, RkStampOption stamp)
{
	ereport(ERROR,
			(errcode(ERRCODE_GENERATED_ALWAYS),
			 errmsg("column \"%s\" of %s cannot be assigned: it is stamped",
					plan->column[stamp].name, rk_relation_name(plan->root)),
			 errhint("Leave it out of the statement.")));
}

/* Whether the statement's version is this one. */
static bool
sends_version(const Update *update, int64 version)
{
	return !update->row.now.isnull[RK_VERSION] &&
		rk_stamp_version_value(&update->plan->column[RK_VERSION],
							   update->row.now.value[RK_VERSION]) == version;
}

static int64
old_version(const Update *update)
{
	return update->old.isnull[RK_VERSION] ? 0
		: rk_stamp_version_value(&update->plan->column[RK_VERSION], update->old.value[RK_VERSION]);
}

/* Neither what was read nor the next one: somebody wants to set a version. */
static bool
sends_other_version(const Update *update)
{
	return is_assigned(update, RK_VERSION) && is_different(update, RK_VERSION) &&
		!sends_version(update, old_version(update) + 1);
}

/*
 * Whether the statement may go on by the version that it assigns; false where
 * the row is to be passed over. A row that had no version agrees with any.
 */
static bool
agree_on_version(Update *update)
{
	RkStampPlan *plan = update->plan;

	if (!is_assigned(update, RK_VERSION))
		return true;
	if (plan->stale != RK_STALE_OFF)
	{
		if (update->old.isnull[RK_VERSION] ||
			sends_version(update, old_version(update) + (plan->client_sends_next ? 1 : 0)))
			return true;
		if (plan->stale == RK_STALE_ERROR)
			raise_stale(update);
		return false;
	}
	if (plan->client_value == RK_CLIENT_ERROR && sends_other_version(update))
		refuse_client_value(plan, RK_VERSION);
	return true;
}

static void
bump_version(Update *update)
{
	RkStampPlan *plan = update->plan;
	int64		old = old_version(update);

	if (plan->stale == RK_STALE_OFF && plan->client_value == RK_CLIENT_RESPECT &&
		sends_other_version(update) && !update->row.now.isnull[RK_VERSION])
	{
		update->wanted.value[RK_VERSION] = update->row.now.value[RK_VERSION];
		return;
	}
	if (old == PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("the version of a row of %s is the last there is",
						rk_relation_name(plan->root))));
	update->wanted.value[RK_VERSION] = rk_stamp_version_datum(plan, &plan->column[RK_VERSION], old + 1);
}

/* ---- UPDATE ---- */

/*
 * Whether the statement itself asks for other stamps, so that it is no update
 * without a change: a client that sends the next version takes that for the
 * row's from now on.
 */
static bool
asks_for_stamps(const Update *update)
{
	const RkStampPlan *plan = update->plan;

	for (int i = 0; i < plan->count; i++)
	{
		RkStampOption stamp = plan->order[i];

		if (!is_assigned(update, stamp) || !is_different(update, stamp))
			continue;
		if (plan->client_value == RK_CLIENT_RESPECT)
			return true;
		if (stamp == RK_VERSION && sends_version(update, old_version(update) + 1))
			return true;
	}
	return false;
}

/* Set what one stamp gets, as if the client had no say. */
static void
set_own_value(Update *update, RkStampOption stamp, TimestampTz now)
{
	RkStampPlan *plan = update->plan;
	RkStampValues *wanted = &update->wanted;

	wanted->isnull[stamp] = false;
	switch (stamp)
	{
		case RK_UPDATED_AT:
			wanted->value[stamp] = rk_stamp_time(plan, &plan->column[stamp], now,
												 update->old.value[stamp], update->old.isnull[stamp]);
			break;
		case RK_VERSION:
			bump_version(update);
			break;
		case RK_UPDATED_BY:
			wanted->value[stamp] = rk_stamp_actor(plan, &plan->column[stamp], &wanted->isnull[stamp]);
			break;
		default:				/* how the row was created does not change */
			wanted->value[stamp] = update->old.value[stamp];
			wanted->isnull[stamp] = update->old.isnull[stamp];
	}
}

static void
keep_old_value(Update *update, RkStampOption stamp)
{
	update->wanted.value[stamp] = update->old.value[stamp];
	update->wanted.isnull[stamp] = update->old.isnull[stamp];
}

/* What the client sends counts only as far as client_value says. */
static void
hear_client(Update *update, RkStampOption stamp)
{
	RkStampPlan *plan = update->plan;
	const RkStampValues *now = &update->row.now;

	if (plan->client_value == RK_CLIENT_OVERRIDE || stamp == RK_VERSION ||
		!is_assigned(update, stamp))
		return;
	if (plan->client_value == RK_CLIENT_RESPECT)
	{
		update->wanted.value[stamp] = now->value[stamp];
		update->wanted.isnull[stamp] = now->isnull[stamp];
	}
	else if (is_different(update, stamp) &&
			 !rk_stamp_same_value(&plan->column[stamp].layout,
								  now->value[stamp], now->isnull[stamp],
								  update->wanted.value[stamp], update->wanted.isnull[stamp]))
		refuse_client_value(plan, stamp);
}

static void
decide_update(Update *update, bool changed)
{
	RkStampPlan *plan = update->plan;
	TimestampTz now = rk_stamp_base_time(plan);

	for (int i = 0; i < plan->count; i++)
	{
		RkStampOption stamp = plan->order[i];

		if (changed)
			set_own_value(update, stamp, now);
		else
			keep_old_value(update, stamp);
		hear_client(update, stamp);
	}
}

/* A row that this UPDATE may move to another partition. */
static bool
may_move(const Update *update)
{
	const RkStampPlan *plan = update->plan;

	return plan->is_partition &&
		(plan->other_triggers || bms_overlap(plan->partition_columns, update->assigned));
}

static HeapTuple
stamp_update(RkStampPlan *plan, const TriggerData *trigger, int depth)
{
	Update		update;
	bool		changed;
	HeapTuple	result;

	update.plan = plan;			/* the rest is set by who comes first */
	update.rel = trigger->tg_relation;
	update.before = trigger->tg_trigtuple;
	update.assigned = trigger->tg_updatedcols;
	update.stamps_assigned = bms_overlap(plan->stamp_columns, update.assigned);
	rk_stamp_row_read(plan, update.rel, trigger->tg_newtuple, trigger->tg_newslot, &update.row);
	read_old_stamps(&update);
	if (plan->column[RK_VERSION].number != 0 && !agree_on_version(&update))
		return NULL;

	changed = plan->on_noop == RK_NOOP_BUMP ||
		rk_stamp_row_changed(plan, update.rel, update.before, update.row.tuple, update.assigned) ||
		asks_for_stamps(&update);
	if (!changed && plan->on_noop == RK_NOOP_SUPPRESS)
		return NULL;
	decide_update(&update, changed);
	result = rk_stamp_row_write(plan, update.rel, &update.row, &update.wanted);
	if (may_move(&update))
		rk_stamp_move_expect(plan, depth, &update.before->t_self, result);
	return result;
}

/* ---- INSERT ---- */

/*
 * Whether the client sent a value, which the column's default would not have
 * given. Of a default that gives another value each time it cannot be told.
 */
static bool
is_sent(const RkStampPlan *plan, RkStampOption stamp, const RkStampRow *row)
{
	const RkStampColumn *column = &plan->column[stamp];
	ExprContext *context;
	Datum		value;
	bool		isnull;
	bool		sent;

	if (row->now.isnull[stamp])
		return false;
	if (column->default_value == NULL)
		return plan->client_value == RK_CLIENT_RESPECT || !column->has_default;
	context = CreateStandaloneExprContext();
	value = ExecEvalExprSwitchContext(column->default_value, context, &isnull);
	sent = !rk_stamp_same_value(&column->layout, value, isnull,
								row->now.value[stamp], row->now.isnull[stamp]);
	FreeExprContext(context, true);
	return sent;
}

/*
 * What an INSERT gives a stamp already and keeps: under client_value =
 * respect what the client sends, and whatever a row has that soft delete
 * brings back.
 */
static bool
keeps_value(const RkStampPlan *plan, RkStampOption stamp, const RkStampRow *row,
			const RkStampValues *wanted)
{
	if (rk_is_restoring())
		return !row->now.isnull[stamp];
	if (plan->client_value == RK_CLIENT_OVERRIDE || !is_sent(plan, stamp, row) ||
		rk_stamp_same_value(&plan->column[stamp].layout,
							wanted->value[stamp], wanted->isnull[stamp],
							row->now.value[stamp], row->now.isnull[stamp]))
		return false;
	if (plan->client_value == RK_CLIENT_ERROR)
		refuse_client_value(plan, stamp);
	return true;
}

/* A row begins at version 1, or at the one that its client sends. */
static void
set_first_version(RkStampPlan *plan, const RkStampRow *row, RkStampValues *wanted)
{
	wanted->isnull[RK_VERSION] = false;
	wanted->value[RK_VERSION] = row->now.isnull[RK_VERSION]
		? rk_stamp_version_datum(plan, &plan->column[RK_VERSION], 1) : row->now.value[RK_VERSION];
}

static void
decide_insert(RkStampPlan *plan, const RkStampRow *row, RkStampValues *wanted)
{
	TimestampTz now = rk_stamp_base_time(plan);

	for (int i = 0; i < plan->count; i++)
	{
		RkStampOption stamp = plan->order[i];
		RkStampColumn *column = &plan->column[stamp];

		if (stamp == RK_VERSION)
		{
			set_first_version(plan, row, wanted);
			continue;
		}
		wanted->isnull[stamp] = false;
		wanted->value[stamp] = rk_stamp_is_actor(stamp)
			? rk_stamp_actor(plan, column, &wanted->isnull[stamp])
			: rk_stamp_time(plan, column, now, (Datum) 0, true);
		if (keeps_value(plan, stamp, row, wanted))
		{
			wanted->value[stamp] = row->now.value[stamp];
			wanted->isnull[stamp] = row->now.isnull[stamp];
		}
	}
}

static HeapTuple
stamp_insert(RkStampPlan *plan, const TriggerData *trigger, int depth)
{
	RkStampRow	row;
	RkStampValues wanted;

	rk_stamp_row_read(plan, trigger->tg_relation, trigger->tg_trigtuple, trigger->tg_trigslot, &row);
	if (!plan->is_partition || !rk_stamp_move_completes(plan, depth, &wanted))
		decide_insert(plan, &row, &wanted);
	return rk_stamp_row_write(plan, trigger->tg_relation, &row, &wanted);
}

/*
 * rowkeeper._stamp(options) is the BEFORE ROW trigger "~rowkeeper_stamp" of
 * INSERT and UPDATE, its argument what stamp() was told. Locks: none beyond
 * those of the statement (ACCESS SHARE on the parent of a partition, once).
 * Errors: 40001, or the code asked for, an outdated version; 428C9 a value
 * for a stamp under client_value = error; 22003 a version or 22P02 an actor
 * that its column cannot hold.
 */
Datum
rowkeeper_stamp_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	RkStampPlan *plan;
	HeapTuple	result;
	int			depth;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired BEFORE ROW of INSERT or UPDATE", "_stamp")));

	plan = rk_stamp_plan_get(fcinfo->flinfo, trigger->tg_relation, trigger->tg_trigger);
	depth = plan->is_partition ? DatumGetInt32(pg_trigger_depth(fcinfo)) : 0;
	result = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)
		? stamp_update(plan, trigger, depth) : stamp_insert(plan, trigger, depth);
	rk_stamp_plan_release(fcinfo->flinfo);
	PG_RETURN_POINTER(result);
}
