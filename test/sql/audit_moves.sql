-- A row that moves between partitions is one change of one row.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_moves;
SET search_path = audit_moves;
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set news 'SELECT table_name, action, record_id, old_data, new_data, changed_fields FROM rowkeeper.audit_log WHERE table_schema = ''audit_moves'' AND id > :seen ORDER BY id'
\set news_by_row 'SELECT table_name, action, record_id, old_data, new_data, changed_fields FROM rowkeeper.audit_log WHERE table_schema = ''audit_moves'' AND id > :seen ORDER BY (record_id ->> ''id'')::int, id'

-- The partitions differ in the order of their columns and in what was dropped.
CREATE TABLE parcels (id int, region text, weight int, note text, PRIMARY KEY (id, region))
    PARTITION BY LIST (region);
CREATE TABLE parcels_north PARTITION OF parcels FOR VALUES IN ('north');
CREATE TABLE parcels_south (note text, gone int, region text NOT NULL, weight int, id int NOT NULL);
ALTER TABLE parcels_south DROP COLUMN gone;
ALTER TABLE parcels ATTACH PARTITION parcels_south FOR VALUES IN ('south');
CREATE TABLE parcels_other PARTITION OF parcels DEFAULT PARTITION BY LIST (region);
CREATE TABLE parcels_east PARTITION OF parcels_other FOR VALUES IN ('east');
CREATE TABLE parcels_rest PARTITION OF parcels_other DEFAULT;
SELECT rowkeeper.audit('parcels') \g /dev/null
INSERT INTO parcels VALUES (1, 'north', 10, 'a'), (2, 'north', 20, 'b'), (3, 'south', 30, 'c');

-- by UPDATE, one row and many, both ways, into a sub-partition and out of it
:mark \gset
UPDATE parcels SET region = 'south' WHERE id = 1;
:news;
:mark \gset
UPDATE parcels SET region = 'east', weight = weight + 1;
:news;
:mark \gset
UPDATE parcels SET region = 'west' WHERE id = 1;
UPDATE parcels SET region = 'north', note = NULL;
:news;

-- with another key
:mark \gset
UPDATE parcels SET id = id + 100, region = 'south' WHERE id = 2;
:news;

-- two rows exchange their keys on the way; where that collides, nothing stays
:mark \gset
UPDATE parcels SET region = CASE region WHEN 'north' THEN 'south' ELSE 'north' END, id = 4 - id
    WHERE id IN (1, 3);
UPDATE parcels SET region = CASE region WHEN 'north' THEN 'south' ELSE 'north' END, id = 103 - id
    WHERE id IN (1, 102);
:news;

-- by MERGE, beside an insert, an update that stays and a delete
:mark \gset
SELECT id, region, weight FROM parcels ORDER BY id;
MERGE INTO parcels p USING (VALUES (1, 'east'), (3, 'north'), (9, 'south'), (102, 'gone')) s (id, region)
    ON p.id = s.id
    WHEN MATCHED AND s.region = 'gone' THEN DELETE
    WHEN MATCHED THEN UPDATE SET region = s.region, weight = 0
    WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.region, 90, 'merged');
:news_by_row;

-- DELETE and INSERT of one statement are two changes, also where the row looks the same
:mark \gset
WITH gone AS (DELETE FROM parcels WHERE id = 1 RETURNING *)
    INSERT INTO parcels SELECT id, 'south', weight, note FROM gone;
:news;
:mark \gset
WITH gone AS (DELETE FROM parcels WHERE id = 1 RETURNING *)
    INSERT INTO parcels SELECT * FROM gone;
:news;

-- by an UPDATE of a foreign key's target
CREATE TABLE regions (name text PRIMARY KEY);
INSERT INTO regions VALUES ('north'), ('south'), ('east'), ('west');
ALTER TABLE parcels ADD FOREIGN KEY (region) REFERENCES regions ON UPDATE CASCADE;
:mark \gset
UPDATE regions SET name = 'up' WHERE name = 'north';
:news;

-- and the other way round: another table refers to the row that moves
ALTER TABLE parcels DROP CONSTRAINT parcels_region_fkey;
CREATE TABLE labels (id int PRIMARY KEY, parcel int, region text,
    FOREIGN KEY (parcel, region) REFERENCES parcels ON UPDATE CASCADE ON DELETE CASCADE);
SELECT rowkeeper.audit('labels') \g /dev/null
INSERT INTO parcels VALUES (50, 'north', 1, NULL), (51, 'south', 1, NULL);
INSERT INTO labels VALUES (1, 50, 'north'), (2, 51, 'south');
:mark \gset
UPDATE parcels SET region = CASE region WHEN 'south' THEN 'east' ELSE 'south' END, id = id + 2 WHERE id IN (50, 51);
DELETE FROM parcels WHERE id = 52;
:news;
DROP TABLE labels;

-- A BEFORE INSERT trigger of the target swallows the row: it was a DELETE.
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TABLE visits (id int, place int, PRIMARY KEY (id, place)) PARTITION BY LIST (place);
CREATE TABLE visits_1 PARTITION OF visits FOR VALUES IN (1);
CREATE TABLE visits_2 PARTITION OF visits FOR VALUES IN (2);
CREATE TABLE visits_3 PARTITION OF visits FOR VALUES IN (3);
CREATE TRIGGER swallow BEFORE INSERT ON visits_2 FOR EACH ROW EXECUTE FUNCTION swallow();
INSERT INTO visits VALUES (1, 1), (2, 1), (3, 1), (4, 1), (5, 3);
SELECT rowkeeper.audit('visits') \g /dev/null
:mark \gset
UPDATE visits SET place = 2 WHERE id = 1;
:news;
-- some are swallowed, some are not; an update follows in the same transaction
:mark \gset
BEGIN;
UPDATE visits SET place = CASE id WHEN 3 THEN 3 ELSE 2 END WHERE id IN (2, 3, 4);
UPDATE visits SET id = 50 WHERE id = 5;
INSERT INTO visits VALUES (6, 1);
COMMIT;
:news;
SELECT * FROM visits ORDER BY id;
-- swallowed by the last statement of a transaction, and in a savepoint
INSERT INTO visits VALUES (7, 1), (8, 1);
:mark \gset
BEGIN;
SAVEPOINT s;
UPDATE visits SET place = 2 WHERE id = 7;
RELEASE s;
INSERT INTO visits VALUES (9, 1);
COMMIT;
BEGIN;
SAVEPOINT s;
UPDATE visits SET place = 2 WHERE id = 8;
ROLLBACK TO s;
INSERT INTO visits VALUES (10, 1);
COMMIT;
:news;

-- A trigger of the user's stands between the two halves of the move and
-- writes to another audited table, and to the same one.
CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text);
SELECT rowkeeper.audit('notes') \g /dev/null
CREATE TABLE stock (id int, shelf int, qty int DEFAULT 0, PRIMARY KEY (id, shelf)) PARTITION BY LIST (shelf);
CREATE TABLE stock_1 PARTITION OF stock FOR VALUES IN (1);
CREATE TABLE stock_2 PARTITION OF stock FOR VALUES IN (2);
SELECT rowkeeper.audit('stock') \g /dev/null
CREATE FUNCTION take_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_moves.notes (text) VALUES (TG_OP || ' on ' || TG_TABLE_NAME);
    IF TG_OP = 'DELETE' AND OLD.id < 100 THEN
        INSERT INTO audit_moves.stock VALUES (OLD.id + 100, OLD.shelf);
        UPDATE audit_moves.stock SET shelf = 3 - shelf WHERE id = OLD.id + 100;
    END IF;
    RETURN NULL;
END $$;
-- sorted after ours, and before
CREATE TRIGGER zz_take_note AFTER DELETE OR INSERT ON stock FOR EACH ROW EXECUTE FUNCTION take_note();
INSERT INTO stock VALUES (1, 1), (2, 1);
:mark \gset
UPDATE stock SET shelf = 2 WHERE id IN (1, 2);
:news;
DROP TRIGGER zz_take_note ON stock;
CREATE TRIGGER aa_take_note AFTER DELETE OR INSERT ON stock FOR EACH ROW EXECUTE FUNCTION take_note();
DELETE FROM stock WHERE id > 100;
:mark \gset
UPDATE stock SET shelf = 1 WHERE id = 1;
:news;
SELECT * FROM stock ORDER BY id;

-- the two halves around a subtransaction that fails, and one that does not
CREATE FUNCTION try_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        INSERT INTO audit_moves.notes (text) VALUES ('lost');
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        INSERT INTO audit_moves.notes (text) VALUES ('kept');
    END;
    BEGIN
        INSERT INTO audit_moves.notes (text) VALUES ('kept too');
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
    RETURN NULL;
END $$;
CREATE TABLE boxes (id int, shelf int, PRIMARY KEY (id, shelf)) PARTITION BY LIST (shelf);
CREATE TABLE boxes_1 PARTITION OF boxes FOR VALUES IN (1);
CREATE TABLE boxes_2 PARTITION OF boxes FOR VALUES IN (2);
SELECT rowkeeper.audit('boxes') \g /dev/null
CREATE TRIGGER zz_try AFTER DELETE ON boxes FOR EACH ROW EXECUTE FUNCTION try_note();
INSERT INTO boxes VALUES (1, 1);
:mark \gset
UPDATE boxes SET shelf = 2;
:news;

-- capture of full rows; toasted values and a generated column come along
CREATE TABLE pages (id int, part int, body text, len int GENERATED ALWAYS AS (length(body)) STORED, PRIMARY KEY (id, part))
    PARTITION BY LIST (part);
CREATE TABLE pages_1 PARTITION OF pages FOR VALUES IN (1);
CREATE TABLE pages_2 (len int GENERATED ALWAYS AS (length(body)) STORED, body text, part int NOT NULL, id int NOT NULL);
ALTER TABLE pages_1 ALTER body SET STORAGE EXTERNAL;
ALTER TABLE pages_2 ALTER body SET STORAGE EXTERNAL;
ALTER TABLE pages ATTACH PARTITION pages_2 FOR VALUES IN (2);
SELECT rowkeeper.audit('pages', capture => 'full') \g /dev/null
INSERT INTO pages VALUES (1, 1, repeat('x', 10000));
UPDATE pages SET part = 2;
UPDATE pages SET part = 1, body = repeat('y', 9000);
SELECT action, record_id, changed_fields, length(old_data ->> 'body') AS old_body, old_data ->> 'len' AS old_len,
       length(new_data ->> 'body') AS new_body, new_data ->> 'len' AS new_len
    FROM rowkeeper.audit_log WHERE table_schema = 'audit_moves' AND table_name = 'pages' ORDER BY id;
-- in capture of changes an unchanged long value is not in the entry of a move
SELECT rowkeeper.audit('pages', capture => 'changes') \g /dev/null
:mark \gset
UPDATE pages SET part = 2;
SELECT action, record_id, left(old_data::text, 40) AS old_data, left(new_data::text, 40) AS new_data
    FROM rowkeeper.audit_log WHERE table_schema = 'audit_moves' AND id > :seen ORDER BY id;

-- a row is swallowed on its way, and the same statement inserts another one:
-- those are no move
CREATE TABLE sinks (id int, r int, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE sinks_1 PARTITION OF sinks FOR VALUES IN (1);
CREATE TABLE sinks_2 PARTITION OF sinks FOR VALUES IN (2);
CREATE TRIGGER swallow BEFORE INSERT ON sinks_2 FOR EACH ROW EXECUTE FUNCTION swallow();
SELECT rowkeeper.audit('sinks') \g /dev/null
INSERT INTO sinks VALUES (1, 1), (2, 1);
:mark \gset
WITH u AS (UPDATE sinks SET r = 2 WHERE id = 1) INSERT INTO sinks VALUES (3, 1);
MERGE INTO sinks USING (VALUES (2), (4)) s (id) ON sinks.id = s.id
    WHEN MATCHED THEN UPDATE SET r = 2 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 1);
SELECT action, record_id FROM rowkeeper.audit_log WHERE table_schema = 'audit_moves' AND id > :seen ORDER BY record_id ->> 'id';

DROP SCHEMA audit_moves CASCADE;
