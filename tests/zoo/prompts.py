"""Prompts of different lengths, in two halves: one to set thresholds on, one to report on."""

from itertools import product

TOPICS = (
    *("the sea", "a clock", "gravity", "bread", "a lost key", "winter", "the moon", "a library"),
    *("rivers", "a friendly robot", "chess", "honey bees", "an old train", "volcanoes", "tea"),
    *(
        "a garden",
        "music",
        "shadows",
        "a bridge",
        "whales",
        "paper",
        "a lighthouse",
        "salt",
        "wind",
    ),
)
TASKS = (
    "Write two sentences about {}.",
    "Explain {} to a child.",
    "List three facts about {}, each on a line of its own, and say which is the oddest.",
    "What is 17 + {n}? Show the steps.",
    "Write a very short poem about {}.",
    "Read this and answer. Last year a school of {n} pupils wrote about {}. Half of them "
    "liked it, a quarter did not, the others did not say. How many did not say? Explain how "
    "you got there.",
    "Write a Python function named f{n} that returns the sum of the first {n} even numbers.",
    "Say hello, then say one thing about {}.",
)


def chat(tokenizer, text: str) -> list[int]:
    """A prompt's ids, as the model's chat template has them."""
    told = [{"role": "user", "content": text}]
    return list(tokenizer.apply_chat_template(told, add_generation_prompt=True, return_dict=False))


def prompts(half: int, count: int, seed: int) -> list[str]:
    """So many prompts of a half, others for each seed."""
    every = [
        task.format(topic, n=7 + 3 * place)
        for place, (topic, task) in enumerate(product(TOPICS, TASKS))
    ]
    mine = every[half::2]
    step = 5  # prime to the number of tasks: all kinds in a few
    start = 31 * seed
    return [mine[(start + step * place) % len(mine)] for place in range(count)]
