"""`report.html`: one step on one page that works from disk, by mail and in MLflow's viewer.

One rule: everything that the model wrote is text. It enters the page escaped by the template or as
JSON without `<`, and the page's policy runs no script but its own.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from timtrack.tasks.lake.steps import Step, is_pruned
from timtrack.tasks.reports import headline, html, samples, token_strip
from timtrack.tasks.reports.charts.export import Picture
from timtrack.tasks.reports.samples import Choice, Sample
from timtrack.tasks.tables.database import literal
from timtrack.tasks.verdicts import rescoring
from timtrack.tasks.verdicts.assessment import Assessment
from timtrack.tasks.verdicts.causes import TIMES_AS_FAR
from timtrack.tasks.verdicts.finding import Finding

Tables = Mapping[str, pl.DataFrame]
Drawn = Mapping[str, Picture]

CHOICE = Choice()
MOST = 5_000  # tokens of a page up to which the prompts' other rollouts are on it: 0.4 MB
VERDICTS = {"healthy": "ok", "watch": "watch", "correctable": "watch"}  # else bad


@dataclass(frozen=True)
class Section:
    """A heading with its charts and tables; `short` stands in the contents."""

    title: str
    short: str
    charts: Sequence[str] = ()
    tables: Sequence[Any] = ()  # names; on the page, each with its HTML
    text: str = ""
    lines: Sequence[str] = field(default=())
    is_folded: bool = False  # its charts, where they show nothing to act on

    @property
    def id(self) -> str:
        """Its anchor."""
        return self.short.lower().replace(" ", "-")


SLICES = (
    *("gap_by_rollout_prob", "gap_by_position", "gap_by_relative_position", "gap_by_token"),
    *("gap_by_entropy", "gap_by_group", "gap_by_length", "gap_by_reward", "gap_by_turn"),
    *("gap_by_advantage_sign", "gap_by_trait"),
)
DIAGNOSES = (
    *("alignment", "culprits", "context_blindness", "noise_floor", "tail"),
    *("confident_contradictions", "sampling", "row_match"),
)
EVIDENCE = (  # of captures that have more than the log-probs of the sampled tokens
    *("top_k_agreement", "gap_by_expert_changes", "expert_overlap", "gap_by_kept"),
    "sampling_replay",
)
SPREAD = ("ratio_histogram", "logp_diff_histogram", "logp_density", "prob_diff_histogram")
WHERE = ("culprits", "gap_along_response", "gap_by_rollout_prob", "lag_scan")
SECTIONS = (
    Section("How the gap is spread", "Spread", SPREAD),
    Section("Where it sits", "Where", WHERE, SLICES),
    Section("Which link of the chain", "Chain", ("attribution",), ("attribution",)),
    Section("Beside the log-probs", "Evidence", (), EVIDENCE),
    Section("What was tested", "Tests", (), DIAGNOSES),
    Section(
        "What a correction would do", "Corrections", ("correction_frontier",), ("corrections",)
    ),
    Section("Tokens and rollouts", "Tokens", (), ("worst_tokens", "sequence_metrics")),
)
MOST_FINDINGS = 5  # on the page; the others are remarks


@dataclass(frozen=True)
class Samples:
    """Prompts with their rollouts; `shown` says how many of each are on the page at first."""

    groups: Sequence[Sequence[Sample]]
    shown: int
    rule: str
    lead: str = "First of the samples"  # what the first of them is called


def write(
    step: Step,
    computed: Tables,
    drawn: Drawn,
    assessment: Assessment,
    into: Path,
    choice: Choice = CHOICE,
) -> None:
    """`report.html` and `samples.json` into a folder; of a pruned step there are no samples."""
    text, chosen = page(step, computed, drawn, assessment, choice)
    (into / "report.html").write_text(text)
    shown = [sample for group in chosen.groups for sample in group[: chosen.shown]]
    samples.write(shown, chosen.rule, into / "samples.json")


def page(
    step: Step,
    computed: Tables,
    drawn: Drawn,
    assessment: Assessment,
    choice: Choice,
    is_of_run: bool = True,
) -> tuple[str, Samples]:
    """The page, and the samples on it. `is_of_run`: the lake has the step, and others maybe."""
    chosen = gather(step, computed["sequence_metrics"], choice)
    return render(step, computed, drawn, assessment, chosen, is_of_run), chosen


def gather(step: Step, sequence_metrics: pl.DataFrame, choice: Choice) -> Samples:
    """The chosen rollouts, and as many others of their prompts as the page can hold."""
    if is_pruned(step):
        return Samples([], 0, "the step's tokens were pruned, there are none")
    groups = samples.groups(sequence_metrics, choice)
    lengths = dict(sequence_metrics.select("row", "response_tokens").rows())
    rows = [row for group in groups for row in group[: choice.per_group]]
    room = MOST - sum(lengths[row] for row in rows)
    for row in (row for group in groups for row in group[choice.per_group :]):
        room -= lengths[row]
        if room < 0:
            break
        rows.append(row)
    by_row = samples.read(step, rows)
    rollouts = [[by_row[row] for row in group if row in by_row] for group in groups]
    lead = {"lead": "Worst rollout, by mean |ln r|"} if choice.pick == "worst" else {}
    return Samples(rollouts, choice.per_group, choice.text, **lead)


def render(
    step: Step,
    computed: Tables,
    drawn: Drawn,
    assessment: Assessment,
    samples: Samples,
    is_of_run: bool = True,
) -> str:
    """The page, from a step's tables, its charts and the chosen rollouts."""
    facts = step.facts()
    main = main_chart(drawn, assessment)
    sections = [_filled(section, computed, drawn, assessment, main) for section in SECTIONS]
    findings, remarks = told(assessment)
    data = {
        "groups": [token_strip.group(rollouts, samples.shown) for rollouts in samples.groups],
        "lead": samples.lead,
    }
    return html.render(
        "report.html",
        data,
        where=f" where run = {literal(step.run)} and step = {step.step}",
        title=step.name,
        run=step.run,
        step=step.step,
        facts=header(facts),
        beside=beside(step) if is_of_run else {},
        notes=facts["notes"],
        verdict=assessment,
        times_as_far=TIMES_AS_FAR,
        verdict_class=VERDICTS.get(assessment.status, "bad"),
        trained=f"{computed['step_metrics']['trained_tokens'].item():,}",
        headline=headline.table(assessment),
        intervals=headline.intervals(assessment.numbers),
        referee=referee(step),
        findings=findings,
        remarks=remarks,
        main=main,
        pictures=drawn,
        sections=[section for section in sections if section.charts or section.tables],
        rule=f"Chosen by rule: {samples.rule}",
        source=facts["source"],
        sha256=facts["sha256"],
        version=version("timtrack"),
    )


def referee(step: Step) -> dict[str, Any] | None:
    """What a referee said of the engines; None where none was asked."""
    if (record := rescoring.read(step)) is None:
        return None
    body = Markup().join(
        Markup("<tr>{}</tr>").format(
            Markup().join(Markup('<td class="n">{}</td>').format(cell) for cell in row)
        )
        for row in rescoring.rows(record)
    )
    return {
        "lines": rescoring.lines(record),
        "table": html.scrolled("referee", html.head(rescoring.HEADER), body),
        "footnote": rescoring.footnote(record),
    }


def main_chart(drawn: Drawn, assessment: Assessment) -> str | None:
    """The chart of the first screen: of r, or of |ln r| where no token is farther than 2 times."""
    near = not assessment.numbers["frac_outside_2"]
    first = "logp_diff_histogram" if near else "ratio_histogram"
    return first if first in drawn else None


def told(assessment: Assessment) -> tuple[list[Finding], list[Finding]]:
    """Up to five findings that matter beside the causes, which have a box; and the others."""
    others = [finding for finding in assessment.findings if finding.table != "causes"]
    matter = [finding for finding in others if finding.matters][:MOST_FINDINGS]
    return matter, [finding for finding in others if finding not in matter]


FACTS = {
    "model": "model",
    "dataset": "data",
    "algorithm": "algorithm",
    "rollout_engine": "rollout engine",
    "trainer": "trainer",
    "temperature": "temperature",
}


def header(facts: Mapping[str, Any]) -> dict[str, str]:
    """What the capture says of itself, by label, and when its file was written."""
    meta = facts["meta"]
    from_meta = {label: str(meta[key]) for key, label in FACTS.items() if meta.get(key) is not None}
    size = f"{facts['rows']:,} rollouts, {facts['trained_tokens']:,} trained tokens"
    entries = {**from_meta, "batch": size, "format": facts["format"]}
    if mtime_ns := facts.get("mtime_ns"):
        entries["file"] = Path(facts["source"]).name
        entries["written"] = f"{datetime.fromtimestamp(mtime_ns / 1e9, UTC):%Y-%m-%d %H:%M} UTC"
    return entries


def beside(step: Step) -> dict[str, str]:
    """The commands that open the steps before and after it, whichever these are by then."""
    command = f"tim report {shlex.quote(step.run)} {step.step}"
    return {which: f"{command} --{which} --open" for which in ("previous", "next")}


def _filled(
    section: Section, computed: Tables, drawn: Drawn, assessment: Assessment, main: str | None
) -> Section:
    """The section with what there is: tables as HTML, and the correction's lines to paste."""
    present = [name for name in section.tables if name in computed and len(computed[name])]
    on_page = replace(
        section,
        charts=[name for name in section.charts if name in drawn and name != main],
        tables=[(name, _table(name, computed[name])) for name in present],
    )
    if "corrections" not in present or not (advice := assessment.advice):
        return on_page
    lines = [f"{framework}: {line}" for framework, line in advice.config.items()]
    return replace(on_page, text=advice.text, lines=lines, is_folded=advice.setting is None)


def _table(name: str, table: pl.DataFrame) -> Markup:
    """A table of the step, without run and step."""
    frame = table.drop("run", "step")
    if name == "sequence_metrics":
        frame = frame.sort("abs_logp_diff_mean", descending=True, nulls_last=True)
    return html.table(f"tables/{name}", frame)
