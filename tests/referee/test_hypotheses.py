"""Every hypothesis is made true in an engine, and must win there; clean engines are not accused."""

import numpy as np
import pytest

from tests.referee.faults import FAULTS
from tests.referee.tiny import World
from timtrack.tasks.referee.session import Answer, Question, judged
from timtrack.tasks.referee.verdict import guilty

ALL = ("all",)


def asked(tiny: World, **engines: np.ndarray) -> Answer:
    bench = tiny.engines(**engines)
    return judged(bench, Question(tiny.model, hypotheses=ALL), {})


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "computed_bf16"])
def test_what_was_made_explains_most_and_its_engine_is_off(tiny, name):
    engine, make = FAULTS[name]
    found = asked(tiny, **{engine: make(tiny)})
    [of] = [one for one in found.engines if one.name == engine]
    ranked = [(fit.hypothesis.name, round(fit.explained_in_part, 3)) for fit in of.fits[:3]]
    assert ranked[0][0] == name, ranked
    assert guilty(found.engines) == (engine,)


def test_engines_in_bfloat16_are_not_accused(tiny):
    made = FAULTS["computed_bf16"][1](tiny)
    for engines in ({"rollout": made}, {"train": made}, {"rollout": made, "train": made}):
        found = asked(tiny, **engines)
        assert guilty(found.engines) == ()
        assert all(one.best is None or one.best.hypothesis.is_rounding for one in found.engines)
