-- What is audited, what is missing, and the SQL that mends it. In a database of
-- its own, because the view shows every table there is.
SET client_min_messages = warning;
CREATE DATABASE regress_rk_coverage;
\c regress_rk_coverage
SET client_min_messages = warning;
\pset null '(null)'
CREATE EXTENSION rowkeeper CASCADE;

-- usable before the first audit()
CREATE TABLE orders (id int PRIMARY KEY, status text, note text);
CREATE TABLE no_key (id int);
CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);
CREATE TEMPORARY TABLE scratch (id int PRIMARY KEY);
CREATE SCHEMA "Shop floor";
CREATE TABLE "Shop floor"."Order's" (id int, at date, what text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE "Shop floor".part_1 PARTITION OF "Shop floor"."Order's" FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE "Shop floor".part_2 PARTITION OF "Shop floor"."Order's" FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
SELECT * FROM rowkeeper.audit_coverage ORDER BY 1, 2;
SELECT * FROM rowkeeper.audit_size;
SELECT * FROM rowkeeper.features;

-- each remedy is runnable
\o /dev/null
SELECT remedy FROM rowkeeper.audit_coverage WHERE remedy IS NOT NULL ORDER BY 1 \gexec
\o
CREATE VIEW state AS
SELECT table_name, audited, since IS NOT NULL AS since, missing,
    (SELECT jsonb_agg(jsonb_build_object('reason', g -> 'reason', 'open', g -> 'to' = 'null') ORDER BY n)
     FROM jsonb_array_elements(gaps) WITH ORDINALITY x (g, n)) AS gaps, remedy
FROM rowkeeper.audit_coverage;
SELECT * FROM state ORDER BY 1;
SELECT target, feature, options, call, healthy, detail FROM rowkeeper.features ORDER BY target::text;

-- a trigger that was switched off
ALTER TABLE orders DISABLE TRIGGER "!rowkeeper_changes";
SELECT * FROM state WHERE table_name = 'orders';
SELECT healthy, detail FROM rowkeeper.features WHERE target = 'orders'::regclass;
SELECT remedy FROM rowkeeper.audit_coverage WHERE table_name = 'orders' \gset
\o /dev/null
:remedy;
\o
SELECT * FROM state WHERE table_name = 'orders';
-- one that would no longer fire on a replica is put right at once
ALTER TABLE orders ENABLE TRIGGER rowkeeper_changes_flush;
SELECT missing, remedy FROM state WHERE table_name = 'orders';
-- the same on a partition alone
ALTER TABLE "Shop floor".part_1 DISABLE TRIGGER USER;
DROP TRIGGER rowkeeper_changes_flush ON "Shop floor".part_2;
SELECT missing, gaps, remedy FROM state WHERE table_name = 'Order''s';
SELECT remedy FROM rowkeeper.audit_coverage WHERE table_name = 'Order''s' \gset
\o /dev/null
:remedy;
\o
SELECT missing, gaps FROM state WHERE table_name = 'Order''s';
-- audit_off() and on again is a gap as well
SELECT rowkeeper.audit_off('orders') \g /dev/null
SELECT * FROM state WHERE table_name = 'orders';
SELECT rowkeeper.audit('orders', exclude => '{note}', keep => '2 years') \g /dev/null
SELECT * FROM state WHERE table_name = 'orders';
SELECT gaps -> -1 ->> 'from' < gaps -> -1 ->> 'to' AS in_order FROM rowkeeper.audit_coverage WHERE table_name = 'orders';
-- so is a session whose capture a superuser switched off
SET rowkeeper.audit_capture = off;
INSERT INTO orders VALUES (1, 'x');
RESET rowkeeper.audit_capture;
SELECT gaps FROM state WHERE table_name = 'orders';
SELECT gaps -> -1 ->> 'from' = gaps -> -1 ->> 'to' AS one_moment FROM rowkeeper.audit_coverage WHERE table_name = 'orders';

-- what event triggers would have seen, had they not been switched off
ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE;
ALTER EVENT TRIGGER rowkeeper_drop ENABLE;
ALTER TABLE orders DROP COLUMN note;
ALTER TABLE "Shop floor"."Order's" DROP CONSTRAINT "Order's_pkey";
CREATE TABLE "Shop floor".part_3 PARTITION OF "Shop floor"."Order's" FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
ALTER TABLE fast SET UNLOGGED;
ALTER TABLE "Shop floor".part_1 ENABLE TRIGGER rowkeeper_changes_flush;
SELECT table_name, missing, remedy FROM state WHERE table_name <> 'no_key' ORDER BY 1;
ALTER TABLE "Shop floor"."Order's" ADD PRIMARY KEY (id, at);
SELECT remedy FROM rowkeeper.audit_coverage WHERE table_name = 'orders' \gset
\o /dev/null
:remedy;
\o
SELECT remedy FROM rowkeeper.audit_coverage WHERE table_name = 'Order''s' \gset
\o /dev/null
:remedy;
\o
SELECT remedy FROM rowkeeper.audit_coverage WHERE table_name = 'fast' \gset
\o /dev/null
:remedy;
\o
SELECT table_name, missing FROM state WHERE table_name <> 'no_key' ORDER BY 1;

-- a table the dictionary does not know
UPDATE rowkeeper_log.tables SET relation = NULL WHERE relation = 'fast'::regclass;
SELECT missing FROM state WHERE table_name = 'fast';
SELECT remedy FROM rowkeeper.audit_coverage WHERE table_name = 'fast' \gset
\o /dev/null
:remedy;
\o
SELECT missing FROM state WHERE table_name = 'fast';

-- the views lock no table: one that is being altered does not hold them up
BEGIN;
ALTER TABLE orders ADD COLUMN more int;
SELECT count(*) FROM pg_locks WHERE relation = '"Shop floor"."Order''s"'::regclass AND pid = pg_backend_pid();
SELECT count(*) > 0 AS rows FROM rowkeeper.audit_coverage;
SELECT count(*) > 0 AS rows FROM rowkeeper.features;
SELECT count(*) FROM pg_locks WHERE relation = '"Shop floor"."Order''s"'::regclass AND pid = pg_backend_pid();
ROLLBACK;

\c contrib_regression
DROP DATABASE regress_rk_coverage;
