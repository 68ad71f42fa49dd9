-- The rules of stamps: updates without a change, what clients send, clocks.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA stamp_rules;
SET search_path = stamp_rules;
RESET client_min_messages;
\pset format unaligned
SET app.user_id = 'alice';
\set long 'SELECT string_agg(md5(i::text), '''') FROM generate_series(1, 2000) i'

-- on_noop: what is an update without a change
CREATE TABLE things (a int, b text, c numeric, d jsonb, e float8, g int GENERATED ALWAYS AS (a * 2) STORED, f text,
    updated_at timestamptz, version int, updated_by text);
SELECT rowkeeper.stamp('things', updated_by => 'updated_by') \g /dev/null
INSERT INTO things (a, b, c, d, e) VALUES (1, (:long), 1.5, '{"x": 1}', 'NaN');
UPDATE things SET a = a RETURNING version;
UPDATE things SET a = 1, b = (:long), c = 1.5, d = '{ "x":1 }', e = 'NaN', f = NULL RETURNING version;
UPDATE things SET a = a, updated_at = NULL, updated_by = 'x' RETURNING version, updated_at IS NULL AS lost, updated_by;
-- and what is one with a change
UPDATE things SET c = 1.50 RETURNING version;
UPDATE things SET f = '' RETURNING version;
UPDATE things SET f = NULL RETURNING version;
UPDATE things SET b = b || '.' RETURNING version;
UPDATE things SET e = '-0' RETURNING version;
UPDATE things SET e = '0' RETURNING version;
UPDATE things SET a = a, b = b, c = c, d = d, e = 5 RETURNING version;
-- wide rows, all columns assigned, a change in the last
SELECT format('CREATE TABLE wide (%s, updated_at timestamptz, version int)', string_agg(format('c%s text', i), ', ')) FROM generate_series(1, 40) i \gexec
SELECT rowkeeper.stamp('wide') \g /dev/null
INSERT INTO wide DEFAULT VALUES;
SELECT format('UPDATE wide SET %s RETURNING version', string_agg(format('c%s = NULL', i), ', ')) FROM generate_series(1, 40) i \gexec
SELECT format('UPDATE wide SET %s RETURNING version', string_agg(format('c%s = %s', i, CASE i WHEN 40 THEN '''x''' ELSE 'NULL' END), ', ')) FROM generate_series(1, 40) i \gexec
-- suppress: the row is not written at all; bump: it always is
SELECT rowkeeper.stamp('things', on_noop => 'suppress') \g /dev/null
SELECT ctid AS was FROM things \gset
UPDATE things SET a = a, e = e;
SELECT ctid = :'was' AS untouched FROM things;
UPDATE things SET a = 2 RETURNING version;
SELECT rowkeeper.stamp('things', on_noop => 'bump') \g /dev/null
UPDATE things SET a = a RETURNING version, updated_at = now() AS now;
-- another trigger's change is a change
SELECT rowkeeper.stamp('things', on_noop => 'unchanged') \g /dev/null
CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.e := NEW.e + 1; RETURN NEW; END';
CREATE TRIGGER count_up BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION count_up();
UPDATE things SET a = a RETURNING e, version;
CREATE OR REPLACE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';
UPDATE things SET a = 5 RETURNING a, version;
-- also of a row that is older than its columns
ALTER TABLE things ADD COLUMN later int DEFAULT 3;
UPDATE things SET a = 5 RETURNING a, later, version;
DROP TRIGGER count_up ON things;
-- a WHEN clause that read the row before us does not keep old values
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%: version % after %', TG_NAME, NEW.version, OLD.version; RETURN NEW; END $$;
CREATE TRIGGER before_us BEFORE UPDATE ON things FOR EACH ROW WHEN (NEW.version >= 0 AND NEW.a > 0) EXECUTE FUNCTION tell();
CREATE TRIGGER zz_after AFTER UPDATE ON things FOR EACH ROW WHEN (NEW.version > OLD.version) EXECUTE FUNCTION tell();
UPDATE things SET a = 6 RETURNING version;
UPDATE things SET a = 7 WHERE a = 6 RETURNING version;

-- client_value
CREATE TABLE sent (id int, updated_at timestamptz DEFAULT now(), created_at timestamptz, created_by text DEFAULT 'nobody', updated_by text);
SELECT rowkeeper.stamp('sent', created_at => 'created_at', created_by => 'created_by', updated_by => 'updated_by') \g /dev/null
\set show 'updated_at = now() AS u, created_at = now() AS c, created_by AS cb, updated_by AS ub'
-- respect: what the statement assigns stays, a default does not
SELECT rowkeeper.stamp('sent', client_value => 'respect') \g /dev/null
INSERT INTO sent VALUES (1) RETURNING :show;
INSERT INTO sent VALUES (2, '2001-01-01', '2001-01-01', 'imported', 'imported') RETURNING :show;
UPDATE sent SET id = 3 WHERE id = 2 RETURNING :show;
UPDATE sent SET id = 4, updated_at = '2001-01-02', created_by = 'corrected' WHERE id = 3 RETURNING :show;
UPDATE sent SET id = 5, updated_at = updated_at WHERE id = 4 RETURNING :show;
UPDATE sent SET created_at = '2001-01-03' WHERE id = 5 RETURNING :show;
-- error: only what they have or get anyway
SELECT rowkeeper.stamp('sent', client_value => 'error') \g /dev/null
INSERT INTO sent VALUES (6) RETURNING :show;
INSERT INTO sent VALUES (7, now(), now(), 'nobody', 'alice') RETURNING :show;
INSERT INTO sent VALUES (8, '2001-01-01');
INSERT INTO sent VALUES (8, DEFAULT, '2001-01-01');
INSERT INTO sent VALUES (8, DEFAULT, DEFAULT, 'mallory');
INSERT INTO sent VALUES (8, DEFAULT, DEFAULT, DEFAULT, 'mallory');
UPDATE sent SET id = 8, updated_at = updated_at, created_at = created_at, created_by = created_by, updated_by = updated_by WHERE id = 7 RETURNING :show;
UPDATE sent SET id = 9, updated_at = now(), updated_by = 'alice' WHERE id = 8 RETURNING :show;
UPDATE sent SET id = 10, updated_at = '2001-01-01' WHERE id = 9;
UPDATE sent SET id = 10, created_by = 'mallory' WHERE id = 9;
UPDATE sent SET updated_by = 'mallory' WHERE id = 9;
UPDATE sent SET created_at = NULL WHERE id = 9;
\echo :LAST_ERROR_SQLSTATE
-- a default that is another each time cannot be told from what a client sends
ALTER TABLE sent ALTER updated_at SET DEFAULT clock_timestamp();
INSERT INTO sent (id) VALUES (11) RETURNING :show;

-- clocks: of the transaction, of the wall, and one that never stands still
CREATE TABLE ticks (id int, n int DEFAULT 0, updated_at timestamptz, seconds timestamptz(0), version int);
SELECT rowkeeper.stamp('ticks') \g /dev/null
BEGIN;
INSERT INTO ticks VALUES (1);
SELECT pg_sleep(0.002) \g /dev/null
UPDATE ticks SET n = n + 1 RETURNING updated_at = now() AS now;
COMMIT;
SELECT rowkeeper.stamp('ticks', clock => 'wall') \g /dev/null
BEGIN;
SELECT pg_sleep(0.002) \g /dev/null
UPDATE ticks SET n = n + 1 RETURNING updated_at > now() AND updated_at <= clock_timestamp() AS wall;
COMMIT;
SELECT rowkeeper.stamp('ticks', clock => 'monotonic') \g /dev/null
BEGIN;
UPDATE ticks SET n = n + 1 RETURNING updated_at = now() AS now;
UPDATE ticks SET n = n + 1 RETURNING updated_at = now() + interval '1 us' AS one_more;
UPDATE ticks SET n = n + 1 RETURNING updated_at = now() + interval '2 us' AS two_more;
UPDATE ticks SET n = n RETURNING updated_at = now() + interval '2 us' AS two_more;
COMMIT;
ALTER TABLE ticks DISABLE TRIGGER "~rowkeeper_stamp";
UPDATE ticks SET updated_at = '2100-01-01';
ALTER TABLE ticks ENABLE TRIGGER "~rowkeeper_stamp";
SET TimeZone = 'UTC';
UPDATE ticks SET n = n + 1 RETURNING updated_at;
ALTER TABLE ticks DISABLE TRIGGER "~rowkeeper_stamp";
UPDATE ticks SET updated_at = 'infinity', seconds = '2100-01-01';
ALTER TABLE ticks ENABLE TRIGGER "~rowkeeper_stamp";
UPDATE ticks SET n = n + 1 RETURNING updated_at;
SELECT rowkeeper.stamp('ticks', updated_at => 'seconds') \g /dev/null
UPDATE ticks SET n = n + 1 RETURNING seconds, updated_at;
RESET TimeZone;

SET client_min_messages = warning;
DROP SCHEMA stamp_rules CASCADE;
