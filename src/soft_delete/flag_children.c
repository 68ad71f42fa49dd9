/*
 * flag_children.c
 *
 * What a delete in flag mode takes with it, or is refused for: the live rows
 * that refer to the deleted one by foreign keys. For each key there is one
 * statement, prepared once a session: the children are deleted as well, where
 * the key cascades to a table in flag mode, else looked for. The caller has
 * locked the row (flag_delete.c says in which order).
 *
 * Under REPEATABLE READ a snapshot of now may find children that the
 * transaction cannot see. As in the server's own foreign keys its snapshot is
 * then the crosscheck: 40001.
 */
#include "soft_delete/soft_delete.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* What happens to the children of a link: a statement, kept for the session. */
typedef struct ChildAction
{
	Oid			constraint;		/* hash key */
	bool		deletes;		/* else it looks for live ones */
	int			running;		/* a table that references itself: how deep */
	SPIPlanPtr	plan;			/* NULL: to be made */
	Oid			stamp_type;		/* of the child's columns, where it deletes */
	int32		stamp_typmod;
	Oid			by_type;		/* InvalidOid: without */
	int32		by_typmod;
	bool		has_batch;
} ChildAction;

bool		rk_flag_cascading = false;

static HTAB *actions = NULL;

/* ---- one foreign key's statement ---- */

static bool
is_cascade(const RkLink *link, const RkSoftDeleteOptions *parent,
		   const RkSoftDeleteOptions *child)
{
	return link->on_delete == FKCONSTR_ACTION_CASCADE && parent->cascade &&
		child != NULL && !child->trash;
}

/* " WHERE key = $1 AND deleted_at IS NULL" for the live children of a row. */
static void
append_children(StringInfo sql, const RkLink *link, const RkSoftDeleteOptions *child, Oid *types,
				int first)
{
	for (int i = 0; i < link->nkeys; i++)
	{
		types[first + i] = get_atttype(link->parent, link->parent_keys[i]);
		appendStringInfoString(sql, i > 0 ? " AND " : " WHERE ");
		generate_operator_clause(sql, psprintf("$%d", first + i + 1), types[first + i],
								 link->operators[i],
								 quote_identifier(get_attname(link->child, link->child_keys[i], false)),
								 get_atttype(link->child, link->child_keys[i]));
	}
	if (child != NULL && !child->trash)
		appendStringInfo(sql, " AND %s IS NULL", quote_identifier(child->deleted_at));
}

static const char *
only(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";
}

static void
column_type(Oid relid, const char *name, Oid *type, int32 *typmod)
{
	Oid			collation;

	get_atttypetypmodcoll(relid, get_attnum(relid, name), type, typmod, &collation);
}

static void
append_stamp(StringInfo sql, ChildAction *action, Oid child, const RkSoftDeleteOptions *options,
			 Oid *types, int *ntypes)
{
	column_type(child, options->deleted_at, &action->stamp_type, &action->stamp_typmod);
	types[(*ntypes)++] = action->stamp_type;
	appendStringInfo(sql, "%s = $%d", quote_identifier(options->deleted_at), *ntypes);
	action->by_type = InvalidOid;
	if (options->deleted_by != NULL)
	{
		column_type(child, options->deleted_by, &action->by_type, &action->by_typmod);
		types[(*ntypes)++] = action->by_type;
		appendStringInfo(sql, ", %s = $%d", quote_identifier(options->deleted_by), *ntypes);
	}
	action->has_batch = options->batch != NULL;
	if (action->has_batch)
	{
		types[(*ntypes)++] = INT8OID;
		appendStringInfo(sql, ", %s = $%d", quote_identifier(options->batch), *ntypes);
	}
}

static void
prepare_action(ChildAction *action, const RkLink *link, const RkSoftDeleteOptions *parent)
{
	RkSoftDeleteOptions *child = rk_soft_delete_options_of(link->child);
	Oid			types[3 + INDEX_MAX_KEYS];
	int			ntypes = 0;
	StringInfoData sql;
	SPIPlanPtr	plan;

	initStringInfo(&sql);
	action->deletes = is_cascade(link, parent, child);
	if (action->deletes)
	{
		appendStringInfo(&sql, "UPDATE %s%s SET ", only(link->child), rk_relation_name(link->child));
		append_stamp(&sql, action, link->child, child, types, &ntypes);
	}
	else
		appendStringInfo(&sql, "SELECT 1 FROM %s%s", only(link->child), rk_relation_name(link->child));
	append_children(&sql, link, child, types, ntypes);
	ntypes += link->nkeys;
	if (!action->deletes)
		appendStringInfoString(&sql, " FOR KEY SHARE");

	plan = SPI_prepare(sql.data, ntypes, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql.data, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	action->plan = plan;
}

/*
 * The statement for a link. It is made anew once anything that it was made of
 * changed, but not while it runs further up the stack, which keeps the tables
 * as they are.
 */
static ChildAction *
action_of(const RkLink *link, const RkSoftDeleteOptions *parent)
{
	bool		found;
	ChildAction *action = hash_search(actions, &link->constraint, HASH_ENTER, &found);

	if (!found)
	{
		action->plan = NULL;
		action->running = 0;
	}
	if (action->plan != NULL && action->running == 0 &&
		(!SPI_plan_is_valid(action->plan) ||
		 action->deletes != is_cascade(link, parent, rk_soft_delete_options_of(link->child))))
	{
		SPIPlanPtr	old = action->plan;

		action->plan = NULL;
		SPI_freeplan(old);
	}
	if (action->plan == NULL)
		prepare_action(action, link, parent);
	return action;
}

/* ---- cascade and restrict ---- */

RK_NORETURN static void
raise_still_referenced(const RkLink *link, Relation rel, HeapTuple row)
{
	StringInfoData names;
	StringInfoData values;

	initStringInfo(&names);
	initStringInfo(&values);
	for (int i = 0; i < link->nkeys; i++)
	{
		char	   *name = get_attname(link->parent, link->parent_keys[i], false);
		int			column = SPI_fnumber(RelationGetDescr(rel), name);
		char	   *value = SPI_getvalue(row, RelationGetDescr(rel), column);

		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", name);
		appendStringInfo(&values, "%s%s", i > 0 ? ", " : "", value != NULL ? value : "null");
	}
	ereport(ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("soft delete from table \"%s\" violates foreign key constraint \"%s\" on table \"%s\"",
					get_rel_name(link->parent), link->name, get_rel_name(link->child)),
	/* who deletes the row may see it */
			 errdetail("Key (%s)=(%s) is still referenced from a live row of table \"%s\".",
					   names.data, values.data, get_rel_name(link->child)),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, get_namespace_name(get_rel_namespace(link->child))),
			 err_generic_string(PG_DIAG_TABLE_NAME, get_rel_name(link->child)),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, link->name)));
}

/* The arguments of an action: the child's stamp, then the parent's key. */
static int
fill_arguments(const ChildAction *action, const RkLink *link, Relation rel, HeapTuple row,
			   TimestampTz at, int64 batch, Datum *values, char *nulls)
{
	int			count = 0;
	bool		isnull;

	if (action->deletes)
	{
		nulls[count] = ' ';
		values[count++] = rk_flag_timestamp(action->stamp_type, action->stamp_typmod, at);
		if (OidIsValid(action->by_type))
		{
			values[count] = rk_flag_actor(action->by_type, action->by_typmod, &isnull);
			nulls[count++] = isnull ? 'n' : ' ';
		}
		if (action->has_batch)
		{
			nulls[count] = ' ';
			values[count++] = Int64GetDatum(batch);
		}
	}
	for (int i = 0; i < link->nkeys; i++)
	{
		int			column = link->parent_keys[i];

		if (RelationGetRelid(rel) != link->parent)
			column = get_attnum(RelationGetRelid(rel),
								get_attname(link->parent, link->parent_keys[i], false));
		values[count] = heap_getattr(row, column, RelationGetDescr(rel), &isnull);
		if (isnull)
			return -1;			/* nobody can reference it */
		nulls[count++] = ' ';
	}
	return count;
}

static uint64
run_action(const ChildAction *action, Datum *values, char *nulls)
{
	Snapshot	snapshot = InvalidSnapshot;
	Snapshot	crosscheck = InvalidSnapshot;
	int			result;

	if (IsolationUsesXactSnapshot())
	{
		CommandCounterIncrement();	/* be sure all my own work is visible */
		snapshot = GetLatestSnapshot();
		crosscheck = GetTransactionSnapshot();
	}
	result = SPI_execute_snapshot(action->plan, values, nulls, snapshot, crosscheck, false, true,
								  action->deletes ? 0 : 1);
	if (result < 0)
		elog(ERROR, "could not follow a foreign key: %s", SPI_result_code_string(result));
	return SPI_processed;
}

/* Whether rows of a table have triggers that are not the extension's; of partitions perhaps. */
static bool
has_users_triggers(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	const TriggerDesc *triggers = rel->trigdesc;
	Oid			ours = get_namespace_oid("rowkeeper", true);
	bool		found = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		found |= !triggers->triggers[i].tgisinternal &&
			get_func_namespace(triggers->triggers[i].tgfoid) != ours;
	table_close(rel, NoLock);
	return found;
}

/*
 * Triggers of children run past a row security that their owner has forced on
 * himself: what they plan is forgotten when the statement ends.
 */
static void
watch_plans(Oid child)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(child));
	bool		forced = HeapTupleIsValid(tuple) && ((Form_pg_class) GETSTRUCT(tuple))->relforcerowsecurity;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	if (forced && has_users_triggers(child))
		rk_plans_at_risk();
}

/*
 * As the child's owner, past row security, as foreign keys do. The statement
 * is prepared as he, too: its policies are added, or left out, there.
 */
static void
follow_link(const RkLink *link, const RkSoftDeleteOptions *parent, Relation rel, HeapTuple row,
			TimestampTz at, int64 batch)
{
	Datum		values[3 + INDEX_MAX_KEYS];
	char		nulls[3 + INDEX_MAX_KEYS];
	ChildAction *action;
	int64		batch_before;
	bool		cascading_before = rk_flag_cascading;
	Oid			user;
	int			context;

	SPI_connect();
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(rk_relation_owner(link->child),
						   context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	action = action_of(link, parent);
	watch_plans(link->child);
	if (fill_arguments(action, link, rel, row, at, batch, values, nulls) >= 0)
	{
		batch_before = rk_batch_enter(batch);
		rk_flag_cascading = true;
		action->running++;
		PG_TRY();
		{
			if (run_action(action, values, nulls) > 0 && !action->deletes)
				raise_still_referenced(link, rel, row);
		}
		PG_FINALLY();
		{
			action->running--;
			rk_flag_cascading = cascading_before;
			rk_batch_leave(batch_before);
		}
		PG_END_TRY();
	}
	SetUserIdAndSecContext(user, context);
	SPI_finish();
}

/* What ON DELETE of the foreign keys says; SET NULL keeps the link for a restore. */
void
rk_flag_follow_links(List *links, Relation rel, HeapTuple row, TimestampTz at, int64 batch)
{
	const RkFlagTable *table = rk_flag_table(RelationGetRelid(rel));
	ListCell   *lc;

	if (table == NULL)
		return;
	check_stack_depth();
	foreach(lc, links)
	{
		RkLink	   *link = lfirst(lc);

		if (link->on_delete != FKCONSTR_ACTION_SETNULL &&
			link->on_delete != FKCONSTR_ACTION_SETDEFAULT)
			follow_link(link, table->options, rel, row, at, batch);
	}
}

/* Raise 23503 where a row is referenced over one of these keys from a live row. */
void
rk_soft_delete_keep_children(List *links, const RkSoftDeleteOptions *parent, Relation rel, HeapTuple row)
{
	ListCell   *lc;

	foreach(lc, links)
		follow_link(lfirst(lc), parent, rel, row, 0, 0);
}

void
rk_flag_children_init(void)
{
	actions = rk_cache_create("rowkeeper foreign keys", 64, sizeof(ChildAction));
}
