"""
The same bulk statements counted in instructions of the backend.

CPU time on a shared machine is noisy, the instructions of one backend are not:
two runs differ by less than a hundredth. The statements run in a single-user
backend under valgrind's callgrind, which writes a count at each
bench_mark('what'). Instructions say nothing of cache misses and of what the
kernel does, so they stand beside the times and do not replace them.
"""

import glob
import re
import shutil

from . import contestants as who
from .bulk import BATCH, KINDS, WARM_UP, statement
from .server import Failed, run as run_command

HEADER = "/usr/include/valgrind/callgrind.h"
UNCOUNTED = "uncounted"


def mark(what):
    return "SELECT bench_mark('%s')" % what


def counted(what, sql):
    return [mark(UNCOUNTED), sql, mark(what)]


def contestant_script(contestant, leaf, rows, copy_file):
    """Every kind of statement on its table, the log empty before each."""
    table = contestant.table
    warm_up = WARM_UP % {"table": table, "names": who.NAMES}
    script = ["TRUNCATE " + table] + [s.strip() for s in warm_up.split(";")[1:] if s.strip()]
    for kind in KINDS:
        sql = statement(kind, table, copy_file).rstrip(";")
        if kind == "INSERT":
            sql += " LIMIT %d" % rows
        script += ["TRUNCATE " + leaf]
        script += counted("%s %s" % (contestant.name, kind), sql)
        if contestant is who.CHANGES and kind != "COPY":
            script += ["DROP TABLE IF EXISTS counted_%s" % kind,
                       "CREATE TABLE counted_%s (LIKE rowkeeper_log.log)" % kind,
                       "INSERT INTO counted_%s SELECT * FROM %s WHERE action = '%s'"
                       % (kind, leaf, kind[0])]
    return script


def floor_script(leaf):
    script = []
    for kind in KINDS:
        kept = "counted_" + ("INSERT" if kind == "COPY" else kind)
        script += ["TRUNCATE " + leaf, "SELECT bench_load('%s')" % kept]
        script += counted("floor " + kind, "SELECT bench_floor('%s', %d)" % (leaf, BATCH))
    return script


def run_script(server, script):
    """Run statements in a single-user backend that is counted."""
    prefix = server.folder + "/callgrind.out"
    shown = run_command(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=" + prefix, server.bin + "/postgres",
         "--single", "-j", "-D", server.data, "-c", "app.user_id=bench", "bench"],
        server.user, input="".join(sql + ";\n\n" for sql in script))
    if "ERROR:" in shown:
        raise Failed("counting instructions:\n" + shown[-2000:])
    return prefix


def read_counts(prefix):
    """{label: instructions} from callgrind's files, one for each mark."""
    counts = {}
    for path in glob.glob(prefix + ".*"):
        with open(path) as file:
            text = file.read()
        label = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.M)
        total = re.search(r"^(?:summary|totals): (\d+)", text, re.M)
        if label and total:
            counts[label.group(1).strip()] = int(total.group(1))
    return counts


def run(server, contestants, rows, say, result):
    """Fill result: {(name, kind): instructions a row}; nothing where valgrind is missing."""
    if shutil.which("valgrind") is None or server.value("SELECT bench_mark('')") != "t":
        say("instructions: left out, valgrind is not installed")
        return
    say("instructions of bulk statements, %d rows" % rows)
    leaf = server.value("SELECT %s" % who.LEAF)
    copy_file = server.folder + "/counted.copy"
    server.psql("COPY (SELECT * FROM source LIMIT %d) TO '%s'" % (rows, copy_file))
    script = []
    for contestant in contestants:
        script += contestant_script(contestant, leaf, rows, copy_file)
    server.pg_ctl("stop")
    counts = read_counts(run_script(server, script + floor_script(leaf)))
    server.pg_ctl("start")
    for label, count in counts.items():
        if label != UNCOUNTED:
            result[tuple(label.split(" "))] = count / rows
