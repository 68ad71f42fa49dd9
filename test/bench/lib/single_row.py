"""Single-row transactions: what part of the unaudited rate is left."""

import os
import statistics

from . import contestants as who

TARGET_RUNS = 3                 # times as many runs where there is a target

UPDATE = """\\set id random(1, %(rows)d)
UPDATE %(table)s SET quantity = quantity + 1 WHERE id = :id;
"""

INSERT = """INSERT INTO %(table)s (%(names)s)
VALUES (nextval('%(table)s_ids'), 7, 42, 'new', 1, 10.50, 'EUR', 'order by phone',
        '{"channel": "web", "coupon": 7, "gift": false}', false, now(), NULL);
"""

SCRIPTS = {"UPDATE": UPDATE, "INSERT": INSERT}


def script_file(server, contestant, kind):
    return os.path.join(server.folder, "%s_%s.pgbench" % (contestant.name, kind))


def prepare(server, contestant, rows):
    """Fill its table and write its scripts."""
    names = {"table": contestant.table, "names": who.NAMES, "rows": rows}
    server.psql("""
        SET client_min_messages = warning;
        TRUNCATE %(table)s;
        INSERT INTO %(table)s (%(names)s) SELECT * FROM source LIMIT %(rows)d;
        CREATE SEQUENCE %(table)s_ids START 1000000000 CACHE 100;
        VACUUM ANALYZE %(table)s;
        """ % names)
    for kind, script in SCRIPTS.items():
        with open(script_file(server, contestant, kind), "w") as file:
            file.write(script % names)


def measure(server, contestant, kind, clients, runs, seconds):
    """Parts of the unaudited rate, one a run that does both by turns; the unaudited rate alone."""
    ratios = []
    rates = []
    scripts = [script_file(server, c, kind) for c in (who.NONE, contestant)]
    for _ in range(runs):
        unaudited, measured = server.pgbench_latencies(scripts, clients, seconds)
        ratios.append(unaudited / measured)
        rates.append(1000 * clients / unaudited)
    return ratios, statistics.median(rates)


def run(server, contestants, rows, runs, seconds, say, result):
    """
    The unaudited table is measured against itself too: that is the noise.

    Fill result: {(name, kind, clients): (ratios, unaudited rate)}
    """
    server.psql("ALTER DATABASE bench SET app.user_id = 'bench'")
    for c in contestants:
        prepare(server, c, min(rows, 100000))
    server.psql(who.FLOOR.create())
    prepare(server, who.FLOOR, min(rows, 100000))
    server.psql("CHECKPOINT")
    targeted = (who.CHANGES, who.FLOOR, who.NONE)
    for contestant in sorted(contestants + [who.FLOOR], key=lambda c: c not in targeted):
        for kind in SCRIPTS:
            if contestant.kinds is not None and kind not in contestant.kinds:
                continue
            for clients in (1,) if contestant.peer else (1, 2):
                say("single-row %s, %d client%s: %s"
                    % (kind, clients, "s" if clients > 1 else "", contestant.title))
                result[contestant.name, kind, clients] = measure(
                    server, contestant, kind, clients,
                    runs * TARGET_RUNS if contestant in targeted else runs, seconds)
