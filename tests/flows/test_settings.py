"""Settings: an argument, else its variable, else the default."""

import importlib
from pathlib import Path

import pytest

from timtrack.flows import deployed
from timtrack.flows.settings import Settings, default_home
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.verdicts.bands import OURS


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in ("HOME", "RUNNER", "PARITY", "BANDS", "MEMORY"):
        monkeypatch.delenv(f"TIMTRACK_{name}", raising=False)


def test_the_defaults():
    assert Settings.read() == Settings("threads", (), OURS)
    assert default_home() == Path("timtrack")


def test_a_variable_and_an_argument_before_it(monkeypatch):
    monkeypatch.setenv("TIMTRACK_RUNNER", "threads:3")
    monkeypatch.setenv("TIMTRACK_PARITY", "verl, slime")
    assert Settings.read() == Settings("threads:3", ("verl", "slime"), OURS)
    asked = Settings.read(runner="processes:1", parity="nemo_rl")
    assert asked == Settings("processes:1", ("nemo_rl",), OURS)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("RUNNER", "ray", "no runner 'ray'"),
        ("PARITY", "trl", "no framework trl"),
        ("BANDS", "/nowhere.toml", "not a file of bands"),
        ("MEMORY", "much", "expected a size like 512MiB"),
    ],
)
def test_a_wrong_variable_is_told(name, value, reason, monkeypatch):
    monkeypatch.setenv(f"TIMTRACK_{name}", value)
    with pytest.raises(TimtrackError, match=reason):
        Settings.read()


def test_a_deployment_runs_on_the_task_runner_of_its_worker(monkeypatch):
    monkeypatch.setenv("TIMTRACK_RUNNER", "processes:3")
    flow = importlib.reload(deployed).watch
    assert type(flow.task_runner).__name__ == "ProcessPoolTaskRunner"
    assert flow.name == "watch"
