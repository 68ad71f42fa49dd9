-- Options: what is not named stays as it is.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_options;
SET search_path = audit_options;
CREATE TABLE first (id int PRIMARY KEY);
SELECT rowkeeper.audit('first') \g /dev/null
RESET client_min_messages;
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set news 'SELECT action, record_id, old_data, new_data, changed_fields FROM rowkeeper.audit_log WHERE table_schema = ''audit_options'' AND id > :seen ORDER BY id'
\set options 'SELECT convert_from(tgargs, ''UTF8'') AS options, tgenabled FROM (SELECT replace(encode(tgargs, ''escape''), ''\\000'', '' '')::bytea AS tgargs, tgenabled FROM pg_trigger WHERE tgrelid = ''users''::regclass AND tgname = ''!rowkeeper_changes'') t'
CREATE TABLE users (id int PRIMARY KEY, name text, password text, api_token text, cardinal int, visits int DEFAULT 0);

-- a column named like a secret is told of
SELECT rowkeeper.audit('users') \g /dev/null
INSERT INTO users VALUES (1, 'ann', 'p', 't', 1);
-- exclude: the column is not in the log, and a change of it alone is no entry
:mark \gset
SELECT rowkeeper.audit('users', exclude => '{api_token, password}') \g /dev/null
INSERT INTO users VALUES (2, 'bea', 'p', 't', 1);
UPDATE users SET password = 'q' WHERE id = 2;
UPDATE users SET password = 'r', name = 'eva' WHERE id = 2;
UPDATE users SET id = 3, password = 's' WHERE id = 2;
DELETE FROM users WHERE id = 3;
:news;
-- another option alone: exclude stays
SELECT rowkeeper.audit('users', capture => 'full') \g /dev/null
:options;
:mark \gset
UPDATE users SET visits = visits + 1;
UPDATE users SET password = 'z';
UPDATE users SET id = 9, name = NULL;
DELETE FROM users;
:news;
SELECT rowkeeper.audit('users', keep => '90 days');
SELECT rowkeeper.audit('users', keep => '3 mons');
SELECT rowkeeper.audit('users', replica => false);
:options;
-- the same again, or nothing at all, changes nothing
SELECT rowkeeper.audit('users');
SELECT rowkeeper.audit('users', '{password, api_token, password}', 'full', '3 months', false);
-- replica => false: no entry under session_replication_role = replica
:mark \gset
SET session_replication_role = replica;
INSERT INTO users VALUES (4, 'replicated');
RESET session_replication_role;
INSERT INTO users VALUES (5, 'here');
:news;
SELECT rowkeeper.audit('users', replica => true) \g /dev/null
:mark \gset
SET session_replication_role = replica;
INSERT INTO users VALUES (6, 'replicated');
RESET session_replication_role;
SELECT action, record_id, context FROM rowkeeper.audit_log WHERE table_schema = 'audit_options' AND id > :seen ORDER BY id;
-- to take something away, write it out
SELECT rowkeeper.audit('users', exclude => '{}', capture => 'changes', keep => '0') \g /dev/null
:options;
:mark \gset
INSERT INTO users VALUES (7, 'gil', 'p', 't', 1);
:news;

-- keep decides in which class of the log an entry lies; a changed keep holds
-- for new entries
CREATE TABLE notes (id int PRIMARY KEY);
SELECT rowkeeper.audit('notes', keep => '2 years') \g /dev/null
INSERT INTO notes VALUES (1);
-- for ever, as 17 can say it, too
SELECT CASE WHEN current_setting('server_version_num')::int >= 170000 THEN 'infinity' ELSE '0' END AS forever \gset
SELECT rowkeeper.audit('notes', keep => :'forever') \g /dev/null
INSERT INTO notes VALUES (2);
SELECT rowkeeper.audit('notes', keep => '24 months') \g /dev/null
INSERT INTO notes VALUES (3);
SELECT l.record_id, c.keep, l.tableoid::regclass::text ~ ('^rowkeeper_log.log_c' || l.class || '_p\d{8}$') AS in_its_leaf
    FROM rowkeeper_log.log l JOIN rowkeeper_log.classes c USING (class) JOIN rowkeeper_log.tables t USING (table_id)
    WHERE t.table_name = 'notes' AND t.table_schema = 'audit_options' AND action = 'I' ORDER BY l.id;
-- each of them has its leaves for the weeks ahead
SELECT count(DISTINCT n) AS leaves FROM (SELECT class, count(*) AS n FROM rowkeeper_log.classes c
    JOIN pg_inherits i ON i.inhparent = ('rowkeeper_log.log_c' || class)::regclass GROUP BY class) x;
-- a dry run of keep leaves no class
SELECT count(*) AS classes FROM rowkeeper_log.classes \gset
BEGIN;
SELECT rowkeeper.audit('notes', keep => '17 days') \g /dev/null
INSERT INTO notes VALUES (4);
ROLLBACK;
SELECT count(*) - :classes AS more FROM rowkeeper_log.classes;
INSERT INTO notes VALUES (5);

-- On a partitioned table the options reach every partition.
CREATE TABLE parts (id int PRIMARY KEY, secret_a text, b int) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
SELECT rowkeeper.audit('parts', exclude => '{secret_a}') \g /dev/null
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
:mark \gset
INSERT INTO parts VALUES (1, 'x', 1), (11, 'x', 1);
SELECT rowkeeper.audit('parts', capture => 'full', replica => false) \g /dev/null
UPDATE parts SET b = 2;
SET session_replication_role = replica;
UPDATE parts SET b = 3;
RESET session_replication_role;
:news;
SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger WHERE tgrelid IN ('parts'::regclass, 'parts_1'::regclass, 'parts_2'::regclass) ORDER BY 1, 2;

-- Refused, and nothing is half-made
SELECT rowkeeper.audit('users', exclude => '{id}');
SELECT rowkeeper.audit('users', exclude => '{nothing}');
SELECT rowkeeper.audit('users', exclude => '{ctid}');
SELECT rowkeeper.audit('users', exclude => '{NULL}');
SELECT rowkeeper.audit('users', capture => 'all');
SELECT rowkeeper.audit('users', capture => '');
SELECT rowkeeper.audit('users', keep => '-1 day');
SELECT rowkeeper.audit('users', keep => '1 month -40 days');
SELECT rowkeeper.audit('notes', capture => 'nonsense', exclude => '{}');
:options;

SET client_min_messages = warning;
DROP SCHEMA audit_options CASCADE;
