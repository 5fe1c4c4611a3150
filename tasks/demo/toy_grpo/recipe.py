"""What a run is: the mismatch that it is given, and what its trainer does about it."""

from dataclasses import dataclass
from functools import cached_property

from timtrack.tasks.tables import corrections

ANCHOR_LATENCY = 5  # K: the anchor's weights are K steps old
NONE, RECOMMENDED, ALP = "none", "recommended", "alp"


@dataclass(frozen=True)
class Loss:
    """What the trainer's forward pass loses: rank of HIDDEN numbers a token cross a boundary."""

    rank: int | None
    scoring_only: bool = False  # in the recompute of log-probs, not in the updates


CODECS = {
    "off": Loss(None),
    "rank16": Loss(16),
    "rank8": Loss(8),
    "codec": Loss(3),  # 5 % of HIDDEN, as 77 of 1536 in the published run
    "scoring": Loss(3, scoring_only=True),  # trains as "off" does: a paired control
}


@dataclass(frozen=True)
class Recipe:
    """One run, but for its seed and length.

    `correction`: `none`, `recommended` (what timtrack advises for the step at hand), `alp`
    (`perturbation.py`), or a setting as `tim whatif` takes it.
    """

    codec: str = "off"
    correction: str = NONE
    sync_every: int = 1  # steps between weight syncs
    codec_from: int = 1  # the first step with the codec
    latency: int = ANCHOR_LATENCY
    precision: str = "bfloat16"  # the engine's dtype
    temperature: float = 1.0  # the engine's; the trainer's is 1

    @property
    def loss(self) -> Loss:
        """What the codec loses."""
        return CODECS[self.codec]

    @cached_property
    def setting(self) -> corrections.Setting | None:
        """The correction, if it is the same at every step, else None; raises BadSetting."""
        if self.correction in (NONE, RECOMMENDED, ALP):
            return None
        return corrections.parse(self.correction)
