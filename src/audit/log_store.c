/*
 * log_store.c
 *
 * The audit log as objects: schema, sequence, dictionary, retention classes,
 * the partitioned log and the views that read it. They are made at the first
 * audit() call and are ordinary objects, no members of the extension: a member
 * is not dumped, and would go with DROP EXTENSION. For the same reason nothing
 * here may use a function of ours: the views must still read the log where the
 * extension is gone. Their owner is the extension's owner, and only he has
 * rights on them whatever ALTER DEFAULT PRIVILEGES says; the one exception is
 * rowkeeper.audit_log, which shows each reader what he may SELECT anyway. Row
 * security without any policy keeps out those who have rights on every table
 * (pg_write_all_data).
 *
 * Weekly leaves, classes and what maintenance does with them: log_leaves.c.
 */
#include "audit/audit.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * Who wrote an entry is in a who-record of the same leaf: tableoid finds the
 * one copy that belongs to it, key_hash makes that an index condition where
 * entries are few. A table has one current row in the dictionary
 * (to_id IS NULL), which alone knows the relation, and one row for each name
 * it ever had.
 */
#define ENTRIES_SELECT(record_id, old_data, new_data, whole, tenant) \
	"SELECT e.id, e.changed_at, e.txid, t.table_schema, t.table_name, c.relation, " \
	"  CASE e.action WHEN 'I' THEN 'INSERT' WHEN 'U' THEN 'UPDATE' WHEN 'D' THEN 'DELETE' " \
	"    WHEN 'T' THEN 'TRUNCATE' WHEN 'B' THEN 'BASELINE' WHEN 'S' THEN 'SOFT DELETE' " \
	"    WHEN 'R' THEN 'RESTORE' WHEN 'x' THEN 'DROP' WHEN 'd' THEN 'DETACH' WHEN 'a' THEN 'ATTACH' " \
	"    WHEN 'l' THEN 'ALTER' WHEN 'o' THEN 'DISABLE' WHEN 'y' THEN 'BYPASS' WHEN 'e' THEN 'ERASE' " \
	"    ELSE e.action::text END AS action, " \
	"  " record_id " AS record_id, " old_data " AS old_data, " new_data " AS new_data, " \
	"  CASE WHEN e.old_data IS NOT NULL AND e.new_data IS NOT NULL AND " whole " THEN ARRAY(SELECT n.key FROM pg_catalog.jsonb_each(e.new_data) n " \
	"    WHERE n.value IS DISTINCT FROM e.old_data -> n.key) END AS changed_fields, " \
	"  w.new_data ->> 'actor' AS actor, w.new_data ->> 'actor_source' AS actor_source, " \
	"  (w.new_data ->> 'db_user')::name AS db_user, (w.new_data ->> 'db_role')::name AS db_role, " \
	"  (w.new_data ->> 'client_addr')::inet AS client_addr, " \
	"  w.new_data ->> 'application_name' AS application_name, " \
	"  CASE WHEN e.detail IS NULL THEN w.new_data -> 'context' " \
	"    ELSE coalesce(w.new_data -> 'context', '{}') || e.detail END AS context, " \
	"  " tenant " AS tenant "

#define ENTRIES_FROM \
	"FROM rowkeeper_log.log e " \
	"  LEFT JOIN rowkeeper_log.tables t ON t.table_id = e.table_id " \
	"    AND t.from_id <= e.id AND (t.to_id IS NULL OR e.id < t.to_id) " \
	"  LEFT JOIN rowkeeper_log.tables c ON c.table_id = e.table_id AND c.to_id IS NULL " \
	"  LEFT JOIN rowkeeper_log.log w ON w.id = e.who AND w.tableoid = e.tableoid " \
	"    AND w.table_id = 0 AND w.action = 'w' AND w.key_hash = (e.who & 2147483647)::integer " \
	"WHERE e.action <> 'w' AND e.action <> 'k' "

/*
 * entries has its reader's rights, so that it shows nothing past the row
 * security of the log: pg_read_all_data may read every view. audit_log has its
 * owner's, and therefore cannot be a view over entries: what that reads would
 * be asked of the reader.
 */
#define ENTRIES_SQL \
	"CREATE VIEW rowkeeper_log.entries WITH (security_invoker = true) AS " \
	ENTRIES_SELECT("e.record_id", "e.old_data", "e.new_data", "true", "e.tenant") ", e.new_tenant, e.table_id " ENTRIES_FROM

#define OWNS_LOG \
	"pg_catalog.pg_has_role((SELECT l.relowner FROM pg_catalog.pg_class l " \
	"  WHERE l.oid = 'rowkeeper_log.log'::regclass), 'USAGE')"

/*
 * What tenants see is the extension's to say, but the log must be readable
 * without it, and so must not depend on it: functions of the log's own ask the
 * extension's by name when they are called, which they are only where it is
 * there. Their SET keeps them from being read any earlier.
 */
#define LATE_FUNCTIONS \
	"CREATE OR REPLACE FUNCTION rowkeeper_log.tenant_sight(regclass) RETURNS integer" \
	"  LANGUAGE sql STABLE SET search_path = pg_catalog AS 'SELECT rowkeeper._tenant_sight($1)';" \
	"CREATE OR REPLACE FUNCTION rowkeeper_log.tenant_claim() RETURNS text" \
	"  LANGUAGE sql STABLE SET search_path = pg_catalog AS 'SELECT rowkeeper._tenant_claim()';" \
	"CREATE OR REPLACE FUNCTION rowkeeper_log.tenant_claim_as_written() RETURNS text" \
	"  LANGUAGE sql STABLE SET search_path = pg_catalog AS" \
	"  'SELECT CASE WHEN rowkeeper._tenant_claim() IS NOT NULL THEN rowkeeper.tenant_text() END';" \
	"COMMENT ON FUNCTION rowkeeper_log.tenant_sight(regclass) IS" \
	"  'what a reader whom row security holds sees of a table''s entries: 0 none, 1 his tenant''s, a uuid, 2 all," \
	" 3 his tenant''s, as the claim is written';" \
	"COMMENT ON FUNCTION rowkeeper_log.tenant_claim() IS" \
	"  'the tenant that this transaction acts for, a uuid in its one spelling, or null';" \
	"COMMENT ON FUNCTION rowkeeper_log.tenant_claim_as_written() IS" \
	"  'the tenant that this transaction acts for, in the spelling of the claim, or null';"

#define SIGHT \
	"CASE WHEN pg_catalog.to_regprocedure('rowkeeper._tenant_sight(regclass)') IS NULL THEN 0 " \
	"  ELSE rowkeeper_log.tenant_sight(r.relation) END"
#define CLAIM(function) \
	"(SELECT CASE WHEN pg_catalog.to_regprocedure('rowkeeper._tenant_claim()') IS NOT NULL " \
	"  THEN rowkeeper_log." function "() END)"

/* Tables of which a reader sees his tenant's rows only, and so their entries. */
#define TABLES_IN_SIGHT(sights) \
	"ARRAY(SELECT r.table_id FROM rowkeeper_log.tables r WHERE r.to_id IS NULL AND NOT " OWNS_LOG \
	"  AND pg_catalog.has_table_privilege(r.relation, 'SELECT') " \
	"  AND CASE WHEN pg_catalog.row_security_active(r.relation) THEN " SIGHT " IN (" sights ") ELSE false END)"
#define TENANT_TABLES TABLES_IN_SIGHT("1, 3")

/* The reader's tenant as entries of this table have it: two texts may be one uuid. */
#define TENANT \
	"CASE WHEN e.table_id = ANY (" TABLES_IN_SIGHT("1") ") THEN " CLAIM("tenant_claim") \
	"  ELSE " CLAIM("tenant_claim_as_written") " END"

/* Whether the reader sees more than half of an entry; else whether he sees this tenant's half. */
#define IS_WHOLE "(e.new_tenant IS NULL OR NOT e.table_id = ANY (" TENANT_TABLES "))"
#define IS_SEEN_BY(tenant) "(" IS_WHOLE " OR " tenant " = " TENANT ")"

/*
 * The arrays of readable tables are computed once a query and stay an index
 * condition. relation is null once a table is dropped: then only the log's
 * owner reads its entries; so he does those of no table, number 0. Of a row
 * that changed its tenant each of both sees his half, under its key of then. What was written while
 * another column was the tenant's is nobody's but the owner's.
 */
#define AUDIT_LOG_SQL \
	LATE_FUNCTIONS \
	"CREATE VIEW rowkeeper.audit_log WITH (security_barrier = true) AS " \
	ENTRIES_SELECT( \
		"CASE WHEN " IS_SEEN_BY("e.tenant") " THEN e.record_id" \
		"  ELSE (SELECT pg_catalog.jsonb_object_agg(k.key, coalesce(e.new_data -> k.key, k.value))" \
		"    FROM pg_catalog.jsonb_each(e.record_id) k) END", \
		"CASE WHEN " IS_SEEN_BY("e.tenant") " THEN e.old_data END", \
		"CASE WHEN " IS_SEEN_BY("e.new_tenant") " THEN e.new_data END", \
		IS_WHOLE, \
		"CASE WHEN " IS_WHOLE " THEN e.tenant ELSE " TENANT " END") \
	ENTRIES_FROM \
	"AND e.table_id = ANY (ARRAY(" \
	"  SELECT r.table_id FROM rowkeeper_log.tables r WHERE r.to_id IS NULL " \
	"    AND (" OWNS_LOG " OR (pg_catalog.has_table_privilege(r.relation, 'SELECT') " \
	"      AND CASE WHEN pg_catalog.row_security_active(r.relation) THEN " SIGHT " > 0 ELSE true END)) " \
	"  UNION ALL SELECT 0 WHERE " OWNS_LOG ")) " \
	"AND (NOT e.table_id = ANY (" TENANT_TABLES ") OR " \
	"  ((e.tenant = " TENANT " OR e.new_tenant = " TENANT ") AND e.id >= coalesce(c.tenant_from, 0)))"

typedef struct StoreObject
{
	const char *schema;
	const char *name;
	const char *kind;			/* as GRANT and COMMENT name it */
	const char *sql;
	const char *comment;
} StoreObject;

/* In the order in which they are made. */
static const StoreObject store_objects[] =
{
	{RK_LOG_SCHEMA, "log_id", "SEQUENCE",
		"CREATE SEQUENCE rowkeeper_log.log_id INCREMENT BY " RK_LOG_ID_BLOCK_TEXT,
	"Ids of log entries; one draw is a block of " RK_LOG_ID_BLOCK_TEXT "."},

	{RK_LOG_SCHEMA, "table_id", "SEQUENCE",
		"CREATE SEQUENCE rowkeeper_log.table_id AS integer",
	"Numbers of audited tables in rowkeeper_log.tables."},

	{RK_LOG_SCHEMA, "tables", "TABLE",
		"CREATE TABLE rowkeeper_log.tables ("
		"  table_id integer NOT NULL, relation regclass,"
		"  table_schema name NOT NULL, table_name name NOT NULL,"
		"  from_id bigint NOT NULL, to_id bigint, since timestamptz NOT NULL, tenant_from bigint,"
		"  PRIMARY KEY (table_id, from_id));"
		"CREATE UNIQUE INDEX tables_relation_idx ON rowkeeper_log.tables (relation) WHERE to_id IS NULL;"
		"ALTER TABLE rowkeeper_log.tables ENABLE ROW LEVEL SECURITY",
		"Tables that were ever audited, with their names over time: a name holds for the entries "
		"with from_id <= id < to_id; relation is null once the table is dropped; tenant_from: entries "
	"before this one may have the value of another column as their tenant."},

	{RK_LOG_SCHEMA, "partitions", "TABLE",
		"CREATE TABLE rowkeeper_log.partitions (relation regclass, table_id integer);"
		"CREATE INDEX partitions_relation_idx ON rowkeeper_log.partitions (relation);"
		"ALTER TABLE rowkeeper_log.partitions ENABLE ROW LEVEL SECURITY",
	"Partitions of audited tables, so that a dropped one is known."},

	{RK_LOG_SCHEMA, "classes", "TABLE",
		"CREATE TABLE rowkeeper_log.classes ("
		"  class smallint PRIMARY KEY, keep interval UNIQUE NULLS NOT DISTINCT);"
		"ALTER TABLE rowkeeper_log.classes ENABLE ROW LEVEL SECURITY",
	"Retention classes: entries of one class are kept equally long; null: for ever."},

	{RK_LOG_SCHEMA, "log", "TABLE",
		"CREATE TABLE rowkeeper_log.log ("
		"  id bigint NOT NULL, changed_at timestamptz NOT NULL, txid bigint NOT NULL,"
		"  who bigint NOT NULL, table_id integer NOT NULL, key_hash integer NOT NULL,"
		"  action \"char\" NOT NULL, class smallint, record_id jsonb, old_data jsonb, new_data jsonb,"
		"  tenant text, new_tenant text, detail jsonb) PARTITION BY LIST (class);"
		"ALTER TABLE rowkeeper_log.log ENABLE ROW LEVEL SECURITY",
	"The audit log, by retention class and week; read it through rowkeeper.audit_log."},

	{RK_LOG_SCHEMA, "log_overflow", "TABLE",
		"CREATE TABLE rowkeeper_log.log_overflow (LIKE rowkeeper_log.log INCLUDING ALL);"
		"CREATE INDEX log_overflow_key_idx ON rowkeeper_log.log_overflow (table_id, key_hash);"
		"CREATE INDEX log_overflow_changed_at_idx ON rowkeeper_log.log_overflow USING brin (changed_at);"
		"ALTER TABLE rowkeeper_log.log_overflow ENABLE ROW LEVEL SECURITY;"
		"ALTER TABLE rowkeeper_log.log_overflow REPLICA IDENTITY FULL;"
		"ALTER TABLE rowkeeper_log.log ATTACH PARTITION rowkeeper_log.log_overflow FOR VALUES IN (NULL)",
		"Entries whose week had no leaf when they were written; rowkeeper.maintain() moves them to "
	"where they belong."},

	{RK_LOG_SCHEMA, "entries", "VIEW", ENTRIES_SQL,
	"All entries of the log in readable form; rowkeeper.audit_log shows readers theirs."},

	{"rowkeeper", "audit_log", "VIEW", AUDIT_LOG_SQL,
		"Changes of audited tables, for each reader those of the tables he may SELECT; those of "
	"dropped tables, and all others, for members of the log''s owner."},
};

/*
 * The log's schema, or InvalidOid. One that somebody else made before the
 * first audit() is not ours: what is in it would run as the extension's owner.
 */
Oid
rk_audit_log_schema(void)
{
	Oid			schema = get_namespace_oid(RK_LOG_SCHEMA, true);
	HeapTuple	tuple;
	Oid			owner;

	if (!OidIsValid(schema))
		return InvalidOid;
	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return superuser_arg(owner) || owner == rk_extension_owner() ? schema : InvalidOid;
}

Oid
rk_audit_log_relation(const char *name)
{
	Oid			schema = rk_audit_log_schema();

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

static Oid
store_object_oid(const StoreObject *object)
{
	Oid			schema = get_namespace_oid(object->schema, true);

	return OidIsValid(schema) ? get_relname_relid(object->name, schema) : InvalidOid;
}

static bool
store_is_complete(void)
{
	for (int i = 0; i < lengthof(store_objects); i++)
		if (!OidIsValid(store_object_oid(&store_objects[i])))
			return false;
	return true;
}

static void
ensure_schema(Oid owner)
{
	if (OidIsValid(get_namespace_oid(RK_LOG_SCHEMA, true)))
	{
		rk_store_check_schema(RK_LOG_SCHEMA);
		return;
	}
	(void) rk_run(owner, "CREATE SCHEMA " RK_LOG_SCHEMA);
	(void) rk_run(owner, "COMMENT ON SCHEMA " RK_LOG_SCHEMA " IS "
				  "'The audit log of rowkeeper; not a member of the extension, which it outlives.'");
	rk_store_reset_schema_acl(RK_LOG_SCHEMA);
}

static void
create_store_object(const StoreObject *object, Oid owner)
{
	(void) rk_run(owner, object->sql);
	(void) rk_run(owner, psprintf("COMMENT ON %s %s.%s IS '%s'", object->kind,
								  object->schema, object->name, object->comment));
	rk_store_reset_relation_acl(store_object_oid(object));
}

/*
 * Create what is missing of the log; what is there stays as it is. Runs as the
 * extension's owner, so the caller needs no rights of his own. Two first
 * audit() calls at the same time: the second waits for the first to commit (on
 * the extension's own lock, which no user's advisory lock can collide with)
 * and finds everything made.
 */
void
rk_audit_store_ensure(FunctionCallInfo fcinfo)
{
	Oid			owner = rk_extension_owner();

	rk_store_check_schema(RK_LOG_SCHEMA);
	if (store_is_complete())
		return;

	if (creating_extension)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot create the audit log within an extension script"),
				 errdetail("It would become a member of that extension, and its rows would not be dumped."),
				 errhint("Audit a table outside of the script first.")));

	LockDatabaseObject(ExtensionRelationId, get_extension_oid("rowkeeper", false), 0,
					   ShareRowExclusiveLock);
	if (store_is_complete())
		return;

	ensure_schema(owner);
	for (int i = 0; i < lengthof(store_objects); i++)
		if (!OidIsValid(store_object_oid(&store_objects[i])))
			create_store_object(&store_objects[i], owner);
	(void) rk_run(owner, "GRANT SELECT ON TABLE rowkeeper.audit_log TO PUBLIC");
	(void) rk_audit_class_ensure(NULL);

	rk_step(fcinfo, "created the audit log in schema " RK_LOG_SCHEMA);
}
