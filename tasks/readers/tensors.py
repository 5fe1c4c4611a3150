"""Tensor files without trust: `.pt` and `.npz` as plain mappings of arrays, mapped, not copied.

One rule: nothing in a file is ever executed. What cannot be loaded without that is refused.
"""

import re
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.tokens import BadCapture

Array = npt.NDArray[Any]

# Members of an .npz up to this size are read into memory; larger ones are spilled and mapped.
SMALL_MEMBER = 1 << 20  # bytes


def load(path: Path) -> dict[str, Any]:
    """The mapping that `path` holds, with torch tensors or NumPy arrays that are mapped from disk.

    `.pt` (torch.save of a dict; restricted unpickler) or `.npz` (no object arrays), told apart by
    content. Raises BadCapture for a file that is neither, is cut short, or asks for code to run.
    """
    if not path.stat().st_size:
        raise BadCapture("the file is empty (0 bytes)")
    with path.open("rb") as file:
        magic = file.read(4)
    is_zip = magic == b"PK\x03\x04"
    if is_zip and _is_npz(path):
        return _load_npz(path)
    if is_zip or magic[:1] == b"\x80":
        return _load_pt(path, mapped=is_zip)
    raise BadCapture(
        f"the file starts with {magic!r}, which is neither torch.save's format nor .npz"
    )


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False  # cut short; torch says so better


def _load_pt(path: Path, mapped: bool) -> dict[str, Any]:
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_constructors()):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        raise BadCapture(_refusal(error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadCapture(f"torch cannot read the file, it may be cut short: {reason}") from error
    if not isinstance(loaded, dict):
        raise BadCapture(f"the file holds a {type(loaded).__name__}, expected a dict of tensors")
    return loaded


def _numpy_constructors() -> list[Any]:
    """What a pickled NumPy array of numbers or strings needs; each only builds arrays."""
    from numpy._core import multiarray

    dtypes = [getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith(("DType",))]
    return [multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype, *dtypes]


def _refusal(error: UnpicklingError) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return (
            f"refused: to load it, `{named[1]}` would have to be called, and a capture must load "
            "without running code; write a plain dict of tensors, lists, strings and numbers"
        )
    return f"refused: not a plain dict of tensors ({' '.join(str(error).split())[:200]})"


def _load_npz(path: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="timtrack-") as spill, zipfile.ZipFile(path) as archive:
        try:
            return {
                info.filename.removesuffix(".npy"): _member(archive, info, Path(spill))
                for info in archive.infolist()
            }
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise BadCapture(
                f"NumPy cannot read the file without running code from it: {error}; "
                "strings must be stored as a str array, not as dtype=object"
            ) from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, spill: Path) -> Array:
    """One array; a large one is mapped from a spilled file, which is gone when the map is."""
    with archive.open(info) as stream:
        if info.file_size <= SMALL_MEMBER:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
        spilled = spill / f"{len(list(spill.iterdir()))}.npy"
        with spilled.open("wb") as file:
            shutil.copyfileobj(stream, file, length=1 << 20)
    return np.asarray(np.load(spilled, mmap_mode="r", allow_pickle=False))


def as_numpy(values: Any) -> Array:
    """`values` (tensor, array or list of numbers) as a NumPy array; bf16 and f16 become float32."""
    if hasattr(values, "detach"):
        tensor = values.detach()
        half = str(tensor.dtype) in ("torch.bfloat16", "torch.float16")
        return np.asarray(tensor.float().numpy() if half else tensor.numpy())
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def dtype_name(values: Any) -> str:
    """`float32`, `bfloat16`, `int64`, ... of a tensor, an array, or the first of a list of them."""
    first = values[0] if isinstance(values, list | tuple) and len(values) else values
    return str(getattr(first, "dtype", type(first).__name__)).removeprefix("torch.")


@dataclass(frozen=True)
class TokenField:
    """A number per response token: `[B, R]` padded on the right, or a list of B arrays `[L_i]`."""

    name: str
    values: Any

    @property
    def ragged(self) -> bool:
        """Whether rows have their own lengths."""
        return isinstance(self.values, list | tuple)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(B, R)` when padded, `(B,)` when ragged."""
        return (len(self.values),) if self.ragged else tuple(self.values.shape)

    def lengths(self, rows: slice) -> Array:
        """Length of each of these rows, int64 `[b]`; ragged fields only."""
        return np.array([len(values) for values in self.values[rows]], dtype=np.int64)

    def flat(self, rows: slice, lengths: Array) -> Array:
        """The real tokens of these rows one after another, `[sum(lengths)]`."""
        if not self.ragged:
            block = as_numpy(self.values[rows])
            return np.asarray(block[np.arange(block.shape[1]) < lengths[:, None]])
        own = self.lengths(rows)
        if (own != lengths).any():
            bad = int(np.argmax(own != lengths))
            raise BadCapture(
                f"{self.name} has another length than the response in {(own != lengths).sum()} "
                f"rows, first at row {rows.start + bad}: {own[bad]}, expected {lengths[bad]}"
            )
        parts = [as_numpy(values) for values in self.values[rows]]
        return np.concatenate(parts) if parts else np.empty(0)


def token_field(name: str, values: Any) -> TokenField:
    """A field of the file as numbers per token; raises BadCapture when it has another shape."""
    if dimensions(values) != 2:
        seen = f"shape {list(values.shape)}" if hasattr(values, "shape") else type(values).__name__
        raise BadCapture(
            f"{name} is a {seen}, expected a padded [rows, tokens] tensor or a list of 1-D tensors"
        )
    return TokenField(name, values)


def dimensions(values: Any) -> int:
    """2 for `[B, R]` and for a list of 1-D arrays, 1 for one value a row, 0 for a single value."""
    if isinstance(values, list | tuple):
        inner = {np.ndim(item) for item in values}
        return 1 + max(inner) if len(inner) == 1 else 1 if not inner else -1
    return int(getattr(values, "ndim", 0))
