"""Field names: which field plays which part, by verl's names and those of others."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import listed
from timtrack.tasks.readers.rows.aliases import ALIASES, FACTS_OF_TOKENS, Fields, name_of, named
from timtrack.tasks.readers.rows.evidence import ALL_NAMES, evidence_of
from timtrack.tasks.readers.rows.facts import add_facts_of_tokens, facts_of_rows
from timtrack.tasks.readers.rows.fields import (
    TokenField,
    as_numpy,
    dimensions,
    dtype_name,
    names,
    row_field,
    token_field,
    whole_beside_text,
)
from timtrack.tasks.readers.rows.layout import AS_WRITTEN, Layout, check_rows
from timtrack.tasks.readers.rows.padding import halves, prompts_of, tail_of_input_ids
from timtrack.tasks.readers.rows.same import says_the_same
from timtrack.tasks.readers.rows.unlisted import unlisted
from timtrack.tasks.tokens.table import IN_FLOAT32

REQUIRED = ("token_id", "logp_rollout", "logp_train")
CALLED = {
    "token_id": "responses",
    "logp_rollout": "the rollout engine's log-probs",
    "logp_train": "the trainer's log-probs",
    "response_mask": "response mask",
}
VIEW = re.compile(r"(.+?)_(?:log_probs?|logprobs)$")


def layout_of(fields: Fields, meta: Fields) -> Layout:
    """Which field plays which part; raises BadCapture when one is missing or cannot play it."""
    ids, mask = named(fields, "token_id"), named(fields, "response_mask")
    mask = fields.get("loss_mask") if mask is None else mask
    fields, left_out = unlisted(fields, ids, named(fields, "prompts"), mask)
    tokens, notes = _token_fields(fields)
    rows = tokens["token_id"].rows
    uid = named(fields, "uid")
    per_row = _row_fields(fields, rows, tokens)
    if uid is not None:
        per_row["uid"] = names("uid", uid, rows)
    facts, unread = facts_of_rows({**meta, **fields}, rows)
    responses = tokens["token_id"]
    prompts = prompts_of(fields, named(fields, "prompts"), responses)
    evidence, not_evidence = evidence_of(fields, responses, prompts)
    response_real = prompt_real = None
    if "attention_mask" in fields and not responses.ragged:
        response_real, prompt_real = halves(fields["attention_mask"], responses, prompts)
    pad_id = meta.get("pad_token_id")
    layout = Layout(
        rows=rows,
        tokens=tokens,
        per_row={**per_row, **facts},
        response_real=response_real,
        prompts=prompts,
        prompt_real=prompt_real,
        pad_id=pad_id if isinstance(pad_id, int) else None,
        synthetic=frozenset(),
        mixed=whole_beside_text(uid),
        evidence=evidence,
        notes=[
            *left_out,
            *notes,
            *unread,
            *not_evidence,
            *_passed_over(fields, ("advantage", "entropy", "reward", "uid")),
            *_passed_over(meta, ("run", "step")),
            *_assumptions(tokens, prompts, response_real, prompt_real, pad_id),
        ],
    )
    check_rows(layout)
    return _without_synthetic_rows(layout)


def _token_fields(fields: Fields) -> tuple[dict[str, TokenField], list[str]]:
    """The fields with one number per response token, by the column that they become, and notes."""
    found = {part: _one(fields, part) for part in REQUIRED}
    if found["token_id"] is None and found["logp_train"] and not found["logp_train"].ragged:
        found["token_id"] = tail_of_input_ids(fields.get("input_ids"), found["logp_train"].width)
    missing = [part for part, field in found.items() if field is None]
    mask = _mask(fields)
    if mask is None and "attention_mask" not in fields:
        missing.append("response_mask")
    if missing:
        wanted = ", ".join(f"{CALLED[part]} ({' or '.join(ALIASES[part])})" for part in missing)
        raise BadCapture(f"missing {wanted}; the file has {listed(sorted(fields)) or 'nothing'}")
    tokens = {part: field for part, field in found.items() if field}
    if mask:
        tokens["response_mask"] = mask
    for part in ("advantage", "reward", *AS_WRITTEN):
        if part not in FACTS_OF_TOKENS and dimensions(named(fields, part)) == 2:
            tokens[part] = token_field(name_of(fields, part), named(fields, part))
    unread = add_facts_of_tokens(fields, tokens)
    return tokens, [*_mask_notes(tokens, fields), *unread, *_add_views(fields, tokens)]


def _one(fields: Fields, part: str) -> TokenField | None:
    names = [name for name in ALIASES[part] if name in fields]
    if len(names) > 1:
        raise BadCapture(
            f"{' and '.join(names)} are names for the same thing ({part}); keep one, and call a "
            "further scoring of the tokens `<view>_log_probs`"
        )
    kind = {"token_id": "int", "response_mask": "mask"}.get(part, "float")
    return token_field(names[0], fields[names[0]], kind) if names else None


def _mask(fields: Fields) -> TokenField | None:
    """The response mask, before any rejection step shrank it: verl V1 keeps that as loss_mask."""
    mask = _one(fields, "response_mask")
    if "loss_mask" not in fields:
        return mask
    whole = token_field("loss_mask", fields["loss_mask"], "mask")
    same = mask is None or (whole.ragged, whole.width) == (mask.ragged, mask.width)
    return whole if same else mask


def _mask_notes(tokens: dict[str, TokenField], fields: Fields) -> list[str]:
    mask = tokens.get("response_mask")
    if mask is None:
        return ["no response_mask: every token under attention_mask is taken as trained on"]
    if mask.name == "loss_mask" and named(fields, "response_mask") is not None:
        return ["loss_mask is used; rejection steps shrink response_mask"]
    return []


def _add_views(fields: Fields, tokens: dict[str, TokenField]) -> list[str]:
    """Add every further `<view>_log_probs` as a column; notes on those that are something else."""
    notes = []
    known = {name for names in ALIASES.values() for name in names}
    for name in sorted(set(fields) - known - ALL_NAMES):
        match = VIEW.match(name)
        if match is None:
            continue
        part = f"logp_{re.sub(r'[^a-z0-9]+', '_', match[1].lower())}"
        value = fields[name]
        full_width = dimensions(value) == 2 and not isinstance(value, list | tuple)
        if part == "logp_diff":
            notes.append(f"{name} left out: logp_diff is the column of train minus rollout")
        elif dimensions(value) != 2 or (full_width and value.shape[1] != tokens["token_id"].width):
            notes.append(f"{name} has no number for each response token: left out")
        elif part in tokens:
            raise BadCapture(
                f"{name} and {tokens[part].name} are names for the same thing ({part})"
            )
        else:
            tokens[part] = token_field(name, value, "float")
    return notes


def _row_fields(fields: Fields, rows: int, tokens: dict[str, TokenField]) -> dict[str, list[Any]]:
    whole = {"row", "policy_version_min", "policy_version_max", "rollout_id"}
    return {
        part: row_field(name_of(fields, part), value, rows, whole=part in whole)
        for part in ("reward", "advantage", *sorted(whole))
        if part not in tokens and (value := named(fields, part)) is not None
    }


def _assumptions(
    tokens: dict[str, TokenField],
    prompts: TokenField | None,
    response_real: TokenField | None,
    prompt_real: TokenField | None,
    pad_id: Any,
) -> list[str]:
    """What had to be taken for granted about padding and precision."""
    notes = []
    if response_real is None and not tokens["token_id"].ragged:
        notes.append("no attention_mask: a response ends at its last trained token or score")
    if prompts and not prompts.ragged and prompt_real is None and pad_id is None:
        notes.append("no attention_mask, no pad_token_id: left padding counts as prompt tokens")
    for part, field in tokens.items():
        dtype = dtype_name(field.values)
        if part.startswith("logp_") and dtype in ("bfloat16", "float16"):
            notes.append(f"{field.name} is {dtype}: values lie on a grid, small gaps are rounding")
        elif part.startswith("logp_") and dtype == "float64":
            notes.append(f"{field.name} {IN_FLOAT32}")
    return notes


def _passed_over(fields: Fields, parts: Iterable[str]) -> list[str]:
    """Notes on fields that play a part that another field plays, with other values."""
    return [
        f"{used} is used as {part}; {other} has other values and is left out"
        for part in parts
        for used, *others in [[name for name in ALIASES[part] if name in fields] or [part]]
        for other in others
        if _differs(other, fields[used], fields[other])
    ]


def _differs(name: str, one: Any, other: Any) -> bool:
    try:
        return not says_the_same(name, one, other)
    except BadCapture:  # what is left out need not be readable
        return True


def _without_synthetic_rows(layout: Layout) -> Layout:
    """Leave out rows with a uid like `pad3f2a` and nothing trained: verl evens out its ranks."""
    mask = layout.tokens.get("response_mask")
    if mask is None or "uid" not in layout.per_row:
        return layout
    named = [
        i for i, uid in enumerate(layout.per_row["uid"]) if re.match(r"pad[0-9a-f]*$", uid or "")
    ]
    synthetic = frozenset(i for i in named if not as_numpy(mask.name, mask.values[i]).any())
    if not synthetic:
        return layout
    note = f"{len(synthetic)} synthetic padding rows (uid `pad...`) left out"
    return replace(layout, synthetic=synthetic, notes=[*layout.notes, note])
