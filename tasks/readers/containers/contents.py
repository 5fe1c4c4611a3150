"""What a file is, from its bytes and never its suffix: container and top-level names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers import jsonl, pickles, tensors
from timtrack.tasks.system.regular import opened

LEGACY_TORCH = b"\x80\x02\x8a"  # torch.save before 1.6: a pickle of its magic number first


@dataclass(frozen=True)
class Contents:
    """A file opened as far as its top: `tensors` (torch.save, .npz), `pickle` or `jsonl`."""

    container: str
    top: Mapping[str, Any]  # the dict; of JSON lines the first record


def look(path: Path) -> Contents:
    """Open a file; raises BadCapture when it is empty, cut short, or in no container we know."""
    if not path.is_file():
        raise BadCapture(f"{path} is not a file")
    with opened(path) as file:
        head = file.read(3)
    if head[:1] == b"{":
        return Contents("jsonl", next(jsonl.read(path)))
    if head[:1] == b"\x80" and head != LEGACY_TORCH:
        return Contents("pickle", pickles.load(path))
    return Contents("tensors", tensors.load(path))
