"""What tests are given: token rows, batches, captures, built from what a test is about."""

import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from timtrack.tasks.captures.capture import identify, reading
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.publish import write_step
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.tables.catalogue import catalogue, sql_version, tables_named
from timtrack.tasks.tables.database import VIEWS, open_frames
from timtrack.tasks.tokens.table import SEQUENCES, TOKENS

Row = dict[str, Any]

# Colours and clears a terminal, begins a line, turns text around, hides, and is no UTF-8.
ACTING = "a\x1b[2J\r\nfailed: b\x7f\x85\u202e\u2066\u200b\u2028\udcff\ufeff"
SHOWN = r"a\x1b[2J\r\nfailed: b\x7f\x85\u202e\u2066\u200b\u2028\udcff\ufeff"
# An image of another server, HTML, a heading, code and a cell of its own; fits a run's name.
MARKUP = "a|b](http://x) ![i](http://e/x.png) <img src=x onerror=1> `c` www.x.yz # h"

# What a row is when a test does not say: one trained token on which the engines agree.
TOKEN: Row = {
    "run": "r",
    "step": 1,
    "capture": "c",
    "row": 0,
    "uid": "u",
    "pos": 0,
    "token_id": 7,
    "is_trained": True,
    "logp_rollout": -1.0,
    "logp_train": -1.0,
    "advantage": 1.0,
    "entropy": None,
    "nonfinite_rollout": False,
    "nonfinite_train": False,
}


def token_frame(rows: list[Row]) -> pl.DataFrame:
    """Tokens as the lake's files hold them, `rows` filled up with what TOKEN says."""
    given = (name for row in rows for name in row if name.startswith("logp_"))
    views = dict.fromkeys([*VIEWS, *given], pl.Float32)
    keys = {"run": pl.String, "step": pl.Int64, "capture": pl.String}
    schema = {**keys, **dict(TOKENS), **views, "uid": pl.String}
    return pl.DataFrame([{**TOKEN, **row} for row in rows], schema=schema)


def sequence_frame(tokens: pl.DataFrame) -> pl.DataFrame:
    """The sequences that these tokens make up."""
    trained = pl.col("is_trained")
    return (
        tokens.group_by("run", "step", "capture", "row", maintain_order=True)
        .agg(
            uid=pl.col("uid").first(),
            prompt_tokens=pl.lit(3, pl.Int32),
            response_tokens=pl.len().cast(pl.Int32),
            trained_tokens=trained.sum().cast(pl.Int32),
            turns=(trained & ~trained.shift(1, fill_value=False)).sum().cast(pl.Int32),
            reward=pl.lit(1.0),
        )
        .with_columns(
            pl.lit(None, dtype).alias(name)
            for name, dtype in SEQUENCES.items()
            if name.startswith(("policy", "prompt", "response", "rollout")) and "tokens" not in name
        )
    )


class Connection:
    """DuckDB over tokens and sequences; each table is made when a query first names it."""

    def __init__(
        self, tokens: pl.DataFrame, sequences: pl.DataFrame, evidence: pl.DataFrame | None = None
    ) -> None:
        self.made: set[str] = set()
        captures = sequences.select("run", "step", "capture").unique()
        frames = {"tokens_file": tokens, "sequences": sequences, "capture_files": captures}
        self.duckdb = open_frames(frames | ({} if evidence is None else {"evidence": evidence}))

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """A query's answer; the tables it needs are computed once, in order, as for a step."""
        needed = tables_named(query) - self.made
        for name, table in catalogue().items():
            if name in needed and table.folder == "tokens":
                self.duckdb.execute(f"create view {name} as {table.sql}")
            elif name in needed:
                self.duckdb.execute(f"create table {name} as {table.sql}")
        self.made |= needed
        return self.duckdb.sql(query)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.duckdb.close()


def sql_connection(
    tokens: pl.DataFrame,
    sequences: pl.DataFrame | None = None,
    evidence: pl.DataFrame | None = None,
) -> Connection:
    """Every table of `sql/` over these tokens."""
    return Connection(tokens, sequence_frame(tokens) if sequences is None else sequences, evidence)


def random_tokens(seed: int, rows: int = 12, width: int = 40, gap: float = 0.3) -> pl.DataFrame:
    """Rows of random length (some empty) with mask holes and gaps of about `gap` nats."""
    rng = np.random.default_rng(seed)
    drawn: list[Row] = []
    for row in range(rows):
        for pos in range(int(rng.integers(0, width))):
            rollout = -float(rng.exponential(1.0))
            drawn.append(
                {
                    "row": row,
                    "uid": f"u{row // 4}",
                    "pos": pos,
                    "token_id": int(rng.integers(0, 9)),
                    "is_trained": bool(rng.random() < 0.8),
                    "logp_rollout": rollout,
                    "logp_train": min(0.0, rollout + gap * float(rng.normal())),
                }
            )
    return token_frame(drawn)


def batch_fields(
    rows: int = 6, width: int = 10, prompt: int = 4, seed: int = 0, gap: float = 0.1
) -> dict[str, Any]:
    """A padded batch as verl holds it after the recompute: right-padded responses, group uids."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    lengths[0] = width
    real = torch.arange(width) < lengths[:, None]
    left = torch.randint(0, prompt, (rows,), generator=generator)
    prompt_real = torch.arange(prompt) >= left[:, None]
    rollout = -torch.rand(rows, width, generator=generator) * 3 - 0.01
    train = (rollout + gap * torch.randn(rows, width, generator=generator)).clamp(max=0)
    return {
        "prompts": torch.randint(5, 90, (rows, prompt), generator=generator) * prompt_real,
        "responses": torch.randint(5, 90, (rows, width), generator=generator) * real,
        "response_mask": real.long(),
        "attention_mask": torch.cat([prompt_real, real], dim=1).long(),
        "rollout_log_probs": rollout * real,
        "old_log_probs": train * real,
        "advantages": torch.randn(rows, 1, generator=generator).expand(rows, width) * real,
        "token_level_scores": torch.where(torch.arange(width) == lengths[:, None] - 1, 1.0, 0.0),
        "uid": [f"group-{row // 2}" for row in range(rows)],
        "global_step": 3,
    }


def barriers(page: Page) -> list[tuple[str, str]]:
    """Serious violations of the accessibility rules on a page, with all its details open."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    grave = (rule for rule in found if rule["impact"] in ("serious", "critical"))
    return [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in grave]


def ingest(path: Path, into: Path, columns: str | None = None, **given: Any) -> Step:
    """One capture into the lake, without Prefect."""
    capture = identify(Source(path, columns), **given)
    return write_step(into, capture, **reading(capture))


def replace_everywhere(monkeypatch: pytest.MonkeyPatch, function: Any, by: Any) -> None:
    """A function of timtrack replaced in every module that imported it."""
    for module in [m for name, m in sys.modules.items() if name.startswith("timtrack.")]:
        if getattr(module, function.__name__, None) is function:
            monkeypatch.setattr(module, function.__name__, by)


def with_other_sql(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, the SQL of steps is another than that which stored tables were made by."""
    replace_everywhere(monkeypatch, sql_version, lambda: "0123456789ab")
