"""Environment of the verbs: defaults for the servers behind them, and checks before they run."""

import os
import tempfile
from argparse import Namespace
from pathlib import Path

from timtrack.flows.settings import Settings
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.system import isolation

WRITING = {"ingest", "watch", "serve", "compare", "demo"}  # into --home
ALERTING = {"ingest", "watch", "serve"}  # judge runs by rules


class BadFolder(TimtrackError):
    """A folder is not there, or cannot be written to."""


def settle_environment() -> None:
    """Defaults for the servers behind the verbs; what the user has set stays."""
    for name, value in {
        "DO_NOT_TRACK": "1",  # Prefect's notice of telemetry, and telemetry
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


READING = ("timtrack.tasks.lake.conversion", "torch")  # what the process that reads captures needs


def begin_reading(options: Namespace) -> None:
    """Start the process that reads captures, if a verb is given one that needs a second for that.

    Its imports go on while settings and what the verb needs are read.
    """
    given = [*getattr(options, "paths", ()), *filter(None, [getattr(options, "what", None)])]
    if any(Path(one).suffix == ".pt" and Path(one).is_file() for one in given):
        isolation.prepare(isolation.import_all, *READING)


def settings(options: Namespace) -> Settings:
    """The verb's settings: its options, else the environment.

    Raises TimtrackError for what would end the verb later on: settings, folders, rules.
    """
    chosen = Settings.read(getattr(options, "runner", None), getattr(options, "parity", None))
    if "root" in options and not options.root.is_dir():
        raise BadFolder(f"{options.root} is not a folder")
    if options.verb in WRITING:
        _check_writable(options.home)
    if options.verb in ALERTING:
        from timtrack.tasks.verdicts import alert_rules

        alert_rules.of_home(options.home, getattr(options, "alerts", None), chosen.bands)
    return chosen


def _check_writable(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise BadFolder(
            f"cannot write to {home}: {error.strerror}; set --home or TIMTRACK_HOME"
        ) from error
