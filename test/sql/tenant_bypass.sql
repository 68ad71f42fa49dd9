-- Past isolation, recorded; and what of the audit log each tenant sees.
\set VERBOSITY terse
\pset format unaligned
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA tenant_bypass;
SET search_path = tenant_bypass;
CREATE ROLE tenant_bypass_owner;
CREATE ROLE tenant_bypass_app;
CREATE ROLE tenant_bypass_admin;
GRANT ALL ON SCHEMA tenant_bypass TO tenant_bypass_owner;
GRANT USAGE ON SCHEMA tenant_bypass TO tenant_bypass_app, tenant_bypass_admin;
SELECT count(*) FROM rowkeeper.tenant_role('tenant_bypass_app', 'set');
SELECT count(*) FROM rowkeeper.tenant_role('tenant_bypass_owner', 'set');
SET ROLE tenant_bypass_owner;
CREATE TABLE orders (id int PRIMARY KEY, account int, item text);
SELECT rowkeeper.audit('orders') \g /dev/null
INSERT INTO orders SELECT i, i % 3, 'item ' || i FROM generate_series(1, 6) i;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON orders TO tenant_bypass_app, tenant_bypass_admin;
SELECT count(*) FROM rowkeeper.tenant('orders', by => 'account');
CREATE TABLE plans (tenant_id int, name text);
SELECT count(*) FROM rowkeeper.tenant('plans', shared => true);
GRANT SELECT, INSERT, UPDATE, DELETE ON plans TO tenant_bypass_app, tenant_bypass_admin;
RESET ROLE;
-- the role's policy: on tables there are and tables to come
SELECT rowkeeper.tenant_role('tenant_bypass_admin', 'bypass');
SELECT rowkeeper.tenant_role('tenant_bypass_admin', 'bypass');
SET ROLE tenant_bypass_owner;
CREATE TABLE later (tenant_id int);
SELECT rowkeeper.tenant('later');
DROP TABLE later;
-- only that role's plans know of it
SET ROLE tenant_bypass_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
EXPLAIN (COSTS off) SELECT * FROM orders;
ROLLBACK;
SET ROLE tenant_bypass_admin;
SET rowkeeper.tenant_strict = off;
EXPLAIN (COSTS off) SELECT * FROM orders;
RESET rowkeeper.tenant_strict;

-- without it the role is like any other
SELECT count(*) FROM orders;
BEGIN;
SELECT rowkeeper.tenant_bypass('ticket 4711');
SELECT account, count(*) FROM orders GROUP BY 1 ORDER BY 1;
UPDATE orders SET account = 2 WHERE id = 1;
INSERT INTO orders VALUES (7, 9, 'of another');
INSERT INTO plans VALUES (NULL, 'for all');
UPDATE plans SET name = 'for everybody';
SAVEPOINT a;
-- a column that says nothing of the tenant says so
INSERT INTO orders (id) VALUES (8);
ROLLBACK TO a;
-- undone with a savepoint
RESET rowkeeper.bypass;
SELECT count(*) FROM orders;
ROLLBACK TO a;
SELECT count(*) FROM orders;
COMMIT;
SELECT count(*) FROM orders;
BEGIN;
SELECT rowkeeper.tenant_bypass('to empty it');
TRUNCATE orders;
ROLLBACK;
-- in parallel workers
BEGIN;
SELECT rowkeeper.tenant_bypass('report');
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL parallel_leader_participation = off;
SELECT count(*), count(DISTINCT account) FROM orders;
COMMIT;
-- not without a reason, nor outside of a transaction, nor without trust
SELECT rowkeeper.tenant_bypass('x');
BEGIN;
SELECT rowkeeper.tenant_bypass(' ');
ROLLBACK;
BEGIN;
SELECT rowkeeper.tenant_bypass(NULL);
ROLLBACK;
SET rowkeeper.bypass = 'x';
SET ROLE tenant_bypass_app;
BEGIN;
SELECT rowkeeper.tenant_bypass('x');
ROLLBACK;
RESET ROLE;
-- a role that may call it, but that no policy names: sees nothing more
GRANT EXECUTE ON FUNCTION rowkeeper.tenant_bypass(text) TO tenant_bypass_app;
SET ROLE tenant_bypass_app;
BEGIN;
SELECT rowkeeper.tenant_bypass('x');
SELECT count(*) FROM orders;
ROLLBACK;
RESET ROLE;
REVOKE EXECUTE ON FUNCTION rowkeeper.tenant_bypass(text) FROM tenant_bypass_app;

-- one that a function of his began is not its caller's, who may have a policy beside ours
SET ROLE tenant_bypass_admin;
CREATE FUNCTION pg_temp.help() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = tenant_bypass
	AS $$ SELECT rowkeeper.tenant_bypass('help'); SELECT count(*) FROM orders $$;
SET ROLE tenant_bypass_owner;
CREATE POLICY beside ON orders TO tenant_bypass_app USING (true);
SET ROLE tenant_bypass_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT pg_temp.help() > (SELECT count(*) FROM orders) AS helped_with_more;
SELECT DISTINCT account FROM orders;
INSERT INTO orders VALUES (9, 2, 'of another');
ROLLBACK;
RESET ROLE;
DROP POLICY beside ON orders;
DROP FUNCTION pg_temp.help();

-- recorded, of no table: for the owner of the log
SELECT action, table_name, context ->> 'reason' AS reason, db_role FROM rowkeeper.audit_log WHERE action = 'BYPASS' AND db_role = 'tenant_bypass_admin' ORDER BY id;
SELECT tables -> '' AS of_no_table FROM rowkeeper.audit_transactions('2000-01-01') WHERE tables ? '' AND db_user = session_user AND txid = (SELECT max(txid) FROM rowkeeper.audit_log WHERE action = 'BYPASS');
SET ROLE tenant_bypass_admin;
BEGIN READ ONLY;
SELECT rowkeeper.tenant_bypass('read only');
ROLLBACK;
SELECT count(*) FROM rowkeeper.audit_log WHERE action = 'BYPASS';

-- each tenant sees the entries of its rows
SET ROLE tenant_bypass_app;
SELECT count(*) FROM rowkeeper.audit_log WHERE relation = 'orders'::regclass;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT action, record_id, old_data, new_data, tenant FROM rowkeeper.audit_log WHERE relation = 'orders'::regclass ORDER BY id;
SELECT rowkeeper.tenant_set(2);
SELECT action, record_id, old_data, new_data, tenant FROM rowkeeper.audit_log WHERE relation = 'orders'::regclass ORDER BY id;
UPDATE orders SET item = 'new' WHERE id = 1;
SELECT action, record_id, old_data, new_data, tenant FROM rowkeeper.audit_log WHERE relation = 'orders'::regclass ORDER BY id DESC LIMIT 1;
COMMIT;
SET ROLE tenant_bypass_admin;
BEGIN;
SELECT rowkeeper.tenant_bypass('audit');
SELECT count(*) FROM rowkeeper.audit_log WHERE relation = 'orders'::regclass;
COMMIT;
-- with policies of others or two claims the log shows nothing
SET ROLE tenant_bypass_owner;
CREATE POLICY hidden ON orders AS RESTRICTIVE USING (item <> 'hidden');
SET ROLE tenant_bypass_app;
BEGIN;
SELECT rowkeeper.tenant_set(1);
SELECT count(*) FROM rowkeeper.audit_log WHERE relation = 'orders'::regclass;
ROLLBACK;
RESET ROLE;
SELECT tenant, new_tenant, count(*) FROM rowkeeper_log.entries WHERE relation = 'orders'::regclass AND record_id IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2;
SELECT rowkeeper.tenant_role('tenant_bypass_admin', 'none');
SELECT rowkeeper.tenant_role('tenant_bypass_app', 'none') \g /dev/null
SELECT rowkeeper.tenant_role('tenant_bypass_owner', 'none') \g /dev/null
DROP SCHEMA tenant_bypass CASCADE;
DROP ROLE tenant_bypass_owner, tenant_bypass_app, tenant_bypass_admin;
