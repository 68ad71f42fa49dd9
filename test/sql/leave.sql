-- Everything can be taken away again; what was logged stays.
SET client_min_messages = warning;
SELECT current_database() AS db \gset
CREATE DATABASE regress_rk_leave;
\c regress_rk_leave
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
RESET client_min_messages;
CREATE TABLE orders (id int PRIMARY KEY, qty int);
CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
SELECT rowkeeper.audit('orders') \g /dev/null
SELECT rowkeeper.audit('parts', keep => '1 year') \g /dev/null
SET app.user_id = 'alice';
INSERT INTO orders VALUES (1, 1);
INSERT INTO parts VALUES (1);

-- one table; NULL is nothing
SELECT rowkeeper.leave(NULL);
SELECT rowkeeper.leave('parts');
SELECT rowkeeper.leave('parts');
INSERT INTO parts VALUES (2);
-- who does not own the tables cannot
CREATE ROLE regress_rk_leaver;
SET ROLE regress_rk_leaver;
SELECT rowkeeper.leave('orders');
SELECT rowkeeper.leave();
RESET ROLE;
-- the extension is in use, and says by what
DROP EXTENSION rowkeeper;
-- all of them
BEGIN;
SELECT rowkeeper.leave();
ROLLBACK;
INSERT INTO orders VALUES (2, 2);
SELECT rowkeeper.leave();
SELECT rowkeeper.leave();
INSERT INTO orders VALUES (3, 3);
SELECT table_name, action, record_id, actor FROM rowkeeper.audit_log ORDER BY id;
-- then it goes by itself, and the log stays as ordinary tables and views
DROP EXTENSION rowkeeper;
SELECT table_name, action, record_id, actor FROM rowkeeper.audit_log ORDER BY id;
INSERT INTO orders VALUES (4, 4);
SELECT evtname FROM pg_event_trigger;
SELECT tgname FROM pg_trigger WHERE NOT tgisinternal;

-- It comes back, and the history goes on.
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
SELECT rowkeeper.audit('orders') \g /dev/null
INSERT INTO orders VALUES (5, 5);
SELECT table_name, action, record_id, context, actor FROM rowkeeper.audit_log WHERE table_name = 'orders' ORDER BY id;
SELECT table_id, relation, to_id FROM rowkeeper_log.tables ORDER BY 1;

-- DROP EXTENSION ... CASCADE while in use: the log stays, the tables work on,
-- and when they are audited again the log says that there was a time in between.
SELECT rowkeeper.audit('parts') \g /dev/null
DROP EXTENSION rowkeeper CASCADE;
INSERT INTO orders VALUES (6, 6);
UPDATE parts SET id = id + 2;
SELECT count(*) FROM rowkeeper.audit_log;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE NOT tgisinternal;
CREATE EXTENSION rowkeeper CASCADE;
SELECT rowkeeper.audit('orders') \g /dev/null
SELECT rowkeeper.audit('parts') \g /dev/null
INSERT INTO orders VALUES (7, 7);
INSERT INTO parts VALUES (9);
SELECT table_name, action, record_id, context, actor FROM rowkeeper.audit_log ORDER BY id;

RESET app.user_id;
\c :db
SET client_min_messages = warning;
DROP DATABASE regress_rk_leave;
DROP ROLE regress_rk_leaver;
