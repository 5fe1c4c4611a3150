"""Bounds from a file's size. One rule: no memory is allocated for what a file merely declares.

A tensor may repeat one element billions of times or have a billion rows of width 0, a list may
hold the same tensor again and again, and a kilobyte of zip may unpack to a megabyte.
"""

import zipfile
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.system.regular import opened

ZIP = b"PK\x03\x04"
TOKEN_BYTES = 4  # that a token takes at least: two log-probs in 16 bits, or one and its id
ROW_BYTES = 8  # that a row takes at least, in all its fields together

# A zip may unpack to 100 times its size: a batch that is padded to twenty times its responses, with
# masks of 64 bits, is packed about so far. What is small may unpack to 64 MiB anyhow.
MOST_UNPACKED = 100
SMALL = 64 << 20  # bytes


def unpacked(path: Path) -> int:
    """How many bytes a file has once unpacked; raises BadCapture for a zip that is a bomb."""
    size = path.stat().st_size
    with opened(path) as file:
        if file.read(4) != ZIP:
            return size
    return check_members(_members(path), size)


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except Exception as error:  # zipfile raises whatever a broken directory makes it raise
        raise BadCapture(f"the file is cut short or damaged: {error}") from error


def check_members(members: Iterable[zipfile.ZipInfo], size: int) -> int:
    """The unpacked bytes of a zip of `size` bytes; raises BadCapture if it cannot hold them."""
    packed = declared = 0
    for info in members:
        packed += info.compress_size
        declared += info.file_size
    if packed > size:
        raise BadCapture(
            f"a zip of {size} bytes cannot hold the {packed} bytes of its members: they overlap"
        )
    if declared > max(SMALL, MOST_UNPACKED * size):
        raise BadCapture(
            f"a zip of {size} bytes declares {declared} bytes unpacked, more than "
            f"{MOST_UNPACKED} times as many; write it without compression"
        )
    return declared


def check_size(holds: int, tokens: int = 0, rows: int = 0) -> None:
    """Raise BadCapture for more tokens or rows than a file of `holds` bytes can have."""
    for count, each, what in ((tokens, TOKEN_BYTES, "tokens"), (rows, ROW_BYTES, "rows")):
        if count * each > holds:
            raise BadCapture(
                f"a file of {holds} bytes cannot hold the {count} {what} that it declares: "
                f"{each} bytes each are the least"
            )


def check_packed(holds: int, tokens: int) -> None:
    """Raise BadCapture for more tokens than a packed file of `holds` bytes may unpack to."""
    if tokens * TOKEN_BYTES > max(SMALL, MOST_UNPACKED * holds):
        raise BadCapture(
            f"a file of {holds} bytes declares {tokens} tokens or rows, more than "
            f"{MOST_UNPACKED} times as many bytes; write it without compression"
        )


def check_fields(fields: Mapping[Any, Any], holds: int) -> None:
    """Raise BadCapture for fields with more numbers or text than a file of `holds` bytes has.

    All together, too: many may be views of one storage.
    """
    for name, value in fields.items():
        if (count := numbers(value)) > holds:
            raise BadCapture(
                f"a file of {holds} bytes cannot hold the {count} numbers that {name} declares"
            )
        if (length := _text(value)) > max(SMALL, holds):
            raise BadCapture(
                f"a file of {holds} bytes cannot hold the {length} characters that {name} declares"
            )
    together = sum(numbers(value) for value in fields.values())
    if together > holds:
        raise BadCapture(
            f"a file of {holds} bytes cannot hold the {together} numbers that its fields declare"
        )


def check_wide(name: str, value: Any, holds: int) -> None:
    """Raise BadCapture for a field of any number of dimensions that declares more than a file has.

    Beyond two, only of fields that are read: others may repeat what they hold.
    """
    parts = value if isinstance(value, list | tuple) else [value]
    count = sum(prod(int(length) for length in getattr(part, "shape", ())) for part in parts)
    if count > holds:
        raise BadCapture(
            f"a file of {holds} bytes cannot hold the {count} numbers that {name} declares"
        )


def numbers(value: Any) -> int:
    """How many numbers a field has, or rows or columns of none.

    Of what is read: at most 2 dimensions, or a list of rows.
    """
    if isinstance(value, list | tuple):
        return len(value) + sum(map(_in_row, value))
    shape = [int(length) for length in getattr(value, "shape", ())]
    return max(prod(shape), *shape) if 0 < len(shape) <= 2 else 0


def rows_of(value: Any) -> int:
    """B of a field; 0 of what has no rows."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 0
    return len(value) if isinstance(value, list | tuple) else 0


def _in_row(item: Any) -> int:
    if isinstance(item, list | tuple):
        return len(item)
    shape: Any = getattr(item, "shape", ())
    return int(shape[0]) if len(shape) == 1 else 0


def _text(value: Any) -> int:
    """Characters of a list of names."""
    if not isinstance(value, list | tuple):
        return 0
    return sum(len(item) for item in value if isinstance(item, str | bytes))
