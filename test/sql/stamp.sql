-- Stamps: who changed a row when, and in which version it is.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA stamps;
SET search_path = stamps;
RESET client_min_messages;
\pset format unaligned
SET app.user_id = 'alice';

CREATE TABLE orders (id int PRIMARY KEY, status text, qty int);
INSERT INTO orders VALUES (1, 'new', 1), (2, 'new', 2);
SELECT pg_relation_filenode('orders') AS file \gset
-- what is missing is added, without writing the table anew
SELECT rowkeeper.stamp('orders', version => 'version', created_at => 'created_at', created_by => 'created_by', updated_by => 'updated_by');
SELECT pg_relation_filenode('orders') = :file AS not_rewritten;
SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns
WHERE table_schema = 'stamps' AND table_name = 'orders' AND ordinal_position > 3 ORDER BY ordinal_position;
-- rows that were there: of their past nothing is known
SELECT id, updated_at = (SELECT max(updated_at) FROM orders) AS same_time, version, created_at, created_by, updated_by FROM orders ORDER BY id;
-- again: nothing to do; a dry run leaves nothing
SELECT rowkeeper.stamp('orders');
BEGIN;
SELECT rowkeeper.stamp('orders', clock => 'wall') \g /dev/null
ROLLBACK;
SELECT rowkeeper.stamp('orders');

-- a new row, a changed one, one that is not changed
\set age 'updated_at = now() AS now, version, created_at = now() AS created_now, created_by, updated_by'
BEGIN;
INSERT INTO orders (id, status) VALUES (3, 'new') RETURNING id, :age;
SELECT rowkeeper.set_context('bob') \g /dev/null
UPDATE orders SET status = 'paid' WHERE id = 3 RETURNING id, :age;
COMMIT;
UPDATE orders SET status = 'paid' WHERE id IN (1, 3) RETURNING id, :age;
UPDATE orders SET status = status, qty = qty WHERE id = 2 RETURNING id, :age;
-- what a client says of the stamps does not count
INSERT INTO orders (id, updated_at, created_at, created_by, updated_by) VALUES (4, '2001-01-01', '2001-01-01', 'mallory', 'mallory') RETURNING id, :age;
UPDATE orders SET qty = 4, updated_at = '2001-01-01', created_at = '2001-01-01', created_by = 'mallory', updated_by = 'mallory' WHERE id = 4 RETURNING id, :age;
UPDATE orders SET updated_at = '2001-01-01', created_by = NULL WHERE id = 4 RETURNING id, updated_at > '2026-01-01' AS kept, version, created_by;

-- COPY, ON CONFLICT, MERGE
COPY orders (id, status) FROM stdin;
5	new
6	new
\.
SELECT id, version, created_by FROM orders WHERE id IN (5, 6) ORDER BY id;
INSERT INTO orders (id, status) VALUES (6, 'paid'), (7, 'new')
ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status RETURNING id, :age;
INSERT INTO orders (id, status) VALUES (6, 'paid')
ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status, updated_at = EXCLUDED.updated_at, version = EXCLUDED.version RETURNING id, version;
MERGE INTO orders o USING (VALUES (7, 'paid'), (8, 'new')) AS n (id, status) ON o.id = n.id
WHEN MATCHED THEN UPDATE SET status = n.status
WHEN NOT MATCHED THEN INSERT (id, status) VALUES (n.id, n.status);
SELECT id, status, version, created_by FROM orders WHERE id IN (7, 8) ORDER BY id;
-- nulls before the stamps, columns dropped and added, generated columns
ALTER TABLE orders DROP COLUMN qty;
ALTER TABLE orders ADD COLUMN price int DEFAULT 2, ADD COLUMN doubled int GENERATED ALWAYS AS (price * 2) STORED;
UPDATE orders SET status = NULL WHERE id = 8 RETURNING id, price, doubled, :age;
UPDATE orders SET price = 3 WHERE id = 8 RETURNING id, price, doubled, :age;
UPDATE orders SET price = 3 WHERE id = 8 RETURNING id, price, doubled, version;
-- a row that is older than its columns
CREATE TABLE old (id int, updated_at timestamptz);
INSERT INTO old VALUES (1, NULL);
ALTER TABLE old ADD COLUMN version int DEFAULT 7, ADD COLUMN note text DEFAULT 'none';
SELECT rowkeeper.stamp('old') \g /dev/null
UPDATE old SET note = 'none' RETURNING updated_at, version;
UPDATE old SET note = 'some' RETURNING updated_at = now() AS now, version;

-- options: one that is not named stays, a changed one is told
SELECT rowkeeper.stamp('orders', updated_by => '-', on_noop => 'suppress', sqlstate => 'PT409');
SELECT rowkeeper.stamp('orders', clock => 'wall') \g /dev/null
SELECT target, options, healthy, detail FROM rowkeeper.features WHERE target = 'orders'::regclass;
SELECT call FROM rowkeeper.features WHERE target = 'orders'::regclass \gset
SELECT :'call' AS call;
:call;
SELECT rowkeeper.stamp_off('orders');
UPDATE orders SET status = 'off' WHERE id = 8 RETURNING version;
:call \g /dev/null
SELECT call = :'call' AS recreated FROM rowkeeper.features WHERE target = 'orders'::regclass;
-- as pg_dump writes it
SELECT pg_get_triggerdef(oid) AS definition FROM pg_trigger WHERE tgrelid = 'orders'::regclass \gset
SELECT rowkeeper.stamp_off('orders') \g /dev/null
:definition;
SELECT call = :'call' AS restored FROM rowkeeper.features WHERE target = 'orders'::regclass;
UPDATE orders SET status = 'on' WHERE id = 8 RETURNING version;

-- odd names
CREATE TABLE "Order Items" ("Id" int, "updatedAt" timestamptz, "a very long column name that fills all of the sixty-three bytes" int);
SELECT rowkeeper.stamp('"Order Items"', updated_at => 'updatedAt', version => 'a very long column name that fills all of the sixty-three bytes', created_by => 'It''s "me"');
INSERT INTO "Order Items" ("Id") VALUES (1) RETURNING "updatedAt" = now() AS now, "a very long column name that fills all of the sixty-three bytes" AS version, "It's ""me""";
UPDATE "Order Items" SET "Id" = 2 RETURNING "a very long column name that fills all of the sixty-three bytes" AS version;
SELECT call FROM rowkeeper.features WHERE target = '"Order Items"'::regclass;

-- everything in one transaction
BEGIN;
CREATE TABLE fresh (id int PRIMARY KEY, other int REFERENCES orders DEFERRABLE INITIALLY DEFERRED);
INSERT INTO fresh VALUES (1, 1);
SELECT rowkeeper.stamp('fresh');
ROLLBACK;
BEGIN;
CREATE TABLE fresh (id int PRIMARY KEY, other int REFERENCES orders DEFERRABLE INITIALLY DEFERRED);
INSERT INTO fresh VALUES (1, 1);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT rowkeeper.stamp('fresh') \g /dev/null
UPDATE fresh SET other = 2 RETURNING updated_at = now() AS now;
COMMIT;

-- the audit sees stamps as values of the row; adding their columns is an entry
SET client_min_messages = warning;
CREATE TABLE both_on (id int PRIMARY KEY, n int);
SELECT rowkeeper.audit('both_on') \g /dev/null
SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log \gset
SELECT rowkeeper.stamp('both_on', version => 'version', updated_by => 'updated_by') \g /dev/null
RESET client_min_messages;
INSERT INTO both_on VALUES (1, 1);
UPDATE both_on SET n = 2;
UPDATE both_on SET n = 2;
-- (18 has constraints of their own for NOT NULL)
SELECT action, new_data - 'updated_at' AS new_data, changed_fields, actor,
	regexp_replace(context ->> 'actions', ', ADD CONSTRAINT .*', '') AS actions FROM rowkeeper.audit_log
WHERE table_name = 'both_on' AND table_schema = 'stamps' AND id > :seen ORDER BY id;

-- off: columns and values stay
SELECT rowkeeper.stamp_off(NULL);
SELECT rowkeeper.stamp_off(to_regclass('gone'));
SELECT rowkeeper.stamp_off('old');
SELECT rowkeeper.stamp_off('old');
UPDATE old SET note = 'more' RETURNING version;
SELECT rowkeeper.leave('both_on');

-- replicated rows are as they were written
SET session_replication_role = replica;
UPDATE orders SET status = 'applied', version = 99, updated_at = '2001-01-01' WHERE id = 8 RETURNING version, updated_at = '2001-01-01' AS as_sent;
RESET session_replication_role;

-- refused
SELECT rowkeeper.stamp(NULL);
SELECT rowkeeper.stamp('orders', on_noop => 'ignore');
SELECT rowkeeper.stamp('orders', client_value => '');
SELECT rowkeeper.stamp('orders', clock => 'sundial');
SELECT rowkeeper.stamp('orders', sqlstate => '4000');
SELECT rowkeeper.stamp('orders', sqlstate => 'pt409');
SELECT rowkeeper.stamp('orders', sqlstate => '01000');
SELECT rowkeeper.stamp('orders', updated_at => 'created_at');
SELECT rowkeeper.stamp('orders', updated_at => '');
SELECT rowkeeper.stamp('orders', updated_at => '-', version => '-', created_at => '-', created_by => '-', updated_by => '-');
CREATE VIEW a_view AS SELECT 1 AS id;
CREATE MATERIALIZED VIEW a_matview AS SELECT 1 AS id;
CREATE SEQUENCE a_sequence;
CREATE TEMP TABLE a_temp (id int);
SELECT rowkeeper.stamp('a_view');
SELECT rowkeeper.stamp('a_matview');
SELECT rowkeeper.stamp('a_sequence');
\set VERBOSITY sqlstate
SELECT rowkeeper.stamp('a_temp');
\set VERBOSITY default
SELECT rowkeeper.stamp('pg_class');
SELECT rowkeeper.stamp('rowkeeper_log.log');
SELECT rowkeeper.stamp_off('a_view');
CREATE ROLE regress_rk_stamper;
GRANT ALL ON SCHEMA stamps TO regress_rk_stamper;
GRANT ALL ON orders TO regress_rk_stamper;
SET ROLE regress_rk_stamper;
SELECT rowkeeper.stamp('orders');
SELECT rowkeeper.stamp_off('orders');
-- but what it owns it stamps, and writes what it may
UPDATE orders SET status = 'by app' WHERE id = 8 RETURNING version;
CREATE TABLE own (id int);
SELECT rowkeeper.stamp('own') \g /dev/null
INSERT INTO own VALUES (1) RETURNING updated_at = now() AS now;
SELECT target FROM rowkeeper.features WHERE target::text LIKE '%own';
RESET ROLE;

SET client_min_messages = warning;
DROP SCHEMA stamps CASCADE;
DROP ROLE regress_rk_stamper;
