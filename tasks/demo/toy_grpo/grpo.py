"""The training run: warm-up, then GRPO, a capture every step.

    python -m timtrack.tasks.demo.toy_grpo.grpo --out captures/my-run --codec codec --steps 20

What a step does is in `trainer.py`.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timtrack.tasks.demo.toy_grpo import problems
from timtrack.tasks.demo.toy_grpo.decoder import HIDDEN
from timtrack.tasks.demo.toy_grpo.recipe import ANCHOR_LATENCY, CODECS, NONE, Recipe
from timtrack.tasks.demo.toy_grpo.scoring import Batch, rescored
from timtrack.tasks.demo.toy_grpo.trainer import Trainer
from timtrack.tasks.demo.toy_grpo.warm_up import warmed_up
from timtrack.tasks.hook import write_step_batch
from timtrack.tasks.tables.corrections import BadSetting


@dataclass(frozen=True)
class Progress:
    """What a step tells while it runs."""

    step: int
    reward: float
    kl_k1: float
    capture: Path
    correction: str = NONE  # the one that the update was made with


def train(
    out: Path,
    codec: str,
    steps: int,
    seed: int,
    sync_every: int,
    cache: Path,
    codec_from: int = 1,
    correction: str = NONE,
    latency: int = ANCHOR_LATENCY,
) -> Iterator[Progress]:
    """Run GRPO and leave `out/step_<n>/step_batch.pt` after each step; see `Recipe`."""
    recipe = Recipe(codec, correction, sync_every, codec_from, latency)
    return captured(out, recipe, steps, seed, cache)


def captured(out: Path, recipe: Recipe, steps: int, seed: int, cache: Path) -> Iterator[Progress]:
    """The same for any recipe.

    The codec works from a step on; if that is not the first, `events.jsonl` says so.
    """
    words = problems.tokenizer()
    out.mkdir(parents=True, exist_ok=True)
    words.save(str(out / "tokenizer.json"))
    trainer = Trainer(recipe, seed, warmed_up(cache, words), words)
    if recipe.codec_from > 1:
        event = {"step": recipe.codec_from, "event": f"codec {recipe.codec} switched on"}
        (out / "events.jsonl").write_text(json.dumps(event) + "\n")
    meta = about(recipe, seed, out.name)
    for step in range(1, steps + 1):
        batch = trainer.roll_out()
        views = trainer.recompute(step, batch)
        views["rescored"] = rescored(trainer.model, batch, trainer.engine)
        version = trainer.engine.version
        trainer.learn(step, batch, views)
        views["next_rollout"] = trainer.engine.rescore(
            batch.prompts, batch.prompt_real, batch.rollout
        )
        capture = write_step_batch(out, step, fields(batch, views, version, meta))
        gap = (batch.rollout.log_probs - views["train"]) * batch.rollout.mask
        kl_k1 = (gap.sum() / batch.rollout.mask.sum()).item()
        yield Progress(step, batch.rewards.mean().item(), kl_k1, capture, trainer.used)


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
        "uid": batch.uid,
        "policy_version": version,
        "pad_token_id": 0,
        "meta_info": meta,
    }


def about(recipe: Recipe, seed: int, run: str) -> dict[str, Any]:
    """What the capture says of itself; of what is as usual, nothing."""
    loss = {f"codec_{k}": v for k, v in asdict(recipe.loss).items() if v is not None}
    usual = Recipe()
    names = ("correction", "latency", "precision", "temperature")
    unusual = {n: v for n in names if (v := getattr(recipe, n)) != getattr(usual, n)}
    engine = {"temperature": "rollout_temperature", "precision": "rollout_precision"}
    return {
        "run_name": run,
        "model": f"toy decoder, hidden {HIDDEN}",
        "dataset": "arithmetic word problems",
        "algorithm": "GRPO",
        "temperature": 1.0,
        "codec": recipe.codec,
        "seed": seed,
        "sync_every": recipe.sync_every,
        **loss,
        **{engine.get(name, name): value for name, value in unusual.items()},
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
    parser.add_argument(
        "--correction",
        default=NONE,
        help="none, recommended, alp, or a setting as `tim whatif --correction` takes it",
    )
    parser.add_argument(
        "--latency", type=int, default=ANCHOR_LATENCY, help="age of the anchor's weights in steps"
    )
    parser.add_argument("--cache", type=Path, help="folder of the warm-up (default: beside --out)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # spinning threads cost ten times on two busy cores
    recipe = Recipe(args.codec, args.correction, args.sync_every, args.codec_from, args.latency)
    try:
        _ = recipe.setting
    except BadSetting as error:
        parser.error(str(error))
    cache = args.cache or args.out.parent
    for done in captured(args.out, recipe, args.steps, args.seed, cache):
        line = f"step {done.step}/{args.steps} reward {done.reward:.2f} kl_k1 {done.kl_k1:.4g}"
        by = "" if recipe.correction == NONE else f" correction {done.correction}"
        print(f"{line}{by}", flush=True)


if __name__ == "__main__":
    main()
