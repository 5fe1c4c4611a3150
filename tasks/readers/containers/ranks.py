"""Per-rank files of one step. A directory of thousands is listed once for all of them."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.tokens.table import Block

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


def is_first(path: Path, pattern: re.Pattern[str]) -> bool:
    """Whether a file is the first of its ranks, or its name does not match."""
    match = pattern.fullmatch(path.name)
    if not match:
        return True
    of_step = _known(path.parent, pattern).get(match.groups()[:-1], [])
    return bool(of_step) and of_step[0][1] == path.name


def check_once(files: Iterable[Path], pattern: re.Pattern[str]) -> None:
    """Raise BadCapture where two files are of the same rank: its rows would count twice."""
    seen: dict[int, str] = {}
    for file in files:
        match = pattern.fullmatch(file.name)
        rank = int(match.groups()[-1]) if match else -1
        if rank in seen:
            raise BadCapture(f"{seen[rank]} and {file.name} are both of rank {rank}; remove one")
        seen[rank] = file.name


def ranks(path: Path, pattern: re.Pattern[str]) -> list[Path]:
    """The files beside `path`, itself too, whose name matches with all groups equal but the last.

    By the last group, which is a rank. Only `path` if its own name does not match.
    """
    match = pattern.fullmatch(path.name)
    if not match:
        return [path]
    grouped = _known(path.parent, pattern)
    return [path.parent / name for _, name in grouped.get(match.groups()[:-1], [])]


def _known(folder: Path, pattern: re.Pattern[str]) -> dict[tuple[str, ...], list[tuple[int, str]]]:
    return _grouped(folder, pattern, *version(folder))


def version(folder: Path) -> tuple[int, int]:
    """By what a list of a folder may be kept; while its time may not tell two changes apart, what
    is known of it lives a second.
    """
    changed, now = folder.stat().st_mtime_ns, time.time_ns()
    return changed, now // 10**9 if now - changed < SETTLED * 1e9 else 0


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
