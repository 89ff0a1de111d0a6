"""Draws a record of master_bench: `plot.py RECORD.csv PLOT.svg`. Needs nothing but Python.

Two panels on logarithmic axes, CPU per key and median latency; one column for each cell and number of clients,
one mark for each server, with the spread over the rounds.
"""

import csv
import math
import sys

COLOURS = {"ours": "#0b6e4f", "floor": "#888888", "upstream": "#c1440e"}
PANELS = [("cpu", "processor time of the server, µs a key"), ("p50", "median latency of a call, µs")]
LEFT, WIDTH, PANEL, GAP = 60, 1080, 220, 60


def read(path):
    with open(path, newline="") as file:
        lines = [line for line in file if not line.startswith("#")]
    return list(csv.DictReader(lines))


def panel(rows, what, title, top):
    rows = [row for row in rows if row["what"] == what and row["cell"] != "put_full_pool"]
    columns = list(dict.fromkeys((row["cell"], row["clients"]) for row in rows))
    low = min(float(row["low"]) for row in rows)
    high = max(float(row["high"]) for row in rows)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = WIDTH / len(columns)

    def height(value):
        return top + PANEL * (1 - (math.log10(float(value)) - first) / (last - first))

    yield f'<text x="{LEFT}" y="{top - 10}" font-weight="bold">{title}</text>'
    for power in range(first, last + 1):
        y = height(10**power)
        yield f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y}" y2="{y}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{10**power:g}</text>'
    for index, (cell, clients) in enumerate(columns):
        x = LEFT + step * (index + 0.5)
        yield f'<text x="{x}" y="{top + PANEL + 16}" text-anchor="middle">{clients}</text>'
        if clients == columns[1][1]:
            yield f'<text x="{x}" y="{top + PANEL + 32}" text-anchor="middle">{cell}</text>'
        for row in rows:
            if (row["cell"], row["clients"]) != (cell, clients):
                continue
            colour = COLOURS[row["server"]]
            offset = x + (list(COLOURS).index(row["server"]) - 1) * step / 5
            yield (f'<line x1="{offset}" x2="{offset}" y1="{height(row["low"])}" y2="{height(row["high"])}" '
                   f'stroke="{colour}" stroke-width="2"/>')
            yield f'<circle cx="{offset}" cy="{height(row["median"])}" r="4" fill="{colour}"/>'


def main(record, plot):
    rows = read(record)
    total = len(PANELS) * (PANEL + GAP) + 60
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{total}" '
           'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>']
    for index, (name, colour) in enumerate(COLOURS.items()):
        out.append(f'<circle cx="{LEFT + index * 90}" cy="14" r="4" fill="{colour}"/>'
                   f'<text x="{LEFT + index * 90 + 8}" y="18">{name}</text>')
    out.append(f'<text x="{LEFT + 300}" y="18">below each column: clients at a time</text>')
    for index, (what, title) in enumerate(PANELS):
        out.extend(panel(rows, what, title, 50 + index * (PANEL + GAP)))
    out.append("</svg>")
    with open(plot, "w") as file:
        file.write("\n".join(out) + "\n")


main(*sys.argv[1:])
