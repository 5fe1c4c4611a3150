"""The memory budget of the queries over one step; beyond it, DuckDB spills to disk.

Does not import DuckDB, so that the command line can validate the setting.
"""

import os
import re

from timtrack.tasks.messages.errors import TimtrackError

VARIABLE = "TIMTRACK_MEMORY"

# 8 M tokens take as long with 384 MiB as with 1 GiB, and 67 M complete (2026-11). The process holds
# some 300 MB besides, most of it imports.
DEFAULT = "384MiB"
SIZE = re.compile(r"\d+(\.\d+)?\s*[kMG]i?B", re.IGNORECASE)


class BadBudget(TimtrackError):
    """Not a size of memory."""


def memory() -> str:
    """TIMTRACK_MEMORY, or the default; raises BadBudget."""
    size = os.environ.get(VARIABLE) or DEFAULT
    if not SIZE.fullmatch(size.strip()):
        raise BadBudget(f"{VARIABLE} is {size!r}, expected a size like 512MiB or 2GB")
    return size.strip()
