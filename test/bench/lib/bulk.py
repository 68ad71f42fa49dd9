"""Bulk statements: CPU time, WAL and log bytes added a row."""

from . import contestants as who

KINDS = ("INSERT", "UPDATE", "DELETE", "COPY")
BATCH = 1000                    # as FLUSH_ENTRIES in src/core/changes.c


def statements(table, copy_file):
    return {
        "INSERT": "INSERT INTO %s (%s) SELECT * FROM source;" % (table, who.NAMES),
        "UPDATE": "UPDATE %s SET quantity = quantity + 1;" % table,
        "DELETE": "DELETE FROM %s;" % table,
        "COPY": "COPY %s (%s) FROM '%s';" % (table, who.NAMES, copy_file),
    }


START = """
SELECT bench_cpu() AS cpu, pg_current_wal_insert_lsn() AS lsn, pg_stat_force_next_flush() \\gset
"""

STOP = """
SELECT '%(kind)s', bench_cpu() - :cpu, pg_current_wal_insert_lsn() - :'lsn'::pg_lsn, %(log)s;
"""

# The caches of a session are filled before anything is measured.
WARM_UP = """
SET app.user_id = 'bench';
INSERT INTO %(table)s (%(names)s) SELECT * FROM source LIMIT 1;
UPDATE %(table)s SET quantity = quantity + 1;
DELETE FROM %(table)s;
"""


def truncate(contestant):
    sql = "TRUNCATE %s;\n" % contestant.table
    if contestant.log is not None:
        sql += "SELECT format('TRUNCATE %%s', %s) \\gexec\n" % contestant.log
    return sql


def size_of(contestant):
    return "0" if contestant.log is None else "pg_relation_size(%s)" % contestant.log


def measure(server, contestant, copy_file):
    """One session: every kind of statement once. {kind: (cpu, wal, log bytes)}"""
    sql = statements(contestant.table, copy_file)
    script = "SET client_min_messages = warning;\n"
    script += WARM_UP % {"table": contestant.table, "names": who.NAMES}
    for kind in KINDS:
        if kind in ("INSERT", "COPY"):
            script += "TRUNCATE %s;\n" % contestant.table
        if contestant.log is not None:
            script += "SELECT format('TRUNCATE %%s', %s) \\gexec\n" % contestant.log
        script += START + sql[kind] + STOP % {"kind": kind, "log": size_of(contestant)}
    script += truncate(contestant)
    return {row[0]: tuple(float(v) for v in row[1:]) for row in server.psql(script)}


def keep_entries(server, contestant, copy_file):
    """Keep what a contestant logs of each kind, for the floor to insert."""
    script = "SET client_min_messages = warning;\n"
    script += WARM_UP % {"table": contestant.table, "names": who.NAMES}
    sql = statements(contestant.table, copy_file)
    for kind in ("INSERT", "UPDATE", "DELETE"):
        kept = "kept_%s_%s" % (contestant.name, kind.lower())
        script += "SELECT format('TRUNCATE %%s', %s) \\gexec\n" % contestant.log
        script += sql[kind]
        script += "CREATE TABLE %s (LIKE rowkeeper_log.log);\n" % kept
        script += ("SELECT format('INSERT INTO %s SELECT * FROM %%s WHERE action = ''%s''', %s)"
                   " \\gexec\n" % (kept, kind[0], contestant.log))
    server.psql(script + truncate(contestant))


def measure_floor(server, contestant):
    """The floor under what a contestant logs."""
    result = {}
    for kind in ("INSERT", "UPDATE", "DELETE"):
        rows = server.psql("""
            SELECT format('TRUNCATE %%s', %(leaf)s) \\gexec
            SELECT %(leaf)s AS leaf \\gset
            SELECT bench_load('kept_%(name)s_%(lower)s') > 0 AS loaded \\gset
            %(start)s
            SELECT bench_floor(:'leaf', %(batch)d) AS inserted \\gset
            %(stop)s
            """ % {"leaf": contestant.log, "name": contestant.name, "lower": kind.lower(),
                   "batch": BATCH, "start": START,
                   "stop": STOP % {"kind": kind, "log": size_of(contestant)}})
        result[kind] = tuple(float(v) for v in rows[-1][1:])
    result["COPY"] = result["INSERT"]
    return result
