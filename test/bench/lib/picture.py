"""The picture of the results: an SVG written by hand, no library needed."""

from html import escape

from . import bulk
from .figures import median

WIDTH = 860
LABEL = 230                     # where bars begin
BAR = 15
STEP = 19
RIGHT = 90                      # room for the number behind a bar

COLOURS = {"changes": "#1f6f8b", "full": "#7fb3c4", "floor": "#b9c2c9", "empty": "#d5dbdf"}
OTHER = "#d98c5f"


class Canvas:
    def __init__(self):
        self.parts = []
        self.y = 0

    def text(self, x, y, text, size=12, anchor="start", weight="normal", colour="#24292f"):
        self.parts.append(
            '<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" font-weight="%s" fill="%s">%s</text>'
            % (x, y, size, anchor, weight, colour, escape(text)))

    def bar(self, x, y, width, colour, height=BAR):
        self.parts.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>'
                          % (x, y, max(width, 0.5), height, colour))

    def line(self, x, top, bottom):
        self.parts.append('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#57606a" '
                          'stroke-dasharray="3 3"/>' % (x, x, top, bottom))

    def finish(self):
        return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" '
                'font-family="Helvetica, Arial, sans-serif">\n<rect width="100%%" height="100%%" '
                'fill="#ffffff"/>\n%s\n</svg>\n'
                % (WIDTH, self.y, WIDTH, "\n".join(self.parts)))


def heading(canvas, title, note):
    canvas.y += 34
    canvas.text(16, canvas.y, title, 15, weight="bold")
    canvas.y += 18
    canvas.text(16, canvas.y, note, 11, colour="#57606a")
    canvas.y += 10


def bars(canvas, label, rows, scale, form):
    """One group: rows of (title, value, colour), drawn to a scale."""
    canvas.y += 20
    canvas.text(16, canvas.y, label, 12, weight="bold")
    canvas.y += 6
    for title, value, colour in rows:
        canvas.text(LABEL - 8, canvas.y + BAR - 3, title, 11, anchor="end")
        canvas.bar(LABEL, canvas.y, max(value, 0) * scale, colour)
        canvas.text(LABEL + max(value, 0) * scale + 6, canvas.y + BAR - 3, form % value, 11)
        canvas.y += STEP


def draw_cpu(canvas, figures, contestants):
    heading(canvas, "CPU added per row, microseconds",
            "%d rows of a 12-column table a statement; less is better. "
            "Floor: inserting the finished log rows and nothing else." % figures.rows)
    groups = []
    for kind in bulk.KINDS:
        rows = [("empty trigger + floor",
                 figures.cpu("empty", kind)[0] + figures.cpu("floor_changes", kind)[0],
                 COLOURS["floor"])]
        rows += [(c.title, figures.cpu(c.name, kind)[0], COLOURS.get(c.name, OTHER))
                 for c in contestants
                 if c.name not in ("none", "empty") and (c.kinds is None or kind in c.kinds)]
        groups.append((kind, rows))
    scale = (WIDTH - LABEL - RIGHT) / max(value for _, rows in groups for _, value, _ in rows)
    for kind, rows in groups:
        bars(canvas, kind, rows, scale, "%.1f")


def draw_single(canvas, single, contestants):
    heading(canvas, "Single-row transactions, percent of the unaudited rate",
            "pgbench -M prepared, 1 client, every commit flushed to disk; more is better.")
    scale = (WIDTH - LABEL - RIGHT) / 110.0
    for kind in ("UPDATE", "INSERT"):
        top = canvas.y + 24
        rows = [(c.title, 100 * median(single[c.name, kind, 1][0]), COLOURS.get(c.name, OTHER))
                for c in contestants if c.name != "none" and (c.name, kind, 1) in single]
        bars(canvas, kind, rows, scale, "%.0f %%")
        canvas.line(LABEL + 100 * scale, top, canvas.y - 2)


def draw(figures, results):
    canvas = Canvas()
    if results["bulk"]:
        draw_cpu(canvas, figures, results["contestants"])
    if results["single"]:
        draw_single(canvas, results["single"], results["contestants"])
    canvas.y += 14
    return canvas.finish()
