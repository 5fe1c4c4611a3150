"""Staging: where data is written before it is published, and where what is deleted goes first."""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from timtrack.tasks.system.processes import lives

# Machines that share a lake may share a name, so what is left aside must be old, too.
ABANDONED = 600.0  # seconds


def sweep_staging(lake: Path) -> None:
    """Delete what processes of this machine left aside when they were killed."""
    for folder in (lake / ".staging").glob(f"*@{socket.gethostname()}@*"):
        is_old = time.time() - folder.stat().st_mtime > ABANDONED
        if is_old and not lives(int(folder.name.split("@")[0])):
            shutil.rmtree(folder, ignore_errors=True)


def scratch_folder(lake: Path) -> Path:
    """A name for a folder of this process on the lake's file system, that no reader looks at."""
    return lake / ".staging" / f"{os.getpid()}@{socket.gethostname()}@{uuid.uuid4().hex[:8]}"


@contextmanager
def aside(lake: Path) -> Iterator[Path]:
    """Such a folder; gone afterwards."""
    folder = scratch_folder(lake)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def discard(lake: Path, paths: list[Path]) -> None:
    """Take folders out of sight at once, then delete them."""
    for path in paths:
        with aside(lake) as folder:
            path.rename(folder / "old")
