-- What partition() is told: an option that is not named stays as it is, and bad
-- input is an error at the call, which names the option.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA partition_options;
CREATE SCHEMA partition_archive;
SET search_path = partition_options;
SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE TABLE by_id (id int PRIMARY KEY, other int) PARTITION BY RANGE (id);
CREATE TABLE by_time (at timestamptz, id int) PARTITION BY RANGE (at);
CREATE TABLE by_day (day date) PARTITION BY RANGE (day);
CREATE TABLE by_uuid (id uuid) PARTITION BY RANGE (id);
CREATE TABLE by_second (at bigint) PARTITION BY RANGE (at);
RESET client_min_messages;
\pset null '(null)'
\set options 'SELECT options FROM rowkeeper.features WHERE target = ''by_id''::regclass'

SELECT count(*) FROM rowkeeper.partition('by_id', 'id', '1000', keep => '5000');
:options;
SELECT rowkeeper.partition('by_id', ahead => '2000', on_expiry => 'archive', archive_schema => 'partition_archive');
:options;
SELECT rowkeeper.partition('by_id', on_expiry => 'detach', brin => true);
SELECT rowkeeper.partition('by_id', keep => '0', partition_schema => 'partition_archive');
:options;
-- another length holds for the next ones
SELECT rowkeeper.partition('by_id', every => '10', ahead => '30', brin => false);
INSERT INTO by_id VALUES (4990), (2001);
SELECT rowkeeper.partition_plan('by_id');

-- every, ahead, keep
SELECT rowkeeper.partition('by_time', 'at', '1');
SELECT rowkeeper.partition('by_time', 'at', '0.5');
SELECT rowkeeper.partition('by_time', 'at', '');
SELECT rowkeeper.partition('by_time', 'at', 'monthly please');
SELECT rowkeeper.partition('by_time', 'at', '0 days');
SELECT rowkeeper.partition('by_time', 'at', '-1 day');
SELECT rowkeeper.partition('by_time', 'at', '1 month -1 day');
SELECT rowkeeper.partition('by_time', 'at', '1 month 1 day');
SELECT rowkeeper.partition('by_time', 'at', '1 day 12:00');
SELECT rowkeeper.partition('by_time', 'at');
SELECT rowkeeper.partition('by_time', 'at', '1 day', ahead => '7');
SELECT rowkeeper.partition('by_time', 'at', '1 day', ahead => '0 days');
SELECT rowkeeper.partition('by_time', 'at', '1 day', ahead => '1000 years');
SELECT rowkeeper.partition('by_time', 'at', '1 day', keep => '-3 months');
SELECT rowkeeper.partition('by_time', 'at', '1 day', keep => '100000 years');
SELECT rowkeeper.partition('by_time', 'at', '1 day', ahead => '100000 years');
SELECT rowkeeper.partition('by_time', 'at', '1 day', keep => '90');
SELECT rowkeeper.partition('by_time', 'at', '1 day', keep => 'a while');
SELECT rowkeeper.partition('by_day', 'day', '6 hours');
SELECT rowkeeper.partition('by_second', 'at', '1500 ms', epoch => 's');
SELECT rowkeeper.partition('by_time', 'at', '0.5 seconds');
SELECT rowkeeper.partition('by_id', every => '1 month');
SELECT rowkeeper.partition('by_id', every => '0');
SELECT rowkeeper.partition('by_id', every => '-1000');
SELECT rowkeeper.partition('by_id', every => '1e6');
SELECT rowkeeper.partition('by_id', every => '99999999999999999999');
SELECT rowkeeper.partition('by_id', ahead => 'four');
SELECT rowkeeper.partition('by_id', keep => '30 days');
-- by
SELECT rowkeeper.partition('by_time', 'gone', '1 day');
SELECT rowkeeper.partition('by_time', 'id', '1 day');
-- on_expiry, schemas
SELECT rowkeeper.partition('by_time', 'at', '1 day', on_expiry => 'delete');
SELECT rowkeeper.partition('by_time', 'at', '1 day', on_expiry => 'archive');
SELECT rowkeeper.partition('by_time', 'at', '1 day', on_expiry => 'archive', archive_schema => 'nowhere');
SELECT rowkeeper.partition('by_time', 'at', '1 day', partition_schema => 'nowhere');
-- timezone, epoch
SELECT rowkeeper.partition('by_time', 'at', '1 day', timezone => 'Mars/Olympus');
SELECT rowkeeper.partition('by_time', 'at', '1 day', timezone => '');
SELECT rowkeeper.partition('by_time', 'at', '1 day', epoch => 's');
SELECT rowkeeper.partition('by_second', 'at', '1 day', epoch => 'weeks');
SELECT rowkeeper.partition('by_second', 'at', '1 day', epoch => 'snowflake');
SELECT rowkeeper.partition('by_second', 'at', '1 day', epoch => 'snowflake:1288834974657:99');
SELECT rowkeeper.partition('by_second', 'at', '1 day', epoch => 'snowflake:-5:22');
SELECT rowkeeper.partition('by_id', every => '1 day', epoch => 'snowflake:1288834974657:22');
SELECT rowkeeper.partition('by_second', 'at', '1 day', epoch => 'uuidv7');
SELECT rowkeeper.partition('by_second', 'at', '1 day');
-- nothing of all this was kept
:options;
SELECT count(*) FROM rowkeeper.features WHERE target IN ('by_time'::regclass, 'by_day'::regclass, 'by_second'::regclass);
SELECT count(*) FROM pg_inherits WHERE inhparent IN ('by_time'::regclass, 'by_day'::regclass, 'by_second'::regclass);

-- partitions that begin at nobody's midnight
CREATE TABLE odd (at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE odd_1 PARTITION OF odd FOR VALUES FROM ('2026-01-01 04:30+00') TO ('2026-01-02 04:30+00');
SELECT rowkeeper.partition('odd');
SELECT count(*) > 0 AS made FROM rowkeeper.partition('odd', timezone => 'Asia/Kolkata');
-- uuids of another version
INSERT INTO by_uuid VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11');
CREATE TABLE by_uuid_old PARTITION OF by_uuid DEFAULT;
INSERT INTO by_uuid VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11');
SELECT rowkeeper.partition('by_uuid', 'id', '1 day');

-- what cannot be maintained
CREATE TABLE plain (id int);
CREATE TABLE listed (id int) PARTITION BY LIST (id);
CREATE TABLE hashed (id int) PARTITION BY HASH (id);
CREATE TABLE two (a int, b int) PARTITION BY RANGE (a, b);
CREATE TABLE expression (a int) PARTITION BY RANGE ((a / 10));
CREATE TABLE worded (a text) PARTITION BY RANGE (a);
CREATE VIEW viewed AS SELECT 1 AS id;
CREATE TEMP TABLE passing (id int) PARTITION BY RANGE (id);
SELECT rowkeeper.partition('listed', 'id', '10');
SELECT rowkeeper.partition('hashed', 'id', '10');
SELECT rowkeeper.partition('two', 'a', '10');
SELECT rowkeeper.partition('expression', 'a', '10');
SELECT rowkeeper.partition('worded', 'a', '10');
SELECT rowkeeper.partition('viewed', 'id', '10');
\set VERBOSITY sqlstate
SELECT rowkeeper.partition('passing', 'id', '10');
\set VERBOSITY default
SELECT rowkeeper.partition('pg_class', 'oid', '10');
SELECT rowkeeper.partition('by_id_p0');
SELECT rowkeeper.partition(NULL, 'id', '10');
SELECT rowkeeper.partition_plan('plain');

-- names that are taken; nothing is half-made
CREATE TABLE taken (id int) PARTITION BY RANGE (id);
CREATE TABLE taken_p20 (id int);
SELECT rowkeeper.partition('taken', 'id', '10');
SELECT count(*) FROM pg_inherits WHERE inhparent = 'taken'::regclass;
-- and odd ones
CREATE TABLE "Order Items" ("Line No" int) PARTITION BY RANGE ("Line No");
SELECT rowkeeper.partition('"Order Items"', 'Line No', '10', ahead => '5');
CREATE TABLE a_table_whose_name_is_as_long_as_a_name_can_be_which_is_63_bytes (id int) PARTITION BY RANGE (id);
CREATE TABLE a_table_whose_name_is_as_long_as_a_name_can_be_which_is_64_bytes (id int) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('a_table_whose_name_is_as_long_as_a_name_can_be_which_is_63_bytes', 'id', '10');
SELECT count(*) FROM rowkeeper.partition('a_table_whose_name_is_as_long_as_a_name_can_be_which_is_64_bytes', 'id', '10');
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent::regclass::text ~ '^a_table' ORDER BY 1;

-- who may
CREATE ROLE regress_rk_owner;
CREATE ROLE regress_rk_other;
GRANT USAGE ON SCHEMA partition_options TO regress_rk_owner, regress_rk_other;
CREATE TABLE owned (id int) PARTITION BY RANGE (id);
ALTER TABLE owned OWNER TO regress_rk_owner;
SET ROLE regress_rk_other;
SELECT rowkeeper.partition('owned', 'id', '10');
SELECT rowkeeper.partition_plan('owned');
SELECT rowkeeper.partition_off('owned');
SET ROLE regress_rk_owner;
SELECT rowkeeper.partition('owned', 'id', '10');
SELECT rowkeeper.partition('owned', 'id', '10', partition_schema => 'partition_archive');
RESET ROLE;
SELECT rowkeeper.partition('owned', 'id', '10', archive_schema => 'partition_archive');
GRANT CREATE ON SCHEMA partition_options TO regress_rk_owner;
SELECT count(*) FROM rowkeeper.partition('owned', 'id', '10');
SELECT DISTINCT c.relowner::regrole FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'owned'::regclass;
-- whose schema it is: who owns it could drop what is in it
CREATE SCHEMA partition_others AUTHORIZATION regress_rk_other;
GRANT ALL ON SCHEMA partition_others TO PUBLIC;
SELECT rowkeeper.partition('owned', partition_schema => 'partition_others');
SELECT rowkeeper.partition('owned', on_expiry => 'archive', archive_schema => 'partition_others');
-- a schema is followed to its new name, and who takes the old one gets nothing
SELECT count(*) FROM rowkeeper.partition('by_id', archive_schema => 'partition_archive', partition_schema => 'partition_archive');
ALTER SCHEMA partition_archive RENAME TO partition_archived;
ALTER SCHEMA partition_others RENAME TO partition_archive;
SELECT options ->> 'partition_schema' AS partitions, options ->> 'archive_schema' AS archive
FROM rowkeeper._partition_tables WHERE table_name = 'by_id';
UPDATE rowkeeper._partition_tables SET options = options || '{"partition_schema": "partition_archive"}' WHERE table_name = 'owned';
DROP TABLE owned_p0;
CALL rowkeeper.maintain('owned');
SELECT error FROM rowkeeper.maintain_log WHERE table_name = 'owned';

SET client_min_messages = warning;
DELETE FROM rowkeeper._maintain_log WHERE table_name = 'owned';
DROP SCHEMA partition_options, partition_archive, partition_archived CASCADE;
DROP ROLE regress_rk_owner, regress_rk_other;
