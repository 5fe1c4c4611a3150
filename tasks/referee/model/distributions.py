"""What is kept of the logits of one forward, so that changes of the logits alone need no other.

Of each scored token a few thousand numbers instead of the whole vocabulary, float64 where they are
summed. N scored tokens, K largest logits, S ids that prompt and response had.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from timtrack.tasks.referee.model.head import Head
from timtrack.tasks.referee.model.lines import Line
from timtrack.tasks.referee.rollouts import Floats

LARGEST = 2048  # logits that are kept of each token
ROOM = 1 << 25  # logits that are kept in all: 128 MB
LAGS = range(-2, 3)
INVERSE_TEMPERATURES = np.geomspace(1 / 4, 5, 16)


@dataclass(frozen=True)
class Distributions:
    """[N] unless said otherwise; logits are those of the reference."""

    own: Floats  # logit of the token itself
    total: Floats  # ln of the sum of e^logit
    top: Floats  # [N, K], the largest first
    seen: Floats  # [N, S], -inf where an id did not occur before
    counts: Floats  # [N, S], times in the response before
    own_count: Floats  # times that the token itself did
    own_seen: Floats  # 1 where prompt or response had it before
    rest: Floats  # ln of the sum over ids that did not occur
    tempered: Floats  # [N, 16], ln of the sum of e^(logit / temperature)
    neighbours: Floats  # [N, 5], logit of the label so many places on; NaN beyond the row
    others: dict[int, Floats]  # log-prob of these ids instead
    rounded: dict[torch.dtype, Floats]  # log-prob where logits are rounded to a type

    @property
    def logps(self) -> Floats:
        """The reference's log-prob of each token [nats]."""
        return self.own - self.total

    def at_temperature(self, temperature: float) -> Floats:
        """Log-probs of logits that are divided by a temperature."""
        inverse = 1 / temperature
        totals = CubicSpline(INVERSE_TEMPERATURES, self.tempered, axis=1)(inverse)
        return self.own * inverse - np.asarray(totals)


def summary(
    head: Head, hidden: torch.Tensor, lines: Sequence[Line], others: Sequence[int]
) -> Distributions:
    """The distributions of hidden states [N, D], of the scored tokens of these lines."""
    most = max(1, min(LARGEST, ROOM // max(1, len(hidden))))
    parts, start = [], 0
    for line in lines:
        part = hidden[start : start + line.length]
        start += line.length
        parts += _of_line(head, part, line, others, most)
    return _joined(parts)


def _of_line(
    head: Head, hidden: torch.Tensor, line: Line, others: Sequence[int], most: int
) -> list[Distributions]:
    labels = torch.tensor(line.ids[line.first : line.first + line.length])
    known, before, counts = _occurred(line)
    made = []
    for part, logits in head.blocks(hidden):
        here = logits.cpu()
        context = (known, before[part], counts[part])
        made.append(_block(here, labels, part, context, others, most))
    return made


def _occurred(line: Line) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids of a line [S], whether each occurred before a token [T, S], how often in the response."""
    ids = torch.tensor(line.ids)
    known, places = torch.unique(ids, return_inverse=True)
    hits = torch.zeros(len(ids), len(known), dtype=torch.int32)
    hits[torch.arange(len(ids)), places] = 1
    prompt, response = hits[: line.first], hits[line.first : line.first + line.length]
    counts = response.cumsum(0) - response
    return known, (counts > 0) | (prompt.sum(0) > 0), counts


def _block(
    logits: torch.Tensor,
    labels: torch.Tensor,
    part: slice,
    context: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    others: Sequence[int],
    most: int,
) -> Distributions:
    known, before, counts = context
    label = labels[part][:, None]
    own = logits.gather(1, label)
    total = logits.logsumexp(1, keepdim=True)
    seen = logits[:, known]
    own_at = known == label
    tempered = [(logits * inverse).logsumexp(1) for inverse in INVERSE_TEMPERATURES]
    rounded = {
        kind: logits.to(kind).float().log_softmax(1).gather(1, label)[:, 0]
        for kind in (torch.bfloat16, torch.float16)
    }
    neighbours = _neighbours(logits, labels, part)
    top = logits.topk(min(most, logits.shape[1]), 1).values
    unseen = logits.index_copy(1, known, seen.masked_fill(before, -torch.inf))
    return Distributions(
        _plain(own[:, 0]),
        _plain(total[:, 0]),
        _plain(top, np.float32),
        _plain(seen.masked_fill(~before, -torch.inf), np.float32),
        _plain(counts, np.float32),
        _plain((counts * own_at).sum(1)),
        _plain((before & own_at).any(1)),
        _plain(unseen.logsumexp(1)),
        _plain(torch.stack(tempered, 1)),
        _plain(neighbours),
        {other: _plain(logits[:, other] - total[:, 0]) for other in others},
        {kind: _plain(logps) for kind, logps in rounded.items()},
    )


def _neighbours(logits: torch.Tensor, labels: torch.Tensor, part: slice) -> torch.Tensor:
    """Logits of the labels so many places on, [n, 5]."""
    at = torch.arange(part.start, part.stop)[:, None] + torch.tensor(list(LAGS))
    inside = (at >= 0) & (at < len(labels))
    wanted = labels[at.clamp(0, len(labels) - 1)]
    return logits.gather(1, wanted).masked_fill(~inside, torch.nan)


def _plain(values: torch.Tensor, kind: type = np.float64) -> Floats:
    return values.numpy().astype(kind)


def _joined(parts: Sequence[Distributions]) -> Distributions:
    """Blocks one after the other; columns of ids are filled up to the widest line's."""
    fill = {"seen": -np.inf, "counts": 0.0}
    joined: dict[str, object] = {}
    for name in Distributions.__dataclass_fields__:
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], dict):
            joined[name] = {key: np.concatenate([v[key] for v in values]) for key in values[0]}
        else:
            joined[name] = np.concatenate(_as_wide(values, fill.get(name, 0.0)))
    return Distributions(**joined)  # type: ignore[arg-type]


def _as_wide(values: Sequence[Floats], fill: float) -> list[Floats]:
    if values[0].ndim == 1:
        return list(values)
    width = max(value.shape[1] for value in values)
    pads = [[(0, 0), (0, width - value.shape[1])] for value in values]
    return [np.pad(v, pad, constant_values=fill) for v, pad in zip(values, pads, strict=True)]
