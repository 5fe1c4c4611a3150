"""Hypotheses about positions, masks, padding and neighbours."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from timtrack.tasks.referee import changes
from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.lines import Line, causal
from timtrack.tasks.referee.registry import Choice, hypothesis
from timtrack.tasks.referee.rollouts import Floats, Rollout

MICRO_BATCHES = (2, 4, 8, 12, 16, 32)
PACKS = (2, 3, 4, 6, 8)
LONGEST = 4096  # tokens of a line with others in front


def _moved(bench: Bench, move: Callable[[Line], Sequence[int]]) -> Floats:
    return bench.scored([replace(line, positions=move(line)) for line in bench.lines])


@hypothesis(
    "positions_from_response",
    "positions begin at 0 again with the response",
    "position ids are those of the response alone",
    ("F24",),
)
def _(bench: Bench, _value: None) -> Floats:
    return _moved(bench, lambda line: [*range(line.first), *range(len(line.ids) - line.first)])


BREAKS = tuple(
    Choice(f"{share} of the sequence on, by {by} of its length", (fraction, moved))
    for share, fraction in (("half", 0.5), ("a quarter", 0.25), ("three quarters", 0.75))
    for by, moved in (("a quarter", 0.25), ("half", 0.5))
    if moved <= fraction
)


@hypothesis(
    "positions_broken",
    "positions are counted back from {value}",
    "parts of a sequence count their positions on their own, as with context parallelism",
    ("F26",),
    lambda _: BREAKS,
)
def _(bench: Bench, value: Choice) -> Floats:
    share, by = value.data

    def move(line: Line) -> list[int]:
        count = len(line.ids)
        back = math.floor(by * count)
        return [at if at < math.floor(share * count) else at - back for at in range(count)]

    return _moved(bench, move)


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
    lambda bench: () if _base(bench) else _paddings(bench),  # rotary positions are relative
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


def _windows(bench: Bench) -> list[float]:
    longest = max(len(line.ids) for line in bench.lines)
    sizes = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096)
    return [size for size in sizes if size < longest]


@hypothesis(
    "window",
    "attention looks back {value} tokens",
    "a sliding window is on where there should be none, or is too short",
    ("F23",),
    _windows,
)
def _(bench: Bench, value: float) -> Floats:
    return bench.scored(
        [replace(line, mask=causal(len(line.ids), int(value))) for line in bench.lines]
    )


def _bases(bench: Bench) -> list[float]:
    base = _base(bench)
    if base is None:
        return []
    usual = (1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6, 5e6, 1e7)
    near = (base * factor for factor in (0.5, 0.8, 1.25, 2))
    return sorted({round(one, 3) for one in (*usual, *near)} - {round(base, 3)})


def _base(bench: Bench) -> float | None:
    rope = getattr(bench.reference.config, "rope_parameters", None) or {}
    found = rope.get("rope_theta") or getattr(bench.reference.config, "rope_theta", None)
    return float(found) if found else None


def _with_rates(bench: Bench, changed: Callable[[torch.Tensor], torch.Tensor]) -> Floats:
    modules = bench.reference.model.modules()
    found = [(m, m._buffers.get("inv_freq")) for m in modules]
    rates = [(m, "inv_freq", changed(value)) for m, value in found if value is not None]
    with changes.attributes(rates):
        return bench.scored()


@hypothesis(
    "rope_base",
    "the base of rotary positions is {value}",
    "RoPE is configured differently",
    ("F22",),
    _bases,
    is_fitted=True,
)
def _(bench: Bench, value: float) -> Floats:
    power = math.log(value) / math.log(_base(bench) or value)
    return _with_rates(bench, lambda rates: rates**power)


@hypothesis(
    "rope_scaling",
    "rotary positions are divided by {value}",
    "RoPE scaling is on for one engine only",
    ("F22",),
    lambda bench: (0.25, 0.5, 2.0, 4.0, 8.0) if _base(bench) else (),
)
def _(bench: Bench, value: float) -> Floats:
    return _with_rates(bench, lambda rates: rates / value)


def _capped(bench: Bench) -> list[Any]:
    modules = bench.reference.model.modules()
    return [m for m in modules if getattr(m, "attn_logit_softcapping", None)]


@hypothesis(
    "softcap_off",
    "attention scores are not soft-capped",
    "this engine's kernel has no softcap",
    ("F23",),
    lambda bench: (None,) if _capped(bench) else (),
)
def _(bench: Bench, _value: None) -> Floats:
    with changes.attributes([(m, "attn_logit_softcapping", None) for m in _capped(bench)]):
        return bench.scored()


def _sinks(bench: Bench) -> list[str]:
    return [n for n, _ in bench.reference.model.named_parameters() if n.endswith("sinks")]


@hypothesis(
    "sinks_off",
    "attention has no sinks",
    "this engine's kernel leaves out the attention sinks",
    ("F23",),
    lambda bench: (None,) if _sinks(bench) else (),
)
def _(bench: Bench, _value: None) -> Floats:
    low = torch.finfo(torch.float32).min / 2

    def change(_module: Any, name: str, value: torch.Tensor) -> torch.Tensor | None:
        return torch.full_like(value, low) if name.endswith("sinks") else None

    with changes.weights(bench.reference.model, change):
        return bench.scored()


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
