-- What the shop had before.
SELECT setseed(0.42);

INSERT INTO shop.customers (tenant_id, name, email, address, tags)
SELECT 1 + (i + 1) % 2, 'Customer ' || i, 'customer' || i || '@example.com',
       jsonb_build_object('street', i || ' Long Street', 'city', (ARRAY['Oslo', 'Lyon', 'Turin', 'Gent'])[1 + i % 4]),
       CASE WHEN i % 10 = 0 THEN '{loyal,newsletter}' ELSE '{}' END::text[]
FROM generate_series(1, 2000) i;

INSERT INTO shop.products (sku, title, price, stock)
SELECT 'SKU-' || lpad(i::text, 4, '0'), 'Product ' || i, 5 + (i * 37 % 200), 1000
FROM generate_series(1, 300) i;

INSERT INTO shop.orders (tenant_id, customer_id, status, method, ship_to, gift, placed_at, paid_at)
SELECT 1 + i % 2, 1 + i % 2000,
       CASE WHEN i = 42 THEN 'placed' ELSE (ARRAY['placed', 'paid', 'shipped'])[1 + i % 3] END::shop.order_status,
       (ARRAY['card', 'invoice', 'wallet'])[1 + i % 3]::shop.payment_method,
       jsonb_build_object('city', 'Oslo', 'parcels', 1 + i % 3),
       i % 17 = 0, now() - interval '14 months' + i * interval '25 minutes', NULL
FROM generate_series(1, 20000) i;

INSERT INTO shop.order_lines (tenant_id, order_id, line, product_id, quantity, price)
SELECT 1 + o % 2, o, l, p.id, 1 + (o + l) % 4, p.price
FROM generate_series(1, 20000) o, generate_series(1, 3) l, shop.products p
WHERE p.id = 1 + (o * 7 + l * 31) % 300;

UPDATE shop.orders o SET total = s.total
FROM (SELECT order_id, sum(quantity * price) AS total FROM shop.order_lines GROUP BY order_id) s
WHERE s.order_id = o.id;

INSERT INTO shop.payments (tenant_id, order_id, paid_on, amount, gateway)
SELECT tenant_id, id, placed_at::date, total, jsonb_build_object('provider', 'acme', 'fee', round(total * 0.015, 2))
FROM shop.orders WHERE status IN ('paid', 'shipped');
