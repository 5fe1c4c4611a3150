"""Captures of given sizes: `python make_capture.py FOLDER ROWS MEAN_LENGTH PADDED_WIDTH [lean]`.

A lean one has only what a trainer holds anyway, in narrow types, and is made through files: it may
be larger than memory.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from timtrack.tasks.hook import save_step_batch

BLOCK = 256  # rows of a lean capture that are made at once
LEAN = {
    "prompts": torch.int32,
    "responses": torch.int32,
    "response_mask": torch.uint8,
    "rollout_log_probs": torch.float32,
    "old_log_probs": torch.float32,
    "advantages": torch.float32,
    "rewards": torch.float32,
}


def fields(rows: int, mean: int, width: int, seed: int = 0) -> dict:
    """A batch as verl holds it; lengths spread evenly from half to one and a half of the mean."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(mean // 2, mean + mean // 2, (rows,), generator=generator)
    real = torch.arange(width) < lengths.clamp(max=width)[:, None]
    rollout = torch.empty(rows, width).exponential_(generator=generator).neg_()
    train = torch.randn(rows, width, generator=generator).mul_(0.05).add_(rollout).clamp_(max=0)
    advantage = torch.randn(rows, 1, generator=generator)
    return {
        "prompts": torch.randint(5, 150_000, (rows, 128), generator=generator),
        "responses": torch.randint(5, 150_000, (rows, width), generator=generator).mul_(real),
        "response_mask": real.long(),
        "attention_mask": torch.cat([torch.ones(rows, 128, dtype=torch.bool), real], 1).long(),
        "rollout_log_probs": rollout.mul_(real),
        "old_log_probs": train.mul_(real),
        "advantages": (advantage * real).contiguous(),
        "rewards": (advantage[:, 0] > 0).float(),
        "uid": [f"prompt-{row // 8}" for row in range(rows)],
    }


def save_lean(folder: Path, rows: int, mean: int, width: int) -> None:
    """`folder/step_1/step_batch.pt`, a block in memory at a time; the files behind it are gone."""
    aside = folder / "aside"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        batch: dict = {"global_step": 1, "uid": [f"prompt-{row // 8}" for row in range(rows)]}
        batch |= _mapped(aside, rows, _blocks(rows, mean, width))
        torch.save(batch, aside / "step_batch.pt")
        (folder / "step_1").mkdir(exist_ok=True)
        (aside / "step_batch.pt").replace(folder / "step_1" / "step_batch.pt")
    finally:
        shutil.rmtree(aside)


def _blocks(rows: int, mean: int, width: int) -> Iterator[tuple[slice, dict]]:
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        yield slice(start, end), fields(end - start, mean, width, seed=start)


def _mapped(folder: Path, rows: int, blocks: Iterator[tuple[slice, dict]]) -> dict:
    """Tensors whose storage is a file in the folder, filled block by block."""
    tensors: dict[str, torch.Tensor] = {}
    for where, block in blocks:
        for name, dtype in LEAN.items():
            if name not in tensors:
                shape = (rows, *block[name].shape[1:])
                size = shape[0] * (shape[1] if len(shape) > 1 else 1)
                file = str(folder / name)
                flat = torch.from_file(file, shared=True, size=size, dtype=dtype)
                tensors[name] = flat.view(shape)
            tensors[name][where] = block[name].to(dtype)
    return tensors


if __name__ == "__main__":
    target, sizes = Path(sys.argv[1]), tuple(map(int, sys.argv[2:5]))
    if sys.argv[5:] == ["lean"]:
        save_lean(target, *sizes)
    else:
        save_step_batch(target, 1, fields(*sizes))
