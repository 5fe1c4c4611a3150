"""What both OpenRLHF scripts start from: its stand-ins, and a rollout as vLLM's answer."""

from typing import Any

import stubs
from rollouts import Rollout


def stand_ins() -> None:
    """Ray and vLLM for the workers, DeepSpeed and flash-attn for the model, and others.

    All are imported at the top of openrlhf's packages: peft for LoRA, pylatexenc for a grader,
    torchdata for the loaders.
    """
    stubs.stand_in_for("ray", "vllm", "deepspeed", "flash_attn", "peft", "pylatexenc", "aiohttp")
    stubs.stand_in_for("torchdata")


def sampled(one: Rollout, **more: Any) -> Any:
    """One sample, an Experience, as OpenRLHF makes it of vLLM's answer; `more` of its fields."""
    from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

    start = len(one.prompt)
    trained = [start + pos for pos, kept in enumerate(one.mask) if kept]
    answer = {
        "prompt": one.uid,
        "label": "",
        "observation_tokens": [*one.prompt, *one.response],
        "action_ranges": [(at, at + 1) for at in trained],
        "rollout_log_probs": [*[0.0] * start, *one.logp_rollout],
        "reward": one.reward,
        "scores": one.reward,
    }
    return SamplesGenerator._process_response_into_experience(None, answer | more, max_len=2048)
