"""Hypotheses about other weights: earlier checkpoints, whole or in part, and adapters."""

from collections.abc import Callable
from typing import Any

import torch

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model import changes
from timtrack.tasks.referee.model.checkpoints import Checkpoint
from timtrack.tasks.referee.registry import Choice, hypothesis
from timtrack.tasks.referee.rollouts import Floats

Piece = Callable[[Any, str], bool]  # whether a module, and its name, belong to it


def _previous(bench: Bench) -> list[Choice]:
    return [Choice(checkpoint.name, checkpoint) for checkpoint in bench.previous]


def _older(checkpoint: Checkpoint, piece: Piece) -> changes.Change:
    def change(module: Any, name: str, _value: torch.Tensor) -> torch.Tensor | None:
        return checkpoint.tensor(name) if piece(module, name) else None

    return change


@hypothesis(
    "previous",
    "the weights are those of {value}",
    "the engine has an older version of the weights",
    ("F10", "F18", "F19"),
    _previous,
)
def _(bench: Bench, value: Choice) -> Floats:
    with changes.weights(bench.reference.model, _older(value.data, lambda module, name: True)):
        return bench.scored()


def _with_piece(bench: Bench, checkpoint: Checkpoint, piece: Piece) -> Floats:
    with changes.weights(bench.reference.model, _older(checkpoint, piece)):
        return bench.scored()


@hypothesis(
    "previous_head",
    "the output head is that of {value}",
    "the head is not synced with the other weights",
    ("F15", "F11"),
    _previous,
)
def _(bench: Bench, value: Choice) -> Floats:
    head = bench.reference.head.layer
    return _with_piece(bench, value.data, lambda module, name: module is head)


@hypothesis(
    "previous_embeddings",
    "the input embeddings are those of {value}",
    "the embeddings are not synced with the other weights",
    ("F15", "F11"),
    _previous,
)
def _(bench: Bench, value: Choice) -> Floats:
    embeddings = bench.reference.model.get_input_embeddings()  # type: ignore[operator]
    return _with_piece(bench, value.data, lambda module, name: module is embeddings)


@hypothesis(
    "previous_norms",
    "the norms are those of {value}",
    "norms or biases are not synced with the other weights",
    ("F13", "F11"),
    _previous,
)
def _(bench: Bench, value: Choice) -> Floats:
    return _with_piece(bench, value.data, lambda module, name: "norm" in name)


def _layers(bench: Bench) -> list[Choice]:
    count = len(changes.layers(bench.reference.model))
    return [
        Choice(f"layer {layer} is that of {one.name}", (one, layer))
        for one in bench.previous
        for layer in range(count)
    ]


@hypothesis(
    "previous_layer",
    "{value}",
    "one layer is not synced with the other weights",
    ("F11", "F13"),
    _layers,
)
def _(bench: Bench, value: Choice) -> Floats:
    checkpoint, layer = value.data
    return _with_piece(bench, checkpoint, lambda module, name: f".layers.{layer}." in f".{name}")


@hypothesis(
    "previous_prompt",
    "keys and values of the prompt are those of {value}",
    "the prefix cache is kept over a change of the weights",
    ("F17",),
    _previous,
)
def _(bench: Bench, value: Choice) -> Floats:
    return bench.scored_after(changes.weights, _older(value.data, lambda module, name: True))


def _adapted(bench: Bench, factor: float) -> Floats:
    """With so many times the adapter; the reference has it once."""

    def change(_module: Any, name: str, value: torch.Tensor) -> torch.Tensor | None:
        delta = bench.adapter.delta(name) if bench.adapter else None
        return None if delta is None else value + (factor - 1) * delta.to(value.device)

    with changes.weights(bench.reference.model, change):
        return bench.scored()


@hypothesis(
    "adapter_out",
    "the adapter is left out",
    "the adapter is not merged into the weights",
    ("F14",),
    lambda bench: (None,) if bench.adapter else (),
)
def _(bench: Bench, _value: None) -> Floats:
    return _adapted(bench, 0.0)


@hypothesis(
    "adapter_scale",
    "the adapter counts {value} times",
    "the adapter's scale is lost or applied twice",
    ("F14",),
    lambda bench: (0.25, 0.5, 2.0, 4.0, 1 / bench.adapter.scale) if bench.adapter else (),
    is_fitted=True,
)
def _(bench: Bench, value: float) -> Floats:
    return _adapted(bench, value)
