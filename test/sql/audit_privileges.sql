-- An application can neither write, change nor delete the log, whatever
-- default privileges say, and reads of it what it may read of the tables.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_privileges;
SET search_path = audit_privileges;
CREATE ROLE regress_rk_app;
CREATE ROLE regress_rk_owner;
GRANT USAGE ON SCHEMA audit_privileges TO PUBLIC;
GRANT CREATE ON SCHEMA audit_privileges TO regress_rk_owner;
-- what is granted for all time to come does not reach the log
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_rk_app;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO regress_rk_app;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO regress_rk_app;

-- the owner of a table needs no rights on the log
SET ROLE regress_rk_owner;
CREATE TABLE orders (id int PRIMARY KEY, qty int);
SELECT rowkeeper.audit('orders', keep => '13 days') \g /dev/null
GRANT INSERT, UPDATE, DELETE ON orders TO regress_rk_app;
RESET ROLE;
-- a class made under these default privileges, and all else of the log
SELECT c.oid::regclass FROM pg_class c CROSS JOIN LATERAL aclexplode(relacl) a
    WHERE relnamespace = 'rowkeeper_log'::regnamespace AND a.grantee <> relowner;
SELECT nspname FROM pg_namespace CROSS JOIN LATERAL aclexplode(nspacl) a
    WHERE nspname = 'rowkeeper_log' AND a.grantee <> nspowner;
SELECT count(*) FROM pg_class WHERE relnamespace = 'rowkeeper_log'::regnamespace AND relkind IN ('r', 'p')
    AND relname ~ '^log_c\d+_\d+$' AND NOT (relrowsecurity AND relreplident = 'f');

-- the application writes its rows, and they are logged
SET ROLE regress_rk_app;
INSERT INTO orders VALUES (1, 1);
SELECT * FROM rowkeeper_log.log;
SELECT * FROM rowkeeper_log.entries;
SELECT * FROM rowkeeper_log.tables;
INSERT INTO rowkeeper_log.log (id) VALUES (1);
UPDATE rowkeeper_log.log SET new_data = '{}';
DELETE FROM rowkeeper_log.log;
TRUNCATE rowkeeper_log.log;
SELECT nextval('rowkeeper_log.log_id');
\set VERBOSITY default
DROP TABLE rowkeeper_log.log;
INSERT INTO rowkeeper.audit_log (id) VALUES (1);
UPDATE rowkeeper.audit_log SET new_data = '{}';
DELETE FROM rowkeeper.audit_log;
-- without SELECT on the table it reads nothing of it
SELECT table_name, action, new_data FROM rowkeeper.audit_log WHERE table_schema = 'audit_privileges';
RESET ROLE;
GRANT SELECT ON orders TO regress_rk_app;
SET ROLE regress_rk_app;
SELECT table_name, action, new_data FROM rowkeeper.audit_log WHERE table_schema = 'audit_privileges';
-- nor by a function that tells what it is shown
CREATE FUNCTION pg_temp.leak(jsonb) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
    RAISE WARNING 'saw %', $1;
    RETURN true;
END $$;
RESET ROLE;
CREATE TABLE secret (id int PRIMARY KEY, what text);
REVOKE ALL ON secret FROM PUBLIC, regress_rk_app;
SELECT rowkeeper.audit('secret') \g /dev/null
INSERT INTO secret VALUES (1, 'hidden');
SET ROLE regress_rk_app;
SELECT new_data FROM rowkeeper.audit_log WHERE pg_temp.leak(new_data) AND table_schema = 'audit_privileges';
RESET ROLE;
-- the table's own user policies: its log is not readable but for the owner
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON orders USING (qty < 0);
SET ROLE regress_rk_app;
SELECT table_name, action FROM rowkeeper.audit_log WHERE table_schema = 'audit_privileges';
RESET ROLE;
SET ROLE regress_rk_owner;
SELECT table_name, action FROM rowkeeper.audit_log WHERE table_schema = 'audit_privileges' AND record_id IS NOT NULL;
-- the owner of the table is not the owner of the log
DELETE FROM rowkeeper_log.log;
DROP SCHEMA rowkeeper_log CASCADE;
RESET ROLE;

-- A member of the log's owner sees all; triggers on the log are refused even to him.
SELECT table_name, action FROM rowkeeper.audit_log WHERE table_schema = 'audit_privileges' AND record_id IS NOT NULL ORDER BY id;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER bad BEFORE INSERT ON rowkeeper_log.log FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE TRIGGER bad AFTER INSERT ON rowkeeper_log.log_overflow FOR EACH STATEMENT EXECUTE FUNCTION nothing();
CREATE TRIGGER bad AFTER UPDATE ON rowkeeper_log.tables FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT tgrelid::regclass, tgname FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'rowkeeper_log'::regnamespace;

-- Under forced row security of its own the table's changes are logged, too.
ALTER TABLE orders FORCE ROW LEVEL SECURITY;
CREATE POLICY ins ON orders FOR INSERT TO regress_rk_owner WITH CHECK (true);
SET ROLE regress_rk_owner;
INSERT INTO orders VALUES (2, 2);
RESET ROLE;
SELECT record_id FROM rowkeeper.audit_log WHERE table_schema = 'audit_privileges' AND table_name = 'orders' AND record_id IS NOT NULL ORDER BY id;

ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM regress_rk_app, PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM regress_rk_app;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM regress_rk_app;
DROP SCHEMA audit_privileges CASCADE;
DROP OWNED BY regress_rk_app;
DROP ROLE regress_rk_app, regress_rk_owner;
