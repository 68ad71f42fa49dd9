-- Deleted rows removed for good: one, what is older than it is kept, and by maintain().
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE DATABASE regress_rk_purge;
\c regress_rk_purge
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
SET timezone = 'UTC';
CREATE SCHEMA shop;
SET search_path = shop;
CREATE ROLE sd_owner; CREATE ROLE sd_app;
GRANT ALL ON SCHEMA shop TO sd_owner;
GRANT USAGE ON SCHEMA shop TO sd_app;
SET ROLE sd_owner;
CREATE TABLE orders (id int PRIMARY KEY, v text);
CREATE TABLE lines (order_id int REFERENCES orders ON DELETE CASCADE, n int, PRIMARY KEY (order_id, n));
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('lines', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('orders', mode => 'trash', keep => '30 days');
INSERT INTO orders SELECT g, 'v' FROM generate_series(1, 20) g;
INSERT INTO lines SELECT o, n FROM generate_series(1, 20) o, generate_series(1, 2) n;
GRANT SELECT, INSERT, DELETE ON orders, lines TO sd_app;

-- what is younger than keep stays
DELETE FROM orders WHERE id <= 5;
DELETE FROM orders WHERE id IN (6, 7);
UPDATE rowkeeper_trash.shop__orders SET _deleted_at = now() - interval '31 days' WHERE _batch = 1;
CALL rowkeeper.soft_delete_purge('orders', batch_size => 2);
SELECT id FROM rowkeeper_trash.shop__orders ORDER BY 1;
SELECT batch, table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY 1, 2;
SELECT count(*) FROM rowkeeper.progress;

-- all of it, where transactions are read-only by default, too
SET default_transaction_read_only = on;
CALL rowkeeper.soft_delete_purge('orders', older_than => '0');
RESET default_transaction_read_only;
SELECT count(*) FROM rowkeeper_trash.shop__orders;
CALL rowkeeper.soft_delete_purge('lines', '0', 1);
SELECT count(*) FROM rowkeeper_trash.shop__lines;
SELECT count(*) FROM rowkeeper.soft_delete_batches;

-- one row: deleted with what it took along, or live and past the trash
DELETE FROM orders WHERE id = 8;
SELECT rowkeeper.soft_delete_hard('orders', 8);
SELECT rowkeeper.soft_delete_hard('orders', '9');
SELECT count(*) FROM lines WHERE order_id IN (8, 9);
SELECT count(*) FROM rowkeeper.soft_delete_batches;
SELECT rowkeeper.soft_delete_hard('orders', 9);

-- how far it is, seen from the triggers of the trash table itself
CREATE FUNCTION show_progress() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE p record;
BEGIN
	SELECT * INTO p FROM rowkeeper.progress;
	RAISE WARNING '% of %.%: step %/%, % of %', p.task, p.table_schema, p.table_name, p.step, p.steps, p.done, p.total;
	RETURN NULL;
END $$;
CREATE TRIGGER show_progress AFTER DELETE ON rowkeeper_trash.shop__orders
	FOR EACH STATEMENT EXECUTE FUNCTION show_progress();
DELETE FROM orders WHERE id BETWEEN 10 AND 12;
CALL rowkeeper.soft_delete_purge('orders', '0', 2);
SET ROLE sd_app;
SELECT count(*) FROM rowkeeper.progress;
SET ROLE sd_owner;
DROP TRIGGER show_progress ON rowkeeper_trash.shop__orders;

-- a purge that fails leaves nothing half-made, and no progress behind
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF OLD.id = 15 THEN RAISE 'not this one'; END IF; RETURN OLD; END $$;
CREATE TRIGGER fail BEFORE DELETE ON rowkeeper_trash.shop__orders FOR EACH ROW EXECUTE FUNCTION fail();
DELETE FROM orders WHERE id BETWEEN 13 AND 16;
CALL rowkeeper.soft_delete_purge('orders', '0', 2);
SELECT id FROM rowkeeper_trash.shop__orders ORDER BY 1;
SELECT count(*) FROM rowkeeper.progress;
SELECT table_name, rows FROM rowkeeper.soft_delete_batches WHERE table_name = 'orders';

-- maintain() records what fails, and goes on with the next table
CREATE TABLE notes (id int PRIMARY KEY);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('notes', mode => 'trash', keep => '1 day');
INSERT INTO notes VALUES (1), (2);
DELETE FROM notes;
UPDATE rowkeeper_trash.shop__notes SET _deleted_at = now() - interval '2 days' WHERE id = 1;
UPDATE rowkeeper_trash.shop__orders SET _deleted_at = now() - interval '31 days';
CALL rowkeeper.maintain();
SELECT table_name, task, changed, error FROM rowkeeper.maintain_log ORDER BY ran_at;
SELECT id FROM rowkeeper_trash.shop__notes;
DROP TRIGGER fail ON rowkeeper_trash.shop__orders;
CALL rowkeeper.maintain('orders');
SELECT count(*) FROM rowkeeper_trash.shop__orders;
RESET ROLE;
CALL rowkeeper.maintain();
SELECT table_name, sum(rows) FROM rowkeeper_trash.batches GROUP BY 1 ORDER BY 1;

-- refused
CALL rowkeeper.soft_delete_purge('lines');
CALL rowkeeper.soft_delete_purge('lines', '-1 day');
CALL rowkeeper.soft_delete_purge('lines', '0', 0);
CALL rowkeeper.soft_delete_purge(NULL);
CREATE TABLE plain (id int PRIMARY KEY);
CALL rowkeeper.soft_delete_purge('plain', '0');
SELECT rowkeeper.soft_delete_hard('plain', 1);
BEGIN;
CALL rowkeeper.soft_delete_purge('lines', '0');
ROLLBACK;
SET ROLE sd_app;
DELETE FROM orders WHERE id = 20;
CALL rowkeeper.soft_delete_purge('orders', '0');
SELECT rowkeeper.soft_delete_hard('orders', 20);
SELECT table_name FROM rowkeeper.soft_delete_restore('orders', 20) ORDER BY 1;
RESET ROLE;

-- maintain() goes on where it was: rows that stay are looked at once
CREATE TABLE many (id int PRIMARY KEY);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('many', mode => 'trash', keep => '1 day');
INSERT INTO rowkeeper_trash.shop__many (_batch, _deleted_at, id) SELECT 0, now() - interval '3 days', i FROM generate_series(1, 12000) i;
CREATE SEQUENCE looks;
CREATE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
	IF OLD.id = 1 THEN PERFORM nextval('shop.looks'); RETURN NULL; END IF; RETURN OLD; END$$;
CREATE TRIGGER stays BEFORE DELETE ON rowkeeper_trash.shop__many FOR EACH ROW EXECUTE FUNCTION stays();
CALL rowkeeper.maintain('many');
SELECT last_value AS looks, count(m.id) AS stay FROM looks, rowkeeper_trash.shop__many m GROUP BY 1;
DROP TABLE many CASCADE;

-- TRUNCATE keeps nothing, so it is refused
TRUNCATE lines;

DROP EXTENSION rowkeeper CASCADE;
DROP SCHEMA rowkeeper_trash, shop CASCADE;
\c contrib_regression
DROP DATABASE regress_rk_purge;
DROP ROLE sd_app; DROP ROLE sd_owner;
