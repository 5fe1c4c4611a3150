"""From hidden states to logits, in blocks: logits of a whole batch may not fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

BLOCK = 1 << 26  # logits that are held at a time: 256 MB in float32


@dataclass(frozen=True)
class Head:
    """The output layer of a model and what its architecture does to logits."""

    layer: Any  # a torch module
    softcap: float | None = None  # Gemma 2
    scale: float = 1.0  # Cohere, Granite
    temperature: float = 1.0  # of the run: logits are divided by it

    @classmethod
    def of(cls, model: Any) -> "Head":
        """The head of a `transformers` model, by its config."""
        config = model.config
        scale = (getattr(config, "logit_scale", None) or 1.0) / (
            getattr(config, "logits_scaling", None) or 1.0
        )
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(model.get_output_embeddings(), softcap, scale)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float32 logits [..., V] of hidden states [..., D]."""
        made = self.layer(hidden).float() * self.scale
        made = self.softcap * torch.tanh(made / self.softcap) if self.softcap else made
        return made / self.temperature

    def blocks(self, hidden: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """The logits of hidden states [N, D], so many tokens at a time that they fit."""
        vocabulary = self.layer.weight.shape[0]
        size = max(1, BLOCK // vocabulary)
        for start in range(0, len(hidden), size):
            part = slice(start, min(start + size, len(hidden)))
            yield part, self.logits(hidden[part])
