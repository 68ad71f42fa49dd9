-- Tenant: tables under their tenants' row security. An option that is NULL
-- stays as it is; the first time it has the default that its comment names.

CREATE FUNCTION rowkeeper.tenant(target regclass, by name DEFAULT NULL, claim text DEFAULT NULL,
                                 replace_policies name[] DEFAULT NULL, shared boolean DEFAULT NULL,
                                 force boolean DEFAULT NULL, set_default boolean DEFAULT NULL)
    RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant';
COMMENT ON FUNCTION rowkeeper.tenant(regclass, name, text, name[], boolean, boolean, boolean) IS
    'isolates the tenants in a table by row security; by: column (''tenant_id''; of claim ''user'', ''user_id''); claim (''tenant'', ''user''); replace_policies: hand-written ones to drop; shared (false): rows without a tenant are everybody''s to read; force (true): the owner is held to it, too; set_default (true): new rows are the claim''s. Returns what was done';

CREATE FUNCTION rowkeeper.tenant_off(target regclass, claim text DEFAULT NULL) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_off';
COMMENT ON FUNCTION rowkeeper.tenant_off(regclass, text) IS
    'isolates a table (NULL: nothing) by a claim (NULL: by any) no more, and gives it back the row security flags it had';

-- A restore creates the trigger as the table's owner.
CREATE FUNCTION rowkeeper._tenant_truncate() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'rowkeeper_tenant_truncate';
COMMENT ON FUNCTION rowkeeper._tenant_truncate() IS
    'statement trigger: refuses TRUNCATE to who is held to the policies; its argument is what tenant() was told';

CREATE FUNCTION rowkeeper.tenant_fk(child regclass, parent regclass) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_fk';
COMMENT ON FUNCTION rowkeeper.tenant_fk(regclass, regclass) IS
    'foreign keys between two isolated tables with the tenant in them, so that no row points to another tenant''s; on a large table call it again to validate';

CREATE FUNCTION rowkeeper.tenant_role(role name, trust text) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_role';
COMMENT ON FUNCTION rowkeeper.tenant_role(name, text) IS
    'trusts a role with ''set'' (tenant_set, user_set), ''signed'' (tenant_set_signed), ''sign'' (tenant_sign), ''bypass'' (tenant_bypass), besides what it has; ''none'' takes all of it away';

CREATE FUNCTION rowkeeper.tenant_bypass(reason text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_bypass';
REVOKE ALL ON FUNCTION rowkeeper.tenant_bypass(text) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper.tenant_bypass(text) IS
    'past the isolation of tenants until the transaction ends; recorded in the audit log and in the server''s';

CREATE FUNCTION rowkeeper.tenant_assert(role name DEFAULT current_user) RETURNS boolean
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_assert';
COMMENT ON FUNCTION rowkeeper.tenant_assert(name) IS
    'true where the role is held to isolation and the doctor has no tenant errors; else raises: for an application''s start and for test suites';

CREATE FUNCTION rowkeeper._tenant_is_intact(relation regclass) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_is_intact';
REVOKE ALL ON FUNCTION rowkeeper._tenant_is_intact(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._tenant_is_intact(regclass) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._tenant_is_intact(regclass) IS
    'whether the policies of a protected relation are those that tenant() made; for doctor()';

CREATE FUNCTION rowkeeper._tenant_policy(policy oid, OUT columns smallint[], OUT is_volatile boolean, OUT is_unsafe boolean)
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_policy';
REVOKE ALL ON FUNCTION rowkeeper._tenant_policy(oid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._tenant_policy(oid) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._tenant_policy(oid) IS
    'which columns a policy''s expressions read, whether they call what is volatile or not parallel safe; for doctor()';

CREATE FUNCTION rowkeeper._tenant_options(relation regclass) RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_options';
REVOKE ALL ON FUNCTION rowkeeper._tenant_options(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._tenant_options(regclass) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._tenant_options(regclass) IS
    'what tenant() was told of a relation, or null; a trigger whose arguments are not tenant()''s counts for nothing';

-- The audit log shows entries of a table to its tenants where the policies are
-- ours alone, by tenant alone, and entries say whose row they are of.
CREATE FUNCTION rowkeeper._tenant_sight(relation regclass) RETURNS integer
LANGUAGE sql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN NOT EXISTS (SELECT FROM rowkeeper._tenant_options($1) o
			WHERE o ->> 'user' IS NULL AND NOT (o ->> 'shared')::boolean
				AND o ->> 'tenant' = rowkeeper._changes_options($1, 'audit') ->> 'tenant')
			OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = $1
				AND p.polname <> ALL ('{rowkeeper_tenant,rowkeeper_tenant_guard,rowkeeper_tenant_bypass}')) THEN 0
		WHEN rowkeeper._bypassing() AND EXISTS (SELECT FROM pg_policy p, unnest(p.polroles) r
			WHERE p.polrelid = $1 AND p.polname = 'rowkeeper_tenant_bypass' AND pg_has_role(r, 'USAGE')) THEN 2
		WHEN EXISTS (WITH RECURSIVE types (type) AS (
				SELECT a.atttypid FROM pg_attribute a
				WHERE a.attrelid = $1 AND a.attname = rowkeeper._tenant_options($1) ->> 'tenant'
				UNION ALL SELECT d.typbasetype FROM types t JOIN pg_type d ON d.oid = t.type AND d.typtype = 'd')
			SELECT FROM types t WHERE t.type = 'uuid'::regtype) THEN 1
		ELSE 3 END
$$;
REVOKE ALL ON FUNCTION rowkeeper._tenant_sight(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._tenant_sight(regclass) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._tenant_sight(regclass) IS
    'what a reader whom row security holds sees of a table''s entries in the audit log: 0 none, 1 his tenant''s, a uuid, 2 all, 3 his tenant''s, as the claim is written';

-- The triggers that say how a relation is isolated; options null: nothing.
CREATE VIEW rowkeeper._tenant_triggers AS
SELECT c.oid AS relation, n.nspname AS table_schema, pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name,
	c.relispartition AS is_partition, rowkeeper._tenant_options(c.oid) AS options
FROM pg_catalog.pg_trigger t
	JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgname = 'rowkeeper_tenant' AND t.tgfoid = 'rowkeeper._tenant_truncate()'::pg_catalog.regprocedure
	AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE'));
REVOKE ALL ON rowkeeper._tenant_triggers FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_triggers IS 'Triggers that say how a relation is isolated, of those that the reader may SELECT or owns.';

-- Relations with our restrictive policy: isolated, whether or not a trigger says so.
CREATE VIEW rowkeeper._tenant_guards AS
SELECT c.oid AS relation, n.nspname AS table_schema, pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name,
	c.relispartition AS is_partition
FROM pg_catalog.pg_policy p
	JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.polname = 'rowkeeper_tenant_guard' AND n.nspname !~ '^rowkeeper(_|$)'
	AND (pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE'));
REVOKE ALL ON rowkeeper._tenant_guards FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_guards IS 'Relations with the restrictive policy of tenant(), of those that the reader may SELECT or owns.';

-- Protected tables that the reader may SELECT or owns, of partitioned ones the root.
CREATE VIEW rowkeeper._tenant_tables AS
SELECT t.relation AS root, t.table_schema, t.full_name, t.options
FROM rowkeeper._tenant_triggers t
WHERE t.options IS NOT NULL AND NOT t.is_partition;
REVOKE ALL ON rowkeeper._tenant_tables FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_tables IS 'Which tables are isolated by tenant, and how.';

CREATE VIEW rowkeeper._tenant_tree AS
WITH RECURSIVE tree AS (
	SELECT t.root, t.root AS relation, t.table_schema, t.full_name AS root_name, t.options FROM rowkeeper._tenant_tables t
	UNION ALL
	SELECT t.root, c.oid, t.table_schema, t.root_name, t.options
	FROM tree t
		JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
		JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition
)
SELECT t.root, t.relation, t.table_schema, t.root_name, t.options,
	pg_catalog.format('%I.%I', n.nspname, c.relname) AS full_name,
	c.relowner AS owner, c.relacl AS acl, c.relkind AS kind,
	c.relrowsecurity AS enabled, c.relforcerowsecurity AS forced,
	(SELECT g.tgenabled FROM pg_catalog.pg_trigger g
		WHERE g.tgrelid = t.relation AND g.tgname = 'rowkeeper_tenant'
			AND g.tgfoid = 'rowkeeper._tenant_truncate()'::pg_catalog.regprocedure) AS trigger_state
FROM tree t
	JOIN pg_catalog.pg_class c ON c.oid = t.relation
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace;
REVOKE ALL ON rowkeeper._tenant_tree FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_tree IS 'Tables isolated by tenant, and their partitions.';

-- Roles that no policy holds, or that can make themselves such a one: before 16
-- CREATEROLE grants any role that is no superuser; server files are all data;
-- TOAST tables and pg_statistic, for pg_read_all_data, have no row security.
CREATE VIEW rowkeeper._tenant_powers AS
SELECT r.oid AS role, r.rolname,
	CASE WHEN r.rolsuper THEN 'SUPERUSER' WHEN r.rolbypassrls THEN 'BYPASSRLS' WHEN r.rolreplication THEN 'REPLICATION'
		WHEN r.rolcreaterole AND pg_catalog.current_setting('server_version_num')::integer < 160000 THEN 'CREATEROLE'
		WHEN r.rolname IN ('pg_execute_server_program', 'pg_read_all_data', 'pg_read_server_files', 'pg_write_server_files') THEN 'the rights of ' || r.rolname
	END AS power
FROM pg_catalog.pg_roles r
WHERE r.rolsuper OR r.rolbypassrls OR r.rolreplication
	OR (r.rolcreaterole AND pg_catalog.current_setting('server_version_num')::integer < 160000)
	OR r.rolname IN ('pg_execute_server_program', 'pg_read_all_data', 'pg_read_server_files', 'pg_write_server_files');
REVOKE ALL ON rowkeeper._tenant_powers FROM PUBLIC;
GRANT SELECT ON rowkeeper._tenant_powers TO PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_powers IS 'Roles past row security, as they are or as they can make themselves.';

-- The reason why no policy of ours holds a role, or null.
CREATE FUNCTION rowkeeper._tenant_escape(role oid) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN r.rolsuper THEN 'It is a superuser.'
		ELSE coalesce(
			(SELECT format('It has %s.', p.power) FROM rowkeeper._tenant_powers p WHERE p.role = r.oid),
			(SELECT CASE WHEN p.power ~ '^the rights' THEN format('It has %s.', p.power)
				ELSE format('It can become %I, which has %s.', p.rolname, p.power) END
			 FROM rowkeeper._tenant_powers p
			 WHERE pg_has_role(r.oid, p.role, 'MEMBER')
			 ORDER BY p.rolname LIMIT 1),
			(SELECT format('It owns %s, whose row security is not forced.', t.full_name)
			 FROM rowkeeper._tenant_tree t
			 WHERE NOT t.forced AND pg_has_role(r.oid, t.owner, 'MEMBER')
			 ORDER BY t.full_name LIMIT 1)) END
	FROM pg_roles r WHERE r.oid = $1
$$;
REVOKE ALL ON FUNCTION rowkeeper._tenant_escape(oid) FROM PUBLIC;
COMMENT ON FUNCTION rowkeeper._tenant_escape(oid) IS
    'the reason why policies do not hold a role, or null; for tenant_assert()';

-- The columns of claims.
CREATE VIEW rowkeeper._tenant_columns AS
SELECT t.root, t.table_schema, t.full_name, t.options, k.claim, a.attname AS column_name, a.attnum,
	a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.conrelid = t.root AND c.contype = 'n'
		AND c.conkey[1] = a.attnum AND NOT c.convalidated) AS is_not_null
FROM rowkeeper._tenant_tables t
	CROSS JOIN pg_catalog.unnest('{tenant,user}'::text[]) k (claim)
	JOIN pg_catalog.pg_attribute a
		ON a.attrelid = t.root AND a.attname = (t.options ->> k.claim) AND NOT a.attisdropped;
REVOKE ALL ON rowkeeper._tenant_columns FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_columns IS 'The columns by which tables are isolated.';

-- Whether row security of a relation holds a role: not superusers, nor those
-- with BYPASSRLS, nor the owner where it is not forced.
CREATE VIEW rowkeeper._tenant_escaping AS
SELECT t.root, t.relation, r.oid AS role, r.rolname
FROM rowkeeper._tenant_tree t
	JOIN pg_catalog.pg_roles r ON r.rolsuper OR r.rolbypassrls
		OR (NOT t.forced AND pg_catalog.pg_has_role(r.oid, t.owner, 'USAGE'));
REVOKE ALL ON rowkeeper._tenant_escaping FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_escaping IS 'Roles that the row security of isolated tables does not hold.';

-- Views and materialized views that read a relation. What they read through
-- another view is read with its owner's rights or those of who asks, so it is
-- that view's to show, but for what a materialized view has kept: no policy
-- holds that, however many views are between.
CREATE VIEW rowkeeper._tenant_views AS
WITH RECURSIVE reads AS (
	SELECT DISTINCT d.refobjid AS relation, w.ev_class AS view
	FROM pg_catalog.pg_depend d
		JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
	WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
		AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> w.ev_class
), readers AS (
	SELECT t.root, t.relation, t.table_schema, t.full_name, r.view, false AS through, false AS kept
	FROM rowkeeper._tenant_tree t JOIN reads r ON r.relation = t.relation
	UNION
	SELECT s.root, s.relation, s.table_schema, s.full_name, r.view, true, s.kept OR c.relkind = 'm'
	FROM readers s
		JOIN pg_catalog.pg_class c ON c.oid = s.view AND c.relkind IN ('v', 'm')
		JOIN reads r ON r.relation = s.view
)
SELECT s.root, s.relation, s.table_schema, s.full_name, c.oid AS view,
	pg_catalog.format('%I.%I', n.nspname, c.relname) AS view_name, c.relkind AS kind, c.relowner AS owner,
	coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner)) ||
		ARRAY(SELECT pg_catalog.unnest(a.attacl) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped) AS acl,
	coalesce((SELECT o.option_value FROM pg_catalog.pg_options_to_table(c.reloptions) o
		WHERE o.option_name = 'security_invoker')::boolean, false) AS is_invoker, s.through, s.kept
FROM (SELECT r.root, r.relation, r.table_schema, r.full_name, r.view,
			pg_catalog.bool_and(r.through) AS through, pg_catalog.bool_or(r.kept) AS kept
		FROM readers r GROUP BY r.root, r.relation, r.table_schema, r.full_name, r.view) s
	JOIN pg_catalog.pg_class c ON c.oid = s.view
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^rowkeeper(_|$)' AND (c.relkind = 'm' OR s.kept OR NOT s.through);
REVOKE ALL ON rowkeeper._tenant_views FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_views IS 'Views that read isolated tables.';

-- Policies and views that stand beside the isolation; for tenant() and doctor().
CREATE VIEW rowkeeper._tenant_company AS
SELECT t.root, t.table_schema, t.full_name AS object,
	CASE WHEN NOT p.polpermissive THEN 'restrictive_policy' ELSE 'permissive_policy' END AS check_name,
	CASE WHEN p.polpermissive AND NOT (r.columns @> ARRAY[k.attnum]) THEN 'warning' ELSE 'info' END AS level,
	CASE WHEN p.polpermissive
		THEN pg_catalog.format('policy %I of %s is OR-ed with the isolation: it shows no row of another tenant, but plans cannot use the tenant', p.polname, t.full_name)
		ELSE pg_catalog.format('policy %I of %s is AND-ed with the isolation', p.polname, t.full_name) END AS detail,
	pg_catalog.format('SELECT rowkeeper.tenant(%L, replace_policies => %L)', t.root_name, ARRAY[p.polname]::text) AS remedy
FROM rowkeeper._tenant_tree t
	JOIN pg_catalog.pg_policy p ON p.polrelid = t.relation
		AND p.polname <> ALL ('{rowkeeper_tenant,rowkeeper_tenant_guard,rowkeeper_tenant_update,rowkeeper_tenant_delete,rowkeeper_tenant_bypass}')
	LEFT JOIN pg_catalog.pg_attribute k ON k.attrelid = t.relation AND NOT k.attisdropped
		AND k.attname = coalesce(t.options ->> 'tenant', t.options ->> 'user')
	CROSS JOIN LATERAL rowkeeper._tenant_policy(p.oid) r
UNION ALL
SELECT v.root, v.table_schema, v.view_name, 'view', 'error',
	pg_catalog.format('view %s reads %s with the rights of its owner, whom row security does not hold', v.view_name, v.full_name),
	pg_catalog.format('ALTER VIEW %s SET (security_invoker = true)', v.view_name)
FROM rowkeeper._tenant_views v
WHERE v.kind = 'v' AND NOT v.is_invoker AND NOT v.through
	AND EXISTS (SELECT FROM rowkeeper._tenant_escaping e WHERE e.relation = v.relation AND e.role = v.owner)
UNION ALL
SELECT v.root, v.table_schema, v.view_name, 'materialized_view', 'error',
	CASE v.kind WHEN 'm' THEN pg_catalog.format('materialized view %s has rows of %s, has no row security, and others may read it: %s', v.view_name, v.full_name, g.names)
		ELSE pg_catalog.format('view %s reads a materialized view that has rows of %s and no row security, and others may read it: %s', v.view_name, v.full_name, g.names) END,
	pg_catalog.format('REVOKE ALL ON %s FROM %s', v.view_name, g.names)
FROM rowkeeper._tenant_views v
	CROSS JOIN LATERAL (SELECT pg_catalog.string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC'
			ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, ', ')
		FROM pg_catalog.aclexplode(v.acl) a WHERE a.grantee <> v.owner AND a.privilege_type = 'SELECT') g (names)
WHERE (v.kind = 'm' OR (v.kept AND NOT v.is_invoker)) AND g.names IS NOT NULL;
REVOKE ALL ON rowkeeper._tenant_company FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_company IS 'Policies and views that stand beside the isolation of tenants; for tenant() and doctor().';

-- What is wrong with the row security itself, a row for each relation.
CREATE VIEW rowkeeper._tenant_states AS
SELECT t.root, t.relation, t.table_schema, t.root_name, t.full_name, s.check_name, s.problem
FROM rowkeeper._tenant_tree t
	CROSS JOIN LATERAL (VALUES
		('partition', t.relation <> t.root AND t.trigger_state IS NULL, 'partition is not protected: read directly, it shows the rows of all'),
		('options', t.relation <> t.root AND t.trigger_state IS NOT NULL
			AND (rowkeeper._tenant_options(t.relation::pg_catalog.regclass) - '{was_enabled,was_forced}'::text[])
				IS DISTINCT FROM (t.options - '{was_enabled,was_forced}'::text[]),
			'partition is isolated otherwise than its root'),
		('row_security', t.trigger_state IS NOT NULL AND NOT t.enabled, 'row security is off'),
		('not_forced', t.trigger_state IS NOT NULL AND t.enabled AND NOT t.forced
			AND (t.options ->> 'force')::boolean, 'row security is not forced: its owner sees the rows of all'),
		('policies', t.trigger_state IS NOT NULL AND NOT rowkeeper._tenant_is_intact(t.relation::pg_catalog.regclass),
			'policies are not those that tenant() makes'),
		('truncate', t.trigger_state <> 'O', 'trigger that refuses TRUNCATE is disabled')) s (check_name, found, problem)
WHERE s.found;
REVOKE ALL ON rowkeeper._tenant_states FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_states IS 'Row security of isolated tables that is not as tenant() made it.';

CREATE VIEW rowkeeper._tenant_features AS
SELECT t.root::pg_catalog.regclass AS target, 'tenant'::text AS feature, t.options,
	(SELECT pg_catalog.string_agg(pg_catalog.format(
			'SELECT rowkeeper.tenant(%L, by => %L, claim => %L%s, force => %s, set_default => %s)', t.full_name,
			t.options ->> k.claim, k.claim,
			CASE WHEN t.options ->> 'tenant' IS NULL THEN '' ELSE ', shared => ' || (t.options ->> 'shared') END,
			t.options ->> 'force', t.options ->> 'set_default'), '; ' ORDER BY k.at)
		FROM pg_catalog.unnest('{tenant,user}'::text[]) WITH ORDINALITY k (claim, at)
		WHERE t.options ->> k.claim IS NOT NULL) AS call,
	NOT EXISTS (SELECT FROM rowkeeper._tenant_states s WHERE s.root = t.root) AS healthy,
	(SELECT pg_catalog.string_agg(s.full_name || ': ' || s.problem, '; ' ORDER BY s.full_name, s.problem)
		FROM rowkeeper._tenant_states s WHERE s.root = t.root) AS detail
FROM rowkeeper._tenant_tables t;
REVOKE ALL ON rowkeeper._tenant_features FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_features IS 'Tenant isolation as rowkeeper.features shows it.';

-- Fixes of row security: CVE-2024-10976 (15.9, 16.5, 17.1), CVE-2025-8713
-- (15.14, 16.10, 17.6).
CREATE FUNCTION rowkeeper._tenant_fixed_server(version integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
	WHEN version BETWEEN 150000 AND 150013 THEN '15.14'
	WHEN version BETWEEN 160000 AND 160009 THEN '16.10'
	WHEN version BETWEEN 170000 AND 170005 THEN '17.6' END;
REVOKE ALL ON FUNCTION rowkeeper._tenant_fixed_server(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._tenant_fixed_server(integer) TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._tenant_fixed_server(integer) IS
    'the release that mends row security in a server this old, or null; for doctor()';

-- Settings stored for roles, databases and functions.
CREATE VIEW rowkeeper._tenant_forgeries AS
SELECT CASE WHEN s.setrole = 0 THEN pg_catalog.format('DATABASE %I', d.datname)
		WHEN s.setdatabase = 0 THEN pg_catalog.format('ROLE %I', pg_catalog.pg_get_userbyid(s.setrole))
		ELSE pg_catalog.format('ROLE %I IN DATABASE %I', pg_catalog.pg_get_userbyid(s.setrole), d.datname) END AS object,
	pg_catalog.split_part(c.setting, '=', 1) AS setting
FROM pg_catalog.pg_db_role_setting s
	LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
	CROSS JOIN pg_catalog.unnest(s.setconfig) c (setting)
UNION ALL
SELECT 'FUNCTION ' || p.oid::pg_catalog.regprocedure, pg_catalog.split_part(c.setting, '=', 1)
FROM pg_catalog.pg_proc p CROSS JOIN pg_catalog.unnest(p.proconfig) c (setting);
REVOKE ALL ON rowkeeper._tenant_forgeries FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_forgeries IS 'Settings stored for roles, databases and functions; for doctor().';

CREATE FUNCTION rowkeeper._tenant_has_keys() RETURNS boolean
LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'rowkeeper_tenant_has_keys';
REVOKE ALL ON FUNCTION rowkeeper._tenant_has_keys() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rowkeeper._tenant_has_keys() TO PUBLIC;
COMMENT ON FUNCTION rowkeeper._tenant_has_keys() IS 'whether there are keys that tokens are signed with; for doctor()';

CREATE VIEW rowkeeper._tenant_findings AS
SELECT s.check_name, 'error'::text AS level, s.table_schema AS schema, s.full_name AS object, s.problem AS detail,
	CASE WHEN s.check_name IN ('partition', 'options', 'policies', 'truncate', 'row_security', 'not_forced')
		THEN pg_catalog.format('SELECT rowkeeper.tenant(%L)', s.root_name) END AS remedy
FROM rowkeeper._tenant_states s
UNION ALL
SELECT c.check_name, c.level, c.table_schema, c.object, c.detail, c.remedy
FROM rowkeeper._tenant_company c WHERE c.level <> 'info'
UNION ALL
SELECT 'trigger_gone', 'error', g.table_schema, g.full_name,
	'has policies of tenant(), but not the trigger that says what they should be: partitions made later are not protected',
	pg_catalog.format('SELECT rowkeeper.tenant(%L)', g.full_name)
FROM rowkeeper._tenant_guards g
WHERE NOT g.is_partition AND NOT EXISTS (SELECT FROM rowkeeper._tenant_tables t WHERE t.root = g.relation)
UNION ALL
SELECT 'parent', 'error', t.table_schema, t.full_name,
	pg_catalog.format('is under %I.%I, which is not isolated: read through it, it shows the rows of all', n.nspname, c.relname),
	CASE WHEN t.is_partition THEN pg_catalog.format('SELECT rowkeeper.tenant(%L)', pg_catalog.format('%I.%I', n.nspname, c.relname))
		ELSE pg_catalog.format('ALTER TABLE %s NO INHERIT %I.%I', t.full_name, n.nspname, c.relname) END
FROM (SELECT t.relation, t.table_schema, t.full_name, t.is_partition FROM rowkeeper._tenant_triggers t WHERE t.options IS NOT NULL
	UNION SELECT g.relation, g.table_schema, g.full_name, g.is_partition FROM rowkeeper._tenant_guards g) t
	JOIN pg_catalog.pg_inherits i ON i.inhrelid = t.relation
	JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT EXISTS (SELECT FROM rowkeeper._tenant_triggers p
	WHERE p.relation = c.oid AND p.options IS NOT NULL)
UNION ALL
SELECT 'trigger', 'error', t.table_schema, t.full_name,
	'has a trigger of tenant() that tenant() did not make: tenants are not isolated',
	pg_catalog.format('DROP TRIGGER rowkeeper_tenant ON %s', t.full_name)
FROM rowkeeper._tenant_triggers t WHERE t.options IS NULL
UNION ALL
SELECT 'child', 'error', t.table_schema, pg_catalog.format('%I.%I', n.nspname, c.relname),
	pg_catalog.format('inherits from %s and is not protected: read directly, it shows the rows of all', t.full_name),
	pg_catalog.format('ALTER TABLE %I.%I NO INHERIT %s', n.nspname, c.relname, t.full_name)
FROM rowkeeper._tenant_tree t
	JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
	JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND NOT c.relispartition AND c.relkind IN ('r', 'f')
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT c.relrowsecurity
UNION ALL
SELECT 'nullable', 'error', k.table_schema, k.full_name,
	pg_catalog.format('column %I may be null: such a row is nobody''s', k.column_name),
	pg_catalog.format('SELECT rowkeeper.tenant(%L)', k.full_name)
FROM rowkeeper._tenant_columns k
WHERE NOT k.is_not_null AND NOT (k.claim = 'tenant' AND (k.options ->> 'shared')::boolean)
UNION ALL
SELECT 'collation', 'error', k.table_schema, k.full_name,
	pg_catalog.format('column %I has a nondeterministic collation: keys take two tenants for one', k.column_name), NULL
FROM rowkeeper._tenant_columns k
	JOIN pg_catalog.pg_attribute a ON a.attrelid = k.root AND a.attnum = k.attnum
	JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation AND NOT c.collisdeterministic
UNION ALL
SELECT 'index', 'warning', k.table_schema, k.full_name,
	pg_catalog.format('no index begins with %I', k.column_name),
	pg_catalog.format('SELECT rowkeeper.tenant(%L)', k.full_name)
FROM rowkeeper._tenant_columns k
WHERE k.claim = CASE WHEN k.options ->> 'tenant' IS NULL THEN 'user' ELSE 'tenant' END
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
		WHERE i.indrelid = k.root AND i.indisvalid AND i.indkey[0] = k.attnum AND i.indpred IS NULL)
	AND NOT EXISTS (SELECT FROM pg_catalog.pg_partitioned_table p
		WHERE p.partrelid = k.root AND p.partstrat = 'l' AND p.partattrs[0] = k.attnum)
UNION ALL
SELECT 'unique_key', CASE WHEN i.indisprimary THEN 'info' ELSE 'warning' END, k.table_schema, k.full_name,
	pg_catalog.format('unique index %I is without %I: whose insert fails knows what other tenants have', c.relname, k.column_name),
	NULL
FROM rowkeeper._tenant_columns k
	JOIN pg_catalog.pg_index i ON i.indrelid = k.root AND i.indisunique
	JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE k.claim = 'tenant' AND NOT k.attnum = ANY (i.indkey)
UNION ALL
SELECT 'foreign_key', 'warning', k.table_schema, k.full_name,
	pg_catalog.format('foreign key %I to %s is without %I: a row may point to another tenant''s', f.conname, p.full_name, k.column_name),
	CASE WHEN NOT (k.options ->> 'shared')::boolean AND NOT (p.options ->> 'shared')::boolean
		AND coalesce(NOT (pg_catalog.to_jsonb(f) ->> 'conperiod')::boolean, true)
		THEN pg_catalog.format('SELECT rowkeeper.tenant_fk(%L, %L)', k.full_name, p.full_name) END
FROM rowkeeper._tenant_columns k
	JOIN pg_catalog.pg_constraint f ON f.conrelid = k.root AND f.contype = 'f' AND f.conparentid = 0
		AND coalesce((pg_catalog.to_jsonb(f) ->> 'conenforced')::boolean, true)
	JOIN rowkeeper._tenant_columns p ON p.root = f.confrelid AND p.claim = 'tenant'
WHERE k.claim = 'tenant' AND NOT EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest(f.conkey), pg_catalog.unnest(f.confkey)) u (child, parent)
		WHERE u.child = k.attnum AND u.parent = p.attnum)
UNION ALL
SELECT 'foreign_key', 'warning', k.table_schema, k.full_name,
	pg_catalog.format('foreign key %I to %s is not validated', f.conname, p.full_name),
	pg_catalog.format('SELECT rowkeeper.tenant_fk(%L, %L)', k.full_name, p.full_name)
FROM rowkeeper._tenant_columns k
	JOIN pg_catalog.pg_constraint f ON f.conrelid = k.root AND f.contype = 'f' AND f.conparentid = 0
		AND coalesce((pg_catalog.to_jsonb(f) ->> 'conenforced')::boolean, true)
	JOIN rowkeeper._tenant_columns p ON p.root = f.confrelid AND p.claim = 'tenant'
WHERE k.claim = 'tenant' AND EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest(f.conkey), pg_catalog.unnest(f.confkey)) u (child, parent)
		WHERE u.child = k.attnum AND u.parent = p.attnum) AND NOT f.convalidated
UNION ALL
SELECT 'policy_function', 'warning', t.table_schema, t.full_name,
	pg_catalog.format('policy %I calls what is %s', p.polname,
		CASE WHEN r.is_volatile THEN 'volatile: it is asked for every row, and no index helps'
			ELSE 'not parallel safe: no query of the table is parallel' END), NULL
FROM rowkeeper._tenant_tree t
	JOIN pg_catalog.pg_policy p ON p.polrelid = t.relation
	CROSS JOIN LATERAL rowkeeper._tenant_policy(p.oid) r
WHERE r.is_volatile OR r.is_unsafe
UNION ALL
SELECT 'grants', 'warning', t.table_schema, t.full_name,
	pg_catalog.format('%s has %s, which no policy covers', g.grantee, g.privileges),
	pg_catalog.format('REVOKE %s ON %s FROM %s', g.privileges, t.full_name, g.grantee)
FROM rowkeeper._tenant_tree t
	CROSS JOIN LATERAL (SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC'
			ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee,
			pg_catalog.string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS privileges
		FROM pg_catalog.aclexplode(t.acl) a
		WHERE a.grantee <> t.owner AND a.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER')
		GROUP BY a.grantee) g
UNION ALL
SELECT 'security_definer', 'warning', t.table_schema, p.oid::pg_catalog.regprocedure::text,
	pg_catalog.format('names %s and runs with the rights of its owner %I, whom row security does not hold',
		t.full_name, pg_catalog.pg_get_userbyid(p.proowner)),
	pg_catalog.format('ALTER ROUTINE %s SECURITY INVOKER', p.oid::pg_catalog.regprocedure)
FROM rowkeeper._tenant_tree t
	JOIN rowkeeper._tenant_escaping e ON e.relation = t.relation
	JOIN pg_catalog.pg_proc p ON p.prosecdef AND p.proowner = e.role
	JOIN pg_catalog.pg_class c ON c.oid = t.relation
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
		AND d.objid = p.oid AND d.deptype = 'e')
	AND (p.prosrc ~* ('\m' || pg_catalog.regexp_replace(c.relname, '\W', '\\\&', 'g') || '\M')
		OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
			AND d.objid = p.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid))
UNION ALL
SELECT 'publication', 'info', t.table_schema, t.full_name,
	pg_catalog.format('publication %I sends the rows of all tenants; its subscriber needs policies of its own', p.pubname), NULL
FROM rowkeeper._tenant_tree t
	JOIN pg_catalog.pg_class c ON c.oid = t.relation
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	JOIN pg_catalog.pg_publication_tables p ON p.schemaname = n.nspname AND p.tablename = c.relname
UNION ALL
SELECT 'bypassing_role', 'warning', NULL, pg_catalog.quote_ident(r.rolname),
	'can log in and has BYPASSRLS: no policy holds it',
	pg_catalog.format('ALTER ROLE %I NOBYPASSRLS', r.rolname)
FROM pg_catalog.pg_roles r
WHERE r.rolcanlogin AND r.rolbypassrls AND NOT r.rolsuper AND EXISTS (SELECT FROM rowkeeper._tenant_tables)
UNION ALL
SELECT 'bypassing_role', 'warning', NULL, pg_catalog.quote_ident(r.rolname),
	'can log in and has the rights of pg_read_all_data, and no row security is on TOAST tables and pg_statistic',
	pg_catalog.format('REVOKE pg_read_all_data FROM %I', r.rolname)
FROM pg_catalog.pg_roles r
WHERE r.rolcanlogin AND NOT r.rolbypassrls AND NOT r.rolsuper AND pg_catalog.pg_has_role(r.oid, 'pg_read_all_data', 'MEMBER')
	AND EXISTS (SELECT FROM rowkeeper._tenant_tables)
UNION ALL
SELECT 'trusted_role', 'info', NULL, CASE a.grantee WHEN 0 THEN 'PUBLIC'
		ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
	'is trusted with ' || pg_catalog.string_agg(DISTINCT p.proname, ', '),
	pg_catalog.format('SELECT rowkeeper.tenant_role(%L, %L)', pg_catalog.pg_get_userbyid(a.grantee), 'none')
FROM pg_catalog.pg_proc p CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) a
WHERE p.pronamespace = 'rowkeeper'::pg_catalog.regnamespace AND a.grantee <> p.proowner
	AND p.proname IN ('tenant_set', 'user_set', 'tenant_sign', 'tenant_bypass')
GROUP BY a.grantee
UNION ALL
SELECT 'forged_setting', 'error', NULL, f.object,
	pg_catalog.format('stores %s, a claim that is never a setting''s to make', f.setting),
	pg_catalog.format('ALTER %s RESET %s', f.object, f.setting)
FROM rowkeeper._tenant_forgeries f
WHERE f.setting IN ('rowkeeper.tenant', 'rowkeeper.user_claim', 'rowkeeper.bypass', 'rowkeeper.token')
UNION ALL
SELECT 'server', 'warning', NULL, pg_catalog.current_setting('server_version'),
	'has known holes in row security', 'Update the server to ' || v.fixed || ' or later'
FROM rowkeeper._tenant_fixed_server(pg_catalog.current_setting('server_version_num')::integer) v (fixed)
WHERE v.fixed IS NOT NULL AND EXISTS (SELECT FROM rowkeeper._tenant_tables t)
UNION ALL
SELECT 'logged_tokens', 'warning', NULL, s.name,
	'is on, and there are keys of tokens: a token in a SET is logged', pg_catalog.format('ALTER SYSTEM SET %s = %L', s.name, s.off)
FROM (VALUES ('pg_stat_statements.track_utility', 'on', 'off'), ('log_statement', 'all', 'ddl')) s (name, bad, off)
WHERE pg_catalog.current_setting(s.name, true) = s.bad AND rowkeeper._tenant_has_keys();
REVOKE ALL ON rowkeeper._tenant_findings FROM PUBLIC;
COMMENT ON VIEW rowkeeper._tenant_findings IS 'What is wrong with tenant isolation; for doctor().';
