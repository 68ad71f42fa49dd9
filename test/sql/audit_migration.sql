-- Everything in one transaction, as migration tools run it, and once more.
SET client_min_messages = warning;
SELECT current_database() AS db \gset
CREATE DATABASE regress_rk_migration;
\c regress_rk_migration
SET client_min_messages = warning;
\set migration 'CREATE TABLE IF NOT EXISTS customers (id int PRIMARY KEY, name text); CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY, customer int REFERENCES customers, qty int); INSERT INTO customers VALUES (1, ''ann'') ON CONFLICT DO NOTHING; INSERT INTO orders VALUES (1, 1, 1) ON CONFLICT DO NOTHING'
-- default privileges, as applications have them, must not open the log
CREATE ROLE regress_rk_service;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_rk_service;
ALTER DEFAULT PRIVILEGES GRANT INSERT, UPDATE, DELETE, TRUNCATE ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO regress_rk_service;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO regress_rk_service;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO regress_rk_service;
BEGIN;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
:migration;
SELECT rowkeeper.audit('customers');
SELECT rowkeeper.audit('orders', keep => '1 year');
INSERT INTO orders VALUES (2, 1, 2);
UPDATE orders SET qty = 3 WHERE id = 2;
COMMIT;
SELECT c.oid::regclass, a.grantee::regrole, array_agg(a.privilege_type ORDER BY a.privilege_type) FROM pg_class c CROSS JOIN LATERAL aclexplode(relacl) a
    WHERE relnamespace IN ('rowkeeper_log'::regnamespace, 'rowkeeper'::regnamespace) AND a.grantee <> relowner
    AND (relnamespace = 'rowkeeper_log'::regnamespace OR a.privilege_type <> 'SELECT') GROUP BY 1, 2 ORDER BY 1, 2;
SELECT nspname FROM pg_namespace CROSS JOIN LATERAL aclexplode(nspacl) a
    WHERE nspname = 'rowkeeper_log' AND a.grantee <> nspowner;
SELECT p.oid::regproc, a.grantee::regrole FROM pg_proc p CROSS JOIN LATERAL aclexplode(proacl) a
    WHERE pronamespace = 'rowkeeper'::regnamespace AND proname ~ '^_' AND a.grantee NOT IN (proowner, 0) ORDER BY 1;
-- the second time nothing changes
BEGIN;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
:migration;
SELECT rowkeeper.audit('customers');
SELECT rowkeeper.audit('orders', keep => '1 year');
COMMIT;
SELECT table_name, action, record_id, old_data, new_data FROM rowkeeper.audit_log ORDER BY id;
-- a migration that fails leaves nothing
BEGIN;
CREATE TABLE bills (id int PRIMARY KEY);
SELECT rowkeeper.audit('bills') \g /dev/null
INSERT INTO bills VALUES (1);
SELECT 1 / 0;
ROLLBACK;
SELECT count(*) FROM rowkeeper_log.tables WHERE table_name = 'bills';

-- Deferred foreign keys, as Django makes them, leave events that wait.
CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders DEFERRABLE INITIALLY DEFERRED);
BEGIN;
INSERT INTO lines VALUES (1, 1);
SELECT rowkeeper.audit('lines');
ROLLBACK;
BEGIN;
INSERT INTO lines VALUES (1, 1);
SET CONSTRAINTS ALL IMMEDIATE;
SELECT rowkeeper.audit('lines') \g /dev/null
INSERT INTO lines VALUES (2, 2);
COMMIT;
BEGIN;
INSERT INTO lines VALUES (3, 1);
SELECT rowkeeper.audit('lines');
SELECT rowkeeper.audit('lines', capture => 'full');
ROLLBACK;
BEGIN;
INSERT INTO lines VALUES (3, 1);
SELECT rowkeeper.audit_off('lines');
ROLLBACK;
SELECT action, record_id FROM rowkeeper.audit_log WHERE table_name = 'lines' ORDER BY id;

-- audit() in a session that has written before, within a function, in a DO
-- block, over pg_tables, by a role that is no superuser.
CREATE ROLE regress_rk_migrator;
CREATE SCHEMA app AUTHORIZATION regress_rk_migrator;
SET ROLE regress_rk_migrator;
BEGIN;
CREATE TABLE app.a (id int PRIMARY KEY);
CREATE TABLE app.b (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE app.b_1 PARTITION OF app.b FOR VALUES FROM (0) TO (10);
INSERT INTO app.a VALUES (1);
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT * FROM pg_tables WHERE schemaname = 'app' AND tablename !~ '_\d$' ORDER BY tablename LOOP
        PERFORM rowkeeper.audit(format('%I.%I', t.schemaname, t.tablename)::regclass);
    END LOOP;
    INSERT INTO app.a VALUES (2);
END $$;
INSERT INTO app.b VALUES (3);
COMMIT;
SELECT table_name, action, record_id, db_role FROM rowkeeper.audit_log ORDER BY id;
RESET ROLE;

-- An extension that is there without its log: the first call makes it again.
SELECT rowkeeper.leave() \g /dev/null
DROP SCHEMA rowkeeper_log CASCADE;
INSERT INTO orders VALUES (10, 1, 1);
SELECT * FROM rowkeeper.audit_log;
SELECT rowkeeper.audit('orders') \g /dev/null
INSERT INTO orders VALUES (11, 1, 1);
SELECT action, record_id FROM rowkeeper.audit_log ORDER BY id;
-- the log dropped under an audited table: the table's changes fail, loudly
DROP SCHEMA rowkeeper_log CASCADE;
INSERT INTO orders VALUES (12, 1, 1);
SELECT rowkeeper.audit('orders') \g /dev/null
INSERT INTO orders VALUES (13, 1, 1);
SELECT action, record_id FROM rowkeeper.audit_log ORDER BY id;

-- A schema of that name that belongs to somebody else is not used.
SELECT rowkeeper.leave() \g /dev/null
DROP SCHEMA rowkeeper_log CASCADE;
GRANT CREATE ON DATABASE regress_rk_migration TO regress_rk_migrator;
SET ROLE regress_rk_migrator;
CREATE SCHEMA rowkeeper_log;
CREATE TABLE rowkeeper_log.tables (trap int);
RESET ROLE;
SELECT rowkeeper.audit('orders');

\c :db
SET client_min_messages = warning;
DROP DATABASE regress_rk_migration;
DROP ROLE regress_rk_migrator, regress_rk_service;
