"""timtrack's hook for verl 0.7 to 0.9, the trainer of padded batches (0.9: trainer.use_v1=false).

Switch it on in the environment of verl's processes (Ray's runtime environment on a cluster):

    VERL_USE_EXTERNAL_MODULES=timtrack_hook     this file, in a folder on PYTHONPATH
    TIMTRACK_CAPTURES=/checkpoints/captures     where captures go, below the experiment's name

Before 0.9 also set actor_rollout_ref.rollout.calculate_log_probs=true. With
algorithm.rollout_correction.bypass_mode=true there is nothing to measure: the trainer's log-probs
are the rollout's.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from timtrack.tasks.hook import (
    guarded,
    if_there,
    put_around,
    require,
    sampling_of,
    save_as_set,
    when_imported,
)

FIELDS = (
    "prompts",
    "responses",
    "attention_mask",
    "response_mask",
    "rollout_log_probs",
    "old_log_probs",
    "ref_log_prob",
    "token_level_scores",
    "advantages",
)
BOTH = ("rollout_log_probs", "old_log_probs")
OF_ROWS = ("uid", "min_global_steps", "max_global_steps", "num_cached_tokens")


def keeping_the_mask(recompute: Callable[..., Any]) -> Callable[..., Any]:
    """Rollout correction overwrites the mask with what it did not reject: copied before it does."""

    def _compute_old_log_prob(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        with guarded():
            self.mask_before_rejection = batch.batch["response_mask"].clone()
        return recompute(self, batch, *args, **kwargs)

    return _compute_old_log_prob


def saving_before_the_update(update: Callable[..., Any]) -> Callable[..., Any]:
    """The batch is whole when the actor is about to be updated."""

    def _update_actor(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        with guarded():
            save_as_set(
                str(self.config.trainer.experiment_name), self.global_steps, _of_proto(self, batch)
            )
        return update(self, batch, *args, **kwargs)

    return _update_actor


def _of_proto(trainer: Any, batch: Any) -> dict[str, Any]:
    """What is saved of a DataProto."""
    known = set(batch.batch.keys())
    content = {name: batch.batch[name] for name in FIELDS if name in known}
    require(content, BOTH, "set actor_rollout_ref.rollout.calculate_log_probs=true")
    mask = trainer.__dict__.pop("mask_before_rejection", None)  # bypass mode recomputes nothing
    if mask is not None and mask.shape == content["response_mask"].shape:
        content["response_mask"] = mask
    beside = batch.non_tensor_batch
    content.update({name: beside[name] for name in OF_ROWS if name in beside})
    content.update(sampling_of(trainer.config.actor_rollout_ref.rollout))
    content["dp_rank"] = if_there(lambda: _ranks(trainer, len(content["responses"])))
    return content


def _ranks(trainer: Any, rows: int) -> list[int] | None:
    """Each row's rank: verl deals its batch to the ranks in equal parts, in order."""
    size = int(trainer._get_dp_size(trainer.actor_rollout_wg, "actor"))
    return [row * size // rows for row in range(rows)] if rows % size == 0 else None


def into_verl(module: ModuleType) -> None:
    """Put the hook into verl's trainer."""
    put_around(module.RayPPOTrainer, "_compute_old_log_prob", keeping_the_mask)
    put_around(module.RayPPOTrainer, "_update_actor", saving_before_the_update)


when_imported("verl.trainer.ppo.ray_trainer", into_verl)
