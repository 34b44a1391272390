#!/usr/bin/env python3
"""How far a system of Tidings goes, computed from measured coefficients.

    docs/scaling/scale.py            the tables of docs/SCALING.md
    docs/scaling/scale.py --write    puts them there
    docs/scaling/scale.py --check    fails where they are not what is there

`coefficients.json` says what was measured, and how. What people do, and what machines have, stands below: change it to what
is true for you. Nothing here is measured; it is arithmetic.
"""

import json
import math
import sys
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "SCALING.md"

# What people do. Guesses, on the high side of what messengers tell of themselves.
DEVICES_PER_USER = 1.5
ONLINE = 0.3  # of all clients, at the busiest moment
MESSAGES_PER_USER_PER_DAY = 40
PEAK = 3  # the busiest moment against the average
RECIPIENT_CLIENTS = 6  # of a message: chats of two to a hundred people, with their devices
AWAY_WITH_ENTRIES = 0.5  # of all clients: something waits for them
ENTRIES_WAITING = 50  # for each of these
CHANGES_PER_USER_PER_DAY = 0.2  # of membership
CONNECTS_PER_CLIENT_PER_DAY = 10
CHATS_PER_USER = 3  # each chat of ten is shared by ten

# What a machine has: 16 cores, 64 GB, 2 TB of disk. Three of them are a NATS cluster; gateways and workers have their own.
CORES = 16
MEMORY = 64e9
DISK = 2e12
# What is left free for bad days, elections and deploys.
FILL = 0.6

# What a gateway is given, so that its death is a small event: 5,000 clients were back within 9 s on two cores.
CONNECTIONS_PER_GATEWAY = 50_000
# What a fan-out worker is given, in cores.
CORES_PER_WORKER = 2
WORKER_MEMORY = 4e9
# A worker sends each gateway two beacons a second, one after each change of membership, though at most one in 5 ms, and one for
# each connection that begins (fanout-worker/src/beacons.rs).
BEACONS_S = 2
INVALIDATION_BEACONS_S = 200


def load():
    found = json.loads((HERE / "coefficients.json").read_text())
    return {name: entry["value"] for name, entry in found.items()}


class Load:
    """What so many users make."""

    def __init__(self, users):
        self.users = users
        self.clients = users * DEVICES_PER_USER
        self.connected = self.clients * ONLINE
        self.sends = users * MESSAGES_PER_USER_PER_DAY * PEAK / 86_400
        self.changes = users * CHANGES_PER_USER_PER_DAY * PEAK / 86_400
        self.connects = self.clients * CONNECTS_PER_CLIENT_PER_DAY * PEAK / 86_400
        self.deliveries = self.sends * RECIPIENT_CLIENTS
        self.away = self.clients * AWAY_WITH_ENTRIES
        self.entries = self.away * ENTRIES_WAITING


def needs(load, c, durables):
    """Of each thing, what is needed, and how much of it one NATS cluster of three machines (or one server) has."""
    gateways = math.ceil(load.connected / CONNECTIONS_PER_GATEWAY)
    gateway_cpu = load.deliveries * c["gateway_delivery_us"] / 1e6 / gateways
    worker_cpu = load.deliveries * c["fanout_delivery_us"] / 1e6
    workers = max(2, math.ceil(worker_cpu / CORES_PER_WORKER))
    beacons = workers * (gateways * (BEACONS_S + min(load.changes, INVALIDATION_BEACONS_S)) + load.connects)
    nats_cpu = load.deliveries * c["nats_r3_delivery_us"] + beacons * c["beacon_nats_us"]
    memory = (
        c["nats_base_bytes"]
        + load.away * c["waiting_client_nats_bytes"]
        + load.entries * c["entry_nats_bytes"]
        + load.connected * c["session_key_nats_bytes"]
    )
    # A durable has one copy: a third of them is on each server.
    durable_memory = load.clients * c["durable_nats_bytes"] / 3 if durables else 0
    return {
        "memory of each NATS server, GB": ((memory + durable_memory) / 1e9, MEMORY * FILL / 1e9),
        "disk of each NATS server, GB": (load.entries * c["entry_disk_bytes"] / 1e9, DISK * FILL / 1e9),
        "cores of each NATS server": (nats_cpu / 3 / 1e6, CORES * FILL),
        "events a second in CHATS": (load.sends, c["stream_r3_messages_s"] * FILL),
        "fan-out workers, of 100 partitions": (workers, 100),
        "cores of each gateway": (gateway_cpu, CORES * FILL),
        "memory of each fan-out worker, GB": (load.connected * c["session_key_worker_bytes"] / 1e9, WORKER_MEMORY / 1e9),
        "Postgres, GB": (
            (load.users * DEVICES_PER_USER * c["user_postgres_bytes"] + load.users * CHATS_PER_USER / 10 * c["chat_postgres_bytes"]) / 1e9,
            DISK * FILL / 1e9,
        ),
    }, gateways, workers


def first(users, c, durables):
    """Which need is nearest to its bound, and by how much it is filled."""
    wanted, _, _ = needs(Load(users), c, durables)
    name = max(wanted, key=lambda name: wanted[name][0] / wanted[name][1])
    return name, wanted[name][0] / wanted[name][1]


def most_users(c, durables):
    """With how many users the first need reaches its bound."""
    low, high = 1, 10**11
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        if first(middle, c, durables)[1] > 1:
            high = middle
        else:
            low = middle
    return low


def number(value):
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def tables(c):
    lines = ["### One NATS cluster of three machines", ""]
    counts = [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]
    lines.append("| users | " + " | ".join(number(count) for count in counts) + " |")
    lines.append("|---|" + "---|" * len(counts))
    loads = [Load(count) for count in counts]
    for name, of in (
        ("clients connected", lambda load: load.connected),
        ("messages a second", lambda load: load.sends),
        ("deliveries a second", lambda load: load.deliveries),
        ("entries that wait", lambda load: load.entries),
    ):
        lines.append(f"| {name} | " + " | ".join(number(of(load)) for load in loads) + " |")
    rows = [needs(load, c, False) for load in loads]
    lines.append("| gateways | " + " | ".join(number(gateways) for _, gateways, _ in rows) + " |")
    for name in rows[0][0]:
        cells = []
        for wanted, _, _ in rows:
            value, bound = wanted[name]
            cells.append(f"**{number(value)}**" if value > bound else number(value))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    bounds = needs(loads[0], c, False)[0]
    lines += ["", "Bold is over the bound: " + "; ".join(f"{name}: {number(bound)}" for name, (_, bound) in bounds.items()) + ".", ""]
    lines += ["### What breaks first, and where", "", "| | users | what is at its bound | then |", "|---|---|---|---|"]
    for title, durables in (("`--inbox-durables on`", True), ("`--inbox-durables off`", False)):
        users = most_users(c, durables)
        wanted, _, _ = needs(Load(users), c, durables)
        order = sorted(wanted, key=lambda name: -wanted[name][0] / wanted[name][1])
        then = ", ".join(f"{name} {100 * wanted[name][0] / wanted[name][1]:.0f} %" for name in order[1:3])
        lines.append(f"| {title} | {number(users)} | {order[0]} | {then} |")
    cell = most_users(c, False)
    lines += ["", "### Cells", "", "| users | cells | gateways | NATS servers | fan-out workers |", "|---|---|---|---|---|"]
    for count in (10**7, 10**8, 5 * 10**8):
        cells = math.ceil(count / cell)
        _, gateways, workers = needs(Load(count / cells), c, False)
        lines.append(f"| {number(count)} | {cells} | {number(gateways * cells)} | {number(3 * cells)} | {number(workers * cells)} |")
    lines += ["", "### The coefficients", "", "`coefficients` is `cargo run -p tidings-tests --bin coefficients -- --dir DIR`. An entry that waits takes less of nats-server's memory", "than could be measured.", ""]
    lines += ["| | | measured by |", "|---|---|---|"]
    for name, entry in json.loads((HERE / "coefficients.json").read_text()).items():
        lines.append(f"| `{name}` | {number(entry['value'])} {entry['unit']} | {entry['by']} |")
    return "\n".join(lines) + "\n"


BEGIN = "<!-- by docs/scaling/scale.py -->\n"
END = "<!-- end -->\n"


def main():
    made = tables(load())
    if sys.argv[1:] not in (["--write"], ["--check"]):
        print(made, end="")
        return 0
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = before + BEGIN + "\n" + made + "\n" + END + after
    if sys.argv[1] == "--write":
        DOCUMENT.write_text(wanted)
    elif wanted != text:
        print("docs/SCALING.md is not what docs/scaling/scale.py computes: run it with --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
