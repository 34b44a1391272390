#!/usr/bin/env python3
"""Flame graphs of every process that takes part in handing messages on, and where its time goes.

    cargo build --release
    cargo install inferno --version 0.12.8 --locked
    docs/performance/flames.py --dir /tmp/flames     some 4 minutes; needs perf, and root or kernel.perf_event_paranoid <= 0

Who hands messages on is looked at under the load of `tidings bench rate` and `max`: 1,000 clients, 300 chats of 10. The others have
next to nothing to do then: Postgres is looked at while chats are made, media and Postgres while pictures are uploaded. The inbox
worker has nothing to do in any of them.

Each process is looked at for some seconds (`perf record`), one after the other; what it does in the kernel is in the pictures, too.
They go beside this file as `flame-<scenario>-<process>.svg`, and a table of what takes most to the output.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import system

HERE = Path(__file__).parent


@dataclass
class Scenario:
    title: str
    processes: tuple
    # Goes on until the event is set: of the arguments, `up.json` and the event.
    load: Callable
    # How many of it go on side by side.
    loads: int = 1


def benching(*options):
    """The load generator, again and again."""

    def load(args, _, stopped):
        while not stopped.is_set():
            command = [str(part) for part in (args.tidings, "bench", *options, "--dir", args.dir)]
            running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while running.poll() is None and not stopped.wait(0.2):
                pass
            if running.poll() is None:
                running.terminate()
                running.wait()
            elif running.returncode != 0:
                return

    return load


def uploading(args, up, stopped):
    """Somebody's pictures, one after the other."""
    command = [str(args.tidings), "token", "--user", "flames", "--dir", str(args.dir)]
    token = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/png"}
    while not stopped.is_set():
        picture = os.urandom(PICTURE_BYTES)
        url = f"{up['media']}/v1/attachments?hash={hashlib.sha256(picture).hexdigest()}"
        urllib.request.urlopen(urllib.request.Request(url, picture, headers)).close()


MESSAGING = ("nats-1", "gateway-1", "fanout-worker-1")
SCENARIOS = {
    "rate": Scenario("200 messages a second", MESSAGING, benching("rate", "--seconds", "60")),
    "max": Scenario("as much as possible", MESSAGING, benching("max", "--seconds", "60")),
    "chats": Scenario("chats of 3 are made", ("postgres",), benching("rate", "--chats", "50000", "--members", "3")),
    # More side by side would only wait for two cores.
    "pictures": Scenario("pictures are uploaded", ("media-1", "postgres"), uploading, loads=4),
}
# Go keeps frame pointers, and its unwinding tables say nothing to perf.
FRAMES = {"nats-1": "fp"}
SAMPLES_S = 499
RECORD_S = 6
# Until everybody has connected and the load has begun.
BEGIN_S = 8
PICTURE_BYTES = 100_000
# What is narrower than this is left out: the pictures are kept.
WIDTH_MIN = "0.4"

# What a stack belongs to: the first of these that one of its frames is.
PLACES = {
    "nats-1": (
        ("Go's monitor thread", r"^runtime\.sysmon$"),
        ("threads put to sleep and woken", r"^runtime\.(mcall|park_m|schedule|findRunnable|futex.*|notesleep|stopm|startm|wakep|ready|goready)"),
        ("deleting", r"MsgDelete|removeMsg|RemoveMsg"),
        ("storing", r"processInboundJetStreamMsg|processJetStreamMsg|StoreMsg|storeMsg"),
        ("consumers", r"\(\*consumer\)"),
        ("reading from connections", r"readLoop"),
        ("writing to connections", r"writeLoop|flushOutbound"),
        ("garbage", r"gcBgMarkWorker|gcAssist|bgsweep|bgscavenge"),
    ),
    "postgres": (
        ("reading requests, and waiting for them", r"pq_getbyte|secure_read"),
        ("answering", r"secure_write"),
        ("committing", r"CommitTransactionCommand|XLogFlush|XLogBackgroundFlush"),
        ("parsing and planning", r"raw_parser|pg_analyze|pg_parse|pg_rewrite|pg_plan|planner"),
        ("executing", r"Portal|Executor|ProcessUtility"),
    ),
    "": (
        ("files", r"__x64_sys_(openat|rename|fsync|fdatasync|unlink|pwrite64|write|close|mkdir)$|_libc_open|^fsync"),
        ("hashing", r"sha256|sha2::"),
        ("sending", r"sendto|sendmsg|writev|__sys_send"),
        ("receiving", r"recvfrom|recvmsg|__sys_recv|sys_read"),
        ("waiting for sockets", r"epoll_wait"),
        ("threads put to sleep and woken", r"futex"),
        ("memory", r"^(_rjem_.*|(arena|tcache|emap|sz|pac|pai)_.*)$"),
    ),
}


def record(args, name, pids):
    """What a process does for some seconds, as stacks with counts."""
    data = args.dir.with_suffix(f".{name}.perf")
    graph = FRAMES.get(name, "dwarf,8192")
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_S), "--call-graph", graph, "-o", str(data), "-p", ",".join(pids), "--", "sleep", str(RECORD_S)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    script = subprocess.run(["perf", "script", "-i", str(data), "--no-inline"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    folded = subprocess.run(["inferno-collapse-perf", "--kernel"], input=script.stdout, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    data.unlink()
    return folded.stdout.decode(errors="replace")


def with_children(pid):
    """Postgres has a process for each connection."""
    children = subprocess.run(["pgrep", "-P", str(pid)], stdout=subprocess.PIPE, text=True)
    return [str(pid), *children.stdout.split()]


def draw(scenario, name, folded):
    title = f"{name}, {SCENARIOS[scenario].title}"
    command = ["inferno-flamegraph", "--title", title, "--minwidth", WIDTH_MIN, "--colors", "java"]
    picture = subprocess.run(command, input=folded.encode(), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    (HERE / f"flame-{scenario}-{name}.svg").write_bytes(picture.stdout)


def places(name, folded):
    """Which part of its CPU time goes where; what is in the kernel counts besides."""
    # Of each stack, nanoseconds of CPU.
    found, kernel, everything = Counter(), 0, 0
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frames, count = stack.split(";")[1:], int(count)
        everything += count
        kernel += count * any(frame.endswith("_[k]") for frame in frames)
        for place, pattern in PLACES.get(name, PLACES[""]):
            if any(re.search(pattern, frame.removesuffix("_[k]")) for frame in frames):
                found[place] += count
                break
        else:
            found["else"] += count
    shares = [f"{place} {count / everything:.0%}" for place, count in found.most_common()]
    return f"{everything / 1e9:.2f} s of CPU, {kernel / everything:.0%} in the kernel; " + ", ".join(shares)


def look(args, scenario):
    """A system of its own under one kind of load."""
    wanted = SCENARIOS[scenario]
    with system.running(args) as (up, _):
        pids = {process["name"]: process["pid"] for process in up["processes"]}
        stopped = threading.Event()
        loads = [threading.Thread(target=wanted.load, args=(args, up, stopped)) for _ in range(wanted.loads)]
        for load in loads:
            load.start()
        try:
            time.sleep(BEGIN_S)
            for name in wanted.processes:
                folded = record(args, name, with_children(pids[name]))
                if not all(load.is_alive() for load in loads):
                    sys.exit("the load ended too early")
                draw(scenario, name, folded)
                print(f"{scenario}, {name}: {places(name, folded)}", flush=True)
        finally:
            stopped.set()
            for load in loads:
                load.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    system.add_arguments(parser)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated")
    args = parser.parse_args()
    for tool in ("perf", "inferno-collapse-perf", "inferno-flamegraph"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not there: see --help")
    for scenario in args.scenario or SCENARIOS:
        look(args, scenario)


if __name__ == "__main__":
    main()
