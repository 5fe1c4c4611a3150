"""What is given to the model: ids with positions and masks, in batches that fit into memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

TOKENS_AT_ONCE = 4096  # of a batch, padding included
MASK_AT_ONCE = 1 << 26  # entries of a batch's own masks


@dataclass(frozen=True)
class Line:
    """One line of a batch; the tokens `first` to `first + length` of `ids` are scored."""

    ids: Sequence[int]
    first: int
    length: int
    positions: Sequence[int] | None = None  # those of each id; None: 0, 1, 2, ...
    mask: torch.Tensor | None = None  # [T, T], whether a token sees another; None: the model's own


def hidden_states(model: Any, lines: Sequence[Line]) -> torch.Tensor:
    """The hidden states [N, D] that predict the scored tokens of the lines, one after the other.

    A token at the very start of a line is predicted by nothing: its row is NaN.
    """
    found: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for batch in batches(lines):
            states = _forward(model, [lines[place] for place in batch])
            for place, state in zip(batch, states, strict=True):
                found[place] = _read(state, lines[place])
    return torch.cat([found[place] for place in range(len(lines))])


def batches(lines: Sequence[Line]) -> Iterator[list[int]]:
    """Places of lines that go together: long ones first, so that a batch is padded little."""
    batch: list[int] = []
    width = 0
    for place in sorted(range(len(lines)), key=lambda place: -len(lines[place].ids)):
        count = len(batch) + 1
        width = width or len(lines[place].ids)
        own = any(lines[other].mask is not None for other in (*batch, place))
        fits = count * width <= TOKENS_AT_ONCE and (not own or count * width**2 <= MASK_AT_ONCE)
        if batch and not fits:
            yield batch
            batch, width = [], len(lines[place].ids)
        batch.append(place)
    if batch:
        yield batch


def _forward(model: Any, lines: Sequence[Line]) -> torch.Tensor:
    """Last hidden states [B, T, D] of right-padded lines."""
    device = next(model.parameters()).device
    width = max(len(line.ids) for line in lines)
    ids = torch.zeros(len(lines), width, dtype=torch.long)
    real = torch.zeros(len(lines), width, dtype=torch.long)
    positions = torch.arange(width).repeat(len(lines), 1)
    for row, line in enumerate(lines):
        ids[row, : len(line.ids)] = torch.tensor(line.ids)
        real[row, : len(line.ids)] = 1
        if line.positions is not None:
            positions[row, : len(line.ids)] = torch.tensor(line.positions)
    mask = real
    if any(line.mask is not None for line in lines):
        mask = _added(lines, width, next(model.parameters()).dtype)
    made = model.base_model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=positions.to(device),
        use_cache=False,
    )
    return made.last_hidden_state


def _added(lines: Sequence[Line], width: int, dtype: torch.dtype) -> torch.Tensor:
    """What is added to attention scores [B, 1, T, T]; padding looks at itself."""
    allowed = torch.eye(width, dtype=torch.bool).repeat(len(lines), 1, 1)
    for row, line in enumerate(lines):
        size = len(line.ids)
        own = line.mask if line.mask is not None else causal(size)
        allowed[row, :size, :size] |= own
    low = torch.finfo(dtype).min
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, low)[:, None]


def causal(size: int, window: int | None = None) -> torch.Tensor:
    """The mask [T, T] of tokens that see those before them, at most `window` with themselves."""
    seen = torch.ones(size, size, dtype=torch.bool).tril()
    return seen if window is None else seen & ~torch.ones_like(seen).tril(-window)


def _read(state: torch.Tensor, line: Line) -> torch.Tensor:
    """Of the states [T, D] of a line, those before its scored tokens."""
    if line.first:
        return state[line.first - 1 : line.first + line.length - 1]
    nothing = torch.full_like(state[:1], torch.nan)
    return torch.cat([nothing, state[: line.length - 1]])
