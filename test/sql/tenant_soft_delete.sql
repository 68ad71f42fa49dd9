-- Tenants and deletes that can be taken back: what a tenant may see, restore
-- and remove, in both modes, and what the owner's work does who is held to
-- isolation himself. With stamps and the audit log on the same tables.
\set VERBOSITY terse
\pset format unaligned
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE ROLE tsd_owner;
CREATE ROLE tsd_app;
CREATE ROLE tsd_support;
CREATE SCHEMA tsd AUTHORIZATION tsd_owner;
GRANT USAGE ON SCHEMA tsd TO tsd_app, tsd_support;
SELECT count(*) FROM rowkeeper.tenant_role('tsd_app', 'set');
SELECT count(*) FROM rowkeeper.tenant_role('tsd_owner', 'set');
RESET client_min_messages;
SET search_path = tsd;
-- one row a table: what row security and policies the trash has beside its source
CREATE VIEW alike AS SELECT c.relname,
	(c.relrowsecurity, c.relforcerowsecurity) = (t.relrowsecurity, t.relforcerowsecurity) AS flags,
	(SELECT string_agg(polname, ' ' ORDER BY polname) FROM pg_policy WHERE polrelid = c.oid) AS policies,
	(SELECT string_agg(polname, ' ' ORDER BY polname) FROM pg_policy WHERE polrelid = t.oid) AS of_trash
FROM pg_class c JOIN pg_class t ON t.relname = 'tsd__' || c.relname WHERE c.relnamespace = 'tsd'::regnamespace;

\echo == trash
SET ROLE tsd_owner;
CREATE TABLE orders (tenant_id int NOT NULL, id int PRIMARY KEY, item text, version int NOT NULL DEFAULT 1);
CREATE TABLE lines (tenant_id int NOT NULL, id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE);
GRANT SELECT, INSERT, UPDATE, DELETE ON orders, lines TO tsd_app, tsd_support;
SELECT count(*) > 0 AS done FROM rowkeeper.audit('orders');
SELECT count(*) > 0 AS done FROM rowkeeper.stamp('orders', version => 'version');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('lines', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('orders', mode => 'trash');
-- the trash follows what comes after it
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('orders');
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('lines');
RESET ROLE;
SELECT * FROM alike ORDER BY 1;
SELECT count(*) FROM rowkeeper.tenant_role('tsd_support', 'bypass');
SELECT * FROM alike ORDER BY 1;
INSERT INTO orders SELECT 1 + i % 2, i, 'of ' || 1 + i % 2 FROM generate_series(1, 8) i;
INSERT INTO lines SELECT tenant_id, 10 * id, id FROM orders;

-- a tenant's own
SET ROLE tsd_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
DELETE FROM orders WHERE id = 2;
UPDATE orders SET item = 'x' WHERE id = 4;
SELECT id, _deleted_at IS NOT NULL AS deleted, version FROM orders_with_deleted ORDER BY 1;
SELECT tenant_id, id FROM rowkeeper_trash.tsd__lines;
COMMIT;
SELECT count(*) FROM orders_with_deleted;
SELECT count(*) FROM rowkeeper_trash.tsd__orders;
SELECT * FROM rowkeeper.soft_delete_restore('orders', 2);
SELECT table_name FROM rowkeeper.soft_delete_batches;
RESET ROLE;
SELECT max(batch) AS batch FROM rowkeeper_trash.batches \gset
-- ... is nobody else's to see, to restore or to remove
SET ROLE tsd_app;
BEGIN;
SELECT rowkeeper.tenant_set(2);
SAVEPOINT a;
SELECT id, _deleted_at IS NOT NULL AS deleted FROM orders_with_deleted ORDER BY 1;
SELECT count(*) FROM rowkeeper_trash.tsd__orders;
SELECT * FROM rowkeeper.soft_delete_restore('orders', 2);
ROLLBACK TO a;
SELECT * FROM rowkeeper.soft_delete_restore('orders', '2'::jsonb, dry_run => true);
ROLLBACK TO a;
SELECT * FROM rowkeeper.soft_delete_restore('lines', 20);
ROLLBACK TO a;
\set VERBOSITY sqlstate
SELECT * FROM rowkeeper.soft_delete_restore_batch(:batch);
ROLLBACK TO a;
SELECT * FROM rowkeeper.soft_delete_restore_batch(:batch, dry_run => true);
\set VERBOSITY terse
ROLLBACK TO a;
SELECT rowkeeper.soft_delete_hard('orders', 2);
ROLLBACK TO a;
DELETE FROM rowkeeper_trash.tsd__orders;
ROLLBACK TO a;
UPDATE rowkeeper_trash.tsd__orders SET tenant_id = 2;
ROLLBACK TO a;
INSERT INTO rowkeeper_trash.tsd__orders SELECT * FROM rowkeeper_trash.tsd__orders;
ROLLBACK TO a;
SELECT batch FROM rowkeeper.soft_delete_batches;
SELECT count(*) FROM rowkeeper_trash.batches;
ROLLBACK;
CALL rowkeeper.soft_delete_purge('orders', '0');
CALL rowkeeper.maintain('orders');
-- the tenant itself restores it, with what went along
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('orders', '2'::jsonb, dry_run => true);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('orders', 2);
SELECT action, record_id, changed_fields, tenant FROM rowkeeper.audit_log WHERE table_name = 'orders' AND (record_id ->> 'id')::int IN (2, 4) ORDER BY id;
COMMIT;
BEGIN;
SELECT rowkeeper.tenant_set(2);
SELECT count(*) FILTER (WHERE tenant = '2') AS own, count(*) AS seen FROM rowkeeper.audit_log WHERE table_name = 'orders';
COMMIT;

-- a batch of several tenants: each has his rows of it
RESET ROLE;
DELETE FROM orders WHERE id IN (2, 3);
SELECT max(batch) AS batch FROM rowkeeper_trash.batches \gset
SET ROLE tsd_app;
BEGIN;
SELECT rowkeeper.tenant_set(2);
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore_batch(:batch, dry_run => true);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore_batch(:batch);
COMMIT;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore_batch(:batch, cascade => false);
ROLLBACK;
RESET ROLE;
SELECT table_name, rows FROM rowkeeper.soft_delete_batches WHERE batch = :batch ORDER BY 1;
-- a key that was used by one tenant after the other: the last one that is his
SET ROLE tsd_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
INSERT INTO orders (id, item) VALUES (90, 'of 1');
DELETE FROM orders WHERE id = 90;
COMMIT;
BEGIN;
SELECT rowkeeper.tenant_set(2);
INSERT INTO orders (id, item) VALUES (90, 'of 2');
DELETE FROM orders WHERE id = 90;
COMMIT;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT record_id FROM rowkeeper.soft_delete_restore('orders', 90);
SELECT item FROM orders WHERE id = 90;
ROLLBACK;
-- past isolation, recorded
SET ROLE tsd_support;
BEGIN;
SELECT rowkeeper.tenant_bypass('case 1');
SELECT tenant_id, id FROM orders_with_deleted WHERE _deleted_at IS NOT NULL ORDER BY 1, 2;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('orders', 2);
ROLLBACK;
-- who may read some columns only, and so not where a row is: by its key
RESET ROLE;
REVOKE SELECT ON orders FROM tsd_app;
GRANT SELECT (tenant_id, id) ON orders TO tsd_app;
SET ROLE tsd_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SAVEPOINT a;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('orders', 2);
ROLLBACK TO a;
SELECT rowkeeper.tenant_set(2);
SELECT * FROM rowkeeper.soft_delete_restore('orders', '2'::jsonb, dry_run => true);
ROLLBACK;
RESET ROLE;
GRANT SELECT ON orders TO tsd_app;

-- the owner, whom row security holds, in transactions that act for nobody
SET ROLE tsd_owner;
SELECT count(*) FROM orders;
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('orders', '2'::jsonb, dry_run => true);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('orders', 2);
SELECT batch FROM rowkeeper.soft_delete_batches WHERE table_name = 'orders' ORDER BY 1 DESC LIMIT 1 \gset
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore_batch(:batch);
SELECT rowkeeper.soft_delete_hard('orders', 3);
RESET ROLE;
DELETE FROM orders WHERE id IN (4, 5, 6);
SELECT count(*) FROM rowkeeper_trash.tsd__orders;
SET ROLE tsd_owner;
CALL rowkeeper.soft_delete_purge('lines', '0');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('orders', keep => '1 day');
RESET ROLE;
UPDATE rowkeeper_trash.tsd__orders SET _deleted_at = now() - interval '2 days' WHERE id <> 90;
SET ROLE tsd_owner;
CALL rowkeeper.maintain('orders');
RESET ROLE;
SELECT (SELECT count(*) FROM rowkeeper_trash.tsd__orders) AS orders, (SELECT count(*) FROM rowkeeper_trash.tsd__lines) AS lines;
SELECT id FROM orders ORDER BY id;
DELETE FROM orders WHERE id IN (1, 8);
-- ... and in one that acts for a tenant
SET ROLE tsd_owner;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SAVEPOINT a;
SELECT id, _deleted_at IS NOT NULL AS deleted FROM orders_with_deleted ORDER BY 1;
SELECT * FROM rowkeeper.soft_delete_restore('orders', 1);
ROLLBACK TO a;
SELECT rowkeeper.soft_delete_hard('orders', 1);
ROLLBACK TO a;
SELECT rowkeeper.soft_delete_hard('orders', 7);
ROLLBACK TO a;
SELECT batch FROM rowkeeper.soft_delete_batches;
SELECT record_id FROM rowkeeper.soft_delete_restore('orders', 8);
ROLLBACK TO a;
SELECT rowkeeper.soft_delete_hard('orders', 8);
-- taken back, it is there again, with its batch
ROLLBACK TO a;
SELECT record_id FROM rowkeeper.soft_delete_restore('orders', 8);
ROLLBACK;
SELECT rows FROM rowkeeper.soft_delete_batches WHERE table_name = 'orders' ORDER BY batch DESC LIMIT 1;
BEGIN;
SELECT rowkeeper.soft_delete_hard('orders', 8);
SELECT rows FROM rowkeeper.soft_delete_batches WHERE table_name = 'orders' ORDER BY batch DESC LIMIT 1;
ROLLBACK;
SELECT rows FROM rowkeeper.soft_delete_batches WHERE table_name = 'orders' ORDER BY batch DESC LIMIT 1;
DO $$ BEGIN PERFORM rowkeeper.tenant_set(1); CALL rowkeeper.soft_delete_purge('tsd.orders', '0'); END $$;
SELECT count(*) > 0 AS batches FROM rowkeeper.soft_delete_batches;
-- DDL around the view, and columns that are renamed
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete_hide_view('orders');
ALTER TABLE orders ALTER item TYPE varchar(80);
ALTER TABLE orders RENAME tenant_id TO org;
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete_refresh('orders');
SELECT count(*) FROM orders_with_deleted;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT org, id, _deleted_at IS NOT NULL AS deleted FROM orders_with_deleted ORDER BY 2;
ROLLBACK;
ALTER TABLE orders RENAME org TO tenant_id;
SELECT check_name, object FROM rowkeeper.doctor('tsd') WHERE level = 'error';

\echo == what a trigger of the owner keeps
-- what runs past row security for the owner's work leaves no plan behind
CREATE FUNCTION seen() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM tsd.orders); END';
CREATE TABLE saw (rows bigint);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO tsd.saw VALUES (tsd.seen()); RETURN new; END';
CREATE TRIGGER see BEFORE INSERT ON lines FOR EACH ROW EXECUTE FUNCTION see();
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT seen();
COMMIT;
SELECT record_id FROM rowkeeper.soft_delete_restore('orders', 1);
SELECT rows FROM saw;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT seen();
COMMIT;
-- also where it fails
ALTER TABLE lines ADD CONSTRAINT never CHECK (seen() < 0) NOT VALID;
SELECT record_id FROM rowkeeper.soft_delete_restore('orders', 8);
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT seen();
COMMIT;
BEGIN;
SAVEPOINT a;
SELECT record_id FROM rowkeeper.soft_delete_restore('orders', 8);
ROLLBACK TO a;
SELECT rowkeeper.tenant_set(1);
SELECT seen();
COMMIT;
ALTER TABLE lines DROP CONSTRAINT never;
DROP TRIGGER see ON lines;
RESET ROLE;

\echo == flag
SET ROLE tsd_owner;
CREATE TABLE users (tenant_id int NOT NULL, id int PRIMARY KEY, email text UNIQUE);
CREATE TABLE posts (tenant_id int NOT NULL, id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE);
GRANT SELECT, INSERT, UPDATE, DELETE ON users, posts TO tsd_app;
SELECT count(*) > 0 AS done FROM rowkeeper.stamp('users');
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('users');
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('posts');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('posts');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('users');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete_unique('users', '{email}');
GRANT SELECT, DELETE ON active_users, active_posts TO tsd_app;
RESET ROLE;
INSERT INTO users SELECT 1 + i % 2, i, 'u' || i FROM generate_series(1, 8) i;
INSERT INTO posts SELECT tenant_id, 10 * id, id FROM users;
SET ROLE tsd_app;
SELECT count(*) FROM active_users;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT count(*) FROM active_users;
DELETE FROM active_users WHERE id IN (1, 2) RETURNING id;
UPDATE users SET deleted_at = now() WHERE id IN (3, 4) RETURNING id;
SELECT id, deleted_at IS NOT NULL AS deleted FROM posts ORDER BY 1;
COMMIT;
RESET ROLE;
SELECT delete_batch AS batch FROM users WHERE id = 2 \gset
SET ROLE tsd_app;
BEGIN;
SELECT rowkeeper.tenant_set(2);
SAVEPOINT a;
SELECT * FROM rowkeeper.soft_delete_restore('users', 2);
ROLLBACK TO a;
SELECT * FROM rowkeeper.soft_delete_restore('users', '2'::jsonb, dry_run => true);
ROLLBACK TO a;
\set VERBOSITY sqlstate
SELECT * FROM rowkeeper.soft_delete_restore_batch(:batch, dry_run => true);
ROLLBACK TO a;
SELECT * FROM rowkeeper.soft_delete_restore_batch(:batch);
\set VERBOSITY terse
ROLLBACK TO a;
SELECT rowkeeper.soft_delete_hard('users', 2);
ROLLBACK TO a;
-- nor does he put a batch of another tenant into a row of his
UPDATE users SET deleted_at = now(), delete_batch = :batch WHERE id = 1 RETURNING delete_batch = :batch AS joined;
SELECT delete_batch = :batch AS joined FROM users WHERE id = 1;
ROLLBACK;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('users', 2);
SELECT id, deleted_at IS NOT NULL AS deleted FROM posts ORDER BY 1;
COMMIT;
RESET ROLE;
DELETE FROM active_users WHERE id IN (1, 2, 5);
SELECT delete_batch AS batch FROM users WHERE id = 2 \gset
SET ROLE tsd_app;
BEGIN;
SELECT rowkeeper.tenant_set(2);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore_batch(:batch);
COMMIT;
-- the owner
SET ROLE tsd_owner;
SELECT count(*) FROM users;
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('users', '2'::jsonb, dry_run => true);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore_batch(:batch);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('users', 4);
RESET ROLE;
DELETE FROM active_users WHERE id IN (1, 2, 4);
SET ROLE tsd_owner;
SELECT rowkeeper.soft_delete_hard('users', 4);
BEGIN;
SELECT rowkeeper.tenant_set(1);
SAVEPOINT a;
SELECT * FROM rowkeeper.soft_delete_restore('users', 1);
ROLLBACK TO a;
SELECT rowkeeper.soft_delete_hard('users', 1);
ROLLBACK TO a;
SELECT rowkeeper.soft_delete_hard('users', 3);
ROLLBACK TO a;
SELECT batch FROM rowkeeper.soft_delete_batches;
SELECT rowkeeper.soft_delete_hard('users', 2);
ROLLBACK;
RESET ROLE;
SELECT (SELECT count(*) FROM users WHERE id = 2) AS users, (SELECT count(*) FROM posts WHERE user_id = 2) AS posts;
SET ROLE tsd_owner;
CALL rowkeeper.soft_delete_purge('users', '0');
SELECT check_name, object FROM rowkeeper.doctor('tsd') WHERE level = 'error';
RESET ROLE;
SELECT (SELECT string_agg(id::text, ' ' ORDER BY id) FROM users) AS users, (SELECT string_agg(id::text, ' ' ORDER BY id) FROM posts) AS posts;
-- a cascade's triggers run past row security: what they plan is forgotten, too
SET ROLE tsd_owner;
CREATE FUNCTION seen_users() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM tsd.users); END';
CREATE FUNCTION see_users() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM tsd.seen_users(); RETURN new; END';
CREATE TRIGGER see BEFORE UPDATE ON posts FOR EACH ROW EXECUTE FUNCTION see_users();
BEGIN;
SELECT rowkeeper.tenant_set(1);
DELETE FROM active_users WHERE id = 6;
SELECT seen_users();
COMMIT;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT seen_users();
COMMIT;

RESET ROLE;

\echo == shared rows
SET ROLE tsd_owner;
CREATE TABLE colors (tenant_id int, id int PRIMARY KEY);
CREATE TABLE shapes (tenant_id int, id int PRIMARY KEY);
GRANT SELECT, INSERT, UPDATE, DELETE ON colors, shapes TO tsd_app;
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('colors', shared => true);
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('shapes', shared => true);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('colors');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('shapes', mode => 'trash');
GRANT SELECT, DELETE ON active_colors TO tsd_app;
RESET ROLE;
INSERT INTO colors VALUES (NULL, 1), (1, 2), (2, 3), (NULL, 4);
INSERT INTO shapes SELECT tenant_id, id FROM colors;
DELETE FROM active_colors WHERE id = 4;
DELETE FROM shapes WHERE id = 4;
SET ROLE tsd_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SAVEPOINT a;
DELETE FROM active_colors WHERE id = 1;
ROLLBACK TO a;
UPDATE colors SET deleted_at = now() WHERE id = 1;
DELETE FROM shapes WHERE id = 1;
SELECT id, deleted_at IS NOT NULL AS deleted FROM colors ORDER BY id;
SELECT id, _deleted_at IS NOT NULL AS deleted FROM shapes_with_deleted ORDER BY id;
SELECT * FROM rowkeeper.soft_delete_restore('colors', 4);
ROLLBACK TO a;
SELECT * FROM rowkeeper.soft_delete_restore('shapes', 4);
ROLLBACK TO a;
DELETE FROM active_colors WHERE id = 2;
DELETE FROM shapes WHERE id = 2;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('colors', 2);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('shapes', 2);
ROLLBACK;
RESET ROLE;

\echo == taking it away
-- soft delete first, then the rest: nothing in the trash needs us
SELECT current_database() AS db \gset
CREATE DATABASE regress_rk_tsd;
\c regress_rk_tsd
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
CREATE TABLE a (tenant_id int NOT NULL, id int PRIMARY KEY);
CREATE TABLE b (tenant_id int NOT NULL, id int PRIMARY KEY);
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('a');
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('b');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('a', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('b', mode => 'trash');
INSERT INTO a VALUES (1, 1), (2, 2);
INSERT INTO b SELECT * FROM a;
DELETE FROM a;
DELETE FROM b;
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete_off('a');
SELECT count(*) > 0 AS done FROM rowkeeper.leave();
SELECT count(*) FROM rowkeeper.leave();
DROP EXTENSION rowkeeper;
SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, p.polname, pg_get_expr(polqual, polrelid)
FROM pg_class c LEFT JOIN pg_policy p ON p.polrelid = c.oid
WHERE c.relname IN ('a', 'b', 'public__a', 'public__b') ORDER BY 1, p.polname COLLATE "C";
SET app.tenant_id = '1';
GRANT SELECT ON rowkeeper_trash.public__a, rowkeeper_trash.public__b TO tsd_app;
SET ROLE tsd_app;
SELECT id FROM rowkeeper_trash.public__a;
SELECT id FROM rowkeeper_trash.public__b;
RESET ROLE;
\c :db
SET client_min_messages = warning;
DROP DATABASE regress_rk_tsd;
DROP SCHEMA tsd CASCADE;
DROP TABLE rowkeeper_trash.tsd__orders, rowkeeper_trash.tsd__lines, rowkeeper_trash.tsd__shapes;
SELECT count(*) FROM rowkeeper.tenant_role('tsd_app', 'none');
SELECT count(*) FROM rowkeeper.tenant_role('tsd_owner', 'none');
SELECT count(*) FROM rowkeeper.tenant_role('tsd_support', 'none');
DROP ROLE tsd_app, tsd_owner, tsd_support;
