"""What a file is, by its bytes: the container, and the names at its top. Never by its suffix."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.readers import records, tensors
from tasks.tokens import BadCapture


@dataclass(frozen=True)
class Contents:
    """A file opened as far as its top: `tensors` (a dict by torch.save, or .npz) or `jsonl`."""

    container: str
    top: Mapping[str, Any]  # the dict; of JSON lines the first record


def look(path: Path) -> Contents:
    """Open a file; raises BadCapture when it is empty, cut short, or in no container we know."""
    if not path.is_file():
        raise BadCapture(f"{path} is not a file")
    with path.open("rb") as file:
        head = file.read(1)
    if head == b"{":
        return Contents("jsonl", next(records.read(path)))
    return Contents("tensors", tensors.load(path))
