"""Scorings under noise in every layer (Adaptive Layerwise Perturbation, arXiv 2603.19470)."""

from collections.abc import Callable

import torch

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model import changes
from timtrack.tasks.referee.rollouts import Floats


def scores(bench: Bench, sigma: float, draw: int) -> Floats:
    """Log-probs [N] where each layer's input h is h + sigma eps before its norm.

    eps is standard normal, seeded by draw and layer: the same for everybody who asks.
    """
    layers = changes.layers(bench.reference.model)
    added = {layer: _added(sigma, draw, number) for number, layer in enumerate(layers)}
    with changes.inputs(added):
        return bench.scored()


def _added(sigma: float, draw: int, number: int) -> Callable[[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(1_000_003 * draw + number)

    def noisy(x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(x.shape, generator=generator)
        return x + sigma * noise.to(x.device, x.dtype)

    return noisy
