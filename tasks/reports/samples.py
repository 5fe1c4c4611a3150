"""Sequences to look at, chosen by a stated rule, and their tokens with every number.

`samples.json` has them for other programs; flows/README.md documents its form.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from timtrack.tasks.lake.steps import Step, require_tokens
from timtrack.tasks.messages import formatting
from timtrack.tasks.messages.errors import TimtrackError, printable
from timtrack.tasks.tables.query import run_queries

SAMPLES_VERSION = 1
RULES = {
    "worst": "the prompts of the rollouts with the largest mean |ln r|",
    "spread": "prompts from the smallest to the largest mean |ln r|, evenly spaced",
    "random": "prompts at random",
    "median": "the prompts nearest to the median of their mean |ln r|",
    "first": "the first prompts of the batch",
}

TOKENS = """
select
    tokens.row, tokens.pos, tokens.token_id, tokens.token, tokens.is_trained,
    tokens.logp_rollout, tokens.logp_train,
    logp_diff, abs_logp_diff, p_rollout, p_train, ratio
from tokens
left join trained_tokens using (run, step, row, pos)
where tokens.row in ({rows})
order by tokens.row, tokens.pos
"""
SEQUENCES = """
select
    sequences.row, sequences.uid, prompt, response, prompt_ids, sequences.reward,
    sequences.response_tokens, sequences.trained_tokens, kl_k1, abs_logp_diff_mean
from sequences
inner join sequence_metrics using (run, step, row)
where sequences.row in ({rows})
order by sequences.row
"""


class NoSuchRow(TimtrackError):
    """The step has no rollout of that index."""


@dataclass(frozen=True)
class Choice:
    """How samples are chosen: a rule, so many prompts, so many rollouts of each."""

    pick: str = "worst"
    groups: int = 4
    per_group: int = 2
    seed: int = 0

    @property
    def text(self) -> str:
        """The rule in words."""
        seed = f", seed {self.seed}" if self.pick == "random" else ""
        return (
            f"{RULES[self.pick]}{seed} (--pick {self.pick}); {self.groups} prompts, "
            f"{self.per_group} rollouts of each, the larger mean |ln r| first"
        )


@dataclass(frozen=True)
class Sample:
    """One rollout; `tokens` has a row for each response token, NULLs outside the mask."""

    facts: Mapping[str, Any]
    tokens: pl.DataFrame

    @property
    def header(self) -> str:
        """The line above a sample: row, prompt group, length, gap, reward."""
        facts = self.facts
        trained = facts["trained_tokens"]
        masked = "" if trained == facts["response_tokens"] else f" ({trained} trained)"
        parts = [f"row {facts['row']}"]
        if facts["uid"] is not None:
            uid = facts["uid"][:8]
            parts.append(f"uid {uid if printable(uid) == uid else repr(uid)}")
        parts.append(f"{facts['response_tokens']} tokens{masked}")
        if facts["abs_logp_diff_mean"] is not None:
            parts.append(f"mean|diff|={facts['abs_logp_diff_mean']:.3f}")
        if facts["reward"] is not None:
            parts.append(f"reward={facts['reward']:.2f}")
        return " · ".join(parts)


def groups(sequence_metrics: pl.DataFrame, choice: Choice) -> list[list[int]]:
    """Rows to show, by prompt; of each prompt all its rollouts follow those that were chosen.

    Rollouts without trained tokens are not chosen. Without uids each rollout is its own prompt.
    """
    trained = sequence_metrics.filter(pl.col("trained_tokens") > 0).sort("row")
    own = pl.format("row {}", "row")
    by_group = (
        trained.sort("abs_logp_diff_mean", "row", descending=[True, False])
        .group_by(pl.coalesce("uid", own).alias("group"), maintain_order=True)
        .agg(
            rows="row",
            first=pl.col("row").min(),
            gap=(pl.col("abs_logp_diff_mean") * pl.col("trained_tokens")).sum()
            / pl.col("trained_tokens").sum(),
            worst=pl.col("abs_logp_diff_mean").max(),
        )
        .sort("worst" if choice.pick == "worst" else "gap", "first", descending=[True, False])
    )
    places = _places(by_group, choice)
    return [by_group["rows"][place].to_list() for place in places]


def _places(by_group: pl.DataFrame, choice: Choice) -> list[int]:
    """Indices into the groups, which are sorted by their gap, the largest first."""
    count = len(by_group)
    number = min(choice.groups, count)
    middle = (count - 1) / 2
    if choice.pick == "spread":
        return [round(i * (count - 1) / max(1, number - 1)) for i in range(number)]
    if choice.pick == "median":
        return sorted(sorted(range(count), key=lambda place: abs(place - middle))[:number])
    if choice.pick == "random":
        return random.Random(choice.seed).sample(range(count), number)
    if choice.pick == "first":
        return by_group["first"].arg_sort()[:number].to_list()
    return list(range(number))


def read(step: Step, rows: list[int]) -> dict[int, Sample]:
    """The rollouts of these rows; raises NoSuchRow, or NoSuchStep if the tokens are gone."""
    require_tokens(step)
    numbers = ", ".join(map(str, rows))
    queries = {"facts": SEQUENCES.format(rows=numbers), "tokens": TOKENS.format(rows=numbers)}
    facts, tokens = run_queries([step], queries).values()
    if missing := sorted(set(rows) - set(facts["row"])):
        raise NoSuchRow(f"{step.name} has no row {missing[0]}")
    by_row = tokens.partition_by("row", as_dict=True)
    nothing = tokens.clear()
    return {
        fact["row"]: Sample(fact, by_row.get((fact["row"],), nothing)) for fact in facts.to_dicts()
    }


def write(samples: list[Sample], rule: str, path: Path) -> None:
    """`samples.json`: the rule of choice, and every sample whole, its tokens as columns."""
    content = {
        "samples_version": SAMPLES_VERSION,
        "rule": rule,
        "samples": [
            {**sample.facts, "tokens": sample.tokens.drop("row").to_dict(as_series=False)}
            for sample in samples
        ],
    }
    path.write_text(formatting.as_json(content) + "\n")
