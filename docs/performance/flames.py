#!/usr/bin/env python3
"""Flame graphs of every process that takes part in handing messages on, and where its time goes.

    cargo build --release
    cargo install inferno --version 0.12.8 --locked
    docs/performance/flames.py --dir /tmp/flames     some 2 minutes; needs perf, and root or kernel.perf_event_paranoid <= 0

The load is that of `tidings bench rate` and `max`: 1,000 clients, 300 chats of 10. Each process is looked at for some seconds
(`perf record`), one after the other; what it does in the kernel is in the pictures, too. They go beside this file as
`flame-<scenario>-<process>.svg`, and a table of what takes most to the output.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import system

HERE = Path(__file__).parent
PROCESSES = ("nats-1", "gateway-1", "fanout-worker-1")
# Go keeps frame pointers, and its unwinding tables say nothing to perf.
FRAMES = {"nats-1": "fp"}
SAMPLES_S = 499
RECORD_S = 6
# Until everybody has connected and the load has begun.
BEGIN_S = 8
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
    "": (
        ("sending", r"sendto|sendmsg|writev|__sys_send"),
        ("receiving", r"recvfrom|recvmsg|__sys_recv|sys_read"),
        ("waiting for sockets", r"epoll_wait"),
        ("threads put to sleep and woken", r"futex"),
        ("memory", r"^(_?_?(libc_)?(malloc|free|realloc|calloc)|_int_.*|cfree.*|unlink_chunk.*)$"),
    ),
}


def record(args, name, pid):
    """What a process does for some seconds, as stacks with counts."""
    data = args.dir.with_suffix(f".{name}.perf")
    graph = FRAMES.get(name, "dwarf,8192")
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_S), "--call-graph", graph, "-o", str(data), "-p", str(pid), "--", "sleep", str(RECORD_S)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    script = subprocess.run(["perf", "script", "-i", str(data), "--no-inline"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    folded = subprocess.run(["inferno-collapse-perf", "--kernel"], input=script.stdout, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    data.unlink()
    return folded.stdout.decode(errors="replace")


def draw(scenario, name, folded):
    title = {"rate": "200 messages a second", "max": "as much as possible"}[scenario]
    command = ["inferno-flamegraph", "--title", f"{name}, {title}", "--minwidth", WIDTH_MIN, "--colors", "java"]
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    system.add_arguments(parser)
    args = parser.parse_args()
    for tool in ("perf", "inferno-collapse-perf", "inferno-flamegraph"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not there: see --help")
    for scenario in ("rate", "max"):
        with system.running(args) as (up, _):
            pids = {process["name"]: process["pid"] for process in up["processes"]}
            seconds = BEGIN_S + (RECORD_S + 2) * len(PROCESSES)
            command = [str(args.tidings), "bench", scenario, "--dir", str(args.dir), "--seconds", str(seconds)]
            load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                time.sleep(BEGIN_S)
                for name in PROCESSES:
                    folded = record(args, name, pids[name])
                    if load.poll() is not None:
                        sys.exit("the load ended too early")
                    draw(scenario, name, folded)
                    print(f"{scenario}, {name}: {places(name, folded)}", flush=True)
            finally:
                load.terminate()
                load.wait()


if __name__ == "__main__":
    main()
