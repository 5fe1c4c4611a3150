"""The referee's answer beside the step's files: `referee-<id>/` with tables and `referee.json`."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from timtrack.tasks.lake.publish import write_beside
from timtrack.tasks.lake.steps import REFEREE, REFEREE_FILE, Step
from timtrack.tasks.messages.formatting import as_json
from timtrack.tasks.referee.rollouts import Floats
from timtrack.tasks.referee.session import Answer
from timtrack.tasks.referee.trial import Fit
from timtrack.tasks.referee.verdict import Engine, guilty
from timtrack.tasks.tables.database import HYPOTHESES, RESCORED

VERSION = 1  # of what referee.json says


def as_dict(answer: Answer) -> dict[str, Any]:
    """The answer for programs; `referee_version` changes with the meaning of a field."""
    bench, noise = answer.bench, answer.own
    return {
        "referee_version": VERSION,
        "model": str(answer.question.model.absolute()),
        "previous": [str(one.folder.absolute()) for one in bench.previous],
        "adapter": str(bench.adapter.folder.absolute()) if bench.adapter else None,
        "device": str(bench.reference.device),
        "rows": [one.row for one in bench.rollouts],
        "tokens": len(bench.plain),
        "seed": answer.question.seed,
        "temperature": {"value": answer.temperature, "from": answer.told_by},
        "noise": {
            "float32": asdict(noise.float32),
            "bfloat16": asdict(noise.bfloat16),
            "edge": noise.edge,
        },
        "engines": [_engine(one) for one in answer.engines],
        "off": list(guilty(answer.engines)),
        "sentences": answer.sentences,
        "tried": list(answer.trial.seconds),
        "not_tried": answer.trial.skipped,
        "seconds": round(answer.seconds, 1),
        "seconds_of_reference": round(answer.seconds_of_reference, 1),
        "bytes_of_model": bench.reference.bytes,
    }


def _engine(one: Engine) -> dict[str, Any]:
    return {
        "engine": one.name,
        **asdict(one.distance),
        "frac_within_noise": one.within,
        "is_off": one.is_off,
        "best": _fit(one.best) if one.best else None,
        "margin": one.margin,
    }


def _fit(fit: Fit) -> dict[str, Any]:
    return {
        "hypothesis": fit.hypothesis.name,
        "value": fit.hypothesis.shown(fit.value) or None,
        "explained": fit.explained_in_part,
        "explained_everywhere": fit.explained,
        "rows_nearer": list(fit.nearer),
        "residual_mean": fit.mean,
        "causes": list(fit.hypothesis.causes),
    }


def hypotheses(answer: Answer) -> pl.DataFrame:
    """A row for each engine and hypothesis, as HYPOTHESES."""
    rows = [
        {
            "engine": one.name,
            "rank": rank,
            "hypothesis": fit.hypothesis.name,
            "value": fit.hypothesis.shown(fit.value) or None,
            "explained": fit.explained_in_part,
            "explained_everywhere": fit.explained,
            "rows_nearer": len(fit.nearer),
            "rows_scored": fit.rows,
            "residual_mean": fit.mean,
            "residual_p50": fit.median,
            "causes": ", ".join(fit.hypothesis.causes) or None,
        }
        for one in answer.engines
        for rank, fit in enumerate(one.fits, start=1)
    ]
    return pl.DataFrame(rows, schema=HYPOTHESES)


def rescored(answer: Answer) -> pl.DataFrame:
    """A row for each token and scoring, as RESCORED."""
    views: Mapping[str, Floats] = {
        "reference": answer.bench.plain,
        "reference_bf16": answer.own.rounded,
        **answer.perturbed,
    }
    lengths = [len(one.response) for one in answer.bench.rollouts]
    rows = np.repeat([one.row for one in answer.bench.rollouts], lengths)
    places = np.concatenate([np.arange(length) for length in lengths])
    parts = [
        pl.DataFrame({"row": rows, "pos": places, "logp": logps}).with_columns(
            view_name=pl.lit(name)
        )
        for name, logps in views.items()
    ]
    return pl.concat(parts).select(pl.col(n).cast(kind) for n, kind in RESCORED.items())


def write(step: Step, answer: Answer) -> None:
    """Keep an answer beside the step's files; an earlier one goes."""
    text = as_json(as_dict(answer), indent=2) + "\n"
    tables = {"hypotheses": hypotheses(answer), "rescored": rescored(answer)}
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    write_beside(step, REFEREE, name, tables, {REFEREE_FILE: text})
