"""Paths of captures, and the run and step that they name.

Without a pattern, readers recognise their files by name, and the frameworks' own directories are
known; with one, every matching file is a capture, and its placeholders give run and step.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from timtrack.tasks.messages.errors import TimtrackError

STEP_FOLDER = re.compile(r"(?:^|.*[_-])step[_-]?(\d+)$", re.IGNORECASE)
STEP_IN_NAME = re.compile(r"(?:^|.*[^a-z])step[_-]?(\d+)(?:\D.*)?$", re.IGNORECASE)
NUMBER_AT_END = re.compile(r"(?:^|.*\D)(\d+)$")

# Folders that frameworks make inside a run's own: slime and miles, prime-rl, SkyRL, forks of verl.
INSIDE_A_RUN = {"rollout_data", "train_data", "token_exports", "dumped_data", "debug_data"}

MEANING = {
    "{run}": r"(?P<run>[^/]+)",
    "{step}": r"(?<!\d)(?P<step>\d+)(?!\d)",  # all of its digits
    "**/": r"(?:[^/]+/)*",
    "*": r"[^/]*",
    "?": r"[^/]",
}
SPECIAL = re.compile("|".join(map(re.escape, MEANING)))


class BadPattern(TimtrackError):
    """A pattern that cannot name captures."""


@dataclass(frozen=True)
class Pattern:
    """How captures are called below a folder: `{run}/dumps/{step}.pt`.

    `{run}` is one folder's or file's name or a part of it, `{step}` a number; `*` and `?` stand for
    characters of a name, `**/` for any number of folders. Raises BadPattern.
    """

    text: str

    def __post_init__(self) -> None:
        for place in ("{run}", "{step}"):
            if self.text.count(place) > 1:
                raise BadPattern(f"the pattern {self.text!r} has {place} more than once")
        if unknown := re.search(r"[{}]", SPECIAL.sub("", self.text)):
            raise BadPattern(
                f"the pattern {self.text!r} has a {unknown[0]} that is neither of {{run}}, {{step}}"
            )
        if not self.text or self.text.startswith("/"):
            raise BadPattern(f"the pattern {self.text!r} is not relative to the folder")

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        pieces = re.split(f"({SPECIAL.pattern})", self.text)
        return re.compile("".join(MEANING.get(piece, re.escape(piece)) for piece in pieces))

    def matches(self, path: Path, root: Path) -> bool:
        """Whether a file below `root` is a capture."""
        return self._match(path, root) is not None

    def reads(self, path: Path, root: Path) -> dict[str, Any]:
        """`run` and `step`, as far as the pattern has a place for them."""
        match = self._match(path, root)
        groups = match.groupdict() if match else {}
        return {name: int(value) if name == "step" else value for name, value in groups.items()}

    def _match(self, path: Path, root: Path) -> re.Match[str] | None:
        return self._regex.fullmatch(path.relative_to(root).as_posix())


def run_and_step(path: Path) -> tuple[Path, int | None]:
    """The folder that names the run, and the step that the path names."""
    for folder in (path.parent, path.parent.parent):
        if match := STEP_FOLDER.match(folder.name):
            return _out_of_frameworks(folder.parent), int(match[1])
    match = STEP_IN_NAME.match(path.stem) or NUMBER_AT_END.match(path.stem)
    return _out_of_frameworks(path.parent), int(match[1]) if match else None


def _out_of_frameworks(folder: Path) -> Path:
    return folder.parent if folder.name in INSIDE_A_RUN else folder


def tokenizer_beside(path: Path) -> Path | None:
    """`tokenizer.json` in the capture's folder, or in those around it up to the run's."""
    run, _ = run_and_step(path)
    folders = [f for f in (path.parent, *path.parent.parents) if f.is_relative_to(run)]
    return next((f / "tokenizer.json" for f in folders if (f / "tokenizer.json").is_file()), None)


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that counts numbers in names as numbers: step_9 comes before step_10."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
