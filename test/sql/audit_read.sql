-- Reading the log as a whole: the view, transactions, sizes.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_read;
SET search_path = audit_read;

CREATE TABLE accounts (id int PRIMARY KEY, owner text, balance int, note text);
CREATE TABLE bookings (id int PRIMARY KEY, account int, amount int);
SELECT rowkeeper.audit('accounts', exclude => '{note}', keep => '413 days') \g /dev/null
SELECT rowkeeper.audit('bookings', capture => 'full', keep => '414 days') \g /dev/null

-- the columns that applications rely on
SELECT attname, format_type(atttypid, atttypmod)
FROM pg_attribute WHERE attrelid = 'rowkeeper.audit_log'::regclass AND attnum > 0 ORDER BY attnum;
SELECT p.oid::regprocedure, p.proargnames[3:] = (
    SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = 'rowkeeper.audit_log'::regclass AND attnum > 0) AS columns_of_audit_log
FROM pg_proc p WHERE p.pronamespace = 'rowkeeper'::regnamespace AND p.proname = 'audit_history'
ORDER BY p.oid::regprocedure::text;

BEGIN;
SELECT rowkeeper.set_context('teller 7', '{"branch": "north"}');
INSERT INTO accounts VALUES (1, 'ann', 100, 'x'), (2, 'bob', 0, 'y');
INSERT INTO bookings VALUES (10, 1, 100);
COMMIT;
BEGIN;
SELECT rowkeeper.set_context('teller 8');
UPDATE accounts SET balance = balance - 30 WHERE id = 1;
UPDATE accounts SET balance = balance + 30, note = 'z' WHERE id = 2;
INSERT INTO bookings VALUES (11, 1, -30), (12, 2, 30);
UPDATE bookings SET amount = 31 WHERE id = 12;
COMMIT;
UPDATE accounts SET note = 'not logged';
DELETE FROM bookings WHERE id = 12;
TRUNCATE bookings;

SELECT table_name, action, record_id, old_data, new_data, changed_fields
FROM rowkeeper.audit_log WHERE table_schema = 'audit_read' ORDER BY id;
SELECT table_name, action, nullif(actor, session_user) AS actor, actor_source, context
FROM rowkeeper.audit_log WHERE table_schema = 'audit_read' AND record_id ->> 'id' IN ('1', '12') ORDER BY id;

-- who-records and key links are never shown
UPDATE accounts SET id = 3 WHERE id = 2;
SELECT action, count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_read' GROUP BY 1 ORDER BY 1;

-- transactions
SELECT nullif(actor, session_user) AS actor, tables, context FROM rowkeeper.audit_transactions(now() - interval '1 day')
WHERE tables ? 'audit_read.accounts' OR tables ? 'audit_read.bookings';
SELECT actor, db_user = session_user AS db_user, tables
FROM rowkeeper.audit_transactions(since => now() - interval '1 day', actor => 'teller 8');
SELECT count(*) FROM rowkeeper.audit_transactions('2000-01-01', '2000-12-31');
-- the one that did it: its number is the one the application sees
BEGIN;
SELECT pg_current_xact_id()::text::bigint AS mine \gset
UPDATE accounts SET balance = 0 WHERE id = 1;
COMMIT;
SELECT actor = session_user AS actor, tables FROM rowkeeper.audit_transactions(now() - interval '1 day') WHERE txid = :mine;

-- names are those of the time, the relation is the one of now
ALTER TABLE accounts RENAME TO customers;
UPDATE customers SET balance = 1 WHERE id = 1;
SELECT table_name, relation, action FROM rowkeeper.audit_log
WHERE relation = 'customers'::regclass AND (action = 'ALTER' OR record_id = '{"id": 1}') ORDER BY id;

-- sizes
SELECT table_schema, table_name, keep, entries, bytes > 0 AS bytes, oldest <= newest AS oldest
FROM rowkeeper.audit_size WHERE table_schema = 'audit_read';
-- by statistics where there are some
INSERT INTO bookings SELECT g, 1, g FROM generate_series(1, 2000) g;
VACUUM ANALYZE rowkeeper_log.log;
SELECT table_name, entries BETWEEN 1900 AND 2200 AS about_2000
FROM rowkeeper.audit_size WHERE table_schema = 'audit_read' AND table_name = 'bookings';

-- a dropped table keeps its entries, without a relation
DROP TABLE bookings;
SELECT table_name, relation, action, count(*) FROM rowkeeper.audit_log
WHERE table_schema = 'audit_read' AND table_name = 'bookings' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT table_name, keep FROM rowkeeper.audit_size WHERE table_schema = 'audit_read' ORDER BY 1;

DROP SCHEMA audit_read CASCADE;
