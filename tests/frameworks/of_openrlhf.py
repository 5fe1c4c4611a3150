"""OpenRLHF's own Experience as a dict, and what its policy loss says of it.

python tests/frameworks/of_openrlhf.py OUT/openrlhf
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import expectations
import stubs
import torch
from padding import right_padded
from rollouts import GAPS, Rollout, rollouts

# Ray and vLLM for the workers, DeepSpeed and flash-attn for the model, peft for LoRA, pylatexenc
# for a grader: all imported at the top of openrlhf's packages.
stubs.stand_in_for("ray", "vllm", "deepspeed", "flash_attn", "peft", "pylatexenc", "aiohttp")

from openrlhf.models.loss import PolicyLoss  # noqa: E402
from openrlhf.trainer.ppo_utils.experience import Experience  # noqa: E402
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator  # noqa: E402

STEP = 3
PADDING = 0


def _options(level: str, mode: str, gating: str, low: float, high: float) -> dict[str, Any]:
    named = {"level": level, "mode": mode, "gating": gating, "threshold": [low, high]}
    return {f"is_correction_{name}": value for name, value in named.items()}


DEFAULT = ("icepop_0.5_5", _options("token", "mask", "ratio", 0.5, 5.0))
# A gate by divergence keeps e^25 as it is, the tables clip r: no setting of theirs.
FURTHER: list[tuple[str | None, dict[str, Any]]] = [
    ("icepop_0.5_2", _options("token", "mask", "ratio", 0.5, 2.0)),
    ("clip_token_0.5_5", _options("token", "clip", "ratio", 0.5, 5.0)),
    ("clip_token_0.5_2", _options("token", "clip", "ratio", 0.5, 2.0)),
    ("seq_mask_tis_0.999_1.002", _options("seq", "mask", "ratio", 0.999, 1.002)),
    ("seq_mask_tis_0.5_2", _options("seq", "mask", "ratio", 0.5, 2.0)),
    ("seq_mask_tis_0.5_5", _options("seq", "mask", "ratio", 0.5, 5.0)),
    (None, _options("token", "mask", "binary_kl", 0.0, 0.05)),
    (None, _options("token", "mask", "tv", 0.0, 0.1)),
    (None, _options("seq", "mask", "binary_kl", 0.0, 0.05)),
    (None, _options("seq", "mask", "tv", 0.0, 0.1)),
]


def experience(gap: str) -> Experience:
    """The rollouts as the actor is given them, after the forward and the advantages."""
    one_by_one = [sampled(one) for one in rollouts(gap)]
    return Experience.concat_experiences(one_by_one, PADDING)


def sampled(one: Rollout) -> Experience:
    """One sample as OpenRLHF makes it of vLLM's answer, and what the trainer adds to it."""
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
    made = SamplesGenerator._process_response_into_experience(None, answer, max_len=2048)
    # The forward scores every token but the first, of the prompt, too.
    made.action_log_probs = torch.tensor([[*[-1.5] * (start - 1), *one.logp_train]])
    made.advantages = one.advantage * made.action_mask
    made.returns = made.advantages.clone()
    return made


def save(gap: str, folder: Path) -> str:
    """Write an Experience as a dict of its fields."""
    name = f"{gap}/step_{STEP}/step_batch.pt"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(vars(experience(gap))), folder / name)
    return name


def correction(gap: str, setting: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """One option: what it multiplies each token's gradient by, and what is logged."""
    fields = experience(gap)
    old = fields.action_log_probs.double()
    log_probs = old.clone().requires_grad_()
    loss, _, _, vllm_kl, filtered = PolicyLoss(**options)(
        log_probs=log_probs,
        old_log_probs=old,
        advantages=torch.ones_like(old),  # the coefficient does not depend on it
        action_mask=fields.action_mask,
        rollout_log_probs=fields.rollout_log_probs.double(),
        batch_num_tokens=1,
    )
    loss.backward()
    mask, coefficient = (by_position(gap, t) for t in (fields.action_mask, -log_probs.grad))
    logged = {"vllm_kl": vllm_kl, "is_filter_ratio": filtered}
    return expectations.correction(setting, options, mask, coefficient, logged, under(options))


def under(options: dict[str, Any]) -> str:
    """Level, gating and bounds in one word; a divergence has no lower one."""
    level, gating, (low, high) = (
        options[f"is_correction_{name}"] for name in ("level", "gating", "threshold")
    )
    bounds = [low, high] if gating == "ratio" else [high]
    return "_".join((level, gating, *(f"{bound:g}" for bound in bounds)))


def by_position(gap: str, tensor: torch.Tensor) -> torch.Tensor:
    """`[B, T - 1]` as numbers of the responses alone."""
    rows = [
        row[len(one.prompt) - 1 :][: len(one.response)].tolist()
        for row, one in zip(tensor, rollouts(gap), strict=True)
    ]
    return right_padded(rows, torch.float64)


def said_of(gap: str) -> dict[str, Any]:
    """What is logged with any correction, and every one's weights."""
    told = [correction(gap, *one) for one in (DEFAULT, *FURTHER)]
    kl = [one["metrics"].pop("vllm_kl") for one in told]  # the same for all
    return {"metrics": {"vllm_kl": kl[0]}, "corrections": told}


def main(folder: Path) -> None:
    """Write `folder`."""
    captures = {save(gap, folder): said_of(gap) for gap in GAPS}
    expectations.write(folder, "openrlhf", version("openrlhf"), captures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
