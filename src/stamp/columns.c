/*
 * columns.c
 *
 * The columns that are stamped: found by their names, checked, and described
 * for ALTER TABLE where they are missing. A column that is named almost like
 * a missing one is never passed by: an application whose rows have
 * "updatedAt" would otherwise get a second column that it does not know.
 */
#include "stamp/stamp.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "catalog/heap.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"

bool
rk_stamp_is_time(RkStampOption stamp)
{
	return stamp == RK_UPDATED_AT || stamp == RK_CREATED_AT;
}

bool
rk_stamp_is_actor(RkStampOption stamp)
{
	return stamp == RK_CREATED_BY || stamp == RK_UPDATED_BY;
}

/* The number of a column, 0 where there is none; no syscache: rel is open. */
AttrNumber
rk_stamp_find_column(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped && strcmp(NameStr(column->attname), name) == 0)
			return column->attnum;
	}
	return 0;
}

/* ---- near misses ---- */

static bool
is_integer(Oid type)
{
	Oid			base = getBaseType(type);

	return base == INT2OID || base == INT4OID || base == INT8OID;
}

static char *
call_with(Relation rel, RkStampOption stamp, const char *column)
{
	return psprintf("SELECT rowkeeper.stamp(%s, %s => %s)",
					quote_literal_cstr(rk_relation_name(RelationGetRelid(rel))),
					rk_stamp_option_names[stamp], quote_literal_cstr(column));
}

RK_NORETURN static void
refuse_near_miss(Relation rel, RkStampOption stamp, const char *wanted, const char *there)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("%s has no column \"%s\", but one named \"%s\"",
					rk_relation_name(RelationGetRelid(rel)), wanted, there),
			 errhint("To stamp that one: %s. To do without: %s.",
					 call_with(rel, stamp, there), call_with(rel, stamp, "-"))));
}

/*
 * The version column that a table has uninvited: one called "version". It is
 * never added, for the next migration that a mapper generates would drop it.
 */
char *
rk_stamp_default_version(Relation rel)
{
	AttrNumber	number = rk_stamp_find_column(rel, "version");
	Form_pg_attribute near;

	if (number == 0)
	{
		near = rk_near_miss(rel, "version");
		if (near != NULL && is_integer(near->atttypid))
			refuse_near_miss(rel, RK_VERSION, "version", NameStr(near->attname));
		return NULL;
	}
	if (is_integer(TupleDescAttr(RelationGetDescr(rel), number - 1)->atttypid))
		return "version";
	ereport(NOTICE,
			(errmsg("column \"version\" of %s is no integer and is not stamped",
					rk_relation_name(RelationGetRelid(rel)))));
	return NULL;
}

/* ---- what can be stamped ---- */

RK_NORETURN static void
refuse_column(Relation rel, RkStampOption stamp, const char *column, int sqlstate,
			  const char *reason)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("column \"%s\" of %s cannot be stamped as \"%s\": %s",
					column, rk_relation_name(RelationGetRelid(rel)),
					rk_stamp_option_names[stamp], reason),
			 errhint("To do without: %s.", call_with(rel, stamp, "-"))));
}

static void
check_column(Relation rel, RkStampOption stamp, Form_pg_attribute column)
{
	char	   *name = NameStr(column->attname);
	Oid			base = getBaseType(column->atttypid);

	if (column->attgenerated != '\0')
		refuse_column(rel, stamp, name, ERRCODE_FEATURE_NOT_SUPPORTED, "it is generated");
	if (column->attidentity != '\0')
		refuse_column(rel, stamp, name, ERRCODE_FEATURE_NOT_SUPPORTED, "it is an identity column");
	if (rk_stamp_is_time(stamp) && base != TIMESTAMPTZOID && base != TIMESTAMPOID)
		refuse_column(rel, stamp, name, ERRCODE_DATATYPE_MISMATCH,
					  psprintf("it is of type %s, not timestamp with or without time zone",
							   format_type_be(column->atttypid)));
	if (stamp == RK_VERSION && !is_integer(column->atttypid))
		refuse_column(rel, stamp, name, ERRCODE_DATATYPE_MISMATCH,
					  psprintf("it is of type %s, not smallint, integer or bigint",
							   format_type_be(column->atttypid)));
}

static void
check_missing(Relation rel, RkStampOption stamp, const char *name, bool stamped)
{
	Form_pg_attribute near;

	if (SystemAttributeByName(name) != NULL)
		refuse_column(rel, stamp, name, ERRCODE_FEATURE_NOT_SUPPORTED, "it is a system column");
	if (stamped)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop column \"%s\" of %s: it is stamped",
						name, rk_relation_name(RelationGetRelid(rel))),
				 errhint("Before: %s, or SELECT rowkeeper.stamp_off(%s).",
						 call_with(rel, stamp, "-"),
						 quote_literal_cstr(rk_relation_name(RelationGetRelid(rel))))));
	near = rk_near_miss(rel, name);
	if (near != NULL)
		refuse_near_miss(rel, stamp, name, NameStr(near->attname));
}

/*
 * Raise where a column that options name cannot be stamped, or is missing and
 * must not be added. stamped: the table has them already, so one that is
 * missing was dropped.
 */
void
rk_stamp_check_columns(Relation rel, const RkStampOptions *options, bool stamped)
{
	for (int stamp = 0; stamp < RK_STAMP_COUNT; stamp++)
	{
		const char *name = options->value[stamp];
		AttrNumber	number;

		if (name == NULL)
			continue;
		number = rk_stamp_find_column(rel, name);
		if (number == 0)
			check_missing(rel, stamp, name, stamped);
		else
			check_column(rel, stamp, TupleDescAttr(RelationGetDescr(rel), number - 1));
	}
}

/*
 * Raise where a stamp would decide to which partition a row belongs: it is
 * written after that was decided.
 */
void
rk_stamp_check_partition_keys(Relation rel, const RkStampOptions *options)
{
	PartitionKey key = RelationGetPartitionKey(rel);
	Bitmapset  *columns = NULL;

	if (key == NULL)
		return;
	for (int i = 0; i < key->partnatts; i++)
		columns = bms_add_member(columns, key->partattrs[i] - FirstLowInvalidHeapAttributeNumber);
	pull_varattnos((Node *) key->partexprs, 1, &columns);
	for (int stamp = 0; stamp < RK_STAMP_COUNT; stamp++)
	{
		AttrNumber	number = options->value[stamp] == NULL ? 0
			: rk_stamp_find_column(rel, options->value[stamp]);

		if (number != 0 && bms_is_member(number - FirstLowInvalidHeapAttributeNumber, columns))
			refuse_column(rel, stamp, options->value[stamp], ERRCODE_FEATURE_NOT_SUPPORTED,
						  psprintf("it is in the partition key of %s",
								   rk_relation_name(RelationGetRelid(rel))));
	}
}

/* ---- columns that are missing ---- */

/*
 * What adds a column without writing the table anew: now() is not volatile,
 * so rows that are there share one value kept in the catalog. They get the
 * time of the call as their last change (whoever asks what changed since
 * finds them once), version 1, and nothing for what is not known of them.
 */
static char *
describe_column(RkStampOption stamp, const char *name)
{
	const char *quoted = quote_identifier(name);

	switch (stamp)
	{
		case RK_UPDATED_AT:
			return psprintf("ADD COLUMN %s timestamptz NOT NULL DEFAULT now()", quoted);
		case RK_VERSION:
			return psprintf("ADD COLUMN %s integer NOT NULL DEFAULT 1", quoted);
		case RK_CREATED_AT:
			return psprintf("ADD COLUMN %s timestamptz, ALTER COLUMN %s SET DEFAULT now()",
							quoted, quoted);
		default:
			return psprintf("ADD COLUMN %s text", quoted);
	}
}

/* The actions of ALTER TABLE that add what is missing, NULL: nothing is. */
char *
rk_stamp_missing_columns(Relation rel, const RkStampOptions *options)
{
	StringInfoData actions;

	initStringInfo(&actions);
	for (int stamp = 0; stamp < RK_STAMP_COUNT; stamp++)
		if (options->value[stamp] != NULL && rk_stamp_find_column(rel, options->value[stamp]) == 0)
			appendStringInfo(&actions, "%s%s", actions.len > 0 ? ", " : "",
							 describe_column(stamp, options->value[stamp]));
	return actions.len > 0 ? actions.data : NULL;
}
