"""The results as text, and of each feature as a file under results/."""

import datetime
import os
import platform

from . import audit, convert, partition, soft_delete, split, stamp, tenant

# a feature's name, its title, the parts of a run that it takes, and who knows their figures
FEATURES = (
    ("audit", "Audit", ("bulk", "instructions", "single", "memory", "history", "unchanged"), (audit,)),
    ("stamp", "Stamps", ("stamp",), (stamp,)),
    ("soft_delete", "Soft delete", ("soft_delete",), (soft_delete,)),
    ("tenant", "Tenant isolation", ("tenant",), (tenant,)),
    ("partition", "Partitions", ("partition", "convert", "split"), (partition, convert, split)),
)


def tables(results, modules):
    """Title, header and rows of each: the targets first."""
    rows = [list(row) for module in modules for row in module.targets(results)]
    if rows:
        yield ("Targets", ["", "measured", "target", "met"], rows)
    for module in modules:
        yield from module.tables(results)


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
    """Of the whole run."""
    options = results["options"]
    return (["With --quick: rough."] if options.quick else []) + [
        "Measured on %s. Load average when it began: %.1f; above 0.5 something else was running, and small "
        "differences mean nothing." % (datetime.date.today().isoformat(), options.load),
        "%s, %d cores, Linux; PostgreSQL %s; fsync on, synchronous_commit on, jit and autovacuum off."
        % (processor(), os.cpu_count(), results["server"]),
        "%d rows of a bulk statement, %d rounds or runs, %d s a run of single rows."
        % (options.rows, options.pairs, options.seconds),
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
    chapters = ["\n".join(conditions(results)) + "\n"]
    for _, title, _, modules in FEATURES:
        found = [text_table(*table) for table in tables(results, modules)]
        if found:
            chapters += ["== %s\n" % title] + found
    return "\n".join(chapters)


def write(results, folder):
    """A file of each feature whose parts were all measured; those of others stay as they are."""
    for name, title, parts, modules in FEATURES:
        if all(results[part] for part in parts):
            write_markdown(results, title, modules, os.path.join(folder, name + ".md"))
            if audit in modules:
                with open(os.path.join(folder, "audit.svg"), "w") as file:
                    file.write(audit.picture(results))


def write_markdown(results, feature, modules, path):
    with open(path, "w") as file:
        file.write("# %s: results of test/bench/run\n\nWritten by `test/bench/run`; do not edit.\n\n" % feature)
        for condition in conditions(results):
            file.write("- %s\n" % condition)
        for module in modules:
            file.write("\n%s\n" % module.__doc__.strip())
        if audit in modules:
            file.write("\n![CPU and rates](audit.svg)\n")
        for title, header, rows in tables(results, modules):
            file.write("\n## %s\n\n| %s |\n|%s\n" %
                       (title, " | ".join(header), " --- |" + " ---: |" * (len(header) - 1)))
            for row in rows:
                file.write("| %s |\n" % " | ".join(str(cell).strip() for cell in row))
