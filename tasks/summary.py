"""A step in a few numbers: the headline that people see first, and `summary.json`."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from tasks import bands, corrections, notation
from tasks.findings import findings
from tasks.lake import Step

# Columns of step_metrics, in the order in which they are told, and how each is printed.
HEADLINE: dict[str, Callable[[Any], str]] = {
    "trained_tokens": lambda n: f"{n:,}",
    "abs_logp_diff_p50": lambda x: f"{notation.number(x)} nats",
    "frac_outside_5": notation.share,
    "kl_k1": lambda x: f"{notation.number(x)} nats",
    "kl_k3": lambda x: f"{notation.number(x)} nats",
    "pearson_logp": notation.number,
    "pearson_prob": notation.number,
    "spearman": notation.number,
    "ratio_mean": notation.number,
    "tv": notation.number,
    "ess_token": notation.number,
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
SUMMARY_VERSION = 3  # 2: findings; 3: verdict, whatif


def metrics(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """The step's numbers by name: `step_metrics` without its grain; None for what overflowed."""
    row = tables["step_metrics"].row(0, named=True)
    return {
        name: value if value is None or math.isfinite(value) else None
        for name, value in row.items()
        if name not in ("run", "step")
    }


LOGGED_FROM = ("step_metrics", "corrections")  # the tables that `logged` reads


def logged(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """The numbers that MLflow has over steps: `metrics`, and what common corrections would do."""
    followed = corrections.metrics(tables["corrections"]) if "corrections" in tables else {}
    return {**metrics(tables), **followed}


def headline(numbers: Mapping[str, Any]) -> dict[str, str]:
    """Label and printed value of each headline number; a dash where it is undefined."""
    return {LABELS[name]: printed(numbers[name]) for name, printed in HEADLINE.items()}


def markdown(step: Step, tables: Mapping[str, pl.DataFrame], link: str) -> str:
    """Verdict, headline, findings and notes as a Markdown page."""
    numbers = metrics(tables)
    facts = step.facts()
    judged = bands.verdict(facts, tables)
    lines = [
        f"# {step.name}",
        "",
        f"**{judged.status.upper()}** {judged.text}",
        "",
        *(f"> {note}" for note in facts["notes"]),
        "",
        "| number | value |",
        "|---|---|",
        *(f"| {label} | {value} |" for label, value in headline(numbers).items()),
        "",
        *(f"- {'**' * f.matters}{f.text}{'**' * f.matters}" for f in findings(tables)),
        "",
        f"[MLflow]({link}) · source `{facts['source']}` · sha256 `{facts['sha256'][:16]}`",
    ]
    return "\n".join(lines)


def write(step: Step, tables: Mapping[str, pl.DataFrame], path: Path) -> None:
    """`summary.json`: version, the capture's facts, metrics by name, findings, correction."""
    content = {
        "summary_version": SUMMARY_VERSION,
        "capture": step.facts(),
        "metrics": metrics(tables),
        "verdict": _verdict(step, tables),
        "findings": [asdict(finding) for finding in findings(tables)],
        "whatif": _what_if(tables),
    }
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def _verdict(step: Step, tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """How the step stands, by which bands."""
    judged = bands.verdict(step.facts(), tables)
    readings = [
        {
            **asdict(reading.band),
            "value": reading.value if math.isfinite(reading.value) else None,
            "level": reading.level,
        }
        for reading in judged.readings
    ]
    return {
        "status": judged.status,
        "text": judged.text,
        "family": judged.family,
        "readings": readings,
    }


def _what_if(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any] | None:
    """The recommended correction and how to set it; None for a pruned step of older SQL."""
    table = tables.get("corrections")
    if table is None:
        return None
    name = corrections.recommended(table)
    return {
        "recommended": name,
        "verdict": corrections.verdict(table),
        "config": corrections.defaults()[name].config if name else {},
    }
