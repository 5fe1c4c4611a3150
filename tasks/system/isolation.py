"""Work in processes apart: what a hostile or changing file does to its reader ends that alone.

A file cut short while it is mapped raises SIGBUS, a library may abort, a kilobyte may take hours
or more memory than there is. None of these is an exception; each ends the process that reads. So
captures are read in processes that are kept for the next one, held to processor time and memory
that their size allows for, and a death is told as `Died`.
"""

import atexit
import contextlib
import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from timtrack.tasks.system import serving
from timtrack.tasks.system.interrupts import reach_waits

KEPT = 60.0  # seconds that a process waits for more work


# What the caller does while another process works: it is given whether the answer is there.
Meanwhile = Callable[[Callable[[], bool]], None]


READING = "reading it"  # captures; what opened a hostile one does nothing else


class Died(Exception):
    """The process that did the work was ended: `how`, a signal's name or an exit code."""

    def __init__(self, how: str, purpose: str = READING) -> None:
        super().__init__(how, purpose)
        self.how = how
        self.purpose = purpose

    def __str__(self) -> str:
        return f"the process that was {self.purpose} was ended by {self.how}"


class Stopped(Exception):
    """The work was given up, because the program ends."""


class _Worker:
    """A process that does one thing after the other, for one purpose."""

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        self.unasked = 0  # answers to come that nobody waits for
        ours, theirs = socket.socketpair()
        with theirs:
            call = f"serve({theirs.fileno()}, {os.getpid()})"
            self.process = subprocess.Popen(
                # -P: nothing is imported from the folder that it is started in.
                [sys.executable, "-P", "-c", f"from {serving.__name__} import serve; {call}"],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
            )
        self.connection = Connection(ours.detach())
        self.rested = 0.0  # since, by the monotonic clock

    def prepare(self, work: bytes) -> None:
        """Begin with what nobody waits for."""
        self._send(work)
        self.unasked += 1

    def do(self, work: bytes, meanwhile: Meanwhile | None = None) -> tuple[bool, Any]:
        """Whether the call returned, with its result or exception; raises Died."""
        self._send(work)
        if meanwhile:
            meanwhile(self._has_answered)
        reach_waits()
        try:
            while self.unasked:
                self._pass_over()
            return pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise self._death() from None

    def _send(self, work: bytes) -> None:
        try:
            self.connection.send_bytes(work)
        except OSError:
            raise self._death() from None

    def _has_answered(self) -> bool:
        """Whether the answer is there, or will never be."""
        try:
            while self.unasked and self.connection.poll():
                self._pass_over()
            return not self.unasked and self.connection.poll()
        except (EOFError, OSError):
            return True

    def _pass_over(self) -> None:
        self.connection.recv_bytes()
        self.unasked -= 1

    def end(self) -> None:
        """Release the worker: it exits once its pipe closes."""
        self.connection.close()
        self.process.wait()

    def _death(self) -> Died:
        self.connection.close()
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Died(how, self.purpose)


_idle: list[_Worker] = []
_all: set[_Worker] = set()
_lock = threading.Lock()
_stopping = threading.Event()
TOO_LONG = "SIGXCPU"


def apart(
    function: Callable[..., Any],
    *arguments: Any,
    size: int | None = 0,
    purpose: str = READING,
    meanwhile: Meanwhile | None = None,
) -> Any:
    """What a function of a module returns or raises, done in another process; raises Died.

    `size` is how many bytes it has to read, which limits what it may take; None does not. A process
    that dies is not blamed on its work at once (somebody may have killed it): it is tried once
    more, unless it took too long.
    """
    work = _work(function, arguments, size)
    try:
        is_done, result = _tried(work, purpose, meanwhile)
    except Died as death:
        if death.how == TOO_LONG:
            raise
        is_done, result = _tried(work, purpose)
    if is_done:
        return result
    raise result


def _work(function: Callable[..., Any], arguments: tuple[Any, ...], size: int | None) -> bytes:
    """What a process is sent: also where this one stands, as paths may be relative to it."""
    here = None
    with contextlib.suppress(OSError):  # the folder is gone
        here = str(Path.cwd())
    return pickle.dumps((function, arguments, size, here))


def prepare(function: Callable[..., Any], *arguments: Any, purpose: str = READING) -> None:
    """Have a process begin with that: what comes next for this purpose is done by it, sooner."""
    with _lock:
        if _stopping.is_set():
            return
        if not (ready := _ready(purpose)):
            ready = [_begun(purpose)]
            _idle.append(ready[0])
        ready[-1].rested = time.monotonic()
        with contextlib.suppress(Died):  # another one will do the work
            ready[-1].prepare(_work(function, arguments, None))


def release(purpose: str) -> None:
    """End the processes that wait for work of this purpose."""
    with _lock:
        for worker in _ready(purpose):
            _idle.remove(worker)
            _end_now(worker)


def _end_now(worker: _Worker) -> None:
    _all.discard(worker)
    worker.process.kill()
    worker.end()


def import_all(*modules: str) -> None:
    """What a process can begin with, whatever it is asked to do."""
    for module in modules:
        importlib.import_module(module)


def is_prepared(purpose: str) -> bool:
    """Whether a process waits for work of this purpose."""
    with _lock:
        return bool(_ready(purpose))


def _ready(purpose: str) -> list[_Worker]:
    return [worker for worker in _idle if worker.purpose == purpose]


def _begun(purpose: str) -> _Worker:
    if not _all:
        atexit.register(stop)
    worker = _Worker(purpose)
    _all.add(worker)
    return worker


def _taken(purpose: str) -> _Worker:
    """A process that waits for work of this purpose, or another one."""
    with _lock:
        if _stopping.is_set():
            raise Stopped("the program ends")
        if not (ready := _ready(purpose)):
            return _begun(purpose)
        _idle.remove(ready[-1])
        return ready[-1]


def _tried(work: bytes, purpose: str, meanwhile: Meanwhile | None = None) -> tuple[bool, Any]:
    worker = _taken(purpose)
    try:
        answer = worker.do(work, meanwhile)
    except Died:
        _all.discard(worker)
        if _stopping.is_set():
            raise Stopped("the program ends") from None
        raise
    except BaseException:  # Ctrl-C: nobody waits for it any more
        _end_now(worker)
        raise
    worker.rested = time.monotonic()
    with _lock:
        _idle.append(worker)
    return answer


def rest() -> None:
    """End the processes that had nothing to do for a while: each holds some 200 MB."""
    tired = time.monotonic() - KEPT
    with _lock:
        going = [worker for worker in _idle if worker.rested < tired]
        _idle[:] = [worker for worker in _idle if worker not in going]
    for worker in going:
        _all.discard(worker)
        worker.end()


def stop() -> None:
    """Kill every worker process at once: the program is being terminated."""
    _stopping.set()
    for worker in list(_all):
        worker.process.kill()


def is_stopping() -> bool:
    """Whether `stop` was called."""
    return _stopping.is_set()
