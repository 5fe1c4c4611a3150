"""`train_data/<id>_<rank>.pt` of slime up to v0.3.1 and miles: a file per rank, lists by field.

Ranks of one pipeline stage or tensor-parallel group hold copies, and only the last stage has
log-probs; with context parallelism a rank has a zig-zag slice of each response. miles says which
(cp_rank, cp_size), slime does not, and its slices are refused.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import short
from timtrack.tasks.readers.containers.bounds import check_fields, check_size, unpacked
from timtrack.tasks.readers.containers.contents import Contents
from timtrack.tasks.readers.containers.ranks import (
    check_once,
    in_order,
    is_first,
    ranks,
    written_apart,
)
from timtrack.tasks.readers.containers.tensors import Array, check_sums, load
from timtrack.tasks.readers.reader import Reader
from timtrack.tasks.readers.rows.fields import as_numpy, whole_number
from timtrack.tasks.readers.rows.ragged import ragged_blocks
from timtrack.tasks.readers.slime import merged, mirror
from timtrack.tasks.tokens.table import Batch, Block

NAME = "slime_ranks"
FILE = re.compile(r"(\d+)_(\d+)\.pt")
REQUIRED = ("tokens", "response_lengths", "rollout_log_probs", "log_probs")
SLICED = ("rollout_log_probs", "log_probs", "ref_log_probs", "teacher_log_probs", "advantages")
WHOLE = (
    *("tokens", "loss_masks", "sample_indices", "total_lengths", "response_lengths"),
    "rollout_ids",
)


def recognises(path: Path) -> bool:
    """By its folder and name; the lowest rank stands for all."""
    named = FILE.fullmatch(path.name) and path.parent.name == merged.TRAINED
    return bool(named) and is_first(path, FILE)


def companions(path: Path) -> list[Path]:
    """The files of the other ranks, and the rollout engine's."""
    match = FILE.fullmatch(path.name)
    if not match:
        return []
    others = [file for file in ranks(path, FILE) if file != path]
    return [*others, *merged.rollout_files(path, match[1]), *mirror.files(path, match[1])]


def says_its_end(path: Path) -> bool:
    """Whether a file that can be read is whole. Not so: the files of other ranks may still come."""
    return False


def opens(seen: Contents) -> bool:
    """By the names at its top."""
    return seen.container == "tensors" and {"rollout_data", "rank"} <= set(seen.top)


@dataclass(frozen=True)
class _Shard:
    """What one rank's file holds."""

    path: Path
    columns: dict[str, Any]
    cp_rank: int
    cp_size: int

    @property
    def count(self) -> int:
        """Of its samples."""
        return len(self.columns["tokens"])

    @property
    def indices(self) -> list[int]:
        """Which samples of the rollout these are."""
        told = self.columns.get("sample_indices")
        return [int(i) for i in told] if told is not None else list(range(self.count))


def open_batch(path: Path, seen: Contents) -> Batch:
    """Open the files of all ranks; raises BadCapture when no rank has the trainer's log-probs."""
    files = ranks(path, FILE)
    check_once(files, FILE)
    shards = [_shard(file, seen.top if file == path else load(file)) for file in files]
    having = [shard for shard in shards if shard.columns.get("log_probs") is not None]
    if not having:
        raise BadCapture(f"in {len(shards)} ranks: {merged.WITHOUT_LOG_PROBS}")
    for shard in having:
        if missing := [name for name in REQUIRED if shard.columns.get(name) is None]:
            raise BadCapture(f"{shard.path.name}: missing {', '.join(missing)}")
    for shard in having:
        holds = unpacked(shard.path)
        check_fields({name: shard.columns.get(name) for name in (*SLICED, *WHOLE)}, holds)
        check_size(holds, sum(map(merged.length, shard.columns["log_probs"])), shard.count)
    groups = _by_sample(having)
    match = FILE.fullmatch(path.name)
    rollout = match[1] if match else path.stem
    rollouts, notes = merged.rollouts_of(path, rollout)
    scored, unread = mirror.read(path, rollout)
    notes += unread
    if len(rollouts) > len(groups):
        notes.append(
            f"{len(groups)} of {len(rollouts)} rollouts are in the files of {len(shards)} ranks: "
            "files are missing, or the others were not trained on"
        )
    if apart := written_apart(shard.path for shard in shards):
        notes.append(apart)
    parts = tuple(partial(_blocks, own, rollouts, scored) for own in _by_file(groups))
    return Batch(
        format=NAME,
        run=None,
        step=whole_number(seen.top.get("rollout_id")),
        views=tuple(v for v in merged.VIEWS if all(f"{v}_log_probs" in s.columns for s in having)),
        meta={"ranks": len(shards)},
        notes=tuple(notes),
        blocks=lambda: in_order(parts),
        shards=parts,
    )


def _shard(path: Path, loaded: Mapping[str, Any]) -> _Shard:
    columns, size = loaded.get("rollout_data"), loaded.get("cp_size", 1)
    if not isinstance(columns, dict) or not isinstance(columns.get("tokens"), list):
        raise BadCapture(f"{path.name}: rollout_data has no list of tokens")
    count = len(columns["tokens"])
    for name in (*SLICED, *WHOLE):
        values = columns.get(name)
        if values is not None and (not hasattr(values, "__len__") or len(values) != count):
            raise BadCapture(f"{path.name}: {name} is not a list of {count}, as tokens is")
    rank = loaded.get("cp_rank", 0)
    if not (isinstance(size, int) and isinstance(rank, int) and 0 <= rank < size):
        raise BadCapture(f"{path.name}: cp_rank {short(rank)} of cp_size {short(size)}")
    return _Shard(path, columns, rank, size)


def _by_sample(shards: list[_Shard]) -> dict[int, dict[int, tuple[_Shard, int]]]:
    """Where each sample is: by its index, and by context-parallel rank; copies are dropped."""
    found: dict[int, dict[int, tuple[_Shard, int]]] = {}
    for shard in shards:
        for at, index in enumerate(shard.indices):
            found.setdefault(index, {}).setdefault(shard.cp_rank, (shard, at))
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class _Sample:
    """Where one sample's slices are."""

    row: int
    index: int  # in the rollout
    slices: dict[int, tuple[_Shard, int]]  # by context-parallel rank


def _by_file(groups: dict[int, dict[int, tuple[_Shard, int]]]) -> list[list[_Sample]]:
    """The samples of each file, by where their first slice lies."""
    found: dict[Path, list[_Sample]] = {}
    for row, (index, slices) in enumerate(groups.items()):
        shard, _ = next(iter(slices.values()))
        found.setdefault(shard.path, []).append(_Sample(row, index, slices))
    return list(found.values())


def _blocks(samples: list[_Sample], rollouts: list[Any], scored: mirror.Scored) -> Iterator[Block]:
    for file in dict.fromkeys(s.path for one in samples for s, _ in one.slices.values()):
        check_sums(file)
    by_index = {r.get("index", at): r for at, r in enumerate(rollouts)}
    yield from ragged_blocks(
        merged.sample(
            f"sample {one.index}",
            one.row,
            _merged(one.index, one.slices, scored),
            by_index.get(one.index, {}),
        )
        for one in samples
    )


def _merged(
    index: int, parts: dict[int, tuple[_Shard, int]], scored: mirror.Scored
) -> dict[str, Any]:
    """One sample's fields, its slices put together."""
    shard, at = next(iter(parts.values()))
    fields = {
        name: shard.columns[name][at] for name in WHOLE if shard.columns.get(name) is not None
    }
    length = int(fields["response_lengths"])
    fields["raw_reward"] = _reward(shard, at, index)
    for name in SLICED:
        if shard.columns.get(name) is None:
            continue
        slices = {rank: as_numpy(name, s.columns[name][i]) for rank, (s, i) in parts.items()}
        fields[name] = _joined(f"sample {index}: {name}", slices, shard.cp_size, fields, length)
    tokens = as_numpy("tokens", fields["tokens"])
    fields["rollout_log_probs"] = mirror.exact(scored, index, tokens, fields["rollout_log_probs"])
    return fields


def _reward(shard: _Shard, at: int, index: int) -> float | None:
    """A sample's reward: `raw_reward` covers the whole batch, in rollout order."""
    raw = shard.columns.get("raw_reward")
    if raw is None:
        return None
    own = at if len(raw) == len(shard.columns["tokens"]) else index
    value = raw[own] if own < len(raw) else None
    return value if isinstance(value, int | float) else None


def _joined(
    where: str, slices: dict[int, Array], size: int, fields: dict[str, Any], length: int
) -> Array:
    """A response from its zig-zag slices: of 2 * size chunks of the sequence, rank r has two.

    Chunks r and 2 size - 1 - r, of equal length; the last ones padded. What stands at a token is
    the log-prob computed at the position before it.
    """
    if size == 1:
        if len(slices[0]) != length:
            raise BadCapture(
                f"{where} has {len(slices[0])} of {length} tokens: a slice of context parallelism "
                "in a file that does not say which; slime from format_version 2 merges them"
            )
        return slices[0]
    if len(slices) < size:
        raise BadCapture(f"{where}: files of {len(slices)} of {size} context-parallel ranks")
    total = len(fields["tokens"])
    chunk = -(-total // (2 * size))
    computed_at = np.arange(total - length - 1, total - 1)
    chunks = computed_at // chunk
    owner = np.minimum(chunks, 2 * size - 1 - chunks)
    joined = np.empty(length, dtype=np.float32)
    for rank, values in slices.items():
        if len(values) != (owner == rank).sum():
            raise BadCapture(
                f"{where}: rank {rank} of {size} has {len(values)} tokens, expected "
                f"{(owner == rank).sum()} by zig-zag chunks of {chunk}"
            )
        joined[owner == rank] = values
    return joined


READER = Reader(
    name=NAME,
    files="train_data/<N>_<rank>.pt with rollout_data/<N>.pt",
    needs="--dump-details DIR (slime up to v0.3.1, miles)",
    gives=(
        "the same; copies of a rank are dropped; of miles, context-parallel slices are put "
        "together, and the engine's log-probs are in full precision with dashboard_columns"
    ),
    recognises=recognises,
    companions=companions,
    says_its_end=says_its_end,
    opens=opens,
    open_batch=open_batch,
)
