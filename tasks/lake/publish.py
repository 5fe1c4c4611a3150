"""The only way into the lake: write to staging, check, publish atomically."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
from filelock import FileLock

from timtrack.tasks.captures.capture import Capture, check_unchanged
from timtrack.tasks.lake import integrity, parquet
from timtrack.tasks.lake.staging import aside, discard
from timtrack.tasks.lake.steps import PRUNED, Step, home_of, prunable_files, set_mark
from timtrack.tasks.messages import formatting
from timtrack.tasks.messages.errors import BadCapture, TimtrackError
from timtrack.tasks.system.durable import sync
from timtrack.tasks.tokens.checks import Check, Verdict
from timtrack.tasks.tokens.table import SCHEMA_VERSION, Batch, Block

# Of a capture with more shards, each part takes several: every file of a step costs a query.
MOST_PARTS = 16


class BadPlace(TimtrackError):
    """The lake's folder cannot be used."""


def check_place(lake: Path) -> None:
    """Raise BadPlace where DuckDB would take a folder around the lake for one of its own."""
    conflicts = [part for part in lake.absolute().parts if "=" in part]
    if conflicts:
        raise BadPlace(
            f"{lake} lies below the folder {conflicts[0]!r}, which would become a column of every "
            "table; put it where no folder has a = in its name"
        )


def write_step(
    lake: Path,
    capture: Capture,
    batch: Batch,
    decode: Callable[[Block], Block] = lambda block: block,
    vocabulary: Callable[[list[int]], pl.DataFrame] | None = None,
    vocabulary_size: int | None = None,
) -> Step:
    """Stream a batch into the lake and publish it; a failed check leaves the lake unchanged.

    Memory is bounded by one block of rows, whatever the size of the capture.
    """
    with aside(lake) as folder:
        numbers = range(parts_of(capture))
        parts = [write_part(folder, capture, batch, number, decode) for number in numbers]
        return finish_step(lake, folder, capture, batch, parts, vocabulary, vocabulary_size)


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
        number = None if parts == 1 else part
        source = blocks if batch.shards else batch.blocks()
        parquet.write_blocks(folder, map(decode, check.watch(source)), number)
    except BadCapture:
        check_unchanged(capture)  # if it was written to, that is the reason to tell
        raise
    return check


def finish_step(
    lake: Path,
    folder: Path,
    capture: Capture,
    batch: Batch,
    parts: list[Check],
    vocabulary: Callable[[list[int]], pl.DataFrame] | None = None,
    vocabulary_size: int | None = None,
) -> Step:
    """Publish the parts in a folder as a step, if they pass the checks."""
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
    step = Step(capture.run, capture.step, capture.id, home_of(lake, capture))
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


def settle_step(step: Step) -> Step:
    """Make a step that is there the only one of its number: a kill may have left two captures."""
    if len(list(step.path.parent.glob("capture=*"))) > 1:
        with _step_lock(step):
            _discard_others(step)
    return step


def _discard_others(step: Step) -> None:
    others = [other for other in step.path.parent.glob("capture=*") if other != step.path]
    discard(step.path.parents[2], others)


def _step_lock(step: Step) -> FileLock:
    """Two processes with two captures of one step: the later one stays, never none."""
    name = hashlib.sha256(f"{step.run}/{step.step}".encode()).hexdigest()[:16]
    return FileLock(step.path.parents[2] / ".staging" / f"{name}.lock")


def write_tables(step: Step, version: str, tables: dict[str, pl.DataFrame]) -> None:
    """Add a step's tables to it, all at once; tables of another version go."""
    write_beside(step, "tables", version, tables)


def write_beside(
    step: Step,
    kind: str,
    version: str,
    tables: Mapping[str, pl.DataFrame],
    texts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Add a folder `<kind>-<version>` of tables and texts to a step; its other versions go."""
    lake = step.path.parents[2]
    with aside(lake) as folder:
        for name, table in tables.items():
            parquet.write_small(folder / f"{name}.parquet", table)
        for name, text in texts.items():
            (folder / name).write_text(text)
        integrity.write_sums(folder)
        publish(folder, step.path / f"{kind}-{version}")
    others = step.path.glob(f"{kind}-*")
    discard(lake, [other for other in others if other.name != f"{kind}-{version}"])


def publish(folder: Path, path: Path) -> None:
    """Make a finished folder visible under its name; if it is there already, leave that one."""
    integrity.seal(file for file in folder.rglob("*") if file.is_file())
    for file in sorted(folder.rglob("*"), reverse=True):  # a folder after what is in it
        sync(file)
    sync(folder)
    new = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for parent in reversed(new):  # a run's and a step's, which a power cut must not lose
        sync(parent.parent)
    try:
        folder.rename(path)
    except OSError:
        if not path.is_dir():
            raise
    sync(path.parent)


def prune_tokens(step: Step) -> None:
    """Delete the step's tokens, sequences and vocabulary; tables and capture.json stay."""
    set_mark(step, PRUNED)
    sync(step.path)
    files = prunable_files(step)
    for file in files:
        file.unlink()
    for folder in {file.parent for file in files} - {step.path}:  # of a capture in shards
        folder.rmdir()


MOST_IDS = 2**31  # token ids that a column of the token table can hold


def _vocabulary(batch: Batch, of_tokenizer: int | None) -> dict[str, Any]:
    """How many token ids the model knows, as the capture or else its tokenizer says."""
    size = next((batch.meta[k] for k in ("vocab_size", "vocabulary_size") if k in batch.meta), None)
    if isinstance(size, int) and 0 < size <= MOST_IDS:
        return {"vocabulary_size": size, "vocabulary_from": "capture"}
    return {"vocabulary_size": of_tokenizer, "vocabulary_from": of_tokenizer and "tokenizer"}


def _unscored(batch: Batch, verdict: Verdict) -> list[str]:
    """What else than NaN counted as no log-prob, if anything did."""
    nonfinite = verdict.nonfinite_rollout or verdict.nonfinite_train
    return [batch.unscored] if nonfinite and batch.unscored else []


COUNTED = ("rows", "tokens", "trained_tokens", "nonfinite_rollout", "nonfinite_train")


def _facts(capture: Capture, batch: Batch, verdict: Verdict) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run": capture.run,
        "step": capture.step,
        "source": str(capture.path),
        "sha256": capture.sha256,
        **dict(zip(("bytes", "mtime_ns", "ctime_ns"), capture.stamp, strict=True)),
        "format": batch.format,
        "columns": capture.source.columns,
        "tokenizer": str(capture.tokenizer) if capture.tokenizer else None,
        "measurement": "bypass" if verdict.bit_equal else "measured",
        **{name: asdict(verdict)[name] for name in COUNTED},
        "views": list(batch.views),
        "notes": [*batch.notes, *_unscored(batch, verdict), *verdict.notes],
        "meta": formatting.plain(batch.meta),  # but `source` to the letter, to be found again
    }
