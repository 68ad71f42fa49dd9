-- Audited tables change their shape and their names; entries keep the names
-- of their time, and every command is an entry of its own.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_schema_changes;
SET search_path = audit_schema_changes;
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set news 'SELECT table_name, action, record_id, old_data, new_data, context FROM rowkeeper.audit_log WHERE table_schema = ''audit_schema_changes'' AND id > :seen ORDER BY id'
CREATE TABLE users (id int PRIMARY KEY, name text, password text, age int, gone int);
SELECT rowkeeper.audit('users', exclude => '{password}') \g /dev/null
INSERT INTO users VALUES (1, 'ann', 'p', 30, 0);

-- columns come, go, and get another name or type
:mark \gset
ALTER TABLE users ADD COLUMN email text DEFAULT 'none';
INSERT INTO users VALUES (2, 'bea', 'p', 40, 0, 'b@x');
UPDATE users SET email = 'a@x' WHERE id = 1;
ALTER TABLE users DROP COLUMN gone;
UPDATE users SET age = 31 WHERE id = 1;
ALTER TABLE users RENAME COLUMN name TO full_name;
UPDATE users SET full_name = 'Ann' WHERE id = 1;
ALTER TABLE users ALTER COLUMN age TYPE text USING age || ' years';
UPDATE users SET age = '32 years' WHERE id = 1;
ALTER TABLE users RENAME COLUMN id TO user_id;
DELETE FROM users WHERE user_id = 2;
:news;

-- an excluded column that is renamed stays excluded; one that is dropped is forgotten
:mark \gset
ALTER TABLE users RENAME COLUMN password TO secret;
UPDATE users SET secret = 'q';
INSERT INTO users VALUES (3, 'cid', 'p', '1 year', 'c@x');
SELECT rowkeeper.audit('users', capture => 'full') \g /dev/null
UPDATE users SET secret = 'r', full_name = 'Cid' WHERE user_id = 3;
-- by a DO block, and by several commands in one transaction with writes between
DO $$
BEGIN
    ALTER TABLE users RENAME COLUMN secret TO hidden;
    UPDATE users SET hidden = 's';
    ALTER TABLE users RENAME COLUMN hidden TO hushed;
    UPDATE users SET hushed = 't', age = NULL WHERE user_id = 3;
END $$;
BEGIN;
ALTER TABLE users RENAME COLUMN hushed TO loud;
UPDATE users SET loud = 'u';
ROLLBACK;
UPDATE users SET hushed = 'v';
SELECT action, record_id, old_data, new_data, context - 'columns' AS context
    FROM rowkeeper.audit_log WHERE table_schema = 'audit_schema_changes' AND id > :seen ORDER BY id;
ALTER TABLE users DROP COLUMN hushed;
ALTER TABLE users ADD COLUMN hushed text;
:mark \gset
UPDATE users SET hushed = 'now seen' WHERE user_id = 1;
SELECT action, record_id, new_data FROM rowkeeper.audit_log WHERE table_schema = 'audit_schema_changes' AND id > :seen ORDER BY id;

-- the table and its schema get other names
:mark \gset
ALTER TABLE users RENAME TO people;
UPDATE people SET full_name = 'A' WHERE user_id = 1;
CREATE SCHEMA audit_changed;
ALTER TABLE people SET SCHEMA audit_changed;
UPDATE audit_changed.people SET full_name = 'B' WHERE user_id = 1;
ALTER SCHEMA audit_changed RENAME TO audit_renamed;
UPDATE audit_renamed.people SET full_name = 'C' WHERE user_id = 1;
ALTER TABLE audit_renamed.people SET SCHEMA audit_schema_changes;
ALTER TABLE people RENAME TO users;
UPDATE users SET full_name = 'D' WHERE user_id = 1;
SELECT table_schema, table_name, relation, action, new_data ->> 'full_name' AS full_name, context ->> 'command' AS command
    FROM rowkeeper.audit_log WHERE id > :seen AND table_schema ~ '^audit_(schema_changes|changed|renamed)' ORDER BY id;
-- a new table under the old name is another table
:mark \gset
ALTER TABLE users RENAME TO old_users;
CREATE TABLE users (id int PRIMARY KEY);
SELECT rowkeeper.audit('users') \g /dev/null
INSERT INTO users VALUES (1);
UPDATE old_users SET full_name = 'E' WHERE user_id = 1;
SELECT table_name, relation, action, record_id FROM rowkeeper.audit_log WHERE id > :seen AND table_schema = 'audit_schema_changes' ORDER BY id;
SELECT count(DISTINCT table_id) FROM rowkeeper_log.tables WHERE table_schema = 'audit_schema_changes' AND table_name = 'users';

-- a rename that is rolled back did not happen
:mark \gset
BEGIN;
ALTER TABLE old_users RENAME TO never;
UPDATE never SET full_name = 'F' WHERE user_id = 1;
SELECT table_name, action FROM rowkeeper.audit_log WHERE id > :seen AND table_schema = 'audit_schema_changes' ORDER BY id;
ROLLBACK;
UPDATE old_users SET full_name = 'G' WHERE user_id = 1;
SELECT table_name, action FROM rowkeeper.audit_log WHERE id > :seen AND table_schema = 'audit_schema_changes' ORDER BY id;

-- the primary key gets another column
CREATE TABLE keyed (a int PRIMARY KEY, b int NOT NULL);
SELECT rowkeeper.audit('keyed') \g /dev/null
:mark \gset
INSERT INTO keyed VALUES (1, 10);
ALTER TABLE keyed DROP CONSTRAINT keyed_pkey, ADD PRIMARY KEY (a, b);
UPDATE keyed SET b = 11;
BEGIN;
ALTER TABLE keyed DROP CONSTRAINT keyed_pkey, ADD PRIMARY KEY (b);
UPDATE keyed SET a = 2;
COMMIT;
DELETE FROM keyed;
SELECT action, record_id, old_data, new_data, context ->> 'command' AS command FROM rowkeeper.audit_log
    WHERE id > :seen AND table_schema = 'audit_schema_changes' ORDER BY id;

-- a change that writes the table anew is told of, with what it does to values
:mark \gset
ALTER TABLE keyed ADD COLUMN c int DEFAULT 1;
INSERT INTO keyed VALUES (5, 5, 5);
ALTER TABLE keyed ALTER COLUMN c TYPE bigint USING c * 2;
ALTER TABLE keyed ADD COLUMN d float8 DEFAULT random();
UPDATE keyed SET d = 0.5, c = 7;
SELECT action, record_id, old_data - 'd' AS old_data, new_data, context - 'columns' AS context FROM rowkeeper.audit_log
    WHERE id > :seen AND table_schema = 'audit_schema_changes' ORDER BY id;

-- a partitioned table: the change reaches partitions of another layout
CREATE TABLE p (id int, k int, v text, w text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p_2 (w text, v text, k int NOT NULL, id int NOT NULL);
ALTER TABLE p ATTACH PARTITION p_2 FOR VALUES IN (2);
SELECT rowkeeper.audit('p', exclude => '{w}') \g /dev/null
INSERT INTO p VALUES (1, 1, 'a', 'w'), (2, 2, 'b', 'w');
:mark \gset
ALTER TABLE p RENAME COLUMN w TO hidden;
ALTER TABLE p DROP COLUMN v, ADD COLUMN n int;
UPDATE p SET n = id, hidden = 'x';
UPDATE p SET k = 3 - k, hidden = 'y';
ALTER TABLE p RENAME TO q;
UPDATE p_1 SET n = 0;
ALTER TABLE p_1 RENAME TO q_1;
TRUNCATE q_1;
SELECT table_name, action, record_id, old_data, new_data, context - 'columns' AS context FROM rowkeeper.audit_log
    WHERE id > :seen AND table_schema = 'audit_schema_changes' ORDER BY id;

-- generated columns are logged as stored, identity as given
CREATE TABLE made (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, dropped text, b int);
ALTER TABLE made DROP COLUMN dropped;
SELECT rowkeeper.audit('made') \g /dev/null
:mark \gset
INSERT INTO made (a) VALUES (1), (2);
UPDATE made SET a = a + 10 WHERE id = 2;
UPDATE made SET b = 1;
INSERT INTO made (id, a) VALUES (7, NULL);
ALTER TABLE made ALTER twice DROP EXPRESSION;
UPDATE made SET a = 5 WHERE id = 1;
DELETE FROM made WHERE id = 1;
SELECT action, record_id, old_data, new_data FROM rowkeeper.audit_log
    WHERE id > :seen AND table_schema = 'audit_schema_changes' AND record_id IS NOT NULL ORDER BY id;

-- prepared statements and their plans see each change
CREATE TABLE planned (id int PRIMARY KEY, a int);
SELECT rowkeeper.audit('planned') \g /dev/null
PREPARE ins AS INSERT INTO planned (id, a) VALUES ($1, $1);
EXECUTE ins (1);
:mark \gset
ALTER TABLE planned ADD b int DEFAULT 3;
EXECUTE ins (2);
SELECT rowkeeper.audit('planned', exclude => '{a}') \g /dev/null
EXECUTE ins (3);
SELECT rowkeeper.audit_off('planned') \g /dev/null
EXECUTE ins (4);
SELECT rowkeeper.audit('planned') \g /dev/null
EXECUTE ins (5);
SELECT action, record_id, new_data FROM rowkeeper.audit_log
    WHERE id > :seen AND table_schema = 'audit_schema_changes' AND record_id IS NOT NULL ORDER BY id;

DROP SCHEMA audit_schema_changes, audit_renamed CASCADE;
