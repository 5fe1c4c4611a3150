"""What formats with a record per sample share: samples one by one become blocks of the token table.

Memory is bounded by a block of samples, whatever their number.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from tasks.readers.layout import blocks
from tasks.readers.verl_names import layout_of
from tasks.tokens import Block

BLOCK_TOKENS = 1 << 20  # response tokens that are held at once

Sample = dict[str, Any]  # fields by verl's names: arrays `[L]` of one response, or one value


def ragged_blocks(samples: Iterable[Sample]) -> Iterator[Block]:
    """Samples as they come, some at a time. A field that one of a block lacks is left out of it."""
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
    shared = set.intersection(*(set(sample) for sample in held))
    yield from blocks(layout_of({name: [s[name] for s in held] for name in sorted(shared)}, {}))
