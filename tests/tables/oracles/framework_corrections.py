"""What verl, TRL and slime multiply each token's policy gradient by under a line of configuration.

Restated in NumPy from verl 0.9.1, TRL 1.16.0 and slime (624b824, of 2026-08-21); a line is parsed
as the framework would. One rule: no formula of this project is used. `framework_other_lines` has
the lines of five more; frameworks without a line are in `framework_corrections_by_options`, whose
functions can be imported from here, too.
"""

import ast
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from tests.tables.oracles.framework_corrections_by_options import (
    TRL_DEFAULTS,
    ms_swift,
    openrlhf,
    prime_rl_dppo,
    sapo_trl,
    skyrl,
    trl_weights,
    vespo_logs,
    vespo_phi,
    vespo_trl,
)
from tests.tables.oracles.framework_other_lines import READERS as OTHERS
from tests.tables.oracles.framework_rows import (
    Array,
    Rows,
    Step,
    binary_kl,
    clip20,
    exp32,
    known,
    one_of,
)

__all__ = [
    "Rows",
    "coefficients",
    "ms_swift",
    "openrlhf",
    "prime_rl_dppo",
    "sapo_trl",
    "skyrl",
    "vespo_trl",
]

VERL_CORRECTION: dict[str, Any] = {
    "rollout_is": None,
    "rollout_is_threshold": 2.0,
    "rollout_is_batch_normalize": False,
    "rollout_rs": None,
    "rollout_rs_threshold": None,
    "bypass_mode": False,
    "loss_type": "ppo_clip",
}
VERL_ACTOR: dict[str, Any] = {
    "policy_loss.loss_mode": "vanilla",
    "clip_ratio": 0.2,
    "clip_ratio_low": 0.2,
    "clip_ratio_high": 0.2,
    "clip_ratio_c": 3.0,
}
VERL_LOG_PROBS = "actor_rollout_ref.rollout.calculate_log_probs"  # default: False up to 0.8.0
VERL_DEFAULTS = (
    {f"algorithm.rollout_correction.{k}": v for k, v in VERL_CORRECTION.items()}
    | {f"actor_rollout_ref.actor.{k}": v for k, v in VERL_ACTOR.items()}
    | {VERL_LOG_PROBS: True}
)
SLIME_FLAGS: dict[str, Any] = {
    "use-tis": False,
    "tis-clip": 2.0,
    "tis-clip-low": 0.0,
    "custom-config-path": None,
    "custom-tis-function-path": None,
}
SLIME_MIS_KEYS = {
    "use_tis",
    "use_rs",
    "tis_level",
    "rs_level",
    "tis_mode",
    "tis_lower_bound",
    "tis_upper_bound",
    "rs_lower_bound",
    "rs_upper_bound",
    "rs_veto_threshold",
    "tis_batch_normalize",
}


def coefficients(framework: str, line: str, rows: Rows) -> list[Array]:
    """What each trained token's policy gradient is multiplied by under a configuration line.

    Before the first update (pi_new = pi_old = train); 0 where the token is dropped.
    """
    readers: dict[str, Callable[[str, Step], Array]] = {"verl": verl, "trl": trl, "slime": slime}
    if framework in OTHERS:
        return OTHERS[framework](line, rows)
    if framework not in readers:
        raise ValueError(f"framework {framework!r} is none of {sorted(readers.keys() | OTHERS)}")
    step = Step(rows)
    return step.split(readers[framework](line, step))


# ---- verl ----------------------------------------------------------------------------------------

_U = r"(?:0|[1-9](?:_?\d)*)"
_POINT = rf"(?:{_U}\.|{_U}?\.\d(?:_?\d)*)"
_HYDRA_FLOAT = rf"[+-]?(?:(?:{_POINT}|{_U})[eE][+-]?\d(?:_?\d)*|{_POINT}|(?i:inf|nan))"


def hydra_value(text: str) -> Any:
    """An override's value as Hydra 1.3 reads it: 0.5_5.0 is a string, but 0.5_5 the float 0.55."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if "," in text:
        raise ValueError(f"{text!r} without quotes is a sweep for Hydra")
    if re.fullmatch(rf"[+-]?{_U}", text):
        return int(text)
    if re.fullmatch(_HYDRA_FLOAT, text):
        return float(text)
    return {"null": None, "true": True, "false": False}.get(text.lower(), text)


def verl(line: str, step: Step) -> Array:
    """verl 0.9.1, Hydra overrides; `trainer/ppo/v1/trainer_base.py`, `_compute_advantage`.

    Weights and rejection act only without bypass_mode: old = train, so the policy loss gives 1.
    With it old = rollout, and only the policy loss acts, on the ratio train / rollout.
    """
    pairs = [part.partition("=") for part in shlex.split(line)]
    options = known({key: hydra_value(value) for key, _, value in pairs}, VERL_DEFAULTS)
    rc = {key: options[f"algorithm.rollout_correction.{key}"] for key in VERL_CORRECTION}
    actor = {key: options[f"actor_rollout_ref.actor.{key}"] for key in VERL_ACTOR}
    one_of(rc["loss_type"], "ppo_clip", "reinforce")  # no trainer of 0.9.1 passes it to the loss
    bypass = one_of(rc["bypass_mode"], True, False)
    loss = verl_policy_loss(actor, step.q if bypass else step.p, step)
    if bypass or not options[VERL_LOG_PROBS]:
        return loss
    return loss * verl_weights(rc, step) * verl_mask(rc, step)


def verl_policy_loss(actor: Mapping[str, Any], old: Array, step: Step) -> Array:
    """`core_algos.compute_policy_loss_{vanilla,dppo_tv,dppo_kl}`; A = 0 takes DPPO's lower side.

    DPPO caps the ratio at clip_ratio_c; vanilla has no gradient where the log-ratio is clipped.
    """
    mode = one_of(actor["policy_loss.loss_mode"], "vanilla", "dppo_tv", "dppo_kl")
    both, c = actor["clip_ratio"], actor["clip_ratio_c"]
    low, high = (both if actor[k] is None else actor[k] for k in list(VERL_ACTOR)[2:4])
    new, a, ratio = step.p, step.a, np.exp(clip20(step.p - old))
    if mode == "vanilla":
        if c <= 1:
            raise ValueError("clip_ratio_c must be greater than 1")
        keep = np.where(a < 0, (ratio >= 1 - low) & (ratio < c), ratio <= 1 + high)
        return np.where(keep & (np.abs(new - old) <= 20), ratio, 0.0)
    if mode == "dppo_tv":
        move = np.exp(new) - np.exp(old)
        keep = np.where(a > 0, move <= high, move >= -low)
    else:
        kl = binary_kl(old, new)
        keep = np.where(a > 0, (kl <= high) | (new <= old), (kl <= low) | (new >= old))
    return np.where(keep, np.minimum(ratio, c), 0.0)


def verl_weights(rc: Mapping[str, Any], step: Step) -> Array:
    """`rollout_corr_helper.compute_rollout_correction_weights`: a row's sum is clipped at 20."""
    level, spec = one_of(rc["rollout_is"], None, "token", "sequence"), rc["rollout_is_threshold"]
    if level is None or spec is None:
        return step.one
    if isinstance(spec, bool):
        raise TypeError("rollout_is_threshold is a number or lower_upper")
    lower, upper = _verl_bounds(str(spec).strip())
    w = np.exp(clip20(step.d if level == "token" else step.row(np.sum, step.d)))
    w = np.minimum(w, upper) if lower is None else np.where((w >= lower) & (w <= upper), w, 0.0)
    if not one_of(rc["rollout_is_batch_normalize"], True, False):
        return w
    units = w if level == "token" else np.array([x[0] for x in step.split(w) if len(x)])
    return w / units.mean() if units.mean() > 1e-8 else w


def _verl_bounds(spec: str) -> tuple[float | None, float]:
    """Of "lower_upper" or "upper": both positive and in order."""
    *lowers, upper = (float(part) for part in spec.split("_", 1))
    lower = lowers[0] if lowers else None
    if upper <= 0 or (lower is not None and not 0 < lower <= upper):
        raise ValueError(f"threshold {spec!r}")
    return lower, upper


def verl_mask(rc: Mapping[str, Any], step: Step) -> Array:
    """`rollout_corr_helper.compute_rollout_rejection_mask`: all options must pass."""
    if rc["rollout_rs"] is None:
        return step.one
    names = list(dict.fromkeys(x.strip() for x in rc["rollout_rs"].split(",") if x.strip()))
    specs = [x.strip() for x in str(rc["rollout_rs_threshold"]).split(",") if x.strip()]
    if not names or len(specs) not in (1, len(names)):
        raise ValueError("rollout_rs needs one threshold, or one for each of its options")
    specs = specs * len(names) if len(specs) == 1 else specs
    kept = [_verl_keep(name, spec, step) for name, spec in zip(names, specs, strict=True)]
    return np.prod(kept, axis=0)


def _verl_keep(name: str, spec: str, step: Step) -> Array:
    """Each token is clipped at 20 before a row's sum, mean or maximum; k1 = -ln r bounds 1 / r."""
    level, _, kind = name.rpartition("_")
    x = clip20(step.d)
    stat = {"k1": -x, "k2": 0.5 * x**2, "k3": np.exp(x) - 1 - x}[one_of(kind, "k1", "k2", "k3")]
    lower, upper = _verl_bounds(spec)
    if name == "seq_max_k1" or (kind != "k1" and lower is not None):
        raise ValueError(f"{name}, or a lower bound for it ({spec!r}), does not exist")
    if one_of(level, "token", "seq_sum", "seq_mean", "seq_max") != "token":
        stat = step.row({"seq_sum": np.sum, "seq_mean": np.mean, "seq_max": np.max}[level], stat)
    if kind != "k1":
        return (stat <= upper) * step.one
    least = np.log(1.0 / upper if lower is None else lower)
    return ((stat >= least) & (stat <= np.log(upper))) * step.one


# ---- TRL -----------------------------------------------------------------------------------------


def trl(line: str, step: Step) -> Array:
    """TRL 1.16.0, keyword arguments of GRPOConfig; `trainer/grpo_trainer.py`, `_compute_loss`.

    new / old is 1 for all losses: CISPO caps it at epsilon_high, VESPO uses the rollout's ratio.
    """
    call = ast.parse(f"GRPOConfig({line})", mode="eval").body
    if not isinstance(call, ast.Call) or call.args:
        raise ValueError("keyword arguments are needed")
    options = known({str(k.arg): ast.literal_eval(k.value) for k in call.keywords}, TRL_DEFAULTS)
    names = ("mode", "clip_min", "clip_max", "cap", "correction")
    mode, low, high, cap, correct = (options[f"vllm_importance_sampling_{x}"] for x in names)
    if not options["use_vllm"] or correct not in (True, False):
        raise ValueError("no rollout log-probs without vLLM; the correction is True or False")
    high = high if cap is None else cap  # the old name wins
    if low is not None and high is not None and low >= high:
        raise ValueError("clip_min must be less than clip_max")
    keep = trl_off_policy_mask(options["off_policy_mask_threshold"], step)
    if options["loss_type"] == "vespo":
        logs = vespo_logs(mode, low, high, step) if correct else 0 * step.one
        return keep * vespo_phi(logs, options, step)
    if options["loss_type"] == "cispo":
        cut = options["epsilon"] if options["epsilon_high"] is None else options["epsilon_high"]
        keep = keep * min(1.0, cut)
    else:
        one_of(options["loss_type"], "grpo", "bnpo", "dr_grpo", "dapo", "luspo", "sapo")
    return keep * trl_weights(mode, low, high, step) if correct else keep


def trl_off_policy_mask(threshold: float | None, step: Step) -> Array:
    """`get_off_policy_mask`: drops where A < 0 and a row's mean of rollout - train is above."""
    if threshold is None:
        return step.one
    return ((step.a >= 0) | (step.row(np.mean, -step.d) <= threshold)) * step.one


# ---- slime ---------------------------------------------------------------------------------------

SLIME_ICEPOP = "slime.backends.megatron_utils.loss.icepop_function"
SLIME_MIS = "examples.train_infer_mismatch_helper.mis.compute_mis_weights_with_cp"
_YAML_FLOAT = r"[-+]?\d[\d_]*\.[\d_]*(?:[eE][-+]\d+)?|\.\d[\d_]*(?:[eE][-+]\d+)?|[-+]?\.inf"
_YAML_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


def slime(line: str, step: Step) -> Array:
    """slime's `backends/megatron_utils/loss.py`, `policy_loss_function`; the PPO ratio is 1.

    Flags, then `, with FILE.yaml: {...}`. The file's keys override the flags of the same name.
    """
    head, *file = re.split(r",?\s+with\s+(\S+\.ya?ml)\s*:", line, maxsplit=1)
    name, text = file or ("", "")
    flags = known(slime_flags(head), SLIME_FLAGS)
    if PurePath(flags["custom-config-path"] or "").name != PurePath(name).name:
        raise ValueError("the line must hold the file of --custom-config-path, and no other")
    yaml = slime_yaml(text)
    if not yaml.get("use_tis", flags["use-tis"]):
        return step.one
    if flags["custom-tis-function-path"] == SLIME_MIS:
        return slime_mis(yaml, step)
    path = one_of(flags["custom-tis-function-path"], None, SLIME_ICEPOP)
    known(yaml, {"use_tis": None})
    ratio, low, high = exp32(step.d), flags["tis-clip-low"], flags["tis-clip"]
    if path is None:  # vanilla_tis_function
        return np.minimum(np.maximum(ratio, low), high)
    return np.where((ratio >= low) & (ratio <= high), ratio, 0.0)


def slime_flags(text: str) -> dict[str, Any]:
    """Flags as argparse reads them."""
    flags: dict[str, Any] = {}
    words = shlex.split(text.replace("=", " "))
    while words:
        key = words.pop(0).removeprefix("--")
        if key not in SLIME_FLAGS:
            raise ValueError(f"flag {key!r} is unknown or not restated here")
        value = True if SLIME_FLAGS[key] is False else words.pop(0)
        flags[key] = float(value) if key.startswith("tis-clip") else value
    return flags


def slime_yaml(text: str) -> dict[str, Any]:
    """A flat mapping, in braces or a key a line, with PyYAML's scalars: 1e-4 is a string."""
    body = re.sub(r"#.*", "", text).strip().removeprefix("{").removesuffix("}")
    pairs = [pair.split(":", 1) for pair in re.split(r"[,\n]", body) if pair.strip()]
    return {key.strip(): _yaml_scalar(value.strip()) for key, value in pairs}


def _yaml_scalar(text: str) -> Any:
    if text.lower() in _YAML_WORDS:
        return _YAML_WORDS[text.lower()]
    if re.fullmatch(r"[-+]?(0|[1-9][\d_]*)", text):
        return int(text)
    number = re.fullmatch(_YAML_FLOAT, text)
    return float(text.replace(".inf", "inf")) if number else text.strip("'\"")


def slime_mis(cfg: Mapping[str, Any], step: Step) -> Array:
    """`examples/train_infer_mismatch_helper/mis.py`, `compute_mis_weights`.

    Mode mask drops tokens, but their weights stay in the mean that normalises.
    """
    if missing := (SLIME_MIS_KEYS ^ set(cfg)) - {"use_tis"}:
        raise ValueError(f"keys missing or unknown: {sorted(missing)}")
    if any(isinstance(cfg[key], str) for key in cfg if "bound" in key or "threshold" in key):
        raise TypeError("for PyYAML a float has a dot, and its exponent a sign")
    high = cfg["tis_upper_bound"]
    low = 1.0 / high if cfg["tis_lower_bound"] is None else cfg["tis_lower_bound"]
    ratio = _slime_ratio(cfg["tis_level"], step)
    w, keep = _slime_bounded(cfg["tis_mode"], ratio, low, high)
    normalise = cfg["tis_batch_normalize"]
    if cfg["use_rs"]:
        least = low if cfg["rs_lower_bound"] is None else cfg["rs_lower_bound"]
        most = high if cfg["rs_upper_bound"] is None else cfg["rs_upper_bound"]
        keep = keep * _slime_bounded("mask", _slime_ratio(cfg["rs_level"], step), least, most)[1]
        if cfg["rs_veto_threshold"] is not None:
            keep = keep * (step.row(np.min, step.d) >= np.log(cfg["rs_veto_threshold"]))
    return keep * (_slime_normalised(cfg["tis_level"], w, step) if normalise else w)


def _slime_ratio(level: str, step: Step) -> Array:
    """A row's sum or mean is clipped at 20, not its tokens."""
    one_of(level, "token", "sequence", "geometric")
    reduce = np.sum if level == "sequence" else np.mean
    return np.exp(clip20(step.d if level == "token" else step.row(reduce, step.d)))


def _slime_bounded(mode: str, ratio: Array, low: float, high: float) -> tuple[Array, Array]:
    """Weights and what is kept."""
    if one_of(mode, "truncate", "clip", "mask") == "truncate":
        return np.clip(ratio, 0, high), np.ones(len(ratio))
    if not low < high:
        raise ValueError(f"bounds {low} and {high}")
    if mode == "clip":
        return np.clip(ratio, low, high), np.ones(len(ratio))
    return ratio, ((ratio >= low) & (ratio <= high)) * np.ones(len(ratio))


def _slime_normalised(level: str, w: Array, step: Step) -> Array:
    one_of(level, "token", "sequence")  # geometric raises in slime
    rows = [x.mean() if len(x) else 0.0 for x in step.split(w)]
    mean = w.mean() if level == "token" else np.mean(rows)
    return w / mean if mean > 1e-8 else w
