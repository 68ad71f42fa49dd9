-- A small shop, as an application's migrations would make it. Nothing in here
-- knows of rowkeeper.
CREATE SCHEMA shop;

CREATE TYPE shop.order_status AS ENUM ('draft', 'placed', 'paid', 'shipped', 'refunded', 'cancelled');
CREATE TYPE shop.payment_method AS ENUM ('card', 'invoice', 'wallet');
CREATE DOMAIN shop.email AS text CHECK (VALUE LIKE '%_@_%');

CREATE TABLE shop.customers (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
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
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON shop.orders (customer_id);

CREATE TABLE shop.order_lines (
    order_id   bigint NOT NULL REFERENCES shop.orders ON DELETE CASCADE,
    line       smallint NOT NULL,
    product_id integer NOT NULL REFERENCES shop.products,
    quantity   integer NOT NULL CHECK (quantity > 0),
    price      numeric(12,2) NOT NULL,
    PRIMARY KEY (order_id, line)
);

CREATE TABLE shop.payments (
    id       bigint GENERATED ALWAYS AS IDENTITY,
    order_id bigint NOT NULL REFERENCES shop.orders,
    paid_on  date NOT NULL,
    amount   numeric(12,2) NOT NULL,
    gateway  jsonb NOT NULL,
    PRIMARY KEY (id, paid_on)
) PARTITION BY RANGE (paid_on);
CREATE TABLE shop.payments_2025 PARTITION OF shop.payments FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE shop.payments_2026 PARTITION OF shop.payments FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');

-- The application and the support desk are not the owner.
GRANT USAGE ON SCHEMA shop TO shop_app, shop_support;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO shop_app;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO shop_support;
