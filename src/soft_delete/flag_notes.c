/*
 * flag_notes.c
 *
 * How many rows of which tables a statement deleted in flag mode, counted
 * here and noted in the table of batches once: when the statement has ended,
 * or at the latest before the transaction commits. What a cascade deletes is
 * counted to the statement that began it.
 */
#include "soft_delete/soft_delete.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

typedef struct Note
{
	struct Note *next;
	SubTransactionId subid;
	int64		batch;
	Oid			root;
	int64		rows;
	const RkWho *who;
} Note;

static Note *notes = NULL;		/* in TopTransactionContext */

PG_FUNCTION_INFO_V1(rowkeeper_soft_delete_end);

/* Count rows of a batch; negative where they came back. */
void
rk_flag_note(int64 batch, Oid root, int64 rows)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Note	   *note;

	for (note = notes; note != NULL; note = note->next)
		if (note->subid == subid && note->batch == batch && note->root == root)
		{
			note->rows += rows;
			return;
		}
	note = MemoryContextAlloc(TopTransactionContext, sizeof(Note));
	note->next = notes;
	note->subid = subid;
	note->batch = batch;
	note->root = root;
	note->rows = rows;
	note->who = rk_who_current();
	notes = note;
}

/*
 * Write what the current subtransaction counted: what an outer one did must
 * not be written where it may still be rolled back alone.
 */
void
rk_flag_notes_write(void)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Note	  **link = &notes;

	while (*link != NULL)
	{
		Note	   *note = *link;

		if (note->subid != subid)
		{
			link = &note->next;
			continue;
		}
		*link = note->next;
		rk_batch_note(note->batch, note->root, note->rows, note->who->actor);
		pfree(note);
	}
}

/*
 * rowkeeper._soft_delete_end() is the AFTER STATEMENT trigger
 * "rowkeeper_soft_delete_end" of a table in flag mode, its partitions and its
 * view: notes what the statement deleted. Locks: ROW EXCLUSIVE on the table of
 * batches.
 */
Datum
rowkeeper_soft_delete_end(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "_soft_delete_end")));
	if (!rk_flag_cascading)
	{
		rk_flag_notes_write();
		rk_plans_forget();
	}
	PG_RETURN_POINTER(NULL);
}

static void
end_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (notes == NULL)
				return;
			PushActiveSnapshot(GetTransactionSnapshot());
			rk_flag_notes_write();
			PopActiveSnapshot();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			notes = NULL;		/* the memory goes with the transaction */
			break;
		default:
			break;
	}
}

static void
end_subtransaction(SubXactEvent event, SubTransactionId subid,
				   SubTransactionId parent, void *arg)
{
	Note	  **link = &notes;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (*link != NULL)
	{
		Note	   *note = *link;

		if (note->subid == subid && event == SUBXACT_EVENT_ABORT_SUB)
		{
			*link = note->next;
			continue;
		}
		if (note->subid == subid)
			note->subid = parent;
		link = &note->next;
	}
}

void
rk_flag_notes_init(void)
{
	RegisterXactCallback(end_transaction, NULL);
	RegisterSubXactCallback(end_subtransaction, NULL);
}
