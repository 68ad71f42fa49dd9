-- 44_soft_delete_doctor.sql: which tables have soft delete, and what is wrong with it

CREATE VIEW rowkeeper._soft_delete_tables AS
SELECT c.oid AS root, n.nspname AS table_schema, c.relname AS table_name,
	pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name,
	o.options, o.options ->> 'mode' = 'trash' AS trash
FROM (SELECT DISTINCT g.tgrelid FROM pg_catalog.pg_trigger g
		WHERE g.tgname IN ('rowkeeper_soft_delete', '!rowkeeper_changes') AND g.tgparentid = 0) g
	JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (SELECT rowkeeper._soft_delete_options(c.oid)) o (options)
WHERE o.options IS NOT NULL
	AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE'));
REVOKE ALL ON rowkeeper._soft_delete_tables FROM PUBLIC;
COMMENT ON VIEW rowkeeper._soft_delete_tables IS 'Tables with soft delete, and what soft_delete() was told.';

-- Foreign keys between tables, partitions counted as their root.
CREATE VIEW rowkeeper._soft_delete_links AS
SELECT k.oid, k.conname AS name, k.conrelid AS child, k.confrelid AS parent, k.confdeltype AS on_delete,
	k.conindid AS index, pg_catalog.format('%I.%I', n.nspname, c.relname) AS child_name
FROM pg_catalog.pg_constraint k
	JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
	AND coalesce((pg_catalog.to_jsonb(k) ->> 'conenforced')::boolean, true);
REVOKE ALL ON rowkeeper._soft_delete_links FROM PUBLIC;
COMMENT ON VIEW rowkeeper._soft_delete_links IS 'Foreign keys, for soft delete.';

-- The triggers that each relation of a table must have.
CREATE VIEW rowkeeper._soft_delete_triggers AS
WITH wanted AS (
	SELECT t.root, r.relid, w.name
	FROM rowkeeper._soft_delete_tables t
		CROSS JOIN LATERAL (SELECT t.root::pg_catalog.regclass AS relid
			UNION SELECT p.relid FROM pg_catalog.pg_partition_tree(t.root) p) r
		CROSS JOIN LATERAL (VALUES ('rowkeeper_soft_delete', NOT t.trash),
			('rowkeeper_soft_delete_end', NOT t.trash),
			('rowkeeper_soft_delete_direct', t.options ->> 'on_delete' = 'error' AND NOT t.trash),
			('rowkeeper_soft_delete_truncate', true)) w (name, needed)
	WHERE w.needed
)
SELECT w.root, w.relid, w.name,
	pg_catalog.format(CASE WHEN g.oid IS NULL THEN 'trigger %s missing on %I.%I' ELSE 'trigger %s disabled on %I.%I' END,
		w.name, n.nspname, c.relname) AS problem
FROM wanted w
	JOIN pg_catalog.pg_class c ON c.oid = w.relid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	LEFT JOIN pg_catalog.pg_trigger g ON g.tgrelid = w.relid AND g.tgname = w.name
WHERE g.oid IS NULL OR g.tgenabled IN ('D', 'R');
REVOKE ALL ON rowkeeper._soft_delete_triggers FROM PUBLIC;
COMMENT ON VIEW rowkeeper._soft_delete_triggers IS 'Triggers that soft-deleted tables lack.';

CREATE VIEW rowkeeper._soft_delete_findings AS
SELECT 'view'::text AS check_name,
	CASE WHEN v.problem IN ('view is hidden', 'view does not show all columns') THEN 'warning' ELSE 'error' END AS level,
	t.table_schema AS schema, t.full_name AS object, v.problem AS detail,
	CASE v.problem WHEN 'view does not show the live rows'
		THEN pg_catalog.format('DROP VIEW %I.%I; ', t.options ->> 'view_schema', t.options ->> 'view_name')
		WHEN 'view belongs to another role than its table'
		THEN pg_catalog.format('ALTER VIEW %I.%I OWNER TO %I; ', t.options ->> 'view_schema', t.options ->> 'view_name',
			(SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c WHERE c.oid = t.root)) ELSE '' END
		|| pg_catalog.format('SELECT rowkeeper.soft_delete_refresh(%L)', t.full_name) AS remedy
FROM rowkeeper._soft_delete_tables t
	CROSS JOIN LATERAL (SELECT rowkeeper._soft_delete_view_is_live(t.root)) v (problem)
WHERE NOT t.trash AND v.problem IS NOT NULL
UNION ALL
SELECT 'view', 'warning', t.table_schema, t.full_name,
	CASE WHEN r.view IS NULL THEN pg_catalog.format('view %s is missing', r.view_name)
		ELSE pg_catalog.format('view %s does not show all columns', r.view_name) END,
	pg_catalog.format('SELECT rowkeeper.soft_delete_refresh(%L)', t.full_name)
FROM rowkeeper._soft_delete_tables t
	JOIN rowkeeper._trash_tables r ON r.root = t.root AND r.trash IS NOT NULL
WHERE r.view IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_attribute a
	WHERE a.attrelid = t.root AND a.attnum > 0 AND NOT a.attisdropped
		AND a.attname NOT IN ('_batch', '_deleted_at', '_deleted_by', '_deleted_via', '_db_user', '_extra')
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute s WHERE s.attrelid = r.view AND s.attname = a.attname))
UNION ALL
SELECT 'table_without_options', 'error', n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname),
	'soft delete is gone, perhaps with its column, and soft_delete_off() was not called: a DELETE is for good',
	pg_catalog.format('SELECT rowkeeper.soft_delete(%L)', pg_catalog.format('%I.%I', n.nspname, c.relname))
FROM pg_catalog.pg_trigger g
	JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE g.tgname = 'rowkeeper_soft_delete_truncate' AND rowkeeper._soft_delete_options(c.oid) IS NULL
	AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE'))
UNION ALL
SELECT 'view_without_table', 'error', n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname),
	'view of live rows, but its table has no soft delete any more: a DELETE through it fails',
	pg_catalog.format('SELECT rowkeeper.soft_delete(%L)', b.base)
FROM pg_catalog.pg_trigger g
	JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid AND c.relkind = 'v'
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (SELECT DISTINCT pg_catalog.format('%I.%I', bn.nspname, bc.relname) AS base, bc.oid
		FROM pg_catalog.pg_rewrite w
			JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
				AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
			JOIN pg_catalog.pg_class bc ON bc.oid = d.refobjid AND bc.relkind IN ('r', 'p')
			JOIN pg_catalog.pg_namespace bn ON bn.oid = bc.relnamespace
		WHERE w.ev_class = c.oid) b
WHERE g.tgname = 'rowkeeper_soft_delete' AND rowkeeper._soft_delete_options(b.oid) IS NULL
	AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE'))
UNION ALL
SELECT 'triggers', 'error', t.table_schema, t.full_name,
	pg_catalog.string_agg(p.problem, '; ' ORDER BY p.problem COLLATE "C"),
	pg_catalog.format('SELECT rowkeeper.soft_delete(%L)', t.full_name)
FROM rowkeeper._soft_delete_triggers p JOIN rowkeeper._soft_delete_tables t ON t.root = p.root
GROUP BY t.table_schema, t.full_name
UNION ALL
SELECT 'columns', 'error', t.table_schema, t.full_name,
	pg_catalog.format('column %I does not exist', c.name),
	pg_catalog.format('SELECT rowkeeper.soft_delete(%L)', t.full_name)
FROM rowkeeper._soft_delete_tables t
	CROSS JOIN LATERAL (VALUES (t.options ->> 'deleted_at'), (t.options ->> 'deleted_by'), (t.options ->> 'batch')) c (name)
WHERE NOT t.trash AND c.name IS NOT NULL
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
		WHERE a.attrelid = t.root AND a.attname = c.name AND NOT a.attisdropped)
UNION ALL
SELECT 'guards', 'error', t.table_schema, t.full_name,
	pg_catalog.format('foreign key %I of %s is not guarded: live rows may come to reference deleted ones', l.name, l.child_name),
	pg_catalog.format('SELECT rowkeeper.soft_delete(%L)', t.full_name)
FROM rowkeeper._soft_delete_tables t
	JOIN rowkeeper._soft_delete_links l ON l.parent = t.root
WHERE NOT t.trash
	AND (SELECT pg_catalog.count(DISTINCT g.tgtype & 20) FROM pg_catalog.pg_trigger g
		WHERE g.tgrelid = l.child AND g.tgconstrrelid = t.root AND g.tgenabled IN ('O', 'A')
			AND g.tgfoid = 'rowkeeper._soft_delete_guard()'::pg_catalog.regprocedure
			AND pg_catalog.split_part(pg_catalog.encode(g.tgargs, 'escape'), '\000', 1)
				= pg_catalog.encode(pg_catalog.convert_to(l.name::text, pg_catalog.getdatabaseencoding()), 'escape')) < 2
UNION ALL
SELECT 'cascade', 'error', t.table_schema, t.full_name,
	pg_catalog.format(CASE WHEN c.options IS NULL
		THEN 'foreign key %I cascades to %s, which has no soft delete'
		ELSE 'foreign key %I cascades to %s, which is soft-deleted in another mode' END, l.name, l.child_name),
	CASE WHEN c.options IS NULL THEN pg_catalog.format('SELECT rowkeeper.soft_delete(%L%s)', l.child_name,
		CASE WHEN t.trash THEN ', mode => ''trash''' ELSE '' END) END
FROM rowkeeper._soft_delete_tables t
	JOIN rowkeeper._soft_delete_links l ON l.parent = t.root AND l.on_delete = 'c'
	CROSS JOIN LATERAL (SELECT rowkeeper._soft_delete_options(l.child)) c (options)
WHERE coalesce((t.options ->> 'cascade')::boolean, true)
	AND (c.options ->> 'mode') IS DISTINCT FROM (t.options ->> 'mode')
UNION ALL
SELECT 'hard_cascade', 'warning', t.table_schema, t.full_name,
	pg_catalog.format('foreign key %I passes on what is deleted from %s, and that is refused here', l.name,
		l.parent::pg_catalog.regclass),
	pg_catalog.format('SELECT rowkeeper.soft_delete(%L)', l.parent::pg_catalog.regclass)
FROM rowkeeper._soft_delete_tables t
	JOIN rowkeeper._soft_delete_links l ON l.child = t.root AND l.on_delete = 'c' AND l.parent <> t.root
WHERE NOT t.trash AND t.options ->> 'on_delete' = 'error' AND rowkeeper._soft_delete_options(l.parent) IS NULL
UNION ALL
SELECT 'unique', 'info', t.table_schema, t.full_name,
	pg_catalog.format('%s is unique among deleted rows, too', i.indexrelid::pg_catalog.regclass),
	pg_catalog.format('SELECT rowkeeper.soft_delete_unique(%L, %L)', t.full_name,
		(SELECT pg_catalog.array_agg(a.attname ORDER BY k.position)
			FROM pg_catalog.unnest(i.indkey::smallint[]) WITH ORDINALITY k (attnum, position)
				JOIN pg_catalog.pg_attribute a ON a.attrelid = t.root AND a.attnum = k.attnum
			WHERE k.position <= i.indnkeyatts))
FROM rowkeeper._soft_delete_tables t
	JOIN pg_catalog.pg_index i ON i.indrelid = t.root AND i.indisunique AND NOT i.indisprimary
		AND i.indpred IS NULL AND i.indexprs IS NULL
WHERE NOT t.trash AND NOT EXISTS (SELECT FROM rowkeeper._soft_delete_links l WHERE l.index = i.indexrelid);
REVOKE ALL ON rowkeeper._soft_delete_findings FROM PUBLIC;
COMMENT ON VIEW rowkeeper._soft_delete_findings IS 'What is wrong with soft delete; for doctor().';

CREATE VIEW rowkeeper._soft_delete_features AS
SELECT t.root::pg_catalog.regclass AS target, 'soft_delete'::text AS feature, t.options,
	CASE WHEN t.trash THEN pg_catalog.format('SELECT rowkeeper.soft_delete(%L, mode => ''trash'', view_name => %L,'
			' view_schema => %L, keep => %L, cascade => %s)', t.full_name, t.options ->> 'view_name',
			t.options ->> 'view_schema', coalesce(t.options ->> 'keep', '0'), coalesce(t.options ->> 'cascade', 'true'))
		ELSE pg_catalog.format('SELECT rowkeeper.soft_delete(%L, mode => ''flag'', deleted_at => %L, deleted_by => %L,'
			' batch => %L, on_delete => %L, view_name => %L, view_schema => %L, keep => %L, cascade => %s)', t.full_name,
			t.options ->> 'deleted_at', coalesce(t.options ->> 'deleted_by', '-'), t.options ->> 'batch',
			t.options ->> 'on_delete', t.options ->> 'view_name', t.options ->> 'view_schema',
			coalesce(t.options ->> 'keep', '0'), t.options ->> 'cascade') END AS call,
	f.problems IS NULL AS healthy, f.problems AS detail
FROM rowkeeper._soft_delete_tables t
	LEFT JOIN (SELECT x.object, pg_catalog.string_agg(x.detail, '; ' ORDER BY x.check_name, x.detail) AS problems
		FROM (SELECT f.check_name, f.object, f.detail, f.level FROM rowkeeper._soft_delete_findings f
			UNION ALL SELECT f.check_name, f.object, f.detail, f.level FROM rowkeeper._trash_findings f) x
		WHERE x.level = 'error' GROUP BY x.object) f ON f.object = t.full_name;
REVOKE ALL ON rowkeeper._soft_delete_features FROM PUBLIC;
COMMENT ON VIEW rowkeeper._soft_delete_features IS 'Soft delete, for features.';
