"""Results that are kept beside the code that found them."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any


def keep(file: Path, results: Iterable[Any]) -> None:
    """Dataclasses as a JSON array, one on a line: what changed shows in a diff."""
    lines = (json.dumps(asdict(result)) for result in results)
    file.write_text("[\n" + ",\n".join(lines) + "\n]\n")
