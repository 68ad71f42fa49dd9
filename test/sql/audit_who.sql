-- Who acted, as which role and why: recorded with each entry.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA audit_who;
SET search_path = audit_who;
\set mark 'SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log'
\set news 'SELECT action, record_id, actor, actor_source AS source, CASE WHEN db_user = session_user THEN ''session'' ELSE db_user END AS db_user, CASE WHEN db_role = session_user THEN ''session'' ELSE db_role END AS db_role, application_name, context FROM rowkeeper.audit_log WHERE table_schema = ''audit_who'' AND id > :seen ORDER BY id'
SET application_name = 'shop';
CREATE TABLE orders (id int PRIMARY KEY, qty int DEFAULT 0);
SELECT rowkeeper.audit('orders') \g /dev/null

-- what applications set already
SET app.user_id = 'alice';
SELECT rowkeeper.actor();
:mark \gset
INSERT INTO orders VALUES (1);
SET app.current_user_id = 'carol';
INSERT INTO orders VALUES (2);
RESET app.user_id;
SET app.user_id = '';
INSERT INTO orders VALUES (3);
:news;
RESET app.current_user_id;
SET app.current_user_id = '';
SELECT rowkeeper.actor() = session_user AS is_session_user;
:mark \gset
INSERT INTO orders VALUES (4);
SELECT action, actor = session_user AS is_session_user, actor_source FROM rowkeeper.audit_log
    WHERE table_schema = 'audit_who' AND id > :seen;

-- other settings, in their order
SET rowkeeper.actor_settings = 'my.login, "My.Tenant", app.user_id';
SET app.user_id = 'alice';
SELECT rowkeeper.actor();
SET my.login = 'dave';
SELECT rowkeeper.actor();
:mark \gset
INSERT INTO orders VALUES (5);
SET rowkeeper.actor_settings = '';
INSERT INTO orders VALUES (6);
SET rowkeeper.actor_settings = 'nowhere.at_all';
INSERT INTO orders VALUES (7);
RESET rowkeeper.actor_settings;
INSERT INTO orders VALUES (8);
SELECT record_id, CASE WHEN actor = session_user THEN 'session user' ELSE actor END AS actor, actor_source
    FROM rowkeeper.audit_log WHERE table_schema = 'audit_who' AND id > :seen ORDER BY id;

-- set_context() comes first, as text, bigint or uuid, with a reason or without
:mark \gset
BEGIN;
SELECT rowkeeper.set_context('bob', '{"ticket": 4711}');
SELECT rowkeeper.actor();
INSERT INTO orders VALUES (10);
SELECT rowkeeper.set_context('carol');
INSERT INTO orders VALUES (11);
SELECT rowkeeper.set_context(42::bigint, '{"ticket": 4712}');
INSERT INTO orders VALUES (12);
SELECT rowkeeper.set_context('0f0e0d0c-0b0a-0908-0706-050403020100'::uuid);
INSERT INTO orders VALUES (13);
SELECT rowkeeper.set_context(NULL, '{"ticket": 4713, "steps": [1, {"a": null}]}');
INSERT INTO orders VALUES (14);
SELECT rowkeeper.set_context(NULL::text);
INSERT INTO orders VALUES (15);
SELECT rowkeeper.set_context(42);
INSERT INTO orders VALUES (16);
COMMIT;
SELECT rowkeeper.actor();
INSERT INTO orders VALUES (17);
:news;
-- $1 of unknown type, as drivers send it
BEGIN;
PREPARE ctx AS SELECT rowkeeper.set_context($1, $2);
EXECUTE ctx ('erin', '{"via": "driver"}');
SELECT rowkeeper.actor();
ROLLBACK;
DEALLOCATE ctx;

-- it holds until the transaction ends, and goes with what is rolled back
:mark \gset
BEGIN;
SELECT rowkeeper.set_context('bob', '{"n": 1}');
SAVEPOINT a;
SELECT rowkeeper.set_context('carol', '{"n": 2}');
INSERT INTO orders VALUES (20);
SAVEPOINT b;
SELECT rowkeeper.set_context('dave', '{"n": 3}');
RELEASE b;
SELECT rowkeeper.actor();
ROLLBACK TO a;
SELECT rowkeeper.actor();
INSERT INTO orders VALUES (21);
SAVEPOINT c;
SELECT rowkeeper.set_context('erin');
RELEASE c;
SELECT rowkeeper.actor();
INSERT INTO orders VALUES (22);
COMMIT;
BEGIN;
SELECT rowkeeper.set_context('frank');
ROLLBACK;
SELECT rowkeeper.actor();
DO $$
BEGIN
    PERFORM rowkeeper.set_context('grace');
    BEGIN
        PERFORM rowkeeper.set_context('heidi');
        INSERT INTO orders VALUES (23);
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN raise_exception THEN
        INSERT INTO orders VALUES (24);
    END;
END $$;
:news;

-- a setting that ROLLBACK TO takes back is back, too
:mark \gset
BEGIN;
SAVEPOINT a;
SET LOCAL app.user_id = 'mallory';
INSERT INTO orders VALUES (25);
ROLLBACK TO a;
INSERT INTO orders VALUES (26);
COMMIT;
:news;

-- a change of who within a transaction, and back again
:mark \gset
BEGIN;
SET LOCAL app.user_id = 'u1';
INSERT INTO orders VALUES (27);
SET LOCAL app.user_id = 'u2';
INSERT INTO orders VALUES (28);
SET LOCAL app.user_id = 'u1';
SET LOCAL application_name = 'import';
INSERT INTO orders VALUES (29);
COMMIT;
:news;

-- within a trigger, between two statements of it
CREATE TABLE side (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);
SELECT rowkeeper.audit('side') \g /dev/null
CREATE FUNCTION change_who() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_who.side (note) VALUES ('as before');
    BEGIN
        PERFORM rowkeeper.set_context('trigger');
        INSERT INTO audit_who.side (note) VALUES ('as trigger');
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN raise_exception THEN
        INSERT INTO audit_who.side (note) VALUES ('as before again');
    END;
    BEGIN
        PERFORM rowkeeper.set_context('trigger', '{"n": 1}');
        INSERT INTO audit_who.side (note) VALUES ('as trigger');
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
    PERFORM rowkeeper.set_context('trigger', '{"n": 2}');
    INSERT INTO audit_who.side (note) VALUES ('as trigger, n 2');
    RETURN NULL;
END $$;
CREATE TRIGGER zz_who AFTER UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION change_who();
:mark \gset
UPDATE orders SET qty = 7 WHERE id = 27;
SELECT action, record_id, new_data, actor, context FROM rowkeeper.audit_log WHERE table_schema = 'audit_who' AND id > :seen ORDER BY id;
DROP TRIGGER zz_who ON orders;

-- said outside of a transaction it can have no effect
SELECT rowkeeper.set_context('bob');
SELECT rowkeeper.actor();
-- refusals
BEGIN;
SELECT rowkeeper.set_context('bob', '[1]');
ROLLBACK;
BEGIN;
SELECT rowkeeper.set_context('bob', '"why"');
ROLLBACK;

-- SET ROLE is seen, SECURITY DEFINER is not
CREATE ROLE regress_rk_app;
CREATE ROLE regress_rk_clerk LOGIN;
CREATE ROLE regress_rk_definer;
GRANT USAGE ON SCHEMA audit_who TO PUBLIC;
GRANT INSERT, SELECT, UPDATE ON orders TO regress_rk_app, regress_rk_clerk, regress_rk_definer;
CREATE FUNCTION add_order(int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = audit_who AS 'INSERT INTO orders VALUES ($1)';
ALTER FUNCTION add_order(int) OWNER TO regress_rk_definer;
:mark \gset
SET ROLE regress_rk_app;
INSERT INTO orders VALUES (30);
SELECT add_order(31);
BEGIN;
SET LOCAL ROLE regress_rk_clerk;
INSERT INTO orders VALUES (32);
ROLLBACK;
BEGIN;
SAVEPOINT a;
SET LOCAL ROLE regress_rk_clerk;
ROLLBACK TO a;
INSERT INTO orders VALUES (33);
COMMIT;
RESET ROLE;
INSERT INTO orders VALUES (34);
SET SESSION AUTHORIZATION regress_rk_clerk;
INSERT INTO orders VALUES (35);
-- anybody may say who he is, the database user beside it cannot be changed
BEGIN;
SELECT rowkeeper.set_context('the king');
INSERT INTO orders VALUES (36);
COMMIT;
RESET SESSION AUTHORIZATION;
:news;

-- under session_replication_role = replica the entries say so
:mark \gset
SET session_replication_role = replica;
INSERT INTO orders VALUES (40);
BEGIN;
SELECT rowkeeper.set_context('bob', '{"why": "repair"}');
UPDATE orders SET qty = 1 WHERE id = 40;
COMMIT;
RESET session_replication_role;
UPDATE orders SET qty = 2 WHERE id = 40;
:news;

-- more actors than are kept in mind: none is lost or taken for another
CREATE PROCEDURE many_actors() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..700 LOOP
        PERFORM set_config('app.user_id', 'actor ' || i, false);
        INSERT INTO audit_who.orders VALUES (1000 + i);
        IF i % 3 = 0 THEN
            ROLLBACK;
        ELSIF i % 5 = 0 THEN
            COMMIT;
        END IF;
        IF i % 7 = 0 THEN
            PERFORM set_config('app.user_id', 'actor 1', false);
            UPDATE audit_who.orders SET qty = i WHERE id = 1;
        END IF;
    END LOOP;
END $$;
:mark \gset
CALL many_actors();
SELECT count(*) AS wrong FROM rowkeeper.audit_log
    WHERE table_schema = 'audit_who' AND id > :seen
    AND actor IS DISTINCT FROM CASE action WHEN 'INSERT' THEN 'actor ' || ((record_id ->> 'id')::int - 1000) ELSE 'actor 1' END;
SELECT (SELECT count(*) FROM orders WHERE id > 1000) =
       (SELECT count(*) FROM rowkeeper.audit_log WHERE table_schema = 'audit_who' AND id > :seen AND action = 'INSERT') AS complete;
-- no entry is without its who
SELECT count(*) AS nobody FROM rowkeeper.audit_log
    WHERE table_schema = 'audit_who' AND num_nulls(actor, actor_source, db_user, db_role) > 0;

RESET app.user_id;
RESET application_name;
DROP SCHEMA audit_who CASCADE;
DROP ROLE regress_rk_app, regress_rk_clerk, regress_rk_definer;
