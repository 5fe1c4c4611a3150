"""Faults in engines that are made of the tiny model: each by code of its own, not the referee's.

A fault is a function from a `World` to the log-probs [N] of an engine that has it.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import dropout

from tests.referee.tiny import World
from timtrack.tasks.referee.rollouts import Rollout

FAULTS: dict[str, tuple[str, Callable[[World], np.ndarray]]] = {}


def fault(hypothesis: str, engine: str = "train") -> Callable[..., Any]:
    """Register how a hypothesis is made true in an engine."""

    def register(make: Callable[[World], np.ndarray]) -> Callable[[World], np.ndarray]:
        FAULTS[hypothesis] = (engine, make)
        return make

    return register


def logits(model: Any, ids: list[int], first: int, **how: Any) -> torch.Tensor:
    """The logits [T, V] that predict the ids from `first` on."""
    given = {name: torch.tensor([value]) for name, value in how.items() if name == "position_ids"}
    if "seen" in how:
        low = torch.zeros(len(ids), len(ids)).masked_fill(~how["seen"], -1e30)
        given["attention_mask"] = low[None, None]
    with torch.no_grad():
        return model(torch.tensor([ids]), **given).logits[0, first - 1 : -1].float()


def read(found: torch.Tensor, ids: Any) -> np.ndarray:
    """The log-probs of ids by their logits."""
    return found.log_softmax(-1).gather(1, torch.tensor(list(ids))[:, None])[:, 0].double().numpy()


def of(rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows)


def plain(model: Any, one: Rollout, **how: Any) -> np.ndarray:
    return read(logits(model, one.ids, len(one.prompt), **how), one.response)


def clean_rows(world: World) -> list[np.ndarray]:
    """The scores of each sequence with nothing wrong."""
    pairs = zip(world.logits, world.bench.rollouts, strict=True)
    return [read(found, one.response) for found, one in pairs]


def by_model(world: World, change: Callable[[Any], None], kind: Any = torch.float32) -> np.ndarray:
    """Scores by a copy of the model that was changed."""
    model = copy.deepcopy(world.bench.reference.model).to(kind)
    change(model)
    return of([plain(model, one) for one in world.bench.rollouts])


def by_logits(world: World, change: Callable[[torch.Tensor, Rollout], torch.Tensor]) -> np.ndarray:
    """Scores from logits that were changed."""
    pairs = zip(world.logits, world.bench.rollouts, strict=True)
    return of([read(change(found, one), one.response) for found, one in pairs])


def by_prompt(world: World, change: Callable[[list[int]], list[int]]) -> np.ndarray:
    """Scores behind other prompts."""
    model, rows = world.bench.reference.model, []
    for one in world.bench.rollouts:
        prompt = change(list(one.prompt))
        rows.append(read(logits(model, [*prompt, *one.response], len(prompt)), one.response))
    return of(rows)


@fault("temperature", "rollout")
def _(world: World) -> np.ndarray:
    return by_logits(world, lambda found, one: found / 0.8)


def cut(found: torch.Tensor, kept: torch.Tensor, one: Rollout) -> torch.Tensor:
    """Logits where what is not kept is impossible; a token of the response always is kept."""
    kept = kept.scatter(1, torch.tensor(one.response)[:, None], True)
    return found.masked_fill(~kept, -torch.inf)


@fault("top_p", "rollout")
def _(world: World) -> np.ndarray:
    def change(found: torch.Tensor, one: Rollout) -> torch.Tensor:
        ordered, places = found.softmax(-1).sort(-1, descending=True)
        kept = torch.zeros_like(found, dtype=torch.bool)
        kept.scatter_(1, places, ordered.cumsum(-1) - ordered < 0.8)
        return cut(found, kept, one)

    return by_logits(world, change)


@fault("top_k", "rollout")
def _(world: World) -> np.ndarray:
    def change(found: torch.Tensor, one: Rollout) -> torch.Tensor:
        return cut(found, found >= found.topk(20, -1).values[:, -1:], one)

    return by_logits(world, change)


@fault("min_p", "rollout")
def _(world: World) -> np.ndarray:
    def change(found: torch.Tensor, one: Rollout) -> torch.Tensor:
        probs = found.softmax(-1)
        return cut(found, probs >= 0.1 * probs.amax(-1, keepdim=True), one)

    return by_logits(world, change)


def penalised(found: torch.Tensor, one: Rollout, shaped: Callable[..., torch.Tensor]) -> Any:
    made = found.clone()
    for at in range(len(one.response)):
        seen = list(one.response[:at])
        for token in set(one.prompt) | set(seen):
            made[at, token] = shaped(found[at, token], seen.count(token))
    return made


@fault("repetition_penalty", "rollout")
def _(world: World) -> np.ndarray:
    def shaped(logit: torch.Tensor, _count: int) -> torch.Tensor:
        return logit / 1.2 if logit > 0 else logit * 1.2

    return by_logits(world, lambda found, one: penalised(found, one, shaped))


@fault("presence_penalty", "rollout")
def _(world: World) -> np.ndarray:
    return by_logits(
        world, lambda found, one: penalised(found, one, lambda z, n: z - 0.6 * (n > 0))
    )


@fault("frequency_penalty", "rollout")
def _(world: World) -> np.ndarray:
    return by_logits(world, lambda found, one: penalised(found, one, lambda z, n: z - 0.4 * n))


@fault("first_candidate", "rollout")
def _(world: World) -> np.ndarray:
    return of([found.log_softmax(-1).amax(-1).double().numpy() for found in world.logits])


@fault("phantom_vocabulary")
def _(world: World) -> np.ndarray:
    """As if the vocabulary was padded with rows that have a logit, too."""
    return by_logits(
        world,
        lambda found, one: torch.cat([found, torch.full_like(found[:, :1], world.phantom)], -1),
    )


@fault("logits_bf16", "rollout")
def _(world: World) -> np.ndarray:
    return by_logits(world, lambda found, one: found.bfloat16().float())


@fault("logits_fp16", "rollout")
def _(world: World) -> np.ndarray:
    return by_logits(world, lambda found, one: found.half().float())


@fault("shift")
def _(world: World) -> np.ndarray:
    rows = clean_rows(world)
    return of([np.concatenate([row[:1], row[:-1]]) for row in rows])


@fault("label_shift")
def _(world: World) -> np.ndarray:
    """The logits that should predict the next token are read at the token itself."""
    rows = []
    for one in world.bench.rollouts:
        with torch.no_grad():
            found = world.bench.reference.model(torch.tensor([one.ids])).logits[0].float()
        rows.append(read(found[len(one.prompt) :], one.response))
    return of(rows)


def ends(world: World, which: Callable[[Rollout], bool], value: Callable[..., float]) -> np.ndarray:
    rows = clean_rows(world)
    for row, one in zip(rows, world.bench.rollouts, strict=True):
        if which(one):
            row[-1] = value(one)
    return of(rows)


@fault("end_zero", "rollout")
def _(world: World) -> np.ndarray:
    return ends(world, lambda one: one.response[-1] == world.end, lambda one: 0.0)


@fault("last_zero")
def _(world: World) -> np.ndarray:
    return ends(world, lambda one: True, lambda one: 0.0)


@fault("last_is_other")
def _(world: World) -> np.ndarray:
    """The padding is scored in place of the end."""
    model, pad = world.bench.reference.model, world.pad

    def value(one: Rollout) -> float:
        ids = [*one.ids[:-1], pad]
        return float(read(logits(model, ids, len(ids) - 1), [pad])[0])

    return ends(world, lambda one: True, value)


@fault("placeholders", "rollout")
def _(world: World) -> np.ndarray:
    rows = clean_rows(world)
    for row in rows[::2]:
        row[5:11] = 0.0
    return of(rows)


@fault("row_of_another", "rollout")
def _(world: World) -> np.ndarray:
    """Of each prompt, the first row has the log-probs of the second, as far as they go."""
    rows = clean_rows(world)
    for at in range(0, len(rows), 2):
        count = min(len(rows[at]), len(rows[at + 1]))
        rows[at][:count] = rows[at + 1][:count]
    return of(rows)


@fault("previous", "rollout")
def _(world: World) -> np.ndarray:
    earlier = world.earlier_model()
    return of([plain(earlier, one) for one in world.bench.rollouts])


def older(world: World, belongs: Callable[[str], bool]) -> np.ndarray:
    """Scores where some tensors are those of the earlier model; what is tied comes apart."""
    before = world.earlier_model().state_dict()

    def change(model: Any) -> None:
        for name in filter(belongs, before):
            module, _, own = name.rpartition(".")
            setattr(model.get_submodule(module), own, torch.nn.Parameter(before[name]))

    return by_model(world, change)


@fault("previous_head", "rollout")
def _(world: World) -> np.ndarray:
    return older(world, lambda name: "lm_head" in name)


@fault("previous_embeddings", "rollout")
def _(world: World) -> np.ndarray:
    return older(world, lambda name: "embed_tokens" in name)


@fault("previous_norms", "rollout")
def _(world: World) -> np.ndarray:
    return older(world, lambda name: "norm" in name)


@fault("previous_layer", "rollout")
def _(world: World) -> np.ndarray:
    return older(world, lambda name: "layers.2." in name)


@fault("previous_prompt", "rollout")
def _(world: World) -> np.ndarray:
    """Prefilled by the earlier model, decoded token by token by the other."""
    earlier, model, rows = world.earlier_model(), world.bench.reference.model, []
    for one in world.bench.rollouts:
        with torch.no_grad():
            cache = earlier(torch.tensor([list(one.prompt[:-1])]), use_cache=True).past_key_values
            found, last = [], one.prompt[-1]
            for token in one.response:
                made = model(torch.tensor([[last]]), past_key_values=cache, use_cache=True)
                cache, last = made.past_key_values, token
                found.append(made.logits[0, -1].float())
        rows.append(read(torch.stack(found), one.response))
    return of(rows)


@fault("positions_from_response")
def _(world: World) -> np.ndarray:
    model = world.bench.reference.model
    return of(
        [
            plain(model, o, position_ids=[*range(len(o.prompt)), *range(len(o.response))])
            for o in world.bench.rollouts
        ]
    )


@fault("positions_broken")
def _(world: World) -> np.ndarray:
    """The second half of each sequence counts from 0 again."""
    rows = []
    for one in world.bench.rollouts:
        half = len(one.ids) // 2
        positions = [*range(half), *range(len(one.ids) - half)]
        rows.append(plain(world.bench.reference.model, one, position_ids=positions))
    return of(rows)


def padded(world: World, in_place: bool) -> np.ndarray:
    """Prompts padded on the left to the longest, which is attended to."""
    longest = max(len(one.prompt) for one in world.bench.rollouts)
    rows = []
    for one in world.bench.rollouts:
        pad = longest - len(one.prompt)
        ids = [*[world.pad] * pad, *one.ids]
        positions = [*[0] * pad, *range(len(one.ids))] if in_place else [*range(len(ids))]
        seen = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        model = world.bench.reference.model
        found = logits(model, ids, longest, position_ids=positions, seen=seen)
        rows.append(read(found, one.response))
    return of(rows)


@fault("padding_attended")
def _(world: World) -> np.ndarray:
    return padded(world, in_place=False)


@fault("padding_attended_in_place")
def _(world: World) -> np.ndarray:
    return padded(world, in_place=True)


@fault("window")
def _(world: World) -> np.ndarray:
    rows = []
    for one in world.bench.rollouts:
        at = torch.arange(len(one.ids))
        back = at[:, None] - at[None]
        seen = (back >= 0) & (back < 32)
        rows.append(plain(world.bench.reference.model, one, seen=seen))
    return of(rows)


@fault("rope_base")
def _(world: World) -> np.ndarray:
    def change(model: Any) -> None:
        size = model.config.head_dim
        rates = 30_000.0 ** (-torch.arange(0, size, 2) / size)
        model.model.rotary_emb.inv_freq.copy_(rates)

    return by_model(world, change)


@fault("rope_scaling")
def _(world: World) -> np.ndarray:
    return by_model(world, lambda model: model.model.rotary_emb.inv_freq.div_(4))


@fault("neighbours_in_front")
def _(world: World) -> np.ndarray:
    """Three sequences to a line, each seeing those before it."""
    rows, there = [], world.bench.rollouts
    for at, one in enumerate(there):
        front = there[at // 3 * 3 : at]
        ids = [i for other in (*front, one) for i in other.ids]
        positions = [p for other in (*front, one) for p in range(len(other.ids))]
        seen = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        first = len(ids) - len(one.response)
        model = world.bench.reference.model
        found = logits(model, ids, first, position_ids=positions, seen=seen)
        rows.append(read(found, one.response))
    return of(rows)


@fault("prompt_out")
def _(world: World) -> np.ndarray:
    """The first token, which nothing predicts then, has no log-prob."""
    model, rows = world.bench.reference.model, []
    for one in world.bench.rollouts:
        rest = read(logits(model, list(one.response), 1), one.response[1:])
        rows.append(np.concatenate([[np.nan], rest]))
    return of(rows)


@fault("prompt_cut")
def _(world: World) -> np.ndarray:
    return by_prompt(world, lambda prompt: prompt[-8:])


@fault("system_out")
def _(world: World) -> np.ndarray:
    return by_prompt(world, lambda prompt: prompt[prompt.index(world.start, 1) :])


@fault("answer_turn_out")
def _(world: World) -> np.ndarray:
    return by_prompt(
        world, lambda prompt: prompt[: len(prompt) - 1 - prompt[::-1].index(world.start)]
    )


@fault("template_out")
def _(world: World) -> np.ndarray:
    special = (world.start, world.end, world.pad)
    return by_prompt(world, lambda prompt: [token for token in prompt if token not in special])


@fault("prompt_end")
def _(world: World) -> np.ndarray:
    return by_prompt(world, lambda prompt: prompt[:-1])


@fault("first_id_twice")
def _(world: World) -> np.ndarray:
    return by_prompt(world, lambda prompt: [prompt[0], *prompt])


@fault("first_id_out")
def _(world: World) -> np.ndarray:
    return by_prompt(world, lambda prompt: prompt[1:])


@fault("ids_encoded_again")
def _(world: World) -> np.ndarray:
    words, model, rows = world.bench.reference.tokenizer, world.bench.reference.model, []
    for one in world.bench.rollouts:
        ids = words.encode(words.decode(list(one.response)), add_special_tokens=False)
        scores = read(logits(model, [*one.prompt, *ids], len(one.prompt)), ids)
        row = np.full(len(one.response), np.nan)
        row[: len(scores)] = scores[: len(row)]
        rows.append(row)
    return of(rows)


@fault("computed_bf16")
def _(world: World) -> np.ndarray:
    return by_model(world, lambda model: None, torch.bfloat16)


def weights(world: World, change: Callable[[torch.Tensor], torch.Tensor], only: str = "") -> Any:
    def changed(model: Any) -> None:
        for name, value in model.named_parameters():
            if only in name:
                value.data = change(value.data)

    return by_model(world, changed)


@fault("weights_bf16")
def _(world: World) -> np.ndarray:
    return weights(world, lambda value: value.bfloat16().float())


@fault("weights_fp16")
def _(world: World) -> np.ndarray:
    return weights(world, lambda value: value.half().float())


@fault("weights_fp8", "rollout")
def _(world: World) -> np.ndarray:
    def change(value: torch.Tensor) -> torch.Tensor:
        scale = value.abs().max() / 448
        return (value / scale).to(torch.float8_e4m3fn).float() * scale

    return weights(world, change, "proj")


def bits(count: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(value: torch.Tensor) -> torch.Tensor:
        most = value.abs().amax(-1, keepdim=True) / (2 ** (count - 1) - 1)
        return (value / most).round() * most

    return change


@fault("weights_int8", "rollout")
def _(world: World) -> np.ndarray:
    return weights(world, bits(8), "proj")


@fault("weights_int4", "rollout")
def _(world: World) -> np.ndarray:
    return weights(world, bits(4), "proj")


@fault("weights_few_bits", "rollout")
def _(world: World) -> np.ndarray:
    return weights(world, bits(5), "proj")


@fault("int8_activations", "rollout")
def _(world: World) -> np.ndarray:
    def change(model: Any) -> None:
        for name, module in model.named_modules():
            if name.endswith("_proj"):
                module.weight.data = bits(8)(module.weight.data)
                module.forward = lambda x, f=module.forward: f(bits(8)(x))

    return by_model(world, change)


@fault("layer_out", "rollout")
def _(world: World) -> np.ndarray:
    return weights(world, torch.zeros_like, "layers.2.mlp.down_proj")


@fault("layers_exchanged", "rollout")
def _(world: World) -> np.ndarray:
    def change(model: Any) -> None:
        layers = model.model.layers
        layers[1].load_state_dict(
            copy.deepcopy(world.bench.reference.model.model.layers[2].state_dict())
        )
        layers[2].load_state_dict(
            copy.deepcopy(world.bench.reference.model.model.layers[1].state_dict())
        )

    return by_model(world, change)


@fault("dropout")
def _(world: World) -> np.ndarray:
    def change(model: Any) -> None:
        for layer in model.model.layers:
            attn, mlp = layer.self_attn.forward, layer.mlp.forward
            layer.self_attn.forward = lambda *a, f=attn, **k: _first_dropped(f(*a, **k))
            layer.mlp.forward = lambda x, f=mlp: dropout(f(x), 0.1)

    torch.manual_seed(77)
    return by_model(world, change)


def _first_dropped(made: tuple[Any, ...]) -> tuple[Any, ...]:
    return (dropout(made[0], 0.1), *made[1:])


@fault("codec")
def _(world: World) -> np.ndarray:
    """Between two stages, activations are projected on what power iterations found."""
    seen: list[torch.Tensor] = []
    plain_model = world.bench.reference.model
    half = len(plain_model.model.layers) // 2 - 1
    hook = plain_model.model.layers[half].register_forward_hook(lambda m, i, y: seen.append(y[0]))
    for one in world.bench.rollouts:
        plain(plain_model, one)
    hook.remove()
    states = torch.cat(seen)
    torch.manual_seed(3)
    width = states.shape[1]
    basis = torch.linalg.qr(torch.randn(width, width // 4)).Q
    for _ in range(20):
        basis = torch.linalg.qr(states.T @ (states @ basis)).Q

    def change(model: Any) -> None:
        model.model.layers[half].register_forward_hook(lambda m, i, y: (y @ basis) @ basis.T)

    return by_model(world, change)
