-- Deleted rows brought back, in trash mode: one with what went with it, a whole batch, and what keeps them away.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE DATABASE regress_rk_restore;
\c regress_rk_restore
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
SET timezone = 'UTC';
CREATE SCHEMA shop;
SET search_path = shop;
CREATE DOMAIN code AS text CHECK (VALUE <> 'never');
CREATE TABLE customers (id int PRIMARY KEY, email text UNIQUE, label code, born date);
CREATE TABLE orders (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer int NOT NULL REFERENCES customers ON DELETE CASCADE,
	qty int, doubled int GENERATED ALWAYS AS (qty * 2) STORED);
CREATE TABLE lines (
	"Order" bigint REFERENCES orders ON DELETE CASCADE, n smallint, parent smallint, v varchar(5),
	PRIMARY KEY ("Order", n), FOREIGN KEY ("Order", parent) REFERENCES lines ON DELETE CASCADE);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('lines', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('orders', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('customers', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.audit_schema('shop');
CREATE TABLE seen (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO shop.seen VALUES (TG_OP || ' ' || NEW.id); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note();

INSERT INTO customers SELECT g, 'm' || g, 'l', '2000-01-01' FROM generate_series(1, 3) g;
INSERT INTO orders (customer, qty) SELECT 1 + g % 2, g FROM generate_series(0, 3) g;
-- the chain is written from its end: foreign keys are checked when all is there
INSERT INTO lines SELECT o, n, CASE WHEN n < 4 THEN n + 1 END, 'v' FROM generate_series(1, 4) o, generate_series(1, 4) n;
CREATE TABLE before AS TABLE orders;
CREATE TABLE lines_before AS TABLE lines;
TRUNCATE seen;

-- one row, what its delete took with it, and nothing else
DELETE FROM lines WHERE "Order" = 1 AND n = 1;
DELETE FROM customers WHERE id = 1;
DELETE FROM customers WHERE id = 2;
SELECT batch, table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY 1, 2;
SELECT * FROM rowkeeper.soft_delete_restore('customers', 1) ORDER BY 2, 3;
SELECT what FROM seen ORDER BY 1;
SELECT count(*) FROM lines;
SELECT batch, table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY 1, 2;

-- a whole batch; keys as drivers send them
SELECT table_name, count(*), count(conflict) AS conflicts FROM rowkeeper.soft_delete_restore_batch(3) GROUP BY 1 ORDER BY 1;
SELECT record_id FROM rowkeeper.soft_delete_restore('lines', VARIADIC ARRAY['1', '1']);
(TABLE orders EXCEPT TABLE before) UNION ALL (TABLE before EXCEPT TABLE orders);
(TABLE lines EXCEPT TABLE lines_before) UNION ALL (TABLE lines_before EXCEPT TABLE lines);
SELECT count(*) FROM rowkeeper.soft_delete_batches;
SELECT count(*) FROM rowkeeper_trash.shop__lines;

-- the log says what it was
SELECT table_name, action, count(*) FROM rowkeeper.audit_log
WHERE action IN ('SOFT DELETE', 'RESTORE', 'DELETE') GROUP BY 1, 2 ORDER BY 1, 2;

-- only what the statement named
DELETE FROM orders WHERE id IN (1, 2);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore_batch(4, cascade => false) ORDER BY 1, 2;
SELECT table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY 1;
SELECT count(*) FROM rowkeeper.soft_delete_restore_batch(4);

-- deleted twice under one key: the last one comes back first
DELETE FROM customers WHERE id = 3;
INSERT INTO customers VALUES (3, 'other');
DELETE FROM customers WHERE id = 3;
BEGIN;
SELECT record_id FROM rowkeeper.soft_delete_restore('customers', '{"id": 3}'::jsonb);
SELECT email FROM customers WHERE id = 3;
ROLLBACK;

-- dry_run says what keeps each row away, and leaves everything as it is
INSERT INTO customers VALUES (4, 'other');
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('customers', '3', dry_run => true);
SELECT record_id FROM rowkeeper.soft_delete_restore('customers', '3');
DELETE FROM lines WHERE "Order" = 2;
DELETE FROM orders WHERE id = 2;
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('lines', '{"Order": 2, "n": 3}', true);
SELECT table_name, record_id, conflict IS NULL AS fine FROM rowkeeper.soft_delete_restore('orders', '2', true);
SELECT count(*) FROM orders WHERE id = 2;
SELECT record_id FROM rowkeeper.soft_delete_restore('orders', 2);
SELECT count(*) FROM rowkeeper.soft_delete_restore('lines', 2, 4);
SELECT count(*) FROM lines WHERE "Order" = 2;

-- schema changes between delete and restore
DELETE FROM orders WHERE id = 3;
SELECT count(*) > 0 AS hidden FROM rowkeeper.soft_delete_hide_view('lines');
ALTER TABLE lines ADD COLUMN added int NOT NULL DEFAULT 7;
ALTER TABLE lines RENAME COLUMN v TO w;
ALTER TABLE lines ALTER COLUMN w TYPE text;
ALTER TABLE orders RENAME COLUMN qty TO quantity;
SELECT count(*) FROM rowkeeper.soft_delete_restore('orders', 3);
SELECT * FROM lines WHERE "Order" = 3 ORDER BY n;
DELETE FROM lines WHERE "Order" = 3 AND n = 1;
UPDATE lines SET added = 8 WHERE "Order" = 3;
SELECT count(*) FROM rowkeeper.soft_delete_restore('lines', 3, 1);
SELECT "Order", n, added FROM lines WHERE "Order" = 3 AND n = 1;
DELETE FROM customers WHERE id = 4;
UPDATE rowkeeper_trash.shop__customers SET label = 'never' WHERE id = 4;
SELECT conflict FROM rowkeeper.soft_delete_restore('customers', '4', true);

-- who may: INSERT on the table, SELECT on its key; row security of the table
CREATE ROLE sd_app;
GRANT USAGE ON SCHEMA shop TO sd_app;
SET ROLE sd_app;
SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', 4);
RESET ROLE;
GRANT INSERT ON customers TO sd_app;
UPDATE rowkeeper_trash.shop__customers SET label = 'fine' WHERE id = 4;
SET ROLE sd_app;
SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', 4);
RESET ROLE;
GRANT SELECT (id) ON customers TO sd_app;
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON customers TO sd_app USING (id = 3);
SET ROLE sd_app;
SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', 4);
SELECT batch FROM rowkeeper.soft_delete_batches;
RESET ROLE;
DROP POLICY own ON customers;
CREATE POLICY own ON customers TO sd_app USING (id = 4);
SET ROLE sd_app;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('customers', 4);
SELECT rowkeeper.soft_delete_hard('customers', 3);
CALL rowkeeper.soft_delete_purge('customers', '0');
RESET ROLE;

-- a trigger that keeps a row away
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION swallow();
SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', 3);
DROP TRIGGER swallow ON customers;

-- refused
SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', 99);
SELECT count(*) FROM rowkeeper.soft_delete_restore('lines', 99);
SELECT count(*) FROM rowkeeper.soft_delete_restore('lines', 'x', 'y');
SELECT count(*) FROM rowkeeper.soft_delete_restore('lines', '{"Order": 1, "m": 3}'::jsonb);
SELECT count(*) FROM rowkeeper.soft_delete_restore('customers', NULL::int);
SELECT count(*) FROM rowkeeper.soft_delete_restore(NULL, 1);
SELECT count(*) FROM rowkeeper.soft_delete_restore('seen', 1);
SELECT count(*) FROM rowkeeper.soft_delete_restore_batch(999);
SELECT count(*) FROM rowkeeper.soft_delete_restore_batch(NULL);

-- partitions
CREATE TABLE events (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE events_north PARTITION OF events FOR VALUES IN ('north');
CREATE TABLE events_south PARTITION OF events FOR VALUES IN ('south');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('events', mode => 'trash');
INSERT INTO events VALUES (1, 'north', 1), (2, 'south', 2);
DELETE FROM events;
SELECT record_id FROM rowkeeper.soft_delete_restore('events_south', 2, 'south');
SELECT tableoid::regclass, * FROM events;

-- two tables that refer to each other
CREATE TABLE a (id int PRIMARY KEY, b int);
CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE);
ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b ON DELETE CASCADE;
INSERT INTO a VALUES (1); INSERT INTO b VALUES (1, 1); UPDATE a SET b = 1;
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('a', mode => 'trash', cascade => false);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('b', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('a', cascade => true);
DELETE FROM a;
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('b', '1', true) ORDER BY 1;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('b', 1) ORDER BY 1;

-- parents and children of different owners, of whom neither may read the other's
CREATE ROLE regress_rk_parent;
CREATE ROLE regress_rk_child;
CREATE SCHEMA family;
GRANT CREATE, USAGE ON SCHEMA family TO regress_rk_parent, regress_rk_child;
SET ROLE regress_rk_parent;
CREATE TABLE family.p (id int PRIMARY KEY);
CREATE TABLE family.fp (id int PRIMARY KEY);
GRANT REFERENCES ON family.p, family.fp TO regress_rk_child;
SET ROLE regress_rk_child;
CREATE TABLE family.c (id int PRIMARY KEY, p int REFERENCES family.p ON DELETE CASCADE);
CREATE TABLE family.fc (id int PRIMARY KEY, p int REFERENCES family.fp ON DELETE CASCADE);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('family.c', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('family.fc');
RESET ROLE;
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('family.p', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('family.fp');
INSERT INTO family.p VALUES (1), (2); INSERT INTO family.fp VALUES (1), (2);
INSERT INTO family.c VALUES (1, 1), (2, 2); INSERT INTO family.fc VALUES (1, 1), (2, 2);
DELETE FROM family.p;
DELETE FROM family.active_fp;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('family.p', 1) ORDER BY 1;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('family.fp', 1) ORDER BY 1;
SET ROLE regress_rk_parent;
SELECT rowkeeper.soft_delete_hard('family.p', 2);
SELECT rowkeeper.soft_delete_hard('family.fp', 2);
RESET ROLE;
SELECT 'c' AS t, id FROM family.c UNION ALL SELECT 'fc', id FROM family.fc ORDER BY 1;

SELECT count(*) > 0 AS left FROM rowkeeper.leave();
DROP EXTENSION rowkeeper;
SET client_min_messages = warning;
DROP SCHEMA family CASCADE;
RESET client_min_messages;
DROP SCHEMA rowkeeper_trash, rowkeeper_log, shop CASCADE;
\c contrib_regression
DROP DATABASE regress_rk_restore;
DROP ROLE sd_app;
DROP ROLE regress_rk_parent;
DROP ROLE regress_rk_child;
