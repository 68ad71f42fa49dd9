"""
Tenants: what isolation costs a query, beside an explicit WHERE.

One table of 12 columns and 1000 tenants, asked by two roles in turn: one that
row security does not hold, with WHERE tenant_id = 500, and one that it holds,
without. Always on the same table: a copy of it can differ by more than what is
measured. First under rowkeeper.tenant(), then under the policy that everybody
writes, tenant_id = current_setting('app.tenant_id')::bigint. Then what setting
a claim costs in the server, by counting loops.

Of a point select, isolation is so small a part that the machine's noise hides
it, so what it adds is counted in instructions of the backend, too: prepared,
with the plan kept, and planned anew each time. The backend is a single-user
one, which prints the row where a client's would send it: what is added counts
more than the ratio.
"""

import os
import shutil

from .figures import median, spread
from .instructions import counted, read_counts, run_script
from .server import Session

SETUP = """
SET client_min_messages = warning;
CREATE ROLE bench_free BYPASSRLS;
CREATE ROLE bench_app;
CREATE TABLE tenant_rows (
    id bigint PRIMARY KEY, tenant_id bigint NOT NULL, customer_id bigint NOT NULL, status text NOT NULL,
    quantity integer NOT NULL, total numeric(12,2) NOT NULL, currency text NOT NULL, note text,
    details jsonb, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, version integer NOT NULL);
INSERT INTO tenant_rows SELECT i, i %% 1000, i %% 5000, 'new', i %% 9, i %% 100, 'EUR', 'note ' || i,
    '{"a": 1}', now(), now(), 1 FROM generate_series(1, %(rows)d) i;
CREATE INDEX ON tenant_rows (tenant_id);
CREATE TABLE tenant_lines (tenant_id bigint NOT NULL, row_id bigint NOT NULL, no integer NOT NULL);
INSERT INTO tenant_lines SELECT i %% 1000, i, 1 FROM generate_series(1, %(rows)d) i;
CREATE INDEX ON tenant_lines (tenant_id, row_id);
CREATE TABLE tenant_new AS SELECT * FROM tenant_rows LIMIT 0;
INSERT INTO tenant_new SELECT %(rows)d + i, 500, i, 'new', 1, 1, 'EUR', 'note', '{"a": 1}', now(), now(), 1
    FROM generate_series(1, %(inserted)d) i;
GRANT SELECT, INSERT ON tenant_rows, tenant_lines, tenant_new TO bench_free, bench_app;
VACUUM ANALYZE tenant_rows, tenant_lines, tenant_new;
SELECT rowkeeper.tenant_role('bench_app', 'set') \\g /dev/null
SELECT rowkeeper.tenant_role('bench_app', 'signed') \\g /dev/null
SELECT rowkeeper.tenant_key_add('bench', repeat('s', 32)::bytea) \\g /dev/null
"""

POLICIES = (
    ("rowkeeper", """
SELECT rowkeeper.tenant('tenant_rows', set_default => false) \\g /dev/null
SELECT rowkeeper.tenant('tenant_lines', set_default => false) \\g /dev/null
"""),
    ("current_setting", """
SELECT rowkeeper.tenant_off('tenant_rows') \\g /dev/null
SELECT rowkeeper.tenant_off('tenant_lines') \\g /dev/null
ALTER TABLE tenant_rows ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenant_lines ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenant_rows USING (tenant_id = current_setting('app.tenant_id')::bigint);
CREATE POLICY p ON tenant_lines USING (tenant_id = current_setting('app.tenant_id')::bigint);
"""),
)

SERIAL = "SET LOCAL max_parallel_workers_per_gather = 0;"
NO_INDEX = "SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off;"
PARALLEL = "SET LOCAL max_parallel_workers_per_gather = 2; SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0;"

# name, title, settings, statement, repetitions, limit; {w}: the explicit WHERE
CASES = [
    ("index", "index scan of a tenant's rows", SERIAL,
     "SELECT count(r.note) FROM tenant_rows r {w}", 20, 1.05),
    ("serial", "serial scan", SERIAL + NO_INDEX, "SELECT count(r.note) FROM tenant_rows r {w}", 1, 1.05),
    ("parallel", "parallel scan", PARALLEL + NO_INDEX, "SELECT count(r.note) FROM tenant_rows r {w}", 1, 1.05),
    ("join", "join of two tables", SERIAL,
     "SELECT count(*) FROM tenant_rows r JOIN tenant_lines l ON l.tenant_id = r.tenant_id AND l.row_id = r.id {w2}",
     10, 1.05),
    ("insert", "bulk insert", SERIAL, "INSERT INTO tenant_rows SELECT * FROM tenant_new", 1, 1.08),
]

CLAIM = {"rowkeeper": "SELECT rowkeeper.tenant_set(500) \\g /dev/null",
         "current_setting": "SET LOCAL app.tenant_id = '500';"}

POINT_LIMIT = 1.05
COUNTED_POINTS = 200
WARM_UP_POINTS = 10             # more than the plans that are made before one is kept
SET_LIMITS = (("tenant_set", "µs of tenant_set()", 2.0), ("tenant_set_signed", "µs of tenant_set_signed()", 10.0))


def measured(policy, case, role):
    _, _, settings, statement, repetitions, _ = case
    free = role == "bench_free"
    statement = statement.format(w="WHERE r.tenant_id = 500" if free else "",
                                 w2="WHERE r.tenant_id = 500 AND l.tenant_id = 500" if free else "")
    return "\n".join(
        ["BEGIN;", settings, CLAIM[policy], statement + " \\g /dev/null" if repetitions > 1 else "",
         "SELECT extract(epoch FROM clock_timestamp()) AS t \\gset"] +
        [statement + " \\g /dev/null"] * repetitions +
        ["SELECT extract(epoch FROM clock_timestamp()) - :t;", "ROLLBACK;"])


def time_cases(server, policy, rounds, say, result):
    sessions = {}
    for role in ("bench_free", "bench_app"):
        sessions[role] = Session(server)
        sessions[role].ask("SET ROLE %s;" % role)
    # the role that bypasses sets no claim of ours
    for number in range(rounds + 1):
        say("tenant, %s: %s" % (policy, "warm-up" if number == 0 else "round %d of %d" % (number, rounds)))
        for case in CASES:
            order = ["bench_free", "bench_app"]
            if number % 2:
                order.reverse()
            sample = {}
            for role in order:
                script = measured(policy, case, role)
                if role == "bench_free":
                    script = script.replace(CLAIM["rowkeeper"], "")
                sample[role] = float(sessions[role].ask(script)[-1][0])
                if case[0] == "insert":
                    server.psql("VACUUM tenant_rows")
            if number > 0:
                result.setdefault((policy, case[0]), []).append(sample["bench_app"] / sample["bench_free"])
    for session in sessions.values():
        session.close()


def time_points(server, policy, rows, rounds, seconds, say, result):
    """Point selects through a client, 20 in a transaction, so the claim is a twentieth of what it is."""
    claim = {"rowkeeper": "SELECT rowkeeper.tenant_set(:t);\n", "current_setting": "SELECT set_config('app.tenant_id', :t::text, true);\n"}[policy]
    scripts = {}
    for role, where in (("bench_free", " AND tenant_id = :t"), ("bench_app", "")):
        scripts[role] = os.path.join(server.folder, "point_" + role)
        with open(scripts[role], "w") as script:
            script.write("\\set id random(1, %d)\n\\set t :id %% 1000\nBEGIN;\nSET LOCAL ROLE %s;\n" % (rows, role))
            script.write(claim if role == "bench_app" else "SELECT 1;\n")
            script.write(("SELECT * FROM tenant_rows WHERE id = :id%s;\n" % where) * 20)
            script.write("COMMIT;\n")
        os.chmod(scripts[role], 0o644)
    for number in range(rounds):
        say("tenant, %s: point selects, round %d of %d" % (policy, number + 1, rounds))
        order = ["bench_free", "bench_app"]
        if number % 2:
            order.reverse()
        rate = {role: server.pgbench(scripts[role], 1, seconds) for role in order}
        result.setdefault((policy, "point"), []).append(rate["bench_free"] / rate["bench_app"])


def count_instructions(server, policy, counted_rows, say, result):
    """Instructions of the same statements in a single-user backend, which has no client."""
    if shutil.which("valgrind") is None or server.value("SELECT bench_mark('')") != "t":
        say("tenant: instructions are left out, valgrind is not installed")
        return
    say("tenant, %s: instructions of point selects and of the insert" % policy)
    ids = [500 + 1000 * (i % 200) for i in range(WARM_UP_POINTS + COUNTED_POINTS)]
    script = []
    for role, where in (("bench_free", " AND tenant_id = %s"), ("bench_app", "")):
        select = "SELECT * FROM tenant_rows WHERE id = %s" + where
        script += ["BEGIN", "SET LOCAL ROLE " + role]
        if role == "bench_app":
            script.append(CLAIM[policy].replace(" \\g /dev/null", "").rstrip(";"))
        script.append("PREPARE point (bigint, bigint) AS " + select.replace("%s", "$%d") % ((1, 2) if where else 1))
        statements = {"prepared": ["EXECUTE point(%d, 500)" % i for i in ids],
                      "planned": [select % ((i, 500) if where else i) for i in ids]}
        for name, calls in statements.items():
            script += calls[:WARM_UP_POINTS] + counted("%s %s %s" % (policy, name, role),
                                                       ";\n\n".join(calls[WARM_UP_POINTS:]))
        script += ["DEALLOCATE point"]
        script += counted("%s insert %s" % (policy, role), "INSERT INTO tenant_rows SELECT * FROM tenant_new LIMIT %d" % counted_rows)
        script += ["ROLLBACK"]
    server.pg_ctl("stop")
    counts = read_counts(run_script(server, script))
    server.pg_ctl("start")
    for name, times in (("prepared", COUNTED_POINTS), ("planned", COUNTED_POINTS), ("insert", counted_rows)):
        free, app = (counts["%s %s %s" % (policy, name, role)] / times for role in ("bench_free", "bench_app"))
        result[policy, "instructions", name] = (app - free, app / free)


def time_claims(server, rounds, say, result):
    say("tenant: setting claims")
    count = 100000
    loops = {
        "none": "SELECT count(i::text) FROM generate_series(1, %d) i" % count,
        "tenant_set": "SELECT count(rowkeeper.tenant_set(i::bigint)) FROM generate_series(1, %d) i" % count,
        "tenant_set_signed": "SELECT count(rowkeeper.tenant_set_signed(:'token')) FROM generate_series(1, %d) i" % count,
    }
    session = Session(server)
    session.ask("SELECT rowkeeper.tenant_sign(7, 'bench', '1 hour') AS token \\gset")
    for _ in range(rounds):
        times = {}
        for name, statement in loops.items():
            times[name] = float(session.ask(
                "BEGIN;\nSELECT extract(epoch FROM clock_timestamp()) AS t \\gset\n" + statement +
                " \\g /dev/null\nSELECT extract(epoch FROM clock_timestamp()) - :t;\nROLLBACK;")[-1][0]) * 1e6 / count
        for name in ("tenant_set", "tenant_set_signed"):
            result.setdefault(name, []).append(times[name] - times["none"])
    session.close()


def run(server, rows, inserted, rounds, seconds, counted_rows, say, result):
    """
    Fill result: (policy, case): ratios of rounds; (policy, "instructions", how): those added, and
    the ratio; name of a setter: microseconds of rounds.
    """
    say("tenant: preparing %d rows" % rows)
    server.psql(SETUP % {"rows": rows, "inserted": inserted})
    for policy, attach in POLICIES:
        server.psql("SET client_min_messages = warning;" + attach)
        time_cases(server, policy, rounds, say, result)
        time_points(server, policy, rows, rounds, seconds, say, result)
        count_instructions(server, policy, counted_rows, say, result)
    time_claims(server, rounds, say, result)


# ---- figures ----

def cases():
    return [(name, title, limit) for name, title, _, _, _, limit in CASES] + \
        [("point", "point select through a client", POINT_LIMIT)]


def targets(results):
    result = results["tenant"]
    if not result:
        return
    for name, title, limit in cases():
        if ("rowkeeper", name) in result:
            value = median(result["rowkeeper", name])
            yield ["isolated by tenant: %s, times the explicit WHERE" % title,
                   "%.2f" % value, "at most %.2f" % limit, "yes" if value <= limit else "NO"]
    for name, title, limit in SET_LIMITS:
        if name in result:
            value = median(result[name])
            yield [title, "%.2f" % value, "at most %.2f" % limit, "yes" if value <= limit else "NO"]


def tables(results):
    result = results["tenant"]
    if not result:
        return
    rows = []
    for name, title, _ in cases():
        rows.append([title] + ["%.2f (%.2f-%.2f)" % spread(result[policy, name]) if (policy, name) in result else "-"
                               for policy, _ in POLICIES])
    for name, title in (("prepared", "point select, prepared: instructions added"),
                        ("planned", "point select, planned anew: instructions added"),
                        ("insert", "bulk insert: instructions added to a row")):
        if any((policy, "instructions", name) in result for policy, _ in POLICIES):
            rows.append([title] + ["%.0f (%.3f)" % result[policy, "instructions", name]
                                   if (policy, "instructions", name) in result else "-"
                                   for policy, _ in POLICIES])
    yield ("Isolation by tenant, times an explicit WHERE on the same table (middle half)",
           ["", "rowkeeper.tenant()", "a policy on current_setting()"], rows)
