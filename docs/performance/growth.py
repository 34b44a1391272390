#!/usr/bin/env python3
"""What a delivery costs as a system grows: clients online, people in a chat, gateways, fan-out workers.

    cargo build --release
    docs/performance/growth.py measure --dir /tmp/growth     runs everything: some 10 minutes a round
    docs/performance/growth.py measure --dir /tmp/growth --axis members     only that, and keeps the rest
    docs/performance/growth.py draw                          growth.svg, and the table, from what was measured

Each line of the table is a system of its own (`tidings up`), on which `tidings bench rate` runs with the same deliveries a second
and then `tidings bench max` with as many deliveries under way. Where there are several fan-out workers, that is after the partitions
have been shared out, which takes 20 s from the first messages on. The lines follow each other in rounds, the median of which counts,
so that a machine that gets slower changes all of them. What was measured stands in `growth.json` beside this file.
"""

import argparse
import json
import statistics
import sys
import time
import urllib.request
from pathlib import Path

import system

HERE = Path(__file__).parent
FOUND = HERE / "growth.json"
PICTURE = HERE / "growth.svg"

# In every chat together: seats stay as many when chats get larger.
SEATS_PER_CLIENT = 3
# Of `rate`: chats of two make as many messages.
DELIVERIES_S = 3_600
# Until nearly everybody has got something, and every chat has been written to: the first of each costs more.
WARMUP_S_PER_CLIENT = 0.0025
# Runs until the partitions are shared out, and how many at most: a worker gives away what it has too much of after eight seconds,
# and whoever takes most of that has too much again.
SHARE_OUT_S = 3
SHARE_OUT_RUNS_MAX = 20
# Of `max`: 256 messages in chats of ten.
DELIVERIES_UNDER_WAY = 2_304

BASE = {"clients": 1_000, "members": 10, "gateways": 1, "workers": 1}
AXES = {
    "clients": [1_000, 4_000, 10_000],
    "members": [2, 10, 100],
    "gateways": [1, 2, 4],
    "workers": [1, 2, 4],
    # Both together.
    "services": [1, 2, 4],
}
TITLES = {
    "clients": "clients online",
    "members": "people in a chat",
    "gateways": "gateways",
    "workers": "fan-out workers",
    "services": "gateways and fan-out workers",
}


def shapes(axes):
    """Each system once: the base is in every axis."""
    found = []
    for axis in axes:
        for value in AXES[axis]:
            shape = shape_of(axis, value)
            if shape not in found:
                found.append(shape)
    return found


def shape_of(axis, value):
    if axis == "services":
        return BASE | {"gateways": value, "workers": value}
    return BASE | {axis: value}


def bench(args, shape, scenario, seconds):
    """One run of the load generator; its JSON."""
    others = shape["members"] - 1
    options = [
        scenario, "--dir", args.dir, "--clients", shape["clients"], "--members", shape["members"],
        "--chats", shape["clients"] * SEATS_PER_CLIENT // shape["members"],
        "--seconds", seconds, "--warmup", max(3, shape["clients"] * WARMUP_S_PER_CLIENT), "--patience", "60",
    ]
    if scenario == "rate":
        options += ["--rate", DELIVERIES_S // others]
    else:
        options += ["--in-flight", max(16, DELIVERIES_UNDER_WAY // others)]
    return system.bench(args, *options)


def figures(result):
    """What is kept of a run."""
    interval, deliveries = result["interval"], result["measuredDeliveries"]

    def cost(name):
        seconds = sum(server["cpuSeconds"] for server in interval["servers"] if server["name"].startswith(name))
        return seconds / deliveries * 1e6

    return {
        "deliveries_s": deliveries / interval["seconds"],
        "servers_us": cost(""),
        "nats_us": cost("nats"),
        "gateways_us": cost("gateway"),
        "workers_us": cost("fanout"),
        "load_us": interval["loadGenerator"]["cpuSeconds"] / deliveries * 1e6,
        "others": interval["machine"]["otherSeconds"] / interval["machine"]["cores"] / interval["seconds"],
        "p50_ms": result["delivery"]["p50"],
        "p99_ms": result["delivery"]["p99"],
    }


def partitions_of_each(up):
    """How many each fan-out worker holds."""
    for process in up["processes"]:
        if process["name"].startswith("fanout-worker"):
            with urllib.request.urlopen(f"{process['admin']}/metrics") as answer:
                lines = answer.read().decode().splitlines()
            yield sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("tidings_fanout_partitions"))


def share_out(args, shape, up):
    """Until each worker has its share of the partitions. That takes messages: a worker holds one once it is delivered something of it."""
    for _ in range(SHARE_OUT_RUNS_MAX):
        held = list(partitions_of_each(up))
        if min(held) > 0 and max(held) - min(held) <= 1:
            return
        bench(args, shape, "rate", SHARE_OUT_S)
    sys.exit(f"the workers hold {held} partitions, and do not share them out")


def one_system(args, shape):
    """Starts a system, measures it, stops it."""
    services = ("--gateways", str(shape["gateways"]), "--fanout-workers", str(shape["workers"]))
    with system.running(args, "--inbox-durables", "off", *services) as (up, _):
        if shape["workers"] > 1:
            share_out(args, shape, up)
        return {scenario: figures(bench(args, shape, scenario, args.seconds)) for scenario in ("rate", "max")}


def measure(args):
    rows = [{"shape": shape, "rounds": []} for shape in shapes([args.axis] if args.axis else AXES)]
    for number in range(args.rounds):
        for row in rows:
            found = one_system(args, row["shape"])
            row["rounds"].append(found)
            print(number + 1, row["shape"], {name: {k: round(v, 2) for k, v in run.items()} for name, run in found.items()}, flush=True)
    if args.axis:
        measured = shapes([args.axis])
        rows += [row for row in json.loads(FOUND.read_text())["rows"] if row["shape"] not in measured]
    FOUND.write_text(json.dumps({"date": time.strftime("%Y-%m-%d"), "seconds": args.seconds, "rows": rows}, indent=1) + "\n")
    draw(args)


def median(row, scenario, name):
    return statistics.median(found[scenario][name] for found in row["rounds"])


def row_of(rows, shape):
    return next(row for row in rows if row["shape"] == shape)


def draw(_):
    rows = json.loads(FOUND.read_text())["rows"]
    print("| | rate: us a delivery | of that nats, gateways, workers | p99, ms | max: us a delivery | deliveries/s |")
    print("|---|---|---|---|---|---|")
    for axis, values in AXES.items():
        for value in values:
            row = row_of(rows, shape_of(axis, value))
            parts = ", ".join(f"{median(row, 'rate', name):.1f}" for name in ("nats_us", "gateways_us", "workers_us"))
            print(
                f"| {value:,} {TITLES[axis]} | {median(row, 'rate', 'servers_us'):.1f} | {parts} | {median(row, 'rate', 'p99_ms'):.1f}"
                f" | {median(row, 'max', 'servers_us'):.1f} | {median(row, 'max', 'deliveries_s'):,.0f} |"
            )
    PICTURE.write_text(picture(rows))


PARTS = (("nats_us", "#0072b2", "nats-server"), ("gateways_us", "#d55e00", "gateways"), ("workers_us", "#009e73", "fan-out workers"))


def picture(rows):
    """Bars side by side, a group for each axis; the rate above, as much as possible below."""
    bar, gap, height, top = 34, 40, 200, 90
    width = 60 + sum(len(values) * bar + gap for values in AXES.values())
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{2 * (height + top) + 80}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for panel, (scenario, title) in enumerate((("rate", f"{DELIVERIES_S:,} deliveries/s"), ("max", "as much as possible"))):
        base = top + height + panel * (height + top)
        highest = max(median(row, scenario, "servers_us") for row in rows) * 1.1
        out.append(f'<text x="20" y="{base - height - 24}" font-size="15">CPU of all servers, us a delivery, {title}</text>')
        x = 40
        for axis, values in AXES.items():
            for value in values:
                row = row_of(rows, shape_of(axis, value))
                y = base
                for name, colour, _ in PARTS:
                    tall = median(row, scenario, name) / highest * height
                    y -= tall
                    out.append(f'<rect x="{x}" y="{y:.1f}" width="{bar - 6}" height="{tall:.1f}" fill="{colour}"/>')
                whole = median(row, scenario, "servers_us")
                out.append(f'<text x="{x + (bar - 6) / 2}" y="{y - 4:.1f}" text-anchor="middle" font-size="11">{whole:.0f}</text>')
                out.append(f'<text x="{x + (bar - 6) / 2}" y="{base + 15}" text-anchor="middle" font-size="10">{value if value < 1000 else f"{value // 1000}k"}</text>')
                x += bar
            middle = x - len(values) * bar / 2
            words = TITLES[axis].replace("gateways and fan-out workers", "both")
            out.append(f'<text x="{middle:.0f}" y="{base + 32}" text-anchor="middle" font-size="11">{words}</text>')
            x += gap
    x, y = 40, 2 * (height + top) + 62
    for _, colour, name in PARTS:
        out.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/><text x="{x + 18}" y="{y}">{name}</text>')
        x += 140
    return "\n".join([*out, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("measure")
    system.add_arguments(command)
    command.add_argument("--axis", choices=AXES, help="only the systems of this one")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--seconds", type=int, default=5)
    command.set_defaults(run=measure)
    commands.add_parser("draw").set_defaults(run=draw)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
