/*
 * flag_table.c
 *
 * What the row triggers know of a table in flag mode, or of a partition of it,
 * cached by its OID: its options, and whether a foreign key points to it. As
 * core's relation info, an entry becomes valid only once it is filled, and any
 * change of the table makes it invalid: the options are in a trigger's
 * arguments, and a foreign key puts triggers on the table that it points to;
 * partitions have both, too. Whoever asks holds a lock that keeps others from
 * changing either.
 */
#include "soft_delete/soft_delete.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodes.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

static HTAB *tables = NULL;

static void
fill_table(RkFlagTable *table)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "rowkeeper flag table",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	RkSoftDeleteOptions *options = rk_flag_options_of(table->relid);
	bool		referenced = rk_links_to(table->relid) != NIL;

	MemoryContextSwitchTo(old);
	if (table->context != NULL)
	{
		/* a trigger further up the stack may still read it */
		MemoryContextSetParent(table->context, TopTransactionContext);
		table->context = NULL;
	}
	MemoryContextSetParent(context, TopMemoryContext);	/* until the next change
														 * of the table */
	table->context = context;
	table->options = options;
	table->enabled = options != NULL;
	table->referenced = referenced;
	table->valid = true;
}

/* What is known of a table or partition; NULL where it is not in flag mode. */
const RkFlagTable *
rk_flag_table(Oid relid)
{
	bool		found;
	RkFlagTable *table = hash_search(tables, &relid, HASH_ENTER, &found);

	if (!found)
	{
		table->valid = false;
		table->context = NULL;
	}
	if (!table->valid)
		fill_table(table);
	return table->enabled ? table : NULL;
}

static void
invalidate(void *table)
{
	((RkFlagTable *) table)->valid = false;
}

static void
invalidate_table(Datum arg, Oid relid)
{
	rk_cache_visit(tables, relid, invalidate);
}

void
rk_flag_table_init(void)
{
	tables = rk_cache_create("rowkeeper flag tables", 64, sizeof(RkFlagTable));
	rk_relcache_listen(invalidate_table);
}

/* ---- the values of a stamp ---- */

/* What an attempt to convert the actor is told, and what it found. */
typedef struct ActorConversion
{
	Oid			type;
	int32		typmod;
	const char *actor;
	Datum		value;
} ActorConversion;

static void
convert_actor(void *arg)
{
	ActorConversion *conversion = arg;
	Oid			input;
	Oid			parameter;

	getTypeInputInfo(conversion->type, &input, &parameter);
	conversion->value = OidInputFunctionCall(input, (char *) conversion->actor, parameter,
											 conversion->typmod);
}

/*
 * Who acts now as a value of a column's type. The session user is not known
 * to most applications: where he is the only actor there is and does not fit
 * the type, NULL.
 */
Datum
rk_flag_actor(Oid type, int32 typmod, bool *isnull)
{
	const RkWho *who = rk_who_current();
	ActorConversion conversion = {.type = type,.typmod = typmod,.actor = who->actor};
	char		category;
	bool		preferred;

	*isnull = false;
	if (conversion.actor != NULL)
	{
		convert_actor(&conversion);
		return conversion.value;
	}
	conversion.actor = GetUserNameFromId(GetSessionUserId(), false);
	get_type_category_preferred(type, &category, &preferred);
	if (category == TYPCATEGORY_STRING && getBaseType(type) == type)
	{
		convert_actor(&conversion);
		return conversion.value;
	}
	if (rk_attempt(convert_actor, &conversion) != NULL)
	{
		*isnull = true;
		return (Datum) 0;
	}
	return conversion.value;
}

/*
 * A moment as a value of a column's type and precision: timestamp has the
 * session's time zone.
 */
Datum
rk_flag_timestamp(Oid type, int32 typmod, TimestampTz at)
{
	Datum		value;

	if (type == TIMESTAMPTZOID)
		return DirectFunctionCall2(timestamptz_scale, TimestampTzGetDatum(at), Int32GetDatum(typmod));
	if (type != TIMESTAMPOID)
		elog(ERROR, "a row cannot be marked as deleted by a value of type %u", type);
	value = DirectFunctionCall1(timestamptz_timestamp, TimestampTzGetDatum(at));
	return DirectFunctionCall2(timestamp_scale, value, Int32GetDatum(typmod));
}

static AttrNumber
column_of(Relation rel, const char *name)
{
	AttrNumber	column = get_attnum(RelationGetRelid(rel), name);

	if (column <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of %s, which soft delete needs, does not exist",
						name, rk_relation_name(RelationGetRelid(rel))),
				 errhint("Put it back, or call rowkeeper.soft_delete_off().")));
	return column;
}

/* The type may have changed since soft_delete() looked at it. */
static AttrNumber
typed_column_of(Relation rel, const char *name, Oid type, Oid other)
{
	AttrNumber	column = column_of(rel, name);
	Oid			actual = TupleDescAttr(RelationGetDescr(rel), column - 1)->atttypid;

	if (actual != type && actual != other)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of %s, which soft delete needs, is of type %s, not %s",
						name, rk_relation_name(RelationGetRelid(rel)),
						format_type_be(actual), format_type_be(type)),
				 errhint("Give it its type back, or call rowkeeper.soft_delete_off().")));
	return column;
}

/* Where a relation of the table (it or a partition) has the stamp's columns. */
void
rk_flag_columns(const RkFlagTable *table, Relation rel, RkFlagStamp *stamp)
{
	const RkSoftDeleteOptions *options = table->options;

	memset(stamp, 0, sizeof(RkFlagStamp));
	stamp->columns[stamp->count++] =
		typed_column_of(rel, options->deleted_at, TIMESTAMPTZOID, TIMESTAMPOID);
	if (options->deleted_by != NULL)
		stamp->columns[stamp->count++] = stamp->deleted_by = column_of(rel, options->deleted_by);
	if (options->batch != NULL)
		stamp->columns[stamp->count++] = stamp->batch =
			typed_column_of(rel, options->batch, INT8OID, INT8OID);
}

/*
 * Fill in the values of a row deleted now, in CurrentMemoryContext; 0 as
 * batch: none is known.
 */
void
rk_flag_stamp(Relation rel, RkFlagStamp *stamp, TimestampTz at, int64 batch)
{
	for (int i = 0; i < stamp->count; i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(rel), stamp->columns[i] - 1);

		stamp->nulls[i] = false;
		if (stamp->columns[i] == stamp->batch)
			stamp->values[i] = Int64GetDatum(batch);
		else if (stamp->columns[i] == stamp->deleted_by)
			stamp->values[i] = rk_flag_actor(column->atttypid, column->atttypmod, &stamp->nulls[i]);
		else
			stamp->values[i] = rk_flag_timestamp(column->atttypid, column->atttypmod, at);
	}
}
