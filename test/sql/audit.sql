-- SELECT rowkeeper.audit('orders'): from then on the table has its history.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS rowkeeper CASCADE;
DROP SCHEMA IF EXISTS rowkeeper_log, rowkeeper CASCADE;
CREATE EXTENSION rowkeeper CASCADE;
RESET client_min_messages;
CREATE SCHEMA audit;
SET search_path = audit;
CREATE TYPE status AS ENUM ('new', 'paid', 'refunded');
CREATE TABLE orders (
    id bigint PRIMARY KEY,
    customer int NOT NULL,
    status status NOT NULL DEFAULT 'new',
    total numeric(10,2),
    doc jsonb,
    tags text[],
    placed timestamptz
);
INSERT INTO orders VALUES (1, 7, 'paid', 10.50);

-- The call shows what it does; called again it does nothing.
SELECT rowkeeper.audit('orders');
SELECT rowkeeper.audit('orders');

SET app.user_id = 'alice';
INSERT INTO orders VALUES (42, 7, 'new', 99.90, '{"gift": true}', '{a,b}', '2024-01-02 03:04:05.6+00');
UPDATE orders SET status = 'paid' WHERE id = 42;
BEGIN;
SELECT rowkeeper.set_context('bob', '{"ticket": 4711}');
UPDATE orders SET status = 'refunded', total = 0, tags = NULL WHERE id = 42;
COMMIT;
DELETE FROM orders WHERE id = 1;
SELECT action, record_id, old_data, new_data FROM rowkeeper.audit_log WHERE table_schema = 'audit' ORDER BY id;
-- who set order 42 from paid to refunded, and in which transaction?
SELECT actor, actor_source, context, txid > 0 AS txid, changed_at > now() - interval '1 hour' AS changed_at, relation, changed_fields
    FROM rowkeeper.audit_log
    WHERE table_name = 'orders' AND record_id = '{"id": 42}'
    AND old_data ->> 'status' = 'paid' AND new_data ->> 'status' = 'refunded';
-- entries of one transaction carry its number
BEGIN;
INSERT INTO orders (id, customer) VALUES (43, 1);
UPDATE orders SET customer = 2 WHERE id = 43;
SELECT count(*), count(DISTINCT txid) AS transactions, bool_and(txid = txid_current()) AS this_one
    FROM rowkeeper.audit_log WHERE record_id = '{"id": 43}' AND table_schema = 'audit';
ROLLBACK;

-- A composite key is an object with its columns, names and schema may need quotes.
CREATE SCHEMA "Audit me";
CREATE TABLE "Audit me"."Order ""lines""" ("Order" int, line text, "Wert €" int, PRIMARY KEY (line, "Order"));
SELECT rowkeeper.audit('"Audit me"."Order ""lines"""');
INSERT INTO "Audit me"."Order ""lines""" VALUES (42, 'it''s "one"', 1);
UPDATE "Audit me"."Order ""lines""" SET "Wert €" = 2;
UPDATE "Audit me"."Order ""lines""" SET "Order" = 43;
SELECT table_schema, table_name, relation, action, record_id, old_data, new_data, changed_fields
    FROM rowkeeper.audit_log WHERE table_schema = 'Audit me' ORDER BY id;

-- BEGIN; call; ROLLBACK is the dry run.
CREATE TABLE plain (id int PRIMARY KEY);
BEGIN;
SELECT rowkeeper.audit('plain', keep => '1 week');
INSERT INTO plain VALUES (1);
SELECT action FROM rowkeeper.audit_log WHERE table_name = 'plain';
ROLLBACK;
INSERT INTO plain VALUES (2);
SELECT count(*) FROM rowkeeper.audit_log WHERE table_name = 'plain';
SELECT tgname FROM pg_trigger WHERE tgrelid = 'plain'::regclass;
-- and stays one after a session knows the table
SELECT rowkeeper.audit('plain') \g /dev/null
INSERT INTO plain VALUES (3);
BEGIN;
SELECT rowkeeper.audit_off('plain');
INSERT INTO plain VALUES (4);
ROLLBACK;
INSERT INTO plain VALUES (5);
SELECT action, record_id FROM rowkeeper.audit_log WHERE table_name = 'plain' ORDER BY id;

-- audit_off() stops; the log stays; audit() again goes on.
SELECT rowkeeper.audit_off('plain');
INSERT INTO plain VALUES (6);
SELECT rowkeeper.audit_off('plain');
SELECT rowkeeper.audit_off(NULL);
SELECT rowkeeper.audit_off(to_regclass('gone'));
SELECT tgname FROM pg_trigger WHERE tgrelid = 'plain'::regclass;
SELECT rowkeeper.audit('plain') \g /dev/null
INSERT INTO plain VALUES (7);
SELECT action, record_id, context FROM rowkeeper.audit_log WHERE table_name = 'plain' ORDER BY id;

-- audit_schema(): every table that can be audited and is not yet
CREATE SCHEMA audit_shop;
SET search_path = audit_shop;
CREATE TABLE a (id int PRIMARY KEY, note text);
CREATE TABLE b (id int PRIMARY KEY, password_hash text);
CREATE TABLE c (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE c_1 PARTITION OF c FOR VALUES FROM (1) TO (10);
CREATE TABLE d (no_key int);
CREATE UNLOGGED TABLE e (id int PRIMARY KEY);
CREATE TABLE f (id int PRIMARY KEY);
CREATE TABLE g (id int PRIMARY KEY);
CREATE TABLE h (during interval PRIMARY KEY);
CREATE VIEW v AS SELECT * FROM a;
SELECT rowkeeper.audit('g', capture => 'full') \g /dev/null
BEGIN;
SELECT rowkeeper.audit_schema('audit_shop', except_tables => '{f}', exclude => '{password_hash, note}', keep => '90 days');
INSERT INTO b VALUES (1, 'x');
UPDATE b SET password_hash = 'y';
INSERT INTO c VALUES (2);
SELECT table_name, action, new_data FROM rowkeeper.audit_log WHERE table_schema = 'audit_shop' ORDER BY id;
ROLLBACK;
SELECT rowkeeper.audit_schema('audit_shop', except_tables => '{f}') \g /dev/null
SELECT rowkeeper.audit_schema('audit_shop', except_tables => '{f}');
SELECT rowkeeper.audit_schema('audit_shop');
SELECT rowkeeper.audit_schema('gone');
SELECT rowkeeper.audit_schema(NULL);

-- Everything public is documented.
SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'rowkeeper'::regnamespace
    AND obj_description(p.oid, 'pg_proc') IS NULL;
SELECT c.oid::regclass FROM pg_class c WHERE relnamespace IN ('rowkeeper'::regnamespace, 'rowkeeper_log'::regnamespace)
    AND relkind IN ('r', 'p', 'v') AND NOT relispartition AND relname !~ '^_'
    AND obj_description(c.oid, 'pg_class') IS NULL;
-- PUBLIC may execute what is meant for it, and nothing that writes history
SELECT p.proname FROM pg_proc p WHERE pronamespace = 'rowkeeper'::regnamespace
    AND proname ~ '^_' AND has_function_privilege('public', p.oid, 'EXECUTE');

SET client_min_messages = warning;
DROP SCHEMA audit, audit_shop, "Audit me" CASCADE;
