"""Opening files for reading: regular files only, whatever their name suggests.

Opening a pipe would block; a directory or a device is no capture.
"""

import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

from timtrack.tasks.messages.errors import BadCapture


def opened(path: Path) -> BufferedReader:
    """Open a regular file; raises BadCapture for a pipe or device, without blocking."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and not _is_hollow(status):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise BadCapture(
            f"{path} says {status.st_size} bytes and has {BLOCK * status.st_blocks} on the disk: "
            "the rest are holes, which would be read as zeros"
        )
    raise BadCapture(f"{path} is not a file")


# What a file system that compresses leaves of zeros; what is small may be all holes.
BLOCK, MOST_HOLES, SMALL = 512, 100, 64 << 20  # bytes; times; bytes


def _is_hollow(found: os.stat_result) -> bool:
    return found.st_size > max(SMALL, MOST_HOLES * BLOCK * found.st_blocks)


def sha256_of(path: Path) -> str:
    """The digest of a file's bytes, as 64 hex digits."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
