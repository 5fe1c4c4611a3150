"""Files of one step beside each other, by rank. A folder of thousands is listed once for all."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from tasks.tokens import Block

APART = 600.0  # seconds; ranks of one step write theirs within seconds
SETTLED = 2.0  # seconds; clocks of file systems are coarse


def in_order(shards: Iterable[Callable[[], Iterator[Block]]]) -> Iterator[Block]:
    """The rows of all ranks, one rank after the other."""
    for shard in shards:
        yield from shard()


def written_apart(files: Iterable[Path]) -> str | None:
    """A note on ranks' files of one step that were written long after one another."""
    times = [file.stat().st_mtime for file in files]
    apart = max(times) - min(times)
    if apart < APART:
        return None
    return (
        f"the ranks' files were written {apart / 60:.0f} minutes apart: if a restarted trainer "
        "wrote some of them anew, rows of two attempts are mixed"
    )


def ranks(path: Path, pattern: re.Pattern[str]) -> list[Path]:
    """The files beside `path`, itself too, whose name matches with all groups equal but the last.

    By the last group, which is a rank. Only `path` if its own name does not match.
    """
    match = pattern.fullmatch(path.name)
    if not match:
        return [path]
    changed = path.parent.stat().st_mtime_ns
    now = time.time_ns()
    # While a folder's time may not tell two changes apart, what is known of it lives a second.
    until = now // 10**9 if now - changed < SETTLED * 1e9 else 0
    grouped = _grouped(path.parent, pattern, changed, until)
    return [path.parent / name for _, name in grouped.get(match.groups()[:-1], [])]


@lru_cache(maxsize=64)
def _grouped(
    folder: Path, pattern: re.Pattern[str], _changed: int, _until: int
) -> dict[tuple[str, ...], list[tuple[int, str]]]:
    found: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for file in os.scandir(folder):
        if (match := pattern.fullmatch(file.name)) and file.is_file():
            *key, rank = match.groups()
            found.setdefault(tuple(key), []).append((int(rank), file.name))
    return {key: sorted(files) for key, files in found.items()}
