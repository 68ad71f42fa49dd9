-- Soft delete in flag mode and foreign keys: what a delete takes with it, what
-- it is refused for, and that nothing alive comes to reference the dead.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA soft_delete_graph;
SET search_path = soft_delete_graph;
CREATE TABLE first (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('first') \g /dev/null
RESET client_min_messages;

CREATE TABLE customers (id int PRIMARY KEY, code text UNIQUE, name text);
CREATE TABLE orders (id int PRIMARY KEY, customer text REFERENCES customers (code) ON UPDATE CASCADE ON DELETE CASCADE);
CREATE TABLE items ("Order" int REFERENCES orders ON DELETE CASCADE, n int, at timestamp, PRIMARY KEY ("Order", n));
CREATE TABLE parts (item int, n int, id int PRIMARY KEY, FOREIGN KEY (item, n) REFERENCES items ON DELETE CASCADE);
CREATE TABLE invoices (id int PRIMARY KEY, customer int REFERENCES customers);
CREATE TABLE visits (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE SET NULL);
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree ON DELETE CASCADE);

-- children first: the call says in which order
SELECT rowkeeper.soft_delete('customers');
\o /dev/null
SELECT rowkeeper.soft_delete('soft_delete_graph.parts');
SELECT rowkeeper.soft_delete('soft_delete_graph.items', deleted_at => 'at');
SELECT rowkeeper.soft_delete('soft_delete_graph.orders', deleted_by => '-');
SELECT rowkeeper.soft_delete('soft_delete_graph.customers');
SELECT rowkeeper.soft_delete('tree');
\o
SELECT tgrelid::regclass, tgname, tgconstrrelid::regclass FROM pg_trigger
    WHERE tgname ~ '^rowkeeper_soft_delete_(insert|update)' AND tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'soft_delete_graph'::regnamespace)
    ORDER BY tgrelid::regclass::text COLLATE "C", tgname;
INSERT INTO customers SELECT i, 'c' || i, 'x' FROM generate_series(1, 4) i;
INSERT INTO orders SELECT i, 'c' || (i + 1) / 2 FROM generate_series(1, 8) i;
INSERT INTO items SELECT o, n FROM generate_series(1, 8) o, generate_series(1, 2) n;
INSERT INTO parts SELECT o, n, o * 10 + n FROM generate_series(1, 8) o, generate_series(1, 2) n;
INSERT INTO visits VALUES (1, 1);
INSERT INTO invoices VALUES (1, 4);
\set show 'SELECT c.id AS customer, c.deleted_at IS NOT NULL AS deleted, count(DISTINCT o.id) FILTER (WHERE o.deleted_at IS NOT NULL) AS orders, count(DISTINCT (i."Order", i.n)) FILTER (WHERE i.at IS NOT NULL) AS items, count(DISTINCT p.id) FILTER (WHERE p.deleted_at IS NOT NULL) AS parts, count(DISTINCT b.batch) AS batches FROM customers c JOIN orders o ON o.customer = c.code JOIN items i ON i."Order" = o.id JOIN parts p ON p.item = i."Order" AND p.n = i.n, LATERAL (VALUES (c.delete_batch), (o.delete_batch), (i.delete_batch), (p.delete_batch)) b (batch) GROUP BY c.id ORDER BY c.id'

-- cascade: one batch, one moment, one actor, down to the last table
BEGIN;
SELECT rowkeeper.set_context('ann');
DELETE FROM active_customers WHERE id = 1;
COMMIT;
:show;
SELECT DISTINCT c.deleted_at = o.deleted_at AS same, o.deleted_at::timestamp = i.at AS zoned, i.deleted_by, p.deleted_by
    FROM customers c JOIN orders o ON o.customer = c.code JOIN items i ON i."Order" = o.id JOIN parts p ON p.item = i."Order" WHERE c.id = 1;
SELECT table_name, actor, rows FROM rowkeeper.soft_delete_batches
    WHERE batch = (SELECT delete_batch FROM customers WHERE id = 1) ORDER BY table_name;
-- so does an UPDATE of the stamp; what was deleted before stays as it was
DELETE FROM active_parts WHERE id = 31;
UPDATE customers SET deleted_at = now() WHERE id = 2;
:show;
SELECT table_name, rows FROM rowkeeper.soft_delete_batches
    WHERE batch = (SELECT delete_batch FROM customers WHERE id = 2) ORDER BY table_name;
-- SET NULL keeps the link, so that a restore finds it
SELECT * FROM visits;
-- RESTRICT and NO ACTION: while live rows are there
DELETE FROM active_customers WHERE id = 4;
UPDATE customers SET deleted_at = now() WHERE id = 4;
DELETE FROM active_customers;
-- ... unless the same statement deletes them, too
\o /dev/null
SELECT rowkeeper.soft_delete('invoices');
\o
WITH i AS (DELETE FROM active_invoices WHERE customer = 4)
DELETE FROM active_customers WHERE id = 4;
:show;
-- a tree
INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 1), (4, 2), (5, 4), (6, 6), (7, NULL);
DELETE FROM active_tree WHERE id = 2;
SELECT id, deleted_at IS NOT NULL AS deleted, dense_rank() OVER (ORDER BY delete_batch) AS batch FROM tree ORDER BY id;
UPDATE tree SET deleted_at = now() WHERE deleted_at IS NULL AND id IN (1, 6);
SELECT id FROM active_tree ORDER BY id;

-- the guard: nothing alive comes to reference what is deleted
INSERT INTO orders VALUES (20, 'c1');
INSERT INTO invoices VALUES (20, 1);
INSERT INTO visits VALUES (20, 1);
UPDATE orders SET customer = 'c1' WHERE id = 5;
UPDATE items SET at = NULL WHERE "Order" = 1;
UPDATE orders SET deleted_at = NULL WHERE id = 1;
INSERT INTO orders VALUES (20, 'nobody');
-- a row that is deleted itself may
INSERT INTO orders (id, customer, deleted_at) VALUES (20, 'c1', now());
-- what only touches other columns is not asked
UPDATE visits SET id = 2 WHERE customer = 1;
-- top down it works
UPDATE customers SET deleted_at = NULL WHERE id = 1;
UPDATE orders SET deleted_at = NULL WHERE id = 1;
UPDATE items SET at = NULL WHERE "Order" = 1;
:show;
-- within one transaction
BEGIN;
DELETE FROM active_customers WHERE id = 3;
SAVEPOINT a;
INSERT INTO invoices VALUES (21, 3);
ROLLBACK TO a;
INSERT INTO customers VALUES (5, 'c5', 'new');
INSERT INTO orders VALUES (21, 'c5');
DELETE FROM active_customers WHERE id = 5;
SELECT id, deleted_at IS NOT NULL AS deleted FROM orders WHERE id = 21;
ROLLBACK;
-- the key of a parent changes: that is ON UPDATE's
UPDATE customers SET code = 'cc' WHERE id = 3;
SELECT id, customer FROM orders WHERE customer = 'cc' ORDER BY id;

-- a deferred foreign key has a deferred guard
CREATE TABLE late (id int PRIMARY KEY, customer int REFERENCES customers DEFERRABLE INITIALLY DEFERRED);
SELECT tgname, tgdeferrable, tginitdeferred FROM pg_trigger WHERE tgrelid = 'late'::regclass AND NOT tgisinternal ORDER BY 1;
BEGIN;
INSERT INTO late VALUES (1, 2);
UPDATE customers SET deleted_at = NULL WHERE id = 2;
COMMIT;
BEGIN;
INSERT INTO late VALUES (2, 4);
SET CONSTRAINTS ALL IMMEDIATE;
ROLLBACK;
BEGIN;
INSERT INTO late VALUES (2, 4);
UPDATE late SET customer = 2 WHERE id = 2;
INSERT INTO late VALUES (3, 4);
DELETE FROM late WHERE id = 3;
COMMIT;
BEGIN;
INSERT INTO late VALUES (4, 4);
SELECT rowkeeper.soft_delete('late');
COMMIT;

-- foreign keys made, renamed and dropped after the call are followed
CREATE TABLE calls (id int PRIMARY KEY, customer int);
ALTER TABLE calls ADD CONSTRAINT "a key with a name that fills all the room there is for one nam" FOREIGN KEY (customer) REFERENCES customers;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'calls'::regclass AND NOT tgisinternal ORDER BY 1;
INSERT INTO calls VALUES (1, 4);
ALTER TABLE calls RENAME CONSTRAINT "a key with a name that fills all the room there is for one nam" TO renamed;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'calls'::regclass AND NOT tgisinternal ORDER BY 1;
INSERT INTO calls VALUES (1, 4);
ALTER TABLE calls RENAME customer TO who;
INSERT INTO calls VALUES (1, 4);
ALTER TABLE customers RENAME deleted_at TO "deletedAt";
INSERT INTO calls VALUES (1, 4);
INSERT INTO calls VALUES (1, 2);
DELETE FROM active_customers WHERE id = 2;
ALTER TABLE calls DROP CONSTRAINT renamed;
INSERT INTO calls VALUES (2, 4);
ALTER TABLE customers RENAME "deletedAt" TO deleted_at;
SELECT rowkeeper.soft_delete('customers');
-- a new cascading key to a table without soft delete: its rows keep the parent
CREATE TABLE logins (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE);
INSERT INTO logins VALUES (1, 3);
DELETE FROM active_customers WHERE id = 3;
DELETE FROM logins;
DELETE FROM active_customers WHERE id = 3;

-- partitioned parent and child, several columns
CREATE TABLE years (y int, id int, PRIMARY KEY (y, id)) PARTITION BY LIST (y);
CREATE TABLE years_1 PARTITION OF years FOR VALUES IN (1);
CREATE TABLE days (y int, year_id int, id int, v int, PRIMARY KEY (y, id), FOREIGN KEY (y, year_id) REFERENCES years ON UPDATE CASCADE ON DELETE CASCADE) PARTITION BY LIST (y);
CREATE TABLE days_1 (v int, id int NOT NULL, year_id int, y int NOT NULL);
ALTER TABLE days ATTACH PARTITION days_1 FOR VALUES IN (1);
\o /dev/null
SELECT rowkeeper.soft_delete('days');
SELECT rowkeeper.soft_delete('years');
\o
CREATE TABLE years_2 PARTITION OF years FOR VALUES IN (2);
CREATE TABLE days_2 PARTITION OF days FOR VALUES IN (2);
INSERT INTO years VALUES (1, 1), (1, 2), (2, 1), (2, 2);
INSERT INTO days SELECT y, i, y * 10 + i, 0 FROM generate_series(1, 2) y, generate_series(1, 2) i;
DELETE FROM active_years WHERE id = 1;
UPDATE years_2 SET deleted_at = now() WHERE id = 2;
SELECT tableoid::regclass, year_id, deleted_at IS NOT NULL AS deleted, count(*) OVER (PARTITION BY delete_batch) FROM days ORDER BY 1, 2;
INSERT INTO days VALUES (2, 1, 9, 0);
INSERT INTO days_1 VALUES (0, 9, 1, 1);
UPDATE days SET y = 2 WHERE y = 1 AND year_id = 2;
-- a row that moves to another partition as it is deleted: its children cannot follow
UPDATE years SET y = 2, id = 3, deleted_at = now() WHERE y = 1 AND id = 2;
SELECT tableoid::regclass, year_id, deleted_at IS NOT NULL AS deleted FROM days WHERE year_id = 3;
UPDATE years SET y = 1, deleted_at = NULL WHERE id = 3;
UPDATE days SET deleted_at = NULL WHERE y = 2 AND year_id = 1;

-- cascade => false: children are left alone, and keep the parent
CREATE TABLE a (id int PRIMARY KEY, b int);
CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('a', cascade => false);
INSERT INTO a VALUES (1), (2);
INSERT INTO b VALUES (1, 1);
DELETE FROM active_a WHERE id = 1;
DELETE FROM active_a WHERE id = 2;
SELECT rowkeeper.soft_delete('a', cascade => true);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('b');
DELETE FROM active_a WHERE id = 1;
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('a', cascade => true);
DELETE FROM active_a WHERE id = 1;
SELECT count(*) FROM active_b;

-- a cycle: one table before its children
CREATE TABLE x (id int PRIMARY KEY, y int);
CREATE TABLE y (id int PRIMARY KEY, x int REFERENCES x ON DELETE CASCADE);
ALTER TABLE x ADD FOREIGN KEY (y) REFERENCES y ON DELETE CASCADE DEFERRABLE;
CREATE TABLE z (id int PRIMARY KEY, y int REFERENCES y ON DELETE CASCADE);
SELECT rowkeeper.soft_delete('y');
\o /dev/null
SELECT rowkeeper.soft_delete('soft_delete_graph.y', cascade => false);
SELECT rowkeeper.soft_delete('soft_delete_graph.x');
SELECT rowkeeper.soft_delete('soft_delete_graph.z');
SELECT rowkeeper.soft_delete('soft_delete_graph.y', cascade => true);
\o
INSERT INTO x VALUES (1, NULL);
INSERT INTO y VALUES (1, 1);
INSERT INTO z VALUES (1, 1);
UPDATE x SET y = 1;
DELETE FROM active_y;
SELECT (SELECT count(*) FROM active_x) AS x, (SELECT count(*) FROM active_y) AS y, (SELECT count(*) FROM active_z) AS z;

-- refused: modes mixed, a hard delete that would be refused further down
CREATE TABLE p1 (id int PRIMARY KEY);
CREATE TABLE p2 (id int PRIMARY KEY, p int REFERENCES p1 ON DELETE CASCADE);
\o /dev/null
SELECT rowkeeper.soft_delete('p2', mode => 'trash');
\o
SELECT rowkeeper.soft_delete('p1');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('p1', mode => 'trash');
SELECT rowkeeper.soft_delete('p2', mode => 'flag');
CREATE TABLE q1 (id int PRIMARY KEY);
CREATE TABLE q2 (id int PRIMARY KEY, q int REFERENCES q1 ON DELETE CASCADE);
\o /dev/null
SELECT rowkeeper.soft_delete('q2');
\o
SELECT rowkeeper.soft_delete('q1', on_delete => 'allow');
-- a table that is not soft-deleted passes its DELETE on, too
INSERT INTO q1 VALUES (1);
INSERT INTO q2 VALUES (1, 1);
DELETE FROM q1;
\o /dev/null
SELECT rowkeeper.soft_delete('q2', on_delete => 'allow');
SELECT rowkeeper.soft_delete('q1', on_delete => 'allow');
\o
DELETE FROM q1;
SELECT count(*) FROM q2;

-- keys whose operators are an extension's
SET client_min_messages = warning;
CREATE EXTENSION ltree;
RESET client_min_messages;
CREATE TABLE nodes (id ltree PRIMARY KEY);
CREATE TABLE leaves (id int PRIMARY KEY, n ltree REFERENCES nodes ON DELETE CASCADE);
SELECT rowkeeper.soft_delete('leaves') \g /dev/null
SELECT rowkeeper.soft_delete('nodes') \g /dev/null
INSERT INTO nodes VALUES ('a.b'), ('c');
INSERT INTO leaves VALUES (1, 'a.b'), (2, 'c'), (3, NULL);
DELETE FROM active_nodes WHERE id = 'a.b';
SELECT id FROM active_leaves ORDER BY id;
UPDATE leaves SET n = 'a.b' WHERE id = 2;
UPDATE leaves SET n = 'a.b' WHERE id = 3;
UPDATE leaves SET n = 'c' WHERE id = 3;

-- a guard waits as long as its foreign key does, also where that is changed
CREATE TABLE late_parent (id int PRIMARY KEY);
CREATE TABLE late_child (id int PRIMARY KEY, p int CONSTRAINT late REFERENCES late_parent ON DELETE CASCADE);
SELECT rowkeeper.soft_delete(t) FROM unnest('{late_child,late_parent}'::regclass[]) t \g /dev/null
INSERT INTO late_parent VALUES (1);
DELETE FROM active_late_parent;
ALTER TABLE late_child ALTER CONSTRAINT late DEFERRABLE INITIALLY DEFERRED;
BEGIN;
INSERT INTO late_child VALUES (1, 1);
UPDATE late_parent SET deleted_at = NULL;
COMMIT;
ALTER TABLE late_child ALTER CONSTRAINT late NOT DEFERRABLE;
DELETE FROM active_late_parent;
INSERT INTO late_child VALUES (2, 1);

-- foreign keys of a partition alone, and to one alone
CREATE TABLE pieces (id int, r int, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE pieces_1 PARTITION OF pieces FOR VALUES IN (1);
CREATE TABLE pieces_2 PARTITION OF pieces FOR VALUES IN (2);
ALTER TABLE pieces_1 ADD UNIQUE (id);
CREATE TABLE of_pieces_1 (id int PRIMARY KEY, p int REFERENCES pieces_1 (id) ON DELETE CASCADE);
CREATE TABLE keep_pieces_1 (id int PRIMARY KEY, p int REFERENCES pieces_1 (id));
SELECT rowkeeper.soft_delete('pieces');
SELECT rowkeeper.soft_delete('of_pieces_1') \g /dev/null
SELECT rowkeeper.soft_delete('pieces') \g /dev/null
INSERT INTO pieces VALUES (1, 1), (2, 1), (3, 1), (1, 2), (2, 2);
INSERT INTO of_pieces_1 VALUES (1, 1);
INSERT INTO keep_pieces_1 VALUES (1, 2);
DELETE FROM active_pieces WHERE id = 1 AND r = 1;
SELECT * FROM active_of_pieces_1;
DELETE FROM active_pieces WHERE id = 2 AND r = 1;
UPDATE pieces SET deleted_at = now() WHERE id = 2 AND r = 1;
DELETE FROM active_pieces WHERE id = 2;
DELETE FROM active_pieces WHERE id = 3 OR id = 2 AND r = 2;
INSERT INTO of_pieces_1 VALUES (2, 3);
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('pieces', 1, 1) ORDER BY 1;
CREATE TABLE kids (id int, r int, p int, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE kids_1 PARTITION OF kids FOR VALUES IN (1);
CREATE TABLE kids_2 (p int, gone int, id int NOT NULL, r int NOT NULL);
ALTER TABLE kids_2 DROP COLUMN gone;
ALTER TABLE kids ATTACH PARTITION kids_2 FOR VALUES IN (2);
CREATE TABLE mothers (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('kids') \g /dev/null
SELECT rowkeeper.soft_delete('mothers') \g /dev/null
ALTER TABLE kids_2 ADD FOREIGN KEY (p) REFERENCES mothers ON DELETE CASCADE;
INSERT INTO mothers VALUES (1), (2);
INSERT INTO kids VALUES (1, 2, 1);
DELETE FROM active_mothers;
INSERT INTO kids VALUES (2, 2, 2);
SELECT * FROM active_kids;
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('mothers', 1) ORDER BY 1;
SELECT table_name, rows FROM rowkeeper.soft_delete_batches WHERE table_name ~ 'kids|mothers' ORDER BY 1;
DELETE FROM active_mothers;
CALL rowkeeper.soft_delete_purge('mothers', '0');
SELECT count(*) FROM kids;
-- ... that was there before its table had soft delete
CREATE TABLE cousins (id int, r int, p int, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE cousins_1 PARTITION OF cousins FOR VALUES IN (1);
ALTER TABLE cousins_1 ADD FOREIGN KEY (p) REFERENCES mothers;
SELECT rowkeeper.soft_delete('cousins') \g /dev/null
INSERT INTO mothers VALUES (3);
INSERT INTO cousins VALUES (1, 1, 3);
DELETE FROM active_mothers;
DELETE FROM active_cousins;
DELETE FROM active_mothers;
UPDATE cousins SET deleted_at = NULL;

-- guards go with the last one they are for
SELECT rowkeeper.soft_delete_off('a');
INSERT INTO b VALUES (5, 1);

SET client_min_messages = warning;
SELECT rowkeeper.soft_delete_off(c) FROM unnest('{p1,p2}'::regclass[]) c \g /dev/null
DROP SCHEMA soft_delete_graph CASCADE;
