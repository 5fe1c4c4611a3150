"""The headline of a step, and `summary.json`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages import formatting
from timtrack.tasks.verdicts import rescoring
from timtrack.tasks.verdicts.assessment import Assessment
from timtrack.tasks.verdicts.finding import Finding

# Columns of step_metrics, in the order in which they are told, and how each is printed.
HEADLINE: dict[str, Callable[[Any], str]] = {
    "trained_tokens": lambda n: f"{n:,}",
    "abs_logp_diff_p50": lambda x: f"{formatting.number(x)} nats",
    "frac_outside_5": formatting.share,
    "kl_k1": lambda x: f"{formatting.number(x)} nats",
    "kl_k3": lambda x: f"{formatting.number(x)} nats",
    "pearson_logp": formatting.number,
    "pearson_prob": formatting.number,
    "spearman": formatting.number,
    "ratio_mean": formatting.number,
    "tv": formatting.number,
    "ess_token": formatting.number,
}
LABELS = {
    "trained_tokens": "trained tokens",
    "abs_logp_diff_p50": "median |ln r|",
    "frac_outside_5": "r outside [1/5, 5]",
    "kl_k1": "KL(rollout || train), k1",
    "kl_k3": "KL(rollout || train), k3",
    "pearson_logp": "Pearson of log-probs",
    "pearson_prob": "Pearson of probs",
    "spearman": "Spearman",
    "ratio_mean": "mean r",
    "tv": "total variation",
    "ess_token": "token ESS",
}
# What a line about one step of many has room for, under the columns' own names.
SHORT = ("trained_tokens", "abs_logp_diff_p50", "frac_outside_5", "kl_k1", "kl_k3", "pearson_logp")
# 2: findings; 3: verdict, whatif; 4: levels are ok, watch, bad; 5: causes; 6: lines, referee
SUMMARY_VERSION = 6


def headline(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Label and printed value of each headline number; a dash where it is undefined."""
    return {LABELS[name]: printed(numbers[name]) for name, printed in HEADLINE.items()}


def markdown(step: Step, assessment: Assessment) -> str:
    """Verdict, headline, findings and notes as a Markdown page, without headings."""
    facts = step.facts()
    (_, first), *others = assessment.verdict.lines.items()
    lines = [
        f"**{assessment.status.upper()}** {formatting.markdown(first)}",
        "",
        *(f"- **{label}:** {formatting.markdown(text)}" for label, text in others),
        "",
        f"{formatting.markdown(step.name)}:",
        "",
        *(f"> {formatting.markdown(note)}" for note in facts["notes"]),
        "",
        "| number | value |",
        "|---|---|",
        *(
            f"| {formatting.markdown(name)} | {value} |"
            for name, value in headline(assessment.numbers).items()
        ),
        "",
        *(_item(finding) for finding in assessment.findings),
        "",
        f"source {formatting.code(facts['source'])} · sha256 `{facts['sha256'][:16]}`",
    ]
    return "\n".join(lines)


def _item(finding: Finding) -> str:
    text = formatting.markdown(finding.text)
    return f"- **{text}**" if finding.matters else f"- {text}"


def write(step: Step, assessment: Assessment, path: Path) -> None:
    """`summary.json`, for programs."""
    path.write_text(formatting.as_json(content(step, assessment), indent=2) + "\n")


def content(step: Step, assessment: Assessment) -> dict[str, Any]:
    """Version, the capture's facts, metrics by name, verdict, causes, findings, correction."""
    return {
        "summary_version": SUMMARY_VERSION,
        "capture": step.facts(),
        "metrics": assessment.numbers,
        "verdict": _verdict(assessment),
        "causes": [cause.as_dict(step.run, step.step) for cause in assessment.causes],
        "findings": [asdict(finding) for finding in assessment.findings],
        "whatif": _what_if(assessment),
        "referee": rescoring.read(step),
    }


def _verdict(assessment: Assessment) -> dict[str, Any]:
    """How the step stands, by which bands."""
    readings = [
        {
            **asdict(reading.band),
            "value": reading.value if math.isfinite(reading.value) else None,
            "level": reading.level,
        }
        for reading in assessment.readings
    ]
    return {
        "status": assessment.status,
        "text": assessment.text,
        "lines": assessment.verdict.lines,
        "family": assessment.family,
        "readings": readings,
    }


def _what_if(assessment: Assessment) -> dict[str, Any] | None:
    """The recommended correction and how to set it; None for a pruned step of older SQL."""
    advice = assessment.advice
    if advice is None:
        return None
    return {"recommended": advice.setting, "verdict": advice.text, "config": advice.config}
