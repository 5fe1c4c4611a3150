"""miles' `dashboard_columns/rollout_<id>.parquet`: the engine's log-probs in full precision.

The ranks' files hold them as bfloat16 under `--true-on-policy-mode`.
"""

from pathlib import Path

import numpy as np
import polars as pl

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers import parquet
from timtrack.tasks.readers.containers.tensors import Array

FOLDER = "dashboard_columns"

Scored = dict[int, tuple[Array, Array]]  # tokens and the response's log-probs, by sample index


def files(path: Path, rollout: str) -> list[Path]:
    """The mirror of a rollout, for a file in the folder beside it, if it is there."""
    beside = path.parent.parent / FOLDER / f"rollout_{rollout}.parquet"
    return [beside] if beside.is_file() else []


def read(path: Path, rollout: str) -> tuple[Scored, list[str]]:
    """What the mirror has of each sample, and a note where it cannot be read."""
    found = files(path, rollout)
    if not found:
        return {}, []
    try:
        return _scored(found[0]), []
    except BadCapture as error:
        name = f"{FOLDER}/{found[0].name}"
        return {}, [f"{name} cannot be read, so log-probs come from the ranks' files: {error}"]


def _scored(file: Path) -> Scored:
    parquet.check(file)
    scan = pl.scan_parquet(file, glob=False).select(
        pl.col("sample_index").cast(pl.Int64),
        pl.col("tokens").cast(pl.List(pl.Int64)),
        pl.col("rollout_log_probs").cast(pl.List(pl.Float32)),
    )
    table = parquet.guarded(scan.collect).drop_nulls("sample_index")
    if table["sample_index"].is_duplicated().any():
        raise BadCapture("it has samples twice")
    whole = table.drop_nulls()
    return {
        index: (np.asarray(tokens, dtype=np.int64), np.asarray(logps, dtype=np.float32))
        for index, tokens, logps in whole.iter_rows()
    }


def exact(scored: Scored, index: int, tokens: Array, rounded: Array) -> Array:
    """A sample's log-probs from the mirror, where it has the same tokens; else as they were."""
    ids, logps = scored.get(index, (None, rounded))
    if ids is None or len(logps) != len(rounded) or not np.array_equal(ids, tokens):
        return rounded
    return logps
