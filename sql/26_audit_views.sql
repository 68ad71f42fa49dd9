-- 26_audit_views.sql: what is audited, what is missing, how much it fills
--
-- The log is made at the first audit(), so these views reach it through
-- functions, which before that return nothing. PUBLIC may execute those: they
-- themselves show a caller only tables that he may SELECT or owns.

CREATE FUNCTION rowkeeper._changes_options(target regclass, consumer text) RETURNS jsonb
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rowkeeper_changes_options';
REVOKE ALL ON FUNCTION rowkeeper._changes_options(regclass, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._changes_options(regclass, text) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._changes_options(regclass, text) IS
'The options that a feature has in a table''s row trigger, as pg_trigger shows them to everybody.';

CREATE FUNCTION rowkeeper._audit_tables()
	RETURNS TABLE (relation regclass, table_schema name, table_name name, since timestamptz, gaps jsonb)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_audit_tables';
REVOKE ALL ON FUNCTION rowkeeper._audit_tables() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._audit_tables() TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._audit_tables() IS
'Tables that were ever audited, since when, and when capture was off; those that the caller may see.';

CREATE FUNCTION rowkeeper._audit_sizes()
	RETURNS TABLE (table_schema name, table_name name, keep interval, entries bigint, bytes bigint,
		oldest timestamptz, newest timestamptz)
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_audit_sizes';
REVOKE ALL ON FUNCTION rowkeeper._audit_sizes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._audit_sizes() TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._audit_sizes() IS
'What each table has in the log; of tables that the caller may see.';

CREATE VIEW rowkeeper._audit_event_triggers AS
SELECT w.name,
	CASE WHEN t.evtname IS NULL THEN 'is missing'
		WHEN t.evtenabled = 'D' THEN 'is disabled'
		WHEN t.evtenabled <> 'A' THEN 'does not always fire' END AS problem,
	CASE WHEN t.evtname IS NULL
		THEN pg_catalog.format('CREATE EVENT TRIGGER %I ON %s EXECUTE FUNCTION rowkeeper.%I(); ', w.name, w.event, w.function)
		ELSE '' END || pg_catalog.format('ALTER EVENT TRIGGER %I ENABLE ALWAYS', w.name) AS remedy
FROM (VALUES ('rowkeeper_ddl_end', 'ddl_command_end', '_on_ddl_end'),
		('rowkeeper_drop', 'sql_drop', '_on_drop'),
		('rowkeeper_rewrite', 'table_rewrite', '_on_rewrite')) w (name, event, function)
	LEFT JOIN pg_catalog.pg_event_trigger t ON t.evtname = w.name
WHERE t.evtname IS NULL OR t.evtenabled <> 'A';
REVOKE ALL ON rowkeeper._audit_event_triggers FROM PUBLIC;
COMMENT ON VIEW rowkeeper._audit_event_triggers IS
'Event triggers of the extension that are not as it made them.';

-- Every user table, its state and what is wrong with its own objects. Reads
-- catalogs and locks no table.
CREATE VIEW rowkeeper._audit_coverage AS
WITH RECURSIVE tables AS (
	SELECT c.oid AS root, n.nspname AS table_schema, c.relname AS table_name,
		pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name,
		c.relpersistence, c.relkind, c.relam,
		rowkeeper._changes_options(c.oid, 'audit') AS options
	FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
		AND n.nspname NOT IN ('information_schema', 'rowkeeper', 'rowkeeper_log')
		AND n.nspname !~ '^pg_'
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
			WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
		AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE'))
), tree AS (
	SELECT t.root, t.root AS relation, t.full_name, t.relpersistence,
		coalesce((t.options ->> 'replica')::boolean, true) AS replica
	FROM tables t
	WHERE t.options IS NOT NULL
	UNION ALL
	SELECT t.root, c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relpersistence, t.replica
	FROM tree t
		JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
		JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
), triggers AS (
	SELECT r.root, r.full_name, r.replica, w.part, t.tgenabled AS state,
		pg_catalog.bool_or(w.part = 'row trigger' AND coalesce(t.tgenabled, 'D') IN ('D', 'R'))
			OVER (PARTITION BY r.relation) AS off
	FROM tree r
		CROSS JOIN (VALUES ('!rowkeeper_changes', 'rowkeeper._changes_row()'::pg_catalog.regprocedure::pg_catalog.oid, 'row trigger'),
			('rowkeeper_changes_flush', 'rowkeeper._changes_flush()'::pg_catalog.regprocedure::pg_catalog.oid, 'flush trigger'))
			w (name, function, part)
		LEFT JOIN pg_catalog.pg_trigger t
			ON t.tgrelid = r.relation AND t.tgname = w.name AND t.tgfoid = w.function
), problems AS (
	SELECT g.root, 1 AS rank, g.full_name,
		CASE WHEN g.state IS NULL THEN pg_catalog.format('%s missing on %s', g.part, g.full_name)
			WHEN g.state IN ('D', 'R') THEN pg_catalog.format('%s disabled on %s', g.part, g.full_name)
			WHEN g.replica AND g.state <> 'A' AND NOT g.off THEN
				pg_catalog.format('%s on %s does not fire under session_replication_role = replica', g.part, g.full_name)
		END AS problem
	FROM triggers g
	UNION ALL
	SELECT r.root, 2, r.full_name, pg_catalog.format('%s is unlogged', r.full_name)
	FROM tree r WHERE r.relpersistence = 'u'
	UNION ALL
	SELECT t.root, 3, t.full_name, pg_catalog.format('excluded column %I does not exist', x.name)
	FROM tables t, pg_catalog.jsonb_array_elements_text(t.options -> 'exclude') x (name)
	WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
		WHERE a.attrelid = t.root AND a.attname = x.name AND NOT a.attisdropped)
	UNION ALL
	SELECT t.root, 4, t.full_name, 'not in the dictionary of the log'
	FROM tables t
	WHERE t.options IS NOT NULL
		AND NOT EXISTS (SELECT FROM rowkeeper._audit_tables() d WHERE d.relation = t.root)
	UNION ALL
	SELECT t.root, 5, t.full_name, 'no primary key'
	FROM tables t
	WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = t.root AND i.indisprimary)
	UNION ALL
	SELECT t.root, 6, t.full_name, 'table is unlogged'
	FROM tables t WHERE t.options IS NULL AND t.relpersistence = 'u'
	UNION ALL
	SELECT t.root, 7, t.full_name, 'access method is not heap'
	FROM tables t JOIN pg_catalog.pg_am m ON m.oid = t.relam
	WHERE t.options IS NULL AND t.relkind = 'r' AND m.amname <> 'heap'
), missing AS (
	SELECT p.root, pg_catalog.array_agg(p.problem ORDER BY p.rank, p.full_name, p.problem) AS missing,
		pg_catalog.array_agg(DISTINCT p.rank) AS ranks
	FROM problems p WHERE p.problem IS NOT NULL
	GROUP BY p.root
)
SELECT t.root, t.table_schema, t.table_name, t.full_name, t.options,
	t.options IS NOT NULL AS audited,
	CASE WHEN t.options IS NOT NULL THEN d.since END AS since,
	coalesce(m.missing, '{}') AS missing,
	coalesce(d.gaps, '[]') AS gaps,
	CASE WHEN m.ranks && '{5,7}' THEN NULL
		WHEN m.ranks && '{2,6}' THEN pg_catalog.format('ALTER TABLE %s SET LOGGED; ', t.full_name) ELSE '' END
	|| CASE WHEN t.options IS NOT NULL AND m.missing IS NULL THEN NULL
		ELSE pg_catalog.format('SELECT rowkeeper.audit(%L%s)', t.full_name,
			CASE WHEN 3 = ANY (m.ranks) THEN pg_catalog.format(', exclude => %L', ARRAY(
				SELECT x.name FROM pg_catalog.jsonb_array_elements_text(t.options -> 'exclude') x (name)
				WHERE EXISTS (SELECT FROM pg_catalog.pg_attribute a
					WHERE a.attrelid = t.root AND a.attname = x.name AND NOT a.attisdropped)
				ORDER BY 1)::text) END) END AS remedy
FROM tables t
	LEFT JOIN missing m ON m.root = t.root
	LEFT JOIN rowkeeper._audit_tables() d ON d.relation = t.root;
REVOKE ALL ON rowkeeper._audit_coverage FROM PUBLIC;
COMMENT ON VIEW rowkeeper._audit_coverage IS
'audit_coverage with what its other readers need besides.';

CREATE VIEW rowkeeper.audit_coverage WITH (security_barrier = true) AS
SELECT c.table_schema, c.table_name, c.audited, c.since,
	c.missing || CASE WHEN c.audited THEN ARRAY(
		SELECT 'event trigger ' || e.name || ' ' || e.problem
		FROM rowkeeper._audit_event_triggers e ORDER BY e.name) ELSE '{}' END AS missing,
	c.gaps,
	NULLIF(pg_catalog.concat_ws('; ', c.remedy, CASE WHEN c.audited THEN (
		SELECT pg_catalog.string_agg(e.remedy, '; ' ORDER BY e.name)
		FROM rowkeeper._audit_event_triggers e) END), '') AS remedy
FROM rowkeeper._audit_coverage c;
REVOKE ALL ON rowkeeper.audit_coverage FROM PUBLIC;
GRANT SELECT ON rowkeeper.audit_coverage TO PUBLIC;
COMMENT ON VIEW rowkeeper.audit_coverage IS
'Every ordinary and partitioned table that the reader may SELECT or owns: whether and since when it is audited; what is missing or weaker than audit() makes it, compared with the catalogs as they are now; gaps, periods in which capture was off; remedy, SQL that mends it (null: nothing to do, or nothing that SQL alone can do).';

CREATE VIEW rowkeeper.audit_size WITH (security_barrier = true) AS
SELECT s.table_schema, s.table_name, s.keep, s.entries, s.bytes, s.oldest, s.newest
FROM rowkeeper._audit_sizes() s;
REVOKE ALL ON rowkeeper.audit_size FROM PUBLIC;
GRANT SELECT ON rowkeeper.audit_size TO PUBLIC;
COMMENT ON VIEW rowkeeper.audit_size IS
'What each table that was ever audited has in the log, of tables that the reader may SELECT or owns. Tables with the same keep share leaves: entries and bytes are each leaf''s, shared out by how often a table occurs in its column statistics; a leaf that was never analyzed is counted. oldest and newest are exact. keep is what holds for new entries, null: for ever.';
