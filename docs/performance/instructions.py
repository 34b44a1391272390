#!/usr/bin/env python3
"""How many instructions a delivery takes in each process, counted by valgrind.

    cargo build --release
    docs/performance/instructions.py --dir /tmp/instructions     some 6 minutes; needs valgrind

One process of a system after the other is stopped and runs again under callgrind, with the same arguments and environment, while
`tidings up` is frozen, so that it does not start it itself. Then the same clients come twice, and once everybody is connected
it is counted for as long while they send few messages and more: the difference is what those more took, without what waiting takes. Only a process's own instructions are counted, not
the kernel's for it. Under valgrind everything takes some fifty times as long, so the rate is low: each message wakes everybody, as
at 200 a second.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import system

PROCESSES = ("nats-1", "gateway-1", "fanout-worker-1")
CLIENTS, CHATS, MEMBERS = 100, 30, 10
FEW_S, MORE_S = 2, 12
# Until it has started, and everybody is connected again.
START_S, SETTLE_S = 120, 10
# Then they are, since nothing is sent before.
BEGUN_DELIVERIES = 30


def serves(url):
    address = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address.hostname, address.port)) == 0


def again_under_callgrind(args, process, counts):
    """Kills the process and starts it as it was, counting nothing yet."""
    proc = Path(f"/proc/{process['pid']}")
    command = proc.joinpath("cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    pairs = proc.joinpath("environ").read_bytes().rstrip(b"\0").split(b"\0")
    environment = dict(pair.split(b"=", 1) for pair in pairs)
    # Go interrupts a goroutine by a signal, which takes valgrind so long that JetStream does not answer in time any more.
    environment[b"GODEBUG"] = b"asyncpreemptoff=1"
    os.kill(process["pid"], signal.SIGKILL)
    # Fair, so that no thread waits for long for the one that valgrind lets run.
    valgrind = ["valgrind", "--tool=callgrind", "--fair-sched=yes", "--instr-atstart=no", f"--callgrind-out-file={counts}"]
    log = args.dir.with_suffix(".log").open("w")
    started = subprocess.Popen(valgrind + command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log)
    deadline = time.monotonic() + START_S
    while not serves(process["admin"]):
        if time.monotonic() > deadline or started.poll() is not None:
            started.kill()
            raise SystemExit(f"{process['name']} does not run under valgrind: see {log.name}")
        time.sleep(0.5)
    return started


def control(*arguments):
    subprocess.run(["callgrind_control", *arguments], check=True, stdout=subprocess.DEVNULL)


def counted(pid, counts):
    """What was counted since the last time."""
    control("--dump", str(pid))
    dumps = sorted(counts.parent.glob(counts.name + ".*"), key=lambda path: path.stat().st_mtime)
    totals = re.search(r"^(?:totals|summary): (\d+)", dumps[-1].read_text(errors="replace"), re.M)
    return int(totals[1]), dumps[-1]


def deliveries(gateway):
    """How many the gateway has made since it was started."""
    with urlopen(f"{gateway['admin']}/metrics", timeout=START_S) as response:
        lines = response.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("tidings_deliveries_total"))


def window(args, load, rate, gateway, pid, counts):
    """Instructions and deliveries of some seconds in which everybody is connected, and where they were counted."""
    begun = deliveries(gateway) + BEGUN_DELIVERIES
    command = (args.tidings, "bench", *load, "--rate", rate, "--seconds", args.seconds + START_S)
    bench = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while deliveries(gateway) < begun:
            if time.monotonic() > deadline or bench.poll() is not None:
                raise SystemExit("no messages come through")
            time.sleep(0.5)
        control("--zero", str(pid))
        before = deliveries(gateway)
        time.sleep(args.seconds)
        instructions, where = counted(pid, counts)
        return instructions, deliveries(gateway) - before, where
    finally:
        bench.kill()
        bench.wait()


def one_process(args, name):
    """Instructions a delivery, and where they were counted."""
    with system.running(args) as (up, supervisor):
        process, gateway = (
            next(process for process in up["processes"] if process["name"] == wanted) for wanted in (name, "gateway-1")
        )
        load = ("rate", "--url", up["ws"][0], "--clients", CLIENTS, "--chats", CHATS, "--members", MEMBERS)
        # Where everybody may read a command line is no place for it.
        os.environ["TIDINGS_JWT_SECRET"] = up["jwtSecret"]
        # Who is in which chat is known from here on.
        system.bench(args, *load, "--rate", MORE_S, "--seconds", SETTLE_S)
        os.kill(supervisor.pid, signal.SIGSTOP)
        started = None
        try:
            counts = args.dir.with_suffix(f".{name}.callgrind")
            started = again_under_callgrind(args, process, counts)
            time.sleep(SETTLE_S)
            system.bench(args, *load, "--rate", MORE_S, "--seconds", SETTLE_S, "--patience", START_S)
            control("--instr=on", str(started.pid))
            few, more = (window(args, load, rate, gateway, started.pid, counts) for rate in (FEW_S, MORE_S))
        finally:
            if started:
                started.kill()
            os.kill(supervisor.pid, signal.SIGCONT)
    for instructions, delivered, _ in (few, more):
        print(f"{name}: {instructions:,} instructions, {delivered:,} deliveries", flush=True)
    return (more[0] - few[0]) / (more[1] - few[1]), more[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    system.add_arguments(parser)
    parser.add_argument("--seconds", type=int, default=30, help="how long is counted each time")
    parser.add_argument("--process", choices=PROCESSES, help="only this one")
    args = parser.parse_args()
    for name in (args.process,) if args.process else PROCESSES:
        each, where = one_process(args, name)
        print(f"{name}: {each:,.0f} instructions a delivery; by function: callgrind_annotate {where}", flush=True)


if __name__ == "__main__":
    main()
