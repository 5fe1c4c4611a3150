"""What starting `tim` costs: `python commands.py HOME` prints seconds of whole processes."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from make_capture import fields

from timtrack.tasks.captures.capture import identify, reading
from timtrack.tasks.captures.source import Source
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake.publish import write_step, write_tables
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step

TIMES = 5
COMMANDS = {
    "tim --help": ("--help",),
    "tim sql 'select count(*) from tokens'": ("sql", "select count(*) from tokens"),
}
# A capture that is new each time, then the same one again, then what is no capture.
NEW, AGAIN, WRONG = "tim ingest, a small capture", "... with nothing to do", "... of no capture"
# Without a Prefect server, and with compiled modules.
LEFT_OUT = ("PREFECT_", "PYTHONDONTWRITEBYTECODE")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}


def seconds(home: Path, arguments: tuple[str | Path, ...], code: int = 0) -> float:
    """How long it takes until the process has ended."""
    tim = Path(sys.executable).with_name("tim")
    began = time.perf_counter()
    command = [tim, "--home", home, *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    done = subprocess.run(command, **quiet, cwd=home, env=ENVIRONMENT, check=False)
    if done.returncode != code:
        raise SystemExit(f"{command} ended with {done.returncode}, not {code}")
    return time.perf_counter() - began


def ingests(home: Path) -> dict[str, float]:
    """Seconds of `tim ingest`, whose store is there already."""
    wrong = home / "wrong.pt"
    wrong.write_text("no capture")
    captures = [save_step_batch(home / "new", n, fields(64, 100, 200)) for n in range(TIMES + 1)]
    seconds(home, ("ingest", captures.pop()))  # makes the store
    took = {
        NEW: [seconds(home, ("ingest", capture)) for capture in captures],
        AGAIN: [seconds(home, ("ingest", captures[-1])) for _ in range(TIMES)],
        WRONG: [seconds(home, ("ingest", wrong), code=1) for _ in range(TIMES)],
    }
    return {name: statistics.median(values) for name, values in took.items()}


def main(home: Path) -> None:
    identified = identify(Source(save_step_batch(home, 1, fields(64, 100, 200))))
    step = write_step(home / "lake", identified, **reading(identified))
    write_tables(step, sql_version(), compute_step(step))
    measured = {
        name: statistics.median(seconds(home, arguments) for _ in range(TIMES))
        for name, arguments in COMMANDS.items()
    }
    print(json.dumps(measured | ingests(home)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
