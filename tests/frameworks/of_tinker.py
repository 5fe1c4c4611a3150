"""What the Tinker cookbook logs of rollouts; it writes no batch, so the capture is a plain one.

    python tests/frameworks/of_tinker.py OUT/tinker

Its function wants the service's client for annotations alone; datums are stood in for.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import expectations
import numpy as np
import stubs
import torch
from padding import right_padded
from rollouts import GAPS, Rollout, rollouts

stubs.stand_in_for("tinker")  # the client of the service
used = ("tinker_cookbook.utils.trace", "tinker_cookbook.utils.misc_utils")
metrics = stubs.only("tinker_cookbook.rl.metrics", *used)

STEP = 3


def save(gap: str, folder: Path) -> str:
    """Write the batch."""
    given = rollouts(gap)
    name = f"{gap}/step_{STEP}/step_batch.npz"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    fields = {
        "responses": right_padded([one.response for one in given]),
        "response_mask": right_padded([one.mask for one in given]),
        "rollout_log_probs": right_padded([one.logp_rollout for one in given], torch.float32),
        "old_log_probs": right_padded([one.logp_train for one in given], torch.float32),
    }
    np.savez_compressed(folder / name, **{key: tensor.numpy() for key, tensor in fields.items()})
    return name


def datum(one: Rollout) -> SimpleNamespace:
    """A rollout as the cookbook hands it to its metrics: no action in the prompt."""
    prompt = [0.0] * len(one.prompt)
    fields = {"logprobs": [*prompt, *one.logp_rollout], "mask": [*prompt, *one.mask]}
    tensors = {key: torch.tensor(row, dtype=torch.float64) for key, row in fields.items()}
    inputs = {key: SimpleNamespace(to_torch=lambda t=t: t) for key, t in tensors.items()}
    return SimpleNamespace(loss_fn_inputs=inputs)


def said_of(gap: str) -> dict[str, Any]:
    """All that it logs of the two log-probs."""
    given = rollouts(gap)
    trained = [
        torch.tensor([*[-1.5] * len(one.prompt), *one.logp_train], dtype=torch.float64)
        for one in given
    ]
    logged = metrics.compute_kl_sample_train([datum(one) for one in given], trained)
    return {"metrics": expectations.numbers(logged), "corrections": []}


def main(folder: Path) -> None:
    """Write `folder`."""
    captures = {save(gap, folder): said_of(gap) for gap in GAPS}
    expectations.write(folder, "tinker", version("tinker-cookbook"), captures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
