/*
 * soft_delete.h
 *
 * The map of soft delete: what its files offer each other. Two modes share
 * the call, batches, restore and purge: in flag mode a deleted row stays in
 * its table and carries a stamp; in trash mode it goes, and a copy of it is
 * kept in a table of its own.
 */
#ifndef RK_SOFT_DELETE_H
#define RK_SOFT_DELETE_H

#include "rowkeeper.h"

#include "access/tableam.h"
#include "executor/tuptable.h"
#include "nodes/lockoptions.h"

#define RK_TRASH_SCHEMA "rowkeeper_trash"

/* What a table's soft_delete() was told; JSON in a trigger's arguments. */
typedef struct RkSoftDeleteOptions
{
	bool		trash;			/* mode */
	char	   *deleted_at;		/* flag: column names; NULL: without */
	char	   *deleted_by;
	char	   *batch;
	bool		allow_hard;		/* on_delete = 'allow' */
	char	   *view_schema;
	char	   *view_name;
	char	   *keep;			/* interval as text; NULL: for ever */
	bool		cascade;
	char	   *trash_table;	/* trash: its name in RK_TRASH_SCHEMA; set by
								 * rk_trash_enable() */
	bool		adopted;		/* flag: the view was there before us */
	bool		hidden;			/* flag: soft_delete_hide_view() dropped it */
	List	   *grants;			/* flag: statements that give a hidden view
								 * its rights again; char * */
} RkSoftDeleteOptions;

/* options.c */
extern RkSoftDeleteOptions *rk_soft_delete_options_of(Oid root);	/* NULL: not enabled */
extern RkSoftDeleteOptions *rk_flag_options_of(Oid root);	/* NULL: not in flag
															 * mode */
extern char *rk_flag_options_format(const RkSoftDeleteOptions *options);
extern List *rk_soft_delete_tables(void);

/*
 * graph.c: which tables reference which. A link is a foreign key between two
 * tables, as it was declared: mostly of roots, but a partition may have one of
 * its own, and one may point to a partition alone.
 */
typedef struct RkLink
{
	Oid			constraint;
	char	   *name;
	Oid			child;
	Oid			parent;
	Oid			index;			/* of parent, that makes the key unique */
	char		on_delete;		/* FKCONSTR_ACTION_... */
	bool		deferrable;
	bool		deferred;
	int			nkeys;
	AttrNumber	child_keys[INDEX_MAX_KEYS];
	AttrNumber	parent_keys[INDEX_MAX_KEYS];
	Oid			operators[INDEX_MAX_KEYS];	/* parent's value = child's value */
} RkLink;

extern List *rk_links_to(Oid parent);	/* RkLink *; who references a table */
extern List *rk_links_from(Oid child);	/* what a table references */
extern List *rk_links_of(Oid relid);	/* what this relation itself does */
extern void rk_graph_check(Oid root, const RkSoftDeleteOptions *wanted);
extern void rk_graph_check_keys(Oid child);

/* flag_triggers.c: the triggers of both modes, as catalog objects */
#define RK_SOFT_DELETE_TRIGGER "rowkeeper_soft_delete"

extern bool rk_flag_row_trigger_set(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options);
extern bool rk_soft_delete_triggers_set(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options);
extern void rk_soft_delete_triggers_drop(FunctionCallInfo fcinfo, Oid root);
extern bool rk_soft_delete_triggers_left(Oid root);
extern void rk_soft_delete_statement_triggers_drop(FunctionCallInfo fcinfo, Oid relid);
extern bool rk_flag_view_triggers_set(FunctionCallInfo fcinfo, Oid view);
extern void rk_flag_view_triggers_drop(FunctionCallInfo fcinfo, Oid view);
extern char *rk_flag_guard_name(const char *event, const char *constraint);
extern bool rk_flag_is_guarded(FunctionCallInfo fcinfo, const RkLink *link);
extern bool rk_flag_guards_set(FunctionCallInfo fcinfo, Oid root, bool children);
extern void rk_flag_guard_set(FunctionCallInfo fcinfo, const RkLink *link);
extern void rk_flag_guards_drop(FunctionCallInfo fcinfo, Oid root);
extern void rk_flag_guard_drop(Oid child, const char *constraint);

/* flag_columns.c */
extern char *rk_flag_columns_check(Oid root, const RkSoftDeleteOptions *options);	/* NULL: none is missing */

/* flag_view.c: the view of the live rows */
extern void rk_flag_view_follow(Oid root, RkSoftDeleteOptions *options);
extern Oid	rk_flag_view_of(Oid root, const RkSoftDeleteOptions *options);	/* InvalidOid: none */
extern bool rk_flag_view_is_owned(Oid view, Oid root);
extern Oid	rk_flag_view_base(Oid view);	/* InvalidOid: not of our shape */
extern bool rk_flag_view_set(FunctionCallInfo fcinfo, Oid root, RkSoftDeleteOptions *options);
extern AttrNumber *rk_flag_view_columns(Relation view, int *count);
extern void rk_flag_view_drop(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options);

/* flag_table.c: what the row triggers know of a table in flag mode, cached */
typedef struct RkFlagTable
{
	Oid			relid;			/* hash key: the table, or a partition */
	bool		valid;
	bool		enabled;
	bool		referenced;		/* some foreign key points to it */
	MemoryContext context;
	RkSoftDeleteOptions *options;
} RkFlagTable;

extern void rk_flag_table_init(void);
extern const RkFlagTable *rk_flag_table(Oid relid); /* NULL: not in flag mode */

/* The columns that a delete fills, and with what. */
typedef struct RkFlagStamp
{
	int			count;
	AttrNumber	columns[3];		/* deleted_at first; then those there are */
	Datum		values[3];
	bool		nulls[3];
	AttrNumber	deleted_by;		/* 0: without */
	AttrNumber	batch;
} RkFlagStamp;

extern void rk_flag_columns(const RkFlagTable *table, Relation rel, RkFlagStamp *stamp);
extern void rk_flag_stamp(Relation rel, RkFlagStamp *stamp, TimestampTz at, int64 batch);
extern Datum rk_flag_actor(Oid type, int32 typmod, bool *isnull);
extern Datum rk_flag_timestamp(Oid type, int32 typmod, TimestampTz at);

/* row_writer.c: rows changed at heap level */
typedef struct RkRowWriter RkRowWriter;

typedef enum RkRowTriggers
{
	RK_TRIGGERS_ALL,
	RK_TRIGGERS_NOT_OURS,		/* all but "rowkeeper_soft_delete" */
	RK_TRIGGERS_NONE
} RkRowTriggers;

extern RkRowWriter *rk_row_writer_open(Oid relid, const AttrNumber *columns, int count,
									   RkRowTriggers triggers);
extern Relation rk_row_writer_relation(RkRowWriter *writer);
extern TupleTableSlot *rk_row_writer_find(RkRowWriter *writer, const Datum *key, Snapshot snapshot);
extern TM_Result rk_row_writer_lock(RkRowWriter *writer, TupleTableSlot *row, LockTupleMode mode,
									TM_FailureData *failure);
extern bool rk_row_writer_update(RkRowWriter *writer, TupleTableSlot *row,
								 const Datum *values, const bool *nulls);

extern bool rk_row_fetch_newest(Relation rel, ItemPointerData tid, TupleTableSlot *slot);

/* flag_children.c: what refers to a row that is deleted */
extern void rk_flag_children_init(void);
extern void rk_flag_follow_links(List *links, Relation rel, HeapTuple row, TimestampTz at, int64 batch);
extern void rk_soft_delete_keep_children(List *links, const RkSoftDeleteOptions *parent,
										 Relation rel, HeapTuple row);
extern bool rk_flag_cascading;	/* a statement of a cascade runs */

/* flag_delete.c, flag_notes.c */
extern HeapTuple rk_flag_complete(const RkChange *change);
extern void rk_flag_notes_init(void);
extern void rk_flag_note(int64 batch, Oid root, int64 rows);
extern void rk_flag_notes_write(void);

/* each file's start */
extern void rk_soft_delete_enable_init(void);
extern void rk_soft_delete_ddl_init(void);
extern void rk_soft_delete_meaning_init(void);
extern void rk_flag_guard_init(void);

/* batch.c */
extern void rk_batch_init(void);
extern Oid	rk_trash_relation(const char *name);	/* InvalidOid: none of
													 * that name */
extern void rk_batch_store_ensure(FunctionCallInfo fcinfo); /* schema, sequence,
															 * table of batches */
extern int64 rk_batch_of_statement(CommandId statement);
extern int64 rk_batch_current(void);
extern int64 rk_batch_enter(int64 batch);	/* returns what to hand to
											 * rk_batch_leave() */
extern void rk_batch_leave(int64 before);
extern bool rk_batch_is_own(int64 batch);	/* drawn in this transaction */

/*
 * Rows of a table that a batch has more, or (negative) less. In flag mode the
 * row trigger notes both, as applications restore by UPDATE too; in trash mode
 * flush, restore and purge do.
 */
extern void rk_batch_note(int64 batch, Oid root, int64 rows, const char *actor);

/* trash.c */
extern void rk_trash_init(void);

/*
 * trash_table.c. In trash mode view_schema and view_name are those of the view
 * of live and deleted rows; NULL: <table>_with_deleted beside the table.
 */
extern void rk_trash_enable(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options);
extern bool rk_trash_disable(FunctionCallInfo fcinfo, Oid root);	/* false: was not on */
extern RkSoftDeleteOptions *rk_trash_options_of(Oid root);	/* NULL: not in trash
															 * mode; what
															 * rk_soft_delete_options_of()
															 * returns then */
extern void rk_trash_options_set(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options);
extern bool rk_trash_is_own_column(const char *name);
extern char *rk_trash_type_sql(Oid type);
extern char *rk_trash_value_sql(const char *text, Oid type);
extern Oid	rk_trash_table_of(Oid root);	/* InvalidOid: none, or it is gone */
extern void rk_trash_run_as_owner(Oid relid, const char *sql);

/* trash_readers.c */
extern void rk_trash_readers_repair(FunctionCallInfo fcinfo, Oid root);
extern void rk_trash_readers_altered(List *relids);

/* trash_view.c: the view of live and deleted rows */
extern char *rk_trash_column_sql(Oid trash, const char *alias, const char *name, Oid type);
extern Oid	rk_trash_view_oid(const RkSoftDeleteOptions *options);	/* InvalidOid: none */
extern void rk_trash_view_refresh(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options);
extern void rk_trash_view_rewrite(Oid root);
extern void rk_trash_view_drop(FunctionCallInfo fcinfo, Oid root, const RkSoftDeleteOptions *options);
extern void rk_trash_view_follow_columns(Oid root, const RkSoftDeleteOptions *options);
extern void rk_trash_view_follow_name(Oid view);

/* trash_ddl.c */
extern void rk_trash_ddl_init(void);

/* purge.c */
extern void rk_purge_init(void);

/* removal.c: rows that leave for good */
extern bool rk_is_purging(void);	/* the row that a trigger was told of goes
									 * for good */
extern bool rk_purge_reaches(Oid root);

#endif							/* RK_SOFT_DELETE_H */
