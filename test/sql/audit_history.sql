-- The history of one row: how it is asked for, what it follows, what is refused.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_history;
SET search_path = audit_history;
\set VERBOSITY default

CREATE TABLE orders (id int PRIMARY KEY, status text, amount numeric(10,2));
SELECT rowkeeper.audit('orders') \g /dev/null
INSERT INTO orders VALUES (42, 'new', 10), (43, 'new', 20);
BEGIN;
SELECT rowkeeper.set_context('ann', '{"ticket": "4711"}');
UPDATE orders SET status = 'paid' WHERE id = 42;
COMMIT;
SET app.user_id = 'bob';
UPDATE orders SET status = 'refunded', amount = 0 WHERE id = 42;
RESET app.user_id;
DELETE FROM orders WHERE id = 42;

-- the whole life, oldest first
SELECT table_schema, table_name, relation, action, record_id, old_data, new_data, changed_fields
FROM rowkeeper.audit_history('orders', 42);
SELECT action, nullif(actor, session_user) AS actor, actor_source, context, db_user = session_user AS db_user, db_role = current_user AS db_role,
       application_name
FROM rowkeeper.audit_history('orders', 42);
-- the same columns as the log, with the same content
SELECT count(*) AS only_here FROM (
    SELECT * FROM rowkeeper.audit_history('orders', 42)
    EXCEPT
    SELECT * FROM rowkeeper.audit_log WHERE relation = 'orders'::regclass) d;
SELECT count(*) AS only_there FROM (
    SELECT * FROM rowkeeper.audit_log WHERE relation = 'orders'::regclass AND record_id = '{"id": 42}'
    EXCEPT
    SELECT * FROM rowkeeper.audit_history('orders', 42)) d;
-- beside other columns, and joined to a table
SELECT o.id, h.action FROM orders o, rowkeeper.audit_history('orders', o.id) h ORDER BY 1, h.id;

-- every way of giving the key
SELECT count(*) FROM rowkeeper.audit_history('orders', 42::bigint);
SELECT count(*) FROM rowkeeper.audit_history('orders', 42.0::numeric(10,0));
SELECT count(*) FROM rowkeeper.audit_history('orders', '42');
SELECT count(*) FROM rowkeeper.audit_history('orders', '42'::text);
SELECT count(*) FROM rowkeeper.audit_history('orders', VARIADIC ARRAY[42]);
SELECT count(*) FROM rowkeeper.audit_history('orders', VARIADIC ARRAY['42']);
SELECT count(*) FROM rowkeeper.audit_history('orders', '{"id": 42}'::jsonb);
SELECT count(*) FROM rowkeeper.audit_history('orders', '{"id": "42"}'::jsonb);
SELECT count(*) FROM rowkeeper.audit_history('orders', '42'::jsonb);
SELECT count(*) FROM rowkeeper.audit_history('orders', key => '{"id": 42}');
SELECT count(*) FROM rowkeeper.audit_history(target => 'orders', VARIADIC key => '{42}'::text[]);
PREPARE untyped AS SELECT count(*) FROM rowkeeper.audit_history($1, $2);
EXECUTE untyped ('orders', '42');
PREPARE typed(regclass, int) AS SELECT count(*) FROM rowkeeper.audit_history($1, $2);
EXECUTE typed ('orders', 42);

-- a row that never was has no history
SELECT count(*) FROM rowkeeper.audit_history('orders', 999);

-- a key of two columns
CREATE TABLE lines (line smallint, order_id int, what text, PRIMARY KEY (order_id, line));
SELECT rowkeeper.audit('lines') \g /dev/null
INSERT INTO lines VALUES (1, 42, 'a'), (2, 42, 'b'), (42, 1, 'c');
UPDATE lines SET what = 'B' WHERE order_id = 42 AND line = 2;
SELECT action, record_id, new_data FROM rowkeeper.audit_history('lines', 42, 2);
SELECT action, record_id, new_data FROM rowkeeper.audit_history('lines', '42', '1');
SELECT action, record_id, new_data FROM rowkeeper.audit_history('lines', '{"line": 42, "order_id": 1}'::jsonb);

-- a key that changed: followed from the old key and from the new one
UPDATE orders SET id = 143 WHERE id = 43;
UPDATE orders SET status = 'paid' WHERE id = 143;
UPDATE orders SET id = 243 WHERE id = 143;
DELETE FROM orders WHERE id = 243;
SELECT action, record_id, new_data FROM rowkeeper.audit_history('orders', 43);
SELECT action, record_id FROM rowkeeper.audit_history('orders', 143);
SELECT action, record_id FROM rowkeeper.audit_history('orders', 243);
-- of a key that the row passed through, only this row's part is followed
INSERT INTO orders VALUES (143, 'another', 1), (243, 'third', 1);
UPDATE orders SET status = 'changed' WHERE id IN (143, 243);
SELECT action, record_id, new_data FROM rowkeeper.audit_history('orders', 43);
-- two rows swap their keys, one comes back to its own
INSERT INTO orders VALUES (1, 'one', 1), (2, 'two', 2);
UPDATE orders SET id = 3 WHERE id = 1;
UPDATE orders SET id = 1 WHERE id = 2;
UPDATE orders SET id = 2 WHERE id = 3;
UPDATE orders SET id = 4 WHERE id = 2;
UPDATE orders SET id = 2 WHERE id = 4;
UPDATE orders SET status = status || '!' WHERE id IN (1, 2);
SELECT action, record_id, new_data FROM rowkeeper.audit_history('orders', 4);
-- many keys in one statement
INSERT INTO orders SELECT g, 'shifted', 0 FROM generate_series(1001, 1003) g;
UPDATE orders SET id = id + 1000 WHERE id BETWEEN 1001 AND 1003;
SELECT action, record_id FROM rowkeeper.audit_history('orders', 2002);
-- one column of a key of two
UPDATE lines SET line = 7 WHERE order_id = 42 AND line = 2;
SELECT action, record_id, new_data FROM rowkeeper.audit_history('lines', 42, 7);

-- different keys with the same hash are told apart
CREATE TABLE wide (id bigint PRIMARY KEY, v text);
SELECT rowkeeper.audit('wide') \g /dev/null
INSERT INTO wide VALUES (4, 'small'), (4294967301, 'large');
SELECT count(DISTINCT key_hash) FROM rowkeeper_log.log JOIN rowkeeper_log.tables USING (table_id)
WHERE relation = 'wide'::regclass AND action = 'I';
SELECT new_data FROM rowkeeper.audit_history('wide', 4);
SELECT new_data FROM rowkeeper.audit_history('wide', 4294967301);

-- the table changes: type and name of the key, its own name and schema
ALTER TABLE orders ALTER COLUMN id TYPE bigint;
ALTER TABLE orders RENAME COLUMN id TO order_no;
ALTER TABLE orders RENAME TO purchases;
UPDATE purchases SET status = 'renamed' WHERE order_no = 1;
CREATE SCHEMA audit_history_2;
ALTER TABLE purchases SET SCHEMA audit_history_2;
UPDATE audit_history_2.purchases SET order_no = 5 WHERE order_no = 1;
SELECT table_schema, table_name, relation, action, record_id, new_data
FROM rowkeeper.audit_history('audit_history_2.purchases', 5);
ALTER TABLE audit_history_2.purchases SET SCHEMA audit_history;

-- other kinds of keys
CREATE TABLE keys (t text, d date, u uuid, b boolean, n numeric, s timestamptz, c char(5),
                   PRIMARY KEY (t, d, u, b, n, s, c));
SELECT rowkeeper.audit('keys') \g /dev/null
INSERT INTO keys VALUES ('a,"b', '2026-02-01', '6ecd8c99-4036-403d-bf84-cf8400f67836', true, 1.50,
                         '2026-02-01 12:00+01', 'ab');
SELECT record_id FROM rowkeeper.audit_history('keys', 'a,"b', '2026-02-01'::date,
    '6ecd8c99-4036-403d-bf84-cf8400f67836', true, 1.5, '2026-02-01 11:00+00'::timestamptz, 'ab');
SELECT count(*) FROM keys k, rowkeeper.audit_history('keys', to_jsonb(k)) h;

-- a partitioned table: by its root or any partition
CREATE TABLE events (id int, at date, what text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
SELECT rowkeeper.audit('events') \g /dev/null
INSERT INTO events VALUES (1, '2026-01-10', 'a');
UPDATE events SET at = '2026-02-10' WHERE id = 1;
SELECT relation, action, record_id, new_data FROM rowkeeper.audit_history('events', 1, '2026-02-10'::date);
SELECT relation, action, record_id FROM rowkeeper.audit_history('events_1', 1, '2026-02-10'::date);

-- after audit_off() the history stays
SELECT rowkeeper.audit_off('wide') \g /dev/null
DELETE FROM wide;
SELECT action FROM rowkeeper.audit_history('wide', 4);

-- refused
SELECT * FROM rowkeeper.audit_history(NULL, 42);
SELECT * FROM rowkeeper.audit_history(NULL, '{"id": 42}'::jsonb);
SELECT * FROM rowkeeper.audit_history('purchases', 42, 43);
SELECT * FROM rowkeeper.audit_history('lines', 42);
SELECT * FROM rowkeeper.audit_history('purchases', 'forty-two');
SELECT * FROM rowkeeper.audit_history('purchases', NULL::int);
SELECT * FROM rowkeeper.audit_history('purchases', VARIADIC NULL::text[]);
SELECT * FROM rowkeeper.audit_history('purchases', NULL::jsonb);
SELECT * FROM rowkeeper.audit_history('purchases', '{"id": 42}'::jsonb);
SELECT * FROM rowkeeper.audit_history('purchases', '{"order_no": 42, "x": 1}'::jsonb);
SELECT * FROM rowkeeper.audit_history('purchases', '{"order_no": null}'::jsonb);
SELECT * FROM rowkeeper.audit_history('purchases', '[42]'::jsonb);
SELECT * FROM rowkeeper.audit_history('lines', '42'::jsonb);
CREATE TABLE never (id int PRIMARY KEY);
SELECT * FROM rowkeeper.audit_history('never', 42);
ALTER TABLE wide DROP CONSTRAINT wide_pkey;
SELECT * FROM rowkeeper.audit_history('wide', 4);

DROP SCHEMA audit_history, audit_history_2 CASCADE;
