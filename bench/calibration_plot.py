"""Draws a record of npu_calibration: `calibration_plot.py RECORD.csv PLOT.svg`. Needs nothing but Python.

One panel for each profile, rate against block size on logarithmic axes: lines are the model, marks what was published,
hollow where the model does not claim the cell.
"""

import csv
import math
import sys

COLOURS = {("device", "put"): "#0b6e4f", ("device", "get"): "#1f4e9c", ("host", "put"): "#c1440e"}
NAMES = {("device", "put"): "put", ("device", "get"): "get", ("host", "put"): "put from host memory"}
LEFT, TOP, WIDTH, HEIGHT, GAP_X, GAP_Y, COLUMNS = 60, 70, 300, 230, 70, 75, 3


def read(path):
    with open(path, newline="") as file:
        lines = [line for line in file if not line.startswith("#")]
    return list(csv.DictReader(lines))


def panel(profile, rows, left, top):
    blocks = sorted({int(row["block_bytes"]) for row in rows})
    rates = [float(row[key]) for row in rows for key in ("published_gb_s", "model_gb_s")]
    first, last = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))

    def x(block):
        return left + WIDTH * math.log2(block / blocks[0]) / math.log2(blocks[-1] / blocks[0])

    def y(rate):
        return top + HEIGHT * (1 - (math.log10(float(rate)) - first) / (last - first))

    worst = max(abs(float(row["error_percent"])) for row in rows if row["claimed"] == "yes")
    yield f'<text x="{left}" y="{top - 10}" font-weight="bold">{profile}</text>'
    yield f'<text x="{left + WIDTH}" y="{top - 10}" text-anchor="end">claimed cells within {worst:.1f} %</text>'
    for power in range(first, last + 1):
        for factor in (1, 2, 5) if power < last else (1,):
            height = y(factor * 10**power)
            yield (f'<line x1="{left}" x2="{left + WIDTH}" y1="{height:.1f}" y2="{height:.1f}" '
                   f'stroke="{"#cccccc" if factor == 1 else "#eeeeee"}"/>')
            yield f'<text x="{left - 6}" y="{height + 4:.1f}" text-anchor="end">{factor * 10**power:g}</text>'
    for block in blocks:
        name = f"{block >> 20}M" if block >= 1 << 20 else f"{block >> 10}K"
        yield f'<text x="{x(block):.1f}" y="{top + HEIGHT + 16}" text-anchor="middle">{name}</text>'
    for key, colour in COLOURS.items():
        chosen = sorted((row for row in rows if (row["local"], row["direction"]) == key),
                        key=lambda row: int(row["block_bytes"]))
        points = " ".join(f'{x(int(row["block_bytes"])):.1f},{y(row["model_gb_s"]):.1f}' for row in chosen)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        for row in chosen:
            fill = colour if row["claimed"] == "yes" else "white"
            yield (f'<circle cx="{x(int(row["block_bytes"])):.1f}" cy="{y(row["published_gb_s"]):.1f}" r="4" '
                   f'fill="{fill}" stroke="{colour}"/>')


def main(record, plot):
    rows = read(record)
    profiles = list(dict.fromkeys(row["profile"] for row in rows))
    width = LEFT + COLUMNS * (WIDTH + GAP_X)
    height = TOP + math.ceil(len(profiles) / COLUMNS) * (HEIGHT + GAP_Y)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
           'font-size="11"><rect width="100%" height="100%" fill="white"/>',
           f'<text x="{LEFT}" y="20">GB/s by block size: lines are the cost profiles in model time, marks the published '
           'sweep, hollow where the model does not claim the cell</text>']
    for index, (key, colour) in enumerate(COLOURS.items()):
        out.append(f'<circle cx="{LEFT + 4 + index * 90}" cy="36" r="4" fill="{colour}"/>'
                   f'<text x="{LEFT + 14 + index * 90}" y="40">{NAMES[key]}</text>')
    for index, profile in enumerate(profiles):
        left = LEFT + index % COLUMNS * (WIDTH + GAP_X)
        top = TOP + index // COLUMNS * (HEIGHT + GAP_Y)
        out += panel(profile, [row for row in rows if row["profile"] == profile], left, top)
    with open(plot, "w") as file:
        file.write("\n".join(out) + "\n</svg>\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
