"""OpenRLHF's Experience under verl's names, and TRL's masks in their parts.

OpenRLHF pads everything on the right from column 0: `sequences` and `attention_mask` are `[B, T]`,
`action_mask` and the log-probs `[B, T - 1]`, where column t is about token t + 1. The response of a
row begins at its first action.
"""

from typing import Any

import numpy as np

from tasks.readers.fields import as_numpy, dimensions, shown
from tasks.readers.tensors import Array
from tasks.tokens import BadCapture

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
    real = _padded(fields, "attention_mask", ids.shape[1]).sum(axis=1)
    actions = _padded(fields, "action_mask", ids.shape[1] - 1) != 0
    starts = np.where(actions.any(axis=1), actions.argmax(axis=1) + 1, real).astype(int)
    spans = list(zip(starts.tolist(), np.maximum(starts, real).astype(int).tolist(), strict=True))
    named = {
        "prompts": [ids[row, :start] for row, (start, _) in enumerate(spans)],
        "responses": [ids[row, start:end] for row, (start, end) in enumerate(spans)],
        "response_mask": [actions[row, s - 1 : e - 1] for row, (s, e) in enumerate(spans)],
    }
    for name, to in ACTIONS.items():
        if fields.get(name) is not None:
            values = _padded(fields, name, ids.shape[1] - 1)
            named[to] = [values[row, s - 1 : e - 1] for row, (s, e) in enumerate(spans)]
    used = {"sequences", "attention_mask", "action_mask", *ACTIONS, *TEXTS}
    return {**{name: value for name, value in fields.items() if name not in used}, **named}


def _padded(fields: Fields, name: str, width: int | None = None) -> Array:
    """A field as `[B, T]` or `[B, T - 1]`."""
    value = fields.get(name)
    if dimensions(value) != 2 or isinstance(value, list | tuple):
        raise BadCapture(f"{name} is {shown(value)}, expected a padded [rows, tokens] tensor")
    array = as_numpy(name, value)
    rows = len(fields["sequences"])
    if len(array) != rows or array.shape[1] != (width or array.shape[1]):
        raise BadCapture(f"{name} has shape {list(array.shape)}, expected [{rows}, {width}]")
    return array


def of_trl(fields: Fields) -> Fields:
    """TRL's batch: tokens of tools are real, but not trained on, and prompts have a mask.

    `completion_mask` marks real tokens, `tool_mask` those among them that the model sampled (its
    padding is 1), `prompt_mask` the prompts' padding on the left.
    """
    masks = [fields.get(name) for name in ("completion_mask", "tool_mask", "prompt_mask")]
    completion, tool, prompt = (
        as_numpy(name, value) if dimensions(value) == 2 and hasattr(value, "shape") else None
        for name, value in zip(("completion_mask", "tool_mask", "prompt_mask"), masks, strict=True)
    )
    if completion is None:
        return fields
    named = {
        k: v for k, v in fields.items() if k not in ("completion_mask", "tool_mask", "prompt_mask")
    }
    if tool is not None and tool.shape != completion.shape:
        raise BadCapture(
            f"tool_mask has shape {list(tool.shape)}, expected {list(completion.shape)} as "
            "completion_mask has"
        )
    named["response_mask"] = completion if tool is None else completion * tool
    if prompt is not None and "attention_mask" not in fields:
        if len(prompt) != len(completion):
            raise BadCapture(f"prompt_mask has {len(prompt)} rows, expected {len(completion)}")
        named["attention_mask"] = np.concatenate([prompt, completion], axis=1)
    return named
