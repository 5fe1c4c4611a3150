"""Files that are opened to be read: regular ones, whatever their name leads one to expect.

A pipe would be waited for, a folder or a device is no capture.
"""

import os
import stat
from io import BufferedReader
from pathlib import Path

from tasks.tokens import BadCapture


def opened(path: Path) -> BufferedReader:
    """An open file; raises BadCapture for what is no regular one, without waiting for it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise BadCapture(f"{path} is not a file")
