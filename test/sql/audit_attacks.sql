-- What a role that owns tables, or may create schemas, can try against the
-- audit: none of it works, and what works by right leaves a trace.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE ROLE regress_rk_mallory;
CREATE DATABASE regress_rk_attacks;
GRANT CREATE ON DATABASE regress_rk_attacks TO regress_rk_mallory;
\c regress_rk_attacks
SET client_min_messages = warning;
-- the extension's own schema, planted
SET ROLE regress_rk_mallory;
CREATE SCHEMA rowkeeper;
RESET ROLE;
CREATE EXTENSION rowkeeper CASCADE;
DROP SCHEMA rowkeeper;
CREATE EXTENSION rowkeeper CASCADE;
GRANT CREATE ON SCHEMA public TO regress_rk_mallory;
SET ROLE regress_rk_mallory;
-- a log schema planted before the first audit(): what is in it is never run
CREATE SCHEMA rowkeeper_log;
CREATE FUNCTION evil() RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE WARNING 'evil runs as %', current_user; RETURN 1; END$$;
CREATE TABLE rowkeeper_log.tables (table_id int, relation regclass, table_schema name, table_name name, to_id bigint);
CREATE VIEW rowkeeper_log.partitions AS SELECT evil() AS table_id, 1::oid AS relation;
CREATE TABLE bait (i int);
DROP TABLE bait;
CREATE TABLE orders (id int PRIMARY KEY, status text, ssn text);
SELECT rowkeeper.audit('orders');
DROP SCHEMA rowkeeper_log CASCADE;
SELECT rowkeeper.audit('orders', exclude => '{ssn}') \g /dev/null
INSERT INTO orders VALUES (1, 'new', 'secret');
RESET ROLE;
SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log \gset
\set news 'SELECT table_name, action, record_id, old_data, new_data, context - ''columns'' AS context FROM rowkeeper.audit_log WHERE id > :seen ORDER BY id'
SET ROLE regress_rk_mallory;
-- the flag by which the extension knows its own statements is nobody's to set
SET rowkeeper.own_statement = on;
SELECT set_config('rowkeeper.own_statement', 'on', false);
-- DDL inside a foreign-key cascade, which the server runs outside forced row security
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent ON DELETE CASCADE);
CREATE FUNCTION switch_off() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    ALTER TABLE orders DISABLE TRIGGER "!rowkeeper_changes";
    RETURN OLD;
END$$;
CREATE TRIGGER switch_off BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION switch_off();
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (1);
DELETE FROM parent;
SELECT rowkeeper.audit('orders') \g /dev/null
-- a trigger of our name, or with our function, is audit()'s to make
CREATE TABLE mine (id int PRIMARY KEY);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER "!rowkeeper_changes" AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION nothing('audit', '{"exclude": [12345678901234567890]}');
CREATE TRIGGER "!rowkeeper_changes" AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION rowkeeper._changes_row('audit', '{}');
CREATE TRIGGER other AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION rowkeeper._changes_row('audit', '{}');
CREATE SCHEMA other CREATE TABLE mine (id int)
    CREATE TRIGGER "!rowkeeper_changes" AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION rowkeeper._changes_row('audit', '{}');
CREATE TRIGGER other AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TRIGGER other ON mine RENAME TO "!rowkeeper_changes";
ALTER TRIGGER "!rowkeeper_changes" ON orders RENAME TO asleep;
-- an excluded column is followed whatever command renames it
ALTER VIEW orders RENAME COLUMN ssn TO social;
INSERT INTO orders VALUES (2, 'new', 'secret');
CREATE TABLE inh_parent (id int, ssn text);
CREATE TABLE inh_child (PRIMARY KEY (id)) INHERITS (inh_parent);
SELECT rowkeeper.audit('inh_child', exclude => '{ssn}') \g /dev/null
ALTER TABLE inh_parent RENAME COLUMN ssn TO social;
INSERT INTO inh_child VALUES (1, 'secret');
ALTER TABLE inh_parent DROP COLUMN id;
CREATE TYPE person AS (id int, ssn text);
CREATE TABLE people OF person (PRIMARY KEY (id));
SELECT rowkeeper.audit('people', exclude => '{ssn}') \g /dev/null
ALTER TYPE person RENAME ATTRIBUTE ssn TO social CASCADE;
INSERT INTO people VALUES (1, 'secret');
-- and a table by whatever renames it
ALTER INDEX orders RENAME TO sales;
UPDATE sales SET status = 'paid' WHERE id = 2;
RESET ROLE;
:news;
SELECT target, options ->> 'exclude' AS exclude FROM rowkeeper.features ORDER BY 1;
SELECT max(id) AS seen FROM rowkeeper.audit_log \gset
-- an owner who is no superuser adds partitions, in every way
SET ROLE regress_rk_mallory;
CREATE TABLE parts (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
SELECT rowkeeper.audit('parts') \g /dev/null
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 (LIKE parts INCLUDING ALL);
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2);
CREATE SCHEMA more CREATE TABLE parts_3 PARTITION OF public.parts FOR VALUES IN (3);
INSERT INTO parts VALUES (1, 1), (2, 2), (3, 3);
TRUNCATE more.parts_3;
-- one that is audited by itself under a root that is not
CREATE TABLE big (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE solo (LIKE big INCLUDING ALL);
SELECT rowkeeper.audit('solo') \g /dev/null
ALTER TABLE big ATTACH PARTITION solo FOR VALUES IN (1);
SELECT rowkeeper.audit_off('parts_1');
RESET ROLE;
:news;
-- settings that are kept from a role do not come out as the actor
SET ROLE regress_rk_mallory;
SET rowkeeper.actor_settings = 'config_file, data_directory, app.user_id';
SELECT rowkeeper.actor() = session_user AS session_user_it_is;
RESET rowkeeper.actor_settings;
-- COPY FREEZE is logged as well
BEGIN;
CREATE TABLE frozen (id int PRIMARY KEY);
SELECT rowkeeper.audit('frozen') \g /dev/null
COPY frozen FROM stdin WITH (FREEZE);
1
2
\.
COMMIT;
SELECT action, record_id FROM rowkeeper.audit_log WHERE table_name = 'frozen' ORDER BY id;
-- what weakens an audit is in the log
SELECT rowkeeper.audit('frozen', replica => false) \g /dev/null
SELECT action, context FROM rowkeeper.audit_log WHERE table_name = 'frozen' ORDER BY id DESC LIMIT 1;
-- nor does it help to look like a dump that is being loaded
SET check_function_bodies = off;
SET row_security = off;
ALTER TABLE frozen DROP CONSTRAINT frozen_pkey;
ALTER TABLE frozen ADD COLUMN quietly int;
RESET ROLE;
SELECT action, context ->> 'actions' AS actions FROM rowkeeper.audit_log WHERE table_name = 'frozen' ORDER BY id DESC LIMIT 1;
\c contrib_regression
DROP DATABASE regress_rk_attacks;
DROP ROLE regress_rk_mallory;
