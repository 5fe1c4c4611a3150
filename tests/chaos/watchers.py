"""The watchers under test: started, signalled, and started again when they ended by themselves."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import psutil

from tests.servers import TIM

if TYPE_CHECKING:
    from tests.chaos.world import World

PROJECT = Path(__file__).parents[2]
OPTIONS = ("--every", "0.5", "--quiet", "5")
# What a watcher may end with after a signal; -15 if it comes before Python listens to it.
ENDINGS = {signal.SIGKILL: {-9}, signal.SIGTERM: {130, -15}}
PATIENCE = 60.0  # seconds in which SIGTERM must end a watcher
TOLD, WIDEST = 25, 300  # last lines, and characters of each, that a failure shows


class Watcher:
    """One `tim watch`, or the place of one."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.lock = threading.RLock()  # of whoever starts or ends it
        self.process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._starts = 0

    def start(self) -> None:
        """Start it in a session of its own, by which its children are known afterwards."""
        self._starts += 1
        self._log = self.world.folder / f"{self.name}.{self._starts}.log"
        command = [*TIM, "--home", self.world.home, "watch", self.world.root, *OPTIONS]
        # Through a pipe: a limit to the size of files is not one to what it may say.
        with self._log.open("wb") as log:
            writer = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log)
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=PROJECT,
                env=self.world.watching(),
                stdout=writer.stdin,
                stderr=writer.stdin,
                start_new_session=True,
            )
        self._writer = writer
        writer.stdin.close()
        self.world.watchers.sessions.append(self.process.pid)

    def end(self, how: signal.Signals) -> None:
        """End it by a signal; it is a failure if it ends otherwise."""
        if self.process is None or self.check():
            return
        self.process.send_signal(how)
        try:
            code = self.process.wait(PATIENCE)
            if code not in ENDINGS[how]:
                self._failed(f"ended with {code} after {how.name}")
        except subprocess.TimeoutExpired:
            self.world.fail(f"{self.name} did not end within {PATIENCE:.0f} s of {how.name}")
            self.process.kill()
            self.process.wait()
        self._gone()

    def check(self) -> bool:
        """Whether it ended by itself, which is a failure."""
        if self.process is None or self.process.poll() is None:
            return False
        self._failed(f"ended by itself: {_ending(self.process.returncode)}")
        self._gone()
        return True

    def _failed(self, what: str) -> None:
        self._writer.wait()
        said = self._log.read_text(errors="backslashreplace").splitlines()
        if self.process.returncode == 2 and any("alerts.toml" in line for line in said):
            # Rules that cannot be read are refused at the start, as any wrong use is.
            self.world.say("watcher", f"{self.name} was not started with half of an alerts.toml")
            return
        # Of a signal the faulthandler tells first where it was, then about all other threads.
        fatal = next((n for n, line in enumerate(said) if line.startswith("Fatal")), len(said))
        told = [line[:WIDEST] for line in said[fatal : fatal + TOLD] or said[-TOLD:]]
        self.world.fail("\n".join([f"{self.name} ({self._log.name}) {what}", *told]))

    def _gone(self) -> None:
        self._writer.wait()
        self.process = None


class Watchers:
    """The one that always runs, and one beside it for a while."""

    def __init__(self, world: "World") -> None:
        self.sessions: list[int] = []
        self.first, self.second = Watcher(world, "watcher"), Watcher(world, "second")
        self.all = (self.first, self.second)
        self._world = world

    @contextmanager
    def held(self, rng: Random) -> Iterator[Watcher]:
        """One that runs, kept from being ended or started by others until the end of the block."""
        running = [watcher for watcher in self.all if watcher.process]
        chosen = rng.choice(running or [self.first])
        with chosen.lock:
            yield chosen

    def attend(self) -> None:
        """Do as a supervisor does: who ended is noted, and started again."""
        for watcher in self.all:
            if watcher.lock.acquire(blocking=False):
                try:
                    if watcher.check() or (watcher is self.first and watcher.process is None):
                        watcher.start()
                        self._world.say("watcher", f"{watcher.name} was started")
                finally:
                    watcher.lock.release()

    def end(self) -> None:
        """All of them."""
        for watcher in self.all:
            with watcher.lock:
                watcher.end(signal.SIGTERM)

    def maps(self) -> list[str]:
        """What each that runs has mapped into memory, as Linux tells it."""
        found = []
        for watcher in self.all:
            with suppress(AttributeError, OSError):  # none, or it ended just now
                found.append(Path(f"/proc/{watcher.process.pid}/maps").read_text())
        return found

    def left(self) -> list[str]:
        """Processes that watchers left running; a zombie has ended, and is for us to reap."""
        found = [p for p in psutil.process_iter() if _session(p) in self.sessions]
        return [
            f"process {p.pid} ({p.name()}, {status})"
            for p in found
            if (status := _status(p)) != psutil.STATUS_ZOMBIE
        ]


def _status(process: Any) -> str:
    try:
        return str(process.status())
    except psutil.Error:  # it ended just now
        return str(psutil.STATUS_ZOMBIE)


def _session(process: Any) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
