-- The migration that switches everything on, in place of what was written by
-- hand. Run it as often as you like.
BEGIN;
SELECT rowkeeper.audit('shop.customers', exclude => '{last_seen}', capture => 'full');
SELECT rowkeeper.audit('shop.orders');
SELECT rowkeeper.audit('shop.order_lines', keep => '3 years');
SELECT rowkeeper.audit('shop.payments');
SELECT rowkeeper.audit('pgbench_accounts', keep => '90 days');

SELECT rowkeeper.stamp('shop.orders', version => 'version', replace_triggers => '{trg_orders_updated}');
SELECT rowkeeper.stamp('shop.payments', updated_by => 'updated_by');

SELECT rowkeeper.soft_delete('shop.order_lines');
SELECT rowkeeper.soft_delete('shop.orders');
SELECT rowkeeper.soft_delete('shop.payments');

SELECT rowkeeper.tenant('shop.customers');
SELECT rowkeeper.tenant('shop.orders', replace_policies => '{by_tenant}');
SELECT rowkeeper.tenant('shop.order_lines');
SELECT rowkeeper.tenant('shop.payments');

SELECT rowkeeper.partition('shop.payments', keep => '12 months');
COMMIT;
