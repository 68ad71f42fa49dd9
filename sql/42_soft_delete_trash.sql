-- 42_soft_delete_trash.sql: trash tables compared with their sources
--
-- The trash is made at the first call, so it is reached by name. Only what a
-- reader may see of a table at all is shown to him: these views are for
-- doctor() and for the extension itself.

CREATE FUNCTION rowkeeper._policy_expression(expression pg_node_tree, relation oid, called text) RETURNS text
LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rowkeeper_policy_expression';
REVOKE ALL ON FUNCTION rowkeeper._policy_expression(pg_node_tree, oid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._policy_expression(pg_node_tree, oid, text) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._policy_expression(pg_node_tree, oid, text) IS
'pg_get_expr() of a policy for a table with the same columns and another name.';

CREATE VIEW rowkeeper._trash_tables AS
SELECT c.oid AS root, n.nspname AS table_schema, c.relname AS table_name,
	pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name,
	c.relowner AS owner, c.relacl AS acl, c.relrowsecurity AS row_security, c.relforcerowsecurity AS force,
	o.options, t.oid AS trash, pg_catalog.format('rowkeeper_trash.%I', o.options ->> 'table') AS trash_name,
	t.relowner AS trash_owner, t.relacl AS trash_acl, t.relrowsecurity AS trash_row_security,
	t.relforcerowsecurity AS trash_force,
	v.oid AS view, pg_catalog.format('%I.%I', o.options ->> 'view_schema', o.options ->> 'view_name') AS view_name,
	v.relowner AS view_owner, v.relacl AS view_acl
FROM (SELECT DISTINCT g.tgrelid FROM pg_catalog.pg_trigger g
		WHERE g.tgname = '!rowkeeper_changes' AND g.tgparentid = 0) g
	JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (SELECT rowkeeper._changes_options(c.oid, 'trash')) o (options)
	LEFT JOIN (pg_catalog.pg_class t
		JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace AND tn.nspname = 'rowkeeper_trash')
		ON t.relname = o.options ->> 'table' AND t.relkind = 'r'
	LEFT JOIN (pg_catalog.pg_class v
		JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace)
		ON v.relname = o.options ->> 'view_name' AND v.relkind = 'v'
			AND vn.nspname = o.options ->> 'view_schema'
			-- what has the name only is not ours; the trash's owner: the table has been given to another since
			AND v.relowner IN (c.relowner, t.relowner)
			AND EXISTS (SELECT FROM pg_catalog.pg_rewrite r
				JOIN pg_catalog.pg_depend d ON d.objid = r.oid AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
				WHERE r.ev_class = v.oid AND d.refobjid = t.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)
WHERE o.options IS NOT NULL;
REVOKE ALL ON rowkeeper._trash_tables FROM PUBLIC;
COMMENT ON VIEW rowkeeper._trash_tables IS 'Tables in trash mode, each with its trash table and its view.';

-- What has to be done for a trash table to have the readers of its source, and
-- on which object; its owner does it, but for the steps 0 and 1, which give it
-- another one. policy: the statement makes a policy, which may fail. Policy
-- "rowkeeper_extra" hides the rows that have a column which policies read not
-- as a column but in _extra.
CREATE VIEW rowkeeper._trash_repairs AS
WITH tables AS (
	SELECT t.* FROM rowkeeper._trash_tables t
	WHERE t.trash IS NOT NULL
		AND NOT EXISTS (SELECT FROM rowkeeper._trash_tables o WHERE o.trash = t.trash AND o.root <> t.root)
), wanted AS (
	SELECT t.root, t.trash AS object, t.trash_name AS name, a.grantee, ''::text AS columns
	FROM tables t,
		pg_catalog.aclexplode(coalesce(t.acl, pg_catalog.acldefault('r', t.owner))) a
	WHERE a.privilege_type = 'SELECT' AND a.grantee <> t.owner
	UNION
	SELECT t.root, t.view, t.view_name, a.grantee, ''
	FROM tables t,
		pg_catalog.aclexplode(coalesce(t.acl, pg_catalog.acldefault('r', t.owner))) a
	WHERE t.view IS NOT NULL AND a.privilege_type = 'SELECT' AND a.grantee <> t.owner
	UNION
	SELECT t.root, t.trash, t.trash_name, a.grantee, pg_catalog.quote_ident(c.attname)
	FROM tables t
		JOIN pg_catalog.pg_attribute c ON c.attrelid = t.root AND c.attacl IS NOT NULL AND NOT c.attisdropped
		JOIN pg_catalog.pg_attribute k ON k.attrelid = t.trash AND k.attname = c.attname AND NOT k.attisdropped,
		pg_catalog.aclexplode(c.attacl) a
	WHERE a.privilege_type = 'SELECT' AND a.grantee <> t.owner
), present AS (
	SELECT t.root, t.trash AS object, t.trash_name AS name, a.grantee, a.privilege_type, ''::text AS columns
	FROM tables t, pg_catalog.aclexplode(t.trash_acl) a
	WHERE a.grantee NOT IN (t.owner, t.trash_owner)
	UNION
	SELECT t.root, t.view, t.view_name, a.grantee, a.privilege_type, ''
	FROM tables t, pg_catalog.aclexplode(t.view_acl) a
	WHERE a.grantee NOT IN (t.owner, t.view_owner)
	UNION
	SELECT t.root, t.trash, t.trash_name, a.grantee, a.privilege_type, pg_catalog.quote_ident(c.attname)
	FROM tables t
		JOIN pg_catalog.pg_attribute c ON c.attrelid = t.trash AND c.attacl IS NOT NULL AND NOT c.attisdropped,
		pg_catalog.aclexplode(c.attacl) a
	WHERE a.grantee NOT IN (t.owner, t.trash_owner)
), read_columns AS (
	SELECT t.root, ARRAY(SELECT DISTINCT a.attname::text COLLATE "C"
		FROM pg_catalog.pg_policy p
			JOIN pg_catalog.pg_depend d ON d.objid = p.oid AND d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
				AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = t.root
			JOIN pg_catalog.pg_attribute a ON a.attrelid = t.root AND a.attnum = d.refobjsubid AND a.attnum > 0
		WHERE p.polrelid = t.root AND p.polcmd IN ('r', '*') ORDER BY 1) AS columns
	FROM tables t
), policies AS (
	SELECT t.root, t.trash, t.trash_name, p.polname, p.polpermissive, p.polrelid = t.trash AS kept,
		CASE WHEN p.polrelid = t.trash THEN pg_catalog.pg_get_expr(p.polqual, p.polrelid)
			ELSE rowkeeper._policy_expression(p.polqual, t.root, t.options ->> 'table') END AS expression,
		ARRAY(SELECT CASE r WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r)) END
			FROM pg_catalog.unnest(p.polroles) r ORDER BY 1) AS roles
	FROM tables t
		JOIN pg_catalog.pg_policy p ON p.polrelid IN (t.root, t.trash) AND p.polcmd IN ('r', '*')
	WHERE p.polname <> 'rowkeeper_unreadable' AND NOT (p.polrelid = t.root AND p.polname = 'rowkeeper_extra')
	UNION ALL
	SELECT t.root, t.trash, t.trash_name, 'rowkeeper_extra', false, false,
		-- as pg_get_expr() shows it
		pg_catalog.format('(NOT COALESCE((_extra ?| ''%s''::text[]), false))',
			pg_catalog.replace(r.columns::text, '''', '''''')),
		ARRAY['PUBLIC']
	FROM tables t JOIN read_columns r ON r.root = t.root AND r.columns <> '{}'
), missing AS (
	SELECT s.* FROM policies s
	WHERE NOT s.kept AND NOT EXISTS (SELECT FROM policies k
		WHERE k.root = s.root AND k.kept AND k.polname = s.polname AND k.polpermissive = s.polpermissive
			AND k.roles = s.roles AND k.expression IS NOT DISTINCT FROM s.expression)
), superfluous AS (
	SELECT k.* FROM policies k
	WHERE k.kept AND NOT EXISTS (SELECT FROM policies s
		WHERE s.root = k.root AND NOT s.kept AND k.polname = s.polname AND k.polpermissive = s.polpermissive
			AND k.roles = s.roles AND k.expression IS NOT DISTINCT FROM s.expression)
)
SELECT t.root, t.view AS object, 0 AS step,
	pg_catalog.format('ALTER VIEW %s OWNER TO %I', t.view_name, pg_catalog.pg_get_userbyid(t.owner)) AS statement, NULL::text AS policy
FROM tables t WHERE t.view_owner <> t.owner
UNION ALL
SELECT t.root, t.trash, 1, pg_catalog.format('ALTER TABLE %s OWNER TO %I', t.trash_name, pg_catalog.pg_get_userbyid(t.owner)), NULL
FROM tables t WHERE t.trash_owner <> t.owner
UNION ALL
SELECT t.root, t.trash, 2, pg_catalog.format('ALTER TABLE %s %s ROW LEVEL SECURITY', t.trash_name,
	CASE WHEN t.row_security THEN 'ENABLE' ELSE 'DISABLE' END), NULL
FROM tables t WHERE t.trash_row_security <> t.row_security
UNION ALL
SELECT t.root, t.trash, 2, pg_catalog.format('ALTER TABLE %s %s ROW LEVEL SECURITY', t.trash_name,
	CASE WHEN t.force THEN 'FORCE' ELSE 'NO FORCE' END), NULL
FROM tables t WHERE t.trash_force <> t.force
UNION ALL
SELECT p.root, p.object, 3, pg_catalog.format('REVOKE %s%s ON %s FROM %s CASCADE', p.privilege_type,
	CASE WHEN p.columns <> '' THEN ' (' || p.columns || ')' ELSE '' END, p.name,
	CASE p.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(p.grantee)) END), NULL
FROM present p
WHERE NOT EXISTS (SELECT FROM wanted w WHERE w.root = p.root AND w.object = p.object AND w.grantee = p.grantee
	AND w.columns = p.columns AND p.privilege_type = 'SELECT')
UNION ALL
SELECT w.root, w.object, 4, pg_catalog.format('GRANT SELECT%s ON %s TO %s',
	CASE WHEN w.columns <> '' THEN ' (' || w.columns || ')' ELSE '' END, w.name,
	CASE w.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(w.grantee)) END), NULL
FROM wanted w
WHERE NOT EXISTS (SELECT FROM present p WHERE w.root = p.root AND w.object = p.object AND w.grantee = p.grantee
	AND w.columns = p.columns AND p.privilege_type = 'SELECT')
UNION ALL
SELECT s.root, s.trash, 5, pg_catalog.format('DROP POLICY %I ON %s', s.polname, s.trash_name), NULL
FROM superfluous s
UNION ALL
SELECT m.root, m.trash, 6,
	pg_catalog.format('CREATE POLICY %I ON %s AS %s FOR SELECT TO %s USING (%s)', m.polname, m.trash_name,
		CASE WHEN m.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
		pg_catalog.array_to_string(m.roles, ', '), coalesce(m.expression, 'true')),
	m.polname::text
FROM missing m
UNION ALL
-- not where a policy cannot be made still
SELECT t.root, t.trash, 7, pg_catalog.format('DROP POLICY rowkeeper_unreadable ON %s', t.trash_name), NULL
FROM tables t JOIN pg_catalog.pg_policy p ON p.polrelid = t.trash AND p.polname = 'rowkeeper_unreadable';
REVOKE ALL ON rowkeeper._trash_repairs FROM PUBLIC;
COMMENT ON VIEW rowkeeper._trash_repairs IS
'Statements that give a trash table and the view on it the owner, readers, row security and policies of the source; none: all is well.';

-- Columns whose values go to _extra. They are restored from there as well.
CREATE VIEW rowkeeper._trash_findings AS
WITH seen AS (
	SELECT t.* FROM rowkeeper._trash_tables t
	WHERE pg_catalog.has_table_privilege(t.root, 'SELECT') OR pg_catalog.pg_has_role(t.owner, 'USAGE')
)
SELECT 'trash_missing'::text AS check_name, 'error'::text AS level, t.table_schema AS schema, t.full_name AS object,
	pg_catalog.format('trash table %s does not exist: nothing can be deleted', t.trash_name) AS detail,
	pg_catalog.format('SELECT rowkeeper.soft_delete(%L)', t.full_name) AS remedy
FROM seen t WHERE t.trash IS NULL
UNION ALL
SELECT 'trash_trigger', 'error', t.table_schema, t.full_name,
	pg_catalog.format('row trigger disabled on %I.%I: deleted rows are not kept', n.nspname, c.relname),
	pg_catalog.format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER "!rowkeeper_changes"', n.nspname, c.relname)
FROM seen t
	CROSS JOIN LATERAL (SELECT t.root AS relid UNION
		SELECT p.relid FROM pg_catalog.pg_partition_tree(t.root) p) r
	JOIN pg_catalog.pg_trigger g ON g.tgrelid = r.relid AND g.tgname = '!rowkeeper_changes'
	JOIN pg_catalog.pg_class c ON c.oid = r.relid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE g.tgenabled IN ('D', 'R')
UNION ALL
SELECT 'trash_readers', 'error', t.table_schema, t.full_name,
	'owner, grants or policies of the trash table differ from the source: ' || r.statement, r.statement
FROM rowkeeper._trash_repairs r JOIN seen t ON t.root = r.root
-- a policy that cannot be said of the trash is another finding
WHERE r.step <> 7 AND (r.step <> 6 OR NOT EXISTS (SELECT FROM pg_catalog.pg_policy p
	WHERE p.polrelid = t.trash AND p.polname = 'rowkeeper_unreadable'))
UNION ALL
SELECT 'trash_policies', 'warning', t.table_schema, t.full_name,
	'a policy cannot be said of the trash table: under row security nobody but the owner reads it', NULL
FROM seen t
	JOIN pg_catalog.pg_policy p ON p.polrelid = t.trash AND p.polname = 'rowkeeper_unreadable'
UNION ALL
SELECT 'trash_columns', 'info', t.table_schema, t.full_name,
	'columns kept as text in _extra, as the trash table was made without them or with other types: '
		|| pg_catalog.string_agg(pg_catalog.quote_ident(c.attname), ', ' ORDER BY c.attnum), NULL
FROM seen t
	JOIN pg_catalog.pg_attribute c ON c.attrelid = t.root AND c.attnum > 0 AND NOT c.attisdropped
	JOIN pg_catalog.pg_type y ON y.oid = c.atttypid
	LEFT JOIN pg_catalog.pg_attribute k ON k.attrelid = t.trash AND k.attname = c.attname AND NOT k.attisdropped
WHERE t.trash IS NOT NULL AND c.attgenerated <> 'v'
	AND (k.attname IS NULL OR (y.typtype <> 'd' AND k.atttypid <> c.atttypid))
GROUP BY t.table_schema, t.full_name;
REVOKE ALL ON rowkeeper._trash_findings FROM PUBLIC;
COMMENT ON VIEW rowkeeper._trash_findings IS 'What is wrong with trash tables; for doctor().';
