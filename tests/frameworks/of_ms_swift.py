"""What ms-swift's GRPO trainer says of rollouts; it writes no batch, so the capture is a plain one.

    python tests/frameworks/of_ms_swift.py OUT/ms_swift

Its trainer wants TRL below 1.0 and a hundred packages; the module is imported with stand-ins for
the rest of ms-swift, and the methods are called that compute weights and metrics.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import expectations
import numpy as np
import stubs
import torch
from padding import right_padded
from rollouts import GAPS, rollouts

stubs.stand_in_for("wandb", "swanlab", "peft")  # it logs there; for LoRA
trainer = stubs.only("swift.rlhf_trainers.grpo_trainer").GRPOTrainer

STEP = 3
PREFIX = "rollout_correction/"


def _mode(mode: str, threshold: float) -> dict[str, Any]:
    named = {"mode": mode, "threshold": threshold}
    return {f"rollout_importance_sampling_{name}": value for name, value in named.items()}


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("tis_token_2", _mode("token_truncate", 2.0)),
    ("mask_token_hi_2", _mode("token_mask", 2.0)),
    ("tis_seq_mean_2", _mode("sequence_truncate", 2.0)),
    ("seq_mask_tis_hi_2", _mode("sequence_mask", 2.0)),
    ("opsm_1e-4", {"off_policy_sequence_mask_delta": 1e-4}),
    ("opsm_0.5", {"off_policy_sequence_mask_delta": 0.5}),
]


def fields(gap: str) -> dict[str, torch.Tensor]:
    """The batch, under ms-swift's names where it has one."""
    given = rollouts(gap)
    return {
        "responses": right_padded([one.response for one in given]),
        "completion_mask": right_padded([one.mask for one in given]),
        "rollout_log_probs": right_padded([one.logp_rollout for one in given], torch.float32),
        "old_log_probs": right_padded([one.logp_train for one in given], torch.float32),
        "advantages": torch.tensor([one.advantage for one in given]),
    }


def save(gap: str, folder: Path) -> str:
    """Write the batch."""
    name = f"{gap}/step_{STEP}/step_batch.npz"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: values.numpy() for name, values in fields(gap).items()}
    np.savez_compressed(folder / name, **arrays)
    return name


def made(**options: Any) -> Any:
    """A trainer that was never started: as much of it as these methods look at."""
    this = object.__new__(trainer)
    vars(this).update(options)
    return this


def correction(gap: str, setting: str, options: dict[str, Any]) -> dict[str, Any]:
    """One option: weights by token, and what is logged beside the diagnostics."""
    batch, this = fields(gap), made(**options)
    train, rollout = batch["old_log_probs"].double(), batch["rollout_log_probs"].double()
    mask = batch["completion_mask"].bool()
    if "off_policy_sequence_mask_delta" in options:
        kept = this._compute_off_policy_sequence_mask(train, rollout, mask, batch["advantages"])
        return expectations.correction(setting, options, mask, kept.double()[:, None])
    weights = this._apply_rollout_importance_sampling(train - rollout, mask)
    logged = this._compute_is_correction_metrics(train - rollout, weights, mask)
    named = {f"{PREFIX}{name}": value for name, value in logged.items()}
    mode = options["rollout_importance_sampling_mode"]
    return expectations.correction(setting, options, mask, weights, named, mode)


def said_of(gap: str) -> dict[str, Any]:
    """The diagnostics, and every mode."""
    batch = fields(gap)
    logged = made()._compute_rollout_offpolicy_metrics(
        batch["old_log_probs"].double(),
        batch["rollout_log_probs"].double(),
        batch["completion_mask"].bool(),
    )
    return {
        "metrics": expectations.numbers({f"{PREFIX}{name}": v for name, v in logged.items()}),
        "corrections": [correction(gap, *one) for one in OPTIONS],
    }


def main(folder: Path) -> None:
    """Write `folder`."""
    captures = {save(gap, folder): said_of(gap) for gap in GAPS}
    expectations.write(folder, "ms_swift", version("ms-swift"), captures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
