"""Supervised warm-up, so that rewards start near one half; cached."""

import hashlib
import os
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from timtrack.tasks.demo.toy_grpo import decoder, problems, scoring
from timtrack.tasks.demo.toy_grpo.decoder import Decoder
from timtrack.tasks.demo.toy_grpo.scoring import log_probs_of

WARM_UP_STEPS, WARM_UP_ROWS = 200, 32


def warmed_up(cache: Path, words: Tokenizer) -> Decoder:
    """The model after the warm-up, from the cache file if it is there: all runs start alike."""
    torch.manual_seed(0)
    model = Decoder(words.get_vocab_size())
    sources = map(Path, (problems.__file__, decoder.__file__, scoring.__file__, __file__))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    file = cache / f"warm-up-{digest[:12]}.pt"
    if file.exists():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model
    warm_up(model, words)
    cache.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(f".{os.getpid()}")
    torch.save(model.state_dict(), aside)
    aside.replace(file)
    return model


def warm_up(model: Decoder, words: Tokenizer) -> None:
    """Learn to imitate solutions, careless ones among them."""
    rng = random.Random(0)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embedding" not in n]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.0),
        torch.optim.AdamW(others, lr=0.005, weight_decay=0.0),
    ]
    for step in range(WARM_UP_STEPS):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("start", group["lr"]) * (1 - step / WARM_UP_STEPS)
        pairs = [problems.demonstration(rng) for _ in range(WARM_UP_ROWS)]
        ids, real, learned = demonstrations(pairs, words)
        loss = -(log_probs_of(model, ids, real) * learned).sum() / learned.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 49:
            print(f"warm-up {step + 1}/{WARM_UP_STEPS} loss {loss.item():.3f}", flush=True)


def demonstrations(pairs: list[tuple[str, str]], words: Tokenizer) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts with solutions: ids, real [N, S], and 1 where a token is a solution's, [N, S-1]."""
    encoded = [(words.encode(p).ids, words.encode(s).ids) for p, s in pairs]
    width = max(len(p) + len(s) for p, s in encoded)
    ids = torch.zeros(len(pairs), width, dtype=torch.int64)
    real, learned = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (prompt, solution) in enumerate(encoded):
        end = len(prompt) + len(solution)
        ids[row, :end] = torch.tensor(prompt + solution)
        real[row, :end] = 1
        learned[row, len(prompt) : end] = 1
    return ids, real, learned[:, 1:]
