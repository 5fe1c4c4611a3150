"""Seconds and own memory of the stages of a process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERVAL = 0.005  # seconds between two looks at the memory
STATUS = Path("/proc/self/status")


def own_bytes() -> int:
    """The anonymous memory of this process now; pages of files that are mapped do not count."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


class Stopwatch:
    """Adds up, by stage, the seconds and keeps the peak of the memory while it ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.last = "imports"  # stage that was begun last
        self._stage: str | None = None

    def begin(self) -> None:
        """From now on memory is watched; what is there already is that of the imports."""
        self.peaks["imports"] = own_bytes()
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What happens inside is the stage's; a second time it is added to the first.

        Memory is that of the innermost stage.
        """
        around, began = self._stage, time.perf_counter()
        self._stage = self.last = name
        self._look(name)
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self._look(name)
            self._stage = around
            self.seconds[name] = self.seconds.get(name, 0.0) + took

    def _watch(self) -> None:
        while True:
            time.sleep(INTERVAL)
            if stage := self._stage:
                self._look(stage)

    def _look(self, stage: str) -> None:
        self.peaks[stage] = max(self.peaks.get(stage, 0), own_bytes())
