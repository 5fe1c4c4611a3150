"""All hypotheses, in the order in which they are tried."""

import functools
import re
from collections.abc import Mapping, Sequence

from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.hypotheses import (
    batching,
    checkpoints,
    labels,
    layers,
    perturbed,
    positions,
    precision,
    prompts,
    sampler,
)
from timtrack.tasks.referee.registry import KNOWN, Hypothesis
from timtrack.tasks.referee.rollouts import Floats

# Those first that need no forward, then by what goes wrong most often.
MODULES = (sampler, labels, checkpoints, positions, batching, prompts, precision, layers)
ALL = "all"
PERTURBED = re.compile(r"perturbed_(?P<sigma>\d+(?:\.\d+)?)_(?P<draw>\d+)")


class UnknownHypothesis(TimtrackError):
    """A name that no hypothesis has."""


@functools.cache
def all_of() -> dict[str, Hypothesis]:
    """Every hypothesis by its name; importing their modules registered them."""
    places = [module.__name__ for module in MODULES]
    order = {place: number for number, place in enumerate(places)}
    named = sorted(KNOWN.items(), key=lambda pair: order.get(pair[1].score.__module__, len(order)))
    return dict(named)


def chosen(names: Sequence[str], causes: Mapping[str, float]) -> list[Hypothesis]:
    """Those of these names, else all: cheap ones first, then by the step's causes.

    Raises UnknownHypothesis.
    """
    known = all_of()
    wanted = [name for name in names if not PERTURBED.fullmatch(name) and name != ALL]
    if unknown := [name for name in wanted if name not in known]:
        raise UnknownHypothesis(
            f"no hypothesis {unknown[0]!r}; there are {', '.join(known)}, "
            "and perturbed_<sigma>_<draw>"
        )
    if names and ALL not in names:
        return [known[name] for name in wanted]

    def likely(one: Hypothesis) -> float:
        return max((causes.get(cause, 0.0) for cause in one.causes), default=0.0)

    return sorted(known.values(), key=lambda one: (not one.is_cheap, -likely(one)))


def perturbations(names: Sequence[str]) -> list[str]:
    """The perturbed scorings among names."""
    return [name for name in names if PERTURBED.fullmatch(name)]


def perturbed_scores(bench: Bench, name: str) -> Floats:
    """Log-probs [N] of a perturbed scoring by its name."""
    match = PERTURBED.fullmatch(name)
    if not match:
        raise UnknownHypothesis(f"{name} is not perturbed_<sigma>_<draw>")
    return perturbed.scores(bench, float(match["sigma"]), int(match["draw"]))
