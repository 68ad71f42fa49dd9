-- Who may read the log, and that nobody but its owner may write it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE ROLE regress_readers_migrator;
CREATE ROLE regress_readers_app;
CREATE ROLE regress_readers_reader;
CREATE ROLE regress_readers_columns;
CREATE ROLE regress_readers_stranger;
CREATE ROLE regress_readers_auditor;
CREATE SCHEMA audit_readers AUTHORIZATION regress_readers_migrator;
GRANT USAGE ON SCHEMA audit_readers TO PUBLIC;
SET search_path = audit_readers;

-- Default privileges do not open the log, neither now nor for later leaves.
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, regress_readers_app;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO regress_readers_app;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO regress_readers_app;
ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM CURRENT_USER;

-- A table's owner needs no more than that to audit it.
SET ROLE regress_readers_migrator;
CREATE TABLE orders (id int PRIMARY KEY, status text, secret_note text);
CREATE TABLE inbox (id int PRIMARY KEY, for_role name, body text);
SELECT count(*) > 0 AS steps FROM rowkeeper.audit('orders', keep => '17 weeks', exclude => '{secret_note}');
SELECT count(*) > 0 AS steps FROM rowkeeper.audit('inbox');
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON orders TO regress_readers_app;
GRANT SELECT ON orders, inbox TO regress_readers_reader;
GRANT SELECT (id), INSERT ON orders TO regress_readers_columns;
INSERT INTO inbox VALUES (1, 'regress_readers_reader', 'x'), (2, 'somebody', 'y');
RESET ROLE;
SELECT c.relname, a.grantee::regrole, a.privilege_type
FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relnamespace = 'rowkeeper_log'::regnamespace AND a.grantee <> c.relowner;
SELECT a.grantee FROM pg_namespace n, aclexplode(n.nspacl) a
WHERE n.nspname = 'rowkeeper_log' AND a.grantee <> n.nspowner;
SELECT relname FROM pg_class WHERE relnamespace = 'rowkeeper_log'::regnamespace
AND relkind IN ('r', 'p') AND NOT relrowsecurity;
SELECT a.grantee::regrole, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
WHERE c.oid = 'rowkeeper.audit_log'::regclass AND a.grantee <> c.relowner;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC, regress_readers_app;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM regress_readers_app;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM regress_readers_app;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO CURRENT_USER;

-- An application writes its table, and the log with it, but not the log.
SET ROLE regress_readers_app;
INSERT INTO orders VALUES (1, 'new', 'x'), (2, 'new', 'y');
UPDATE orders SET status = 'paid' WHERE id = 1;
SELECT table_name, action, record_id FROM rowkeeper.audit_log WHERE table_schema = 'audit_readers' ORDER BY id;
SELECT action, db_role FROM rowkeeper.audit_history('orders', 1);
SELECT * FROM rowkeeper.audit_history('inbox', 1);
\set VERBOSITY terse
SELECT count(*) FROM rowkeeper_log.log;
INSERT INTO rowkeeper_log.log (id) VALUES (1);
DELETE FROM rowkeeper.audit_log;
UPDATE rowkeeper.audit_log SET actor = 'somebody else';
INSERT INTO rowkeeper.audit_log (id) VALUES (1);
SELECT nextval('rowkeeper_log.log_id');
\set VERBOSITY default
SELECT table_name FROM rowkeeper.audit_size WHERE table_schema = 'audit_readers';
SELECT table_name, audited FROM rowkeeper.audit_coverage WHERE table_schema = 'audit_readers';
SELECT target, healthy FROM rowkeeper.features WHERE target = 'orders'::regclass;
-- nor can it attach our triggers to a table of its own, or call what is private
RESET ROLE;
GRANT CREATE ON SCHEMA audit_readers TO regress_readers_app;
SET ROLE regress_readers_app;
CREATE TABLE mine (id int PRIMARY KEY);
CREATE TRIGGER "!rowkeeper_changes" AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION rowkeeper._changes_row();
CREATE TRIGGER t AFTER INSERT ON mine FOR EACH STATEMENT EXECUTE FUNCTION rowkeeper._changes_flush();
SELECT rowkeeper.audit('orders');
SELECT rowkeeper.audit_off('orders');
SET rowkeeper.audit_capture = off;
RESET ROLE;

-- SELECT on the table is needed, on all of it
SET ROLE regress_readers_reader;
SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_readers' AND table_name = 'orders';
SELECT count(*) FROM rowkeeper.audit_history('orders', 1);
SET ROLE regress_readers_columns;
SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_readers';
SELECT count(*) FROM rowkeeper.audit_history('orders', 1);
SET ROLE regress_readers_stranger;
SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_readers';
SELECT count(*) FROM rowkeeper.audit_history('orders', 1);
SELECT count(*) FROM rowkeeper.audit_history('orders', '{"id": 1}'::jsonb);
SELECT count(*) FROM rowkeeper.audit_size WHERE table_schema = 'audit_readers';
SELECT count(*) FROM rowkeeper.audit_coverage WHERE table_schema = 'audit_readers';
SELECT count(*) FROM rowkeeper.features WHERE target = 'orders'::regclass;
RESET ROLE;

-- row security that applies to the reader closes the history; the table's owner is not bound by it
ALTER TABLE inbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON inbox USING (for_role = current_user);
SET ROLE regress_readers_reader;
SELECT id FROM inbox;
SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_readers' AND table_name = 'inbox';
SELECT count(*) FROM rowkeeper.audit_history('inbox', 1);
SET row_security = off;
SELECT count(*) FROM rowkeeper.audit_history('inbox', 1);
RESET row_security;
SET ROLE regress_readers_migrator;
SELECT count(*) FROM rowkeeper.audit_history('inbox', 2);
RESET ROLE;
ALTER TABLE inbox FORCE ROW LEVEL SECURITY;
SET ROLE regress_readers_migrator;
SELECT count(*) FROM rowkeeper.audit_history('inbox', 2);
SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_readers' AND table_name = 'inbox';
RESET ROLE;

-- a function that runs as its owner reads as its owner; a reader's own function learns nothing more
GRANT CREATE ON SCHEMA audit_readers TO regress_readers_stranger;
SET ROLE regress_readers_stranger;
CREATE FUNCTION leak(jsonb) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
$$BEGIN RAISE WARNING 'leaked %', $1; RETURN true; END$$;
SELECT count(*) FROM rowkeeper.audit_log WHERE leak(new_data) AND table_schema = 'audit_readers';
RESET ROLE;
CREATE FUNCTION support(int) RETURNS bigint LANGUAGE sql SECURITY DEFINER
SET search_path = audit_readers, pg_temp AS
$$SELECT count(*) FROM rowkeeper.audit_history('orders', $1)$$;
SET ROLE regress_readers_stranger;
SELECT support(1);
RESET ROLE;

-- predefined roles that read or write every table stop at the log's row security
GRANT pg_read_all_data, pg_write_all_data TO regress_readers_stranger;
SET ROLE regress_readers_stranger;
SELECT count(*) FROM rowkeeper_log.log;
SELECT count(*) FROM rowkeeper_log.entries;
SELECT count(*) FROM rowkeeper.audit_history('inbox', 1);
DELETE FROM rowkeeper_log.log;
UPDATE rowkeeper_log.tables SET table_name = 'another';
UPDATE rowkeeper_log.log SET who = 0;
INSERT INTO rowkeeper_log.log_overflow (id, changed_at, txid, who, table_id, key_hash, action)
VALUES (1, now(), 1, 1, 1, 1, 'I');
RESET ROLE;
REVOKE pg_read_all_data, pg_write_all_data FROM regress_readers_stranger;

-- entries of dropped tables are for members of the log's owner
DROP TABLE orders;
SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_readers' AND table_name = 'orders'
AND action <> 'DROP';
SET ROLE regress_readers_reader;
SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_readers';
RESET ROLE;
SELECT relowner::regrole AS log_owner FROM pg_class WHERE oid = 'rowkeeper_log.log'::regclass \gset
GRANT :"log_owner" TO regress_readers_auditor;
SET ROLE regress_readers_auditor;
SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_readers' AND table_name = 'orders'
AND action <> 'DROP';
SELECT count(*) FROM rowkeeper.audit_history('inbox', 1);
RESET ROLE;

-- what is private to the extension and yet anybody's to call, because views and the doctor need it
SELECT p.oid::regprocedure FROM pg_proc p
WHERE p.pronamespace = 'rowkeeper'::regnamespace AND p.proname ~ '^_'
AND has_function_privilege('regress_readers_stranger', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text;
SELECT c.oid::regclass, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relnamespace = 'rowkeeper'::regnamespace AND a.grantee = 0 ORDER BY c.relname;

DROP SCHEMA audit_readers CASCADE;
DROP ROLE regress_readers_migrator, regress_readers_app, regress_readers_reader, regress_readers_columns, regress_readers_stranger,
    regress_readers_auditor;
