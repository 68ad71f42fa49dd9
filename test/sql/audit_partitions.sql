-- A partitioned table is one table: its entries name the root, whichever
-- partition holds the row, made before or after.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_partitions;
SET search_path = audit_partitions;
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set news 'SELECT table_name, relation, action, record_id, old_data, new_data, context FROM rowkeeper.audit_log WHERE table_schema = ''audit_partitions'' AND id > :seen ORDER BY id'
\set flush_triggers 'SELECT relname, array_agg(tgname ORDER BY tgname) AS triggers FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid WHERE relnamespace = ''audit_partitions''::regnamespace AND NOT tgisinternal OR tgname ~ ''rowkeeper'' AND relnamespace = ''audit_partitions''::regnamespace GROUP BY relname ORDER BY relname'
CREATE TABLE metrics (id int, at date, value int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE metrics_1 PARTITION OF metrics FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
-- other column order, dropped columns
CREATE TABLE metrics_2 (x int, value int, y text, at date NOT NULL, z int, id int NOT NULL);
ALTER TABLE metrics_2 DROP COLUMN x, DROP COLUMN y, DROP COLUMN z;
ALTER TABLE metrics ATTACH PARTITION metrics_2 FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
-- sub-partitions
CREATE TABLE metrics_3 PARTITION OF metrics FOR VALUES FROM ('2024-03-01') TO ('2024-04-01') PARTITION BY LIST (id);
CREATE TABLE metrics_3_odd PARTITION OF metrics_3 FOR VALUES IN (1, 3, 5);
CREATE TABLE metrics_3_even PARTITION OF metrics_3 FOR VALUES IN (2, 4, 6);
SELECT rowkeeper.audit('metrics') \g /dev/null
:flush_triggers;

:mark \gset
INSERT INTO metrics VALUES (1, '2024-01-01', 10), (1, '2024-02-01', 20), (1, '2024-03-01', 30), (2, '2024-03-02', 40);
UPDATE metrics SET value = value + 1;
DELETE FROM metrics WHERE id = 2;
:news;

-- through the partition, at once and not only at commit
:mark \gset
BEGIN;
INSERT INTO metrics_1 VALUES (7, '2024-01-07', 7);
SELECT action, record_id FROM rowkeeper.audit_log WHERE id > :seen;
UPDATE metrics_2 SET value = 0;
UPDATE metrics_3 SET value = 1;
DELETE FROM metrics_3_odd;
COPY metrics_1 FROM stdin;
8	2024-01-08	8
\.
SELECT table_name, action, record_id FROM rowkeeper.audit_log WHERE id > :seen ORDER BY id;
COMMIT;
:news;

-- partitions to come: made, attached, as a tree, as default
CREATE TABLE metrics_4 PARTITION OF metrics FOR VALUES FROM ('2024-04-01') TO ('2024-05-01');
CREATE TABLE metrics_5 (value int, id int NOT NULL, at date NOT NULL);
INSERT INTO metrics_5 VALUES (50, 5, '2024-05-05');
ALTER TABLE metrics ATTACH PARTITION metrics_5 FOR VALUES FROM ('2024-05-01') TO ('2024-06-01');
CREATE TABLE metrics_6 (LIKE metrics INCLUDING ALL) PARTITION BY LIST (id);
CREATE TABLE metrics_6_all PARTITION OF metrics_6 DEFAULT;
ALTER TABLE metrics ATTACH PARTITION metrics_6 FOR VALUES FROM ('2024-06-01') TO ('2024-07-01');
CREATE TABLE metrics_rest PARTITION OF metrics DEFAULT;
CREATE TABLE metrics_3_rest PARTITION OF metrics_3 DEFAULT;
:flush_triggers;
:mark \gset
INSERT INTO metrics VALUES (4, '2024-04-04', 1), (5, '2024-05-06', 2), (6, '2024-06-06', 3), (9, '2030-01-01', 4), (9, '2024-03-09', 5);
UPDATE metrics_5 SET value = 51 WHERE value = 50;
INSERT INTO metrics_rest VALUES (10, '2030-01-01', 6);
:news;

-- TRUNCATE of the root is one entry, of a partition one that names it
:mark \gset
TRUNCATE metrics_4;
TRUNCATE metrics_3;
TRUNCATE metrics_5, metrics_6;
BEGIN;
TRUNCATE metrics_4;
TRUNCATE metrics_4;
TRUNCATE metrics;
ROLLBACK;
TRUNCATE metrics;
TRUNCATE metrics_4, metrics;
:news;

-- DETACH: no more entries, and its triggers are gone; DROP is seen too
INSERT INTO metrics VALUES (1, '2024-01-01', 1), (4, '2024-04-04', 1);
:mark \gset
ALTER TABLE metrics DETACH PARTITION metrics_4;
INSERT INTO metrics_4 VALUES (4, '2024-04-05', 2);
TRUNCATE metrics_4;
DROP TABLE metrics_4;
ALTER TABLE metrics_3 DETACH PARTITION metrics_3_even;
ALTER TABLE metrics DETACH PARTITION metrics_3;
INSERT INTO metrics_3_odd VALUES (1, '2024-03-01', 1);
DROP TABLE metrics_1;
DROP TABLE metrics_6;
:news;
:flush_triggers;
-- attached again it is part of the table again
:mark \gset
ALTER TABLE metrics ATTACH PARTITION metrics_3 FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
INSERT INTO metrics VALUES (3, '2024-03-03', 3);
INSERT INTO metrics_3_odd VALUES (5, '2024-03-03', 3);
:news;
-- in one transaction, and undone
:mark \gset
BEGIN;
ALTER TABLE metrics DETACH PARTITION metrics_3;
DROP TABLE metrics_2;
ROLLBACK;
INSERT INTO metrics VALUES (1, '2024-03-05', 3), (1, '2024-02-05', 3);
:news;
-- DETACH CONCURRENTLY
DROP TABLE metrics_rest;
:mark \gset
ALTER TABLE metrics DETACH PARTITION metrics_2 CONCURRENTLY;
INSERT INTO metrics_2 VALUES (2, '2024-02-06', 1);
INSERT INTO metrics VALUES (3, '2024-03-07', 3);
:news;
:flush_triggers;

-- hash partitions, a partition that is no table of its owner's
CREATE TABLE hashed (id int PRIMARY KEY, v int) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT rowkeeper.audit('hashed') \g /dev/null
:mark \gset
INSERT INTO hashed SELECT i, 0 FROM generate_series(1, 4) i;
UPDATE hashed SET id = id + 10;
SELECT action, record_id, old_data, new_data FROM rowkeeper.audit_log WHERE table_schema = 'audit_partitions' AND id > :seen
    ORDER BY action, record_id -> 'id';

-- audit_off() leaves nothing behind
SELECT rowkeeper.audit_off('metrics');
SELECT rowkeeper.audit_off('hashed') \g /dev/null
:flush_triggers;
SELECT count(*) FROM rowkeeper_log.partitions p JOIN rowkeeper_log.tables USING (table_id) WHERE table_schema = 'audit_partitions';

DROP SCHEMA audit_partitions CASCADE;
