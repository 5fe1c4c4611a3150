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
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from timtrack.tasks.system.interrupts import reach_waits

KEPT = 60.0  # seconds that a process waits for more work
LOOK = 1.0  # seconds after which an orphan notices
# What a reading may take, many times what one takes (60 MB/s; ten times the bytes of JSON).
SECONDS, BYTES_PER_SECOND = 20, 1_000_000  # of processor time
MEMORY, MEMORY_PER_CORE, TIMES = 2 << 30, 64 << 20, 16  # bytes; stacks; times the bytes read
FIRST_KILLED = "1000"  # of oom_score_adj: where memory ends, the reader goes and not the watcher


# What the caller does while another process works: it is given whether the answer is there.
Meanwhile = Callable[[Callable[[], bool]], None]


class Died(Exception):
    """The process that did the work was ended: `how`, a signal's name or an exit code."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how

    def __str__(self) -> str:
        return f"the process that read it was ended by {self.how}"


class Stopped(Exception):
    """The work was given up, because the program ends."""


READING = "reading"  # captures; what opened a hostile one does nothing else


class _Worker:
    """A process that does one thing after the other, for one purpose."""

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        self.is_preparing = False
        ours, theirs = socket.socketpair()
        with theirs:
            call = f"serve({theirs.fileno()}, {os.getpid()})"
            self.process = subprocess.Popen(
                # -P: nothing is imported from the folder that it is started in.
                [sys.executable, "-P", "-c", f"from {__name__} import serve; {call}"],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
            )
        self.connection = Connection(ours.detach())
        self.rested = 0.0  # since, by the monotonic clock

    def prepare(self, work: bytes) -> None:
        """Begin with what nobody waits for."""
        self.connection.send_bytes(work)
        self.is_preparing = True

    def do(self, work: bytes, meanwhile: Meanwhile | None = None) -> tuple[bool, Any]:
        """Whether the call returned, with its result or exception; raises Died."""
        try:
            self.connection.send_bytes(work)
            if self.is_preparing:
                self.connection.recv_bytes()
                self.is_preparing = False
            if meanwhile:
                meanwhile(self.connection.poll)
            reach_waits()
            return pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise Died(self._ended()) from None

    def end(self) -> None:
        """Release the worker: it exits once its pipe closes."""
        self.connection.close()
        self.process.wait()

    def _ended(self) -> str:
        self.connection.close()
        code = self.process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


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
    work = pickle.dumps((function, arguments, size))
    try:
        is_done, result = _tried(work, purpose, meanwhile)
    except Died as death:
        if death.how == TOO_LONG:
            raise
        is_done, result = _tried(work, purpose)
    if is_done:
        return result
    raise result


def prepare(function: Callable[..., Any], *arguments: Any, purpose: str = READING) -> None:
    """Have a process begin with that: what comes next for this purpose is done by it, sooner."""
    with _lock:
        if not _stopping.is_set() and not _ready(purpose):
            worker = _begun(purpose)
            worker.prepare(pickle.dumps((function, arguments, None)))
            _idle.append(worker)


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


def serve(handle: int, parent: int) -> None:
    """The other side: do what comes until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to act on
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_KILLED)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    connection = Connection(handle)
    while True:
        try:
            work = connection.recv_bytes()
        except (EOFError, OSError):
            return
        connection.send_bytes(_answer(work))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)


def _answer(work: bytes) -> bytes:
    try:
        function, arguments, size = pickle.loads(work)
        if size is not None:
            _limit(size)
        return pickle.dumps((True, function(*arguments)))
    except BaseException as error:  # a Rust library's panic is no Exception
        return _as_bytes(error)


def _limit(size: int) -> None:
    """Hold this process to what work on so many bytes may take, from here on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + SECONDS + size // BYTES_PER_SECOND
    _lower(resource.RLIMIT_CPU, seconds)
    with contextlib.suppress(OSError):  # where the kernel does not say
        status = Path("/proc/self/status").read_text()
        now = int(status.split("VmData:")[1].split()[0]) << 10
        cores = MEMORY_PER_CORE * (os.cpu_count() or 1)
        _lower(resource.RLIMIT_DATA, now + MEMORY + cores + TIMES * size)


def _lower(what: int, limit: int) -> None:
    most = resource.getrlimit(what)[1]
    allowed = limit if most == resource.RLIM_INFINITY else min(limit, most)
    resource.setrlimit(what, (allowed, most))


def _as_bytes(error: BaseException) -> bytes:
    """What was raised, with where as a note; as a RuntimeError if it cannot be carried over."""
    where = "".join(traceback.format_exception(error))
    if isinstance(error, Exception):
        error.add_note(where)
        with contextlib.suppress(Exception):
            carried = pickle.dumps((False, error))
            pickle.loads(carried)
            return carried
    stand_in = RuntimeError(f"{type(error).__name__}: {error}")
    stand_in.add_note(where)
    return pickle.dumps((False, stand_in))
