/*
 * trash.c
 *
 * Trash mode as a consumer of the change batch: a deleted row is copied, in
 * the layout of its trash table, when its trigger fires, and written there
 * when the statement ends. The number of the batch and the time are fixed and
 * in front, so they are put into the finished tuple at the flush.
 *
 * Columns are matched by name. What the trash does not have, or has with
 * another type, goes to _extra as text: no change of the table can make a
 * delete fail. For the same reason the tuples go into the trash table without
 * the executor, past constraints and triggers that it might have got.
 *
 * The layout of a trash table is remembered for the session. One that was
 * altered gets a new layout; tuples that were formed for the old one and are
 * not written yet raise a serialization failure.
 */
#include "soft_delete/soft_delete.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* Columns of a trash table that are ours; the first two lead and are fixed. */
typedef enum OwnColumn
{
	OWN_BATCH, OWN_DELETED_AT, OWN_DELETED_BY, OWN_DELETED_VIA, OWN_DB_USER,
	OWN_EXTRA, OWN_COLUMNS
} OwnColumn;

static const struct
{
	const char *name;
	Oid			type;
}			own_columns[OWN_COLUMNS] =

{
	{"_batch", INT8OID}, {"_deleted_at", TIMESTAMPTZOID}, {"_deleted_by", TEXTOID},
	{"_deleted_via", TEXTOID}, {"_db_user", TEXTOID}, {"_extra", JSONBOID}
};

typedef struct TrashFixed
{
	int64		batch;
	TimestampTz deleted_at;
} TrashFixed;

#define FIXED_COLUMNS 2

/* What a trash table looks like; lives until the table is altered. */
typedef struct TrashLayout
{
	Oid			relid;
	char	   *name;
	Oid			root;			/* whose rows it keeps */
	bool		valid;
	TupleDesc	desc;
	AttrNumber	own[OWN_COLUMNS];	/* 0: missing */
} TrashLayout;

typedef struct KnownTrash
{
	Oid			relid;			/* hash key */
	TrashLayout *layout;
} KnownTrash;

/* How rows of one table or partition become rows of its trash. */
typedef struct TrashSource
{
	Oid			root;
	const char *name;			/* of the trash table */
	RkSoftDeleteOptions *options;
	List	   *keeping;		/* RkLink *; without cascade: whose references
								 * keep a row */
	TrashLayout *layout;		/* NULL: there is no such table */
	AttrNumber *target;			/* by source column; 0: to _extra, -1: nowhere */
	bool		any_extra;
	bits8	   *present;		/* see find_copyable(); NULL: cannot be copied */
	Datum	   *values;			/* of the source, */
	bool	   *nulls;
	Datum	   *kept;			/* of the trash */
	bool	   *kept_nulls;
	MemoryContext context;
} TrashSource;

static int	trash_consumer;
static HTAB *known_trash = NULL;

/* ---- layouts ---- */

static void
invalidate(void *known)
{
	TrashLayout *layout = ((KnownTrash *) known)->layout;

	if (layout != NULL)
		layout->valid = false;
}

static void
forget_layout(Datum arg, Oid relid)
{
	rk_cache_visit(known_trash, relid, invalidate);
}

static AttrNumber
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return i + 1;
	return 0;
}

static TrashLayout *
make_layout(Relation rel, Oid root)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "rowkeeper trash",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	TrashLayout *layout = palloc0(sizeof(TrashLayout));

	layout->relid = RelationGetRelid(rel);
	layout->name = pstrdup(RelationGetRelationName(rel));
	layout->root = root;
	layout->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	for (int i = 0; i < OWN_COLUMNS; i++)
	{
		AttrNumber	column = find_column(layout->desc, own_columns[i].name);

		if (column > 0 && TupleDescAttr(layout->desc, column - 1)->atttypid == own_columns[i].type)
			layout->own[i] = column;
	}
	layout->valid = true;
	MemoryContextSwitchTo(old);
	return layout;
}

/*
 * The layout of a trash table as it is now; NULL where it does not exist, or
 * has another name since we know of it.
 */
static TrashLayout *
get_layout(Oid relid, Oid root, const char *name)
{
	KnownTrash *known;
	bool		found;
	Relation	rel;
	TrashLayout *before;

	if (!OidIsValid(relid))
		return NULL;
	known = hash_search(known_trash, &relid, HASH_ENTER, &found);
	if (!found)
		known->layout = NULL;
	before = known->layout;
	if (before != NULL && before->valid && before->root == root)
		return before;

	rel = try_relation_open(relid, RowExclusiveLock);
	if (rel == NULL)
		return NULL;
	if (rel->rd_rel->relkind != RELKIND_RELATION || rk_trash_relation(name) != relid)
	{
		relation_close(rel, NoLock);
		return NULL;
	}
	if (before != NULL && before->root == root && equalTupleDescs(before->desc, RelationGetDescr(rel)))
		before->valid = true;
	else
		known->layout = make_layout(rel, root); /* sources and entries may
												 * still point to the old one,
												 * so it stays: some kB an
												 * ALTER of the trash */
	relation_close(rel, NoLock);
	return known->layout;
}

/* ---- matching columns ---- */

/*
 * Where a column's values go. A domain's values are of its base type, which
 * is what the trash has: it checks nothing.
 */
static AttrNumber
target_of(const TrashLayout *layout, Form_pg_attribute column)
{
	AttrNumber	target;

	if (column->attisdropped || rk_is_virtual(column))
		return -1;
	target = find_column(layout->desc, NameStr(column->attname));
	for (int i = 0; i < OWN_COLUMNS; i++)
		if (target == layout->own[i])
			return 0;
	if (target > 0 &&
		TupleDescAttr(layout->desc, target - 1)->atttypid == getBaseType(column->atttypid))
		return target;
	return 0;
}

/*
 * Whether a row of the source lies in a row of the trash as it is: after batch
 * and time, each column at the place of its own, physically alike. Then, if no
 * value is stored elsewhere, its bytes are copied, and the texts of who deleted
 * it come after them. Returns the bitmap of a row without nulls, else NULL.
 */
static bits8 *
find_copyable(const TrashSource *source, TupleDesc desc)
{
	const TrashLayout *layout = source->layout;
	AttrNumber	first_text = desc->natts + FIXED_COLUMNS + 1;
	bits8	   *present;

	if (layout->own[OWN_BATCH] != 1 || layout->own[OWN_DELETED_AT] != 2 ||
		layout->own[OWN_DELETED_BY] < first_text ||
		layout->own[OWN_DELETED_VIA] <= layout->own[OWN_DELETED_BY] ||
		layout->own[OWN_DB_USER] <= layout->own[OWN_DELETED_VIA])
		return NULL;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute from = TupleDescAttr(desc, i);
		Form_pg_attribute to = TupleDescAttr(layout->desc, i + FIXED_COLUMNS);

		if (source->target[i] != i + FIXED_COLUMNS + 1 ||
			from->attlen != to->attlen || from->attalign != to->attalign)
			return NULL;
	}
	present = palloc0(BITMAPLEN(layout->desc->natts));
	for (int i = 0; i < layout->desc->natts; i++)
		if (i < desc->natts + FIXED_COLUMNS || i == layout->own[OWN_DELETED_BY] - 1 ||
			i == layout->own[OWN_DELETED_VIA] - 1 || i == layout->own[OWN_DB_USER] - 1)
			present[i / 8] |= 1 << (i % 8);
	return present;
}

/* Match columns anew, in the memory of the source. */
static void
match_columns(TrashSource *source, TupleDesc desc)
{
	MemoryContext old;
	Oid			relid;

	/* it may be renamed, and another one made, while we wait for its lock */
	do
	{
		relid = rk_trash_relation(source->name);
		source->layout = get_layout(relid, source->root, source->name);
	} while (source->layout == NULL && rk_trash_relation(source->name) != relid);
	if (source->layout == NULL)
		return;
	old = MemoryContextSwitchTo(source->context);
	if (source->kept != NULL)
	{
		pfree(source->kept);
		pfree(source->kept_nulls);
		if (source->present != NULL)
			pfree(source->present);
	}
	source->any_extra = false;
	for (int i = 0; i < desc->natts; i++)
	{
		source->target[i] = target_of(source->layout, TupleDescAttr(desc, i));
		source->any_extra |= source->target[i] == 0;
	}
	source->kept = palloc(source->layout->desc->natts * sizeof(Datum));
	source->kept_nulls = palloc(source->layout->desc->natts * sizeof(bool));
	source->present = find_copyable(source, desc);
	MemoryContextSwitchTo(old);
}

/* The keys by which the server would delete children along with a row of a relation. */
static List *
cascading_links(Oid relid)
{
	List	   *cascading = NIL;
	ListCell   *lc;

	foreach(lc, rk_links_to(relid))
		if (((RkLink *) lfirst(lc))->on_delete == FKCONSTR_ACTION_CASCADE)
		cascading = lappend(cascading, lfirst(lc));
	return cascading;
}

static void *
prepare_source(Relation rel, Oid root, Jsonb *options)
{
	TrashSource *source = palloc0(sizeof(TrashSource));
	TupleDesc	desc = RelationGetDescr(rel);

	source->root = root;
	source->name = rk_option_text(options, "table");
	source->options = rk_soft_delete_options_of(root);
	if (source->options != NULL && !source->options->cascade)
		source->keeping = cascading_links(RelationGetRelid(rel));
	source->context = CurrentMemoryContext;
	source->target = palloc0(desc->natts * sizeof(AttrNumber));
	source->values = palloc(desc->natts * sizeof(Datum));
	source->nulls = palloc(desc->natts * sizeof(bool));
	return source;				/* matched at the first DELETE */
}

/* ---- who ---- */

typedef struct WhoTexts
{
	const RkWho *who;
	uint64		generation;
	text	   *actor;
	text	   *source;
	text	   *db_user;
	char	   *stored;			/* the three as a tuple has them, */
	Size		stored_size;	/* 0: they are not short */
} WhoTexts;

static text *
session_text(const char *string)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	text	   *result = cstring_to_text(string);

	MemoryContextSwitchTo(old);
	return result;
}

/* Append a short text as a tuple has it. */
static void
store_short(WhoTexts *texts, const text *value)
{
	char	   *to = texts->stored + texts->stored_size;

	SET_VARSIZE_SHORT(to, VARATT_CONVERTED_SHORT_SIZE(value));
	memcpy(to + 1, VARDATA(value), VARSIZE(value) - VARHDRSZ);
	texts->stored_size += VARATT_CONVERTED_SHORT_SIZE(value);
}

static void
store_texts(WhoTexts *texts)
{
	texts->stored_size = 0;
	if (!VARATT_CAN_MAKE_SHORT(texts->actor) || !VARATT_CAN_MAKE_SHORT(texts->source) ||
		!VARATT_CAN_MAKE_SHORT(texts->db_user))
		return;
	texts->stored = MemoryContextAlloc(TopMemoryContext, VARSIZE(texts->actor) +
									   VARSIZE(texts->source) + VARSIZE(texts->db_user));
	store_short(texts, texts->actor);
	store_short(texts, texts->source);
	store_short(texts, texts->db_user);
}

/* The texts of who acts, made anew only when that changes. */
static const WhoTexts *
texts_of_who(const RkWho *who)
{
	static WhoTexts texts;
	char	   *db_user;

	if (texts.who == who && texts.generation == rk_who_generation)
		return &texts;
	db_user = GetUserNameFromId(who->session_user, true);
	texts.who = NULL;
	if (texts.actor != NULL)
	{
		pfree(texts.actor);
		pfree(texts.source);
		pfree(texts.db_user);
		texts.actor = NULL;
	}
	if (texts.stored != NULL)
		pfree(texts.stored);
	texts.stored = NULL;
	texts.db_user = session_text(db_user != NULL ? db_user : "");
	texts.source = session_text(who->actor_source);
	texts.actor = session_text(who->actor != NULL ? who->actor : db_user != NULL ? db_user : "");
	store_texts(&texts);
	texts.generation = rk_who_generation;
	texts.who = who;
	return &texts;
}

/* ---- capture ---- */

/* {"column": "value as text" | null} of what has no column in the trash. */
static Jsonb *
extra_of(const TrashSource *source, TupleDesc desc)
{
	static const char *const pinned[][2] = {
		{"DateStyle", "ISO, YMD"}, {"IntervalStyle", "postgres"}, {"extra_float_digits", "1"},
		{"bytea_output", "hex"}, {"search_path", "pg_catalog, pg_temp"}
	};
	JsonbParseState *state = NULL;
	int			level = NewGUCNestLevel();
	Jsonb	   *result;

	for (int i = 0; i < lengthof(pinned); i++)
		(void) set_config_option(pinned[i][0], pinned[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (source->target[i] != 0)
			continue;
		rk_option_push_text(&state, NameStr(column->attname), source->nulls[i] ? NULL
							: rk_text_of_value(source->values[i], column->atttypid));
	}
	result = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	AtEOXact_GUC(false, level);
	return result;
}

static void
keep_own(TrashSource *source, OwnColumn own, Datum value)
{
	AttrNumber	column = source->layout->own[own];

	if (column == 0)
		return;
	source->kept[column - 1] = value;
	source->kept_nulls[column - 1] = false;
}

/* Of natts columns, those that are null become so; ours are before them. */
static void
take_over_nulls(bits8 *to, const bits8 *from, int natts)
{
	for (int i = 0; i < natts; i += 8)
	{
		unsigned	nulls = (unsigned) (bits8) ~from[i / 8];

		if (natts - i < 8)
			nulls &= (1 << (natts - i)) - 1;
		nulls <<= FIXED_COLUMNS;
		to[i / 8] &= ~nulls;
		if (nulls > 0xFF)
			to[i / 8 + 1] &= ~(nulls >> 8);
	}
}

/*
 * form_trash_tuple() for a row that lies in the trash's as it is: what
 * heap_form_tuple() would make of it, without taking it apart.
 */
static HeapTuple
copy_row(const TrashSource *source, HeapTuple row, const WhoTexts *texts, MemoryContext context)
{
	TupleDesc	desc = source->layout->desc;
	Size		hoff = MAXALIGN(SizeofHeapTupleHeader + BITMAPLEN(desc->natts));
	Size		row_size = row->t_len - row->t_data->t_hoff;
	Size		size = hoff + sizeof(TrashFixed) + row_size + texts->stored_size;
	HeapTuple	tuple = MemoryContextAlloc(context, HEAPTUPLESIZE + size);
	HeapTupleHeader header = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);
	char	   *data = (char *) header + hoff;

	tuple->t_data = header;
	tuple->t_len = size;
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = InvalidOid;

	memset(header, 0, hoff + sizeof(TrashFixed));
	HeapTupleHeaderSetDatumLength(header, size);
	HeapTupleHeaderSetTypeId(header, desc->tdtypeid);
	HeapTupleHeaderSetTypMod(header, desc->tdtypmod);
	ItemPointerSetInvalid(&header->t_ctid);
	HeapTupleHeaderSetNatts(header, desc->natts);
	header->t_hoff = hoff;
	header->t_infomask = HEAP_HASVARWIDTH | HEAP_HASNULL;
	memcpy(header->t_bits, source->present, BITMAPLEN(desc->natts));
	if (HeapTupleHasNulls(row))
		take_over_nulls(header->t_bits, row->t_data->t_bits, HeapTupleHeaderGetNatts(row->t_data));

	data += sizeof(TrashFixed);
	memcpy(data, (char *) row->t_data + row->t_data->t_hoff, row_size);
	memcpy(data + row_size, texts->stored, texts->stored_size);
	return tuple;
}

/*
 * The row as a tuple of the trash, but for its batch and time. What is needed
 * on the way is in the trigger's memory, the tuple in the frame's.
 */
static HeapTuple
form_trash_tuple(TrashSource *source, TupleDesc desc, HeapTuple row, RkFrame *frame)
{
	const WhoTexts *texts = texts_of_who(rk_frame_who(frame));
	bool		external = HeapTupleHasExternal(row);
	MemoryContext old;
	HeapTuple	tuple;

	if (source->present != NULL && texts->stored_size > 0 && !external &&
		HeapTupleHeaderGetNatts(row->t_data) == desc->natts)
		return copy_row(source, row, texts, rk_frame_context(frame));

	heap_deform_tuple(row, desc, source->values, source->nulls);
	memset(source->kept_nulls, true, source->layout->desc->natts * sizeof(bool));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		int			target = source->target[i] - 1;

		if (target < 0 || source->nulls[i])
			continue;
		/* the source's TOAST goes with the row */
		if (external && column->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(source->values[i])))
			source->values[i] = PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(source->values[i])));
		source->kept[target] = source->values[i];
		source->kept_nulls[target] = false;
	}
	keep_own(source, OWN_BATCH, Int64GetDatum(0));
	keep_own(source, OWN_DELETED_AT, TimestampTzGetDatum(0));
	keep_own(source, OWN_DELETED_BY, PointerGetDatum(texts->actor));
	keep_own(source, OWN_DELETED_VIA, PointerGetDatum(texts->source));
	keep_own(source, OWN_DB_USER, PointerGetDatum(texts->db_user));
	if (source->any_extra)
		keep_own(source, OWN_EXTRA, PointerGetDatum(extra_of(source, desc)));
	old = MemoryContextSwitchTo(rk_frame_context(frame));
	tuple = heap_form_tuple(source->layout->desc, source->kept, source->kept_nulls);
	MemoryContextSwitchTo(old);
	return tuple;
}

RK_NORETURN static void
refuse_without_trash(const TrashSource *source)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("cannot delete from %s: its trash table %s.%s does not exist",
					rk_relation_name(source->root), RK_TRASH_SCHEMA, quote_identifier(source->name)),
			 errhint("SELECT rowkeeper.soft_delete(%s) makes it again.",
					 quote_literal_cstr(rk_relation_name(source->root)))));
}

static void
check_own_columns(const TrashSource *source)
{
	const TrashLayout *layout = source->layout;

	if (layout->own[OWN_BATCH] != 1 || layout->own[OWN_DELETED_AT] != 2 ||
		(source->any_extra && layout->own[OWN_EXTRA] == 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("trash table %s lacks columns that rowkeeper gave it",
						rk_relation_name(layout->relid)),
				 errhint("Rename that table, and SELECT rowkeeper.soft_delete(%s) makes a new one.",
						 quote_literal_cstr(rk_relation_name(source->root)))));
}

static void
capture_delete(RkFrame *frame, void *prepared, const RkChange *change)
{
	TrashSource *source = prepared;
	HeapTuple	tuple;

	if (change->kind != RK_DELETE)
		return;
	if (source->keeping != NIL)
		rk_soft_delete_keep_children(source->keeping, source->options, change->rel, change->old_row);
	if (rk_is_purging())
		return;
	if (source->layout == NULL || !source->layout->valid)
	{
		match_columns(source, RelationGetDescr(change->rel));
		if (source->layout == NULL)
			refuse_without_trash(source);
		check_own_columns(source);
	}
	tuple = form_trash_tuple(source, RelationGetDescr(change->rel), change->old_row, frame);
	rk_frame_append(frame, change, trash_consumer, tuple, source->layout);
}

/* ---- flush ---- */

/*
 * Put batch and time into the tuples of one trash table; returns how many
 * there are. Notes how many rows of each batch they are; *one_batch: all are
 * of one.
 */
static int
complete_tuples(const TrashLayout *layout, RkEntry *entries, int count, HeapTuple *tuples,
				bool *one_batch)
{
	TimestampTz now = GetCurrentTimestamp();	/* in the order in which one
												 * key is deleted */
	const RkEntry *last = NULL;
	int64		batch = 0;
	int			ntuples = 0;
	int			noted = 0;

	*one_batch = true;
	for (int i = 0; i < count; i++)
	{
		TrashFixed *fixed;

		if (entries[i].tag != layout)
			continue;
		if (last == NULL || entries[i].statement != last->statement)
		{
			if (last != NULL)
			{
				rk_batch_note(batch, layout->root, ntuples - noted, last->who->actor);
				noted = ntuples;
				*one_batch = false;
			}
			batch = rk_batch_of_statement(entries[i].statement);
		}
		last = &entries[i];
		fixed = (TrashFixed *) GETSTRUCT(last->tuple);
		fixed->batch = batch;
		fixed->deleted_at = now;
		tuples[ntuples++] = last->tuple;
	}
	if (last != NULL)
		rk_batch_note(batch, layout->root, ntuples - noted, last->who->actor);
	return ntuples;
}

/* Write the entries of one trash table. */
static void
write_layout(const TrashLayout *layout, RkEntry *entries, int count)
{
	Relation	rel = try_relation_open(layout->relid, RowExclusiveLock);
	HeapTuple  *tuples;
	int			ntuples;
	bool		one_batch;

	if (rel == NULL ||
		(!layout->valid && (!equalTupleDescs(layout->desc, RelationGetDescr(rel)) ||
							rk_trash_relation(layout->name) != layout->relid)))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the trash table of %s was altered while rows were deleted",
						rk_relation_name(layout->root)),
				 errhint("Try again.")));
	tuples = palloc(count * sizeof(HeapTuple));
	ntuples = complete_tuples(layout, entries, count, tuples, &one_batch);
	rk_direct_insert(rel, layout->desc, one_batch ? layout->own[OWN_BATCH] : 0, tuples, ntuples);
	relation_close(rel, NoLock);
	pfree(tuples);
}

/*
 * Write the entries of a batch of changes. Locks: ROW EXCLUSIVE on the trash
 * tables, kept to the transaction's end.
 */
static void
flush_trash(RkEntry *entries, int count)
{
	List	   *written = NIL;

	for (int i = 0; i < count; i++)
	{
		if ((i > 0 && entries[i].tag == entries[i - 1].tag) ||
			list_member_ptr(written, entries[i].tag))
			continue;
		write_layout(entries[i].tag, entries, count);
		written = lappend(written, (void *) entries[i].tag);
	}
	list_free(written);
}

void
rk_trash_init(void)
{
	static const RkChangeConsumer consumer = {
		.name = "trash",
		.events = TRIGGER_TYPE_DELETE,
		.prepare = prepare_source,
		.capture = capture_delete,
		.flush = flush_trash
	};

	known_trash = rk_cache_create("rowkeeper trash tables", 16, sizeof(KnownTrash));
	rk_relcache_listen(forget_layout);
	trash_consumer = rk_consumer_register(&consumer);
}
