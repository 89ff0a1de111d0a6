"""Draws a record of store_cells: `store_plot.py RECORD.csv PLOT.svg`. Needs nothing but Python.

Two panels on logarithmic axes, keys a second and median time of a call; one column for each operation and size, one
mark for each contender.
"""

import csv
import math
import sys

COLOURS = {"ours": "#0b6e4f", "ping_pong": "#888888", "upstream": "#c1440e"}
PANELS = [("keys_per_s", "keys a second"), ("p50_us", "median time of a call, µs")]
LEFT, WIDTH, PANEL, GAP = 70, 1180, 230, 70
SIZES = {0: "", 4096: "4K", 65536: "64K", 1 << 20: "1M", 4 << 20: "4M"}


def read(path):
    with open(path, newline="") as file:
        lines = [line for line in file if not line.startswith("#")]
    return list(csv.DictReader(lines))


def panel(rows, what, title, top):
    groups = list(dict.fromkeys((row["operation"], int(row["batch"])) for row in rows))
    columns = sorted(
        {(row["operation"], int(row["batch"]), int(row["value_bytes"])) for row in rows},
        key=lambda column: (groups.index(column[:2]), column[2]),
    )
    values = [float(row[what]) for row in rows]
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    step = WIDTH / len(columns)

    def height(value):
        return top + PANEL * (1 - (math.log10(float(value)) - first) / (last - first))

    yield f'<text x="{LEFT}" y="{top - 10}" font-weight="bold">{title}</text>'
    for power in range(first, last + 1):
        y = height(10**power)
        yield f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y}" y2="{y}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{10**power:g}</text>'
    for index, (operation, batch, size) in enumerate(columns):
        x = LEFT + step * (index + 0.5)
        yield f'<text x="{x}" y="{top + PANEL + 16}" text-anchor="middle">{SIZES.get(size, size)}</text>'
        if index == 0 or columns[index - 1][:2] != (operation, batch):
            # Names of neighbours do not run into each other.
            below = 32 + 14 * (groups.index((operation, batch)) % 2)
            yield f'<text x="{x - step / 2}" y="{top + PANEL + below}">{operation} x {batch}</text>'
        for row in rows:
            if (row["operation"], int(row["batch"]), int(row["value_bytes"])) == (operation, batch, size):
                colour = COLOURS[row["contender"]]
                yield f'<circle cx="{x}" cy="{height(row[what])}" r="4" fill="{colour}"/>'


def main(record, plot):
    rows = read(record)
    total = len(PANELS) * (PANEL + GAP) + 60
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" height="{total}" '
           'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>']
    for index, (name, colour) in enumerate(COLOURS.items()):
        out.append(f'<circle cx="{LEFT + index * 90}" cy="14" r="4" fill="{colour}"/>'
                   f'<text x="{LEFT + index * 90 + 8}" y="18">{name}</text>')
    for index, (what, title) in enumerate(PANELS):
        out.extend(panel(rows, what, title, 50 + index * (PANEL + GAP)))
    out.append("</svg>")
    with open(plot, "w") as file:
        file.write("\n".join(out) + "\n")


main(*sys.argv[1:])
