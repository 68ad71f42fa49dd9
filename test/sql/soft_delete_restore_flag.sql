-- Flag mode: restore, hard delete and purge, where the deleted rows are in the
-- table itself; and keys of any type, in both modes.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE DATABASE regress_rk_restore_flag;
\c regress_rk_restore_flag
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
CREATE EXTENSION citext;
SET timezone = 'UTC';
CREATE TABLE customers (id int PRIMARY KEY, email text);
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE, qty int,
	"removedAt" timestamp, remover text, batch_no bigint) PARTITION BY RANGE (id);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (10);
CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM (10) TO (1000);
CREATE TABLE lines (id int PRIMARY KEY, o int REFERENCES orders ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
	up int REFERENCES lines ON DELETE CASCADE);
CREATE TABLE notes (id int PRIMARY KEY, o int REFERENCES orders ON DELETE SET NULL);
CREATE TABLE refs (id int PRIMARY KEY, c int REFERENCES customers);
\o /dev/null
SELECT rowkeeper.soft_delete('lines');
SELECT rowkeeper.soft_delete('notes');
SELECT rowkeeper.soft_delete('orders', deleted_at => 'removedAt', deleted_by => 'remover', batch => 'batch_no', keep => '30 days');
SELECT rowkeeper.soft_delete('customers');
\o
INSERT INTO customers SELECT g, 'm' || g FROM generate_series(1, 4) g;
INSERT INTO orders SELECT g, 1 + g % 4, g FROM generate_series(5, 16) g;
INSERT INTO lines SELECT g, 5 + g % 12, CASE WHEN g > 12 THEN g - 12 END FROM generate_series(1, 24) g;
INSERT INTO notes VALUES (1, 8);

-- what went along comes back, through every level; what went before does not
DELETE FROM active_lines WHERE id = 3;
DELETE FROM active_customers WHERE id = 1;
SELECT batch, table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY 1, 2;
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('orders', '8', dry_run => true);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('customers', '1', dry_run => true) ORDER BY 1, (record_id ->> 'id')::int;
SELECT count(*) FROM active_orders;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('customers', 1) ORDER BY 1, (record_id ->> 'id')::int;
SELECT batch, table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY 1, 2;
SELECT count(*) FILTER (WHERE "removedAt" IS NOT NULL OR remover IS NOT NULL OR batch_no IS NOT NULL) AS stamped, count(*) FROM orders;

-- conflicts that show at commit only are found by dry_run all the same
DELETE FROM active_orders WHERE id = 9;
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('lines', '4', dry_run => true);
BEGIN;
SELECT record_id FROM rowkeeper.soft_delete_restore('lines', 4);
COMMIT;
SELECT record_id FROM rowkeeper.soft_delete_restore('lines', 4);
SELECT id FROM lines WHERE id = 4 AND deleted_at IS NULL;
-- ... and with the parent it is none
BEGIN;
SELECT record_id FROM rowkeeper.soft_delete_restore('lines', 4);
SELECT record_id FROM rowkeeper.soft_delete_restore('orders', 9);
COMMIT;
SELECT count(*) FROM rowkeeper.soft_delete_batches WHERE table_name = 'orders';

-- an UPDATE of an application's own is a delete in every respect, and so is its restore
UPDATE orders SET "removedAt" = now() WHERE id = 10;
SELECT remover = session_user AS stamped, batch_no IS NOT NULL AS numbered FROM orders WHERE id = 10;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('orders', 10) ORDER BY 1, 2;

-- purge: in chunks, in the order of storage whatever the planner would rather
-- use; rows that live ones refer to stay
CREATE INDEX ON orders ("removedAt");
CREATE INDEX ON customers (deleted_at);
DELETE FROM active_customers;
UPDATE orders SET "removedAt" = "removedAt" - interval '31 days' - make_interval(mins => id);
UPDATE customers SET deleted_at = deleted_at - interval '31 days' - make_interval(mins => id);
ANALYZE orders, customers;
SET enable_seqscan = off;
CALL rowkeeper.soft_delete_purge('orders', batch_size => 2);
SELECT count(*) AS left FROM orders;
SELECT count(*) AS lines FROM lines;
ALTER TABLE refs DISABLE TRIGGER ALL;
INSERT INTO refs VALUES (1, 2);
ALTER TABLE refs ENABLE TRIGGER ALL;
CALL rowkeeper.soft_delete_purge('customers', '1 day', 3);
RESET enable_seqscan;
SELECT id FROM customers;
SELECT batch > 0 AS batch, table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY 1, 2;
SELECT o FROM notes;

-- for good: a live row, past the guard of its table
INSERT INTO customers VALUES (11, 'x'), (12, 'y');
INSERT INTO orders (id, customer) VALUES (110, 11), (120, 12);
DELETE FROM customers WHERE id = 11;
SELECT rowkeeper.soft_delete_hard('customers', 11);
SELECT count(*) FROM orders WHERE customer = 11;
DELETE FROM active_customers WHERE id = 12;
SELECT rowkeeper.soft_delete_hard('customers', 12);
SELECT count(*) FROM orders WHERE customer = 12;
SELECT rowkeeper.soft_delete_hard('customers', 2);
SELECT id FROM customers;

-- keys are compared as their index does
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN short AS varchar(10) CHECK (VALUE <> '');
CREATE TABLE f_named (name public.citext, m mood, s short, PRIMARY KEY (name, m, s));
CREATE TABLE t_named (LIKE f_named INCLUDING ALL);
SELECT rowkeeper.soft_delete('f_named') \g /dev/null
SELECT rowkeeper.soft_delete('t_named', mode => 'trash') \g /dev/null
INSERT INTO f_named VALUES ('Ann', 'ok', 'x'), ('Bob', 'sad', 'y');
INSERT INTO t_named SELECT name, m, s FROM f_named;
DELETE FROM active_f_named;
DELETE FROM t_named;
SELECT record_id FROM rowkeeper.soft_delete_restore('f_named', 'ANN', 'ok', 'x');
SELECT record_id FROM rowkeeper.soft_delete_restore('t_named', 'ANN', 'ok', 'x');
SELECT rowkeeper.soft_delete_hard('f_named', 'ANN', 'ok', 'x');
SELECT rowkeeper.soft_delete_hard('t_named', 'ANN', 'ok', 'x');
SELECT record_id FROM rowkeeper.soft_delete_restore('t_named', 'bob', 'ok', 'y');
SELECT record_id FROM rowkeeper.soft_delete_restore('t_named', 'bob', 'fine', 'y');

-- what a trigger writes while rows come back is new
CREATE TABLE items (id int PRIMARY KEY);
CREATE TABLE seen (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item int);
SELECT rowkeeper.soft_delete(t, mode => 'trash') FROM unnest('{items,seen}'::regclass[]) t \g /dev/null
SELECT rowkeeper.audit(t) FROM unnest('{items,seen}'::regclass[]) t \g /dev/null
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO seen (item) VALUES (NEW.id); RETURN NEW; END $$;
CREATE TRIGGER before BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION see();
CREATE TRIGGER after AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION see();
INSERT INTO items VALUES (1);
DELETE FROM items;
SELECT record_id FROM rowkeeper.soft_delete_restore('items', 1);
SELECT table_name, action, record_id FROM rowkeeper.audit_log WHERE action <> 'ALTER' ORDER BY id;

-- the last is the one deleted last, however batches are numbered
CREATE TABLE twice (id int PRIMARY KEY, v text);
SELECT rowkeeper.soft_delete('twice', mode => 'trash') \g /dev/null
BEGIN;
INSERT INTO twice VALUES (1, 'first');
DELETE FROM twice;
INSERT INTO twice VALUES (1, 'last');
DELETE FROM twice;
COMMIT;
UPDATE rowkeeper_trash.public__twice SET _batch = 1000000 - _batch;
SELECT record_id FROM rowkeeper.soft_delete_restore('twice', 1);
TABLE twice;

-- triggers that update other rows of those that come back
CREATE TABLE nodes (id int PRIMARY KEY, p int REFERENCES nodes ON DELETE CASCADE, n int DEFAULT 0);
CREATE TABLE leaves (id int PRIMARY KEY, p int REFERENCES nodes ON DELETE CASCADE, n int DEFAULT 0);
SELECT rowkeeper.soft_delete(t) FROM unnest('{leaves,nodes}'::regclass[]) t \g /dev/null
INSERT INTO nodes VALUES (1, NULL), (2, 1), (3, 2);
INSERT INTO leaves VALUES (1, 1), (2, 3);
DELETE FROM active_nodes WHERE id = 1;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE nodes SET n = n + 1 WHERE id = NEW.p;
	UPDATE leaves SET n = n + 1 WHERE p = NEW.id;
	RETURN NEW;
END $$;
CREATE TRIGGER touch BEFORE UPDATE OF deleted_at ON nodes FOR EACH ROW EXECUTE FUNCTION touch();
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('nodes', '1', true) ORDER BY 1, 2;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('nodes', 1) ORDER BY 1, 2;
SELECT id, n, deleted_at FROM nodes ORDER BY 1;
SELECT id, n, deleted_at FROM leaves ORDER BY 1;
DELETE FROM active_nodes WHERE id = 1;
-- ... or take them away
CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM rowkeeper.soft_delete_hard('leaves', 2); RETURN NEW; END $$;
DROP TRIGGER touch ON nodes;
CREATE TRIGGER touch BEFORE UPDATE OF deleted_at ON nodes FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION touch();
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('nodes', '1', true) ORDER BY 1, 2;
SELECT count(*) FROM rowkeeper.soft_delete_restore('nodes', 1);

-- a dry run under triggers that leave something open
CREATE TABLE dry (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('dry') \g /dev/null
INSERT INTO dry VALUES (1), (2);
DELETE FROM active_dry;
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.delete_batch := OLD.delete_batch; RETURN NEW; END $$;
CREATE TRIGGER keep BEFORE UPDATE ON dry FOR EACH ROW EXECUTE FUNCTION keep();
SELECT record_id, split_part(conflict, ':', 1) AS conflict FROM rowkeeper.soft_delete_restore('dry', '1', true);
ALTER TABLE dry ADD CHECK (id > 1) NOT VALID;
SELECT record_id, split_part(conflict, ':', 1) AS conflict FROM rowkeeper.soft_delete_restore('dry', '1', true);
SELECT record_id, split_part(conflict, ':', 1) AS conflict FROM rowkeeper.soft_delete_restore_batch((SELECT max(delete_batch) FROM dry), dry_run => true) ORDER BY 1;
\c contrib_regression
DROP DATABASE regress_rk_restore_flag;
