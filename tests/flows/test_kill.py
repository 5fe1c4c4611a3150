"""The watcher killed with SIGKILL at random moments while captures come: nothing is lost."""

import os
import random
import signal
import subprocess
import threading
import time

import pytest
from prefect.settings import PREFECT_API_URL

from tests.given import batch_fields
from tests.given_lake import files, stored_points
from tests.servers import TIM
from timtrack.flows.watch import watch
from timtrack.tasks.backlog import survey
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.tables.query import run_query

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect")]

KILLS = int(os.environ.get("TIMTRACK_KILLS", "3"))
STEPS = 12


def watcher_of(root, home) -> tuple[list[str], dict[str, str]]:
    """`tim watch` on the tests' own Prefect server: one of its own would outlive a SIGKILL."""
    command = [*TIM, "--home", str(home), "watch", str(root)]
    return command, {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}


def write_captures(root, stop: threading.Event, seconds: float) -> None:
    """A trainer: every other capture is written slowly in place, the others at once by rename."""
    for step in range(1, STEPS + 1):
        fields = {k: v for k, v in batch_fields(seed=step).items() if k != "global_step"}
        if step % 2:
            save_step_batch(root / "a", step, fields)
        else:
            content = save_step_batch(root.parent / "elsewhere", step, fields).read_bytes()
            slow = root / "a" / f"step_{step}" / "step_batch.pt"
            slow.parent.mkdir(parents=True)
            with slow.open("wb") as file:
                for start in range(0, len(content), len(content) // 4):
                    file.write(content[start : start + len(content) // 4])
                    file.flush()
                    time.sleep(0.3)
        stop.wait(seconds / STEPS)


def read_all_along(home, stop: threading.Event, seen: list[str]) -> None:
    """A user who asks again and again; notes every answer that holds less than whole steps."""
    while not stop.wait(0.2):
        steps = all_steps(home / "lake")
        if steps:
            counts = run_query(steps, "select step, count(*) from tokens group by step").rows()
            expected = {step.step: step.facts()["tokens"] for step in steps}
            if dict(counts) != expected:
                seen.append(f"{dict(counts)} instead of {expected}")


def test_killed_at_random_moments_every_capture_is_analysed_once(tmp_path, home, fresh_store):
    root, rng = tmp_path / "runs", random.Random(0)
    root.mkdir()
    stop, half_seen = threading.Event(), []
    threads = [
        threading.Thread(target=write_captures, args=(root, stop, 6.0 * KILLS)),
        threading.Thread(target=read_all_along, args=(home, stop, half_seen)),
    ]
    for thread in threads:
        thread.start()
    options = ["--every", "0.2", "--quiet", "5"]
    command, environment = watcher_of(root, home)
    for kill in range(KILLS):
        # Two at once every third time: they must not get into each other's way.
        watchers = [
            subprocess.Popen(
                [*command, *options],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(2 if kill % 3 == 2 else 1)
        ]
        time.sleep(rng.uniform(3.0, 12.0))
        for watcher in watchers:
            watcher.send_signal(signal.SIGKILL)
            watcher.wait()
    threads[0].join()
    watch(root, home, quiet=0)
    stop.set()
    threads[1].join()

    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    (undisturbed / "mlflow.db").write_bytes(fresh_store.read_bytes())
    watch(root, undisturbed, quiet=0)
    assert half_seen == []
    assert survey.survey(root, home).is_empty
    assert data(home) == data(undisturbed)
    for metric in ("kl_k1", "trained_tokens", "spearman"):
        assert stored_points(home, metric) == stored_points(undisturbed, metric)
    assert len(stored_points(home, "kl_k1")) == STEPS


def data(home) -> dict[str, bytes]:
    """The lake without marks, locks and what killed processes left aside."""
    found = files(home / "lake")
    return {n: c for n, c in found.items() if "logged-" not in n and ".staging" not in n}


def test_sigterm_ends_the_watcher_within_seconds(tmp_path, home):
    """In the middle of its work, and the next one goes on."""
    root = tmp_path / "runs"
    for step in range(1, 7):
        fields = {k: v for k, v in batch_fields(seed=step).items() if k != "global_step"}
        save_step_batch(root / "a", step, fields)
    command, environment = watcher_of(root, home)
    watcher = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    while not all_steps(home / "lake"):
        time.sleep(0.1)
    asked = time.monotonic()
    watcher.send_signal(signal.SIGTERM)
    watcher.communicate(timeout=30)
    assert time.monotonic() - asked < 15
    watch(root, home)
    assert [step for step, _ in stored_points(home, "kl_k1")] == [1, 2, 3, 4, 5, 6]
