-- Partitions that are there before they are needed, and gone when they are old.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA partition;
SET search_path = partition;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null '(null)'
-- the partitions of a table: by their bounds, in their order
CREATE FUNCTION bounds(t regclass) RETURNS TABLE (name name, bound text) LANGUAGE sql STABLE AS $$
    SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = t ORDER BY length(pg_get_expr(c.relpartbound, c.oid)), pg_get_expr(c.relpartbound, c.oid)
$$;

-- ids: five partitions, the first for what is to come now
CREATE TABLE jobs (id bigint PRIMARY KEY, payload text) PARTITION BY RANGE (id);
SELECT rowkeeper.partition('jobs', 'id', '1000');
SELECT * FROM bounds('jobs');
-- the same again changes nothing
SELECT rowkeeper.partition('jobs', 'id', '1000');
SELECT rowkeeper.partition('jobs');
-- data moves on, and so do they
INSERT INTO jobs VALUES (1, 'a'), (2500, 'b');
SELECT rowkeeper.partition_plan('jobs');
CALL rowkeeper.maintain('jobs');
SELECT * FROM bounds('jobs');
SELECT table_schema, table_name, task, changed, error FROM rowkeeper.maintain_log WHERE table_schema = 'partition' ORDER BY ran_at;
-- an idle run leaves no row
CALL rowkeeper.maintain('jobs');
SELECT count(*) FROM rowkeeper.maintain_log WHERE table_schema = 'partition';
SELECT rowkeeper.partition_plan('jobs');

-- old ones go
SELECT rowkeeper.partition('jobs', keep => '1000');
SELECT rowkeeper.partition_plan('jobs');
CALL rowkeeper.maintain('jobs');
SELECT * FROM bounds('jobs');
SELECT to_regclass('jobs_p0');
SELECT table_name, task, changed, error FROM rowkeeper.maintain_log WHERE table_schema = 'partition' ORDER BY ran_at;
SELECT * FROM jobs;

-- a month each
CREATE TABLE metrics (recorded_at timestamptz NOT NULL, value int) PARTITION BY RANGE (recorded_at);
SELECT count(*) FROM rowkeeper.partition('metrics', 'recorded_at', '1 month');
SELECT count(*),
    bool_and(name = 'metrics_p' || to_char(date_trunc('month', now()) + (n - 1) * interval '1 month', 'YYYYMMDD')) AS named,
    bool_and(bound = format('FOR VALUES FROM (%L) TO (%L)', date_trunc('month', now()) + (n - 1) * interval '1 month',
        date_trunc('month', now()) + n * interval '1 month')) AS placed
FROM (SELECT *, row_number() OVER () AS n FROM bounds('metrics')) x;
INSERT INTO metrics VALUES (now(), 1), (now() + interval '3 months', 2);
SELECT count(DISTINCT tableoid) FROM metrics;
-- what is written ahead counts, and no more than is made ahead
CALL rowkeeper.maintain('metrics');

-- what is on, and how it is
SELECT feature, target, call, healthy, detail FROM rowkeeper.features WHERE target::text ~ '^(jobs|metrics)$' ORDER BY 2;
SELECT table_name, every, partitions, covered_until, gap_from, default_rows, pending_detach, drift,
    last_run IS NOT NULL AS ran, last_error, next_action
FROM rowkeeper.partition_status WHERE table_name = 'jobs';
SELECT partitions, covered_until::timestamptz = date_trunc('month', now()) + interval '8 months' AS covered, next_action
FROM rowkeeper.partition_status WHERE table_name = 'metrics';
SELECT * FROM rowkeeper.doctor('partition', 'partition');

-- a table that has partitions shows how they go on: their length and their names stay
CREATE TABLE events (id int, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE "Ancient Events" PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE events_now PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
SELECT count(*) > 4 AS years FROM rowkeeper.partition('events', ahead => '2 years');
SELECT * FROM bounds('events') LIMIT 4;
SELECT options ->> 'every' AS every, options ->> 'ahead' AS ahead FROM rowkeeper.features WHERE target = 'events'::regclass;

-- off: they stay
SELECT rowkeeper.partition_off('jobs');
SELECT rowkeeper.partition_off('jobs');
SELECT rowkeeper.partition_off(NULL);
INSERT INTO jobs VALUES (4500, 'c');
CALL rowkeeper.maintain('jobs');
SELECT count(*) FROM bounds('jobs');
SELECT count(*) FROM rowkeeper.features WHERE target = 'jobs'::regclass;
-- leave() of the table takes this feature, too
SELECT rowkeeper.leave('metrics');
SELECT count(*) FROM bounds('metrics');
-- a table that is dropped is forgotten
DROP TABLE events;
SELECT * FROM rowkeeper._partition_tables WHERE table_name = 'events';
-- a table that gets another name is maintained under it
CREATE SCHEMA partition_elsewhere;
CREATE TABLE "Moving" (id int) PARTITION BY RANGE (id);
CREATE TABLE still (id int) PARTITION BY RANGE (id);
SELECT count(*) FROM rowkeeper.partition('"Moving"', 'id', '10');
SELECT count(*) FROM rowkeeper.partition('still', 'id', '10');
ALTER TABLE "Moving" RENAME id TO key;
ALTER TABLE "Moving" RENAME TO moved;
ALTER TABLE moved SET SCHEMA partition_elsewhere;
SELECT target, call FROM rowkeeper.features WHERE feature = 'partition' AND target::text ~ 'mov|still' ORDER BY 1;
ALTER TABLE partition_elsewhere.moved SET SCHEMA partition;
ALTER TABLE still RENAME TO between;
ALTER TABLE moved RENAME TO still;
ALTER TABLE between RENAME TO moved;
ALTER SCHEMA partition_elsewhere RENAME TO partition_elsewhere_2;
ALTER TABLE still SET SCHEMA partition_elsewhere_2;
ALTER SCHEMA partition_elsewhere_2 RENAME TO partition_elsewhere;
SELECT target, call FROM rowkeeper.features WHERE feature = 'partition' AND target::text ~ 'mov|still' ORDER BY 1;
-- of one that went unheard nothing is left, should its name come again
ALTER EVENT TRIGGER rowkeeper_drop DISABLE;
DROP TABLE moved;
DROP TABLE partition_elsewhere.still;
ALTER EVENT TRIGGER rowkeeper_drop ENABLE ALWAYS;
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor('partition_elsewhere', 'partition');
CREATE TABLE moved (id int) PARTITION BY RANGE (id);
CREATE TABLE other (id int) PARTITION BY RANGE (id);
ALTER TABLE other RENAME TO still;
ALTER TABLE still SET SCHEMA partition_elsewhere;
SELECT table_name FROM rowkeeper._partition_tables WHERE table_name IN ('moved', 'still', 'other');
DROP TABLE moved;
DROP SCHEMA partition_elsewhere CASCADE;
-- a dry run
BEGIN;
SELECT count(*) FROM rowkeeper.partition('metrics', keep => '1 year');
ROLLBACK;
SELECT count(*) FROM rowkeeper.features WHERE target = 'metrics'::regclass;

SET client_min_messages = warning;
DELETE FROM rowkeeper._maintain_log WHERE table_schema = 'partition';
DROP SCHEMA partition CASCADE;
