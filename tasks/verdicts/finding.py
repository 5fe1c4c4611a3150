"""A finding: one sentence about a step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

Tables = Mapping[str, pl.DataFrame]
Row = dict[str, Any]

# An engine as a sentence names it.
OWNER = {"rollout": "The rollout engine's", "train": "The trainer's", "both": "The engines'"}
ENGINE = {"rollout": "rollout engine", "train": "trainer"}


@dataclass(frozen=True)
class Finding:
    """One sentence about a step."""

    table: str  # that has the numbers
    text: str
    matters: bool
    of_capture: bool = False  # about how the capture was made, not about the mismatch

    def as_remark(self) -> "Finding":
        """The same, of no concern."""
        return replace(self, matters=False)
