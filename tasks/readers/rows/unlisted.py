"""Lists of padded rows, as an early hook wrote NumPy batches, turned back into padded arrays."""

from typing import Any

import numpy as np

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers.tensors import Array
from timtrack.tasks.readers.rows.fields import as_numpy, dimensions

Fields = dict[str, Any]
LEFT_OUT = "attention_mask is not used: it has not a number for each token of the rows in lists"


def unlisted(fields: Fields, responses: Any, prompts: Any, mask: Any) -> tuple[Fields, list[str]]:
    """The fields, padded where an `attention_mask` says that rows in lists are, and notes.

    It says so with zeros, unless it has a one for each token of prompt and response: then lists and
    mask are of two shapes. Where it cannot be told what is padding, `mask` alone counts; without
    one, raises BadCapture.
    """
    if "attention_mask" not in fields or not isinstance(responses, list | tuple):
        return fields, []
    attention = _rows(fields["attention_mask"], len(responses))
    if attention is None or dimensions(responses) != 2:
        return _by_mask(fields, mask)
    lengths = [len(row) for row in responses]
    if _is_whole(attention, lengths, prompts):
        return fields, []
    widths = {(len(row), length) for row, length in zip(attention, lengths, strict=True)}
    if len(widths) > 1 or min(widths)[0] < min(widths)[1]:
        return _by_mask(fields, mask)
    [(width, length)] = widths
    if _is_trained_outside(attention, length, mask):
        return _by_mask(fields, mask)
    sizes = {width, length, width - length}
    return {name: _padded(name, v, len(responses), sizes) for name, v in fields.items()}, []


def _by_mask(fields: Fields, mask: Any) -> tuple[Fields, list[str]]:
    if mask is None:
        raise BadCapture(
            "attention_mask does not fit the lists of tokens, so that padding could be taken for "
            "tokens that were trained on; give a response_mask"
        )
    return fields, [LEFT_OUT]


def _rows(attention: Any, count: int) -> list[Array] | None:
    """The mask row by row; None if it is not a mask."""
    if dimensions(attention) != 2 or len(attention) != count:
        return None
    return [as_numpy("attention_mask", row) for row in attention]


def _is_whole(attention: list[Array], lengths: list[int], prompts: Any) -> bool:
    """Whether the mask has as many ones as there are tokens: lists without padding."""
    ones = [int((row != 0).sum()) for row in attention]
    if isinstance(prompts, list | tuple) and dimensions(prompts) == 2:
        own = [len(row) for row in prompts]
        return ones == [sum(both) for both in zip(own, lengths, strict=False)]
    return all(
        one == len(row) >= length for one, row, length in zip(ones, attention, lengths, strict=True)
    )


def _is_trained_outside(attention: list[Array], length: int, mask: Any) -> bool:
    """Whether tokens are trained on that would be padding: the mask is of other columns then."""
    if not isinstance(mask, list | tuple) or any(len(row) != length for row in mask):
        return mask is not None
    pairs = zip(mask, attention, strict=False)
    return any(
        ((as_numpy("response_mask", row) != 0) & (real[len(real) - length :] == 0)).any()
        for row, real in pairs
    )


def _padded(name: str, values: Any, rows: int, widths: set[int]) -> Any:
    """A list of rows of one of these widths as an array; anything else unchanged."""
    if not isinstance(values, list | tuple) or dimensions(values) != 2 or len(values) != rows:
        return values
    sizes = {len(row) for row in values}
    if len(sizes) > 1 or not sizes <= widths:
        return values
    stacked = np.stack([as_numpy(name, row) for row in values])
    return stacked if stacked.dtype.kind in "biuf" else values
