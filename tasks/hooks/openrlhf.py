"""timtrack's hook for OpenRLHF 0.11, PPO, GRPO, REINFORCE++ and their kind, synchronous or not.

Its trainer runs in a Ray worker, so that is where the hook is to be loaded:

    ray job submit --runtime-env-json '{
        "worker_process_setup_hook": "timtrack_hook.switch_on",
        "env_vars": {"PYTHONPATH": "/folder/of/this/file",
                     "TIMTRACK_CAPTURES": "/checkpoints/captures"}}' -- python3 -m openrlhf...

The rollout's log-probs are there with --algo.advantage.is_correction_level token or seq (default:
off), which also corrects by them. Steps count as OpenRLHF logs them, from 1 on; the run is
--logger.wandb.run_name.
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

EXPERIENCE = (
    "sequences",
    "attention_mask",
    "action_mask",
    "rollout_log_probs",
    "action_log_probs",
    "base_action_log_probs",
    "advantages",
    "rewards",
)
ENDINGS = {False: "stop", True: "length"}


def knowing_the_step(train_step: Callable[..., Any]) -> Callable[..., Any]:
    """What makes experiences is not told which step they are for."""

    def train_step_of(self: Any, rollout_samples: Any, global_step: int, *args: Any) -> Any:
        with guarded():
            self.experience_maker.step_of_timtrack = int(global_step) + 1
        return train_step(self, rollout_samples, global_step, *args)

    return train_step_of


def saving_experiences(make: Callable[..., Any]) -> Callable[..., Any]:
    """Scored by the actor, with advantages, not yet shared out to be trained on."""

    def make_experience_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        experiences = make(self, *args, **kwargs)
        with guarded():
            run = if_there(lambda: self.args.logger.wandb.run_name) or "openrlhf"
            save_as_set(str(run), self.step_of_timtrack, _of_experiences(self, experiences))
        return experiences

    return make_experience_batch


def _of_experiences(maker: Any, experiences: list[Any]) -> dict[str, Any]:
    """All micro-batches as one Experience, and where each row was scored."""
    whole = type(experiences[0]).concat_experiences(experiences, maker.tokenizer.pad_token_id)
    content = {name: getattr(whole, name, None) for name in EXPERIENCE}
    require(content, ("rollout_log_probs",), "set --algo.advantage.is_correction_level token")
    micro = [n for n, one in enumerate(experiences) for _ in range(len(one.sequences))]
    content["micro_batch"] = micro
    content["dp_rank"] = if_there(lambda: _scored_by(maker, micro, len(experiences)))
    content["row_index"] = list(whole.index)
    samples = int(maker.args.rollout.n_samples_per_prompt)
    content["uid"] = [f"prompt-{row // samples}" for row in whole.index]
    content["finish_reason"] = if_there(lambda: [ENDINGS[bool(cut)] for cut in whole.truncated])
    content.update(sampling_of(maker.args.rollout))
    return content


def _scored_by(maker: Any, micro: list[int], count: int) -> list[int]:
    """Each row's rank: micro-batches go to the actor's ranks in equal runs, the last is shorter."""
    group = maker.actor_model_group
    ranks = len(group._actor_handlers) // group.duplicate_actors
    return [one // -(-count // ranks) for one in micro]


def into_openrlhf(module: ModuleType) -> None:
    """Put the hook into OpenRLHF's trainers."""
    put_around(module.BasePPOTrainer, "train_step", knowing_the_step)
    put_around(module.RemoteExperienceMaker, "make_experience_batch", saving_experiences)


def switch_on() -> None:
    """For Ray, which wants a function; the import of this file is what counts."""


when_imported("openrlhf.trainer.ppo_trainer", into_openrlhf)
