-- A table that is audited, stamped, soft-deleted or isolated goes on being so
-- when it is converted: its history, versions, trash and tenants are the same.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
RESET client_min_messages;
CREATE SCHEMA convert_together;
SET search_path = convert_together;
\pset null '(null)'
CREATE ROLE convert_owner;
CREATE ROLE convert_app;
GRANT CREATE, USAGE ON SCHEMA convert_together TO convert_owner;
GRANT USAGE ON SCHEMA convert_together TO convert_app;
SELECT rowkeeper.tenant_role('convert_app', 'set') \g /dev/null
SET ROLE convert_owner;
CREATE TABLE orders (id int PRIMARY KEY, at int NOT NULL, v text, tenant_id bigint NOT NULL DEFAULT 1);
CREATE TABLE flagged (id int PRIMARY KEY, v text);
CREATE TABLE trashed (id int PRIMARY KEY, v text);
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO convert_app;
SELECT rowkeeper.audit('orders', exclude => '{tenant_id}') \g /dev/null
SELECT rowkeeper.stamp('orders', version => 'version') \g /dev/null
SET client_min_messages = warning;
SELECT rowkeeper.tenant('orders') \g /dev/null
RESET client_min_messages;
SELECT rowkeeper.soft_delete('flagged', keep => '1 year') \g /dev/null
SELECT rowkeeper.audit('flagged') \g /dev/null
SELECT rowkeeper.soft_delete('trashed', mode => 'trash') \g /dev/null
SELECT rowkeeper.audit('trashed') \g /dev/null
RESET ROLE;
SELECT coalesce(max(id), 0) AS seen FROM rowkeeper.audit_log \gset
INSERT INTO orders (id, at, v, tenant_id) VALUES (1, 1, 'a', 1), (2, 2, 'b', 2), (3, 3, 'c', 1);
UPDATE orders SET v = 'aa' WHERE id = 1;
UPDATE orders SET id = 30 WHERE id = 3;
INSERT INTO flagged VALUES (1, 'a'), (2, 'b'), (3, 'c');
DELETE FROM active_flagged WHERE id = 2;
INSERT INTO trashed VALUES (1, 'a'), (2, 'b'), (3, 'c');
DELETE FROM trashed WHERE id = 2;
CREATE TABLE features_before AS SELECT target::text, feature, options, call FROM rowkeeper.features WHERE target::text ~ '^(orders|flagged|trashed)$';

SET ROLE convert_owner;
CALL rowkeeper.partition_convert('orders', 'at', '10', ahead => '5');
CALL rowkeeper.partition_convert('flagged', 'id', '10', ahead => '5');
SELECT count(*) > 10 AS done FROM rowkeeper.partition('trashed', 'id', '10', ahead => '5');
RESET ROLE;

-- the features are what they were, and nothing is missing
SELECT b.target, b.feature, b.call = f.call AS same, f.healthy FROM features_before b LEFT JOIN rowkeeper.features f ON f.target::text = b.target AND f.feature = b.feature
ORDER BY 1, 2;
SELECT feature, target FROM rowkeeper.features WHERE target::text ~ '^(orders|flagged|trashed)$' AND feature = 'partition' ORDER BY 2;
SELECT table_name, audited, missing, gaps FROM rowkeeper.audit_coverage WHERE table_schema = 'convert_together' AND audited ORDER BY 1;
SELECT feature, check_name, level, object FROM rowkeeper.doctor('convert_together') WHERE level <> 'info';
SELECT c.relname, t.tgname, t.tgenabled FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'convert_together'::regnamespace AND c.relkind IN ('r', 'p') AND NOT t.tgisinternal ORDER BY c.relname COLLATE "C", t.tgname COLLATE "C";

-- changes go on being recorded, stamped and kept
UPDATE orders SET v = 'aaa' WHERE id = 1;
INSERT INTO orders (id, at, v) VALUES (4, 25, 'new');
UPDATE orders SET at = 26, v = 'moved' WHERE id = 2;
DELETE FROM orders WHERE id = 30;
SELECT id, at, v, version, tableoid::regclass FROM orders ORDER BY id;
DELETE FROM active_flagged WHERE id = 1;
INSERT INTO flagged VALUES (25, 'x');
DELETE FROM active_flagged WHERE id = 25;
SELECT id, v FROM active_flagged;
DELETE FROM flagged WHERE id = 3;
DELETE FROM trashed WHERE id = 1;
INSERT INTO trashed VALUES (25, 'x');
DELETE FROM trashed WHERE id = 25;
SELECT id, _deleted_at IS NOT NULL AS deleted FROM trashed_with_deleted ORDER BY 1;
-- what was deleted before comes back
SELECT record_id, conflict FROM rowkeeper.soft_delete_restore('flagged', 2);
SELECT record_id, conflict FROM rowkeeper.soft_delete_restore('flagged', 25);
SELECT record_id, conflict FROM rowkeeper.soft_delete_restore('trashed', 2);
SELECT record_id, conflict FROM rowkeeper.soft_delete_restore('trashed', 25);
SELECT id, tableoid::regclass FROM flagged WHERE deleted_at IS NULL ORDER BY 1;
SELECT id, tableoid::regclass FROM trashed ORDER BY 1;

-- one history, under one name
SELECT table_name, relation, action, record_id, coalesce(context ->> 'partition', new_data ->> 'v') AS v FROM rowkeeper.audit_log
WHERE id > :seen AND action NOT IN ('ALTER') ORDER BY id;
SELECT action, record_id, new_data ->> 'v' AS v FROM rowkeeper.audit_history('orders', 1, 1);
SELECT action, record_id, new_data ->> 'v' AS v FROM rowkeeper.audit_history('orders', '{"id": 2, "at": 26}'::jsonb);
SELECT action, record_id, new_data ->> 'v' AS v FROM rowkeeper.audit_history('orders', 30, 3);
SELECT action, record_id, new_data ->> 'v' AS v FROM rowkeeper.audit_history('orders', 4, 25);
SELECT action, record_id, new_data ->> 'v' AS v FROM rowkeeper.audit_history('flagged', 2);

-- and tenants see theirs
SET ROLE convert_app;
BEGIN;
SELECT rowkeeper.tenant_set(2::bigint) \g /dev/null
SELECT id FROM orders;
INSERT INTO orders (id, at, tenant_id) VALUES (5, 5, 1);
ROLLBACK;
SELECT count(*) FROM orders;
SELECT count(*) FROM orders_before_p20;
RESET ROLE;

SET client_min_messages = warning;
SELECT count(*) > 0 AS left FROM rowkeeper.leave('orders');
SELECT count(*) > 0 AS left FROM rowkeeper.leave('flagged');
SELECT count(*) > 0 AS left FROM rowkeeper.leave('trashed');
SELECT rowkeeper.tenant_role('convert_app', 'none') \g /dev/null
DROP SCHEMA convert_together CASCADE;
DROP OWNED BY convert_owner, convert_app;
DROP ROLE convert_owner, convert_app;
