/*
 * plan.c
 *
 * What the trigger does to the rows of one relation, worked out once and
 * cached by the relation's OID. An entry starts invalid and becomes valid
 * only once it is filled, so an error midway is harmless; the relcache
 * callback makes it invalid again. All that a plan is made from (columns,
 * triggers and their arguments, partition bounds) invalidates the relation
 * when it changes.
 */
#include "stamp/stamp.h"

#include "access/sysattr.h"
#include "access/tupmacs.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"

typedef struct PlanEntry
{
	Oid			relid;			/* hash key */
	bool		valid;
	bool		invalidated;	/* while it was filled */
	int			pins;			/* in use further up the stack */
	RkStampPlan *plan;
} PlanEntry;

static HTAB *plans = NULL;

/* ---- what options say ---- */

static int
word_number(const char *value, const char *second, const char *third)
{
	return strcmp(value, second) == 0 ? 1 : strcmp(value, third) == 0 ? 2 : 0;
}

static void
fill_behaviour(RkStampPlan *plan, const RkStampOptions *options)
{
	const char *state = options->value[RK_SQLSTATE];

	plan->on_noop = word_number(options->value[RK_ON_NOOP], "suppress", "bump");
	plan->client_value = word_number(options->value[RK_CLIENT_VALUE], "respect", "error");
	plan->clock = word_number(options->value[RK_CLOCK], "wall", "monotonic");
	plan->stale = word_number(options->value[RK_STALE], "error", "skip");
	plan->client_sends_next = strcmp(options->value[RK_CLIENT_VERSION], "next") == 0;
	plan->sqlstate = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
}

/* ---- columns ---- */

static RkLayout
layout_of(Form_pg_attribute column)
{
	return (RkLayout)
	{
		.len = column->attlen,.align = column->attalign,.byval = column->attbyval,
		/* a BEFORE trigger sees generated columns before they are computed */
			.ignored = column->attisdropped || column->attgenerated != '\0',
			.offset = -1
	};
}

/* The column's default as something to evaluate. */
static void
fill_default(RkStampColumn *column, Relation rel)
{
	Expr	   *expression = (Expr *) build_column_default(rel, column->number);

	column->has_default = expression != NULL;
	if (column->has_default && !contain_volatile_functions((Node *) expression))
		column->default_value = ExecInitExpr(expression_planner(expression), NULL);
}

static void
fill_column(RkStampPlan *plan, RkStampOption stamp, Relation rel, AttrNumber number)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), number - 1);
	RkStampColumn *column = &plan->column[stamp];
	Oid			input;

	column->number = number;
	column->name = pstrdup(NameStr(attribute->attname));
	column->typmod = attribute->atttypmod;
	column->type = getBaseTypeAndTypmod(attribute->atttypid, &column->typmod);
	column->domain = column->type == attribute->atttypid ? InvalidOid : attribute->atttypid;
	column->layout = layout_of(attribute);
	column->may_be_short = attribute->attlen == -1 && attribute->attstorage != TYPSTORAGE_PLAIN;
	if (rk_stamp_is_actor(stamp))
	{
		getTypeInputInfo(attribute->atttypid, &input, &column->input_param);
		fmgr_info_cxt(input, &column->input, plan->context);
		column->typmod = attribute->atttypmod;
	}
	if (stamp != RK_VERSION && plan->client_value != RK_CLIENT_OVERRIDE)
		fill_default(column, rel);
	plan->layout[number - 1].ignored = true;
}

/* Keep the stamps that the table has in the order of their columns. */
static void
add_in_order(RkStampPlan *plan, RkStampOption stamp)
{
	int			at = plan->count++;

	while (at > 0 && plan->column[plan->order[at - 1]].number > plan->column[stamp].number)
	{
		plan->order[at] = plan->order[at - 1];
		at--;
	}
	plan->order[at] = stamp;
}

static void
fill_columns(RkStampPlan *plan, Relation rel, const RkStampOptions *options)
{
	TupleDesc	desc = RelationGetDescr(rel);

	plan->natts = desc->natts;
	plan->layout = palloc(desc->natts * sizeof(RkLayout));
	for (int i = 0; i < desc->natts; i++)
		plan->layout[i] = layout_of(TupleDescAttr(desc, i));

	for (int stamp = 0; stamp < RK_STAMP_COUNT; stamp++)
	{
		AttrNumber	number;

		if (options->value[stamp] == NULL)
			continue;
		number = rk_stamp_find_column(rel, options->value[stamp]);
		if (number == 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of %s is to be stamped but does not exist",
							options->value[stamp], rk_relation_name(plan->relid)),
					 errdetail("It was renamed or dropped while rowkeeper's event triggers were disabled."),
					 errhint("SELECT rowkeeper.stamp(%s, %s => ...) with its name, or '-' to do without.",
							 quote_literal_cstr(rk_relation_name(plan->root)),
							 rk_stamp_option_names[stamp])));
		fill_column(plan, stamp, rel, number);
		plan->stamp_columns = bms_add_member(plan->stamp_columns,
											 number - FirstLowInvalidHeapAttributeNumber);
		add_in_order(plan, stamp);
	}
}

/* Leading columns of a fixed length are at one place in rows without nulls. */
static void
fill_offsets(RkStampPlan *plan)
{
	int			offset = 0;

	for (int i = 0; i < plan->natts && plan->layout[i].len > 0; i++)
	{
		offset = att_align_nominal(offset, plan->layout[i].align);
		plan->layout[i].offset = offset;
		offset += plan->layout[i].len;
	}
}

/*
 * Stamps stand at the end of most tables. Where all from the first one on
 * have a fixed length, and none asks for more alignment than that first one,
 * their places are known from the end of the row, whatever stands before.
 */
static void
fill_tail(RkStampPlan *plan)
{
	int			first = plan->column[plan->order[0]].number - 1;
	int			boundary = att_align_nominal(1, plan->layout[first].align);
	int			offset = 0;
	int			found = 0;

	for (int i = first; i < plan->natts; i++)
	{
		if (plan->layout[i].len <= 0 ||
			att_align_nominal(1, plan->layout[i].align) > boundary)
			return;
		offset = att_align_nominal(offset, plan->layout[i].align);
		if (found < plan->count && plan->column[plan->order[found]].number == i + 1)
			plan->tail_offset[plan->order[found++]] = offset;
		offset += plan->layout[i].len;
	}
	plan->tail_length = offset;
}

/* ---- the relation ---- */

/* Whether a trigger besides ours may change a row before it is updated. */
static bool
has_other_triggers(Relation rel)
{
	for (int i = 0; i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW,
								 TRIGGER_TYPE_BEFORE, TRIGGER_TYPE_UPDATE) &&
			strcmp(trigger->tgname, RK_STAMP_TRIGGER) != 0)
			return true;
	}
	return false;
}

/* The columns whose change can move a row to another partition. */
static Bitmapset *
partition_columns(Relation rel)
{
	MemoryContext plan_context = CurrentMemoryContext;
	MemoryContext work = AllocSetContextCreate(plan_context, "partition bound",
											   ALLOCSET_SMALL_SIZES);
	Bitmapset  *columns = NULL;

	MemoryContextSwitchTo(work);
	pull_varattnos((Node *) RelationGetPartitionQual(rel), 1, &columns);
	MemoryContextSwitchTo(plan_context);
	columns = bms_copy(columns);
	MemoryContextDelete(work);
	return columns;
}

static RkStampPlan *
make_plan(MemoryContext context, Relation rel, const Trigger *trigger)
{
	RkStampPlan *plan = palloc0(sizeof(RkStampPlan));
	RkStampOptions *options;

	if (trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must have its options as its only argument",
						trigger->tgname)));
	options = rk_stamp_options_parse(trigger->tgargs[0]);
	plan->context = context;
	plan->relid = RelationGetRelid(rel);
	plan->is_partition = rel->rd_rel->relispartition;
	plan->root = rk_root_of(plan->relid);
	plan->other_triggers = has_other_triggers(rel);
	if (plan->is_partition)
		plan->partition_columns = partition_columns(rel);
	fill_behaviour(plan, options);
	fill_columns(plan, rel, options);
	fill_offsets(plan);
	fill_tail(plan);
	return plan;
}

/* ---- the cache ---- */

static void
forget_plan(PlanEntry *entry)
{
	if (entry->plan == NULL)
		return;
	/* further up the stack the old one may still be read */
	if (entry->pins > 0)
		MemoryContextSetParent(entry->plan->context, TopTransactionContext);
	else
		MemoryContextDelete(entry->plan->context);
	entry->plan = NULL;
	entry->pins = 0;
}

static void
fill_entry(PlanEntry *entry, Relation rel, const Trigger *trigger)
{
	MemoryContext context;
	MemoryContext old;

	forget_plan(entry);
	entry->invalidated = false;

	/* becomes the cache's when it is filled; until then an error frees it */
	context = AllocSetContextCreate(CurrentMemoryContext, "rowkeeper stamp plan",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	entry->plan = make_plan(context, rel, trigger);
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(context, CacheMemoryContext);
	entry->valid = !entry->invalidated;
}

/*
 * The plan for the relation whose trigger was called. flinfo remembers its
 * place, so a statement looks it up once. It stays readable until it is
 * released.
 */
RkStampPlan *
rk_stamp_plan_get(FmgrInfo *flinfo, Relation rel, const Trigger *trigger)
{
	PlanEntry  *entry = flinfo->fn_extra;
	Oid			relid = RelationGetRelid(rel);

	if (entry == NULL || entry->relid != relid)
	{
		bool		found;

		entry = hash_search(plans, &relid, HASH_ENTER, &found);
		if (!found)
		{
			entry->valid = false;
			entry->pins = 0;
			entry->plan = NULL;
		}
		flinfo->fn_extra = entry;	/* entries are never removed */
	}
	if (unlikely(!entry->valid))
		fill_entry(entry, rel, trigger);
	entry->pins++;
	return entry->plan;
}

/* An error leaves the pin: the cost is memory until the transaction ends. */
void
rk_stamp_plan_release(FmgrInfo *flinfo)
{
	PlanEntry  *entry = flinfo->fn_extra;

	if (entry->pins > 0)
		entry->pins--;
}

static void
invalidate(void *plan)
{
	PlanEntry  *entry = plan;

	entry->valid = false;
	entry->invalidated = true;
}

static void
invalidate_plan(Datum arg, Oid relid)
{
	rk_cache_visit(plans, relid, invalidate);
}

void
rk_stamp_plan_init(void)
{
	plans = rk_cache_create("rowkeeper stamp plans", 64, sizeof(PlanEntry));
	rk_relcache_listen(invalidate_plan);
}
