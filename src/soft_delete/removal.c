/*
 * removal.c
 *
 * Rows that leave for good, whoever removes them (a purge, soft_delete_hard()).
 * In trash mode they leave the trash table. In flag mode they leave the table
 * by a DELETE that no guard stops, and the deleted rows that refer to them go
 * before them. While such a DELETE runs, the triggers ask here whether it is
 * the one.
 *
 * Whoever removes rows, a table's triggers run as its owner, as far as they can
 * be kept in there: maintain() may be called by a superuser, and must not hand
 * his rights to the tables that it maintains.
 */
#include "soft_delete/deleted.h"

#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* ---- the DELETE ---- */

/* The DELETE that runs now, for good. */
typedef struct Purging
{
	bool		running;
	int			depth;			/* of its own row triggers */
	List	   *reached;		/* tables that it deletes from: by foreign
								 * keys, too */
} Purging;

static Purging purging;

/*
 * Whether the row that a row trigger is told of now goes for good. What users'
 * triggers delete elsewhere does not: they are a level above, while what goes
 * by foreign keys is told at that of the purge itself.
 */
bool
rk_is_purging(void)
{
	return purging.running && rk_trigger_depth() == purging.depth;
}

/* Whether a purge that runs now may delete from a table (a root). */
bool
rk_purge_reaches(Oid root)
{
	return purging.running && list_member_oid(purging.reached, root);
}

/* A table and all that the server deletes from with it. */
static List *
add_reached(List *reached, Oid root)
{
	ListCell   *lc;

	check_stack_depth();
	if (list_member_oid(reached, root))
		return reached;
	reached = lappend_oid(reached, root);
	foreach(lc, rk_links_to(root))
		if (((RkLink *) lfirst(lc))->on_delete == FKCONSTR_ACTION_CASCADE)
		reached = add_reached(reached, rk_root_of(((RkLink *) lfirst(lc))->child));
	return reached;
}

/* The rows among these that are in SPI's result, by tableoid and ctid. */
static List *
rows_in_result(List *rows)
{
	List	   *found = NIL;

	if (SPI_processed == list_length(rows))
		return rows;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Oid			table = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		ItemPointer tid = (ItemPointer) DatumGetPointer(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
		ListCell   *lc;

		foreach(lc, rows)
		{
			RkDeletedRow *row = lfirst(lc);

			if (row->place.tableoid == table && ItemPointerEquals(&row->place.tid, tid))
				found = lappend(found, row);
		}
	}
	return found;
}

/*
 * Remove rows of a store for good, as its owner, with the session's
 * search_path for what he has there; returns how many went: a trigger may
 * keep a row. Where the owner is not the caller, nothing stays deferred that
 * would run with the caller's rights at commit. Within SPI.
 */
int64
rk_remove_rows(const RkStore *store, List *rows)
{
	Oid			types[2] = {OIDARRAYOID, TIDARRAYOID};
	Datum		values[2];
	RkIdentity	saved;
	List	   *gone;
	Purging		before = purging;	/* a trigger may call soft_delete_hard() */
	char	   *sql = psprintf("DELETE FROM %s x USING unnest($1, $2) AS k (t, i)"
							   " WHERE x.ctid OPERATOR(pg_catalog.=) k.i AND x.tableoid OPERATOR(pg_catalog.=) k.t"
							   " RETURNING x.tableoid, x.ctid", store->rel);

	if (rows == NIL)
		return 0;
	rk_deleted_places(rows, &values[0], &values[1]);
	if (store->owner != GetUserId())
		rk_constraints_immediate();
	rk_identity_assume_owner(&saved, store->owner);
	purging.reached = add_reached(NIL, store->root);
	purging.depth = rk_trigger_depth() + 1;
	purging.running = true;
	PG_TRY();
	{
		if (SPI_execute_with_args(sql, 2, types, values, NULL, false, 0) != SPI_OK_DELETE_RETURNING)
			elog(ERROR, "could not delete rows");
	}
	PG_FINALLY();
	{
		purging = before;
	}
	PG_END_TRY();
	rk_identity_restore(&saved);
	gone = rows_in_result(rows);
	SPI_freetuptable(SPI_tuptable);
	rk_deleted_note_gone(store, gone);
	return list_length(gone);
}

/* ---- with what refers to it ---- */

/*
 * Raise 23503 where the server would delete live rows with these, by a
 * cascading foreign key: rows that were deleted before their table had soft
 * delete may have some.
 */
static void
check_no_live_children(const RkStore *store, const RkLink *link, List *rows)
{
	RkSoftDeleteOptions *child = rk_flag_options_of(link->child);
	Oid			types[1] = {JSONBOID};
	Datum		keys;
	bool		none;

	if (link->on_delete != FKCONSTR_ACTION_CASCADE)
		return;
	keys = rk_deleted_keys(store, link, rows, &none);
	if (none)
		return;
	(void) rk_fetch(rk_relation_owner(link->child),
					psprintf("SELECT true FROM jsonb_array_elements($1) AS k JOIN %s c ON %s WHERE %s LIMIT 1",
							 rk_relation_name(link->child), rk_deleted_refers(NULL, link),
							 child == NULL ? "true" : psprintf("c.%s IS NULL", quote_identifier(child->deleted_at))),
					1, types, &keys, NULL, &none);
	if (!none)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("deleted rows of %s cannot be removed: live rows of %s refer to them",
						rk_relation_name(store->root), rk_relation_name(link->child)),
				 errdetail("Foreign key \"%s\" would delete those for good.", link->name),
				 errhint("Delete them first, or restore what they refer to.")));
}

/* Flag mode: the deleted rows that refer to these, however far, go first. */
int64
rk_remove_with_children(RkDeletedSet *set, RkStore *store, List *rows)
{
	ListCell   *lc;
	int64		removed = 0;

	if (rows == NIL)
		return 0;
	check_stack_depth();
	foreach(lc, store->trash ? NIL : rk_links_to(store->root))
	{
		RkLink	   *link = lfirst(lc);
		RkStore    *child = rk_deleted_store(set, rk_root_of(link->child));
		List	   *children;
		int64		gone;

		check_no_live_children(store, link, rows);
		if (child == NULL || child->trash ||
			link->on_delete == FKCONSTR_ACTION_SETNULL || link->on_delete == FKCONSTR_ACTION_SETDEFAULT)
			continue;
		children = rk_deleted_children(set, store, child, link, rows, 0);
		gone = rk_remove_with_children(set, child, children);
		if (gone < list_length(children))
			ereport(ERROR,
					(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
					 errmsg("deleted rows of %s cannot be removed: a trigger of %s keeps rows that refer to them",
							rk_relation_name(store->root), rk_relation_name(link->child))));
		removed += gone;
	}
	return removed + rk_remove_rows(store, rows);
}
