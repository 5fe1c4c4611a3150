"""What a hypothesis is; those that are known are small entries in tasks/referee/hypotheses/.

    @hypothesis("bos_doubled", "the first id stands twice", "two layers add it", causes=("F39",))
    def _(bench, _value):
        return bench.scored([...])

An entry's function gives the log-probs [N] that the reference has with one thing changed; NaN where
it has none, which then counts as unchanged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from timtrack.tasks.messages.formatting import number
from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.rollouts import Floats

Score = Callable[[Bench, Any], Floats]
Values = Callable[[Bench], Sequence[Any]]


@dataclass(frozen=True)
class Choice:
    """A value to try that is more than a number, and how it is called in a sentence."""

    text: str
    data: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Hypothesis:
    """One thing that may be other in an engine than it should be."""

    name: str
    when: str  # "... are reproduced when <when>", with {value}
    means: str  # what is then wrong, as a sentence's second half
    causes: tuple[str, ...]  # of sql/causes.toml, for which it is evidence
    score: Score
    values: Values  # those to try; none: it does not apply here
    is_cheap: bool = False  # needs no forward
    is_fitted: bool = False  # values are numbers, and those between them count as well
    is_rounding: bool = False  # a precision that engines run in: no fault
    is_random: bool = (
        False  # its score is several draws [n, N], which it can be known by but not met
    )

    def shown(self, value: Any) -> str:
        """A value in words; empty where there is none."""
        if value is None:
            return ""
        return value.text if isinstance(value, Choice) else number(float(value))

    def sentence(self, value: Any) -> str:
        """When the log-probs are reproduced, with the value."""
        return self.when.format(value=self.shown(value))


KNOWN: dict[str, Hypothesis] = {}


def one(_bench: Bench) -> tuple[None]:
    """The values of a hypothesis that has no parameter."""
    return (None,)


def hypothesis(
    name: str,
    when: str,
    means: str,
    causes: tuple[str, ...] = (),
    values: Values = one,
    **how: bool,
) -> Callable[[Score], Score]:
    """Register a function as the score of a hypothesis; `how` are the flags of `Hypothesis`."""

    def register(score: Score) -> Score:
        KNOWN[name] = Hypothesis(name, when, means, causes, score, values, **how)
        return score

    return register
