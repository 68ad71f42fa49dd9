-- What the doctor finds in tenant isolation: each thing seeded, and nothing on a clean database.
\set VERBOSITY terse
\pset format unaligned
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA tenant_doctor;
CREATE ROLE tenant_doctor_owner;
CREATE ROLE tenant_doctor_app;
GRANT ALL ON SCHEMA tenant_doctor TO tenant_doctor_owner;
GRANT USAGE ON SCHEMA tenant_doctor TO tenant_doctor_app;
SET search_path = tenant_doctor;
SET ROLE tenant_doctor_owner;
CREATE TABLE customers (tenant_id int, id int, email text, PRIMARY KEY (tenant_id, id));
CREATE TABLE orders (tenant_id int, id int, customer int, at date, PRIMARY KEY (tenant_id, id, at)) PARTITION BY RANGE (at);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
GRANT SELECT, INSERT, UPDATE, DELETE ON customers, orders TO tenant_doctor_app;
SELECT count(*) FROM rowkeeper.tenant('customers');
SELECT count(*) FROM rowkeeper.tenant('orders');
RESET ROLE;
-- a clean set-up: nothing
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor('tenant_doctor', 'tenant');
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor(NULL, 'tenant') WHERE object ~ 'tenant_doctor';
SELECT rowkeeper.tenant_assert('tenant_doctor_app');

\set doctor 'SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor(''tenant_doctor'', ''tenant'');'
-- row security off, or not forced
ALTER TABLE customers DISABLE ROW LEVEL SECURITY;
:doctor
SELECT target, healthy, detail FROM rowkeeper.features WHERE feature = 'tenant' AND target = 'customers'::regclass;
SELECT rowkeeper.tenant_assert('tenant_doctor_app');
SELECT rowkeeper.tenant('tenant_doctor.customers');
ALTER TABLE orders_1 NO FORCE ROW LEVEL SECURITY;
:doctor
SELECT rowkeeper.tenant('tenant_doctor.orders');
-- a policy altered, dropped
ALTER POLICY rowkeeper_tenant_guard ON customers USING (true);
DROP POLICY rowkeeper_tenant ON orders_1;
:doctor
SELECT count(*) FROM rowkeeper.tenant('tenant_doctor.customers');
SELECT count(*) FROM rowkeeper.tenant('tenant_doctor.orders');
:doctor
-- a partition that slipped in
ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE;
CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
ALTER EVENT TRIGGER rowkeeper_ddl_end ENABLE ALWAYS;
ALTER TABLE orders_2 OWNER TO tenant_doctor_owner;
:doctor
SELECT count(*) FROM rowkeeper.tenant('tenant_doctor.orders');
-- the trigger disabled
ALTER TABLE customers DISABLE TRIGGER rowkeeper_tenant;
:doctor
SELECT count(*) FROM rowkeeper.tenant('tenant_doctor.customers');
-- the trigger dropped
DROP TRIGGER rowkeeper_tenant ON customers;
:doctor
SELECT count(*) FROM rowkeeper.tenant('tenant_doctor.customers');
-- a column that may be null, no index, keys without the tenant
CREATE TABLE loose (id int PRIMARY KEY, tenant_id int, name text UNIQUE);
SELECT count(*) FROM rowkeeper.tenant('loose');
ALTER TABLE loose ALTER tenant_id DROP NOT NULL;
DROP INDEX loose_tenant_id_idx;
CREATE TABLE lines (tenant_id int, loose int REFERENCES loose);
SELECT count(*) FROM rowkeeper.tenant('lines');
:doctor
DROP TABLE lines, loose;
-- a table that inherits
CREATE TABLE heir () INHERITS (customers);
:doctor
ALTER TABLE tenant_doctor.heir NO INHERIT tenant_doctor.customers;
:doctor
DROP TABLE heir;
-- views, materialized views, functions with their owner's rights
CREATE VIEW all_customers AS SELECT * FROM customers;
CREATE VIEW own_customers WITH (security_invoker = true) AS SELECT * FROM customers;
CREATE VIEW all_again AS SELECT * FROM own_customers;
CREATE MATERIALIZED VIEW mail AS SELECT email FROM customers;
GRANT SELECT ON all_customers, mail TO tenant_doctor_app;
CREATE FUNCTION everybody() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM tenant_doctor.customers';
CREATE FUNCTION nobody() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
:doctor
SELECT rowkeeper.tenant('customers');
DROP FUNCTION everybody(), nobody();
-- a column of it is enough
REVOKE ALL ON mail FROM tenant_doctor_app;
GRANT SELECT (email) ON mail TO tenant_doctor_app;
SELECT check_name, detail, remedy FROM rowkeeper.doctor('tenant_doctor', 'tenant') WHERE check_name = 'materialized_view';
DROP MATERIALIZED VIEW mail;
DROP VIEW all_again, all_customers, own_customers;
-- policies beside ours; one that is volatile
CREATE POLICY p1 ON customers FOR SELECT USING (email IS NULL);
CREATE POLICY p2 ON customers FOR SELECT USING (tenant_id = 5 AND random() < 2);
CREATE POLICY p3 ON customers AS RESTRICTIVE USING (pg_backend_pid() > 0);
:doctor
DROP POLICY p1 ON customers;
DROP POLICY p2 ON customers;
DROP POLICY p3 ON customers;
-- grants that no policy covers
GRANT TRUNCATE, TRIGGER, REFERENCES ON customers TO tenant_doctor_app;
:doctor
REVOKE TRUNCATE, TRIGGER, REFERENCES ON customers FROM tenant_doctor_app;
SET client_min_messages = error;
CREATE PUBLICATION tenant_doctor_pub FOR TABLE customers;
SET client_min_messages = warning;
:doctor
DROP PUBLICATION tenant_doctor_pub;
:doctor
-- roles
\set roles 'SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor(NULL, ''tenant'') WHERE object ~ ''tenant_doctor'';'
CREATE ROLE tenant_doctor_free LOGIN BYPASSRLS;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_doctor_app', 'set');
SELECT count(*) FROM rowkeeper.tenant_role('tenant_doctor_app', 'bypass');
:roles
SELECT rowkeeper.tenant_assert('tenant_doctor_free');
GRANT tenant_doctor_free TO tenant_doctor_app;
SELECT rowkeeper.tenant_assert('tenant_doctor_app');
SELECT rowkeeper.tenant_assert('nobody');
CREATE ROLE tenant_doctor_reader LOGIN IN ROLE pg_read_all_data;
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor(NULL, 'tenant') WHERE object = 'tenant_doctor_reader';
SELECT rowkeeper._tenant_escape('tenant_doctor_reader'::regrole);
DROP ROLE tenant_doctor_reader;
REVOKE tenant_doctor_free FROM tenant_doctor_app;
-- what makes a role such a one: server files, a copy of the server, before 16 CREATEROLE
GRANT pg_read_server_files TO tenant_doctor_app;
SELECT rowkeeper._tenant_escape('tenant_doctor_app'::regrole);
SELECT rowkeeper.tenant_assert('tenant_doctor_app');
REVOKE pg_read_server_files FROM tenant_doctor_app;
GRANT pg_execute_server_program TO tenant_doctor_app;
SELECT rowkeeper._tenant_escape('tenant_doctor_app'::regrole);
SELECT rowkeeper.service_role('tenant_doctor_app', 'read', 'tenant_doctor');
REVOKE pg_execute_server_program FROM tenant_doctor_app;
ALTER ROLE tenant_doctor_app REPLICATION;
SELECT rowkeeper._tenant_escape('tenant_doctor_app'::regrole);
ALTER ROLE tenant_doctor_app NOREPLICATION CREATEROLE;
SELECT rowkeeper._tenant_escape('tenant_doctor_app'::regrole) IS NOT DISTINCT FROM
	CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'It has CREATEROLE.' END AS right;
ALTER ROLE tenant_doctor_app NOCREATEROLE;
SELECT rowkeeper._tenant_escape('tenant_doctor_app'::regrole);
-- who says whom to trust rebuilds no policy that was altered
ALTER POLICY rowkeeper_tenant_guard ON customers USING (true);
SELECT count(*) FROM rowkeeper.tenant_role('tenant_doctor_app', 'signed');
SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = 'customers'::regclass AND polname = 'rowkeeper_tenant_guard';
SELECT count(*) FROM rowkeeper.tenant('customers');
SELECT count(*) FROM rowkeeper.tenant('customers', force => false);
SELECT rowkeeper.tenant_assert('tenant_doctor_owner');
SELECT count(*) FROM rowkeeper.tenant('customers', force => true);
SELECT rowkeeper.tenant_assert('tenant_doctor_owner');
SELECT rowkeeper.tenant_assert();
SET ROLE tenant_doctor_app;
SELECT rowkeeper.tenant_assert();
RESET ROLE;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_doctor_app', 'none');
:roles
DROP ROLE tenant_doctor_free;
-- a stored setting, planted while the library was not loaded: the catalog is
-- written as such a session would
INSERT INTO pg_db_role_setting SELECT 0, 'tenant_doctor_app'::regrole, '{rowkeeper.tenant=42}';
:roles
ALTER ROLE tenant_doctor_app RESET rowkeeper.tenant;
:roles
-- a server without the fixes of row security
SELECT v, rowkeeper._tenant_fixed_server(v) FROM unnest('{150013,150014,160009,170005,170006,180000}'::int[]) v;
-- each remedy was SQL that ran; nothing is left
:doctor
SET client_min_messages = warning;
DROP SCHEMA tenant_doctor CASCADE;
DROP ROLE tenant_doctor_owner, tenant_doctor_app;
