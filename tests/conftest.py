"""Fixtures: literal rows into SQL, captures into files, and real stores and servers, made once."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before anything imports them: neither server phones home from a test.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
os.environ.pop("MLFLOW_TRACKING_URI", None)
# Programs that tests start find compiled modules, as a user's do: compiling 3,000 takes 5 seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import polars as pl
import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

from tests.given import Row, batch_fields, ingest, sql_connection, token_frame
from timtrack.tasks.demo import published_run
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: of two workers neither waits for the other's last one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def run_sql() -> Callable[..., list[Row]]:
    """The rows that a table of `sql/` has over literal token rows."""

    def run(name: str, *rows: Row) -> list[Row]:
        with sql_connection(token_frame(list(rows))) as connection:
            return connection.sql(f"from {name}").pl().to_dicts()

    return run


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Write fields as `run-a/step_3/step_batch.pt` (or another name) with plain torch.save."""

    def save(fields: Any, name: str = "run-a/step_3/step_batch.pt") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(fields, path)
        return path

    return save


@pytest.fixture
def to_lake(tmp_path: Path) -> Callable[..., Step]:
    """One capture into the lake at `tmp_path / "lake"`."""
    return lambda path, **given: ingest(path, tmp_path / "lake", **given)


@pytest.fixture(scope="session")
def published(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Step, dict[str, pl.DataFrame]]:
    """The step of the published 400 tokens, by the whole road, and its tables."""
    folder = tmp_path_factory.mktemp("published")
    step = ingest(published_run.write_capture(folder), folder / "lake")
    return step, compute_step(step)


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables made, to be copied: making one takes seconds."""
    from timtrack.tasks.tracking.store import local_store

    home = tmp_path_factory.mktemp("store")
    local_store(home)
    return home / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, fresh_store: Path) -> Path:
    """A timtrack home with an empty lake and an empty MLflow store."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(fresh_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def filled(saved: Callable[..., Path], home: Path) -> Path:
    """A home whose lake has one step, with tables."""
    fields = batch_fields()
    fields["dense_log_probs"] = fields["old_log_probs"] * 0.9
    step = ingest(saved(fields), home / "lake")
    write_tables(step, sql_version(), compute_step(step))
    return home


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called in a test, it makes standard output a terminal of 80 columns."""

    def make() -> None:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", "80")

    return make


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real one; CI installs it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("no chromium on this machine")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """A Prefect server of its own with a temporary database, for all flow tests."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield
