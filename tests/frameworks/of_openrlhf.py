"""OpenRLHF's own Experience as a dict, and what its policy loss says of it.

python tests/frameworks/of_openrlhf.py OUT/openrlhf
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import expectations
import openrlhf_parts
import settings
import torch
from padding import right_padded
from rollouts import GAPS, Rollout, rollouts

openrlhf_parts.stand_ins()

from openrlhf.models.loss import PolicyLoss  # noqa: E402
from openrlhf.trainer.ppo_utils.experience import Experience  # noqa: E402

STEP = 3
PADDING = 0


def _options(level: str, mode: str, gating: str, low: float, high: float) -> dict[str, Any]:
    named = {"level": level, "mode": mode, "gating": gating, "threshold": [low, high]}
    return {f"is_correction_{name}": value for name, value in named.items()}


# What corrections.toml has no line for at these bounds, under timtrack's name for it.
FURTHER: list[tuple[str, dict[str, Any]]] = [
    ("seq_mask_tis_0.5_2", _options("seq", "mask", "ratio", 0.5, 2.0)),
    ("seq_mask_tis_0.5_5", _options("seq", "mask", "ratio", 0.5, 5.0)),
    ("gate_kl_seq_0.05", _options("seq", "mask", "binary_kl", 0.0, 0.05)),
]


def options_of(line: str) -> dict[str, Any]:
    """A line of corrections.toml as the command line's parser and main read it."""
    parser = argparse.ArgumentParser()
    for name in ("level", "mode", "gating"):
        parser.add_argument(f"--algo.advantage.is_correction_{name}", dest=f"is_correction_{name}")
    name = "is_correction_threshold"
    parser.add_argument(f"--algo.advantage.{name}", dest=name, nargs="+", type=float)
    given = vars(parser.parse_args(line.split()))
    if len(given[name] or ()) == 1:
        given[name].insert(0, 0.0)
    return {key: value for key, value in given.items() if value is not None}


def experience(gap: str) -> Experience:
    """The rollouts as the actor is given them, after the forward and the advantages."""
    one_by_one = [prepared(one) for one in rollouts(gap)]
    return Experience.concat_experiences(one_by_one, PADDING)


def prepared(one: Rollout) -> Experience:
    """One sample, and what the trainer adds to it."""
    made = openrlhf_parts.sampled(one)
    # The forward scores every token but the first, of the prompt, too.
    made.action_log_probs = torch.tensor([[*[-1.5] * (len(one.prompt) - 1), *one.logp_train]])
    made.advantages = one.advantage * made.action_mask
    made.returns = made.advantages.clone()
    return made


def save(gap: str, folder: Path) -> str:
    """Write an Experience as a dict of its fields."""
    name = f"{gap}/step_{STEP}/step_batch.pt"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(vars(experience(gap))), folder / name)
    return name


def correction(gap: str, setting: str, options: dict[str, Any]) -> dict[str, Any]:
    """One option: what it multiplies each token's gradient by, and what is logged.

    A divergence keeps a token that both engines rule out, with the ratio as it is: one beyond 20
    nats, where the tables clip, is left out.
    """
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
    readable = fields.action_mask
    if options.get("is_correction_gating") != "ratio":
        readable = readable * ((old - fields.rollout_log_probs.double()).abs() <= 20)
    mask, coefficient = (by_position(gap, t) for t in (readable, -log_probs.grad))
    if vllm_kl is None:  # level off
        return expectations.correction(setting, options, mask, coefficient)
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
    lines = [(name, options_of(line)) for name, line in settings.lines("openrlhf")]
    told = [correction(gap, *one) for one in (*lines, *FURTHER)]
    kl = [one["metrics"].pop("vllm_kl") for one in told if "metrics" in one]  # the same for all
    return {"metrics": {"vllm_kl": kl[0]}, "corrections": told}


def main(folder: Path) -> None:
    """Write `folder`."""
    captures = {save(gap, folder): said_of(gap) for gap in GAPS}
    expectations.write(folder, "openrlhf", version("openrlhf"), captures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
