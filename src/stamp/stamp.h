/*
 * stamp.h
 *
 * The map of the stamp feature: columns that say when a row was last changed
 * and created, by whom, and in which version it is, written by one BEFORE ROW
 * trigger. What the table is to have is known from the trigger's arguments
 * alone (options.c); what that means for the rows of one relation is worked
 * out once and cached (plan.c); the trigger follows it (row.c).
 */
#ifndef RK_STAMP_H
#define RK_STAMP_H

#include "rowkeeper.h"

/*
 * Triggers fire in the order of their names, and this one must see what the
 * others made of the row.
 */
#define RK_STAMP_TRIGGER "~rowkeeper_stamp"
#define RK_STAMP_FUNCTION "_stamp"

/*
 * The options of stamp(), in the order of its arguments after the table: the
 * stamps themselves, which are names of columns, then how they behave.
 */
typedef enum RkStampOption
{
	RK_UPDATED_AT,
	RK_VERSION,
	RK_CREATED_AT,
	RK_CREATED_BY,
	RK_UPDATED_BY,
	RK_STAMP_COUNT,
	RK_ON_NOOP = RK_STAMP_COUNT,
	RK_CLIENT_VALUE,
	RK_CLOCK,
	RK_STALE,
	RK_CLIENT_VERSION,
	RK_SQLSTATE,
	RK_STAMP_OPTION_COUNT
} RkStampOption;

/* options.c: what stamp() was told of a table */
typedef struct RkStampOptions
{
	char	   *value[RK_STAMP_OPTION_COUNT];	/* NULL, of a stamp: without */
} RkStampOptions;

extern const char *const rk_stamp_option_names[RK_STAMP_OPTION_COUNT];

extern RkStampOptions *rk_stamp_options_default(void);
extern RkStampOptions *rk_stamp_options_parse(const char *json);
extern char *rk_stamp_options_format(const RkStampOptions *options);
extern bool rk_stamp_options_equal(const RkStampOptions *a, const RkStampOptions *b);
extern void rk_stamp_options_check(const RkStampOptions *options);
extern char *rk_stamp_check_word(RkStampOption option, const char *value);

/* columns.c: the columns that are stamped */
extern bool rk_stamp_is_time(RkStampOption stamp);
extern bool rk_stamp_is_actor(RkStampOption stamp);
extern AttrNumber rk_stamp_find_column(Relation rel, const char *name);
extern void rk_stamp_check_columns(Relation rel, const RkStampOptions *options, bool stamped);
extern void rk_stamp_check_partition_keys(Relation rel, const RkStampOptions *options);
extern char *rk_stamp_default_version(Relation rel);
extern char *rk_stamp_missing_columns(Relation rel, const RkStampOptions *options);

/* enable.c: stamp(), stamp_off() */
typedef struct RkStampTrigger
{
	Oid			oid;
	Oid			function;
	char		state;			/* tgenabled: 'O', 'A', 'D', 'R' */
	bool		is_clone;		/* of the trigger of a partitioned table */
	bool		is_internal;	/* of a constraint, for one */
	char	   *argument;		/* the only one, or NULL */
} RkStampTrigger;

extern void rk_stamp_enable_init(void);
extern RkStampTrigger *rk_stamp_trigger_of(Relation rel);	/* NULL: not stamped */
extern char *rk_stamp_create_sql(Oid root, const RkStampOptions *options);

/* ddl_events.c: what happens to stamped tables as objects */
extern void rk_stamp_ddl_init(void);

/* plan.c: what the trigger does to the rows of one relation */
typedef enum RkNoop
{
	RK_NOOP_UNCHANGED,
	RK_NOOP_SUPPRESS,
	RK_NOOP_BUMP
} RkNoop;

typedef enum RkClientValue
{
	RK_CLIENT_OVERRIDE,
	RK_CLIENT_RESPECT,
	RK_CLIENT_ERROR
} RkClientValue;

typedef enum RkClock
{
	RK_CLOCK_TRANSACTION,
	RK_CLOCK_WALL,
	RK_CLOCK_MONOTONIC
} RkClock;

typedef enum RkStale
{
	RK_STALE_OFF,
	RK_STALE_ERROR,
	RK_STALE_SKIP
} RkStale;

/* How the values of a column are laid out in a tuple. */
typedef struct RkLayout
{
	int16		len;
	char		align;
	bool		byval;
	bool		ignored;		/* says nothing about whether a row changed */
	int			offset;			/* in a row without nulls; -1: it depends */
} RkLayout;

typedef struct RkStampColumn
{
	AttrNumber	number;			/* 0: the table is without */
	const char *name;
	Oid			type;			/* the base type of a domain */
	int32		typmod;
	RkLayout	layout;
	bool		may_be_short;	/* a varlena with a header of one byte */
	Oid			domain;			/* InvalidOid: none */
	void	   *domain_cache;

	/* an actor as a value of the column's type, as last worked out */
	FmgrInfo	input;
	Oid			input_param;
	const RkWho *who;			/* NULL: not yet */
	uint64		who_generation;
	Datum		actor;
	bool		actor_isnull;

	/* the column's default, where it must be told from a client's value */
	bool		has_default;
	struct ExprState *default_value;	/* NULL also where it gives another
										 * value each time */
} RkStampColumn;

typedef struct RkStampPlan
{
	MemoryContext context;		/* this, and all below */
	Oid			relid;
	Oid			root;
	bool		is_partition;
	Bitmapset  *partition_columns;	/* that decide where a row belongs;
									 * numbers as in tg_updatedcols */
	bool		other_triggers; /* a trigger besides ours may change NEW */

	RkNoop		on_noop;
	RkClientValue client_value;
	RkClock		clock;
	RkStale		stale;
	bool		client_sends_next;
	int			sqlstate;

	RkStampColumn column[RK_STAMP_COUNT];
	int			count;			/* stamps that the table has */
	RkStampOption order[RK_STAMP_COUNT];	/* of them, by column number */

	Bitmapset  *stamp_columns;	/* numbers as in tg_updatedcols */

	int			natts;
	RkLayout   *layout;			/* of all columns */
	int			tail_length;	/* bytes from the first stamp to a row's end
								 * where none there is null; 0: it depends */
	int			tail_offset[RK_STAMP_COUNT];	/* from the first stamp */
} RkStampPlan;

extern void rk_stamp_plan_init(void);
extern RkStampPlan *rk_stamp_plan_get(FmgrInfo *flinfo, Relation rel, const Trigger *trigger);
extern void rk_stamp_plan_release(FmgrInfo *flinfo);

/* values.c: what is stamped */
extern TimestampTz rk_stamp_base_time(const RkStampPlan *plan);
extern Datum rk_stamp_time(const RkStampPlan *plan, const RkStampColumn *column,
						   TimestampTz base, Datum before, bool before_isnull);
extern Datum rk_stamp_actor(RkStampPlan *plan, RkStampColumn *column, bool *isnull);
extern int64 rk_stamp_version_value(const RkStampColumn *column, Datum value);
extern Datum rk_stamp_version_datum(const RkStampPlan *plan, const RkStampColumn *column, int64 version);

/* tuple.c: stamps in rows */
typedef struct RkStampValues
{
	Datum		value[RK_STAMP_COUNT];
	bool		isnull[RK_STAMP_COUNT];
} RkStampValues;

typedef struct RkStampRow
{
	HeapTuple	tuple;
	TupleTableSlot *slot;		/* that holds it */
	char	   *address[RK_STAMP_COUNT];	/* of the value; NULL: it is null */
	RkStampValues now;			/* what it has */
} RkStampRow;

extern void rk_stamp_row_read(const RkStampPlan *plan, Relation rel, HeapTuple tuple,
							  TupleTableSlot *slot, RkStampRow *row);
extern HeapTuple rk_stamp_row_write(const RkStampPlan *plan, Relation rel, RkStampRow *row,
									const RkStampValues *wanted);
extern bool rk_stamp_same_bytes(const RkLayout *layout, Datum a, Datum b);
extern bool rk_stamp_row_changed(const RkStampPlan *plan, Relation rel, HeapTuple before,
								 HeapTuple after, const Bitmapset *assigned);

/* Whether two values are the same byte for byte, however they are stored. */
static inline bool
rk_stamp_same_value(const RkLayout *layout, Datum a, bool a_isnull, Datum b, bool b_isnull)
{
	if (a_isnull || b_isnull)
		return a_isnull && b_isnull;
	return layout->byval ? a == b : rk_stamp_same_bytes(layout, a, b);
}

/* moves.c: rows that move between partitions */
extern void rk_stamp_moves_init(void);
extern void rk_stamp_move_expect(const RkStampPlan *plan, int depth, ItemPointer before, HeapTuple after);
extern bool rk_stamp_move_completes(const RkStampPlan *plan, int depth, RkStampValues *values);

#endif							/* RK_STAMP_H */
