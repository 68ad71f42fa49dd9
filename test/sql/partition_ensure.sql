-- partition_ensure(): a partition for what is about to be written.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA partition_ensure;
SET search_path = partition_ensure;
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE TABLE jobs (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
SELECT rowkeeper.partition('jobs', 'id', '10') \g /dev/null
INSERT INTO jobs VALUES (15, 'a');
-- there is one
SELECT rowkeeper.partition_ensure('jobs', 42);
-- there is none: it is made, and stays if the writer rolls back
BEGIN;
SELECT rowkeeper.partition_ensure('jobs', 55);
INSERT INTO jobs VALUES (55, 'b');
SELECT tableoid::regclass, * FROM jobs WHERE id = 55;
ROLLBACK;
SELECT rowkeeper.partition_ensure('jobs', '55'::text), to_regclass('jobs_p50');
-- also for who has written to the table before, in any isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO jobs VALUES (16, 'c');
SELECT rowkeeper.partition_ensure('jobs', 65::bigint);
INSERT INTO jobs VALUES (65, 'd');
COMMIT;
SELECT tableoid::regclass, * FROM jobs ORDER BY id;

-- keys of every type that a caller may have
CREATE TABLE moments (at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE walls (at timestamp) PARTITION BY RANGE (at);
CREATE TABLE days (day date) PARTITION BY RANGE (day);
CREATE TABLE uuids (id uuid) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('moments', 'at', '1 day', keep => '30 days');
SELECT count(*) FROM rowkeeper.partition('walls', 'at', '1 day', timezone => 'Asia/Tokyo');
SELECT count(*) FROM rowkeeper.partition('days', 'day', '1 day');
SELECT count(*) FROM rowkeeper.partition('uuids', 'id', '1 day');
SELECT rowkeeper.partition_ensure('moments', now()) = 'partition_ensure.moments_p' || to_char(now(), 'YYYYMMDD') AS moment;
SELECT rowkeeper.partition_ensure('moments', (now() - interval '3 days')::text) = 'partition_ensure.moments_p' || to_char(now() - interval '3 days', 'YYYYMMDD') AS earlier;
SELECT rowkeeper.partition_ensure('moments', now()::timestamp) = 'partition_ensure.moments_p' || to_char(now(), 'YYYYMMDD') AS wall;
SELECT rowkeeper.partition_ensure('walls', now()) = 'partition_ensure.walls_p' || to_char(now() AT TIME ZONE 'Asia/Tokyo', 'YYYYMMDD') AS moment;
SELECT rowkeeper.partition_ensure('days', (now() + interval '2 days')::timestamp) = 'partition_ensure.days_p' || to_char(now() + interval '2 days', 'YYYYMMDD') AS day;
SELECT rowkeeper.partition_ensure('uuids', overlay(overlay(md5('x') PLACING lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') FROM 1) PLACING '7' FROM 13)::uuid) = 'partition_ensure.uuids_p' || to_char(now(), 'YYYYMMDD') AS uuid;

-- out of reach
SELECT rowkeeper.partition_ensure('jobs', 1000000);
SELECT rowkeeper.partition_ensure('moments', now() - interval '31 days');
SELECT rowkeeper.partition_ensure('moments', now() + interval '1 year');
SELECT rowkeeper.partition_ensure('moments', 5::bigint);
SELECT rowkeeper.partition_ensure('jobs', now());
SELECT rowkeeper.partition_ensure('jobs', 'no number'::text);
SELECT rowkeeper.partition_ensure('jobs', NULL::text);
CREATE TABLE plain (id int);
SELECT rowkeeper.partition_ensure('plain', 1::bigint);

-- a lock of the caller's own that the worker would wait for
CREATE TABLE accounts (id int PRIMARY KEY);
CREATE TABLE bookings (id int PRIMARY KEY, account int REFERENCES accounts) PARTITION BY RANGE (id);
SELECT rowkeeper.partition('bookings', 'id', '10') \g /dev/null
BEGIN;
INSERT INTO accounts VALUES (1);
SELECT rowkeeper.partition_ensure('bookings', 5::bigint);
ROLLBACK;
BEGIN;
ALTER TABLE jobs ALTER v SET STATISTICS 10;
SELECT rowkeeper.partition_ensure('jobs', 75::bigint);
ROLLBACK;
BEGIN;
SELECT rowkeeper.partition_ensure('bookings', 5::bigint);
INSERT INTO accounts VALUES (1);
INSERT INTO bookings VALUES (5, 1);
COMMIT;

-- what lies at no time, or before the first one that a partition begins at
CREATE TABLE clocks (at timestamp) PARTITION BY RANGE (at);
SELECT count(*) FROM rowkeeper.partition('clocks', 'at', '1 month');
SELECT rowkeeper.partition_ensure('clocks', 'infinity'::timestamptz);
SELECT rowkeeper.partition_ensure('clocks', '-infinity'::timestamp);
SELECT rowkeeper.partition_ensure('clocks', 'infinity');
SELECT rowkeeper.partition_ensure('clocks', '4000-01-01 BC'::timestamp);
SELECT rowkeeper.partition_ensure('clocks', '1815-06-18'::timestamp);

-- who may: who may write
CREATE ROLE regress_rk_writer;
CREATE ROLE regress_rk_reader;
GRANT USAGE ON SCHEMA partition_ensure TO regress_rk_writer, regress_rk_reader;
GRANT INSERT ON jobs TO regress_rk_writer;
GRANT SELECT ON jobs TO regress_rk_reader;
SET ROLE regress_rk_reader;
SELECT rowkeeper.partition_ensure('jobs', 75::bigint);
SET ROLE regress_rk_writer;
SELECT rowkeeper.partition_ensure('jobs', 75::bigint);
INSERT INTO jobs VALUES (75, 'w');
RESET ROLE;

DROP SCHEMA partition_ensure CASCADE;
DROP OWNED BY regress_rk_reader, regress_rk_writer;
DROP ROLE regress_rk_reader, regress_rk_writer;
