-- The doctor: nothing to say of a healthy database, a finding and a remedy for
-- everything that was broken. In a database of its own.
SET client_min_messages = warning;
CREATE DATABASE regress_rk_doctor;
\c regress_rk_doctor
SET client_min_messages = warning;
SET TimeZone = 'UTC';
CREATE EXTENSION rowkeeper CASCADE;
SELECT * FROM rowkeeper.doctor();
SELECT rowkeeper.doctor_assert();
CREATE SCHEMA shop;
CREATE TABLE orders (id int PRIMARY KEY, status text);
CREATE TABLE shop.items (id int PRIMARY KEY, price int) PARTITION BY RANGE (id);
CREATE TABLE shop.items_1 PARTITION OF shop.items FOR VALUES FROM (1) TO (100);
SELECT rowkeeper.audit('orders', keep => '1 year') \g /dev/null
SELECT rowkeeper.audit('shop.items') \g /dev/null
INSERT INTO orders VALUES (1, 'new');
INSERT INTO shop.items VALUES (1, 10);
SELECT * FROM rowkeeper.doctor();
SELECT rowkeeper.doctor_assert();
SELECT rowkeeper.doctor_assert('info');
SELECT rowkeeper.doctor_assert(level => 'warning', schema => 'shop', feature => 'audit');

-- coverage
ALTER TABLE orders DISABLE TRIGGER "!rowkeeper_changes";
DROP TRIGGER rowkeeper_changes_flush ON shop.items_1;
SELECT * FROM rowkeeper.doctor();
SELECT object FROM rowkeeper.doctor('shop');
SELECT object FROM rowkeeper.doctor(schema => 'public', feature => 'audit');
SELECT object FROM rowkeeper.doctor(feature => 'partition');
SELECT rowkeeper.doctor_assert();
SELECT rowkeeper.doctor_assert(schema => 'shop');
\o /dev/null
SELECT remedy FROM rowkeeper.doctor() WHERE check_name = 'coverage' \gexec
\o
SELECT * FROM rowkeeper.doctor();

-- the log: who can reach it, row security, persistence
GRANT USAGE ON SCHEMA rowkeeper_log TO PUBLIC;
GRANT SELECT, INSERT ON rowkeeper_log.log TO PUBLIC;
GRANT USAGE ON SEQUENCE rowkeeper_log.log_id TO pg_monitor;
ALTER TABLE rowkeeper_log.log_overflow DISABLE ROW LEVEL SECURITY;
ALTER TABLE rowkeeper_log.classes DISABLE ROW LEVEL SECURITY;
CREATE ROLE regress_rk_member;
CREATE ROLE regress_rk_writer BYPASSRLS;
SELECT relowner::regrole AS log_owner FROM pg_class WHERE oid = 'rowkeeper_log.log'::regclass \gset
GRANT :"log_owner" TO regress_rk_member;
GRANT pg_write_all_data TO regress_rk_writer;
SELECT check_name, level, object, replace(detail, :'log_owner', '(owner)') AS detail,
    replace(remedy, :'log_owner', '(owner)') AS remedy FROM rowkeeper.doctor()
WHERE check_name <> 'log_writers' OR object LIKE 'regress%';
\set ECHO none
\o /dev/null
SELECT remedy FROM rowkeeper.doctor() WHERE check_name <> 'log_writers' OR object LIKE 'regress%' \gexec
\o
\set ECHO all
SELECT * FROM rowkeeper.doctor();
DROP ROLE regress_rk_member, regress_rk_writer;

-- leaves that nobody made
CREATE PROCEDURE forget_leaves() LANGUAGE plpgsql AS $$
DECLARE leaf regclass;
BEGIN
    FOR leaf IN SELECT i.inhrelid FROM pg_inherits i
        WHERE i.inhparent IN ('rowkeeper_log.log_c0'::regclass, 'rowkeeper_log.log_c1'::regclass)
    LOOP EXECUTE format('DROP TABLE %s', leaf); END LOOP;
END$$;
CALL forget_leaves();
INSERT INTO orders VALUES (2, 'new'), (3, 'new');
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor();
\o /dev/null
SELECT remedy FROM rowkeeper.doctor() LIMIT 1 \gexec
\o
SELECT * FROM rowkeeper.doctor();

-- event triggers, and what happened without them
ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE;
ALTER EVENT TRIGGER rowkeeper_drop DISABLE;
ALTER EVENT TRIGGER rowkeeper_rewrite ENABLE;
DROP TRIGGER "!rowkeeper_changes" ON orders;
ALTER TABLE rowkeeper_log.log_overflow SET UNLOGGED;
SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor();
\o /dev/null
SELECT remedy FROM rowkeeper.doctor() \gexec
\o
SELECT * FROM rowkeeper.doctor();
-- a table whose audit was switched off is no finding
SELECT rowkeeper.audit_off('orders') \g /dev/null
SELECT * FROM rowkeeper.doctor();

-- what an ordinary role is told: of its own tables, and of the log
CREATE ROLE regress_rk_app;
GRANT SELECT ON shop.items TO regress_rk_app;
ALTER TABLE shop.items_1 DISABLE TRIGGER USER;
SELECT rowkeeper.audit('orders') \g /dev/null
ALTER TABLE orders DISABLE TRIGGER USER;
GRANT SELECT ON rowkeeper_log.log TO PUBLIC;
SET ROLE regress_rk_app;
SELECT check_name, object FROM rowkeeper.doctor();
SELECT rowkeeper.doctor_assert(schema => 'public');
SELECT rowkeeper.doctor_assert(schema => 'shop');
RESET ROLE;

-- refused
SELECT rowkeeper.doctor_assert('fatal');
SELECT rowkeeper.doctor_assert(schema => 'nowhere');
SELECT rowkeeper.doctor_assert(feature => 'typo');

\c contrib_regression
DROP DATABASE regress_rk_doctor;
DROP ROLE regress_rk_app;
