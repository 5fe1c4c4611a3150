"""timtrack's hook for TRL 1.16, GRPOTrainer and what derives from it.

Switch it on at the top of the training script, before the trainer is made:

    import timtrack_hook                        # this file, beside the script

TIMTRACK_CAPTURES=/checkpoints/captures says where captures go, below the run's name. Both
log-probs are there with use_vllm=True and vllm_importance_sampling_correction=True, the default.
Steps count as TRL logs them, from 1 on; where gradient accumulation spans several generations,
they count generations. Evaluation is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from timtrack.tasks.hook import (
    guarded,
    if_there,
    put_around,
    require,
    sampling_of,
    save_as_set,
    when_imported,
)

BATCH = (
    "prompt_ids",
    "prompt_mask",
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "sampling_per_token_logps",
    "old_per_token_logps",
    "advantages",
)

BOTH = ("sampling_per_token_logps", "old_per_token_logps")


def keeping_rewards(calculate: Callable[..., Any]) -> Callable[..., Any]:
    """The batch itself has advantages only."""

    def _calculate_rewards(self: Any, *args: Any, **kwargs: Any) -> Any:
        rewards = calculate(self, *args, **kwargs)
        with guarded():
            weights = self.reward_weights.to(rewards.device)
            self.rewards_of_all_ranks = (rewards * weights).nansum(dim=1)
        return rewards

    return _calculate_rewards


def saving_generations(generate: Callable[..., Any]) -> Callable[..., Any]:
    """A generation batch holds both log-probs as soon as it is scored."""

    def _generate_and_score_completions(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = generate(self, *args, **kwargs)
        with guarded():
            if self.model.training:
                _save(self, batch)
        return batch

    return _generate_and_score_completions


def _save(trainer: Any, batch: Any) -> None:
    """One generation batch of this process, as `step_batch.pt` or this rank's part of it."""
    ranks = int(trainer.accelerator.num_processes)
    own = int(trainer.accelerator.process_index) if ranks > 1 else None
    run = if_there(lambda: trainer.args.run_name) or Path(trainer.args.output_dir).name or "trl"
    step, within = _step(trainer)
    content = {name: batch.get(name) for name in BATCH}
    require(content, BOTH, "they need use_vllm and vllm_importance_sampling_correction")
    content["ref_log_probs"] = batch.get("ref_per_token_logps")
    content["rewards"] = if_there(lambda: _own_rewards(trainer, len(batch["completion_ids"])))
    content["finish_reason"] = if_there(lambda: _endings(trainer, batch))
    content["policy_version"] = if_there(lambda: int(trainer._last_loaded_step) * within)
    content.update(sampling_of(trainer))
    save_as_set(str(run), step, content, own, None if own is None else ranks)


def _step(trainer: Any) -> tuple[int, int]:
    """The step's number, and how many generations one optimizer step has."""
    args, done = trainer.args, int(trainer.state.global_step)
    every = int(args.steps_per_generation) * int(trainer.num_iterations)
    within = -(-int(args.gradient_accumulation_steps) // every)
    last, count = trainer.__dict__.get("generations_of_timtrack", (None, 0))
    count = count + 1 if last == done else 0
    trainer.generations_of_timtrack = (done, count)
    return done * within + 1 + count, within


def _own_rewards(trainer: Any, rows: int) -> torch.Tensor | None:
    """This process's part of the rewards, which TRL gathers from all."""
    start = int(trainer.accelerator.process_index) * rows
    rewards = trainer.__dict__.pop("rewards_of_all_ranks")[start : start + rows]
    return rewards if len(rewards) == rows else None


def _endings(trainer: Any, batch: Any) -> list[str]:
    """As TRL tells truncated completions: their last token is neither an end nor padding."""
    ends = {int(end) for end in trainer.eos_token_ids} | {int(trainer._tokenizer.pad_token_id)}
    last = batch["completion_mask"].sum(dim=1).clamp(min=1) - 1
    ids = batch["completion_ids"].gather(1, last.unsqueeze(1)).squeeze(1).tolist()
    return ["stop" if token in ends else "length" for token in ids]


def into_trl(module: ModuleType) -> None:
    """Put the hook into TRL's trainer."""
    put_around(module.GRPOTrainer, "_calculate_rewards", keeping_rewards)
    put_around(module.GRPOTrainer, "_generate_and_score_completions", saving_generations)


when_imported("trl.trainer.grpo_trainer", into_trl)
