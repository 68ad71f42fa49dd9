/*
 * history.h
 *
 * What the three files of audit_history() share: history.c (the call, and
 * which entries belong to a row), history_key.c (a row's key), log_reader.c
 * (the log itself).
 */
#ifndef RK_AUDIT_HISTORY_H
#define RK_AUDIT_HISTORY_H

#include "audit/audit.h"

#include "nodes/execnodes.h"
#include "utils/array.h"
#include "utils/hsearch.h"

typedef struct RkLogLeaf
{
	Relation	rel;
	Relation	index;			/* on (table_id, key_hash) */
	TupleTableSlot *slot;
} RkLogLeaf;

typedef struct RkHistoryEntry
{
	int64		id;
	TimestampTz changed_at;
	int64		txid;
	int64		who;
	char		action;
	char		kind;			/* the action, but for a soft delete or a
								 * restore what happened to the row */
	bool		taken;			/* is in the answer */
	RkLogLeaf  *leaf;
	Jsonb	   *record_id;
	Jsonb	   *old_data;
	Jsonb	   *new_data;
	Jsonb	   *detail;
	text	   *tenant;
	text	   *new_tenant;		/* NULL: it stayed */
} RkHistoryEntry;

/* A key and everything that is in the log under it, oldest first. */
typedef struct RkKeyEntries
{
	Jsonb	   *key;
	int			count;
	int			size;
	RkHistoryEntry *entries;
} RkKeyEntries;

typedef struct RkHistory
{
	Oid			root;
	Relation	rel;
	int32		table_id;
	AttrNumber *key_columns;
	int			key_count;
	RkKey	   *key;

	bool		of_tenant;		/* only entries of this tenant are shown */
	text	   *tenant;			/* NULL: of none */
	int64		tenant_from;	/* from this entry on */

	List	   *leaves;			/* of RkLogLeaf */
	List	   *keys;			/* of RkKeyEntries, as they were read */
	List	   *names;			/* of the table, over time */
	HTAB	   *whos;			/* who-records that were read */
} RkHistory;

/* history_key.c */
extern char **rk_audit_key_of_arguments(const RkHistory *history, FunctionCallInfo fcinfo);
extern char **rk_audit_key_of_array(const RkHistory *history, ArrayType *array);
extern char **rk_audit_key_of_jsonb(const RkHistory *history, Jsonb *key);
RK_NORETURN extern void rk_audit_key_refuse(const RkHistory *history, const char *message);
extern Datum *rk_audit_key_values(const RkHistory *history, char **texts);
extern Jsonb *rk_audit_key_encode(const RkHistory *history, const Datum *values);
extern bool rk_audit_key_hash_stored(const RkHistory *history, Jsonb *key, int32 *hash);
extern bool rk_audit_same_key(Jsonb *a, Jsonb *b);
extern Jsonb *rk_audit_changed_key(const RkHistoryEntry *update);

/* log_reader.c */
extern void rk_audit_log_open(RkHistory *history);
extern void rk_audit_log_close(RkHistory *history);
extern RkKeyEntries *rk_audit_log_read(RkHistory *history, Jsonb *key, int32 hash);
extern void rk_audit_log_put(ReturnSetInfo *result, RkHistory *history, const RkHistoryEntry *entry);
extern int	rk_audit_compare_entries(const void *a, const void *b);

#endif							/* RK_AUDIT_HISTORY_H */
