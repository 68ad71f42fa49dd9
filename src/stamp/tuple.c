/*
 * tuple.c
 *
 * Stamps in rows: where they lie, and how new ones get there. A stamp that
 * takes the place of one of the same size is written over it, in the tuple
 * that the executor has made for this row and will store; only where a size
 * changes (a null stamp, a longer name) is the row put together anew.
 */
#include "stamp/stamp.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/tupmacs.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"

/* ---- reading ---- */

static bool
has_null_in_tail(const RkStampPlan *plan, HeapTupleHeader header)
{
	if ((header->t_infomask & HEAP_HASNULL) != 0)
		for (int i = plan->column[plan->order[0]].number - 1; i < plan->natts; i++)
			if (att_isnull(i, header->t_bits))
				return true;
	return false;
}

/* Find the stamps by walking over the row. */
static void
walk_to_stamps(const RkStampPlan *plan, HeapTupleHeader header, char **address)
{
	bool		nulls = (header->t_infomask & HEAP_HASNULL) != 0;
	char	   *data = (char *) header + header->t_hoff;
	uint32		offset = 0;
	int			found = 0;

	for (int at = 0; found < plan->count; at++)
	{
		const RkLayout *layout = &plan->layout[at];
		RkStampOption stamp = plan->order[found];
		bool		wanted = plan->column[stamp].number == at + 1;

		found += wanted;
		if (nulls && att_isnull(at, header->t_bits))
		{
			if (wanted)
				address[stamp] = NULL;
			continue;
		}
		if (layout->len == -1)
			offset = att_align_pointer(offset, layout->align, -1, data + offset);
		else
			offset = att_align_nominal(offset, layout->align);
		if (wanted)
			address[stamp] = data + offset;
		offset = att_addlength_pointer(offset, layout->len, data + offset);
	}
}

/* Find the stamps in a tuple that has all columns. */
static void
locate_stamps(const RkStampPlan *plan, HeapTuple tuple, char **address)
{
	char	   *first;

	if (plan->tail_length == 0 || has_null_in_tail(plan, tuple->t_data))
	{
		walk_to_stamps(plan, tuple->t_data, address);
		return;
	}
	first = (char *) tuple->t_data + tuple->t_len - plan->tail_length;
	for (int i = 0; i < plan->count; i++)
		address[plan->order[i]] = first + plan->tail_offset[plan->order[i]];

#ifdef USE_ASSERT_CHECKING
	{
		char	   *walked[RK_STAMP_COUNT];

		walk_to_stamps(plan, tuple->t_data, walked);
		for (int i = 0; i < plan->count; i++)
			Assert(address[plan->order[i]] == walked[plan->order[i]]);
	}
#endif
}

/* A tuple of fewer columns, which a trigger may have returned, made whole. */
static HeapTuple
complete_tuple(Relation rel, HeapTuple tuple)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *isnull = palloc(desc->natts * sizeof(bool));
	HeapTuple	whole;

	heap_deform_tuple(tuple, desc, values, isnull);
	whole = heap_form_tuple(desc, values, isnull);
	whole->t_self = tuple->t_self;
	whole->t_tableOid = tuple->t_tableOid;
	whole->t_data->t_ctid = tuple->t_data->t_ctid;
	return whole;
}

/* Read the stamps of the row that a trigger was given to change. */
void
rk_stamp_row_read(const RkStampPlan *plan, Relation rel, HeapTuple tuple,
				  TupleTableSlot *slot, RkStampRow *row)
{
	if (unlikely(HeapTupleHeaderGetNatts(tuple->t_data) < plan->natts))
		tuple = complete_tuple(rel, tuple);
	row->tuple = tuple;
	row->slot = slot;
	locate_stamps(plan, tuple, row->address);
	for (int i = 0; i < plan->count; i++)
	{
		RkStampOption stamp = plan->order[i];
		const RkLayout *layout = &plan->column[stamp].layout;
		char	   *address = row->address[stamp];

		row->now.isnull[stamp] = address == NULL;
		row->now.value[stamp] = address == NULL ? (Datum) 0
			: fetch_att(address, layout->byval, layout->len);
	}
}

/* ---- comparing ---- */

/* Whether two values by reference are the same, however they are stored. */
bool
rk_stamp_same_bytes(const RkLayout *layout, Datum a, Datum b)
{
	if (layout->len > 0)
		return memcmp(DatumGetPointer(a), DatumGetPointer(b), layout->len) == 0;
	if (layout->len == -1)
	{
		Size		size = VARSIZE_ANY(DatumGetPointer(a));

		/* an unchanged value outside of its row is not fetched */
		if (size == VARSIZE_ANY(DatumGetPointer(b)) &&
			memcmp(DatumGetPointer(a), DatumGetPointer(b), size) == 0)
			return true;
	}
	return datum_image_eq(a, b, false, layout->len);
}

static bool
same_column(const RkStampPlan *plan, TupleDesc desc, HeapTuple before, HeapTuple after, int number)
{
	const RkLayout *layout = &plan->layout[number - 1];
	bool		before_isnull;
	bool		after_isnull;
	Datum		old;
	Datum		new;

	if (layout->offset >= 0 && !HeapTupleHasNulls(before) && !HeapTupleHasNulls(after) &&
		number <= HeapTupleHeaderGetNatts(before->t_data))
	{
		char	   *x = (char *) before->t_data + before->t_data->t_hoff + layout->offset;
		char	   *y = (char *) after->t_data + after->t_data->t_hoff + layout->offset;

		return layout->byval
			? fetch_att(x, true, layout->len) == fetch_att(y, true, layout->len)
			: memcmp(x, y, layout->len) == 0;
	}
	old = heap_getattr(before, number, desc, &before_isnull);
	new = heap_getattr(after, number, desc, &after_isnull);
	return rk_stamp_same_value(layout, old, before_isnull, new, after_isnull);
}

/* Whether tuples are the same in all their bytes, but for their headers. */
static bool
same_bytes(HeapTuple a, HeapTuple b)
{
	const Size	from = offsetof(HeapTupleHeaderData, t_bits);
	HeapTupleHeader x = a->t_data;
	HeapTupleHeader y = b->t_data;

	return a->t_len == b->t_len && x->t_hoff == y->t_hoff &&
		HeapTupleHeaderGetNatts(x) == HeapTupleHeaderGetNatts(y) &&
		HeapTupleHasNulls(a) == HeapTupleHasNulls(b) &&
		memcmp((char *) x + from, (char *) y + from, a->t_len - from) == 0;
}

static bool
any_column_changed(const RkStampPlan *plan, TupleDesc desc, HeapTuple before, HeapTuple after)
{
	Datum	   *old = palloc(desc->natts * sizeof(Datum));
	Datum	   *new = palloc(desc->natts * sizeof(Datum));
	bool	   *old_isnull = palloc(desc->natts * sizeof(bool));
	bool	   *new_isnull = palloc(desc->natts * sizeof(bool));
	bool		changed = false;

	heap_deform_tuple(before, desc, old, old_isnull);
	heap_deform_tuple(after, desc, new, new_isnull);
	for (int i = 0; i < desc->natts && !changed; i++)
		changed = !plan->layout[i].ignored &&
			!rk_stamp_same_value(&plan->layout[i], old[i], old_isnull[i], new[i], new_isnull[i]);
	pfree(old);
	pfree(new);
	pfree(old_isnull);
	pfree(new_isnull);
	return changed;
}

/* Few assigned columns are looked at one by one, which costs a walk each. */
#define FEW_COLUMNS 3

static bool
few_columns_changed(const RkStampPlan *plan, TupleDesc desc, HeapTuple before, HeapTuple after,
					const Bitmapset *assigned, bool *conclusive)
{
	int			looked_at = 0;

	*conclusive = true;
	for (int member = -1; (member = bms_next_member(assigned, member)) >= 0;)
	{
		int			number = member + FirstLowInvalidHeapAttributeNumber;

		if (number <= 0 || plan->layout[number - 1].ignored)
			continue;
		if (!same_column(plan, desc, before, after, number))
			return true;
		if (++looked_at == FEW_COLUMNS)
		{
			*conclusive = false;
			return false;
		}
	}
	*conclusive = !plan->other_triggers;
	return false;
}

/*
 * Whether an UPDATE changes more than stamps. assigned: the columns that the
 * statement assigns; others can differ only where other triggers are.
 */
bool
rk_stamp_row_changed(const RkStampPlan *plan, Relation rel, HeapTuple before,
					 HeapTuple after, const Bitmapset *assigned)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		conclusive;

	if (few_columns_changed(plan, desc, before, after, assigned, &conclusive))
		return true;
	if (conclusive || same_bytes(before, after))
		return false;
	return any_column_changed(plan, desc, before, after);
}

/* ---- writing ---- */

/* Whether the value can be written over the one that is there. */
static bool
fits_in_place(const RkStampColumn *column, const char *address, Datum value, bool isnull)
{
	if (address == NULL || isnull)
		return false;
	if (column->layout.len > 0)
		return true;
	return column->layout.len == -1 &&
		VARATT_IS_SHORT(address) && VARATT_IS_SHORT(DatumGetPointer(value)) &&
		VARSIZE_SHORT(address) == VARSIZE_SHORT(DatumGetPointer(value));
}

static void
write_in_place(const RkStampColumn *column, char *address, Datum value)
{
	if (column->layout.byval)
		store_att_byval(address, value, column->layout.len);
	else if (column->layout.len > 0)
		memcpy(address, DatumGetPointer(value), column->layout.len);
	else
		memcpy(address, DatumGetPointer(value), VARSIZE_SHORT(address));
}

/*
 * Whether the tuple is the slot's own copy: what is written into it is what
 * the executor stores. Some slots (of logical replication, for one) hand out
 * a tuple that they then forget.
 */
static bool
is_slots_own(const TupleTableSlot *slot, HeapTuple tuple)
{
	return (TTS_IS_BUFFERTUPLE(slot) || TTS_IS_HEAPTUPLE(slot)) && TTS_SHOULDFREE(slot) &&
		((const HeapTupleTableSlot *) slot)->tuple == tuple;
}

static HeapTuple
write_all_in_place(const RkStampPlan *plan, RkStampRow *row, const RkStampValues *wanted,
				   const bool *differs)
{
	HeapTuple	tuple = row->tuple;
	bool		own = is_slots_own(row->slot, tuple);
	ptrdiff_t	shift = 0;

	if (!own)
	{
		tuple = heap_copytuple(tuple);
		shift = (char *) tuple->t_data - (char *) row->tuple->t_data;
	}
	for (int i = 0; i < plan->count; i++)
		if (differs[plan->order[i]])
			write_in_place(&plan->column[plan->order[i]],
						   row->address[plan->order[i]] + shift, wanted->value[plan->order[i]]);

	/* what the slot has read out of the tuple, for a WHEN clause, is no more */
	if (own)
		row->slot->tts_nvalid = 0;
	return tuple;
}

static HeapTuple
put_together(const RkStampPlan *plan, Relation rel, RkStampRow *row,
			 const RkStampValues *wanted, const bool *differs)
{
	int			numbers[RK_STAMP_COUNT];
	Datum		values[RK_STAMP_COUNT];
	bool		isnull[RK_STAMP_COUNT];
	int			count = 0;

	for (int i = 0; i < plan->count; i++)
	{
		RkStampOption stamp = plan->order[i];

		if (!differs[stamp])
			continue;
		numbers[count] = plan->column[stamp].number;
		values[count] = wanted->value[stamp];
		isnull[count] = wanted->isnull[stamp];
		count++;
	}
	return heap_modify_tuple_by_cols(row->tuple, RelationGetDescr(rel), count,
									 numbers, values, isnull);
}

/* Give the row these stamps; returns the tuple for the trigger to return. */
HeapTuple
rk_stamp_row_write(const RkStampPlan *plan, Relation rel, RkStampRow *row,
				   const RkStampValues *wanted)
{
	bool		differs[RK_STAMP_COUNT];
	bool		any = false;
	bool		in_place = true;

	for (int i = 0; i < plan->count; i++)
	{
		RkStampOption stamp = plan->order[i];
		const RkStampColumn *column = &plan->column[stamp];

		differs[stamp] = !rk_stamp_same_value(&column->layout,
											  wanted->value[stamp], wanted->isnull[stamp],
											  row->now.value[stamp], row->now.isnull[stamp]);
		if (!differs[stamp])
			continue;
		any = true;
		in_place &= fits_in_place(column, row->address[stamp],
								  wanted->value[stamp], wanted->isnull[stamp]);
		if (OidIsValid(column->domain))
			domain_check(wanted->value[stamp], wanted->isnull[stamp], column->domain,
						 &((RkStampColumn *) column)->domain_cache, plan->context);
	}
	if (!any)
		return row->tuple;
	return in_place ? write_all_in_place(plan, row, wanted, differs)
		: put_together(plan, rel, row, wanted, differs);
}
