"""Atomic, durable writes of small files: whole or absent, even after a power cut."""

import os
from pathlib import Path


def write(file: Path, text: str) -> None:
    """Put `text` in place of what a file held; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}")
    with aside.open("w") as written:
        written.write(text)
        written.flush()
        os.fsync(written.fileno())
    aside.replace(file)
    sync(file.parent)


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
