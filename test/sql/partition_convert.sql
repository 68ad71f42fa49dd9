-- A plain table becomes one with partitions: within a transaction while it is
-- small, by CALL while it is in use.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
RESET client_min_messages;
CREATE SCHEMA partition_convert;
SET search_path = partition_convert;
\pset null '(null)'

-- the way of a migration: small, empty in a CI database
BEGIN;
CREATE TABLE measures (id int PRIMARY KEY, v text);
CREATE INDEX ON measures (v);
INSERT INTO measures SELECT n, 'v' || n FROM generate_series(1, 25) n;
SELECT regexp_replace(step, 'rowkeeper_\d+', 'rowkeeper_<oid>', 'g') AS step FROM rowkeeper.partition('measures', 'id', '10') step;
COMMIT;
\d measures
\d measures_before_p40
SELECT tableoid::regclass, count(*) FROM measures GROUP BY 1;
INSERT INTO measures VALUES (39), (40) RETURNING tableoid::regclass;
SELECT rowkeeper.partition('measures', 'id', '10');
CALL rowkeeper.partition_convert('measures', 'id', '10');
SELECT every, partitions, covered_until, next_action FROM rowkeeper.partition_status WHERE table_schema = 'partition_convert';
SELECT * FROM rowkeeper.doctor('partition_convert');

-- a key of time; the primary key gets it, too
CREATE TABLE events (id bigserial PRIMARY KEY, created_at timestamptz NOT NULL DEFAULT now(), v text);
INSERT INTO events (created_at, v) SELECT now() - n * interval '1 day', n FROM generate_series(1, 100) n;
ANALYZE events;
SET rowkeeper.inline_rows = 50;
SELECT rowkeeper.partition('events', 'created_at', '1 month');
SELECT rowkeeper.partition('events');
BEGIN;
CALL rowkeeper.partition_convert('events', 'created_at', '1 month');
ROLLBACK;
CALL rowkeeper.partition_convert('events', 'created_at', '1 month', ahead => '3 months', timezone => 'Europe/Berlin');
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'events'::regclass AND contype = 'p';
SELECT regexp_replace(c.relname, '\d{8}', '*') AS name, c.relkind,
	regexp_replace(pg_get_expr(c.relpartbound, c.oid), '''[^'']*''', '*', 'g') AS bound
FROM pg_class c WHERE c.relnamespace = 'partition_convert'::regnamespace AND c.relname ~ '^events' AND c.relkind IN ('r', 'p', 'S')
GROUP BY 1, 2, 3 ORDER BY 1, 2;
SELECT count(*), min(id), max(id) FROM events;
INSERT INTO events (v) VALUES ('new') RETURNING id;
SELECT regexp_replace(call, '\d{8}', '*') FROM rowkeeper.features WHERE target = 'events'::regclass;
SELECT reltuples FROM pg_class WHERE oid = 'events'::regclass;
SELECT check_name, detail FROM rowkeeper.doctor('partition_convert');
CALL rowkeeper.maintain('events');
SELECT count(*) FROM rowkeeper._partition_conversions;

-- by default it is a call of its own, and of the caller's own tables
SELECT rowkeeper.partition_off('events');
CALL rowkeeper.partition_convert(NULL);
CALL rowkeeper.partition_convert('events', 'created_at', '1 month');

-- keys of other kinds
CREATE FUNCTION pg_temp.converted(name text) RETURNS TABLE (bound text, rows bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOR bound, rows IN SELECT pg_get_expr(c.relpartbound, c.oid), -1 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = name::regclass AND c.relname ~ '_(before|all)' LOOP
		EXECUTE format('SELECT count(*) FROM %I', name) INTO rows;
		RETURN NEXT;
	END LOOP;
END $$;
CREATE TABLE no_rows (id smallint, d date);
CALL rowkeeper.partition_convert('no_rows', 'id', '100');
SELECT * FROM pg_temp.converted('no_rows');
CREATE TABLE near_the_end (id smallint PRIMARY KEY);
INSERT INTO near_the_end VALUES (32760);
CALL rowkeeper.partition_convert('near_the_end', 'id', '100');
SELECT * FROM pg_temp.converted('near_the_end');
CREATE TABLE numerics (n numeric PRIMARY KEY);
INSERT INTO numerics VALUES (-1.5), (12.5);
CALL rowkeeper.partition_convert('numerics', 'n', '10');
SELECT * FROM pg_temp.converted('numerics');
CREATE TABLE dates (d date, ts timestamp);
INSERT INTO dates VALUES ('2020-01-31', '2020-01-31 10:00');
CALL rowkeeper.partition_convert('dates', 'd', '1 week');
SELECT rows FROM pg_temp.converted('dates');
CREATE TABLE seconds (at bigint NOT NULL, v text);
INSERT INTO seconds VALUES (1600000000, 'a');
CALL rowkeeper.partition_convert('seconds', 'at', '1 day', epoch => 's', brin => true);
SELECT rows FROM pg_temp.converted('seconds');
CREATE TABLE uuids (u uuid PRIMARY KEY);
INSERT INTO uuids VALUES ('018f0000-0000-7000-8000-000000000001');
CALL rowkeeper.partition_convert('uuids', 'u', '1 month');
SELECT rows FROM pg_temp.converted('uuids');
CREATE DOMAIN of_int AS int CHECK (VALUE > 0);
CREATE TABLE domains (k of_int, id int, v text, PRIMARY KEY (id) INCLUDE (k, v));
INSERT INTO domains VALUES (1, 1);
CALL rowkeeper.partition_convert('domains', 'k', '10');
SELECT * FROM pg_temp.converted('domains');
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'domains'::regclass AND contype = 'p';
CREATE UNLOGGED TABLE unlogged (k int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY);
INSERT INTO unlogged VALUES (1);
CALL rowkeeper.partition_convert('unlogged', 'k', '10', ahead => '5');
SELECT relname, relpersistence FROM pg_class WHERE relnamespace = 'partition_convert'::regnamespace AND relname ~ '^unlogged' AND relkind IN ('r', 'p') ORDER BY 1;
-- a key without an index, a table without any, a column that was dropped
CREATE TABLE bare (gone int, id int, v text);
ALTER TABLE bare DROP COLUMN gone;
INSERT INTO bare SELECT n, n FROM generate_series(1, 100) n;
CALL rowkeeper.partition_convert('bare', 'id', '10', ahead => '15');
SELECT * FROM pg_temp.converted('bare');
INSERT INTO bare VALUES (1000);
\set VERBOSITY terse
INSERT INTO bare VALUES (NULL);
\set VERBOSITY default

-- names
CREATE SCHEMA "Odd ""schema";
CREATE TABLE "Odd ""schema"."Order Items, with a name that is as long as names can be: 63" (
	"The Key" int, "a""b" text, CONSTRAINT "Order Items, with a name that is as long as names can be: p_key" PRIMARY KEY ("a""b"));
CREATE INDEX "An Index" ON "Odd ""schema"."Order Items, with a name that is as long as names can be: 63" ("a""b", "The Key");
CREATE VIEW "A View" AS SELECT "a""b" AS "A ""column" FROM "Odd ""schema"."Order Items, with a name that is as long as names can be: 63";
INSERT INTO "Odd ""schema"."Order Items, with a name that is as long as names can be: 63" SELECT n, n FROM generate_series(1, 100) n;
CALL rowkeeper.partition_convert('"Odd ""schema"."Order Items, with a name that is as long as names can be: 63"', 'The Key', '10', ahead => '5');
SELECT c.relname, c.relkind, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_class c
WHERE c.relnamespace = '"Odd ""schema"'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY c.relkind, c.oid;
SELECT left(regexp_replace(i.relname, '^\d+_', '<oid>_'), 55) AS index, t.relkind, x.indisprimary
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
WHERE i.relnamespace = '"Odd ""schema"'::regnamespace ORDER BY t.relkind, t.oid, i.oid;
SELECT count(*) FROM "A View";

-- what a dump has of a conversion that was going on
CREATE TABLE restored (id int CONSTRAINT rowkeeper_convert CHECK (id IS NOT NULL AND id < 10));
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor('partition_convert') WHERE level = 'error';
CALL rowkeeper.partition_convert('restored', 'id', '10');
SELECT count(*) FROM rowkeeper.doctor('partition_convert') WHERE level = 'error';

-- it is begun once, and given up
CREATE TABLE begun (id int PRIMARY KEY);
BEGIN;
SELECT rowkeeper.later('CALL rowkeeper.partition_convert(''begun'', ''id'', ''10'')') IS NOT NULL AS queued;
ROLLBACK;
SELECT rowkeeper.partition_off('begun');

-- a function that finds what it calls by search_path, which ANALYZE pins
CREATE FUNCTION shorten(v text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT left(v, 3) $$;
CREATE FUNCTION lazy(v text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN shorten(v); END $$;
CREATE TABLE looks_up (id int PRIMARY KEY, v text);
CREATE INDEX ON looks_up (lazy(v));
INSERT INTO looks_up VALUES (1, 'a'), (2, 'b');
SET client_min_messages = error;
CALL rowkeeper.partition_convert('looks_up', 'id', '10');
RESET client_min_messages;
SELECT check_name, object FROM rowkeeper.doctor('partition_convert', 'partition') WHERE object ~ 'looks_up';

SET client_min_messages = warning;
DROP SCHEMA partition_convert, "Odd ""schema" CASCADE;
