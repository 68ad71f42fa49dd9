-- Optimistic locking: what a statement says of the version, and what comes of it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA stamp_version;
SET search_path = stamp_version;
RESET client_min_messages;
\pset format unaligned
CREATE TABLE docs (id int PRIMARY KEY, body text, updated_at timestamptz, version int);
SELECT rowkeeper.stamp('docs') \g /dev/null
CREATE PROCEDURE reset() LANGUAGE sql AS $$ DELETE FROM docs; INSERT INTO docs VALUES (1, 'a', NULL, 7) $$;

-- a row begins at 1, or where its client says
INSERT INTO docs VALUES (2) RETURNING version;
INSERT INTO docs VALUES (3, NULL, NULL, 0) RETURNING version;

-- stale = off: whatever is sent, the next version it is
CALL reset();
UPDATE docs SET body = 'b' RETURNING version;
UPDATE docs SET body = 'c', version = 8 RETURNING version;
UPDATE docs SET body = 'd', version = 10 RETURNING version;
UPDATE docs SET body = 'e', version = 2 RETURNING version;
UPDATE docs SET body = 'f', version = NULL RETURNING version;
UPDATE docs SET body = 'g', version = version + 1 RETURNING version;
-- a mapper that sends the next version counts on it, even if nothing else changes
UPDATE docs SET body = 'g', version = 14 RETURNING version;
UPDATE docs SET body = 'g', version = 14 RETURNING version;
UPDATE docs SET body = 'g' RETURNING version;
-- as mappers do it: the version in WHERE and in SET
UPDATE docs SET body = 'h', version = 15 WHERE id = 1 AND version = 14;
UPDATE docs SET body = 'i', version = 15 WHERE id = 1 AND version = 14;

-- stale = error asks how clients send it
SELECT rowkeeper.stamp('docs', stale => 'error');
SELECT rowkeeper.stamp('docs', stale => 'error', client_version => 'read', version => '-');
SELECT rowkeeper.stamp('docs', stale => 'error', client_version => 'read') \g /dev/null
SELECT rowkeeper.stamp('docs', client_version => 'either');
SELECT rowkeeper.stamp('docs', version => '-');

-- read: what was read must be what is there
CALL reset();
UPDATE docs SET body = 'b', version = 7 RETURNING version;
UPDATE docs SET body = 'c', version = 7;
UPDATE docs SET body = 'c', version = 9;
UPDATE docs SET body = 'c', version = NULL;
-- also if it would change nothing
UPDATE docs SET body = body, version = 7;
UPDATE docs SET body = body, version = 8 RETURNING version;
-- who does not say does not ask
UPDATE docs SET body = 'c' RETURNING version;
-- next: what mappers send
SELECT rowkeeper.stamp('docs', client_version => 'next', sqlstate => 'PT409') \g /dev/null
CALL reset();
UPDATE docs SET body = 'b', version = 8 RETURNING version;
UPDATE docs SET body = 'c', version = 8;
\echo :LAST_ERROR_SQLSTATE
UPDATE docs SET body = 'c', version = 10;
UPDATE docs SET body = body, version = 9 RETURNING version;
-- skip: no row, which mappers take for a conflict
SELECT rowkeeper.stamp('docs', stale => 'skip') \g /dev/null
UPDATE docs SET body = 'c', version = 9 RETURNING version;
UPDATE docs SET body = 'c', version = 10 RETURNING version;
SELECT body, version FROM docs;
-- a row without a version agrees with any, and gets its first
SELECT rowkeeper.stamp('docs', stale => 'error') \g /dev/null
ALTER TABLE docs DISABLE TRIGGER "~rowkeeper_stamp";
UPDATE docs SET version = NULL;
ALTER TABLE docs ENABLE TRIGGER "~rowkeeper_stamp";
UPDATE docs SET body = 'd', version = 5 RETURNING version;

-- ON CONFLICT DO UPDATE sends the default of the column
ALTER TABLE docs ALTER version SET DEFAULT 1;
CALL reset();
INSERT INTO docs (id, body) VALUES (1, 'new') ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, version = EXCLUDED.version;
INSERT INTO docs (id, body) VALUES (1, 'new') ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body RETURNING version;
INSERT INTO docs (id, body, version) VALUES (1, 'newer', 9) ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, version = EXCLUDED.version RETURNING version;
-- MERGE: assigned in one of its actions is assigned in all
CREATE TABLE feed (id int, body text, version int);
INSERT INTO feed VALUES (1, 'fed', 10), (4, 'fed', 1);
MERGE INTO docs d USING feed f ON d.id = f.id
WHEN MATCHED THEN UPDATE SET body = f.body, version = f.version
WHEN NOT MATCHED THEN INSERT (id, body) VALUES (f.id, f.body);
SELECT id, body, version FROM docs ORDER BY id;
UPDATE feed SET body = 'fed again', version = CASE id WHEN 1 THEN 11 ELSE 2 END;
MERGE INTO docs d USING feed f ON d.id = f.id
WHEN MATCHED AND f.id = 4 THEN UPDATE SET body = 'not assigned'
WHEN MATCHED THEN UPDATE SET body = f.body, version = f.version;
MERGE INTO docs d USING feed f ON d.id = f.id
WHEN MATCHED AND f.id = 4 THEN UPDATE SET body = 'next', version = d.version + 1
WHEN MATCHED THEN UPDATE SET body = f.body, version = f.version;
SELECT id, body, version FROM docs ORDER BY id;

-- a version written by hand, where client_value lets it
SELECT rowkeeper.stamp('docs', stale => 'off', client_version => 'either', client_value => 'respect') \g /dev/null
UPDATE docs SET version = 100 WHERE id = 1 RETURNING version;
UPDATE docs SET body = 'x', version = 100 WHERE id = 1 RETURNING version;
UPDATE docs SET body = 'y', version = 102 WHERE id = 1 RETURNING version;
SELECT rowkeeper.stamp('docs', client_value => 'error') \g /dev/null
UPDATE docs SET body = 'z', version = 100 WHERE id = 1;
UPDATE docs SET body = 'z', version = 102 WHERE id = 1 RETURNING version;
UPDATE docs SET body = 'a', version = 104 WHERE id = 1 RETURNING version;

SET client_min_messages = warning;
DROP SCHEMA stamp_version CASCADE;
