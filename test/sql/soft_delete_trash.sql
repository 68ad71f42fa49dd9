-- Trash mode: a DELETE deletes, and the row is kept in a table of its own.
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE DATABASE regress_rk_trash;
\c regress_rk_trash
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
SET timezone = 'UTC';
CREATE SCHEMA shop;
SET search_path = shop;
CREATE DOMAIN code AS text CHECK (VALUE <> '');
CREATE TYPE state AS ENUM ('new', 'paid');
CREATE TABLE orders (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	status state NOT NULL DEFAULT 'new',
	qty int NOT NULL DEFAULT 1,
	doubled int GENERATED ALWAYS AS (qty * 2) STORED,
	label code,
	"Short Name" varchar(5),
	body text);
CREATE TABLE lines (
	order_id bigint REFERENCES orders ON DELETE CASCADE, n int, v text,
	PRIMARY KEY (order_id, n));

-- children first: a cascade must not delete what nobody keeps
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('lines', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('orders', mode => 'trash');
SELECT count(*) AS again FROM rowkeeper.soft_delete('orders', mode => 'trash');

INSERT INTO orders (qty, label, "Short Name", body)
	SELECT g, 'l' || g, 'abc', CASE g WHEN 1 THEN repeat(md5('x'), 20000) END FROM generate_series(1, 4) g;
INSERT INTO lines SELECT o, n, 'line' FROM generate_series(1, 4) o, generate_series(1, 2) n;

-- who, when and with what: one statement and its cascades are a batch
BEGIN;
SELECT rowkeeper.set_context('ann');
DELETE FROM orders WHERE id = 1 RETURNING id;
DELETE FROM orders WHERE id = 2;
COMMIT;
SELECT _batch, _deleted_at <= now() AS timed, id, status, qty, doubled, label, "Short Name", length(body),
	_deleted_by, _deleted_via, _db_user = session_user AS db_user, _extra
FROM rowkeeper_trash.shop__orders ORDER BY id;
SELECT _batch, order_id, n, _deleted_by FROM rowkeeper_trash.shop__lines ORDER BY 1, 2, 3;
SELECT batch, actor, table_schema, table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY 1, 4;
SELECT _batch, _deleted_by, id, qty FROM orders_with_deleted ORDER BY id;

-- the toasted value is the trash's own
VACUUM orders;
SELECT md5(body) = md5(repeat(md5('x'), 20000)) AS whole FROM rowkeeper_trash.shop__orders WHERE id = 1;

-- what is rolled back is not kept, not even in part
BEGIN;
DELETE FROM lines WHERE order_id = 3 AND n = 1;
SAVEPOINT s;
DELETE FROM lines WHERE order_id = 3 AND n = 2;
ROLLBACK TO s;
COMMIT;
SELECT order_id, n FROM rowkeeper_trash.shop__lines WHERE order_id = 3;

-- the parts of one WITH are one batch, and so is what a user's trigger deletes
CREATE TABLE tags (order_id bigint PRIMARY KEY);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('tags', mode => 'trash');
INSERT INTO tags VALUES (3), (4);
CREATE FUNCTION drop_tag() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN DELETE FROM shop.tags WHERE order_id = OLD.id; RETURN NULL; END $$;
CREATE TRIGGER drop_tag AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION drop_tag();
WITH l AS (DELETE FROM lines WHERE order_id = 4) DELETE FROM orders WHERE id = 3;
SELECT count(DISTINCT _batch) AS batches, count(*) AS rows FROM (
	SELECT _batch FROM rowkeeper_trash.shop__orders WHERE id = 3 UNION ALL
	SELECT _batch FROM rowkeeper_trash.shop__lines WHERE order_id = 4 UNION ALL
	SELECT _batch FROM rowkeeper_trash.shop__tags WHERE order_id = 3) b;

-- no change of the table can make a delete fail
INSERT INTO orders (qty, label) VALUES (7, 'x');
SELECT count(*) > 0 AS hidden FROM rowkeeper.soft_delete_hide_view('orders');
ALTER TABLE orders ADD COLUMN added date DEFAULT '2024-02-29', ADD COLUMN _batch int DEFAULT 5;
ALTER TABLE orders RENAME COLUMN label TO tag;
ALTER TABLE orders ALTER COLUMN "Short Name" TYPE int USING 1;
ALTER TABLE orders ALTER COLUMN qty SET NOT NULL, DROP COLUMN body;
ALTER DOMAIN code ADD CHECK (VALUE <> 'never');
SELECT count(*) > 0 AS shown FROM rowkeeper.soft_delete_refresh('orders');
DELETE FROM orders WHERE id = 5;
SELECT id, status, qty, tag, "Short Name", body, _extra FROM rowkeeper_trash.shop__orders WHERE id = 5;
SELECT id, tag, "Short Name", added FROM orders_with_deleted WHERE id IN (2, 5) ORDER BY id;

-- partitions: leaf DML counts, moves do not
CREATE TABLE events (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE events_north PARTITION OF events FOR VALUES IN ('north');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('events', mode => 'trash');
CREATE TABLE events_south (v int, region text NOT NULL, id int NOT NULL);
ALTER TABLE events ATTACH PARTITION events_south FOR VALUES IN ('south');
INSERT INTO events SELECT g, 'north', g FROM generate_series(1, 6) g;
UPDATE events SET region = 'south' WHERE id <= 3;
MERGE INTO events e USING (VALUES (4)) s (id) ON e.id = s.id WHEN MATCHED THEN UPDATE SET region = 'south';
SELECT count(*) AS moved FROM rowkeeper_trash.shop__events;
DELETE FROM events_south WHERE id = 1;
DELETE FROM events WHERE id IN (2, 5);
MERGE INTO events e USING (VALUES (6)) s (id) ON e.id = s.id WHEN MATCHED THEN DELETE;
SELECT id, region, v FROM rowkeeper_trash.shop__events ORDER BY id;

-- readers of the trash are the source's; who may only delete reads nothing
CREATE ROLE sd_reader; CREATE ROLE sd_deleter;
GRANT USAGE ON SCHEMA shop TO sd_reader, sd_deleter;
GRANT SELECT, DELETE ON tags TO sd_reader;
GRANT SELECT (order_id), DELETE ON tags TO sd_deleter;
SET ROLE sd_deleter;
DELETE FROM tags WHERE order_id = 4;
SELECT order_id FROM rowkeeper_trash.shop__tags ORDER BY 1;
SELECT _deleted_by FROM rowkeeper_trash.shop__tags;
DELETE FROM rowkeeper_trash.shop__tags;
SELECT * FROM rowkeeper_trash.batches;
SET ROLE sd_reader;
SELECT order_id FROM tags_with_deleted ORDER BY 1;
RESET ROLE;
ALTER TABLE tags ENABLE ROW LEVEL SECURITY;
CREATE POLICY third ON tags FOR SELECT TO sd_reader USING (order_id = 3);
CREATE POLICY not_all ON tags AS RESTRICTIVE USING (EXISTS (SELECT FROM shop.orders o WHERE o.id <> tags.order_id));
GRANT SELECT ON orders TO sd_reader;
SET ROLE sd_reader;
SELECT order_id FROM tags_with_deleted ORDER BY 1;
RESET ROLE;
REVOKE SELECT ON tags FROM sd_reader;
DROP POLICY not_all ON tags;
SELECT relacl FROM pg_class WHERE oid = 'rowkeeper_trash.shop__tags'::regclass AND relacl::text LIKE '%sd_reader%';
SELECT polname FROM pg_policy WHERE polrelid = 'rowkeeper_trash.shop__tags'::regclass ORDER BY 1;
ALTER TABLE tags OWNER TO sd_deleter;
SELECT relowner::regrole FROM pg_class WHERE oid = 'rowkeeper_trash.shop__tags'::regclass;

-- what is wrong is found, and mended by what the doctor says
SELECT check_name, object FROM rowkeeper.doctor(feature => 'soft_delete') ORDER BY 1, 2;
ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE;
GRANT SELECT ON rowkeeper_trash.shop__tags TO sd_reader;
ALTER TABLE lines DISABLE TRIGGER "!rowkeeper_changes";
ALTER TABLE rowkeeper_trash.shop__events RENAME TO gone;
ALTER EVENT TRIGGER rowkeeper_ddl_end ENABLE ALWAYS;
SELECT check_name, level, object, detail FROM rowkeeper.doctor(feature => 'soft_delete') WHERE level <> 'info' ORDER BY 1, 3;
DELETE FROM events WHERE id = 3;
SELECT remedy FROM rowkeeper.doctor(feature => 'soft_delete') WHERE remedy IS NOT NULL AND remedy NOT LIKE 'SELECT%' ORDER BY 1 \gexec
SELECT count(*) > 0 AS made FROM rowkeeper.soft_delete('events', mode => 'trash');
SELECT check_name, object FROM rowkeeper.doctor(feature => 'soft_delete') WHERE level <> 'info' ORDER BY 1, 2;

-- long and odd names
CREATE TABLE "A table whose Name is as long as a name can be, that is 63 byte" (id int PRIMARY KEY);
CREATE TABLE "A table whose Name is as long as a name can be, that is 63 bytf" (id int PRIMARY KEY);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('"A table whose Name is as long as a name can be, that is 63 byte"', mode => 'trash');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('"A table whose Name is as long as a name can be, that is 63 bytf"', mode => 'trash');
INSERT INTO "A table whose Name is as long as a name can be, that is 63 byte" VALUES (1);
DELETE FROM "A table whose Name is as long as a name can be, that is 63 byte";
SELECT relname FROM pg_class WHERE relnamespace = 'rowkeeper_trash'::regnamespace AND relkind = 'r' AND relname LIKE '%Name%' ORDER BY 1;
CREATE TABLE keyless (id int);
SELECT count(*) FROM rowkeeper.soft_delete('keyless', mode => 'trash');

CREATE TABLE events_east PARTITION OF events FOR VALUES IN ('east');
INSERT INTO events VALUES (9, 'east', 9);
DELETE FROM events_east;
SELECT id, region FROM rowkeeper_trash.shop__events;
ALTER TABLE events DETACH PARTITION events_east;
DELETE FROM events_east;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'events_east'::regclass;

-- cascade => false: children are left alone, and keep the row
CREATE TABLE folders (id int PRIMARY KEY, parent int REFERENCES folders ON DELETE CASCADE);
CREATE TABLE papers (id int PRIMARY KEY, folder int REFERENCES folders ON DELETE CASCADE);
SELECT count(*) > 0 AS on FROM rowkeeper.soft_delete('folders', mode => 'trash', cascade => false);
INSERT INTO folders VALUES (1, NULL), (2, NULL), (3, NULL), (4, 3);
INSERT INTO papers VALUES (1, 1);
DELETE FROM folders WHERE id = 2;
DELETE FROM folders WHERE id = 1;
DELETE FROM folders WHERE id = 3;
SELECT rowkeeper.soft_delete_hard('folders', 1);
-- both rows of a key in one statement are no reason
DELETE FROM folders WHERE id IN (3, 4);
SELECT count(*) > 0 AS on FROM rowkeeper.soft_delete('papers', mode => 'trash');
SELECT count(*) > 0 AS on FROM rowkeeper.soft_delete('folders', mode => 'trash', cascade => true);
DELETE FROM folders WHERE id = 1;
SELECT table_name, record_id, conflict FROM rowkeeper.soft_delete_restore('folders', 1);

-- a collation that is not of the server's own
CREATE COLLATION bytewise (provider = libc, locale = 'C');
CREATE TABLE names (id int PRIMARY KEY, name text COLLATE bytewise);
SELECT count(*) > 0 AS on FROM rowkeeper.soft_delete('names', mode => 'trash');
INSERT INTO names VALUES (1, 'ann');
DELETE FROM names;
SELECT id, name, pg_collation_for(name) FROM rowkeeper_trash.shop__names;

-- off: what is kept stays, and is taken up again
SELECT count(*) > 0 AS off FROM rowkeeper.soft_delete_off('lines');
DELETE FROM lines;
SELECT count(*) FROM rowkeeper_trash.shop__lines;
SELECT count(*) > 0 AS on FROM rowkeeper.soft_delete('lines', mode => 'trash');
SELECT relname FROM pg_class WHERE relnamespace = 'rowkeeper_trash'::regnamespace AND relname LIKE 'shop\_\_lines%' AND relkind = 'r';

-- the trash is nobody's member: it outlives the extension
DROP EXTENSION rowkeeper CASCADE;
SELECT count(*) FROM rowkeeper_trash.shop__orders;
DELETE FROM orders WHERE id = 4;
DROP SCHEMA rowkeeper_trash, shop CASCADE;
\c contrib_regression
DROP DATABASE regress_rk_trash;
DROP ROLE sd_reader; DROP ROLE sd_deleter;
