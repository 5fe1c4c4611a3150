"""Gates: rules over a run's steps, for CI.

One rule: what cannot be judged does not pass. A missing number, NaN or an empty selection is an
error, not a pass. Rules are parsed, never evaluated as code.
"""

import functools
import math
import operator
import re
import statistics
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.messages.formatting import number, share

FILE = Path(__file__).parent / "gates.toml"

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
OVER_STEPS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "max": max,
    "min": min,
    "last": lambda values: values[-1],
}
RULE = re.compile(
    r"\s*(?:(?P<over>[a-z]+)\(\s*(?P<inner>[\w/.]+)\s*\)|(?P<metric>[\w/.]+))"
    r"\s*(?P<sign><=|>=|==|<|>)\s*(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"\s*(?P<percent>%?)\s*"
)


class BadRule(TimtrackError):
    """Not a rule, or one that these steps cannot answer."""


@dataclass(frozen=True)
class Rule:
    """`kl_k3 < 0.01` for every step, `mean(kl_k3) < 0.01` for all together."""

    text: str
    metric: str
    over: str | None
    sign: str
    bound: float

    def holds(self, value: float) -> bool:
        """Whether one number is on the right side."""
        return COMPARISONS[self.sign](value, self.bound)


@dataclass(frozen=True)
class Outcome:
    """What became of a rule: held or not, seen where."""

    rule: str
    passed: bool
    text: str
    step: int | None  # where it broke first, of rules for every step


Numbers = Mapping[int, Mapping[str, float | None]]  # step -> metric -> value


def parse(text: str) -> Rule:
    """A rule as typed: `[mean|median|max|min|last](metric) < number[%]`; raises BadRule."""
    match = RULE.fullmatch(text)
    if not match:
        raise BadRule(
            f"{text!r} is not a rule; write it as 'kl_k3 < 0.01' (every step), "
            f"'mean(kl_k3) < 0.01' ({', '.join(OVER_STEPS)}) or 'frac_outside_5 < 1%'"
        )
    over = match["over"]
    if over is not None and over not in OVER_STEPS:
        raise BadRule(f"{text!r}: no {over}() over steps; there are {', '.join(OVER_STEPS)}")
    bound = float(match["bound"]) / (100 if match["percent"] else 1)
    return Rule(text.strip(), match["inner"] or match["metric"], over, match["sign"], bound)


@dataclass(frozen=True)
class Preset:
    """Rules of a framework, and their source."""

    rules: tuple[str, ...]
    says: str


@functools.cache
def presets() -> dict[str, Preset]:
    """The gates of `gates.toml` by name."""
    tables = tomllib.loads(FILE.read_text())
    return {name: Preset(tuple(table["rules"]), table["says"]) for name, table in tables.items()}


def judge(rule: Rule, numbers: Numbers) -> Outcome:
    """Whether a rule holds over these steps; raises BadRule for what cannot be judged."""
    values = {step: _value(rule, step, numbers) for step in sorted(numbers)}
    if not values:
        raise BadRule(f"{rule.text!r}: there is no step to judge")
    if rule.over:
        value = OVER_STEPS[rule.over](list(values.values()))
        text = f"{rule.over} of {len(values)} steps is {number(value)}"
        return Outcome(rule.text, rule.holds(value), text, None)
    broken = [step for step, value in values.items() if not rule.holds(value)]
    if not broken:
        low, high = min(values.values()), max(values.values())
        text = f"all {len(values)} steps, from {number(low)} to {number(high)}"
        return Outcome(rule.text, True, text, None)
    first = broken[0]
    text = f"broken at {len(broken)} of {len(values)} steps, first at {first}: "
    return Outcome(rule.text, False, text + number(values[first]), first)


def _value(rule: Rule, step: int, numbers: Numbers) -> float:
    if rule.metric not in numbers[step]:
        raise BadRule(f"{rule.text!r}: no metric {rule.metric}; `tim tables step_metrics` has them")
    value = numbers[step][rule.metric]
    if value is None or math.isnan(value):
        raise BadRule(f"{rule.text!r}: {rule.metric} of step {step} is undefined, not judged")
    return value


def rise(metric: str, numbers: Numbers, baseline: Numbers, most: float) -> Outcome:
    """Whether a metric's mean over steps is at most `most` (0.5: by half) above a baseline's."""
    rule = Rule(f"{metric} rises by at most {share(most)}", metric, "mean", "<=", most)
    value, before = (
        statistics.fmean(_value(rule, step, of) for step in of) if of else math.nan
        for of in (numbers, baseline)
    )
    if math.isnan(value) or math.isnan(before):
        raise BadRule(f"{rule.text!r}: there is no step to judge")
    if before <= 0:
        raise BadRule(f"{rule.text!r}: the baseline's mean is {number(before)}, no rise over that")
    text = f"mean {number(value)} against {number(before)}, {number(100 * (value / before - 1))} %"
    return Outcome(rule.text, value / before - 1 <= most, text, None)
