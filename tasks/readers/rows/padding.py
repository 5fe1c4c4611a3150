"""Padding: where padded fields have tokens. Prompts are left padded, responses right padded."""

from typing import Any

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.rows.fields import TokenField, dimensions, shown, token_field


def tail_of_input_ids(ids: Any, width: int) -> TokenField | None:
    """The last `width` columns of padded `input_ids` [B, P + R]: the responses."""
    if dimensions(ids) != 2 or not hasattr(ids, "shape"):
        return None
    return TokenField("input_ids", ids[:, ids.shape[1] - width :], "int")


def prompts_of(fields: dict[str, Any], prompts: Any, responses: TokenField) -> TokenField | None:
    """The prompts as given, else the columns of `input_ids` before the responses."""
    ids = fields.get("input_ids")
    if prompts is None and not responses.ragged and ids is not None and dimensions(ids) == 2:
        prompts = ids[:, : ids.shape[1] - responses.width] if hasattr(ids, "shape") else None
    return None if prompts is None else token_field("prompts", prompts, "int")


def halves(
    attention: Any, responses: TokenField, prompts: TokenField | None
) -> tuple[TokenField, TokenField | None]:
    """`attention_mask` [B, P + R] as two: over the responses, and over the prompts if padded."""
    if dimensions(attention) != 2 or not hasattr(attention, "shape"):
        raise BadCapture(f"attention_mask is {shown(attention)}, expected [rows, tokens]")
    width = responses.width
    before = attention.shape[1] - width
    padded = prompts is not None and not prompts.ragged
    expected = prompts.width if prompts is not None and padded else before
    if attention.shape[0] != responses.rows or before < 0 or before != expected:
        raise BadCapture(
            f"attention_mask has shape {list(attention.shape)}, expected "
            f"[{responses.rows}, {max(expected, 0) + width}]: prompt and response"
        )
    real = TokenField("attention_mask", attention[:, before:], "mask")
    return real, TokenField("attention_mask", attention[:, :before], "mask") if padded else None
