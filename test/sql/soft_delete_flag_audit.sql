-- Flag mode beside audit and stamps on one table: one entry that says what it
-- means, one bump, one actor.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA soft_delete_audit;
SET search_path = soft_delete_audit;
CREATE TABLE first (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('first') \g /dev/null
RESET client_min_messages;
CREATE TABLE orders (id int PRIMARY KEY, status text);
CREATE TABLE items (id int PRIMARY KEY, o int REFERENCES orders ON DELETE CASCADE);
CREATE TABLE days (day int PRIMARY KEY) PARTITION BY RANGE (day);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10);
\o /dev/null
SELECT rowkeeper.audit(t, capture => 'full') FROM unnest('{orders,items,days}'::regclass[]) t;
SELECT rowkeeper.stamp('orders', version => 'version', updated_by => 'updated_by');
SELECT rowkeeper.soft_delete(t) FROM unnest('{items,orders,days}'::regclass[]) t;
\o
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set news 'SELECT table_name, action, record_id, actor, changed_fields, new_data ->> ''deleted_by'' AS deleted_by, (new_data ->> ''delete_batch'') IS NOT NULL AS batch FROM rowkeeper.audit_log WHERE table_schema = ''soft_delete_audit'' AND id > :seen ORDER BY id'
\set show 'SELECT id, version, updated_by, deleted_by, deleted_at IS NOT NULL AS deleted, updated_at = deleted_at AS same_time FROM orders ORDER BY id'
INSERT INTO orders SELECT i, 'new' FROM generate_series(1, 4) i;
INSERT INTO items VALUES (1, 1), (2, 2);
INSERT INTO days VALUES (1), (2);

-- through the view
:mark \gset
BEGIN;
SELECT rowkeeper.set_context('ann') \g /dev/null
DELETE FROM active_orders WHERE id = 1;
COMMIT;
:news;
:show;
-- by an ORM's UPDATE: one entry, too
:mark \gset
BEGIN;
SELECT rowkeeper.set_context('bob') \g /dev/null
UPDATE orders SET deleted_at = now() WHERE id IN (2, 3);
COMMIT;
:news;
:show;
-- the log is what the table is
SELECT count(*) AS differ FROM orders o JOIN LATERAL (SELECT new_data FROM rowkeeper.audit_log l WHERE l.relation = 'orders'::regclass AND l.record_id = jsonb_build_object('id', o.id) ORDER BY l.id DESC LIMIT 1) l ON true
    WHERE (l.new_data ->> 'delete_batch')::bigint IS DISTINCT FROM o.delete_batch OR l.new_data ->> 'deleted_by' IS DISTINCT FROM o.deleted_by OR (l.new_data ->> 'version')::int IS DISTINCT FROM o.version;
-- back
:mark \gset
UPDATE orders SET deleted_at = NULL WHERE id = 2;
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('orders', 1);
:news;
:show;
-- what is no delete is an UPDATE
:mark \gset
UPDATE orders SET deleted_at = '2001-01-01' WHERE id = 3;
UPDATE orders SET status = 'paid' WHERE id = 4;
INSERT INTO orders (id, deleted_at) VALUES (5, now());
:news;
-- partitions, and a table's hard delete
:mark \gset
UPDATE days SET deleted_at = now() WHERE day = 1;
DELETE FROM active_days WHERE day = 2;
SELECT rowkeeper.soft_delete('days', on_delete => 'allow') \g /dev/null
DELETE FROM days;
:news;
-- in order, where one statement does all of it
UPDATE items SET deleted_at = NULL WHERE id = 2;
:mark \gset
WITH a AS (DELETE FROM active_items WHERE id = 2 RETURNING o), b AS (UPDATE orders SET status = 'x' WHERE id = 4)
DELETE FROM active_orders WHERE id = 2;
:news;
-- under replica nothing is filled in and nothing is taken along: the publisher has done so
:mark \gset
SET session_replication_role = replica;
UPDATE orders SET deleted_at = now() WHERE id = 1;
RESET session_replication_role;
:news;
:show;
SELECT id FROM active_items ORDER BY id;

SET client_min_messages = warning;
DROP SCHEMA soft_delete_audit CASCADE;
