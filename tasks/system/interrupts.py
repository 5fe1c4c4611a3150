"""Ctrl-C reaches whoever waits."""

import signal


def reach_waits() -> None:
    """Have Ctrl-C end a wait for a lock, a thread or a process.

    Polars, once imported, handles SIGINT so that the system goes on with such a wait, and Python
    hears of it only afterwards.
    """
    signal.siginterrupt(signal.SIGINT, True)
