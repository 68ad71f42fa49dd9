-- Rows of every shape come into the trash as they were and back as they were:
-- nulls at any place, values stored elsewhere, columns that were added later,
-- partitions that have their columns in another order. Keys are found by the
-- index of the trash, ascending or not, and if its expressions delete.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE DATABASE regress_rk_trash_rows;
\c regress_rk_trash_rows
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
CREATE TABLE shapes (
    id bigint PRIMARY KEY, a boolean, b text, c "char", d float8, e numeric, f jsonb,
    g int2, h timestamptz, i bytea, j int[], k name, l varchar(10), m interval, n int);
CREATE TABLE origin AS TABLE shapes;
INSERT INTO origin
SELECT r, CASE WHEN r & 1 = 0 THEN true END, CASE WHEN r & 2 = 0 THEN repeat('x', r % 300) END,
    CASE WHEN r & 4 = 0 THEN 'c'::"char" END, CASE WHEN r & 8 = 0 THEN r / 3.0 END,
    CASE WHEN r & 16 = 0 THEN r / 7.0 END, CASE WHEN r & 32 = 0 THEN jsonb_build_object('r', r) END,
    CASE WHEN r & 64 = 0 THEN r % 100 END, CASE WHEN r & 128 = 0 THEN now() END,
    CASE WHEN r & 256 = 0 THEN '\xaabb'::bytea END, CASE WHEN r & 512 = 0 THEN ARRAY[1, NULL, r] END,
    CASE WHEN r & 1024 = 0 THEN 'k' || r END, CASE WHEN r & 2048 = 0 THEN 'l' || r % 100 END,
    CASE WHEN r & 4096 = 0 THEN interval '1 day' END, CASE WHEN r & 8192 = 0 THEN r END
FROM (SELECT i * 5 % 16384 FROM generate_series(0, 1999) i) AS n (r);
INSERT INTO origin (id, b) SELECT 20000, string_agg(md5(i::text), '') FROM generate_series(1, 400) i;
INSERT INTO origin (id, b) VALUES (20001, repeat('y', 20000));
SELECT rowkeeper.soft_delete('shapes', mode => 'trash') \g /dev/null
CREATE VIEW compared AS
SELECT count(*) AS rows,
    count(*) FILTER (WHERE to_jsonb(o) IS DISTINCT FROM to_jsonb(t) -
        '{_batch,_deleted_at,_deleted_by,_deleted_via,_db_user,_extra}'::text[]) AS different,
    max(length(t._deleted_by)) AS actor, count(t._extra) AS extra
FROM origin o JOIN rowkeeper_trash.public__shapes t USING (id);
CREATE FUNCTION restore_last() RETURNS bigint LANGUAGE sql
RETURN (SELECT count(*) FROM rowkeeper.soft_delete_restore_batch(
    (SELECT max(batch) FROM rowkeeper.soft_delete_batches)));

SET app.user_id = 'short';
INSERT INTO shapes TABLE origin;
DELETE FROM shapes;
TABLE compared;
SELECT restore_last();
SELECT count(*) FROM (TABLE shapes EXCEPT TABLE origin) AS differ;

-- an actor that is not short
SELECT length(set_config('app.user_id', repeat('u', 200), false));
DELETE FROM shapes;
TABLE compared;
SELECT restore_last();
SET app.user_id = 'short';

-- rows that are older than a column
ALTER TABLE shapes ADD COLUMN z int DEFAULT 7;
DELETE FROM shapes;
SELECT rows, different, extra FROM compared;
SELECT restore_last();
SELECT count(*), min(z), max(z) FROM shapes;

-- partitions
CREATE TABLE parts (id int PRIMARY KEY, a text, b int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_2 (gone int, b int, id int NOT NULL, a text);
ALTER TABLE parts_2 DROP COLUMN gone;
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (100) TO (200);
SELECT rowkeeper.soft_delete('parts', mode => 'trash') \g /dev/null
INSERT INTO parts SELECT i, 'a' || i, i * 2 FROM generate_series(1, 199) i;
DELETE FROM parts;
SELECT count(*), count(*) FILTER (WHERE a = 'a' || id AND b = id * 2) AS right, count(_extra) AS extra
FROM rowkeeper_trash.public__parts;

-- the index of the key
CREATE TABLE keys (id bigint PRIMARY KEY);
SELECT rowkeeper.soft_delete('keys', mode => 'trash') \g /dev/null
INSERT INTO keys SELECT generate_series(1, 20000);
DELETE FROM keys WHERE id <= 8000;
DELETE FROM keys WHERE id % 3 = 0;
BEGIN;
SAVEPOINT a;
DELETE FROM keys;
ROLLBACK TO a;
DELETE FROM keys WHERE id < 15000;
COMMIT;
DELETE FROM keys;
INSERT INTO keys SELECT -i FROM generate_series(1, 3000) i;
INSERT INTO keys SELECT 100000 + i * 7919 % 70000 FROM generate_series(1, 5000) i;
DELETE FROM keys;
SET enable_seqscan = off;
SELECT count(*), count(DISTINCT id), min(id), max(id) FROM rowkeeper_trash.public__keys WHERE id > -100000;
SELECT count(*) FROM generate_series(1, 20000) i
WHERE NOT EXISTS (SELECT FROM rowkeeper_trash.public__keys k WHERE k.id = i);
RESET enable_seqscan;

-- an index whose expression deletes
CREATE TABLE outer_rows (id int PRIMARY KEY);
CREATE TABLE inner_rows (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('outer_rows', mode => 'trash') \g /dev/null
SELECT rowkeeper.soft_delete('inner_rows', mode => 'trash') \g /dev/null
CREATE FUNCTION delete_inner(i int) RETURNS int LANGUAGE plpgsql VOLATILE
AS $$BEGIN DELETE FROM public.inner_rows WHERE id = i; RETURN i; END$$;
CREATE FUNCTION indexed(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE
AS $$BEGIN RETURN public.delete_inner(i); END$$;
CREATE INDEX ON rowkeeper_trash.public__outer_rows (indexed(id));
INSERT INTO outer_rows SELECT generate_series(1, 10);
INSERT INTO inner_rows SELECT generate_series(1, 10);
DELETE FROM outer_rows;
SET enable_seqscan = off;
SELECT count(*) FROM rowkeeper_trash.public__outer_rows WHERE indexed(id) > 0;
SELECT count(*) FROM rowkeeper_trash.public__inner_rows WHERE id > 0;
RESET enable_seqscan;

\c contrib_regression
DROP DATABASE regress_rk_trash_rows;
