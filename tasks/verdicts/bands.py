"""Bands: what is normal for each metric, from `bands.toml`, each with its source.

A file of one's own has the same form; its bands take precedence for the same metric.
"""

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.messages.formatting import number
from timtrack.tasks.tables.catalogue import catalogue

FILE = Path(__file__).parent / "bands.toml"
FEWEST_IN_TAIL = 50  # tokens from which a tail exponent is judged: a standard error of 14 %
LEVELS = ("ok", "watch", "bad")

# A model whose name counts its active parameters, or says it, mixes experts.
MIXTURE = re.compile(
    r"moe\b|mixtral|-A\d+(\.\d+)?B|\d+B-\d+E\b|deepseek-(v[23]|r1)(?!-distill)|gpt-oss"
    r"|glm-4\.[5-9]|kimi-k2|minimax-(m\d|text|01)",
    re.I,
)
PRECISIONS = {
    "fp4": r"\b(nv|mx)?fp4\b|\bw4a4\b",
    "int8": r"\bint8\b|\bw8a8\b",
    "mxfp8": r"\bmxfp8\b",
    "fp8": r"\bfp8\b|\be4m3|\be5m2",
}


class BadBands(TimtrackError):
    """A file of bands is not what it should be."""


@dataclass(frozen=True)
class Band:
    """Ok up to `healthy`, a look up to `watch`, bad beyond; the other way round if `above`."""

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

    @property
    def text(self) -> str:
        """The number beside its healthy side."""
        return f"{self.band.metric} {number(self.value)} (healthy {self.band.bound})"


@dataclass(frozen=True)
class Bands:
    """Our bands, and those of a file that take precedence."""

    own: Path | None = None

    @classmethod
    def of(cls, own: Path | None) -> "Bands":
        """With a file that was read once; raises BadBands."""
        bands = cls(own)
        bands.for_family("default")
        return bands

    def for_family(self, name: str) -> dict[str, Band]:
        """The band of each metric for a family; the default family's where it has none of its own.

        All of one's own file go before ours. Raises BadBands.
        """
        bands: dict[str, Band] = {}
        for file in (FILE, *([self.own] if self.own else [])):
            for family_name in ("default", name):
                bands |= {band.metric: band for band in _read(file) if band.family == family_name}
        return bands

    def readings(self, facts: Mapping[str, Any], numbers: Mapping[str, Any]) -> tuple[Reading, ...]:
        """The step's numbers that can be judged, by the bands of its family.

        The exponent of a tail is judged only where the tail has some tokens.
        """
        few = (numbers.get("hill_k") or 0) < FEWEST_IN_TAIL
        return tuple(
            Reading(band, numbers[metric])
            for metric, band in self.for_family(family(facts)).items()
            if numbers.get(metric) is not None and not (few and metric.startswith("hill"))
        )


def family(facts: Mapping[str, Any]) -> str:
    """fp4, int8, fp8 or moe, as the capture's facts say; `family` among them decides; else default.

    Precisions go first: their bands are wider than those of mixtures.
    """
    meta = {str(key): str(value) for key, value in facts.get("meta", {}).items()}
    if "family" in meta:
        return meta["family"]
    words = " ".join(meta.get(key, "") for key in ("model", "precision", "quantization", "dtype"))
    for name, pattern in PRECISIONS.items():
        if re.search(pattern, words, re.I):
            return name
    return "moe" if MIXTURE.search(words) else "default"


def _check(band: Band) -> None:
    if band.metric not in catalogue()["step_metrics"].columns:
        raise KeyError(f"step_metrics has no {band.metric}")
    if not all(isinstance(bound, int | float) for bound in (band.healthy, band.watch)):
        raise TypeError(f"the bounds of {band.metric} are not numbers")


@functools.cache
def _read(path: Path) -> tuple[Band, ...]:
    try:
        bands = tuple(Band(**table) for table in tomllib.loads(path.read_text())["bands"])
        if path != FILE:  # ours is checked by a test: to know the tables takes a fifth of a second
            for band in bands:
                _check(band)
        return bands
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise BadBands(
            f"{path}: not a file of bands ({error}); see tasks/verdicts/bands.toml"
        ) from error


OURS = Bands()
