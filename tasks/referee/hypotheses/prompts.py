"""Hypotheses about the ids that were scored: another prompt, text that was encoded again."""

from collections.abc import Callable, Sequence

import numpy as np

from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model.lines import Line
from timtrack.tasks.referee.registry import Choice, hypothesis
from timtrack.tasks.referee.rollouts import Floats, Rollout

Prompts = Callable[[Rollout], Sequence[int]]


def _prompted(bench: Bench, prompt: Prompts) -> Floats:
    lines = [(list(prompt(one)), one) for one in bench.rollouts]
    return bench.scored(
        [Line([*ids, *one.response], len(ids), len(one.response)) for ids, one in lines]
    )


def _where(bench: Bench, prompt: Prompts) -> tuple[None, ...]:
    """One value where a prompt changes, none where no prompt does."""
    is_other = any(tuple(prompt(one)) != one.prompt for one in bench.rollouts)
    return (None,) if is_other else ()


@hypothesis(
    "prompt_out",
    "there is no prompt",
    "the responses are scored without their prompts",
    ("F39",),
)
def _(bench: Bench, _value: None) -> Floats:
    return _prompted(bench, lambda one: ())


def _cuts(bench: Bench) -> list[float]:
    longest = max(len(one.prompt) for one in bench.rollouts)
    return [k for k in (1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024) if k < longest]


@hypothesis(
    "prompt_cut",
    "of the prompt only the last {value} tokens are there",
    "prompts are cut on the left",
    ("F39",),
    _cuts,
)
def _(bench: Bench, value: float) -> Floats:
    return _prompted(bench, lambda one: one.prompt[-int(value) :])


def _turns(one: Rollout) -> list[int]:
    """Where the turns of a chat begin: at each id that the prompt begins with, or its second."""
    for start in one.prompt[:2]:
        places = [at for at, token in enumerate(one.prompt) if token == start]
        if len(places) > 1:
            return places
    return []


def _without_system(one: Rollout) -> Sequence[int]:
    """Without the first of three turns or more; what stands before it stays."""
    turns = _turns(one)
    return (*one.prompt[: turns[0]], *one.prompt[turns[1] :]) if len(turns) > 2 else one.prompt


@hypothesis(
    "system_out",
    "the first turn of the prompt, the system's, is left out",
    "one side adds a system prompt that the other does not have",
    ("F39",),
    lambda bench: _where(bench, _without_system),
)
def _(bench: Bench, _value: None) -> Floats:
    return _prompted(bench, _without_system)


def _without_answer_turn(one: Rollout) -> Sequence[int]:
    turns = _turns(one)
    return one.prompt[: turns[-1]] if len(turns) > 1 and turns[-1] else one.prompt


@hypothesis(
    "answer_turn_out",
    "the beginning of the assistant's turn is left out",
    "the chat template is applied without a generation prompt",
    ("F39",),
    lambda bench: _where(bench, _without_answer_turn),
)
def _(bench: Bench, _value: None) -> Floats:
    return _prompted(bench, _without_answer_turn)


def _bare(bench: Bench) -> Prompts:
    """Prompts without special tokens, as another chat template's that has none."""
    tokenizer = bench.reference.tokenizer
    special = set(tokenizer.all_special_ids) if tokenizer else set()
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special |= {number for number, token in added.items() if token.special}
    return lambda one: [token for token in one.prompt if token not in special]


@hypothesis(
    "template_out",
    "the prompt has no special tokens",
    "another chat template, or none, is applied",
    ("F39",),
    lambda bench: _where(bench, _bare(bench)),
)
def _(bench: Bench, _value: None) -> Floats:
    return _prompted(bench, _bare(bench))


@hypothesis(
    "prompt_end",
    "{value} of the prompt is left out",
    "one side cuts or strips the end of the prompt",
    ("F39",),
    lambda _: (Choice("the last token", 1), Choice("the last token but one", 2)),
)
def _(bench: Bench, value: Choice) -> Floats:
    def cut(one: Rollout) -> Sequence[int]:
        at = len(one.prompt) - value.data
        return [token for place, token in enumerate(one.prompt) if place != at]

    return _prompted(bench, cut)


@hypothesis(
    "first_id_twice",
    "the first id of the prompt stands twice",
    "the tokenizer and the chat template both add a beginning",
    ("F39",),
)
def _(bench: Bench, _value: None) -> Floats:
    return _prompted(bench, lambda one: (*one.prompt[:1], *one.prompt))


@hypothesis(
    "first_id_out",
    "the first id of the prompt is left out",
    "one side does not add the beginning of the text",
    ("F39",),
)
def _(bench: Bench, _value: None) -> Floats:
    return _prompted(bench, lambda one: one.prompt[1:])


def _encoded_again(bench: Bench) -> list[list[int]]:
    tokenizer = bench.reference.tokenizer
    if tokenizer is None:
        return [list(one.response) for one in bench.rollouts]
    texts = [
        tokenizer.decode(list(one.response), clean_up_tokenization_spaces=False)
        for one in bench.rollouts
    ]
    return [list(tokenizer.encode(text, add_special_tokens=False)) for text in texts]


def _is_other(bench: Bench) -> tuple[None, ...]:
    pairs = zip(_encoded_again(bench), bench.rollouts, strict=True)
    return (None,) if any(tuple(ids) != one.response for ids, one in pairs) else ()


@hypothesis(
    "ids_encoded_again",
    "the responses are decoded to text and encoded again",
    "the trainer does not get the ids that were sampled",
    ("F38",),
    _is_other,
)
def _(bench: Bench, _value: None) -> Floats:
    encoded = _encoded_again(bench)
    pairs = list(zip(bench.rollouts, encoded, strict=True))
    lines = [Line([*one.prompt, *ids], len(one.prompt), len(ids)) for one, ids in pairs]
    made = bench.scored([line for line in lines if line.length])
    starts = np.cumsum([0, *(len(ids) for ids in encoded)])
    fitted = []
    for (one, ids), start in zip(pairs, starts[:-1], strict=True):  # by place, as they are stored
        row = np.full(len(one.response), np.nan)
        count = min(len(ids), len(row))
        row[:count] = made[start : start + count]
        fitted.append(row)
    return np.concatenate(fitted)
