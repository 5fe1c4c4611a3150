"""Untrusted tensor files: `.pt` and `.npz` as plain mappings of arrays, memory-mapped.

One rule: nothing in a file is executed, and no address in it is followed. What cannot be loaded
that way is refused, and so is a file with wrong checksums.
"""

import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import encodable
from timtrack.tasks.readers.containers import npz, pickled_numpy, stand_ins
from timtrack.tasks.readers.containers.bounds import ZIP, check_members
from timtrack.tasks.system.regular import opened

Array = npt.NDArray[Any]

CHUNK = 1 << 20  # bytes

# What torch may rebuild is set for the whole process: one thread loads at a time.
LOADING = threading.Lock()


def load(path: Path) -> dict[str, Any]:
    """The mapping that `path` holds, with torch tensors or NumPy arrays that are mapped from disk.

    `.pt` (torch.save of a dict; restricted unpickler) or `.npz` (no object arrays), told apart by
    content. Raises BadCapture for a file that is neither, is cut short, or asks for code to run.
    """
    if not path.is_file():
        raise BadCapture(f"{path} is not a file")
    if not path.stat().st_size:
        raise BadCapture("the file is empty (0 bytes)")
    with opened(path) as file:
        magic = file.read(4)
    if magic == ZIP:
        return _load_zip(path)
    if magic[:1] == b"\x80":
        return _load_pt(path, mapped=False)  # the format before torch 1.6
    raise BadCapture(
        f"the file starts with {magic!r}, which is neither torch.save's format nor .npz"
    )


def check_sums(path: Path) -> None:
    """Raise BadCapture if the file is a zip and a member does not have its checksum.

    Reads the whole file. torch maps members without looking at their checksums.
    """
    with opened(path) as file:
        magic = file.read(4)
    if magic == ZIP:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                try:
                    with archive.open(info) as member:
                        while member.read(CHUNK):
                            pass
                except Exception as error:  # each compression has errors of its own
                    raise BadCapture(f"the file is damaged in {info.filename}: {error}") from error


def _load_zip(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises whatever a broken directory makes it raise
        raise BadCapture(f"the file is cut short or damaged: {error}") from error
    check_members(members, path.stat().st_size)
    if any(info.filename.endswith("data.pkl") for info in members):
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in members)
        records = [info.file_size for info in members if "/data/" in info.filename]
        return _load_pt(path, mapped=stored, records=records)
    return npz.load(path)


def _load_pt(path: Path, mapped: bool, records: Sequence[int] | None = None) -> dict[str, Any]:
    import torch

    try:
        with LOADING, stand_ins.only_these():
            with _name_for_torch(path) as name:
                loaded = torch.load(name, map_location="cpu", weights_only=True, mmap=mapped)
            if records is not None:
                _check_storages(loaded, records)
            loaded = stand_ins.resolved(loaded)
    except BadCapture:
        raise
    except Exception as error:  # a damaged pickle makes the loader raise anything
        raise BadCapture(pickled_numpy.reason(error)) from error
    if not isinstance(loaded, dict):
        raise BadCapture(f"the file holds a {type(loaded).__name__}, expected a dict of tensors")
    return loaded


@contextmanager
def _name_for_torch(path: Path) -> Iterator[str]:
    """A name of the file that torch can open: it takes UTF-8 only."""
    if str(path).isascii() or encodable(str(path)) == str(path):
        yield str(path)
        return
    with opened(path) as file:
        yield f"/proc/self/fd/{file.fileno()}"


def _check_storages(loaded: Any, records: Sequence[int]) -> None:
    """A tensor's storage must be as long as a record: a mapped one reads what lies behind."""
    sizes = {s.data_ptr(): s.nbytes() for s in _storages(loaded)}
    missing = set(sizes.values()) - set(records)
    if missing:
        raise BadCapture(
            f"the file is damaged: it declares storages of {sorted(missing)} bytes, "
            f"but its records have {sorted(set(records))}"
        )


def _storages(loaded: Any) -> Iterator[Any]:
    """The storages of all tensors in it; shared ones are visited once."""
    todo, seen = [loaded], {id(loaded)}
    while todo:
        value = todo.pop()
        if hasattr(value, "untyped_storage"):
            usable = value.layout.__repr__() == "torch.strided" and value.device.type == "cpu"
            if usable and not value.is_nested:
                yield value.untyped_storage()
        elif isinstance(value, dict | list | tuple | stand_ins.Held):
            held = [value.state] if isinstance(value, stand_ins.Held) else value
            items = held.values() if isinstance(held, dict) else held
            for item in items:
                if id(item) not in seen:
                    seen.add(id(item))
                    todo.append(item)
