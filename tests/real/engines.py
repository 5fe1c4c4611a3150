"""Rollout engines of a real model, and a float32 forward of it in the trainer's place.

    python tests/real/engines.py MODEL OUT

Samples by Hugging Face in bfloat16 with its cache, and by CTranslate2 in float32 and int8, scored
again without a cache; one capture each, `OUT/captures/<engine>/step_1`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ctranslate2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL, OUT = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(OUT))
from timtrack_hook import write_step_batch  # noqa: E402

SAMPLES, LENGTH = 4, 48
END = "<|im_end|>"
QUESTIONS = (
    "Tom has 3 apples and buys 4 more. How many has he?",
    "Write a short poem about rain.",
    "Explain what a prime number is.",
    "Name three animals that can fly.",
    "How do I boil an egg?",
    "Give me a name for a cat.",
    "What is the capital of France?",
    "Tell me a story about a lighthouse.",
)
Rows = list[tuple[list[int], list[int], list[float]]]  # prompt, response, the engine's log-probs


def prompts(tokenizer: Any) -> list[list[int]]:
    """Each question as a chat, once for every sample."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in QUESTIONS
        for _ in range(SAMPLES)
    ]
    return [tokenizer(text).input_ids for text in texts]


@torch.no_grad()
def hugging_face(tokenizer: Any, given: list[list[int]]) -> Rows:
    """`generate` in bfloat16, at temperature 1, without any cut."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16)
    batch = tokenizer.pad({"input_ids": given}, padding_side="left", return_tensors="pt")
    made = model.generate(
        **batch,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=LENGTH,
        return_dict_in_generate=True,
        output_logits=True,
    )
    log_probs = torch.stack(made.logits, dim=1).float().log_softmax(-1)
    ids = made.sequences[:, batch["input_ids"].shape[1] :]
    chosen = log_probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    lengths = [length_of(row, tokenizer.convert_tokens_to_ids(END)) for row in ids.tolist()]
    return [
        (prompt, row[:n].tolist(), own[:n].tolist())
        for prompt, row, own, n in zip(given, ids, chosen, lengths, strict=True)
    ]


def length_of(ids: list[int], end: int) -> int:
    """Tokens up to the end of the turn, which counts."""
    return ids.index(end) + 1 if end in ids else len(ids)


def ctranslate(quantization: str, tokenizer: Any, given: list[list[int]]) -> Rows:
    """CTranslate2's own sampler, and its own scores of what it sampled."""
    folder = OUT / f"ctranslate2-{quantization}"
    if not folder.exists():
        converter = ctranslate2.converters.TransformersConverter(str(MODEL))
        converter.convert(str(folder), quantization=quantization)
    ctranslate2.set_random_seed(0)
    engine = ctranslate2.Generator(str(folder), compute_type=quantization, intra_threads=2)
    words = [tokenizer.convert_ids_to_tokens(ids) for ids in given]
    made = engine.generate_batch(
        words,
        sampling_topk=0,
        sampling_temperature=1.0,
        max_length=LENGTH,
        end_token=END,
        return_end_token=True,
        include_prompt_in_result=False,
    )
    responses = [one.sequences_ids[0] for one in made]
    whole = [
        [*prompt, *tokenizer.convert_ids_to_tokens(ids)]
        for prompt, ids in zip(words, responses, strict=True)
    ]
    scores = [one.log_probs for one in engine.score_batch(whole)]
    return [
        (prompt, ids, scored[-len(ids) :])
        for prompt, ids, scored in zip(given, responses, scores, strict=True)
    ]


@torch.no_grad()
def trainer(rows: Rows) -> Iterator[torch.Tensor]:
    """The float32 model's log-probs of each response, row by row: nothing is padded."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    for prompt, response, _ in rows:
        ids = torch.tensor([[*prompt, *response]])
        log_probs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        yield log_probs.gather(-1, ids[0, len(prompt) :, None]).squeeze(-1)


def save(name: str, rows: Rows) -> None:
    """One capture, as a trainer's hook writes it."""
    batch = {
        "run_name": name,
        "prompts": [torch.tensor(prompt) for prompt, _, _ in rows],
        "responses": [torch.tensor(response) for _, response, _ in rows],
        "response_mask": [torch.ones(len(response)) for _, response, _ in rows],
        "rollout_log_probs": [torch.tensor(own) for _, _, own in rows],
        "old_log_probs": list(trainer(rows)),
        "uid": [f"question-{row // SAMPLES}" for row in range(len(rows))],
        "temperature": 1.0,
    }
    write_step_batch(OUT / "captures" / name, 1, batch)


def main() -> None:
    """All engines."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    given = prompts(tokenizer)
    save("hugging-face-bf16", hugging_face(tokenizer, given))
    for quantization in ("float32", "int8"):
        save(f"ctranslate2-{quantization}", ctranslate(quantization, tokenizer, given))


if __name__ == "__main__":
    main()
