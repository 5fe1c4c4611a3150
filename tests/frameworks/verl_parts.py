"""What both of verl's trainers are run with: its configuration, and a model's answer."""

from pathlib import Path
from typing import Any

import stubs
import torch
from rollouts import GAPS, rollouts

RANKS = 2
OF_THE_PROMPT, OF_PADDING = -1.5, -1.0
CONFIGURATION = "trainer/config/_generated_ppo_trainer.yaml"
# Two runs: with rejection, and in bypass mode, where nothing is recomputed.
RUNS: dict[str, dict[str, Any]] = {
    "rejection": {"rollout_rs": "token_k1", "rollout_rs_threshold": "0.9_1.1"},
    "bypass": {"bypass_mode": True},
}


def stand_ins() -> None:
    """What verl's packages import for workers, servers and data sets."""
    stubs.stand_in_for("ray", "PIL", "torchdata", "transfer_queue", "hydra", "aiohttp")
    stubs.stand_in_for("cachetools", "peft", "uvicorn", "fastapi")


def configuration(run: str, correction: dict[str, Any]) -> Any:
    """verl's own defaults, for two samples a prompt and a correction."""
    import verl
    from omegaconf import OmegaConf, open_dict

    config = OmegaConf.load(Path(verl.__file__).parent / CONFIGURATION)
    with open_dict(config):
        config.trainer.update(experiment_name=run, logger=[], val_before_train=False)
        config.trainer.update(test_freq=-1, save_freq=-1, total_epochs=1, balance_batch=True)
        config.algorithm.update(adv_estimator="grpo")
        config.algorithm.rollout_correction.update(correction)
        config.actor_rollout_ref.rollout.n = 2
    return config


def whole_sequence(prompt: int, ids: list[int]) -> torch.Tensor:
    """Log-probs as a model gives them of a prompt's length and a response: of each next token.

    Those of the rollout that the response is, or of verl's own padding.
    """
    every = [one for gap in GAPS for one in rollouts(gap)]
    one = next((one for one in every if ids == one.response), None)
    own = [OF_PADDING] * len(ids) if one is None else one.logp_train
    return torch.tensor([*[OF_THE_PROMPT] * (prompt - 1), *own, 0.0])
