"""Environment of the verbs: defaults for the servers behind them, and checks before they run."""

import os
import tempfile
from argparse import Namespace
from pathlib import Path

from timtrack.flows import runner
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.system import memory
from timtrack.tasks.tables import frameworks

WRITING = {"ingest", "watch", "serve", "compare", "demo"}  # into --home
ALERTING = {"ingest", "watch", "serve"}  # judge runs by rules


class BadFolder(TimtrackError):
    """A folder is not there, or cannot be written to."""


def settle_environment() -> None:
    """Defaults for the servers behind the verbs; what the user has set stays."""
    for name, value in {
        # The in-process Prefect server needs more than the default 20 s on a busy machine.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # A server that is gone is asked again by the watcher, with pauses that grow.
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        # A failed capture is told once, in our words; the Prefect UI has the traceback.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        # What Prefect and MLflow start imports nothing from the folder that it is started in.
        "PYTHONSAFEPATH": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # A server that does not answer is asked again by the flow, with pauses of its own.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    }.items():
        os.environ.setdefault(name, value)


def check(options: Namespace) -> None:
    """Raise TimtrackError for what would end the verb later on: environment, folders, rules."""
    memory.memory()
    frameworks.asked()
    runner.check(os.environ.get(runner.VARIABLE) or "threads")
    if "root" in options and not options.root.is_dir():
        raise BadFolder(f"{options.root} is not a folder")
    if options.verb in WRITING:
        _check_writable(options.home)
    if os.environ.get("TIMTRACK_BANDS"):
        from timtrack.tasks.verdicts import bands

        bands.for_family("default")
    if options.verb in ALERTING:
        from timtrack.tasks.verdicts import alerts

        alerts.of_home(options.home, getattr(options, "alerts", None))


def _check_writable(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise BadFolder(
            f"cannot write to {home}: {error.strerror}; set --home or TIMTRACK_HOME"
        ) from error
