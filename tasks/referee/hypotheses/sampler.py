"""Hypotheses about the logits alone: processors of a sampler, and what is read from them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model.distributions import Distributions
from timtrack.tasks.referee.registry import hypothesis
from timtrack.tasks.referee.rollouts import Floats

Kept = npt.NDArray[np.bool_]


@hypothesis(
    "temperature",
    "logits are divided by a temperature of {value}",
    "one side computes at another temperature",
    ("F1", "F2"),
    lambda _: tuple(np.geomspace(0.3, 3, 24)),
    is_cheap=True,
    is_fitted=True,
)
def _(bench: Bench, value: float) -> Floats:
    return bench.distributions.at_temperature(value / bench.reference.head.temperature)


def _renormalised(known: Distributions, kept: Kept, least: float = 0.0) -> Floats:
    """Log-probs over the kept ones of the largest logits [N, K]; their mass is `least` at least."""
    mass = np.sum(np.exp(known.top - known.total[:, None]) * kept, axis=1)
    return known.logps - np.log(np.maximum(mass, max(least, 1e-9)))


@hypothesis(
    "top_p",
    "only the nucleus of top-p {value} is left",
    "log-probs are renormalised over a truncated vocabulary",
    ("F3",),
    lambda _: (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995),
    is_cheap=True,
    is_fitted=True,
)
def _(bench: Bench, value: float) -> Floats:
    known = bench.distributions
    probs = np.exp(known.top - known.total[:, None])
    before = np.cumsum(probs, axis=1, dtype=np.float64) - probs
    return _renormalised(known, before < value, value)


@hypothesis(
    "top_k",
    "only the {value} likeliest tokens are left",
    "log-probs are renormalised over a truncated vocabulary",
    ("F4",),
    lambda _: (2, 3, 5, 8, 10, 15, 20, 30, 40, 50, 64, 100, 200, 500, 1000),
    is_cheap=True,
)
def _(bench: Bench, value: int) -> Floats:
    known = bench.distributions
    return _renormalised(known, np.arange(known.top.shape[1])[None] < value)


@hypothesis(
    "min_p",
    "only tokens with at least {value} times the largest probability are left",
    "log-probs are renormalised over a truncated vocabulary",
    ("F4",),
    lambda _: (0.002, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4),
    is_cheap=True,
    is_fitted=True,
)
def _(bench: Bench, value: float) -> Floats:
    known = bench.distributions
    return _renormalised(known, known.top >= known.top[:, :1] + np.log(value))


def _penalised(known: Distributions, own: Floats, seen: Floats) -> Floats:
    """Log-probs where the logits of ids that occurred before are others."""
    with np.errstate(divide="ignore"):
        largest = np.maximum(seen.max(axis=1), -1e9)
        summed = largest + np.log(np.exp(seen - largest[:, None]).sum(axis=1))
    return own - np.logaddexp(known.rest, summed)


@hypothesis(
    "repetition_penalty",
    "ids of prompt and response are penalised by a repetition penalty of {value}",
    "one side applies a penalty that the other does not know",
    ("F5",),
    lambda _: (0.8, 0.9, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0),
    is_cheap=True,
    is_fitted=True,
)
def _(bench: Bench, value: float) -> Floats:
    known = bench.distributions
    own = np.where(known.own_seen > 0, _shrunk(known.own, value), known.own)
    return _penalised(known, own, _shrunk(known.seen, value))


def _shrunk(logits: Floats, penalty: float) -> Floats:
    return np.where(logits > 0, logits / penalty, logits * penalty)


@hypothesis(
    "presence_penalty",
    "ids of the response are penalised by a presence penalty of {value}",
    "one side applies a penalty that the other does not know",
    ("F5",),
    lambda _: (-1.0, -0.5, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0),
    is_cheap=True,
    is_fitted=True,
)
def _(bench: Bench, value: float) -> Floats:
    known = bench.distributions
    own = known.own - value * (known.own_count > 0)
    return _penalised(known, own, known.seen - value * (known.counts > 0))


@hypothesis(
    "frequency_penalty",
    "ids of the response are penalised by a frequency penalty of {value}",
    "one side applies a penalty that the other does not know",
    ("F5",),
    lambda _: (-0.5, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0),
    is_cheap=True,
    is_fitted=True,
)
def _(bench: Bench, value: float) -> Floats:
    known = bench.distributions
    own = known.own - value * known.own_count
    return _penalised(known, own, known.seen - value * known.counts)


@hypothesis(
    "first_candidate",
    "the log-prob of the likeliest token stands in place of the token's own",
    "the wrong candidate's log-prob is stored",
    ("F6",),
    is_cheap=True,
)
def _(bench: Bench, _value: None) -> Floats:
    known = bench.distributions
    return known.top[:, 0] - known.total


def _masses(bench: Bench) -> list[float]:
    total = bench.distributions.total
    return list(np.linspace(float(total.min()) - 6, float(total.max()) + 2, 12))


@hypothesis(
    "phantom_vocabulary",
    "the normaliser has e^{value} more, as if logits of padding rows were in it",
    "the vocabulary is padded, or a shard of it is summed that no token has",
    ("F7",),
    _masses,
    is_cheap=True,
    is_fitted=True,
)
def _(bench: Bench, value: float) -> Floats:
    known = bench.distributions
    return known.own - np.logaddexp(known.total, value)


def _rounded(name: str, words: str, kind: torch.dtype) -> None:
    @hypothesis(
        name,
        f"the logits alone are rounded to {words}",
        "the output head computes in low precision",
        ("F8",),
        is_cheap=True,
    )
    def _(bench: Bench, _value: Any) -> Floats:
        return bench.distributions.rounded[kind]


_rounded("logits_bf16", "bfloat16", torch.bfloat16)
_rounded("logits_fp16", "float16", torch.float16)
