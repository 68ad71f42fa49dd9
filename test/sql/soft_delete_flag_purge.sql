-- Flag mode, deleted rows removed for good: what must stay with them, and what
-- triggers of the table do meanwhile.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE DATABASE regress_rk_flag_purge;
\c regress_rk_flag_purge
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;

-- children come along, but never live ones: rows that were deleted by hand
-- before there was soft delete may have some
CREATE TABLE orders (id int PRIMARY KEY, deleted_at timestamptz);
CREATE TABLE lines (id int PRIMARY KEY, o int REFERENCES orders ON DELETE CASCADE, deleted_at timestamptz);
INSERT INTO orders SELECT g, now() - interval '1 year' FROM generate_series(1, 4) g;
INSERT INTO lines VALUES (1, 1, NULL), (2, 2, now() - interval '1 year'), (3, 3, now() - interval '1 year'), (4, 3, NULL);
SELECT rowkeeper.soft_delete('lines') \g /dev/null
SELECT rowkeeper.soft_delete('orders', keep => '90 days') \g /dev/null
CALL rowkeeper.maintain();
SELECT id FROM orders ORDER BY id;
SELECT id, deleted_at IS NULL AS live FROM lines ORDER BY id;
SELECT rowkeeper.soft_delete_hard('orders', 1);
-- and those of a child of theirs that has no soft delete
DELETE FROM active_lines WHERE id = 1;
INSERT INTO lines VALUES (5, 1, now());
CREATE TABLE notes (id int PRIMARY KEY, l int REFERENCES lines ON DELETE CASCADE);
ALTER TABLE notes DISABLE TRIGGER USER;
INSERT INTO notes VALUES (1, 5);
CALL rowkeeper.soft_delete_purge('orders', '0');
SELECT id FROM orders ORDER BY id;
SELECT * FROM notes;
DELETE FROM notes;
CALL rowkeeper.soft_delete_purge('orders', '0');
SELECT id FROM orders ORDER BY id;
DELETE FROM active_lines;
CALL rowkeeper.soft_delete_purge('orders', '0');
SELECT count(*) FROM lines;

-- a trigger may keep a row: it is still in its batch
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN CASE WHEN OLD.id % 2 = 0 THEN OLD END; END$$;
CREATE TABLE kept (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('kept') \g /dev/null
INSERT INTO kept SELECT generate_series(1, 4);
DELETE FROM active_kept;
CREATE TRIGGER keep BEFORE DELETE ON kept FOR EACH ROW EXECUTE FUNCTION keep();
CALL rowkeeper.soft_delete_purge('kept', '0');
CALL rowkeeper.soft_delete_purge('kept', '0', 1);
CALL rowkeeper.maintain();
SELECT table_name, rows FROM rowkeeper.soft_delete_batches;
SELECT record_id FROM rowkeeper.soft_delete_restore_batch((SELECT max(delete_batch) FROM kept));
SELECT id FROM active_kept ORDER BY id;
-- and so what it refers to
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE children (id int PRIMARY KEY, p int REFERENCES parents ON DELETE CASCADE);
SELECT rowkeeper.soft_delete('children') \g /dev/null
SELECT rowkeeper.soft_delete('parents') \g /dev/null
INSERT INTO parents VALUES (1), (2);
INSERT INTO children VALUES (1, 1), (2, 2);
DELETE FROM active_parents;
CREATE TRIGGER keep BEFORE DELETE ON children FOR EACH ROW EXECUTE FUNCTION keep();
CALL rowkeeper.soft_delete_purge('parents', '0');
SELECT p.id, c.id FROM parents p FULL JOIN children c ON c.p = p.id;

-- what a trigger deletes elsewhere is an ordinary delete: kept in the trash
CREATE TABLE files (id int PRIMARY KEY, d int);
CREATE TABLE docs (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('files', mode => 'trash') \g /dev/null
SELECT rowkeeper.soft_delete('docs') \g /dev/null
CREATE FUNCTION delete_files() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN DELETE FROM files WHERE d = OLD.id; RETURN NULL; END$$;
CREATE TRIGGER delete_files AFTER DELETE ON docs FOR EACH ROW EXECUTE FUNCTION delete_files();
INSERT INTO docs VALUES (1), (2);
INSERT INTO files VALUES (7, 1), (8, 2);
DELETE FROM active_docs WHERE id = 1;
CALL rowkeeper.soft_delete_purge('docs', '0');
SELECT rowkeeper.soft_delete_hard('docs', 2);
SELECT count(*) FROM files;
SELECT id FROM rowkeeper_trash.public__files ORDER BY id;
-- and refused where it always is
CREATE TABLE direct (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('direct') \g /dev/null
CREATE FUNCTION delete_direct() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN DELETE FROM direct; RETURN NULL; END$$;
CREATE TRIGGER delete_direct AFTER DELETE ON docs EXECUTE FUNCTION delete_direct();
INSERT INTO docs VALUES (3);
SELECT rowkeeper.soft_delete_hard('docs', 3);
-- a trigger may remove something for good itself
CREATE OR REPLACE FUNCTION delete_direct() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM rowkeeper.soft_delete_hard('direct', 1); RETURN NULL; END$$;
INSERT INTO direct VALUES (1), (2);
SELECT rowkeeper.soft_delete_hard('docs', 3);
SELECT id FROM direct;

-- a timestamp is of the session's time zone, west of Greenwich too
SET timezone = 'America/Los_Angeles';
CREATE TABLE west (id int PRIMARY KEY, deleted_at timestamp);
SELECT rowkeeper.soft_delete('west', keep => '1 day') \g /dev/null
INSERT INTO west VALUES (1), (2);
DELETE FROM active_west;
-- less than its offset younger
UPDATE west SET deleted_at = deleted_at - interval '20 hours' WHERE id = 1;
UPDATE west SET deleted_at = deleted_at - interval '30 hours' WHERE id = 2;
CALL rowkeeper.maintain();
SELECT id FROM west;
SET timezone = 'Asia/Tokyo';
UPDATE west SET deleted_at = now() - interval '30 hours';
CALL rowkeeper.soft_delete_purge('west');
SELECT count(*) FROM west;

\c contrib_regression
DROP DATABASE regress_rk_flag_purge;
