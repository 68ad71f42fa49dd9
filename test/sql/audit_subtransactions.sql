-- What a subtransaction rolls back leaves the log, and nothing else does.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_subtransactions;
SET search_path = audit_subtransactions;
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set news 'SELECT table_name, action, record_id, old_data, new_data, actor FROM rowkeeper.audit_log WHERE table_schema = ''audit_subtransactions'' AND id > :seen ORDER BY id'
SET app.user_id = 'alice';
CREATE TABLE orders (id int PRIMARY KEY, qty int DEFAULT 0);
CREATE TABLE side (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
SELECT rowkeeper.audit('orders') \g /dev/null
SELECT rowkeeper.audit('side') \g /dev/null

-- savepoints: rolled back, released, nested
:mark \gset
BEGIN;
INSERT INTO orders VALUES (1);
SAVEPOINT a;
INSERT INTO orders VALUES (2);
ROLLBACK TO a;
INSERT INTO orders VALUES (3);
SAVEPOINT b;
UPDATE orders SET qty = 1 WHERE id = 1;
SAVEPOINT c;
UPDATE orders SET qty = 2 WHERE id = 1;
RELEASE c;
SAVEPOINT d;
UPDATE orders SET qty = 3 WHERE id = 1;
ROLLBACK TO d;
UPDATE orders SET qty = 4 WHERE id = 1;
RELEASE b;
DELETE FROM orders WHERE id = 3;
COMMIT;
:news;
:mark \gset
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
UPDATE orders SET qty = 5;
RELEASE b;
ROLLBACK TO a;
RELEASE a;
SAVEPOINT a;
UPDATE orders SET qty = 6;
ROLLBACK;
:news;

-- A trigger writes to another audited table in a block that fails: that
-- table's statement ends inside the block, but the order is of the outside.
CREATE FUNCTION fail_aside() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        INSERT INTO audit_subtransactions.side (note) VALUES ('undone');
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
    RETURN NULL;
END $$;
-- after our trigger, and before it
CREATE TRIGGER zz_aside AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION fail_aside();
:mark \gset
INSERT INTO orders VALUES (10), (11);
UPDATE orders SET qty = 7 WHERE id >= 10;
DELETE FROM orders WHERE id = 11;
:news;
ALTER TRIGGER zz_aside ON orders RENAME TO aa_aside;
:mark \gset
INSERT INTO orders VALUES (12);
UPDATE orders SET qty = 8 WHERE id = 12;
:news;
-- the same from a BEFORE trigger, and at the statement's end
DROP TRIGGER aa_aside ON orders;
CREATE TRIGGER before_aside BEFORE INSERT OR UPDATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION fail_aside();
CREATE TRIGGER aa_after_aside AFTER INSERT OR UPDATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION fail_aside();
:mark \gset
INSERT INTO orders VALUES (13), (14);
:news;
DROP TRIGGER before_aside ON orders;
DROP TRIGGER aa_after_aside ON orders;

-- the block fails after the same table changed in it, the outer change stays
CREATE FUNCTION fail_inside() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() > 1 THEN
        RETURN NULL;
    END IF;
    BEGIN
        UPDATE audit_subtransactions.orders SET qty = 99 WHERE id = NEW.id;
        INSERT INTO audit_subtransactions.orders VALUES (NEW.id + 1000);
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN raise_exception THEN
        INSERT INTO audit_subtransactions.side (note) VALUES ('order ' || NEW.id);
    END;
    RETURN NULL;
END $$;
CREATE TRIGGER zz_inside AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION fail_inside();
:mark \gset
INSERT INTO orders VALUES (20), (21);
UPDATE orders SET qty = qty + 1 WHERE id = 20;
:news;
SELECT * FROM orders WHERE id >= 20 ORDER BY id;
DROP TRIGGER zz_inside ON orders;

-- a block that succeeds within one that fails, and the other way round
:mark \gset
DO $$
BEGIN
    BEGIN
        INSERT INTO orders VALUES (30);
        BEGIN
            INSERT INTO orders VALUES (31);
        EXCEPTION WHEN unique_violation THEN NULL;
        END;
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN raise_exception THEN
        INSERT INTO orders VALUES (32);
    END;
    BEGIN
        INSERT INTO orders VALUES (33);
        BEGIN
            INSERT INTO orders VALUES (34);
            INSERT INTO orders VALUES (32);
        EXCEPTION WHEN unique_violation THEN
            INSERT INTO orders VALUES (35);
        END;
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
END $$;
:news;

-- a statement in a subtransaction fails half-way through many rows
CREATE TABLE many (id int PRIMARY KEY, v int CHECK (v <> 2500));
SELECT rowkeeper.audit('many') \g /dev/null
BEGIN;
INSERT INTO many VALUES (0, 0);
SAVEPOINT a;
INSERT INTO many SELECT i, i FROM generate_series(1, 3000) i;
ROLLBACK TO a;
INSERT INTO many SELECT i, i FROM generate_series(1, 2400) i;
SAVEPOINT b;
UPDATE many SET v = v + 100;
ROLLBACK TO b;
UPDATE many SET v = -v;
COMMIT;
SELECT action, count(*), count(DISTINCT record_id), count(actor) AS with_actor,
       min((new_data ->> 'v')::int), max((new_data ->> 'v')::int)
    FROM rowkeeper.audit_log WHERE table_schema = 'audit_subtransactions' AND table_name = 'many'
    GROUP BY action ORDER BY action;

-- Who-records: one written in a subtransaction that is undone is written again.
:mark \gset
BEGIN;
SAVEPOINT a;
SET LOCAL app.user_id = 'bob';
INSERT INTO orders VALUES (40);
ROLLBACK TO a;
SET LOCAL app.user_id = 'bob';
INSERT INTO orders VALUES (41);
COMMIT;
BEGIN;
SET LOCAL app.user_id = 'carol';
INSERT INTO orders VALUES (42);
ROLLBACK;
BEGIN;
SET LOCAL app.user_id = 'carol';
SAVEPOINT a;
INSERT INTO orders VALUES (43);
SAVEPOINT b;
UPDATE orders SET qty = 43 WHERE id = 43;
RELEASE b;
ROLLBACK TO a;
SAVEPOINT c;
INSERT INTO orders VALUES (44);
RELEASE c;
INSERT INTO orders VALUES (45);
COMMIT;
INSERT INTO orders VALUES (46);
:news;

-- a cursor that stays open while the table changes, a function called by a query
:mark \gset
CREATE FUNCTION add_order(int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_subtransactions.orders VALUES ($1);
    RETURN $1;
EXCEPTION WHEN unique_violation THEN
    RETURN -$1;
END $$;
SELECT add_order(i) FROM unnest('{50, 50, 51}'::int[]) i;
INSERT INTO side (note) SELECT 'added ' || add_order(i) FROM unnest('{51, 52}'::int[]) i;
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM orders WHERE id >= 50 ORDER BY id FOR UPDATE;
FETCH c;
UPDATE orders SET qty = 1 WHERE CURRENT OF c;
SAVEPOINT a;
FETCH c;
UPDATE orders SET qty = 1 WHERE CURRENT OF c;
ROLLBACK TO a;
DELETE FROM orders WHERE id = 52;
COMMIT;
:news;

DROP SCHEMA audit_subtransactions CASCADE;
