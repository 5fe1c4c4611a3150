"""A step's assessment: numbers, verdict, findings and advice, made from its facts and tables.

Page, note, terminal, `summary.json`, gate and alerts read this one object.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from timtrack.tasks.lake.steps import is_bypass
from timtrack.tasks.verdicts import sentences
from timtrack.tasks.verdicts.advice import FALSE_R, Advice, advise, shift
from timtrack.tasks.verdicts.bands import LEVELS, Bands, Reading, family
from timtrack.tasks.verdicts.causes import Cause, causes_of
from timtrack.tasks.verdicts.diagnoses import FAULTS
from timtrack.tasks.verdicts.finding import Finding
from timtrack.tasks.verdicts.findings import findings_of
from timtrack.tasks.verdicts.numbers import metrics
from timtrack.tasks.verdicts.sentences import Verdict, likely

Tables = Mapping[str, pl.DataFrame]

SUSPECT = "capture suspect"
CAUSE_FOUND = "cause found"
BEYOND = "beyond correction"
BYPASS = "The trainer's log-probs are the rollout engine's, bit by bit: nothing was measured."


@dataclass(frozen=True)
class Assessment:
    """How a step stands.

    `status` is healthy, watch, cause found, correctable, beyond correction, capture suspect or not
    measured.
    """

    status: str
    verdict: Verdict
    numbers: Mapping[str, Any]  # of `step_metrics`, by name
    family: str  # whose bands were used
    readings: tuple[Reading, ...]
    causes: tuple[Cause, ...]  # the likeliest first
    findings: tuple[Finding, ...]
    advice: Advice | None  # None for a pruned step whose older tables have no `corrections`

    @property
    def text(self) -> str:
        """The verdict as one paragraph."""
        return self.verdict.text

    @property
    def told(self) -> str:
        """The verdict with how the step stands before it, unless its first words say so."""
        return self.text if self.status == CAUSE_FOUND else f"{self.status}. {self.text}"

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
        return (*([likely(self.causes).removesuffix(".")] if self.causes else []), *readings)


def assess(facts: Mapping[str, Any], tables: Tables, bands: Bands) -> Assessment:
    """Judge a step by the bands of its family, its causes and what corrections could do."""
    numbers, of_family = metrics(tables), family(facts)
    measured = not is_bypass(facts)
    causes = causes_of(tables)
    advice = advise(tables) if "corrections" in tables and measured else None
    if advice and causes and causes[0].has_false_r:
        advice = Advice(None, FALSE_R)
    findings = findings_of(tables, causes, advice)
    if not measured:
        return Assessment(
            "not measured", Verdict(BYPASS), numbers, of_family, (), causes, tuple(findings), advice
        )
    # As it was computed: what overflowed is bad, not absent.
    readings = bands.readings(facts, tables["step_metrics"].row(0, named=True))
    faults = [finding for finding in findings if finding.of_capture and finding.matters]
    status = _status(readings, tables, faults, causes, advice)
    bad = how_bad(facts, tables, bands)
    verdict = _verdict(status, bad, tables, readings, faults, causes, advice)
    if status == "healthy":
        findings = [finding.as_remark() for finding in findings]
    return Assessment(
        status, verdict, numbers, of_family, readings, causes, tuple(findings), advice
    )


def how_bad(facts: Mapping[str, Any], tables: Tables, bands: Bands) -> str:
    """The gap of a step beside the bands of its family, as a sentence; needs `step_metrics`."""
    if is_bypass(facts):
        return BYPASS
    readings = bands.readings(facts, tables["step_metrics"].row(0, named=True))
    unknown = len(bands.for_family(family(facts))) - len(readings)
    return sentences.how_bad(metrics(tables), readings, unknown)


def is_healthy(facts: Mapping[str, Any], tables: Tables, bands: Bands) -> bool:
    """Whether no number that is known is outside its band; needs `step_metrics`."""
    readings = bands.readings(facts, tables["step_metrics"].row(0, named=True))
    return not is_bypass(facts) and {reading.level for reading in readings} == {LEVELS[0]}


def _status(
    readings: tuple[Reading, ...],
    tables: Tables,
    faults: list[Finding],
    causes: tuple[Cause, ...],
    advice: Advice | None,
) -> str:
    """A cause comes before what corrections could do."""
    levels = {reading.level for reading in readings}
    if shift(tables):
        return SUSPECT
    if "bad" in levels and causes:
        return CAUSE_FOUND
    if "bad" in levels:  # bands of one's own may be narrower than ours
        return "correctable" if advice and advice.setting not in (None, "none") else BEYOND
    return "watch" if "watch" in levels or causes or faults else "healthy"


def _verdict(
    status: str,
    bad: str,
    tables: Tables,
    readings: tuple[Reading, ...],
    faults: list[Finding],
    causes: tuple[Cause, ...],
    advice: Advice | None,
) -> Verdict:
    """The sentences; of a capture that is suspect only why it is."""
    if row := shift(tables):
        return Verdict(FAULTS["shift"](row))
    if status == "healthy":
        return Verdict(bad, is_healthy=True)
    if faults and not causes and all(reading.level == LEVELS[0] for reading in readings):
        return Verdict(bad, faults[0].text)
    is_bad = status != "watch"
    return Verdict(
        bad,
        sentences.why(tables, causes),
        sentences.what_to_do(causes, advice, is_bad),
        sentences.where(tables),
        bool(causes),
    )
