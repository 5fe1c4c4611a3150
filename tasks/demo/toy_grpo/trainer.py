"""The trainer between two steps: model, rollout engine, codec, anchor, and what a step does.

Shapes: N = 64 sequences (8 prompts x 8 samples), P prompt tokens, R response tokens, S = P + R.
"""

import copy
import random
from collections import deque

import torch
from tokenizers import Tokenizer
from torch import Tensor

from timtrack.tasks.demo.toy_grpo import problems, weights
from timtrack.tasks.demo.toy_grpo.codec import Codec, SignedEma
from timtrack.tasks.demo.toy_grpo.decoder import Decoder
from timtrack.tasks.demo.toy_grpo.objective import loss_of
from timtrack.tasks.demo.toy_grpo.recipe import NONE, RECOMMENDED, Recipe
from timtrack.tasks.demo.toy_grpo.rollout import Engine
from timtrack.tasks.demo.toy_grpo.scoring import PROMPT, RESPONSE, Batch, response_log_probs

GROUPS, SAMPLES = 8, 8  # prompts a step, samples a prompt
MINI_BATCHES, LEARNING_RATE = 4, 3e-4


class Trainer:
    """A run's state. A step is `roll_out`, then scoring, then `learn`."""

    def __init__(self, recipe: Recipe, seed: int, model: Decoder, words: Tokenizer) -> None:
        self.recipe, self.model, self.words = recipe, model, words
        self.rng, self.generator = random.Random(seed), torch.Generator().manual_seed(seed)
        size = words.get_vocab_size()
        dtype = getattr(torch, recipe.precision)
        self.engine = Engine(model, size, dtype, recipe.temperature)
        self.late = Codec(recipe.loss.rank, seed) if recipe.loss.rank else None
        self.merger = SignedEma() if self.late and not recipe.loss.scoring_only else None
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
        self.past: deque[tuple[dict[str, Tensor], Batch]] = deque(maxlen=recipe.latency + 1)
        self.used = NONE  # the correction of the latest update

    def codec(self, step: int) -> Codec | None:
        """The codec, once it is switched on."""
        return self.late if step >= self.recipe.codec_from else None

    def roll_out(self) -> Batch:
        """Problems, the engine's answers, rewards, and advantages normalised within each group."""
        drawn = [problems.draw(self.rng) for _ in range(GROUPS)]
        return sampled(drawn, SAMPLES, self.engine, self.words, self.generator)

    def learn(self, step: int, batch: Batch, train: Tensor, dense: Tensor) -> None:
        """Update the weights, and sync the engine if it is due.

        train, dense [N, R]: the log-probs as the trainer recomputed them, and without codec.
        """
        codec = self.codec(step)
        if self.merger and codec:
            past_weights = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.past.append((past_weights, batch))
            if len(self.past) > self.recipe.latency:
                self.merger.update(anchor_gradient(*self.past[0], self.model))
        only_scoring = self.recipe.loss.scoring_only
        coefficients = self._coefficients(batch, train)
        old = dense if only_scoring else train
        self._update(batch, old, coefficients, None if only_scoring else codec)
        if codec:
            codec.end_step()
        if step % self.recipe.sync_every == 0:
            self.engine.sync(self.model, step)

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

    def _update(
        self, batch: Batch, old: Tensor, coefficients: Tensor | None, codec: Codec | None
    ) -> None:
        """One pass over the batch in mini-batches; the forward is compressed by the codec."""
        for chosen in torch.randperm(len(old), generator=self.generator).chunk(MINI_BATCHES):
            part = batch.rows(chosen)
            crossing = codec.boundary(part.real, learn=True) if codec else None
            self.optimizer.zero_grad()
            new = response_log_probs(self.model, part, crossing)
            mine = None if coefficients is None else coefficients[chosen]
            loss = loss_of(new, old[chosen], part, mine)
            loss.backward()  # type: ignore[no-untyped-call]
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
