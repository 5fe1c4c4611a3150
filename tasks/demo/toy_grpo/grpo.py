"""The training run: warm-up, then GRPO, a capture every step. Read it from top to bottom.

    python -m timtrack.tasks.demo.toy_grpo.grpo --out captures/my-run --codec codec --steps 20

Shapes: N = 64 sequences (8 prompts x 8 samples), P prompt tokens, R response tokens, S = P + R.
"""

import argparse
import copy
import json
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from timtrack.tasks.demo.toy_grpo import problems
from timtrack.tasks.demo.toy_grpo.codec import Codec, SignedEma
from timtrack.tasks.demo.toy_grpo.decoder import HIDDEN, Decoder
from timtrack.tasks.demo.toy_grpo.rollout import Engine
from timtrack.tasks.demo.toy_grpo.scoring import PROMPT, RESPONSE, Batch, response_log_probs, scores
from timtrack.tasks.demo.toy_grpo.warm_up import warmed_up
from timtrack.tasks.hook import write_step_batch

GROUPS, SAMPLES = 8, 8  # prompts a step, samples a prompt
MINI_BATCHES, CLIP, LEARNING_RATE = 4, 0.2, 3e-4
ANCHOR_LATENCY = 5  # K: the anchor's weights are K steps old


@dataclass(frozen=True)
class Setting:
    """What the trainer's forward pass loses: rank of HIDDEN numbers a token cross a boundary."""

    rank: int | None
    scoring_only: bool = False  # in the recompute of log-probs, not in the updates


CODECS = {
    "off": Setting(None),
    "rank16": Setting(16),
    "rank8": Setting(8),
    "codec": Setting(3),  # 5 % of HIDDEN, as 77 of 1536 in the published run
    "scoring": Setting(3, scoring_only=True),  # trains as "off" does: a paired control
}


def sampled(engine: Engine, words: Tokenizer, rng: random.Random, generator: Any) -> Batch:
    """Problems, the engine's answers, rewards, and advantages normalised within each group."""
    drawn = [problems.draw(rng) for _ in range(GROUPS)]
    prompts = torch.zeros(GROUPS, PROMPT, dtype=torch.int64)
    for row, problem in enumerate(drawn):
        ids = words.encode(problem.prompt).ids
        prompts[row, PROMPT - len(ids) :] = torch.tensor(ids)
    prompts = prompts.repeat_interleave(SAMPLES, 0)  # [N, P]
    real = (prompts != 0).long()
    [end] = words.encode(problems.END).ids
    rollout = engine.sample(prompts, real, end, RESPONSE, generator)
    spoken = words.decode_batch(rollout.responses.tolist(), skip_special_tokens=False)
    answers = [drawn[row // SAMPLES].answer for row in range(len(spoken))]
    right = [problems.reward(text.split(), a) for text, a in zip(spoken, answers, strict=True)]
    rewards = torch.tensor(right)
    grouped = rewards.view(GROUPS, SAMPLES)
    spread = grouped.std(1, keepdim=True) + 1e-6
    advantages = ((grouped - grouped.mean(1, keepdim=True)) / spread).flatten()
    return Batch(prompts, real, rollout, rewards, advantages)


def loss_of(new: Tensor, old: Tensor, batch: Batch) -> Tensor:
    """PPO's clipped objective, mean over the trained tokens; new and old [N, R]."""
    ratio = (new - old).exp()
    advantage = batch.advantages[:, None]
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    return -(gain * batch.rollout.mask).sum() / batch.rollout.mask.sum()


def update(
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    old: Tensor,
    codec: Codec | None,
    merger: SignedEma | None,
    generator: Any,
) -> None:
    """One pass over the batch in mini-batches; the forward is compressed if the codec says so."""
    for chosen in torch.randperm(len(old), generator=generator).chunk(MINI_BATCHES):
        part = batch.rows(chosen)
        crossing = codec.boundary(part.real, learn=True) if codec else None
        optimizer.zero_grad()
        loss = loss_of(response_log_probs(model, part, crossing), old[chosen], part)
        loss.backward()  # type: ignore[no-untyped-call]
        if merger:
            merger.merge(model)
        optimizer.step()


def anchor_gradient(weights: dict[str, Tensor], batch: Batch, like: Decoder) -> list[Tensor]:
    """Gradient of the uncompressed clone at old weights, on the data that those weights made."""
    clone = copy.deepcopy(like)
    clone.load_state_dict(weights)
    clone.zero_grad()
    new = response_log_probs(clone, batch)
    loss_of(new, new.detach(), batch).backward()  # type: ignore[no-untyped-call]
    return [p.grad if p.grad is not None else torch.zeros_like(p) for p in clone.parameters()]


@dataclass(frozen=True)
class Progress:
    """What a step tells while it runs."""

    step: int
    reward: float
    kl_k1: float
    capture: Path


def train(
    out: Path,
    codec_name: str,
    steps: int,
    seed: int,
    sync_every: int,
    cache: Path,
    codec_from: int = 1,
) -> Iterator[Progress]:
    """Run GRPO and leave `out/step_<n>/step_batch.pt` after each recompute.

    The codec works from step `codec_from` on; if that is not the first, `events.jsonl` says so.
    """
    setting = CODECS[codec_name]
    words = problems.tokenizer()
    out.mkdir(parents=True, exist_ok=True)
    words.save(str(out / "tokenizer.json"))
    model = warmed_up(cache, words)
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    engine = Engine(model, words.get_vocab_size())
    late = Codec(setting.rank, seed) if setting.rank else None
    merger = SignedEma() if late and not setting.scoring_only else None
    if codec_from > 1:
        event = {"step": codec_from, "event": f"codec {codec_name} switched on"}
        (out / "events.jsonl").write_text(json.dumps(event) + "\n")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    past: deque[tuple[dict[str, Tensor], Batch]] = deque(maxlen=ANCHOR_LATENCY + 1)
    for step in range(1, steps + 1):
        if (step - 1) % sync_every == 0:
            engine.sync(model, step - 1)
        codec = late if step >= codec_from else None
        training_codec = None if setting.scoring_only else codec
        batch = sampled(engine, words, rng, generator)
        views = scores(model, batch, engine, codec, learn=setting.scoring_only)
        meta = about(codec_name, setting, seed, sync_every, out.name)
        capture = write_step_batch(out, step, fields(batch, views, engine.version, meta))
        if merger and codec:
            past.append(({k: v.clone() for k, v in model.state_dict().items()}, batch))
            if len(past) > ANCHOR_LATENCY:
                merger.update(anchor_gradient(*past[0], model))
        old = views["dense"] if setting.scoring_only else views["train"]
        update(model, optimizer, batch, old, training_codec, merger, generator)
        if codec:
            codec.end_step()
        gap = (batch.rollout.log_probs - views["train"]) * batch.rollout.mask
        kl_k1 = (gap.sum() / batch.rollout.mask.sum()).item()
        yield Progress(step, batch.rewards.mean().item(), kl_k1, capture)


def fields(
    batch: Batch, views: dict[str, Tensor], version: int, meta: dict[str, Any]
) -> dict[str, Any]:
    """The batch under verl's names."""
    mask = batch.rollout.mask
    last = mask.sum(1, keepdim=True) - 1
    rewards = torch.zeros(mask.shape).scatter(1, last, batch.rewards[:, None])
    names = {"train": "old_log_probs"}
    return {
        "prompts": batch.prompts,
        "responses": batch.rollout.responses,
        "attention_mask": batch.real,
        "response_mask": mask,
        "rollout_log_probs": batch.rollout.log_probs,
        **{names.get(name, f"{name}_log_probs"): view * mask for name, view in views.items()},
        "token_level_scores": rewards,
        "advantages": batch.advantages[:, None] * mask,
        "uid": [f"prompt-{row // SAMPLES}" for row in range(len(mask))],
        "policy_version": version,
        "pad_token_id": 0,
        "meta_info": meta,
    }


def about(codec: str, setting: Setting, seed: int, sync_every: int, run: str) -> dict[str, Any]:
    """What the capture says of itself."""
    return {
        "run_name": run,
        "model": f"toy decoder, hidden {HIDDEN}",
        "dataset": "arithmetic word problems",
        "algorithm": "GRPO",
        "temperature": 1.0,
        "codec": codec,
        "seed": seed,
        "sync_every": sync_every,
        **{f"codec_{name}": value for name, value in asdict(setting).items() if value is not None},
    }


def main() -> None:
    """Train from the command line, a line a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the run's folder of captures")
    parser.add_argument("--codec", choices=CODECS, default="off")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sync-every", type=int, default=1, help="steps between weight syncs")
    parser.add_argument("--codec-from", type=int, default=1, help="first step with the codec")
    parser.add_argument("--cache", type=Path, help="folder of the warm-up (default: beside --out)")
    given = parser.parse_args()
    torch.set_num_threads(1)  # spinning threads cost ten times on two busy cores
    cache = given.cache or given.out.parent
    run = train(
        *(given.out, given.codec, given.steps, given.seed, given.sync_every),
        *(cache, given.codec_from),
    )
    for done in run:
        line = f"step {done.step}/{given.steps} reward {done.reward:.2f} kl_k1 {done.kl_k1:.4g}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
