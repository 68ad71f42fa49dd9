-- What doctor() finds about partitions: each of it is put there, found, and
-- mended with the remedy that it names.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA partition_doctor;
SET search_path = partition_doctor;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '(null)'
CREATE ROLE regress_rk_reader;
\set findings 'SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor(''partition_doctor'', ''partition'')'

CREATE TABLE jobs (id int PRIMARY KEY) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('jobs', 'id', '10');
:findings;
SELECT rowkeeper.doctor_assert('info', 'partition_doctor', 'partition');

-- ahead: few are left
DROP TABLE jobs_p20, jobs_p30, jobs_p40;
:findings;
CALL rowkeeper.maintain('partition_doctor.jobs');
:findings;
-- a gap
DROP TABLE jobs_p20;
:findings;
SELECT covered_until, gap_from, next_action FROM rowkeeper.partition_status WHERE table_schema = 'partition_doctor';
CALL rowkeeper.maintain('partition_doctor.jobs');
:findings;
-- nothing takes what is written now
CREATE TABLE metrics (at timestamptz) PARTITION BY RANGE (at);
SELECT count(*) FROM rowkeeper.partition('metrics', 'at', '1 day');
SELECT inhrelid::regclass AS today FROM pg_inherits WHERE inhparent = 'metrics'::regclass ORDER BY inhrelid::regclass::text LIMIT 1 \gset
DROP TABLE :today;
:findings;
SELECT feature, healthy, detail FROM rowkeeper.features WHERE target = 'metrics'::regclass;
SELECT rowkeeper.doctor_assert('error', 'partition_doctor', 'partition');
CALL rowkeeper.maintain('partition_doctor.metrics');
:findings;
-- or only the default one; rows in it
CREATE TABLE rest (id int) PARTITION BY RANGE (id);
CREATE TABLE rest_default PARTITION OF rest DEFAULT;
SELECT count(*) FROM rowkeeper.partition('rest', 'id', '10');
CALL rowkeeper.maintain('rest');
INSERT INTO rest SELECT n FROM generate_series(1000, 1010) n;
:findings;
SELECT default_rows FROM rowkeeper.partition_status WHERE table_name = 'rest';
-- in the way of a partition: a failure, and the others are made
INSERT INTO rest VALUES (41), (51);
SELECT count(*) FROM rowkeeper.partition('rest', ahead => '75');
CALL rowkeeper.maintain('rest');
:findings;
SELECT changed, split_part(error, E'\n', 1) AS error FROM rowkeeper.maintain_log WHERE table_schema = 'partition_doctor' AND table_name = 'rest' ORDER BY ran_at;
SELECT last_run IS NOT NULL AS ran, last_error FROM rowkeeper.partition_status WHERE table_name = 'rest';
DELETE FROM rest WHERE id > 30;
CALL rowkeeper.maintain('rest');
:findings;

-- rights and row security of a partition that are not the table's
ALTER TABLE jobs_p10 ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON jobs_p10 TO regress_rk_reader;
CREATE POLICY odd ON jobs_p0 USING (true);
ALTER TABLE jobs_p30 REPLICA IDENTITY FULL;
:findings;
SELECT drift FROM rowkeeper.partition_status WHERE table_name = 'jobs';
\set ECHO none
SELECT remedy FROM rowkeeper.doctor('partition_doctor', 'partition') \gexec
\set ECHO all
:findings;
ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON jobs FOR SELECT TO regress_rk_reader USING (jobs.id > 0);
GRANT SELECT ON jobs TO regress_rk_reader;
GRANT UPDATE (id) ON jobs TO regress_rk_reader;
SELECT count(*) FROM rowkeeper.doctor('partition_doctor', 'partition');
\set ECHO none
SELECT remedy FROM rowkeeper.doctor('partition_doctor', 'partition') \gexec
\set ECHO all
:findings;

-- what can be maintained no more
CREATE TABLE altered (at timestamptz) PARTITION BY RANGE (at);
SELECT count(*) FROM rowkeeper.partition('altered', 'at', '1 day', timezone => 'Europe/Berlin');
UPDATE rowkeeper._partition_tables SET options = options || '{"timezone": "Gone/Away"}' WHERE table_name = 'altered';
:findings;
SELECT table_name, next_action FROM rowkeeper.partition_status WHERE table_name = 'altered';
SELECT healthy, detail FROM rowkeeper.features WHERE target = 'altered'::regclass;
CALL rowkeeper.maintain('altered');
SELECT error FROM rowkeeper.maintain_log WHERE table_name = 'altered' ORDER BY ran_at;
SELECT rowkeeper.partition('altered', timezone => 'UTC');
CALL rowkeeper.maintain('altered');
SELECT rowkeeper.partition_off('altered');

-- who may see: who may SELECT
CREATE TABLE hidden (id int) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('hidden', 'id', '10');
DROP TABLE hidden_p10;
GRANT USAGE ON SCHEMA partition_doctor TO regress_rk_reader;
GRANT SELECT ON rest TO regress_rk_reader;
DROP TABLE rest_p80;
SET ROLE regress_rk_reader;
SELECT table_name FROM rowkeeper.partition_status WHERE table_schema = 'partition_doctor' ORDER BY 1;
SELECT target FROM rowkeeper.features WHERE feature = 'partition' ORDER BY 1;
SELECT object FROM rowkeeper.doctor('partition_doctor', 'partition');
SELECT default_rows FROM rowkeeper.partition_status WHERE table_name = 'rest';
SELECT * FROM rowkeeper._partition_tables;
RESET ROLE;

SET client_min_messages = warning;
DELETE FROM rowkeeper._maintain_log WHERE table_schema = 'partition_doctor';
DROP SCHEMA partition_doctor CASCADE;
DROP OWNED BY regress_rk_reader;
DROP ROLE regress_rk_reader;
