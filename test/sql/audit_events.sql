-- What happens to an audited table besides its rows is in the log as well:
-- triggers switched off, the table dropped, capture switched off.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_events;
SET search_path = audit_events;
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set news 'SELECT table_name, relation, action, record_id, new_data, context - ''columns'' AS context, actor FROM rowkeeper.audit_log WHERE table_schema = ''audit_events'' AND id > :seen ORDER BY id'
SET app.user_id = 'alice';
CREATE TABLE orders (id int PRIMARY KEY);
SELECT rowkeeper.audit('orders') \g /dev/null

-- triggers switched off and on, whichever way
:mark \gset
ALTER TABLE orders DISABLE TRIGGER "!rowkeeper_changes";
INSERT INTO orders VALUES (1);
ALTER TABLE orders ENABLE ALWAYS TRIGGER "!rowkeeper_changes";
INSERT INTO orders VALUES (2);
ALTER TABLE orders DISABLE TRIGGER USER;
INSERT INTO orders VALUES (3);
ALTER TABLE orders ENABLE TRIGGER USER;
INSERT INTO orders VALUES (4);
ALTER TABLE orders DISABLE TRIGGER ALL;
ALTER TABLE orders ENABLE TRIGGER ALL;
ALTER TABLE orders ENABLE REPLICA TRIGGER "!rowkeeper_changes";
INSERT INTO orders VALUES (5);
INSERT INTO orders VALUES (50);
-- audit() again puts it right, and says so; ENABLE TRIGGER did not make it
-- silent under session_replication_role = replica
SELECT rowkeeper.audit('orders') \g /dev/null
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'orders'::regclass ORDER BY 1;
SET session_replication_role = replica;
INSERT INTO orders VALUES (6);
RESET session_replication_role;
:news;
-- somebody else's trigger is nobody's business
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER other AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION nothing();
:mark \gset
ALTER TABLE orders DISABLE TRIGGER other;
ALTER TABLE orders ENABLE TRIGGER other;
DROP TRIGGER other ON orders;
:news;
-- the statement's trigger does not stay off
:mark \gset
ALTER TABLE orders DISABLE TRIGGER rowkeeper_changes_flush;
BEGIN;
INSERT INTO orders VALUES (7);
SELECT count(*) FROM rowkeeper.audit_log WHERE id > :seen AND action = 'INSERT';
COMMIT;
SELECT rowkeeper.audit('orders') \g /dev/null
SELECT action, record_id FROM rowkeeper.audit_log WHERE table_schema = 'audit_events' AND id > :seen AND record_id IS NOT NULL;
-- dropped by hand, and made again
:mark \gset
DROP TRIGGER "!rowkeeper_changes" ON orders;
INSERT INTO orders VALUES (8);
SELECT rowkeeper.audit('orders') \g /dev/null
INSERT INTO orders VALUES (9);
:news;
-- of a partition alone
CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
SELECT rowkeeper.audit('parts') \g /dev/null
:mark \gset
ALTER TABLE parts_1 DISABLE TRIGGER "!rowkeeper_changes";
INSERT INTO parts VALUES (1), (11);
SELECT rowkeeper.audit('parts') \g /dev/null
INSERT INTO parts VALUES (2), (12);
:news;
SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger
    WHERE tgrelid IN ('parts'::regclass, 'parts_1'::regclass, 'parts_2'::regclass) ORDER BY 1, 2;

-- DROP TABLE: the entries stay, readable for the log's owner
CREATE TABLE doomed (id int PRIMARY KEY, note text);
SELECT rowkeeper.audit('doomed') \g /dev/null
INSERT INTO doomed VALUES (1, 'x');
CREATE ROLE regress_rk_reader;
GRANT USAGE ON SCHEMA audit_events TO regress_rk_reader;
GRANT SELECT ON doomed, orders TO regress_rk_reader;
SET ROLE regress_rk_reader;
SELECT table_name, count(*) FROM rowkeeper.audit_log WHERE table_name = 'doomed' GROUP BY 1;
RESET ROLE;
:mark \gset
DROP TABLE doomed;
:news;
SELECT relation, action, record_id FROM rowkeeper.audit_log WHERE table_name = 'doomed' AND table_schema = 'audit_events' ORDER BY id;
SET ROLE regress_rk_reader;
SELECT table_name, count(*) FROM rowkeeper.audit_log WHERE table_name = 'doomed' GROUP BY 1;
RESET ROLE;
SELECT relation FROM rowkeeper_log.tables WHERE table_schema = 'audit_events' AND table_name = 'doomed';
-- a new table of that name has a history of its own
CREATE TABLE doomed (id int PRIMARY KEY);
SELECT rowkeeper.audit('doomed') \g /dev/null
INSERT INTO doomed VALUES (1);
SELECT relation, action, record_id FROM rowkeeper.audit_log WHERE table_name = 'doomed' AND table_schema = 'audit_events' ORDER BY id;
-- by CASCADE, with its schema and its partitions; a column goes with its type
CREATE SCHEMA audit_gone;
CREATE TABLE audit_gone.t (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE audit_gone.t_1 PARTITION OF audit_gone.t FOR VALUES FROM (0) TO (10);
SELECT rowkeeper.audit('audit_gone.t') \g /dev/null
INSERT INTO audit_gone.t VALUES (1);
DROP SCHEMA audit_gone CASCADE;
SELECT table_schema, table_name, relation, action, context FROM rowkeeper.audit_log WHERE table_schema = 'audit_gone' ORDER BY id;
SELECT count(*) FROM rowkeeper_log.partitions WHERE relation::text ~ 'audit_gone' OR relation::text ~ '^\d';
CREATE TYPE color AS ENUM ('red');
CREATE TABLE painted (id int PRIMARY KEY, c color);
SELECT rowkeeper.audit('painted') \g /dev/null
:mark \gset
DROP TYPE color CASCADE;
INSERT INTO painted VALUES (1);
SELECT table_name, action, record_id, new_data, context ->> 'command' AS command
    FROM rowkeeper.audit_log WHERE table_schema = 'audit_events' AND id > :seen ORDER BY id;
-- made and dropped in one transaction
:mark \gset
BEGIN;
CREATE TABLE brief (id int PRIMARY KEY);
SELECT rowkeeper.audit('brief') \g /dev/null
INSERT INTO brief VALUES (1);
DROP TABLE brief;
COMMIT;
:news;
-- rowkeeper.audit_capture = off: superusers only, and not without a trace
CREATE ROLE regress_rk_app;
GRANT USAGE ON SCHEMA audit_events TO regress_rk_app;
GRANT ALL ON orders TO regress_rk_app;
SET ROLE regress_rk_app;
SET rowkeeper.audit_capture = off;
SELECT set_config('rowkeeper.audit_capture', 'off', false);
SHOW rowkeeper.audit_capture;
RESET ROLE;
:mark \gset
BEGIN;
SET LOCAL rowkeeper.audit_capture = off;
INSERT INTO orders VALUES (20);
UPDATE orders SET id = 21 WHERE id = 20;
DELETE FROM orders WHERE id = 21;
TRUNCATE doomed;
COMMIT;
INSERT INTO orders VALUES (22);
:news;
-- nothing is left of it where it is rolled back
:mark \gset
BEGIN;
SET LOCAL rowkeeper.audit_capture = off;
INSERT INTO orders VALUES (23);
ROLLBACK;
:news;
SET session_replication_role = replica;
:mark \gset
BEGIN;
SET LOCAL rowkeeper.audit_capture = off;
INSERT INTO orders VALUES (23);
COMMIT;
SELECT table_name, action FROM rowkeeper.audit_log WHERE table_schema = 'audit_events' AND id > :seen ORDER BY id;
RESET session_replication_role;

-- Nothing is logged of tables that are not audited.
:mark \gset
CREATE TABLE free (id int PRIMARY KEY);
INSERT INTO free VALUES (1);
ALTER TABLE free ADD COLUMN a int;
TRUNCATE free;
DROP TABLE free;
SELECT count(*) FROM rowkeeper_log.log WHERE id > :seen AND table_id <> 0;

RESET app.user_id;
DROP SCHEMA audit_events CASCADE;
DROP ROLE regress_rk_reader, regress_rk_app;
