"""
The history of one row in a large log: entries are written straight into many
weekly leaves, as years of use would have left them, and then asked for through
audit_history() by a warm session. Sequential scans of leaves are counted.
"""

import os
import re
import statistics

from .server import run as run_command

KEYS_ASKED = 100

SETUP = """
SET TimeZone = 'UTC';
SET client_min_messages = warning;
CREATE EXTENSION rowkeeper CASCADE;
CREATE TABLE item (id bigint PRIMARY KEY, n integer);
INSERT INTO item SELECT i, 0 FROM generate_series(1, %(keys)d) i;
SELECT rowkeeper.audit('item') \\g /dev/null

CREATE TEMP TABLE week AS
SELECT n, monday, 'log_c0_p' || to_char(monday, 'YYYYMMDD') AS leaf
FROM generate_series(0, %(leaves)d - 1) n,
     date(date_trunc('week', now() AT TIME ZONE 'UTC')::date - 7 * (%(leaves)d - 1 - n)) monday;

SELECT format('CREATE TABLE rowkeeper_log.%%1$I (LIKE rowkeeper_log.log_overflow INCLUDING ALL);
    ALTER TABLE rowkeeper_log.%%1$I ENABLE ROW LEVEL SECURITY;
    ALTER TABLE rowkeeper_log.%%1$I REPLICA IDENTITY FULL;
    ALTER TABLE rowkeeper_log.log_c0 ATTACH PARTITION rowkeeper_log.%%1$I
        FOR VALUES FROM (''%%2$s 00:00:00+00'') TO (''%%3$s 00:00:00+00'')',
    leaf, monday, monday + 7)
FROM week WHERE to_regclass('rowkeeper_log.' || leaf) IS NULL ORDER BY n \\gexec

SELECT table_id, from_id AS first_id FROM rowkeeper_log.tables WHERE relation = 'item'::regclass \\gset
SELECT %(entries)d / %(leaves)d AS per_leaf \\gset

-- one who-record a leaf, then its entries: updates of rows all over the table
SELECT format('INSERT INTO rowkeeper_log.%%1$I
    SELECT id, ''%%2$s''::timestamptz + i * interval ''0.1 second'', 1000 + i / 5, %%3$s, %%4$s,
           key, ''U'', 0, jsonb_build_object(''id'', key), jsonb_build_object(''n'', 1),
           jsonb_build_object(''n'', 2)
    FROM (SELECT i, %%3$s + i AS id, ((%%5$s::bigint + i) * 7919 %%%% %(keys)d + 1)::int AS key
          FROM generate_series(1, %%6$s) i) e
    UNION ALL
    SELECT %%3$s, ''%%2$s'', 1000, %%3$s, 0, (%%3$s & 2147483647)::int, ''w'', 0, NULL, NULL,
           ''{"actor": "bench", "actor_source": "setting", "db_user": "postgres", "db_role": "postgres"}''',
    leaf, monday,
    :first_id + 64 + n * (:per_leaf + 64), :table_id, n * :per_leaf, :per_leaf)
FROM week ORDER BY n \\gexec
SELECT setval('rowkeeper_log.log_id', :first_id + (%(leaves)d + 1) * (:per_leaf + 64)) \\g /dev/null
"""

SCANS = """SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_user_tables
WHERE relid IN (SELECT relid FROM pg_partition_tree('rowkeeper_log.log'))"""

SCRIPT = """\\set id random(1, %d)
SELECT * FROM rowkeeper.audit_history('item', :id);
"""


def latencies(server, database, script, transactions):
    """Milliseconds of each transaction, in order, as the client saw them."""
    prefix = os.path.join(server.folder, "history-latency")
    run_command([server.bin + "/pgbench", "-n", "-M", "prepared", "-t", str(transactions),
                 "-f", script, "-l", "--log-prefix=" + prefix, database],
                env=server.environment())
    times = []
    for name in os.listdir(server.folder):
        if re.match(r"history-latency\.\d+$", name):
            path = os.path.join(server.folder, name)
            with open(path) as log:
                times += [int(line.split()[2]) / 1000.0 for line in log]
            os.remove(path)
    return times


def measure(server, entries, leaves, say):
    database = "history"
    say("history: writing %d entries into %d leaves" % (entries, leaves))
    server.psql("CREATE DATABASE %s" % database)
    server.psql(SETUP % {"entries": entries, "leaves": leaves, "keys": entries // 10}, database)
    server.psql("VACUUM ANALYZE", database)
    server.psql("CHECKPOINT")

    script = os.path.join(server.folder, "history.pgbench")
    with open(script, "w") as file:
        file.write(SCRIPT % KEYS_ASKED)
    say("history: asking")
    before = int(server.value(SCANS, database))
    times = latencies(server, database, script, 2000)
    after = int(server.value(SCANS, database))
    result = {
        "entries": int(server.value("SELECT count(*) FROM rowkeeper_log.log", database)),
        "entries_of_row": int(server.value(
            "SELECT count(*) FROM rowkeeper.audit_history('item', 42)", database)),
        "all_leaves": int(server.value(
            "SELECT count(*) FROM pg_partition_tree('rowkeeper_log.log_c0') WHERE isleaf", database)),
        "first": times[0],
        "median": statistics.median(times[500:]),
        "seq_scans": after - before,
    }
    server.psql("DROP DATABASE %s" % database)
    return result


def run(server, entries, say, result):
    """Fill result: {leaves: measured}"""
    for leaves in (26, 156):
        result[leaves] = measure(server, entries, leaves, say)
