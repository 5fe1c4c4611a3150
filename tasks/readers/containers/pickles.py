"""Untrusted pickles: `DataProto.save_to_disk`, SkyRL's dumps. Only listed stand-ins are called.

Uses Python's unpickler, not the C one, which allocates for any memo index that a file names.
"""

import pickle
from pathlib import Path
from typing import Any, BinaryIO

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers import pickled_numpy, stand_ins
from timtrack.tasks.readers.containers.tensors import LOADING
from timtrack.tasks.system.regular import opened


class _Bounded:
    """A file whose reads are bounded by its size: declared lengths allocate nothing."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def read(self, count: int = -1) -> bytes:
        """Exactly `count` bytes."""
        if count < 0 or count > self._size - self._file.tell():
            raise EOFError(f"{count} bytes are declared, fewer are there")
        return self._file.read(count)

    def readline(self) -> bytes:
        """A line, of names: short."""
        return self._file.readline(1 << 16)


class _Restricted(pickle._Unpickler):
    """Calls stand-ins only."""

    def __init__(self, file: _Bounded) -> None:
        super().__init__(file)
        self._allowed = stand_ins.for_pickle()

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; every other is refused."""
        if f"{module}.{name}" not in self._allowed:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return self._allowed[f"{module}.{name}"]


def load(path: Path) -> dict[str, Any]:
    """The mapping in a pickle; raises BadCapture when it holds another thing or names other code.

    Takes as much memory as the file has bytes.
    """
    try:
        with opened(path) as file, LOADING:
            loaded = _Restricted(_Bounded(file, path.stat().st_size)).load()
            found = stand_ins.resolved(loaded)
    except Exception as error:  # a damaged pickle makes the loader raise anything
        raise BadCapture(pickled_numpy.reason(error)) from error
    if not isinstance(found, dict):
        raise BadCapture(f"the file holds a {type(found).__name__}, expected a batch")
    return found
