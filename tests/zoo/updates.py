"""Weights after real updates of a policy gradient: what a stale engine is behind of."""

from pathlib import Path

import torch
from llama import Engine, Weights, hidden, logits
from prompts import chat, prompts
from rollouts import EOS, sample
from safetensors.torch import load_file, save_file

RATE = 3e-5
ROWS, GROUP, NEW = 16, 4, 32


def updated(first: Weights, tokenizer, cache: Path, count: int) -> list[Weights]:
    """The weights after 0, 1, ..., `count` updates; those that are in `cache` are read."""
    cache.mkdir(parents=True, exist_ok=True)
    made = [first]
    files = [cache / f"{k}.safetensors" for k in range(1, count + 1)]
    if not all(file.exists() for file in files):
        _train(first, tokenizer, files)
    return made + [load_file(file) for file in files]


def _train(first: Weights, tokenizer, files: list[Path]) -> None:
    weights = {name: value.clone().requires_grad_() for name, value in first.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=RATE, weight_decay=0.0)
    for k, file in enumerate(files):
        texts = prompts(0, ROWS // GROUP, 50 + k)
        rows = [chat(tokenizer, text) for text in texts for _ in range(GROUP)]
        taken = sample(Engine(weights), rows, NEW, 1000 + k)
        rewards = torch.tensor([len(set(r)) / len(r) + (r[-1] == EOS) for r in taken.responses])
        grouped = rewards.view(-1, GROUP)
        scale = grouped.std(1, keepdim=True) + 1e-4
        advantages = ((grouped - grouped.mean(1, keepdim=True)) / scale).flatten()
        total = sum(map(len, taken.responses))
        optimizer.zero_grad()
        for row, (prompt, response) in enumerate(zip(rows, taken.responses, strict=True)):
            ids = torch.tensor(prompt + response)[None]
            length = ids.shape[1]
            seen = torch.ones(1, length, length, dtype=torch.bool).tril()
            x = hidden(Engine(weights), ids, torch.arange(length)[None], seen)
            log_p = logits(Engine(weights), x[0, len(prompt) - 1 : -1]).log_softmax(-1)
            told = log_p.gather(1, torch.tensor(response)[:, None])
            (-(advantages[row] * told).sum() / total).backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        save_file({name: value.detach().clone() for name, value in weights.items()}, file)
        print(f"update {k + 1}: mean reward {rewards.mean():.3f}", flush=True)
