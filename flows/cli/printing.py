"""The only place that prints. No argument can control the terminal or forge another line.

One rule: an argument is a line. File names, notes and errors come from whoever wrote a capture, so
a line break inside an argument is printed as `\\n`. Imports nothing slow.
"""

import sys
from pathlib import Path
from typing import Any

from timtrack.tasks.messages import formatting
from timtrack.tasks.messages.errors import printable


def say(*lines: str) -> None:
    """Lines of ours, for people, to standard output."""
    as_it_is("".join(f"{printable(line)}\n" for line in lines))


def complain(*lines: str) -> None:
    """Lines about what went wrong, to standard error; those after the first are set in.

    So that none of them is taken for a message of its own, whatever it quotes.
    """
    first, *more = map(printable, lines)
    print("\n".join([first, *(f"  {line}".rstrip() for line in more)]), file=sys.stderr, flush=True)


def as_json(facts: Any, indent: int | None = 2) -> None:
    """Facts for a program; without `indent` on one line."""
    as_it_is(formatting.as_json(facts, indent=indent) + "\n")


def about(path: Path, text: str) -> str:
    """A text with the file that it is about, which it may name itself."""
    return text if text.startswith(str(path)) else f"{path}: {text}"


def as_it_is(text: str) -> None:
    """What was made fit to be printed before: a table, JSON, CSV."""
    print(text, end="", flush=True)


def bytes_as_they_are(data: bytes) -> None:
    """A file's content, for another program."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def is_terminal() -> bool:
    """Whether people read the output as it comes."""
    return sys.stdout.isatty()
