"""What starting `tim` costs: `python commands.py HOME` prints seconds of whole processes."""

import json
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


def seconds(home: Path, arguments: tuple[str, ...]) -> float:
    """How long it takes until the process has ended."""
    tim = Path(sys.executable).with_name("tim")
    began = time.perf_counter()
    subprocess.run([tim, "--home", home, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main(home: Path) -> None:
    identified = identify(Source(save_step_batch(home, 1, fields(64, 100, 200))))
    step = write_step(home / "lake", identified, **reading(identified))
    write_tables(step, sql_version(), compute_step(step))
    measured = {
        name: statistics.median(seconds(home, arguments) for _ in range(TIMES))
        for name, arguments in COMMANDS.items()
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
