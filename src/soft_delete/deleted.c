/*
 * deleted.c
 *
 * Deleted rows and how they hang together. A row is known by where it is
 * stored (tableoid and ctid): it is locked as soon as it is found, so that
 * stays so until the transaction ends, and two that want the same row wait
 * for each other here. What is read here is read as the owner of the store
 * and past row security; what is done with it (restore_rows.c) is done as
 * the caller. Rows that policies hide from him are not found (core/isolation.c
 * says of whom that is true).
 */
#include "soft_delete/deleted.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define CHUNK 10000				/* rows whose keys are looked for at a time */

RkDeletedSet *
rk_deleted_set_create(RkHolding holding)
{
	RkDeletedSet *set = palloc0(sizeof(RkDeletedSet));
	HASHCTL		control = {
		.keysize = sizeof(((RkDeletedRow *) 0)->place),
		.entrysize = sizeof(RkDeletedRow),
		.hcxt = CurrentMemoryContext
	};

	set->holding = holding;
	set->context = CurrentMemoryContext;
	set->places = hash_create("rowkeeper deleted rows", 64, &control,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return set;
}

static bool
is_held(const RkDeletedSet *set, Oid root)
{
	switch (set->holding)
	{
		case RK_HOLDS_CALLER:
			return rk_is_held(root);
		case RK_HOLDS_CLAIMS:
			return rk_is_held_by_claim(root);
		case RK_HOLDS_NOBODY:
			break;
	}
	return false;
}

/* Where the deleted rows of a table are; NULL: it has no soft delete. */
RkStore *
rk_deleted_store(RkDeletedSet *set, Oid root)
{
	ListCell   *lc;
	RkStore    *store;
	RkSoftDeleteOptions *options;
	Relation	rel;
	MemoryContext old;

	foreach(lc, set->stores)
		if (((RkStore *) lfirst(lc))->root == root)
		return lfirst(lc);

	old = MemoryContextSwitchTo(set->context);
	options = rk_soft_delete_options_of(root);
	if (options == NULL)
	{
		MemoryContextSwitchTo(old);
		return NULL;
	}
	store = palloc0(sizeof(RkStore));
	store->root = root;
	store->options = options;
	store->trash = options->trash;
	store->relid = store->trash ? rk_trash_table_of(root) : root;
	if (!OidIsValid(store->relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the trash table of %s does not exist", rk_relation_name(root)),
				 errhint("SELECT rowkeeper.soft_delete(%s) makes it again.",
						 quote_literal_cstr(rk_relation_name(root)))));
	store->owner = rk_relation_owner(store->relid);
	store->held = is_held(set, root);
	store->by_key = store->held &&
		pg_class_aclcheck(store->relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK;
	store->rel = rk_relation_name(store->relid);
	store->batch = store->trash ? "_batch" : pstrdup(quote_identifier(options->batch));
	store->deleted_at = store->trash ? "_deleted_at" : pstrdup(quote_identifier(options->deleted_at));
	rel = table_open(root, AccessShareLock);
	store->key = rk_row_key_of(rel);
	table_close(rel, NoLock);
	if (store->key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s has no primary key any more", rk_relation_name(root))));
	set->stores = lappend(set->stores, store);
	MemoryContextSwitchTo(old);
	return store;
}

/* That a row of the store is a deleted one. */
char *
rk_deleted_condition(const RkStore *store, const char *alias)
{
	return store->trash ? "true" : psprintf("%s.%s IS NOT NULL", alias, store->deleted_at);
}

/* The value of the source's column in a row of the store. */
char *
rk_deleted_column(const RkStore *store, const char *alias, const char *name)
{
	if (!store->trash)
		return psprintf("%s.%s", alias, quote_identifier(name));
	return rk_trash_column_sql(store->relid, alias, name,
							   get_atttype(store->root, get_attnum(store->root, name)));
}

/* The row's key as record_id has it. */
char *
rk_deleted_record_id(const RkStore *store, const char *alias)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "jsonb_build_object(");
	for (int i = 0; i < store->key->count; i++)
		appendStringInfo(&sql, "%s%s, %s", i > 0 ? ", " : "",
						 quote_literal_cstr(store->key->names[i]),
						 rk_deleted_column(store, alias, store->key->names[i]));
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/* That a row has the key in the text parameters $1, $2, ... */
char *
rk_deleted_key_condition(const RkStore *store, const char *alias)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < store->key->count; i++)
		appendStringInfo(&sql, "%s%s %s %s", i > 0 ? " AND " : "",
						 rk_deleted_column(store, alias, store->key->names[i]), store->key->equals[i],
						 rk_trash_value_sql(psprintf("$%d", i + 1), store->key->types[i]));
	return sql.data;
}

/*
 * What locks the rows that a query finds; nothing where who asks for them may
 * not do to them what he is about to, which he is told later.
 */
const char *
rk_deleted_lock(const RkDeletedSet *set, const RkStore *store, const char *alias)
{
	return set->may_lock == NULL || set->may_lock(store) ? psprintf(" FOR UPDATE OF %s", alias) : "";
}

static RkDeletedRow *
add_row(RkDeletedSet *set, RkStore *store, HeapTuple tuple, TupleDesc desc, bool child)
{
	RkDeletedRow *row;
	RkDeletedRow key;
	bool		isnull;
	bool		found;
	Datum		batch;

	memset(&key, 0, sizeof(key));
	key.place.tableoid = DatumGetObjectId(SPI_getbinval(tuple, desc, 1, &isnull));
	key.place.tid = *(ItemPointer) DatumGetPointer(SPI_getbinval(tuple, desc, 2, &isnull));
	batch = SPI_getbinval(tuple, desc, 3, &isnull);
	row = hash_search(set->places, &key.place, HASH_ENTER, &found);
	if (found)
	{
		row->child |= child;
		return NULL;
	}
	row->store = store;
	row->tid = row->place.tid;
	row->batch = isnull ? 0 : DatumGetInt64(batch);
	row->record_id = NULL;
	row->conflict = NULL;
	row->child = child;
	return row;
}

/* Say of rows which of them their policies show the caller, who asks with his own search_path. */
static void
find_visible_places(const RkStore *store, List *rows, bool *visible)
{
	Oid			types[2] = {OIDARRAYOID, TIDARRAYOID};
	Datum		values[2];

	rk_deleted_places(rows, &values[0], &values[1]);
	if (SPI_execute_with_args(psprintf("SELECT k.n FROM unnest($1, $2) WITH ORDINALITY AS k (t, i, n)"
									   " JOIN %s x ON x.ctid OPERATOR(pg_catalog.=) k.i"
									   " AND x.tableoid OPERATOR(pg_catalog.=) k.t", store->rel),
							  2, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read deleted rows");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		visible[DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)) - 1] = true;
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * The same of who may read columns only, and so not where a row is: whether he
 * sees any of its key.
 */
static bool
is_key_visible(const RkStore *store, RkDeletedRow *row)
{
	Oid			types[INDEX_MAX_KEYS] = {OIDARRAYOID, TIDARRAYOID};
	Datum		values[INDEX_MAX_KEYS];
	StringInfoData sql;
	RkIdentity	saved;
	bool		visible;

	initStringInfo(&sql);
	for (int i = 0; i < store->key->count; i++)
		appendStringInfo(&sql, "%sformat('%%s', %s)", i > 0 ? ", " : "SELECT ",
						 rk_deleted_column(store, "x", store->key->names[i]));
	appendStringInfo(&sql, " FROM unnest($1, $2) AS k (t, i) JOIN %s x ON x.ctid = k.i AND x.tableoid = k.t", store->rel);
	rk_deleted_places(list_make1(row), &values[0], &values[1]);
	rk_identity_assume_reader(&saved, store->owner);
	if (SPI_execute_with_args(sql.data, 2, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the key of a deleted row");
	rk_identity_restore(&saved);
	if (SPI_processed != 1)
		return false;
	for (int i = 0; i < store->key->count; i++)
	{
		types[i] = TEXTOID;
		values[i] = CStringGetTextDatum(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1));
	}
	SPI_freetuptable(SPI_tuptable);
	if (SPI_execute_with_args(psprintf("SELECT 1 FROM %s x WHERE %s LIMIT 1", store->rel,
									   rk_deleted_key_condition(store, "x")),
							  store->key->count, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read deleted rows");
	visible = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return visible;
}

/* Of these rows of a store those that the caller sees; the others leave the set. Within SPI. */
static List *
keep_visible(RkDeletedSet *set, const RkStore *store, List *rows)
{
	List	   *kept = NIL;
	bool	   *visible = palloc0(list_length(rows) * sizeof(bool));
	ListCell   *lc;

	if (!store->by_key)
		find_visible_places(store, rows, visible);
	else
		foreach(lc, rows)
			visible[foreach_current_index(lc)] = is_key_visible(store, lfirst(lc));
	foreach(lc, rows)
	{
		RkDeletedRow *row = lfirst(lc);

		if (visible[foreach_current_index(lc)])
			kept = lappend(kept, row);
		else
			(void) hash_search(set->places, &row->place, HASH_REMOVE, NULL);
	}
	return kept;
}

/*
 * Add the rows that a query of the store finds and locks (tableoid, ctid and
 * batch); returns those that are new. Within SPI.
 */
List *
rk_deleted_collect(RkDeletedSet *set, RkStore *store, const char *sql, int nargs,
				   Oid *types, Datum *values, bool child)
{
	List	   *rows = NIL;
	RkIdentity	saved;
	MemoryContext old;

	rk_identity_assume_reader(&saved, store->owner);
	if (SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read deleted rows");
	rk_identity_restore(&saved);
	if (SPI_gettypeid(SPI_tuptable->tupdesc, 3) != INT8OID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column %s of %s is of type %s, not %s", store->batch, store->rel,
						format_type_be(SPI_gettypeid(SPI_tuptable->tupdesc, 3)),
						format_type_be(INT8OID))));
	old = MemoryContextSwitchTo(set->context);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		RkDeletedRow *row = add_row(set, store, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, child);

		if (row != NULL)
			rows = lappend(rows, row);
	}
	SPI_freetuptable(SPI_tuptable);
	if (store->held && rows != NIL)
		rows = keep_visible(set, store, rows);
	store->rows = list_concat(store->rows, rows);
	MemoryContextSwitchTo(old);
	return rows;
}

/* Take the rows of a store out of the set. */
void
rk_deleted_forget(RkDeletedSet *set, RkStore *store)
{
	ListCell   *lc;

	foreach(lc, store->rows)
	{
		RkDeletedRow key = *(RkDeletedRow *) lfirst(lc);

		(void) hash_search(set->places, &key.place, HASH_REMOVE, NULL);
	}
	store->rows = NIL;
}

/* Where rows are, as arrays for SQL. */
void
rk_deleted_places(List *rows, Datum *tableoids, Datum *tids)
{
	int			count = list_length(rows);
	Datum	   *oids = palloc(count * sizeof(Datum));
	Datum	   *pointers = palloc(count * sizeof(Datum));
	ListCell   *lc;

	foreach(lc, rows)
	{
		RkDeletedRow *row = lfirst(lc);

		oids[foreach_current_index(lc)] = ObjectIdGetDatum(row->place.tableoid);
		pointers[foreach_current_index(lc)] = PointerGetDatum(&row->tid);
	}
	*tableoids = PointerGetDatum(construct_array(oids, count, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
	*tids = PointerGetDatum(construct_array(pointers, count, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT));
}

/* Rows that are deleted no more, or gone for good, leave their batches. */
void
rk_deleted_note_gone(const RkStore *store, List *rows)
{
	int64		batch = 0;
	int64		count = 0;
	ListCell   *lc;

	foreach(lc, rows)
	{
		RkDeletedRow *row = lfirst(lc);

		if (row->batch != batch && batch != 0)
			rk_batch_note(batch, store->root, -count, NULL);
		if (row->batch != batch)
			count = 0;
		batch = row->batch;
		count++;
	}
	if (batch != 0)
		rk_batch_note(batch, store->root, -count, NULL);
}

/* ---- foreign keys ---- */

/*
 * What can refer to these rows by a foreign key: their values of its columns,
 * as a JSON array of arrays of text; *none: no row has them all. Read as the
 * parent's owner, while the children are read as theirs: neither needs to have
 * a right on the other's table, and nobody's code runs as somebody else.
 */
Datum
rk_deleted_keys(const RkStore *parent, const RkLink *link, List *rows, bool *none)
{
	Oid			types[2] = {OIDARRAYOID, TIDARRAYOID};
	Datum		values[2];
	StringInfoData texts;
	StringInfoData given;

	initStringInfo(&texts);
	initStringInfo(&given);
	for (int i = 0; i < link->nkeys; i++)
	{
		char	   *column = rk_deleted_column(parent, "p", get_attname(link->parent, link->parent_keys[i], false));

		appendStringInfo(&texts, "%sformat('%%s', %s)", i > 0 ? ", " : "", column);
		appendStringInfo(&given, "%s%s IS NOT NULL", i > 0 ? " AND " : "", column);
	}
	rk_deleted_places(rows, &values[0], &values[1]);
	return rk_fetch(parent->owner,
					psprintf("SELECT jsonb_agg(jsonb_build_array(%s)) FROM unnest($1, $2) AS k (t, i)"
							 " JOIN %s p ON p.ctid = k.i AND p.tableoid = k.t WHERE %s",
							 texts.data, parent->rel, given.data),
					2, types, values, NULL, none);
}

/*
 * That a row "c" of the child refers to a key "k" among these; kept: where the
 * child's deleted rows are, NULL: the table itself is meant.
 */
char *
rk_deleted_refers(const RkStore *kept, const RkLink *link)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < link->nkeys; i++)
	{
		char	   *name = get_attname(link->child, link->child_keys[i], false);
		Oid			type = getBaseType(get_atttype(link->parent, link->parent_keys[i]));

		appendStringInfoString(&sql, i > 0 ? " AND " : "");
		generate_operator_clause(&sql,
								 rk_trash_value_sql(psprintf("k.value ->> %d", i), type), type,
								 link->operators[i],
								 kept != NULL ? rk_deleted_column(kept, "c", name)
								 : psprintf("c.%s", quote_identifier(name)),
								 getBaseType(get_atttype(link->child, link->child_keys[i])));
	}
	return sql.data;
}

/* rk_deleted_children() of a part of the rows. */
static List *
children_of(RkDeletedSet *set, const RkStore *parent, RkStore *child, const RkLink *link,
			List *rows, int64 batch)
{
	Oid			types[2] = {JSONBOID, INT8OID};
	Datum		values[2];
	bool		none;

	values[0] = rk_deleted_keys(parent, link, rows, &none);
	values[1] = Int64GetDatum(batch);
	if (none)
		return NIL;
	return rk_deleted_collect(set, child,
							  psprintf("SELECT c.tableoid, c.ctid, c.%s FROM jsonb_array_elements($1) AS k"
									   " JOIN %s c ON %s WHERE ($2 = 0 OR c.%s = $2) AND %s"
									   " ORDER BY c.tableoid, c.ctid%s",
									   child->batch, child->rel, rk_deleted_refers(child, link),
									   child->batch, rk_deleted_condition(child, "c"),
									   rk_deleted_lock(set, child, "c")),
							  2, types, values, true);
}

/* Add the deleted rows that refer to these by one foreign key: of a batch, or (0) of any. */
List *
rk_deleted_children(RkDeletedSet *set, const RkStore *parent, RkStore *child, const RkLink *link,
					List *rows, int64 batch)
{
	List	   *children = NIL;

	for (int done = 0; done < list_length(rows); done += CHUNK)
		children = list_concat(children,
							   children_of(set, parent, child, link,
										   list_copy_head(list_copy_tail(rows, done), CHUNK), batch));
	return children;
}

/* Add what of a batch hangs on these rows, all of one store, however far. */
void
rk_deleted_find_children(RkDeletedSet *set, List *rows, int64 batch)
{
	RkStore    *parent;
	ListCell   *lc;

	if (rows == NIL)
		return;
	check_stack_depth();
	parent = ((RkDeletedRow *) linitial(rows))->store;
	foreach(lc, rk_links_to(parent->root))
	{
		RkLink	   *link = lfirst(lc);
		RkStore    *child = rk_deleted_store(set, rk_root_of(link->child));

		if (child != NULL)
			rk_deleted_find_children(set, rk_deleted_children(set, parent, child, link, rows, batch), batch);
	}
}

/* Where the deleted rows of a table are; that it has none is an error. */
RkStore *
rk_deleted_open_store(RkDeletedSet *set, Oid root)
{
	RkStore    *store = rk_deleted_store(set, root);

	if (store == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s has no soft delete", rk_relation_name(root)),
				 errhint("SELECT rowkeeper.soft_delete(%s).", quote_literal_cstr(rk_relation_name(root)))));
	return store;
}

static bool
is_placed(const RkDeletedSet *set, Oid root)
{
	ListCell   *lc;

	foreach(lc, set->stores)
		if (((RkStore *) lfirst(lc))->root == root)
		return ((RkStore *) lfirst(lc))->placed;
	return true;
}

/* Put the stores of a set in order, parents first as far as that goes. */
void
rk_deleted_order(RkDeletedSet *set)
{
	List	   *links = NIL;
	List	   *ordered = NIL;
	ListCell   *lc;

	foreach(lc, set->stores)
	{
		((RkStore *) lfirst(lc))->placed = false;
		links = list_concat(links, rk_links_to(((RkStore *) lfirst(lc))->root));
	}
	while (list_length(ordered) < list_length(set->stores))
	{
		RkStore    *next = NULL;
		RkStore    *any = NULL;

		foreach(lc, set->stores)
		{
			RkStore    *store = lfirst(lc);
			bool		ready = !store->placed;
			ListCell   *l;

			if (store->placed)
				continue;
			any = any == NULL ? store : any;
			foreach(l, links)
			{
				RkLink	   *link = lfirst(l);

				if (link->child == store->root && link->parent != store->root &&
					!is_placed(set, link->parent))
					ready = false;
			}
			if (ready && next == NULL)
				next = store;
		}
		next = next != NULL ? next : any;	/* a cycle: any order is as good */
		next->placed = true;
		ordered = lappend(ordered, next);
	}
	set->stores = ordered;
}
