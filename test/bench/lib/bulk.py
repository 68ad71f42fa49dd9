"""
Bulk statements: CPU time, WAL and log bytes added a row.

Every contestant has a table and a session of its own. A round takes each kind
of statement in turn through all of them, one right after the other, in an
order that rotates; what a contestant adds is its time less that of the
unaudited table in the same round. No checkpoint falls into a round, and every
page that is written was made after the last one, so the WAL holds no full
page images.
"""

from . import contestants as who
from .server import Session

KINDS = ("INSERT", "UPDATE", "DELETE", "COPY")
BATCH = 1000                    # FLUSH_ENTRIES in src/core/changes.c
PEER_ROUNDS = 1                 # peers are slow, and far away: one counted round will do

# The caches of a session are filled before anything is measured.
WARM_UP = """
SET app.user_id = 'bench';
INSERT INTO %(table)s (%(names)s) SELECT * FROM source LIMIT 1;
UPDATE %(table)s SET quantity = quantity + 1;
DELETE FROM %(table)s;
"""

MEASURED = """
SELECT bench_cpu() AS cpu, pg_current_wal_insert_lsn() AS lsn \\gset
%(statement)s
SELECT bench_cpu() - :cpu, pg_current_wal_insert_lsn() - :'lsn'::pg_lsn, %(size)s;
"""


class Sample:
    """What one statement took: microseconds of CPU, bytes of WAL and of log."""

    def __init__(self, row):
        self.cpu, self.wal, self.log = (float(v) for v in row)


def statement(kind, table, copy_file):
    return {
        "INSERT": "INSERT INTO %s (%s) SELECT * FROM source;" % (table, who.NAMES),
        "UPDATE": "UPDATE %s SET quantity = quantity + 1;" % table,
        "DELETE": "DELETE FROM %s;" % table,
        "COPY": "COPY %s (%s) FROM '%s';" % (table, who.NAMES, copy_file),
    }[kind]


def empty_log(contestant):
    if contestant.log is None:
        return ""
    return "SELECT format('TRUNCATE %%s', %s) \\gexec\n" % contestant.log


def measured(contestant, sql):
    size = "0" if contestant.log is None else "pg_relation_size(%s)" % contestant.log
    return MEASURED % {"statement": sql, "size": size}


class Bulk:
    def __init__(self, server, contestants, rows):
        self.server = server
        self.contestants = contestants
        self.rows = rows
        self.copy_file = server.folder + "/orders.copy"
        self.sessions = {}
        server.psql("COPY source TO '%s'" % self.copy_file)
        for c in contestants:
            self.sessions[c.name] = Session(server)
            self.sessions[c.name].ask(WARM_UP % {"table": c.table, "names": who.NAMES})
        self.floor = Session(server)
        for c in (who.CHANGES, who.FULL):
            self.keep_entries(c)

    def close(self):
        for session in list(self.sessions.values()) + [self.floor]:
            session.close()

    def keep_entries(self, contestant):
        """Keep what a contestant logs of each kind, for the floor to insert."""
        session = self.sessions[contestant.name]
        for kind in ("INSERT", "UPDATE", "DELETE"):
            kept = "kept_%s_%s" % (contestant.name, kind)
            session.ask(empty_log(contestant) +
                        statement(kind, contestant.table, self.copy_file) +
                        "CREATE TABLE %s (LIKE rowkeeper_log.log);" % kept)
            session.ask("SELECT format('INSERT INTO %s SELECT * FROM %%s WHERE action = ''%s'''"
                        ", %s) \\gexec\n" % (kept, kind[0], contestant.log) +
                        empty_log(contestant))

    def measure(self, contestant, kind):
        session = self.sessions[contestant.name]
        session.ask(empty_log(contestant) +
                    ("TRUNCATE %s;" % contestant.table if kind in ("INSERT", "COPY") else ""))
        rows = session.ask(measured(contestant,
                                    statement(kind, contestant.table, self.copy_file)))
        session.ask(empty_log(contestant))
        return Sample(rows[-1])

    def measure_floor(self, contestant, kind):
        kept = "kept_%s_%s" % (contestant.name, "INSERT" if kind == "COPY" else kind)
        self.floor.ask(empty_log(contestant) +
                       "SELECT %s AS leaf, bench_load('%s') AS loaded \\gset" %
                       (contestant.log, kept))
        rows = self.floor.ask(measured(
            contestant, "SELECT bench_floor(:'leaf', %d) AS inserted \\gset" % BATCH))
        self.floor.ask(empty_log(contestant))
        return Sample(rows[-1])

    def round(self, number):
        """{(name, kind): sample}, the floors under "floor_<name>"."""
        self.server.psql("CHECKPOINT")
        result = {}
        runs = [(c.name, self.measure, c) for c in self.contestants
                if not c.peer or 0 < number <= PEER_ROUNDS]
        runs += [("floor_" + c.name, self.measure_floor, c) for c in (who.CHANGES, who.FULL)]
        for kind in KINDS:
            turn = number % len(runs)
            for name, measure, contestant in runs[turn:] + runs[:turn]:
                result[name, kind] = measure(contestant, kind)
        for c in self.contestants:
            self.sessions[c.name].ask("TRUNCATE %s;" % c.table)
        return result


def run(server, contestants, rows, rounds, say, results):
    """Append each round to results; the first is a warm-up and not counted."""
    bulk = Bulk(server, contestants, rows)
    for number in range(rounds + 1):
        say("bulk statements: %s" % ("warm-up" if number == 0 else
                                     "round %d of %d" % (number, rounds)))
        samples = bulk.round(number)
        if number > 0:
            results.append(samples)
    bulk.close()
