"""Custom dumps: any file with both engines' log-probs, by a mapping of its names (`--columns`).

`.npz` and `.pt` dicts, JSON lines, Parquet and Arrow files with one row per response, or `.npy`
files side by side. `logp_rollout=vllm,logp_train=fsdp` maps parts to names.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from timtrack.tasks.messages.errors import BadCapture, TimtrackError
from timtrack.tasks.messages.formatting import listed
from timtrack.tasks.readers.containers import jsonl, parquet
from timtrack.tasks.readers.containers.bounds import (
    check_fields,
    check_size,
    numbers,
    rows_of,
    unpacked,
)
from timtrack.tasks.readers.containers.contents import look
from timtrack.tasks.readers.containers.tensors import check_sums
from timtrack.tasks.readers.rows.aliases import ALIASES, FACTS_OF_ROWS, NAMES_OF_ROWS
from timtrack.tasks.readers.rows.fields import dimensions
from timtrack.tasks.readers.rows.layout import Layout, blocks
from timtrack.tasks.readers.rows.ragged import Sample, ragged_blocks
from timtrack.tasks.readers.rows.verl_names import layout_of
from timtrack.tasks.system.regular import opened
from timtrack.tasks.tokens.table import Batch, Block

NAME = "columns"
REQUIRED = ("logp_rollout", "logp_train")
PARTS = tuple(part for part in ALIASES if part not in ("run", "step", "rollout_id"))
OF_ROWS = {"reward", "uid", "row", "policy_version_min", "policy_version_max", *FACTS_OF_ROWS}
AS_TEXT = {"uid", *NAMES_OF_ROWS}
MAPPED = re.compile(r"\s*(\w+)\s*=\s*([^,=]+?)\s*")
ROWS = 256  # of a table that are read at once
NO_IDS = "no token ids: `token_id` is not among the columns"
NO_MASK = "no response_mask: every token is taken as trained on"
ONE_ROW = "no sample boundaries in a flat array: taken as one rollout"


class BadColumns(TimtrackError):
    """Not a mapping of columns."""


@dataclass(frozen=True)
class Columns:
    """Which name of the file plays which part."""

    text: str
    names: Mapping[str, str]


def parse(text: str) -> Columns:
    """`part=name,part=name`; raises BadColumns."""
    names = {}
    for item in text.split(","):
        match = MAPPED.fullmatch(item)
        if not match or match[1] not in PARTS:
            raise BadColumns(f"{item!r} is not part=name; parts are {', '.join(PARTS)}")
        names[match[1]] = match[2]
    if missing := [part for part in REQUIRED if part not in names]:
        raise BadColumns(f"{text!r} does not say which column is {' and '.join(missing)}")
    return Columns(text, names)


def companions(path: Path, columns: Columns) -> list[Path]:
    """The other `.npy` files of a capture that is several."""
    if not _starts(path, b"\x93NUMPY"):
        return []
    files = [path.parent / name for name in columns.names.values()]
    return sorted({file for file in files if file != path and file.is_file()})


def says_its_end(path: Path) -> bool:
    """Whether a file that can be read is whole: more lines may follow in JSON lines."""
    return not _starts(path, b"{")


def _starts(path: Path, magic: bytes) -> bool:
    with opened(path) as file:
        return file.read(len(magic)) == magic


def open_batch(path: Path, columns: Columns) -> Batch:
    """Open a file of columns; raises BadCapture when one that is named is not there."""
    if not path.is_file():
        raise BadCapture(f"{path} is not a file")
    if _starts(path, b"PAR1"):
        parquet.check(path)
    if _starts(path, b"PAR1") or _starts(path, b"ARROW1"):
        return _by_records(columns, lambda: _table(path, columns), _table_names(path))
    if _starts(path, b"{"):
        first = next(jsonl.read(path))
        return _by_records(columns, lambda: jsonl.read(path), list(first))
    arrays = _arrays(path, columns) if _starts(path, b"\x93NUMPY") else dict(look(path).top)
    return _by_arrays(path, columns, arrays)


def _check_names(columns: Columns, there: list[str]) -> None:
    if missing := sorted(set(columns.names.values()) - set(there)):
        raise BadCapture(f"no {', '.join(missing)} in the file; it has {listed(sorted(there))}")


def _batch(columns: Columns, notes: list[str], made: Any) -> Batch:
    notes = [*notes, *([] if "token_id" in columns.names else [NO_IDS])]
    return Batch(NAME, None, None, (), {"columns": columns.text}, tuple(notes), made)


def _by_records(columns: Columns, read: Any, there: list[str]) -> Batch:
    _check_names(columns, there)
    notes = [] if "response_mask" in columns.names else [NO_MASK]

    def made() -> Iterator[Block]:
        samples = (_sample(row, record, columns) for row, record in enumerate(read()))
        for block in ragged_blocks(samples):
            yield block if "token_id" in columns.names else without_ids(block)

    return _batch(columns, notes, made)


def _sample(row: int, record: Mapping[str, Any], columns: Columns) -> Sample:
    where = f"row {row}"
    sample: Sample = {"row_index": row}
    for part, name in columns.names.items():
        value = record.get(name)
        if part not in AS_TEXT:
            jsonl.check_whole(where, name, value)
        if part in OF_ROWS or not isinstance(value, list):
            sample[ALIASES[part][0]] = value
        else:
            ids = part in ("token_id", "prompts")
            kind = np.int64 if ids else np.float64 if part == "response_mask" else np.float32
            sample[ALIASES[part][0]] = jsonl.numbers(where, name, value, kind)
    for part in REQUIRED:
        if not isinstance(sample[ALIASES[part][0]], np.ndarray):
            raise BadCapture(f"{where}: {columns.names[part]} is not a list of log-probs")
    length = len(sample["rollout_log_probs"])
    sample.setdefault("responses", np.zeros(length, dtype=np.int64))
    sample.setdefault("response_mask", np.ones(length))
    return sample


def _table_names(path: Path) -> list[str]:
    return parquet.guarded(lambda: _scan(path).collect_schema().names())


def _table(path: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    wanted = list(dict.fromkeys(columns.names.values()))
    start = 0
    while True:
        part = _scan(path).select(wanted).slice(start, ROWS)
        rows = parquet.guarded(part.collect).to_dicts()
        yield from rows
        if len(rows) < ROWS:
            return
        start += ROWS


def _scan(path: Path) -> pl.LazyFrame:
    scan = pl.scan_parquet if _starts(path, b"PAR1") else pl.scan_ipc
    return scan(path, glob=False)


def _arrays(path: Path, columns: Columns) -> dict[str, Any]:
    """The `.npy` files that the columns name, mapped."""
    found = {}
    for name in columns.names.values():
        file = path.parent / name
        if not file.is_file() or file.resolve().parent != path.parent.resolve():
            raise BadCapture(f"no file {name} beside {path.name}")
        try:
            found[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a bad header has errors of its own
            raise BadCapture(f"{name} is no array of numbers: {error}") from error
    return found


def _by_arrays(path: Path, columns: Columns, arrays: dict[str, Any]) -> Batch:
    _check_names(columns, list(arrays))
    notes = []
    fields = {ALIASES[part][0]: arrays[name] for part, name in columns.names.items()}
    _check_declared([path, *companions(path, columns)], fields)
    logp = fields["rollout_log_probs"]
    if dimensions(logp) == 1:
        notes.append(ONE_ROW)
        fields = {n: v if n in OF_ROWS else [np.asarray(v)] for n, v in fields.items()}
        logp = fields["rollout_log_probs"]
    ragged = isinstance(logp, list | tuple)
    if "responses" not in fields:
        zeros = [np.zeros(len(v), dtype=np.int64) for v in logp] if ragged else None
        fields["responses"] = zeros or np.broadcast_to(np.int64(0), tuple(logp.shape))
    if "response_mask" not in fields:
        if not ragged:
            raise BadCapture("padded arrays need a response_mask among the columns")
        notes.append(NO_MASK)
        fields["response_mask"] = [np.ones(len(values)) for values in logp]
    layout = layout_of(fields, {})
    return _batch(columns, [*notes, *layout.notes], lambda: _checked(path, columns, layout))


def _check_declared(files: list[Path], fields: dict[str, Any]) -> None:
    """Raise BadCapture, before anything is made of them, if fields declare more than files have."""
    logp = fields["rollout_log_probs"]
    holds = sum(map(unpacked, files))
    check_fields(fields, holds)
    rows = rows_of(logp) if dimensions(logp) == 2 else 1
    check_size(holds, tokens=numbers(logp) - (rows if isinstance(logp, list) else 0), rows=rows)


def _checked(path: Path, columns: Columns, layout: Layout) -> Iterator[Block]:
    check_sums(path)
    for block in blocks(layout):
        yield block if "token_id" in columns.names else without_ids(block)


def without_ids(block: Block) -> Block:
    """The block with ids that were made up as NULL."""
    unknown = pl.lit(None, pl.Int32()).alias("token_id")
    return replace(block, tokens=block.tokens.with_columns(unknown))
