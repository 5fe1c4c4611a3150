"""`step_batch.pt` / `.npz`: a dict of tensors that a hook in the trainer wrote.

Token fields are padded `[B, R]` tensors or lists of B 1-D tensors, flat or nested as verl nests
them, under verl's names or the aliases below. Responses are right padded, prompts left padded.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.readers.layout import Layout, blocks, check_shapes
from tasks.readers.tensors import TokenField, as_numpy, dimensions, dtype_name, load, token_field
from tasks.tokens import BadCapture, Batch

NAME = "step_batch"
NEEDS = "both log-probs, responses, and response_mask (or attention_mask)"

# First name found counts. Two names for one engine's log-probs in one file are an error.
ALIASES = {
    "train": (
        "old_log_probs",
        "train_log_probs",
        "trainer_log_probs",
        "actor_log_probs",
        "old_per_token_logps",
    ),
    "rollout": (
        "rollout_log_probs",
        "vllm_log_probs",
        "sglang_log_probs",
        "inference_log_probs",
        "sampling_per_token_logps",
    ),
    "responses": ("responses", "response_ids"),
    "prompts": ("prompts", "prompt_ids"),
    "response_mask": ("response_mask", "completion_mask"),
    "advantage": ("advantages", "advantage"),
    "entropy": ("entropys", "entropies", "entropy"),
    "reward": ("token_level_scores", "rm_scores", "token_level_rewards", "rewards", "reward"),
    "row": ("row_index",),  # index in the whole batch, when only some of its rows are captured
    "uid": ("uid", "uids", "group_id"),
    "policy_version_min": ("min_global_steps", "policy_version_min", "policy_version"),
    "policy_version_max": ("max_global_steps", "policy_version_max", "policy_version"),
    "run": ("run", "run_name", "experiment_name"),
    "step": ("global_step", "global_steps", "training_step", "step"),
}
PER_ROW = ("row", "uid", "reward", "advantage", "policy_version_min", "policy_version_max")
VIEW = re.compile(r"(.+?)_(?:log_probs?|logprobs)$")

# Nestings seen in the wild; their contents count as if they stood at the top.
SECTIONS = ("batch", "batch_tensors", "batch_non_tensors", "non_tensor_batch")
META_SECTIONS = ("meta_info", "batch_meta_info", "meta")


def recognises(path: Path) -> bool:
    """Whether a file found in a directory is taken for this format, by its name."""
    return path.suffix in (".pt", ".npz") and "step_batch" in path.stem


def open_batch(path: Path) -> Batch:
    """Open a capture without reading its rows; raises BadCapture when it cannot be one."""
    loaded = load(path)
    fields = _flattened(loaded, SECTIONS)
    meta = _scalars(_flattened(loaded, (*SECTIONS, *META_SECTIONS)))
    layout = _layout(fields, meta)
    run, step = _named(meta, "run"), _named(meta, "step")
    return Batch(
        format=NAME,
        run=None if run is None else str(run),
        step=None if step is None else int(step),
        views=tuple(part.removeprefix("logp_") for part in layout.views),
        meta=meta,
        notes=tuple(layout.notes),
        blocks=lambda: blocks(layout),
    )


def _flattened(loaded: dict[str, Any], sections: tuple[str, ...]) -> dict[str, Any]:
    flat = {str(name): value for name, value in loaded.items() if name not in sections}
    for section in sections:
        if isinstance(loaded.get(section), dict):
            flat = {**{str(k): v for k, v in loaded[section].items()}, **flat}
    return {name: value for name, value in flat.items() if value is not None}


def _scalars(fields: dict[str, Any]) -> dict[str, str | int | float | bool]:
    """The single numbers and strings of the file: what it says about itself."""
    scalars = {}
    for name, value in fields.items():
        item = value.item() if getattr(value, "ndim", None) == 0 else value
        if isinstance(item, str | int | float | bool):
            scalars[name] = item
    return scalars


def _named(fields: dict[str, Any], part: str) -> Any:
    return next((fields[name] for name in ALIASES[part] if name in fields), None)


def _layout(fields: dict[str, Any], meta: dict[str, Any]) -> Layout:
    tokens = _token_fields(fields)
    rows = len(tokens["token_id"].values)
    mask, notes = _mask(fields)
    if mask is not None:
        tokens["response_mask"] = mask
    per_row = {
        part: value
        for part in PER_ROW
        if part not in tokens and (value := _named(fields, part)) is not None
    }
    layout = Layout(
        rows=rows,
        tokens=tokens,
        per_row=per_row,
        attention=None if tokens["token_id"].ragged else fields.get("attention_mask"),
        prompts=_prompts(fields, tokens["token_id"]),
        pad_id=meta.get("pad_token_id"),
        synthetic=_synthetic(per_row.get("uid"), mask),
        notes=notes,
    )
    check_shapes(layout)
    return replace(layout, notes=[*notes, *_dtype_notes(layout), *_synthetic_note(layout)])


def _token_fields(fields: dict[str, Any]) -> dict[str, TokenField]:
    """The fields with one number per response token, by the column that they become."""
    found = {
        "token_id": _one(fields, "responses"),
        "logp_rollout": _one(fields, "rollout"),
        "logp_train": _one(fields, "train"),
    }
    if found["token_id"] is None and "input_ids" in fields and found["logp_train"] is not None:
        width = found["logp_train"].shape[-1]
        found["token_id"] = token_field("input_ids", fields["input_ids"][:, -width:])
    if missing := [part for part, value in found.items() if value is None]:
        wanted = {"token_id": "responses", "logp_rollout": "rollout", "logp_train": "train"}
        raise BadCapture(_missing([wanted[part] for part in missing], fields))
    tokens = {part: value for part, value in found.items() if value is not None}
    known = {name for names in ALIASES.values() for name in names}
    for name in sorted(set(fields) - known):
        if match := VIEW.match(name):
            tokens[f"logp_{_column(match[1])}"] = token_field(name, fields[name])
    for part in ("advantage", "entropy", "reward"):
        if dimensions(_named(fields, part)) == 2:
            tokens[part] = token_field(part, _named(fields, part))
    return tokens


def _column(stem: str) -> str:
    return re.sub(r"\W+", "_", stem.lower())


def _one(fields: dict[str, Any], part: str) -> TokenField | None:
    names = [name for name in ALIASES[part] if name in fields]
    if len(names) > 1:
        raise BadCapture(
            f"{' and '.join(names)} are names for the same thing ({part}); keep one, and call a "
            "further scoring of the tokens `<view>_log_probs`"
        )
    return token_field(names[0], fields[names[0]]) if names else None


def _missing(parts: list[str], fields: dict[str, Any]) -> str:
    wanted = ", ".join(f"{part} ({' or '.join(ALIASES[part])})" for part in parts)
    return f"missing {wanted}; the file has {', '.join(sorted(fields)) or 'no fields'}"


def _mask(fields: dict[str, Any]) -> tuple[TokenField | None, list[str]]:
    """The response mask, before any rejection step shrank it, and what had to be assumed."""
    mask = _one(fields, "response_mask")
    if "loss_mask" in fields:
        whole = token_field("loss_mask", fields["loss_mask"])
        if mask is None or whole.shape == mask.shape:
            return whole, ["loss_mask is used; rejection steps shrink response_mask"]
    if mask is None and "attention_mask" not in fields:
        raise BadCapture(_missing(["response_mask"], fields))
    guessed = ["no response_mask: every token under attention_mask is taken as trained on"]
    return mask, [] if mask is not None else guessed


def _prompts(fields: dict[str, Any], responses: TokenField) -> Any:
    prompts = _named(fields, "prompts")
    if prompts is None and "input_ids" in fields and not responses.ragged:
        return fields["input_ids"][:, : -responses.shape[1]]
    return prompts


def _synthetic(uid: Any, mask: TokenField | None) -> frozenset[int]:
    """Rows with a uid like `pad3f2a` and nothing trained: verl adds them to even out its ranks."""
    if uid is None or mask is None:
        return frozenset()
    padded = (row for row, name in enumerate(uid) if re.fullmatch(r"pad[0-9a-f]*", str(name)))
    return frozenset(row for row in padded if not as_numpy(mask.values[row]).any())


def _synthetic_note(layout: Layout) -> list[str]:
    count = len(layout.synthetic)
    return [f"{count} synthetic padding rows (uid `pad...`) left out"] if count else []


def _dtype_notes(layout: Layout) -> list[str]:
    notes = []
    for part, field in layout.tokens.items():
        dtype = dtype_name(field.values)
        if part.startswith("logp_") and dtype in ("bfloat16", "float16"):
            notes.append(
                f"{field.name} is {dtype}: its values lie on a grid, small gaps are rounding"
            )
        elif part.startswith("logp_") and dtype == "float64":
            notes.append(f"{field.name} is float64: stored as float32")
    return notes
