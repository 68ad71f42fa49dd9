-- One account per service, with exactly its verbs.
\set VERBOSITY terse
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA tenant_service;
CREATE ROLE tenant_service_owner;
ALTER SCHEMA tenant_service OWNER TO tenant_service_owner;
SET search_path = tenant_service;
SET ROLE tenant_service_owner;
CREATE TABLE orders (id serial PRIMARY KEY, tenant_id int, item text, note text);
CREATE TABLE "Odd Name" (id int GENERATED ALWAYS AS IDENTITY, tenant_id int);
CREATE VIEW seen WITH (security_invoker = true) AS SELECT * FROM orders;
CREATE MATERIALIZED VIEW counted AS SELECT 1 AS n;
RESET ROLE;
\set rights 'SELECT c.relname, string_agg(a.privilege_type, '','' ORDER BY a.privilege_type) FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = ''tenant_service''::regnamespace AND a.grantee = ''tenant_service_app''::regrole GROUP BY 1 ORDER BY 1;'

-- read
SELECT rowkeeper.service_role('tenant_service_app', 'read', 'tenant_service');
SELECT rowkeeper.service_role('tenant_service_app', 'read', 'tenant_service');
:rights
SELECT rolcanlogin, rolbypassrls, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = 'tenant_service_app';
SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'tenant_service_app';
-- a table to come
SET ROLE tenant_service_owner;
CREATE TABLE later (id int);
RESET ROLE;
:rights
-- write: no TRUNCATE, no DDL
SELECT rowkeeper.service_role('tenant_service_app', 'write', 'tenant_service');
SELECT rowkeeper.service_role('tenant_service_app', 'write', 'tenant_service');
:rights
SET ROLE tenant_service_app;
INSERT INTO orders (tenant_id) VALUES (1);
TRUNCATE orders;
CREATE TABLE mine (id int);
RESET ROLE;
-- more than its level goes
GRANT TRUNCATE, REFERENCES ON later TO tenant_service_app;
ALTER ROLE tenant_service_app BYPASSRLS;
SELECT rowkeeper.service_role('tenant_service_app', 'write', 'tenant_service');
-- own: isolated tables only
SELECT rowkeeper.service_role('tenant_service_app', 'own', 'tenant_service');
SET ROLE tenant_service_owner;
SELECT count(*) FROM rowkeeper.tenant('orders');
RESET ROLE;
SELECT rowkeeper.service_role('tenant_service_two', 'own', tables => '{orders}');
SELECT rowkeeper.service_role('tenant_service_two', 'own', tables => '{orders}');
-- columns
SELECT rowkeeper.service_columns('tenant_service_two', 'orders', '{id,tenant_id,item}', '{tenant_id,item}');
SELECT rowkeeper.service_columns('tenant_service_two', 'orders', '{item,id,tenant_id}', '{item,tenant_id}');
SELECT rowkeeper.service_columns('tenant_service_two', 'orders', '{id,tenant_id}', '{item}');
SELECT rowkeeper.service_role('tenant_service_two', 'own', tables => '{orders}');
SET ROLE tenant_service_two;
SET rowkeeper.tenant_strict = off;
SELECT id FROM orders;
SELECT note FROM orders;
UPDATE orders SET note = 'x';
RESET rowkeeper.tenant_strict;
RESET ROLE;
SELECT rowkeeper.service_columns('tenant_service_two', 'orders', '{nothing}', '{}');
-- admin: a member of the owner, who has lost TRUNCATE; what he is trusted with goes with it
SELECT count(*) FROM rowkeeper.tenant_role('tenant_service_owner', 'bypass');
BEGIN;
SELECT count(*) FROM rowkeeper.service_role('tenant_service_app', 'admin', 'tenant_service');
ROLLBACK;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_service_owner', 'none');
SELECT rowkeeper.service_role('tenant_service_app', 'admin', 'tenant_service');
SELECT rowkeeper.service_role('tenant_service_app', 'admin', 'tenant_service');
SET ROLE tenant_service_app;
ALTER TABLE later ADD COLUMN x int;
TRUNCATE later;
RESET ROLE;
SELECT rowkeeper.service_role('tenant_service_app', 'read', 'tenant_service');
-- off
SELECT rowkeeper.service_off('tenant_service_app');
SELECT rowkeeper.service_off('tenant_service_app');
SELECT rowkeeper.service_off('tenant_service_two');
SELECT rowkeeper.service_off(NULL);
:rights
-- trust, routines, types, default privileges of all schemas, and what others granted
CREATE ROLE tenant_service_more;
CREATE ROLE tenant_service_giver;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_service_more', 'bypass');
SELECT count(*) FROM rowkeeper.tenant_role('tenant_service_more', 'set');
CREATE FUNCTION one(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TYPE kind AS ENUM ('a');
GRANT EXECUTE ON FUNCTION one(int) TO tenant_service_more;
GRANT USAGE ON TYPE kind TO tenant_service_more;
ALTER DEFAULT PRIVILEGES FOR ROLE tenant_service_owner GRANT EXECUTE ON ROUTINES TO tenant_service_more;
SET ROLE tenant_service_owner;
GRANT USAGE ON SCHEMA tenant_service TO tenant_service_giver;
GRANT SELECT, INSERT ON orders, seen TO tenant_service_giver WITH GRANT OPTION;
SET ROLE tenant_service_giver;
GRANT INSERT ON orders TO tenant_service_more;
GRANT SELECT (id) ON seen TO tenant_service_more;
RESET ROLE;
GRANT SELECT ON later TO tenant_service_more;
-- exactly the rights of the level, or none
SELECT rowkeeper.service_role('tenant_service_more', 'read', tables => '{later}');
\set VERBOSITY default
SELECT rowkeeper.service_role('tenant_service_more', 'read', tables => '{orders}');
\set VERBOSITY terse
SELECT rowkeeper.service_columns('tenant_service_more', 'orders', '{id}', '{}');
SELECT rowkeeper.service_columns('tenant_service_more', 'seen', '{}', '{}');
-- who may not act as who granted it, or not say whom to trust
CREATE ROLE tenant_service_half IN ROLE tenant_service_owner;
SET ROLE tenant_service_half;
SELECT rowkeeper.service_off('tenant_service_more');
RESET ROLE;
SELECT rowkeeper.service_off('tenant_service_more');
SELECT rowkeeper.service_off('tenant_service_more');
SELECT has_function_privilege('tenant_service_more', 'rowkeeper.tenant_bypass(text)', 'EXECUTE'), has_table_privilege('tenant_service_more', 'orders', 'INSERT');
SELECT count(*) FROM pg_policy WHERE 'tenant_service_more'::regrole = ANY (polroles);
SET ROLE tenant_service_giver;
GRANT INSERT ON orders TO tenant_service_more;
SET ROLE tenant_service_half;
SELECT rowkeeper.service_off('tenant_service_more');
RESET ROLE;
SELECT rowkeeper.service_off('tenant_service_more');
-- refused
SELECT rowkeeper.service_role('tenant_service_app', 'everything', 'tenant_service');
SELECT rowkeeper.service_role('tenant_service_app', 'read');
SELECT rowkeeper.service_role('tenant_service_app', 'read', 'nowhere');
SELECT rowkeeper.service_role(NULL, 'read', 'tenant_service');
SELECT rowkeeper.service_off('nobody');
CREATE ROLE tenant_service_super SUPERUSER;
SELECT rowkeeper.service_role('tenant_service_super', 'read', 'tenant_service');
-- an attribute of its own, a membership
\set VERBOSITY default
CREATE ROLE tenant_service_copier LOGIN REPLICATION;
SELECT rowkeeper.service_role('tenant_service_copier', 'read', 'tenant_service');
ALTER ROLE tenant_service_copier NOREPLICATION;
GRANT pg_read_all_data TO tenant_service_copier;
SELECT rowkeeper.service_role('tenant_service_copier', 'read', 'tenant_service');
\set VERBOSITY terse
SET ROLE tenant_service_app;
SELECT rowkeeper.service_role('tenant_service_new', 'read', 'tenant_service');
RESET ROLE;
DROP SCHEMA tenant_service CASCADE;
DROP ROLE tenant_service_super, tenant_service_copier, tenant_service_app, tenant_service_two, tenant_service_half, tenant_service_more, tenant_service_giver;
DROP OWNED BY tenant_service_owner;
DROP ROLE tenant_service_owner;
