"""Memory of the backend (RssAnon) at one statement that updates very many rows."""

import select
import time

from . import contestants as who
from .server import Session

SETUP = """
SET client_min_messages = warning;
CREATE TABLE narrow (id bigint PRIMARY KEY, n integer NOT NULL);
INSERT INTO narrow SELECT i, 0 FROM generate_series(1, %d) i;
VACUUM narrow;
"""

# name: what is put on the table, and what takes it off again
TRIGGERS = {
    "none": ("", ""),
    "empty": ("CREATE TRIGGER t AFTER UPDATE ON narrow"
              " FOR EACH ROW EXECUTE FUNCTION bench_empty_trigger();", "DROP TRIGGER t ON narrow;"),
    "changes": ("SELECT rowkeeper.audit('narrow') \\g /dev/null",
                "SELECT rowkeeper.audit_off('narrow') \\g /dev/null"),
}


def anonymous_kb(pid):
    with open("/proc/%d/status" % pid) as status:
        for line in status:
            if line.startswith("RssAnon"):
                return int(line.split()[1])
    raise RuntimeError("no RssAnon in /proc/<pid>/status")


def peak(server, rows):
    """Kilobytes the statement added at its peak, sampled every 10 ms."""
    session = Session(server)
    session.ask("SELECT count(*) FROM narrow WHERE id < 10; SELECT rowkeeper.actor();")
    before = anonymous_kb(session.pid)
    highest = before
    session.send("UPDATE narrow SET n = n + 1;")
    while not select.select([session.process.stdout], [], [], 0.01)[0]:
        highest = max(highest, anonymous_kb(session.pid))
    session.answer()
    session.close()
    return highest - before


def run(server, rows, say, result):
    """Fill result: {name: kilobytes}"""
    say("memory: preparing %d rows" % rows)
    server.psql(SETUP % rows)
    for name, (on, off) in TRIGGERS.items():
        say("memory: UPDATE of %d rows, %s" % (rows, name))
        server.psql("SET client_min_messages = warning;" + on)
        result[name] = peak(server, rows)
        server.psql("SET client_min_messages = warning;" + off)
        server.psql("VACUUM narrow")
        server.psql("CHECKPOINT")
    server.psql("DROP TABLE narrow")
    server.psql("SELECT format('TRUNCATE %%s', %s) \\gexec" % who.LEAF)
