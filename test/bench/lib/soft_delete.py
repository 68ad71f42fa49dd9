"""
Soft delete. Flag mode: DELETE through the view against the UPDATE that people
write by hand, in bulk and row by row; what an ordinary UPDATE and a SELECT of
a soft-deletable table cost more. Trash mode: a DELETE against that UPDATE in
bulk, and row by row against a DELETE and an INSERT of the same row into a
plain table with the columns and indexes of the trash, in one transaction.

Tables of the same columns, one for each mode and one without soft delete.
Each round fills both anew, because a row can be deleted once only. A CHECKPOINT
begins it, so that the WAL goes to files of rounds before, as it does on a
server that has run for a while, and their making is not measured. Rounds take
the statements in turn, and ratios are of one round; the bulk statements are
then counted in instructions.
"""

import os
import shutil

from .figures import median, spread
from .instructions import counted, read_counts, run_script
from .server import Session
from .stamp import COLUMNS as ORDER_COLUMNS

COLUMNS = ORDER_COLUMNS + """,
    deleted_at  timestamptz,
    deleted_by  text,
    delete_batch bigint"""

SETUP = """
SET client_min_messages = warning;
CREATE TABLE deleted_hand (%(columns)s);
CREATE TABLE deleted_flag (LIKE deleted_hand INCLUDING ALL);
CREATE TABLE deleted_trash (LIKE deleted_hand INCLUDING ALL);
SELECT rowkeeper.soft_delete('deleted_flag') \\g /dev/null
SELECT rowkeeper.soft_delete('deleted_trash', mode => 'trash') \\g /dev/null
CREATE TABLE deleted_copy (LIKE rowkeeper_trash.public__deleted_trash INCLUDING INDEXES);
""" % {"columns": COLUMNS}

FILL = """
SET session_replication_role = replica;
TRUNCATE %(table)s, deleted_copy, rowkeeper_trash.public__deleted_trash;
INSERT INTO %(table)s SELECT id, tenant_id, customer_id, status, quantity, total, currency,
    note, details, created_at FROM source LIMIT %(rows)d;
VACUUM ANALYZE %(table)s;
RESET session_replication_role;
"""

# name: table, title, statement
STATEMENTS = {
    "delete_hand": ("deleted_hand", "UPDATE ... SET deleted_at = now(), no soft delete",
                    "UPDATE deleted_hand SET deleted_at = now() WHERE deleted_at IS NULL%s"),
    "delete_view": ("deleted_flag", "DELETE through the view",
                    "DELETE FROM active_deleted_flag WHERE true%s"),
    "delete_native": ("deleted_flag", "UPDATE ... SET deleted_at = now(), soft delete",
                      "UPDATE deleted_flag SET deleted_at = now() WHERE deleted_at IS NULL%s"),
    "delete_trash": ("deleted_trash", "DELETE, trash mode",
                     "DELETE FROM deleted_trash WHERE true%s"),
    "update_hand": ("deleted_hand", "ordinary UPDATE, no soft delete",
                    "UPDATE deleted_hand SET quantity = quantity + 1 WHERE deleted_at IS NULL%s"),
    "update_flag": ("deleted_flag", "ordinary UPDATE, soft delete",
                    "UPDATE deleted_flag SET quantity = quantity + 1 WHERE deleted_at IS NULL%s"),
    "select_hand": ("deleted_flag", "SELECT ... WHERE deleted_at IS NULL",
                    "SELECT count(note), sum(total) FROM deleted_flag WHERE deleted_at IS NULL%s"),
    "select_view": ("deleted_flag", "SELECT from the view",
                    "SELECT count(note), sum(total) FROM active_deleted_flag WHERE true%s"),
}

SINGLE = {
    "hand": ("deleted_hand", "UPDATE deleted_hand SET deleted_at = now()"
             " WHERE id = :id AND deleted_at IS NULL;"),
    "view": ("deleted_flag", "DELETE FROM active_deleted_flag WHERE id = :id;"),
    "trash": ("deleted_trash", "DELETE FROM deleted_trash WHERE id = :id;"),
    # in one message, as one transaction
    "moved": ("deleted_hand", "\\startpipeline\nDELETE FROM deleted_hand WHERE id = :id;\n"
              "INSERT INTO deleted_copy (_batch, _deleted_at, id, tenant_id, customer_id, status, quantity,"
              " total, currency, note, details, created_at, updated_at, version, _deleted_by, _deleted_via,"
              " _db_user) VALUES (:id, now(), :id, 1, 1, 'paid', 1, 1, 'EUR', 'order number 1000 by phone',"
              " '{\"channel\": \"web\", \"coupon\": 1, \"gift\": false}', now(), now(), 1, 'bench',"
              " 'setting', 'postgres');\n\\endpipeline"),
}

# what, of what, limit, title
SINGLE_TARGETS = (
    ("view", "hand", 1.6, "Single-row DELETE through the view, in parts of a hand-written UPDATE"),
    ("trash", "moved", 1.15, "Single-row DELETE in trash mode, in parts of a DELETE and an INSERT"),
)

# what, of what, limit, title
TARGETS = (
    ("delete_view", "delete_hand", 1.6, "Bulk DELETE through the view, in parts of a hand-written UPDATE"),
    ("delete_trash", "delete_hand", 0.5, "Bulk DELETE in trash mode, in parts of a hand-written UPDATE"),
    ("update_flag", "update_hand", 1.1, "Ordinary UPDATE of a soft-deletable table, in parts of the same without"),
    ("select_view", "select_hand", 1.05, "SELECT through the view, in parts of the hand-written WHERE"),
)
PLANS = (
    "SELECT * FROM %s WHERE id = 42%s",
    "SELECT customer_id, sum(total) FROM %s WHERE tenant_id = 7%s GROUP BY customer_id",
)


def fill(server, table, rows):
    server.psql(FILL % {"table": table, "rows": rows})


def time_rounds(server, rows, rounds, say, result):
    session = Session(server)
    names = list(STATEMENTS)
    for number in range(rounds + 1):
        say("soft delete: %s" % ("warm-up" if number == 0 else "round %d of %d" % (number, rounds)))
        turn = number % len(names)
        sample = {}
        server.psql("CHECKPOINT")
        for name in names[turn:] + names[:turn]:
            table, _, statement = STATEMENTS[name]
            fill(server, table, rows)
            answer = session.ask("SELECT bench_cpu() AS cpu \\gset\n%s\\g /dev/null\n"
                                 "SELECT bench_cpu() - :cpu;" % (statement % ""))
            sample[name] = float(answer[-1][0]) / rows
        if number > 0:
            result.append(sample)
    session.close()


def count_instructions(server, rows, say, result):
    if shutil.which("valgrind") is None or server.value("SELECT bench_mark('')") != "t":
        say("soft delete: instructions are left out, valgrind is not installed")
        return
    say("soft delete: instructions, %d rows" % rows)
    script = []
    for name, (table, _, statement) in STATEMENTS.items():
        fill_script = [s.strip() for s in (FILL % {"table": table, "rows": 2 * rows}).split(";") if s.strip()]
        # the first half warms up
        script += fill_script + [statement % (" AND id <= %d" % rows)] \
            + counted(name, statement % (" AND id > %d" % rows))
    server.pg_ctl("stop")
    counts = read_counts(run_script(server, script))
    server.pg_ctl("start")
    for name in STATEMENTS:
        result[name] = counts[name] / rows


def single_rows(server, rows, pairs, seconds, say, result):
    """Ratios of rates, by what is measured: above 1, it is slower than the other."""
    files = {}
    for name, (_, statement) in SINGLE.items():
        files[name] = os.path.join(server.folder, "soft_delete_%s.pgbench" % name)
        with open(files[name], "w") as file:
            file.write("\\set id :id + 1\n" + statement + "\n")
    for pair in range(pairs):
        say("soft delete: single rows, %d of %d" % (pair + 1, pairs))
        for what, of, _, _ in SINGLE_TARGETS:
            rate = {}
            for name in (of, what) if pair % 2 else (what, of):
                fill(server, SINGLE[name][0], rows)
                rate[name] = server.pgbench(files[name], 1, seconds, ["-D", "id=0"])
            result.setdefault(what, []).append(rate[of] / rate[what])


def same_plans(server):
    """Whether queries of the view have the plans of the table's with the WHERE."""
    def plan(sql):
        # columns are shown with their table where the view is a relation beside it
        return str(server.psql("EXPLAIN (COSTS off) " + sql)).replace("deleted_flag.", "")

    server.psql("CREATE INDEX IF NOT EXISTS deleted_flag_live ON deleted_flag (tenant_id, customer_id)"
                " WHERE deleted_at IS NULL")
    same = all(plan(sql % ("active_deleted_flag", "")) == plan(sql % ("deleted_flag", " AND deleted_at IS NULL"))
               for sql in PLANS)
    server.psql("DROP INDEX deleted_flag_live")
    return same


def run(server, rows, rounds, seconds, counted_rows, say, result):
    """
    Fill result: "rounds", each {name: microseconds a row}; "single", {name: ratios};
    "instructions", {name: a row}; "same_plans".
    """
    server.psql(SETUP)
    result.update(rounds=[], single={}, instructions={})
    fill(server, "deleted_flag", rows)
    result["same_plans"] = same_plans(server)
    time_rounds(server, rows, rounds, say, result["rounds"])
    single_rows(server, rows, rounds, seconds, say, result["single"])
    count_instructions(server, min(counted_rows, rows // 2), say, result["instructions"])


# ---- figures ----

def row(title, value, limit):
    return [title, "%.2f" % value, "at most %.2f" % limit, "yes" if value <= limit else "NO"]


def targets(results):
    result = results["soft_delete"]
    if not result:
        return
    for what, of, limit, title in TARGETS:
        if result["rounds"]:
            yield row("CPU: " + title, median([r[what] / r[of] for r in result["rounds"]]), limit)
        if result["instructions"]:
            yield row("instructions: " + title, result["instructions"][what] / result["instructions"][of], limit)
    for what, _, limit, title in SINGLE_TARGETS:
        if what in result["single"]:
            yield row(title, median(result["single"][what]), limit)
    if "same_plans" in result:
        yield ["SELECT through the view has the plan of the hand-written WHERE",
               "yes" if result["same_plans"] else "no", "yes", "yes" if result["same_plans"] else "NO"]


def tables(results):
    result = results["soft_delete"]
    if not result or not result["rounds"]:
        return
    rows = []
    for name, (_, title, _) in STATEMENTS.items():
        count = result["instructions"].get(name)
        rows.append([title, "%.2f (%.2f-%.2f)" % spread([r[name] for r in result["rounds"]]),
                     "-" if count is None else "%.0f" % count])
    yield ("Soft delete, a row",
           ["", "CPU, microseconds (middle half)", "instructions"], rows)
