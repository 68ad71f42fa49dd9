-- The migration that switches the audit on. Run it as often as you like.
SELECT rowkeeper.audit('shop.customers', exclude => '{last_seen}', capture => 'full');
SELECT rowkeeper.audit('shop.orders');
SELECT rowkeeper.audit('shop.order_lines', keep => '3 years');
SELECT rowkeeper.audit('shop.payments');
SELECT rowkeeper.audit('pgbench_accounts', keep => '90 days');
