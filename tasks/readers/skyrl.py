"""SkyRL's `dumped_data/global_step_<N>_training_input.pkl` of `trainer.dump_data_batch`, to 0.4.0.

Padded `[B, S]` sequences with `[B, R]` masks and log-probs over their last R columns. Since 2026-03
everything is padded on the left, before, prompts on the left and responses on the right: in both,
what the response mask marks among the last R columns is the response. `rollout_sample_support`
(0.4.0) has the ids that the sampler kept, `[L_i, k]` of each row, behind them padding of -1.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import short
from timtrack.tasks.readers.containers.bounds import check_fields, check_size, check_wide, unpacked
from timtrack.tasks.readers.containers.contents import Contents
from timtrack.tasks.readers.containers.tensors import Array
from timtrack.tasks.readers.reader import Reader
from timtrack.tasks.readers.rows.fields import TokenField, as_numpy, token_field
from timtrack.tasks.readers.rows.ragged import Sample, ragged_blocks
from timtrack.tasks.tokens.table import Batch

NAME = "skyrl"
FILE = re.compile(r"global_step_(\d+)_training_input\.pkl")
PARTS = {
    "sequences": "int",
    "attention_mask": "mask",
    "response_mask": "mask",
    "rollout_logprobs": "float",
    "action_log_probs": "float",
}
OPTIONAL = {"loss_mask": "mask", "advantages": "float", "base_action_log_probs": "float"}
NAMES = {
    "rollout_logprobs": "rollout_log_probs",
    "action_log_probs": "old_log_probs",
    "loss_mask": "response_mask",
    "advantages": "advantages",
    "base_action_log_probs": "ref_log_probs",
}
SUPPORT = "rollout_sample_support"
NOT_COMPUTED = (
    "the trainer's forward was skipped, as losses anchored on the rollout's log-probs do: "
    "nothing to compare with"
)


def recognises(path: Path) -> bool:
    """By its name."""
    return bool(FILE.fullmatch(path.name))


def opens(seen: Contents) -> bool:
    """By the names of its fields."""
    return seen.container == "pickle" and {"sequences", "response_mask"} <= set(seen.top)


def open_batch(path: Path, seen: Contents) -> Batch:
    """The batch of a file that was loaded; raises BadCapture when a side is missing."""
    if missing := [name for name in PARTS if seen.top.get(name) is None]:
        reason = f": {NOT_COMPUTED}" if missing == ["action_log_probs"] else ""
        raise BadCapture(f"missing {', '.join(missing)}{reason}")
    wanted = {
        **PARTS,
        **{name: k for name, k in OPTIONAL.items() if seen.top.get(name) is not None},
    }
    holds = unpacked(path)
    check_fields({name: seen.top[name] for name in wanted}, holds)
    fields = {name: token_field(name, seen.top[name], kind) for name, kind in wanted.items()}
    _check_shapes(fields)
    check_size(holds, fields["response_mask"].tokens, fields["sequences"].rows)
    match = FILE.fullmatch(path.name)
    said = seen.top.get("meta_info")
    told = said if isinstance(said, dict) else {}
    rows = fields["sequences"].rows
    padding = told.get("pad_size") or 0
    if not isinstance(padding, int) or not 0 <= padding < rows:
        raise BadCapture(f"pad_size is {short(padding)}, expected 0 to {rows - 1}")
    groups = _groups(told.get("policy_prompt_boundaries"), rows)
    kept = _kept(seen.top.get(SUPPORT), rows, holds)
    return Batch(
        format=NAME,
        run=None,
        step=int(match[1]) if match else None,
        views=("ref",) if "base_action_log_probs" in fields else (),
        meta={str(k): v for k, v in told.items() if isinstance(v, str | int | float)},
        notes=(f"{padding} rows that fill up the batch left out",) if padding else (),
        blocks=lambda: ragged_blocks(_samples(fields, rows - padding, groups, kept)),
    )


def _kept(support: Any, rows: int, holds: int) -> list[Array | None]:
    """How many ids the sampler kept at each token of each row; None where the file has none."""
    if not isinstance(support, list) or len(support) != rows:
        return [None] * rows
    check_wide(SUPPORT, support, holds)
    arrays = [as_numpy(SUPPORT, ids) for ids in support]
    return [(ids >= 0).sum(axis=1) if ids.ndim == 2 else None for ids in arrays]


def _groups(boundaries: Any, rows: int) -> list[str | None]:
    """The prompt group of each row from `[start, end)` pairs; None where the file has none."""
    groups: list[str | None] = [None] * rows
    for number, pair in enumerate(boundaries if isinstance(boundaries, list | tuple) else ()):
        start, end = pair if isinstance(pair, list | tuple) and len(pair) == 2 else (None, None)
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end <= rows):
            raise BadCapture(
                f"policy_prompt_boundaries has {short(pair)}, expected [start, end) of {rows} rows"
            )
        groups[start:end] = [str(number)] * (end - start)
    return groups


def _check_shapes(fields: dict[str, TokenField]) -> None:
    """Sequences are wider than responses, all else is as wide as one or the other."""
    if ragged := [name for name, field in fields.items() if field.ragged]:
        raise BadCapture(f"{', '.join(ragged)}: lists, expected padded [rows, tokens] tensors")
    whole, response = fields["sequences"], fields["response_mask"]
    if whole.width < response.width:
        raise BadCapture(f"sequences are {whole.width} wide, responses {response.width}")
    for name, field in fields.items():
        of = whole if name in ("sequences", "attention_mask") else response
        if (field.rows, field.width) != (whole.rows, of.width):
            raise BadCapture(
                f"{name} has shape [{field.rows}, {field.width}], expected "
                f"[{whole.rows}, {of.width}]"
            )


def _samples(
    fields: dict[str, TokenField],
    rows: int,
    groups: list[str | None],
    kept: list[Array | None],
) -> Iterator[Sample]:
    for row in range(rows):
        values = {n: field.padded(slice(row, row + 1))[0] for n, field in fields.items()}
        sample = _sample(row, values)
        if groups[row] is not None:
            sample["uid"] = groups[row]
        if (sizes := kept[row]) is not None and len(sizes) == len(sample["responses"]):
            sample["kept"] = sizes
        yield sample


def _sample(row: int, values: dict[str, Any]) -> Sample:
    responded = values["response_mask"] != 0
    ids = values["sequences"]
    real = ids[values["attention_mask"] != 0]
    length = int(responded.sum())
    if length > len(real):
        raise BadCapture(
            f"row {row}: a response of {length} tokens, but attention_mask has {len(real)}"
        )
    named = {to: values[name][responded] for name, to in NAMES.items() if name in values}
    return {
        "response_mask": np.ones(length),
        **named,
        "responses": ids[len(ids) - len(responded) :][responded],
        "prompts": real[: len(real) - length],
        "row_index": row,
    }


READER = Reader(
    name=NAME,
    files="dumped_data/global_step_<N>_training_input.pkl",
    needs="trainer.dump_data_batch=true",
    gives=(
        "advantage; group and what the sampler kept since 0.4.0, else groups by prompt. The reward "
        "is not in the file"
    ),
    recognises=recognises,
    opens=opens,
    open_batch=open_batch,
)
