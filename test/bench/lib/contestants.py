"""Who is measured: how each is put on a table named orders_<name>."""

COLUMNS = """
    id          bigint PRIMARY KEY,
    tenant_id   bigint NOT NULL,
    customer_id bigint NOT NULL,
    status      order_status NOT NULL DEFAULT 'new',
    quantity    integer NOT NULL,
    total       numeric(12,2) NOT NULL,
    currency    text NOT NULL,
    note        text,
    details     jsonb,
    gift        boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz"""

NAMES = ("id, tenant_id, customer_id, status, quantity, total, currency, note, details, gift, "
         "created_at, updated_at")

SETUP = """
CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'refunded');
CREATE EXTENSION rowkeeper CASCADE;
CREATE FUNCTION bench_empty_trigger() RETURNS trigger LANGUAGE c AS 'rowkeeper_bench';
CREATE FUNCTION bench_cpu() RETURNS float8 LANGUAGE c AS 'rowkeeper_bench';
CREATE FUNCTION bench_load(regclass) RETURNS bigint LANGUAGE c STRICT AS 'rowkeeper_bench';
CREATE FUNCTION bench_floor(regclass, int) RETURNS bigint LANGUAGE c STRICT AS 'rowkeeper_bench';

CREATE TABLE source (%(columns)s);
INSERT INTO source
SELECT i, i %% 50, i %% 9973, (ARRAY['new','paid','shipped'])[1 + i %% 3]::order_status, 1 + i %% 7,
       (i %% 100000) / 7.0, 'EUR', 'order number ' || i || ' by phone',
       jsonb_build_object('channel', 'web', 'coupon', i %% 100, 'gift', false), i %% 5 = 0,
       timestamptz '2026-01-01' + i * interval '1 second', NULL
FROM generate_series(1, %(rows)d) i;

-- The generic trigger everybody writes, for comparison.
CREATE TABLE plpgsql_log (id bigserial PRIMARY KEY, changed_at timestamptz NOT NULL DEFAULT now(),
    txid bigint NOT NULL DEFAULT txid_current(), table_name text NOT NULL, action text NOT NULL,
    record_id text, actor text, old_data jsonb, new_data jsonb);
CREATE INDEX ON plpgsql_log (table_name, record_id);
CREATE FUNCTION plpgsql_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_op = 'INSERT' THEN
        INSERT INTO plpgsql_log (table_name, action, record_id, actor, new_data)
        VALUES (tg_table_name, tg_op, NEW.id::text, current_setting('app.user_id', true), to_jsonb(NEW));
    ELSIF tg_op = 'UPDATE' THEN
        INSERT INTO plpgsql_log (table_name, action, record_id, actor, old_data, new_data)
        VALUES (tg_table_name, tg_op, OLD.id::text, current_setting('app.user_id', true), to_jsonb(OLD), to_jsonb(NEW));
    ELSE
        INSERT INTO plpgsql_log (table_name, action, record_id, actor, old_data)
        VALUES (tg_table_name, tg_op, OLD.id::text, current_setting('app.user_id', true), to_jsonb(OLD));
    END IF;
    RETURN NULL;
END $$;
"""

# The leaf of the log that entries written now go to.
LEAF = """(SELECT c.oid::regclass FROM pg_class c
    WHERE c.relname = 'log_c0_' || to_char(date_trunc('week', now() AT TIME ZONE 'UTC'), 'YYYYMMDD')
      AND c.relnamespace = 'rowkeeper_log'::regnamespace)"""


class Contestant:
    """One way to keep (or not keep) a table's changes."""

    def __init__(self, name, title, attach="", log=None, package=None, extension=None):
        self.name = name
        self.title = title
        self.attach = attach    # SQL; %(table)s
        self.log = log          # the relation its log is in, an SQL expression of type regclass
        self.package = package  # of Debian; %(major)s
        self.extension = extension

    @property
    def table(self):
        return "orders_" + self.name

    def create(self, columns=COLUMNS):
        """SQL that makes its table, empty."""
        sql = ""
        if self.extension is not None:
            sql += "CREATE EXTENSION IF NOT EXISTS %s CASCADE;\n" % self.extension
        sql += "CREATE TABLE %s (%s);\n" % (self.table, columns)
        return sql + self.attach % {"table": self.table} + "\n"


NONE = Contestant("none", "no audit")

EMPTY = Contestant(
    "empty", "empty C row trigger",
    "CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON %(table)s"
    " FOR EACH ROW EXECUTE FUNCTION bench_empty_trigger();")

CHANGES = Contestant(
    "changes", "rowkeeper, changes",
    "SELECT rowkeeper.audit('%(table)s') \\g /dev/null", LEAF)

FULL = Contestant(
    "full", "rowkeeper, full rows",
    "SELECT rowkeeper.audit('%(table)s', capture => 'full') \\g /dev/null", LEAF)

PLPGSQL = Contestant(
    "plpgsql", "PL/pgSQL generic trigger",
    "CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON %(table)s"
    " FOR EACH ROW EXECUTE FUNCTION plpgsql_audit();", "'plpgsql_log'::regclass")
