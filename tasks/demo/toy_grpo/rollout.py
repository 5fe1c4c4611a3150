"""The rollout engine: samples with a KV cache, in bfloat16, from weights of its own.

It differs from the trainer as real engines do: other kernels (one token at a time, cached), another
precision, and weights that are as old as the last sync. The log-probs that it reports are of the
distribution that it sampled from, so mean p_train / p_rollout is 1 up to sampling error as long as
the trainer computes a distribution over the same words.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from timtrack.tasks.demo.toy_grpo.decoder import Cache, Decoder


@dataclass(frozen=True)
class Rollout:
    """Sampled responses: right padded to R."""

    responses: Tensor  # [N, R] int64, pad id after the end
    mask: Tensor  # [N, R] int64, 1 = sampled, the end token included
    log_probs: Tensor  # [N, R] float32, 0 outside the mask


class Engine:
    """A copy of the policy that is synced now and then.

    It samples, and reports log-probs, at its `temperature`.
    """

    def __init__(
        self,
        model: Decoder,
        vocabulary: int,
        dtype: torch.dtype = torch.bfloat16,
        temperature: float = 1.0,
    ) -> None:
        self.model = Decoder(vocabulary).to(dtype)
        self.dtype, self.temperature = dtype, temperature
        self.weights: dict[str, Tensor] = {}  # as synced, before they were rounded to dtype
        self.version = 0
        self.sync(model, 0)

    def sync(self, model: Decoder, version: int) -> None:
        """Take over the trainer's weights of this version."""
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.model.load_state_dict(self.weights)
        self.version = version

    @torch.no_grad()
    def sample(
        self, prompts: Tensor, real: Tensor, end: int, length: int, generator: torch.Generator
    ) -> Rollout:
        """Responses of up to `length` tokens to prompts [N, P], left padded as `real` says."""
        rows = len(prompts)
        decoding = Decoding(self, prompts, real, length)
        responses = torch.zeros(rows, length, dtype=torch.int64)
        mask = torch.zeros(rows, length, dtype=torch.int64)
        log_probs = torch.zeros(rows, length)
        running = torch.ones(rows, dtype=torch.bool)
        for position in range(length):
            log_p = decoding.log_p()
            word = torch.multinomial(log_p.exp(), 1, generator=generator)  # [N, 1]
            responses[:, position] = torch.where(running, word[:, 0], 0)
            log_probs[:, position] = torch.where(running, log_p.gather(1, word)[:, 0], 0.0)
            mask[:, position] = running
            running = running & (word[:, 0] != end)
            if not running.any():
                break
            decoding.advance(responses[:, position], mask[:, position])
        return Rollout(responses, mask, log_probs)

    @torch.no_grad()
    def rescore(self, prompts: Tensor, real: Tensor, rollout: Rollout) -> Tensor:
        """Log-probs of sampled responses, [N, R], by the engine as it is now.

        Token by token as they were sampled: without a sync they are the same bits.
        """
        decoding = Decoding(self, prompts, real, rollout.mask.shape[1])
        log_probs = torch.zeros_like(rollout.log_probs)
        for position in range(int(rollout.mask.sum(1).max())):
            words, mask = rollout.responses[:, position], rollout.mask[:, position]
            picked = decoding.log_p().gather(1, words[:, None])[:, 0]
            log_probs[:, position] = torch.where(mask.bool(), picked, 0.0)
            decoding.advance(words, mask)
        return log_probs


class Decoding:
    """One token after the other, by an engine's model with a KV cache."""

    def __init__(self, engine: Engine, prompts: Tensor, real: Tensor, length: int) -> None:
        self.engine, self.real = engine, real
        self.cache = Cache(len(prompts), prompts.shape[1] + length, engine.dtype)
        self.logits = engine.model(prompts, real, self.cache)[:, -1]  # [N, V]

    def log_p(self) -> Tensor:
        """Log-probs of the next word, [N, V]."""
        return (self.logits.float() / self.engine.temperature).log_softmax(-1)

    def advance(self, words: Tensor, kept: Tensor) -> None:
        """Go on with these words [N]; where `kept` [N] is 0 they are padding."""
        self.real = torch.cat([self.real, kept[:, None]], dim=1)
        self.logits = self.engine.model(words[:, None], self.real, self.cache)[:, -1]
