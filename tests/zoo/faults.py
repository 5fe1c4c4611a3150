"""The faults of the zoo: each makes a capture in which one known thing is wrong.

A fault is a function from a `World` (weights, prompts, seed) and a size to the fields of a
`step_batch.pt`. Sizes are 0 (barely above the floor), 1 (typical), 2 (gross).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from llama import LAYERS, Engine, Weights
from rollouts import EOS, Processor, Rollouts, sample, score

Fields = dict[str, Any]


@dataclass
class World:
    """What a fault starts from; `weights[k]` are those after k updates of the trainer."""

    weights: list[Weights]
    prompts: list[list[int]]  # of each row: rows of one prompt follow each other
    group: int
    new: int
    seed: int
    tokenizer: Any = None
    system: list[int] = field(default_factory=list)  # ids of a system prompt
    model: Path | None = None  # folder that other engines read
    cached: dict[Any, Any] = field(default_factory=dict)

    def engine(self, at: int = 0, weights: Weights | None = None) -> Engine:
        """The rollout engine: bfloat16."""
        key = ("engine", at)
        if weights is not None:
            return Engine(_cast(weights, torch.bfloat16), torch.bfloat16)
        if key not in self.cached:
            self.cached[key] = Engine(_cast(self.weights[at], torch.bfloat16), torch.bfloat16)
        return self.cached[key]

    def trainer(self, at: int = 0, weights: Weights | None = None) -> Engine:
        """The trainer: float32."""
        return Engine(weights or self.weights[at])

    def sampled(self, engine: Engine | None = None, **how: Any) -> Rollouts:
        """Rollouts of the prompts; those of the plain engine are sampled once."""
        if engine is None and not how:
            if "plain" not in self.cached:
                self.cached["plain"] = sample(self.engine(), self.prompts, self.new, self.seed)
            return self.cached["plain"]
        return sample(engine or self.engine(), self.prompts, self.new, self.seed, **how)

    def sampled_elsewhere(self, quantization: str) -> Rollouts:
        """Rollouts by CTranslate2."""
        import second_engine

        engine = second_engine.opened(self.model, quantization)
        return second_engine.sampled(engine, self.tokenizer, self.prompts, self.new, self.seed)

    def sampled_best(self) -> list[torch.Tensor]:
        """Of each token of the plain rollouts, the log-prob of the likeliest one there."""
        rollouts = self.sampled()
        return score(self.engine(), rollouts.prompts, rollouts.responses, best=True)

    def scored(self, rollouts: Rollouts, engine: Engine | None = None, **how: Any) -> list:
        """The trainer's log-probs; of the plain rollouts they are computed once."""
        plain = engine is None and not how and rollouts is self.cached.get("plain")
        if plain and "scored" in self.cached:
            return self.cached["scored"]
        logps = score(engine or self.trainer(), rollouts.prompts, rollouts.responses, **how)
        if plain:
            self.cached["scored"] = logps
        return logps


def _cast(weights: Weights, dtype: torch.dtype) -> Weights:
    return {name: value.to(dtype) for name, value in weights.items()}


def capture(world: World, rollouts: Rollouts, train: list, **more: Any) -> Fields:
    """The fields of a batch as trainers hold it: right padded responses, left padded prompts."""
    rows = len(rollouts.responses)
    width = max(map(len, rollouts.responses))
    prompt_width = max(map(len, rollouts.prompts))
    responses = torch.full((rows, width), EOS)
    prompts = torch.full((rows, prompt_width), EOS)
    mask, prompt_mask = torch.zeros(rows, width, dtype=torch.long), torch.zeros_like(prompts)
    logps = {name: torch.zeros(rows, width) for name in ("rollout", "train")}
    for row, (prompt, response) in enumerate(
        zip(rollouts.prompts, rollouts.responses, strict=True)
    ):
        prompts[row, prompt_width - len(prompt) :] = torch.tensor(prompt)
        prompt_mask[row, prompt_width - len(prompt) :] = 1
        responses[row, : len(response)] = torch.tensor(response)
        mask[row, : len(response)] = 1
        logps["rollout"][row, : len(response)] = rollouts.logps[row]
        logps["train"][row, : len(response)] = train[row].float()
    rewards = torch.tensor([len(set(r)) / len(r) + (r[-1] == EOS) for r in rollouts.responses])
    grouped = rewards.view(-1, world.group)
    advantages = (
        (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    ).flatten()
    return {
        "prompts": prompts,
        "responses": responses,
        "response_mask": mask,
        "attention_mask": torch.cat([prompt_mask, mask], 1),
        "rollout_log_probs": logps["rollout"],
        "old_log_probs": logps["train"],
        "advantages": advantages[:, None] * mask,
        "rewards": rewards,
        "uid": [f"prompt-{row // world.group}" for row in range(rows)],
        "model": "SmolLM2-135M-Instruct",
        **more,
    }


FAULTS: dict[str, tuple[str, Callable[[World, int], Fields]]] = {}


def fault(cause: str, name: str) -> Callable[..., Any]:
    """Register a way in which a cause is made."""

    def register(make: Callable[[World, int], Fields]) -> Callable[[World, int], Fields]:
        FAULTS[name] = (cause, make)
        return make

    return register


def _tempered(temperature: float) -> Processor:
    return lambda raw, prompts, out: raw / temperature


# A. Different distributions


@fault("F1", "trainer-without-temperature")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled(process=_tempered((0.95, 0.8, 0.6)[size]))
    return capture(world, rollouts, world.scored(rollouts))


@fault("F1", "engine-without-temperature")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled()
    return capture(world, rollouts, world.scored(rollouts, temperature=(0.95, 0.8, 0.6)[size]))


@fault("F2", "raw-log-probs-of-tempered-samples")
def _(world: World, size: int) -> Fields:
    t = (0.95, 0.8, 0.6)[size]
    rollouts = world.sampled(process=_tempered(t), reported=_tempered(1.0))
    return capture(world, rollouts, world.scored(rollouts, temperature=t))


def _top_p(p: float) -> Processor:
    def process(raw: torch.Tensor, prompts: list, out: list) -> torch.Tensor:
        ordered, places = raw.softmax(-1).sort(-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= p
        return raw.scatter(1, places, raw.gather(1, places).masked_fill(beyond, -1e30))

    return process


def _top_k(k: int) -> Processor:
    return lambda raw, prompts, out: raw.masked_fill(raw < raw.topk(k, -1).values[:, -1:], -1e30)


def _min_p(p: float) -> Processor:
    def process(raw: torch.Tensor, prompts: list, out: list) -> torch.Tensor:
        probs = raw.softmax(-1)
        return raw.masked_fill(probs < p * probs.amax(-1, keepdim=True), -1e30)

    return process


@fault("F3", "top-p-in-the-engine")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled(process=_top_p((0.99, 0.95, 0.8)[size]))
    return capture(world, rollouts, world.scored(rollouts))


@fault("F4", "top-k-in-the-engine")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled(process=_top_k((100, 20, 5)[size]))
    return capture(world, rollouts, world.scored(rollouts))


@fault("F4", "min-p-in-the-engine")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled(process=_min_p((0.01, 0.05, 0.2)[size]))
    return capture(world, rollouts, world.scored(rollouts))


def _repetition(penalty: float) -> Processor:
    def process(raw: torch.Tensor, prompts: list, out: list) -> torch.Tensor:
        shaped = raw.clone()
        for row, (prompt, response) in enumerate(zip(prompts, out, strict=True)):
            seen = torch.tensor(sorted({*prompt, *response}))
            value = raw[row, seen]
            shaped[row, seen] = torch.where(value > 0, value / penalty, value * penalty)
        return shaped

    return process


def _frequency(penalty: float, presence: float = 0.0) -> Processor:
    def process(raw: torch.Tensor, prompts: list, out: list) -> torch.Tensor:
        shaped = raw.clone()
        for row, response in enumerate(out):
            for token in set(response):
                shaped[row, token] -= penalty * response.count(token) + presence
        return shaped

    return process


@fault("F5", "repetition-penalty-in-the-engine")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled(process=_repetition((1.02, 1.1, 1.3)[size]))
    return capture(world, rollouts, world.scored(rollouts))


@fault("F5", "frequency-penalty-in-the-engine")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled(process=_frequency((0.1, 0.4, 1.0)[size]))
    return capture(world, rollouts, world.scored(rollouts))


@fault("F5", "presence-penalty-in-the-engine")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled(process=_frequency(0.0, (0.2, 0.6, 1.5)[size]))
    return capture(world, rollouts, world.scored(rollouts))


@fault("F6", "log-prob-of-the-likeliest")
def _(world: World, size: int) -> Fields:
    """The sampled token's log-prob is that of the best candidate; in part of the rows."""
    rollouts = world.sampled()
    best = world.sampled_best()
    share = (0.3, 1.0, 1.0)[size]
    rows = len(rollouts.logps)
    logps = [
        best[row] if row < share * rows or size == 2 else rollouts.logps[row] for row in range(rows)
    ]
    return capture(world, replace(rollouts, logps=logps), world.scored(rollouts))


@fault("F7", "phantom-vocabulary-in-the-trainer")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled()
    mass = (20.0, 23.0, 26.0)[size]  # ln of what rows that no token has add to the normaliser
    return capture(world, rollouts, world.scored(rollouts, replace(world.trainer(), phantom=mass)))


@fault("F8", "logits-in-bfloat16")
def _(world: World, size: int) -> Fields:
    """Weights and layers are float32 on both sides: the head alone rounds."""
    engine = Engine(world.weights[0], logits_dtype=torch.bfloat16)
    if size == 0:
        engine = Engine(world.weights[0], logits_dtype=torch.float16)
    rollouts = world.sampled(engine)
    return capture(world, rollouts, world.scored(rollouts))


@fault("F42", "quantised-engine")
def _(world: World, size: int) -> Fields:
    weights = quantised(world.weights[0], (8, 5, 4)[size])
    rollouts = world.sampled(world.engine(weights=weights))
    return capture(world, rollouts, world.scored(rollouts))


@fault("F42", "int8-of-another-engine")
def _(world: World, size: int) -> Fields:
    """CTranslate2's own: weights and activations in 8 bits; there is one size."""
    rollouts = world.sampled_elsewhere("int8")
    return capture(world, rollouts, world.scored(rollouts))


@fault("F42", "fp8-engine")
def _(world: World, size: int) -> Fields:
    kind = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e5m2)[size]
    weights = {
        name: (value.to(kind).float() if "proj" in name and (size or "mlp" in name) else value)
        for name, value in world.weights[0].items()
    }
    rollouts = world.sampled(world.engine(weights=weights))
    return capture(world, rollouts, world.scored(rollouts))


def quantised(weights: Weights, bits: int) -> Weights:
    """Each row of each layer's matrices rounded to so many bits; the head stays as it is."""
    made = {}
    for name, value in weights.items():
        if "proj" in name:
            most = value.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            value = (value / most).round() * most
        made[name] = value
    return made


# B. The weights differ


@fault("F10", "stale-engine")
def _(world: World, size: int) -> Fields:
    behind = (1, 3, 6)[size]
    rollouts = world.sampled(world.engine(at=len(world.weights) - 1 - behind))
    return capture(world, rollouts, world.scored(rollouts, world.trainer(at=-1)))


@fault("F11", "sync-lost-a-tensor")
def _(world: World, size: int) -> Fields:
    lost = (
        ["model.layers.14.self_attn.q_proj.weight"],
        ["model.layers.14.mlp.down_proj.weight"],
        ["model.layers.3.self_attn.o_proj.weight", "model.layers.20.mlp.down_proj.weight"],
    )[size]
    weights = dict(world.weights[0]) | {n: torch.zeros_like(world.weights[0][n]) for n in lost}
    rollouts = world.sampled(world.engine(weights=weights))
    return capture(world, rollouts, world.scored(rollouts))


@fault("F15", "head-not-synced")
def _(world: World, size: int) -> Fields:
    """The head is as many times further behind than the first weights are."""
    name = "model.embed_tokens.weight"
    first, now = world.weights[0][name], world.weights[-1][name]
    weights = dict(world.weights[-1]) | {"lm_head.weight": now + (1, 3, 8)[size] * (first - now)}
    rollouts = world.sampled(world.engine(weights=weights))
    return capture(world, rollouts, world.scored(rollouts, world.trainer(at=-1)))


def _merged(one: Rollouts, other: Rollouts, is_one: list[bool]) -> Rollouts:
    """The rows of `one` where `is_one`, else those of `other`."""
    chosen = [one if is_it else other for is_it in is_one]
    return Rollouts(
        one.prompts,
        [rollouts.responses[row] for row, rollouts in enumerate(chosen)],
        [rollouts.logps[row] for row, rollouts in enumerate(chosen)],
    )


def _broken(world: World, size: int) -> Weights:
    scale = (0.9, 0.5, 0.0)[size]
    name = "model.layers.10.mlp.down_proj.weight"
    return dict(world.weights[0]) | {name: scale * world.weights[0][name]}


@fault("F16", "one-replica-is-wrong")
def _(world: World, size: int) -> Fields:
    """Every other row comes from a replica whose weights are off."""
    good, bad = world.sampled(), world.sampled(world.engine(weights=_broken(world, size)))
    mixed = _merged(bad, good, [row % 2 > 0 for row in range(len(good.prompts))])
    return capture(world, mixed, world.scored(mixed))


@fault("F16", "one-rank-is-wrong")
def _(world: World, size: int) -> Fields:
    """The second half of the rows was scored by a trainer rank whose weights are off."""
    rollouts = world.sampled()
    good, bad = (
        world.scored(rollouts),
        world.scored(rollouts, world.trainer(weights=_broken(world, size))),
    )
    half = len(good) // 2
    return capture(world, rollouts, [*good[:half], *bad[half:]])


@fault("F17", "stale-prefix-cache")
def _(world: World, size: int) -> Fields:
    """Keys and values of the prompts are of older weights."""
    behind = (1, 3, 6)[size]
    old = world.engine(at=len(world.weights) - 1 - behind)
    rollouts = world.sampled(world.engine(at=len(world.weights) - 1), prefill=old)
    return capture(world, rollouts, world.scored(rollouts, world.trainer(at=-1)))


@fault("F20", "weights-change-in-a-row")
def _(world: World, size: int) -> Fields:
    last = len(world.weights) - 1
    at = world.new // 2
    old, now = world.engine(at=last - (2, 4, 6)[size]), world.engine(at=last)
    rollouts = world.sampled(old, switch=(at, now))
    versions = [
        [last - (2, 4, 6)[size]] * min(at, len(r)) + [last] * max(0, len(r) - at)
        for r in rollouts.responses
    ]
    return capture(
        world, rollouts, world.scored(rollouts, world.trainer(at=-1)), policy_versions=versions
    )


@fault("F21", "two-layers-exchanged")
def _(world: World, size: int) -> Fields:
    a, b = ((12, 13), (8, 16), (2, 27))[size]
    weights = dict(world.weights[0])
    for name in world.weights[0]:
        if f".{a}." in name:
            other = name.replace(f".{a}.", f".{b}.")
            weights[name], weights[other] = world.weights[0][other], world.weights[0][name]
    rollouts = world.sampled()
    return capture(world, rollouts, world.scored(rollouts, world.trainer(weights=weights)))


# C. Positions, packing, padding, kernels


@fault("F22", "rope-base")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled()
    base = (80_000.0, 30_000.0, 10_000.0)[size]
    trainer = replace(world.trainer(), rope_base=base)
    return capture(world, rollouts, world.scored(rollouts, trainer))


@fault("F23", "sliding-window")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled()
    trainer = replace(world.trainer(), window=(96, 64, 40)[size])
    return capture(world, rollouts, world.scored(rollouts, trainer))


@fault("F24", "padding-attended")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled()
    more = (0, 16, 64)[size]
    train = world.scored(rollouts, pad_attended=True, padding=more)
    return capture(world, rollouts, train)


@fault("F25", "packed-rows-leak")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled()
    return capture(world, rollouts, world.scored(rollouts, pack=(2, 4, 6)[size]))


@fault("F26", "context-parallel-positions")
def _(world: World, size: int) -> Fields:
    """The second part of each row counts its positions from another place."""

    def moved(row: torch.Tensor) -> torch.Tensor:
        length = int(row.max()) + 1
        start = len(row) - length + length // 2
        by = (3, length // 4, length // 2)[size]
        out = row.clone()
        out[start:] -= by
        return out

    rollouts = world.sampled()
    return capture(world, rollouts, world.scored(rollouts, positions=moved))


@fault("F27", "experts-chosen-otherwise")
def _(world: World, size: int) -> Fields:
    """The last layers are mixtures of 8 experts, whose choice flips where two are close.

    No routing is replayed.
    """
    chosen = (7, 6, 4)[size]
    engine = replace(world.engine(), chosen=chosen, routes=[])
    rollouts = world.sampled(engine)
    trainer = replace(world.trainer(), chosen=chosen, routes=[])
    routes: list[torch.Tensor] = []
    train = world.scored(rollouts, trainer, experts=routes)
    fields = capture(world, rollouts, train)
    width = fields["responses"].shape[1]
    experts = {"rollout": rollouts.experts, "train": routes}
    return fields | {
        f"{side}_routed_experts": torch.stack(
            [torch.cat([one, one[:1].expand(width - len(one), -1, -1)]) for one in of_rows]
        ).to(torch.int16)
        for side, of_rows in experts.items()
    }


@fault("F28", "coarse-cache-from-a-position")
def _(world: World, size: int) -> Fields:
    """Both sides are float32 and agree to rounding, until the engine's cache is quantised."""
    engine = Engine(world.weights[0], kv_bits_from=((8, 64), (5, 64), (3, 64))[size])
    rollouts = world.sampled(engine)
    return capture(world, rollouts, world.scored(rollouts))


@fault("F29", "wrong-state-after-a-cache-hit")
def _(world: World, size: int) -> Fields:
    """All rows of a group but its first go on from a cached prompt that one layer computed wrong.

    It stands for a recurrent state: the model has attention alone.
    """
    whole = world.sampled()
    hit = world.sampled(world.engine(), prefill=world.engine(weights=_broken(world, size)))
    is_hit = [row % world.group > 0 for row in range(len(whole.prompts))]
    rollouts = _merged(hit, whole, is_hit)
    cached = [len(p) // 16 * 16 * h for p, h in zip(rollouts.prompts, is_hit, strict=True)]
    return capture(world, rollouts, world.scored(rollouts), cached_tokens=cached)


@fault("F31", "another-kernel-for-long-prompts")
def _(world: World, size: int) -> Fields:
    """Every other group has a long prompt, whose keys and values another kernel rounds."""
    is_long = [row // world.group % 2 > 0 for row in range(len(world.prompts))]
    prompts = [world.system * 4 * long + p for p, long in zip(world.prompts, is_long, strict=True)]
    mixed = replace(world, prompts=prompts, cached={})
    coarse = replace(mixed.engine(), kv_bits_from=((5, 4, 3)[size], 0))
    rollouts = _merged(mixed.sampled(mixed.engine(), prefill=coarse), mixed.sampled(), is_long)
    return capture(mixed, rollouts, mixed.scored(rollouts))


@fault("F30", "last-tokens-before-the-limit")
def _(world: World, size: int) -> Fields:
    """The last tokens of rows that are cut were verified against a draft's logits."""
    rollouts = world.sampled()
    draft = world.scored(rollouts, world.trainer(weights=_broken(world, 2)))
    k = (1, 4, 8)[size]
    logps = [
        torch.cat([own[:-k], drafted[-k:]]) if len(own) == world.new else own
        for own, drafted in zip(rollouts.logps, draft, strict=True)
    ]
    return capture(world, replace(rollouts, logps=logps), world.scored(rollouts))


@fault("F33", "dropout-left-on")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled()
    trainer = replace(world.trainer(), dropout=(0.01, 0.05, 0.1)[size], seed=world.seed)
    return capture(world, rollouts, world.scored(rollouts, trainer))


# D. Tokens and masks


@fault("F34", "eos-with-a-placeholder")
def _(world: World, size: int) -> Fields:
    """A row that reached its limit gets an EOS that nobody sampled, with log-prob 0."""
    rollouts = world.sampled()
    share = (0.1, 0.5, 1.0)[size]
    cut = [row for row, r in enumerate(rollouts.responses) if r[-1] != EOS]
    chosen = set(cut[: max(1, round(share * len(cut)))])
    responses = [[*r[:-1], EOS] if row in chosen else r for row, r in enumerate(rollouts.responses)]
    logps = [
        torch.cat([told[:-1], torch.zeros(1)]) if row in chosen else told
        for row, told in enumerate(rollouts.logps)
    ]
    made = Rollouts(rollouts.prompts, responses, logps)
    return capture(world, made, world.scored(made))


@fault("F35", "eos-ignored-by-the-trainer")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled()
    train = [
        torch.cat([told[:-1], torch.zeros(1)]) if r[-1] == EOS else told
        for told, r in zip(world.scored(rollouts), rollouts.responses, strict=True)
    ]
    return capture(world, rollouts, train)


@fault("F36", "placeholders-in-spans")
def _(world: World, size: int) -> Fields:
    """Text that a tool wrote is under the mask; the engine has no log-probs for it."""
    rollouts = world.sampled()
    tool = world.tokenizer.encode("\nResult of the calculator: 42 apples.\n")
    length = (2, 6, len(tool))[size]
    responses, logps = [], []
    for row, (r, told) in enumerate(zip(rollouts.responses, rollouts.logps, strict=True)):
        at = len(r) // 2
        if row % 2 or len(r) < 8:
            responses.append(r)
            logps.append(told)
            continue
        responses.append(r[:at] + tool[:length] + r[at:])
        logps.append(torch.cat([told[:at], torch.zeros(length), told[at:]]))
    made = Rollouts(rollouts.prompts, responses, logps)
    return capture(world, made, world.scored(made))


@fault("F37", "off-by-one")
def _(world: World, size: int) -> Fields:
    """The trainer's log-probs are one token late: of a third, half, or all of the rows."""
    rollouts = world.sampled()
    share = (0.34, 0.5, 1.0)[size]
    train = [
        torch.cat([told[:1], told[:-1]]) if (row % 12) < 12 * share else told
        for row, told in enumerate(world.scored(rollouts))
    ]
    return capture(world, rollouts, train)


@fault("F38", "ids-encoded-again")
def _(world: World, size: int) -> Fields:
    """The trainer scored the text, encoded again: from the first other id on, all are others."""
    rollouts = world.sampled()
    share = (0.1, 0.4, 1.0)[size]
    train = []
    plain = world.scored(rollouts)
    for row, r in enumerate(rollouts.responses):
        if len(r) < 6 or row % 10 >= 10 * share:
            train.append(plain[row])
            continue
        at = 2 + row % (len(r) // 2)
        split = world.tokenizer.encode(world.tokenizer.decode([r[at]])[:1] or "a")[:1]
        other = [*r[:at], *split, *r[at:]][: len(r)]
        train.append(score(world.trainer(), [rollouts.prompts[row]], [other])[0])
    return capture(world, rollouts, train)


@fault("F39", "another-system-prompt")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled()
    cut = (-2, len(world.system), None)[size]
    if size == 0:
        prompts = [p[:-2] + p[-1:] for p in rollouts.prompts]  # a newline is missing
    elif size == 1:
        prompts = [p[cut:] for p in rollouts.prompts]  # no system prompt
    else:
        prompts = [p[-6:] for p in rollouts.prompts]  # hardly any of the prompt
    train = score(world.trainer(), prompts, rollouts.responses)
    return capture(world, rollouts, train)


@fault("F40", "bypass")
def _(world: World, size: int) -> Fields:
    rollouts = world.sampled()
    return capture(world, rollouts, rollouts.logps)


@fault("F41", "codec-between-stages")
def _(world: World, size: int) -> Fields:
    """Half-way through the layers, the trainer's activations go through a low-rank codec."""
    rank = (256, 64, 8)[size]
    generator = torch.Generator().manual_seed(7)
    basis = torch.linalg.qr(torch.randn(576, rank, generator=generator)).Q

    def codec(layer: int, x: torch.Tensor) -> torch.Tensor:
        return x @ basis @ basis.T if layer == LAYERS // 2 else x

    rollouts = world.sampled()
    return capture(world, rollouts, world.scored(rollouts, replace(world.trainer(), codec=codec)))


@fault("F43", "rows-of-a-group-exchanged")
def _(world: World, size: int) -> Fields:
    """The engine's log-probs of two rows of a group are those of each other, cut to length."""
    rollouts = world.sampled()
    logps = [told.clone() for told in rollouts.logps]
    every = (4, 2, 1)[size]
    for start in range(0, len(logps), world.group * every):
        a, b = start, start + 1
        for one, other in ((a, b), (b, a)):
            length = min(len(rollouts.logps[one]), len(rollouts.logps[other]))
            logps[one][:length] = rollouts.logps[other][:length]
    return capture(world, replace(rollouts, logps=logps), world.scored(rollouts))


# Clean ones: nothing is wrong.
CLEAN: dict[str, Callable[[World], Fields]] = {}


def clean(name: str) -> Callable[..., Any]:
    """Register a way in which engines differ that is no fault."""

    def register(make: Callable[[World], Fields]) -> Callable[[World], Fields]:
        CLEAN[name] = make
        return make

    return register


@clean("bfloat16")
def _(world: World) -> Fields:
    rollouts = world.sampled()
    return capture(world, rollouts, world.scored(rollouts))


@clean("bfloat16-trainer")
def _(world: World) -> Fields:
    """The trainer is the rounded one."""
    rollouts = world.sampled(Engine(world.weights[0]))
    return capture(world, rollouts, world.scored(rollouts, world.engine()))


@clean("both-bfloat16")
def _(world: World) -> Fields:
    rollouts = world.sampled()
    return capture(world, rollouts, world.scored(rollouts, world.engine()))


@clean("float32")
def _(world: World) -> Fields:
    rollouts = world.sampled(Engine(world.weights[0]))
    return capture(world, rollouts, world.scored(rollouts))


@clean("float32-of-another-engine")
def _(world: World) -> Fields:
    """CTranslate2's kernels."""
    rollouts = world.sampled_elsewhere("float32")
    return capture(world, rollouts, world.scored(rollouts))


@clean("temperature-on-both-sides")
def _(world: World) -> Fields:
    rollouts = world.sampled(process=_tempered(0.7))
    return capture(world, rollouts, world.scored(rollouts, temperature=0.7))


@clean("left-padding-done-right")
def _(world: World) -> Fields:
    rollouts = world.sampled()
    return capture(world, rollouts, world.scored(rollouts, padding=96))


@clean("after-updates")
def _(world: World) -> Fields:
    rollouts = world.sampled(world.engine(at=len(world.weights) - 1))
    return capture(world, rollouts, world.scored(rollouts, world.trainer(at=-1)))


@clean("one-group")
def _(world: World) -> Fields:
    one = replace(
        world, prompts=[world.prompts[0]] * len(world.prompts), cached={}, group=len(world.prompts)
    )
    rollouts = one.sampled()
    return capture(one, rollouts, one.scored(rollouts))


@clean("short-responses")
def _(world: World) -> Fields:
    short = replace(world, new=12, cached={})
    rollouts = short.sampled()
    return capture(short, rollouts, short.scored(rollouts))


@clean("no-groups")
def _(world: World) -> Fields:
    rollouts = world.sampled()
    fields = capture(world, rollouts, world.scored(rollouts))
    return {name: value for name, value in fields.items() if name not in ("uid", "prompts")}


@clean("mixture-like-noise")
def _(world: World) -> Fields:
    """A few tokens are routed otherwise: both signs, heavy tails."""
    rollouts = world.sampled()
    generator = torch.Generator().manual_seed(world.seed)
    train = []
    for told in world.scored(rollouts):
        flipped = torch.rand(told.shape, generator=generator) < 0.02
        noise = 0.3 * torch.randn(told.shape, generator=generator)
        train.append((told + flipped * noise * -told.clamp(min=-2)).clamp(max=0))
    return capture(world, rollouts, train)


@clean("long-prompts")
def _(world: World) -> Fields:
    long = replace(world, prompts=[world.system * 4 + p for p in world.prompts], cached={})
    rollouts = long.sampled()
    return capture(long, rollouts, long.scored(rollouts))
