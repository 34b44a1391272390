"""A whole system on this machine, for the scripts beside this file."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

TIDINGS = Path(__file__).parents[2] / "target/release/tidings"


def add_arguments(parser):
    """Which command, and where the system's folder is."""
    parser.add_argument("--dir", type=Path, required=True, help="a folder that is not there yet, for the system's data")
    parser.add_argument("--tidings", type=Path, default=TIDINGS, help="the command")


@contextlib.contextmanager
def running(args, *options):
    """Starts a system, says what is in its `up.json` and the process of `tidings up`, and stops it and removes its data."""
    if args.dir.exists():
        sys.exit(f"{args.dir} is there already")
    command = [str(args.tidings), "up", "--dir", str(args.dir), "--rate-limits", "off", *options]
    system = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if not system.stdout.readline().startswith("ready"):
            sys.exit("tidings up did not become ready")
        yield json.loads((args.dir / "up.json").read_text()), system
    finally:
        system.send_signal(signal.SIGINT)
        system.wait()
        subprocess.run(["rm", "-rf", str(args.dir)], check=True)


def bench(args, *options):
    """One run of the load generator; its JSON."""
    result = args.dir.with_suffix(".json")
    command = [str(part) for part in (args.tidings, "bench", *options, "--json", result)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(result.read_text())
