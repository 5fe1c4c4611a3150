"""Time and memory of the road, beside the straightforward script and the floor, in one run.

`python tests/bench/bench.py [--sizes small medium large] [--repeats 3]`. Contestants take turns,
each in a process of its own; medians are printed and written to `build/bench/last.json`.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import baseline
import chart
import machine
import targets
from tally import Tally, shown, tally

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "bench"
LAST = CACHE / "last.json"
# rows, mean length, padded width
SIZES = {
    "small": (1024, 300, 1024),
    "medium": (4096, 2000, 8192),
    "large": (8192, 8192, 32768),
}
LEAN = ("large",)  # with what a trainer holds anyway, in narrow types; kept only if asked for
# The script holds several copies of what it reads: large does not fit well.
CONTESTANTS = dict.fromkeys(LEAN, ("timtrack", "floor"))
WORKING = 400  # bytes on the disk per token: lake, the floor's file, what DuckDB may spill
SCALE = 6 << 30  # bytes on the disk of the lake of 250 steps, about
BACKFILL = 40  # captures of the small size
SHARDS = 2 << 30  # bytes on the disk of a capture in eight ranks' files, and its lake
CELL = 17  # bytes of a padded token in a lean capture


def python(script: str, *arguments: object, by: str = sys.executable) -> str:
    """The last line that a script of this folder prints, run `by` that interpreter."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"},
        "PYTHONPATH": str(HERE.parents[1]),
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # as `tim` has it
    }
    command = [by, *map(str, (HERE / script, *arguments))]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1] if done.stdout else ""


def capture_of(size: str) -> Path:
    """The capture of a size; made if it is not there."""
    file = CACHE / size / "step_1" / "step_batch.pt"
    if not file.exists():
        python("make_capture.py", CACHE / size, *SIZES[size], *(["lean"] if size in LEAN else []))
    return file


def lack_of_space(size: str) -> str:
    """Why a size cannot be run; empty if it can."""
    rows, mean, width = SIZES[size]
    making = 0 if (CACHE / size / "step_1").exists() else rows * width * CELL
    if size in LEAN:
        making *= 2  # the files it is made through
    return lacking(making + rows * mean * WORKING)


def lacking(needed: int) -> str:
    """Why there is no room for that many bytes; empty if there is."""
    CACHE.mkdir(parents=True, exist_ok=True)
    free = min(shutil.disk_usage(place).free for place in (CACHE, tempfile.gettempdir()))
    if free >= needed:
        return ""
    return f"it needs {needed / 1e9:.1f} GB on the disk, {free / 1e9:.1f} GB are free"


def runs_of(size: str, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """What each contestant printed, each time; they take turns."""
    capture = capture_of(size)
    names = CONTESTANTS.get(size, ("timtrack", "script", "floor"))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            with tempfile.TemporaryDirectory() as out:
                runs[name].append(json.loads(python("contestants.py", name, capture, out)))
    return runs


def show_sizes(options: argparse.Namespace) -> dict[str, Tally]:
    """Run and print one size after the other."""
    tallies: dict[str, Tally] = {}
    for size in options.sizes:
        rows, mean, width = SIZES[size]
        title = f"{size}: {rows} rows, {rows * mean / 1e6:.1f} M tokens, padded to {width}"
        if reason := lack_of_space(size):
            print(f"\n{title}\nskipped: {reason}", flush=True)
            continue
        repeats = options.repeats or (1 if size in LEAN else 3)
        tallies[size] = tally(runs_of(size, repeats))
        print(f"\n{title}; medians of {repeats}\n{shown(tallies[size])}", flush=True)
        if size in LEAN and not options.keep:
            shutil.rmtree(CACHE / size)
    return tallies


def show_fixed(repeats: int) -> dict[str, float]:
    """What is to be paid whatever the size: the command's start, Prefect and MLflow."""
    with tempfile.TemporaryDirectory() as out:
        commands: dict[str, float] = json.loads(python("commands.py", out))
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as out:
            runs.append(json.loads(python("overhead.py", 20, out)))
    sweep = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    print("\nfixed costs: whole processes, medians of 5")
    for name, seconds in commands.items():
        print(f"{name:46}{seconds:9.2f} s")
    print(f"a sweep over 20 small captures, medians of {repeats}")
    print(f"{'each, with Prefect and MLflow':46}{sweep['watched']:9.2f} s")
    print(f"{'each, without':46}{sweep['bare']:9.2f} s")
    print(f"{'a sweep without work':46}{sweep['no work']:9.2f} s", flush=True)
    return commands | sweep


def show_shards(repeats: int) -> dict[str, float]:
    """A capture that came in a file a rank, by several processes."""
    if reason := lacking(SHARDS):
        print(f"\neight ranks' files: skipped: {reason}")
        return {}
    took: dict[str, float] = json.loads(python("shards.py", repeats))
    print("\neight ranks' files, 8.2 M tokens, into the lake by processes side by side")
    for processes, seconds in took.items():
        print(f"{processes:>3} {seconds:9.2f} s   {took['1'] / seconds:5.2f} x as fast as one")
    sys.stdout.flush()
    return took


def show_peers(sizes: Sequence[str], tallies: dict[str, Tally], peers: Path) -> dict[str, Any]:
    """What the frameworks' own metrics take, beside the tables in the same run."""
    measured: dict[str, Any] = {}
    for size in sizes:
        measured[size] = json.loads(python("peers.py", capture_of(size), by=str(peers)))
        print(f"\n{size}: frameworks' own metrics, on a CPU")
        for name, of in measured[size].items():
            megabytes = of["peak"] / 2**20
            print(f"{name:20}{of['numbers']:4} numbers{of['seconds']:9.2f} s{megabytes:7.0f} MB")
        ours = tallies[size]["seconds"]["timtrack"]
        tables = ours.get("tables", math.nan) + ours.get("what-if", 0)
        print(f"{'all tables, what-if':32}{tables:9.2f} s", flush=True)
    return measured


def show_backfill() -> dict[str, float]:
    """Many captures by Dask workers of one machine."""
    with tempfile.TemporaryDirectory() as out:
        took: dict[str, float] = json.loads(
            python("backfill.py", capture_of("small"), BACKFILL, out)
        )
    print(f"\na backfill of {BACKFILL} captures of 0.3 M tokens by Dask, a thread each worker")
    for workers, seconds in took.items():
        title = f"{workers} workers" if workers.isdecimal() else "2, with Prefect and MLflow"
        each = seconds / BACKFILL
        speed = took["1"] / seconds
        print(f"{title:30}{seconds:9.1f} s{each:9.2f} s each {speed:6.2f} x as fast as one")
    sys.stdout.flush()
    return took


def show_scale(keep: bool) -> list[dict[str, Any]]:
    """Questions to a lake of 250 steps."""
    print("\nlake at scale: 200 steps of 0.3 M tokens, 50 of 8 M; warm process, medians of 5")
    home = CACHE / "lake"
    if reason := "" if home.exists() else lacking(SCALE):
        print(f"skipped: {reason}")
        return []
    files = [capture_of(size) for size in ("small", "medium")]
    answers: list[dict[str, Any]] = json.loads(python("scale.py", *files, home))
    if not keep:
        shutil.rmtree(home)
    print(targets.of_answers(answers), flush=True)
    return answers


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=["small", "medium"])
    parser.add_argument("--repeats", type=int, help="default: 3, of large 1")
    parser.add_argument("--keep", action="store_true", help="the large capture, and the big lake")
    parser.add_argument("--no-fixed", action="store_true", help="without the fixed costs")
    parser.add_argument("--no-lake", action="store_true", help="without the lake at scale")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="of the frameworks")
    parser.add_argument("--backfill", action="store_true", help="40 captures by Dask workers")
    parser.add_argument("--baseline", type=Path, default=HERE / "baseline.json")
    parser.add_argument("--save-baseline", action="store_true", help="hold later runs to this one")
    parser.add_argument("--chart", type=Path, metavar="FILE.png")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = options_of(arguments)
    CACHE.mkdir(parents=True, exist_ok=True)
    print(machine.description())
    print("interpreter start and imports are not counted; memory is the process's own (anonymous)")
    print("what-if is computed by itself, with the parts that it shares with the other tables")
    tallies = show_sizes(options)
    if tallies:
        print(f"\n{targets.of_sizes(tallies)}\n\n{baseline.compared(tallies, options.baseline)}")
    if options.save_baseline:
        baseline.save(tallies, options.baseline)
    if options.chart:
        chart.save(tallies, options.chart)
    results: dict[str, Any] = {"machine": machine.description(), "sizes": tallies}
    if options.peers:
        results["peers"] = show_peers(list(tallies), tallies, options.peers)
    if options.backfill:
        results["backfill"] = show_backfill()
    results["fixed"] = {} if options.no_fixed else show_fixed(options.repeats or 3)
    results["shards"] = {} if options.no_fixed else show_shards(options.repeats or 3)
    results["lake"] = [] if options.no_lake else show_scale(options.keep)
    LAST.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
