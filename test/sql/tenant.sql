-- Tenant isolation: one call, and each tenant has its own table.
\set VERBOSITY terse
\pset format unaligned
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA tenant;
CREATE ROLE tenant_owner;
CREATE ROLE tenant_app;
GRANT ALL ON SCHEMA tenant TO tenant_owner;
GRANT USAGE ON SCHEMA tenant TO tenant_app;
SELECT rowkeeper.tenant_role('tenant_app', 'set');
SELECT rowkeeper.tenant_role('tenant_app', 'set');
RESET client_min_messages;
SET search_path = tenant;

SET ROLE tenant_owner;
CREATE TABLE orders (id int PRIMARY KEY, tenant_id bigint, item text);
INSERT INTO orders SELECT i, i % 3, 'item ' || i FROM generate_series(1, 9) i;
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO tenant_app;
SELECT rowkeeper.tenant('orders');
-- again: nothing to do
SELECT rowkeeper.tenant('orders');
\d orders
RESET ROLE;

SET ROLE tenant_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT * FROM orders ORDER BY id;
INSERT INTO orders (id, item) VALUES (10, 'mine') RETURNING *;
UPDATE orders SET item = item || '!' RETURNING *;
UPDATE orders SET item = 'theirs' WHERE tenant_id = 2;
DELETE FROM orders WHERE id = 2;
DELETE FROM orders WHERE id = 1;
COMMIT;
-- a row of another tenant's, made or moved
BEGIN;
SELECT rowkeeper.tenant_set(1);
SAVEPOINT a;
INSERT INTO orders VALUES (11, 2, 'theirs');
ROLLBACK TO a;
UPDATE orders SET tenant_id = 2;
ROLLBACK TO a;
INSERT INTO orders VALUES (2, 1, 'x') ON CONFLICT (id) DO UPDATE SET item = 'mine now';
ROLLBACK;
-- without a claim: an error that says what to do, or no rows
SELECT * FROM orders;
SET rowkeeper.tenant_strict = off;
SELECT * FROM orders;
RESET rowkeeper.tenant_strict;
TRUNCATE orders;
RESET ROLE;
GRANT TRUNCATE ON orders TO tenant_app;
SET ROLE tenant_app;
TRUNCATE orders;
RESET ROLE;
REVOKE TRUNCATE ON orders FROM tenant_app;
-- the owner is held to it, too
SET ROLE tenant_owner;
SELECT count(*) FROM orders;
RESET ROLE;
GRANT EXECUTE ON FUNCTION rowkeeper.tenant_set(bigint) TO tenant_owner;
SET ROLE tenant_owner;
BEGIN;
SELECT rowkeeper.tenant_set(2);
SELECT count(*) FROM orders;
COMMIT;

-- the plan is that of an explicit WHERE
BEGIN;
SELECT rowkeeper.tenant_set(2);
SET LOCAL enable_seqscan = off;
EXPLAIN (COSTS off) SELECT * FROM orders;
EXPLAIN (COSTS off) SELECT * FROM orders WHERE id = 5;
COMMIT;

-- force => false: the owner sees everything
SELECT rowkeeper.tenant('orders', force => false);
SELECT count(*) FROM orders;
SELECT rowkeeper.tenant('orders', force => true);
SELECT target, feature, options, call, healthy, detail FROM rowkeeper.features WHERE feature = 'tenant';
-- off: flags as before; columns stay
SELECT rowkeeper.tenant_off('orders');
SELECT rowkeeper.tenant_off('orders');
SELECT rowkeeper.tenant_off(NULL);
\d orders
-- flags that were on before come back
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
SELECT rowkeeper.tenant('orders');
SELECT rowkeeper.tenant_off('orders');
ALTER TABLE orders DISABLE ROW LEVEL SECURITY;

-- types of the column, and a name that needs quoting
CREATE DOMAIN account AS integer;
CREATE DOMAIN slug AS varchar(20);
CREATE TABLE t_small (tenant_id smallint);
CREATE TABLE t_int (tenant_id int);
CREATE TABLE t_domain (tenant_id account);
CREATE TABLE t_uuid (tenant_id uuid);
CREATE TABLE t_text (tenant_id text);
CREATE TABLE t_varchar (tenant_id varchar(10) COLLATE "C");
CREATE TABLE t_slug ("Tenant Id" slug);
SELECT rowkeeper.tenant('t_small');
SELECT rowkeeper.tenant('t_int');
SELECT rowkeeper.tenant('t_domain');
SELECT rowkeeper.tenant('t_uuid');
SELECT rowkeeper.tenant('t_text');
SELECT rowkeeper.tenant('t_varchar');
SELECT rowkeeper.tenant('t_slug', by => 'Tenant Id');
-- each again: nothing to do
SELECT rowkeeper.tenant(c) FROM unnest('{t_small,t_int,t_domain,t_uuid,t_text,t_varchar,t_slug}'::regclass[]) c;
RESET ROLE;
GRANT EXECUTE ON FUNCTION rowkeeper.tenant_set(uuid), rowkeeper.tenant_set(text) TO tenant_owner;
SET ROLE tenant_owner;
BEGIN;
SELECT rowkeeper.tenant_set(7);
INSERT INTO t_small DEFAULT VALUES RETURNING *;
INSERT INTO t_int DEFAULT VALUES RETURNING *;
INSERT INTO t_domain DEFAULT VALUES RETURNING *;
INSERT INTO t_text DEFAULT VALUES RETURNING *;
INSERT INTO t_varchar DEFAULT VALUES RETURNING *;
INSERT INTO t_slug DEFAULT VALUES RETURNING *;
SELECT rowkeeper.tenant_set('5f1ea0f0-0000-4000-8000-000000000001'::uuid);
INSERT INTO t_uuid DEFAULT VALUES RETURNING *;
SELECT count(*) FROM t_uuid;
SELECT count(*) FROM t_text;
SAVEPOINT a;
SELECT count(*) FROM t_int;
ROLLBACK TO a;
SELECT rowkeeper.tenant_set('acme');
SELECT count(*) FROM t_text;
SELECT count(*) FROM t_uuid;
ROLLBACK;

-- two claims are AND-ed
CREATE TABLE notes (tenant_id int, user_id text, body text);
SELECT rowkeeper.tenant('notes');
SELECT rowkeeper.tenant('notes', claim => 'user');
SELECT rowkeeper.tenant('notes', claim => 'user');
SELECT call FROM rowkeeper.features WHERE target = 'notes'::regclass AND feature = 'tenant';
RESET ROLE;
GRANT EXECUTE ON FUNCTION rowkeeper.user_set(text) TO tenant_owner;
SET ROLE tenant_owner;
BEGIN;
SELECT rowkeeper.tenant_set(1), rowkeeper.user_set('alice');
INSERT INTO notes (body) VALUES ('of alice at 1') RETURNING *;
SELECT rowkeeper.user_set('bob');
INSERT INTO notes (body) VALUES ('of bob at 1');
SELECT * FROM notes;
SELECT rowkeeper.tenant_set(2);
SELECT * FROM notes;
SELECT rowkeeper.user_set(NULL::text);
SELECT * FROM notes;
ROLLBACK;
SELECT rowkeeper.tenant_off('notes', 'user');
SELECT rowkeeper.tenant_off('notes', 'user');
SELECT rowkeeper.tenant('notes');
SELECT rowkeeper.tenant_off('notes', 'tenant');

-- shared rows: everybody's to read, nobody's to change
CREATE TABLE plans (tenant_id int, name text);
INSERT INTO plans VALUES (NULL, 'for all'), (1, 'of 1'), (2, 'of 2');
SELECT rowkeeper.tenant('plans', shared => true);
SELECT rowkeeper.tenant('plans');
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT * FROM plans ORDER BY name;
UPDATE plans SET name = 'changed' RETURNING *;
DELETE FROM plans WHERE tenant_id IS NULL;
SELECT name FROM plans WHERE tenant_id IS NULL;
INSERT INTO plans VALUES (NULL, 'mine for all');
ROLLBACK;
\set VERBOSITY default
SELECT rowkeeper.tenant('plans', shared => false);
\set VERBOSITY terse
SELECT rowkeeper.tenant_off('plans');
DELETE FROM plans WHERE tenant_id IS NULL;
SELECT rowkeeper.tenant('plans', set_default => false);
SELECT rowkeeper.tenant('plans');

-- another default stays; another column
CREATE TABLE visits (id int, tenant_id int DEFAULT 5, other_id int);
SELECT rowkeeper.tenant('visits');
SELECT rowkeeper.tenant('visits', by => 'other_id');
ALTER TABLE visits RENAME other_id TO account_id;
SELECT rowkeeper.tenant('visits');
SELECT options ->> 'tenant' FROM rowkeeper.features WHERE target = 'visits'::regclass;

-- policies of one's own
CREATE TABLE docs (tenant_id int, public boolean);
CREATE POLICY "see public" ON docs FOR SELECT USING (public);
CREATE POLICY mine ON docs AS RESTRICTIVE USING (public IS NOT NULL);
SELECT rowkeeper.tenant('docs');
SELECT rowkeeper.tenant('docs', replace_policies => '{see public,mine,gone}');
SELECT rowkeeper.tenant('docs', replace_policies => '{rowkeeper_tenant}');

-- refused, with what to do
CREATE TABLE bad (id int, note point);
\set VERBOSITY default
SELECT rowkeeper.tenant('bad');
SELECT rowkeeper.tenant('bad', by => 'note');
ALTER TABLE bad ADD COLUMN tenant_id int;
INSERT INTO bad (id) VALUES (1), (2);
SELECT rowkeeper.tenant('bad');
SET rowkeeper.inline_rows = 1;
SELECT rowkeeper.tenant('bad');
UPDATE bad SET tenant_id = 1;
ALTER TABLE tenant.bad ADD CONSTRAINT bad_tenant_id_not_null CHECK (tenant_id IS NOT NULL) NOT VALID;
ALTER TABLE tenant.bad VALIDATE CONSTRAINT bad_tenant_id_not_null;
CREATE INDEX CONCURRENTLY ON tenant.bad (tenant_id);
SELECT rowkeeper.tenant('bad');
RESET rowkeeper.inline_rows;
\set VERBOSITY terse
SELECT rowkeeper.tenant('orders', claim => 'group');
SELECT rowkeeper.tenant('orders', by => 'id', claim => 'user', shared => true);
SELECT rowkeeper.tenant(NULL);
SELECT rowkeeper.tenant('pg_class');
CREATE VIEW v AS SELECT 1 AS tenant_id;
SELECT rowkeeper.tenant('v');
CREATE TABLE parent (tenant_id int);
CREATE TABLE child () INHERITS (parent);
SELECT rowkeeper.tenant('parent');
SELECT rowkeeper.tenant('child');
RESET ROLE;
CREATE TABLE others (tenant_id int);
CREATE TEMP TABLE temporary (tenant_id int);
\set VERBOSITY sqlstate
SELECT rowkeeper.tenant('temporary');
\set VERBOSITY terse
SET ROLE tenant_owner;
SELECT rowkeeper.tenant('others');
SELECT rowkeeper.tenant_off('others');
SELECT rowkeeper.tenant_role('tenant_owner', 'set');
RESET ROLE;
SELECT rowkeeper.tenant_role('nobody', 'set');
SELECT rowkeeper.tenant_role('tenant_app', 'all');
SELECT rowkeeper.tenant_role('tenant_app', NULL);
-- a rollback leaves nothing
BEGIN;
SELECT count(*) FROM rowkeeper.tenant('others');
ROLLBACK;
\d others

SELECT rowkeeper.tenant_role('tenant_app', 'none');
SELECT rowkeeper.tenant_role('tenant_app', 'none');
-- also what another role gave
GRANT EXECUTE ON FUNCTION rowkeeper.tenant_bypass(text) TO tenant_owner WITH GRANT OPTION;
SET ROLE tenant_owner;
GRANT EXECUTE ON FUNCTION rowkeeper.tenant_bypass(text) TO tenant_app;
RESET ROLE;
SELECT rowkeeper.tenant_role('tenant_app', 'none');
SELECT has_function_privilege('tenant_app', 'rowkeeper.tenant_bypass(text)', 'EXECUTE');
SET client_min_messages = warning;
DROP SCHEMA tenant CASCADE;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_owner', 'none');
DROP ROLE tenant_owner, tenant_app;
