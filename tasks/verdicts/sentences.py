"""The verdict in plain sentences: how bad it is, why, what to do, and where it shows most.

One rule: each sentence is true by the definition of the numbers in it, on every capture.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from timtrack.tasks.messages.formatting import factor, number, share
from timtrack.tasks.verdicts.advice import Advice
from timtrack.tasks.verdicts.bands import LEVELS, Reading
from timtrack.tasks.verdicts.causes import SURE, Cause
from timtrack.tasks.verdicts.diagnoses import carries, notable
from timtrack.tasks.verdicts.finding import Tables

CLOSE = 0.85  # part of the first cause's confidence from which a second is named beside it
VISIBLE = math.log(1.05)  # nats, from which a gap is told as a factor
MOST = 0.5  # part of the gap from which a link of the chain is named
NAMES = {
    "kl_k3": "KL (k3, nats)",
    "abs_prob_diff_mean": "The mean |p_train - p_rollout|",
    "mult_prob_error": "The mean factor exp |ln r| (mult_prob_error)",
    "pearson_prob": "Pearson's correlation of the probabilities",
    "frac_outside_2": "The share of tokens outside [1/2, 2]",
    "ess_token": "The token ESS",
}


@dataclass(frozen=True)
class Verdict:
    """Sentences about a step; empty where there is nothing to say."""

    how_bad: str
    why: str = ""
    what_to_do: str = ""
    where: str = ""
    has_cause: bool = False  # then `why` names it, and comes first
    is_healthy: bool = False

    @property
    def lines(self) -> dict[str, str]:
        """Label and sentence, in the order in which they are read."""
        why, how_bad = {"Why": self.why}, {self._how: self.how_bad}
        first = {**why, **how_bad} if self.has_cause else {**how_bad, **why}
        lines = {**first, "What to do": self.what_to_do, "Where": self.where}
        return {label: sentence for label, sentence in lines.items() if sentence}

    @property
    def _how(self) -> str:
        return "How close" if self.is_healthy else "How bad"

    @property
    def text(self) -> str:
        """All but where, as one paragraph."""
        return " ".join(text for label, text in self.lines.items() if label != "Where")


def how_bad(numbers: Mapping[str, Any], readings: tuple[Reading, ...], unknown: int) -> str:
    """The gap of the median token, the share far off, and the reading that says most."""
    outside = [reading for reading in readings if reading.level != LEVELS[0]]
    if not outside:
        unjudged = f", {unknown} could not be judged" if unknown else ""
        return f"{_gap(numbers)} All {len(readings)} readings are inside their bands{unjudged}."
    worst = max((reading.level for reading in outside), key=LEVELS.index)
    first = next((one for one in outside if one.band.metric == "kl_k3"), None)
    first = first or next(one for one in outside if one.level == worst)
    others = f" {len(outside)} of {len(readings)} readings are outside their bands."
    return f"{_gap(numbers)} {_reading(first)}.{others}"


def _gap(numbers: Mapping[str, Any]) -> str:
    median, far = numbers["abs_logp_diff_p50"], numbers["frac_outside_5"]
    if median is None or far is None:
        return ""
    if median < VISIBLE:
        return (
            f"Half of the tokens agree within {number(median)} nats; "
            f"{share(numbers['frac_outside_2'])} differ by more than a factor of 2."
        )
    return (
        f"Half of the tokens differ by a factor of {number(_factor(median))} or more between the "
        f"engines, {share(far)} by more than 5."
    )


def _factor(nats: float) -> float:
    return math.exp(min(nats, 700.0))


def _reading(reading: Reading) -> str:
    """A reading beside its healthy limit, and how many times that is where it is some times it."""
    band, value = reading.band, reading.value
    name = NAMES.get(band.metric, band.metric)
    if not math.isfinite(value):
        return f"{name} overflows (healthy {band.bound})"
    times = value / band.healthy if band.healthy and not band.above else 0.0
    if times >= 2:
        limit = f"{factor(times)} times the healthy limit of {number(band.healthy)}"
        return f"{name} is {number(value)}, {limit}"
    return f"{name} is {number(value)} (healthy {band.bound})"


def why(tables: Tables, causes: tuple[Cause, ...]) -> str:
    """The likely cause and the link of the chain that carries most; or that none is known."""
    likely_cause = likely(causes) if causes else ""
    texts = [text for text in (likely_cause, link(tables)) if text]
    return " ".join(texts) or "No known cause's signature fits this step."


def likely(causes: tuple[Cause, ...]) -> str:
    """The likeliest cause; the next one too, where little speaks for one rather than the other.

    Likely from a confidence of SURE on, possible below it.
    """
    first, *others = (f"{cause.name} ({cause.id})" for cause in causes)
    close = [one for one in causes[1:] if one.confidence > CLOSE * causes[0].confidence]
    word = "Likely" if causes[0].confidence >= SURE else "Possible"
    return f"{word} cause: {' or '.join([first, *others[: min(1, len(close))]])}."


def link(tables: Tables) -> str:
    """The link that carries most of the gap, as a sentence; empty where none does."""
    links = tables.get("attribution")
    if links is None or (link := leading_link(links)) is None:
        return ""
    component, part = link
    return (
        f"By the further views of the same tokens, {share(part)} of the gap is the link "
        f"{component}."
    )


def leading_link(links: pl.DataFrame) -> tuple[str, float] | None:
    """The component that carries most of the gap and its share, of rows by component.

    None where none carries half; of a chain of one link there is nothing to say.
    """
    parts = links.drop_nulls("share_abs").sort("share_abs", descending=True)
    if len(parts) < 2 or parts["share_abs"][0] < MOST:
        return None
    return parts["component"][0], parts["share_abs"][0]


def what_to_do(causes: tuple[Cause, ...], advice: Advice | None, is_bad: bool) -> str:
    """Mend the cause first; without one, what a correction could do."""
    if causes:
        is_false = causes[0].has_false_r
        hopeless = " No correction is of use." if _is_hopeless(advice) and is_bad else ""
        hopeless = " No correction by this r is valid." if is_false else hopeless
        return f"Fix this before any correction: {causes[0].fix}{hopeless}"
    if is_bad:
        return advice.text if advice and advice.setting != "none" else ""
    return ""


def _is_hopeless(advice: Advice | None) -> bool:
    return advice is not None and advice.setting is None


def where(tables: Tables) -> str:
    """The slice that carries most more than its share, of those that may be believed."""
    table = tables.get("culprits")
    if table is None or "lift_given_prob" not in table.columns:
        return ""
    rows: pl.DataFrame = notable(table)
    return "" if rows.is_empty() else f"{carries(rows.row(0, named=True))}."
