"""Captures that need no analysis are settled before anything heavy is imported."""

from pathlib import Path

import pytest
import torch

from tests.given import batch_fields, ingest
from timtrack.flows.cli import ready
from timtrack.flows.settings import Settings
from timtrack.tasks.backlog import asked, survey
from timtrack.tasks.lake import conversion
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.lake.steps import Step, set_mark
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step


@pytest.fixture
def done(saved, home) -> tuple[Path, Step]:
    """A capture that lake and MLflow have, and its step."""
    capture = saved(batch_fields())
    step = ingest(capture, home / "lake")
    write_tables(step, sql_version(), compute_step(step))
    set_mark(step, survey.logged_mark(home), "http://mlflow/run")
    survey.settle(home, step.run, survey.settlements(home)[step.run])
    asked.note(home, asked.look(home))
    return capture, step


def settle(home, *paths, **given):
    given = {"run": None, "step": None, "tokenizer": None} | given
    return ready.settled(paths, home, Settings.read(), None, **given)


def test_a_capture_that_is_done_is_not_opened_again(done, home, monkeypatch):
    capture, step = done
    monkeypatch.setattr(conversion, "identify", None)  # which would open it
    [outcome] = settle(home, capture)
    assert (outcome.step, outcome.link) == (step, "http://mlflow/run")
    assert settle(home, capture, run=step.run, step=step.step) == [outcome]


def test_a_capture_under_another_name_is_another(done, home):
    capture, _ = done
    assert settle(home, capture, run="other") is None
    assert settle(home, capture, step=0) is None


def test_a_capture_that_was_written_to_is_opened(done, home):
    capture, _ = done
    torch.save(batch_fields() | {"model": "another"}, capture)
    assert settle(home, capture) is None
    capture.write_bytes(b"no capture")
    [outcome] = settle(home, capture)
    assert isinstance(outcome.error, BadCapture)


def test_what_comes_next_is_done_while_a_capture_is_opened(monkeypatch):
    done = []
    monkeypatch.setattr(ready, "NEXT", [lambda n=n: done.append(n) for n in range(3)])
    answers = iter([False, True])
    ready.prepare_next(lambda: next(answers))
    assert done == [0]


def test_the_caller_works_while_a_capture_is_read(saved):
    seen = []
    capture = conversion.identify(
        conversion.Source(saved(batch_fields())),
        meanwhile=lambda is_answered: seen.append(is_answered()),
    )
    assert capture.step == 3
    assert len(seen) == 1
