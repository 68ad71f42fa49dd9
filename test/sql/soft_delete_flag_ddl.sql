-- DDL around a table in flag mode: the view follows what it can and gets out of
-- the way of what it blocks; uniqueness among the live; the doctor.
SET client_min_messages = warning;
CREATE DATABASE regress_rk_soft_delete;
\c regress_rk_soft_delete
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
CREATE TABLE first (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('first') \g /dev/null
CREATE ROLE regress_rk_reader;
RESET client_min_messages;
\pset format unaligned
\set columns 'SELECT string_agg(attname, \', \' ORDER BY attnum) FROM pg_attribute WHERE attrelid = ''active_users''::regclass'
\set doctor 'SELECT check_name, level, object, detail, remedy FROM rowkeeper.doctor(feature => ''soft_delete'')'

CREATE TABLE users (id int PRIMARY KEY, email text UNIQUE, age int);
SELECT rowkeeper.soft_delete('users') \g /dev/null
INSERT INTO users VALUES (1, 'a@x', 1), (2, 'b@x', 2);
-- ADD COLUMN and RENAME are followed
ALTER TABLE users ADD COLUMN score int DEFAULT 5;
ALTER TABLE users RENAME age TO years;
:columns;
SELECT id, score, years FROM active_users WHERE id = 1;
-- what the view blocks
GRANT SELECT, DELETE ON active_users TO regress_rk_reader WITH GRANT OPTION;
GRANT UPDATE (email) ON active_users TO PUBLIC;
COMMENT ON VIEW active_users IS 'the living';
COMMENT ON COLUMN active_users.email IS 'where';
ALTER VIEW active_users ALTER email SET DEFAULT 'x@y';
ALTER VIEW active_users SET (check_option = 'local');
ALTER TABLE users ALTER years TYPE bigint;
CREATE FUNCTION greet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER greet INSTEAD OF INSERT ON active_users FOR EACH ROW EXECUTE FUNCTION greet();
SELECT rowkeeper.soft_delete_hide_view('users');
DROP TRIGGER greet ON active_users;
SELECT rowkeeper.soft_delete_hide_view('users');
SELECT rowkeeper.soft_delete_hide_view('users');
:doctor;
SELECT rowkeeper.soft_delete('users', view_name => 'living_users');
SELECT rowkeeper.soft_delete('users');
ALTER TABLE users ALTER years TYPE bigint;
ALTER TABLE users DROP COLUMN score;
ALTER TABLE users ADD COLUMN more text;
SELECT rowkeeper.soft_delete_refresh('users');
SELECT rowkeeper.soft_delete_refresh('users');
:columns;
SELECT relacl::text ~ 'regress_rk_reader=r\*d\*' AS grants, reloptions, obj_description(oid) FROM pg_class WHERE oid = 'active_users'::regclass;
DELETE FROM active_users WHERE id = 1 RETURNING id;
-- another view on top of it
CREATE VIEW on_top AS SELECT id FROM active_users;
SELECT rowkeeper.soft_delete_hide_view('users');
DROP VIEW on_top;
-- a role that is gone since
SELECT rowkeeper.soft_delete_hide_view('users') \g /dev/null
DROP ROLE regress_rk_reader;
SELECT rowkeeper.soft_delete_refresh('users') \g /dev/null
:doctor;

-- unique among the live
INSERT INTO users VALUES (3, 'a@x');
SELECT rowkeeper.soft_delete_unique('users', '{email}');
SELECT rowkeeper.soft_delete_unique('users', '{email}');
INSERT INTO users VALUES (3, 'a@x');
INSERT INTO users VALUES (4, 'a@x');
UPDATE users SET deleted_at = NULL WHERE id = 1;
INSERT INTO active_users (id, email) VALUES (5, 'b@x') ON CONFLICT (email) WHERE deleted_at IS NULL DO UPDATE SET years = 9 RETURNING id, years;
:doctor;
-- more rows than may be read here: what to run first
SET rowkeeper.inline_rows = 2;
ANALYZE users;
SELECT rowkeeper.soft_delete_unique('users', '{years, email}');
CREATE UNIQUE INDEX by_years ON users (email, years) WHERE deleted_at IS NULL;
SELECT rowkeeper.soft_delete_unique('users', '{years, email}');
SELECT rowkeeper.soft_delete('users', keep => '1 day') \g /dev/null
RESET rowkeeper.inline_rows;
-- refused
CREATE TABLE mails (email text PRIMARY KEY, alias text UNIQUE NULLS NOT DISTINCT, part int);
CREATE TABLE mail_users (id int PRIMARY KEY, alias text REFERENCES mails (alias));
SELECT rowkeeper.soft_delete('mails') \g /dev/null
SELECT rowkeeper.soft_delete_unique('mails', '{alias}');
SELECT rowkeeper.soft_delete_unique('mails', '{email}');
SELECT rowkeeper.soft_delete_unique('mails', '{nothing}');
SELECT rowkeeper.soft_delete_unique('mails', '{}');
SELECT rowkeeper.soft_delete_unique('mail_users', '{alias}');
SELECT rowkeeper.soft_delete_unique('mails', NULL);
INSERT INTO mails VALUES ('a', NULL, 1), ('b', 'x', 1);
SELECT rowkeeper.soft_delete_unique('mails', '{part}');
DROP TABLE mail_users;
SELECT rowkeeper.soft_delete_unique('mails', '{alias}');
CREATE TABLE metrics (id int, day int, name text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE metrics_1 PARTITION OF metrics FOR VALUES FROM (0) TO (10);
SELECT rowkeeper.soft_delete('metrics') \g /dev/null
SELECT rowkeeper.soft_delete_unique('metrics', '{name}');
SELECT rowkeeper.soft_delete_unique('metrics', '{name, day}');

-- the doctor: nothing is wrong, then everything
CREATE TABLE orders (id int PRIMARY KEY, u int REFERENCES users, code text UNIQUE);
CREATE TABLE items (id int PRIMARY KEY, o int REFERENCES orders ON DELETE CASCADE);
SELECT rowkeeper.soft_delete('items') \g /dev/null
SELECT rowkeeper.soft_delete('orders') \g /dev/null
SELECT target, healthy, detail FROM rowkeeper.features ORDER BY target::text;
:doctor;
SELECT rowkeeper.doctor_assert(feature => 'soft_delete');
SELECT rowkeeper.soft_delete_unique('orders', '{code}') \g /dev/null
-- the view: missing, other rows, its owner's rights, without its trigger, columns
BEGIN;
DROP VIEW active_orders;
:doctor;
SELECT remedy FROM rowkeeper.doctor(feature => 'soft_delete') \gexec
:doctor;
CREATE OR REPLACE VIEW active_orders AS SELECT * FROM orders WHERE true;
:doctor;
SELECT split_part(remedy, ';', n) FROM rowkeeper.doctor(feature => 'soft_delete'), generate_series(1, 2) n \gexec
:doctor;
ALTER VIEW active_orders RESET (security_invoker);
:doctor;
SELECT remedy FROM rowkeeper.doctor(feature => 'soft_delete') \gexec
DROP TRIGGER rowkeeper_soft_delete ON active_orders;
:doctor;
SELECT remedy FROM rowkeeper.doctor(feature => 'soft_delete') \gexec
:doctor;
ROLLBACK;
-- triggers: missing, disabled, on a partition
BEGIN;
ALTER TABLE orders DISABLE TRIGGER rowkeeper_soft_delete;
DROP TRIGGER rowkeeper_soft_delete_direct ON orders;
ALTER TABLE metrics_1 DISABLE TRIGGER ALL;
DROP TRIGGER rowkeeper_soft_delete_truncate ON metrics_1;
:doctor;
\o /dev/null
SELECT remedy FROM rowkeeper.doctor(feature => 'soft_delete') \gexec
\o
:doctor;
ROLLBACK;
-- guards
BEGIN;
ALTER TABLE items DISABLE TRIGGER rowkeeper_soft_delete_update_items_o_fkey;
DROP TRIGGER rowkeeper_soft_delete_insert_orders_u_fkey ON orders;
:doctor;
\o /dev/null
SELECT remedy FROM rowkeeper.doctor(feature => 'soft_delete') \gexec
\o
:doctor;
ROLLBACK;
-- a foreign key that came later: guarded, but it cascades to what cannot follow
BEGIN;
CREATE TABLE notes (id int PRIMARY KEY, o int REFERENCES orders ON DELETE CASCADE);
:doctor;
\o /dev/null
SELECT remedy FROM rowkeeper.doctor(feature => 'soft_delete') \gexec
\o
:doctor;
ROLLBACK;
-- a foreign key that came while nobody looked
BEGIN;
ALTER EVENT TRIGGER rowkeeper_ddl_end DISABLE;
CREATE TABLE notes (id int PRIMARY KEY, o int REFERENCES orders);
ALTER TABLE orders ADD COLUMN late int;
ALTER EVENT TRIGGER rowkeeper_ddl_end ENABLE ALWAYS;
:doctor;
\o /dev/null
SELECT remedy FROM rowkeeper.doctor(feature => 'soft_delete') \gexec
\o
:doctor;
ROLLBACK;
-- soft delete is gone from the parent alone, or by accident
BEGIN;
SELECT rowkeeper.soft_delete_off('orders') \g /dev/null
:doctor;
ROLLBACK;
BEGIN;
INSERT INTO orders VALUES (1);
DROP TRIGGER rowkeeper_soft_delete ON orders;
:doctor;
DELETE FROM active_orders;
ROLLBACK;
BEGIN;
SET LOCAL client_min_messages = warning;
ALTER TABLE orders DROP COLUMN deleted_at CASCADE;
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgname ~ '^rowkeeper' AND (tgrelid = 'orders'::regclass OR tgconstrrelid = 'orders'::regclass) ORDER BY 1, 2;
SELECT rowkeeper.soft_delete_off('orders');
ROLLBACK;
-- ... or from a child alone, to which its parent cascades
BEGIN;
SELECT rowkeeper.soft_delete_off('items') \g /dev/null
:doctor;
ROLLBACK;
:doctor;

-- renamed over a table that it inherits from since, or over its type
CREATE TABLE heir (id int PRIMARY KEY, deleted_at timestamptz);
SELECT rowkeeper.soft_delete('heir') \g /dev/null
CREATE TABLE legator (id int, deleted_at timestamptz);
ALTER TABLE heir ALTER id SET NOT NULL, INHERIT legator;
CREATE TYPE shape AS (id int, deleted_at timestamptz, deleted_by text, delete_batch bigint);
CREATE TABLE shaped OF shape (PRIMARY KEY (id));
SELECT rowkeeper.soft_delete('shaped') \g /dev/null
ALTER TABLE legator RENAME deleted_at TO gone_at;
ALTER TYPE shape RENAME ATTRIBUTE deleted_at TO gone_at CASCADE;
INSERT INTO heir VALUES (1);
INSERT INTO shaped VALUES (1);
DELETE FROM active_heir;
DELETE FROM active_shaped;
SELECT gone_at IS NOT NULL AS deleted FROM heir UNION ALL SELECT gone_at IS NOT NULL FROM shaped;
:doctor;
SET client_min_messages = warning;
DROP TABLE heir, legator, shaped CASCADE;
RESET client_min_messages;

-- leave() takes it from all, and the extension can go
SELECT count(*) > 0 AS done FROM rowkeeper.leave('users');
SELECT count(*) > 0 AS done FROM rowkeeper.leave();
SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE NOT tgisinternal;
DROP EXTENSION rowkeeper;
SELECT id, deleted_at IS NOT NULL AS deleted FROM users ORDER BY id;
\c contrib_regression
DROP DATABASE regress_rk_soft_delete;
