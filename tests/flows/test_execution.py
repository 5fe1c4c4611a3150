"""Stages run plainly or by Prefect, by the same rules."""

import os
import subprocess
import sys

import pytest

from timtrack.flows import execution
from timtrack.tasks.pipeline.stage import Retries, stage


@pytest.fixture
def pauses(monkeypatch):
    """The pauses between tries, recorded instead of slept."""
    made = []
    monkeypatch.setattr(execution.time, "sleep", made.append)
    return made


def failing(times: int, retries: Retries):
    """A stage that fails so many times before it returns, and what it was called with."""
    calls = []

    @stage("count {value}", retries)
    def count(value):
        calls.append(value)
        if len(calls) <= times:
            raise ConnectionError(f"try {len(calls)}")
        return value

    return count, calls


def test_a_stage_is_tried_again_after_its_pauses(pauses):
    count, calls = failing(2, Retries((1, 5)))
    assert execution.call(count, 7) == 7
    assert (calls, pauses) == ([7, 7, 7], [1, 5])


def test_the_last_error_is_the_stage_s(pauses):
    count, calls = failing(9, Retries((1, 5)))
    with pytest.raises(ConnectionError, match="try 3"):
        execution.call(count, 7)
    assert (len(calls), pauses) == (3, [1, 5])
    assert not execution.is_done(count, 7)


def test_what_does_not_pass_is_not_tried_again(pauses):
    count, calls = failing(9, Retries((1, 5), lambda error: "2" in str(error)))
    with pytest.raises(ConnectionError, match="try 1"):
        execution.call(count, 7)
    assert (len(calls), pauses) == (1, [])


def test_what_waits_for_a_stage_that_failed_is_not_begun(pauses):
    count, _ = failing(9, Retries())
    after, calls = failing(0, Retries())
    failed = execution.submit(count, 7)
    assert str(execution.submit(after, 8, after=[failed]).result(raise_on_failure=False)) == "try 1"
    assert calls == []


def test_prefect_runs_a_stage_by_the_same_rules(prefect):
    count, calls = failing(1, Retries((0.01,), lambda error: "1" in str(error)))
    other, others = failing(1, Retries((0.01,), lambda error: "2" in str(error)))

    def both():
        return execution.submit(count, 7).result(), execution.is_done(other, 8)

    assert execution.as_flow(both)() == (7, False)
    assert (calls, others) == ([7, 7], [8])


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A folder and an environment that say nothing of Prefect."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_few_captures_are_analysed_plainly_where_no_server_is(nothing):
    assert execution.is_plain(1)
    assert not execution.is_plain(5)


def said(code: str) -> str:
    """What a new process in this folder prints: Prefect reads its settings once."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("prefect.toml", "[api]\nurl = 'http://10.0.0.5:4200/api'"),
        ("pyproject.toml", "[tool.prefect.api]\nurl = 'http://10.0.0.5:4200/api'"),
        (".env", "PREFECT_API_URL=http://10.0.0.5:4200/api"),
        (
            ".prefect/profiles.toml",
            "active = 'a'\n[profiles.a]\nPREFECT_API_URL = 'http://10.0.0.5:4200/api'",
        ),
    ],
)
def test_wherever_prefect_finds_a_server_it_is_used(nothing, file, text):
    (nothing / file).parent.mkdir(exist_ok=True)
    (nothing / file).write_text(text)
    code = "from timtrack.flows import execution; print(execution.is_plain(1))"
    assert said(code) == "False"
    (nothing / file).write_text(text.replace("http://10.0.0.5:4200/api", ""))
    assert said(code) == "True"
