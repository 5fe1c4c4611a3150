"""Hypotheses about which token a log-prob is of, and about placeholders."""

import numpy as np

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model.distributions import LAGS
from timtrack.tasks.referee.registry import Choice, hypothesis
from timtrack.tasks.referee.rollouts import Floats

SHIFTS = tuple(lag for lag in LAGS if lag)


def _lags() -> tuple[Choice, ...]:
    return tuple(
        Choice(f"{abs(lag)} token{'s' * (abs(lag) > 1)} {'late' if lag > 0 else 'early'}", lag)
        for lag in SHIFTS
    )


@hypothesis(
    "shift",
    "the log-probs stand {value}",
    "log-probs and tokens are off by so many places",
    ("F37",),
    lambda _: _lags(),
    is_cheap=True,
)
def _(bench: Bench, value: Choice) -> Floats:
    made = np.full(len(bench.plain), np.nan)
    for part in bench.slices:
        row, lag = bench.plain[part], value.data
        if abs(lag) < len(row):
            moved = made[part]
            moved[max(lag, 0) : len(row) + min(lag, 0)] = row[max(-lag, 0) : len(row) - max(lag, 0)]
    return made


@hypothesis(
    "label_shift",
    "each token is read from the logits that stand {value}",
    "labels are not moved by one place against the logits, or twice",
    ("F37",),
    lambda _: _lags(),
    is_cheap=True,
)
def _(bench: Bench, value: Choice) -> Floats:
    known, lag = bench.distributions, value.data
    made = np.full(len(known.total), np.nan)
    for part in bench.slices:
        places = np.arange(part.start, part.stop)
        there = places + lag
        inside = (there >= part.start) & (there < part.stop)
        at = there[inside]
        made[places[inside]] = known.neighbours[at, list(LAGS).index(-lag)] - known.total[at]
    return made


def _ended(bench: Bench) -> list[int]:
    """Where the last tokens are that end a response."""
    ends = bench.reference.ends
    pairs = zip(bench.rollouts, bench.slices, strict=True)
    return [part.stop - 1 for one, part in pairs if one.response and one.response[-1] in ends]


@hypothesis(
    "end_zero",
    "the token that ends a response has a log-prob of 0",
    "the end is appended or masked with a placeholder",
    ("F34", "F35"),
    lambda bench: (None,) if _ended(bench) else (),
    is_cheap=True,
)
def _(bench: Bench, _value: None) -> Floats:
    made = bench.plain.copy()
    made[_ended(bench)] = 0.0
    return made


@hypothesis(
    "last_zero",
    "the last token of every response has a log-prob of 0",
    "the last place is masked or never filled",
    ("F34", "F35"),
    is_cheap=True,
)
def _(bench: Bench, _value: None) -> Floats:
    made = bench.plain.copy()
    made[[part.stop - 1 for part in bench.slices if part.stop > part.start]] = 0.0
    return made


@hypothesis(
    "last_is_other",
    "the last token of a response is scored as id {value}",
    "the end and the padding are taken for each other",
    ("F34", "F35"),
    lambda bench: tuple(bench.distributions.others),
    is_cheap=True,
)
def _(bench: Bench, value: int) -> Floats:
    made = bench.plain.copy()
    last = [part.stop - 1 for part in bench.slices if part.stop > part.start]
    made[last] = bench.distributions.others[int(value)][last]
    return made


@hypothesis(
    "placeholders",
    "the log-prob is 0 wherever the {value} reports exactly 0",
    "tokens that it never scored have a placeholder of 0",
    ("F36",),
    lambda _: (Choice("rollout engine", "rollout"), Choice("trainer", "train")),
    is_cheap=True,
)
def _(bench: Bench, value: Choice) -> Floats:
    return np.where(bench.logps(value.data) == 0, 0.0, bench.plain)


@hypothesis(
    "row_of_another",
    "the log-probs are those of another sequence of the same prompt, {value}",
    "rows are joined wrongly",
    ("F43",),
    lambda _: (Choice("the next one", 1), Choice("the one before", -1)),
)
def _(bench: Bench, value: Choice) -> Floats:
    made = np.full(len(bench.plain), np.nan)
    others = [bench.batch.get(one.row + value.data) for one in bench.rollouts]
    pairs = zip(bench.rollouts, others, bench.slices, strict=True)
    found = [(o, part) for one, o, part in pairs if o and o.response and o.prompt == one.prompt]
    if found:
        there = bench.of([other for other, _ in found])
        scores = there.scored()
        for (_, part), own in zip(found, there.slices, strict=True):
            count = min(part.stop - part.start, own.stop - own.start)
            made[part.start : part.start + count] = scores[own.start : own.start + count]
    return made
