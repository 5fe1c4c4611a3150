"""Settings: the TIMTRACK_ variables, read once where a verb or a flow starts, then passed down.

TIMTRACK_MEMORY alone is read where the queries run: it is a property of that machine, and a Dask
worker's may have less than the one that the flow runs on.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from timtrack.flows import runner as runners
from timtrack.tasks.tables import frameworks, memory

if TYPE_CHECKING:  # the command line starts without what reads bands
    from timtrack.tasks.verdicts.bands import Bands

HOME = "TIMTRACK_HOME"
RUNNER = "TIMTRACK_RUNNER"
PARITY = "TIMTRACK_PARITY"
BANDS = "TIMTRACK_BANDS"


@dataclass(frozen=True)
class Settings:
    """How captures are analysed, whatever they are."""

    runner: str
    parity: tuple[str, ...]  # frameworks whose names are logged too
    bands: "Bands"

    @classmethod
    def read(
        cls, runner: str | None = None, parity: str | None = None, bands: Path | None = None
    ) -> "Settings":
        """The variables, each behind the argument of its name.

        Raises BadRunner, BadFramework, BadBands, BadBudget.
        """
        from timtrack.tasks.verdicts.bands import Bands

        memory.memory()
        own = bands or _path(os.environ.get(BANDS))
        return cls(
            runners.check(runner or os.environ.get(RUNNER) or runners.DEFAULT),
            frameworks.parse(parity or os.environ.get(PARITY, "")),
            Bands.of(own),
        )


def default_home() -> Path:
    """TIMTRACK_HOME, else ./timtrack."""
    return Path(os.environ.get(HOME) or "timtrack")


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
