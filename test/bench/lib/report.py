"""The results as text, as RESULTS.md and (picture.py) as an SVG."""

import os
import platform

from . import bulk, convert, partition, soft_delete, split, stamp, tenant
from .figures import MB, Figures, spread
from .picture import draw
from .single_row import TARGET_PAIRS


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
    for c in contestants:
        cells = ["%.3f (%.2f-%.2f)" % spread(single[c.name, k, n][0])
                 if (c.name, k, n) in single else "-" for k, n in columns]
        if any(cell != "-" for cell in cells):
            rows.append([c.title] + cells)
    rows.append(["(unaudited transactions a second)"] +
                ["%.0f" % single["changes", k, n][1] if ("changes", k, n) in single else "-"
                 for k, n in columns])
    yield ("Single-row transactions, part of the unaudited rate (middle half of the pairs)",
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
    yield ("Targets", ["", "measured", "target", "met"],
           [list(r) for r in figures.targets()] + list(stamp.targets(results))
           + list(soft_delete.targets(results))
           + list(tenant.targets(results)) + list(partition.targets(results)))
    if results["bulk"]:
        yield from bulk_tables(figures, results["contestants"])
    if results["instructions"]:
        yield from instructions_table(figures, results["contestants"])
    if results["single"]:
        yield from single_table(results, results["contestants"])
    yield from stamp.tables(results)
    yield from soft_delete.tables(results)
    yield from tenant.tables(results)
    yield from partition.tables(results)
    yield from convert.tables(results)
    yield from split.tables(results)
    yield from other_tables(results)


def processor():
    try:
        with open("/proc/cpuinfo") as info:
            for line in info:
                if line.startswith("model name"):
                    return line.split(":")[1].strip()
    except OSError:
        pass
    return platform.machine()


def conditions(results):
    options = results["options"]
    peers = "%d round" % bulk.PEER_ROUNDS if any(c.peer for c in results["contestants"]) \
        else "not measured"
    partial = [] if options.complete else [
        "This was not a complete run (interrupted, --quick, or parts of it only)."]
    return partial + [
        "Load average when it began: %.1f; above 0.5 something else was running, and small "
        "differences mean nothing. Single-row: the row of the unaudited table against itself is "
        "the noise." % options.load,
        "%s, %d cores, Linux; PostgreSQL %s; fsync on, synchronous_commit on, jit and autovacuum off."
        % (processor(), os.cpu_count(), results["server"]),
        "Bulk: %d rows of a 12-column table a statement, %d rounds after a warm-up. CPU is the "
        "backend's user and system time; what a contestant adds is its time less that of the "
        "unaudited table in the same round; medians over rounds, ratios taken within each round. "
        "Peers: %s." % (options.rows, len(results["bulk"]), peers),
        "Floor: the same log rows, finished, out of memory into the same leaf with the same indexes "
        "in batches of %d, through the server's own table_multi_insert() and ExecInsertIndexTuples()."
        % bulk.BATCH,
        "Instructions: of a single-user backend under callgrind, 20000 rows a statement; they do "
        "not change with the load of the machine.",
        "WAL: pg_current_wal_insert_lsn() across the statement; a CHECKPOINT begins each round and "
        "every page is made after it, so there are no full page images "
        "(full_page_writes stays on).",
        "Single-row: pgbench -M prepared, %d pairs (of peers and others %d) of runs of %d s, one "
        "without and one with audit next to each other; median of the pairs' ratios."
        % (options.pairs * TARGET_PAIRS, options.pairs, options.seconds),
        "The audited table has a tenant column, actors come from app.user_id, the log is "
        "partitioned by week as always.",
    ]


def text_table(title, header, rows):
    widths = [max(len(str(row[i])) for row in [header] + rows) for i in range(len(header))]
    lines = [title, ""]
    for row in [header] + rows:
        lines.append("  " + "  ".join(
            str(cell).ljust(width) if i == 0 else str(cell).rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))).rstrip())
    return "\n".join(lines) + "\n"


def text(results):
    return "\n".join(text_table(*table) for table in tables(results))


def write_markdown(results, path):
    with open(path, "w") as file:
        file.write("# Results of test/bench/run\n\nWritten by `test/bench/run`; do not edit.\n\n")
        for condition in conditions(results):
            file.write("- %s\n" % condition)
        file.write("\n![CPU and rates](result.svg)\n")
        for title, header, rows in tables(results):
            file.write("\n## %s\n\n| %s |\n|%s\n" %
                       (title, " | ".join(header), " --- |" + " ---: |" * (len(header) - 1)))
            for row in rows:
                file.write("| %s |\n" % " | ".join(str(cell).strip() for cell in row))


def write_picture(results, path):
    with open(path, "w") as file:
        file.write(draw(Figures(results), results))
