-- The entries of one row are in the order of its changes, however deep each
-- was made.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_order;
SET search_path = audit_order;
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set news 'SELECT table_name, action, record_id, old_data, new_data FROM rowkeeper.audit_log WHERE table_schema = ''audit_order'' AND id > :seen ORDER BY id'

-- A trigger changes the row again, one that waits for the commit does too.
CREATE TABLE steps (id int PRIMARY KEY, step int);
SELECT rowkeeper.audit('steps') \g /dev/null
CREATE FUNCTION next_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.step % 10 <> 0 AND NEW.step % 10 < 4 THEN
        BEGIN
            UPDATE audit_order.steps SET step = NEW.step + 1 WHERE id = NEW.id;
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER zz_next AFTER INSERT OR UPDATE ON steps FOR EACH ROW EXECUTE FUNCTION next_step();
:mark \gset
INSERT INTO steps VALUES (1, 1), (2, 11);
:news;
ALTER TRIGGER zz_next ON steps RENAME TO aa_next;
:mark \gset
INSERT INTO steps VALUES (3, 21);
:news;
DROP TRIGGER aa_next ON steps;
CREATE CONSTRAINT TRIGGER next AFTER INSERT OR UPDATE ON steps DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION next_step();
:mark \gset
BEGIN;
INSERT INTO steps VALUES (4, 31);
UPDATE steps SET step = 31 WHERE id = 2;
COMMIT;
:news;
SELECT * FROM steps ORDER BY id;

-- a statement changes many rows, and a trigger on the first one changes a
-- later row again before that row's own event is reached
CREATE TABLE chain (id int PRIMARY KEY, v int);
SELECT rowkeeper.audit('chain') \g /dev/null
INSERT INTO chain SELECT i, 0 FROM generate_series(1, 3500) i;
CREATE FUNCTION reach_ahead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 AND NEW.id % 100 = 1 THEN
        UPDATE audit_order.chain SET v = v + 10 WHERE id IN (NEW.id + 9, NEW.id + 99, NEW.id + 2000);
        BEGIN
            UPDATE audit_order.chain SET v = v + 100 WHERE id IN (NEW.id, NEW.id + 99, NEW.id + 1500);
            IF NEW.id % 200 = 1 THEN
                RAISE EXCEPTION 'no';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            UPDATE audit_order.chain SET v = v + 1000 WHERE id = NEW.id + 1500;
        END;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER zz_reach AFTER UPDATE ON chain FOR EACH ROW EXECUTE FUNCTION reach_ahead();
UPDATE chain SET v = v + 1;
-- each entry begins where the one before it ended: nothing to show
SELECT * FROM (
    SELECT record_id, old_data, lag(new_data -> 'v') OVER (PARTITION BY record_id ORDER BY id) AS before, action
    FROM rowkeeper.audit_log WHERE table_schema = 'audit_order' AND table_name = 'chain') e
    WHERE action = 'UPDATE' AND old_data -> 'v' <> before ORDER BY record_id -> 'id', old_data -> 'v';
-- and the last one at the value of the row
SELECT count(*) AS wrong FROM chain JOIN (
    SELECT DISTINCT ON (record_id) (record_id ->> 'id')::int AS id, (new_data ->> 'v')::int AS last FROM rowkeeper.audit_log
    WHERE table_schema = 'audit_order' AND table_name = 'chain' ORDER BY record_id, audit_log.id DESC) e USING (id)
    WHERE v <> last;
-- a row that refers to itself, and whose key changes
CREATE TABLE nodes (id int PRIMARY KEY, parent int REFERENCES nodes ON UPDATE CASCADE ON DELETE CASCADE);
SELECT rowkeeper.audit('nodes') \g /dev/null
INSERT INTO nodes VALUES (1, 1), (2, 1);
:mark \gset
UPDATE nodes SET id = 10 WHERE id = 1;
DELETE FROM nodes WHERE id = 10;
:news;

-- A known limit: what a BEFORE trigger, or a function that the statement
-- calls, changes stands before what the statement itself changed, also where
-- it is a row that the statement has changed already.
CREATE TABLE totals (id int PRIMARY KEY, v int);
SELECT rowkeeper.audit('totals') \g /dev/null
CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id > 0 THEN
        UPDATE audit_order.totals SET v = v + NEW.v WHERE id = 0;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER add_up BEFORE INSERT OR UPDATE ON totals FOR EACH ROW EXECUTE FUNCTION add_up();
:mark \gset
INSERT INTO totals VALUES (0, 0), (1, 10), (2, 20);
:news;
DROP TRIGGER add_up ON totals;
CREATE FUNCTION raise(int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    UPDATE audit_order.totals SET v = v + 1000 WHERE id = 0 AND $1 > 0;
    RETURN $1;
END $$;
:mark \gset
INSERT INTO totals SELECT i + 10, raise(i) FROM generate_series(1, 2) i;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
UPDATE totals SET v = CASE WHEN id = 0 THEN 1 ELSE raise(id) END WHERE id IN (0, 1);
:news;
SELECT * FROM totals ORDER BY id;

DROP SCHEMA audit_order CASCADE;
