"""Hypotheses about precision: weights that are rounded or quantised."""

from collections.abc import Sequence
from typing import Any

import torch

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model import changes
from timtrack.tasks.referee.registry import Choice, hypothesis
from timtrack.tasks.referee.rollouts import Floats


@hypothesis(
    "computed_bf16",
    "everything is computed in bfloat16",
    "it is the rounding of bfloat16, which is no fault",
    is_rounding=True,
)
def _(bench: Bench, _value: None) -> Floats:
    with changes.dtype(bench.reference.model, torch.bfloat16):
        return bench.scored()


def _cast(name: str, words: str, kind: torch.dtype) -> None:
    @hypothesis(
        name,
        f"the weights are rounded to {words}",
        "weights lose precision on their way to this engine",
        ("F12",),
    )
    def _(bench: Bench, _value: Any) -> Floats:
        with changes.weights(bench.reference.model, lambda module, name, value: value.to(kind)):
            return bench.scored()


_cast("weights_bf16", "bfloat16", torch.bfloat16)
_cast("weights_fp16", "float16", torch.float16)


def _is_layers(bench: Bench, module: Any, value: torch.Tensor) -> bool:
    """Whether a parameter is what quantisers take: a matrix that is neither embedding nor head."""
    outside = (bench.reference.head.layer, bench.reference.model.get_input_embeddings())  # type: ignore[operator]
    return value.dim() >= 2 and not any(module is one for one in outside)


def _quantised(bench: Bench, rounded: Any) -> Floats:
    def change(module: Any, name: str, value: torch.Tensor) -> torch.Tensor | None:
        return rounded(value) if _is_layers(bench, module, value) else None

    with changes.weights(bench.reference.model, change):
        return bench.scored()


FP8 = (
    Choice("e4m3, a scale for each tensor", (torch.float8_e4m3fn, True)),
    Choice("e4m3, unscaled", (torch.float8_e4m3fn, False)),
    Choice("e5m2, unscaled", (torch.float8_e5m2, False)),
)


@hypothesis(
    "weights_fp8",
    "the layers' weights are in fp8 ({value})",
    "the engine is quantised to fp8",
    ("F42", "F9"),
    lambda _: FP8,
)
def _(bench: Bench, value: Choice) -> Floats:
    kind, is_scaled = value.data

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        scale = weight.abs().max() / torch.finfo(kind).max if is_scaled else torch.ones(())
        return (weight / scale).to(kind).float() * scale

    return _quantised(bench, rounded)


def _to_bits(weight: torch.Tensor, bits: int, group: int | None) -> torch.Tensor:
    """Symmetric rounding, a scale for each row or each group of inputs."""
    size = weight.shape[-1]
    parts = weight
    if group and size % group == 0:
        parts = weight.reshape(*weight.shape[:-1], -1, group)
    most = parts.abs().amax(-1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    return ((parts / most).round() * most).reshape(weight.shape)


def _bits(name: str, words: str, choices: Sequence[Choice]) -> None:
    @hypothesis(
        name,
        f"the layers' weights are in {words} ({{value}})",
        "the engine is quantised",
        ("F42",),
        lambda _: choices,
    )
    def _(bench: Bench, value: Choice) -> Floats:
        return _quantised(bench, lambda weight: _to_bits(weight, *value.data))


ROWS, GROUPS = "a scale for each row", "a scale for each 32 inputs"
_bits("weights_int8", "8 bits", (Choice(ROWS, (8, None)), Choice(GROUPS, (8, 32))))
_bits("weights_int4", "4 bits", (Choice(ROWS, (4, None)), Choice(GROUPS, (4, 32))))
_bits(
    "weights_few_bits",
    "few bits",
    tuple(Choice(f"{bits} bits, {ROWS}", (bits, None)) for bits in (6, 5, 3, 2)),
)


@hypothesis(
    "int8_activations",
    "weights and inputs of the layers' matrices are in 8 bits",
    "the engine is quantised, activations too",
    ("F42",),
)
def _(bench: Bench, _value: None) -> Floats:
    model = bench.reference.model
    linear = (m for m in model.modules() if isinstance(m, torch.nn.Linear))
    inside = [m for m in linear if m is not bench.reference.head.layer]
    with changes.inputs({module: lambda x: _to_bits(x, 8, None) for module in inside}):
        return _quantised(bench, lambda weight: _to_bits(weight, 8, None))
