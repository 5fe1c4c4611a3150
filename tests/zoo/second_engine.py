"""CTranslate2 as a rollout engine: kernels, quantisation and sampling that are not ours."""

from pathlib import Path

import ctranslate2
import torch
from rollouts import EOS, Rollouts


def opened(model: Path, quantization: str) -> ctranslate2.Generator:
    """The model in CTranslate2's layout, converted once, beside where it lies."""
    folder = model.with_name(f"{model.name}-{quantization}")
    if not folder.exists():
        ctranslate2.converters.TransformersConverter(str(model)).convert(
            str(folder), quantization=quantization
        )
    return ctranslate2.Generator(
        str(folder), device="cpu", compute_type=quantization, inter_threads=1, intra_threads=1
    )


def sampled(
    engine: ctranslate2.Generator, tokenizer, prompts: list[list[int]], new: int, seed: int
) -> Rollouts:
    """Rows sampled at temperature 1 from the whole vocabulary, and what the engine scores them."""
    ctranslate2.set_random_seed(seed)
    words = tokenizer.convert_ids_to_tokens
    results = engine.generate_batch(
        [words(prompt) for prompt in prompts],
        max_length=new,
        sampling_topk=0,
        return_end_token=True,
        end_token=words(EOS),
        include_prompt_in_result=False,
    )
    responses = [list(result.sequences_ids[0]) for result in results]
    lines = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    scored = engine.score_batch([words(line) for line in lines])
    logps = [
        torch.tensor(score.log_probs[-len(response) :])
        for score, response in zip(scored, responses, strict=True)
    ]
    return Rollouts(list(prompts), responses, logps)
