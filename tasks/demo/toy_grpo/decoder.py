"""The model: a small decoder of Qwen2's shape. N sequences, T tokens, H hidden, V words.

RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings. `forward` takes what
lies between the layers through `boundary`: that is where the trainer's codec sits.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN, MLP, LAYERS, HEADS, KV_HEADS = 64, 176, 2, 2, 1
HEAD = HIDDEN // HEADS

Boundary = Callable[[int, Tensor], Tensor]  # layer, [N, T, H] -> [N, T, H]


class Cache:
    """Keys and values of every layer for up to `length` tokens: one more costs one more."""

    def __init__(self, rows: int, length: int, dtype: torch.dtype) -> None:
        shape = (LAYERS, 2, rows, KV_HEADS, length, HEAD)
        self.held = torch.zeros(shape, dtype=dtype)
        self.filled = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add new tokens' keys and values [N, KV, t, D]; all so far [N, KV, filled + t, D]."""
        end = self.filled + key.shape[2]
        self.held[layer, 0, :, :, self.filled : end] = key
        self.held[layer, 1, :, :, self.filled : end] = value
        return self.held[layer, 0, :, :, :end], self.held[layer, 1, :, :, :end]


class Layer(nn.Module):
    """Attention and MLP, each behind a norm and added to the stream."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        self.norm_attention, self.norm_mlp = nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)
        self.query = nn.Linear(HIDDEN, HEADS * HEAD)
        self.key_value = nn.Linear(HIDDEN, 2 * KV_HEADS * HEAD)
        self.out = nn.Linear(HEADS * HEAD, HIDDEN, bias=False)
        self.gate_up = nn.Linear(HIDDEN, 2 * MLP, bias=False)
        self.down = nn.Linear(MLP, HIDDEN, bias=False)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], seen: Tensor, cache: Cache | None
    ) -> Tensor:
        """x [N, t, H]; turn: cos and sin [N, 1, t, D]; seen [N, 1, t, S]: who attends to whom."""
        rows, length, _ = x.shape
        h = self.norm_attention(x)
        q = self.query(h).view(rows, length, HEADS, HEAD).transpose(1, 2)  # [N, heads, t, D]
        kv = self.key_value(h).view(rows, length, 2, KV_HEADS, HEAD)
        k, v = kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)  # [N, KV, t, D]
        q, k = rotated(q, turn), rotated(k, turn)
        if cache:
            k, v = cache.extend(self.index, k, v)  # [N, KV, S, D]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, HEADS * HEAD))
        gate, up = self.gate_up(self.norm_mlp(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    """Token ids to logits."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, HIDDEN)
        self.layers = nn.ModuleList(Layer(index) for index in range(LAYERS))
        self.norm = nn.RMSNorm(HIDDEN)
        nn.init.normal_(self.embedding.weight, std=0.3)

    def forward(
        self,
        ids: Tensor,
        real: Tensor,
        cache: Cache | None = None,
        boundary: Boundary | None = None,
        before: Boundary | None = None,
    ) -> Tensor:
        """Logits [N, t, V] of the words after each of `ids` [N, t].

        `real` [N, S] is 1 for text and 0 for padding, over all tokens so far (S = t without cache).
        `before` changes what enters each layer, `boundary` what lies between two.
        """
        length, total = ids.shape[1], real.shape[1]
        x = self.embedding(ids)
        positions = (real.cumsum(1) - 1).clamp(min=0)[:, total - length :]  # padding takes no place
        turn = rotary(positions, x.dtype)
        seen = visible(real, length)
        for index, layer in enumerate(self.layers):
            x = layer(before(index, x) if before else x, turn, seen, cache)
            if boundary and index < LAYERS - 1:  # what crosses from one pipeline stage to the next
                x = boundary(index, x)
        if cache:
            cache.filled = total
        return F.linear(self.norm(x), self.embedding.weight)


def visible(real: Tensor, length: int) -> Tensor:
    """[N, 1, t, S]: each of the last `length` tokens sees real ones up to itself, and itself."""
    total = real.shape[1]
    past = torch.ones(total, total, dtype=torch.bool).tril()[total - length :]
    itself = torch.eye(total, dtype=torch.bool)[total - length :]  # or padding would see nothing
    return ((past & real[:, None].bool()) | itself)[:, None]


def rotary(positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine [N, 1, t, D] of the angles at these positions [N, t]."""
    rates = 10_000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
    angles = (positions[..., None] * rates).repeat(1, 1, 2)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys [N, heads, t, D] turned by their positions."""
    cos, sin = turn
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
