/*
 * audit.h
 *
 * The map of the audit feature. What an entry of the log looks like is known
 * to log_writer.c and log_reader.c (and the SQL of log_store.c) alone.
 */
#ifndef RK_AUDIT_H
#define RK_AUDIT_H

#include "rowkeeper.h"

#include "access/tupdesc.h"

#define RK_LOG_SCHEMA "rowkeeper_log"

/* encode.c: rows as jsonb */
typedef struct RkEncoder RkEncoder;

extern RkEncoder *rk_audit_encoder_create(TupleDesc desc, const Bitmapset *columns);
extern Jsonb *rk_audit_encode(RkEncoder *encoder, const Datum *values, const bool *isnull,
							  const bool *include, Bitmapset **as_text);

/* key.c: the hash that finds a row's entries */
typedef struct RkKey RkKey;

extern AttrNumber rk_audit_key_unfit(TupleDesc desc, const AttrNumber *columns, int ncolumns);
extern RkKey *rk_audit_key_create(TupleDesc desc, const AttrNumber *columns, int ncolumns);
extern int32 rk_audit_key_hash(const RkKey *key, const Datum *values);

/* log_store.c: the log as objects */
#define RK_LOG_ID_BLOCK 64		/* ids in one draw from rowkeeper_log.log_id */
#define RK_LOG_ID_BLOCK_TEXT CppAsString2(RK_LOG_ID_BLOCK)

extern void rk_audit_store_ensure(FunctionCallInfo fcinfo);
extern Oid	rk_audit_log_schema(void);
extern Oid	rk_audit_log_relation(const char *name);	/* InvalidOid: none */

/* log_leaves.c: retention classes and weekly leaves */
#define RK_LOG_WEEK (7 * USECS_PER_DAY)

typedef struct RkRetentionClass
{
	int16		klass;
	Interval   *keep;			/* NULL: for ever */
} RkRetentionClass;

extern bool rk_audit_leaf_bounds(Oid leaf, TimestampTz *from, TimestampTz *to);
extern int16 rk_audit_class_ensure(const Interval *keep);	/* NULL: for ever */
extern Oid	rk_audit_leaf_ensure(int16 klass, TimestampTz at);
extern Oid	rk_audit_class_table(int16 klass);
extern List *rk_audit_classes(void);
extern void rk_audit_leaves_init(void); /* has them maintained */

/* log_upkeep.c: what maintain() does with the log */
extern void rk_audit_upkeep_init(void); /* registers the task */

/* log_writer.c: entries on their way into the log */
#define RK_LOG_DROP 'x'
#define RK_LOG_DETACH 'd'
#define RK_LOG_ATTACH 'a'
#define RK_LOG_ALTER 'l'
#define RK_LOG_DISABLE 'o'
#define RK_LOG_BYPASS 'y'
#define RK_LOG_WHO 'w'
#define RK_LOG_KEY_LINK 'k'

typedef struct RkLogEntry
{
	char		action;			/* a change's RkChangeKind, or RK_LOG_... */
	int32		table_id;
	int16		klass;			/* retention class */
	int32		key_hash;		/* 0: no row */
	Jsonb	   *record_id;
	Jsonb	   *old_data;
	Jsonb	   *new_data;
	text	   *tenant;
	text	   *new_tenant;		/* only where an UPDATE changed it */
	Jsonb	   *detail;
} RkLogEntry;

extern void rk_audit_writer_init(void);
extern void rk_audit_log_append(RkFrame *frame, const RkChange *change, const RkLogEntry *entry);
extern void rk_audit_log_flush(RkEntry *entries, int count);
extern int64 rk_audit_log_write(const RkLogEntry *entry);
extern bool rk_audit_log_is_half_restored(void);
extern void rk_audit_log_begin(void);

/* who_records.c: who acted, stored once */
extern void rk_audit_who_records_init(void);
extern Jsonb *rk_audit_who_describe(const RkWho *who);
extern int64 rk_audit_who_record_find(const RkWho *who, Oid leaf);
extern void rk_audit_who_record_remember(const RkWho *who, Oid leaf, int64 id);

/* capture.c: row changes become entries */
extern int	rk_audit_consumer;
extern bool rk_audit_dictionary_find(Oid root, int32 *table_id);
extern bool rk_audit_class_look_up(const char *keep, int16 *klass);
extern int16 rk_audit_class_find(const char *keep);
extern AttrNumber *rk_audit_key_columns(Relation rel, int *count);

/* options.c: what audit() was told of a table */
typedef struct RkAuditOptions
{
	List	   *exclude;		/* column names (char *) */
	bool		full;			/* capture => 'full' */
	char	   *keep;			/* an interval, NULL: for ever */
	char	   *tenant;			/* the tenant column, or NULL */
	bool		replica;		/* also under session_replication_role =
								 * replica */
} RkAuditOptions;

extern RkAuditOptions *rk_audit_options_parse(Jsonb *options);
extern char *rk_audit_options_format(const RkAuditOptions *options);
extern RkAuditOptions *rk_audit_options_of(Oid root);
extern bool rk_audit_excludes(const RkAuditOptions *options, const char *column);

/* enable.c: audit(), audit_schema(), audit_off() */
extern void rk_audit_enable_init(void);
extern void rk_audit_check_altered(Oid root, Oid altered);
extern void rk_audit_options_store(Oid root, const RkAuditOptions *options);
extern void rk_audit_tenant_begins(Oid root);

/* ddl_describe.c: what is said of a command */
extern void rk_audit_push_text(JsonbParseState **state, const char *key, const char *value);
extern Jsonb *rk_audit_detail(const char *key, const char *value,...);
extern bool rk_audit_has_subcommand(List *subcommands, const char *wanted);
extern bool rk_audit_drops_column(List *subcommands, const char *column);
extern Jsonb *rk_audit_describe_alter(const RkDdlCommand *command, Oid root);
extern const char *rk_audit_rewrite_reason(int reason);

/* ddl_events.c: what happens to audited tables as objects */
extern void rk_audit_ddl_init(void);
extern int64 rk_audit_event(Oid root, char action, Jsonb *detail);
extern void rk_audit_partitions_reconcile(Oid root, bool log);
extern void rk_audit_partitions_forget(Oid root);
extern void rk_audit_capture_resumed(Oid root, bool unknown);

#endif							/* RK_AUDIT_H */
