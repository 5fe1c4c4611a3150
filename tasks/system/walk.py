"""Walking a directory tree that others write to, move and delete meanwhile.

What disappears is skipped; what cannot be listed is reported. Links are followed; a directory with
several names is visited once, by a name that is no link if it has one.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path


@dataclass
class Found:
    """One look."""

    files: list[Path] = field(default_factory=list)
    closed: dict[Path, str] = field(default_factory=dict)  # folders that could not be read, and why


def below(root: Path, wanted: Callable[[Path], bool]) -> Found:
    """The regular files below `root` that are wanted, asked by their path."""
    found, seen = Found(), set[tuple[int, int]]()
    above = root.resolve()
    links: deque[Path] = deque()
    folders = deque([root])
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            stat = folder.stat()
            entries = sorted(os.scandir(folder), key=_name) if _is_new(stat, seen) else []
        except FileNotFoundError:  # gone since, or a link that leads nowhere
            continue
        except OSError as error:
            found.closed[folder] = error.strerror or str(error)
            continue
        for entry in entries:
            path = folder / entry.name
            if _answers_yes(entry.is_dir):
                if not entry.is_symlink():
                    folders.append(path)
                elif why := _leads_astray(path, above):
                    found.closed[path] = why
                else:
                    links.append(path)
            elif _answers_yes(entry.is_file) and _answers_yes(partial(wanted, path)):
                found.files.append(path)
    return found


def _leads_astray(link: Path, root: Path) -> str | None:
    """Why a link is not followed: below it is all that the machine has."""
    target = link.resolve()
    if root.is_relative_to(target):
        return None if target == root else f"a link to {target}, which the watched folder is in"
    if any(target.is_relative_to(folder) for folder in SYSTEM):
        return f"a link to {target}, which holds no captures"
    return None


SYSTEM = tuple(map(Path, ("/dev", "/proc", "/sys")))


def _name(entry: "os.DirEntry[str]") -> bytes:
    return os.fsencode(entry.name)


def _is_new(stat: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    key = (stat.st_dev, stat.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _answers_yes(question: Callable[[], bool]) -> bool:
    """What is asked of a file or folder; no of one that is gone since."""
    try:
        return question()
    except OSError:
        return False
