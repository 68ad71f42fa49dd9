-- Stamps of a partitioned table: one table, whatever its rows move through.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA stamp_partitions;
SET search_path = stamp_partitions;
RESET client_min_messages;
\pset format unaligned
SET app.user_id = 'alice';
CREATE TABLE parts (id int, region text, n int, updated_at timestamptz, version int, created_at timestamptz, created_by text) PARTITION BY LIST (region);
CREATE TABLE north PARTITION OF parts FOR VALUES IN ('north');
-- other columns, in another order
CREATE TABLE south (created_by text, gone int, n int, version int, region text, created_at timestamptz, id int, updated_at timestamptz);
ALTER TABLE south DROP COLUMN gone;
ALTER TABLE parts ATTACH PARTITION south FOR VALUES IN ('south');
SELECT rowkeeper.stamp('parts', created_at => 'created_at', created_by => 'created_by') \g /dev/null
-- partitions made later, and one of partitions
CREATE TABLE east PARTITION OF parts FOR VALUES IN ('east') PARTITION BY RANGE (id);
CREATE TABLE east_1 PARTITION OF east FOR VALUES FROM (0) TO (100);
CREATE TABLE west (LIKE parts);
ALTER TABLE parts ATTACH PARTITION west DEFAULT;
SELECT tgrelid::regclass, tgenabled FROM pg_trigger WHERE tgname = '~rowkeeper_stamp' AND tgrelid::regclass::text ~ '^(parts|north|south|east|east_1|west)$' ORDER BY 1;
\set show 'tableoid::regclass AS part, id, n, version, created_by, created_at < updated_at AS younger'

INSERT INTO parts (id, region) VALUES (1, 'north'), (2, 'south'), (3, 'east'), (4, 'else') RETURNING tableoid::regclass AS part, id, version, created_by, created_at = now() AS now;
SET app.user_id = 'bob';
UPDATE parts SET n = 1 RETURNING :show;
-- moved: stamped once, and its history goes on
UPDATE parts SET region = 'south' WHERE id = 1 RETURNING :show;
UPDATE parts SET region = 'east', n = 2 WHERE id = 1 RETURNING :show;
UPDATE parts SET region = 'elsewhere' WHERE id IN (1, 2, 3) RETURNING :show;
UPDATE parts SET region = 'north';
SELECT :show FROM parts ORDER BY id;
-- by MERGE
MERGE INTO parts p USING (VALUES (1, 'south'), (2, 'east'), (5, 'south')) AS m (id, region) ON p.id = m.id
WHEN MATCHED THEN UPDATE SET region = m.region
WHEN NOT MATCHED THEN INSERT (id, region) VALUES (m.id, m.region);
SELECT :show FROM parts ORDER BY id;
-- a key that is assigned and stays, then a row that is really new
UPDATE parts SET region = 'north' WHERE id = 3 RETURNING :show;
INSERT INTO parts (id, region, version, created_at, created_by) VALUES (6, 'north', 1, '2001-01-01', 'mallory') RETURNING id, version, created_by, created_at = now() AS now;
-- no other partition takes it: nothing is left to mistake for a move
CREATE TABLE closed (id int, region text, updated_at timestamptz, created_by text) PARTITION BY LIST (region);
CREATE TABLE closed_1 PARTITION OF closed FOR VALUES IN ('a');
CREATE TABLE closed_2 PARTITION OF closed FOR VALUES IN ('b');
SELECT rowkeeper.stamp('closed', created_by => 'created_by') \g /dev/null
INSERT INTO closed VALUES (1, 'a') RETURNING created_by;
BEGIN;
SAVEPOINT s;
UPDATE closed SET region = 'c';
ROLLBACK TO s;
SET LOCAL app.user_id = 'carol';
INSERT INTO closed VALUES (2, 'b') RETURNING created_by;
COMMIT;
-- a trigger keeps a row from moving, the next one is new
CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER stay BEFORE DELETE ON closed_1 FOR EACH ROW EXECUTE FUNCTION stay();
BEGIN;
UPDATE closed SET region = 'b' WHERE id = 1;
SET LOCAL app.user_id = 'dora';
INSERT INTO closed VALUES (3, 'b') RETURNING created_by;
COMMIT;
MERGE INTO closed c USING (VALUES (1, 'b'), (4, 'b')) AS m (id, region) ON c.id = m.id
WHEN MATCHED THEN UPDATE SET region = m.region
WHEN NOT MATCHED THEN INSERT VALUES (m.id, m.region, NULL, 'mallory');
SELECT tableoid::regclass AS part, id, created_by FROM closed ORDER BY id;
-- truncated in between
BEGIN;
UPDATE closed SET region = 'a' WHERE region = 'a';
TRUNCATE closed;
INSERT INTO closed VALUES (5, 'a') RETURNING created_by;
ROLLBACK;
DROP TRIGGER stay ON closed_1;
-- another trigger moves rows, and one writes while they move
CREATE FUNCTION move_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.region := 'b'; RETURN NEW; END $$;
CREATE TRIGGER move_it BEFORE UPDATE ON closed_1 FOR EACH ROW EXECUTE FUNCTION move_it();
CREATE FUNCTION write_too() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id < 100 THEN
        INSERT INTO closed VALUES (NEW.id + 100, 'b');
        UPDATE closed SET region = 'a' WHERE id = NEW.id + 100 AND region = 'b';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER a_write_too BEFORE INSERT ON closed_2 FOR EACH ROW EXECUTE FUNCTION write_too();
SET app.user_id = 'emil';
UPDATE closed SET id = id + 10 WHERE region = 'a' RETURNING tableoid::regclass AS part, id, created_by;
SELECT tableoid::regclass AS part, id, created_by FROM closed ORDER BY id;
-- respect and suppress, in a partition itself, and a stale version
SELECT rowkeeper.stamp('parts', client_value => 'respect', on_noop => 'suppress') \g /dev/null
UPDATE parts SET region = 'south', created_by = 'moved' WHERE id = 6 RETURNING :show;
UPDATE south SET n = n WHERE id = 6;
UPDATE south SET n = 7 WHERE id = 6 RETURNING :show;
\set VERBOSITY terse
UPDATE south SET region = 'north' WHERE id = 6;
\set VERBOSITY default
SELECT rowkeeper.stamp('parts', client_value => 'override', stale => 'error', client_version => 'read') \g /dev/null
UPDATE parts SET region = 'north', version = 1 WHERE id = 6;
UPDATE parts SET region = 'north', version = 3 WHERE id = 6 RETURNING :show;

-- renames reach the partitions; a detached one is stamped no more
ALTER TABLE parts RENAME version TO v;
UPDATE parts SET n = 20 WHERE id = 6 RETURNING v;
ALTER TABLE parts DETACH PARTITION north;
UPDATE north SET n = 21 WHERE id = 6 RETURNING v;
-- one switched off alone is told of, and switched on again
ALTER TABLE south DISABLE TRIGGER "~rowkeeper_stamp";
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor('stamp_partitions', 'stamp') WHERE check_name = 'trigger';
SELECT rowkeeper.stamp('parts');
SELECT tgenabled, count(*) FROM pg_trigger WHERE tgname = '~rowkeeper_stamp' AND tgrelid IN (SELECT relid FROM pg_partition_tree('parts')) GROUP BY 1;

-- refused
SELECT rowkeeper.stamp('south');
SELECT rowkeeper.stamp_off('south');
CREATE TABLE by_time (id int, created_at timestamptz) PARTITION BY RANGE (created_at);
SELECT rowkeeper.stamp('by_time', created_at => 'created_at');
CREATE TABLE by_expression (id int, updated_at timestamp) PARTITION BY RANGE (date_trunc('month', updated_at));
SELECT rowkeeper.stamp('by_expression');
CREATE TABLE later PARTITION OF parts FOR VALUES IN ('later') PARTITION BY RANGE (updated_at);
CREATE TABLE attached (LIKE parts) PARTITION BY LIST (created_by);
ALTER TABLE parts ATTACH PARTITION attached FOR VALUES IN ('attached');
CREATE TABLE deep (id int, updated_at timestamptz, region text) PARTITION BY LIST (region);
CREATE TABLE deep_1 PARTITION OF deep FOR VALUES IN ('a') PARTITION BY RANGE (updated_at);
SELECT rowkeeper.stamp('deep');
-- a partition that is stamped by itself, and a table that is not
CREATE TABLE alone (LIKE deep);
SELECT rowkeeper.stamp('alone') \g /dev/null
ALTER TABLE deep ATTACH PARTITION alone FOR VALUES IN ('b');
CREATE TABLE alone_too (LIKE parts);
SELECT rowkeeper.stamp('alone_too', version => 'v') \g /dev/null
ALTER TABLE parts ATTACH PARTITION alone_too FOR VALUES IN ('alone');
-- foreign partitions
CREATE FOREIGN DATA WRAPPER regress_rk_nowhere;
CREATE SERVER regress_rk_server FOREIGN DATA WRAPPER regress_rk_nowhere;
CREATE FOREIGN TABLE afar PARTITION OF parts FOR VALUES IN ('afar') SERVER regress_rk_server;
CREATE FOREIGN TABLE afar (id int, updated_at timestamptz) SERVER regress_rk_server;
SELECT rowkeeper.stamp('afar');
CREATE TABLE mixed (id int, updated_at timestamptz) PARTITION BY LIST (id);
ALTER TABLE mixed ATTACH PARTITION afar FOR VALUES IN (1);
SELECT rowkeeper.stamp('mixed');
ALTER TABLE mixed DETACH PARTITION afar;
SELECT rowkeeper.stamp('mixed') \g /dev/null
ALTER TABLE mixed ATTACH PARTITION afar FOR VALUES IN (1);

SET client_min_messages = warning;
DROP SCHEMA stamp_partitions CASCADE;
DROP FOREIGN DATA WRAPPER regress_rk_nowhere CASCADE;
