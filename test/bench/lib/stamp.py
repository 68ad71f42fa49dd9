"""
Stamps: what an UPDATE of every row costs more where a trigger stamps it.

Four tables of the same 12 columns: without a trigger, with contrib's
moddatetime (updated_at only), with the PL/pgSQL trigger that everybody writes
(updated_at, version), and with rowkeeper.stamp() (the same, and whether
anything changed at all, and whether the client's version is an outdated one).
Every page has room for the new versions, so updates are heap-only and the
statement itself is as cheap as it can be. Rounds take the tables in turn; what
a trigger adds is its time less that of the table without one in the same
round. The same statements are then counted in instructions.
"""

import shutil

from .figures import median, spread
from .instructions import counted, read_counts, run_script
from .server import Session

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
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    version     integer NOT NULL DEFAULT 1"""

SETUP = """
SET client_min_messages = warning;
CREATE FUNCTION plpgsql_stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    NEW.version := OLD.version + 1;
    RETURN NEW;
END $$;
"""

TABLE = """
CREATE TABLE stamp_%(name)s (%(columns)s) WITH (fillfactor = 45);
INSERT INTO stamp_%(name)s SELECT id, tenant_id, customer_id, status, quantity, total, currency,
    note, details, created_at FROM source;
VACUUM ANALYZE stamp_%(name)s;
%(attach)s
"""

# name, title, how it is put on its table
CONTESTANTS = [
    ("none", "no trigger", ""),
    ("moddatetime", "moddatetime (updated_at)",
     "CREATE EXTENSION IF NOT EXISTS moddatetime;"
     "CREATE TRIGGER t BEFORE UPDATE ON TABLE FOR EACH ROW EXECUTE FUNCTION moddatetime(updated_at);"),
    ("plpgsql", "PL/pgSQL trigger (updated_at, version)",
     "CREATE TRIGGER t BEFORE UPDATE ON TABLE FOR EACH ROW EXECUTE FUNCTION plpgsql_stamp();"),
    ("rowkeeper", "rowkeeper.stamp() (updated_at, version)",
     "SELECT rowkeeper.stamp('TABLE') \\g /dev/null"),
]

TARGETS = (("plpgsql", "the PL/pgSQL trigger's", 0.35), ("moddatetime", "moddatetime's", 0.6))

UPDATE = "UPDATE stamp_%s SET quantity = quantity + 1"

MEASURED = """
VACUUM stamp_%(name)s;
SELECT bench_cpu() AS cpu \\gset
%(update)s;
SELECT bench_cpu() - :cpu;
"""


def time_rounds(server, names, rows, rounds, say, result):
    sessions = {name: Session(server) for name in names}
    for number in range(rounds + 1):
        say("stamps: %s" % ("warm-up" if number == 0 else "round %d of %d" % (number, rounds)))
        server.psql("CHECKPOINT")
        turn = number % len(names)
        sample = {}
        for name in names[turn:] + names[:turn]:
            rows_read = sessions[name].ask(MEASURED % {"name": name, "update": UPDATE % name})
            sample[name] = float(rows_read[-1][0]) / rows
        if number > 0:
            result.append(sample)
    for session in sessions.values():
        session.close()


def count_instructions(server, names, rows, say, result):
    if shutil.which("valgrind") is None or server.value("SELECT bench_mark('')") != "t":
        say("stamps: instructions are left out, valgrind is not installed")
        return
    say("stamps: instructions, %d rows" % rows)
    script = []
    for name in names:
        update = UPDATE % name + " WHERE id <= %d" % rows
        script += ["VACUUM stamp_" + name, update] + counted("stamp_" + name, update)
    server.pg_ctl("stop")
    counts = read_counts(run_script(server, script))
    server.pg_ctl("start")
    for name in names:
        result[name] = counts["stamp_" + name] / rows


def run(server, rows, rounds, counted_rows, say, result):
    """Fill result: "rounds", each {name: microseconds a row}; "instructions", {name: a row}."""
    server.psql(SETUP)
    available = server.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'moddatetime'")
    names = []
    for name, _, attach in CONTESTANTS:
        if name == "moddatetime" and available == "0":
            say("moddatetime is not installed: left out")
            continue
        names.append(name)
        server.psql("SET client_min_messages = warning;" + TABLE % {
            "name": name, "columns": COLUMNS, "attach": attach.replace("TABLE", "stamp_" + name)})
    result["rounds"] = []
    result["instructions"] = {}
    time_rounds(server, names, rows, rounds, say, result["rounds"])
    count_instructions(server, names, counted_rows, say, result["instructions"])


# ---- figures ----

def added(sample, name):
    return sample[name] - sample["none"]


def ratios(result, other):
    """What rowkeeper adds, in parts of what another adds, of each round."""
    return [added(r, "rowkeeper") / added(r, other) for r in result["rounds"] if other in r]


def targets(results):
    result = results["stamp"]
    for other, title, limit in TARGETS if result else ():
        figures = [("CPU", ratios(result, other))]
        if other in result["instructions"]:
            figures.append(("instructions", ratios({"rounds": [result["instructions"]]}, other)))
        for what, values in figures:
            if values:
                value = median(values)
                yield ["%s that stamps add to an UPDATE, in parts of %s" % (what, title),
                       "%.2f" % value, "at most %.2f" % limit, "yes" if value <= limit else "NO"]


def tables(results):
    result = results["stamp"]
    if not result:
        return
    rows = []
    for name, title, _ in CONTESTANTS:
        if name not in result["rounds"][0]:
            continue
        first = name == "none"
        cpu = [r[name] if first else added(r, name) for r in result["rounds"]]
        count = result["instructions"].get(name)
        rows.append(["(the statement itself)" if first else title,
                     "%.2f (%.2f-%.2f)" % spread(cpu),
                     "-" if count is None else "%.0f" %
                     (count if first else added(result["instructions"], name))])
    yield ("Stamps: what a one-column UPDATE of every row adds, a row",
           ["", "CPU, microseconds (middle half)", "instructions"], rows)
