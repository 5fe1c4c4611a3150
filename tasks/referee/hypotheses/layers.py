"""Hypotheses about what happens inside: layers left out, dropout, a codec between stages."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import product
from typing import Any

import numpy as np
import torch

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model import changes
from timtrack.tasks.referee.model.lines import hidden_states
from timtrack.tasks.referee.registry import Choice, hypothesis
from timtrack.tasks.referee.rollouts import Floats

PARTS = {"attn": "the attention of layer", "mlp": "the feed-forward of layer", "": "layer"}


def _parts(bench: Bench) -> list[Choice]:
    layers = changes.layers(bench.reference.model)
    return [
        Choice(f"{PARTS[part]} {number}", (number, part))
        for number, part in product(range(len(layers)), PARTS)
        if not part or changes.part_of(layers[number], part) is not None
    ]


@hypothesis(
    "layer_out",
    "{value} does nothing",
    "weights of a layer are lost, zero or loaded wrongly",
    ("F11", "F21"),
    _parts,
)
def _(bench: Bench, value: Choice) -> Floats:
    number, part = value.data
    layer = changes.layers(bench.reference.model)[number]
    module = changes.part_of(layer, part) if part else layer
    with changes.outputs({module: lambda x, y: x if not part else torch.zeros_like(y)}):
        return bench.scored()


def _neighbours(bench: Bench) -> list[Choice]:
    count = len(changes.layers(bench.reference.model))
    return [Choice(f"{n} and {n + 1}", (n, n + 1)) for n in range(count - 1)]


@hypothesis(
    "layers_exchanged",
    "layers {value} are exchanged",
    "weights are loaded under wrong names",
    ("F21",),
    _neighbours,
)
def _(bench: Bench, value: Choice) -> Floats:
    a, b = (f".layers.{number}." for number in value.data)
    known = bench.reference.model.state_dict()

    def change(_module: Any, name: str, _value: torch.Tensor) -> torch.Tensor | None:
        full = f".{name}"
        swapped = full.replace(a, b) if a in full else full.replace(b, a)
        return known.get(swapped[1:]) if swapped != full else None

    with changes.weights(bench.reference.model, change):
        return bench.scored()


DRAWS = 2


@hypothesis(
    "dropout",
    "a dropout of {value} is on in each layer, as far as size and place of noise can tell",
    "the model is in training mode while it scores",
    ("F33",),
    lambda _: (0.01, 0.05, 0.2),
    is_fitted=True,
    is_random=True,
)
def _(bench: Bench, value: float) -> Floats:
    model = bench.reference.model
    parts = [changes.part_of(la, p) for la in changes.layers(model) for p in ("attn", "mlp")]

    def drop(_x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(y, float(value))

    with torch.random.fork_rng(), changes.outputs({m: drop for m in parts if m is not None}):
        torch.manual_seed(bench.seed)
        return np.stack([bench.scored() for _ in range(DRAWS)])


def _codecs(bench: Bench) -> list[Choice]:
    """Ranks as shares of the width, at the cut of two stages or the cuts of four."""
    count, width = len(changes.layers(bench.reference.model)), bench.reference.config.hidden_size
    cuts = {(count // 2 - 1,), tuple(k * count // 4 - 1 for k in (1, 2, 3))}
    ranks = sorted({max(1, round(share * width)) for share in (0.05, 0.11, 0.25, 0.5)})
    return [
        Choice(f"rank {rank} after layer {', '.join(map(str, cut))}", (rank, cut))
        for cut in sorted(cuts)
        for rank in ranks
        if min(cut) >= 0
    ]


@hypothesis(
    "codec",
    "activations are compressed to {value}",
    "a lossy codec stands between the stages of this engine",
    ("F41",),
    _codecs,
)
def _(bench: Bench, value: Choice) -> Floats:
    rank, cut = value.data
    layers = changes.layers(bench.reference.model)
    bases = {layers[at]: _basis(bench, layers[at], rank) for at in cut}
    with changes.outputs({m: _projected(basis) for m, basis in bases.items()}):
        return bench.scored()


def _projected(basis: torch.Tensor) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    return lambda _x, y: (y @ basis) @ basis.T


def _basis(bench: Bench, layer: Any, rank: int) -> torch.Tensor:
    """The directions [D, rank] that hold most of what the layer gives."""
    seen: list[torch.Tensor] = []

    def keep(_x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.append(y.flatten(0, 1).double().T @ y.flatten(0, 1).double())
        return y

    watching: AbstractContextManager[None] = changes.outputs({layer: keep})
    with watching:
        hidden_states(bench.reference.model, bench.lines)
    vectors = torch.linalg.eigh(torch.stack(seen).sum(0)).eigenvectors
    return vectors[:, -rank:].float()
