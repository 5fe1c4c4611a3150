"""Errors travel between processes: Prefect's process and Dask runners pickle what a task raises."""

import importlib
import inspect
import pickle
import pkgutil
from pathlib import Path

import pytest

import timtrack.flows
import timtrack.tasks
from timtrack.flows.outcomes import CapturesFailed, Outcome
from timtrack.tasks.messages.errors import BadCapture


def modules():
    for package in (timtrack.flows, timtrack.tasks):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(found.name)


def errors():
    ours = {
        item
        for module in modules()
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Exception) and item.__module__ == module.__name__
    }
    return sorted(ours, key=lambda error: error.__qualname__)


OUTCOMES = [Outcome(Path("a.pt"), error=BadCapture("no mask")), Outcome(Path("b.pt"))]


@pytest.mark.parametrize("error", errors(), ids=lambda error: error.__name__)
def test_every_error_of_ours_survives_pickling(error):
    raised = error(OUTCOMES if error is CapturesFailed else "3 of 4 tokens")
    copy = pickle.loads(pickle.dumps(raised))
    assert type(copy) is error
    assert str(copy) == str(raised) != ""


def test_the_failed_captures_arrive_with_their_reasons():
    copy = pickle.loads(pickle.dumps(CapturesFailed(OUTCOMES)))
    assert str(copy) == "1 of 2 captures failed, first a.pt: no mask"
    assert [str(outcome.error) for outcome in copy.outcomes] == ["no mask", "None"]
