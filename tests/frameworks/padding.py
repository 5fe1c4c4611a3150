"""Lists of different lengths as the padded tensors that frameworks hold."""

from collections.abc import Sequence

import torch


def right_padded(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.long) -> torch.Tensor:
    """`[B, longest]`, zeros on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype)


def left_padded(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.long) -> torch.Tensor:
    """`[B, longest]`, zeros on the left."""
    width = max(map(len, rows))
    return torch.tensor([[*[0] * (width - len(row)), *row] for row in rows], dtype=dtype)
