"""Is that normal? A step's numbers against the bands of `bands.toml`, each with who says so.

`TIMTRACK_BANDS` names a file of the same form; its bands go before those of the same metric.
"""

import functools
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tasks import corrections
from tasks.notation import number

FILE = Path(__file__).parent / "bands.toml"
VARIABLE = "TIMTRACK_BANDS"
LEVELS = ("healthy", "watch", "high")

# A model whose name counts its active parameters, or says it, mixes experts.
MIXTURE = re.compile(r"moe|mixtral|-A\d+(\.\d+)?B|deepseek-(v[23]|r1)|gpt-oss|glm-4\.5", re.I)
PRECISIONS = {"fp4": r"(nv|mx)?fp4|w4a4", "int8": "int8|w8a8", "fp8": "(mx)?fp8|e4m3|e5m2"}


class BadBands(ValueError):
    """A file of bands is not what it should be."""


@dataclass(frozen=True)
class Band:
    """Up to `healthy` all is well, up to `watch` it is worth a look; from there down if `above`."""

    metric: str
    healthy: float
    watch: float
    says: str
    family: str = "default"
    above: bool = False

    def level(self, value: float) -> str:
        """One of LEVELS; a value on a bound is on its better side."""
        bounds = (self.healthy, self.watch)
        beyond = (value < bound if self.above else value > bound for bound in bounds)
        return LEVELS[sum(beyond)]

    @property
    def bound(self) -> str:
        """The healthy side in a few characters."""
        return f"{'≥' if self.above else '≤'} {number(self.healthy)}"


@dataclass(frozen=True)
class Reading:
    """A number of the step and its band."""

    band: Band
    value: float

    @property
    def level(self) -> str:
        """One of LEVELS."""
        return self.band.level(self.value)


@dataclass(frozen=True)
class Verdict:
    """How a step stands: healthy, watch, correctable or beyond correction."""

    status: str
    text: str
    family: str
    readings: tuple[Reading, ...]


def verdict(facts: Mapping[str, Any], tables: Mapping[str, pl.DataFrame]) -> Verdict:
    """The step's numbers judged by the bands of its family, and by what corrections could do."""
    numbers = tables["step_metrics"].row(0, named=True)
    chosen = for_family(family(facts))
    read = tuple(
        Reading(band, numbers[metric])
        for metric, band in chosen.items()
        if numbers.get(metric) is not None
    )
    high = [reading for reading in read if reading.level == "high"]
    watched = [reading for reading in read if reading.level == "watch"]
    name = family(facts)
    if high:
        simulated = tables.get("corrections")
        said = "" if simulated is None else f" {corrections.verdict(simulated)}"
        found = None if simulated is None else corrections.recommended(simulated)
        status = "correctable" if found else "beyond correction"
        return Verdict(status, f"{_listed(high)}.{said}", name, read)
    if watched:
        return Verdict("watch", f"{_listed(watched)}; the rest is healthy.", name, read)
    return Verdict("healthy", f"All {len(read)} readings are inside their bands.", name, read)


def _listed(readings: list[Reading]) -> str:
    parts = [f"{r.band.metric} {number(r.value)} (healthy {r.band.bound})" for r in readings[:3]]
    more = f" and {len(readings) - 3} more" if len(readings) > 3 else ""
    return ", ".join(parts) + more


def family(facts: Mapping[str, Any]) -> str:
    """fp4, int8, fp8 or moe, as the capture's facts say; `family` among them decides; else default.

    Precisions go first: their bands are wider than those of mixtures.
    """
    meta = {str(key): str(value) for key, value in facts.get("meta", {}).items()}
    if "family" in meta:
        return meta["family"]
    told = " ".join(meta.get(key, "") for key in ("model", "precision", "quantization", "dtype"))
    for name, pattern in PRECISIONS.items():
        if re.search(pattern, told, re.I):
            return name
    return "moe" if MIXTURE.search(told) else "default"


def for_family(name: str) -> dict[str, Band]:
    """The band of each metric for a family, that of `default` where it has none of its own."""
    found: dict[str, Band] = {}
    for wanted in ("default", name):
        found |= {band.metric: band for band in _bands() if band.family == wanted}
    return found


def _bands() -> list[Band]:
    given = os.environ.get(VARIABLE)
    return [*_read(FILE), *(_read(Path(given)) if given else ())]


@functools.cache
def _read(path: Path) -> tuple[Band, ...]:
    try:
        return tuple(Band(**table) for table in tomllib.loads(path.read_text())["bands"])
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise BadBands(f"{path}: not a file of bands ({error}); see tasks/bands.toml") from error
