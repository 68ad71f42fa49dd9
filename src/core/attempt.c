/*
 * attempt.c
 *
 * Work that may fail without failing what it is part of: it runs in a
 * subtransaction of its own, and its error is handed back instead of raised.
 */
#include "rowkeeper.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

static ErrorData *
run_attempt(void (*body) (void *arg), void *arg, bool undo)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		body(arg);
		if (!undo)
			ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	if (undo || error != NULL)
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;

	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	return error;
}

/*
 * Run body(arg); NULL, or the error that undid it, in the caller's memory
 * context. Locks that it took stay where it succeeded and go where it failed.
 * Cancelling the query is never an outcome: that is raised.
 */
ErrorData *
rk_attempt(void (*body) (void *arg), void *arg)
{
	return run_attempt(body, arg, false);
}

/*
 * The same, only to see how it would end: undone in any case. What lives as
 * long as a statement's memory has to go with the subtransaction: body needs
 * an SPI level of its own where it runs statements.
 */
ErrorData *
rk_attempt_and_undo(void (*body) (void *arg), void *arg)
{
	return run_attempt(body, arg, true);
}
