-- Tenant isolation where a table meets what is not isolated: another parent,
-- other options, policies of its own when it leaves, triggers that others
-- made, accounts of services, the audit log under another column before.
\set VERBOSITY terse
\pset format unaligned
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA tenant_edges;
CREATE ROLE tenant_edges_owner;
CREATE ROLE tenant_edges_app;
GRANT ALL ON SCHEMA tenant_edges TO tenant_edges_owner;
GRANT USAGE ON SCHEMA tenant_edges TO tenant_edges_app;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_edges_app', 'set');
RESET client_min_messages;
SET search_path = tenant_edges;

-- a table that becomes a partition: its parent must be isolated before it
SET ROLE tenant_edges_owner;
CREATE TABLE orders_old (id int NOT NULL, tenant_id int NOT NULL, at date NOT NULL);
INSERT INTO orders_old SELECT i, i % 3, '2026-01-01' FROM generate_series(1, 30) i;
SELECT count(*) FROM rowkeeper.tenant('orders_old');
CREATE TABLE orders (id int NOT NULL, tenant_id int NOT NULL, at date NOT NULL) PARTITION BY RANGE (at);
\set VERBOSITY default
ALTER TABLE orders ATTACH PARTITION orders_old DEFAULT;
\set VERBOSITY terse
CREATE TABLE level (LIKE orders) PARTITION BY RANGE (at);
SELECT count(*) FROM rowkeeper.tenant('level');
ALTER TABLE orders ATTACH PARTITION level DEFAULT;
SELECT count(*) > 5 FROM rowkeeper.tenant('orders');
ALTER TABLE orders ATTACH PARTITION orders_old DEFAULT;
GRANT SELECT ON orders TO tenant_edges_app;
SET ROLE tenant_edges_app;
SELECT count(*) FROM orders;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT count(*), min(tenant_id), max(tenant_id) FROM orders;
COMMIT;
-- inherited by a plain table
SET ROLE tenant_edges_owner;
CREATE TABLE plain (id int NOT NULL, tenant_id int NOT NULL);
CREATE TABLE child (id int NOT NULL, tenant_id int NOT NULL);
SELECT count(*) FROM rowkeeper.tenant('child');
ALTER TABLE child INHERIT plain;
-- done while nobody listened: the doctor sees it, an application's start too
RESET ROLE;
ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE;
ALTER TABLE child INHERIT plain;
CREATE TABLE open (LIKE orders) PARTITION BY RANGE (at);
ALTER TABLE open ATTACH PARTITION level DEFAULT;
ALTER EVENT TRIGGER rowkeeper_ddl_end ENABLE ALWAYS;
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor('tenant_edges', 'tenant') WHERE check_name = 'parent' ORDER BY object;
SELECT rowkeeper.tenant_assert('tenant_edges_app');
ALTER TABLE child NO INHERIT plain;
ALTER TABLE open DETACH PARTITION level;
DROP TABLE open, level, plain, child;
SELECT count(*) FROM rowkeeper.doctor('tenant_edges', 'tenant') WHERE level = 'error';

-- a partition that comes back gets what its parent has by now
SET ROLE tenant_edges_owner;
CREATE TABLE pt (org_id int NOT NULL, tenant_id int NOT NULL, no int) PARTITION BY LIST (no);
CREATE TABLE pt1 PARTITION OF pt FOR VALUES IN (1);
SELECT count(*) > 5 FROM rowkeeper.tenant('pt', by => 'org_id');
ALTER TABLE pt DETACH PARTITION pt1;
SELECT count(*) > 5 FROM rowkeeper.tenant('pt', by => 'tenant_id');
RESET ROLE;
ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE;
ALTER TABLE pt ATTACH PARTITION pt1 FOR VALUES IN (1);
ALTER EVENT TRIGGER rowkeeper_ddl_end ENABLE ALWAYS;
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor('tenant_edges', 'tenant') WHERE level = 'error';
ALTER TABLE pt DETACH PARTITION pt1;
SET ROLE tenant_edges_owner;
DROP POLICY rowkeeper_tenant_guard ON pt1;
ALTER TABLE pt1 DISABLE ROW LEVEL SECURITY;
ALTER TABLE pt ATTACH PARTITION pt1 FOR VALUES IN (1);
SELECT relrowsecurity, pg_get_expr(polqual, polrelid) FROM pg_class JOIN pg_policy ON polrelid = pg_class.oid
	WHERE pg_class.oid = 'pt1'::regclass ORDER BY polname;
SELECT attname, pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
	WHERE adrelid = 'pt1'::regclass;
SELECT rowkeeper.tenant('pt');
SELECT count(*) FROM rowkeeper.doctor('tenant_edges', 'tenant') WHERE level = 'error';

-- leave: no policy beside it shows more than before, shared rows stay who may bypass's
CREATE TABLE notes (tenant_id int, note text);
INSERT INTO notes SELECT i % 3, 'n' FROM generate_series(1, 30) i;
SELECT count(*) > 3 FROM rowkeeper.tenant('notes');
CREATE POLICY app_read ON notes FOR SELECT TO tenant_edges_app USING (true);
CREATE TABLE plans (tenant_id int, name text);
INSERT INTO plans VALUES (NULL, 'for all'), (1, 'of one'), (2, 'of two');
SELECT count(*) > 3 FROM rowkeeper.tenant('plans', shared => true);
GRANT SELECT, INSERT, UPDATE, DELETE ON notes, plans TO tenant_edges_app;
SELECT step FROM rowkeeper.leave('notes') step;
SELECT step FROM rowkeeper.leave('plans') step;
SET ROLE tenant_edges_app;
SET app.tenant_id = '1';
SELECT count(*), min(tenant_id), max(tenant_id) FROM notes;
INSERT INTO notes VALUES (2, 'of another');
SELECT * FROM plans ORDER BY name;
INSERT INTO plans VALUES (1, 'own');
INSERT INTO plans VALUES (NULL, 'for everybody');
INSERT INTO plans VALUES (2, 'of another');
UPDATE plans SET name = 'changed' RETURNING *;
UPDATE plans SET tenant_id = NULL;
DELETE FROM plans RETURNING *;
RESET app.tenant_id;
SELECT count(*) FROM notes;
RESET ROLE;
SELECT * FROM plans ORDER BY name;

-- a trigger of that name is anybody's to make: it stands in nobody's way
SET ROLE tenant_edges_owner;
CREATE TABLE empty_options (tenant_id int);
CREATE TABLE no_json (tenant_id int);
CREATE TABLE no_object (tenant_id int);
CREATE TABLE no_column (tenant_id int);
CREATE TABLE no_boolean (tenant_id int);
CREATE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON empty_options EXECUTE FUNCTION rowkeeper._tenant_truncate();
CREATE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON no_json EXECUTE FUNCTION rowkeeper._tenant_truncate('nojson');
CREATE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON no_object EXECUTE FUNCTION rowkeeper._tenant_truncate('[1]');
CREATE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON no_column EXECUTE FUNCTION rowkeeper._tenant_truncate('{"tenant":"nope"}');
CREATE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON no_boolean EXECUTE FUNCTION rowkeeper._tenant_truncate('{"tenant":"tenant_id","shared":"x","force":7}');
CREATE TABLE fine (tenant_id int);
SELECT count(*) > 3 FROM rowkeeper.tenant('fine');
ALTER TABLE no_column RENAME tenant_id TO org_id;
RESET ROLE;
SELECT rowkeeper.tenant_role('tenant_edges_app', 'bypass') ~ '_(options|json|object|column|boolean)' AS of_those, count(*) FROM generate_series(1, 1) GROUP BY 1 ORDER BY 1;
SELECT rowkeeper.tenant_role('tenant_edges_app', 'none') \g /dev/null
SELECT count(*) FROM rowkeeper.tenant_role('tenant_edges_app', 'set');
SELECT check_name, object, detail FROM rowkeeper.doctor('tenant_edges', 'tenant') WHERE level = 'error' ORDER BY object, check_name, detail;
SELECT rowkeeper.tenant_assert('tenant_edges_app');
SELECT target, healthy FROM rowkeeper.features WHERE feature = 'tenant' AND target::text ~ 'no_|empty' ORDER BY target::text;
DROP TABLE empty_options, no_json, no_object, no_column, no_boolean;

-- level "own": what is isolated, and nothing that is made later
CREATE SCHEMA tenant_edges_own AUTHORIZATION tenant_edges_owner;
SET search_path = tenant_edges_own;
SET ROLE tenant_edges_owner;
CREATE TABLE t (tenant_id int, x int);
SELECT count(*) > 3 FROM rowkeeper.tenant('t');
CREATE VIEW invoker WITH (security_invoker = true) AS SELECT * FROM t;
CREATE VIEW definer AS SELECT 1 AS x;
CREATE MATERIALIZED VIEW m AS SELECT 1 AS x;
CREATE SEQUENCE s;
RESET ROLE;
SELECT step FROM rowkeeper.service_role('tenant_edges_svc', 'own', 'tenant_edges_own') step;
SELECT rowkeeper.service_role('tenant_edges_svc', 'own', 'tenant_edges_own');
SET ROLE tenant_edges_owner;
CREATE TABLE later (tenant_id int);
-- a trigger of that name would be no isolation, and is refused
CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON later EXECUTE FUNCTION noop();
RESET ROLE;
SELECT c.relname, has_table_privilege('tenant_edges_svc', c.oid, 'SELECT')
FROM pg_class c WHERE relnamespace = 'tenant_edges_own'::regnamespace AND relkind IN ('r', 'v', 'm') ORDER BY 1;
SELECT rowkeeper.service_role('tenant_edges_svc', 'own', 'tenant_edges_own');
SELECT step FROM rowkeeper.service_role('tenant_edges_svc', 'write', 'tenant_edges_own') step;
DROP TABLE later;
-- from "write" to "own" it loses what goes beyond
SELECT step FROM rowkeeper.service_role('tenant_edges_svc', 'own', 'tenant_edges_own') step;
SELECT count(*) > 0 FROM rowkeeper.service_off('tenant_edges_svc');

-- the log: entries from before the column was the present one are no tenant's
SET search_path = tenant_edges;
SET ROLE tenant_edges_owner;
CREATE TABLE au (id int PRIMARY KEY, tenant_id int NOT NULL, org_id int NOT NULL, item text);
SELECT rowkeeper.audit('au') \g /dev/null
SELECT count(*) > 3 FROM rowkeeper.tenant('au', by => 'org_id');
GRANT SELECT, INSERT, UPDATE ON au TO tenant_edges_app;
SET ROLE tenant_edges_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
INSERT INTO au VALUES (1, 99, 1, 'secret of 99');
COMMIT;
SET ROLE tenant_edges_owner;
SELECT count(*) > 3 FROM rowkeeper.tenant('au', by => 'tenant_id');
SET ROLE tenant_edges_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
INSERT INTO au VALUES (2, 1, 7, 'of 1');
SELECT action, new_data ->> 'item' AS item FROM rowkeeper.audit_log WHERE relation = 'au'::regclass AND record_id IS NOT NULL;
SELECT rowkeeper.tenant_set(99);
SELECT action, new_data ->> 'item' AS item FROM rowkeeper.audit_log WHERE relation = 'au'::regclass AND record_id IS NOT NULL;
COMMIT;
-- a rename of table or column takes nothing away
RESET ROLE;
ALTER TABLE au RENAME TO au2;
ALTER TABLE au2 RENAME tenant_id TO account;
SET ROLE tenant_edges_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT action, new_data ->> 'item' AS item FROM rowkeeper.audit_log WHERE relation = 'au2'::regclass AND record_id IS NOT NULL;
COMMIT;
RESET ROLE;
-- nothing of before is shown when it is audited again
SELECT count(*) > 0 FROM rowkeeper.tenant('au2', by => 'org_id');
INSERT INTO au2 VALUES (3, 55, 1, 'secret of 55');
SELECT count(*) > 0 FROM rowkeeper.audit_off('au2');
SELECT count(*) > 0 FROM rowkeeper.tenant('au2', by => 'account');
SELECT rowkeeper.audit('au2') \g /dev/null
SELECT rowkeeper._changes_options('au2', 'audit') ->> 'tenant';
SELECT count(*) FROM rowkeeper.tenant('au2');
SELECT rowkeeper._changes_options('au2', 'audit') ->> 'tenant';
SET ROLE tenant_edges_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT action, new_data ->> 'item' AS item FROM rowkeeper.audit_log WHERE relation = 'au2'::regclass AND record_id IS NOT NULL;
UPDATE au2 SET item = 'mine';
SELECT action, new_data ->> 'item' AS item FROM rowkeeper.audit_log WHERE relation = 'au2'::regclass AND record_id IS NOT NULL;
COMMIT;

-- audit_history() shows a tenant the same entries
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT action, new_data ->> 'item' AS item, tenant FROM rowkeeper.audit_history('au2', 2);
SELECT count(*) FROM rowkeeper.audit_history('au2', 1);
SELECT count(*) FROM rowkeeper.audit_history('au2', 3);
SELECT count(*) FROM rowkeeper.audit_history('au2', '{"id": 2}'::jsonb);
SELECT rowkeeper.tenant_set(99);
SELECT count(*) FROM rowkeeper.audit_history('au2', 2);
COMMIT;
SELECT count(*) FROM rowkeeper.audit_history('au2', 2);
-- of a row that changes its tenant each sees his half, its key changed or not
RESET ROLE;
UPDATE au2 SET account = 2 WHERE id = 2;
UPDATE au2 SET id = 20, item = 'of 2' WHERE id = 2;
UPDATE au2 SET id = 21, account = 1 WHERE id = 20;
SET ROLE tenant_edges_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT action, record_id, old_data, new_data, changed_fields, tenant FROM rowkeeper.audit_history('au2', 2);
SELECT action, record_id, old_data, new_data, tenant FROM rowkeeper.audit_log WHERE relation = 'au2'::regclass AND record_id IS NOT NULL ORDER BY id;
SELECT rowkeeper.tenant_set(2);
SELECT action, record_id, old_data, new_data, changed_fields, tenant FROM rowkeeper.audit_history('au2', 20);
COMMIT;
-- who is not held to it, and policies of others
RESET ROLE;
SELECT count(*) FROM rowkeeper.audit_history('au2', 2);
CREATE POLICY more ON au2 AS RESTRICTIVE USING (true);
SET ROLE tenant_edges_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT count(*) FROM rowkeeper.audit_history('au2', 2);
ROLLBACK;
RESET ROLE;

-- what isolates a table is its owner's to say, not whose TRIGGER right it is
SET search_path = tenant_edges;
GRANT TRIGGER ON notes, au2 TO tenant_edges_app;
GRANT CREATE ON SCHEMA tenant_edges TO tenant_edges_app;
SET ROLE tenant_edges_app;
CREATE OR REPLACE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON au2 EXECUTE FUNCTION rowkeeper._tenant_truncate('{"tenant":"id"}');
CREATE TRIGGER another BEFORE TRUNCATE ON notes EXECUTE FUNCTION rowkeeper._tenant_truncate('{"tenant":"id"}');
RESET ROLE;
SELECT rowkeeper._tenant_options('au2') ->> 'tenant';

-- tenants whose names differ as text only: each his own
CREATE TABLE tx (id int PRIMARY KEY, tenant_id text NOT NULL);
SELECT rowkeeper.audit('tx') \g /dev/null
SELECT count(*) > 3 FROM rowkeeper.tenant('tx');
GRANT SELECT ON tx TO tenant_edges_app;
INSERT INTO tx VALUES (1, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'), (2, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11');
SET ROLE tenant_edges_app;
BEGIN;
SELECT rowkeeper.tenant_set('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::text);
SELECT id FROM tx;
SELECT record_id, tenant FROM rowkeeper.audit_log WHERE relation = 'tx'::regclass AND record_id IS NOT NULL;
SELECT rowkeeper.tenant_set('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::text);
SELECT record_id FROM rowkeeper.audit_log WHERE relation = 'tx'::regclass AND record_id IS NOT NULL;
COMMIT;
BEGIN;
SELECT rowkeeper.tenant_set('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::text);
SELECT count(*) FROM rowkeeper.audit_history('tx', 1);
SELECT tenant FROM rowkeeper.audit_history('tx', 2);
COMMIT;
RESET ROLE;

-- a foreign key that has the tenant, but to another column
CREATE TABLE pa (tenant_id int NOT NULL, org int NOT NULL, id int PRIMARY KEY, UNIQUE (org, id));
CREATE TABLE ch (tenant_id int NOT NULL, pid int);
SELECT count(*) > 3 FROM rowkeeper.tenant('pa');
SELECT count(*) > 3 FROM rowkeeper.tenant('ch');
ALTER TABLE ch ADD CONSTRAINT f1 FOREIGN KEY (pid) REFERENCES pa, ADD CONSTRAINT f2 FOREIGN KEY (tenant_id, pid) REFERENCES pa (org, id);
SELECT object, detail FROM rowkeeper.doctor('tenant_edges', 'tenant') WHERE check_name = 'foreign_key' ORDER BY detail;
SELECT count(*) FROM rowkeeper.tenant_fk('ch', 'pa');
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'ch'::regclass AND contype = 'f' ORDER BY conname;

SELECT rowkeeper.tenant_fk(0, 0);

-- a view with its owner's rights over one with its reader's: the reader is held
CREATE VIEW inner_view WITH (security_invoker = true) AS SELECT * FROM fine;
CREATE VIEW outer_view AS SELECT * FROM inner_view;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM inner_view WITH NO DATA;
GRANT SELECT ON fine, inner_view, outer_view, kept TO tenant_edges_app;
SET ROLE tenant_edges_app;
SELECT * FROM outer_view;
RESET ROLE;
SELECT check_name, object FROM rowkeeper.doctor('tenant_edges', 'tenant') WHERE level = 'error' ORDER BY object;
DROP MATERIALIZED VIEW kept;
DROP VIEW outer_view, inner_view;

-- columns of any name, and nothing but one statement of them
CREATE TABLE odd (id int, "a, b" int, "q,  id)ON odd TO x;ALTER ROLE tenant_edges_owner SUPERUSER;--" int);
SELECT rowkeeper.service_columns('tenant_edges_app', 'odd', ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = 'odd'::regclass AND attnum > 0), '{id,id,"a, b"}');
SELECT count(*) FROM rowkeeper.service_columns('tenant_edges_app', 'odd', ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = 'odd'::regclass AND attnum > 0), '{"a, b",id}');
SELECT rolsuper FROM pg_roles WHERE rolname = 'tenant_edges_owner';

-- level "admin" hands on no superuser, nor does another to who can become one
CREATE SCHEMA tenant_edges_admin AUTHORIZATION tenant_edges_owner;
CREATE ROLE tenant_edges_passer BYPASSRLS;
CREATE VIEW tenant_edges_admin.v AS SELECT 1 AS x;
CREATE TABLE tenant_edges_admin.t (x int);
SELECT rowkeeper.service_role('tenant_edges_svc', 'admin', 'tenant_edges_admin');
ALTER TABLE tenant_edges_admin.t OWNER TO tenant_edges_passer;
SELECT rowkeeper.service_role('tenant_edges_svc', 'admin', 'tenant_edges_admin');
ALTER TABLE tenant_edges_admin.t OWNER TO tenant_edges_owner;
SELECT step FROM rowkeeper.service_role('tenant_edges_svc', 'admin', 'tenant_edges_admin') step WHERE step !~ 'DEFAULT';
SELECT pg_has_role('tenant_edges_svc', 'tenant_edges_owner', 'MEMBER'), pg_has_role('tenant_edges_svc', current_user, 'MEMBER');
GRANT tenant_edges_passer TO tenant_edges_svc;
SELECT rowkeeper.service_role('tenant_edges_svc', 'read', 'tenant_edges_admin');
SELECT count(*) > 0 FROM rowkeeper.service_off('tenant_edges_svc');

-- names are quoted as they are whatever a session sets
SET quote_all_identifiers = on;
SELECT rowkeeper.tenant('pt');
SELECT count(*) FROM rowkeeper.doctor('tenant_edges', 'tenant') WHERE level = 'error';
RESET quote_all_identifiers;

-- a token without a header, rightly signed
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
SELECT nspname AS crypto FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pgcrypto' \gset
SET search_path = tenant_edges, :crypto;
SELECT rowkeeper.tenant_key_add('edges', repeat('e', 32)::bytea);
CREATE FUNCTION b64(bytea) RETURNS text LANGUAGE sql AS $$ SELECT rtrim(translate(encode($1, 'base64'), E'+/\n', '-_'), '=') $$;
CREATE FUNCTION token(header text, payload text) RETURNS text LANGUAGE sql AS $$
	SELECT p || '.' || b64(hmac(convert_to(p, 'UTF8'), repeat('e', 32)::bytea, 'sha256'))
	FROM (SELECT b64(convert_to(header, 'UTF8')) || '.' || b64(convert_to(payload, 'UTF8'))) s (p) $$;
SELECT format('{"aud":"%s","exp":%s,', current_database(), extract(epoch FROM now() + interval '40 s')::bigint) AS rest,
	format('{"aud":[7,null,{"a":1},"%s"],"exp":%s.5,"tenant":1}', current_database(), extract(epoch FROM now() + interval '40 s')::bigint) AS several \gset
\c
SET search_path = tenant_edges, :crypto;
SET client_min_messages = warning;
BEGIN;
SELECT rowkeeper.tenant_set_signed(token('', :'rest' || '"tenant":1}'));
ROLLBACK;
-- numbers however they are written, what is within other things, what is repeated anywhere
\set head '{"alg":"HS256","kid":"edges"}'
BEGIN;
SELECT rowkeeper.tenant_set_signed(token(:'head', :'rest' || '"tenant":-0}'));
SELECT rowkeeper.tenant_set_signed(token(:'head', :'rest' || '"tenant":4.2e1}'));
SELECT rowkeeper.tenant_set_signed(token(:'head', :'rest' || '"x":[{"a":[1,{"tenant":3}]},null,true],"tenant":"\u0034\u0032"}'));
SELECT rowkeeper.tenant_set_signed(token(:'head', :'several'));
ROLLBACK;
BEGIN;
SELECT rowkeeper.tenant_set_signed(token(:'head', :'rest' || '"tenant":1,"x":[{"a":1,"a":2}]}'));
ROLLBACK;
BEGIN;
SELECT rowkeeper.tenant_set_signed(token(:'head', :'rest' || '"tenant":{"tenant":1}}'));
ROLLBACK;
BEGIN;
SELECT rowkeeper.tenant_set_signed(token(:'head', :'rest' || '"tenant":1,"nbf":1e999999}'));
ROLLBACK;
-- one that was set before the library was there counts for nothing in whoever's transaction loads it
SELECT token(:'head', :'rest' || '"tenant":1}') AS early \gset
\c
SET rowkeeper.token = :'early';
BEGIN;
SET LOCAL rowkeeper.tenant_strict = off;
SELECT rowkeeper.tenant_text();
COMMIT;
BEGIN;
SET LOCAL rowkeeper.token = :'early';
SELECT rowkeeper.tenant_text();
COMMIT;
SELECT rowkeeper.tenant_key_drop('edges');
SET search_path = tenant_edges;

SET client_min_messages = warning;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_edges_app', 'none');
DROP SCHEMA tenant_edges, tenant_edges_own, tenant_edges_admin CASCADE;
DROP ROLE tenant_edges_owner, tenant_edges_app, tenant_edges_svc, tenant_edges_passer;

-- a table of keys in a database without the extension is anybody's
CREATE DATABASE regress_rk_edges;
\c regress_rk_edges
LOAD 'rowkeeper';
CREATE SCHEMA rowkeeper;
CREATE TABLE rowkeeper._token_key (kid bigint, secret bigint, a bigint, b bigint, c bigint, d bigint, e bigint);
INSERT INTO rowkeeper._token_key VALUES (4096, 4096, 0, 0, 4096, 4096, 4096);
BEGIN;
SET LOCAL rowkeeper.token = 'eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIn0.AAAA.AAAA';
ROLLBACK;
\c contrib_regression
DROP DATABASE regress_rk_edges;
