"""The place where it happens: folders, processes, and a timeline of what was done."""

import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.ledger import Ledger
from tests.chaos.servers import Servers
from tests.chaos.watchers import PROJECT, TIM, Watchers

FOREIGN = ("PREFECT_", "MLFLOW_", "TIMTRACK_")  # settings of whoever starts the harness


@dataclass
class World:
    """One watched folder with its home; everything lies below `folder`."""

    folder: Path
    ledger: Ledger = field(default_factory=Ledger)
    timeline: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.began = time.monotonic()  # anew by `begin`
        for folder in (self.root, self.home, self.elsewhere):
            folder.mkdir(parents=True)
        self.servers = Servers(self.folder, self.environment())
        self.watchers = Watchers(self)

    def begin(self) -> None:
        """From now on the plan's seconds count."""
        self.began = time.monotonic()

    @property
    def root(self) -> Path:
        return self.folder / "disturbed" / "runs"

    @property
    def home(self) -> Path:
        return self.folder / "disturbed" / "home"

    @property
    def elsewhere(self) -> Path:
        """Where files are made that are then put into the watched folder, or linked to."""
        return self.folder / "disturbed" / "elsewhere"

    def environment(self, **more: str) -> dict[str, str]:
        """That of every process here: no setting of the user's, nothing phones home."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        return {
            **own,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            **more,
        }

    def tim(
        self, *arguments: str | Path, home: Path | None = None, store: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one `tim` to its end, by default with the home and the servers of this world."""
        return subprocess.run(
            [*TIM, "--home", home or self.home, *arguments],
            cwd=PROJECT,
            env=self.watching(store),
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )

    def watching(self, store: str | None = None) -> dict[str, str]:
        """The environment of `tim`; an empty `store` is MLflow's own in the home."""
        tracking = self.servers.mlflow.url if store is None else store
        urls = {"PREFECT_API_URL": f"{self.servers.prefect.url}/api"}
        return self.environment(**urls, **({"MLFLOW_TRACKING_URI": tracking} if tracking else {}))

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def say(self, actor: str, action: str, began: float | None = None) -> None:
        """A line of the timeline: when it began and ended."""
        times = f"{self.now if began is None else began:7.1f} {self.now:7.1f}"
        self.timeline.append(f"{times}  {actor:9} {action}")

    def fail(self, what: str) -> None:
        """Something that must not happen, found while the world goes on."""
        self.failures.append(what)
        self.say("FAILURE", what.splitlines()[0])

    def shown(self, path: Path) -> str:
        """A path as the timeline says it."""
        return repr(str(path.relative_to(self.root)))[1:-1]
