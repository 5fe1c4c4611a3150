"""SkyRL's own dumped batches, and what its off-policy correction says of them.

    python tests/frameworks/of_skyrl.py OUT/skyrl

The trainer's methods run as they are: lists to tensors, log-probs, advantages, dump. Only the
workers are missing; in their place the log-probs of rollouts.py are handed over.
"""

import sys
import typing
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import expectations
import numpy as np
import settings
import stubs
import torch
import typing_extensions
from omegaconf import OmegaConf
from padding import right_padded
from rollouts import GAPS, Rollout, rollouts

# Ray for the workers, aiohttp and pybase64 for the inference servers, torchdata for the prompts,
# the gym for environments, cloudpathlib for checkpoints.
stubs.stand_in_for("ray", "aiohttp", "pybase64", "torchdata", "skyrl_gym", "cloudpathlib")
# pydantic refuses typing's on Python 3.11; SkyRL itself asks for 3.12.
typing.TypedDict = typing_extensions.TypedDict

import ray  # noqa: E402

ray.is_initialized = lambda: False  # so that losses are registered in this process

from skyrl.backends.skyrl_train.utils.off_policy_correction_utils import (  # noqa: E402
    compute_off_policy_correction,
)
from skyrl.backends.skyrl_train.utils.ppo_utils import PolicyLossRegistry  # noqa: E402
from skyrl.backends.skyrl_train.workers.worker_utils import (  # noqa: E402
    compute_minibatch_rollout_logprob_diff_metrics,
)
from skyrl.train.config import SkyRLTrainConfig  # noqa: E402
from skyrl.train.config.config import DPPOConfig, OffPolicyCorrectionConfig  # noqa: E402
from skyrl.train.trainer import RayPPOTrainer  # noqa: E402
from skyrl.train.utils.trainer_utils import (  # noqa: E402
    finalize_minibatch_rollout_logprob_diff_std,
)

STEP = 3
PADDING = 0
OF_THE_PROMPT = -1.5  # the forward's log-probs are wider than a short response: its prompt's


def _tis(level: str, high: float) -> dict[str, Any]:
    return {"tis_ratio_type": level, f"{level}_tis_ratio_clip_high": high}


def _sequences(metric: str, low: float, high: float) -> dict[str, Any]:
    short = {"geometric": "geo", "product": "product"}[metric]
    bounds = {f"{short}_mask_low": low, f"{short}_mask_high": high}
    return {"sequence_mask_metric": metric, **bounds}


def _tokens(kind: str, low: float, high: float) -> dict[str, Any]:
    return {f"{kind}_is_threshold_low": low, f"{kind}_is_threshold_high": high}


# The options at their defaults or as SkyRL suggests them; what each logs has a name of its own.
DEFAULTS: list[tuple[str | None, dict[str, Any]]] = [
    ("tis_token_2", _tis("token", 2.0)),
    ("tis_seq_5", _tis("sequence", 5.0)),
    ("rs_geo_0.99_1.01", _sequences("geometric", 0.99, 1.01)),
    ("rs_seq_product_0.5_2", _sequences("product", 0.5, 2.0)),
    ("outlier_1e-4_100", _tokens("outlier_token", 1e-4, 100.0)),
]
FURTHER: list[tuple[str | None, dict[str, Any]]] = [
    ("tis_token_5", _tis("token", 5.0)),
    ("tis_seq_2", _tis("sequence", 2.0)),
    ("rs_geo_0.1_10", _sequences("geometric", 0.1, 10.0)),
    ("geo_rs_tis_token_0.99_1.01_2", {**_tis("token", 2.0), **_sequences("geometric", 0.99, 1.01)}),
    ("geo_rs_tis_seq_0.1_10_5", {**_tis("sequence", 5.0), **_sequences("geometric", 0.1, 10.0)}),
    ("rs_token_k1_0.5_2", _tokens("token_mask", 0.5, 2.0)),
    ("icepop_0.5_5", {**_tokens("token_mask", 0.5, 5.0), **_tis("token", 5.0)}),
    # The mean is then of the tokens that are left.
    (None, {**_tokens("token_mask", 0.5, 5.0), **_sequences("geometric", 0.9, 1.1)}),
    (None, {**_tokens("outlier_token", 1e-4, 100.0), **_tis("token", 2.0)}),
]
DPPO = [("dppo_tv_0.2", "binary_tv", 0.2), ("dppo_kl_signed_0.05", "binary_kl", 0.05)]
PREFIX = "trainer.algorithm.off_policy_correction."


def printed() -> list[tuple[str, dict[str, Any]]]:
    """The lines of corrections.toml that are options of the correction, as overrides are read."""
    found = []
    for name, line in settings.lines("skyrl"):
        if PREFIX in line:
            words = (word.removeprefix(PREFIX) for word in line.split())
            found.append((name, dict(OmegaConf.from_dotlist(list(words)))))
    return found


def trainer(folder: Path, given: list[Rollout]) -> RayPPOTrainer:
    """SkyRL's trainer before its workers are made, with the forward's answer in their place."""
    made = object.__new__(RayPPOTrainer)
    made.cfg = SkyRLTrainConfig()
    made.cfg.trainer.export_path = str(folder)
    made.cfg.trainer.train_batch_size = made.cfg.trainer.policy_mini_batch_size = len(given) // 2
    made.cfg.generator.n_samples_per_prompt = 2
    made.cfg.trainer.critic.model.path = None
    made.tokenizer = SimpleNamespace(pad_token_id=PADDING)
    made.ref_model, made.all_metrics, made.global_step = None, {}, STEP
    width = max(len(one.response) for one in given)
    rows = [[OF_THE_PROMPT] * (width - len(r.logp_train)) + r.logp_train for r in given]
    answer = SimpleNamespace(loss_fn_outputs=[{"logprobs": row} for row in rows])
    made.dispatch = SimpleNamespace(
        get_lcm_dp_size=lambda: 1,
        empty_cache=lambda *_: None,
        stage_data=lambda *_: ["the one mini batch"],
        forward_from_staged=lambda *_: answer,
    )
    return made


def generated(given: list[Rollout], replayed: bool) -> dict[str, Any]:
    """What SkyRL's generator hands over; with router replay and sampling support, if wanted."""
    found = {
        "prompt_token_ids": [one.prompt for one in given],
        "response_ids": [one.response for one in given],
        "rewards": [[0.0] * (len(one.response) - 1) + [one.reward] for one in given],
        "loss_masks": [one.mask for one in given],
        "rollout_logprobs": [one.logp_rollout for one in given],
    }
    if replayed:
        dice = np.random.default_rng(0)
        rows = [len(one.prompt) + len(one.response) - 1 for one in given]
        found["rollout_expert_indices"] = [
            dice.integers(0, 8, size=(length, 2, 2), dtype=np.uint8) for length in rows
        ]
        found["rollout_sample_support"] = [support(dice, one) for one in given]
    return found


def support(dice: np.random.Generator, one: Rollout) -> Any:
    """Per response token the ids that top-k left, the sampled one first, then padding of -1."""
    rows = dice.integers(10, 250, size=(len(one.response), 4), dtype=np.int32)
    rows[:, 0] = one.response
    rows[1::2, 3] = -1
    return rows


def save(gap: str, folder: Path, replayed: bool = False) -> tuple[str, RayPPOTrainer, Any]:
    """Dump a batch as the trainer does; the file, the trainer and its batch."""
    given = rollouts(gap)
    run = "replayed" if replayed else gap
    made = trainer(folder / run, given)
    batch = made.convert_to_training_input(generated(given, replayed), [one.uid for one in given])
    batch = made.fwd_logprobs_values_reward(batch)
    batch = made.compute_advantages_and_returns(batch)
    batch.pop("rewards")  # as the training loop does
    batch.metadata.pop("uids")
    name = f"global_step_{STEP}_training_input"
    made.dump_data(batch, file_name=name)
    return f"{run}/dumped_data/{name}.pkl", made, batch


def said_of(gap: str, made: RayPPOTrainer, batch: Any) -> dict[str, Any]:
    """What SkyRL logs, and every correction's weights."""
    always = {name: value for name, value in made.all_metrics.items() if "abs_diff" in name}
    logged = [corrected(batch, options)[1] for _, options in DEFAULTS]
    by_default = {name: value for metrics in logged for name, value in metrics.items()}
    known = [*DEFAULTS, *FURTHER]
    wanted = [*known, *(one for one in printed() if one not in known)]
    return {
        "metrics": expectations.numbers(always | minibatch(batch) | by_default),
        "corrections": [
            *(correction(gap, batch, *one, by_default) for one in wanted),
            *(by_dppo(gap, batch, *one) for one in DPPO),
        ],
    }


def in_float64(batch: Any, name: str) -> torch.Tensor:
    """A field as float64: no difference below is one of rounding."""
    return batch[name].double()


def minibatch(batch: Any) -> dict[str, float]:
    """What the workers log of the update, for one mini batch."""
    fields = [in_float64(batch, n) for n in ("action_log_probs", "rollout_logprobs", "loss_mask")]
    logged = compute_minibatch_rollout_logprob_diff_metrics(*fields)
    finalize_minibatch_rollout_logprob_diff_std(logged)
    return {f"policy/{name}": value for name, value in logged.items()}


def corrected(batch: Any, options: dict[str, Any]) -> tuple[torch.Tensor, dict[str, float]]:
    """Each token's coefficient [B, R], right aligned as SkyRL has it, and what is logged."""
    ratio, logged, mask = compute_off_policy_correction(
        old_log_probs=in_float64(batch, "action_log_probs"),
        rollout_logprobs=in_float64(batch, "rollout_logprobs"),
        loss_mask=in_float64(batch, "loss_mask"),
        off_policy_correction=OffPolicyCorrectionConfig(**options),
    )
    named = {f"policy/loss_metrics/{name}": value for name, value in logged.items()}
    return mask if ratio is None else mask * ratio, named


def correction(
    gap: str, batch: Any, setting: str | None, options: dict[str, Any], known: dict[str, float]
) -> dict[str, Any]:
    """One option, with what it logs that the defaults do not."""
    coefficient, logged = corrected(batch, options)
    own = {name: value for name, value in logged.items() if known.get(name) != value}
    under = "token_mask" if options == _tokens("token_mask", 0.5, 2.0) else None
    return entry(gap, setting, options, batch["loss_mask"], coefficient, own, under)


def by_dppo(gap: str, batch: Any, setting: str, kind: str, delta: float) -> dict[str, Any]:
    """What DPPO multiplies a token's gradient by, where there is one to read it from.

    There is none where A = 0, nor where |ln r| is above 20: the clip is differentiated, too.
    """
    config = SkyRLTrainConfig().trainer.algorithm
    config.dppo = DPPOConfig(dppo_type=kind, delta_low=delta, delta_high=delta)
    log_probs = in_float64(batch, "action_log_probs").requires_grad_()
    advantages, mask = in_float64(batch, "advantages"), in_float64(batch, "loss_mask")
    loss, _ = PolicyLossRegistry.get("dppo")(
        log_probs,
        in_float64(batch, "action_log_probs"),
        advantages,
        config=config,
        loss_mask=mask,
        rollout_logprobs=in_float64(batch, "rollout_logprobs"),
    )
    loss.backward()
    diff = log_probs.detach() - in_float64(batch, "rollout_logprobs")
    readable = mask * (advantages != 0) * (diff.abs() <= 20)
    told = {"policy_loss_type": "dppo", "dppo_type": kind, "delta": delta}
    return entry(gap, setting, told, readable, -log_probs.grad / advantages)


def entry(
    gap: str,
    setting: str | None,
    options: dict[str, Any],
    mask: torch.Tensor,
    coefficient: torch.Tensor,
    logged: dict[str, float] | None = None,
    under: str | None = None,
) -> dict[str, Any]:
    """The entry of right aligned tensors, by position in the response."""
    lengths = [len(one.response) for one in rollouts(gap)]

    def by_position(tensor: torch.Tensor) -> torch.Tensor:
        rows = [row[-n:].tolist() for row, n in zip(tensor, lengths, strict=True)]
        return right_padded(rows, torch.float64)

    return expectations.correction(
        setting, options, by_position(mask), by_position(coefficient), logged, under
    )


def main(folder: Path) -> None:
    """Write `folder`."""
    captures: dict[str, Any] = {}
    for gap in GAPS:
        name, made, batch = save(gap, folder)
        captures[name] = said_of(gap, made, batch)
    replayed, _, _ = save(GAPS[0], folder, replayed=True)
    captures[replayed] = {"same_as": next(iter(captures))}
    expectations.write(folder, "skyrl", version("skyrl"), captures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
