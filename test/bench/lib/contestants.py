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
CREATE FUNCTION bench_mark(text) RETURNS boolean LANGUAGE c STRICT AS 'rowkeeper_bench';
CREATE FUNCTION bench_load(regclass) RETURNS bigint LANGUAGE c STRICT AS 'rowkeeper_bench';
CREATE FUNCTION bench_floor(regclass, int) RETURNS bigint LANGUAGE c STRICT AS 'rowkeeper_bench';
CREATE FUNCTION bench_floor_trigger() RETURNS trigger LANGUAGE c AS 'rowkeeper_bench';

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
    WHERE c.relname = 'log_c0_p' || to_char(date_trunc('week', now() AT TIME ZONE 'UTC'), 'YYYYMMDD')
      AND c.relnamespace = 'rowkeeper_log'::regnamespace)"""


class Contestant:
    """One way to keep (or not keep) a table's changes."""

    def __init__(self, name, title, attach="", log=None, extension=None, package=None, kinds=None):
        self.name = name
        self.title = title
        self.table = "orders_" + name
        self.attach = attach        # SQL that puts it on its table
        self.log = log              # where it logs: SQL of type regclass
        self.extension = extension  # a peer's, if installed
        self.package = package      # Debian's that brings it
        self.kinds = kinds          # the statements it does anything at; None: all
        self.peer = extension is not None

    def create(self):
        """SQL that makes its table, empty."""
        sql = "CREATE TABLE %s (%s);\n" % (self.table, COLUMNS)
        if self.extension is not None:
            sql = "CREATE EXTENSION IF NOT EXISTS %s CASCADE;\n" % self.extension + sql
        return sql + self.attach.replace("TABLE", self.table) + "\n"


ROW_TRIGGER = ("CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON TABLE"
               " FOR EACH ROW EXECUTE FUNCTION %s();")

NONE = Contestant("none", "no audit")
EMPTY = Contestant("empty", "empty C row trigger", ROW_TRIGGER % "bench_empty_trigger")
CHANGES = Contestant("changes", "rowkeeper, changes",
                     "SELECT rowkeeper.audit('TABLE') \\g /dev/null", LEAF)
FULL = Contestant("full", "rowkeeper, full rows",
                  "SELECT rowkeeper.audit('TABLE', capture => 'full') \\g /dev/null", LEAF)
PLPGSQL = Contestant("plpgsql", "PL/pgSQL generic trigger", ROW_TRIGGER % "plpgsql_audit",
                     "'plpgsql_log'::regclass")

# One finished entry a row, of those that rowkeeper has written for 5000 rows of another table.
FLOOR = Contestant("floor", "floor of the entries of rowkeeper, changes", """
    UPDATE orders_changes SET quantity = quantity + 1
    WHERE id IN (SELECT id FROM orders_changes ORDER BY random() LIMIT 5000);
    SELECT * INTO floor_inserted FROM rowkeeper_log.log_c0 WHERE action = 'I' ORDER BY random() LIMIT 5000;
    SELECT * INTO floor_updated FROM rowkeeper_log.log_c0 WHERE action = 'U' ORDER BY random() LIMIT 5000;
    SELECT format('CREATE TRIGGER t AFTER INSERT OR UPDATE ON TABLE FOR EACH ROW'
                  ' EXECUTE FUNCTION bench_floor_trigger(%%s, %%s, %%s)',
                  %s::oid, 'floor_inserted'::regclass::oid, 'floor_updated'::regclass::oid) \\gexec""" % LEAF)

PEERS = [
    Contestant("tablelog", "table_log", "SELECT table_log_init(5, 'TABLE') \\g /dev/null",
               "'orders_tablelog_log'::regclass", "table_log", "postgresql-%s-tablelog"),
    Contestant("periods", "periods (history of old rows)",
               "SELECT periods.add_system_time_period('TABLE') \\g /dev/null\n"
               "SELECT periods.add_system_versioning('TABLE') \\g /dev/null",
               "'orders_periods_history'::regclass", "periods", "postgresql-%s-periods"),
    Contestant("moddatetime", "moddatetime (a time stamp, no log)",
               "CREATE TRIGGER t BEFORE UPDATE ON TABLE"
               " FOR EACH ROW EXECUTE FUNCTION moddatetime(updated_at);",
               None, "moddatetime", "postgresql-%s", kinds=("UPDATE",)),
]
