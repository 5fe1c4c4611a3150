"""What a capture may say of tokens beside their log-probs: top-k lists, experts, the kept mass.

Nothing depends on it, so that what cannot be read is left out, with a note. Of lists and experts,
both engines' are needed. Fields have several numbers per response token: padded `[B, R, ...]`
tensors, or lists of B arrays `[L_i, ...]`. Experts may also be of whole sequences, a routing per
input position, as engines return them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers.tensors import Array
from timtrack.tasks.readers.rows.aligned import experts_changed, listed_together
from timtrack.tasks.readers.rows.fields import TokenField, as_numpy, is_plain, shown
from timtrack.tasks.tokens.table import EVIDENCE

Fields = Mapping[str, Any]

# The rollout engine's experts are `rollout_routed_experts` in slime (slime/utils/types.py) and in
# miles (train_data_conversion.py), `routed_experts` in verl (agent_loop.py) and NeMo RL
# (nemo_rl/data_plane/schema.py), `rollout_expert_indices` in SkyRL (training_batch.py). None of
# them records the trainer's beside these: verl 0.9.1 refuses to (ray_trainer.py).
NAMES = {
    "ids": ("topk_ids",),  # where both engines were asked for the same
    "rollout_ids": ("rollout_topk_ids",),
    "train_ids": ("train_topk_ids",),
    "rollout_logps": ("rollout_topk_log_probs",),
    "train_logps": ("train_topk_log_probs",),
    "rollout_experts": ("rollout_routed_experts", "rollout_expert_indices", "routed_experts"),
    "train_experts": ("train_routed_experts",),
    "kept_mass": ("kept_mass",),
}
ALL_NAMES = frozenset(name for names in NAMES.values() for name in names)
EXPERTS = ("rollout_experts", "train_experts")
MOST_EXPERTS = 255  # that a layer chooses for a token; the column has 8 bits
WANTED = (
    ("ids", "rollout_logps", "train_logps"),
    ("rollout_ids", "rollout_logps", "train_ids", "train_logps"),
    EXPERTS,
    ("kept_mass",),
)


@dataclass(frozen=True)
class Wide:
    """Several numbers per token: `[B, R or P + R, ...]` padded, or a list of B arrays."""

    name: str
    values: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """That of one token's numbers."""
        if isinstance(self.values, list):
            return tuple(self.values[0].shape[1:]) if self.values else ()
        return tuple(self.values.shape[2:])

    def flat(self, rows: slice, lengths: Array, prompts: Array | None, width: int) -> Array:
        """The numbers of these rows' response tokens, `[sum(lengths), ...]`.

        Of a whole sequence the position before a token's counts, whose output it is: `prompts`
        [rows] and, padded, all but the last `width` columns are before the response.
        """
        if not isinstance(self.values, list):
            columns = int(self.values.shape[1])
            before = columns - width - 1 if columns > width else 0
            part = self.values[rows, before : before + width]
            return as_numpy(self.name, part)[np.arange(width) < lengths[:, None]]
        parts = [
            as_numpy(self.name, values)[_response(len(values), length, prompt)]
            for values, length, prompt in zip(
                self.values[rows],
                lengths.tolist(),
                (lengths * 0 if prompts is None else prompts).tolist(),
                strict=True,
            )
        ]
        return np.concatenate(parts)


def _response(positions: int, length: int, prompt: int) -> slice:
    """Where a response's tokens are in an array of it, or of prompt and response."""
    start = prompt - 1 if positions > length else 0
    return slice(start, start + length)


@dataclass(frozen=True)
class Evidence:
    """The fields of a capture that can be read, by their part in NAMES."""

    fields: dict[str, Wide] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        """How many numbers of other fields a token's take the room of, while they are read.

        Lists are sorted as 64-bit keys, experts only compared.
        """
        numbers = {part: int(np.prod(one.shape)) for part, one in self.fields.items()}
        return sum(n // 16 if part in EXPERTS else n // 2 for part, n in numbers.items())

    def frame(
        self, tokens: pl.DataFrame, rows: slice, lengths: Array, prompts: Array | None, width: int
    ) -> pl.DataFrame | None:
        """EVIDENCE of the trained ones among the `tokens` of these rows; None without fields."""
        if not self.fields:
            return None
        trained = tokens["is_trained"].to_numpy()
        read = {
            part: one.flat(rows, lengths, prompts, width)[trained]
            for part, one in self.fields.items()
        }
        keys = tokens.filter("is_trained").select("row", "pos", "token_id")
        columns = {**_lists(read), **_experts(read), **_kept_mass(read)}
        whole = keys.with_columns(
            columns.get(name, pl.lit(None, dtype)).cast(dtype).alias(name)
            for name, dtype in EVIDENCE.items()
            if name not in keys.columns
        )
        known = ("top_ids", "expert_changes", "kept_mass")
        return whole.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in known))


NO_EVIDENCE = Evidence()


def _lists(read: Mapping[str, Array]) -> dict[str, pl.Series]:
    if "rollout_logps" not in read:
        return {}
    shared = read.get("ids")
    rollout = (read["rollout_ids"] if shared is None else shared, read["rollout_logps"])
    train = (read["train_ids"] if shared is None else shared, read["train_logps"])
    return listed_together(rollout, train, shared is not None)


def _experts(read: Mapping[str, Array]) -> dict[str, pl.Series]:
    if "rollout_experts" not in read:
        return {}
    changes = experts_changed(read["rollout_experts"], read["train_experts"])
    chosen = np.full(len(changes), read["train_experts"].shape[-1], np.uint8)
    return {"expert_changes": changes, "experts": pl.Series(chosen)}


def _kept_mass(read: Mapping[str, Array]) -> dict[str, pl.Series]:
    if "kept_mass" not in read:
        return {}
    mass = read["kept_mass"].astype(np.float32)
    known = np.isfinite(mass) & (mass > 0)
    return {"kept_mass": pl.Series(mass).set(pl.Series(~known), None)}


def evidence_of(
    fields: Fields, responses: TokenField, prompts: TokenField | None
) -> tuple[Evidence, list[str]]:
    """The evidence among the fields of a capture, and notes on what cannot be read."""
    found: dict[str, Wide] = {}
    notes = []
    for part, names in NAMES.items():
        name = next((name for name in names if fields.get(name) is not None), None)
        if name is None:
            continue
        try:
            found[part] = _wide(part, name, fields[name], responses, prompts)
        except BadCapture as error:
            notes.append(f"{error}: left out")
    used, unusable = _together(found)
    return Evidence(used), [*notes, *unusable]


def _together(found: dict[str, Wide]) -> tuple[dict[str, Wide], list[str]]:
    """The fields that say something together, and notes on the others."""
    used: dict[str, Wide] = {}
    notes = []
    for parts in WANTED:
        chosen = {part: found[part] for part in parts if part in found}
        if len(chosen) < len(parts) or chosen.keys() & used.keys():
            continue
        if wrong := _mismatch(list(chosen.values())):
            notes.append(f"{wrong}: left out")
        used |= {} if wrong else chosen
    alone = [one.name for part, one in found.items() if part not in used and not notes]
    if alone:
        notes.append(f"nothing to compare with {', '.join(alone)}, of one engine alone: left out")
    return used, notes


def _wide(
    part: str, name: str, values: Any, responses: TokenField, prompts: TokenField | None
) -> Wide:
    """The field, if it has numbers for each response token; raises BadCapture."""
    expected = {"kept_mass": 0, **dict.fromkeys(EXPERTS, 2)}.get(part, 1)
    whole = part in EXPERTS
    if not is_plain(values):
        raise BadCapture(f"{name} is {shown(values)}, expected plain numbers")
    if isinstance(values, list | tuple):
        _check_list(name, values, 1 + expected, responses, prompts if whole else None)
        return Wide(name, list(values))
    if getattr(values, "ndim", 0) != 2 + expected or values.shape[0] != responses.rows:
        raise BadCapture(
            f"{name} is {shown(values)}, expected {2 + expected} dimensions of "
            f"{responses.rows} rows"
        )
    beside = prompts.width if whole and prompts and not prompts.ragged else 0
    widths = {responses.width, responses.width + beside} if not responses.ragged else set()
    if values.shape[1] not in widths:
        raise BadCapture(f"{name} has {values.shape[1]} columns, expected {responses.width}")
    _check_kind(name, values, part)
    return Wide(name, values)


def _check_list(
    name: str,
    values: Any,
    dimensions: int,
    responses: TokenField,
    prompts: TokenField | None,
) -> None:
    """Raise BadCapture unless there is an array for each row, with its numbers of tokens."""
    if len(values) != responses.rows or not responses.ragged:
        raise BadCapture(f"{name} has not an array for each of {responses.rows} lists of tokens")
    for row, (one, ids) in enumerate(zip(values, responses.values, strict=True)):
        prompt = len(prompts.values[row]) if prompts and prompts.ragged else 0
        fitting = {len(ids), *((len(ids) + prompt - of for of in (0, 1)) if prompt else ())}
        if getattr(one, "ndim", 0) != dimensions or len(one) not in fitting:
            raise BadCapture(
                f"{name} is {shown(one)} at row {row}, expected numbers for {len(ids)} tokens"
            )
        if one.shape[1:] != values[0].shape[1:]:
            raise BadCapture(f"{name} has another shape at row {row} than at row 0")
    if values:
        _check_kind(name, values[0], "experts" if dimensions == 3 else "")


def _check_kind(name: str, values: Any, part: str) -> None:
    kind = as_numpy(name, values[:1]).dtype.kind
    if kind not in ("iu" if "experts" in part or name.endswith("_ids") else "iuf"):
        raise BadCapture(f"{name} holds numbers of another kind than expected")


def _mismatch(fields: list[Wide]) -> str | None:
    """What is wrong where a list has not as many log-probs as ids, or experts differ in shape.

    Lists of the two engines may be of two lengths.
    """
    if len(fields) == 4:
        return _mismatch(fields[:2]) or _mismatch(fields[2:])
    if 0 in fields[0].shape:
        return f"{fields[0].name} has no numbers"
    if len(fields[0].shape) == 2 and fields[0].shape[1] > MOST_EXPERTS:
        return f"{fields[0].name} has more than {MOST_EXPERTS} experts a layer"
    for other in fields[1:]:
        if other.shape != fields[0].shape:
            return (
                f"{other.name} has {list(other.shape)} numbers a token, expected "
                f"{list(fields[0].shape)} as {fields[0].name} has"
            )
    return None
