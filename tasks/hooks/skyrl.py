"""timtrack's hook for SkyRL 0.4, synchronous or fully asynchronous.

SkyRL's own trainer.dump_data_batch=true needs no hook; this one adds rewards, finish reasons, the
sampler's settings and how many ids it kept, without the padding. Switch it on in an entry point of
your own, inside the Ray task that runs the trainer, with this file on the workers' PYTHONPATH
(SKYRL_PYTHONPATH_EXPORT=1):

    @ray.remote(num_cpus=1)
    def entry(cfg):
        import os, timtrack_hook
        os.environ["TIMTRACK_CAPTURES"] = "/checkpoints/captures"  # below it, trainer.run_name
        BasePPOExp(cfg).run()

The rollout's log-probs are there with generator.sampling_params.logprobs=1, the default.
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

OF_RESPONSES = {
    "rollout_logprobs": "rollout_log_probs",
    "action_log_probs": "old_log_probs",
    "base_action_log_probs": "ref_log_probs",
    "loss_mask": "response_mask",
    "advantages": "advantages",
    "rewards": "token_level_scores",
}

BOTH = ("rollout_logprobs", "action_log_probs")


def keeping_endings(convert: Callable[..., Any]) -> Callable[..., Any]:
    """How rollouts ended is left behind when they become tensors."""

    def convert_to_training_input(self: Any, output: Any, *args: Any, **kwargs: Any) -> Any:
        with guarded():
            self.endings_of_timtrack = output.get("stop_reasons")
        return convert(self, output, *args, **kwargs)

    return convert_to_training_input


def saving_with_advantages(compute: Callable[..., Any]) -> Callable[..., Any]:
    """The batch is whole then, and its rewards are not yet removed."""

    def compute_advantages_and_returns(self: Any, *args: Any, **kwargs: Any) -> Any:
        data = compute(self, *args, **kwargs)
        with guarded():
            run = if_there(lambda: self.cfg.trainer.run_name) or "skyrl"
            save_as_set(str(run), int(self.global_step), _of_rollouts(self, data))
        return data

    return compute_advantages_and_returns


def _of_rollouts(trainer: Any, data: Any) -> dict[str, Any]:
    """Rows of their own lengths, without those that fill up the ranks."""
    require(data, BOTH, "sampling_params.logprobs, or a loss that needs the trainer's forward")
    rows = len(data["sequences"]) - int(data.metadata.get("pad_size") or 0)
    responses, whole = (_spans(data[name][:rows]) for name in ("response_mask", "attention_mask"))
    content: dict[str, Any] = {"prompts": [], "responses": []}
    for ids, (start, end), (first, last) in zip(data["sequences"], whole, responses):
        content["prompts"].append(ids[start : end - (last - first)])
        content["responses"].append(ids[end - (last - first) : end])
    for name, ours in OF_RESPONSES.items():
        if data.get(name) is not None:
            content[ours] = [row[a:b] for row, (a, b) in zip(data[name], responses)]
    content["uid"] = [str(uid) for uid in data.metadata["uids"][:rows]]
    content["kept"] = if_there(lambda: _kept(data["rollout_sample_support"], rows))
    content["finish_reason"] = if_there(lambda: _endings_of(trainer, rows))
    content.update(sampling_of(trainer.cfg.generator.sampling_params))
    return content


def _spans(mask: Any) -> list[tuple[int, int]]:
    """Where each row's ones begin and end; they are side by side, whatever the padding."""
    starts = mask.int().argmax(dim=1).tolist()
    return [(start, start + int(n)) for start, n in zip(starts, mask.sum(dim=1).tolist())]


def _kept(support: Any, rows: int) -> list[Any]:
    """How many ids the sampler left at each token; padding is -1, a token without any has none."""
    return [(row >= 0).sum(dim=1) for row in list(support)[:rows]]


def _endings_of(trainer: Any, rows: int) -> list[str] | None:
    endings = trainer.__dict__.pop("endings_of_timtrack", None)
    return list(endings) if endings is not None and len(endings) == rows else None


def into_skyrl(module: ModuleType) -> None:
    """Put the hook into SkyRL's trainer."""
    put_around(module.RayPPOTrainer, "convert_to_training_input", keeping_endings)
    put_around(module.RayPPOTrainer, "compute_advantages_and_returns", saving_with_advantages)


when_imported("skyrl.train.trainer", into_skyrl)
