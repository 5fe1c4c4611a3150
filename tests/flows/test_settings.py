"""Settings: an argument, else its variable, else the default."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow

from timtrack.flows import deployed
from timtrack.flows.cli.main import main
from timtrack.flows.settings import Settings, default_home
from timtrack.flows.watch import watch
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
        ("PARITY", "nanorl", "no framework nanorl"),
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


def test_what_is_served_is_what_was_asked_for(tmp_path, monkeypatch):
    """`tim serve` gives its deployment parameters that a server can hold and the flow takes."""
    served: dict[str, Any] = {}
    monkeypatch.setattr(Flow, "serve", lambda self, **given: served.update(given))
    (tmp_path / "captures").mkdir()
    asked = ["--referee", "checkpoints", "--referee-every", "5", "--pattern", "{run}/{step}.pt"]
    monkeypatch.chdir(tmp_path)
    assert main(["--home", "home", "serve", "captures", "--every", "300", *asked]) == 0
    parameters = json.loads(json.dumps(served["parameters"]))
    taken = watch.validate_parameters(parameters)
    assert taken["referee"] == tmp_path / "checkpoints" and taken["referee_every"] == 5
    assert (taken["root"], taken["home"]) == (tmp_path / "captures", tmp_path / "home")
    assert taken["pattern"] == "{run}/{step}.pt" and taken["critical_fails"] is True
    assert served["interval"] == 300
