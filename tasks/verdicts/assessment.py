"""A step's assessment: numbers, verdict, findings and advice, made from its facts and tables.

Page, note, terminal, `summary.json`, gate and alerts read this one object.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from timtrack.tasks.lake.steps import is_bypass
from timtrack.tasks.verdicts.advice import Advice, advise, shift
from timtrack.tasks.verdicts.bands import LEVELS, Bands, Reading, family
from timtrack.tasks.verdicts.causes import Cause, causes_of
from timtrack.tasks.verdicts.diagnoses import FAULTS
from timtrack.tasks.verdicts.finding import Finding
from timtrack.tasks.verdicts.findings import findings_of
from timtrack.tasks.verdicts.numbers import metrics

Tables = Mapping[str, pl.DataFrame]

SUSPECT = "capture suspect"
CAUSE_FOUND = "cause found"
CLOSE = 0.85  # part of the first cause's confidence from which a second is named beside it
BYPASS = "The trainer's log-probs are the rollout engine's, bit by bit: nothing was measured."


@dataclass(frozen=True)
class Assessment:
    """How a step stands.

    `status` is healthy, watch, cause found, correctable, beyond correction, capture suspect or not
    measured.
    """

    status: str
    text: str  # why, in one or two sentences
    numbers: Mapping[str, Any]  # of `step_metrics`, by name
    family: str  # whose bands were used
    readings: tuple[Reading, ...]
    causes: tuple[Cause, ...]  # the likeliest first
    findings: tuple[Finding, ...]
    advice: Advice | None  # None for a pruned step whose older tables have no `corrections`

    @property
    def level(self) -> str:
        """The worst of its readings, one of bands.LEVELS; bad where the capture is suspect."""
        levels = [reading.level for reading in self.readings]
        levels.append(LEVELS[-1] if self.status == SUSPECT else LEVELS[0])
        return max(levels, key=LEVELS.index)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why its level is what it is, the likely cause first; nothing where it is ok."""
        if self.status == SUSPECT:
            return (self.text,)
        worst = self.level
        if worst == LEVELS[0]:
            return ()
        readings = (reading.text for reading in self.readings if reading.level == worst)
        return (*([_likely(self.causes)] if self.causes else []), *readings)


def assess(facts: Mapping[str, Any], tables: Tables, bands: Bands) -> Assessment:
    """Judge a step by the bands of its family, its causes and what corrections could do."""
    numbers, of_family = metrics(tables), family(facts)
    measured = not is_bypass(facts)
    advice = advise(tables) if "corrections" in tables and measured else None
    causes = causes_of(tables)
    found = findings_of(tables, causes, advice)
    if not measured:
        return Assessment(
            "not measured", BYPASS, numbers, of_family, (), causes, tuple(found), advice
        )
    # As it was computed: what overflowed is bad, not absent.
    readings = bands.readings(facts, tables["step_metrics"].row(0, named=True))
    unknown = len(bands.for_family(of_family)) - len(readings)
    status, text = _verdict(readings, unknown, tables, found, causes, advice)
    if status == "healthy":
        found = [finding.as_remark() for finding in found]
    return Assessment(status, text, numbers, of_family, readings, causes, tuple(found), advice)


def _verdict(
    readings: tuple[Reading, ...],
    unknown: int,
    tables: Tables,
    found: list[Finding],
    causes: tuple[Cause, ...],
    advice: Advice | None,
) -> tuple[str, str]:
    """Status and text: the likely cause comes first, and mending it before any correction."""
    faults = [finding for finding in found if finding.of_capture and finding.matters]
    bad = [reading for reading in readings if reading.level == "bad"]
    watched = [reading for reading in readings if reading.level == "watch"]
    if row := shift(tables):
        return SUSPECT, FAULTS["shift"](row)
    cause = f"{_likely(causes)} " if causes else ""
    if bad and causes:
        hopeless = " No correction would do." if advice and advice.setting is None else ""
        return CAUSE_FOUND, f"{cause}{_listed(bad)}.{_mend(causes)}{hopeless}"
    if bad:
        status, remedy = _remedy(advice)
        return status, f"{_listed(bad)}.{remedy}"
    if watched:
        return "watch", f"{cause}{_listed(watched)}; the rest is healthy.{_mend(causes)}"
    left = f", {unknown} could not be judged" if unknown else ""
    inside = f"All {len(readings)} readings are inside their bands{left}"
    if causes:
        return "watch", f"{cause}{inside}.{_mend(causes)}"
    if faults:
        return "watch", f"{inside}, but: {faults[0].text}"
    return "healthy", f"{inside}."


def _likely(causes: tuple[Cause, ...]) -> str:
    """The likeliest cause; the next one too, where little speaks for one rather than the other."""
    first, *others = (f"{cause.name} ({cause.id})" for cause in causes)
    close = [one for one in causes[1:] if one.confidence > CLOSE * causes[0].confidence]
    return f"Likely cause: {' or '.join([first, *others[: min(1, len(close))]])}."


def _mend(causes: tuple[Cause, ...]) -> str:
    return f" Fix this before any correction: {causes[0].fix}" if causes else ""


def _remedy(advice: Advice | None) -> tuple[str, str]:
    """What corrections could do about bad readings."""
    if advice is None or advice.setting == "none":  # bands of one's own may be narrower than ours
        return "beyond correction", ""
    return ("correctable" if advice.setting else "beyond correction"), f" {advice.text}"


def _listed(readings: list[Reading]) -> str:
    parts = [reading.text for reading in readings[:3]]
    more = f" and {len(readings) - 3} more" if len(readings) > 3 else ""
    return ", ".join(parts) + more
