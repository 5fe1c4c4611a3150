"""Untrusted `.npz`: headers are read at once, data on first use.

Small members go into memory, large ones into a temporary file that is mapped.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers.bounds import check_members

Array = npt.NDArray[Any]

# Members up to this size are read into memory; larger ones are spilled and mapped.
SMALL_MEMBER = 1 << 20  # bytes
TINY = 1 << 10  # bytes, up to which a member is read with its header: a step, a name
CHUNK = 1 << 20  # bytes
HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Packed:
    """An array of an `.npz` that is still in its zip: its shape is known, its numbers are not."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.name = path, name
        self.shape, self.dtype = shape, dtype
        self._array: Array | None = None

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._unpacked(), dtype=dtype, copy=bool(copy))

    def __getitem__(self, key: Any) -> Any:
        return self._unpacked()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._unpacked())

    def tolist(self) -> Any:
        """The numbers as Python's."""
        return self._unpacked().tolist()

    def _unpacked(self) -> Array:
        if self._array is None:
            try:
                with zipfile.ZipFile(self.path) as archive:
                    self._array = _array(archive, archive.getinfo(self.name))
            except Exception as error:  # each compression has errors of its own
                raise BadCapture(f"the file is damaged in {self.name}: {error}") from error
            if (self._array.shape, self._array.dtype) != (self.shape, self.dtype):
                raise BadCapture(f"{self.name} changed while it was read")
        return self._array


def load(path: Path) -> dict[str, Any]:
    """The arrays by name, still packed; raises BadCapture for objects, and for a damaged header."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive.infolist(), path.stat().st_size)
            arrays = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            return {
                info.filename.removesuffix(".npy"): _packed(path, archive, info) for info in arrays
            }
    except BadCapture:
        raise
    except Exception as error:  # each compression and each bad header has errors of its own
        raise BadCapture(
            f"NumPy cannot read the file without running code from it: {error or type(error)}; "
            "strings must be stored as a str array, not as dtype=object"
        ) from error


def _packed(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Packed | Array:
    with archive.open(info) as stream:
        shape, dtype = _header(stream)
        there = info.file_size - stream.tell()
    declared = prod(shape) * dtype.itemsize
    if declared != there:
        raise BadCapture(
            f"{info.filename} declares shape {list(shape)} of {dtype}, {declared} bytes, "
            f"but holds {there}"
        )
    if declared <= TINY:
        return _array(archive, info)
    return Packed(path, info.filename, shape, dtype)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"version {version} of NumPy's format")
    shape, _, dtype = HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("an array of objects")
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {list(shape)}")
    return shape, dtype


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """One array; a large one is mapped from a spilled file, which is gone when the map is."""
    with archive.open(info) as stream:
        if info.file_size <= SMALL_MEMBER:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
        with tempfile.TemporaryDirectory(prefix="timtrack-") as folder:
            spilled = Path(folder) / "member.npy"
            with spilled.open("wb") as file:
                shutil.copyfileobj(stream, file, length=CHUNK)
            return np.asarray(np.load(spilled, mmap_mode="r", allow_pickle=False))
