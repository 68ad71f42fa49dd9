-- CALL rowkeeper.maintain(): the log's leaves, and how failures are kept apart.
-- In a database of its own: it works on everything there is.
SET client_min_messages = warning;
CREATE DATABASE regress_rk_maintain;
\c regress_rk_maintain
SET client_min_messages = warning;
\pset null '(null)'
CREATE EXTENSION rowkeeper CASCADE;

-- nothing to do, nothing recorded
CALL rowkeeper.maintain();
CALL rowkeeper.maintain(target => NULL, force => true);
SELECT * FROM rowkeeper.maintain_log;

-- it commits, so it cannot be part of a transaction
BEGIN;
CALL rowkeeper.maintain();
ROLLBACK;
CREATE FUNCTION call_it() RETURNS void LANGUAGE plpgsql AS $$BEGIN CALL rowkeeper.maintain(); END$$;
SELECT call_it();
DO $$BEGIN CALL rowkeeper.maintain(); END$$;

CREATE TABLE orders (id int PRIMARY KEY, status text);
CREATE TABLE visits (id int PRIMARY KEY, page text);
SELECT rowkeeper.audit('orders') \g /dev/null
SELECT rowkeeper.audit('visits', keep => '30 days') \g /dev/null
CALL rowkeeper.maintain();
SELECT * FROM rowkeeper.maintain_log;

CREATE VIEW leaves AS
SELECT p.relname AS class, count(*) AS leaves,
    count(*) FILTER (WHERE c.relname = p.relname || to_char(date_trunc('week', now(), 'UTC') AT TIME ZONE 'UTC', '_"p"YYYYMMDD')) AS this_week,
    count(*) FILTER (WHERE c.relname > p.relname || to_char(date_trunc('week', now(), 'UTC') AT TIME ZONE 'UTC', '_"p"YYYYMMDD')) AS ahead
FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid JOIN pg_class p ON p.oid = i.inhparent
WHERE p.relnamespace = 'rowkeeper_log'::regnamespace AND p.relname ~ '^log_c' AND p.relkind = 'p'
GROUP BY p.relname;
CREATE VIEW runs AS
SELECT task, changed, split_part(error, ':', 1) AS sqlstate FROM rowkeeper.maintain_log ORDER BY ran_at, task;
SELECT * FROM leaves ORDER BY 1;

-- a log that nobody maintained: the leaves of this week and later are gone
CREATE PROCEDURE forget_leaves() LANGUAGE plpgsql AS $$
DECLARE leaf regclass;
BEGIN
    FOR leaf IN SELECT i.inhrelid FROM pg_inherits i
        WHERE i.inhparent IN ('rowkeeper_log.log_c0'::regclass, 'rowkeeper_log.log_c1'::regclass)
    LOOP EXECUTE format('DROP TABLE %s', leaf); END LOOP;
END$$;
CALL forget_leaves();
SELECT * FROM leaves;
BEGIN;
SELECT rowkeeper.set_context('ann', '{"ticket": 1}') \g /dev/null
INSERT INTO orders VALUES (1, 'new'), (2, 'new');
INSERT INTO visits VALUES (1, '/');
COMMIT;
UPDATE orders SET status = 'paid' WHERE id = 1;
UPDATE orders SET id = 3 WHERE id = 1;
-- nothing is lost: entries are in the overflow, and read from there
SELECT count(*) FROM rowkeeper_log.log_overflow WHERE action NOT IN ('w', 'k');
SELECT action, record_id, nullif(actor, session_user) AS actor, context FROM rowkeeper.audit_history('orders', 3);
-- and moved to where they belong, the who-records with them
CALL rowkeeper.maintain();
SELECT * FROM runs;
SELECT * FROM leaves ORDER BY 1;
SELECT count(*) FROM rowkeeper_log.log_overflow;
SELECT p.relname AS class, l.action, l.class, count(*)
FROM rowkeeper_log.log l JOIN pg_inherits i ON i.inhrelid = l.tableoid JOIN pg_class p ON p.oid = i.inhparent
WHERE l.action <> 'w' GROUP BY 1, 2, 3 ORDER BY 1, 2;
SELECT table_name, action, record_id, nullif(actor, session_user) AS actor, context FROM rowkeeper.audit_log ORDER BY id;
SELECT action, record_id, nullif(actor, session_user) AS actor, context FROM rowkeeper.audit_history('orders', 3);
-- the session goes on as if nothing had been: its records are known to be gone
UPDATE orders SET status = 'sent' WHERE id = 3;
SELECT action, nullif(actor, session_user) AS actor, actor IS NULL AS lost FROM rowkeeper.audit_history('orders', 3) WHERE new_data ->> 'status' = 'sent';
-- an idle run records nothing
CALL rowkeeper.maintain();
SELECT count(*) FROM runs;

-- entries of other weeks, some before and some after, of a table that is still there and of one that is gone
UPDATE rowkeeper_log.log SET class = NULL, changed_at = changed_at - interval '10 weeks' WHERE action = 'I' AND class = 0;
UPDATE rowkeeper_log.log SET class = NULL, changed_at = changed_at + interval '1 year' WHERE action = 'k';
INSERT INTO rowkeeper_log.log_overflow (id, changed_at, txid, who, table_id, key_hash, action, new_data)
SELECT id, changed_at, txid, who, table_id, key_hash, action, new_data FROM rowkeeper_log.log_c0 WHERE action = 'w';
UPDATE rowkeeper_log.log SET class = NULL, changed_at = changed_at - interval '10 weeks' WHERE action = 'I' AND class = 1;
INSERT INTO visits VALUES (2, '/next');
DROP TABLE visits;
SELECT table_name, action, count(*) FROM rowkeeper.audit_log GROUP BY 1, 2 ORDER BY 1, 2;
CREATE TABLE before AS SELECT id, action, record_id, old_data, new_data, actor, context FROM rowkeeper.audit_log
WHERE table_name = 'orders';
SELECT count(*) FROM rowkeeper_log.log_overflow WHERE action <> 'w';
CALL rowkeeper.maintain();
SELECT * FROM runs;
SELECT count(*) FROM rowkeeper_log.log_overflow;
SELECT * FROM before EXCEPT ALL SELECT id, action, record_id, old_data, new_data, actor, context FROM rowkeeper.audit_log;
SELECT id, action, record_id, old_data, new_data, actor, context FROM rowkeeper.audit_log WHERE table_name = 'orders' EXCEPT ALL SELECT * FROM before;

-- retention: what is wholly older than its class is kept went at once, and nothing else
SELECT table_name, action, count(*) FROM rowkeeper.audit_log GROUP BY 1, 2 ORDER BY 1, 2;
SELECT class, leaves FROM leaves ORDER BY 1;

-- one task's failure is recorded and stops no other: a table stands where a leaf should be
CALL forget_leaves();
\set ECHO none
SELECT format('CREATE TABLE rowkeeper_log.log_c0_p%s (id int)',
    to_char(date_trunc('week', now(), 'UTC') AT TIME ZONE 'UTC' + interval '3 weeks', 'YYYYMMDD')) \gexec
\set ECHO all
-- what cannot be made ahead keeps nobody from switching on the audit
SET client_min_messages = error;
SELECT count(*) FROM rowkeeper.audit('orders');
RESET client_min_messages;
CALL forget_leaves();
INSERT INTO orders VALUES (7, 'new');
CALL rowkeeper.maintain();
SELECT * FROM runs OFFSET 6;
SELECT error ~ '^42P07: relation rowkeeper_log.log_c0_p[0-9]{8} already exists' AS says_what FROM rowkeeper.maintain_log WHERE error IS NOT NULL;
SELECT DISTINCT table_schema, table_name FROM rowkeeper.maintain_log WHERE duration >= '0' AND duration < '1 minute' AND ran_at <= now() ORDER BY 2;
SELECT * FROM rowkeeper.maintain_log WHERE duration < '0' OR duration > '1 minute' OR ran_at > now();
SELECT check_name, level, object, detail ~ 'already exists', remedy FROM rowkeeper.doctor(NULL, 'audit') WHERE check_name = 'maintenance';
-- the other leaves are made
SELECT class, leaves FROM leaves ORDER BY 1;
\set ECHO none
SELECT format('DROP TABLE rowkeeper_log.log_c0_p%s',
    to_char(date_trunc('week', now(), 'UTC') AT TIME ZONE 'UTC' + interval '3 weeks', 'YYYYMMDD')) \gexec
\set ECHO all
CALL rowkeeper.maintain();
SELECT count(*) FROM rowkeeper.doctor(NULL, 'audit') WHERE check_name = 'maintenance';
SELECT * FROM leaves ORDER BY 1;

-- old rows of the log of runs are trimmed
INSERT INTO rowkeeper._maintain_log VALUES (now() - interval '91 days', NULL, NULL, 'old', '0', 1, NULL),
    (now() - interval '89 days', 'public', 'orders', 'younger', '0', 1, NULL);
CALL rowkeeper.maintain();
SELECT task FROM rowkeeper.maintain_log WHERE ran_at < now() - interval '1 day';

-- who may: the caller's tables; the log is its owner's
CREATE ROLE regress_rk_owner;
CREATE ROLE regress_rk_other;
ALTER TABLE orders OWNER TO regress_rk_owner;
CALL forget_leaves();
SET ROLE regress_rk_owner;
CALL rowkeeper.maintain();
CALL rowkeeper.maintain('orders');
SELECT task FROM rowkeeper.maintain_log;
SET ROLE regress_rk_other;
CALL rowkeeper.maintain('orders');
SELECT task FROM rowkeeper.maintain_log;
SELECT task FROM rowkeeper._maintain_log;
RESET ROLE;
SELECT count(*) FROM leaves;
CALL rowkeeper.maintain('orders');
SELECT count(*) FROM leaves;
CALL rowkeeper.maintain();
SELECT * FROM leaves ORDER BY 1;

-- what is called for is done, where transactions are read-only by default, too
CALL forget_leaves();
ALTER DATABASE regress_rk_maintain SET default_transaction_read_only = on;
\c
CALL rowkeeper.maintain();
SELECT * FROM leaves ORDER BY 1;
SHOW transaction_read_only;

\c contrib_regression
DROP DATABASE regress_rk_maintain;
DROP ROLE regress_rk_owner, regress_rk_other;
