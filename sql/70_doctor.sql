-- 70_doctor.sql: which features are on, and what is wrong

CREATE VIEW rowkeeper.features WITH (security_barrier = true) AS
SELECT c.root::pg_catalog.regclass AS target, 'audit'::text AS feature,
	c.options,
	pg_catalog.format('SELECT rowkeeper.audit(%L, exclude => %L, capture => %L, keep => %L, replica => %s)',
		c.full_name,
		ARRAY(SELECT x.name FROM pg_catalog.jsonb_array_elements_text(c.options -> 'exclude') x (name))::text,
		c.options ->> 'capture', coalesce(c.options ->> 'keep', '0'), 
		CASE WHEN c.options ->> 'replica' = 'false' THEN 'false' ELSE 'true' END) AS call,
	c.missing = '{}' AS healthy,
	NULLIF(pg_catalog.array_to_string(c.missing, '; '), '') AS detail
FROM rowkeeper._audit_coverage c
WHERE c.audited
UNION ALL
SELECT s.target, s.feature, s.options, s.call, s.healthy, s.detail FROM rowkeeper._stamp_features s
UNION ALL
SELECT s.target, s.feature, s.options, s.call, s.healthy, s.detail FROM rowkeeper._soft_delete_features s
UNION ALL
SELECT s.target, s.feature, s.options, s.call, s.healthy, s.detail FROM rowkeeper._tenant_features s
UNION ALL
SELECT s.target, s.feature, s.options, s.call, s.healthy, s.detail FROM rowkeeper._partition_features s;
REVOKE ALL ON rowkeeper.features FROM PUBLIC;
GRANT SELECT ON rowkeeper.features TO PUBLIC;
COMMENT ON VIEW rowkeeper.features IS
'Features that are on, of tables that the reader may SELECT or owns: their options, the call that recreates this state, and whether everything they need is in place.';

CREATE FUNCTION rowkeeper._audit_overflow() RETURNS bigint
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_audit_overflow';
REVOKE ALL ON FUNCTION rowkeeper._audit_overflow() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._audit_overflow() TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._audit_overflow() IS
'How many entries wait in the overflow of the log; for doctor().';

CREATE FUNCTION rowkeeper._audit_weeks_ahead() RETURNS TABLE (class regclass, weeks integer)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_audit_weeks_ahead';
REVOKE ALL ON FUNCTION rowkeeper._audit_weeks_ahead() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._audit_weeks_ahead() TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._audit_weeks_ahead() IS
'How many weekly leaves each retention class has for later; for doctor().';

-- Relations and schema of the log, with their rights.
CREATE VIEW rowkeeper._audit_log_objects AS
SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
	CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
	c.relkind, c.relowner AS owner, c.relacl AS acl, c.relpersistence,
	c.relrowsecurity
FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'rowkeeper_log' AND c.relkind IN ('r', 'p', 'v', 'S')
UNION ALL
SELECT n.oid, pg_catalog.quote_ident(n.nspname), 'SCHEMA', NULL, n.nspowner, n.nspacl, NULL, NULL
FROM pg_catalog.pg_namespace n WHERE n.nspname = 'rowkeeper_log';
REVOKE ALL ON rowkeeper._audit_log_objects FROM PUBLIC;
COMMENT ON VIEW rowkeeper._audit_log_objects IS 'The log as objects of the catalog; for doctor().';

CREATE VIEW rowkeeper._audit_findings AS
SELECT 'coverage'::text AS check_name, 'error'::text AS level, c.table_schema AS schema, c.full_name AS object,
	pg_catalog.array_to_string(c.missing, '; ') AS detail, c.remedy
FROM rowkeeper._audit_coverage c
WHERE c.audited AND c.missing <> '{}'
UNION ALL
SELECT 'event_trigger', 'error', NULL, e.name, 'event trigger ' || e.problem || ': the log does not notice all DDL', e.remedy
FROM rowkeeper._audit_event_triggers e
UNION ALL
SELECT 'overflow', 'warning', 'rowkeeper_log', 'rowkeeper_log.log_overflow',
	o.entries || ' entries had no leaf for their week', 'CALL rowkeeper.maintain()'
FROM rowkeeper._audit_overflow() o (entries)
WHERE o.entries > 0
UNION ALL
SELECT 'maintenance', 'error', 'rowkeeper_log', r.name, 'maintenance failed: ' || r.error,
	CASE WHEN r.task = 'partitions expired' THEN pg_catalog.format('CALL rowkeeper.maintain(%L, force => true)', r.name)
		ELSE 'CALL rowkeeper.maintain()' END
FROM (SELECT DISTINCT ON (m.table_name, m.task) pg_catalog.format('%I.%I', m.table_schema, m.table_name) AS name, m.task, m.error
	FROM rowkeeper._maintain_log m
	WHERE m.table_schema = 'rowkeeper_log' AND m.ran_at > pg_catalog.now() - interval '2 days'
	ORDER BY m.table_name, m.task, m.ran_at DESC) r
WHERE r.error IS NOT NULL
UNION ALL
SELECT 'leaves_ahead', CASE WHEN w.weeks = 0 THEN 'error' ELSE 'warning' END, 'rowkeeper_log',
	w.class::text, 'weekly leaves ahead: ' || w.weeks, 'CALL rowkeeper.maintain()'
FROM rowkeeper._audit_weeks_ahead() w
WHERE w.weeks < 2
UNION ALL
SELECT 'log_privileges', 'error', 'rowkeeper_log', o.name,
	'rights of others: ' || pg_catalog.string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC'
		ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, ', '),
	pg_catalog.format('REVOKE ALL ON %s %s FROM %s CASCADE', o.kind, o.name,
		pg_catalog.string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC'
			ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, ', '))
FROM rowkeeper._audit_log_objects o, pg_catalog.aclexplode(o.acl) a
WHERE a.grantee <> o.owner
GROUP BY o.name, o.kind
UNION ALL
SELECT 'log_row_security', 'error', 'rowkeeper_log', o.name, 'row security is off',
	pg_catalog.format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', o.name)
FROM rowkeeper._audit_log_objects o
WHERE o.relkind IN ('r', 'p') AND NOT o.relrowsecurity
UNION ALL
SELECT 'log_unlogged', 'error', 'rowkeeper_log', o.name, 'unlogged: a crash empties it',
	pg_catalog.format('ALTER TABLE %s SET LOGGED', o.name)
FROM rowkeeper._audit_log_objects o
WHERE o.relkind = 'r' AND o.relpersistence = 'u'
UNION ALL
SELECT 'log_writers', 'warning', 'rowkeeper_log', pg_catalog.quote_ident(r.rolname),
	CASE WHEN pg_catalog.pg_has_role(r.oid, o.owner, 'MEMBER')
		THEN pg_catalog.format('is a member of the log''s owner %I and can change the log', pg_catalog.pg_get_userbyid(o.owner))
		ELSE 'can write all tables past row security, the log among them' END,
	CASE WHEN pg_catalog.pg_has_role(r.oid, o.owner, 'MEMBER')
		THEN pg_catalog.format('REVOKE %I FROM %I', pg_catalog.pg_get_userbyid(o.owner), r.rolname)
		ELSE pg_catalog.format('ALTER ROLE %I NOBYPASSRLS', r.rolname) END
FROM rowkeeper._audit_log_objects o
	JOIN pg_catalog.pg_roles r ON r.oid <> o.owner AND NOT r.rolsuper
		AND (pg_catalog.pg_has_role(r.oid, o.owner, 'MEMBER')
			OR (r.rolbypassrls AND pg_catalog.pg_has_role(r.oid, 'pg_write_all_data', 'MEMBER')))
WHERE o.name = 'rowkeeper_log.log'
UNION ALL
SELECT 'trigger_gone', 'warning', d.table_schema, pg_catalog.format('%I.%I', d.table_schema, d.table_name),
	'was audited, has no trigger any more, and audit_off() was not called',
	pg_catalog.format('SELECT rowkeeper.audit(%L)', d.relation::text)
FROM rowkeeper._audit_tables() d
	JOIN pg_catalog.pg_class c ON c.oid = d.relation
WHERE rowkeeper._changes_options(d.relation, 'audit') IS NULL
	AND (d.gaps -> -1 ->> 'reason') IS DISTINCT FROM 'audit_off';
REVOKE ALL ON rowkeeper._audit_findings FROM PUBLIC;
COMMENT ON VIEW rowkeeper._audit_findings IS 'What is wrong with audit; for doctor().';

CREATE VIEW rowkeeper._findings WITH (security_barrier = true) AS
SELECT 'audit'::text AS feature, f.check_name, f.level, f.schema, f.object, f.detail, f.remedy
FROM rowkeeper._audit_findings f
UNION ALL
SELECT 'stamp', f.check_name, f.level, f.schema, f.object, f.detail, f.remedy
FROM rowkeeper._stamp_findings f
UNION ALL
SELECT 'soft_delete', f.check_name, f.level, f.schema, f.object, f.detail, f.remedy
FROM rowkeeper._soft_delete_findings f
UNION ALL
SELECT 'soft_delete', f.check_name, f.level, f.schema, f.object, f.detail, f.remedy
FROM rowkeeper._trash_findings f
UNION ALL
SELECT 'tenant', f.check_name, f.level, f.schema, f.object, f.detail, f.remedy
FROM rowkeeper._tenant_findings f
UNION ALL
SELECT 'partition', f.check_name, f.level, f.schema, f.object, f.detail, f.remedy
FROM rowkeeper._partition_findings f
UNION ALL
SELECT 'partition', f.check_name, f.level, f.schema, f.object, f.detail, f.remedy
FROM rowkeeper._partition_convert_findings f
UNION ALL
SELECT 'partition', f.check_name, f.level, f.schema, f.object, f.detail, f.remedy
FROM rowkeeper._partition_split_findings f;
REVOKE ALL ON rowkeeper._findings FROM PUBLIC;
GRANT SELECT ON rowkeeper._findings TO PUBLIC;
COMMENT ON VIEW rowkeeper._findings IS 'The findings of every feature; read them through rowkeeper.doctor().';

CREATE FUNCTION rowkeeper._feature_names() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '{audit,stamp,soft_delete,tenant,partition}'::text[];
REVOKE ALL ON FUNCTION rowkeeper._feature_names() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._feature_names() TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._feature_names() IS 'The features that have findings; for doctor_assert().';

CREATE FUNCTION rowkeeper.doctor(schema name DEFAULT NULL, feature text DEFAULT NULL)
	RETURNS TABLE (feature text, check_name text, level text, object text, detail text, remedy text)
LANGUAGE sql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
	SELECT f.feature, f.check_name, f.level, f.object, f.detail, f.remedy
	FROM rowkeeper._findings f
	WHERE ($1 IS NULL OR f.schema = $1) AND ($2 IS NULL OR f.feature = $2)
	ORDER BY array_position('{error,warning,info}', f.level), f.feature, f.check_name, f.object, f.detail
$$;
COMMENT ON FUNCTION rowkeeper.doctor(name, text) IS
'What is wrong with the features, of one schema or (NULL) all, of one feature or (NULL) all: level is error, warning or info; remedy is SQL that mends it. Of tables that the caller may SELECT or owns, and of what concerns no table.';

CREATE FUNCTION rowkeeper.doctor_assert(level text DEFAULT 'error', schema name DEFAULT NULL, feature text DEFAULT NULL)
	RETURNS boolean
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_doctor_assert';
COMMENT ON FUNCTION rowkeeper.doctor_assert(text, name, text) IS
'True where doctor() finds nothing of that level or worse; else raises 55000 with the findings: for CI and monitoring.';
