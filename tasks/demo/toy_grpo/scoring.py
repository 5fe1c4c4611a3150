"""A batch of sequences, and the trainer's log-probs of its tokens."""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from timtrack.tasks.demo.toy_grpo.codec import Codec
from timtrack.tasks.demo.toy_grpo.decoder import Boundary, Decoder
from timtrack.tasks.demo.toy_grpo.rollout import Engine, Rollout

PROMPT, RESPONSE = 48, 56  # padded widths [tokens]


@dataclass(frozen=True)
class Batch:
    """One step's sequences and what is known of them."""

    prompts: Tensor  # [N, P], padded on the left
    prompt_real: Tensor  # [N, P]
    rollout: Rollout
    rewards: Tensor  # [N]
    advantages: Tensor  # [N]
    uid: list[str]  # [N], the prompt group

    @property
    def ids(self) -> Tensor:
        """[N, S]"""
        return torch.cat([self.prompts, self.rollout.responses], dim=1)

    @property
    def real(self) -> Tensor:
        """[N, S], 1 = text"""
        return torch.cat([self.prompt_real, self.rollout.mask], dim=1)

    def rows(self, chosen: Tensor) -> "Batch":
        """Some of its sequences."""
        parts = (getattr(self.rollout, n)[chosen] for n in ("responses", "mask", "log_probs"))
        return replace(
            self,
            prompts=self.prompts[chosen],
            prompt_real=self.prompt_real[chosen],
            rollout=Rollout(*parts),
            rewards=self.rewards[chosen],
            advantages=self.advantages[chosen],
            uid=[self.uid[row] for row in chosen.tolist()],
        )


def log_probs_of(
    model: Decoder,
    ids: Tensor,
    real: Tensor,
    boundary: Boundary | None = None,
    before: Boundary | None = None,
) -> Tensor:
    """Log-prob of each token but the first, given those before it, [N, S-1]."""
    logits = model(ids, real, boundary=boundary, before=before)[:, :-1]
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]


def response_log_probs(
    model: Decoder, batch: Batch, boundary: Boundary | None = None, before: Boundary | None = None
) -> Tensor:
    """Log-probs of the responses, [N, R]."""
    return log_probs_of(model, batch.ids, batch.real, boundary, before)[:, PROMPT - 1 :]


@torch.no_grad()
def recomputed(model: Decoder, batch: Batch, codec: Codec | None, learn: bool) -> dict[str, Tensor]:
    """The batch as the trainer scores it before any update of the step, each [N, R].

    train: as the trainer computes. dense: the same weights without codec.
    """
    dense = response_log_probs(model, batch)
    crossing = codec.boundary(batch.real, learn) if codec else None
    train = response_log_probs(model, batch, crossing) if codec else dense
    return {"train": train, "dense": dense}


@torch.no_grad()
def rescored(model: Decoder, batch: Batch, engine: Engine) -> Tensor:
    """The engine's weights by the trainer's kernels, [N, R].

    So train - rollout is codec (train - dense) + staleness (dense - rescored) + engine
    (rescored - rollout), exactly.
    """
    synced = copy.deepcopy(model)
    synced.load_state_dict(engine.weights)
    return response_log_probs(synced, batch)
