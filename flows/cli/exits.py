"""How `tim` exits: exit codes, one-line errors, written files, SIGTERM."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timtrack.flows import runner
from timtrack.flows.cli.printing import as_json, complain, say

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
PATIENCE = 15.0  # seconds; a service manager kills after 30 or 90


def fail(message: str, *more: str) -> int:
    """Wrong usage: one line on stderr, further lines indented."""
    complain(f"tim: {message}", *more)
    return USAGE


def written(output: Path, write: Callable[[], object], facts: Any = None) -> int:
    """Write a file and say where, with `facts` of it as JSON, or why it cannot be."""
    try:
        write()
    except OSError as error:
        return fail(f"cannot write {output}: {error.strerror}")
    if facts is None:
        say(str(output))
    else:
        as_json({"file": str(output.absolute()), **facts})
    return DONE


def end_when_told() -> None:
    """SIGTERM ends like Ctrl-C: temporary files are deleted, the lake is unchanged.

    While a flow runs, Prefect has handlers of its own, which tell its server, and try again for
    minutes if that is gone: a thread that is woken by either signal sees to it that there is an
    end.
    """
    signal.signal(signal.SIGTERM, _interrupted)
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_see_to_an_end, args=(woken,), daemon=True).start()


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _see_to_an_end(woken: socket.socket) -> None:
    from timtrack.tasks.system import isolation

    while not {signal.SIGTERM, signal.SIGINT} & {*woken.recv(1)}:
        pass
    isolation.stop()  # whoever waits for what is read goes on, to its end
    time.sleep(PATIENCE)
    runner.end_server()
    os._exit(INTERRUPTED)
