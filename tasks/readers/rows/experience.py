"""OpenRLHF's Experience under verl's names, and TRL's masks in their parts.

OpenRLHF pads everything on the right from column 0: `sequences` and `attention_mask` are `[B, T]`,
`action_mask` and the log-probs `[B, T - 1]`, where column t is about token t + 1. The response of a
row begins at its first action.
"""

from typing import Any

import numpy as np

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers.tensors import Array
from timtrack.tasks.readers.rows.fields import as_numpy, dimensions, shown

Fields = dict[str, Any]

ACTIONS = {
    "rollout_log_probs": "rollout_log_probs",
    "action_log_probs": "old_log_probs",
    "base_action_log_probs": "ref_log_probs",
    "advantages": "advantages",
}
TEXTS = ("prompts", "labels", "images", "mm_train_inputs")  # lists that are no numbers


def is_openrlhf(fields: Fields) -> bool:
    """Whether the names are those of an Experience."""
    return {"sequences", "action_mask", "attention_mask"} <= set(fields)


def of_openrlhf(fields: Fields) -> Fields:
    """An Experience as lists of rows under verl's names; raises BadCapture for other shapes."""
    ids = _padded(fields, "sequences")
    attended = _padded(fields, "attention_mask", ids.shape[1]) != 0
    actions = _padded(fields, "action_mask", ids.shape[1] - 1) != 0
    real = attended.sum(axis=1)
    _check_padding(attended, actions)
    starts = np.where(actions.any(axis=1), actions.argmax(axis=1) + 1, real).astype(int)
    spans = list(zip(starts.tolist(), np.maximum(starts, real).astype(int).tolist(), strict=True))
    named = {
        "prompts": [ids[row, :start] for row, (start, _) in enumerate(spans)],
        "responses": [ids[row, start:end] for row, (start, end) in enumerate(spans)],
        "response_mask": [actions[row, s - 1 : e - 1] for row, (s, e) in enumerate(spans)],
    }
    used = {"sequences", "attention_mask", "action_mask", *TEXTS}
    others = {name: value for name, value in fields.items() if name not in used}
    for name, value in others.items():
        if name in ACTIONS or _width(value) == ids.shape[1] - 1:
            values = _padded(fields, name, ids.shape[1] - 1)
            to = ACTIONS.get(name, name)
            named[to] = [values[row, s - 1 : e - 1] for row, (s, e) in enumerate(spans)]
    return {**{name: value for name, value in others.items() if name not in ACTIONS}, **named}


def _width(value: Any) -> int | None:
    """Columns of a padded field; None of any other."""
    padded = hasattr(value, "shape") and dimensions(value) == 2
    return int(value.shape[1]) if padded else None


def _check_padding(attended: Array, actions: Array) -> None:
    """Raise BadCapture unless rows begin at column 0 and actions are tokens."""
    lengths = attended.sum(axis=1)
    gaps = (attended != (np.arange(attended.shape[1]) < lengths[:, None])).any(axis=1)
    outside = (actions & ~attended[:, 1:]).any(axis=1)
    for wrong, what in ((gaps, "not ones from column 0 on"), (outside, "0 at an action")):
        if wrong.any():
            raise BadCapture(
                f"the attention_mask of {wrong.sum()} rows is {what}, first at row "
                f"{int(np.argmax(wrong))}; OpenRLHF pads on the right"
            )


def _padded(fields: Fields, name: str, width: int | None = None) -> Array:
    """A field as `[B, T]` or `[B, T - 1]`."""
    value = fields.get(name)
    if dimensions(value) != 2 or isinstance(value, list | tuple):
        raise BadCapture(f"{name} is {shown(value)}, expected a padded [rows, tokens] tensor")
    array = as_numpy(name, value)
    if array.dtype.kind not in "biuf":
        raise BadCapture(f"{name} holds {array.dtype}, expected numbers")
    rows = len(fields["sequences"])
    if len(array) != rows or array.shape[1] != (width or array.shape[1]):
        raise BadCapture(f"{name} has shape {list(array.shape)}, expected [{rows}, {width}]")
    return array


def of_trl(fields: Fields) -> Fields:
    """TRL's batch: tokens of tools are real, but not trained on, and prompts have a mask.

    `completion_mask` marks real tokens, `tool_mask` those among them that the model sampled (its
    padding is 1), `prompt_mask` the prompts' padding on the left. Masks are padded tensors or lists
    of rows. A `response_mask` is the trainer's own, and only `tool_mask` is taken off it.
    """
    own = "response_mask" if "response_mask" in fields else "completion_mask"
    if own not in fields:
        return fields
    named = dict(fields)
    mask, tool = fields[own], named.pop("tool_mask", None)
    if tool is not None:
        mask = _product(own, mask, tool)
        named[own] = mask
    prompt = named.pop("prompt_mask", None)
    if own == "completion_mask":
        if prompt is not None and "attention_mask" not in fields and _width(fields[own]):
            named["attention_mask"] = _beside(prompt, fields[own])
        named["response_mask"] = named.pop(own)
    return named


def _product(name: str, mask: Any, tool: Any) -> Any:
    """A mask times the tools', padded or a list of rows; raises BadCapture for other shapes."""
    if isinstance(mask, list | tuple) and isinstance(tool, list | tuple) and len(mask) == len(tool):
        return [_product(name, *rows) for rows in zip(mask, tool, strict=True)]
    a, b = as_numpy(name, mask), as_numpy("tool_mask", tool)
    if a.shape != b.shape:
        raise BadCapture(
            f"tool_mask has shape {list(b.shape)}, expected {list(a.shape)} as {name} has"
        )
    return a * b


def _beside(prompt: Any, completion: Any) -> Array:
    """Two padded masks as one `[B, P + R]`."""
    left, right = as_numpy("prompt_mask", prompt), as_numpy("completion_mask", completion)
    if left.ndim != 2 or len(left) != len(right):
        raise BadCapture(f"prompt_mask has shape {list(left.shape)}, expected {len(right)} rows")
    return np.concatenate([left, right], axis=1)
