"""Real engines and a real trainer through the hook, watched, and what is found of them.

    python -m tests.real.run OUT INTERPRETER [engines|synced|never-synced ...]

INTERPRETER has vLLM and TRL (requirements.txt); OUT/model is the model (model.py). `tim watch`
runs beside all of it. Numbers differ between processors: ranges are asserted. Exit code 1 if one
does not hold.
"""

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl

import timtrack
from timtrack.tasks.hooks.written import hook_file

HERE = Path(__file__).parent
PARTS = ("engines", "synced", "never-synced")
TIM = "from timtrack.flows.cli.main import main; raise SystemExit(main())"
COLUMNS = "run, step, tokens, kl_k1, kl_k3, abs_logp_diff_mean"
OLD_WEIGHTS = "F10"  # the rollout engine's weights are not the trainer's


@dataclass(frozen=True)
class Range:
    """Where k3 of a step must lie, in nats."""

    run: str
    step: int
    low: float
    high: float


RANGES = {
    "engines": (
        Range("ctranslate2-float32", 1, 0.0, 1e-6),
        Range("hugging-face-bf16", 1, 1e-4, 5e-3),
        Range("ctranslate2-int8", 1, 1e-2, 0.2),
    ),
    "synced": tuple(Range("synced", step, 1e-4, 5e-3) for step in (1, 2, 3)),
    "never-synced": (
        Range("never-synced", 1, 1e-4, 5e-3),
        Range("never-synced", 2, 5e-3, 0.5),
        Range("never-synced", 3, 1e-2, 1.0),
    ),
}


def train(part: str, out: Path, interpreter: str) -> int:
    """One part in the engines' own environment; its exit code."""
    script = [HERE / "engines.py", out / "model", out]
    if part != "engines":
        script = [HERE / "grpo.py", out / "model", out, part]
    log = out / f"{part}.log"
    with log.open("w") as file:
        code = subprocess.run([interpreter, *script], stdout=file, stderr=file).returncode
    if code:
        print(*log.read_text().splitlines()[-15:], sep="\n")
    return code


def watched(out: Path, parts: list[str], interpreter: str) -> int:
    """Train with a watcher beside it, which then sees the rest; the number of parts that failed."""
    home, captures = out / "home", out / "captures"
    captures.mkdir(parents=True, exist_ok=True)
    watch = [sys.executable, "-c", TIM, "--home", home, "watch", captures]
    with (out / "watch.log").open("w") as log:
        beside = subprocess.Popen(watch, stdout=log, stderr=log)
        try:
            failed = sum(bool(train(part, out, interpreter)) for part in parts)
        finally:
            beside.send_signal(signal.SIGINT)
            beside.wait(120)
        subprocess.run([*watch, "--once"], stdout=log, stderr=log)
    return failed


def wrong(out: Path, parts: list[str]) -> list[str]:
    """What is not as it must be."""
    table = timtrack.sql(f"select {COLUMNS} from step_metrics order by run, step", out / "home")
    with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        print(table)
    k3 = {(row["run"], row["step"]): row["kl_k3"] for row in table.to_dicts()}
    lines = []
    for part in parts:
        for one in RANGES[part]:
            seen = k3.get((one.run, one.step))
            if seen is None or not one.low <= seen <= one.high:
                lines.append(f"{one.run} step {one.step}: k3 {seen}, not {one.low} to {one.high}")
    if "never-synced" in parts:
        causes = timtrack.diagnose("never-synced", 3, home=out / "home")
        print("never-synced step 3:", *(f"{one.id} {one.name}" for one in causes), sep="\n  ")
        if OLD_WEIGHTS not in {one.id for one in causes}:
            lines.append("never-synced step 3: old weights are not among its causes")
    return lines


def main(out: Path, interpreter: str, wanted: list[str]) -> int:
    """Run and judge; 1 if anything failed."""
    parts = wanted or list(PARTS)
    out.mkdir(parents=True, exist_ok=True)
    (out / "timtrack_hook.py").write_text(hook_file("trl"))
    failed = watched(out, parts, interpreter)
    lines = wrong(out, parts)
    print(*lines, sep="\n")
    return int(bool(failed or lines))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:]))
