"""prime-rl's `token_exports/step_<N>/rank_<r>.jsonl` of `trainer.enable_token_export` (v0.6 on).

A line per sequence, prompt included; each rank has a part of the batch. The trainer's log-probs are
those of the training forward, at the policy before the step's update.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import listed
from timtrack.tasks.readers.containers import jsonl
from timtrack.tasks.readers.containers.contents import Contents
from timtrack.tasks.readers.containers.ranks import (
    check_once,
    in_order,
    is_first,
    ranks,
    written_apart,
)
from timtrack.tasks.readers.reader import Reader
from timtrack.tasks.readers.rows.fields import whole_number
from timtrack.tasks.readers.rows.ragged import Sample, ragged_blocks
from timtrack.tasks.tokens.table import Batch, Block

NAME = "prime_rl"
FILE = re.compile(r"rank_(\d+)\.jsonl")
FIELDS = {
    "inference_logprobs": "rollout_log_probs",
    "trainer_logprobs": "old_log_probs",
    "advantages": "advantages",
    "entropy": "entropy",
    "mismatch_kl": "mismatch_kl",
}
FROM_TRAINING = "trainer_logprobs are those of the training forward, not of a recompute before it"


def recognises(path: Path) -> bool:
    """By its folders and name; the lowest rank stands for all."""
    named = FILE.fullmatch(path.name) and path.parent.parent.name == "token_exports"
    return bool(named) and is_first(path, FILE)


def companions(path: Path) -> list[Path]:
    """The files of the other ranks."""
    return [file for file in ranks(path, FILE) if file != path]


def says_its_end(path: Path) -> bool:
    """Whether a file that can be read is whole. Not so; the marker STABLE does."""
    return False


def opens(seen: Contents) -> bool:
    """By the names in its first line."""
    return seen.container == "jsonl" and "trainer_logprobs" in seen.top


def open_batch(path: Path, seen: Contents) -> Batch:
    """Open the first rank's file; rows of all ranks are read later. Raises BadCapture."""
    missing = {"token_ids", "loss_mask", "inference_logprobs"} - set(seen.top)
    if missing:
        raise BadCapture(
            f"missing {', '.join(sorted(missing))}; the file has {listed(sorted(seen.top))}"
        )
    files = ranks(path, FILE)
    check_once(files, FILE)
    shards = tuple(partial(_blocks, file, rank, len(files)) for rank, file in enumerate(files))
    told = whole_number(seen.top.get("export_step", seen.top.get("step")))
    run = seen.top.get("run_id")
    return Batch(
        format=NAME,
        run=run if isinstance(run, str) and run else None,
        step=told,
        views=(),
        meta={"ranks": len(files)},
        notes=(FROM_TRAINING, *filter(None, [written_apart(files)])),
        blocks=lambda: in_order(shards),
        shards=shards,
    )


def _blocks(file: Path, rank: int, of: int) -> Iterator[Block]:
    return ragged_blocks(_samples(file, rank, of))


def _samples(file: Path, rank: int, of: int) -> Iterator[Sample]:
    """Those of a rank; rows count through the ranks like cards that are dealt."""
    for line, record in enumerate(jsonl.read(file)):
        sample = _sample(f"{file.name} line {line + 1}", line * of + rank, record)
        yield {**sample, "rank": rank, "pack": record.get("micro_step")}


def _sample(where: str, row: int, record: dict[str, Any]) -> Sample:
    """One sequence: the response is what follows the first trained token."""
    ids = jsonl.numbers(where, "token_ids", record.get("token_ids"), np.int64)
    mask = jsonl.numbers(where, "loss_mask", record.get("loss_mask"), np.float64)
    fields = {"responses": ids, "response_mask": mask}
    for name, to in FIELDS.items():
        if record.get(name) is not None:
            fields[to] = jsonl.numbers(where, name, record[name], np.float32)
    if record.get("is_masked") is not None:
        fields["is_masked"] = jsonl.numbers(where, "is_masked", record["is_masked"], np.float32)
    jsonl.check_lengths(where, fields, len(ids))
    start = jsonl.first_trained(mask)
    sample: Sample = {name: values[start:] for name, values in fields.items()}
    rewards = record.get("rewards")  # v0.6: the same one at each token
    if isinstance(rewards, list) and rewards:
        sample["rewards"] = jsonl.numbers(where, "rewards", rewards, np.float64)[-1]
    return {**sample, "prompts": ids[:start], "row_index": row}


READER = Reader(
    name=NAME,
    files="token_exports/step_<N>/rank_<r>.jsonl",
    needs="trainer.enable_token_export = true",
    gives=(
        "advantage, entropy, rank, micro-batch, in v0.6 reward; groups by prompt. The trainer's "
        "are those of its update"
    ),
    recognises=recognises,
    companions=companions,
    says_its_end=says_its_end,
    opens=opens,
    open_batch=open_batch,
)
