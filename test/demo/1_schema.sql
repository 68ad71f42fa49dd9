-- A shop for several tenants, as an application's migrations would make it, with
-- the usual beginnings written by hand. Nothing in here knows of rowkeeper.
CREATE SCHEMA shop;

CREATE TYPE shop.order_status AS ENUM ('draft', 'placed', 'paid', 'shipped', 'refunded', 'cancelled');
CREATE TYPE shop.payment_method AS ENUM ('card', 'invoice', 'wallet');
CREATE DOMAIN shop.email AS text CHECK (VALUE LIKE '%_@_%');

CREATE TABLE shop.customers (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id  integer NOT NULL,
    name       text NOT NULL,
    email      shop.email NOT NULL UNIQUE,
    address    jsonb NOT NULL DEFAULT '{}',
    tags       text[] NOT NULL DEFAULT '{}',
    last_seen  timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shop.products (
    id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku   text NOT NULL UNIQUE,
    title text NOT NULL,
    price numeric(12,2) NOT NULL CHECK (price >= 0),
    stock integer NOT NULL
);

CREATE TABLE shop.orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   integer NOT NULL,
    reference   uuid NOT NULL DEFAULT gen_random_uuid(),
    customer_id bigint NOT NULL REFERENCES shop.customers,
    status      shop.order_status NOT NULL DEFAULT 'draft',
    method      shop.payment_method,
    total       numeric(12,2) NOT NULL DEFAULT 0,
    currency    char(3) NOT NULL DEFAULT 'EUR',
    ship_to     jsonb NOT NULL DEFAULT '{}',
    gift        boolean NOT NULL DEFAULT false,
    note        text,
    placed_at   timestamptz,
    paid_at     timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamp
);
CREATE INDEX ON shop.orders (customer_id);

CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER trg_orders_updated BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.touch();
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_tenant ON shop.orders USING (tenant_id = current_setting('app.tenant_id')::integer);

CREATE TABLE shop.order_lines (
    tenant_id  integer NOT NULL,
    order_id   bigint NOT NULL REFERENCES shop.orders ON DELETE CASCADE,
    line       smallint NOT NULL,
    product_id integer NOT NULL REFERENCES shop.products,
    quantity   integer NOT NULL CHECK (quantity > 0),
    price      numeric(12,2) NOT NULL,
    PRIMARY KEY (order_id, line)
);

CREATE TABLE shop.payments (
    id        bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id integer NOT NULL,
    order_id  bigint NOT NULL REFERENCES shop.orders,
    paid_on   date NOT NULL,
    amount    numeric(12,2) NOT NULL,
    gateway   jsonb NOT NULL,
    PRIMARY KEY (id, paid_on)
) PARTITION BY RANGE (paid_on);
-- month by month, as somebody did each time; the last one is this month's
SELECT format('CREATE TABLE shop.payments_%s PARTITION OF shop.payments FOR VALUES FROM (%L) TO (%L)',
              to_char(month, 'YYYY_MM'), month::date, (month + interval '1 month')::date)
FROM generate_series(date_trunc('month', now() - interval '14 months'), now(), '1 month') month \gexec

-- The application and the support desk are not the owner.
GRANT USAGE ON SCHEMA shop TO shop_app, shop_support;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO shop_app;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO shop_support;
