/*
 * flag_columns.c
 *
 * The columns that a delete in flag mode fills: found by their names and
 * checked, or described for ALTER TABLE where they are missing. A column that
 * is named almost like a missing one is never passed by: an application whose
 * rows have "deletedAt" would otherwise get a second column that it does not
 * know.
 */
#include "soft_delete/soft_delete.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* A column that would be made although the table has one for it already. */
static void
check_near_miss(Oid root, const char *option, const char *name)
{
	Relation	rel = table_open(root, AccessShareLock);
	Form_pg_attribute near = rk_near_miss(rel, name);

	if (near != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\": %s has no column \"%s\", but a column \"%s\"",
						option, rk_relation_name(root), name, NameStr(near->attname)),
				 errhint("Use it: %s => %s, or rename it.", option,
						 quote_literal_cstr(NameStr(near->attname)))));
	table_close(rel, NoLock);
}

RK_NORETURN static void
refuse_column(const char *option, const char *name, const char *reason)
{
	rk_refuse_option(option, psprintf("column \"%s\" %s", name, reason), NULL);
}

/* What holds for each column that a delete fills: nothing else fills it, and it may be empty. */
static void
check_column(Oid root, const char *option, const char *name)
{
	Relation	rel = table_open(root, AccessShareLock);
	Form_pg_attribute column = TupleDescAttr(RelationGetDescr(rel), get_attnum(root, name) - 1);

	/* primary and partition keys are among these */
	if (column->attnotnull)
		refuse_column(option, name, "is not null, and must be null in live rows");
	if (column->attgenerated != '\0' || column->attidentity != '\0')
		refuse_column(option, name, "is generated");
	if (column->atthasdef)
		refuse_column(option, name, "has a default, and must be null in new rows");
	table_close(rel, NoLock);
}

/* Check one column that a delete fills; false: it is missing, and may be added. */
static bool
find_column(Oid root, const char *option, const char *name)
{
	AttrNumber	column;

	if (name == NULL)
		return true;
	column = get_attnum(root, name);
	if (column < 0)
		refuse_column(option, name, "is a system column");
	if (column == InvalidAttrNumber)
	{
		check_near_miss(root, option, name);
		return false;
	}
	check_column(root, option, name);
	return true;
}

static void
check_type(Oid root, const char *option, const char *name, Oid type, Oid other)
{
	Oid			actual = get_atttype(root, get_attnum(root, name));

	if (actual != type && actual != other)
		refuse_column(option, name,
					  psprintf("is of type %s, not %s", format_type_be(actual), format_type_be(type)));
}

/*
 * Check the columns of flag mode; returns what adds those that are missing, or
 * NULL. Columns without a default are added without a rewrite.
 */
char *
rk_flag_columns_check(Oid root, const RkSoftDeleteOptions *options)
{
	StringInfoData added;

	if (options->deleted_by != NULL && (strcmp(options->deleted_at, options->deleted_by) == 0 ||
										strcmp(options->batch, options->deleted_by) == 0))
		rk_refuse_option("deleted_by", "names a column that has another use", NULL);
	if (strcmp(options->deleted_at, options->batch) == 0)
		rk_refuse_option("batch", "names a column that has another use", NULL);

	initStringInfo(&added);
	if (!find_column(root, "deleted_at", options->deleted_at))
		appendStringInfo(&added, ", ADD COLUMN %s timestamp with time zone", quote_identifier(options->deleted_at));
	else
		check_type(root, "deleted_at", options->deleted_at, TIMESTAMPTZOID, TIMESTAMPOID);
	if (!find_column(root, "deleted_by", options->deleted_by))
		appendStringInfo(&added, ", ADD COLUMN %s text", quote_identifier(options->deleted_by));
	if (!find_column(root, "batch", options->batch))
		appendStringInfo(&added, ", ADD COLUMN %s bigint", quote_identifier(options->batch));
	else
		check_type(root, "batch", options->batch, INT8OID, INT8OID);
	return added.len == 0 ? NULL
		: psprintf("ALTER TABLE %s %s", rk_relation_name(root), added.data + 2);
}
