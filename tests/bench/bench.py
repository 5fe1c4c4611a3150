"""Time and memory of the road, beside the straightforward script and the floor, in one run.

`python tests/bench/bench.py [--repeats 3] [--sizes small medium]`. Contestants take turns; medians
and their ratios are printed. Captures are kept in `build/bench`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "bench"
SIZES = {
    "small": (1024, 300, 1024),
    "medium": (4096, 2000, 8192),
}  # rows, mean length, padded width
CONTESTANTS = ("timtrack", "script", "floor")
STAGES = ("identify (sha256)", "load + Parquet", "tables", "charts", "MLflow")
COMPARED = ("load + Parquet", "tables", "charts")  # what the script does too


def python(*arguments: object) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE.parents[1]),
        "MLFLOW_LOGGING_LEVEL": "ERROR",
    }
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def capture_of(size: str) -> Path:
    folder = CACHE / size
    if not (folder / "step_1" / "step_batch.pt").exists():
        python(HERE / "make_capture.py", folder, *SIZES[size])
    return folder / "step_1" / "step_batch.pt"


def runs_of(size: str, repeats: int) -> dict[str, list[dict]]:
    capture = capture_of(size)
    runs: dict[str, list[dict]] = {name: [] for name in CONTESTANTS}
    for _ in range(repeats):
        for name in CONTESTANTS:
            with tempfile.TemporaryDirectory() as out:
                line = python(HERE / "contestants.py", name, capture, out).splitlines()[-1]
                runs[name].append(json.loads(line))
    return runs


def median(runs: list[dict], stages: tuple[str, ...]) -> float:
    return statistics.median(sum(run["seconds"].get(s, 0.0) for s in stages) for run in runs)


def show(size: str, runs: dict[str, list[dict]]) -> None:
    rows, mean, width = SIZES[size]
    print(f"\n{size}: {rows} rows, {rows * mean / 1e6:.1f} M tokens, padded to {width}")
    print(f"{'stage':20}" + "".join(f"{name:>12}" for name in CONTESTANTS))
    for stage in STAGES:
        cells = (f"{median(runs[name], (stage,)):10.2f} s" for name in CONTESTANTS)
        print(
            f"{stage:20}"
            + "".join(cell if cell.strip() != "0.00 s" else f"{'-':>12}" for cell in cells)
        )
    peaks = {name: statistics.median(r["peak"] for r in runs[name]) for name in CONTESTANTS}
    print(f"{'own memory, peak':20}" + "".join(f"{peaks[n] / 2**20:9.0f} MB" for n in CONTESTANTS))
    ours, theirs = (median(runs[name], COMPARED) for name in ("timtrack", "script"))
    floor = median(runs["floor"], ("load + Parquet",))
    data = median(runs["timtrack"], ("load + Parquet", "tables"))
    print(
        f"timtrack / script: {ours / theirs:.2f} of the time (load to charts), "
        f"{peaks['timtrack'] / peaks['script']:.2f} of the memory; "
        f"load + Parquet + tables: {data / floor:.1f} x the floor"
    )


def show_overhead(repeats: int) -> None:
    """What Prefect and MLflow add to a capture; threads draw side by side, so it may be little."""
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as out:
            runs.append(json.loads(python(HERE / "overhead.py", 20, out).splitlines()[-1]))
    bare, watched, idle = (
        statistics.median(run[name] for run in runs) for name in ("bare", "watched", "no work")
    )
    print(
        f"\na sweep over 20 small captures: {watched:.2f} s each with Prefect and MLflow, "
        f"{bare:.2f} s without ({watched - bare:+.2f} s); a sweep without work: {idle:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; medians of", end=" "
    )
    print(f"{options.repeats} interleaved runs; interpreter start and imports not counted")
    for size in options.sizes:
        show(size, runs_of(size, options.repeats))
    show_overhead(options.repeats)


if __name__ == "__main__":
    main()
