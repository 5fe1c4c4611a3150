"""When MLflow was asked which runs it has: not again while nothing can have changed.

A local store is a file, whose state says whether anybody wrote to it; a server is asked now and
then. To ask takes seconds of imports, which a sweep without work does not need.
"""

import json
import time
from pathlib import Path
from typing import Any

from timtrack.tasks.backlog import survey
from timtrack.tasks.system import durable

NAME = "asked.json"  # in the home
PAUSE = 600.0  # seconds after which a server is asked again


def look(home: Path) -> dict[str, Any]:
    """The state of the store; to be taken before it is asked."""
    return {
        "mark": survey.logged_mark(home),
        "files": [_stamp(home / f"mlflow.db{end}") for end in ("", "-wal")],
        "at": time.time(),
    }


def note(home: Path, before: dict[str, Any]) -> None:
    """Remember that the store was asked after that look."""
    durable.write(home / NAME, json.dumps(before))


def is_due(home: Path) -> bool:
    """Whether runs may have been deleted since it was asked."""
    try:
        last, now = json.loads((home / NAME).read_text()), look(home)
        if survey.mlflow_server():
            return bool(last["mark"] != now["mark"] or not 0 <= now["at"] - last["at"] < PAUSE)
        return bool((last["mark"], last["files"]) != (now["mark"], now["files"]))
    except (OSError, ValueError, TypeError, KeyError):
        return True


def _stamp(file: Path) -> list[int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]
