-- The columns that are stamped: names, types, and what a stamp is made into.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA stamp_columns;
SET search_path = stamp_columns;
RESET client_min_messages;
\pset format unaligned

-- version is stamped where it exists, and never added uninvited
CREATE TABLE with_version (id int, version bigint, updated_at timestamptz);
CREATE TABLE without (id int);
CREATE TABLE labelled (id int, version text);
SELECT rowkeeper.stamp('with_version') \g /dev/null
SELECT rowkeeper.stamp('without') \g /dev/null
SELECT rowkeeper.stamp('labelled') \g /dev/null
SELECT target, options ->> 'version' AS version FROM rowkeeper.features WHERE feature = 'stamp' AND target::text LIKE ANY ('{with%,labelled}') ORDER BY target::text;
ALTER TABLE without ADD COLUMN version int;
SELECT rowkeeper.stamp('without');
SELECT rowkeeper.stamp('without', version => 'version') \g /dev/null
INSERT INTO without (id) VALUES (1) RETURNING version;

-- a column of almost that name is not passed by
CREATE TABLE camel (id int, "updatedAt" timestamptz, "Version" int);
SELECT rowkeeper.stamp('camel');
SELECT rowkeeper.stamp('camel', updated_at => 'updatedAt');
SELECT rowkeeper.stamp('camel', updated_at => 'updatedAt', version => '-') \g /dev/null
CREATE TABLE pascal (id int, "UpdatedAt" timestamptz);
SELECT rowkeeper.stamp('pascal');
CREATE TABLE mixed (id int, "updated_At" timestamptz);
SELECT rowkeeper.stamp('mixed');
SELECT rowkeeper.stamp('mixed', updated_at => '-', created_by => 'created_by', updated_by => 'updatedat');
CREATE TABLE squeezed (id int, createdby text);
SELECT rowkeeper.stamp('squeezed', created_by => 'created_by');
SELECT count(*) AS added FROM pg_attribute WHERE attrelid IN ('pascal'::regclass, 'squeezed'::regclass) AND attnum > 2;

-- types
CREATE TABLE wrong (id int, d date, t text, i int, f float8, g timestamptz GENERATED ALWAYS AS ('2001-01-01 00:00:00+00'::timestamptz) STORED,
    ident int GENERATED ALWAYS AS IDENTITY, updated_at timestamptz);
SELECT rowkeeper.stamp('wrong', updated_at => 'd');
SELECT rowkeeper.stamp('wrong', created_at => 't');
SELECT rowkeeper.stamp('wrong', version => 'f');
SELECT rowkeeper.stamp('wrong', updated_at => 'g');
SELECT rowkeeper.stamp('wrong', version => 'ident');
SELECT rowkeeper.stamp('wrong', updated_at => 'ctid');
CREATE DOMAIN counter AS int CHECK (VALUE < 4);
CREATE DOMAIN moment AS timestamptz(0);
CREATE TABLE domains (id int, version counter, updated_at moment);
SELECT rowkeeper.stamp('domains') \g /dev/null
INSERT INTO domains VALUES (1), (2) RETURNING version, updated_at = date_trunc('second', now() + interval '0.5 s') AS whole_second;
UPDATE domains SET id = id + 2;
UPDATE domains SET id = id + 2;
UPDATE domains SET id = id + 2;
CREATE TABLE small (id int, version smallint);
SELECT rowkeeper.stamp('small') \g /dev/null
INSERT INTO small VALUES (1, 32766) RETURNING version;
UPDATE small SET id = 2 RETURNING version;
UPDATE small SET id = 3;
UPDATE small SET id = id RETURNING version;
CREATE TABLE big (id int, version bigint);
SELECT rowkeeper.stamp('big') \g /dev/null
INSERT INTO big VALUES (1, 9223372036854775806);
UPDATE big SET id = 2 RETURNING version;
UPDATE big SET id = 3;

-- the precision of the column; without time zone: the session's
CREATE TABLE times (id int, updated_at timestamp, created_at timestamptz(3));
SELECT rowkeeper.stamp('times', created_at => 'created_at') \g /dev/null
SET TimeZone = 'Asia/Tokyo';
INSERT INTO times VALUES (1) RETURNING updated_at = now()::timestamp AS local, created_at = now()::timestamptz(3) AS rounded;
SET TimeZone = 'America/New_York';
INSERT INTO times VALUES (2) RETURNING updated_at = now()::timestamp AS local;
SELECT (SELECT updated_at FROM times WHERE id = 1) - (SELECT updated_at FROM times WHERE id = 2) > interval '12 hours' AS apart;
RESET TimeZone;

-- actors: cast to the column
CREATE TABLE actors (id int, updated_at timestamptz, created_by bigint, updated_by varchar(5));
SELECT rowkeeper.stamp('actors', created_by => 'created_by', updated_by => 'updated_by') \g /dev/null
-- nobody said who: the session user, where the type can hold its name
INSERT INTO actors VALUES (0) RETURNING created_by;
SET app.user_id = '42';
INSERT INTO actors VALUES (1) RETURNING created_by, updated_by;
SET app.user_id = '43';
UPDATE actors SET id = 2 WHERE id = 1 RETURNING created_by, updated_by;
SET app.user_id = 'alice';
UPDATE actors SET id = 3 WHERE id = 2 RETURNING created_by, updated_by;
INSERT INTO actors VALUES (4);
SET app.user_id = 'elizabeth';
UPDATE actors SET id = 4;
BEGIN;
SELECT rowkeeper.set_context(7) \g /dev/null
INSERT INTO actors VALUES (5) RETURNING created_by, updated_by;
SAVEPOINT s;
SELECT rowkeeper.set_context(8) \g /dev/null
INSERT INTO actors VALUES (6) RETURNING created_by, updated_by;
ROLLBACK TO s;
INSERT INTO actors VALUES (6) RETURNING created_by, updated_by;
COMMIT;
CREATE TABLE uuids (id int, updated_at timestamptz, updated_by uuid);
SELECT rowkeeper.stamp('uuids', updated_by => 'updated_by') \g /dev/null
SET app.user_id = '6f6a1b0e-0000-4000-8000-000000000001';
INSERT INTO uuids VALUES (1) RETURNING updated_by;
SET app.user_id = '6f6a1b0e-0000-4000-8000-000000000002';
UPDATE uuids SET id = 2 RETURNING updated_by;
RESET app.user_id;
UPDATE uuids SET id = 3 RETURNING updated_by;
-- names of all lengths, over each other
CREATE TABLE names (id int, updated_at timestamptz, by text, created_by char(6), last int);
SELECT rowkeeper.stamp('names', updated_by => 'by', created_by => 'created_by') \g /dev/null
INSERT INTO names VALUES (1, NULL, NULL, NULL, 1);
SET app.user_id = 'anna';
UPDATE names SET id = 2 RETURNING by, created_by IS NOT NULL AS created, last;
SET app.user_id = 'otto';
UPDATE names SET id = 3 RETURNING by, last;
SELECT set_config('app.user_id', repeat('long', 50), false) \g /dev/null
UPDATE names SET id = 4 RETURNING by = repeat('long', 50) AS long, last;
SELECT set_config('app.user_id', repeat('name', 50), false) \g /dev/null
UPDATE names SET id = 5 RETURNING by = repeat('name', 50) AS long, last;
SET app.user_id = 'o';
UPDATE names SET id = 6 RETURNING by, last;
RESET app.user_id;

-- renamed: followed; dropped or made unfit: refused
CREATE TABLE moved (id int, v int, updated_at timestamptz, by text);
SELECT rowkeeper.stamp('moved', version => 'v', updated_by => 'by') \g /dev/null
ALTER TABLE moved RENAME v TO "Version";
ALTER TABLE moved RENAME COLUMN updated_at TO changed;
ALTER TABLE moved RENAME id TO key;
INSERT INTO moved (key) VALUES (1) RETURNING "Version", changed = now() AS now;
SELECT rowkeeper.stamp('moved');
-- a swap, by three renames
BEGIN;
ALTER TABLE moved RENAME changed TO spare;
ALTER TABLE moved RENAME by TO changed;
ALTER TABLE moved RENAME spare TO by;
SELECT options ->> 'updated_at' AS updated_at, options ->> 'updated_by' AS updated_by FROM rowkeeper.features WHERE target = 'moved'::regclass;
ROLLBACK;
ALTER TABLE moved DISABLE TRIGGER "~rowkeeper_stamp";
ALTER TABLE moved RENAME changed TO changed_at;
SELECT tgenabled FROM pg_trigger WHERE tgrelid = 'moved'::regclass;
SELECT rowkeeper.stamp('moved');
ALTER TABLE moved DROP COLUMN changed_at;
ALTER TABLE moved DROP COLUMN key, DROP COLUMN "Version";
ALTER TABLE moved ALTER COLUMN changed_at TYPE date;
ALTER TABLE moved ALTER COLUMN "Version" TYPE text;
ALTER TABLE moved ALTER COLUMN changed_at TYPE timestamp, ALTER COLUMN "Version" TYPE bigint, ALTER COLUMN by TYPE varchar(9);
UPDATE moved SET key = 2 RETURNING "Version", changed_at = now()::timestamp AS now, by = left(session_user, 9) AS by;
CREATE TYPE name_type AS (x int);
ALTER TABLE moved ALTER COLUMN by DROP DEFAULT;
SELECT rowkeeper.stamp('moved', updated_by => '-') \g /dev/null
ALTER TABLE moved DROP COLUMN by;
UPDATE moved SET key = 3 RETURNING *, changed_at = now()::timestamp \g /dev/null
-- a column's type that goes takes the column with it
CREATE DOMAIN label AS text;
CREATE TABLE typed (id int, updated_at timestamptz, by label);
SELECT rowkeeper.stamp('typed', updated_by => 'by') \g /dev/null
DROP DOMAIN label CASCADE;
DROP TABLE typed;
-- a table of a composite type, a child by INHERITS
CREATE TYPE row_type AS (id int, updated_at timestamptz);
CREATE TABLE of_type OF row_type;
SELECT rowkeeper.stamp('of_type') \g /dev/null
ALTER TYPE row_type RENAME ATTRIBUTE updated_at TO changed CASCADE;
INSERT INTO of_type VALUES (1) RETURNING changed = now() AS now;
ALTER TYPE row_type DROP ATTRIBUTE changed CASCADE;
CREATE TABLE parent (id int, updated_at timestamptz);
CREATE TABLE child () INHERITS (parent);
SELECT rowkeeper.stamp('child') \g /dev/null
ALTER TABLE parent RENAME updated_at TO changed;
INSERT INTO child VALUES (1) RETURNING changed = now() AS now;
INSERT INTO parent VALUES (1) RETURNING changed;
ALTER TABLE parent DROP COLUMN changed;
ALTER TABLE child NO INHERIT parent;
-- renamed while nobody heard of it: an error that says so, and a finding
ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE;
ALTER TABLE child RENAME changed TO at;
ALTER EVENT TRIGGER rowkeeper_ddl_end ENABLE ALWAYS;
INSERT INTO child VALUES (2);
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor('stamp_columns') WHERE check_name = 'column';
SELECT healthy, detail FROM rowkeeper.features WHERE target = 'child'::regclass;
SELECT rowkeeper.stamp('child', updated_at => 'at') \g /dev/null
INSERT INTO child VALUES (2) RETURNING at = now() AS now;

-- the trigger's name and function are reserved
CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER "~rowkeeper_stamp" BEFORE UPDATE ON squeezed FOR EACH ROW EXECUTE FUNCTION mine();
CREATE TRIGGER mine BEFORE UPDATE ON squeezed FOR EACH ROW EXECUTE FUNCTION rowkeeper._stamp('{}');
CREATE TRIGGER "~rowkeeper_stamp" BEFORE UPDATE ON squeezed FOR EACH ROW EXECUTE FUNCTION rowkeeper._stamp('{');
CREATE TRIGGER "~rowkeeper_stamp" BEFORE UPDATE ON squeezed FOR EACH ROW EXECUTE FUNCTION rowkeeper._stamp('{"clock": "sundial"}');
CREATE TRIGGER "~rowkeeper_stamp" BEFORE UPDATE ON squeezed FOR EACH ROW EXECUTE FUNCTION rowkeeper._stamp();
ALTER TRIGGER "~rowkeeper_stamp" ON small RENAME TO mine;
-- misused, it says so at the first row
CREATE TRIGGER "~rowkeeper_stamp" AFTER UPDATE ON wrong FOR EACH ROW EXECUTE FUNCTION rowkeeper._stamp('{}');
INSERT INTO wrong (id) VALUES (1);
UPDATE wrong SET id = 2;

SET client_min_messages = warning;
DROP SCHEMA stamp_columns CASCADE;
