"""A branch of a prime-rl trace, from root to leaf, as a rollout: a tree of messages laid flat.

A message holds the tokens that it adds; `mask` says which of them the model sampled, `logprobs` has
a number for each of these only. The trainer's numbers are one for each token of the branch, null
where it was not trained on.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.messages.formatting import short
from timtrack.tasks.readers.containers import jsonl
from timtrack.tasks.readers.containers.tensors import Array
from timtrack.tasks.readers.prime_rl.stream import inside
from timtrack.tasks.readers.rows.fields import whole_number
from timtrack.tasks.readers.rows.ragged import Sample

# What the trainer wrote of each token; is_masked and mismatch_kl since prime-rl's PR 3525.
SCORED = {
    "trainer_logprobs": "old_log_probs",
    "entropies": "entropy",
    "is_masked": "is_masked",
    "mismatch_kl": "mismatch_kl",
}


@dataclass(frozen=True)
class Branch:
    """One branch of a trace as the trainer scored it; the parts as they are in the files."""

    where: str  # for messages
    episode: dict[str, Any]
    trace: dict[str, Any]
    shipped: dict[str, Any]  # the orchestrator's annotation
    trained: dict[str, Any]  # the trainer's, of this branch

    @cached_property
    def nodes(self) -> list[dict[str, Any]]:
        """Its messages from root to leaf."""
        nodes = self.trace.get("nodes")
        if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
            raise BadCapture(f"{self.where}: nodes is not a list of messages")
        parents = [node.get("parent") for node in nodes]
        for at, parent in enumerate(parents):
            if parent is not None and not (type(parent) is int and 0 <= parent < at):
                raise BadCapture(f"{self.where}: message {at} has the parent {short(parent)}")
        having = set(parents)
        leaves = [at for at in range(len(nodes)) if at not in having]
        index = whole_number(self.trained.get("index"))
        if index is None or not 0 <= index < len(leaves):
            raise BadCapture(f"{self.where}: branch {short(index)} of {len(leaves)}")
        path = [leaves[index]]
        while (parent := parents[path[-1]]) is not None:
            path.append(parent)
        return [nodes[at] for at in reversed(path)]

    def tokens(self) -> tuple[Array, Array, Array]:
        """Ids, whether sampled, the engine's log-probs: all of its tokens `[L]`, prompt included.

        Where log-probs of sampled tokens are missing they are NaN.
        """
        ids, sampled, logp = [], [], []
        for node in self.nodes:
            own = jsonl.numbers(self.where, "token_ids", node.get("token_ids"), np.int64)
            mask = jsonl.numbers(self.where, "mask", node.get("mask"), np.float64) != 0
            jsonl.check_lengths(self.where, {"mask": mask}, len(own))
            given = jsonl.numbers(self.where, "logprobs", node.get("logprobs") or [], np.float32)
            spread = np.full(len(own), np.nan, dtype=np.float32)
            if len(given) == mask.sum():
                spread[mask] = given
            ids.append(own)
            sampled.append(mask)
            logp.append(spread)
        return np.concatenate(ids), np.concatenate(sampled), np.concatenate(logp)

    def sample(self, row: int) -> Sample:
        """The rollout under verl's names: the response is what follows the first trained token."""
        ids, sampled, rollout = self.tokens()
        scored = {to: self._scored(name, len(ids)) for name, to in SCORED.items()}
        # Whatever the trainer wrote of a token shows that it trained on it.
        mask = sampled & np.any([np.isfinite(values) for values in scored.values()], axis=0)
        fields = {
            "responses": ids,
            "response_mask": mask.astype(np.float64),
            "rollout_log_probs": rollout,
            "advantages": self._advantages(len(ids)),
            **scored,
        }
        start = jsonl.first_trained(mask)
        return {
            **{name: values[start:] for name, values in fields.items()},
            "prompts": ids[:start],
            "row_index": row,
            "rewards": self._reward(),
            **self._group(),
            **self._versions(),
        }

    def _scored(self, name: str, length: int) -> Array:
        """What the trainer wrote `[L]`: NaN where null, and behind the end of a truncated one."""
        values = jsonl.numbers(self.where, name, self.trained.get(name) or [], np.float32)
        if len(values) > length:
            raise BadCapture(f"{self.where}: {name} has {len(values)} tokens, expected {length}")
        return np.pad(values, (0, length - len(values)), constant_values=np.nan)

    def _advantages(self, length: int) -> Array:
        """Per token as the orchestrator wrote them, else the trace's one for all."""
        index = self.trained.get("index")
        branches = self.shipped.get("branches")
        for branch in branches if isinstance(branches, list) else ():
            if isinstance(branch, dict) and branch.get("index") == index:
                values = jsonl.numbers(
                    self.where, "advantages", branch.get("advantages"), np.float32
                )
                return np.pad(values[:length], (0, max(0, length - len(values))))
        one = as_float(inside(self.shipped, "info").get("advantage"))
        return np.full(length, np.nan if one is None else one, dtype=np.float32)

    def _reward(self) -> float | None:
        """The weighted sum of the trace's scores."""
        given = inside(self.trace, "rewards")
        parts = [inside(given, name) for name in given]
        pairs = [(as_float(part.get("score")), as_float(part.get("weight"))) for part in parts]
        weighted = [s * w for s, w in pairs if s is not None and w is not None]
        return sum(weighted) if weighted else None

    def _group(self) -> dict[str, Any]:
        name = inside(self.episode, "group").get("id")
        return {"uid": str(name)} if isinstance(name, str | int) else {}

    def _versions(self) -> dict[str, Any]:
        policy = inside(self.episode, "run", "work", "policy")
        both = [policy.get(end) for end in ("start", "end")]
        if not all(type(version) is int for version in both):
            return {}
        return {"min_global_steps": both[0], "max_global_steps": both[1]}


def as_float(value: Any) -> float | None:
    """`value` as a float, or None if it is not a number or is too large."""
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None
