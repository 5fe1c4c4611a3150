"""Who logs to MLflow: this process, or one that was started for it while a capture is read.

Only what analyses a single capture starts one: MLflow takes as long to import as all else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timtrack.tasks.system import isolation

PURPOSE = "logging to MLflow"


def start() -> None:
    """Have another process import MLflow; what is logged then, it logs."""
    isolation.prepare(call_outputs, "prepare", (), purpose=PURPOSE)


def open_store(home: Path) -> None:
    """Have that process open MLflow's store, which is made if it is not there."""
    isolation.prepare(call_outputs, "open_store", (home,), purpose=PURPOSE)


def end() -> None:
    """End it: the next one may have another environment."""
    isolation.release(PURPOSE)


def call_outputs(name: str, arguments: Sequence[Any]) -> Any:
    """What a function of `outputs` returns."""
    from timtrack.tasks.pipeline import outputs

    return getattr(outputs, name)(*arguments)


def outputs(name: str, *arguments: Any) -> Any:
    """The same, by the process that was prepared, if one was."""
    if isolation.is_prepared(PURPOSE):
        return isolation.apart(call_outputs, name, arguments, size=None, purpose=PURPOSE)
    return call_outputs(name, arguments)
