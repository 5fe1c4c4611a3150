"""Integrity of the lake: size and SHA-256 of every file, recorded when it is written.

`capture.json` has those of the token tables, `sums.json` those of one version of the tables,
or of the referee's.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

SUMS = "sums.json"
KEPT = "files"  # in capture.json

Sums = dict[str, dict[str, Any]]  # by name in the folder: bytes, sha256


def sums_of(folder: Path) -> Sums:
    """Size [bytes] and digest of every Parquet file in a folder that was just written."""
    files = sorted(folder.rglob("*.parquet"))
    return {str(file.relative_to(folder)): _sum(file) for file in files}


def write_sums(folder: Path) -> None:
    """Leave them in the folder itself."""
    (folder / SUMS).write_text(json.dumps(sums_of(folder), indent=1) + "\n")


def seal(files: Iterable[Path]) -> None:
    """Make files read-only: they are never written again."""
    for file in files:
        file.chmod(0o444)


def faults(step: Path, is_pruned: bool) -> Iterator[str]:
    """Files of a step's folder that changed since they were written, a line each."""
    try:
        recorded = json.loads((step / "capture.json").read_text()).get(KEPT)
    except (OSError, ValueError, AttributeError) as error:
        yield f"{step / 'capture.json'}: cannot be read: {error}"
        return
    yield from _faults(step, {} if is_pruned else recorded)
    for folder in sorted((*step.glob("tables-*"), *step.glob("referee-*"))):
        try:
            yield from _faults(folder, json.loads((folder / SUMS).read_text()))
        except FileNotFoundError:
            yield from _faults(folder, None)
        except (OSError, ValueError) as error:
            yield f"{folder / SUMS}: cannot be read: {error}"


def is_known(step: Path) -> bool:
    """Whether the step was written since digests are kept."""
    try:
        return KEPT in json.loads((step / "capture.json").read_text())
    except (OSError, ValueError):
        return True  # which is a fault


def _faults(folder: Path, kept: Any) -> Iterator[str]:
    for name, expected in (kept or {}).items():
        try:
            digest = _sum(folder / name)
        except OSError as error:
            yield f"{folder / name}: {error.strerror}"
            continue
        if digest != expected:
            yield (
                f"{folder / name}: {_shown(digest)} instead of the {_shown(expected)} that were "
                "written"
            )


def _sum(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return {"bytes": opened.tell(), "sha256": digest}


def _shown(kept: dict[str, Any]) -> str:
    return f"{kept['bytes']} bytes with digest {kept['sha256'][:12]}"
