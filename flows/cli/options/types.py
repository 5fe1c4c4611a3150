"""Argument types for argparse beyond str and int, with our own error messages."""

import argparse
import re
from collections.abc import Callable
from typing import TypeVar

from timtrack.tasks.messages.errors import TimtrackError

T = TypeVar("T")


def columns(text: str) -> str:
    """A mapping of names (tasks/readers/columns.py)."""
    from timtrack.tasks.readers.columns import (
        parse,  # not at the start of every `tim`: it brings polars
    )

    return parse(text).text


def correction(text: str) -> str:
    """What the toy trainer corrects with."""
    from timtrack.tasks.demo.toy_grpo.recipe import Recipe  # as above

    _ = Recipe(correction=text).setting
    return text


def step_range(text: str) -> tuple[int | None, int | None]:
    """10:20, 10:, :20 or 10, both ends included."""
    match = re.fullmatch(r"(\d*):(\d*)|(\d+)", text)
    if not match:
        raise ValueError(f"{text} is not a range of steps; write it as 10:20, 10:, :20 or 10")
    low, high = (match[3], match[3]) if match[3] else (match[1], match[2])
    return (int(low) if low else None, int(high) if high else None)


def share(text: str) -> float:
    """50% or 0.5."""
    match = re.fullmatch(r"(\d+\.?\d*)(%?)", text)
    if not match:
        raise ValueError(f"{text} is not a share; write it as 50% or 0.5")
    return float(match[1]) / (100 if match[2] else 1)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def checked(check: Callable[[str], T]) -> Callable[[str], T]:
    """A type for argparse that shows the check's own words."""

    def checked(text: str) -> T:
        try:
            return check(text)
        except (ValueError, TimtrackError) as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked
