"""What hypotheses are tried on: the model, the sequences, and their plain scores.

Log-probs of several sequences are one array [N], the tokens of one sequence after those of the
other; `slices` says where each begins.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from timtrack.tasks.referee.model.changes import Change
from timtrack.tasks.referee.model.checkpoints import Adapter, Checkpoint
from timtrack.tasks.referee.model.distributions import Distributions, summary
from timtrack.tasks.referee.model.lines import Line, hidden_states
from timtrack.tasks.referee.model.loading import Reference
from timtrack.tasks.referee.rollouts import Floats, Rollout

ENGINES = ("rollout", "train")
Changed = Callable[[Any, Change], AbstractContextManager[None]]


@dataclass(frozen=True)
class Bench:
    """The reference over some sequences; numbers that are asked for twice are computed once."""

    reference: Reference
    rollouts: tuple[Rollout, ...]
    batch: Mapping[int, Rollout] = field(default_factory=dict)  # all sequences of the step, by row
    previous: tuple[Checkpoint, ...] = ()
    adapter: Adapter | None = None
    seed: int = 0

    @cached_property
    def lines(self) -> list[Line]:
        """The sequences as they should be scored."""
        return [Line(one.ids, len(one.prompt), len(one.response)) for one in self.rollouts]

    @cached_property
    def slices(self) -> list[slice]:
        """Where the tokens of each sequence are."""
        ends = np.cumsum([len(one.response) for one in self.rollouts])
        return [
            slice(end - len(r.response), end) for end, r in zip(ends, self.rollouts, strict=True)
        ]

    @cached_property
    def distributions(self) -> Distributions:
        """What the reference says of each token, by one forward."""
        hidden = hidden_states(self.reference.model, self.lines)
        ends = sorted(self.reference.ends | {0} | self._pads)
        return summary(self.reference.head, hidden, self.lines, ends)

    @property
    def _pads(self) -> set[int]:
        pad = getattr(self.reference.config, "pad_token_id", None)
        return set() if pad is None else {pad}

    @property
    def plain(self) -> Floats:
        """The reference's log-probs [N]."""
        return self.distributions.logps

    def logps(self, engine: str) -> Floats:
        """The log-probs of an engine [N], NaN where it has none."""
        return np.concatenate([getattr(one, engine) for one in self.rollouts])

    def scored(self, lines: Sequence[Line] | None = None) -> Floats:
        """Log-probs [N] of the sequences by the model as it is now, from other lines if given."""
        used = self.lines if lines is None else lines
        return self._read(hidden_states(self.reference.model, used), used)

    def _read(self, hidden: torch.Tensor, used: Sequence[Line]) -> Floats:
        """The log-probs of the scored tokens by their hidden states [N, D]."""
        labels = torch.tensor([i for ln in used for i in ln.ids[ln.first : ln.first + ln.length]])
        made = torch.empty(len(labels), dtype=torch.float64)
        for part, logits in self.reference.head.blocks(hidden):
            label = labels[part, None].to(logits.device)
            made[part] = logits.log_softmax(1).gather(1, label)[:, 0].double().cpu()
        return made.numpy()

    def scored_after(self, changed: Changed, change: Change) -> Floats:
        """Log-probs [N] where the prompts' keys and values are those of a changed model."""
        model: Any = self.reference.model
        states = []
        with torch.no_grad():
            for one in self.rollouts:
                ids = torch.tensor([one.ids], device=self.reference.device)
                last = len(one.prompt) - 1
                cache = self.reference.cache()
                with changed(model, change):
                    model.base_model(ids[:, :last], **cache)
                made = model.base_model(ids[:, last:], **cache)
                states.append(made.last_hidden_state[0, :-1])
        return self._read(torch.cat(states), self.lines)

    def of(self, rollouts: Sequence[Rollout]) -> "Bench":
        """The same on other sequences."""
        return replace(self, rollouts=tuple(rollouts))

    def widest(self, engines: Sequence[str]) -> "Bench":
        """On one sequence for each engine: that in which it is farthest from the reference."""
        far = []
        for engine in engines:
            away = np.nan_to_num(self.logps(engine) - self.plain)
            sums = [float(np.sum(away[part] ** 2)) for part in self.slices]
            far.append(self.rollouts[int(np.argmax(sums))])
        return self.of(list({one.row: one for one in far}.values()))
