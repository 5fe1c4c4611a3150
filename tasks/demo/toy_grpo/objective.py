"""What an update minimises."""

import torch
from torch import Tensor

from timtrack.tasks.demo.toy_grpo.scoring import Batch

CLIP = 0.2
SAFE = 20.0  # nats, to which log ratios are clamped
ALP_LOW, ALP_HIGH, ALP_DUAL = 0.5, 4.0, 3.0  # bounds of the ratio; of its part where A < 0


def loss_of(new: Tensor, old: Tensor, batch: Batch, weights: Tensor | None = None) -> Tensor:
    """PPO's clipped objective, mean over the trained tokens; new, old and weights [N, R].

    A correction's `weights` multiply each token's part, 0 where it is dropped. The mean is over all
    trained tokens: a dropped one counts as 0, as in the table `corrections`.
    """
    ratio = (new - old).exp()
    advantage = batch.advantages[:, None]
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    if weights is not None:
        gain = gain * weights
    return -(gain * batch.rollout.mask).sum() / batch.rollout.mask.sum()


def alp_loss(perturbed: Tensor, batch: Batch) -> Tensor:
    """The objective of ALP: PPO's, of the perturbed trainer [N, R] against the rollout engine.

    Clipped to [0.5, 4], and where A < 0 never worse than 3 A (dual clip).
    """
    ratio = (perturbed - batch.rollout.log_probs).clamp(-SAFE, SAFE).exp()
    advantage = batch.advantages[:, None]
    gain = torch.minimum(ratio * advantage, ratio.clamp(ALP_LOW, ALP_HIGH) * advantage)
    gain = torch.where(advantage < 0, torch.maximum(gain, ALP_DUAL * advantage), gain)
    return -(gain * batch.rollout.mask).sum() / batch.rollout.mask.sum()
