"""
Partitions: what maintenance costs, and how long others wait for it.

Against pg_partman on the same server: a run with nothing to do over many
tables, in turns, and the creation of many partitions at once. Then stalls:
beside a reader who sits in his transaction on the table, clients insert at a
fixed rate while partitions are made, and while one is taken away; and clients
update a table that a foreign key references, beside a writer who sits there.
The slowest of their transactions says how long maintenance kept one waiting.
"""

import glob
import os
import time

from .figures import median, spread
from .server import Session

EXTENSION = "pg_partman"
PACKAGE = "postgresql-%s-partman"
RATE = 250          # transactions a second of those who may not wait
LIMITS = {"idle": 0.25, "create": 1.0}
STALLS = [          # name, title, milliseconds at most
    ("quiet", "no maintenance", None),
    ("create", "partitions are made", 60),
    ("retention", "one is taken away", 250),
    ("fk_quiet", "foreign key, no maintenance", None),
    ("fk_create", "foreign key: partitions are made", 60),
    ("fk_retention", "foreign key: one is taken away", 250),
]

MONTH = "date_trunc('month', now()) - interval '%d months'"


def timed(session, statement):
    """Milliseconds of a statement."""
    return float(session.ask("SELECT extract(epoch FROM clock_timestamp()) AS t \\gset\n%s\n"
                             "SELECT extract(epoch FROM clock_timestamp()) - :t;" % statement)[-1][0]) * 1000


# ---- beside pg_partman ----

def create_sets(server, tables, partitions, say):
    """Sets of monthly partitions, complete, for each of the two."""
    past = partitions - 5       # this month, and four ahead
    for name in ("ours", "partman"):
        say("partition: %d tables of %d partitions for %s" % (tables, partitions, name))
        for number in range(tables):
            table = "%s_%d" % (name, number)
            sql = "CREATE TABLE %s (id bigint, at timestamptz NOT NULL, v text) PARTITION BY RANGE (at);\n" % table
            if name == "ours":
                sql += ("SELECT format('CREATE TABLE %s_first PARTITION OF %s FOR VALUES FROM (%%L) TO (%%L)',"
                        " %s, %s) \\gexec\n" % (table, table, MONTH % past, MONTH % (past - 1)))
                sql += "SELECT rowkeeper.partition('%s', 'at', '1 month') \\g /dev/null\n" % table
            else:
                sql += ("SELECT partman.create_parent('public.%s', 'at', 'native', 'monthly', p_premake := 4,"
                        " p_start_partition := (%s)::text) \\g /dev/null\n" % (table, MONTH % past))
            server.psql("SET timezone = 'UTC'; SET client_min_messages = warning;\n" + sql)


def time_idle(server, rounds, say, result):
    session = Session(server)
    runs = {"ours": "CALL rowkeeper.maintain();", "partman": "SELECT partman.run_maintenance() \\g /dev/null"}
    for statement in runs.values():
        timed(session, statement)
    for number in range(rounds):
        say("partition: nothing to do, round %d of %d" % (number + 1, rounds))
        times = {name: timed(session, runs[name]) for name in sorted(runs, reverse=number % 2 == 1)}
        for name, milliseconds in times.items():
            result.setdefault(("idle", name), []).append(milliseconds)
    session.close()


CREATE = ("CREATE TABLE made_%s (id bigint PRIMARY KEY, a integer, b text, at timestamptz) PARTITION BY RANGE (id);"
          "CREATE INDEX ON made_%s (a);")


def time_creation(server, partitions, rounds, say, result):
    result["partitions"] = partitions
    session = Session(server)
    runs = {"ours": "SELECT rowkeeper.partition('made_ours', 'id', '10', ahead => '%d') \\g /dev/null" % (10 * partitions - 10),
            "partman": "SELECT partman.create_parent('public.made_partman', 'id', 'native', '10', p_premake := %d)"
                       " \\g /dev/null" % (partitions - 1)}
    for number in range(rounds):
        say("partition: %d partitions, round %d of %d" % (partitions, number + 1, rounds))
        for name in sorted(runs, reverse=number % 2 == 1):
            session.ask(CREATE % (name, name))
            result.setdefault(("create", name), []).append(timed(session, runs[name]))
            session.ask("DROP TABLE made_%s;" % name)
            if name == "partman":
                session.ask("DELETE FROM partman.part_config WHERE parent_table = 'public.made_partman';"
                            "DROP TABLE IF EXISTS partman.template_public_made_partman;")
    session.close()


# ---- stalls ----

STALL_SETUP = """
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE TABLE stall (id bigserial, at timestamptz NOT NULL DEFAULT now(), v text) PARTITION BY RANGE (at);
SELECT format('CREATE TABLE stall_first PARTITION OF stall FOR VALUES FROM (%L) TO (%L)', {past}, {after}) \\gexec
SELECT rowkeeper.partition('stall', 'at', '1 month') \\g /dev/null
INSERT INTO stall (at) SELECT {past} + i * interval '3 minutes' FROM generate_series(1, 100000) i;
CREATE TABLE accounts (id integer PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
INSERT INTO accounts SELECT generate_series(0, 1000);
CREATE TABLE fk_stall (id bigserial, at timestamptz NOT NULL DEFAULT now(), account integer REFERENCES accounts)
    PARTITION BY RANGE (at);
SELECT format('CREATE TABLE fk_stall_first PARTITION OF fk_stall FOR VALUES FROM (%L) TO (%L)', {past}, {after}) \\gexec
SELECT rowkeeper.partition('fk_stall', 'at', '1 month') \\g /dev/null
""".format(past=MONTH % 8, after=MONTH % 7)

LOADS = {
    "": "INSERT INTO stall (v) VALUES ('x');\n",
    "fk_": "\\set id random(1, 1000)\nUPDATE accounts SET balance = balance + 1 WHERE id = :id;\n",
}
SITTERS = {
    "": "BEGIN; SELECT count(*) FROM stall;",
    "fk_": "BEGIN; UPDATE accounts SET balance = 0 WHERE id = 0; SELECT count(*) FROM fk_stall;",
}


def slowest(server, load, seconds, during):
    """Milliseconds of the slowest transaction of a load while during() runs."""
    script = os.path.join(server.folder, "stall_load")
    with open(script, "w") as file:
        file.write(load)
    prefix = os.path.join(server.folder, "stall_log")
    for old in glob.glob(prefix + "*"):
        os.remove(old)
    client = server.start_pgbench(script, 4, seconds, ["--rate=%d" % RATE, "--log", "--log-prefix=" + prefix])
    time.sleep(1)
    during()
    client.communicate()
    worst = 0
    for log in glob.glob(prefix + "*"):
        with open(log) as lines:
            for line in lines:
                fields = line.split()
                worst = max(worst, int(fields[2]) - int(fields[6]))     # without what it began late

    return worst / 1000.0


def stall(server, kind, action, seconds):
    """One measurement: the sitter goes when the load is half over."""
    table = kind + "stall"
    sitter = Session(server)
    worker = Session(server)
    sitter.ask(SITTERS[kind])

    def during():
        if action:
            worker.ask(action)
            worker.send("CALL rowkeeper.maintain('%s');" % table)
        time.sleep(seconds / 2 - 1)
        sitter.ask("COMMIT;")
        if action:
            worker.answer()

    worst = slowest(server, LOADS[kind], seconds, during)
    sitter.close()
    worker.close()
    return worst


def count(server, table):
    return int(server.value("SELECT count(*) FROM pg_inherits WHERE inhparent = '%s'::regclass" % table))


def time_stalls(server, rounds, seconds, say, result):
    server.psql(STALL_SETUP)
    server.psql("CALL rowkeeper.maintain('fk_stall')")      # with a foreign key partition() leaves it to this
    for number in range(rounds):
        for kind in ("", "fk_"):
            table = kind + "stall"
            say("partition: stalls of %s, round %d of %d" % (table, number + 1, rounds))
            result.setdefault(kind + "quiet", []).append(stall(server, kind, None, seconds))
            before = count(server, table)
            result.setdefault(kind + "create", []).append(stall(
                server, kind, "SELECT rowkeeper.partition('%s', ahead => '%d months') \\g /dev/null"
                % (table, 8 + 4 * number), seconds))
            made = count(server, table)
            result.setdefault(kind + "retention", []).append(stall(
                server, kind, "SELECT rowkeeper.partition('%s', keep => '%d months') \\g /dev/null"
                % (table, 6 - number), seconds))
            gone = made - count(server, table)
            if made <= before or gone < 1:
                say("partition: %s: %d made, %d taken away" % (table, made - before, gone))
                result.setdefault("incomplete", []).append(table)


def run(server, has_partman, small, rounds, say, result):
    """Fill result: (what, who): milliseconds of rounds; name of a stall: milliseconds of rounds."""
    if has_partman:
        server.psql("CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman")
        time_creation(server, 100 if small else 1000, rounds, say, result)
        create_sets(server, 10 if small else 100, 20 if small else 50, say)
        time_idle(server, rounds * 3, say, result)
    time_stalls(server, min(rounds, 3), 6 if small else 10, say, result)


# ---- figures ----

def ratios(result, what):
    return [ours / theirs for ours, theirs in zip(result[what, "ours"], result[what, "partman"])]


def compared(result):
    return [("idle", "maintenance with nothing to do"),
            ("create", "creating %d partitions" % result.get("partitions", 0))]


def targets(results):
    result = results["partition"]
    for what, title in compared(result):
        if (what, "ours") in result:
            value = median(ratios(result, what))
            yield ["%s, of pg_partman's" % title, "%.2f" % value, "at most %.2f" % LIMITS[what],
                   "yes" if value <= LIMITS[what] else "NO"]
    for name, title, limit in STALLS:
        if limit is not None and result.get(name):
            value = max(result[name])
            yield ["slowest beside, %s" % title, "%.0f ms" % value, "at most %d ms" % limit,
                   "yes" if value <= limit else "NO"]


def tables(results):
    result = results["partition"]
    rows = [[title, "%.0f ms (%.0f-%.0f)" % spread(result[what, "ours"]),
             "%.0f ms (%.0f-%.0f)" % spread(result[what, "partman"])]
            for what, title in compared(result) if (what, "ours") in result]
    if rows:
        yield ("Maintenance of partitions (middle half)", ["", "rowkeeper", "pg_partman"], rows)
    rows = [[title, "%.0f ms" % median(result[name]), "%.0f ms" % max(result[name])]
            for name, title, _ in STALLS if result.get(name)]
    if rows:
        yield ("The slowest of %d transactions a second beside maintenance" % RATE,
               ["", "median of rounds", "worst round"], rows)
