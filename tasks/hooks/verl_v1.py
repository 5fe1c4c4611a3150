"""timtrack's hook for verl from 0.9 on, the V1 trainer (its default): batches in TransferQueue.

Switch it on in the environment of verl's processes (Ray's runtime environment on a cluster):

    VERL_USE_EXTERNAL_MODULES=timtrack_hook     this file, in a folder on PYTHONPATH
    TIMTRACK_CAPTURES=/checkpoints/captures     where captures go, below the experiment's name

With algorithm.rollout_correction.bypass_mode=true there is nothing to measure: the trainer's
log-probs are the rollout's. With parameter_sync_step > 1, steps count the trainer's updates.
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

QUEUED = (
    "prompts",
    "responses",
    "response_mask",
    "rollout_log_probs",
    "old_log_probs",
    "ref_log_prob",
    "entropy",
    "rm_scores",
)
BOTH = ("rollout_log_probs", "old_log_probs")
VERSIONS = ("min_global_steps", "max_global_steps")


def saving_before_advantages(queue: Any) -> Callable[..., Any]:
    """Read from the queue after the recomputation, before rejection overwrites the mask."""

    def around(advantages: Callable[..., Any]) -> Callable[..., Any]:
        def _compute_advantage(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
            with guarded():
                updates = int(if_there(lambda: self.parameter_sync_step) or 1)
                step = (self.global_steps - 1) * updates + 1
                if updates > 1:
                    step += self.local_trigger_step
                run = str(self.config.trainer.experiment_name)
                save_as_set(run, step, _queued(self, batch, queue, updates))
            return advantages(self, batch, *args, **kwargs)

        return _compute_advantage

    return around


def _queued(trainer: Any, batch: Any, queue: Any, updates: int) -> dict[str, Any]:
    """What is saved of a batch: rows of their own lengths, as lists of tensors."""
    held = queue.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=[*QUEUED, "uid"]
    )
    known = set(held.keys())
    content: dict[str, Any] = {name: list(held[name].unbind()) for name in QUEUED if name in known}
    require(content, BOTH, "set actor_rollout_ref.rollout.calculate_log_probs=true")
    content["uid"] = [str(uid) for uid in held["uid"]]
    content.update(sampling_of(trainer.config.actor_rollout_ref.rollout))
    content.update(if_there(lambda: _versions(batch.tags, updates)) or {})
    content["dp_rank"] = if_there(lambda: _dealt(trainer, len(content["responses"])))
    return content


def _versions(tags: list[dict[str, Any]], updates: int) -> dict[str, list[int | None]]:
    """The weights that sampled each row, in the unit of the steps."""
    told = {name: [tag.get(name) for tag in tags] for name in VERSIONS}
    return {
        name: [None if one is None else int(one) * updates for one in of_rows]
        for name, of_rows in told.items()
    }


def _dealt(trainer: Any, rows: int) -> list[int] | None:
    """Each row's rank: verl deals its batch to the ranks in equal parts, in order."""
    size = int(max(trainer.actor_rollout_wg._dispatch_info["actor"])) + 1
    return [row * size // rows for row in range(rows)] if rows % size == 0 else None


def into_verl_v1(module: ModuleType) -> None:
    """Put the hook into verl's trainer."""
    put_around(module.PPOTrainer, "_compute_advantage", saving_before_advantages(module.tq))


when_imported("verl.trainer.ppo.v1.trainer_base", into_verl_v1)
