"""How long ago a file was written, even if clocks disagree.

A file's time may lie in the future: copied from a machine whose clock is ahead, or set by hand.
"""

import os
import time

_first_seen: dict[tuple[int, int, int], float] = {}  # of this process; by device, file and time


def seconds_since_write(stat: os.stat_result) -> float:
    """Seconds since a file was written.

    If that is in the future, since its entry was changed; if that is too (a file server whose
    clock is ahead), since this process first saw it so.
    """
    now = time.time()
    for then in (stat.st_mtime_ns, stat.st_ctime_ns):
        if then / 1e9 <= now:
            return now - then / 1e9
    key = (stat.st_dev, stat.st_ino, stat.st_mtime_ns)
    return time.monotonic() - _first_seen.setdefault(key, time.monotonic())
