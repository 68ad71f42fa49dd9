/*
 * flag_triggers.c
 *
 * The triggers of soft delete, as objects of the catalog:
 *
 *   rowkeeper_soft_delete           on a table in flag mode, AFTER UPDATE: its
 *                                   stamp changed. Its argument is what
 *                                   soft_delete() was told. On its view,
 *                                   INSTEAD OF DELETE.
 *   rowkeeper_soft_delete_direct    BEFORE DELETE, statement: refuses
 *   rowkeeper_soft_delete_truncate  BEFORE TRUNCATE, statement: refuses; in
 *                                   trash mode, too
 *   rowkeeper_soft_delete_end       AFTER, statement: notes the batch
 *   rowkeeper_soft_delete_insert_*, rowkeeper_soft_delete_update_*
 *                                   the guards of a foreign key, on the child
 *
 * The server clones row triggers to partitions, statement triggers not: those
 * are made for each. All are created as the extension's owner.
 */
#include "soft_delete/soft_delete.h"

#include "access/htup_details.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_trigger.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

typedef struct StatementTrigger
{
	const char *name;
	const char *function;
	const char *event;			/* %s: the quoted deleted_at */
} StatementTrigger;

static const StatementTrigger direct_trigger = {
	RK_SOFT_DELETE_TRIGGER "_direct", "_soft_delete_direct", "BEFORE DELETE"
};
static const StatementTrigger truncate_trigger = {
	RK_SOFT_DELETE_TRIGGER "_truncate", "_soft_delete_direct", "BEFORE TRUNCATE"
};
static const StatementTrigger end_trigger = {
	RK_SOFT_DELETE_TRIGGER "_end", "_soft_delete_end", "AFTER UPDATE OF %s"
};
static const StatementTrigger view_end_trigger = {
	RK_SOFT_DELETE_TRIGGER "_end", "_soft_delete_end", "AFTER DELETE"
};
static const StatementTrigger view_flush_trigger = {
	RK_FLUSH_TRIGGER, "_changes_flush", "AFTER DELETE"
};

/* ---- triggers in general ---- */

static bool
has_trigger(Oid relid, const char *name, const char *function)
{
	RkTriggerRow row;

	return rk_trigger_read(relid, name, function, &row);
}

static void
run(FunctionCallInfo fcinfo, const char *sql)
{
	rk_run_step(fcinfo, rk_extension_owner(), sql);
}

static void
enable_trigger(FunctionCallInfo fcinfo, Oid relid, const char *name)
{
	run(fcinfo, psprintf("ALTER %s %s ENABLE TRIGGER %s",
						 get_rel_relkind(relid) == RELKIND_VIEW ? "VIEW" : "TABLE",
						 rk_relation_name(relid), quote_identifier(name)));
}

/*
 * Whether a call that finds this trigger must enable it. What somebody
 * disabled is not enabled behind his back when DDL is followed (fcinfo NULL).
 */
static bool
must_enable(FunctionCallInfo fcinfo, const RkTriggerRow *row)
{
	return fcinfo != NULL && row->state != TRIGGER_FIRES_ON_ORIGIN;
}

/* Create a trigger, or enable the one there is; false: it is as it should be. */
static bool
set_trigger(FunctionCallInfo fcinfo, Oid relid, const char *name, const char *function,
			const char *sql)
{
	RkTriggerRow row;

	if (!rk_trigger_read(relid, name, function, &row))
		run(fcinfo, sql);
	else if (must_enable(fcinfo, &row) && get_rel_relkind(relid) != RELKIND_VIEW)
		enable_trigger(fcinfo, relid, name);
	else
		return false;
	return true;
}

static bool
drop_trigger(FunctionCallInfo fcinfo, Oid relid, const char *name, const char *function)
{
	if (!has_trigger(relid, name, function))
		return false;
	run(fcinfo, psprintf("DROP TRIGGER %s ON %s", quote_identifier(name), rk_relation_name(relid)));
	return true;
}

static bool
set_statement_trigger(FunctionCallInfo fcinfo, Oid relid, const StatementTrigger *trigger,
					  const char *column)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE TRIGGER %s ", quote_identifier(trigger->name));
	appendStringInfo(&sql, trigger->event, column);
	appendStringInfo(&sql, " ON %s FOR EACH STATEMENT EXECUTE FUNCTION rowkeeper.%s()",
					 rk_relation_name(relid), trigger->function);
	return set_trigger(fcinfo, relid, trigger->name, trigger->function, sql.data);
}

static bool
drop_statement_trigger(FunctionCallInfo fcinfo, Oid relid, const StatementTrigger *trigger)
{
	return drop_trigger(fcinfo, relid, trigger->name, trigger->function);
}

/* ---- on the table ---- */

static char *
options_of_trigger(Oid relid, const char *name)
{
	RkTriggerRow row;

	if (!rk_trigger_read(relid, name, "_soft_delete_row", &row) || row.arguments == NIL)
		return NULL;
	return linitial(row.arguments);
}

/* A partition may have been switched off alone, so all of them are looked at. */
static bool
enable_row_trigger(FunctionCallInfo fcinfo, Oid root, const char *name)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(root, NoLock))
	{
		RkTriggerRow row;

		if (rk_trigger_read(lfirst_oid(lc), name, "_soft_delete_row", &row) &&
			must_enable(fcinfo, &row))
		{
			enable_trigger(fcinfo, root, name);
			return true;
		}
	}
	return false;
}

static bool
set_row_trigger(FunctionCallInfo fcinfo, Oid root, const char *name, const char *options,
				const char *event)
{
	char	   *before = options_of_trigger(root, name);
	bool		changed = before == NULL || strcmp(before, options) != 0;

	if (changed)
		run(fcinfo, psprintf("CREATE OR REPLACE TRIGGER %s AFTER %s"
							 " EXECUTE FUNCTION rowkeeper._soft_delete_row(%s)",
							 name, event, quote_literal_cstr(options)));
	changed |= enable_row_trigger(fcinfo, root, name);
	return changed;
}

/*
 * Make the row trigger of a table carry these options; returns whether it had
 * to be changed. Locks: SHARE ROW EXCLUSIVE where it had.
 */
bool
rk_flag_row_trigger_set(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options)
{
	char	   *text = rk_flag_options_format(options);
	const char *column = quote_identifier(options->deleted_at);
	const char *table = rk_relation_name(root);
	bool		changed;

	rk_trigger_check_pending(rk_relation_tree(root, NoLock));
	changed = set_row_trigger(fcinfo, root, RK_SOFT_DELETE_TRIGGER, text,
							  psprintf("UPDATE ON %s FOR EACH ROW WHEN (OLD.%s IS DISTINCT FROM NEW.%s)",
									   table, column, column));
	return changed;
}

/* The end trigger names a column, which may be another now. */
static bool
set_end_trigger(FunctionCallInfo fcinfo, Oid relid, const RkSoftDeleteOptions *options)
{
	return set_statement_trigger(fcinfo, relid, &end_trigger, quote_identifier(options->deleted_at));
}

/*
 * Give a table and its partitions the statement triggers of its options;
 * returns whether any was missing, or there and not wanted. Takes no lock
 * where nothing has to be done.
 */
bool
rk_soft_delete_triggers_set(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options)
{
	bool		changed = false;
	ListCell   *lc;

	foreach(lc, rk_relation_tree(root, NoLock))
	{
		Oid			relid = lfirst_oid(lc);

		changed |= set_statement_trigger(fcinfo, relid, &truncate_trigger, NULL);
		if (options->trash)
			continue;
		changed |= set_end_trigger(fcinfo, relid, options);
		if (options->allow_hard)
			changed |= drop_statement_trigger(fcinfo, relid, &direct_trigger);
		else
			changed |= set_statement_trigger(fcinfo, relid, &direct_trigger, NULL);
	}
	return changed;
}

/* Take the statement triggers from a relation and what is below it. */
void
rk_soft_delete_statement_triggers_drop(FunctionCallInfo fcinfo, Oid relid)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(relid, NoLock))
	{
		(void) drop_statement_trigger(fcinfo, lfirst_oid(lc), &direct_trigger);
		(void) drop_statement_trigger(fcinfo, lfirst_oid(lc), &truncate_trigger);
		(void) drop_statement_trigger(fcinfo, lfirst_oid(lc), &end_trigger);
	}
}

/* Whether a table has triggers of soft delete, perhaps without options. */
bool
rk_soft_delete_triggers_left(Oid root)
{
	return has_trigger(root, truncate_trigger.name, truncate_trigger.function);
}

/* Take all triggers of soft delete from a table and its partitions. */
void
rk_soft_delete_triggers_drop(FunctionCallInfo fcinfo, Oid root)
{
	rk_trigger_check_pending(rk_relation_tree(root, AccessShareLock));
	(void) drop_trigger(fcinfo, root, RK_SOFT_DELETE_TRIGGER, "_soft_delete_row");
	rk_soft_delete_statement_triggers_drop(fcinfo, root);
}

/* ---- on the view ---- */

/*
 * The view's triggers. A DELETE through it fires no statement trigger of the
 * table, so what it changed is flushed and noted by the view's own.
 */
bool
rk_flag_view_triggers_set(FunctionCallInfo fcinfo, Oid view)
{
	bool		changed;

	changed = set_trigger(fcinfo, view, RK_SOFT_DELETE_TRIGGER, "_soft_delete_view",
						  psprintf("CREATE TRIGGER " RK_SOFT_DELETE_TRIGGER
								   " INSTEAD OF DELETE ON %s FOR EACH ROW"
								   " EXECUTE FUNCTION rowkeeper._soft_delete_view()",
								   rk_relation_name(view)));
	changed |= set_statement_trigger(fcinfo, view, &view_flush_trigger, NULL);
	changed |= set_statement_trigger(fcinfo, view, &view_end_trigger, NULL);
	return changed;
}

void
rk_flag_view_triggers_drop(FunctionCallInfo fcinfo, Oid view)
{
	(void) drop_trigger(fcinfo, view, RK_SOFT_DELETE_TRIGGER, "_soft_delete_view");
	(void) drop_statement_trigger(fcinfo, view, &view_flush_trigger);
	(void) drop_statement_trigger(fcinfo, view, &view_end_trigger);
}

/* ---- on children ---- */

/*
 * The name of a guard: readable, and its own for each foreign key even where
 * the name of that fills all there is room for.
 */
char *
rk_flag_guard_name(const char *event, const char *constraint)
{
	char	   *name = psprintf(RK_SOFT_DELETE_TRIGGER "_%s_%s", event, constraint);
	int			room = NAMEDATALEN - 1 - 9;

	if (strlen(name) < NAMEDATALEN)
		return name;
	return psprintf("%.*s_%08x", pg_mbcliplen(name, strlen(name), room), name,
					DatumGetUInt32(hash_any((const unsigned char *) constraint, strlen(constraint))));
}

/* The equality operator of a type, as SQL; NULL: "=" of pg_catalog. */
static char *
equality_elsewhere(Oid type)
{
	Oid			operator = lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr;
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char	   *sql = NULL;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	form = (Form_pg_operator) GETSTRUCT(tuple);
	if (form->oprnamespace != PG_CATALOG_NAMESPACE)
		sql = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
					   NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return sql;
}

/*
 * "OLD.a IS DISTINCT FROM NEW.a OR ..." of the key's columns, where the new
 * ones are not null. IS DISTINCT FROM finds an operator of pg_catalog only.
 */
static void
append_key_changed(StringInfo sql, const RkLink *link)
{
	for (int i = 0; i < link->nkeys; i++)
	{
		const char *column = quote_identifier(get_attname(link->child, link->child_keys[i], false));
		char	   *equals = equality_elsewhere(get_atttype(link->child, link->child_keys[i]));

		appendStringInfoString(sql, i > 0 ? " OR " : "");
		if (equals == NULL)
			appendStringInfo(sql, "OLD.%s IS DISTINCT FROM NEW.%s", column, column);
		else
			appendStringInfo(sql, "OLD.%s IS NULL OR NOT OLD.%s %s NEW.%s", column, column, equals, column);
	}
}

static void
append_key_given(StringInfo sql, const RkLink *link)
{
	for (int i = 0; i < link->nkeys; i++)
		appendStringInfo(sql, "%sNEW.%s IS NOT NULL", i > 0 ? " AND " : "",
						 quote_identifier(get_attname(link->child, link->child_keys[i], false)));
}

/* The column that says that a row of the child is deleted itself, quoted; or NULL. */
static const char *
child_stamp(Oid child)
{
	RkSoftDeleteOptions *options = rk_flag_options_of(child);

	return options == NULL ? NULL : quote_identifier(options->deleted_at);
}

/* Whether a guard is as its foreign key is now; that it knows of the stamp is its second argument. */
static bool
fits(const RkTriggerRow *guard, const RkLink *link, const char *stamp)
{
	return list_length(guard->arguments) == 2 &&
		strcmp(lsecond(guard->arguments), stamp != NULL ? stamp : "") == 0 &&
		guard->deferrable == link->deferrable && guard->deferred == link->deferred;
}

static void
set_guard(FunctionCallInfo fcinfo, const RkLink *link, const char *event, const char *condition)
{
	char	   *name = rk_flag_guard_name(event, link->name);
	const char *stamp = child_stamp(link->child);
	RkTriggerRow row;
	StringInfoData sql;

	if (rk_trigger_read(link->child, name, "_soft_delete_guard", &row))
	{
		bool		same = fits(&row, link, stamp);

		if (same && must_enable(fcinfo, &row))
			enable_trigger(fcinfo, link->child, name);
		if (same)
			return;
		(void) drop_trigger(fcinfo, link->child, name, "_soft_delete_guard");
	}
	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE CONSTRAINT TRIGGER %s AFTER %s ON %s FROM %s%s",
					 quote_identifier(name), strcmp(event, "insert") == 0 ? "INSERT" : "UPDATE",
					 rk_relation_name(link->child),
					 rk_relation_name(link->parent),
					 link->deferred ? " DEFERRABLE INITIALLY DEFERRED" :
					 link->deferrable ? " DEFERRABLE" : "");
	appendStringInfo(&sql, " FOR EACH ROW WHEN (%s)"
					 " EXECUTE FUNCTION rowkeeper._soft_delete_guard(%s, %s)",
					 condition, quote_literal_cstr(link->name),
					 quote_literal_cstr(stamp != NULL ? stamp : ""));
	run(fcinfo, sql.data);
}

/*
 * Guard a foreign key that points to a table in flag mode: a live row of the
 * child must not come to reference a deleted row. Locks: SHARE ROW EXCLUSIVE
 * on the child where a guard is missing.
 */
void
rk_flag_guard_set(FunctionCallInfo fcinfo, const RkLink *link)
{
	const char *stamp = child_stamp(link->child);
	StringInfoData condition;

	initStringInfo(&condition);
	append_key_given(&condition, link);
	if (stamp != NULL)
		appendStringInfo(&condition, " AND NEW.%s IS NULL", stamp);
	set_guard(fcinfo, link, "insert", condition.data);

	appendStringInfoString(&condition, " AND (");
	append_key_changed(&condition, link);
	if (stamp != NULL)
		appendStringInfo(&condition, " OR OLD.%s IS NOT NULL", stamp);
	appendStringInfoChar(&condition, ')');
	set_guard(fcinfo, link, "update", condition.data);
}

/* Whether the guards of a link are there as they must be. */
bool
rk_flag_is_guarded(FunctionCallInfo fcinfo, const RkLink *link)
{
	static const char *const events[] = {"insert", "update"};
	const char *stamp = child_stamp(link->child);

	for (int i = 0; i < lengthof(events); i++)
	{
		RkTriggerRow row;

		if (!rk_trigger_read(link->child, rk_flag_guard_name(events[i], link->name),
							 "_soft_delete_guard", &row) ||
			must_enable(fcinfo, &row) || !fits(&row, link, stamp))
			return false;
	}
	return true;
}

/*
 * Guard every foreign key around a table where it must be: its own to tables
 * in flag mode, and (children) those that point to it where it is in flag
 * mode itself. Returns whether any guard was missing.
 */
bool
rk_flag_guards_set(FunctionCallInfo fcinfo, Oid root, bool children)
{
	List	   *links = rk_links_from(root);
	bool		changed = false;
	ListCell   *lc;

	if (children && rk_flag_options_of(root) != NULL)
		links = list_concat(links, rk_links_to(root));
	foreach(lc, links)
	{
		RkLink	   *link = lfirst(lc);

		if (rk_flag_options_of(link->parent) == NULL || rk_flag_is_guarded(fcinfo, link))
			continue;
		rk_trigger_check_pending(list_make1_oid(link->child));
		rk_flag_guard_set(fcinfo, link);
		changed = true;
	}
	return changed;
}

/* Drop the guards of a constraint, which may be gone. */
void
rk_flag_guard_drop(Oid child, const char *constraint)
{
	(void) drop_trigger(NULL, child, rk_flag_guard_name("insert", constraint), "_soft_delete_guard");
	(void) drop_trigger(NULL, child, rk_flag_guard_name("update", constraint), "_soft_delete_guard");
}

/*
 * Take the guards of the keys that point to a table which is no longer in
 * flag mode; those of its own keys forget its stamp.
 */
void
rk_flag_guards_drop(FunctionCallInfo fcinfo, Oid root)
{
	ListCell   *lc;

	foreach(lc, rk_links_to(root))
	{
		RkLink	   *link = lfirst(lc);

		(void) drop_trigger(fcinfo, link->child, rk_flag_guard_name("insert", link->name),
							"_soft_delete_guard");
		(void) drop_trigger(fcinfo, link->child, rk_flag_guard_name("update", link->name),
							"_soft_delete_guard");
	}
	(void) rk_flag_guards_set(fcinfo, root, false);
}
