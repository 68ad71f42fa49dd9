-- Attempts to get at another tenant's rows, or at whoever looks after them,
-- through the objects around a table: triggers, views, partitions, what leave()
-- leaves. Each row of tenant 2 says SECRET. In a database of its own, because
-- leave() is of all of it.
\set VERBOSITY terse
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
SELECT current_database() AS db \gset
CREATE DATABASE regress_rk_objects TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
\c regress_rk_objects
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
CREATE ROLE objects_owner;
CREATE ROLE objects_app;
CREATE ROLE objects_eve;
GRANT CREATE, USAGE ON SCHEMA public TO objects_owner, objects_eve;
SELECT count(*) FROM rowkeeper.tenant_role('objects_app', 'set');
SELECT count(*) FROM rowkeeper.tenant_role('objects_owner', 'set');
\set as_two 'BEGIN; SELECT rowkeeper.tenant_set(2);'
\set doctor 'SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor(NULL, ''tenant'') WHERE level <> ''info'';'
SET ROLE objects_owner;
CREATE TABLE orders (id int PRIMARY KEY, tenant_id int NOT NULL, item text);
INSERT INTO orders VALUES (1, 1, 'mine'), (2, 2, 'SECRET');
CREATE INDEX ON orders (tenant_id);
SELECT count(*) FROM rowkeeper.tenant('orders');

\echo == the trigger that carries the options
CREATE TABLE lines (id int, tenant_id int NOT NULL, note text) PARTITION BY RANGE (id);
CREATE TABLE lines_1 PARTITION OF lines FOR VALUES FROM (0) TO (100);
SELECT count(*) FROM rowkeeper.tenant('lines');
GRANT SELECT, INSERT, TRIGGER, TRUNCATE ON lines TO objects_eve;
SET ROLE objects_eve;
CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
-- replaced by another of its name, by who may make triggers
CREATE OR REPLACE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON lines EXECUTE FUNCTION noop();
CREATE OR REPLACE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON lines EXECUTE FUNCTION rowkeeper._tenant_truncate('{"tenant": "id"}');
CREATE TRIGGER another BEFORE TRUNCATE ON lines EXECUTE FUNCTION rowkeeper._tenant_truncate('{"tenant": "id"}');
TRUNCATE lines;
-- nor by the owner, or by a superuser
SET ROLE objects_owner;
CREATE OR REPLACE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON lines EXECUTE FUNCTION noop();
ALTER TRIGGER rowkeeper_tenant ON lines RENAME TO mine;
RESET ROLE;
CREATE OR REPLACE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON lines EXECUTE FUNCTION noop();
SET ROLE objects_owner;
-- a partition made afterwards is isolated
CREATE TABLE lines_2 PARTITION OF lines FOR VALUES FROM (100) TO (200);
GRANT SELECT ON lines_2 TO objects_app;
:as_two
INSERT INTO lines VALUES (150, 2, 'SECRET');
COMMIT;
SET ROLE objects_app;
SELECT * FROM lines_2;
-- lost with its options: what row security was before the loss is not what it was before tenant()
SET ROLE objects_owner;
DROP TRIGGER rowkeeper_tenant ON orders;
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('orders');
BEGIN;
SELECT count(*) > 0 AS done FROM rowkeeper.tenant_off('orders');
SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = 'orders'::regclass;
ROLLBACK;

\echo == arguments that nobody should read
SET ROLE objects_eve;
CREATE TABLE mine (a int);
CREATE FUNCTION carry(arguments text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE OR REPLACE TRIGGER rowkeeper_tenant BEFORE TRUNCATE ON mine EXECUTE FUNCTION rowkeeper._tenant_truncate(%L)', arguments);
END$$;
SELECT carry(repeat('[', 200000));
RESET ROLE;
SELECT count(*) FROM rowkeeper.features;
SELECT count(*) > 0 AS done FROM rowkeeper.tenant_role('objects_app', 'bypass');
SELECT count(*) > 0 AS done FROM rowkeeper.tenant_role('objects_app', 'none');
SELECT count(*) > 0 AS done FROM rowkeeper.tenant_role('objects_app', 'set');
:doctor
SET ROLE objects_eve;
SELECT carry(format('{"tenant": "a", %s}', string_agg(format('"k%s": 1', i), ', '))) FROM generate_series(1, 200) i;
SELECT rowkeeper._tenant_options('mine') IS NULL AS is_nothing;
SELECT carry('{"tenant": "\u0400"}');
SELECT rowkeeper._tenant_options('mine') IS NULL AS is_nothing;
DROP TABLE mine;
-- the longest that tenant() itself writes
SET ROLE objects_owner;
SELECT repeat(E'\x01', 62) AS wide \gset
CREATE TABLE odd (:"wide" int, "a\u0400""" int);
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('odd', by => :'wide');
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('odd', by => 'a\u0400"', claim => 'user');
SELECT length(rowkeeper._tenant_options('odd') ->> 'tenant'), rowkeeper._tenant_options('odd') ->> 'user';
DROP TABLE odd;

\echo == rows kept by a materialized view, behind views
CREATE VIEW of_owner AS SELECT * FROM orders;
CREATE VIEW of_reader WITH (security_invoker = on) AS SELECT * FROM orders;
:as_two
CREATE MATERIALIZED VIEW kept_owner AS SELECT * FROM of_owner;
CREATE MATERIALIZED VIEW kept_reader AS SELECT * FROM of_reader;
CREATE MATERIALIZED VIEW kept_own AS SELECT * FROM orders;
CREATE VIEW of_kept AS SELECT * FROM kept_own;
CREATE VIEW asks_kept WITH (security_invoker = 1) AS SELECT * FROM kept_own;
COMMIT;
RESET ROLE;
:doctor
GRANT SELECT ON kept_owner, kept_reader, of_kept, asks_kept TO objects_app;
:doctor
DROP VIEW of_owner, of_reader, of_kept, asks_kept CASCADE;
DROP MATERIALIZED VIEW kept_own;
:doctor

\echo == a partition whose trigger is gone
SET ROLE objects_owner;
CREATE TABLE top (id int, tenant_id int NOT NULL, note text) PARTITION BY RANGE (id);
ALTER TABLE lines DETACH PARTITION lines_2;
DROP TRIGGER rowkeeper_tenant ON lines_2;
ALTER TABLE top ATTACH PARTITION lines_2 FOR VALUES FROM (100) TO (200);
CREATE TABLE elder (id int, tenant_id int NOT NULL, note text);
ALTER TABLE lines_2 INHERIT elder;
-- nor past the event trigger without the doctor's finding
RESET ROLE;
ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE;
ALTER TABLE top ATTACH PARTITION lines_2 FOR VALUES FROM (100) TO (200);
ALTER EVENT TRIGGER rowkeeper_ddl_end ENABLE ALWAYS;
:doctor
SET ROLE objects_owner;
ALTER TABLE top DETACH PARTITION lines_2;
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('lines_2');
DROP TABLE top, elder;

\echo == tenants that keys take for one
RESET ROLE;
CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE DOMAIN anycase_text AS text COLLATE anycase;
SET ROLE objects_owner;
CREATE TABLE names (tenant_id anycase_text, id int);
SELECT rowkeeper.tenant('names');
ALTER TABLE names ALTER COLUMN tenant_id TYPE anycase_text COLLATE "C";
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('names');
ALTER TABLE names ALTER COLUMN tenant_id TYPE text COLLATE anycase;
RESET ROLE;
BEGIN;
UPDATE pg_attribute SET attcollation = 'anycase'::regcollation WHERE attrelid = 'names'::regclass AND attname = 'tenant_id';
:doctor
ROLLBACK;
SET ROLE objects_owner;
DROP TABLE names;

\echo == entries of a dropped column
CREATE TABLE audited (id int PRIMARY KEY, tenant_id int, org int, item text);
GRANT SELECT ON audited TO objects_app;
SELECT count(*) > 0 AS done FROM rowkeeper.audit('audited');
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('audited');
:as_two
INSERT INTO audited VALUES (1, 2, 1, 'SECRET');
COMMIT;
SELECT count(*) > 0 AS done FROM rowkeeper.tenant_off('audited');
ALTER TABLE audited DROP COLUMN tenant_id, ADD COLUMN tenant_id int;
UPDATE audited SET tenant_id = org;
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('audited');
BEGIN;
SELECT rowkeeper.tenant_set(1);
INSERT INTO audited VALUES (2, 1, 'mine');
COMMIT;
SET ROLE objects_app;
:as_two
SELECT action, record_id, new_data FROM rowkeeper.audit_log;
COMMIT;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT action, record_id, new_data ->> 'item' FROM rowkeeper.audit_log;
COMMIT;

\echo == what leave() leaves
SET ROLE objects_owner;
DROP TABLE audited, lines, lines_2;
CREATE TABLE trashed (id int PRIMARY KEY, tenant_id int NOT NULL, item text);
GRANT SELECT, DELETE ON trashed TO objects_app;
RESET ROLE;
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('trashed', mode => 'trash');
SET ROLE objects_owner;
SELECT count(*) > 0 AS done FROM rowkeeper.tenant('trashed');
CREATE POLICY wide ON trashed FOR SELECT TO objects_app USING (true);
:as_two
INSERT INTO trashed VALUES (1, 2, 'SECRET');
DELETE FROM trashed;
COMMIT;
RESET ROLE;
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete_off('trashed');
SET ROLE objects_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT item FROM rowkeeper_trash.public__trashed;
COMMIT;
-- the user's own policy of the name that leave() gives
SET ROLE objects_owner;
CREATE POLICY tenant_isolation ON orders USING (id > 0);
SELECT count(*) > 0 AS done FROM rowkeeper.leave('orders');
SELECT count(*) > 0 AS done FROM rowkeeper.leave('trashed');
-- somebody else's leave() finds nothing of his, and takes nothing
SET ROLE objects_eve;
SELECT rowkeeper.leave();
RESET ROLE;
SELECT count(*) > 0 AS done FROM rowkeeper.leave();
SELECT rowkeeper.leave();
SELECT polrelid::regclass, polname, polpermissive, pg_get_expr(polqual, polrelid) FROM pg_policy ORDER BY polrelid::regclass::text COLLATE "C", polname COLLATE "C";
DROP EXTENSION rowkeeper;
SET ROLE objects_app;
SET app.tenant_id = '1';
SELECT item FROM rowkeeper_trash.public__trashed;
RESET ROLE;
\c :db
DROP DATABASE regress_rk_objects;
DROP ROLE objects_owner, objects_app, objects_eve;
