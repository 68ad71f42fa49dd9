"""Single-row transactions: how many a second are left of the unaudited ones."""

import os
import statistics

from . import contestants as who

UPDATE = """\\set id random(1, %(rows)d)
UPDATE %(table)s SET quantity = quantity + 1 WHERE id = :id;
"""

# The table's key is the sequence's next: runs of any length, no conflicts.
INSERT = """INSERT INTO %(table)s (%(names)s)
VALUES (nextval('%(table)s_ids'), 7, 42, 'new', 1, 10.50, 'EUR', 'order by phone',
        '{"channel": "web", "coupon": 7, "gift": false}', false, now(), NULL);
"""

SCRIPTS = {"UPDATE": UPDATE, "INSERT": INSERT}


def prepare(server, contestant, rows):
    """Fill its table and write its pgbench scripts."""
    table = contestant.table
    server.psql("""
        SET client_min_messages = warning;
        TRUNCATE %(table)s;
        INSERT INTO %(table)s (%(names)s) SELECT * FROM source LIMIT %(rows)d;
        CREATE SEQUENCE %(table)s_ids START 1000000000 CACHE 100;
        VACUUM ANALYZE %(table)s;
        """ % {"table": table, "names": who.NAMES, "rows": rows})
    for kind, script in SCRIPTS.items():
        with open(script_of(server, contestant, kind), "w") as file:
            file.write("SET app.user_id = 'bench' \\;\n" if False else "")
            file.write(script % {"table": table, "names": who.NAMES, "rows": rows})


def script_of(server, contestant, kind):
    return os.path.join(server.folder, "%s_%s.pgbench" % (contestant.name, kind.lower()))


def measure(server, contestants, kind, clients, pairs, seconds):
    """{name: ratios}: each pair is a run without audit and one with, next to each other."""
    ratios = {c.name: [] for c in contestants}
    tps = []
    for pair in range(pairs):
        for i, contestant in enumerate(contestants):
            both = [who.NONE, contestant]
            if (pair + i) % 2:
                both.reverse()
            done = {c.name: server.pgbench(script_of(server, c, kind), clients, seconds)
                    for c in both}
            ratios[contestant.name].append(done[contestant.name] / done["none"])
            tps.append(done["none"])
    return ratios, statistics.median(tps)
