"""NeMo RL's `train_data_step<N>.jsonl`, which GRPO and PPO write by default since v0.2.1.

A line per sample, each value in a list of length 1. Sequences are whole (prompt and response) and
padded on the right; position t holds log p(token t | tokens before), position 0 nothing. Up to
v0.5 there are no ids and no mask: tokens with a log-prob of the rollout count as the response.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import listed, short
from timtrack.tasks.readers.columns import without_ids
from timtrack.tasks.readers.containers import jsonl
from timtrack.tasks.readers.containers.contents import Contents
from timtrack.tasks.readers.containers.ranks import version
from timtrack.tasks.readers.reader import Reader
from timtrack.tasks.readers.rows.ragged import ragged_blocks
from timtrack.tasks.tokens.table import Batch, Block

NAME = "nemo_rl"
FILE = re.compile(r"train_data_step(\d+)\.jsonl")
EXPERIMENT = re.compile(r"exp_\d+")
BOTH = ("generation_logprobs", "prev_logprobs")
NOT_MASKED = (
    "no token_loss_mask (NeMo RL up to v0.5): tokens whose generation_logprobs are not 0 are taken "
    "as trained on, so that a true 0 is lost; token ids are not in the file"
)

# What NeMo RL writes for a trained token that the trainer's own top-p or top-k leaves out.
OUTSIDE = (
    "an exact 0 of the trainer beside a log-prob of the rollout below -0.1 counts as not finite: "
    "NeMo RL writes it for tokens outside the trainer's top-p or top-k"
)
SURE = -0.1  # nats; above, the trainer may be as sure


def recognises(path: Path) -> bool:
    """By its name; of an experiment and its restarts, the latest that has the step."""
    return bool(FILE.fullmatch(path.name)) and not any(
        (later / path.name).is_file() for later in _restarts(path.parent)
    )


def supersedes(path: Path, other: Path) -> bool:
    """Whether a file is what a restart wrote in place of another."""
    return path.name == other.name and path.parent in _restarts(other.parent)


def says_its_end(path: Path) -> bool:
    """Whether a file that can be read is whole. Not so: more lines may follow."""
    return False


def opens(seen: Contents) -> bool:
    """By the names in its first line."""
    return seen.container == "jsonl" and "generation_logprobs" in seen.top


def open_batch(path: Path, seen: Contents) -> Batch:
    """Open a file without reading its samples; raises BadCapture when it lacks log-probs."""
    if missing := [name for name in BOTH if name not in seen.top]:
        raise BadCapture(
            f"missing {', '.join(missing)}; the file has {listed(sorted(seen.top))}. "
            "Distillation writes files of this name without the policy's log-probs"
        )
    match = FILE.fullmatch(path.name)
    masked = "token_loss_mask" in seen.top and "token_ids" in seen.top
    cut = _is_computed(seen.top)
    return Batch(
        format=NAME,
        run=_run(path),
        step=int(match[1]) if match else None,
        views=(),
        meta={},
        notes=() if masked else (NOT_MASKED,),
        blocks=lambda: _blocks(path, masked, cut),
        unscored=OUTSIDE,
    )


def _run(path: Path) -> str | None:
    """`<log_dir>/exp_001`: the experiment that a chain of restarts began with."""
    folder = path.absolute().parent
    if not EXPERIMENT.fullmatch(folder.name):
        return None
    while _first_step(folder) > 1 and (before := _neighbour(folder, -1)):
        folder = before
    return f"{folder.parent.name}/{folder.name}"


def _restarts(folder: Path) -> list[Path]:
    """Later experiments that went on from this one: their first step is not 1."""
    found = []
    while (following := _neighbour(folder, 1)) and _first_step(following) > 1:
        found.append(following)
        folder = following
    return found


def _neighbour(folder: Path, by: int) -> Path | None:
    if not EXPERIMENT.fullmatch(folder.name):
        return None
    number = folder.name.removeprefix("exp_")
    beside = folder.parent / f"exp_{int(number) + by:0{len(number)}}"
    return beside if beside.is_dir() else None


def _first_step(folder: Path) -> int:
    return _first_step_of(folder, *version(folder))


@lru_cache(maxsize=1024)
def _first_step_of(folder: Path, _changed: int, _until: int) -> int:
    steps = (FILE.fullmatch(file.name) for file in folder.iterdir())
    return min((int(match[1]) for match in steps if match), default=1)


def _blocks(path: Path, masked: bool, cut: bool) -> Iterator[Block]:
    samples = (
        _sample(f"line {row + 1}", row, record, masked, cut)
        for row, record in enumerate(jsonl.read(path))
    )
    for block in ragged_blocks(samples):
        yield block if masked else without_ids(block)


def _sample(
    where: str, row: int, record: dict[str, Any], masked: bool, cut: bool
) -> dict[str, Any]:
    """One line as fields of one sample: the response is what follows the first trained token."""
    only = {name: _only(value) for name, value in record.items()}
    rollout = jsonl.numbers(where, BOTH[0], only.get(BOTH[0]), np.float32)
    train = jsonl.numbers(where, BOTH[1], only.get(BOTH[1]), np.float32)
    jsonl.check_whole(where, "rewards", only.get("rewards"))
    length = _length(where, only.get("input_lengths"), len(rollout))
    if masked:
        ids = jsonl.numbers(where, "token_ids", only.get("token_ids"), np.int64)
        mask = jsonl.numbers(where, "token_loss_mask", only.get("token_loss_mask"), np.float64)
    else:
        ids, mask = np.zeros(len(rollout), dtype=np.int64), (rollout != 0).astype(np.float64)
    advantages = only.get("advantages")
    if isinstance(advantages, int | float):
        advantages = [advantages] * len(rollout)
    fields = {"responses": ids, "rollout_log_probs": rollout, "old_log_probs": train}
    fields |= {"response_mask": mask}
    if advantages is not None:
        fields["advantages"] = jsonl.numbers(where, "advantages", advantages, np.float32)
    jsonl.check_lengths(where, fields, len(rollout))
    if cut:
        outside = (train == 0) & (rollout < SURE) & (mask != 0)
        fields["old_log_probs"] = np.where(outside, np.float32(np.nan), train)
    start = jsonl.first_trained(mask[:length])
    sample = {name: values[start:length] for name, values in fields.items()}
    if not only.get("sample_loss_mask", 1):
        sample["response_mask"] = np.zeros_like(sample["response_mask"])
    if masked:
        sample["prompts"] = ids[:start]
    return {**sample, "row_index": row, "rewards": only.get("rewards")}


def _is_computed(record: Mapping[str, Any]) -> bool:
    """Whether the trainer's log-probs are not 0 on all trained tokens of a sample.

    All 0 were not computed, which the checks of the token table say.
    """
    train = _only(record[BOTH[1]])
    mask = _only(record.get("token_loss_mask", train))
    if not isinstance(train, list) or not isinstance(mask, list):
        return False
    return any(value != 0 for value, trained in zip(train, mask, strict=False) if trained)


def _only(value: Any) -> Any:
    """What a list of length 1 holds."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _length(where: str, told: Any, width: int) -> int:
    if told is None:
        return width
    if not isinstance(told, int) or not 0 <= told <= width:
        raise BadCapture(f"{where}: input_lengths is {short(told)}, expected 0 to {width}")
    return told


READER = Reader(
    name=NAME,
    files="exp_<n>/train_data_step<N>.jsonl",
    needs="nothing: GRPO and PPO write it (off with env.should_log_nemo_gym_responses)",
    gives="reward, advantage; groups by prompt. Up to v0.5 neither ids nor mask: guessed, and said",
    recognises=recognises,
    says_its_end=says_its_end,
    opens=opens,
    supersedes=supersedes,
    open_batch=open_batch,
)
