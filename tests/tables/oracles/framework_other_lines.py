"""The lines of NeMo RL, SkyRL, OpenRLHF, AReaL and prime-rl, parsed as each would, in NumPy.

Read in NeMo RL (7ea279a), SkyRL 0.4.0, OpenRLHF 0.11.2, AReaL (4aef98d, and a newer public copy for
`binary_kl`) and prime-rl (559b447 and prime-rl#3418). An option that is not restated is an error.
"""

import argparse
import shlex
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import yaml

from tests.tables.oracles.framework_corrections_by_options import openrlhf, skyrl
from tests.tables.oracles.framework_rows import Array, Rows, Step, exp32, known, one_of

NEMO_DEFAULTS: dict[str, Any] = {
    "loss_fn.use_importance_sampling_correction": False,
    "loss_fn.truncated_importance_sampling_type": None,
    "loss_fn.truncated_importance_sampling_ratio": None,
    "loss_fn.truncated_importance_sampling_ratio_min": None,
    "grpo.seq_logprob_error_threshold": None,
}
AREAL_DEFAULTS: dict[str, Any] = {
    **{"level": "token", "action": "mask", "metric": "ratio", "agg": "mean"},
    **{"upper": 5.0, "lower": None},
}


def overrides(line: str) -> dict[str, Any]:
    """`key=value ...` with values as YAML has them: 1e-4 without a dot is a text there."""
    pairs = [word.partition("=") for word in shlex.split(line)]
    values = {key: yaml.safe_load(value) for key, _, value in pairs}
    return {key: _number(value) for key, value in values.items()}


def _number(value: Any) -> Any:
    """OmegaConf's own grammar reads exponents as floats."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def nemo_rl(line: str, rows: Rows) -> list[Array]:
    """ClippedPGLossFn's importance weights, and the mask of sequences by their error."""
    cfg, step = known(overrides(line), NEMO_DEFAULTS), Step(rows)
    threshold = cfg["grpo.seq_logprob_error_threshold"]
    errors = step.row(np.mean, np.exp(np.abs(step.d)))
    keep = step.one if threshold is None else (errors <= threshold) * step.one
    if not cfg["loss_fn.use_importance_sampling_correction"]:
        return step.split(keep)
    names = ("type", "ratio", "ratio_min")
    kind, high, low = (cfg[f"loss_fn.truncated_importance_sampling_{name}"] for name in names)
    raw = exp32(step.d)
    ratio = np.where(np.isinf(raw), 0.0, raw)
    if one_of(kind, None, "tis", "icepop", "seq-mask-tis") == "tis":
        ratio = np.clip(ratio, 0.0 if low is None else low, high)
    elif kind == "icepop":
        ratio = np.where((ratio >= low) & (ratio <= high), ratio, 0.0)
    elif kind == "seq-mask-tis":
        gate = np.exp(step.row(np.mean, step.d))
        ratio = ratio * ((gate >= low) & (gate <= high))
    return step.split(keep * ratio)


def skyrl_line(line: str, rows: Rows) -> list[Array]:
    """Overrides below trainer.algorithm."""
    folders = ("trainer.algorithm.off_policy_correction.", "trainer.algorithm.dppo.")
    options = {}
    for key, value in overrides(line).items():
        folder = next((f for f in folders if key.startswith(f)), "trainer.algorithm.")
        options[key.removeprefix(folder)] = value
    return skyrl(options, rows)


def openrlhf_line(line: str, rows: Rows) -> list[Array]:
    """Flags as its parser reads them: a single threshold is the upper one."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    prefix = "algo.advantage.is_correction_"
    for name in ("level", "mode", "gating"):
        parser.add_argument(f"--{prefix}{name}", dest=name, default=argparse.SUPPRESS)
    given = {"dest": "threshold", "default": argparse.SUPPRESS}
    parser.add_argument(f"--{prefix}threshold", nargs="+", type=float, **given)  # type: ignore[arg-type]
    return openrlhf(vars(parser.parse_args(shlex.split(line))), rows)


def areal(line: str, rows: Rows) -> list[Array]:
    """apply_rejection_sampling; only with the decoupled loss."""
    actor = yaml.safe_load(line)["actor"]
    step, given = Step(rows), actor["rejection_sampling"]
    if given is None:
        return step.split(step.one)
    if not actor["use_decoupled_loss"]:
        raise ValueError("rejection_sampling acts with use_decoupled_loss only")
    cfg = known(given, AREAL_DEFAULTS)
    one_of(cfg["agg"], "mean")
    by_row = one_of(cfg["level"], "token", "sequence") == "sequence"
    weight, statistic = exp32(step.d), _areal_statistic(cfg, step, by_row)
    if by_row and cfg["metric"] == "ratio":
        weight = statistic
    low = 0.0 if cfg["lower"] is None else cfg["lower"]
    inside = (statistic <= cfg["upper"]) & (statistic >= low)
    if one_of(cfg["action"], "mask", "clamp") == "mask":
        return step.split(np.where(inside, weight, 0.0))
    bounded = np.clip(weight, low, cfg["upper"])
    return step.split(np.where(inside, weight, bounded) if by_row else bounded)


def _areal_statistic(cfg: Mapping[str, Any], step: Step, by_row: bool) -> Array:
    """Of the ratio a row has the geometric mean, of a divergence the mean."""
    if one_of(cfg["metric"], "ratio", "binary_kl") == "ratio":
        return exp32(step.row(np.mean, step.d) if by_row else step.d)
    train, rollout = (np.clip(np.exp(x), 1e-8, 1 - 1e-8) for x in (step.p, step.q))
    larger = np.maximum(_bernoulli(train, rollout), _bernoulli(rollout, train))
    return step.row(np.mean, larger) if by_row else larger


def _bernoulli(p: Array, q: Array) -> Array:
    kl: Array = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return kl


def prime_rl(line: str, rows: Rows) -> list[Array]:
    """ipo_loss_fn, whose weights nothing clips."""
    cfg = tomllib.loads(line)["trainer"]["loss"]
    one_of(cfg.pop("type"), "ipo")
    eps, step = known(cfg, {"eps": 0.1})["eps"], Step(rows)
    moved = np.abs(np.exp(step.p) - np.exp(step.q))
    return step.split(np.where(moved > eps, 0.0, exp32(step.d)))


READERS: dict[str, Callable[[str, Rows], list[Array]]] = {
    "nemo_rl": nemo_rl,
    "skyrl": skyrl_line,
    "openrlhf": openrlhf_line,
    "areal": areal,
    "prime_rl": prime_rl,
}
