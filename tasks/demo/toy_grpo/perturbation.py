"""Adaptive Layerwise Perturbation (arXiv 2603.19470): noise that the trainer learns the size of.

`x + exp(log_coef) eps` enters each layer in place of the hidden state x, eps being standard
normal and log_coef one number a layer, trained with the weights at a rate of its own. The ratio of
the update is that of the perturbed trainer to the rollout engine, which is not perturbed. The noise
of a step is drawn from its number: a recompute sees the same.

The first size and the rate are chosen for this model, whose hidden states are of the order of 1.
"""

from math import log

import torch
from torch import Tensor, nn

from timtrack.tasks.demo.toy_grpo.decoder import HIDDEN, LAYERS, Boundary

FIRST_SIZE, RATE = 0.01, 1e-2


class Perturbation(nn.Module):
    """The sizes of the noise, and the noise of each step."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.log_coef = nn.Parameter(torch.full((LAYERS,), log(FIRST_SIZE)))

    def noise(self, step: int, ids: Tensor) -> Tensor:
        """eps of a step for all its sequences `ids` [N, S]: [N, LAYERS, S, H]."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + step)
        return torch.randn(len(ids), LAYERS, ids.shape[1], HIDDEN, generator=generator)

    def before(self, noise: Tensor) -> Boundary:
        """What is done to the hidden state before each layer's norm; `noise` of its sequences."""

        def perturb(layer: int, hidden: Tensor) -> Tensor:
            return hidden + self.log_coef[layer].exp() * noise[:, layer]

        return perturb
