/*
 * meaning.c
 *
 * What a row's change means where rows are soft-deleted: in flag mode an
 * UPDATE that sets or clears the stamp, in trash mode a DELETE that can be
 * taken back, and the INSERT that does so.
 */
#include "soft_delete/soft_delete.h"

#include "access/htup_details.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

typedef struct Meaning
{
	bool		trash;
	AttrNumber	deleted_at;		/* flag mode, in the relation that holds the
								 * row */
} Meaning;

static void *
prepare_meaning(Relation rel, Oid root)
{
	RkSoftDeleteOptions *options = rk_soft_delete_options_of(root);
	Meaning    *meaning;

	if (options == NULL)
		return NULL;
	meaning = palloc(sizeof(Meaning));
	meaning->trash = options->trash;
	meaning->deleted_at = options->trash ? 0 : get_attnum(RelationGetRelid(rel), options->deleted_at);
	return meaning->trash || meaning->deleted_at > 0 ? meaning : NULL;
}

static RkChangeKind
classify_flag(const Meaning *meaning, const RkChange *change)
{
	TupleDesc	desc = RelationGetDescr(change->rel);
	bool		was_live;
	bool		is_live;

	if (change->kind != RK_UPDATE)
		return change->kind;
	was_live = heap_attisnull(change->old_row, meaning->deleted_at, desc);
	is_live = heap_attisnull(change->new_row, meaning->deleted_at, desc);
	if (was_live == is_live)
		return change->kind;
	return is_live ? RK_RESTORE : RK_SOFT_DELETE;
}

static RkChangeKind
classify_change(void *prepared, const RkChange *change)
{
	const Meaning *meaning = prepared;

	if (!meaning->trash)
		return classify_flag(meaning, change);
	if (change->kind == RK_DELETE && !rk_is_purging())
		return RK_SOFT_DELETE;
	if (change->kind == RK_INSERT && rk_is_restoring())
		return RK_RESTORE;
	return change->kind;
}

/* Stamps that were left out are filled in before the row is captured. */
static HeapTuple
complete_change(void *prepared, const RkChange *change)
{
	const Meaning *meaning = prepared;

	if (meaning->trash || change->kind != RK_UPDATE)
		return change->new_row;
	return rk_flag_complete(change);
}

void
rk_soft_delete_meaning_init(void)
{
	static const RkMeaning meaning = {
		.prepare = prepare_meaning,
		.classify = classify_change,
		.complete = complete_change
	};

	rk_meaning_register(&meaning);
}
