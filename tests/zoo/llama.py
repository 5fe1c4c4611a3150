"""A Llama forward whose every part can be made wrong: the engines of the zoo.

`Engine` says how log-probs are computed; the defaults are right. One function is both the forward
over whole rows (a trainer) and the step-by-step decoding with a KV cache (a rollout engine).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn.functional import linear, scaled_dot_product_attention, silu

Weights = dict[str, torch.Tensor]
LAYERS, HEADS, KV_HEADS, SIZE = 30, 9, 3, 64
EXPERTS = 8  # parts of a feed-forward layer, where the model is made a mixture
ROUTED = range(26, LAYERS)  # layers that are; flips in early ones change all later ones
EPS = 1e-5


def read_weights(folder: Path) -> Weights:
    """The model's weights in float32, the names as Hugging Face has them."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@dataclass(frozen=True)
class Engine:
    """How an engine computes: its weights and what else may differ."""

    weights: Weights
    dtype: torch.dtype = torch.float32
    logits_dtype: torch.dtype = torch.float32
    rope_base: float = 100_000.0
    window: int | None = None  # tokens that attention looks back
    phantom: float | None = None  # ln of how many rows of zeros the head has besides
    dropout: float = 0.0  # of each layer's output
    kv_bits_from: tuple[int, int] | None = None  # bits of keys and values from a position on
    codec: Callable[[int, torch.Tensor], torch.Tensor] = field(default=lambda layer, x: x)
    seed: int = 0
    # How many experts a layer chooses, the most active ones; and a list that gets [B, T, chosen] of
    # each layer in turn.
    chosen: int | None = None
    routes: list[torch.Tensor] | None = None


@dataclass
class Cache:
    """Keys and values by layer, [B, KV heads, T, size]."""

    keys: list[torch.Tensor | None]
    values: list[torch.Tensor | None]

    @classmethod
    def empty(cls) -> "Cache":
        return cls([None] * LAYERS, [None] * LAYERS)


def hidden(
    engine: Engine,
    ids: torch.Tensor,
    positions: torch.Tensor,
    allowed: torch.Tensor,
    cache: Cache | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Last hidden states [B, T, D]; `allowed` [B, T, all keys] says what is attended to."""
    weights, dtype = engine.weights, engine.dtype
    x = weights["model.embed_tokens.weight"][ids].to(dtype)
    cos, sin = _rope(engine, positions)
    if engine.window:
        here = torch.arange(allowed.shape[2] - ids.shape[1], allowed.shape[2])[:, None]
        allowed = allowed & (here - torch.arange(allowed.shape[2])[None] < engine.window)
    mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, -1e9)[:, None]
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."

        def project(part: str, x: torch.Tensor, name: str = name) -> torch.Tensor:
            return linear(x, weights[f"{name}{part}.weight"].to(dtype))

        normed = _norm(x, weights[f"{name}input_layernorm.weight"])
        q, k, v = (_heads(project(f"self_attn.{p}_proj", normed)) for p in "qkv")
        q, k = _turned(q, cos, sin), _turned(k, cos, sin)
        if engine.kv_bits_from:
            k, v = (_coarse(part, positions, *engine.kv_bits_from) for part in (k, v))
        if cache is not None:
            if cache.keys[layer] is not None:
                k = torch.cat([cache.keys[layer], k], 2)
                v = torch.cat([cache.values[layer], v], 2)
            cache.keys[layer], cache.values[layer] = k, v
        k, v = (part.repeat_interleave(HEADS // KV_HEADS, 1) for part in (k, v))
        seen = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + _dropped(
            project("self_attn.o_proj", seen.transpose(1, 2).flatten(2)), engine, generator
        )
        normed = _norm(x, weights[f"{name}post_attention_layernorm.weight"])
        inner = silu(project("mlp.gate_proj", normed)) * project("mlp.up_proj", normed)
        if engine.chosen and layer in ROUTED:
            inner = _routed(engine, inner)
        x = x + _dropped(project("mlp.down_proj", inner), engine, generator)
        x = engine.codec(layer, x)
    return _norm(x, weights["model.norm.weight"])


def logits(engine: Engine, x: torch.Tensor) -> torch.Tensor:
    """Float32 logits of hidden states, rounded as the engine does."""
    head = engine.weights.get("lm_head.weight", engine.weights["model.embed_tokens.weight"])
    made = linear(x, head.to(engine.dtype)).to(engine.logits_dtype).float()
    if engine.phantom is not None:  # one column of their sum
        extra = torch.full((*made.shape[:-1], 1), float(engine.phantom))
        made = torch.cat([made, extra], -1)
    return made


def _rope(engine: Engine, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rates = engine.rope_base ** (-torch.arange(0, SIZE, 2).double() / SIZE)
    angles = positions[..., None].double() * rates
    angles = torch.cat([angles, angles], -1)[:, None]
    return angles.cos().to(engine.dtype), angles.sin().to(engine.dtype)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS)
    return weight.to(x.dtype) * wide.to(x.dtype)


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (-1, SIZE)).transpose(1, 2)


def _dropped(x: torch.Tensor, engine: Engine, generator: torch.Generator | None) -> torch.Tensor:
    if not engine.dropout:
        return x
    keep = torch.rand(x.shape, generator=generator) >= engine.dropout
    return x * keep / (1 - engine.dropout)


def _routed(engine: Engine, inner: torch.Tensor) -> torch.Tensor:
    """What the chosen experts computed; zeros for the others."""
    parts = inner.unflatten(-1, (EXPERTS, -1))
    chosen = parts.abs().mean(-1).topk(engine.chosen, -1).indices
    if engine.routes is not None:
        engine.routes.append(chosen)
    is_chosen = torch.zeros(parts.shape[:-1], dtype=inner.dtype).scatter_(-1, chosen, 1)
    return (parts * is_chosen[..., None]).flatten(-2)


def taken(engine: Engine) -> torch.Tensor | None:
    """The experts of the last forward, [B, T, layers, chosen], which are forgotten."""
    if engine.routes is None:
        return None
    routes = torch.stack(engine.routes, 2)
    engine.routes.clear()
    return routes


def _coarse(x: torch.Tensor, positions: torch.Tensor, bits: int, start: int) -> torch.Tensor:
    """Keys or values rounded to so many bits a token and head, from a position on."""
    most = x.abs().amax(-1, keepdim=True).clamp(min=1e-6) / (2 ** (bits - 1) - 1)
    rounded = (x / most).round() * most
    return torch.where((positions >= start)[:, None, :, None], rounded, x)
