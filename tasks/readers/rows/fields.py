"""Fields of a capture, validated once: after this, they are the numbers that they claim to be.

Token fields have one number per response token, row fields one per sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import short
from timtrack.tasks.readers.containers.tensors import Array

LONGEST_INT = 1000  # bits, up to which an integer is a float, and is shown
KINDS = {"float": "f", "int": "iu", "mask": "biuf", "number": "biuf"}


@dataclass(frozen=True)
class TokenField:
    """A number per response token: `[B, R]` padded on the right, or a list of B arrays `[L_i]`."""

    name: str
    values: Any
    kind: str = "number"  # key of KINDS

    @property
    def ragged(self) -> bool:
        """Whether rows have their own lengths."""
        return isinstance(self.values, list)

    @property
    def rows(self) -> int:
        """B."""
        return len(self.values)

    @property
    def width(self) -> int:
        """R; of a ragged field the longest row."""
        if self.ragged:
            return max(map(len, self.values), default=0)
        return int(self.values.shape[1])

    @property
    def tokens(self) -> int:
        """Numbers in all rows, padding too."""
        return sum(map(len, self.values)) if self.ragged else self.rows * self.width

    def lengths(self, rows: slice) -> Array:
        """Length of each of these rows, int64 `[b]`; ragged fields only."""
        return np.array([len(values) for values in self.values[rows]], dtype=np.int64)

    def padded(self, rows: slice) -> Array:
        """These rows as `[b, R]`; padded fields only."""
        return self._checked(as_numpy(self.name, self.values[rows]), rows)

    def flat(self, rows: slice, lengths: Array) -> Array:
        """The real tokens of these rows one after another, `[sum(lengths)]`."""
        if not self.ragged:
            if lengths.max(initial=0) > self.width:
                raise BadCapture(
                    f"{self.name} is {self.width} tokens wide, but a response has {lengths.max()}"
                )
            real = np.arange(self.width) < lengths[:, None]
            return self._checked(as_numpy(self.name, self.values[rows])[real], rows)
        own = self.lengths(rows)
        if (own != lengths).any():
            bad = int(np.argmax(own != lengths))
            raise BadCapture(
                f"{self.name} has another length than the response in {(own != lengths).sum()} "
                f"rows, first at row {rows.start + bad}: {own[bad]}, expected {lengths[bad]}"
            )
        parts = [as_numpy(self.name, values) for values in self.values[rows]]
        return self._checked(np.concatenate(parts) if parts else np.empty(0), rows)

    def _checked(self, values: Array, rows: slice) -> Array:
        where = f"in rows {rows.start} to {rows.stop - 1}"
        if values.size and values.dtype.kind not in KINDS[self.kind]:
            raise BadCapture(f"{self.name} holds {values.dtype}, expected {self.kind} numbers")
        if self.kind == "mask" and (wrong := (values != 0) & (values != 1)).any():
            raise BadCapture(
                f"{self.name} has {wrong.sum()} values {where} that are neither 0 nor 1, "
                f"first {values[wrong][0]}"
            )
        if self.kind == "int" and (wrong := values < 0).any():
            raise BadCapture(
                f"{self.name} has {wrong.sum()} ids below 0 {where}, first {values[wrong][0]}"
            )
        return values


def token_field(name: str, values: Any, kind: str = "number") -> TokenField:
    """A field of the file as numbers per token; raises BadCapture when it is something else."""
    if dimensions(values) != 2 or not is_plain(values):
        raise BadCapture(
            f"{name} is {shown(values)}, expected a padded [rows, tokens] tensor or a list of 1-D "
            "tensors"
        )
    return TokenField(name, list(values) if isinstance(values, list | tuple) else values, kind)


def row_field(name: str, values: Any, rows: int, whole: bool = False) -> list[Any]:
    """One number a row, `[B]`, None where missing; a single number is broadcast."""
    if isinstance(values, int | float) or getattr(values, "ndim", None) == 0:
        values = [values] * rows
    if isinstance(values, str | dict | set) or dimensions(values) != 1:
        raise BadCapture(f"{name} is {shown(values)}, expected {rows} numbers, one a row")
    numbers = as_numpy(name, values).tolist() if hasattr(values, "tolist") else list(values)
    numbers = [n.item() if hasattr(n, "item") else n for n in numbers]
    if len(numbers) != rows:
        raise BadCapture(f"{name} has {len(numbers)} entries, expected {rows} rows")
    return [None if n is None else _number(name, row, n, whole) for row, n in enumerate(numbers)]


def _number(field: str, row: int, item: Any, whole: bool) -> int | float:
    if not isinstance(item, int | float) or (whole and (item % 1 or item != item)):
        expected = "a whole number" if whole else "a number"
        raise BadCapture(f"{field} has {short(item)} at row {row}, expected {expected}")
    if isinstance(item, int) and item.bit_length() > LONGEST_INT:
        raise BadCapture(f"{field} has an integer of {item.bit_length()} bits at row {row}")
    return int(item) if whole else float(item)


def whole_number(value: Any) -> int | None:
    """A step as the file says it."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def names(name: str, values: Any, rows: int) -> list[str | None]:
    """One name a row as text, from strings, bytes or whole numbers; None stays None."""
    if isinstance(values, str | bytes | dict | set) or dimensions(values) != 1:
        raise BadCapture(f"{name} is {shown(values)}, expected {rows} names, one a row")
    items = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(items) != rows:
        raise BadCapture(f"{name} has {len(items)} entries, expected {rows} rows")
    return [_name(name, row, item) for row, item in enumerate(items)]


def whole_beside_text(values: Any) -> frozenset[int]:
    """Rows whose name is a whole number, while others have the same digits as text."""
    if not isinstance(values, list | tuple):
        return frozenset()  # an array has one or the other
    items = [item.item() if hasattr(item, "item") else item for item in values]
    texts = {item for item in items if isinstance(item, str)}
    whole = {row: str(item) for row, item in enumerate(items) if isinstance(item, int)}
    return frozenset(row for row, digits in whole.items() if digits in texts)


def _name(field: str, row: int, item: Any) -> str | None:
    item = item.item() if hasattr(item, "item") else item
    if item is None:
        return None
    text = item.decode(errors="backslashreplace") if isinstance(item, bytes) else item
    if not isinstance(text, str | int) or (
        isinstance(text, int) and text.bit_length() > LONGEST_INT
    ):
        raise BadCapture(
            f"{field} has {short(item)} at row {row}, expected a string or whole number"
        )
    return str(text).encode(errors="backslashreplace").decode()  # apart, if not UTF-8


def is_plain(values: Any) -> bool:
    """Whether a tensor has its numbers in memory one by one: not sparse, nested or quantised."""
    items = values if isinstance(values, list | tuple) else [values]
    return all(
        str(item.layout) == "torch.strided"
        and item.device.type == "cpu"
        and not (item.is_nested or item.is_quantized)
        for item in items
        if hasattr(item, "untyped_storage")
    )


def dimensions(values: Any) -> int:
    """2 for `[B, R]` and for a list of 1-D arrays, 1 for one value a row, -1 for a mixed list."""
    if isinstance(values, list | tuple):
        inner = {_inner_dimensions(item) for item in values}
        return 1 + max(inner) if len(inner) == 1 else 1 if not inner else -1
    return int(getattr(values, "ndim", 0))


def _inner_dimensions(item: Any) -> int:
    """Of a list, 1, or 2 if it holds more than values: looked at, never unrolled."""
    if not isinstance(item, list | tuple):
        return int(getattr(item, "ndim", 0))
    deeper = any(isinstance(i, list | tuple) or getattr(i, "ndim", 0) for i in item)
    return 2 if deeper else 1


def as_numpy(name: str, values: Any) -> Array:
    """`values` (tensor, array or list of numbers) as a NumPy array; bf16 and f16 become float32."""
    try:
        if hasattr(values, "detach"):
            tensor = values.detach().resolve_conj().resolve_neg()
            half = str(tensor.dtype) in ("torch.bfloat16", "torch.float16")
            return np.asarray(tensor.float().numpy() if half else tensor.numpy())
        array = np.asarray(values)
    except BadCapture:
        raise
    except Exception as error:  # sparse, quantised, float8, meta: each fails in its own way
        raise BadCapture(f"{name} is {shown(values)}, expected plain numbers") from error
    return array.astype(np.float32) if array.dtype == np.float16 else array


def dtype_name(values: Any) -> str:
    """`float32`, `bfloat16`, `int64`, ... of a tensor, an array, or the first of a list of them."""
    first = values[0] if isinstance(values, list) and values else values
    return str(getattr(first, "dtype", type(first).__name__)).removeprefix("torch.")


def shown(values: Any) -> str:
    """What a value is, for messages: its shape and dtype, or its type and length."""
    if hasattr(values, "shape") and hasattr(values, "dtype"):
        kind = str(getattr(values, "layout", "")).removeprefix("torch.").replace("strided", "")
        return f"a {kind} {dtype_name(values)} tensor of shape {list(values.shape)}".replace(
            "  ", " "
        )
    length = f" of {len(values)}" if isinstance(values, Sequence) else ""
    return f"a {type(values).__name__}{length}"
