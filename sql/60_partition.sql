-- 60_partition.sql: partitions made ahead and taken away; switched on, changed and off

-- What partition() was told. A dump takes it along, and with it what tables are
-- called: in a copy their OIDs say nothing, and one of them may have been left
-- out of the dump, so that a regclass could not be read.
CREATE TABLE rowkeeper._partition_tables (
	home text, -- rowkeeper._home() of the database in which it was written
	relation oid,
	table_schema name NOT NULL,
	table_name name NOT NULL,
	options jsonb NOT NULL,
	PRIMARY KEY (home, relation)
);
REVOKE ALL ON rowkeeper._partition_tables FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('rowkeeper._partition_tables', '');
COMMENT ON TABLE rowkeeper._partition_tables IS
'Tables whose partitions are maintained, and how.';

-- The tables that are maintained and exist. What was said in this database is of
-- the relation; what a copy brought along is of the table that has its names,
-- unless something was said of that here.
CREATE VIEW rowkeeper._partition_registry AS
SELECT t.relation AS root, t.home, t.relation, t.options
FROM rowkeeper._partition_tables t JOIN pg_catalog.pg_class c ON c.oid = t.relation AND c.relkind = 'p'
WHERE t.home = (SELECT rowkeeper._home())
UNION ALL
SELECT DISTINCT ON (c.oid) c.oid, t.home, t.relation, t.options
FROM rowkeeper._partition_tables t
	JOIN pg_catalog.pg_namespace n ON n.nspname = t.table_schema
	JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name AND c.relkind = 'p'
WHERE t.home <> (SELECT rowkeeper._home())
	AND NOT EXISTS (SELECT FROM rowkeeper._partition_tables o
		WHERE o.home = (SELECT rowkeeper._home()) AND o.relation = c.oid);
REVOKE ALL ON rowkeeper._partition_registry FROM PUBLIC;
COMMENT ON VIEW rowkeeper._partition_registry IS 'Tables that are maintained, and how.';

-- Partitions on their way out: noted and committed before they are detached,
-- because the command that detaches them commits by itself. Work of this
-- database, which a dump does not carry: a copy begins its own.
CREATE TABLE rowkeeper._partition_intents (
	partition regclass PRIMARY KEY,
	relation regclass NOT NULL,
	upper bigint NOT NULL, -- where it ended, on the key's scale
	checks name[] NOT NULL, -- its own; a concurrent detach adds one
	since timestamptz NOT NULL,
	detached boolean NOT NULL DEFAULT false -- by us, and in the same transaction
);
REVOKE ALL ON rowkeeper._partition_intents FROM PUBLIC;
COMMENT ON TABLE rowkeeper._partition_intents IS
'Partitions that expired and are being taken away.';

CREATE FUNCTION partition(target regclass, "by" name DEFAULT NULL, every text DEFAULT NULL, ahead text DEFAULT NULL,
                          keep text DEFAULT NULL, on_expiry text DEFAULT NULL, archive_schema name DEFAULT NULL,
                          timezone text DEFAULT NULL, partition_schema name DEFAULT NULL, brin boolean DEFAULT NULL,
                          epoch text DEFAULT NULL)
    RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_partition';
COMMENT ON FUNCTION partition(regclass, name, text, text, text, text, name, text, name, boolean, text) IS
    'makes a table''s partitions ahead of time and takes old ones away: by (its column), every, ahead (four periods), keep (''0'', for ever): an interval, or of ids a whole number; on_expiry (''drop'', ''detach'', ''archive''), archive_schema; timezone (''UTC''); partition_schema; brin (false): with a BRIN index on the key; epoch: what a number or uuid says (''s'', ''ms'', ''us'', ''ns'', ''snowflake:<origin ms>:<shift>'', ''uuidv7''). Returns what was done';

CREATE FUNCTION partition_off(target regclass) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_partition_off';
COMMENT ON FUNCTION partition_off(regclass) IS
    'maintains a table''s partitions no more (NULL: nothing); they stay';

CREATE FUNCTION partition_plan(target regclass) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_partition_plan';
COMMENT ON FUNCTION partition_plan(regclass) IS
    'what the next maintenance of a table will do, as SQL; no row: nothing';

CREATE FUNCTION partition_ensure(target regclass, value text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_partition_ensure';
COMMENT ON FUNCTION partition_ensure(regclass, text) IS
    'the partition that takes a value of the key, made at once where there is none; for who is about to write such a row';

CREATE FUNCTION partition_ensure(target regclass, value bigint) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_partition_ensure';
COMMENT ON FUNCTION partition_ensure(regclass, bigint) IS
    'the partition that takes a value of the key, made at once where there is none; for who is about to write such a row';

CREATE FUNCTION partition_ensure(target regclass, value timestamptz) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_partition_ensure';
COMMENT ON FUNCTION partition_ensure(regclass, timestamptz) IS
    'the partition that takes a value of the key, made at once where there is none; for who is about to write such a row';

CREATE FUNCTION partition_ensure(target regclass, value timestamp) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_partition_ensure';
COMMENT ON FUNCTION partition_ensure(regclass, timestamp) IS
    'the partition that takes a value of the key, made at once where there is none; for who is about to write such a row';

CREATE FUNCTION partition_ensure(target regclass, value uuid) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_partition_ensure';
COMMENT ON FUNCTION partition_ensure(regclass, uuid) IS
    'the partition that takes a value of the key, made at once where there is none; for who is about to write such a row';

-- What a partition lacks to be as its table is, or has too much, with the
-- statement that mends it. A new partition gets its rights, row security and
-- settings by running these: LIKE leaves them out.
CREATE FUNCTION rowkeeper._partition_differences(parent oid, child oid)
	RETURNS TABLE (step integer, what text, statement text)
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
	WITH pair AS (
		SELECT p.oid AS parent, c.oid AS child, c.relname,
			pg_catalog.format('%I.%I', n.nspname, c.relname) AS name,
			p.relowner AS parent_owner, c.relowner AS child_owner,
			p.relrowsecurity AS parent_row_security, c.relrowsecurity AS child_row_security,
			p.relforcerowsecurity AS parent_force, c.relforcerowsecurity AS child_force,
			p.relreplident AS parent_identity, c.relreplident AS child_identity,
			coalesce(p.relacl, pg_catalog.acldefault('r', p.relowner)) AS parent_acl,
			coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner)) AS child_acl
		FROM pg_catalog.pg_class p, pg_catalog.pg_class c
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE p.oid = $1 AND c.oid = $2
	), rights AS (
		SELECT ''::text AS columns, false AS of_child, a.grantee, a.privilege_type,
			pg_catalog.bool_or(a.is_grantable) AND a.grantee <> p.parent_owner AS is_grantable
		FROM pair p, pg_catalog.aclexplode(p.parent_acl) a
		GROUP BY a.grantee, a.privilege_type, p.parent_owner
		UNION ALL
		SELECT '', true, a.grantee, a.privilege_type,
			pg_catalog.bool_or(a.is_grantable) AND a.grantee <> p.child_owner
		FROM pair p, pg_catalog.aclexplode(p.child_acl) a
		GROUP BY a.grantee, a.privilege_type, p.child_owner
		UNION ALL
		SELECT pg_catalog.format(' (%I)', k.attname), k.attrelid = $2, a.grantee, a.privilege_type,
			pg_catalog.bool_or(a.is_grantable)
		FROM pg_catalog.pg_attribute k, pg_catalog.aclexplode(k.attacl) a
		WHERE k.attrelid IN ($1, $2) AND k.attacl IS NOT NULL AND NOT k.attisdropped
		GROUP BY k.attname, k.attrelid, a.grantee, a.privilege_type
	), policies AS (
		SELECT y.polrelid = $2 AS of_child, y.polname, y.polcmd, y.polpermissive,
			ARRAY(SELECT CASE r.role WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.role)) END
				FROM pg_catalog.unnest(y.polroles) r (role) ORDER BY 1) AS roles,
			rowkeeper._policy_expression(y.polqual, y.polrelid, p.relname::text) AS using_expression,
			rowkeeper._policy_expression(y.polwithcheck, y.polrelid, p.relname::text) AS check_expression
		FROM pair p JOIN pg_catalog.pg_policy y ON y.polrelid IN ($1, $2)
	), statistics AS (
		SELECT s.stxrelid = $2 AS of_child, s.stxname, n.nspname, coalesce(s.stxstattarget, -1) AS target,
			pg_catalog.row_number() OVER (PARTITION BY s.stxrelid ORDER BY s.oid) AS number
		FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
		WHERE s.stxrelid IN ($1, $2)
	), indexes AS (
		-- looked up from the partition's side: from the table's there are as many as partitions
		SELECT j.indexrelid AS child, j.indisreplident AS child_is_identity,
			(SELECT h.inhparent FROM pg_catalog.pg_inherits h WHERE h.inhrelid = j.indexrelid) AS parent,
			c.relname, n.nspname
		FROM pg_catalog.pg_index j
			JOIN pg_catalog.pg_class c ON c.oid = j.indexrelid
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE j.indrelid = $2
	)
	SELECT 1, 'owner'::text, pg_catalog.format('ALTER TABLE %s OWNER TO %I', p.name, pg_catalog.pg_get_userbyid(p.parent_owner))
	FROM pair p WHERE p.parent_owner <> p.child_owner
	UNION ALL
	SELECT 2, 'grants', pg_catalog.format('REVOKE %s%s%s ON %s FROM %s',
		CASE WHEN m.privilege_type IS NULL THEN '' ELSE 'GRANT OPTION FOR ' END, r.privilege_type, r.columns, p.name,
		CASE r.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.grantee)) END)
	FROM pair p, rights r
		LEFT JOIN rights m ON NOT m.of_child AND m.columns = r.columns AND m.grantee = r.grantee
			AND m.privilege_type = r.privilege_type
	WHERE r.of_child AND (m.privilege_type IS NULL OR (r.is_grantable AND NOT m.is_grantable))
	UNION ALL
	SELECT 3, 'missing grants', pg_catalog.format('GRANT %s%s ON %s TO %s%s',
		r.privilege_type, r.columns, p.name,
		CASE r.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.grantee)) END,
		CASE WHEN r.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
	FROM pair p, rights r
	WHERE NOT r.of_child
		AND NOT EXISTS (SELECT FROM rights m
			WHERE m.of_child AND m.columns = r.columns AND m.grantee = r.grantee
				AND m.privilege_type = r.privilege_type AND m.is_grantable >= r.is_grantable)
	UNION ALL
	SELECT 4, 'row security', pg_catalog.format('ALTER TABLE %s %s ROW LEVEL SECURITY', p.name,
		CASE WHEN p.parent_row_security THEN 'ENABLE' ELSE 'DISABLE' END)
	FROM pair p WHERE p.parent_row_security <> p.child_row_security
	UNION ALL
	SELECT 4, 'row security', pg_catalog.format('ALTER TABLE %s %s ROW LEVEL SECURITY', p.name,
		CASE WHEN p.parent_force THEN 'FORCE' ELSE 'NO FORCE' END)
	FROM pair p WHERE p.parent_force <> p.child_force
	UNION ALL
	SELECT 5, 'policies', pg_catalog.format('DROP POLICY %I ON %s', y.polname, p.name)
	FROM pair p, policies y
	WHERE y.of_child AND NOT EXISTS (SELECT FROM policies m
		WHERE NOT m.of_child AND m.polname = y.polname AND m.polcmd = y.polcmd AND m.polpermissive = y.polpermissive
			AND m.roles = y.roles AND m.using_expression IS NOT DISTINCT FROM y.using_expression
			AND m.check_expression IS NOT DISTINCT FROM y.check_expression)
	UNION ALL
	SELECT 6, 'policies', pg_catalog.format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', y.polname, p.name,
		CASE WHEN y.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
		CASE y.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
		pg_catalog.array_to_string(y.roles, ', '),
		' USING (' || y.using_expression || ')', ' WITH CHECK (' || y.check_expression || ')')
	FROM pair p, policies y
	WHERE NOT y.of_child AND NOT EXISTS (SELECT FROM policies m
		WHERE m.of_child AND m.polname = y.polname AND m.polcmd = y.polcmd AND m.polpermissive = y.polpermissive
			AND m.roles = y.roles AND m.using_expression IS NOT DISTINCT FROM y.using_expression
			AND m.check_expression IS NOT DISTINCT FROM y.check_expression)
	UNION ALL
	SELECT 7, 'comment', pg_catalog.format('COMMENT ON TABLE %s IS %L', p.name, pg_catalog.obj_description(p.parent, 'pg_class'))
	FROM pair p
	WHERE pg_catalog.obj_description(p.parent, 'pg_class') IS NOT NULL
		AND pg_catalog.obj_description(p.child, 'pg_class') IS NULL
	UNION ALL
	SELECT 7, 'statistics targets', pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', p.name, k.attname,
		coalesce(k.attstattarget, -1))
	FROM pair p
		JOIN pg_catalog.pg_attribute k ON k.attrelid = $1 AND k.attnum > 0 AND NOT k.attisdropped
		JOIN pg_catalog.pg_attribute m ON m.attrelid = $2 AND m.attname = k.attname
	WHERE coalesce(k.attstattarget, -1) <> coalesce(m.attstattarget, -1)
	UNION ALL
	SELECT 7, 'statistics options', pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I SET (%s)', p.name, k.attname, o.option)
	FROM pair p
		JOIN pg_catalog.pg_attribute k ON k.attrelid = $1 AND k.attnum > 0 AND NOT k.attisdropped
		JOIN pg_catalog.pg_attribute m ON m.attrelid = $2 AND m.attname = k.attname
		CROSS JOIN LATERAL pg_catalog.unnest(k.attoptions) o (option)
	-- a server may keep notes of its own there
	WHERE o.option ~ '^n_distinct(_inherited)?=' AND NOT o.option = ANY (coalesce(m.attoptions, '{}'))
	UNION ALL
	SELECT 7, 'statistics targets', pg_catalog.format('ALTER STATISTICS %I.%I SET STATISTICS %s', m.nspname, m.stxname, s.target)
	FROM statistics s JOIN statistics m ON m.of_child AND m.number = s.number
	WHERE NOT s.of_child AND m.target <> s.target
	UNION ALL
	SELECT 8, 'statistics targets', pg_catalog.format('ALTER INDEX %I.%I ALTER COLUMN %s SET STATISTICS %s',
		x.nspname, x.relname, k.attnum, coalesce(k.attstattarget, -1))
	FROM indexes x
		JOIN pg_catalog.pg_index i ON i.indexrelid = x.parent AND i.indrelid = $1
		JOIN pg_catalog.pg_attribute k ON k.attrelid = x.parent
		JOIN pg_catalog.pg_attribute m ON m.attrelid = x.child AND m.attnum = k.attnum
	WHERE coalesce(k.attstattarget, -1) <> coalesce(m.attstattarget, -1)
	UNION ALL
	SELECT 9, 'replica identity', pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY %s', p.name,
		CASE p.parent_identity WHEN 'd' THEN 'DEFAULT' WHEN 'n' THEN 'NOTHING' ELSE 'FULL' END)
	FROM pair p WHERE p.parent_identity <> 'i' AND p.parent_identity <> p.child_identity
	UNION ALL
	SELECT 9, 'replica identity', pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', p.name, x.relname)
	FROM pair p, indexes x
		JOIN pg_catalog.pg_index i ON i.indexrelid = x.parent AND i.indrelid = $1 AND i.indisreplident
	WHERE p.parent_identity = 'i' AND (p.child_identity <> 'i' OR NOT x.child_is_identity);
END;
REVOKE ALL ON FUNCTION rowkeeper._partition_differences(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_differences(oid, oid) IS
'In what a partition differs from its table where it should not, and the statements that mend it; for new partitions and doctor().';

CREATE FUNCTION rowkeeper._partition_state(target oid, OUT partitions integer, OUT ahead integer, OUT covered boolean,
	OUT covered_until text, OUT gap_from text, OUT pending text, OUT default_partition oid, OUT missing integer,
	OUT expired integer, OUT next_action text, OUT problem text)
LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_partition_state';
REVOKE ALL ON FUNCTION rowkeeper._partition_state(oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._partition_state(oid) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_state(oid) IS
'How a maintained table is; for partition_status and doctor().';

-- The same, planned once a session.
CREATE FUNCTION rowkeeper._partition_compare(parent oid, child oid)
	RETURNS TABLE (step integer, what text, statement text)
LANGUAGE c STABLE STRICT PARALLEL UNSAFE ROWS 5 COST 10000 AS 'MODULE_PATHNAME', 'rowkeeper_partition_compare';
REVOKE ALL ON FUNCTION rowkeeper._partition_compare(oid, oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._partition_compare(oid, oid) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_compare(oid, oid) IS
'In what a partition differs from its table, as the catalog shows it to everybody; for doctor().';

-- Maintained tables that the reader may SELECT or owns.
CREATE VIEW rowkeeper._partition_sets AS
SELECT c.oid AS root, n.nspname AS table_schema, c.relname AS table_name,
	pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name, t.options
FROM rowkeeper._partition_registry t
	JOIN pg_catalog.pg_class c ON c.oid = t.root
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE');
REVOKE ALL ON rowkeeper._partition_sets FROM PUBLIC;
COMMENT ON VIEW rowkeeper._partition_sets IS 'Tables whose partitions are maintained, and how.';

-- The comparison is made only where a first look finds something: statistics
-- and comments of partitions are their own affair, and rights that a partition
-- lacks keep nobody from his rows, who has them on the table.
CREATE VIEW rowkeeper._partition_drift AS
WITH RECURSIVE tree AS (
	SELECT s.root, s.root AS parent, i.inhrelid AS partition
	FROM rowkeeper._partition_sets s JOIN pg_catalog.pg_inherits i ON i.inhparent = s.root
	UNION ALL
	SELECT t.root, t.partition, i.inhrelid
	FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.partition
)
SELECT t.root, pg_catalog.format('%I.%I', n.nspname, c.relname) AS partition, d.step, d.what, d.statement
FROM tree t
	JOIN pg_catalog.pg_class p ON p.oid = t.parent
	JOIN pg_catalog.pg_class c ON c.oid = t.partition
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL rowkeeper._partition_compare(p.oid, c.oid) d
WHERE d.what IN ('owner', 'grants', 'row security', 'policies', 'replica identity')
	AND ((p.relowner, p.relrowsecurity, p.relforcerowsecurity, p.relreplident, p.relacl::text)
			IS DISTINCT FROM (c.relowner, c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relacl::text)
		OR p.relrowsecurity
		OR EXISTS (SELECT FROM pg_catalog.pg_policy y WHERE y.polrelid IN (p.oid, c.oid))
		OR EXISTS (SELECT FROM pg_catalog.pg_attribute a
			WHERE a.attrelid IN (p.oid, c.oid) AND a.attacl IS NOT NULL AND NOT a.attisdropped));
REVOKE ALL ON rowkeeper._partition_drift FROM PUBLIC;
COMMENT ON VIEW rowkeeper._partition_drift IS
'Where partitions differ from their table in who may do what, and the statements that mend it.';

-- To detach a partition the server looks up each of its rows in the tables that
-- reference it, which are locked meanwhile.
CREATE VIEW rowkeeper._partition_unindexed_keys AS
SELECT k.confrelid AS root, k.conname AS name, pg_catalog.format('%I.%I', n.nspname, c.relname) AS child,
	pg_catalog.format('CREATE INDEX CONCURRENTLY ON %I.%I (%s)', n.nspname, c.relname,
		(SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY x.position)
		FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY x (attnum, position)
			JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = x.attnum)) AS remedy
FROM pg_catalog.pg_constraint k
	JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
		WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
			AND (i.indkey::int2[])[0:pg_catalog.cardinality(k.conkey) - 1] @> k.conkey);
REVOKE ALL ON rowkeeper._partition_unindexed_keys FROM PUBLIC;
COMMENT ON VIEW rowkeeper._partition_unindexed_keys IS 'Foreign keys without an index on the referencing columns.';

-- What maintenance did last, of the tasks that concern partitions.
CREATE VIEW rowkeeper._partition_runs AS
SELECT DISTINCT ON (s.root, l.task) s.root, l.task, l.ran_at, l.error
FROM rowkeeper._partition_sets s
	JOIN rowkeeper._maintain_log l ON l.table_schema = s.table_schema AND l.table_name = s.table_name
		AND l.task IN ('partitions ahead', 'partitions expired')
ORDER BY s.root, l.task, l.ran_at DESC;
REVOKE ALL ON rowkeeper._partition_runs FROM PUBLIC;
COMMENT ON VIEW rowkeeper._partition_runs IS 'The last maintenance of partitioned tables that did something or failed, of each task.';

CREATE FUNCTION rowkeeper._partition_default_rows(target oid) RETURNS bigint
LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_partition_default_rows';
REVOKE ALL ON FUNCTION rowkeeper._partition_default_rows(oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._partition_default_rows(oid) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_default_rows(oid) IS
'How many rows are in a maintained table''s default partition, 10,000 at most; for partition_status and doctor().';

CREATE VIEW rowkeeper.partition_status WITH (security_barrier = true) AS
SELECT s.table_schema, s.table_name, s.options ->> 'every' AS every, x.partitions, x.covered_until, x.gap_from,
	CASE WHEN x.default_partition IS NOT NULL THEN rowkeeper._partition_default_rows(s.root) END AS default_rows,
	x.pending AS pending_detach,
	ARRAY(SELECT pg_catalog.format('%s: %s', d.partition, pg_catalog.string_agg(DISTINCT d.what, ', '))
		FROM rowkeeper._partition_drift d WHERE d.root = s.root
		GROUP BY d.partition ORDER BY d.partition COLLATE "C") AS drift,
	r.ran_at AS last_run, r.error AS last_error,
	coalesce(x.next_action, x.problem) AS next_action
FROM rowkeeper._partition_sets s
	CROSS JOIN LATERAL rowkeeper._partition_state(s.root) x
	LEFT JOIN LATERAL (SELECT l.ran_at, l.error FROM rowkeeper._partition_runs l
		WHERE l.root = s.root ORDER BY l.ran_at DESC LIMIT 1) r ON true;
REVOKE ALL ON rowkeeper.partition_status FROM PUBLIC;
GRANT SELECT ON rowkeeper.partition_status TO PUBLIC;
COMMENT ON VIEW rowkeeper.partition_status IS
'Maintained tables that the reader may SELECT or owns: how far partitions reach without a gap, where the first gap is, rows in the default partition, a detach that is pending, partitions that differ from the table, what maintenance did last and will do next.';

CREATE VIEW rowkeeper._partition_features AS
SELECT s.root::pg_catalog.regclass AS target, 'partition'::text AS feature, s.options,
	pg_catalog.format('SELECT rowkeeper.partition(%L, %L, %L%s%s%s%s%s%s%s%s)', s.full_name,
		(SELECT a.attname FROM pg_catalog.pg_partitioned_table k
			JOIN pg_catalog.pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]
			WHERE k.partrelid = s.root),
		s.options ->> 'every',
		', ahead => ' || pg_catalog.quote_literal(s.options ->> 'ahead'),
		', keep => ' || pg_catalog.quote_literal(coalesce(s.options ->> 'keep', '0')),
		', on_expiry => ' || pg_catalog.quote_literal(s.options ->> 'on_expiry'),
		', archive_schema => ' || pg_catalog.quote_literal(s.options ->> 'archive_schema'),
		', timezone => ' || pg_catalog.quote_literal(s.options ->> 'timezone'),
		', partition_schema => ' || pg_catalog.quote_literal(s.options ->> 'partition_schema'),
		CASE WHEN (s.options ->> 'brin')::boolean THEN ', brin => true' END,
		', epoch => ' || pg_catalog.quote_literal(s.options ->> 'epoch')) AS call,
	x.problem IS NULL AND coalesce(x.covered, false) AS healthy,
	CASE WHEN x.problem IS NOT NULL THEN x.problem WHEN NOT x.covered THEN 'no partition takes what is written now' END AS detail
FROM rowkeeper._partition_sets s CROSS JOIN LATERAL rowkeeper._partition_state(s.root) x;
REVOKE ALL ON rowkeeper._partition_features FROM PUBLIC;
COMMENT ON VIEW rowkeeper._partition_features IS 'Tables whose partitions are maintained; for rowkeeper.features.';

CREATE VIEW rowkeeper._partition_findings AS
WITH states AS MATERIALIZED (
	SELECT s.*, x.* FROM rowkeeper._partition_sets s CROSS JOIN LATERAL rowkeeper._partition_state(s.root) x
)
SELECT 'unmaintainable'::text AS check_name, 'error'::text AS level, s.table_schema AS schema, s.full_name AS object,
	s.problem AS detail, pg_catalog.format('SELECT rowkeeper.partition(%L)', s.full_name) AS remedy
FROM states s WHERE s.problem IS NOT NULL
UNION ALL
SELECT 'missing', 'warning', t.table_schema, pg_catalog.format('%I.%I', t.table_schema, t.table_name),
	'is to be maintained, but there is no such table: it was left out of a dump, or event triggers were off when it went',
	pg_catalog.format('DELETE FROM rowkeeper._partition_tables WHERE table_schema = %L AND table_name = %L', t.table_schema, t.table_name)
FROM rowkeeper._partition_tables t
WHERE NOT EXISTS (SELECT FROM rowkeeper._partition_registry r WHERE (r.home, r.relation) = (t.home, t.relation))
	AND pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c
		WHERE c.oid = 'rowkeeper._partition_tables'::pg_catalog.regclass), 'USAGE')
UNION ALL
SELECT 'uncovered', CASE WHEN s.default_partition IS NULL THEN 'error' ELSE 'warning' END, s.table_schema, s.full_name,
	CASE WHEN s.default_partition IS NULL THEN 'no partition takes what is written now'
		ELSE 'only the default partition takes what is written now' END,
	pg_catalog.format('CALL rowkeeper.maintain(%L)', s.full_name)
FROM states s WHERE NOT s.covered
UNION ALL
SELECT 'ahead', 'warning', s.table_schema, s.full_name,
	pg_catalog.format('partitions ahead: %s, missing: %s', s.ahead, s.missing),
	pg_catalog.format('CALL rowkeeper.maintain(%L)', s.full_name)
FROM states s WHERE s.covered AND s.ahead < 2 AND s.missing > 0
UNION ALL
SELECT 'gap', 'warning', s.table_schema, s.full_name,
	pg_catalog.format('no partition from %s on, but later ones', s.gap_from),
	pg_catalog.format('CALL rowkeeper.maintain(%L)', s.full_name)
FROM states s WHERE s.gap_from IS NOT NULL AND s.covered
UNION ALL
SELECT 'default_rows', 'warning', s.table_schema, s.full_name,
	pg_catalog.format('rows in default partition %s: %s%s; a partition for them cannot be made',
		s.default_partition::pg_catalog.regclass, d.rows, CASE WHEN d.rows >= 10000 THEN ' or more' ELSE '' END), NULL
FROM states s CROSS JOIN LATERAL (SELECT CASE WHEN s.default_partition IS NOT NULL THEN rowkeeper._partition_default_rows(s.root) END) d (rows)
WHERE s.default_partition IS NOT NULL AND d.rows > 0
UNION ALL
SELECT 'pending_detach', 'warning', s.table_schema, s.full_name,
	pg_catalog.format('the detach of %s is pending: no other can be detached concurrently', s.pending),
	pg_catalog.format('ALTER TABLE %s DETACH PARTITION %s FINALIZE',
		(SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
		FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class c ON c.oid = h.inhparent
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE h.inhrelid = pg_catalog.to_regclass(s.pending)), s.pending)
FROM states s
WHERE s.pending IS NOT NULL
	AND NOT EXISTS (SELECT FROM rowkeeper._partition_intents i
		WHERE i.partition = pg_catalog.to_regclass(s.pending) AND i.since > pg_catalog.now() - interval '1 hour')
UNION ALL
SELECT 'drift', CASE WHEN d.what = 'replica identity' THEN 'warning' ELSE 'error' END,
	s.table_schema, s.full_name,
	pg_catalog.format('partitions that differ in %s: %s, %s%s', d.what, pg_catalog.count(DISTINCT d.partition),
		pg_catalog.min(d.partition COLLATE "C"), CASE WHEN pg_catalog.count(DISTINCT d.partition) > 1 THEN ' and others' ELSE '' END),
	pg_catalog.string_agg(d.statement, '; ' ORDER BY d.step, d.statement COLLATE "C")
FROM rowkeeper._partition_drift d JOIN rowkeeper._partition_sets s ON s.root = d.root
GROUP BY s.table_schema, s.full_name, d.what
UNION ALL
SELECT 'foreign_key_index', 'warning', s.table_schema, s.full_name,
	pg_catalog.format('foreign key %I of %s has no index: its table stays locked while a partition is detached', k.name, k.child),
	k.remedy
FROM states s JOIN rowkeeper._partition_unindexed_keys k ON k.root = s.root
WHERE s.options ->> 'keep' IS NOT NULL
UNION ALL
-- a failure counts for as long as something is left to do; one says itself that it needs force
SELECT 'failed', 'error', s.table_schema, s.full_name, 'maintenance failed: ' || r.error,
	pg_catalog.format(CASE WHEN r.error LIKE '%force => true%' THEN 'CALL rowkeeper.maintain(%L, force => true)'
		ELSE 'CALL rowkeeper.maintain(%L)' END, s.full_name)
FROM rowkeeper._partition_runs r JOIN states s ON s.root = r.root
WHERE r.error IS NOT NULL AND CASE r.task WHEN 'partitions ahead' THEN s.missing > 0
	ELSE s.expired > 0 OR EXISTS (SELECT FROM rowkeeper._partition_intents i WHERE i.relation = s.root) END;
REVOKE ALL ON rowkeeper._partition_findings FROM PUBLIC;
COMMENT ON VIEW rowkeeper._partition_findings IS 'What is wrong with maintained partitions; for doctor().';
