-- What the doctor finds of stamps, each thing broken and mended; what it says
-- of triggers written by hand is in stamp_triggers.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA stamp_doctor;
SET search_path = stamp_doctor;
\pset format unaligned
\set findings 'SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor(''stamp_doctor'', ''stamp'') ORDER BY detail COLLATE "C"'
CREATE TABLE orders (id int PRIMARY KEY, status text, updated_at timestamptz, version int);
SELECT rowkeeper.stamp('orders') \g /dev/null
:findings;
SELECT rowkeeper.doctor_assert('info', 'stamp_doctor', 'stamp');

-- the trigger does not fire, or fires for replicated rows, too
ALTER TABLE orders DISABLE TRIGGER USER;
:findings;
SELECT healthy, detail FROM rowkeeper.features WHERE target = 'orders'::regclass;
SELECT rowkeeper.doctor_assert(schema => 'stamp_doctor');
SELECT remedy FROM rowkeeper.doctor('stamp_doctor') ORDER BY detail COLLATE "C" \gexec
ALTER TABLE orders ENABLE REPLICA TRIGGER "~rowkeeper_stamp";
:findings;
ALTER TABLE orders ENABLE ALWAYS TRIGGER "~rowkeeper_stamp";
:findings;
SELECT remedy FROM rowkeeper.doctor('stamp_doctor') ORDER BY detail COLLATE "C" \gexec
:findings;

-- an index that every update changes
CREATE INDEX by_time ON orders (updated_at);
CREATE INDEX by_expression ON orders ((version + 1), id);
CREATE INDEX by_predicate ON orders (id) WHERE updated_at > '2020-01-01';
CREATE UNIQUE INDEX by_both ON orders (id, version) INCLUDE (updated_at);
CREATE INDEX by_status ON orders (status);
:findings;
SELECT remedy FROM rowkeeper.doctor('stamp_doctor') ORDER BY detail COLLATE "C" \gexec
:findings;
DROP INDEX by_both;
CREATE TABLE parts (id int, updated_at timestamptz) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
CREATE INDEX of_all ON parts (updated_at);
CREATE INDEX of_one ON parts_2 (id) WHERE updated_at IS NOT NULL;
SELECT rowkeeper.stamp('parts') \g /dev/null
:findings;
DROP TABLE parts;

-- a time without its zone
CREATE DOMAIN local_time AS timestamp;
CREATE TABLE local (id int, updated_at timestamp, created_at local_time);
SELECT rowkeeper.stamp('local', created_at => 'created_at') \g /dev/null
:findings;
SELECT remedy FROM rowkeeper.doctor('stamp_doctor') ORDER BY detail COLLATE "C" \gexec
:findings;

-- who may not see the table is told nothing of it
ALTER TABLE orders DISABLE TRIGGER USER;
CREATE ROLE regress_rk_stranger;
SET ROLE regress_rk_stranger;
:findings;
SELECT count(*) FROM rowkeeper.features WHERE feature = 'stamp';
RESET ROLE;

DROP SCHEMA stamp_doctor CASCADE;
DROP ROLE regress_rk_stranger;
