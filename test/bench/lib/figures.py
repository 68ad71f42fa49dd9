"""From samples to figures: medians over rounds, ratios within each round, targets."""

import statistics

from . import bulk

MB = 1024.0


def median(values):
    return statistics.median(values)


def spread(values):
    """Median, and the middle half of the values."""
    values = sorted(values)
    if len(values) < 4:
        return median(values), values[0], values[-1]
    quarters = statistics.quantiles(values, n=4)
    return median(values), quarters[0], quarters[2]


class Figures:
    """Everything the reports show, each from all rounds."""

    def __init__(self, results):
        self.results = results
        self.rows = results["options"].rows

    # ---- bulk ----

    def over_rounds(self, name, figure):
        """A figure of each round in which that contestant was measured."""
        return [figure(r) for r in self.results["bulk"] if (name, bulk.KINDS[0]) in r]

    def added_cpu(self, r, name, kind):
        """Microseconds a row that a contestant adds in one round."""
        if name.startswith("floor_"):
            return r[name, kind].cpu / self.rows
        return (r[name, kind].cpu - r["none", kind].cpu) / self.rows

    def cpu(self, name, kind):
        return spread(self.over_rounds(name, lambda r: self.added_cpu(r, name, kind)))

    def unaudited_cpu(self, kind):
        return median(self.over_rounds("none", lambda r: r["none", kind].cpu / self.rows))

    def to_floor(self, name, kind):
        """What a contestant adds, in parts of empty trigger + floor."""
        return spread(self.over_rounds(
            name, lambda r: self.added_cpu(r, name, kind) /
            (self.added_cpu(r, "empty", kind) + self.added_cpu(r, "floor_" + name, kind))))

    def to_plpgsql(self, name, kind):
        """How many times as much the PL/pgSQL trigger adds."""
        return spread(self.over_rounds(
            name, lambda r: self.added_cpu(r, "plpgsql", kind) / self.added_cpu(r, name, kind)))

    # ---- instructions ----

    def added_instructions(self, name, kind):
        counts = self.results["instructions"]
        return counts[name, kind] - (0 if name == "floor" else counts["none", kind])

    def instructions_to_floor(self, name, kind):
        """What a contestant adds, in parts of empty trigger + floor."""
        return self.added_instructions(name, kind) / (
            self.added_instructions("empty", kind) + self.added_instructions("floor", kind))

    def wal(self, name, kind):
        if name.startswith("floor_"):
            return median(self.over_rounds(name, lambda r: r[name, kind].wal / self.rows))
        return median(self.over_rounds(
            name, lambda r: (r[name, kind].wal - r["none", kind].wal) / self.rows))

    def log(self, name, kind):
        return median(self.over_rounds(name, lambda r: r[name, kind].log / self.rows))

    def targets(self):
        """(what, measured, target, whether met) of all that was measured."""
        rows = []
        single = self.results["single"]
        kilobytes = self.results["memory"]

        def judge(what, value, limit, form, at_most=True):
            met = value <= limit if at_most else value >= limit
            rows.append((what, form % value, ("at most " if at_most else "at least ") + form % limit,
                         "yes" if met else "NO"))

        if self.results["bulk"]:
            for kind in bulk.KINDS:
                judge("CPU added by %s, in parts of empty trigger + floor" % kind,
                      self.to_floor("changes", kind)[0], 1.15, "%.2f")
            for kind, times in (("UPDATE", 6.0), ("INSERT", 3.5), ("DELETE", 3.5)):
                judge("PL/pgSQL trigger's CPU on %s, times ours" % kind,
                      self.to_plpgsql("changes", kind)[0], times, "%.1f", at_most=False)
            judge("WAL bytes added by a one-column UPDATE", self.wal("changes", "UPDATE"), 262, "%.0f")
        if self.results["instructions"]:
            for kind in bulk.KINDS:
                judge("instructions added by %s, in parts of empty trigger + floor" % kind,
                      self.instructions_to_floor("changes", kind), 1.15, "%.2f")
        for kind, part in (("UPDATE", 0.93), ("INSERT", 0.90)):
            for clients in (1, 2):
                if ("changes", kind, clients) in single:
                    judge("single-row %s, %d client%s, part of the unaudited rate"
                          % (kind, clients, "s" if clients > 1 else ""),
                          median(single["changes", kind, clients][0]), part, "%.3f", at_most=False)
        if "changes" in kilobytes:
            judge("memory of an UPDATE of %d rows beyond the empty trigger's, MB"
                  % self.results["options"].memory_rows,
                  (kilobytes["changes"] - kilobytes["empty"]) / MB, 16, "%.1f")
        for leaves, limit in ((26, 1.0), (156, 3.0)):
            if leaves in self.results["history"]:
                h = self.results["history"][leaves]
                judge("history of one row among %d entries in %d leaves, warm, ms"
                      % (h["entries"], leaves), h["median"], limit, "%.2f")
                judge("sequential scans of leaves by these, %d leaves" % leaves,
                      h["seq_scans"], 0, "%d")
        if self.results["unchanged"]:
            judge("entries of 20 updates that change nothing",
                  self.results["unchanged"]["no_op_entries"], 0, "%d")
            judge("bytes of an entry beside an unchanged 160 kB text",
                  self.results["unchanged"]["toast_entry_bytes"], 200, "%d")
        return rows
