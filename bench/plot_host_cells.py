"""Draws a record of host_cells: `plot_host_cells.py RECORD.csv PLOT.svg`. Needs nothing but Python.

One panel for each batch and number of threads, writes above reads: bandwidth over the size of a block, both on
logarithmic axes. A second row of panels shows the processor time of a gigabyte.
"""

import csv
import math
import sys

COLOURS = {
    "ours_mapped": "#0b6e4f",
    "ours_same_host": "#1f9e89",
    "ours_tcp": "#6cc24a",
    "memcpy": "#888888",
    "process_vm": "#aaaaaa",
    "sockets_1": "#555555",
    "sockets_4": "#777777",
    "upstream": "#c1440e",
    "nixl": "#7b3fa0",
}
DASHED = {"memcpy", "process_vm", "sockets_1", "sockets_4"}
WIDTH, HEIGHT, LEFT, TOP, GAP = 260, 170, 56, 56, 42
KINDS = [
    ("write", "gb_per_s", "write, GB/s"),
    ("read", "gb_per_s", "read, GB/s"),
    ("write", "cpu_s_per_gb", "write, CPU s per GB"),
    ("read", "cpu_s_per_gb", "read, CPU s per GB"),
]


def size(bytes_):
    for unit, name in ((1 << 20, "M"), (1 << 10, "K")):
        if bytes_ >= unit:
            return f"{bytes_ // unit}{name}"
    return str(bytes_)


def panel(out, x, y, rows, column, title, sizes, low, high):
    low, high = math.floor(math.log10(low)), math.ceil(math.log10(high))

    def across(block):
        return x + WIDTH * sizes.index(block) / max(len(sizes) - 1, 1)

    def up(value):
        return y + HEIGHT * (high - math.log10(max(value, 10.0**low))) / (high - low)

    out.append(f'<text x="{x}" y="{y - 6}" font-weight="bold">{title}</text>')
    for power in range(low, high + 1):
        at = up(10.0**power)
        out.append(f'<line x1="{x}" x2="{x + WIDTH}" y1="{at:.1f}" y2="{at:.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{x - 4}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for block in sizes:
        out.append(f'<text x="{across(block):.1f}" y="{y + HEIGHT + 14}" text-anchor="middle">{size(block)}</text>')
    for who, colour in COLOURS.items():
        points = sorted((int(row["block_bytes"]), float(row[column])) for row in rows if row["contender"] == who)
        points = [(across(block), up(value)) for block, value in points if value > 0]
        if not points:
            continue
        dash = ' stroke-dasharray="4 3"' if who in DASHED else ""
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        out.extend(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.2" fill="{colour}"/>' for a, b in points)


def main(record, plot):
    with open(record) as file:
        lines = file.read().splitlines()
    notes = [line[2:] for line in lines if line.startswith("# ")]
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    columns = sorted({(int(row["threads"]), int(row["batch"])) for row in rows})
    sizes = sorted({int(row["block_bytes"]) for row in rows})
    width = LEFT + len(columns) * (WIDTH + GAP + 14)
    height = TOP + len(KINDS) * (HEIGHT + GAP) + 16
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for place, (who, colour) in enumerate((who, colour) for who, colour in COLOURS.items()):
        x = LEFT + place * 130
        dash = ' stroke-dasharray="4 3"' if who in DASHED else ""
        out.append(f'<line x1="{x}" x2="{x + 22}" y1="14" y2="14" stroke="{colour}" stroke-width="2"{dash}/>')
        out.append(f'<text x="{x + 26}" y="18">{who}</text>')
    for line, (direction, column, title) in enumerate(KINDS):
        values = [float(row[column]) for row in rows if float(row[column]) > 0]
        for place, (threads, batch) in enumerate(columns):
            some = [
                row
                for row in rows
                if (int(row["threads"]), int(row["batch"]), row["direction"]) == (threads, batch, direction)
            ]
            panel(
                out,
                LEFT + place * (WIDTH + GAP + 14),
                TOP + line * (HEIGHT + GAP),
                some,
                column,
                f"{title}; batch {batch}, threads {threads}",
                sizes,
                min(values),
                max(values),
            )
    out.append(f'<text x="{LEFT}" y="{height - 6}" fill="#666666">{notes[0] if notes else ""}</text>')
    out.append("</svg>")
    with open(plot, "w") as file:
        file.write("\n".join(out) + "\n")


main(sys.argv[1], sys.argv[2])
