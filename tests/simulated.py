"""Captures whose |ln r| is known by construction: without any structure, or with a planted slice.

All captures of a scenario are steps of one table, so that DuckDB looks at them in one pass.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tests.given import Connection, sql_connection

Array = np.ndarray[Any, Any]

ROLLOUTS = 4  # of a group
VOCABULARY = 800
PROMPT = 30  # tokens
CLASSES = ("word", "number", "white space", "punctuation and other", "special")  # of ids in turn
FREQUENCY = 1 / (np.arange(VOCABULARY) + 2.7)  # of the ids: Zipf's law, as Mandelbrot has it
FREQUENCY /= FREQUENCY.sum()
PLANTED = int(np.argmin(np.abs(FREQUENCY - 0.02)))  # an id with 2 % of the tokens


@dataclass(frozen=True)
class Scenario:
    """What captures are like, and what is planted in them."""

    groups: int
    heavy: int | None = None  # tails of Student's t with that many degrees of freedom
    differing: bool = False  # each group has a level of its own
    planted: str | None = None  # a kind of slice
    lift: float = 1.0


class Drawn:
    """The tokens of all captures as flat arrays."""

    def __init__(self, scenario: Scenario, captures: int, seed: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        rows = captures * scenario.groups * ROLLOUTS
        self.row_group = np.arange(rows) // ROLLOUTS
        hard = rng.normal(size=captures * scenario.groups)[self.row_group]
        # longer answers to harder prompts
        self.lengths = np.clip(30 + 4 * hard + 3 * rng.normal(size=rows), 20, 40).astype(int)
        self.rewards = (rng.random(rows) < 1 / (1 + np.exp(hard))).astype(float)
        self.row = np.repeat(np.arange(rows), self.lengths)
        ends = np.cumsum(self.lengths)
        self.pos = np.arange(ends[-1]) - np.repeat(ends - self.lengths, self.lengths)
        self.token_id = self.ids(ends[-1])
        self.logp_rollout = -rng.exponential(0.7, ends[-1]) * (rng.random(ends[-1]) < 0.7)
        self.logp_train = self.logp_rollout - self.gap(scenario)

    def ids(self, many: int) -> Array:
        """Token ids, frequent ones as often as in text."""
        drawn = np.searchsorted(np.cumsum(FREQUENCY), self.rng.random(many))
        return drawn.clip(0, VOCABULARY - 1)

    def gap(self, scenario: Scenario) -> Array:
        """ln p_rollout - ln p_train of every token."""
        many = len(self.row)
        drawn = (
            self.rng.standard_t(scenario.heavy, many)
            if scenario.heavy
            else self.rng.normal(size=many)
        )
        groups = self.row_group[-1] + 1
        if scenario.differing:
            drawn *= np.exp(0.7 * self.rng.normal(size=groups))[self.row_group[self.row]]
        if scenario.planted:
            drawn *= np.where(self.planted(scenario.planted), scenario.lift, 1)
        return 0.02 * drawn

    def planted(self, name: str) -> Array:
        """Which tokens are of the slice that is planted."""
        if name == "token":  # 2 % of the tokens
            return self.token_id == PLANTED
        if name == "position":
            return self.pos < 16
        if name == "token class":
            return self.token_id % len(CLASSES) == CLASSES.index("number")
        return self.lengths[self.row] >= 34  # the longest quarter

    def frames(self, groups: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """`tokens` and `sequences`, a capture a step."""
        step, uid = self.row_group // groups, np.char.add("u", self.row_group.astype(str))
        by_group = self.rewards.reshape(-1, ROLLOUTS)
        spread = by_group.std(axis=1, keepdims=True) + 1e-6
        advantage = ((by_group - by_group.mean(axis=1, keepdims=True)) / spread).ravel()
        rows = pl.DataFrame(
            {
                "step": step.astype(np.int64),
                "row": np.arange(len(step), dtype=np.int32),
                "uid": uid,
                "reward": self.rewards,
                "advantage": advantage.astype(np.float32),
                "response_tokens": self.lengths.astype(np.int32),
                "prompt_ids": self.prompts(),
            }
        ).with_columns(run=pl.lit("r"), capture=pl.col("step").cast(pl.String))
        logps = {
            name: getattr(self, name).astype(np.float32) for name in ("logp_rollout", "logp_train")
        }
        tokens = pl.DataFrame(
            {
                "row": self.row.astype(np.int32),
                "pos": self.pos.astype(np.int32),
                "token_id": self.token_id.astype(np.int32),
                **logps,
            }
        ).with_columns(is_trained=pl.lit(True), entropy=pl.lit(None, pl.Float32))
        tokens = tokens.join(rows.drop("reward", "response_tokens", "prompt_ids"), on="row")
        counted = {"trained_tokens": pl.col("response_tokens"), "turns": pl.lit(1, pl.Int32)}
        return tokens, rows.drop("advantage").with_columns(**counted)

    def prompts(self) -> pl.Series:
        """A prompt a group, given to each of its rollouts."""
        groups = len(self.row_group) // ROLLOUTS
        ids = self.ids(groups * PROMPT).reshape(groups, PROMPT).astype(np.int32)
        return pl.Series(np.repeat(ids, ROLLOUTS, axis=0)).cast(pl.List(pl.Int32))


def connection(scenario: Scenario, captures: int, seed: int = 0) -> Connection:
    """Every table of `sql/` over that many captures, each a step."""
    tokens, sequences = Drawn(scenario, captures, seed).frames(scenario.groups)
    opened = sql_connection(tokens, sequences)
    ids = pl.Series(range(VOCABULARY), dtype=pl.Int32)
    texts = pl.DataFrame({"token_id": ids, "token": [text_of(i) for i in ids]})
    steps = tokens.select("run", "step", "capture").unique()
    vocabulary = steps.join(texts, how="cross").to_arrow(compat_level=pl.CompatLevel.oldest())
    opened.duckdb.register("test_vocabulary", vocabulary)
    opened.duckdb.execute("drop table vocabulary")
    opened.duckdb.execute("create view vocabulary as from test_vocabulary")
    return opened


def text_of(token_id: int) -> str:
    """A text of the id's class that no other id has."""
    letters = "".join(chr(ord("a") + int(digit)) for digit in str(token_id))
    many = token_id + 1
    texts = (f" {letters}", f"{token_id}", "\n" * many, "+" * many, f"<{letters}>")
    return texts[token_id % len(CLASSES)]
