"""The sequences of a step that are scored again, and how they are chosen."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from timtrack.tasks.lake.steps import Step, require_tokens
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.tables.query import run_query

Floats = npt.NDArray[np.float64]

ROWS = 8  # sequences that are scored unless more are asked for

# Token by token as the engines wrote it; a gap that is unknown has no log-probs.
QUERY = """
select
    sequences.row,
    sequences.uid,
    sequences.prompt_ids,
    sequences.temperature,
    sequences.pack,
    list(tokens.token_id order by tokens.pos) as response,
    list(tokens.logp_rollout order by tokens.pos) as rollout,
    list(tokens.logp_train order by tokens.pos) as train
from sequences
inner join tokens_file as tokens using (run, step, row)
group by all
order by sequences.row
"""


class NotRescorable(TimtrackError):
    """The capture lacks what a model needs to score its tokens again."""


@dataclass(frozen=True)
class Rollout:
    """One sequence: ids, and both engines' log-probs [T], NaN where there is none."""

    row: int
    uid: str | None
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    rollout: Floats
    train: Floats
    temperature: float | None = None
    pack: int | None = None

    @property
    def ids(self) -> list[int]:
        """Prompt and response."""
        return [*self.prompt, *self.response]

    @property
    def gap(self) -> float:
        """Mean |ln r| over its trained tokens [nats]."""
        gaps = np.abs(self.train - self.rollout)
        return float(np.nanmean(gaps)) if np.isfinite(gaps).any() else 0.0


def read(step: Step) -> list[Rollout]:
    """Every sequence of a step that can be scored; raises NotRescorable where none can."""
    require_tokens(step)
    rows = run_query([step], QUERY).to_dicts()
    found = [_rollout(row) for row in rows if row["prompt_ids"] and None not in row["response"]]
    if not found:
        raise NotRescorable(_lacks(step, rows))
    return found


def _lacks(step: Step, rows: Sequence[dict[str, Any]]) -> str:
    without = sum(not row["prompt_ids"] for row in rows)
    if without:
        return (
            f"{step.name}: {without} of {len(rows)} sequences have no prompt ids; a model can "
            "score them again only with the field `prompts` (step_batch), or as its format has "
            "them: tim formats"
        )
    return f"{step.name}: no sequence has token ids for all of its response"


def _rollout(row: dict[str, Any]) -> Rollout:
    return Rollout(
        row["row"],
        row["uid"],
        tuple(row["prompt_ids"]),
        tuple(row["response"]),
        np.array(row["rollout"], dtype=np.float64),
        np.array(row["train"], dtype=np.float64),
        row["temperature"],
        row["pack"],
    )


def chosen(
    there: Sequence[Rollout], count: int = ROWS, seed: int = 0, named: Sequence[int] = ()
) -> list[Rollout]:
    """The sequences to score: those `named` by their row, else spread over gap, length, prompt.

    The sequences are put in order of their gap, cut into `count` equal parts, and of each part one
    is taken: of a prompt that was taken least, of a length that differs most from those taken.
    Raises NotRescorable for a row that is not there.
    """
    if named:
        return _named(there, named)
    scored = [one for one in there if np.isfinite(one.train - one.rollout).any()]
    order = sorted(scored, key=lambda one: (one.gap, one.row))
    draw = random.Random(seed)
    taken: list[Rollout] = []
    parts = np.array_split(np.arange(len(order)), min(count, len(order)))
    for part in parts:
        candidates = [order[place] for place in part]
        draw.shuffle(candidates)
        taken.append(max(candidates, key=lambda one: _novelty(one, taken)))
    return sorted(taken, key=lambda one: one.row)


def _novelty(one: Rollout, taken: Sequence[Rollout]) -> tuple[int, int]:
    """How seldom its prompt was taken, then how far its length is from all that were taken."""
    same = sum(other.uid == one.uid and one.uid is not None for other in taken)
    apart = (abs(len(other.response) - len(one.response)) for other in taken)
    return -same, min(apart, default=0)


def _named(there: Sequence[Rollout], named: Sequence[int]) -> list[Rollout]:
    known = {one.row: one for one in there}
    if missing := sorted(set(named) - known.keys()):
        raise NotRescorable(
            f"no row {missing[0]} that can be scored; there are {len(known)}, from {min(known)} to "
            f"{max(known)}"
        )
    return [known[row] for row in sorted(set(named))]
