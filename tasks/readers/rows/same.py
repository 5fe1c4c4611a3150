"""Whether two fields hold the same values."""

from typing import Any

import numpy as np

from timtrack.tasks.readers.containers.tensors import Array
from timtrack.tasks.readers.rows.fields import as_numpy


def says_the_same(name: str, one: Any, other: Any) -> bool:
    """Whether two values are equal, lists by their items; unread fields count as equal."""
    if one is None or other is None or one is other:
        return True
    if hasattr(one, "shape") and hasattr(other, "shape"):
        return _equal(as_numpy(name, one), as_numpy(name, other))
    rows = [list(value) for value in (one, other) if _has_rows(value)]
    if len(rows) == 2:
        same_length = len(rows[0]) == len(rows[1])
        return same_length and all(says_the_same(name, *pair) for pair in zip(*rows, strict=True))
    if rows:
        return False
    single = [value.item() if hasattr(value, "item") else value for value in (one, other)]
    are_read = all(isinstance(value, str | bytes | int | float) for value in single)
    are_nan = all(value != value for value in single)
    return not are_read or are_nan or bool(single[0] == single[1])


def _has_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0


def _equal(one: Array, other: Array) -> bool:
    floats = one.dtype.kind == other.dtype.kind == "f"
    return np.array_equal(one, other, equal_nan=floats)
