"""Two steps token by token, as far as they scored the same tokens.

Rollouts are the same if prompt and response have the same ids, in whatever order the batch has
them. Where only prompts are the same, rollouts are compared up to where they part; where not even
those are, only distributions can be compared, which `run_pairs` does.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl

from timtrack.tasks.lake.steps import Step, require_tokens
from timtrack.tasks.tables.database import literal
from timtrack.tasks.tables.query import run_query

# Every rollout of the two steps by the hashes of its prompt and its response, numbered among those
# that are alike.
ROLLOUTS = """
with responses as (
    select run, step, row, hash(list(token_id order by pos)) as answer
    from tokens
    group by run, step, row
),
texts as (
    select run, step, row, hash(prompt_ids) as question, coalesce(answer, 0) as answer
    from sequences
    left join responses using (run, step, row)
),
a as (select * from texts where run = {a_run} and step = {a_step}),
b as (select * from texts where run = {b_run} and step = {b_step}),
"""
SAME = """
numbered_a as (select *, row_number() over (partition by {alike} order by row) as nth from a),
numbered_b as (select *, row_number() over (partition by {alike} order by row) as nth from b),
pairs as (
    select numbered_a.row as a_row, numbered_b.row as b_row
    from numbered_a
    inner join numbered_b using ({alike}, nth)
)
"""
TOKENS = """,
met as (
    select
        a_row, b_row, a.pos, a.token_id, a.token, a.token_id = b.token_id as is_same,
        a.is_trained and b.is_trained as is_compared,
        a.logp_rollout as a_logp_rollout, b.logp_rollout as b_logp_rollout,
        a.logp_train as a_logp_train, b.logp_train as b_logp_train
    from pairs
    inner join tokens as a on a.run = {a_run} and a.step = {a_step} and a.row = a_row
    inner join tokens as b
        on b.run = {b_run} and b.step = {b_step} and b.row = b_row and b.pos = a.pos
),
shared as (
    select * from met
    qualify bool_and(is_same) over (
        partition by a_row, b_row order by pos rows between unbounded preceding and current row
    )
)
select * exclude (is_same, is_compared)
from shared
where is_compared
order by a_row, b_row, pos
"""


@dataclass(frozen=True)
class Pair:
    """Two steps: how they are related, and the tokens that both scored.

    `tokens` has a row for each: a_row, b_row, pos, token_id, token and both log-probs of both.
    """

    relation: str  # "same tokens", "shared prefixes" or "distributions only"
    matched: int  # rollouts
    rollouts: tuple[int, int]
    tokens: pl.DataFrame

    @property
    def text(self) -> str:
        """The relation in a sentence."""
        a, b = self.rollouts
        count = f"{len(self.tokens):,} trained tokens"
        if self.relation == "same tokens":
            return f"{self.matched} of {a} and {b} rollouts are the same, {count}: compared exactly"
        if self.relation == "shared prefixes":
            return (
                f"no rollout is the same, but {self.matched} of {a} and {b} answer the same "
                f"prompts: compared up to where they part, {count}"
            )
        return (
            f"none of {a} and {b} rollouts share a prompt: "
            "tokens cannot be compared, only distributions"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the tokens by engine, and those that the trainers score most differently."""
        are_shared = not self.tokens.is_empty()
        return {
            "relation": self.relation,
            "text": self.text,
            "matched": self.matched,
            "rollouts": list(self.rollouts),
            "tokens": len(self.tokens),
            "engines": summary(self.tokens).to_dicts() if are_shared else [],
            "widest": widest(self.tokens).to_dicts() if are_shared else [],
        }


def compare(a: Step, b: Step) -> Pair:
    """The tokens that two steps both scored; raises NoSuchStep if those of one are gone."""
    for step in (a, b):
        require_tokens(step)
    steps = list(dict.fromkeys([a, b]))
    sides = (("a", a), ("b", b))
    names = {f"{side}_run": literal(s.run) for side, s in sides}
    names |= {f"{side}_step": str(s.step) for side, s in sides}
    head = ROLLOUTS.format(**names)
    query = head + "c as (select 1) select (select count(*) from a), (select count(*) from b)"
    rollouts = run_query(steps, query).row(0)
    for relation, alike in (("same tokens", "question, answer"), ("shared prefixes", "question")):
        matching = head + SAME.format(alike=alike)
        matched = run_query(steps, matching + "select count(*) from pairs").item()
        if matched:
            tokens = run_query(steps, matching + TOKENS.format(**names))
            return Pair(relation, matched, (rollouts[0], rollouts[1]), tokens)
    nothing = pl.DataFrame()
    return Pair("distributions only", 0, (rollouts[0], rollouts[1]), nothing)


def summary(tokens: pl.DataFrame) -> pl.DataFrame:
    """Per engine: tokens, unequal ones, mean and largest difference b minus a [nats]."""
    return pl.concat(_engine(tokens, name) for name in ("rollout", "train"))


def _engine(tokens: pl.DataFrame, name: str) -> pl.DataFrame:
    a, b = (pl.col(f"{side}_logp_{name}").cast(pl.Float64) for side in "ab")
    return tokens.select(
        engine=pl.lit(name),
        tokens=pl.len(),
        unequal=(a != b).sum(),
        diff_mean=(b - a).mean(),
        abs_diff_mean=(b - a).abs().mean(),
        abs_diff_max=(b - a).abs().max(),
    )


def widest(tokens: pl.DataFrame, count: int = 10) -> pl.DataFrame:
    """The tokens that the two trainers score most differently."""
    gap = (pl.col("b_logp_train").cast(pl.Float64) - pl.col("a_logp_train")).alias("diff")
    return tokens.with_columns(gap).sort(pl.col("diff").abs(), descending=True).head(count)
