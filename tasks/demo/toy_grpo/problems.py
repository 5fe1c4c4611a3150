"""The task: arithmetic word problems in GSM8K's style, their solutions, and who is right.

One rule: a reward is verified, never learned: 1 if the number after `####` is the answer, else 0.
"""

import random
from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo")
THINGS = ("apples", "books", "coins", "cards", "eggs", "pens", "shells", "stamps")
PLACES = ("box", "bag", "drawer", "basket", "jar", "desk")

# What happens to `a` things: first `b` join or leave, then `c`. {name}, {thing}, {place} are drawn.
STORIES = (
    ("{name} has {a} {thing} in a {place} .", "{name} buys {b} more .", "{name} gives away {c} ."),
    ("There are {a} {thing} in the {place} .", "{name} adds {b} .", "{name} takes {c} out ."),
    ("{name} found {a} {thing} near the {place} .", "Then {name} finds {b} more .", "{c} break ."),
)
QUESTION = "How many {thing} are left ?"

# Three ways to be right, and a careless one that forgets the last step: what training weeds out.
STYLES = (
    "{a} + {b} = {s} . {s} - {c} = {t} . #### {t}",
    "First {a} + {b} = {s} {thing} . Then {s} - {c} = {t} {thing} . #### {t}",
    "{name} has {s} {thing} , as {a} + {b} = {s} . {s} - {c} = {t} are left . #### {t}",
)
CARELESS = "{a} + {b} = {s} . #### {s}"
CARELESS_SHARE = 0.5


@dataclass(frozen=True)
class Problem:
    """A prompt in ChatML, the true answer, and solutions to learn from."""

    prompt: str
    answer: int
    solutions: tuple[str, ...]  # right ones
    careless: str


def draw(rng: random.Random) -> Problem:
    """One problem with operands 1 to 5 and a result above 0."""
    a, b = rng.randint(1, 5), rng.randint(1, 5)
    c = rng.randint(1, min(5, a + b - 1))
    facts = {
        "name": rng.choice(NAMES),
        "thing": rng.choice(THINGS),
        "place": rng.choice(PLACES),
        **{"a": a, "b": b, "c": c, "s": a + b, "t": a + b - c},
    }
    story = " ".join((*rng.choice(STORIES), QUESTION)).format(**facts)
    return Problem(
        prompt=f"{START} user {story} {END} {START} assistant",
        answer=a + b - c,
        solutions=tuple(f"{style.format(**facts)} {END}" for style in STYLES),
        careless=f"{CARELESS.format(**facts)} {END}",
    )


def demonstration(rng: random.Random) -> tuple[str, str]:
    """A prompt and a solution for the warm-up; half of the solutions are careless."""
    problem = draw(rng)
    careless = rng.random() < CARELESS_SHARE
    return problem.prompt, problem.careless if careless else rng.choice(problem.solutions)


def reward(response: list[str], answer: int) -> float:
    """1.0 if the digits after the first `####` are the answer, up to the end of the turn."""
    words = response[: response.index(END)] if END in response else response
    if "####" not in words:
        return 0.0
    said = ""
    for word in words[words.index("####") + 1 :]:
        if not word.isdigit():
            break
        said += word
    return float(said == str(answer))


def tokenizer() -> Tokenizer:
    """Word-level with single digits, the same on every machine; PAD is id 0."""
    texts = [*NAMES, *THINGS, *PLACES, QUESTION, *STYLES, *(" ".join(story) for story in STORIES)]
    words = {word for text in texts for word in text.split() if "{" not in word}
    ordered = [PAD, START, END, *"0123456789", *sorted(words), "user", "assistant"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(ordered))}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=True)]
    )
    built.add_special_tokens([PAD, START, END])
    return built
