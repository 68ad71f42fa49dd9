-- Partitions that are no longer kept: dropped, detached or archived, and each
-- drop is an entry in the log of an audited table.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA partition_retention;
CREATE SCHEMA partition_archive;
SET search_path = partition_retention;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '(null)'
CREATE FUNCTION leaves(t regclass) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY length(inhrelid::regclass::text), inhrelid::regclass::text)
    FROM pg_inherits WHERE inhparent = t
$$;
\set runs 'SELECT table_name, task, changed, error FROM rowkeeper.maintain_log WHERE table_schema = ''partition_retention'' ORDER BY ran_at'

-- ten partitions, the eighth is the newest that has rows: what is kept decides
CREATE TABLE jobs (id int PRIMARY KEY, v text, CHECK (v <> '')) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('jobs', 'id', '10', ahead => '95');
INSERT INTO jobs SELECT n, 'v' FROM generate_series(0, 79) n;
SELECT rowkeeper.audit('jobs') \g /dev/null
SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log \gset
SELECT count(*) FROM rowkeeper.partition('jobs', ahead => '20', keep => '40');
SELECT rowkeeper.partition_plan('jobs');
CALL rowkeeper.maintain('jobs');
SELECT leaves('jobs');
:runs;
SELECT action, context, new_data FROM rowkeeper.audit_log WHERE id > :seen ORDER BY id;
SELECT action, count(*) FROM rowkeeper.audit_log WHERE id > :seen GROUP BY 1 ORDER BY 1;
SELECT count(*), min(id) FROM jobs;
SELECT * FROM rowkeeper._partition_intents;

-- detached: an ordinary table, with the constraints that it had
SELECT count(*) FROM rowkeeper.partition('jobs', keep => '30', on_expiry => 'detach');
CALL rowkeeper.maintain('jobs');
SELECT leaves('jobs');
\d jobs_p30
SELECT count(*) FROM jobs_p30;
-- archived
SELECT count(*) FROM rowkeeper.partition('jobs', keep => '20', on_expiry => 'archive', archive_schema => 'partition_archive');
SELECT rowkeeper.partition_plan('jobs');
CALL rowkeeper.maintain('jobs');
SELECT leaves('jobs');
\d partition_archive.jobs_p40
SELECT action, count(*) FROM rowkeeper.audit_log WHERE id > :seen GROUP BY 1 ORDER BY 1;

-- one wrong row does not make all that was before it old
CREATE TABLE wrong (id bigint) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('wrong', 'id', '10', ahead => '95');
SELECT count(*) FROM rowkeeper.partition('wrong', ahead => '5', keep => '20');
CREATE TABLE wrong_far PARTITION OF wrong FOR VALUES FROM (1000000) TO (1000010);
INSERT INTO wrong VALUES (1), (1000001);
CALL rowkeeper.maintain('wrong');
SELECT error FROM rowkeeper.maintain_log WHERE table_name = 'wrong' AND error IS NOT NULL ORDER BY ran_at;
SELECT count(*) FROM wrong;
SELECT level, check_name, detail, remedy FROM rowkeeper.doctor('partition_retention', 'partition');
-- unless it is said to be right
CALL rowkeeper.maintain('wrong', force => true);
SELECT leaves('wrong');

-- nor does a clock that jumps ahead, though empty partitions are made first
CREATE TABLE jumped (at date) PARTITION BY RANGE (at);
SELECT format('CREATE TABLE jumped_%s PARTITION OF jumped FOR VALUES FROM (%L) TO (%L)', n,
        '2001-01-01'::date + n, '2001-01-01'::date + n + 1) FROM generate_series(1, 4) n \gexec
INSERT INTO jumped SELECT '2001-01-01'::date + n FROM generate_series(1, 4) n;
SELECT count(*) FROM rowkeeper.partition('jumped', keep => '10 days');
CALL rowkeeper.maintain('jumped');
SELECT count(*) FROM jumped;
SELECT split_part(error, E'\n', 1) AS error FROM rowkeeper.maintain_log WHERE table_name = 'jumped' AND error IS NOT NULL;
-- of one after the other there is no doubt
TRUNCATE jumped_2, jumped_3, jumped_4;
CALL rowkeeper.maintain('jumped');
SELECT count(*) FROM jumped;

-- a partition that is elsewhere
CREATE FOREIGN DATA WRAPPER partition_elsewhere;
CREATE SERVER partition_elsewhere FOREIGN DATA WRAPPER partition_elsewhere;
CREATE TABLE partly (id int) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('partly', 'id', '10', ahead => '55');
DROP TABLE partly_p0;
CREATE FOREIGN TABLE partly_p0 PARTITION OF partly FOR VALUES FROM (0) TO (10) SERVER partition_elsewhere;
INSERT INTO partly SELECT n FROM generate_series(10, 49) n;
SELECT count(*) FROM rowkeeper.partition('partly', ahead => '20', keep => '20');
SELECT rowkeeper.partition_plan('partly');
CALL rowkeeper.maintain('partly');
SELECT leaves('partly'), to_regclass('partly_p0');
SET client_min_messages = error;
DROP FOREIGN DATA WRAPPER partition_elsewhere CASCADE;
SET client_min_messages = warning;

-- with a default partition a concurrent detach cannot be
CREATE TABLE fallback (id int) PARTITION BY RANGE (id);
CREATE TABLE fallback_default PARTITION OF fallback DEFAULT;
SELECT count(*) FROM rowkeeper.partition('fallback', 'id', '10', ahead => '95');
CALL rowkeeper.maintain('fallback');
INSERT INTO fallback VALUES (35);
SELECT count(*) FROM rowkeeper.partition('fallback', ahead => '10', keep => '10');
SELECT rowkeeper.partition_plan('fallback');
CALL rowkeeper.maintain('fallback');
SELECT leaves('fallback');

-- foreign keys out and in
CREATE TABLE accounts (id int PRIMARY KEY);
CREATE TABLE bookings (id int PRIMARY KEY, account int REFERENCES accounts) PARTITION BY RANGE (id);
CREATE TABLE receipts (id int PRIMARY KEY, booking int REFERENCES bookings);
SELECT count(*) FROM rowkeeper.partition('bookings', 'id', '10', ahead => '95', keep => '20');
CREATE INDEX receipts_booking ON receipts (booking, id);
SELECT count(*) FROM rowkeeper.partition('bookings', 'id', '10', ahead => '95');
CALL rowkeeper.maintain('bookings');
INSERT INTO accounts VALUES (1);
INSERT INTO bookings VALUES (1, 1), (11, 1), (21, 1), (31, 1), (45, 1);
INSERT INTO receipts VALUES (1, 11);
SELECT count(*) FROM rowkeeper.partition('bookings', keep => '20', ahead => '20');
CALL rowkeeper.maintain('bookings');
-- what is still referenced stays, and is a failure that says why
SELECT leaves('bookings');
SELECT task, changed, split_part(error, '_fkey', 1) AS error FROM rowkeeper.maintain_log WHERE table_name = 'bookings' ORDER BY ran_at;
DELETE FROM receipts;
CALL rowkeeper.maintain('bookings');
SELECT leaves('bookings');
DROP INDEX receipts_booking;
SELECT check_name, level, detail, remedy FROM rowkeeper.doctor('partition_retention', 'partition') WHERE object ~ 'bookings';
CREATE INDEX receipts_booking ON receipts (booking, id);
SELECT count(*) FROM rowkeeper.doctor('partition_retention', 'partition') WHERE object ~ 'bookings';

-- partitions of partitions go with theirs
CREATE TABLE deep (id int) PARTITION BY RANGE (id);
CREATE TABLE deep_p0 PARTITION OF deep FOR VALUES FROM (0) TO (10) PARTITION BY HASH (id);
CREATE TABLE deep_p0_0 PARTITION OF deep_p0 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT count(*) FROM rowkeeper.partition('deep', ahead => '55');
INSERT INTO deep VALUES (25);
SELECT count(*) FROM rowkeeper.partition('deep', keep => '10', ahead => '10');
CALL rowkeeper.maintain('deep');
SELECT relid FROM pg_partition_tree('deep') ORDER BY relid::regclass::text COLLATE "C";
SELECT to_regclass('deep_p0'), to_regclass('deep_p0_0');

-- something of the user's hangs on it: a failure, and nothing is lost
CREATE TABLE viewed (id int) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('viewed', 'id', '10', ahead => '95');
CREATE VIEW of_one AS SELECT * FROM viewed_p0;
INSERT INTO viewed VALUES (1), (15), (25);
SELECT count(*) FROM rowkeeper.partition('viewed', keep => '10', ahead => '10');
CALL rowkeeper.maintain('viewed');
SELECT changed, split_part(error, E'\n', 1) AS error FROM rowkeeper.maintain_log WHERE table_name = 'viewed' ORDER BY ran_at;
SELECT * FROM of_one;
DROP VIEW of_one;
CALL rowkeeper.maintain('viewed');
SELECT to_regclass('viewed_p0'), leaves('viewed');

-- pages that nobody has a row in expire nothing
CREATE TABLE tried (id int) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('tried', 'id', '10', keep => '20');
INSERT INTO tried VALUES (1), (11), (21);
BEGIN;
INSERT INTO tried VALUES (42);
ROLLBACK;
CALL rowkeeper.maintain('tried');
SELECT * FROM tried ORDER BY id;
SELECT count(*) FROM rowkeeper.partition_plan('tried');
INSERT INTO tried VALUES (42);
SELECT rowkeeper.partition_plan('tried');
CALL rowkeeper.maintain('tried');
SELECT * FROM tried ORDER BY id;

-- kept for ever, by default
CREATE TABLE kept (at date) PARTITION BY RANGE (at);
CREATE TABLE kept_1 PARTITION OF kept FOR VALUES FROM ('2001-01-01') TO ('2002-01-01');
SELECT count(*) > 0 AS made FROM rowkeeper.partition('kept');
CALL rowkeeper.maintain('kept');
SELECT to_regclass('kept_1');
SELECT count(*) FROM rowkeeper.partition('kept', keep => '10 years');
CALL rowkeeper.maintain('kept');
SELECT to_regclass('kept_1');

SET client_min_messages = warning;
DELETE FROM rowkeeper._maintain_log WHERE table_schema = 'partition_retention';
DROP SCHEMA partition_retention, partition_archive CASCADE;
