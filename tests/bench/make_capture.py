"""A capture of a given size: `python make_capture.py FILE ROWS MEAN_LENGTH PADDED_WIDTH`."""

import sys
from pathlib import Path

import torch

from tasks.hook import save_step_batch


def fields(rows: int, mean: int, width: int) -> dict:
    """A batch as verl holds it; lengths spread evenly from half to one and a half of the mean."""
    generator = torch.Generator().manual_seed(0)
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


if __name__ == "__main__":
    folder, rows, mean, width = sys.argv[1], *map(int, sys.argv[2:])
    save_step_batch(Path(folder), 1, fields(rows, mean, width))
