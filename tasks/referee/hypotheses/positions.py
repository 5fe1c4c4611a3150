"""Hypotheses about positions and about what attention sees of a sequence."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model import changes
from timtrack.tasks.referee.model.lines import Line, causal
from timtrack.tasks.referee.registry import Choice, hypothesis
from timtrack.tasks.referee.rollouts import Floats


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
    base = rope_base(bench)
    if base is None:
        return []
    usual = (1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6, 5e6, 1e7)
    near = (base * factor for factor in (0.5, 0.8, 1.25, 2))
    return sorted({round(one, 3) for one in (*usual, *near)} - {round(base, 3)})


def rope_base(bench: Bench) -> float | None:
    """The base of rotary positions by the config; None for a model without them."""
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
    power = math.log(value) / math.log(rope_base(bench) or value)
    return _with_rates(bench, lambda rates: rates**power)


@hypothesis(
    "rope_scaling",
    "rotary positions are divided by {value}",
    "RoPE scaling is on for one engine only",
    ("F22",),
    lambda bench: (0.25, 0.5, 2.0, 4.0, 8.0) if rope_base(bench) else (),
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
