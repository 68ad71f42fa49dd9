-- Flag mode and who may do what: DELETE through the view has its user's rights.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS rowkeeper CASCADE;
CREATE SCHEMA soft_delete_rights;
SET search_path = soft_delete_rights;
CREATE TABLE first (id int PRIMARY KEY);
SELECT rowkeeper.soft_delete('first') \g /dev/null
RESET client_min_messages;
SET client_min_messages = warning;
CREATE ROLE regress_rk_owner;
CREATE ROLE regress_rk_app;
CREATE ROLE regress_rk_other;
GRANT USAGE, CREATE ON SCHEMA soft_delete_rights TO regress_rk_owner;
GRANT USAGE ON SCHEMA soft_delete_rights TO regress_rk_app, regress_rk_other;
RESET client_min_messages;

-- the owner needs no superuser; the view has the table's grants
SET ROLE regress_rk_owner;
CREATE TABLE orders (id int PRIMARY KEY, tenant int, status text);
CREATE TABLE items (id int PRIMARY KEY, o int REFERENCES orders ON DELETE CASCADE);
GRANT SELECT, DELETE ON orders TO regress_rk_app;
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('items');
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('orders');
SELECT relname, relowner::regrole, has_table_privilege('regress_rk_app', oid, 'DELETE') AS app, has_table_privilege('regress_rk_other', oid, 'SELECT') AS other
    FROM pg_class WHERE relname IN ('active_orders', 'active_items') AND relnamespace = 'soft_delete_rights'::regnamespace ORDER BY 1;
INSERT INTO orders SELECT i, i % 2, 'new' FROM generate_series(1, 8) i;
INSERT INTO items SELECT i, i FROM generate_series(1, 8) i;
-- others may not enable, change, or see
SET ROLE regress_rk_app;
SELECT rowkeeper.soft_delete('orders', on_delete => 'allow');
SELECT rowkeeper.soft_delete_off('orders');
SELECT rowkeeper.soft_delete_hide_view('orders');
SELECT rowkeeper.soft_delete_unique('orders', '{status}');
-- who may DELETE may do so through the view; cascades need nothing more
DELETE FROM active_orders WHERE id = 1;
SELECT count(*) FROM active_orders;
SELECT deleted_by FROM orders WHERE id = 1;
UPDATE orders SET deleted_at = now();
SELECT feature FROM rowkeeper.features WHERE target::text ~ 'orders';
SET ROLE regress_rk_other;
DELETE FROM active_orders WHERE id = 2;
SELECT feature FROM rowkeeper.features WHERE target::text ~ 'orders';
-- a right on the view alone is none
SET ROLE regress_rk_owner;
REVOKE DELETE ON orders FROM regress_rk_app;
SET ROLE regress_rk_app;
DELETE FROM active_orders WHERE id = 2;
RESET ROLE;
SELECT count(*) AS items_deleted FROM items WHERE deleted_at IS NOT NULL;

-- row security: the same policy for all, asked by the view
SET ROLE regress_rk_owner;
GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO regress_rk_app;
CREATE POLICY tenant ON orders USING (tenant = current_setting('app.tenant')::int) WITH CHECK (tenant = current_setting('app.tenant')::int);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders FORCE ROW LEVEL SECURITY;
SET ROLE regress_rk_app;
SET app.tenant = 0;
DELETE FROM active_orders WHERE id IN (2, 3) RETURNING id;
UPDATE orders SET deleted_at = now() WHERE id IN (4, 5) RETURNING id;
SET app.tenant = 1;
SELECT id, deleted_at IS NOT NULL AS deleted FROM orders ORDER BY id;
-- policies that differ: what UPDATE may, not what SELECT shows
SET ROLE regress_rk_owner;
CREATE POLICY readable ON orders FOR SELECT USING (true);
SET ROLE regress_rk_app;
SET app.tenant = 0;
DELETE FROM active_orders WHERE id IN (3, 6) RETURNING id;
SET ROLE regress_rk_owner;
CREATE POLICY locked ON orders AS RESTRICTIVE FOR UPDATE USING (status <> 'locked') WITH CHECK (deleted_at IS NULL OR status = 'done');
UPDATE orders SET status = 'done' WHERE id = 8;
SET ROLE regress_rk_app;
DELETE FROM active_orders WHERE id = 8 RETURNING id;
SET app.tenant = 1;
DELETE FROM active_orders WHERE id = 7 RETURNING id;
RESET ROLE;
SELECT id, deleted_at IS NOT NULL AS deleted, delete_batch IS NOT NULL AS batch FROM orders ORDER BY id;
SELECT id FROM active_items ORDER BY id;

-- the functions of the triggers are nobody's to use by hand
SET ROLE regress_rk_owner;
CREATE TABLE mine (id int PRIMARY KEY, deleted_at timestamptz);
CREATE TRIGGER rowkeeper_soft_delete AFTER UPDATE ON mine FOR EACH ROW EXECUTE FUNCTION rowkeeper._soft_delete_row('{}');
CREATE TRIGGER mine BEFORE UPDATE ON mine FOR EACH ROW EXECUTE FUNCTION rowkeeper._soft_delete_guard('x');
CREATE TRIGGER mine BEFORE UPDATE ON mine FOR EACH STATEMENT EXECUTE FUNCTION rowkeeper._soft_delete_end();
SELECT rowkeeper._soft_delete_row();
RESET ROLE;

-- in a SECURITY DEFINER function its owner's rights hold; who acted is told apart
CREATE FUNCTION purge_order(int) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = soft_delete_rights
    AS 'DELETE FROM active_orders WHERE id = $1';
SET ROLE regress_rk_other;
BEGIN;
SELECT rowkeeper.set_context('bob') \g /dev/null
SELECT purge_order(7) \g /dev/null
COMMIT;
RESET ROLE;
SELECT deleted_by FROM orders WHERE id = 7;

-- a policy may look at what a delete changes through a generated column
CREATE TABLE seen (id int PRIMARY KEY, deleted_at timestamptz, live bool GENERATED ALWAYS AS (deleted_at IS NULL) STORED);
SELECT count(*) > 0 AS done FROM rowkeeper.soft_delete('seen');
INSERT INTO seen VALUES (1);
ALTER TABLE seen ENABLE ROW LEVEL SECURITY;
CREATE POLICY live ON seen USING (live);
GRANT ALL ON seen, active_seen TO regress_rk_app;
SET ROLE regress_rk_app;
UPDATE seen SET deleted_at = now();
DELETE FROM active_seen;
RESET ROLE;
SELECT id, live FROM seen;

SET client_min_messages = warning;
DROP SCHEMA soft_delete_rights CASCADE;
DROP OWNED BY regress_rk_owner, regress_rk_app, regress_rk_other;
DROP ROLE regress_rk_owner, regress_rk_app, regress_rk_other;
