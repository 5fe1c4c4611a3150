"""Every framework's hook in the published package, and its captures against what the trainer had.

    python -m tests.frameworks.hooks_compare OUT .venv-frameworks/bin/python [framework ...]

Writes each hook as `tim hook` does, or installs the plug-in, lets `hooks_<framework>.py` train with
it in the frameworks' own environment, and reads the captures. Exit code 1 if a script fails, a
token or a fact differs from `truth.json`, or a capture is missing or too many.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tests.given_lake import read
from timtrack.tasks.captures.capture import identify, reading
from timtrack.tasks.captures.source import Source
from timtrack.tasks.hooks.written import FRAMEWORKS, hook_file
from timtrack.tasks.lake.publish import write_step

WITHOUT_MASK = ("token_id", "is_trained", "advantage")
OVER_TOKENS = (*WITHOUT_MASK, "logp_rollout", "logp_train", "kept")
SHOWN = 5  # differences that are printed
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# The same trainings without a file, with timtrack beside the framework.
PLUGINS = {"verl-plugin": "verl", "verl-v1-plugin": "verl-v1"}
ROUNDING = 1e-6  # a reward is summed over a row's tokens


def compared(folder: Path) -> list[str]:
    """What differs between the captures below a framework's folder and its truth."""
    told = json.loads((folder / "truth.json").read_text())
    files = {
        file.relative_to(folder / "captures").as_posix()
        for file in folder.glob("captures/**/step_batch*.pt")
    }
    missing = [f"{path}: not written" for path in sorted(told.keys() - files)]
    unexpected = [f"{path}: nothing was to be written" for path in sorted(files - told.keys())]
    differing = [
        f"{path}: {line}"
        for path in sorted(told.keys() & files)
        for line in differences(folder / "captures" / path, told[path])
    ]
    return [*missing, *unexpected, *differing]


def differences(path: Path, rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A line for each token column or fact of a row that is not as the trainer had it."""
    tokens, sequences = tables(path)
    seen = {row["row"]: row for row in sequences.to_dicts()}
    if set(seen) != {int(row) for row in rows}:
        yield f"rows {sorted(seen)}, expected {sorted(map(int, rows))}"
        return
    groups: dict[Any, set[Any]] = {}
    for number, truth in rows.items():
        of_row = tokens.filter(row=int(number)).sort("pos")
        for name, theirs in truth.items():
            if name == "uid":
                groups.setdefault(theirs, set()).add(seen[int(number)]["uid"])
                continue
            ours = shown(of_row, name) if name in OVER_TOKENS else seen[int(number)][name]
            wanted = masked(name, theirs, truth) if name in OVER_TOKENS else theirs
            if not same(ours, wanted):
                yield f"row {number} {name} {ours}, expected {wanted}"
    if any(len(uids) != 1 for uids in groups.values()) or len(groups) != len(
        set.union(*groups.values())
    ):
        yield f"groups {groups}"


def tables(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A capture's tokens and rows, as the lake has them."""
    with tempfile.TemporaryDirectory() as lake:
        capture = identify(Source(path))
        return read(write_step(Path(lake), capture, **reading(capture)))


def shown(of_row: pl.DataFrame, name: str) -> list[float | None]:
    """A column over a row's tokens as numbers."""
    return of_row[name].cast(pl.Float64).to_list()


def masked(name: str, theirs: list[float], truth: dict[str, Any]) -> list[float | None]:
    """Outside the mask the lake has no numbers of the engines."""
    if name in WITHOUT_MASK:
        return list(theirs)
    pairs = zip(theirs, truth["is_trained"], strict=True)
    return [value if trained else None for value, trained in pairs]


def same(ours: Any, theirs: Any) -> bool:
    """Equal; numbers up to rounding."""
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, float) and isinstance(ours, float):
        return abs(ours - theirs) <= ROUNDING * max(1, abs(theirs))
    return bool(ours == theirs)


def install(folder: Path) -> None:
    """The package itself where a trainer finds it, with the entry points that it declares."""
    (folder / "timtrack").mkdir()
    for name, target in (("__init__.py", "flows/timtrack/__init__.py"), ("tasks", "tasks")):
        (folder / "timtrack" / name).symlink_to(ROOT / target)
    about = folder / "timtrack-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: timtrack\nVersion: 0\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {where}" for name, where in points.items())
        for group, points in project["entry-points"].items()
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


def trained(name: str, folder: Path, interpreter: str) -> str:
    """Train with a framework's hook; the end of what went wrong, if anything did."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if name in PLUGINS:
        install(folder)
    (folder / "timtrack_hook.py").write_text("" if name in PLUGINS else hook_file(name))
    script = HERE / f"hooks_{PLUGINS.get(name, name).replace('-', '_')}.py"
    run = subprocess.run([interpreter, script, folder], capture_output=True, text=True)
    lines = (run.stdout + run.stderr).splitlines()
    if run.returncode:
        return "\n".join(lines[-12:])
    return "\n".join(line for line in lines if "not written" in line)


def main(out: Path, interpreter: str, wanted: list[str]) -> int:
    """Each framework; 1 if anything went wrong or differs."""
    failed = 0
    for name in wanted or (*FRAMEWORKS, *PLUGINS):
        wrong = trained(name, out / name, interpreter)
        lines = [wrong] if wrong else compared(out / name)
        failed += bool(lines)
        files = list(out.glob(f"{name}/captures/**/*.pt"))
        print(f"hook {name}: {len(files)} captures, {len(lines)} differences")
        for line in lines[:SHOWN]:
            print(f"  {line}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
