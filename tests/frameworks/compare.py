"""The project's tables against what the frameworks said of their own captures (write.py).

    python -m tests.frameworks.compare FOLDER [--all]

Reads each capture by its reader into a lake and compares, name by name, what the tables have:
metrics by the framework's names, corrections by each trained token's coefficient. Exit code 1 if
anything differs. `--all` lists what the tables do not have, too.
"""

import json
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from timtrack.tasks.captures.capture import identify, reading
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.publish import write_step
from timtrack.tasks.lake.steps import Step, token_files
from timtrack.tasks.messages.errors import BadCapture, BadTokens
from timtrack.tasks.tables import corrections
from timtrack.tasks.tables.catalogue import catalogue
from timtrack.tasks.tables.coefficients import coefficient
from timtrack.tasks.tables.corrections import Setting
from timtrack.tasks.tables.query import run_query

RELATIVE = 1e-5  # frameworks compute in float32, the tables in float64
ABSOLUTE = 1e-12  # what cancels to nothing
# Of a setting's largest coefficient: e^-20, where most clip a ratio, counts as the e^-24 of those
# that do not.
NEGLIGIBLE = 1e-8
SHOWN = 3  # places of a difference that are printed

Entry = dict[str, Any]


@dataclass
class Tally:
    """What was found for one framework. Names stand for a number in one capture, with options."""

    equal: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    differing: dict[str, list[str]] = field(default_factory=dict)  # places by name

    def put(self, name: str, place: str, ours: float | None, theirs: float) -> None:
        """Compare one number."""
        if close(ours, theirs):
            self.equal.append(name)
        else:
            self.differ(name, f"{place}: {shown(ours)} by us, {shown(theirs)} by them")

    def differ(self, name: str, where: str) -> None:
        """Note a difference."""
        self.differing.setdefault(name, []).append(where)


def shown(value: float | None) -> str:
    """A number of either side, for a line of the report."""
    return "nothing" if value is None else f"{value:.7g}"


def close(ours: float | None, theirs: float, absolute: float = ABSOLUTE) -> bool:
    """Whether two numbers are the same up to the rounding of float32."""
    if ours is None or math.isnan(theirs):
        return ours is None and math.isnan(theirs)
    return math.isclose(ours, theirs, rel_tol=RELATIVE, abs_tol=absolute)


def compared(folder: Path) -> Tally:
    """One framework's captures against its `expected.json`."""
    told = json.loads((folder / "expected.json").read_text())
    found, read = Tally(), dict[str, pl.DataFrame]()
    for file, entry in told["captures"].items():
        with tempfile.TemporaryDirectory() as into:
            try:
                step = ingested(folder / file, Path(into))
            except (BadCapture, BadTokens) as error:
                found.differ("capture", f"{file}: not read, {error}")
                continue
            if "same_as" in entry:
                compare_tokens(found, file, step, read.get(entry["same_as"]))
                continue
            read[file] = tokens_of(step)
            compare_metrics(found, told["framework"], file, step, entry)
            compare_weights(found, file, step, entry["corrections"])
    return found


def ingested(path: Path, into: Path) -> Step:
    """A capture in a lake."""
    capture = identify(Source(path))
    return write_step(into, capture, **reading(capture))


def tokens_of(step: Step) -> pl.DataFrame:
    """What a reader made of a capture, as far as every container of a batch has it."""
    known = ["row", "pos", "token_id", "is_trained", "logp_rollout", "logp_train", "advantage"]
    return pl.read_parquet(token_files(step)).sort("row", "pos").select(known)


def compare_tokens(found: Tally, file: str, step: Step, expected: pl.DataFrame | None) -> None:
    """Another container of the same batch has the same tokens."""
    if expected is not None and tokens_of(step).equals(expected):
        found.equal.append("tokens")
    else:
        found.differ("tokens", f"{file}: other tokens than in the first container")


def compare_metrics(found: Tally, framework: str, file: str, step: Step, entry: Entry) -> None:
    """What is always logged, and what each correction logs."""
    name = f"{framework}_metrics"
    rows = run_query([step], f"from {name}").to_dicts() if name in catalogue() else []
    ours = {(row.get("setting", "none"), row["name"]): row["value"] for row in rows}
    for name, theirs in entry["metrics"].items():
        of_name = [setting for setting, logged in ours if logged == name]
        only = of_name if len(of_name) == 1 else []
        compare_metric(found, name, file, ours, ["none", entry.get("under", ""), *only], theirs)
    for correction in entry["corrections"]:
        places = list(settings_of(correction))
        for name, theirs in correction.get("metrics", {}).items():
            compare_metric(found, name, f"{file} {places[-1]}", ours, places, theirs)


def compare_metric(
    found: Tally, name: str, place: str, ours: dict[Any, Any], settings: list[str], theirs: Any
) -> None:
    """One name, in the first of these settings that the table has it under."""
    setting = next((s for s in settings if (s, name) in ours), None)
    if setting is None:
        found.unknown.append(name)
    else:
        found.put(name, place, ours[setting, name], float(theirs))


def settings_of(correction: Entry) -> Iterator[str]:
    """What a correction's numbers may be listed under: as the framework's module says, verl's
    option with its bounds, timtrack's setting; last the options as they were given.
    """
    options = correction["options"]
    level, option = options.get("rollout_is"), options.get("rollout_rs")
    if "under" in correction:
        yield correction["under"]
    if level and not option:
        bounds = options["rollout_is_threshold"]
        weights = level if bounds == 2 else f"{level}_{bounds}"
        if options.get("rollout_is_batch_normalize"):
            yield f"{weights}_normalised"
        yield weights
    if option and not level:
        yield f"{option}_{options['rollout_rs_threshold']}"
    if correction["setting"]:
        yield correction["setting"]
    yield ", ".join(f"{key}={value}" for key, value in options.items())


def compare_weights(found: Tally, file: str, step: Step, entries: list[Entry]) -> None:
    """Each correction that the project has under a setting: its coefficient at every token."""
    named = [(entry, setting_named(entry["setting"])) for entry in entries]
    known = {s.name: s for _, s in named if s}
    columns = [f'{coefficient(s)} as "{name}"' for name, s in known.items()]
    table = run_query([step], f"select row, pos, {', '.join(columns)} from token_weights")
    ours = {(row["row"], row["pos"]): row for row in table.to_dicts()}
    for entry, setting in named:
        if setting:
            compare_coefficients(found, f"{file} {list(settings_of(entry))[-1]}", entry, ours)
        else:
            found.unknown.append(f"weights {list(settings_of(entry))[-1]}")


def compare_coefficients(found: Tally, place: str, entry: Entry, ours: dict[Any, Any]) -> None:
    """One correction: equal if every token has the same coefficient."""
    name = entry["setting"]
    pairs = [
        (row, pos, ours.get((row, pos), {}).get(name), float(theirs))
        for row, pos, theirs in entry["weights"]
    ]
    least = NEGLIGIBLE * max(abs(pair[3]) for pair in pairs) + ABSOLUTE
    wrong = [pair for pair in pairs if not close(*pair[2:], least)]
    if not wrong:
        found.equal.append(name)
        return
    row, pos, we, they = wrong[0]
    found.differ(
        name,
        f"{place}: {len(wrong)} of {len(pairs)} tokens, first at row {row} position {pos}: "
        f"{shown(we)} by us, {shown(they)} by them",
    )


def setting_named(name: str | None) -> Setting | None:
    """The setting as it stands in the table `corrections`, with any values of its parameters."""
    for method in corrections.methods() if name else ():
        values = name.removeprefix(method).removeprefix("_").replace("_", ",")
        if name.startswith(method):
            with suppress(corrections.BadSetting):
                return corrections.parse(f"{method}:{values}" if values else method)
    return None


def report(framework: str, found: Tally, every: bool) -> None:
    """Print what was found for one framework."""
    names = len({*found.equal, *found.unknown, *found.differing})
    print(
        f"\n{framework}: {names} names, {len(found.equal)} numbers equal, "
        f"{len(found.differing)} names differ, {len(set(found.unknown))} not in our tables"
    )
    for name, places in sorted(found.differing.items()):
        print(f"  differs: {name}")
        print(*(f"    {place}" for place in places[:SHOWN]), sep="\n")
        if len(places) > SHOWN:
            print(f"    and {len(places) - SHOWN} more")
    if found.unknown and every:
        print("  not in our tables:", ", ".join(sorted(set(found.unknown))))


def main(folder: Path, every: bool = False) -> int:
    """Compare every framework below a folder; 1 if anything differs."""
    tallies = {file.parent.name: compared(file.parent) for file in folder.glob("*/expected.json")}
    if not tallies:
        print(f"no expected.json under {folder}; write.py makes it")
        return 1
    for framework in sorted(tallies):
        report(framework, tallies[framework], every)
    return int(any(found.differing for found in tallies.values()))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--all" in sys.argv))
