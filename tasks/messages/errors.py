"""Errors that a user can cause or fix, and `printable`, which makes quoted text safe to print."""

import re
from pathlib import Path

LONGEST = 2000  # characters of an error


class TimtrackError(Exception):
    """The root: `tim` prints the text, no trace.

    It says what was seen, what was expected, and what to do.
    """


class OneLine(TimtrackError):
    """An error that may quote foreign text; its message is one printable line, in logs too.

    Prefect's states, its log and our records take the text as it is.
    """

    def __str__(self) -> str:
        text = super().__str__()
        line = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
        return printable(line)


class BadCapture(OneLine):
    """The file cannot be read as a batch of tokens."""


class Rival(BadCapture):
    """A capture of a step that an `other` file has, with other content."""

    def __init__(self, text: str, other: Path | None = None) -> None:
        super().__init__(text)
        self.other = other


class BadTokens(BadCapture):
    """The batch cannot be what it claims to be: log-probs of one set of tokens by two engines."""


# The joiner between two parts of one emoji; anywhere else it only makes texts look the same.
EMOJI = "\u2190-\u2bff\U0001f000-\U0001faff"
JOINER = re.compile(f"(?<=[{EMOJI}\ufe0f])\u200d(?=[{EMOJI}])")


def printable(text: str) -> str:
    """Text in one line that only shows, never acts: what cannot be printed is as `repr` has it.

    So are control characters (`\\x1b`, `\\n`), what turns text around or hides in it (`\\u202e`),
    and the bytes of a name that are no UTF-8 (`\\udcff`). Backslashes stay single: `\\n` may be two
    characters as well, which does no harm.
    """
    if text.isprintable():
        return text
    joiners = {match.start() for match in JOINER.finditer(text)}
    return "".join(
        character if character.isprintable() or place in joiners else _escaped(character)
        for place, character in enumerate(text)
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class BadTables(OneLine):
    """A step's tokens are there, but its tables cannot be computed from them."""
