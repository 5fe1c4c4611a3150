"""Evidence beside the log-probs of tokens, as the lake holds it."""

from typing import Any

import polars as pl

from timtrack.tasks.tokens.table import EVIDENCE

KEYS = ("run", "step", "capture")


def evidence_frame(tokens: pl.DataFrame, **columns: Any) -> pl.DataFrame:
    """Evidence of all tokens of a table; a column is a list of theirs, or one value for all."""
    keys = tokens.select(*KEYS, "row", "pos", "token_id")
    return keys.with_columns(
        _column(name, dtype, columns.get(name), len(keys))
        for name, dtype in EVIDENCE.items()
        if name not in keys.columns
    )


def _column(name: str, dtype: Any, values: Any, tokens: int) -> pl.Series:
    given = values if isinstance(values, list) and len(values) == tokens else [values] * tokens
    return pl.Series(name, given, dtype=dtype)
