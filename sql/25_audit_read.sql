-- 25_audit_read.sql: reading the audit log

CREATE FUNCTION rowkeeper.audit_history(target regclass, VARIADIC key "any")
	RETURNS TABLE (
		id bigint, changed_at timestamptz, txid bigint, table_schema name, table_name name,
		relation regclass, action text, record_id jsonb, old_data jsonb, new_data jsonb,
		changed_fields text[], actor text, actor_source text, db_user name, db_role name,
		client_addr inet, application_name text, context jsonb, tenant text)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_audit_history';
COMMENT ON FUNCTION rowkeeper.audit_history(regclass, "any") IS
'The entries of one row, oldest first, found by its primary key''s values: audit_history(''orders'', 42). Follows changes of the key. Needs SELECT on the table; under tenant() it shows the entries of the tenant''s rows, under other row security it is refused.';

CREATE FUNCTION rowkeeper.audit_history(target regclass, VARIADIC key text[])
	RETURNS TABLE (
		id bigint, changed_at timestamptz, txid bigint, table_schema name, table_name name,
		relation regclass, action text, record_id jsonb, old_data jsonb, new_data jsonb,
		changed_fields text[], actor text, actor_source text, db_user name, db_role name,
		client_addr inet, application_name text, context jsonb, tenant text)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_audit_history';
COMMENT ON FUNCTION rowkeeper.audit_history(regclass, text[]) IS
'audit_history() with the key''s values as text, as drivers send them.';

CREATE FUNCTION rowkeeper.audit_history(target regclass, key jsonb)
	RETURNS TABLE (
		id bigint, changed_at timestamptz, txid bigint, table_schema name, table_name name,
		relation regclass, action text, record_id jsonb, old_data jsonb, new_data jsonb,
		changed_fields text[], actor text, actor_source text, db_user name, db_role name,
		client_addr inet, application_name text, context jsonb, tenant text)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_audit_history_key';
COMMENT ON FUNCTION rowkeeper.audit_history(regclass, jsonb) IS
'audit_history() with the key as an object, {"id": 42}, or as a scalar where it has one column.';

-- Reads rowkeeper.audit_log, which exists from the first audit() on and shows
-- callers what they may see.
CREATE FUNCTION rowkeeper.audit_transactions(since timestamptz, until timestamptz DEFAULT now(), actor text DEFAULT NULL)
	RETURNS TABLE (txid bigint, changed_at timestamptz, actor text, db_user name, tables jsonb, context jsonb)
LANGUAGE sql STABLE PARALLEL RESTRICTED
SET search_path = pg_catalog, pg_temp
AS $$
	WITH counts AS (
		SELECT e.txid, e.table_schema, e.table_name, e.action, count(*) AS entries,
			min(e.id) AS first_id, min(e.changed_at) AS changed_at
		FROM rowkeeper.audit_log e
		WHERE e.changed_at >= since AND e.changed_at <= until
			AND (audit_transactions.actor IS NULL OR e.actor = audit_transactions.actor)
		GROUP BY e.txid, e.table_schema, e.table_name, e.action
	), firsts AS (
		SELECT DISTINCT ON (e.txid) e.txid, e.actor, e.db_user, e.context
		FROM rowkeeper.audit_log e
		WHERE e.changed_at >= since AND e.changed_at <= until
			AND (audit_transactions.actor IS NULL OR e.actor = audit_transactions.actor)
		ORDER BY e.txid, e.id
	), tables AS (
		SELECT c.txid, min(c.first_id) AS first_id, min(c.changed_at) AS changed_at,
			c.table_schema, c.table_name, jsonb_object_agg(c.action, c.entries) AS actions
		FROM counts c
		GROUP BY c.txid, c.table_schema, c.table_name
	)
	SELECT t.txid, min(t.changed_at), min(f.actor), min(f.db_user::text)::name,
		jsonb_object_agg(CASE WHEN t.table_name IS NULL THEN '' ELSE format('%I.%I', t.table_schema, t.table_name) END, t.actions),
		(array_agg(f.context))[1]
	FROM tables t JOIN firsts f ON f.txid = t.txid
	GROUP BY t.txid
	ORDER BY min(t.first_id)
$$;
COMMENT ON FUNCTION rowkeeper.audit_transactions(timestamptz, timestamptz, text) IS
'One row for each transaction that changed audited tables within that time, of one actor or (NULL) of all: counts per table (of none: the empty name) and action; actor, db_user and context of its first entry.';
