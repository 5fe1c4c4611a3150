"""Steps of the lake: which are there, and what is known of each.

    <lake>/run=<run>/step=<n>/capture=<id>/tokens.parquet       one row per response token
                                           sequences.parquet    one row per rollout
                                           tokens/, sequences/  instead, part-*.parquet, of a
                                                                capture that came in shards
                                           evidence.parquet     what else a capture says of tokens
                                           vocabulary.parquet   text of the token ids that occur
                                           capture.json         where all this came from
                                           tables-<version>/    the step's tables (tasks/tables)
                                           referee-<id>/        what tim referee found, once asked

What is visible never changes. A changed capture has another id, so it is a new folder; the old one
goes after the new one is in, and until then `all_steps` gives the newer of the two.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from timtrack.tasks.captures.capture import Capture
from timtrack.tasks.lake import integrity, parquet
from timtrack.tasks.messages.errors import TimtrackError

STEP = re.compile(r"run=(?P<run>[^/]+)/step=(?P<step>\d+)/capture=(?P<capture>[0-9a-f]+)$")


@dataclass(frozen=True)
class Step:
    """One step of one run in the lake."""

    run: str
    step: int
    capture: str
    path: Path

    @property
    def name(self) -> str:
        """Run and step, as people say it."""
        return f"{self.run} step {self.step}"

    def facts(self) -> dict[str, Any]:
        """`capture.json`: source, digest, format, counts, notes, what the file says of itself."""
        return dict(json.loads((self.path / "capture.json").read_text()))


def is_bypass(facts: Mapping[str, Any]) -> bool:
    """Whether both engines' log-probs of a step are the same bits, so that nothing was measured."""
    return facts.get("measurement") == "bypass"


def all_steps(lake: Path) -> list[Step]:
    """Every visible step by run and step; of two captures of one step, the newer."""
    newest: dict[tuple[str, int], Step] = {}
    by_age = ((_age(facts), facts) for facts in lake.glob("run=*/step=*/capture=*/capture.json"))
    for _, facts in sorted((age, facts) for age, facts in by_age if age):
        match = STEP.search(facts.parent.as_posix())
        if match:
            run, number = unquote(match["run"]), int(match["step"])
            newest[run, number] = Step(run, number, match["capture"], facts.parent)
    return [newest[key] for key in sorted(newest)]


class NoSuchStep(TimtrackError):
    """The lake does not have it."""


def pick_step(lake: Path, run: str, number: int | None = None) -> Step:
    """A run's step of this number, its latest if none is given; raises NoSuchStep."""
    steps = all_steps(lake)
    of_run = [step for step in steps if step.run == run]
    if not of_run:
        runs = ", ".join(sorted({step.run for step in steps})) or "none"
        raise NoSuchStep(f"no run {run!r} in {lake}; runs there: {runs}")
    matches = [step for step in of_run if number in (None, step.step)]
    if not matches:
        captured = f"{len(of_run)} from {of_run[0].step} to {of_run[-1].step}"
        raise NoSuchStep(f"run {run} has no step {number} in {lake}; it has {captured}")
    return matches[-1]


def neighbour(lake: Path, step: Step, away: int) -> Step:
    """The step that is `away` places later among its run's, earlier if negative; or NoSuchStep."""
    of_run = [one for one in all_steps(lake) if one.run == step.run]
    place = [one.step for one in of_run].index(step.step) + away
    if not 0 <= place < len(of_run):
        end = "last" if away > 0 else "first"
        raise NoSuchStep(f"step {step.step} is the {end} of run {step.run} in {lake}")
    return of_run[place]


def steps_between(lake: Path, run: str, low: int | None, high: int | None) -> list[Step]:
    """A run's steps from low to high, both included; raises NoSuchStep if there are none."""
    pick_step(lake, run)
    steps = [step for step in all_steps(lake) if step.run == run]
    between = [
        s for s in steps if (low is None or low <= s.step) and (high is None or s.step <= high)
    ]
    if not between:
        captured = f"{len(steps)} from {steps[0].step} to {steps[-1].step}"
        raise NoSuchStep(f"run {run} has no step in that range; it has {captured}")
    return between


def latest_common_step(lake: Path, run: str, other: str) -> int:
    """The latest step number that two runs both have; raises NoSuchStep."""
    both = [{step.step for step in all_steps(lake) if step.run == name} for name in (run, other)]
    common = both[0] & both[1]
    if not common:
        for name in (run, other):
            pick_step(lake, name)  # says which run is missing
        raise NoSuchStep(f"{run} and {other} have no step in common; name --step and --other-step")
    return max(common)


def find_step(lake: Path, capture: Capture) -> Step | None:
    """The step that this very capture became, None while it is pending."""
    path = home_of(lake, capture)
    if not (path / "capture.json").is_file():
        return None
    return Step(capture.run, capture.step, capture.id, path)


def has_other_capture(lake: Path, capture: Capture) -> bool:
    """Whether another capture of the same step is there: this one comes in its place."""
    home = home_of(lake, capture)
    return any(other != home for other in home.parent.glob("capture=*"))


PRUNED = "pruned"  # the mark of a step whose tokens go or are gone


def is_pruned(step: Step) -> bool:
    """Whether the step's tokens were deleted and only its tables are left."""
    return not token_files(step)


def token_files(step: Step) -> list[Path]:
    """The Parquet files with the step's tokens; none if they were pruned."""
    return step_files(step, "tokens")


def step_files(step: Step, name: str) -> list[Path]:
    """The Parquet files of a step's tokens, sequences or vocabulary; none if they were pruned.

    A prune that was killed may have left some, which are no step.
    """
    return [] if has_mark(step, PRUNED) else parquet.files(step.path, name)


REFEREE = "referee"  # how the folder begins of what a referee found
REFEREE_FILE = "referee.json"  # in it


def referee_folder(step: Step) -> Path | None:
    """Where the referee's answer about a step lies, if it was asked."""
    return next(iter(sorted(step.path.glob(f"{REFEREE}-*"))), None)


def require_tokens(step: Step) -> None:
    """Raise NoSuchStep if the step's tokens were pruned."""
    if is_pruned(step):
        raise NoSuchStep(f"the tokens of {step.name} were pruned, only its tables are left")


def prunable_bytes(step: Step) -> int:
    """What `prune_tokens` would free."""
    return sum(file.stat().st_size for file in prunable_files(step))


def step_faults(step: Step) -> Iterator[str]:
    """Files that changed since they were written, a line each."""
    return integrity.faults(step.path, is_pruned(step))


def prunable_files(step: Step) -> list[Path]:
    """The files whose size grows with the tokens, if they exist."""
    names = ("tokens", "sequences", "evidence", "vocabulary")
    return [file for name in names for file in parquet.files(step.path, name)]


def set_mark(step: Step, name: str, text: str = "") -> None:
    """Remember something about a step: a file, there or not there, and what it says."""
    (step.path / name).write_text(text)


def mark_text(step: Step, name: str) -> str:
    """What a mark says; nothing without it."""
    try:
        return (step.path / name).read_text()
    except OSError:
        return ""


def clear_mark(step: Step, name: str) -> None:
    """Forget what `set_mark` remembered."""
    (step.path / name).unlink(missing_ok=True)


def has_mark(step: Step, name: str) -> bool:
    """Whether `set_mark` was called with this name."""
    return (step.path / name).exists()


def home_of(lake: Path, capture: Capture) -> Path:
    """Where a capture's step lies, or will."""
    run = quote(capture.run, safe="")
    return lake / f"run={run}" / f"step={capture.step}" / f"capture={capture.id}"


def _age(facts: Path) -> tuple[int, str] | None:
    """None of a step that is replaced just now."""
    try:
        return facts.stat().st_mtime_ns, facts.parent.name
    except FileNotFoundError:
        return None
