-- Stamps: switched on, changed and off. An option that is NULL stays as it is;
-- the first time it has the default that its comment names.

CREATE FUNCTION stamp(target regclass, updated_at name DEFAULT NULL, version name DEFAULT NULL,
                      created_at name DEFAULT NULL, created_by name DEFAULT NULL, updated_by name DEFAULT NULL,
                      on_noop text DEFAULT NULL, client_value text DEFAULT NULL, clock text DEFAULT NULL,
                      stale text DEFAULT NULL, client_version text DEFAULT NULL, sqlstate text DEFAULT NULL,
                      replace_triggers name[] DEFAULT NULL)
    RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_stamp';
COMMENT ON FUNCTION stamp(regclass, name, name, name, name, name, text, text, text, text, text, text, name[]) IS
    'stamps rows: updated_at (''updated_at''), version (''version'' where it exists), created_at, created_by, updated_by: columns, added where missing, ''-'': without; on_noop (''unchanged'', ''suppress'', ''bump''); client_value (''override'', ''respect'', ''error''); clock (''transaction'', ''wall'', ''monotonic''); stale (''off'', ''error'', ''skip''), client_version (''either'', ''read'', ''next''), sqlstate (''40001''); replace_triggers: hand-written ones to drop. Returns what was done';

CREATE FUNCTION stamp_off(target regclass) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_stamp_off';
COMMENT ON FUNCTION stamp_off(regclass) IS
    'stamps a table no more (NULL: nothing); its columns stay';

-- The server asks whoever adds a partition for EXECUTE, and a restore creates
-- the trigger as the table's owner.
CREATE FUNCTION _stamp() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_stamp_row';
COMMENT ON FUNCTION _stamp() IS 'row trigger: stamps a row as its argument says';

CREATE FUNCTION _stamp_breaks_hot(index regclass) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rowkeeper_stamp_breaks_hot';
REVOKE ALL ON FUNCTION _stamp_breaks_hot(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION _stamp_breaks_hot(regclass) TO PUBLIC;
COMMENT ON FUNCTION _stamp_breaks_hot(regclass) IS
    'whether a change of a column in this index keeps an update from being heap-only; for doctor()';

-- Stamped tables that the reader may SELECT or owns, of partitioned ones the
-- root. The trigger's argument is bytes with a zero at the end.
CREATE VIEW rowkeeper._stamp_tables AS
SELECT c.oid AS root, n.nspname AS table_schema, c.relname AS table_name,
	pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name,
	pg_catalog.convert_from(pg_catalog.substring(t.tgargs, 1, pg_catalog.octet_length(t.tgargs) - 1),
		pg_catalog.getdatabaseencoding())::jsonb AS options
FROM pg_catalog.pg_trigger t
	JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgname = '~rowkeeper_stamp' AND t.tgfoid = 'rowkeeper._stamp()'::pg_catalog.regprocedure
	AND t.tgparentid = 0
	AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE'));
REVOKE ALL ON rowkeeper._stamp_tables FROM PUBLIC;
COMMENT ON VIEW rowkeeper._stamp_tables IS 'What is stamped, and how.';

-- The columns that are stamped; attnum is null where one does not exist.
CREATE VIEW rowkeeper._stamp_columns AS
SELECT t.root, t.table_schema, t.full_name, k.stamp, t.options ->> k.stamp AS column_name,
	a.attnum, a.atttypid
FROM rowkeeper._stamp_tables t
	CROSS JOIN pg_catalog.unnest('{updated_at,version,created_at,created_by,updated_by}'::text[]) k (stamp)
	LEFT JOIN pg_catalog.pg_attribute a
		ON a.attrelid = t.root AND a.attname = (t.options ->> k.stamp) AND NOT a.attisdropped
WHERE t.options ->> k.stamp IS NOT NULL;
REVOKE ALL ON rowkeeper._stamp_columns FROM PUBLIC;
COMMENT ON VIEW rowkeeper._stamp_columns IS 'The columns that are stamped.';

CREATE VIEW rowkeeper._stamp_tree AS
WITH RECURSIVE tree AS (
	SELECT t.root, t.root AS relation, t.table_schema, t.full_name FROM rowkeeper._stamp_tables t
	UNION ALL
	SELECT t.root, c.oid, t.table_schema, pg_catalog.format('%I.%I', n.nspname, c.relname)
	FROM tree t
		JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
		JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
)
SELECT root, relation, table_schema, full_name FROM tree;
REVOKE ALL ON rowkeeper._stamp_tree FROM PUBLIC;
COMMENT ON VIEW rowkeeper._stamp_tree IS 'Stamped tables and their partitions.';

-- Triggers of users that fire before a row of a stamped table is written: its
-- own, and those of single partitions. Of a function's source only what can
-- be told from its text: an assignment to a column of NEW, comments left out.
CREATE VIEW rowkeeper._stamp_user_triggers AS
SELECT r.root, r.relation, r.table_schema, r.full_name, t.tgname,
	p.proname, t.tgargs,
	pg_catalog.regexp_replace(p.prosrc, '--[^\n]*|/\*.*?\*/', ' ', 'g') AS source
FROM rowkeeper._stamp_tree r
	JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.relation
	JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND t.tgparentid = 0
	AND (t.tgtype & 3) = 3 AND (t.tgtype & 20) <> 0
	AND t.tgfoid <> 'rowkeeper._stamp()'::pg_catalog.regprocedure;
REVOKE ALL ON rowkeeper._stamp_user_triggers FROM PUBLIC;
COMMENT ON VIEW rowkeeper._stamp_user_triggers IS 'Row triggers of users that fire before stamped rows are written.';

CREATE VIEW rowkeeper._stamp_other_triggers AS
SELECT 'trigger_order'::text AS check_name, u.root, u.table_schema, u.full_name AS object,
	pg_catalog.format('trigger %I of %s fires after the stamps: what it changes is not stamped', u.tgname, u.full_name) AS detail,
	pg_catalog.format('ALTER TRIGGER %I ON %s RENAME TO %I', u.tgname, u.full_name,
		pg_catalog.left('before_' || pg_catalog.ltrim(u.tgname::text, '~'), 40)) AS remedy
FROM rowkeeper._stamp_user_triggers u
WHERE u.tgname > '~rowkeeper_stamp'
UNION ALL
SELECT 'second_writer', u.root, u.table_schema, u.full_name,
	pg_catalog.format('trigger %I of %s sets %s, too', u.tgname, u.full_name,
		pg_catalog.string_agg(pg_catalog.quote_ident(c.column_name), ', ' ORDER BY c.attnum)),
	pg_catalog.format('SELECT rowkeeper.stamp(%L, replace_triggers => %L)', c.full_name, ARRAY[u.tgname]::text)
FROM rowkeeper._stamp_user_triggers u
	JOIN rowkeeper._stamp_columns c ON c.root = u.root
	CROSS JOIN LATERAL (SELECT pg_catalog.regexp_replace(c.column_name, '\W', '\\\&', 'g')) e (name)
WHERE u.source ~* pg_catalog.concat('(^|;|\mbegin|\mthen|\melse|\mloop)\s*new\s*\.\s*"?', e.name, '"?\s*:?=',
		'|\mnew\s*\.\s*"?', e.name, '"?\s*:=',
		'|\minto\s[^;]*\mnew\s*\.\s*"?', e.name, '"?(\W|$)',
		'|\[\s*[''"]', e.name, '[''"]\s*\]\s*=[^=]')
	OR (u.proname = 'moddatetime'
		AND u.tgargs = pg_catalog.convert_to(c.column_name, pg_catalog.getdatabaseencoding()) || '\x00'::bytea)
GROUP BY u.root, u.relation, u.table_schema, u.full_name, u.tgname, c.full_name;
REVOKE ALL ON rowkeeper._stamp_other_triggers FROM PUBLIC;
COMMENT ON VIEW rowkeeper._stamp_other_triggers IS 'Triggers of users that stand in the way of stamps; for stamp() and doctor().';

-- How the trigger of each table and partition fires.
CREATE VIEW rowkeeper._stamp_states AS
SELECT r.root, r.relation, r.table_schema, r.full_name,
	CASE coalesce(t.tgenabled, ' ')
		WHEN ' ' THEN pg_catalog.format('trigger missing on %s', r.full_name)
		WHEN 'A' THEN pg_catalog.format('trigger on %s fires for replicated rows, too, and stamps them anew', r.full_name)
		ELSE pg_catalog.format('trigger disabled on %s', r.full_name) END AS problem,
	CASE coalesce(t.tgenabled, ' ') WHEN 'A' THEN 'warning' ELSE 'error' END AS level
FROM rowkeeper._stamp_tree r
	LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.relation AND t.tgname = '~rowkeeper_stamp'
		AND t.tgfoid = 'rowkeeper._stamp()'::pg_catalog.regprocedure
WHERE t.tgenabled IS DISTINCT FROM 'O';
REVOKE ALL ON rowkeeper._stamp_states FROM PUBLIC;
COMMENT ON VIEW rowkeeper._stamp_states IS 'Triggers of stamps that do not fire as they should.';

CREATE VIEW rowkeeper._stamp_features AS
SELECT t.root::pg_catalog.regclass AS target, 'stamp'::text AS feature, t.options,
	pg_catalog.format('SELECT rowkeeper.stamp(%L%s)', t.full_name, (
		SELECT pg_catalog.string_agg(pg_catalog.format(', %s => %L', k.name, coalesce(t.options ->> k.name, '-')), '' ORDER BY k.at)
		FROM pg_catalog.unnest('{updated_at,version,created_at,created_by,updated_by,on_noop,client_value,clock,stale,client_version,sqlstate}'::text[])
			WITH ORDINALITY k (name, at))) AS call,
	p.problems IS NULL AS healthy, p.problems AS detail
FROM rowkeeper._stamp_tables t
	LEFT JOIN LATERAL (
		SELECT pg_catalog.string_agg(x.problem, '; ' ORDER BY x.problem) AS problems
		FROM (SELECT s.problem FROM rowkeeper._stamp_states s WHERE s.root = t.root
			UNION ALL
			SELECT pg_catalog.format('column %I does not exist', c.column_name)
			FROM rowkeeper._stamp_columns c WHERE c.root = t.root AND c.attnum IS NULL) x) p ON true;
REVOKE ALL ON rowkeeper._stamp_features FROM PUBLIC;
COMMENT ON VIEW rowkeeper._stamp_features IS 'The stamps'' rows of rowkeeper.features.';

CREATE VIEW rowkeeper._stamp_findings AS
SELECT 'trigger'::text AS check_name, s.level, s.table_schema AS schema, s.full_name AS object, s.problem AS detail,
	pg_catalog.format('SELECT rowkeeper.stamp(%L)', t.full_name) AS remedy
FROM rowkeeper._stamp_states s JOIN rowkeeper._stamp_tables t ON t.root = s.root
UNION ALL
SELECT 'column', 'error', c.table_schema, c.full_name,
	pg_catalog.format('column %I is to be stamped as %s and does not exist: every write fails', c.column_name, c.stamp),
	pg_catalog.format('SELECT rowkeeper.stamp(%L, %s => ''-'')', c.full_name, c.stamp)
FROM rowkeeper._stamp_columns c
WHERE c.attnum IS NULL
UNION ALL
SELECT o.check_name, 'warning', o.table_schema, o.object, o.detail, o.remedy
FROM rowkeeper._stamp_other_triggers o
UNION ALL
SELECT 'time_zone', 'warning', c.table_schema, c.full_name,
	pg_catalog.format('column %I is without time zone: it gets the time of whatever zone a session has', c.column_name),
	pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I TYPE timestamptz', c.full_name, c.column_name)
FROM rowkeeper._stamp_columns c
	JOIN pg_catalog.pg_type y ON y.oid = c.atttypid
WHERE 'timestamp'::pg_catalog.regtype IN (y.oid, y.typbasetype)
UNION ALL
SELECT 'hot', 'info', r.table_schema, r.full_name,
	pg_catalog.format('index %s has %s, which every update changes: none is heap-only', i.indexrelid::pg_catalog.regclass,
		pg_catalog.string_agg(pg_catalog.quote_ident(c.column_name), ', ' ORDER BY c.attnum)),
	CASE WHEN i.indisunique OR x.relispartition THEN NULL
		ELSE pg_catalog.format('DROP INDEX %s', i.indexrelid::pg_catalog.regclass) END
FROM rowkeeper._stamp_tree r
	JOIN pg_catalog.pg_index i ON i.indrelid = r.relation
	JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
	JOIN rowkeeper._stamp_columns c ON c.root = r.root AND c.stamp IN ('updated_at', 'version', 'updated_by')
	JOIN pg_catalog.pg_attribute a ON a.attrelid = r.relation AND a.attname = c.column_name
WHERE (r.relation = r.root OR NOT x.relispartition)
	AND rowkeeper._stamp_breaks_hot(i.indexrelid)
	AND (a.attnum = ANY (i.indkey::int2[]) OR EXISTS (SELECT FROM pg_catalog.pg_depend d
		WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
			AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = r.relation
			AND d.refobjsubid = a.attnum))
GROUP BY r.table_schema, r.full_name, i.indexrelid, i.indisunique, x.relispartition;
REVOKE ALL ON rowkeeper._stamp_findings FROM PUBLIC;
COMMENT ON VIEW rowkeeper._stamp_findings IS 'What is wrong with stamps; for doctor().';
