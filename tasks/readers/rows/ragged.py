"""From samples to tokens, for all formats with one record per sample.

Memory is bounded by one block of samples.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from timtrack.tasks.readers.rows.layout import blocks
from timtrack.tasks.readers.rows.verl_names import layout_of
from timtrack.tasks.tokens.table import Block

BLOCK_TOKENS = 1 << 20  # response tokens that are held at once

WHOLE = ("responses", "response_mask", "prompts")  # left out if a sample lacks it
Sample = dict[str, Any]  # fields by verl's names: arrays `[L]` of one response, or one value


def ragged_blocks(samples: Iterable[Sample]) -> Iterator[Block]:
    """Samples as they come, some at a time. What a sample lacks that others have is NULL there."""
    held: list[Sample] = []
    tokens = 0
    for sample in samples:
        held.append(sample)
        tokens += len(sample["responses"])
        if tokens >= BLOCK_TOKENS:
            yield from _blocks(held)
            held, tokens = [], 0
    if held:
        yield from _blocks(held)


def _blocks(held: list[Sample]) -> Iterator[Block]:
    names = set.union(*(set(sample) for sample in held))
    columns = {name: [sample.get(name) for sample in held] for name in sorted(names)}
    fields = {
        name: _filled(column, held)
        for name, column in columns.items()
        if name not in WHOLE or all(value is not None for value in column)
    }
    yield from blocks(layout_of(fields, {}))


def _filled(column: list[Any], held: list[Sample]) -> list[Any]:
    """A field of all samples: NaN at each token of those that lack it; None if it is one value."""
    known = next((value for value in column if value is not None), None)
    if not isinstance(known, np.ndarray):
        return column
    lengths = (len(sample["responses"]) for sample in held)
    return [
        np.full(length, np.nan, np.float32) if value is None else value
        for value, length in zip(column, lengths, strict=True)
    ]
