"""NumPy arrays inside a `.pt`, rebuilt without NumPy's own unpickling.

NumPy's `dtype.__setstate__` trusts its input: a crafted state makes it read arbitrary addresses. So
the names that a pickled array imports are stand-ins, which keep only what is safe: the kind of a
plain dtype, a shape, and bytes of exactly that size.
"""

import re
from pickle import UnpicklingError
from typing import Any

import numpy as np

PLAIN = re.compile(r"[biufSU]\d+|O8?")  # numbers, bools, strings, and lists of Python objects


class _Dtype:
    """What is left of a dtype: its code; byte order follows with the state."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not PLAIN.fullmatch(code):
            raise UnpicklingError(f"a NumPy array of dtype {code!r}")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.code = f"{state[1]}{self.code}"

    def array(self, data: Any, shape: tuple[int, ...]) -> Any:
        """`data` as an array of this dtype, or as a list of Python objects."""
        if "O" in self.code:
            if not isinstance(data, list) or len(shape) != 1 or len(data) != shape[0]:
                raise UnpicklingError("a NumPy object array that is not a flat list")
            return data
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        return np.frombuffer(raw, dtype=self.code).reshape(shape)


class Array:
    """Stands for numpy.ndarray; `value` is there once the state was read."""

    value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        built = dtype.array(data, tuple(shape) if not fortran else tuple(shape)[::-1])
        self.value = built.T if fortran else built


def _reconstruct(*_: Any) -> Array:
    return Array()


def _scalar(dtype: _Dtype, data: Any) -> Any:
    return dtype.array(data, ()).item()


STAND_INS: list[Any] = [
    (Array, "numpy.ndarray"),
    (_Dtype, "numpy.dtype"),
    *(
        (stand_in, f"numpy.{core}.multiarray.{name}")
        for core in ("_core", "core")
        for stand_in, name in ((_reconstruct, "_reconstruct"), (_scalar, "scalar"))
    ),
]


def reason(error: Exception) -> str:
    """Why torch did not load the file, in words for the person who wrote it."""
    text = " ".join(str(error).split())
    if named := re.search(r"GLOBAL ([\w.]+)", text):
        return (
            f"refused: to load it, `{named[1]}` would have to be called, and a capture must load "
            "without running code; write a plain dict of tensors, lists, strings and numbers"
        )
    if "Unsupported operand" in text:
        return "refused: pickled with another protocol than torch.save's own; save with the default"
    if isinstance(error, UnpicklingError):
        shown = text.split("WeightsUnpickler error:")[-1].strip()[:200]
        return f"refused: not a plain dict of tensors, lists, strings and numbers ({shown})"
    return (
        f"torch cannot read the file, it may be cut short or damaged: {text[:300] or type(error)}"
    )
