"""The interval of a mean over tokens of a few prompts."""

import numpy as np

from timtrack.tasks.referee.verdict import interval


def test_it_covers_the_mean_of_prompts_that_differ():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(1500):
        sizes = rng.integers(15, 45, 8)
        clusters = np.repeat(np.arange(8), sizes)
        values = 1 + rng.normal(size=8)[clusters] + rng.normal(size=sizes.sum())
        low, high = interval(values, clusters)
        covered += low <= 1 <= high
    assert 0.93 <= covered / 1500 <= 0.98


def test_few_prompts_have_none():
    clusters = np.repeat(np.arange(6), [400, 1, 1, 1, 1, 1])
    assert interval(np.ones(len(clusters)), clusters) == (None, None)
    assert interval(np.ones(40), np.repeat(np.arange(4), 10)) == (None, None)
