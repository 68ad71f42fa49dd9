/*
 * partition.h
 *
 * The map of the partition feature: every extern of src/partition/, under the
 * file that holds it. A position is an int64 on the scale of a key: of what
 * says a moment, microseconds since 2000 (UTC; wall time for timestamp and
 * date), of an id the number itself. PG_INT64_MIN and PG_INT64_MAX are without
 * end.
 */
#ifndef RK_PARTITION_H
#define RK_PARTITION_H

#include "rowkeeper.h"

#include "nodes/parsenodes.h"
#include "pgtime.h"

#define RK_NO_START PG_INT64_MIN
#define RK_NO_END PG_INT64_MAX

/* keys.c: what a partition key's values say, and how bounds are written */
typedef enum RkKeyKind
{
	RK_KEY_ID,
	RK_KEY_TIMESTAMPTZ,
	RK_KEY_TIMESTAMP,
	RK_KEY_DATE,
	RK_KEY_EPOCH,				/* a number of seconds or parts of one */
	RK_KEY_SNOWFLAKE,			/* milliseconds, then bits of something else */
	RK_KEY_UUIDV7
} RkKeyKind;

typedef struct RkKey
{
	RkKeyKind	kind;
	Oid			type;			/* base type of the column */
	AttrNumber	column;
	char	   *name;
	int64		per_second;		/* EPOCH: units in a second */
	int64		start_ms;		/* SNOWFLAKE: milliseconds since 1970 */
	int			shift;			/* SNOWFLAKE: bits below the milliseconds */
} RkKey;

extern bool rk_key_is_time(const RkKey *key);
extern bool rk_key_is_instant(const RkKey *key);
extern RkKey *rk_key_create(Oid relid, AttrNumber column, const char *epoch);
extern int64 rk_key_position(const RkKey *key, Datum value);
extern char *rk_key_bound(const RkKey *key, int64 position);
extern char *rk_key_stored_bound(const RkKey *key, Datum value);
extern char *rk_time_text(int64 position, bool zone);

/* grid.c: where partitions begin and end */
typedef enum RkStepUnit
{
	RK_STEP_NUMBER,
	RK_STEP_MICROSECONDS,
	RK_STEP_DAYS,
	RK_STEP_MONTHS
} RkStepUnit;

typedef struct RkStep
{
	RkStepUnit	unit;
	int64		count;
} RkStep;

typedef struct RkGrid
{
	const RkKey *key;
	RkStep		step;
	int64		origin;			/* a position; wall time where steps are days
								 * or months */
	pg_tz	   *zone;
} RkGrid;

extern int64 rk_grid_point(const RkGrid *grid, int64 number);
extern int64 rk_grid_number(const RkGrid *grid, int64 position);
extern int64 rk_grid_next(const RkGrid *grid, int64 position);
extern int64 rk_grid_now(const RkGrid *grid);
extern int64 rk_grid_shift(const RkGrid *grid, int64 position, const Interval *by, int sign);
extern int64 rk_grid_natural_origin(const RkGrid *grid);
extern char *rk_grid_name(const RkGrid *grid, int64 position);
extern int64 rk_wall_of(TimestampTz at, pg_tz *zone);
extern TimestampTz rk_instant_of(int64 wall, pg_tz *zone);

/* options.c: what partition() was told of a table */
typedef struct RkPartitionOptions
{
	char	   *every;			/* an interval or a whole number, normalized */
	char	   *ahead;			/* NULL: four periods */
	char	   *keep;			/* NULL: for ever */
	char	   *on_expiry;		/* drop, detach, archive */
	char	   *archive_schema;
	char	   *timezone;
	char	   *partition_schema;	/* NULL: the table's */
	bool		brin;
	char	   *epoch;
	char	   *origin;			/* as text: a number, or a moment */
	Oid			template;		/* of a table of our own: what partitions are
								 * made like; never stored */
} RkPartitionOptions;

extern RkPartitionOptions *rk_partition_options_parse(Jsonb *stored);
extern char *rk_partition_options_format(const RkPartitionOptions *options);
extern Interval *rk_partition_interval(const char *text);
extern char *rk_partition_interval_text(const Interval *interval);
extern int64 rk_partition_number(const char *text);
extern int64 rk_partition_origin(const RkGrid *grid, const char *text);
extern char *rk_partition_origin_text(const RkGrid *grid, int64 origin);
extern char *rk_partition_check_length(const RkKey *key, const char *option, const char *text, bool zero);
extern RkStep rk_partition_step(const RkKey *key, const char *every);
extern pg_tz *rk_partition_zone(const char *name);

/* registry.c: which tables are maintained */
typedef struct RkPartitionTable
{
	Oid			root;
	RkPartitionOptions *options;
} RkPartitionTable;

extern RkPartitionOptions *rk_partition_options_of(Oid root);
extern List *rk_partition_tables(void);
extern void rk_partition_options_store(Oid root, const RkPartitionOptions *options);
extern bool rk_partition_options_forget(Oid root);
extern void rk_partition_table_dropped(Oid relid, const char *identity);
extern void rk_partition_table_created(Oid relid);
extern void rk_partition_table_renamed(Oid relid, const char *old_schema, const char *old_name);
extern void rk_partition_schema_renamed(const char *old_name, const char *new_name);
extern void rk_partition_registry_refresh(void);

/* bounds.c: the partitions there are */
typedef struct RkPartition
{
	Oid			relid;
	Oid			parent;			/* the table, or what a split has put under it */
	char		relkind;
	bool		pending;		/* its detach is */
	int64		lower;
	int64		upper;
	PartitionBoundSpec *spec;
} RkPartition;

typedef struct RkPartitionSet
{
	Oid			root;
	Oid			owner;
	RkPartitionOptions *options;
	RkKey	   *key;
	RkGrid		grid;
	RkPartition *parts;			/* by lower bound; without the default one */
	int			count;
	List	   *histories;		/* RkPartition *: what a split has put above
								 * some */
	Oid			default_partition;	/* or InvalidOid */
	bool		look_at_rows;	/* pages are not enough: inserts that were
								 * rolled back leave some */
} RkPartitionSet;

extern char *rk_partition_key_problem(Oid relid, AttrNumber *column);
extern RkPartitionSet *rk_partition_set_load(Oid root, RkPartitionOptions *options);
extern void rk_partition_set_read(RkPartitionSet *set);
extern const RkPartition *rk_partition_find(const RkPartitionSet *set, Oid partition);
extern char *rk_partition_lower_text(const RkPartitionSet *set, const RkPartition *part);
extern char *rk_partition_upper_text(const RkPartitionSet *set, const RkPartition *part);
extern Oid	rk_partition_parent_for(const RkPartitionSet *set, int64 position);
extern Oid	rk_partition_parent_of(const RkPartitionSet *set, Oid partition);
extern int	rk_partition_covering(const RkPartitionSet *set, int64 position);

/* shown.c: what the partitions of a table show of how they are made */
extern char *rk_partition_shown_zone(const RkPartitionSet *set);
extern char *rk_partition_shown_every(const RkPartitionSet *set);
extern int64 rk_partition_shown_origin(const RkPartitionSet *set);

/* ahead.c: which partitions are wanted */
typedef struct RkWanted
{
	int64		lower;			/* RK_NO_START: not a point, see lower_text */
	int64		upper;
	char	   *lower_text;
	char	   *upper_text;
	char	   *name;
} RkWanted;

#define RK_MAX_CREATED 1000		/* by one call */

extern void rk_partition_check_ahead(const RkPartitionSet *set);
extern int64 rk_partition_now(const RkPartitionSet *set);
extern List *rk_partitions_wanted(const RkPartitionSet *set, int limit, bool *more);
extern bool rk_partition_is_in_reach(const RkPartitionSet *set, int64 position);
extern RkWanted *rk_partition_wanted_for(const RkPartitionSet *set, int64 position);
extern List *rk_partitions_expired(const RkPartitionSet *set);
extern bool rk_partition_is_past(const RkPartitionSet *set, int64 upper);
extern bool rk_partition_is_most(const RkPartitionSet *set, List *expired);

/* schemas.c: schemas that partitions are to be in */
extern void rk_partition_check_schema(const char *option, const char *schema, Oid owner);

/* create.c: one new partition */
extern void rk_partition_run(Oid owner, const char *sql);
extern char *rk_partition_schema_of_new(const RkPartitionSet *set);
extern char *rk_partition_create_sql(const RkPartitionSet *set, const RkWanted *wanted);
extern char *rk_partition_attach_sql(const RkPartitionSet *set, const RkWanted *wanted);
extern bool rk_partition_is_made(const RkPartitionSet *set, const RkWanted *wanted);
extern Oid	rk_partition_build(FunctionCallInfo fcinfo, const RkPartitionSet *set, const RkWanted *wanted);
extern void rk_partition_attach(FunctionCallInfo fcinfo, const RkPartitionSet *set, const RkWanted *wanted, Oid relid);

/* dress.c: what LIKE leaves out */
typedef enum RkDress
{
	RK_DRESS_ALL,
	RK_DRESS_CLOSED,			/* but for rights, row security and policies;
								 * rights that it should not have go */
	RK_DRESS_GRANTS				/* the rights it has not got, only */
} RkDress;

extern Oid	rk_partition_model(const RkPartitionSet *set);
extern char *rk_partition_storage(Oid parent, Oid model);
extern void rk_partition_dress_prepare(Oid relid);
extern bool rk_partition_is_dressed(Oid parent, Oid child);
extern void rk_partition_dress(Oid parent, Oid child, Oid owner, RkDress dress);

/* locks.c: one deadline over all locks of an attempt */
typedef struct RkLockRequest
{
	Oid			relid;			/* InvalidOid: the end of the list */
	LOCKMODE	mode;
} RkLockRequest;

#define RK_LONGEST_SWAP_MS 2000 /* to parse a view anew, say, can run its
								 * owner's code */

extern List *rk_partition_partners(Oid root);
extern bool rk_partition_may_attach(const RkPartitionSet *set);
extern bool rk_partition_try_for(int limit, const RkLockRequest *locks, void (*body) (void *arg), void *arg,
								 bool insist, ErrorData **failure);
extern bool rk_partition_is_for_lock(const ErrorData *error);
extern void rk_partition_commit_at_once(void);
extern int	rk_partition_pause(int attempts);
extern void rk_partition_wait(int attempts, int at_least);
extern void rk_partition_note_locked(void);
extern void rk_partition_say_locked(int attempts);
extern void rk_partition_add_lock(RkLockRequest *locks, int *count, Oid relid, LOCKMODE mode);
extern bool rk_partition_try(const RkLockRequest *locks, void (*body) (void *arg), void *arg,
							 bool insist, ErrorData **failure);
extern RkLockRequest *rk_partition_attach_locks(const RkPartitionSet *set);
extern RkLockRequest *rk_partition_removal_locks(const RkPartitionSet *set, Oid partition, bool detach, bool drop);

/* budget.c: one limit over all that a run does for an owner */
extern void rk_partition_budget_begin(Oid owner);
extern int	rk_partition_budget_limit(int limit);
extern void rk_partition_budget_spend(int milliseconds);

/* own.c: partitioned tables of features of ours */
extern RkPartitionOptions *rk_partition_own_options_of(Oid root);
extern List *rk_partition_own_tables(void);
extern void rk_partition_own_init(void);

/* upkeep.c: what maintain() does, table by table */
typedef enum RkWork
{
	RK_WORK_IDLE,				/* nothing is left to do */
	RK_WORK_AGAIN,				/* something was done, or a command is to be
								 * run: commit, go on */
	RK_WORK_LATER				/* a lock could not be had in time */
} RkWork;

typedef struct RkTurn
{
	Oid			root;
	int			attempts;		/* that failed for a lock, one after another */
	TimestampTz since;			/* when the first of them did */
	TimestampTz not_before;
	ErrorData  *failed;			/* to be recorded after what was done */
	bool		counted;		/* retention: it is not too much */
	List	   *expired;		/* retention: what was counted, OIDs */
	bool		plain;			/* retention: no worker is to be had */
	bool		sent;			/* retention: a command was asked for */
	bool		intents;		/* retention: there may be some */
} RkTurn;

extern ErrorData *rk_partition_create(const RkPartitionSet *set, const RkWanted *wanted,
									  const RkLockRequest *locks, bool insist, ErrorData **failure);
extern void rk_partition_fail_later(RkTurn *turn, RkMaintainRun *run, const ErrorData *error);
extern void rk_partition_upkeep_init(void);

/* retention.c: partitions that are no longer kept */
extern List *rk_partition_intents(void);
extern void rk_partition_intent_detached(Oid partition);
extern void rk_partition_intent_forget(Oid partition);
extern void rk_partition_intents_forget(Oid root);
extern RkWork rk_partition_expire(RkPartitionSet *set, RkTurn *turn, RkMaintainRun *run);
extern List *rk_partition_expire_sql(const RkPartitionSet *set, Oid partition);

/* enable.c: partition(), partition_off() */
extern bool rk_partition_is_plain(Oid relid);
extern RkPartitionSet *rk_partition_merge_options(FunctionCallInfo fcinfo, Oid root, AttrNumber column,
												  const RkPartitionOptions *before);
extern void rk_partition_check_referencing(const RkPartitionSet *set);
extern void rk_partition_register(FunctionCallInfo fcinfo, const RkPartitionSet *set);
extern void rk_partition_create_missing(FunctionCallInfo fcinfo, const RkPartitionSet *set);
extern void rk_partition_enable_init(void);

/* convert.c: a plain table becomes a partitioned one, in steps */
typedef struct RkConversion
{
	Oid			relid;			/* the table; swapped: the partitioned one */
	Oid			owner;
	char	   *key;
	RkPartitionOptions *options;
	int64		upper;			/* where the table's rows end */
	char	   *bound;			/* the same as SQL takes it */
	bool		swapped;
} RkConversion;

/* convert_state.c: what is known of a conversion, and taken back of it */

/* A statement on somebody's table, for him. */
typedef struct RkConvertErrand
{
	Oid			role;
	char	   *sql;
} RkConvertErrand;

extern RkConversion *rk_convert_read(Oid relid);
extern void rk_convert_write(const RkConversion *conversion);
extern void rk_convert_forget(Oid relid);
extern void rk_convert_note_foreign_keys(Oid relid);
extern void rk_convert_note_swapped(Oid before, Oid root);
extern List *rk_convert_errands(Oid relid, const char *query);
extern bool rk_convert_has_check(Oid relid, bool valid);
extern char *rk_convert_find_index(const RkConversion *conversion, bool *usable);
extern void rk_convert_drop_check(const RkConversion *conversion);
extern char *rk_convert_drop_index_sql(const RkConversion *conversion, const char *how);
extern List *rk_convert_left_over_in(Oid root);
extern char *rk_convert_left_over_index(Oid root);
extern void rk_convert_drop_left_over(Oid root);
extern void rk_convert_check_name(const RkConversion *conversion);
extern void rk_convert_lock(Oid relid);
extern void rk_convert_unlock(Oid relid);
extern List *rk_partition_conversions(void);
extern bool rk_partition_convert_give_up(FunctionCallInfo fcinfo, Oid relid);
extern void rk_partition_convert_init(void);

/* convert_now.c: within a transaction */
extern void rk_partition_convert_now(FunctionCallInfo fcinfo, Oid relid);

/* convert_plan.c: whether it can, and where its rows end */
extern AttrNumber rk_convert_key_column(FunctionCallInfo fcinfo, Oid relid, const char *key);
extern void rk_convert_warn(Oid relid, const char *key);
extern void rk_convert_check(Oid relid, const char *key, Oid role);
extern RkPartitionSet *rk_convert_set(const RkConversion *conversion);
extern RkConversion *rk_convert_plan(const RkPartitionSet *set, bool now);
extern bool rk_convert_is_late(const RkConversion *conversion);

/* convert_swap.c: the table as a partition of a new one in its name */

/* What is ready before others have to wait. */
typedef struct RkConvertSwap
{
	Oid			root;			/* the new table, which has no name yet */
	List	   *statements;		/* that are left to run */
	char	   *state;			/* of the catalog, see convert_swap.c */
} RkConvertSwap;

extern char *rk_convert_wide_name(const RkConversion *conversion);
extern char *rk_convert_check_sql(const RkConversion *conversion, bool valid);
extern char *rk_convert_index_sql(const RkConversion *conversion, bool concurrently);
extern void rk_convert_run(Oid role, bool quiet, const char *sql);
extern RkLockRequest *rk_convert_locks(const RkConversion *conversion);
extern RkConvertSwap *rk_convert_prepare(FunctionCallInfo fcinfo, const RkConversion *conversion, Oid role);
extern bool rk_convert_is_altered(const RkConversion *conversion, const RkConvertSwap *swap);
extern void rk_convert_check_prepared(const RkConversion *conversion, const RkConvertSwap *swap);
extern void rk_convert_swap(FunctionCallInfo fcinfo, const RkConversion *conversion, const RkConvertSwap *swap);

/* split.c: a wide partition is divided while it is in use */
typedef struct RkSplit
{
	Oid			root;
	Oid			owner;
	Oid			wide;			/* the partition; InvalidOid: dropped */
	Oid			history;		/* what takes its place; InvalidOid: dropped */
	int64		first;			/* where the period of its oldest row begins */
	char	   *search_path;	/* of the owner's code, where rows are copied */
	bool		watched;		/* it has the triggers */
	List	   *position;		/* the last key that was copied, as texts */
	bool		scanned;		/* all were looked at once */
	int64		copied_at;		/* a full transaction id after the last copy;
								 * 0: they are not */
	bool		swapped;
} RkSplit;

typedef struct RkSplitCall
{
	Oid			root;
	MemoryContext context;		/* of all of it */
	MemoryContext step_context;
	bool		insist;
	bool		more;
	bool		altered;		/* begin anew */
	int			limit;			/* rows of a batch */
	int			batches;
	int64		done;
	bool		for_good;		/* what fails now would fail the next call,
								 * too */
	bool		swapped;
	bool		nothing;		/* is to be split */
	int			attempts;		/* at the swap */
	List	   *closed;			/* new tables that may be, to be looked at yet */
	char	   *left_closed;	/* why some cannot be; NULL: all could */
	ErrorData  *failure;		/* of a lock, in this step */
	char	   *reason;			/* the last one's */
} RkSplitCall;

typedef void (*RkSplitStep) (RkSplitCall *call);

#define RK_SPLIT_TRIGGER "!rowkeeper_split"
#define RK_SPLIT_TRUNCATE_TRIGGER "!rowkeeper_split_truncate"
#define RK_SPLIT_CHECK "rowkeeper_split"
#define RK_SPLIT_POLICY "rowkeeper_split"

extern void rk_split_commit(RkSplitCall *call, RkSplitStep step);
extern void rk_split_insist(RkSplitCall *call, RkSplitStep step);
extern long rk_split_give_way(RkSplitCall *call, RkSplitStep step, void (*failed) (RkSplitCall *call));
extern bool rk_split_is_in_the_way(const ErrorData *error);
extern RkSplit *rk_split_useful(RkSplitCall *call);
extern bool rk_partition_is_splitting(Oid root);
extern List *rk_split_spare(const RkPartitionSet *set, List *expired);
extern void rk_partition_split(Oid root);

/* split_state.c: what is known of it, and taken back */
extern RkSplit *rk_split_read(Oid root);
extern RkSplit *rk_split_current(Oid root);
extern void rk_split_check_there(Oid root);
extern void rk_split_note(const RkSplit *split, const char *change);
extern void rk_split_note_position(const RkSplit *split, List *position);
extern void rk_split_write(const RkSplit *split);
extern void rk_split_forget(Oid root);
extern bool rk_split_is_unaltered(const RkSplit *split);
extern void rk_split_check(Oid root, Oid wide);
extern void rk_split_drop_triggers(Oid wide);
extern bool rk_split_has_constraint(const RkSplit *split);
extern void rk_split_drop_constraint(const RkSplit *split);
extern bool rk_split_drop_table(Oid relid);
extern void rk_split_undo(const RkSplit *split);
extern bool rk_partition_split_give_up(FunctionCallInfo fcinfo, Oid root);
extern void rk_partition_split_init(void);

/* split_leaves.c: the partitions to be, and the triggers */
extern const RkPartition *rk_split_load_wide(RkSplitCall *call, const RkSplit *split, RkPartitionSet **set);
extern RkLockRequest *rk_split_partner_locks(Oid root, LOCKMODE mode, int room, int *count);
extern bool rk_split_has_row_security(Oid relid);
extern void rk_split_begin(RkSplitCall *call);
extern void rk_split_make_leaves(RkSplitCall *call);
extern void rk_split_watch(RkSplitCall *call);

/* split_copy.c: the rows there are */
extern char *rk_split_key_columns(const RkRowKey *key, const char *prefix);
extern bool rk_split_can_follow(const RkRowKey *key);
extern int	rk_split_copy(const RkSplit *split, List *position, int limit, List **last);
extern void rk_split_copy_rows(RkSplitCall *call);
extern void rk_split_wait_for_snapshots(RkSplitCall *call);
extern void rk_split_compare(RkSplitCall *call);

/* split_as_writer.c: with the owner's rights, by the writer */
extern void rk_split_as_writer_init(void);
extern void rk_split_become_owner(Oid owner, RkIdentity *saved);
extern uint64 rk_split_run_as_writer(SPIPlanPtr plan, Oid owner, Datum *values, const char *nulls);

/* split_swap.c: one for the other */
extern void rk_split_swap(RkSplitCall *call);
extern void rk_split_open_at_once(const RkSplit *split);
extern void rk_split_open(RkSplitCall *call);
extern void rk_split_drop_old(RkSplitCall *call);
extern void rk_split_finish(RkSplitCall *call);
extern void rk_split_analyze(RkSplitCall *call);

/* split_apply.c: what is written meanwhile */
extern void rk_split_apply_init(void);

#endif							/* RK_PARTITION_H */
