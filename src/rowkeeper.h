/*
 * rowkeeper.h
 *
 * The map of the module: every extern of core/, under the file that holds it.
 * A feature's own externs are in its folder's header (audit/audit.h).
 * Features meet here and nowhere else.
 */
#ifndef ROWKEEPER_H
#define ROWKEEPER_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/bitmapset.h"
#include "nodes/nodes.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "storage/lockdefs.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"

#include "compat.h"

/* core/settings.c */
extern char *rk_actor_settings;
extern int	rk_inline_rows;
extern bool rk_audit_capture;
extern bool rk_own_statement;
extern int	rk_lock_budget;
extern int	rk_lock_patience;
extern int	rk_owner_budget;

extern void rk_core_init(void);

/* each feature's start, called by rowkeeper.c alone */
extern void rk_audit_init(void);
extern void rk_stamp_init(void);
extern void rk_soft_delete_init(void);
extern void rk_tenant_init(void);
extern void rk_partition_init(void);
extern void rk_worker_init(void);


/* core/steps.c: what enabling calls return, and how they speak */
extern void rk_steps_begin(FunctionCallInfo fcinfo);
extern Oid	rk_target_argument(FunctionCallInfo fcinfo);
extern List *rk_names_argument(ArrayType *array);
extern void rk_check_owner(Oid relid);
extern void rk_step(FunctionCallInfo fcinfo, const char *step);
extern void rk_warn_of(const char *view, Oid root);

/* core/option_json.c: a feature's options in the arguments of its trigger */
extern char *rk_option_text(Jsonb *options, const char *name);
extern bool rk_option_boolean(Jsonb *options, const char *name, bool absent);
extern List *rk_option_names(Jsonb *options, const char *name);
extern void rk_option_push(JsonbParseState **state, JsonbIteratorToken token, const char *string);
extern void rk_option_push_text(JsonbParseState **state, const char *name, const char *value);
extern void rk_option_push_boolean(JsonbParseState **state, const char *name, bool value);
extern char *rk_options_text(JsonbValue *object);
RK_NORETURN extern void rk_refuse_option(const char *option, const char *message, const char *hint);
#define RK_MAX_YEARS 6000		/* of a length of time: so far time goes back */
extern char *rk_option_keep(Interval *keep);

/* core/internal_statement.c */
typedef struct RkIdentity
{
	Oid			user;
	int			sec_context;
	int			guc_level;
	bool		users_code;		/* may have run meanwhile */
} RkIdentity;

extern void rk_identity_assume(RkIdentity *saved, Oid role, bool restricted);
extern void rk_identity_assume_reader(RkIdentity *saved, Oid role);
extern void rk_identity_assume_owner(RkIdentity *saved, Oid owner);
extern void rk_identity_own_ddl(void);
extern void rk_identity_restore(const RkIdentity *saved);
extern void rk_plans_at_risk(void);
extern void rk_plans_forget(void);
extern void rk_settings_pin(void);
extern void rk_constraints_immediate(void);
extern bool rk_in_own_statement(void);
extern Oid	rk_extension_owner(void);
extern SPIPlanPtr rk_plan_once(SPIPlanPtr *plan, const char *sql, int nargs, Oid *types);
extern uint64 rk_run(Oid role, const char *sql);
extern uint64 rk_run_args(Oid role, const char *sql, int nargs, Oid *types,
						  Datum *values, const char *nulls);
extern Datum rk_fetch(Oid role, const char *sql, int nargs, Oid *types,
					  Datum *values, const char *nulls, bool *isnull);
extern char *rk_fetch_text_planned(SPIPlanPtr *plan, Oid object, const char *sql);
extern List *rk_fetch_oids(const char *sql);
extern Datum rk_fetch_about(Oid role, Oid object, const char *sql, bool *isnull);
extern char *rk_fetch_text_about(Oid role, Oid object, const char *sql);
extern List *rk_fetch_texts_about(Oid role, Oid object, const char *sql);
extern bool rk_exists_about(Oid role, Oid object, const char *sql);
extern uint64 rk_run_about(Oid role, Oid object, const char *sql);
extern void rk_run_step(FunctionCallInfo fcinfo, Oid role, const char *sql);
extern void rk_run_ddl_step(FunctionCallInfo fcinfo, Oid role, const char *sql);
extern char *rk_name_fit(const char *name, const char *suffix);
extern Oid	rk_relation_owner(Oid relid);
extern char *rk_relation_name(Oid relid);

/* core/cache.c: what a session remembers by OID */
extern HTAB *rk_cache_create(const char *name, int expected, Size entry_size);
extern void rk_cache_visit(HTAB *cache, Oid oid, void (*visit) (void *entry));
extern void rk_relcache_listen(void (*callback) (Datum arg, Oid relid));

/* core/store.c: schemas of ours that outlive the extension */
extern void rk_store_check_schema(const char *schema);
extern void rk_store_reset_schema_acl(const char *schema);
extern void rk_store_reset_relation_acl(Oid relid);

/* core/isolation.c: whether row security holds who has us do something */
typedef enum RkIsolation
{
	RK_NOT_ISOLATED,			/* not by a feature of ours */
	RK_ACTS_FOR_NOBODY,
	RK_ACTS_FOR_TENANT			/* or user: the transaction has a claim */
} RkIsolation;

typedef RkIsolation (*RkIsolationOf) (Oid root);

extern RkIsolationOf rk_isolation_of;	/* NULL: no feature isolates */
extern bool rk_is_held(Oid root);
extern bool rk_is_held_by_claim(Oid root);

/* core/who.c */
typedef struct RkWho
{
	const char *actor;
	const char *actor_source;	/* token, context, claim, setting, session */
	Oid			session_user;
	Oid			role;			/* the outer user: SET ROLE, not SECURITY
								 * DEFINER */
	const char *application_name;
	Jsonb	   *context;		/* NULL: none */
	bool		replica;		/* session_replication_role = replica */
	uint32		hash;			/* of all of the above */
} RkWho;

/* The user that the transaction acts for, or NULL; by a token: is_signed. */
typedef const char *(*RkWhoClaim) (bool *is_signed);

extern RkWhoClaim rk_who_claim; /* NULL: no feature has such claims */
extern void rk_who_init(void);
extern const RkWho *rk_who_current(void);
extern bool rk_is_within_transaction(void);
extern uint64 rk_who_generation;	/* moves on when interned objects are
									 * dropped */

/* core/relation_info.c */
#define RK_MAX_CONSUMERS 4

typedef struct RkRelationInfo
{
	Oid			relid;			/* hash key: the relation that holds the row */
	bool		valid;			/* set only when all below is filled */
	int			pins;			/* in use by a capture further up the stack */
	MemoryContext context;		/* everything below lives here */
	Oid			root;			/* topmost partitioned ancestor, or relid */
	void	   *consumer[RK_MAX_CONSUMERS]; /* what each prepared, NULL: not
											 * its table */
	void	   *meaning;		/* what rk_meaning_register() prepared, or
								 * NULL */
} RkRelationInfo;

extern void rk_relation_info_init(void);
extern RkRelationInfo *rk_relation_info_get(Relation rel);
extern Oid	rk_root_of(Oid relid);

/* core/changes.c: the change batch */
#define RK_CHANGES_TRIGGER "!rowkeeper_changes" /* must fire before any other */
#define RK_FLUSH_TRIGGER "rowkeeper_changes_flush"

typedef enum RkChangeKind
{
	RK_INSERT = 'I',
	RK_UPDATE = 'U',
	RK_DELETE = 'D',
	RK_TRUNCATE = 'T',

	/* what a change means, never what it is */
	RK_SOFT_DELETE = 'S',
	RK_RESTORE = 'R'
} RkChangeKind;

typedef struct RkChange
{
	RkChangeKind kind;
	RkChangeKind meaning;		/* to the user: SOFT_DELETE of an UPDATE */
	Relation	rel;			/* holds the row now; the row's layout */
	RkRelationInfo *info;
	HeapTuple	old_row;		/* UPDATE, DELETE; converted to rel's layout */
	HeapTuple	new_row;		/* INSERT, UPDATE */
	CommandId	command;		/* that changed the row */
	MemoryContext statement;	/* lives as long as the statement; NULL:
								 * unknown */
} RkChange;

/* What a consumer remembers of a change until the flush. */
typedef struct RkEntry
{
	HeapTuple	tuple;			/* in the frame's context */
	const void *tag;			/* the consumer's, outlives the transaction */
	const RkWho *who;			/* interned for the transaction */
	CommandId	command;		/* that changed the row */
	CommandId	statement;		/* the outermost one, cascades included */
	int			position;		/* in the order of capture */
} RkEntry;

typedef struct RkFrame RkFrame;

typedef struct RkChangeConsumer
{
	const char *name;			/* the trigger argument before its options */
	int			events;			/* TRIGGER_TYPE_INSERT etc. that it wants */

	/* Build what capture needs; allocate in the current context. */
	void	   *(*prepare) (Relation rel, Oid root, Jsonb *options);

	/* One row changed: append what is to be written. */
	void		(*capture) (RkFrame *frame, void *prepared, const RkChange *change);

	/* Write entries; the caller forgets them afterwards. */
	void		(*flush) (RkEntry *entries, int count);
} RkChangeConsumer;

extern void rk_changes_init(void);
extern void rk_frame_append(RkFrame *frame, const RkChange *change, int consumer,
							HeapTuple tuple, const void *tag);
extern MemoryContext rk_frame_context(RkFrame *frame);
extern const RkWho *rk_frame_who(RkFrame *frame);

/* core/relation_info.c, what concerns consumers */
extern int	rk_consumer_register(const RkChangeConsumer *consumer);
extern const RkChangeConsumer *rk_consumer(int number);
extern const RkChangeConsumer *rk_consumer_named(const char *name);

/*
 * What a change of a row means to the user. prepare() may return NULL: a
 * change means what it is; classify() is not asked then.
 */
typedef struct RkMeaning
{
	void	   *(*prepare) (Relation rel, Oid root);
	RkChangeKind (*classify) (void *prepared, const RkChange *change);

	/*
	 * Of a change that means more than it is: finish what it began before it
	 * is captured; returns the new row as it then is.
	 */
	HeapTuple	(*complete) (void *prepared, const RkChange *change);
} RkMeaning;

extern int	rk_restoring_begin(void);	/* what is inserted or updated now
										 * comes back as it was */
extern void rk_restoring_end(int before);
extern bool rk_is_restoring(void);
extern int	rk_trigger_depth(void);
extern void rk_meaning_register(const RkMeaning *meaning);
extern void rk_meaning_apply(RkChange *change);

/* core/trigger_row.c: our triggers, as the catalog has them */
typedef struct RkTriggerRow
{
	char		state;			/* tgenabled: 'O', 'A', 'D', 'R' */
	bool		deferrable;
	bool		deferred;
	List	   *arguments;		/* char * */
} RkTriggerRow;

extern bool rk_trigger_read(Oid relid, const char *name, const char *function, RkTriggerRow *row);

/* A trigger that a command created, replaced or renamed. */
typedef struct RkNewTrigger
{
	const char *tag;			/* "CREATE TRIGGER"; not the only one */
	Oid			oid;
	Oid			relid;			/* its table */
	char	   *name;
	char	   *function;		/* NULL: not one of ours */
} RkNewTrigger;

extern bool rk_trigger_describe(Oid oid, RkNewTrigger *trigger);
extern void rk_trigger_refuse_reserved(const RkNewTrigger *trigger, const char *hint);
extern void rk_trigger_check_pending(List *relids);

/* core/change_triggers.c: the triggers that feed the batch, as catalog objects */
extern Jsonb *rk_changes_options(Oid relid, const char *consumer);
extern bool rk_changes_set(FunctionCallInfo fcinfo, Oid relid, const char *consumer, const char *options, bool replica);
extern bool rk_changes_unset(FunctionCallInfo fcinfo, Oid relid, const char *consumer);
extern void rk_changes_repair(Oid altered, bool replica);
extern void rk_changes_follow_partition(Oid root, Oid partition);
extern void rk_flush_triggers_drop(FunctionCallInfo fcinfo, Oid relid);
extern char rk_changes_state(Oid relid);
extern List *rk_relation_tree(Oid root, LOCKMODE lockmode);

/* core/direct_insert.c: finished tuples into a table of ours */
extern void rk_direct_insert(Relation table, TupleDesc desc, AttrNumber constant,
							 HeapTuple *tuples, int count);

/* core/row_key.c: the key of a row as callers give it */
typedef struct RkRowKey
{
	Oid			relid;
	int			count;
	char	   *names[INDEX_MAX_KEYS];
	Oid			types[INDEX_MAX_KEYS];
	char	   *equals[INDEX_MAX_KEYS]; /* the index's operator, as SQL */
} RkRowKey;

extern RkRowKey *rk_row_key_of(Relation rel);	/* NULL: no primary key */
extern Oid	rk_key_equality(Relation index, int column);
extern char **rk_row_key_of_arguments(const RkRowKey *key, FunctionCallInfo fcinfo, int first);
extern char **rk_row_key_of_jsonb(const RkRowKey *key, Jsonb *json);
extern char *rk_text_of_value(Datum value, Oid type);

/* core/near_miss.c */
extern Form_pg_attribute rk_near_miss(Relation rel, const char *name);

/* core/process.c: processes of ours, each as one role in one database */
typedef struct RkProcess
{
	Oid			database;
	Oid			role;			/* InvalidOid: the superuser of initdb */
	bool		may_log_in;		/* the role */
	uint32		segment;		/* of shared memory, or 0 */
} RkProcess;

/* How a process ended; in shared memory, read once it has gone. */
#define RK_MAX_MESSAGE 1024

typedef struct RkAnswer
{
	bool		ended;			/* false: the process did not come so far */
	int			sqlerrcode;		/* 0: done */
	char		message[RK_MAX_MESSAGE];
	char		detail[RK_MAX_MESSAGE];
	char		hint[RK_MAX_MESSAGE];
} RkAnswer;

extern RkProcess rk_process_of(Oid role);
extern bool rk_process_start(const RkProcess *process, const char *main_function,
							 const char *kind, BackgroundWorkerHandle **handle);
extern const RkProcess *rk_process_become(void);
extern void *rk_process_attach(const RkProcess *process);
extern void rk_process_answer(RkAnswer *answer, const ErrorData *error);
extern void rk_process_wait(BackgroundWorkerHandle *handle);
extern void rk_process_set_transactions(void);
extern void rk_process_begin(void);

/*
 * core/toplevel.c: commands that no function may run (DETACH CONCURRENTLY,
 * CREATE INDEX CONCURRENTLY), each in a process of its own
 */
typedef enum RkOutcome
{
	RK_OUTCOME_NONE,			/* nothing was asked for */
	RK_OUTCOME_DONE,
	RK_OUTCOME_FAILED,
	RK_OUTCOME_NO_WORKER		/* no slot is free: max_worker_processes */
} RkOutcome;

extern bool rk_in_errand(void);
extern void rk_check_non_atomic(FunctionCallInfo fcinfo, const char *call);
extern void rk_begin_writing(const char *command);
extern void rk_commit(void);
extern RkOutcome rk_toplevel_run(Oid role, const char *command, int lock_timeout, ErrorData **error);
extern ErrorData *rk_toplevel_execute(const char *command, void (*check) (Node *statement), bool log);

/* core/jobs.c: calls that run after commit, as who queued them */
extern void rk_jobs_init(void);
extern char *rk_home(void);
extern void rk_job_check_call(Node *statement);

/* core/job_process.c: how a job runs */
extern void rk_job_process_init(void);
extern bool rk_job_process_start(const RkProcess *process);

/* core/attempt.c: work that may fail */
extern ErrorData *rk_attempt(void (*body) (void *arg), void *arg);
extern ErrorData *rk_attempt_and_undo(void (*body) (void *arg), void *arg);
extern char *rk_error_text(const ErrorData *error);

/* core/maintain.c: what CALL rowkeeper.maintain() does */
typedef struct RkMaintainRun
{
	Oid			target;			/* InvalidOid: all tables */
	bool		force;

	/* the task's own, from run to run of one maintain() */
	MemoryContext context;		/* lives as long */
	void	   *state;

	/* how the command ended that its last run asked for: "toplevel", below */
	RkOutcome	outcome;
	ErrorData  *toplevel_error; /* of one that failed */

	/* set by the task */
	int64		changed;		/* 0: it found nothing to do */
	bool		more;			/* commit, then run the task again, also where
								 * this run has failed since */
	char	   *table_schema;	/* for the record: NULL, no table in
								 * particular */
	char	   *table_name;

	/*
	 * A command that no function may run, allocated in "context": it is run
	 * once this transaction is committed, and then the task again.
	 */
	char	   *toplevel;
	Oid			toplevel_role;	/* the table's owner */
	int			toplevel_lock_timeout;	/* ms; 0: none */
} RkMaintainRun;

typedef struct RkMaintainTask
{
	const char *name;			/* in maintain_log */
	const char *feature;
	bool		owner_only;		/* needs the extension's owner; concerns no
								 * table */
	void		(*run) (RkMaintainRun *run);
} RkMaintainTask;

extern void rk_maintain_register(const RkMaintainTask *task);
extern void rk_maintain_name_table(RkMaintainRun *run, Oid relid);

/* core/partitioned.c: partitioned tables that features have for themselves */
typedef struct RkPartitioned
{
	Oid			root;			/* by RANGE of one column */
	Oid			template;		/* partitions are made like this table */
	const char *every;			/* lengths as partition() takes them */
	const char *origin;
	const char *ahead;
	const Interval *keep;		/* NULL: for ever */
} RkPartitioned;

typedef List *(*RkPartitionedTables) (void);	/* RkPartitioned * */

typedef struct RkPartitionMaker
{
	void		(*make_ahead) (const RkPartitioned *table);
	Oid			(*make_at) (const RkPartitioned *table, Datum value);
} RkPartitionMaker;

extern void rk_partitioned_register(RkPartitionedTables tables);
extern List *rk_partitioned_tables(void);
extern void rk_partitioned_maker_register(const RkPartitionMaker *maker);
extern void rk_partitioned_make_ahead(const RkPartitioned *table);
extern Oid	rk_partitioned_make_at(const RkPartitioned *table, Datum value);

/* core/progress.c: how far long work is */
extern void rk_progress_begin(const char *task, Oid relid, int steps, int64 total);
extern void rk_progress_update(int step, int64 done);
extern void rk_progress_end(void);

/* core/events.c: what happens to tables as objects */
typedef struct RkDdlCommand
{
	const char *tag;			/* "ALTER TABLE" */
	Oid			relid;			/* what was created or altered */
	Node	   *parsetree;
	List	   *subcommands;	/* CollectedATSubcmd of ALTER TABLE, else NIL */
	Oid			attached;		/* what it made a partition of it */
	Oid			detached;		/* what is none of its any more */
} RkDdlCommand;

typedef struct RkDrop
{
	const char *tag;
	Oid			object;
	const char *identity;		/* as pg_identify_object() had it */
	const char *trigger;		/* of a trigger: its name and table */
	Oid			table;
} RkDrop;

typedef struct RkEventListener
{
	void		(*relation_altered) (const RkDdlCommand *command);
	void		(*schema_altered) (const RkDdlCommand *command);
	void		(*trigger_created) (const RkNewTrigger *trigger);
	void		(*constraint_altered) (const RkDdlCommand *command);	/* the constraint's */
	void		(*relation_dropped) (const RkDrop *drop);
	void		(*trigger_dropped) (const RkDrop *drop);
	void		(*relation_rewritten) (Oid relid, int reason, const char *tag);
	void		(*readers_altered) (List *relids);	/* grants or policies */
	void		(*tenants_bypassed) (const char *reason);	/* before it holds */
	void		(*tenants_isolated) (Oid root, const char *column);
	void		(*partition_built) (Oid root, Oid partition);	/* not attached yet */
	void		(*partition_expired) (Oid root, const char *partition, const char *action);
	void		(*table_replaced) (Oid before, Oid root);	/* which is its first
															 * partition now */
} RkEventListener;

extern void rk_events_listen(const RkEventListener *listener);
extern void rk_tell_partition_built(Oid root, Oid partition);
extern void rk_tell_partition_expired(Oid root, const char *partition, const char *action);
extern bool rk_is_loading_dump(void);
extern List *rk_relations_reached(Oid relid);
extern void rk_tell_bypassed(const char *reason);
extern void rk_tell_replaced(Oid before, Oid root);
extern void rk_tell_isolated(Oid root, const char *column);

/* core/leave.c: taking features away */
typedef struct RkFeature
{
	const char *name;
	bool		(*off) (FunctionCallInfo fcinfo, Oid relid);	/* false: was not on */
	List	   *(*tables) (void);	/* where it is on */
	void		(*leave) (FunctionCallInfo fcinfo); /* after the last table;
													 * may be NULL */
} RkFeature;

extern void rk_feature_register(const RkFeature *feature);

#endif							/* ROWKEEPER_H */
