"""A capture in eight ranks' files, 8 M tokens, into a lake by 1, 2 and 4 processes side by side.

`python shards.py REPEATS` prints the medians as JSON. The parts are those that the flow hands to
its task runner; processes are started and have imported before the clock runs.
"""

import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from make_capture import fields

from timtrack.tasks.captures.capture import Capture, identify
from timtrack.tasks.captures.source import Source
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake.publish import finish_step, write_part
from timtrack.tasks.tokens.checks import Check

CACHE = Path(__file__).parents[2] / "build" / "bench" / "ranked"
RANKS, ROWS, MEAN, WIDTH = 8, 512, 2000, 8192
PROCESSES = (1, 2, 4)


def capture() -> Capture:
    """The ranks' files, made once."""
    path = CACHE / "step_1" / "step_batch.rank_0.pt"
    for rank in range(RANKS):
        if not path.with_name(f"step_batch.rank_{rank}.pt").exists():
            save_step_batch(CACHE, 1, fields(ROWS, MEAN, WIDTH), rank, RANKS)
    return identify(Source(path))


def part(of: Capture, folder: Path, number: int) -> Check:
    """What a worker does."""
    return write_part(folder, of, Source(of.path).open(), number)


def warm(_: int) -> None:
    """Imports what a worker needs, and keeps it busy until all have begun."""
    import torch  # noqa: F401 - the reader imports it when it needs it

    time.sleep(1)


def seconds(of: Capture, processes: int) -> float:
    """From the files to a published step."""
    with (
        tempfile.TemporaryDirectory(dir=CACHE) as out,
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
    ):
        list(pool.map(warm, range(processes)))
        folder = Path(out) / "aside"
        folder.mkdir()
        began = time.perf_counter()
        futures = [pool.submit(part, of, folder, number) for number in range(RANKS)]
        finish_step(
            Path(out) / "lake", folder, of, Source(of.path).open(), [f.result() for f in futures]
        )
        return time.perf_counter() - began


def main() -> None:
    of = capture()
    runs: dict[int, list[float]] = {processes: [] for processes in PROCESSES}
    for _ in range(int(sys.argv[1])):
        for processes in PROCESSES:
            runs[processes].append(seconds(of, processes))
    print(json.dumps({n: statistics.median(measured) for n, measured in runs.items()}))


if __name__ == "__main__":
    main()
