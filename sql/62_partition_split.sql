-- 62_partition_split.sql: a wide partition is divided

-- What is being divided. A dump has none of it: the partition in it is as it
-- was, but for triggers that do nothing there and a table that doctor() names.
CREATE TABLE rowkeeper._partition_splits (
	relation regclass PRIMARY KEY,
	partition regclass, -- NULL: dropped
	history regclass, -- what takes its place
	first bigint NOT NULL, -- where the period of its oldest row begins, on the key's scale
	search_path text NOT NULL, -- of the owner's code, where rows are copied
	objects bigint NOT NULL, -- what table, partition and copy had then, by version
	options jsonb NOT NULL, -- by which its partitions are made
	watched boolean NOT NULL DEFAULT false, -- it has the triggers
	position text[], -- the last key that was copied
	scanned boolean NOT NULL DEFAULT false, -- all were looked at once
	copied_at bigint, -- a transaction after the last that copied some
	swapped boolean NOT NULL DEFAULT false,
	since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
REVOKE ALL ON rowkeeper._partition_splits FROM PUBLIC;
COMMENT ON TABLE rowkeeper._partition_splits IS
'Wide partitions that are being divided, and how far that is.';

-- Whoever writes to such a partition while what he writes cannot be written to
-- the copy, since somebody has altered one of them, says so here, in the same
-- transaction; a copy that was missed by one is of no use, whatever the two
-- look like again by now. Rows are added, and go with the split: nobody waits
-- for anybody.
CREATE TABLE rowkeeper._partition_split_misses (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	history regclass NOT NULL
);
CREATE INDEX ON rowkeeper._partition_split_misses (history);
REVOKE ALL ON rowkeeper._partition_split_misses FROM PUBLIC;
COMMENT ON TABLE rowkeeper._partition_split_misses IS
'Transactions whose changes the copy of a partition that is being divided has not got.';

-- What must not change meanwhile.
CREATE FUNCTION rowkeeper._partition_split_objects(target oid, partition oid, history oid) RETURNS bigint
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'rowkeeper_partition_split_objects';
REVOKE ALL ON FUNCTION rowkeeper._partition_split_objects(oid, oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_split_objects(oid, oid, oid) IS
'What a table, its wide partition and the copy of that have, by version, as one number; for who divides the partition.';

CREATE FUNCTION rowkeeper._partition_split_is_ours(function oid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL UNSAFE
RETURN EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'rowkeeper'
	WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = $1 AND d.deptype = 'e');
REVOKE ALL ON FUNCTION rowkeeper._partition_split_is_ours(oid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_split_is_ours(oid) IS
'Whether a function is one of the extension.';

-- Why a partition cannot be divided; no row: it can.
CREATE FUNCTION rowkeeper._partition_split_problems(target oid, partition oid) RETURNS TABLE (rank integer, problem text, hint text)
LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
	WITH t AS (
		SELECT c.oid, c.relkind, c.relowner, r.relowner AS root_owner, c.relnamespace
		FROM pg_catalog.pg_class c, pg_catalog.pg_class r WHERE c.oid = $2 AND r.oid = $1
	), schemas AS (
		SELECT r.relnamespace AS oid FROM pg_catalog.pg_class r WHERE r.oid = $1
		UNION
		SELECT n.oid
		FROM rowkeeper._partition_registry m JOIN pg_catalog.pg_namespace n ON n.nspname = m.options ->> 'partition_schema'
		WHERE m.root = $1
	), generated AS (
		-- what stored ones are made by: for the copy they are computed anew by whoever changes another column of the row
		SELECT a.attname, d.refclassid, d.refobjid
		FROM pg_catalog.pg_attribute a
			JOIN pg_catalog.pg_attrdef e ON e.adrelid = a.attrelid AND e.adnum = a.attnum
			JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = e.oid
		WHERE a.attrelid = $1 AND a.attgenerated = 's'
	), problems (rank, problem, hint) AS (
	SELECT 1, 'it is no plain table'::text, NULL::text FROM t WHERE t.relkind <> 'r'
	UNION ALL
	SELECT 2, 'it does not belong to the table''s owner', 'ALTER TABLE it OWNER TO that owner.' FROM t WHERE t.relowner <> t.root_owner
	UNION ALL
	SELECT 3, 'the table has a default partition', 'Detach that before, and attach it after.'
	FROM pg_catalog.pg_partitioned_table p WHERE p.partrelid = $1 AND p.partdefid <> 0
	UNION ALL
	SELECT 4, pg_catalog.format('its owner may not %s it', x.privilege), 'GRANT it to the owner.'
	FROM t, pg_catalog.unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) x (privilege)
	WHERE NOT pg_catalog.has_table_privilege(t.relowner, $2, x.privilege) OR NOT pg_catalog.has_table_privilege(t.relowner, $1, x.privilege)
	UNION ALL
	-- the copy is written to row by row
	SELECT 5, pg_catalog.format('constraint %I is deferrable', k.conname), NULL
	FROM pg_catalog.pg_constraint k WHERE k.conrelid = $1 AND k.contype IN ('p', 'u', 'x') AND k.condeferrable
	UNION ALL
	SELECT 6, pg_catalog.format('foreign key %I of %s references it', k.conname, k.conrelid::pg_catalog.regclass), 'Drop it before, and add it after: NOT VALID, then VALIDATE CONSTRAINT.'
	FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.confrelid IN ($1, $2) AND k.conparentid = 0
	UNION ALL
	SELECT 7, pg_catalog.format('foreign key %I is of this partition alone', k.conname), 'Drop it, or add it to the table.'
	FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.conrelid = $2 AND k.conparentid = 0
	UNION ALL
	-- its copy would be published, row by row
	SELECT 8, pg_catalog.format('publication %I is FOR ALL TABLES', p.pubname), NULL
	FROM pg_catalog.pg_publication p WHERE p.puballtables
	UNION ALL
	SELECT 8, pg_catalog.format('publication %I is FOR TABLES IN SCHEMA %I', p.pubname, n.nspname), NULL
	FROM pg_catalog.pg_publication_namespace s
		JOIN pg_catalog.pg_publication p ON p.oid = s.pnpubid
		JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
	WHERE s.pnnspid IN (SELECT c.oid FROM schemas c)
	UNION ALL
	SELECT 8, pg_catalog.format('publication %I has it without publish_via_partition_root', p.pubname), NULL
	FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
	WHERE r.prrelid = $2 OR (r.prrelid = $1 AND NOT p.pubviaroot)
	UNION ALL
	SELECT 9, pg_catalog.format('subscription %I writes to it', b.subname), NULL
	FROM pg_catalog.pg_subscription_rel s JOIN pg_catalog.pg_subscription b ON b.oid = s.srsubid WHERE s.srrelid = $2
	UNION ALL
	SELECT 10, pg_catalog.format('trigger %I is of this partition alone', g.tgname), 'Drop it, or make it on the table.'
	FROM pg_catalog.pg_trigger g
	WHERE g.tgrelid = $2 AND NOT g.tgisinternal AND g.tgparentid = 0
		AND NOT rowkeeper._partition_split_is_ours(g.tgfoid)
	UNION ALL
	SELECT 11, pg_catalog.format('index %I is of this partition alone', c.relname), 'Drop it, or create it on the table.'
	FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
	WHERE i.indrelid = $2 AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = i.indexrelid)
	UNION ALL
	SELECT 12, pg_catalog.format('%s depends on it', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)), 'Let it read the table.'
	FROM pg_catalog.pg_depend d
	WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $2 AND d.deptype = 'n'
		AND d.classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass)
	UNION ALL
	SELECT 12, pg_catalog.format('%s depends on it', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)), 'Let it read the table.'
	FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_policy y ON y.oid = d.objid AND y.polrelid <> $2
	WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = $2
		AND d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
	UNION ALL
	SELECT 13, pg_catalog.format('%s uses its row type', pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)), NULL
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_type y ON y.oid = c.reltype
		JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
			AND d.refobjid IN (y.oid, y.typarray) AND d.deptype = 'n'
	WHERE c.oid = $2
	UNION ALL
	SELECT 14, pg_catalog.format('constraint %I is of this partition alone', k.conname), 'Drop it, or add it to the table.'
	FROM pg_catalog.pg_constraint k WHERE k.contype = 'c' AND k.conrelid = $2 AND k.coninhcount = 0
	UNION ALL
	SELECT 14, 'it has a policy named rowkeeper_split', 'Rename it.'
	FROM pg_catalog.pg_policy y WHERE y.polrelid = $1 AND y.polname = 'rowkeeper_split'
	UNION ALL
	SELECT 14, 'it has a constraint named rowkeeper_split', 'Rename it.'
	FROM pg_catalog.pg_constraint k WHERE k.conrelid = $1 AND k.conname = 'rowkeeper_split'
	UNION ALL
	SELECT 14, pg_catalog.format('constraint %I is not valid', k.conname), 'VALIDATE it, or drop it before, and add it after.'
	FROM pg_catalog.pg_constraint k WHERE k.conrelid = $1 AND NOT k.convalidated
	UNION ALL
	SELECT 15, pg_catalog.format('trigger %I is enabled otherwise than that of the table', g.tgname),
		'Attached anew it would be as that of the table.'
	FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_trigger p ON p.oid = g.tgparentid AND p.tgrelid = $1
	WHERE g.tgrelid = $2 AND NOT g.tgisinternal AND g.tgenabled <> p.tgenabled
	UNION ALL
	-- that of the copy is checked before it is fired
	SELECT 16, pg_catalog.format('trigger %I is fired before foreign keys are checked', g.tgname),
		'ALTER TRIGGER it RENAME TO what sorts after them, such as a name in small letters.'
	FROM pg_catalog.pg_trigger g
	WHERE g.tgrelid = $1 AND NOT g.tgisinternal AND (g.tgtype & 67) = 1 AND (g.tgtype & 20) <> 0
		AND g.tgname::text COLLATE "C" < 'RI_ConstraintTrigger'
		AND EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = $1 AND k.contype = 'f' AND NOT k.condeferred)
		AND NOT rowkeeper._partition_split_is_ours(g.tgfoid)
	UNION ALL
	SELECT 17, pg_catalog.format('generated column %I calls function %s, which is not written in C', g.attname, f.oid::pg_catalog.regprocedure),
		'Drop the column before, and add it after.'
	FROM generated g
		LEFT JOIN pg_catalog.pg_operator o ON g.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND g.refobjid IN (o.oid, o.oprnegate)
		JOIN pg_catalog.pg_proc f ON f.oid >= 16384
			AND f.oid IN (o.oprcode, CASE WHEN g.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass THEN g.refobjid END)
		JOIN pg_catalog.pg_language l ON l.oid = f.prolang AND l.lanname NOT IN ('internal', 'c')
	UNION ALL
	SELECT 17, pg_catalog.format('generated column %I casts to domain %s', g.attname, y.oid::pg_catalog.regtype),
		'Drop the column before, and add it after.'
	FROM generated g
		JOIN pg_catalog.pg_type y ON g.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND y.oid = g.refobjid AND y.typtype = 'd'
	)
	SELECT p.rank, p.problem, p.hint FROM problems p;
END;
REVOKE ALL ON FUNCTION rowkeeper._partition_split_problems(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_split_problems(oid, oid) IS
'Why a partition cannot be divided while it is in use.';

CREATE FUNCTION rowkeeper._partition_split_apply() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_partition_split_apply';
REVOKE ALL ON FUNCTION rowkeeper._partition_split_apply() FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._partition_split_apply() IS
'What is written to a partition that is being divided is written to the partitions that take its place.';

-- A split that nobody goes on with, or that somebody has made dangerous; and what
-- one has left, or a dump from the middle of one has brought along.
CREATE VIEW rowkeeper._partition_split_findings AS
WITH seen AS NOT MATERIALIZED (
	SELECT c.oid, n.nspname AS schema, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.relkind, c.relispartition
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p')
		AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE'))
)
SELECT 'split'::text AS check_name, 'warning'::text AS level, c.schema, c.name AS object,
	CASE WHEN v.swapped THEN 'the split of its first partition was interrupted: the old one is not dropped yet'
		ELSE 'the split of its first partition was interrupted: what is written there is written twice' END AS detail,
	pg_catalog.format('CALL rowkeeper.partition_convert(%L)', c.name) AS remedy
FROM rowkeeper._partition_splits v JOIN seen c ON c.oid = v.relation
WHERE
	-- the session that is at it
	NOT EXISTS (SELECT FROM pg_catalog.pg_locks l
		WHERE l.locktype = 'object' AND l.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND l.objid = c.oid AND l.objsubid = 1
			AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
UNION ALL
SELECT 'split', 'error', c.schema, c.name,
	'row security was enabled since its first partition is split: the copy has none, and who may read all tables sees all of its rows',
	pg_catalog.format('CALL rowkeeper.partition_convert(%L)', c.name)
FROM rowkeeper._partition_splits v JOIN seen c ON c.oid = v.relation
	JOIN pg_catalog.pg_class t ON t.oid = v.relation AND t.relrowsecurity
	JOIN pg_catalog.pg_class h ON h.oid = v.history AND NOT h.relrowsecurity
UNION ALL
SELECT 'split', 'error', c.schema, c.name,
	pg_catalog.format('publication %I publishes the copy of its first partition, too: subscribers that do not have it stop', p.pubname),
	pg_catalog.format('SELECT rowkeeper.partition_off(%L)', c.name)
FROM rowkeeper._partition_splits v JOIN seen c ON c.oid = v.relation
	JOIN pg_catalog.pg_class h ON h.oid = v.history
	JOIN pg_catalog.pg_publication p ON p.puballtables
		OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = h.relnamespace)
WHERE NOT v.swapped
UNION ALL
SELECT 'split', 'warning', c.schema, c.name,
	CASE WHEN c.relispartition THEN 'it was dumped while it was split: its triggers do nothing here'
		ELSE 'a split has left it, or it was dumped while it was split: nobody uses it' END,
	CASE WHEN c.relispartition THEN pg_catalog.string_agg(pg_catalog.format('DROP TRIGGER %I ON %s', g.tgname, c.name), '; ' ORDER BY g.tgname COLLATE "C")
		ELSE pg_catalog.format('DROP TABLE %s', c.name) END
FROM pg_catalog.pg_trigger g JOIN seen c ON c.oid = g.tgrelid
WHERE g.tgname IN ('!rowkeeper_split', '!rowkeeper_split_truncate')
	AND NOT EXISTS (SELECT FROM rowkeeper._partition_splits v WHERE v.partition = g.tgrelid)
GROUP BY c.schema, c.name, c.relispartition
UNION ALL
SELECT 'split', 'warning', c.schema, c.name,
	CASE WHEN c.relispartition THEN 'it was dumped while a table was split: it has a constraint that is of no use'
		ELSE 'a split has left it, or it was dumped while a table was split: nobody uses it' END,
	CASE WHEN c.relispartition THEN pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT rowkeeper_split', c.name)
		ELSE pg_catalog.format('DROP TABLE %s', c.name) END
FROM pg_catalog.pg_constraint k JOIN seen c ON c.oid = k.conrelid
WHERE k.conname = 'rowkeeper_split' AND k.contype = 'c' AND k.coninhcount = 0 AND c.relkind = 'p'
	AND NOT EXISTS (SELECT FROM rowkeeper._partition_splits v WHERE v.history = k.conrelid);
REVOKE ALL ON rowkeeper._partition_split_findings FROM PUBLIC;
COMMENT ON VIEW rowkeeper._partition_split_findings IS 'Splits of partitions that were interrupted; for doctor().';
