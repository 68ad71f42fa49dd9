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

-- Soft delete: our views and triggers go, deleted rows stay where they are. A
-- view of the user's own stays, and one that is needed.
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE logins (id int PRIMARY KEY, u int REFERENCES users ON DELETE CASCADE);
CREATE TABLE pets (id int PRIMARY KEY, deleted_at timestamptz);
CREATE VIEW active_pets AS SELECT * FROM pets WHERE deleted_at IS NULL;
CREATE TABLE notes (id int PRIMARY KEY, body text);
CREATE TABLE parts_of_notes (id int PRIMARY KEY, n int REFERENCES notes ON DELETE CASCADE);
SELECT rowkeeper.soft_delete(t) FROM unnest('{logins,users,pets}'::regclass[]) t \g /dev/null
SELECT rowkeeper.soft_delete(t, mode => 'trash') FROM unnest('{parts_of_notes,notes}'::regclass[]) t \g /dev/null
SELECT rowkeeper.soft_delete_unique('users', '{name}') \g /dev/null
CREATE VIEW on_top AS SELECT id FROM active_logins;
INSERT INTO users VALUES (1, 'a'), (2, 'b');
INSERT INTO logins VALUES (1, 1), (2, 2);
INSERT INTO pets VALUES (1), (2);
INSERT INTO notes VALUES (1, 'x'), (2, 'y');
INSERT INTO parts_of_notes VALUES (1, 1), (2, 2);
DELETE FROM active_users WHERE id = 1;
DELETE FROM active_pets WHERE id = 1;
DELETE FROM notes WHERE id = 1;
-- of one table, taken back
BEGIN;
SELECT rowkeeper.leave('users');
SELECT rowkeeper.leave('notes');
ROLLBACK;
SELECT count(*) > 0 AS done FROM rowkeeper.leave();
SELECT rowkeeper.leave();
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE NOT tgisinternal;
SELECT viewname FROM pg_views WHERE schemaname = 'public' ORDER BY 1;
DROP EXTENSION rowkeeper;
SELECT id, deleted_at IS NOT NULL AS deleted, deleted_by, delete_batch IS NOT NULL AS batch FROM users ORDER BY id;
SELECT id FROM active_pets;
SELECT id, body, _deleted_by FROM rowkeeper_trash.public__notes;
SELECT table_name, rows FROM rowkeeper_trash.batches ORDER BY batch, table_name;
SELECT indexdef FROM pg_indexes WHERE indexname LIKE '%live_key';
-- nothing stops a DELETE any more, and the trash keeps what it has
DELETE FROM users;
DELETE FROM notes;
SELECT count(*) FROM rowkeeper_trash.public__notes;
-- ... until it is taken up again, with what was deleted before
CREATE EXTENSION rowkeeper CASCADE;
SELECT rowkeeper.soft_delete(t, mode => 'trash') FROM unnest('{parts_of_notes,notes}'::regclass[]) t \g /dev/null
SELECT table_name, record_id FROM rowkeeper.soft_delete_restore('notes', 1) ORDER BY 1;
SELECT table_name, rows FROM rowkeeper.soft_delete_batches ORDER BY 1;
INSERT INTO notes VALUES (3, 'z');
DELETE FROM notes WHERE id = 3;
SELECT count(DISTINCT batch) = count(*) AS another_batch FROM rowkeeper_trash.batches WHERE table_name = 'notes' AND rows > 0;

RESET app.user_id;
\c :db
SET client_min_messages = warning;
DROP DATABASE regress_rk_leave;
DROP ROLE regress_rk_leaver;
