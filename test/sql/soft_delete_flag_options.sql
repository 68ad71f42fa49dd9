-- Options of soft_delete() in flag mode: columns there are, views there are, what
-- is refused, and that what is not named stays as it is.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA soft_delete_options;
SET search_path = soft_delete_options;
CREATE TABLE first (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('first') \g /dev/null
RESET client_min_messages;
\pset format unaligned
\set options 'SELECT options, call FROM rowkeeper.features WHERE target = ''accounts''::regclass AND feature = ''soft_delete'''

-- existing columns of either kind are used as they are
CREATE TABLE accounts (id uuid PRIMARY KEY, "deletedAt" timestamp(0), "deletedBy" uuid);
INSERT INTO accounts (id) SELECT md5(i::text)::uuid FROM generate_series(1, 4) i;
SELECT rowkeeper.soft_delete('accounts');
SELECT rowkeeper.soft_delete('accounts', deleted_at => 'deletedAt');
SELECT pg_relation_filenode('accounts') AS before \gset
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('accounts', deleted_at => 'deletedAt', deleted_by => 'deletedBy', batch => 'deleteBatch');
SELECT pg_relation_filenode('accounts') = :before AS not_rewritten;
:options;
-- the actor is a user id; where there is none, NULL
BEGIN;
SELECT rowkeeper.set_context('11111111-1111-1111-1111-111111111111'::uuid);
DELETE FROM active_accounts WHERE id = md5('1')::uuid;
COMMIT;
DELETE FROM active_accounts WHERE id = md5('2')::uuid;
BEGIN;
SELECT rowkeeper.set_context('ann');
DELETE FROM active_accounts WHERE id = md5('3')::uuid;
ROLLBACK;
SELECT "deletedAt" = date_trunc('second', "deletedAt") AS precision, "deletedBy", "deleteBatch" IS NOT NULL AS batch FROM accounts WHERE "deletedAt" IS NOT NULL ORDER BY 2;

-- what is not named stays, what changes is told
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('accounts', keep => '1 year', on_delete => 'allow');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('accounts', cascade => false);
:options;
SELECT call FROM rowkeeper.features WHERE target = 'accounts'::regclass AND feature = 'soft_delete' \gexec
CREATE SCHEMA soft_delete_views;
SELECT rowkeeper.soft_delete('accounts', view_name => 'living', view_schema => 'soft_delete_views');
SELECT count(*) FROM soft_delete_views.living;
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('accounts', deleted_by => '-', keep => '0', on_delete => 'error', cascade => true);
:options;
-- renames are followed
ALTER VIEW soft_delete_views.living RENAME TO alive;
ALTER SCHEMA soft_delete_views RENAME TO soft_delete_renamed;
ALTER TABLE accounts RENAME "deleteBatch" TO batch_no;
ALTER TABLE accounts RENAME TO people;
ALTER TABLE people RENAME TO accounts;
:options;
SELECT rowkeeper.soft_delete('accounts');
DELETE FROM soft_delete_renamed.alive WHERE id = md5('3')::uuid;
SELECT count(*) FROM soft_delete_renamed.alive;
SELECT rowkeeper.soft_delete('accounts', deleted_at => 'gone');
SELECT rowkeeper.soft_delete('accounts', batch => 'other');
SELECT rowkeeper.soft_delete('accounts', mode => 'trash');

-- a view that means the same is adopted, and gets what it lacks
CREATE TABLE pets (id int PRIMARY KEY, name text, deleted_at timestamptz);
CREATE VIEW active_pets AS SELECT name, id FROM pets WHERE deleted_at IS NULL;
INSERT INTO pets VALUES (1, 'rex'), (2, 'tom');
SELECT rowkeeper.soft_delete('pets');
SELECT * FROM active_pets;
DELETE FROM active_pets WHERE name = 'rex' RETURNING id;
-- ... and stays its owner's, also when it was hidden
SELECT count(*) FROM rowkeeper.soft_delete_hide_view('pets');
SELECT count(*) FROM rowkeeper.soft_delete_refresh('pets');
SELECT rowkeeper.soft_delete_off('pets');
SELECT * FROM active_pets;
DROP VIEW active_pets;
-- one that does not is refused
CREATE TABLE cars (id int PRIMARY KEY, name text, deleted_at timestamptz);
CREATE VIEW a AS SELECT * FROM cars WHERE deleted_at IS NULL AND id > 0;
CREATE VIEW b AS SELECT * FROM pets WHERE deleted_at IS NULL;
CREATE VIEW c AS SELECT name, deleted_at FROM cars WHERE deleted_at IS NULL;
CREATE VIEW d AS SELECT id, upper(name) AS name FROM cars WHERE deleted_at IS NULL;
CREATE VIEW e AS SELECT DISTINCT * FROM cars WHERE deleted_at IS NULL;
CREATE VIEW f AS SELECT * FROM cars WHERE deleted_at IS NULL;
CREATE RULE r AS ON DELETE TO f DO INSTEAD NOTHING;
CREATE TABLE g (id int);
SELECT rowkeeper.soft_delete('cars', view_name => 'a');
SELECT rowkeeper.soft_delete('cars', view_name => 'b');
SELECT rowkeeper.soft_delete('cars', view_name => 'c');
SELECT rowkeeper.soft_delete('cars', view_name => 'd');
SELECT rowkeeper.soft_delete('cars', view_name => 'e');
SELECT rowkeeper.soft_delete('cars', view_name => 'f');
SELECT rowkeeper.soft_delete('cars', view_name => 'g');
SELECT rowkeeper.soft_delete('cars', view_schema => 'nowhere');

-- columns that will not do
CREATE TABLE bad (id int PRIMARY KEY, a text, b timestamptz NOT NULL, c timestamptz DEFAULT now(), d int, deleted_at date,
    e timestamptz GENERATED ALWAYS AS (NULL) STORED, f bigint);
SELECT rowkeeper.soft_delete('bad');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'a');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'b');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'c');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'e');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'ctid');
SELECT rowkeeper.soft_delete('bad', deleted_at => '-');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'x', batch => 'd');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'x', batch => '-');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'x', deleted_by => 'f', batch => 'f');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'x', batch => 'x');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'x', deleted_by => 'A');
SELECT rowkeeper.soft_delete('bad', deleted_at => 'deletedAt');
CREATE TABLE by_stamp (id int, deleted_at timestamptz, PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE by_stamp_1 PARTITION OF by_stamp FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE by_list (id int, gone timestamptz, PRIMARY KEY (id, gone)) PARTITION BY RANGE (gone);
SELECT rowkeeper.soft_delete('by_list', deleted_at => 'gone');
-- options
SELECT rowkeeper.soft_delete('cars', mode => 'bin');
SELECT rowkeeper.soft_delete('cars', on_delete => 'maybe');
SELECT rowkeeper.soft_delete('cars', keep => '-1 day');
SELECT rowkeeper.soft_delete('cars', keep => '1 hour');
SELECT rowkeeper.soft_delete('cars', mode => 'trash', deleted_by => 'x');
-- tables
SELECT rowkeeper.soft_delete(NULL);
SELECT rowkeeper.soft_delete('a');
SELECT rowkeeper.soft_delete('by_stamp_1');
SELECT rowkeeper.soft_delete('pg_class');
SELECT rowkeeper.soft_delete('rowkeeper_trash.batches');
CREATE TABLE no_key (id int);
SELECT rowkeeper.soft_delete('no_key');
CREATE TABLE late_key (id int PRIMARY KEY DEFERRABLE);
SELECT rowkeeper.soft_delete('late_key');
CREATE TEMP TABLE temporary (id int PRIMARY KEY);
\set VERBOSITY sqlstate
SELECT rowkeeper.soft_delete('temporary');
\set VERBOSITY default
CREATE TABLE heir () INHERITS (no_key);
ALTER TABLE no_key ADD PRIMARY KEY (id);
SELECT rowkeeper.soft_delete('no_key');
-- nothing was half-made
SELECT attname FROM pg_attribute WHERE attrelid IN ('cars'::regclass, 'bad'::regclass, 'no_key'::regclass) AND attname ~ 'delete' ORDER BY 1;
SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('cars'::regclass, 'bad'::regclass, 'no_key'::regclass);

SET client_min_messages = warning;
DROP SCHEMA soft_delete_renamed CASCADE;
DROP SCHEMA soft_delete_options CASCADE;
