-- Tables in trash mode as objects: a call that has nothing to do touches
-- nothing; what happens to the source; what the trash is, and outlives.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE DATABASE regress_rk_trash_ddl;
\c regress_rk_trash_ddl
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
CREATE SCHEMA shop;
CREATE SCHEMA other;
SET search_path = shop;
CREATE ROLE regress_rk_owner;
CREATE ROLE regress_rk_reader;
GRANT ALL ON SCHEMA shop, other TO regress_rk_owner;
GRANT USAGE ON SCHEMA shop, other TO regress_rk_reader;

SET ROLE regress_rk_owner;
CREATE TABLE orders (id int PRIMARY KEY, v text, secret text);
GRANT SELECT (id, v) ON orders TO regress_rk_reader;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON orders TO regress_rk_owner USING (true);
CREATE POLICY odd_ones ON orders FOR SELECT TO regress_rk_reader USING (id % 2 = 1);
CREATE TABLE days (day int, v text, PRIMARY KEY (day)) PARTITION BY RANGE (day);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10);
\o /dev/null
SELECT rowkeeper.soft_delete('orders', mode => 'trash', keep => '30 days');
SELECT rowkeeper.soft_delete('days', mode => 'trash', view_name => 'all_days', view_schema => 'other');
\o
INSERT INTO orders SELECT g, 'v' || g, 's' FROM generate_series(1, 9) g;
DELETE FROM orders WHERE id <= 4;
RESET ROLE;

-- Whatever of the catalog a table's soft delete is made of, with who wrote it last.
CREATE VIEW public.objects AS
SELECT 'class' AS what, oid::regclass::text AS name, xmin AS writer FROM pg_catalog.pg_class
	WHERE relnamespace::regnamespace::text IN ('shop', 'other', 'rowkeeper_trash')
UNION ALL SELECT 'rule', ev_class::regclass::text, xmin FROM pg_catalog.pg_rewrite WHERE ev_class >= 16384
UNION ALL SELECT 'trigger', tgrelid::regclass || ' ' || tgname, xmin FROM pg_catalog.pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'policy', polrelid::regclass || ' ' || polname, xmin FROM pg_catalog.pg_policy
UNION ALL SELECT 'column', attrelid::regclass || ' ' || attname, a.xmin FROM pg_catalog.pg_attribute a
	JOIN pg_catalog.pg_class c ON c.oid = attrelid WHERE relnamespace::regnamespace::text IN ('shop', 'rowkeeper_trash')
UNION ALL SELECT 'comment', objoid::regclass::text, xmin FROM pg_catalog.pg_description WHERE objoid >= 16384 AND classoid = 'pg_catalog.pg_class'::regclass
UNION ALL SELECT 'batches', batch::text, xmin FROM rowkeeper_trash.batches;

-- the same call again, in every form: nothing is written, not even in passing
CREATE TEMPORARY TABLE before AS SELECT what, name, writer::text FROM public.objects;
SELECT count(*) > 50 AS enough FROM before;
SET ROLE regress_rk_owner;
SELECT * FROM rowkeeper.soft_delete('orders', mode => 'trash');
SELECT * FROM rowkeeper.soft_delete('orders');
SELECT * FROM rowkeeper.soft_delete('orders', mode => 'trash', keep => '30 days', "cascade" => true);
SELECT * FROM rowkeeper.soft_delete('days', mode => 'trash', view_name => 'all_days', view_schema => 'other');
SELECT * FROM rowkeeper.soft_delete_refresh('orders');
RESET ROLE;
SELECT what, name, writer::text FROM public.objects EXCEPT TABLE before;
-- ... nor is anything locked that readers and writers would wait for
BEGIN;
SELECT * FROM rowkeeper.soft_delete('orders', mode => 'trash');
SELECT relation::regclass, mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation >= 16384
	AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock') ORDER BY 1;
COMMIT;
-- only what is named changes
SET client_min_messages = notice;
SELECT * FROM rowkeeper.soft_delete('orders', keep => '60 days');
SET client_min_messages = warning;
SELECT DISTINCT what, name FROM (SELECT what, name, writer::text FROM public.objects EXCEPT TABLE before) c ORDER BY 1, 2;

-- the trash is like its source: owner, forced row security, readers of some columns
SELECT relowner::regrole, relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = 'rowkeeper_trash.shop__orders'::regclass;
SELECT polname, polcmd, polroles::regrole[], pg_get_expr(polqual, polrelid) FROM pg_policy
	WHERE polrelid = 'rowkeeper_trash.shop__orders'::regclass ORDER BY 1;
SET ROLE regress_rk_reader;
SELECT id, v FROM rowkeeper_trash.shop__orders ORDER BY id;
SELECT secret FROM rowkeeper_trash.shop__orders;
SELECT _deleted_by FROM rowkeeper_trash.shop__orders;
INSERT INTO rowkeeper_trash.shop__orders (_batch, _deleted_at) VALUES (1, now());
UPDATE rowkeeper_trash.shop__orders SET v = 'x';
DELETE FROM rowkeeper_trash.shop__orders;
RESET ROLE;
ALTER TABLE orders NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = 'rowkeeper_trash.shop__orders'::regclass;

-- renamed, and moved to another schema: its trash and its batches are still its own
ALTER TABLE orders RENAME TO "Order Items";
DELETE FROM "Order Items" WHERE id = 5;
ALTER TABLE "Order Items" SET SCHEMA other;
DELETE FROM other."Order Items" WHERE id = 6;
SELECT id FROM rowkeeper_trash.shop__orders ORDER BY id;
SELECT DISTINCT table_schema, table_name FROM rowkeeper.soft_delete_batches;
SELECT table_schema, table_name, record_id FROM rowkeeper.soft_delete_restore('other."Order Items"', 5);
SELECT * FROM rowkeeper.soft_delete('other."Order Items"');
-- ... and the view is found under whatever name it has
ALTER VIEW orders_with_deleted RENAME TO "All Items";
ALTER VIEW "All Items" SET SCHEMA other;
ALTER SCHEMA other RENAME TO others;
ALTER TABLE others."Order Items" ADD COLUMN added int;
SELECT id, added FROM others."All Items" WHERE id = 6;
SELECT * FROM rowkeeper.soft_delete('others."Order Items"');
SELECT viewname FROM pg_views WHERE schemaname IN ('shop', 'others') ORDER BY 1;
ALTER SCHEMA others RENAME TO other;
-- ... so another one of its old name has another trash
CREATE TABLE orders (id int PRIMARY KEY, other int);
SELECT rowkeeper.soft_delete('orders', mode => 'trash') \g /dev/null
INSERT INTO orders VALUES (1, 1);
DELETE FROM orders;
SELECT * FROM orders_with_deleted WHERE id IS NULL;
SELECT target, call FROM rowkeeper.features WHERE feature = 'soft_delete' ORDER BY target::text COLLATE "C";
SELECT relname FROM pg_class WHERE relnamespace = 'rowkeeper_trash'::regnamespace AND relkind = 'r' ORDER BY 1;

-- columns of a trash table: added ones reach the view, and _extra what has no place
ALTER TABLE orders ADD COLUMN note text DEFAULT 'n';
INSERT INTO orders VALUES (2, 2);
DELETE FROM orders;
SELECT id, other, note FROM orders_with_deleted ORDER BY id;
SELECT id, _extra FROM rowkeeper_trash.shop__orders_2 ORDER BY id;
ALTER TABLE orders RENAME COLUMN note TO remark;
SELECT count(*) > 0 AS hidden FROM rowkeeper.soft_delete_hide_view('orders');
ALTER TABLE orders RENAME COLUMN other TO amount;
ALTER TABLE orders ALTER COLUMN amount TYPE numeric(10,2), DROP COLUMN remark;
SELECT count(*) > 0 AS shown FROM rowkeeper.soft_delete_refresh('orders');
INSERT INTO orders VALUES (3, 3.5);
DELETE FROM orders;
SELECT id, amount FROM orders_with_deleted ORDER BY id;
SELECT record_id FROM rowkeeper.soft_delete_restore('orders', 3);
SELECT record_id FROM rowkeeper.soft_delete_restore('orders', 2);
SELECT * FROM orders ORDER BY id;

-- a column renamed to what the trash has of a dropped one, or calls a column of its own
CREATE TABLE renamed (id int PRIMARY KEY, x text, y date);
SELECT rowkeeper.soft_delete('renamed', mode => 'trash') \g /dev/null
INSERT INTO renamed VALUES (1, 'old', '2024-01-01'), (2, 'old', '2024-01-02'), (3, 'old', NULL);
DELETE FROM renamed WHERE id = 1;
SELECT rowkeeper.soft_delete_hide_view('renamed') \g /dev/null
ALTER TABLE renamed DROP COLUMN x;
SELECT rowkeeper.soft_delete_refresh('renamed') \g /dev/null
DELETE FROM renamed WHERE id = 2;
ALTER TABLE renamed RENAME y TO x;
SELECT id, x, x_dropped FROM rowkeeper_trash.shop__renamed ORDER BY id;
SELECT _batch IS NULL AS live, id, x FROM renamed_with_deleted ORDER BY id;
ALTER TABLE renamed RENAME x TO _extra;
DELETE FROM renamed;
SELECT id, x, _extra FROM rowkeeper_trash.shop__renamed ORDER BY id;
ALTER TABLE renamed RENAME _extra TO "late'r";
SELECT id, _extra FROM rowkeeper_trash.shop__renamed ORDER BY id;
SELECT count(*) AS restored FROM generate_series(1, 3) g, rowkeeper.soft_delete_restore('renamed', g);
SELECT id, "late'r" FROM renamed ORDER BY id;
DROP TABLE renamed, rowkeeper_trash.shop__renamed CASCADE;

-- two names that make the name of one trash
CREATE SCHEMA a;
CREATE SCHEMA a__b;
CREATE TABLE a.b__c (id int PRIMARY KEY, secret text);
CREATE TABLE a__b.c (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('a.b__c', mode => 'trash') \g /dev/null
INSERT INTO a.b__c VALUES (1, 'x');
DELETE FROM a.b__c;
SELECT rowkeeper.soft_delete_off('a.b__c') \g /dev/null
SELECT rowkeeper.soft_delete('a__b.c', mode => 'trash') \g /dev/null
SELECT rowkeeper.soft_delete_restore('a__b.c', 1);
SELECT rowkeeper.soft_delete('a.b__c', mode => 'trash') \g /dev/null
SELECT record_id FROM rowkeeper.soft_delete_restore('a.b__c', 1);
SELECT rowkeeper.soft_delete_off('a.b__c'), rowkeeper.soft_delete_off('a__b.c') \g /dev/null
DROP TABLE a.b__c, a__b.c, rowkeeper_trash.a__b__c, rowkeeper_trash.a__b__c_2 CASCADE;

-- a relation of its name that can keep nothing
ALTER TABLE rowkeeper_trash.shop__orders_2 RENAME TO kept;
CREATE VIEW rowkeeper_trash.shop__orders_2 AS SELECT 1::bigint AS _batch, now() AS _deleted_at, NULL::jsonb AS _extra;
DELETE FROM orders WHERE id = 2;
DROP VIEW rowkeeper_trash.shop__orders_2;
ALTER TABLE rowkeeper_trash.kept RENAME TO shop__orders_2;
DELETE FROM orders WHERE id = 2;
-- indexes of the user's on a trash table are kept up
CREATE INDEX twice ON rowkeeper_trash.shop__orders_2 ((id * 2)) WHERE id > 2;
DELETE FROM orders WHERE id = 3;
SET enable_seqscan = off;
EXPLAIN (COSTS off) SELECT id FROM rowkeeper_trash.shop__orders_2 WHERE id * 2 = 6 AND id > 2;
SELECT id FROM rowkeeper_trash.shop__orders_2 WHERE id * 2 = 6 AND id > 2;
RESET enable_seqscan;

-- dropped: the trash stays, and whoever makes the table again finds it
DROP TABLE orders;
DROP TABLE orders CASCADE;
SELECT id, amount FROM rowkeeper_trash.shop__orders_2 ORDER BY id;
SELECT relation, rows FROM rowkeeper_trash.batches WHERE table_name = 'orders' AND relation IS NULL ORDER BY batch;
CREATE TABLE orders (id int PRIMARY KEY, amount numeric);
SELECT rowkeeper.soft_delete('orders', mode => 'trash') \g /dev/null
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore_batch((SELECT max(batch) FROM rowkeeper.soft_delete_batches WHERE table_name = 'orders'));
TABLE orders;

-- partitions that come and go, beside a table in flag mode
CREATE TABLE flagged (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('flagged') \g /dev/null
CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM (10) TO (20);
SELECT * FROM rowkeeper.soft_delete_refresh('flagged');
ALTER TABLE days DETACH PARTITION days_1;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgrelid IN ('days_1'::regclass, 'days_2'::regclass) ORDER BY 1, 2;
TRUNCATE days_1;
TRUNCATE days_2;
TRUNCATE days;
DELETE FROM days_1;

-- renamed over a table that it inherits from since, or over its type
CREATE TABLE heir (id int PRIMARY KEY, a text);
SELECT rowkeeper.soft_delete('heir', mode => 'trash') \g /dev/null
CREATE TABLE legator (id int, a text);
ALTER TABLE heir ALTER id SET NOT NULL, INHERIT legator;
CREATE TYPE shape AS (id int, a text);
CREATE TABLE shaped OF shape (PRIMARY KEY (id));
SELECT rowkeeper.soft_delete('shaped', mode => 'trash') \g /dev/null
INSERT INTO heir VALUES (1, 'kept');
INSERT INTO shaped VALUES (1, 'kept');
DELETE FROM heir;
DELETE FROM shaped;
ALTER TABLE legator RENAME a TO b;
ALTER TYPE shape RENAME ATTRIBUTE a TO b CASCADE;
SELECT _deleted_at IS NOT NULL AS deleted, id, b FROM heir_with_deleted;
SELECT count(*) FROM rowkeeper.soft_delete_restore('heir', 1);
SELECT count(*) FROM rowkeeper.soft_delete_restore('shaped', 1);
SELECT * FROM heir UNION ALL SELECT * FROM shaped;

-- a table that keeps its deleted rows cannot become part of one that does not
CREATE TABLE plain (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE kept (id int PRIMARY KEY, v text);
SELECT rowkeeper.soft_delete('kept', mode => 'trash') \g /dev/null
ALTER TABLE plain ATTACH PARTITION kept FOR VALUES FROM (0) TO (10);

-- refused
SELECT rowkeeper.soft_delete('plain', mode => 'bin');
SELECT rowkeeper.soft_delete('plain', mode => 'trash', deleted_at => 'gone_at');
SELECT rowkeeper.soft_delete('plain', mode => 'trash', on_delete => 'allow');
SELECT rowkeeper.soft_delete('orders', mode => 'flag');
CREATE VIEW plain_with_deleted AS SELECT 1;
SELECT rowkeeper.soft_delete('plain', mode => 'trash');
SELECT rowkeeper.soft_delete('rowkeeper_trash.shop__orders', mode => 'trash');
SET ROLE regress_rk_reader;
SELECT rowkeeper.soft_delete('plain', mode => 'trash');
RESET ROLE;

-- without the extension the rows are there still, and with it again they come back
SELECT count(*) > 0 AS left FROM rowkeeper.leave();
DROP EXTENSION rowkeeper;
DELETE FROM orders;
SELECT count(*) FROM rowkeeper_trash.shop__orders_2;
CREATE EXTENSION rowkeeper CASCADE;
SELECT rowkeeper.soft_delete('other."Order Items"', mode => 'trash') \g /dev/null
SELECT relname FROM pg_class WHERE relnamespace = 'rowkeeper_trash'::regnamespace AND relkind = 'r' ORDER BY 1;
\c contrib_regression
DROP DATABASE regress_rk_trash_ddl;
DROP ROLE regress_rk_owner;
DROP ROLE regress_rk_reader;
