"""What a watcher watches: a folder, and what its captures are called."""

from dataclasses import dataclass
from pathlib import Path

from timtrack.tasks.backlog import survey
from timtrack.tasks.backlog.survey import Backlog
from timtrack.tasks.captures.completeness import QUIET, is_complete
from timtrack.tasks.captures.paths import Pattern
from timtrack.tasks.captures.source import Source
from timtrack.tasks.system import isolation
from timtrack.tasks.tables import frameworks


@dataclass(frozen=True)
class Watched:
    """What is watched; the fields are parameters of the flow `watch`."""

    root: Path
    quiet: float = QUIET
    pattern: str | None = None
    marker: str | None = None
    alerts: Path | None = None
    columns: str | None = None
    parity: str | None = None
    bands: Path | None = None
    referee: Path | None = None
    referee_every: int = 10
    follows: bool = False

    def look(self, home: Path) -> Backlog:
        """What is still to be done."""
        parity = frameworks.parse(self.parity or "")
        return survey.survey(self.root, home, self.pattern, self.columns, parity)

    def complete(self, seen: Backlog) -> list[Source]:
        """The pending captures that are not still being written."""
        return [source for source in seen.pending if self._is_complete(source)]

    def _is_complete(self, source: Source) -> bool:
        try:
            return is_complete(source, self.quiet, self.marker)
        except isolation.Stopped:
            raise
        except Exception:  # gone since, or no longer what it was: the others are asked
            return False

    def named(self, source: Source) -> dict[str, object]:
        """Run and step of a capture, if the pattern says them."""
        return Pattern(self.pattern).reads(source.path, self.root) if self.pattern else {}
