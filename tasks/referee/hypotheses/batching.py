"""Hypotheses about the batch that a sequence is scored in: its padding and its neighbours."""

import math
from collections.abc import Iterable
from dataclasses import replace

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.hypotheses.positions import rope_base
from timtrack.tasks.referee.model.lines import Line, causal
from timtrack.tasks.referee.registry import Choice, hypothesis
from timtrack.tasks.referee.rollouts import Floats, Rollout

MICRO_BATCHES = (2, 4, 8, 12, 16, 32)
PACKS = (2, 3, 4, 6, 8)
LONGEST = 4096  # tokens of a line with others in front


def _widths(bench: Bench) -> dict[str, dict[int, int]]:
    """Ways to pad on the left: by name, how much each row of the step gets."""
    batch = bench.batch or {one.row: one for one in bench.rollouts}
    found: dict[str, dict[int, int]] = {}
    longest = max(len(one.prompt) for one in batch.values())
    found["prompts padded to the longest"] = {r: longest - len(o.prompt) for r, o in batch.items()}
    for size in (*MICRO_BATCHES, len(batch)):
        widest: dict[int, int] = {}
        for row, one in batch.items():
            widest[row // size] = max(widest.get(row // size, 0), len(one.ids))
        by = {row: widest[row // size] - len(one.ids) for row, one in batch.items()}
        found[f"padded to the longest of {size} rows"] = by
    most = max(len(one.ids) for one in batch.values())
    for width in (64, 256, 1024):
        to = math.ceil(most / width) * width
        found[f"padded to {to}"] = {row: to - len(one.ids) for row, one in batch.items()}
    return found


def _paddings(bench: Bench) -> list[Choice]:
    named = {name: by for name, by in _widths(bench).items() if max(by.values()) <= LONGEST}
    mine = [one.row for one in bench.rollouts]
    return [Choice(name, by) for name, by in named.items() if any(by[row] for row in mine)]


def _left_padded(bench: Bench, by: dict[int, int]) -> list[tuple[Line, int]]:
    pad = getattr(bench.reference.config, "pad_token_id", None)
    fill = min(bench.reference.ends, default=0) if pad is None else pad
    pads = [by[one.row] for one in bench.rollouts]
    lines = [
        replace(line, ids=[*[fill] * count, *line.ids], first=line.first + count)
        for line, count in zip(bench.lines, pads, strict=True)
    ]
    return list(zip(lines, pads, strict=True))


@hypothesis(
    "padding_attended",
    "padding on the left is attended to ({value})",
    "the attention mask is not applied",
    ("F24",),
    _paddings,
)
def _(bench: Bench, value: Choice) -> Floats:
    return bench.scored([line for line, _ in _left_padded(bench, value.data)])


@hypothesis(
    "padding_attended_in_place",
    "padding on the left is attended to, and positions do not count it ({value})",
    "the attention mask is not applied",
    ("F24",),
    _paddings,
)
def _(bench: Bench, value: Choice) -> Floats:
    padded = _left_padded(bench, value.data)
    return bench.scored(
        [replace(line, positions=[*[0] * pad, *range(len(line.ids) - pad)]) for line, pad in padded]
    )


@hypothesis(
    "padding_counted",
    "positions count the padding on the left, which is masked ({value})",
    "position ids do not begin with the sequence",
    ("F24",),
    lambda bench: () if rope_base(bench) else _paddings(bench),  # rotary positions are relative
)
def _(bench: Bench, value: Choice) -> Floats:
    by = value.data
    pads = [by[one.row] for one in bench.rollouts]
    return bench.scored(
        [
            replace(line, positions=[at + pad for at in range(len(line.ids))])
            for line, pad in zip(bench.lines, pads, strict=True)
        ]
    )


def _in_front(bench: Bench, pack: int) -> list[list[Rollout]]:
    """The sequences before each in its packed line: by `pack`, or as the capture says for 0."""
    batch = bench.batch
    found = []
    for one in bench.rollouts:
        rows = (batch[row] for row in sorted(batch) if row < one.row)
        if pack:
            found.append([other for other in rows if other.row // pack == one.row // pack])
        else:
            found.append([other for other in rows if other.pack == one.pack])
    return found


def _packs(bench: Bench) -> list[Choice]:
    named = [Choice(f"{size} to a line", size) for size in PACKS]
    if all(one.pack is not None for one in bench.rollouts):
        named.insert(0, Choice("packed as captured", 0))
    return [one for one in named if any(_in_front(bench, one.data))]


@hypothesis(
    "neighbours_in_front",
    "the sequences before it in the batch are seen too ({value})",
    "packed sequences are not masked from each other",
    ("F25",),
    _packs,
)
def _(bench: Bench, value: Choice) -> Floats:
    fronts = _in_front(bench, value.data)
    return bench.scored([_behind(*pair) for pair in zip(bench.lines, fronts, strict=True)])


def _behind(line: Line, front: Iterable[Rollout]) -> Line:
    """A line behind others; each counts its positions from 0, and sees all before it."""
    others = list(front)
    while sum(len(one.ids) for one in others) > LONGEST:
        others.pop(0)
    ids = [i for one in others for i in one.ids]
    if not ids:
        return line
    positions = [at for one in others for at in range(len(one.ids))]
    both = [*ids, *line.ids]
    return Line(
        both,
        line.first + len(ids),
        line.length,
        [*positions, *range(len(line.ids))],
        causal(len(both)),
    )
