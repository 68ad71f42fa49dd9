-- Every statement that changes rows is seen: upserts, MERGE, COPY, cascades,
-- what triggers do, and what changes nothing.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_statements;
SET search_path = audit_statements;
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set news 'SELECT table_name, action, record_id, old_data, new_data FROM rowkeeper.audit_log WHERE table_schema = ''audit_statements'' AND id > :seen ORDER BY id'
\set news_by_row 'SELECT table_name, action, record_id, old_data, new_data FROM rowkeeper.audit_log WHERE table_schema = ''audit_statements'' AND id > :seen ORDER BY table_name, (record_id ->> ''id'')::int, id'
CREATE TABLE items (id int PRIMARY KEY, qty int, note text);
SELECT rowkeeper.audit('items') \g /dev/null

-- INSERT ... ON CONFLICT
:mark \gset
INSERT INTO items VALUES (1, 1, 'a'), (2, 2, 'b');
INSERT INTO items VALUES (2, 20, 'x'), (3, 3, 'c') ON CONFLICT DO NOTHING;
INSERT INTO items VALUES (3, 30, 'x'), (4, 4, 'd') ON CONFLICT (id) DO UPDATE SET qty = EXCLUDED.qty;
INSERT INTO items VALUES (4, 40, 'x') ON CONFLICT (id) DO UPDATE SET qty = EXCLUDED.qty WHERE items.qty > 100;
:news;

-- MERGE, data-modifying CTEs, UPDATE FROM, DELETE USING
:mark \gset
MERGE INTO items i USING (VALUES (1, 'gone'), (2, 'more'), (9, 'new')) s (id, what) ON i.id = s.id
    WHEN MATCHED AND what = 'gone' THEN DELETE
    WHEN MATCHED THEN UPDATE SET qty = qty * 10
    WHEN NOT MATCHED THEN INSERT VALUES (s.id, 9, what);
WITH moved AS (DELETE FROM items WHERE id = 9 RETURNING *),
     raised AS (UPDATE items SET qty = qty + 1 WHERE id = 3 RETURNING *)
    INSERT INTO items SELECT id + 10, qty, note FROM moved UNION ALL SELECT id + 10, qty, note FROM raised;
UPDATE items i SET note = upper(s.note) FROM items s WHERE s.id = i.id AND i.id IN (2, 4);
DELETE FROM items USING (VALUES (13), (19)) s (id) WHERE s.id = items.id;
:news_by_row;

-- COPY, many rows at once
:mark \gset
COPY items (id, qty, note) FROM stdin;
20	1	x
21	\N	y
\.
:news;
INSERT INTO items SELECT i, i FROM generate_series(1000, 3499) i;
UPDATE items SET qty = -qty WHERE id >= 1000;
DELETE FROM items WHERE id >= 1000;
SELECT action, count(*), count(DISTINCT record_id), sum((old_data ->> 'qty')::int) AS old, sum((new_data ->> 'qty')::int) AS new
    FROM rowkeeper.audit_log WHERE table_schema = 'audit_statements' AND (record_id ->> 'id')::int >= 1000
    GROUP BY action ORDER BY action;

-- A key that changes is one entry under the old key.
:mark \gset
UPDATE items SET id = id + 100 WHERE id IN (20, 21);
BEGIN;
UPDATE items SET id = 0 WHERE id = 120;
UPDATE items SET id = 120 WHERE id = 121;
UPDATE items SET id = 121 WHERE id = 0;
COMMIT;
:news;

-- What changes nothing adds nothing; TRUNCATE is one entry.
:mark \gset
UPDATE items SET qty = qty, note = note;
UPDATE items SET id = id WHERE id = 120;
UPDATE items SET qty = NULL WHERE qty IS NULL;
UPDATE items SET note = note || '';
DELETE FROM items WHERE false;
INSERT INTO items SELECT * FROM items WHERE false;
:news;
UPDATE items SET note = NULL WHERE id = 2;
UPDATE items SET note = 'back' WHERE id = 2;
TRUNCATE items;
TRUNCATE items RESTART IDENTITY CASCADE;
:news;

-- A long value that did not change is neither read nor logged; one that is
-- written again as it was did not change.
CREATE TABLE documents (id int PRIMARY KEY, n int, body text, packed text);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
SELECT rowkeeper.audit('documents') \g /dev/null
INSERT INTO documents VALUES (1, 0, repeat('x', 160000), (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i));
:mark \gset
UPDATE documents SET n = 1;
UPDATE documents SET body = body || '', packed = packed || '';
UPDATE documents SET body = body || '!';
SELECT action, record_id, changed_fields, pg_column_size(old_data) < 50 AS small_old, pg_column_size(new_data) < 50 AS small_new,
       length(old_data ->> 'body') AS old_body, length(new_data ->> 'body') AS new_body
    FROM rowkeeper.audit_log WHERE table_schema = 'audit_statements' AND id > :seen ORDER BY id;
-- compressed in the row
UPDATE documents SET packed = repeat('abc', 3000);
:mark \gset
UPDATE documents SET n = 2, packed = packed || '';
UPDATE documents SET n = 3;
:news;

-- Foreign keys: cascades are changes of the child, made by whoever made the
-- change of the parent.
CREATE ROLE regress_rk_parent;
CREATE ROLE regress_rk_child;
GRANT USAGE, CREATE ON SCHEMA audit_statements TO regress_rk_parent, regress_rk_child;
SET ROLE regress_rk_parent;
CREATE TABLE customers (id int PRIMARY KEY, name text);
GRANT REFERENCES ON customers TO regress_rk_child;
SELECT rowkeeper.audit('customers') \g /dev/null
SET ROLE regress_rk_child;
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE visits (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE SET NULL ON UPDATE CASCADE);
CREATE TABLE marks (id int PRIMARY KEY, customer int DEFAULT 0 REFERENCES customers ON DELETE SET DEFAULT DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE lines (order_id int REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE, line int, PRIMARY KEY (order_id, line)) PARTITION BY LIST (line);
CREATE TABLE lines_1 PARTITION OF lines FOR VALUES IN (1);
CREATE TABLE lines_2 PARTITION OF lines FOR VALUES IN (2);
SELECT rowkeeper.audit(t) FROM unnest('{orders, visits, marks, lines}'::regclass[]) t \g /dev/null
RESET ROLE;
INSERT INTO customers VALUES (0, 'none'), (1, 'one'), (2, 'two');
INSERT INTO orders VALUES (10, 1), (11, 1), (12, 2);
INSERT INTO visits VALUES (20, 1), (21, 2);
INSERT INTO marks VALUES (30, 1);
INSERT INTO lines VALUES (10, 1), (10, 2), (11, 1);
:mark \gset
SET ROLE regress_rk_parent;
UPDATE customers SET id = 5 WHERE id = 2;
BEGIN;
DELETE FROM customers WHERE id = 1;
COMMIT;
RESET ROLE;
SELECT table_name, action, record_id, old_data, new_data, db_role
    FROM rowkeeper.audit_log WHERE table_schema = 'audit_statements' AND id > :seen ORDER BY table_name, record_id, id;
-- the child alone is audited, and the cascade is refused by another child
SELECT rowkeeper.audit_off('customers') \g /dev/null
CREATE TABLE bills (id int PRIMARY KEY, customer int REFERENCES customers);
INSERT INTO bills VALUES (40, 5);
:mark \gset
DELETE FROM customers WHERE id = 5;
DELETE FROM bills;
DELETE FROM customers WHERE id = 5;
:news;

-- Other triggers: one changes the row before it is written, one keeps it from
-- being written, one changes another row of the table, one counts in another table.
CREATE TABLE accounts (id int PRIMARY KEY, balance int, changed int DEFAULT 0);
CREATE TABLE totals (name text PRIMARY KEY, total int);
INSERT INTO totals VALUES ('balance', 0);
SELECT rowkeeper.audit('accounts') \g /dev/null
SELECT rowkeeper.audit('totals') \g /dev/null
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.balance < 0 THEN
        RETURN NULL;
    END IF;
    NEW.changed := OLD.changed + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER touch BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION touch();
CREATE FUNCTION pay_fee() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id <> 0 THEN
        UPDATE audit_statements.accounts SET balance = balance + 1 WHERE id = 0;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER pay_fee AFTER UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION pay_fee();
CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE audit_statements.totals SET total = (SELECT sum(balance) FROM audit_statements.accounts);
    RETURN NULL;
END $$;
CREATE TRIGGER add_up AFTER INSERT OR UPDATE OR DELETE ON accounts FOR EACH STATEMENT EXECUTE FUNCTION add_up();
:mark \gset
INSERT INTO accounts VALUES (0, 0), (1, 100), (2, 10);
UPDATE accounts SET balance = balance - 50 WHERE id IN (1, 2);
DELETE FROM accounts WHERE id = 2;
:news;
SELECT * FROM accounts ORDER BY id;

-- The log is whole while the transaction runs, and tells a function called by
-- the same statement what earlier statements did.
CREATE FUNCTION entries_of(int) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_statements' AND table_name = 'items' AND record_id = jsonb_build_object('id', $1)
$$;
BEGIN;
INSERT INTO items VALUES (1, 1);
SELECT entries_of(1) - 0 > 0 AS seen;
INSERT INTO items VALUES (700, 1);
SELECT entries_of(700);
UPDATE items SET qty = 2 WHERE id = 700;
SELECT entries_of(700);
ROLLBACK;
SELECT entries_of(700);

-- A rule and an updatable view lead to the table; INSTEAD OF triggers too.
CREATE VIEW cheap AS SELECT * FROM items WHERE qty < 10;
CREATE RULE keep AS ON DELETE TO cheap DO INSTEAD UPDATE items SET note = 'kept' WHERE id = OLD.id;
:mark \gset
INSERT INTO cheap VALUES (800, 8, 'via view');
UPDATE cheap SET qty = 9 WHERE id = 800;
DELETE FROM cheap WHERE id = 800;
:news;

-- Inheritance: each table speaks for itself.
CREATE TABLE cities (id int PRIMARY KEY, name text);
CREATE TABLE capitals (PRIMARY KEY (id)) INHERITS (cities);
SELECT rowkeeper.audit('cities') \g /dev/null
:mark \gset
INSERT INTO cities VALUES (1, 'Ulm');
INSERT INTO capitals VALUES (2, 'Rome');
UPDATE cities SET name = upper(name);
:news;

-- An entry says whose row it is: the row's tenant_id, not the session's.
CREATE TABLE invoices (id int PRIMARY KEY, tenant_id uuid, qty int);
SELECT rowkeeper.audit('invoices') \g /dev/null
:mark \gset
INSERT INTO invoices VALUES (1, '11111111-1111-1111-1111-111111111111', 1), (2, NULL, 2);
UPDATE invoices SET qty = 3;
UPDATE invoices SET tenant_id = '22222222-2222-2222-2222-222222222222' WHERE id = 1;
DELETE FROM invoices;
TRUNCATE invoices;
SELECT action, record_id, tenant FROM rowkeeper.audit_log WHERE table_schema = 'audit_statements' AND id > :seen ORDER BY id;
SELECT l.action, record_id, tenant, new_tenant FROM rowkeeper_log.log l WHERE id > :seen AND new_tenant IS NOT NULL;

DROP SCHEMA audit_statements CASCADE;
DROP ROLE regress_rk_parent, regress_rk_child;
