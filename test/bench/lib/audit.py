"""
Audit: what each way of keeping changes adds to the statements of a 12-column
table with a tenant column; actors come from app.user_id, the log is
partitioned by week as always.

Bulk: CPU is the backend's user and system time; what a contestant adds is its
time less that of the unaudited table in the same round; medians over rounds
after a warm-up, ratios taken within each round. Peers: one round.

Floor: the same log rows, finished, out of memory into the same leaf with the
same indexes in batches of 1000, through the server's own table_multi_insert()
and ExecInsertIndexTuples().

Instructions: of a single-user backend under callgrind, 20000 rows a statement;
they do not change with the load of the machine.

WAL: pg_current_wal_insert_lsn() across the statement; a CHECKPOINT begins each
round and every page is made after it, so there are no full page images
(full_page_writes stays on).

Single-row: pgbench -M prepared, runs in which each transaction is, by chance,
one on the unaudited table or one on the audited; the ratio of their average
latencies, median of the runs; of the targets' contestant three times as many
runs. The row of the unaudited table against itself is the noise; the floor inserts one
finished entry for each row, as above, from a row trigger.
"""

from . import bulk, contestants as who
from .figures import MB, Figures, spread
from .picture import draw


def targets(results):
    return Figures(results).targets()


def bulk_tables(figures, contestants):
    counted = [c for c in contestants if c.name != "none"]

    def line(title, name, cell, kinds=None):
        return [title] + [cell(name, kind) if kinds is None or kind in kinds else "-"
                          for kind in bulk.KINDS]

    def with_floor(cell):
        rows = []
        for c in counted:
            rows.append(line(c.title, c.name, cell, c.kinds))
            if c.name in ("changes", "full"):
                rows.append(line("  floor of these entries", "floor_" + c.name, cell))
        return rows

    def cpu(name, kind):
        return "%.2f (%.2f-%.2f)" % figures.cpu(name, kind)

    yield ("CPU added a row, microseconds (middle half of the rounds)",
           [""] + list(bulk.KINDS),
           [["(the unaudited statement itself)"] +
            ["%.2f" % figures.unaudited_cpu(k) for k in bulk.KINDS]] + with_floor(cpu))
    yield ("CPU added, in parts of empty trigger + floor",
           [""] + list(bulk.KINDS),
           [line(c.title, c.name, lambda n, k: "%.2f (%.2f-%.2f)" % figures.to_floor(n, k))
            for c in counted if c.name in ("changes", "full")])
    yield ("CPU the PL/pgSQL trigger adds, times that of",
           [""] + list(bulk.KINDS),
           [line(c.title, c.name, lambda n, k: "%.1f" % figures.to_plpgsql(n, k)[0])
            for c in counted if c.name in ("changes", "full")])
    yield ("WAL bytes added a row / bytes of log table a row",
           [""] + list(bulk.KINDS),
           with_floor(lambda n, k: "%.0f / %.0f" % (figures.wal(n, k), figures.log(n, k))))


def instructions_table(figures, contestants):
    rows = [[c.title] + ["%.0f" % figures.added_instructions(c.name, kind) for kind in bulk.KINDS]
            for c in contestants if c.name != "none" and not c.peer]
    rows.append(["floor of the entries of rowkeeper, changes"] +
                ["%.0f" % figures.added_instructions("floor", kind) for kind in bulk.KINDS])
    yield "Instructions added a row", [""] + list(bulk.KINDS), rows


def single_table(results, contestants):
    single = results["single"]
    columns = [(kind, clients) for kind in ("UPDATE", "INSERT") for clients in (1, 2)]
    rows = []
    for c in contestants + [who.FLOOR]:
        cells = ["%.3f (%.2f-%.2f)" % spread(single[c.name, k, n][0])
                 if (c.name, k, n) in single else "-" for k, n in columns]
        if any(cell != "-" for cell in cells):
            rows.append([c.title] + cells)
    rows.append(["(unaudited transactions a second)"] +
                ["%.0f" % single["changes", k, n][1] if ("changes", k, n) in single else "-"
                 for k, n in columns])
    yield ("Single-row transactions, part of the unaudited rate (middle half of the runs)",
           [""] + ["%s, %d client%s" % (k, n, "s" if n > 1 else "") for k, n in columns], rows)


def other_tables(results):
    if results["memory"]:
        titles = {"none": "no audit", "empty": "empty C row trigger", "changes": "rowkeeper, changes"}
        yield ("Memory (RssAnon) that an UPDATE of %d rows adds" % results["options"].memory_rows,
               ["", "MB"], [[titles[n], "%.1f" % (kb / MB)] for n, kb in results["memory"].items()])
    if results["history"]:
        yield ("audit_history() of one row",
               ["leaves with entries", "all leaves", "entries in the log", "entries of the row",
                "warm median, ms", "first call of a session, ms", "sequential scans"],
               [[str(leaves), str(h["all_leaves"]), str(h["entries"]), str(h["entries_of_row"]),
                 "%.2f" % h["median"], "%.2f" % h["first"], str(h["seq_scans"])]
                for leaves, h in results["history"].items()])


def tables(results):
    figures = Figures(results)
    if results["bulk"]:
        yield from bulk_tables(figures, results["contestants"])
    if results["instructions"]:
        yield from instructions_table(figures, results["contestants"])
    if results["single"]:
        yield from single_table(results, results["contestants"])
    yield from other_tables(results)


def picture(results):
    return draw(Figures(results), results)
