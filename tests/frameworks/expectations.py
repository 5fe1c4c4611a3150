"""What a framework says of its captures, as `expected.json` holds it.

    {"framework", "version", "captures": {file: {"metrics": {name: value}, "corrections": [
        {"setting", "under", "options", "metrics": {name: value}, "weights": [[row, pos, c], ...]}
    ]}}}

`setting` is timtrack's name for the options, or null, then without weights; `under` what the table
of the framework's metrics lists them under, if that is not verl's option; a capture with the
tensors of another file is {"same_as": file}. Coefficients are those of the trained tokens.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

DIGITS = 7


def correction(
    setting: str | None,
    options: Mapping[str, Any],
    mask: torch.Tensor,
    coefficient: torch.Tensor,
    metrics: Mapping[str, Any] | None = None,
    under: str | None = None,
) -> dict[str, Any]:
    """One option's entry; `mask` [B, R] is that of the trained tokens before any rejection."""
    weights = coefficient.expand(mask.shape)
    return {
        "setting": setting,
        **({"under": under} if under else {}),
        "options": dict(options),
        **({"metrics": numbers(metrics)} if metrics else {}),
        "weights": [
            [row, pos, rounded(weights[row, pos].item())]
            for row, pos in mask.nonzero().tolist()
            if setting
        ],
    }


def numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as plain numbers."""
    return {name: rounded(float(value)) for name, value in sorted(metrics.items())}


def rounded(value: float) -> float | int | str:
    """As JSON can hold it: 7 significant digits, whole numbers short, infinity as text."""
    if not math.isfinite(value):
        return repr(value)
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short == int(short) and abs(short) < 1e6 else short


def write(folder: Path, framework: str, version: str, captures: Mapping[str, Any]) -> None:
    """`expected.json` of a framework, a line for each list of weights."""
    told = {"framework": framework, "version": version, "captures": captures}
    text = json.dumps(told, separators=(",", ":"))
    for name in ("setting", "metrics", "weights"):
        text = re.sub(rf'(\{{?"{name}":)', r"\n\1", text)
    (folder / "expected.json").write_text(text + "\n")
