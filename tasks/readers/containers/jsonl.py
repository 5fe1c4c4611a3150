"""Untrusted JSON lines: one record at a time, each of bounded size; truncated lines are refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers.tensors import Array
from timtrack.tasks.system.regular import opened

MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1
LONGEST_LINE = 1 << 27  # bytes; a line is held in memory, as Python numbers some ten times of it


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file; raises BadCapture at the first invalid or truncated line."""
    with opened(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE):
            number += 1
            if not line.endswith(b"\n"):
                cut = len(line) < LONGEST_LINE
                reason = "is cut short: it does not end" if cut else "is longer than 128 MiB"
                raise BadCapture(f"line {number} {reason}")
            if line.strip():
                yield parsed(line, f"line {number}")
        if not number:
            raise BadCapture("the file is empty (0 bytes)")


def parsed(line: bytes, where: str) -> dict[str, Any]:
    """The object in a line; raises BadCapture.

    NaN and Infinity stand as such in what Python writes; orjson, which is faster, has none, and
    makes floats of integers of more than 64 bits.
    """
    try:
        bare = b"NaN" in line or b"Infinity" in line
        record = json.loads(line) if bare else orjson.loads(line)
        if isinstance(record, dict) and _is_rounded(record):
            record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadCapture(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise BadCapture(f"{where} is a {type(record).__name__}, expected an object")
    return record


def _is_rounded(value: Any) -> bool:
    """Whether a float may have been a large integer (a step, an id) before parsing."""
    if isinstance(value, dict):
        return any(map(_is_rounded, value.values()))
    return isinstance(value, float) and abs(value) >= 2**63


def check_whole(where: str, name: str, value: Any) -> None:
    """Raise BadCapture for an integer that no column holds."""
    if isinstance(value, int) and not MIN_INT64 <= value <= MAX_INT64:
        raise BadCapture(f"{where}: {name} is an integer of more than 64 bits")


def numbers(where: str, name: str, values: Any, dtype: Any) -> Array:
    """A list of numbers as an array `[L]`; null is NaN in floats. Raises BadCapture."""
    if not isinstance(values, list):
        raise BadCapture(f"{where}: {name} is a {type(values).__name__}, expected a list")
    try:
        array = np.array(values)
        if np.dtype(dtype).kind == "f" and _may_be_floats(array):
            array = array.astype(np.float64)
        whole = array.dtype.kind in "biu" or not len(array)
        if array.ndim != 1 or not (whole or array.dtype.kind == np.dtype(dtype).kind):
            raise BadCapture(f"{where}: {name} holds other things than {np.dtype(dtype)} numbers")
        if array.dtype == np.uint64 and array.max(initial=0) > MAX_INT64:
            raise BadCapture(f"{where}: {name} holds {array.max()}, more than 64 bits can")
        return array.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadCapture(f"{where}: {name} is no list of numbers: {error}") from error


def _may_be_floats(array: Array) -> bool:
    """A list of numbers and nulls; numeric text is rejected."""
    if array.dtype.kind != "O":
        return array.dtype.kind in "biuf"
    return all(item is None or isinstance(item, int | float) for item in array.flat)


def check_lengths(where: str, fields: dict[str, Array], width: int) -> None:
    """Raise BadCapture unless all have a number per token."""
    for name, values in fields.items():
        if len(values) != width:
            raise BadCapture(f"{where}: {name} has {len(values)} tokens, expected {width}")


def first_trained(mask: Array) -> int:
    """Index at which a whole sequence's response begins; its length without a response.

    Position 0 follows nothing and has no log-prob: it is never in a response.
    """
    trained = np.flatnonzero(mask)
    return max(1, int(trained[0])) if len(trained) else len(mask)
