-- Soft delete in flag mode: a deleted row stays in its table and carries a stamp.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA soft_delete_flag;
SET search_path = soft_delete_flag;
CREATE TABLE first (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('first') \g /dev/null
RESET client_min_messages;
\pset format unaligned
\set show 'SELECT id, status, deleted_at IS NOT NULL AS deleted, deleted_by, delete_batch IS NOT NULL AS batch FROM orders ORDER BY id'

-- one call; what it did is shown, and the same again does nothing
CREATE TABLE orders (id int PRIMARY KEY, status text, note text);
INSERT INTO orders SELECT i, 'new', repeat('x', i) FROM generate_series(1, 9) i;
SELECT rowkeeper.soft_delete('orders');
SELECT rowkeeper.soft_delete('orders');
SELECT tgname, tgtype & 64 > 0 AS instead FROM pg_trigger WHERE tgrelid = 'active_orders'::regclass ORDER BY 1;
SELECT reloptions FROM pg_class WHERE oid = 'active_orders'::regclass;
-- the dry run
BEGIN;
SELECT count(*) FROM rowkeeper.soft_delete('orders', keep => '30 days');
ROLLBACK;
SELECT rowkeeper.soft_delete('orders');

-- DELETE through the view
DELETE FROM active_orders WHERE id = 1;
DELETE FROM active_orders WHERE id = 1;
DELETE FROM active_orders WHERE id IN (2, 3) RETURNING id, status, note, deleted_at;
:show;
SELECT count(*) FROM active_orders;
BEGIN;
SELECT rowkeeper.set_context('ann');
DELETE FROM active_orders WHERE id = 4;
COMMIT;
SELECT id, deleted_by, deleted_at = (SELECT deleted_at FROM orders WHERE id = 4) AS now FROM orders WHERE id = 4;
-- rows met twice are deleted and counted once
DELETE FROM active_orders o USING generate_series(1, 3) WHERE o.id = 5 RETURNING o.id;
-- a batch is one statement, the parts of a WITH included
WITH a AS (DELETE FROM active_orders WHERE id = 6 RETURNING id)
DELETE FROM active_orders o USING a WHERE o.id = 7;
SELECT count(DISTINCT delete_batch) AS batches, count(*) FROM orders WHERE id IN (6, 7);
BEGIN;
DELETE FROM active_orders WHERE id = 8;
DELETE FROM active_orders WHERE id = 9;
SELECT count(DISTINCT delete_batch) AS batches, count(*) FROM orders WHERE id IN (8, 9);
ROLLBACK;
-- INSERT and UPDATE through the view are the table's
INSERT INTO active_orders (id, status) VALUES (10, 'view');
UPDATE active_orders SET status = 'paid' WHERE id IN (1, 8, 10);
:show;

-- an UPDATE of the stamp, as ORMs write it, is a delete as well: it gets a
-- batch and who did it
UPDATE orders SET deleted_at = now() WHERE id IN (8, 9);
UPDATE orders SET deleted_at = now(), deleted_by = 'orm' WHERE id = 10;
SELECT id, deleted_by, count(*) OVER (PARTITION BY delete_batch) AS in_batch FROM orders WHERE id >= 8 ORDER BY id;
-- a later stamp is none; taking it away takes all of it away
UPDATE orders SET deleted_at = '2001-01-01' WHERE id = 10;
SELECT deleted_at::date, deleted_by FROM orders WHERE id = 10;
UPDATE orders SET deleted_at = NULL WHERE id IN (9, 10);
:show;
SELECT table_name, rows FROM rowkeeper.soft_delete_batches WHERE table_name = 'orders' ORDER BY batch;
-- a savepoint that is rolled back deleted nothing
BEGIN;
SAVEPOINT a;
DELETE FROM active_orders WHERE id = 9;
UPDATE orders SET deleted_at = now() WHERE id = 10;
ROLLBACK TO a;
DELETE FROM active_orders WHERE id = 10;
COMMIT;
SELECT id FROM active_orders ORDER BY id;
SELECT sum(rows) AS rows, (SELECT count(*) FROM orders WHERE deleted_at IS NOT NULL) AS deleted
    FROM rowkeeper.soft_delete_batches WHERE table_name = 'orders';
-- in a function, a loop, a cursor's rows; with an error caught
DO $$
DECLARE r record;
BEGIN
    INSERT INTO orders VALUES (20, 'x'), (21, 'x'), (22, 'x'), (23, 'x');
    DELETE FROM active_orders WHERE id = 20;
    RAISE NOTICE 'found: %', FOUND;
    FOR r IN DELETE FROM active_orders WHERE id IN (21, 22) RETURNING id LOOP
        RAISE NOTICE 'deleted %', r.id;
    END LOOP;
    BEGIN
        DELETE FROM active_orders WHERE id = 23;
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
END$$;
SELECT id FROM active_orders ORDER BY id;
PREPARE drop_one(int) AS DELETE FROM active_orders WHERE id = $1;
EXECUTE drop_one(23);
EXECUTE drop_one(23);
DEALLOCATE drop_one;

-- what a DELETE or TRUNCATE of the table itself does
DELETE FROM orders WHERE id = 9;
DELETE FROM orders WHERE false;
TRUNCATE orders;
SELECT rowkeeper.soft_delete('orders', on_delete => 'allow');
DELETE FROM orders WHERE id = 9;
TRUNCATE orders;
SELECT rowkeeper.soft_delete('orders', on_delete => 'error');
DELETE FROM orders;

-- a table's own triggers and constraints hold, generated columns follow
CREATE TABLE items (id int, part int, name text, price int CHECK (price > 0 OR deleted_at IS NULL),
    gone boolean GENERATED ALWAYS AS (deleted_at IS NOT NULL) STORED,
    "deletedAt" int, deleted_at timestamp, "Deleted By" varchar(8), dropped int, delete_batch bigint, PRIMARY KEY (part, id));
ALTER TABLE items DROP COLUMN dropped;
CREATE FUNCTION noisy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE '% % % %', TG_WHEN, TG_OP, OLD.id, NEW.deleted_at IS NOT NULL;
    IF NEW.name = 'kept' THEN RETURN NULL; END IF;
    RETURN NEW;
END$$;
CREATE TRIGGER noisy_before BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION noisy();
CREATE TRIGGER noisy_after AFTER UPDATE OF deleted_at ON items FOR EACH ROW EXECUTE FUNCTION noisy();
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('items', deleted_by => 'Deleted By');
INSERT INTO items (id, part, name, price) VALUES (1, 1, 'one', 1), (2, 1, 'kept', 1), (3, 1, 'zero', -1);
SET TimeZone = 'Asia/Tokyo';
BEGIN;
DELETE FROM active_items WHERE id IN (1, 2) RETURNING id;
SELECT id, gone, deleted_at = LOCALTIMESTAMP AS zoned, deleted_at > now() AT TIME ZONE 'UTC' + interval '8 hours' AS tokyo, "Deleted By" FROM items ORDER BY id;
COMMIT;
RESET TimeZone;
\set VERBOSITY terse
DELETE FROM active_items WHERE id = 3;
\set VERBOSITY default
-- who does not fit the column
BEGIN;
SELECT rowkeeper.set_context('a long name of somebody');
DELETE FROM active_items WHERE id = 3;
ROLLBACK;
ALTER TABLE items ALTER COLUMN "Deleted By" TYPE int USING NULL;
SELECT rowkeeper.soft_delete_hide_view('items') \g /dev/null
ALTER TABLE items ALTER COLUMN "Deleted By" TYPE int USING NULL;
SELECT rowkeeper.soft_delete_refresh('items') \g /dev/null
UPDATE items SET price = 3 WHERE id = 3;
DELETE FROM active_items WHERE id = 3;
SELECT id, gone, "Deleted By" FROM items WHERE id = 3;

-- partitions, those made later included, and of another layout
CREATE TABLE metrics (name text, day date, value int, PRIMARY KEY (day, name)) PARTITION BY RANGE (day);
CREATE TABLE metrics_1 PARTITION OF metrics FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('metrics');
CREATE TABLE metrics_2 PARTITION OF metrics FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE metrics_3 (delete_batch bigint, value int, deleted_by text, gone int, day date NOT NULL, name text NOT NULL, deleted_at timestamptz);
ALTER TABLE metrics_3 DROP COLUMN gone;
ALTER TABLE metrics ATTACH PARTITION metrics_3 FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
INSERT INTO metrics SELECT n, d::date, 1 FROM (VALUES ('a'), ('b'), ('c')) v (n), generate_series('2024-01-15'::timestamp, '2024-03-15', '1 month') d;
DELETE FROM active_metrics WHERE name = 'a' RETURNING *;
UPDATE metrics SET deleted_at = now() WHERE name = 'b';
SELECT name, tableoid::regclass, deleted_at IS NOT NULL AS deleted, deleted_by, count(*) OVER (PARTITION BY delete_batch) FROM metrics ORDER BY name, day;
UPDATE metrics_3 SET deleted_at = NULL, day = day WHERE name = 'a';
-- a row that moves is neither deleted nor restored
UPDATE metrics SET day = '2024-01-20' WHERE name = 'c' AND day = '2024-03-15';
DELETE FROM metrics_2;
DELETE FROM metrics;
TRUNCATE metrics_3;
SELECT table_name, rows FROM rowkeeper.soft_delete_batches WHERE table_name = 'metrics' ORDER BY batch;
ALTER TABLE metrics DETACH PARTITION metrics_2;
TRUNCATE metrics_2;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'metrics_2'::regclass;

-- taken away: rows and columns stay
SELECT rowkeeper.soft_delete_off('metrics');
SELECT count(*), count(deleted_at) FROM metrics;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgrelid IN ('metrics'::regclass, 'metrics_1'::regclass, 'metrics_3'::regclass);
DELETE FROM metrics;
SELECT rowkeeper.soft_delete_off('metrics');
SELECT rowkeeper.soft_delete_off(NULL);
-- ... and what is needed by others
CREATE VIEW on_top AS SELECT id FROM active_orders;
SELECT rowkeeper.soft_delete_off('orders');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'active_orders'::regclass;

SET client_min_messages = warning;
DROP SCHEMA soft_delete_flag CASCADE;
