"""Sampling and scoring with the zoo's engines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from llama import Cache, Engine, hidden, logits, taken

EOS = 2
ROWS_AT_ONCE = 12


@dataclass(frozen=True)
class Rollouts:
    """Sampled rows: ids as lists, and the engine's log-probs of them as it reported them."""

    prompts: list[list[int]]
    responses: list[list[int]]
    logps: list[torch.Tensor]
    experts: tuple[torch.Tensor, ...] = ()  # [tokens, layers, chosen] of a mixture


# From logits [B, V] and the ids of each row so far to the logits that are sampled from.
Processor = Callable[[torch.Tensor, list[list[int]], list[list[int]]], torch.Tensor]


def sample(
    engine: Engine,
    prompts: Sequence[list[int]],
    new: int,
    seed: int,
    process: Processor | None = None,
    reported: Processor | None = None,
    switch: tuple[int, Engine] | None = None,
    prefill: Engine | None = None,
) -> Rollouts:
    """Sample a response for each prompt, token by token with a KV cache.

    `process` makes what is sampled from, `reported` what the log-prob is read from (else that of
    `process`); from the token `switch[0]` on another engine decodes, with the same cache; `prefill`
    computed the prompts' keys and values.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = list(prompts)
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), EOS)
    real = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, prompt in enumerate(rows):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        real[row, width - len(prompt) :] = True
    positions = (real.cumsum(1) - 1).clamp(min=0)
    cache = Cache.empty()
    allowed = real[:, None, :] & torch.ones(width, width, dtype=torch.bool).tril()
    allowed = allowed | torch.eye(width, dtype=torch.bool)  # padding looks at itself
    out: list[list[int]] = [[] for _ in rows]
    logps: list[list[float]] = [[] for _ in rows]
    experts: list[list[torch.Tensor]] = [[] for _ in rows]
    going = torch.ones(len(rows), dtype=torch.bool)
    drop = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        first = prefill or engine
        if prefill:  # all but the last prompt token by the older weights
            hidden(first, ids[:, :-1], positions[:, :-1], allowed[:, :-1, :-1], cache, drop)
            x = hidden(engine, ids[:, -1:], positions[:, -1:], allowed[:, -1:], cache, drop)
        else:
            x = hidden(engine, ids, positions, allowed, cache, drop)
        at = positions[:, -1]
        for step in range(new):
            now = switch[1] if switch and step >= switch[0] else engine
            raw = logits(now, x[:, -1])
            shaped = process(raw, rows, out) if process else raw
            log_p = shaped.log_softmax(-1)
            token = torch.multinomial(log_p.exp(), 1, generator=generator)[:, 0]
            routes = taken(now)
            told = log_p if reported is None else reported(raw, rows, out).log_softmax(-1)
            for row in going.nonzero()[:, 0].tolist():
                out[row].append(int(token[row]))
                logps[row].append(float(told[row, token[row]]))
                if routes is not None:
                    experts[row].append(routes[row, -1])
            going &= token != EOS
            if not going.any():
                break
            real = torch.cat([real, torch.ones(len(rows), 1, dtype=torch.bool)], 1)
            at = at + 1
            x = hidden(now, token[:, None], at[:, None], real[:, None, :], cache, drop)
    routed = tuple(torch.stack(of_row) for of_row in experts if of_row)
    return Rollouts(rows, out, [torch.tensor(told) for told in logps], routed)


def score(
    engine: Engine,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    temperature: float = 1.0,
    positions: Callable[[torch.Tensor], torch.Tensor] | None = None,
    padding: int = 0,
    pad_attended: bool = False,
    pack: int = 1,
    best: bool = False,
    experts: list[torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """Log-probs [response tokens] of each row, in one forward over whole rows.

    `positions` changes those of each row [T]; rows are left padded to one width, and `pad_attended`
    looks at the padding too (`padding` more than needed); `pack` rows in a line see each other;
    `best` reads the likeliest token instead of the row's own; `experts` gets those of each row,
    [tokens, layers, chosen].
    """
    out: list[torch.Tensor] = []
    generator = torch.Generator().manual_seed(engine.seed)
    with torch.no_grad():
        for start in range(0, len(prompts), ROWS_AT_ONCE):
            rows = range(start, min(start + ROWS_AT_ONCE, len(prompts)))
            part = [(prompts[row], responses[row]) for row in rows]
            if pack > 1:
                out += _packed(engine, part, pack, temperature, generator)
            else:
                out += _padded(
                    engine, part, temperature, positions, padding, pad_attended, generator, best
                )
                if experts is not None and (routes := taken(engine)) is not None:
                    ends = routes[:, :-1]  # the last position is of no token
                    experts += [ends[row, -len(r) :] for row, (_, r) in enumerate(part)]
    return out


def _padded(engine, part, temperature, positions, padding, pad_attended, generator, best):
    width = max(len(p) + len(r) for p, r in part) + padding
    ids = torch.full((len(part), width), EOS)
    real = torch.zeros(len(part), width, dtype=torch.bool)
    for row, (prompt, response) in enumerate(part):
        line = torch.tensor(prompt + response)
        ids[row, width - len(line) :] = line
        real[row, width - len(line) :] = True
    places = (real.cumsum(1) - 1).clamp(min=0)
    if pad_attended:
        places = torch.arange(width).expand(len(part), -1)
        real = torch.ones_like(real)
    if positions:
        places = torch.stack([positions(row) for row in places])
    allowed = real[:, None, :] & torch.ones(width, width, dtype=torch.bool).tril()
    allowed = allowed | torch.eye(width, dtype=torch.bool)
    x = hidden(engine, ids, places, allowed, None, generator)
    return [
        _read(engine, x[row, width - len(r) - 1 : width - 1], r, temperature, best)
        for row, (_, r) in enumerate(part)
    ]


def _packed(engine, part, pack, temperature, generator):
    out = []
    for start in range(0, len(part), pack):
        rows = part[start : start + pack]
        line = torch.tensor([token for p, r in rows for token in p + r])[None]
        places = torch.cat([torch.arange(len(p) + len(r)) for p, r in rows])[None]
        allowed = torch.ones(1, line.shape[1], line.shape[1], dtype=torch.bool).tril()
        x = hidden(engine, line, places, allowed, None, generator)[0]
        at = 0
        for p, r in rows:
            begins = at + len(p)
            out.append(_read(engine, x[begins - 1 : begins + len(r) - 1], r, temperature))
            at = begins + len(r)
    return out


def _read(
    engine: Engine, x: torch.Tensor, response: list[int], temperature: float, best: bool = False
):
    log_p = (logits(engine, x) / temperature).log_softmax(-1)
    if best:
        return log_p.amax(-1)
    return log_p.gather(1, torch.tensor(response)[:, None])[:, 0]
