/*
 * ddl_events.c
 *
 * What happens to audited tables as objects: each ALTER, ATTACH, DETACH, DROP
 * and switched-off trigger is an entry of the log, and what would break the
 * promise of the audit (an unlogged partition, a dropped primary key) is
 * refused here as it is at the call.
 *
 * ATTACH and DETACH are found by comparing the partitions there are with
 * those noted in rowkeeper_log.partitions, whatever command changed them. The
 * same notes tell, when a relation is dropped, whose partition it was.
 */
#include "audit/audit.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* ---- entries about tables ---- */

/* Write an entry about a table, not about a row of it; returns its id, or 0. */
static int64
write_event(int32 table_id, int16 klass, char action, Jsonb *detail)
{
	RkLogEntry	entry = {
		.action = action,.table_id = table_id,.klass = klass,.detail = detail
	};

	return rk_audit_log_write(&entry);
}

/* The same for an audited table that still exists. */
int64
rk_audit_event(Oid root, char action, Jsonb *detail)
{
	RkAuditOptions *options = rk_audit_options_of(root);
	const char *keep = options != NULL ? options->keep : NULL;
	int32		table_id;
	int16		klass;

	/* what a restore does on its way is nobody's change */
	if (rk_audit_log_is_half_restored() ||
		!rk_audit_dictionary_find(root, &table_id) ||
		(rk_is_loading_dump() && !rk_audit_class_look_up(keep, &klass)))
		return 0;
	return write_event(table_id, rk_audit_class_find(keep), action, detail);
}

/* ---- the log's notes on tables and partitions ---- */

static uint64
note(const char *sql, Oid relid)
{
	return rk_run_about(rk_extension_owner(), relid, sql);
}

static void
note_partition(Oid root, Oid partition)
{
	int32		table_id;
	Oid			types[2] = {OIDOID, INT4OID};
	Datum		values[2];

	if (!rk_audit_dictionary_find(root, &table_id))
		return;
	values[0] = ObjectIdGetDatum(partition);
	values[1] = Int32GetDatum(table_id);
	(void) rk_run_args(rk_extension_owner(),
					   "INSERT INTO rowkeeper_log.partitions (relation, table_id) VALUES ($1, $2)",
					   2, types, values, NULL);
}

static void
forget_partition(Oid partition)
{
	(void) note("DELETE FROM rowkeeper_log.partitions WHERE relation = $1", partition);
}

static List *
noted_partitions(Oid root)
{
	int32		table_id;
	List	   *partitions;
	RkIdentity	saved;

	if (!rk_audit_dictionary_find(root, &table_id))
		return NIL;
	rk_identity_assume(&saved, rk_extension_owner(), false);
	partitions = rk_fetch_oids(psprintf("SELECT relation::oid FROM rowkeeper_log.partitions"
										" WHERE table_id = %d AND relation IS NOT NULL", table_id));
	rk_identity_restore(&saved);
	return partitions;
}

/* Forget the partitions of a table that is no longer audited. */
void
rk_audit_partitions_forget(Oid root)
{
	ListCell   *lc;

	foreach(lc, noted_partitions(root))
		forget_partition(lfirst_oid(lc));
}

static bool
relation_exists(Oid relid)
{
	return SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid));
}

/*
 * Bring notes and flush triggers in line with the partitions there are now;
 * log: each one that came or went is an entry. Partitions that are noted keep
 * the triggers they have: a restore, which fires event triggers too, creates
 * them itself.
 */
void
rk_audit_partitions_reconcile(Oid root, bool log)
{
	List	   *noted = noted_partitions(root);
	List	   *present = list_delete_first(rk_relation_tree(root, NoLock));
	ListCell   *lc;

	foreach(lc, list_difference_oid(present, noted))
	{
		note_partition(root, lfirst_oid(lc));
		rk_changes_follow_partition(root, lfirst_oid(lc));
		if (log)
			(void) rk_audit_event(root, RK_LOG_ATTACH,
								  rk_audit_detail("partition", rk_relation_name(lfirst_oid(lc)), NULL));
	}
	foreach(lc, list_difference_oid(noted, present))
	{
		Oid			gone = lfirst_oid(lc);

		forget_partition(gone);
		if (!relation_exists(gone))
			continue;
		rk_flush_triggers_drop(NULL, gone);
		if (log)
			(void) rk_audit_event(root, RK_LOG_DETACH,
								  rk_audit_detail("partition", rk_relation_name(gone), NULL));
	}
}

/* ---- ALTER ---- */

/*
 * Options name columns: follow a rename, and forget what was dropped. A
 * renamed column would otherwise no longer be left out.
 */
static void
follow_columns(const RkDdlCommand *command, Oid root)
{
	RkAuditOptions *options = rk_audit_options_of(root);
	const RenameStmt *rename = IsA(command->parsetree, RenameStmt)
		? (const RenameStmt *) command->parsetree : NULL;
	List	   *exclude = NIL;
	char	   *before = rk_audit_options_format(options);
	ListCell   *lc;

	if (rename != NULL &&
		rename->renameType != OBJECT_COLUMN && rename->renameType != OBJECT_ATTRIBUTE)
		return;
	foreach(lc, options->exclude)
	{
		char	   *name = lfirst(lc);

		if (rename != NULL && strcmp(name, rename->subname) == 0)
			name = rename->newname;
		if (get_attnum(root, name) > 0)
			exclude = lappend(exclude, name);
	}
	options->exclude = exclude;
	if (options->tenant != NULL)
	{
		if (rename != NULL && strcmp(options->tenant, rename->subname) == 0)
			options->tenant = rename->newname;
		if (get_attnum(root, options->tenant) <= 0 ||
			rk_audit_drops_column(command->subcommands, options->tenant))
			options->tenant = NULL;
	}
	if (strcmp(before, rk_audit_options_format(options)) != 0)
		rk_audit_options_store(root, options);
}

/*
 * A table's names in the dictionary hold for a span of ids: where the current
 * one is no longer true, a new span begins with the entry "from_id".
 */
static void
follow_name(Oid root, int64 from_id)
{
	Oid			types[2] = {OIDOID, INT8OID};
	Datum		values[2] = {ObjectIdGetDatum(root), Int64GetDatum(from_id)};

	if (from_id == 0)
		return;
	(void) rk_run_args(rk_extension_owner(),
					   "WITH renamed AS ("
					   " UPDATE rowkeeper_log.tables t SET to_id = $2, relation = NULL"
					   " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
					   " WHERE c.oid = $1 AND t.relation = $1 AND t.to_id IS NULL"
					   " AND (t.table_schema, t.table_name) IS DISTINCT FROM (n.nspname, c.relname)"
					   " RETURNING t.table_id, c.oid, n.nspname, c.relname, t.since, t.tenant_from)"
					   "INSERT INTO rowkeeper_log.tables (table_id, relation, table_schema, table_name, from_id, since, tenant_from)"
					   " SELECT table_id, oid, nspname, relname, $2, since, tenant_from FROM renamed",
					   2, types, values, NULL);
}

/*
 * Whether our row trigger fires on every partition as it should: always, or
 * where replica => false was asked for, at least on origin.
 */
static bool
our_triggers_fire(Oid root, bool replica)
{
	ListCell   *lc;

	foreach(lc, rk_relation_tree(root, NoLock))
	{
		char		state = rk_changes_state(lfirst_oid(lc));

		if (state != TRIGGER_FIRES_ALWAYS &&
			!(state == TRIGGER_FIRES_ON_ORIGIN && !replica))
			return false;
	}
	return true;
}

/* Whether the table's capture was last reported as off. */
static bool
is_in_gap(Oid root)
{
	int32		table_id;
	Oid			types[1] = {INT4OID};
	Datum		values[1];
	bool		isnull;
	Datum		off;

	if (!rk_audit_dictionary_find(root, &table_id))
		return false;
	values[0] = Int32GetDatum(table_id);
	off = rk_fetch(rk_extension_owner(),
				   "SELECT action = 'o' FROM rowkeeper_log.log"
				   " WHERE table_id = $1 AND key_hash = 0"
				   " AND (action = 'o' AND NOT detail ? 'setting' OR action = 'l' AND detail ? 'enabled')"
				   " ORDER BY id DESC LIMIT 1",
				   1, types, values, NULL, &isnull);
	return !isnull && DatumGetBool(off);
}

/*
 * Capture works again: ends the gap in coverage, where there was one. unknown:
 * it may have been off without our knowing (the extension was dropped).
 */
void
rk_audit_capture_resumed(Oid root, bool unknown)
{
	if (unknown || is_in_gap(root))
		(void) rk_audit_event(root, RK_LOG_ALTER, rk_audit_detail("enabled", "true", NULL));
}

/*
 * A trigger was enabled or disabled. ENABLE TRIGGER ALL, as bulk loads end
 * with, leaves ours firing on origin only: put back what audit() asked for.
 */
static void
report_trigger_state(const RkDdlCommand *command, Oid root)
{
	RkAuditOptions *options = rk_audit_options_of(root);

	rk_changes_repair(command->relid, options->replica);
	if (our_triggers_fire(root, options->replica))
		rk_audit_capture_resumed(root, false);
	else
		(void) rk_audit_event(root, RK_LOG_DISABLE, rk_audit_describe_alter(command, root));
}

/* Writers know the log's columns, and it is no one's to change but an update's. */
static void
refuse_log_columns(const RkDdlCommand *command)
{
	static const char *const refused[] = {"ADD COLUMN", "DROP COLUMN", "ALTER COLUMN TYPE", "SET UNLOGGED"};

	for (int i = 0; i < lengthof(refused); i++)
		if (rk_audit_has_subcommand(command->subcommands, refused[i]))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot %s of %s: it belongs to the audit log",
							refused[i], rk_relation_name(command->relid)),
					 errhint("Put a view over rowkeeper.audit_log instead.")));
}

/* A partition that is audited by itself would write for a root that is not. */
static void
refuse_audited_partition(const RkDdlCommand *command, Oid root)
{
	ListCell   *lc;

	if (!OidIsValid(command->attached))
		return;
	foreach(lc, rk_relation_tree(command->attached, NoLock))
		if (rk_audit_options_of(lfirst_oid(lc)) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot attach %s to %s: it is audited and the partitioned table is not",
						rk_relation_name(lfirst_oid(lc)), rk_relation_name(root)),
				 errhint("SELECT rowkeeper.audit_off(%s) before, or SELECT rowkeeper.audit(%s) after it.",
						 quote_literal_cstr(rk_relation_name(lfirst_oid(lc))),
						 quote_literal_cstr(rk_relation_name(root)))));
}

/* One relation was created or altered, by its own command or another's. */
static void
one_relation_altered(const RkDdlCommand *command)
{
	Oid			root = rk_root_of(command->relid);
	int32		table_id;
	int64		event;

	if (get_rel_relkind(root) != RELKIND_RELATION &&
		get_rel_relkind(root) != RELKIND_PARTITIONED_TABLE)
		return;
	if (rk_audit_options_of(root) == NULL)
	{
		refuse_audited_partition(command, root);
		return;
	}
	if (!rk_audit_dictionary_find(root, &table_id))
		return;

	/* a dump brings along what we would note, and brings it in any order */
	if (!rk_is_loading_dump())
	{
		rk_audit_check_altered(root, command->relid);
		follow_columns(command, root);
		rk_audit_partitions_reconcile(root, true);
	}
	if (rk_audit_has_subcommand(command->subcommands, "DISABLE TRIGGER") ||
		rk_audit_has_subcommand(command->subcommands, "ENABLE TRIGGER"))
		report_trigger_state(command, root);
	else if (!rk_is_loading_dump() && strncmp(command->tag, "CREATE", 6) != 0 &&
			 !OidIsValid(command->attached) && !OidIsValid(command->detached))
	{
		event = rk_audit_event(root, RK_LOG_ALTER, rk_audit_describe_alter(command, root));
		follow_name(root, event);
	}
}

static void
relation_altered(const RkDdlCommand *command)
{
	ListCell   *lc;

	if (!relation_exists(command->relid))
		return;
	if (get_rel_namespace(command->relid) == rk_audit_log_schema())
	{
		refuse_log_columns(command);
		return;
	}
	foreach(lc, rk_relations_reached(command->relid))
	{
		RkDdlCommand reached = *command;

		reached.relid = lfirst_oid(lc);
		one_relation_altered(&reached);
	}
}

/* A schema was renamed, and with it all its tables. */
static void
schema_altered(const RkDdlCommand *command)
{
	ListCell   *lc;
	RkIdentity	saved;
	List	   *moved;

	if (!OidIsValid(rk_audit_log_schema()))
		return;
	rk_identity_assume(&saved, rk_extension_owner(), false);
	moved = rk_fetch_oids(psprintf("SELECT c.oid FROM rowkeeper_log.tables t"
								   " JOIN pg_class c ON c.oid = t.relation"
								   " JOIN pg_namespace n ON n.oid = c.relnamespace"
								   " WHERE t.to_id IS NULL AND n.oid = %u AND n.nspname <> t.table_schema"
								   " ORDER BY t.table_id", command->relid));
	rk_identity_restore(&saved);
	foreach(lc, moved)
		follow_name(lfirst_oid(lc),
					rk_audit_event(lfirst_oid(lc), RK_LOG_ALTER,
								   rk_audit_detail("command", command->tag, NULL)));
}

/*
 * The name and the function of our row trigger belong together, and only
 * audit() brings them together. (A superuser may, so that a restore can.) Not
 * every trigger is created by CREATE TRIGGER: CREATE SCHEMA does, too.
 */
static void
check_reserved_trigger(const RkNewTrigger *trigger)
{
	bool		our_function = trigger->function != NULL && strcmp(trigger->function, "_changes_row") == 0;
	bool		our_name = strcmp(trigger->name, RK_CHANGES_TRIGGER) == 0;

	if (our_function == our_name &&
		(!our_function || superuser() || strcmp(trigger->tag, "ALTER TRIGGER") == 0))
		return;
	rk_trigger_refuse_reserved(trigger,
							   psprintf("SELECT rowkeeper.audit(%s) creates it, audit_off() drops it.",
										quote_literal_cstr(rk_relation_name(trigger->relid))));
}

/*
 * A trigger was created or altered. The log has none: they would be passed
 * by, and could not be trusted.
 */
static void
trigger_created(const RkNewTrigger *trigger)
{
	check_reserved_trigger(trigger);
	if (get_rel_namespace(trigger->relid) == rk_audit_log_schema())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot create a trigger on %s: it belongs to the audit log",
						rk_relation_name(trigger->relid)),
				 errhint("Read the log through rowkeeper.audit_log, or by logical replication.")));
}

static void
relation_rewritten(Oid relid, int reason, const char *tag)
{
	Oid			root = rk_root_of(relid);

	if (get_rel_relkind(relid) == RELKIND_RELATION && rk_audit_options_of(root) != NULL)
		(void) rk_audit_event(root, RK_LOG_ALTER,
							  rk_audit_detail("command", tag,
											  "rewrite", rk_audit_rewrite_reason(reason), NULL));
}

/* ---- DROP ---- */

static int32
noted_table_of_partition(Oid partition, bool *found)
{
	bool		isnull;
	Datum		table_id;

	table_id = rk_fetch_about(rk_extension_owner(), partition,
							  "SELECT table_id FROM rowkeeper_log.partitions WHERE relation = $1", &isnull);
	*found = !isnull;
	return isnull ? 0 : DatumGetInt32(table_id);
}

/*
 * The class of an entry about a table that may be gone, and its options with
 * it: kept for ever then.
 */
static int16
class_of_table(int32 table_id)
{
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(table_id)};
	bool		isnull;
	Datum		root;
	RkAuditOptions *options;

	root = rk_fetch(rk_extension_owner(),
					"SELECT relation::oid FROM rowkeeper_log.tables WHERE table_id = $1 AND to_id IS NULL",
					1, types, values, NULL, &isnull);
	if (isnull || !relation_exists(DatumGetObjectId(root)))
		return 0;
	options = rk_audit_options_of(DatumGetObjectId(root));
	return rk_audit_class_find(options != NULL ? options->keep : NULL);
}

/* A relation is gone: note it at once, for its OID may come again. */
static void
relation_dropped(const RkDrop *drop)
{
	int32		table_id;
	bool		is_partition;

	if (!OidIsValid(rk_audit_log_schema()) ||
		!OidIsValid(get_relname_relid("partitions", rk_audit_log_schema())))
		return;
	if (rk_audit_dictionary_find(drop->object, &table_id))
	{
		(void) write_event(table_id, 0, RK_LOG_DROP,
						   rk_audit_detail("command", drop->tag, NULL));
		(void) note("UPDATE rowkeeper_log.tables SET relation = NULL WHERE relation = $1", drop->object);
		return;
	}
	table_id = noted_table_of_partition(drop->object, &is_partition);
	if (!is_partition)
		return;
	forget_partition(drop->object);
	(void) write_event(table_id, class_of_table(table_id), RK_LOG_DROP,
					   rk_audit_detail("command", drop->tag, "partition", drop->identity, NULL));
}

/* Our own trigger, dropped by hand: from here on changes go by unlogged. */
static void
trigger_dropped(const RkDrop *drop)
{
	if (drop->trigger != NULL && strcmp(drop->trigger, RK_CHANGES_TRIGGER) == 0 &&
		OidIsValid(drop->table))
		(void) rk_audit_event(drop->table, RK_LOG_DISABLE,
							  rk_audit_detail("command", drop->tag, NULL));
}

/* ---- tenants ---- */

/* An entry of no table: who goes past isolation, and why. */
static void
tenants_bypassed(const char *reason)
{
	if (!OidIsValid(rk_audit_log_relation("log")))
		return;
	if (XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("a bypass is recorded in the audit log, which a read-only transaction cannot write"),
				 errhint("BEGIN READ WRITE.")));
	(void) write_event(0, rk_audit_class_find(NULL), RK_LOG_BYPASS,
					   rk_audit_detail("reason", reason, NULL));
}

/*
 * From here on entries say whose row they are of by another column than before.
 * Ids are drawn under the locks of rows, which whoever writes a table's options
 * has waited for, so the next one is after all that were written before.
 */
void
rk_audit_tenant_begins(Oid root)
{
	(void) note("UPDATE rowkeeper_log.tables SET tenant_from = nextval('rowkeeper_log.log_id')"
				" WHERE relation = $1 AND to_id IS NULL", root);
}

/* Entries say whose row they are of by the column that isolates the table. */
static void
tenants_isolated(Oid root, const char *column)
{
	RkAuditOptions *options = rk_audit_options_of(root);

	if (options == NULL || (options->tenant != NULL && strcmp(options->tenant, column) == 0))
		return;
	options->tenant = pstrdup(column);
	rk_audit_options_store(root, options);
	rk_audit_tenant_begins(root);
}

/* Retention takes rows out of an audited table without deleting one of them. */
static void
partition_expired(Oid root, const char *partition, const char *action)
{
	int32		table_id;

	/* that it is no partition any more is an event of its own */
	if (strcmp(action, "drop") == 0 && rk_audit_options_of(root) != NULL &&
		rk_audit_dictionary_find(root, &table_id))
		(void) rk_audit_event(root, RK_LOG_DROP,
							  rk_audit_detail("command", "retention", "partition", partition, NULL));
}

/* The table goes on under its number; its history is that of its first partition's rows. */
static void
table_replaced(Oid before, Oid root)
{
	int32		table_id;
	Oid			types[2] = {OIDOID, OIDOID};
	Datum		values[2] = {ObjectIdGetDatum(before), ObjectIdGetDatum(root)};

	if (!rk_audit_dictionary_find(before, &table_id))
		return;
	(void) rk_run_args(rk_extension_owner(),
					   "UPDATE rowkeeper_log.tables SET relation = $2 WHERE relation = $1",
					   2, types, values, NULL);
	if (rk_audit_options_of(root) != NULL)
		rk_audit_partitions_reconcile(root, true);
}

void
rk_audit_ddl_init(void)
{
	static const RkEventListener listener = {
		.relation_altered = relation_altered,
		.schema_altered = schema_altered,
		.trigger_created = trigger_created,
		.relation_dropped = relation_dropped,
		.trigger_dropped = trigger_dropped,
		.relation_rewritten = relation_rewritten,
		.tenants_bypassed = tenants_bypassed,
		.tenants_isolated = tenants_isolated,
		.partition_expired = partition_expired,
		.table_replaced = table_replaced
	};

	rk_events_listen(&listener);
}
