"""Where steps live, and the one way in: written aside, then published whole by one rename.

    <lake>/run=<run>/step=<n>/capture=<id>/tokens.parquet       one row per response token
                                           sequences.parquet    one row per rollout
                                           tokens/, sequences/  instead, part-*.parquet, of a
                                                                capture that came in shards
                                           vocabulary.parquet   text of the token ids that occur
                                           capture.json         where all this came from
                                           tables-<version>/    the step's tables (tasks/tables.py)

What is visible never changes. A changed capture has another id, so it is a new folder; the old one
goes after the new one is in, and until then `steps` gives the newer of the two.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import polars as pl
from filelock import FileLock

from timtrack.tasks import integrity, notation, parquet
from timtrack.tasks.captures import Capture, Stamp, check_unchanged
from timtrack.tasks.system.durable import sync
from timtrack.tasks.tokens import SCHEMA_VERSION, BadCapture, Batch, Block, Check, Verdict

STEP = re.compile(r"run=(?P<run>[^/]+)/step=(?P<step>\d+)/capture=(?P<capture>[0-9a-f]+)$")

# Machines that share a lake may share a name, so what is left aside must be old, too.
ABANDONED = 600.0  # seconds

# Of a capture with more shards, each part takes several: every file of a step costs a query.
MOST_PARTS = 16


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


class BadPlace(Exception):
    """A lake cannot be where it was put."""


def check_place(lake: Path) -> None:
    """Raise BadPlace where DuckDB would take a folder around the lake for one of its own."""
    taken = [part for part in lake.absolute().parts if "=" in part]
    if taken:
        raise BadPlace(
            f"{lake} lies below the folder {taken[0]!r}, which would become a column of every "
            "table; put it where no folder has a = in its name"
        )


def steps(lake: Path) -> list[Step]:
    """Every visible step by run and step; of two captures of one step, the newer."""
    found: dict[tuple[str, int], Step] = {}
    there = ((_age(facts), facts) for facts in lake.glob("run=*/step=*/capture=*/capture.json"))
    for _, facts in sorted((age, facts) for age, facts in there if age):
        match = STEP.search(facts.parent.as_posix())
        if match:
            run, number = unquote(match["run"]), int(match["step"])
            found[run, number] = Step(run, number, match["capture"], facts.parent)
    return [found[key] for key in sorted(found)]


class NoSuchStep(Exception):
    """The lake does not have it."""


def pick(lake: Path, run: str, number: int | None = None) -> Step:
    """A run's step of this number, its latest if none is given; raises NoSuchStep."""
    there = steps(lake)
    of_run = [step for step in there if step.run == run]
    if not of_run:
        known = ", ".join(sorted({step.run for step in there})) or "none"
        raise NoSuchStep(f"no run {run!r} in {lake}; runs there: {known}")
    wanted = [step for step in of_run if number in (None, step.step)]
    if not wanted:
        known = f"{len(of_run)} from {of_run[0].step} to {of_run[-1].step}"
        raise NoSuchStep(f"run {run} has no step {number} in {lake}; it has {known}")
    return wanted[-1]


def between(lake: Path, run: str, low: int | None, high: int | None) -> list[Step]:
    """A run's steps from low to high, both included; raises NoSuchStep if there are none."""
    pick(lake, run)
    found = [step for step in steps(lake) if step.run == run]
    chosen = [
        s for s in found if (low is None or low <= s.step) and (high is None or s.step <= high)
    ]
    if not chosen:
        known = f"{len(found)} from {found[0].step} to {found[-1].step}"
        raise NoSuchStep(f"run {run} has no step in that range; it has {known}")
    return chosen


def latest_of_both(lake: Path, run: str, other: str) -> int:
    """The latest step number that two runs both have; raises NoSuchStep."""
    both = [{step.step for step in steps(lake) if step.run == name} for name in (run, other)]
    common = both[0] & both[1]
    if not common:
        for name in (run, other):
            pick(lake, name)  # says which run is missing
        raise NoSuchStep(f"{run} and {other} have no step in common; name --step and --other-step")
    return max(common)


def find(lake: Path, capture: Capture) -> Step | None:
    """The step that this very capture became, None while it is pending."""
    path = _home(lake, capture)
    if not (path / "capture.json").is_file():
        return None
    return Step(capture.run, capture.step, capture.id, path)


def has_other(lake: Path, capture: Capture) -> bool:
    """Whether another capture of the same step is there: this one comes in its place."""
    home = _home(lake, capture)
    return any(other != home for other in home.parent.glob("capture=*"))


def write_step(
    lake: Path,
    capture: Capture,
    batch: Batch,
    decode: Callable[[Block], Block] = lambda block: block,
    vocabulary: Callable[[list[int]], pl.DataFrame] | None = None,
    vocabulary_size: int | None = None,
) -> Step:
    """Stream a batch into the lake and publish it; what fails a check leaves the lake as it was.

    Memory is bounded by one block of rows, whatever the size of the capture.
    """
    with _aside(lake) as folder:
        numbers = range(parts_of(capture))
        parts = [write_part(folder, capture, batch, number, decode) for number in numbers]
        return finish(lake, folder, capture, batch, parts, vocabulary, vocabulary_size)


def parts_of(capture: Capture) -> int:
    """Into how many parts a capture goes that can be written apart: 1 if it did not come so."""
    return min(capture.shards, MOST_PARTS)


def write_part(
    folder: Path,
    capture: Capture,
    batch: Batch,
    part: int,
    decode: Callable[[Block], Block] = lambda block: block,
) -> Check:
    """Write every n-th shard of a batch into a folder, from the `part`-th on; n is `parts_of`."""
    check, parts = Check(), parts_of(capture)
    blocks = chain.from_iterable(shard() for shard in batch.shards[part::parts])
    try:
        named = None if parts == 1 else part
        read = blocks if batch.shards else batch.blocks()
        parquet.write_blocks(folder, map(decode, check.watch(read)), named)
    except BadCapture:
        check_unchanged(capture)  # if it was written to, that is the reason to tell
        raise
    return check


def finish(
    lake: Path,
    folder: Path,
    capture: Capture,
    batch: Batch,
    parts: list[Check],
    vocabulary: Callable[[list[int]], pl.DataFrame] | None = None,
    vocabulary_size: int | None = None,
) -> Step:
    """Publish the parts in a folder as a step, if what was seen of them passes the checks."""
    check_place(lake)
    check = Check()
    for part in parts:
        check.add(part)
    try:
        verdict = check.verdict()
        _check_rows(folder, verdict)
    except BadCapture:
        check_unchanged(capture)
        raise
    if vocabulary:
        tokens = pl.scan_parquet(parquet.files(folder, "tokens"), glob=False).select("token_id")
        ids = tokens.drop_nulls().unique().collect()["token_id"].sort().to_list()
        parquet.write_small(folder / "vocabulary.parquet", vocabulary(ids))
    check_unchanged(capture)
    facts = _facts(capture, batch, verdict) | _vocabulary(batch, vocabulary_size)
    facts[integrity.KEPT] = integrity.sums_of(folder)
    (folder / "capture.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
    step = Step(capture.run, capture.step, capture.id, _home(lake, capture))
    with _step_lock(step):
        publish(folder, step.path)
        _discard_others(step)
    return step


def _check_rows(folder: Path, verdict: Verdict) -> None:
    """Raise BadCapture where two shards have a row of the same number."""
    files = parquet.files(folder, "sequences")
    if len(files) > 1:
        rows = pl.scan_parquet(files, glob=False).select(pl.col("row").n_unique()).collect().item()
        if rows < verdict.rows:
            raise BadCapture(
                f"{verdict.rows - rows} of {verdict.rows} rollouts are in two ranks' files: their "
                "row_index must say which of the whole batch each is"
            )


def settle(step: Step) -> Step:
    """Make a step that is there the only one of its number: a kill may have left two captures."""
    if len(list(step.path.parent.glob("capture=*"))) > 1:
        with _step_lock(step):
            _discard_others(step)
    return step


def _discard_others(step: Step) -> None:
    others = [other for other in step.path.parent.glob("capture=*") if other != step.path]
    _discard(step.path.parents[2], others)


def _step_lock(step: Step) -> FileLock:
    """Two processes with two captures of one step: the later one stays, never none."""
    name = hashlib.sha256(f"{step.run}/{step.step}".encode()).hexdigest()[:16]
    return FileLock(step.path.parents[2] / ".staging" / f"{name}.lock")


def write_tables(step: Step, version: str, tables: dict[str, pl.DataFrame]) -> None:
    """Add a step's tables to it, all at once; tables of another version go."""
    lake = step.path.parents[2]
    with _aside(lake) as folder:
        for name, table in tables.items():
            parquet.write_small(folder / f"{name}.parquet", table)
        integrity.write_sums(folder)
        publish(folder, step.path / f"tables-{version}")
    others = step.path.glob("tables-*")
    _discard(lake, [other for other in others if other.name != f"tables-{version}"])


PRUNED = "pruned"  # the mark of a step whose tokens go or are gone


def is_pruned(step: Step) -> bool:
    """Whether the step's tokens were deleted and only its tables are left."""
    return not token_files(step)


def token_files(step: Step) -> list[Path]:
    """The Parquet files with the step's tokens; none if they were pruned."""
    return files(step, "tokens")


def files(step: Step, name: str) -> list[Path]:
    """The Parquet files of a step's tokens, sequences or vocabulary; none if they were pruned.

    A prune that was killed may have left some, which are no step.
    """
    return [] if has_mark(step, PRUNED) else parquet.files(step.path, name)


def need_tokens(step: Step) -> None:
    """Raise NoSuchStep for a step of which only the tables are left."""
    if is_pruned(step):
        raise NoSuchStep(f"the tokens of {step.name} were pruned, only its tables are left")


def prune(step: Step) -> None:
    """Delete the step's tokens, sequences and vocabulary; tables and capture.json stay."""
    mark(step, PRUNED)
    sync(step.path)
    for file in _token_files(step):
        file.unlink()


def prunable_bytes(step: Step) -> int:
    """What `prune` would free."""
    return sum(file.stat().st_size for file in _token_files(step))


def faults(step: Step) -> Iterator[str]:
    """What is not as it was written, a line a file."""
    return integrity.faults(step.path, is_pruned(step))


def _token_files(step: Step) -> list[Path]:
    """What grows with the tokens, as far as it is there."""
    names = ("tokens", "sequences", "vocabulary")
    return [file for name in names for file in parquet.files(step.path, name)]


def mark(step: Step, name: str) -> None:
    """Remember something about a step: an empty file, there or not there."""
    (step.path / name).touch()


def unmark(step: Step, name: str) -> None:
    """Forget what `mark` remembered."""
    (step.path / name).unlink(missing_ok=True)


def has_mark(step: Step, name: str) -> bool:
    """Whether `mark` was called with this name."""
    return (step.path / name).exists()


def recognise(step: Step, path: Path, stamp: Stamp) -> None:
    """Remember that a file holds the step's bytes: its own after a touch, or a copy elsewhere.

    It need not be read again to know that.
    """
    if recognises(step, step.facts(), path, stamp):
        return
    for other in step.path.glob(f"seen-{_hash_of(path)}-*"):
        other.unlink(missing_ok=True)
    mark(step, _seen(path, stamp))


def recognises(step: Step, facts: dict[str, Any], path: Path, stamp: Stamp) -> bool:
    """Whether a file with this size and time is known to hold the step's bytes."""
    known = [facts[name] for name in ("bytes", "mtime_ns", "ctime_ns") if name in facts]
    own = str(path.absolute()) == facts["source"] and list(stamp[: len(known)]) == known
    return own or has_mark(step, _seen(path, stamp))


def copies(lake: Path) -> dict[str, Path]:
    """The folder of the step whose bytes a path was seen to hold, by the path's hash."""
    marks = lake.glob("run=*/step=*/capture=*/seen-*-*-*")
    return {mark.name.split("-")[1]: mark.parent for mark in marks}


def copy_of(known: Mapping[str, Path], path: Path) -> Path | None:
    """The folder of the step whose bytes a path was seen to hold; `known` are `copies`."""
    return known.get(_hash_of(path))


def _hash_of(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:12]


def _seen(path: Path, stamp: Stamp) -> str:
    return f"seen-{_hash_of(path)}-{'-'.join(map(str, stamp))}"


def sweep_staging(lake: Path) -> None:
    """Delete what processes of this machine left aside when they were killed."""
    for folder in (lake / ".staging").glob(f"*@{socket.gethostname()}@*"):
        if time.time() - folder.stat().st_mtime > ABANDONED and not _lives(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(folder: str) -> bool:
    """Whether the process whose number begins a staging folder's name is there."""
    try:
        os.kill(int(folder.split("@")[0]), 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, and alive
    return True


def publish(aside: Path, path: Path) -> None:
    """Make a finished folder visible under its name; if it is there already, leave that one."""
    integrity.seal(file for file in aside.rglob("*") if file.is_file())
    for file in sorted(aside.rglob("*"), reverse=True):  # a folder after what is in it
        sync(file)
    sync(aside)
    new = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in reversed(new):  # a run's and a step's, which a power cut must not lose
        sync(folder.parent)
    try:
        aside.rename(path)
    except OSError:
        if not path.is_dir():
            raise
    sync(path.parent)


def scratch(lake: Path) -> Path:
    """A name for a folder of this process on the lake's file system, that no reader looks at."""
    return lake / ".staging" / f"{os.getpid()}@{socket.gethostname()}@{uuid.uuid4().hex[:8]}"


@contextmanager
def _aside(lake: Path) -> Iterator[Path]:
    """Such a folder; gone afterwards."""
    folder = scratch(lake)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _discard(lake: Path, paths: list[Path]) -> None:
    """Take folders out of sight at once, then delete them."""
    for path in paths:
        with _aside(lake) as folder:
            path.rename(folder / "old")


def _home(lake: Path, capture: Capture) -> Path:
    run = quote(capture.run, safe="")
    return lake / f"run={run}" / f"step={capture.step}" / f"capture={capture.id}"


def _age(facts: Path) -> tuple[int, str] | None:
    """None of a step that is replaced just now."""
    try:
        return facts.stat().st_mtime_ns, facts.parent.name
    except FileNotFoundError:
        return None


MOST_IDS = 2**31  # token ids that a column of the token table can hold


def _vocabulary(batch: Batch, of_tokenizer: int | None) -> dict[str, Any]:
    """How many token ids the model knows, as the capture or else its tokenizer says."""
    said = next((batch.meta[k] for k in ("vocab_size", "vocabulary_size") if k in batch.meta), None)
    if isinstance(said, int) and 0 < said <= MOST_IDS:
        return {"vocabulary_size": said, "vocabulary_from": "capture"}
    return {"vocabulary_size": of_tokenizer, "vocabulary_from": of_tokenizer and "tokenizer"}


def _unscored(batch: Batch, verdict: Verdict) -> list[str]:
    """What else than NaN counted as no log-prob, if anything did."""
    counted = verdict.nonfinite_rollout or verdict.nonfinite_train
    return [batch.unscored] if counted and batch.unscored else []


COUNTED = ("rows", "tokens", "trained_tokens", "nonfinite_rollout", "nonfinite_train")


def _facts(capture: Capture, batch: Batch, verdict: Verdict) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run": capture.run,
        "step": capture.step,
        "source": str(capture.path),
        "sha256": capture.sha256,
        "bytes": capture.bytes,
        "mtime_ns": capture.mtime_ns,
        "ctime_ns": capture.ctime_ns,
        "format": batch.format,
        "columns": capture.columns,
        "tokenizer": str(capture.tokenizer) if capture.tokenizer else None,
        "measurement": "bypass" if verdict.bit_equal else "measured",
        **{name: asdict(verdict)[name] for name in COUNTED},
        "views": list(batch.views),
        "notes": [*batch.notes, *_unscored(batch, verdict), *verdict.notes],
        "meta": notation.plain(batch.meta),  # but `source` to the letter, to be found again
    }
