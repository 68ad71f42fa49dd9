-- An entry whose week has no leaf is not lost: it waits in log_overflow,
-- where it can be read, until maintenance moves it.
SET client_min_messages = warning;
-- in a database of its own: maintenance works on everything there is
SELECT current_database() AS db \gset
CREATE DATABASE regress_rk_overflow;
\c regress_rk_overflow
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
\set show 'SELECT action, record_id, old_data, new_data, actor FROM rowkeeper.audit_log WHERE table_name = ''orders'' AND (record_id ->> ''id'')::int < 100 ORDER BY id'
\set overflow 'SELECT action, class, count(*) FROM rowkeeper_log.log_overflow GROUP BY 1, 2 ORDER BY 1'
SET app.user_id = 'alice';
CREATE TABLE orders (id int PRIMARY KEY, qty int);
SELECT rowkeeper.audit('orders', keep => '1234 days') \g /dev/null
SELECT 'rowkeeper_log.log_c' || class AS class_table FROM rowkeeper_log.classes WHERE keep = '1234 days' \gset
INSERT INTO orders VALUES (1, 1);
-- maintenance leaves who-records for later while another has a lock: here nobody is to
ALTER TABLE rowkeeper_log.log_overflow SET (autovacuum_enabled = off);

-- The leaf of this week is taken away, as somebody would who archives by hand.
SELECT inhrelid::regclass AS leaf FROM pg_inherits WHERE inhparent = :'class_table'::regclass
    ORDER BY inhrelid::regclass::text LIMIT 1 \gset
SELECT date_trunc('week', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS week_start,
       (date_trunc('week', now() AT TIME ZONE 'UTC') + '7 days') AT TIME ZONE 'UTC' AS week_end \gset
ALTER TABLE :class_table DETACH PARTITION :leaf;
INSERT INTO orders VALUES (2, 2);
UPDATE orders SET qty = 3 WHERE id = 2;
UPDATE orders SET id = 20 WHERE id = 2;
:overflow;
-- what was in the leaf went with it; what came after is there, with its who
:show;
-- many, in one flush, with another class in the same transaction
CREATE TABLE notes (id int PRIMARY KEY);
SELECT rowkeeper.audit('notes') \g /dev/null
BEGIN;
INSERT INTO notes VALUES (1);
INSERT INTO orders SELECT i, i FROM generate_series(100, 2099) i;
INSERT INTO notes VALUES (2);
SAVEPOINT s;
SET LOCAL app.user_id = 'bob';
DELETE FROM orders WHERE id >= 100;
ROLLBACK TO s;
DELETE FROM orders WHERE id >= 1100;
COMMIT;
SELECT table_name, action, actor, count(*) FROM rowkeeper.audit_log WHERE table_name = 'notes' OR (record_id ->> 'id')::int >= 100 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
:overflow;

-- The leaf comes back and maintenance brings the entries home.
ALTER TABLE :class_table ATTACH PARTITION :leaf FOR VALUES FROM (:'week_start') TO (:'week_end');
CALL rowkeeper.maintain();
:overflow;
SELECT table_name, action, actor, count(*) FROM rowkeeper.audit_log GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
INSERT INTO orders VALUES (3, 3);
:overflow;

-- The whole class is gone, and with it all its leaves: still nothing is lost.
DROP TABLE :class_table;
INSERT INTO orders VALUES (4, 4);
:overflow;
:show;
-- Nor can it be where the overflow leaf is gone as well: then the change fails.
BEGIN;
ALTER TABLE rowkeeper_log.log DETACH PARTITION rowkeeper_log.log_overflow;
DROP TABLE rowkeeper_log.log_overflow;
INSERT INTO orders VALUES (5, 5);
ROLLBACK;
-- audit() again makes what is missing
SELECT rowkeeper.audit('orders') \g /dev/null
INSERT INTO orders VALUES (6, 6);
CALL rowkeeper.maintain();
:overflow;
:show;

-- of all that was written no entry is without its who
SELECT count(*) FROM rowkeeper.audit_log WHERE actor IS NULL;

\c :db
SET client_min_messages = warning;
DROP DATABASE regress_rk_overflow;
