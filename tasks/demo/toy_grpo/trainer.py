"""The trainer between two steps: model, rollout engine, codec, anchor, and what a step does.

Shapes: N = 64 sequences (8 prompts x 8 samples), P prompt tokens, R response tokens, S = P + R.
"""

import copy
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from timtrack.tasks.demo.toy_grpo import problems, weights
from timtrack.tasks.demo.toy_grpo.codec import Codec, SignedEma
from timtrack.tasks.demo.toy_grpo.decoder import Decoder
from timtrack.tasks.demo.toy_grpo.objective import alp_loss, loss_of
from timtrack.tasks.demo.toy_grpo.perturbation import RATE, Perturbation
from timtrack.tasks.demo.toy_grpo.recipe import ALP, NONE, RECOMMENDED, Recipe
from timtrack.tasks.demo.toy_grpo.rollout import Engine
from timtrack.tasks.demo.toy_grpo.scoring import (
    PROMPT,
    RESPONSE,
    Batch,
    recomputed,
    response_log_probs,
)

GROUPS, SAMPLES = 8, 8  # prompts a step, samples a prompt
MINI_BATCHES, LEARNING_RATE = 4, 3e-4

RowsLoss = Callable[[Tensor], Tensor]  # rows of the batch to their loss


class Trainer:
    """A run's state. A step is `roll_out`, `recompute`, `learn`."""

    def __init__(self, recipe: Recipe, seed: int, model: Decoder, words: Tokenizer) -> None:
        self.recipe, self.model, self.words = recipe, model, words
        self.rng, self.generator = random.Random(seed), torch.Generator().manual_seed(seed)
        size = words.get_vocab_size()
        dtype = getattr(torch, recipe.precision)
        self.engine = Engine(model, size, dtype, recipe.temperature)
        self.late = Codec(recipe.loss.rank, seed) if recipe.loss.rank else None
        self.merger = SignedEma() if self.late and not recipe.loss.scoring_only else None
        self.perturbation = Perturbation(seed) if recipe.correction == ALP else None
        sizes = list(self.perturbation.parameters()) if self.perturbation else []
        groups: list[dict[str, Any]] = [
            {"params": list(model.parameters())},
            {"params": sizes, "lr": RATE},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=0.0)
        self.past: deque[tuple[dict[str, Tensor], Batch]] = deque(maxlen=recipe.latency + 1)
        self.used = NONE  # the correction of the latest update

    def codec(self, step: int) -> Codec | None:
        """The codec, once it is switched on."""
        return self.late if step >= self.recipe.codec_from else None

    def roll_out(self) -> Batch:
        """Problems, the engine's answers, rewards, and advantages normalised within each group."""
        prompts = [problems.draw(self.rng) for _ in range(GROUPS)]
        return sampled(prompts, SAMPLES, self.engine, self.words, self.generator)

    def recompute(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """The trainer's log-probs before the update, [N, R] each: `train`, `dense`.

        With ALP also `perturbed`, with the noise that the update will see.
        """
        codec = self.codec(step)
        views = recomputed(self.model, batch, codec, learn=self.recipe.loss.scoring_only)
        if self.perturbation:
            with torch.no_grad():
                views["perturbed"] = self._perturbed(self.perturbation, step, batch, codec)
        return views

    def learn(self, step: int, batch: Batch, views: dict[str, Tensor]) -> None:
        """Update the weights, and sync the engine if it is due; `views` as recomputed."""
        codec = self.codec(step)
        if self.merger and codec:
            past_weights = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.past.append((past_weights, batch))
            if len(self.past) > self.recipe.latency:
                self.merger.update(anchor_gradient(*self.past[0], self.model))
        self._update(self._loss(step, batch, views), len(batch.rewards))
        if codec:
            codec.end_step()
        if step % self.recipe.sync_every == 0:
            self.engine.sync(self.model, step)

    def _loss(self, step: int, batch: Batch, views: dict[str, Tensor]) -> RowsLoss:
        """The step's loss of some of its rows; its forward is compressed by the codec."""
        only_scoring = self.recipe.loss.scoring_only
        codec = None if only_scoring else self.codec(step)
        if alp := self.perturbation:
            self.used = ALP
            return lambda rows: alp_loss(
                self._perturbed(alp, step, batch, codec, rows), batch.rows(rows)
            )
        old = views["dense" if only_scoring else "train"]
        coefficients = self._coefficients(batch, views["train"])

        def loss(rows: Tensor) -> Tensor:
            part = batch.rows(rows)
            crossing = codec.boundary(part.real, learn=True) if codec else None
            new = response_log_probs(self.model, part, crossing)
            mine = None if coefficients is None else coefficients[rows]
            return loss_of(new, old[rows], part, mine)

        return loss

    def _perturbed(
        self,
        alp: Perturbation,
        step: int,
        batch: Batch,
        codec: Codec | None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Log-probs [N, R] with the step's noise: of all rows, or of some to learn from."""
        noise = alp.noise(step, batch.ids)
        learned = rows is not None
        if rows is not None:
            batch, noise = batch.rows(rows), noise[rows]
        crossing = codec.boundary(batch.real, learned) if codec else None
        return response_log_probs(self.model, batch, crossing, alp.before(noise))

    def _coefficients(self, batch: Batch, train: Tensor) -> Tensor | None:
        """The correction's, once for the step as frameworks do, [N, R]; None without any."""
        setting = self.recipe.setting
        if setting is None and self.recipe.correction != RECOMMENDED:
            return None
        frames = weights.frames_of(batch, train)
        if self.recipe.correction == RECOMMENDED:
            setting = weights.recommended(frames)
        self.used = setting.name if setting else NONE
        return weights.coefficients_of(frames, setting, train) if setting else None

    def _update(self, loss: RowsLoss, rows: int) -> None:
        """One pass over the batch in mini-batches."""
        for mini_batch in torch.randperm(rows, generator=self.generator).chunk(MINI_BATCHES):
            self.optimizer.zero_grad()
            loss(mini_batch).backward()  # type: ignore[no-untyped-call]
            if self.merger:
                self.merger.merge(self.model)
            self.optimizer.step()


def sampled(
    drawn: list[problems.Problem],
    samples: int,
    engine: Engine,
    words: Tokenizer,
    generator: torch.Generator,
) -> Batch:
    """The engine's answers to these problems, `samples` each, with rewards and advantages."""
    prompts = torch.zeros(len(drawn), PROMPT, dtype=torch.int64)
    for row, problem in enumerate(drawn):
        ids = words.encode(problem.prompt).ids
        prompts[row, PROMPT - len(ids) :] = torch.tensor(ids)
    prompts = prompts.repeat_interleave(samples, 0)  # [N, P]
    real = (prompts != 0).long()
    [end] = words.encode(problems.END).ids
    rollout = engine.sample(prompts, real, end, RESPONSE, generator)
    spoken = words.decode_batch(rollout.responses.tolist(), skip_special_tokens=False)
    answers = [drawn[row // samples].answer for row in range(len(spoken))]
    right = [problems.reward(text.split(), a) for text, a in zip(spoken, answers, strict=True)]
    rewards = torch.tensor(right)
    grouped = rewards.view(len(drawn), samples)
    spread = grouped.std(1, keepdim=True) + 1e-6
    advantages = ((grouped - grouped.mean(1, keepdim=True)) / spread).flatten()
    uid = [f"prompt-{row // samples}" for row in range(len(rewards))]
    return Batch(prompts, real, rollout, rewards, advantages, uid)


def anchor_gradient(old: dict[str, Tensor], batch: Batch, like: Decoder) -> list[Tensor]:
    """Gradient of the uncompressed clone at old weights, on the data that those weights made."""
    clone = copy.deepcopy(like)
    clone.load_state_dict(old)
    clone.zero_grad()
    new = response_log_probs(clone, batch)
    loss_of(new, new.detach(), batch).backward()  # type: ignore[no-untyped-call]
    return [p.grad if p.grad is not None else torch.zeros_like(p) for p in clone.parameters()]
