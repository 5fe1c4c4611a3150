"""The other side of `isolation`: the process that does what it is sent, within its limits."""

import contextlib
import os
import pickle
import resource
import signal
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

LOOK = 1.0  # seconds after which an orphan notices
# What a reading may take, many times what one takes (60 MB/s; ten times the bytes of JSON).
SECONDS, BYTES_PER_SECOND = 20, 1_000_000  # of processor time
MEMORY, MEMORY_PER_CORE, TIMES = 2 << 30, 64 << 20, 16  # bytes; stacks; times the bytes read
FIRST_KILLED = "1000"  # of oom_score_adj: where memory ends, the reader goes and not the watcher


def serve(handle: int, parent: int) -> None:
    """Do what comes until the parent is gone."""
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
        answer = _answer(work)
        with contextlib.suppress(OSError):  # nobody waits for it any more
            connection.send_bytes(answer)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)


def _answer(work: bytes) -> bytes:
    try:
        function, arguments, size, here = pickle.loads(work)
        if here is not None:
            os.chdir(here)
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
