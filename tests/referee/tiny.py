"""A tiny random model with a tokenizer of its own, and engines made of it."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model.checkpoints import opened
from timtrack.tasks.referee.model.loading import load
from timtrack.tasks.referee.rollouts import Rollout

START, END, PAD = "<|start|>", "<|end|>", "<|pad|>"
TEXT = [
    "the referee scores the same tokens again and says which engine is off",
    "a long answer about numbers: 1 2 3 4 5 6 7 8 9 10, and then some more words",
    "weights, positions, masks and prompts may all be wrong at once; look at one thing",
]


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on a few sentences."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[START, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXT * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=START, eos_token=END, pad_token=PAD
    )


def write_model(folder: Path, seed: int = 0, like: Path | None = None, step: float = 0.0) -> Path:
    """A random Llama in `folder`; with `like`, that model after a small random change."""
    words = tokenizer()
    torch.manual_seed(seed)
    if like is None:
        config = LlamaConfig(
            vocab_size=len(words),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            initializer_range=0.12,  # of a size at which logits are no longer all alike
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
        model = LlamaForCausalLM(config)
    else:
        model = AutoModelForCausalLM.from_pretrained(like)
    for value in model.parameters():
        value.data += (
            (0.1 if like is None else step) * value.data.abs().mean() * torch.randn_like(value)
        )
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class World:
    """A model, an earlier one, and sequences that the model sampled."""

    model: Path
    earlier: Path
    bench: Bench
    start: int = 0  # id that begins a turn
    end: int = 1  # id that ends a response
    pad: int = 2
    phantom: float = 5.3  # ln of what padded rows of the vocabulary add to the normaliser

    @cached_property
    def logits(self) -> list[torch.Tensor]:
        """What predicts each response, [T, V], a sequence at a time."""
        model: Any = self.bench.reference.model
        with torch.no_grad():
            return [
                model(torch.tensor([one.ids])).logits[0, len(one.prompt) - 1 : -1].float()
                for one in self.bench.rollouts
            ]

    def earlier_model(self) -> Any:
        """The earlier model, opened by `transformers` alone."""
        return AutoModelForCausalLM.from_pretrained(self.earlier).eval().requires_grad_(False)

    def engines(self, rollout: Any = None, train: Any = None) -> Bench:
        """The bench where engines have these log-probs [N]; those of the reference by default."""
        clean = self.bench.plain
        parts = [clean if given is None else given for given in (rollout, train)]
        cut = [[part[where] for where in self.bench.slices] for part in parts]
        with_logps = [
            replace(one, rollout=r, train=t)
            for one, r, t in zip(self.bench.rollouts, *cut, strict=True)
        ]
        return replace(
            self.bench, rollouts=tuple(with_logps), batch={one.row: one for one in with_logps}
        )


def world(folder: Path, rows: int = 6, new: int = 40) -> World:
    """Sequences of three turns, two of each prompt, sampled at temperature 1."""
    earlier = write_model(folder / "earlier")
    model = write_model(folder / "model", seed=1, like=earlier, step=0.02)
    reference = load(model, "cpu")
    prompts = [_prompt(reference.tokenizer, row // 2) for row in range(rows)]
    torch.manual_seed(5)
    sequences = []
    for row, prompt in enumerate(prompts):
        out = _sampled(reference.model, prompt, new - 3 * row, reference.tokenizer.eos_token_id)
        nothing = np.zeros(len(out))
        sequences.append(Rollout(row, f"p{row // 2}", tuple(prompt), tuple(out), nothing, nothing))
    batch = {one.row: one for one in sequences}
    bench = Bench(reference, tuple(sequences), batch, (opened(earlier, reference),))
    return World(model, earlier, bench)


def _prompt(words: Any, number: int) -> list[int]:
    turns = ["system: be brief", TEXT[number % len(TEXT)][: 20 + 15 * number], "answer:"]
    return [i for turn in turns for i in (words.bos_token_id, *words.encode(turn + "\n"))]


def _sampled(model: Any, prompt: list[int], new: int, end: int) -> list[int]:
    """Tokens drawn one after the other; the last one ends the response."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(new - 1):
            logits = model(torch.tensor([ids])).logits[0, -1].float()
            logits[end] = -torch.inf
            ids.append(int(torch.multinomial(logits.softmax(-1), 1)))
    return [*ids[len(prompt) :], end] if len(prompt) % 2 == new % 2 else ids[len(prompt) :]


def capture_fields(bench: Bench) -> dict[str, Any]:
    """A batch as trainers hold it, with the bench's sequences and log-probs."""
    there = bench.rollouts
    width, prompt = (max(len(getattr(o, n)) for o in there) for n in ("response", "prompt"))
    fields = {
        "prompts": torch.zeros(len(there), prompt, dtype=torch.long),
        "responses": torch.zeros(len(there), width, dtype=torch.long),
        "response_mask": torch.zeros(len(there), width, dtype=torch.long),
        "rollout_log_probs": torch.zeros(len(there), width),
        "old_log_probs": torch.zeros(len(there), width),
    }
    prompt_mask = torch.zeros(len(there), prompt, dtype=torch.long)
    for row, one in enumerate(there):
        real = slice(prompt - len(one.prompt), prompt)
        fields["prompts"][row, real], prompt_mask[row, real] = torch.tensor(one.prompt), 1
        here = slice(len(one.response))
        fields["responses"][row, here] = torch.tensor(one.response)
        fields["response_mask"][row, here] = 1
        fields["rollout_log_probs"][row, here] = torch.tensor(one.rollout).float()
        fields["old_log_probs"][row, here] = torch.tensor(one.train).float()
    mask = torch.cat([prompt_mask, fields["response_mask"]], 1)
    return {**fields, "attention_mask": mask, "uid": [one.uid for one in there]}
