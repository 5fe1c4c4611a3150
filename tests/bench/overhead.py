"""What a capture costs beside the work on its data: `python overhead.py CAPTURES OUT` prints JSON.

The same small captures go twice into a lake: by the stages called one after the other, and by a
sweep of the watcher under a real Prefect server, which logs them to MLflow too. One capture before
each, so that imports, database tables and the server's start are not counted.
"""

import json
import sys
import time
from pathlib import Path

from make_capture import fields
from prefect.testing.utilities import prefect_test_harness

from timtrack.flows.watch import watch
from timtrack.tasks.captures.capture import identify, reading
from timtrack.tasks.captures.discovery import find_captures
from timtrack.tasks.captures.source import Source
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake.publish import write_step, write_tables
from timtrack.tasks.lake.steps import find_step
from timtrack.tasks.pipeline import stages
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.verdicts.bands import OURS

ROWS, MEAN = 64, 100


def bare(root: Path, home: Path) -> None:
    """The stages without orchestration and tracking."""
    for path in find_captures(root):
        identified = identify(Source(path))
        step = find_step(home / "lake", identified)
        if step is None:
            step = write_step(home / "lake", identified, **reading(identified))
            write_tables(step, sql_version(), compute_step(step))
            stages.draw_step(step, home / f"files-{step.step}", OURS)


def seconds(work, *arguments: Path) -> float:
    began = time.monotonic()
    work(*arguments)
    return time.monotonic() - began


def main() -> None:
    count, out = int(sys.argv[1]), Path(sys.argv[2])
    root = out / "captures"
    save_step_batch(root, 0, fields(ROWS, MEAN, 2 * MEAN))
    with prefect_test_harness(server_startup_timeout=180):
        bare(root, out / "bare")
        watch(root, out / "watched")
        for step in range(1, count + 1):
            batch = fields(ROWS, MEAN, 2 * MEAN)
            batch["old_log_probs"] *= 1 + 1e-4 * step  # no two captures alike
            save_step_batch(root, step, batch)
        measured = {
            "bare": seconds(bare, root, out / "bare") / count,
            "watched": seconds(watch, root, out / "watched") / count,
            "no work": seconds(watch, root, out / "watched"),
        }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
