"""slime's `train_data/<id>.pt` of `--dump-details`, format_version 2 (main since 2026-08).

A dict per sample, without padding, the shards of all data-parallel ranks in one file. Prompt groups
and weight versions are in `rollout_data/<id>.pt` beside it, by `rollout_position`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import short
from timtrack.tasks.readers.containers.bounds import check_fields, check_size, unpacked
from timtrack.tasks.readers.containers.contents import Contents
from timtrack.tasks.readers.containers.tensors import check_sums, load
from timtrack.tasks.readers.reader import Reader
from timtrack.tasks.readers.rows.fields import as_numpy, dimensions, whole_number
from timtrack.tasks.readers.rows.ragged import Sample, ragged_blocks
from timtrack.tasks.tokens.table import Batch, Block

NAME = "slime"
ROLLOUTS, TRAINED = "rollout_data", "train_data"
VIEWS = ("ref", "teacher")
OFFSETS = "rollout_top_p_token_offsets"  # of each response token's kept ids among all of them
READ = (
    *("tokens", "log_probs", "rollout_log_probs", "loss_masks", "advantages", "entropy"),
    *(f"{view}_log_probs" for view in VIEWS),
)
WITHOUT_LOG_PROBS = (
    "missing log_probs, the trainer's: plain on-policy GRPO does not compute them "
    "(--get-mismatch-metrics makes slime do so), and --use-rollout-logprobs takes the engine's"
)


def recognises(path: Path) -> bool:
    """By its folder and name."""
    return path.parent.name == TRAINED and path.suffix == ".pt" and path.stem.isdecimal()


def companions(path: Path) -> list[Path]:
    """The rollout engine's file of the same rollout."""
    return rollout_files(path, path.stem)


def rollout_files(path: Path, rollout: str) -> list[Path]:
    """The rollout engine's file of a rollout, if it is there."""
    beside = path.parent.parent / ROLLOUTS / f"{rollout}.pt"
    return [beside] if beside.is_file() else []


def opens(seen: Contents) -> bool:
    """By the names at its top."""
    top = seen.top
    return seen.container == "tensors" and "format_version" in top and "samples" in top


def open_batch(path: Path, seen: Contents) -> Batch:
    """Open a file; raises BadCapture for another version or without the trainer's log-probs."""
    version, samples = seen.top["format_version"], seen.top["samples"]
    if version != 2:
        raise BadCapture(f"format_version is {short(version)}, expected 2")
    if not isinstance(samples, list) or not all(isinstance(s, dict) for s in samples):
        raise BadCapture("samples is not a list of dicts")
    if not samples:
        raise BadCapture("the file has no samples")
    if without := [i for i, s in enumerate(samples) if s.get("log_probs") is None]:
        raise BadCapture(f"{len(without)} samples, first {without[0]}: {WITHOUT_LOG_PROBS}")
    check_declared(samples, path)
    rollouts, notes = rollouts_of(path, path.stem)
    if len(rollouts) > len(samples):
        lacking = len(rollouts) - len(samples)
        notes.append(f"{lacking} of {len(rollouts)} rollouts were not trained on: not in the file")
    return Batch(
        format=NAME,
        run=None,
        step=whole_number(seen.top.get("rollout_id")),
        views=tuple(v for v in VIEWS if all(s.get(f"{v}_log_probs") is not None for s in samples)),
        meta={},
        notes=tuple(notes),
        blocks=lambda: _blocks(path, samples, rollouts),
    )


def check_declared(samples: list[dict[str, Any]], path: Path) -> None:
    """Raise BadCapture if samples declare more tokens or numbers than the file can hold."""
    holds = unpacked(path)
    check_size(holds, sum(length(s.get("log_probs")) for s in samples), len(samples))
    for name in READ:
        check_fields({name: [s.get(name) for s in samples]}, holds)


def length(values: Any) -> int:
    """Length of an array or list; 0 of anything else."""
    return len(values) if getattr(values, "ndim", 1) and hasattr(values, "__len__") else 0


def rollouts_of(path: Path, rollout: str) -> tuple[list[Any], list[str]]:
    """The samples of the rollout engine's file, and notes on it."""
    without = "so samples with the same prompt are a group"
    name = f"{ROLLOUTS}/{rollout}.pt"
    files = rollout_files(path, rollout)
    if not files:
        return [], [f"no {name}, {without}"]
    try:
        rollouts = load(files[0]).get("samples")
        if isinstance(rollouts, list) and all(isinstance(r, dict) for r in rollouts):
            versions = [r.get("weight_versions") for r in rollouts]
            check_fields({"weight_versions": versions}, unpacked(files[0]))
    except BadCapture as error:
        return [], [f"{name} cannot be read, {without}: {error}"]
    if not isinstance(rollouts, list) or not all(isinstance(r, dict) for r in rollouts):
        return [], [f"{name} has no list of samples, {without}"]
    return rollouts, []


def _blocks(path: Path, samples: list[Any], rollouts: list[Any]) -> Iterator[Block]:
    check_sums(path)
    yield from ragged_blocks(
        sample(f"sample {row}", row, fields, _of_position(rollouts, fields))
        for row, fields in enumerate(samples)
    )


def _of_position(rollouts: list[Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    position = fields.get("rollout_position")
    if not isinstance(position, int) or not 0 <= position < len(rollouts):
        return {}
    return rollouts[position]


def sample(where: str, row: int, fields: Mapping[str, Any], rollout: Mapping[str, Any]) -> Sample:
    """One sample under verl's names: the response is the last of its tokens."""
    missing = [n for n in ("tokens", "rollout_log_probs", "log_probs") if fields.get(n) is None]
    if missing:
        raise BadCapture(f"{where}: missing {', '.join(missing)}; it has {', '.join(fields)}")
    tokens, length = fields["tokens"], len(fields["rollout_log_probs"])
    if length > len(tokens):
        raise BadCapture(f"{where}: a response of {length} tokens in a sequence of {len(tokens)}")
    start = len(tokens) - length
    named: Sample = {
        "prompts": tokens[:start],
        "responses": tokens[start:],
        "rollout_log_probs": fields["rollout_log_probs"],
        "old_log_probs": fields["log_probs"],
        "row_index": row,
    }
    others = {
        "loss_masks": "response_mask",
        "advantages": "advantages",
        "entropy": "entropy",
        **{f"{view}_log_probs": f"{view}_log_probs" for view in VIEWS},
    }
    named |= {to: fields[name] for name, to in others.items() if fields.get(name) is not None}
    if fields.get("rollout_ids") is not None:  # samples of one rollout share the number
        named["rollout_id"] = int(fields["rollout_ids"])
    reward = fields.get("local_raw_reward", fields.get("raw_reward"))
    named["rewards"] = reward if isinstance(reward, int | float) else None
    if rollout.get("group_index") is not None:
        named["uid"] = str(rollout["group_index"])
    told = rollout.get("weight_versions")
    versions = [int(v) for v in told if str(v).isdecimal()] if isinstance(told, list) else []
    if versions:
        named |= {"min_global_steps": min(versions), "max_global_steps": max(versions)}
    return {**named, **_facts(fields, rollout)}


ENDS = {"completed": "stop", "truncated": "length", "aborted": "abort"}  # by a rollout's status


def _facts(fields: Mapping[str, Any], rollout: Mapping[str, Any]) -> Sample:
    """Who scored the sample, how its rollout ended, what the prefix cache gave, what top-p kept."""
    facts: Sample = {
        "rank": whole_number(fields.get("data_parallel_rank")),
        "finish_reason": ENDS.get(str(rollout.get("status"))),
    }
    if facts["finish_reason"] is None and fields.get("truncated") is not None:
        facts["finish_reason"] = "length" if fields["truncated"] else "stop"
    cache = rollout.get("prefix_cache_info")
    if isinstance(cache, dict):
        facts["cached_tokens"] = whole_number(cache.get("cached_tokens"))
    length = len(fields["rollout_log_probs"])
    told = [of[OFFSETS] for of in (rollout, fields) if of.get(OFFSETS) is not None]
    offsets = told[0] if told else None  # in the trainer's file, too, where top_p is not 1
    if offsets is not None and dimensions(offsets) == 1 and len(offsets) == length + 1:
        facts["kept"] = np.diff(as_numpy(OFFSETS, offsets))
    return facts


READER = Reader(
    name=NAME,
    files="train_data/<N>.pt with rollout_data/<N>.pt",
    needs="--dump-details DIR",
    gives=(
        "group, reward, advantage, weight versions, rank, how it ended, cached tokens, what top-p "
        "kept; ref and teacher as further views"
    ),
    recognises=recognises,
    companions=companions,
    opens=opens,
    open_batch=open_batch,
)
