"""What an update minimises."""

import torch
from torch import Tensor

from timtrack.tasks.demo.toy_grpo.scoring import Batch

CLIP = 0.2


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
