-- Flag mode and statements of every kind: upserts, MERGE, COPY, cursors, moves
-- between partitions; and names of every kind.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA soft_delete_statements;
SET search_path = soft_delete_statements;
CREATE TABLE first (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('first') \g /dev/null
RESET client_min_messages;
\pset format unaligned
CREATE TABLE users (id int PRIMARY KEY, email text UNIQUE, logins int DEFAULT 0);
CREATE TABLE posts (id int PRIMARY KEY, author int REFERENCES users ON DELETE CASCADE);
\o /dev/null
SELECT rowkeeper.soft_delete('posts');
SELECT rowkeeper.soft_delete('users');
SELECT rowkeeper.soft_delete_unique('users', '{email}');
\o
\set show 'SELECT u.id, email, logins, u.deleted_at IS NOT NULL AS deleted, u.deleted_by IS NOT NULL AS who, u.delete_batch IS NOT NULL AS batch, count(p.id) FILTER (WHERE p.delete_batch = u.delete_batch) AS posts FROM users u LEFT JOIN posts p ON p.author = u.id GROUP BY u.id ORDER BY u.id'
INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 6) i;
INSERT INTO posts SELECT i, i FROM generate_series(1, 6) i;

-- an upsert, through the view and not, is asked among the living
DELETE FROM active_users WHERE id = 1;
INSERT INTO active_users (id, email) VALUES (11, 'u1') ON CONFLICT (email) WHERE deleted_at IS NULL DO NOTHING;
INSERT INTO active_users (id, email) VALUES (12, 'u1') ON CONFLICT (email) WHERE deleted_at IS NULL DO UPDATE SET logins = 1 RETURNING id, logins;
INSERT INTO users (id, email) VALUES (12, 'u1') ON CONFLICT (email) DO NOTHING;
INSERT INTO users (id, email) VALUES (11, 'u1') ON CONFLICT (id) DO UPDATE SET deleted_at = now();
INSERT INTO users (id, email) VALUES (1, 'u1') ON CONFLICT (id) DO UPDATE SET deleted_at = NULL, logins = 2;
:show;
-- MERGE on the table
MERGE INTO users u USING (VALUES (1), (2), (3)) v (id) ON v.id = u.id
    WHEN MATCHED AND u.id = 3 THEN UPDATE SET logins = 3
    WHEN MATCHED THEN UPDATE SET deleted_at = now();
MERGE INTO users u USING (VALUES (4)) v (id) ON v.id = u.id WHEN MATCHED THEN DELETE;
SELECT count(DISTINCT delete_batch) AS batches FROM users WHERE id IN (1, 2);
:show;
-- ... and on the view, which the server can do from 17 on
SELECT current_setting('server_version_num')::int >= 170000 AS merges \gset
\if :merges
MERGE INTO active_users u USING (VALUES (3), (1)) v (id) ON v.id = u.id WHEN MATCHED THEN DELETE;
\else
DELETE FROM active_users u USING (VALUES (3), (1)) v (id) WHERE v.id = u.id;
\endif
:show;
-- COPY
COPY users (id, email, deleted_at) FROM stdin;
21	u1	2001-01-01
22	u22	\N
\.
COPY posts (id, author, deleted_at) FROM stdin;
21	21	2001-01-01
22	22	\N
\.
COPY posts (id, author) FROM stdin;
23	21
\.
COPY (SELECT id, email FROM active_users ORDER BY id) TO stdout;
-- a cursor, and the table's rows by their place
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM users WHERE id = 4 FOR UPDATE;
FETCH c;
UPDATE users SET deleted_at = now() WHERE CURRENT OF c;
DECLARE d CURSOR FOR SELECT id FROM active_users WHERE id = 5 FOR UPDATE;
FETCH d;
DELETE FROM active_users WHERE CURRENT OF d;
ROLLBACK;
-- joins, subqueries, RETURNING of another table's columns
DELETE FROM active_users u USING active_posts p WHERE p.author = u.id AND p.id = 5 RETURNING u.id, u.email, p.id AS post;
DELETE FROM active_users WHERE id IN (SELECT author FROM active_posts WHERE id = 6) RETURNING (SELECT count(*) FROM posts WHERE author = active_users.id AND deleted_at IS NULL) AS alive;
-- a statement that deletes a row and what refers to it
WITH p AS (DELETE FROM active_posts WHERE author = 4 RETURNING author)
UPDATE users SET deleted_at = now() FROM p WHERE users.id = p.author RETURNING id;
:show;
-- set in a BEFORE trigger, which no statement names
CREATE FUNCTION bury() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.logins < 0 THEN NEW.deleted_at = now(); END IF; RETURN NEW; END $$;
CREATE TRIGGER bury BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION bury();
UPDATE users SET logins = -1 WHERE id = 22;
:show;
-- ... and taken back in an AFTER trigger: nothing was deleted
CREATE FUNCTION dig() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE users SET deleted_at = NULL WHERE id = NEW.id; RETURN NULL; END $$;
CREATE TRIGGER dig AFTER UPDATE ON users FOR EACH ROW WHEN (NEW.deleted_at IS NOT NULL AND NEW.id = 31) EXECUTE FUNCTION dig();
INSERT INTO users VALUES (31, 'u31'), (32, 'u32');
INSERT INTO posts VALUES (31, 31), (32, 32);
UPDATE users SET deleted_at = now() WHERE id IN (31, 32);
SELECT id FROM active_posts WHERE id > 30;
SELECT id, deleted_by, delete_batch FROM users WHERE id = 31;
-- what batches say is what there is
SELECT sum(rows) AS rows FROM rowkeeper.soft_delete_batches WHERE table_schema = 'soft_delete_statements';
SELECT (SELECT count(*) FROM users WHERE delete_batch IS NOT NULL) + (SELECT count(*) FROM posts WHERE delete_batch IS NOT NULL) AS rows;

-- rows of partitions that move: while alive, while deleted, and as they are
-- deleted, which their children keep them from
CREATE TABLE days (day int, id int, note text, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10);
CREATE TABLE days_2 (note text, id int NOT NULL, day int NOT NULL);
ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES FROM (10) TO (20);
CREATE TABLE notes (id int PRIMARY KEY, day int, day_id int, FOREIGN KEY (day, day_id) REFERENCES days ON UPDATE CASCADE ON DELETE CASCADE);
\o /dev/null
SELECT rowkeeper.soft_delete('notes');
SELECT rowkeeper.soft_delete('days');
\o
INSERT INTO days VALUES (1, 1), (1, 2), (1, 3), (11, 4), (1, 5);
INSERT INTO notes VALUES (1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 11, 4);
UPDATE days SET day = 12 WHERE id = 1;
DELETE FROM active_days WHERE id = 2;
UPDATE days SET day = 13 WHERE id = 2;
UPDATE days SET day = 14, deleted_at = now() WHERE id = 3;
SELECT d.tableoid::regclass, d.id, d.deleted_at IS NOT NULL AS deleted, n.deleted_at IS NOT NULL AS note FROM days d JOIN notes n ON n.day = d.day AND n.day_id = d.id ORDER BY 2;
DELETE FROM active_days WHERE day = 12;
DELETE FROM active_days WHERE id < 5 RETURNING day, id;
SELECT table_name, sum(rows) AS rows FROM rowkeeper.soft_delete_batches WHERE table_name IN ('days', 'notes') AND table_schema = 'soft_delete_statements' GROUP BY 1 ORDER BY 1;
SELECT count(delete_batch) AS days, (SELECT count(delete_batch) FROM notes) AS notes FROM days;
UPDATE days SET day = 15, deleted_at = now() WHERE id = 5;
-- MERGE that moves rows
UPDATE days SET deleted_at = NULL WHERE id = 4;
MERGE INTO days d USING (VALUES (4)) v (id) ON v.id = d.id WHEN MATCHED THEN UPDATE SET day = 5;
SELECT tableoid::regclass, deleted_at IS NOT NULL AS deleted FROM days WHERE id = 4;
DELETE FROM active_days WHERE id = 4;

-- names: as odd as they come, and as long
CREATE SCHEMA "soft delete; --";
SET search_path = "soft delete; --";
CREATE TABLE "Order ""Items""" ("Id" int PRIMARY KEY, "Parent's" int REFERENCES "Order ""Items""" ON DELETE CASCADE, "%s" text UNIQUE);
SELECT rowkeeper.soft_delete('"Order ""Items"""', deleted_at => 'Deleted "At" %I', deleted_by => 'by''whom', batch => '$1');
SELECT rowkeeper.soft_delete('"Order ""Items"""');
SELECT rowkeeper.soft_delete_unique('"Order ""Items"""', '{%s}');
INSERT INTO "Order ""Items""" VALUES (1, NULL), (2, 1);
DELETE FROM "active_Order ""Items""" WHERE "Id" = 1 RETURNING "Id";
INSERT INTO "Order ""Items""" VALUES (3, 1);
SELECT "Id", "Deleted ""At"" %I" IS NOT NULL AS deleted, "by'whom" IS NOT NULL AS who, "$1" IS NOT NULL AS batch FROM "Order ""Items""" ORDER BY 1;
SELECT call FROM rowkeeper.features WHERE target = '"Order ""Items"""'::regclass AND feature = 'soft_delete';
SELECT call FROM rowkeeper.features WHERE target = '"Order ""Items"""'::regclass AND feature = 'soft_delete' \gexec
TRUNCATE "Order ""Items""";
SELECT rowkeeper.soft_delete_hide_view('"Order ""Items"""');
SELECT rowkeeper.soft_delete_refresh('"Order ""Items"""');
SELECT options ? 'hidden' AS hidden FROM rowkeeper.features WHERE target = '"Order ""Items"""'::regclass AND feature = 'soft_delete';
SELECT check_name, object, detail FROM rowkeeper.doctor('soft delete; --');
CREATE TABLE "a table with a name that fills all the room there is for one na" (id int PRIMARY KEY, "a column with a name that fills all the room there is for one n" timestamptz);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('"a table with a name that fills all the room there is for one na"', deleted_at => 'a column with a name that fills all the room there is for one n');
SELECT rowkeeper.soft_delete('"a table with a name that fills all the room there is for one na"');
INSERT INTO "a table with a name that fills all the room there is for one na" VALUES (1);
SELECT relname AS view FROM pg_class WHERE relkind = 'v' AND relname ~ 'a table' \gset
DELETE FROM :"view" RETURNING id;
CREATE TABLE "a table with a name that fills all the room there is for one ta" (id int PRIMARY KEY, v int);
CREATE TABLE "a table with a name that fills all the room there is for one tb" (id int PRIMARY KEY, v int);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('"a table with a name that fills all the room there is for one ta"', view_name => 'a');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('"a table with a name that fills all the room there is for one tb"');
SELECT rowkeeper.soft_delete_off('"Order ""Items"""');
CREATE TABLE "Ärger" ("Straße" int PRIMARY KEY, "gelöscht" timestamp);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('"Ärger"', deleted_at => 'gelöscht');
INSERT INTO "Ärger" VALUES (1);
DELETE FROM "active_Ärger" RETURNING *;

-- a key over periods, which 18 has, is found by what is equal to it, not by what overlaps
SET search_path = soft_delete_statements, public;
SELECT current_setting('server_version_num')::int >= 180000 AS periods \gset
\if :periods
CREATE TABLE bookings (room int4range, during int4range, guest text, PRIMARY KEY (room, during WITHOUT OVERLAPS),
    seats int4range, UNIQUE (seats, during WITHOUT OVERLAPS));
\else
CREATE TABLE bookings (room int4range, during int4range, guest text, PRIMARY KEY (room, during));
\endif
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('bookings');
INSERT INTO bookings VALUES ('[1,2)', '[10,20)', 'ann'), ('[1,2)', '[20,30)', 'bob'), ('[2,3)', '[10,30)', 'cec');
DELETE FROM active_bookings WHERE room = '[1,2)' RETURNING guest;
SELECT rowkeeper.soft_delete_restore('bookings', '[1,2)', '[15,25)');
SELECT rowkeeper.soft_delete_restore('bookings', '[1,2)', '[20,30)');
SELECT rowkeeper.soft_delete_hard('bookings', '[1,2)', '[15,25)');
SELECT rowkeeper.soft_delete_hard('bookings', '[1,2)', '[10,20)');
DELETE FROM active_bookings WHERE guest = 'bob' RETURNING guest;
SELECT guest, deleted_at IS NOT NULL AS deleted FROM bookings ORDER BY 1;
CREATE FUNCTION refusal(sql text) RETURNS text LANGUAGE plpgsql AS
    $$BEGIN EXECUTE sql; RETURN 'none'; EXCEPTION WHEN feature_not_supported THEN RETURN SQLERRM; END$$;
\if :periods
SELECT refusal($$SELECT rowkeeper.soft_delete_unique('bookings', '{seats,during}')$$) \gset
SELECT refusal('CREATE TABLE stays (id int PRIMARY KEY, room int4range, during int4range,
    FOREIGN KEY (room, PERIOD during) REFERENCES bookings)') AS key_refusal \gset
\else
\set key_refusal 'cannot soft-delete rows of soft_delete_statements.bookings: foreign key "stays_room_during_fkey" of soft_delete_statements.stays is over periods'
\set refusal 'cannot replace unique index soft_delete_statements.bookings_seats_during_key: it is over periods'
\endif
SELECT :'refusal' AS refusal, :'key_refusal' AS key_refusal;

SET client_min_messages = warning;
DROP SCHEMA "soft delete; --" CASCADE;
DROP SCHEMA soft_delete_statements CASCADE;
