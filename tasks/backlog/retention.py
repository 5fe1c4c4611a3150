"""Retention: whose token tables may be deleted. Tables, metrics and capture.json always stay."""

import time
from itertools import groupby

from timtrack.tasks.lake.steps import Step, prunable_bytes
from timtrack.tasks.tables.stored import are_computed

DAY = 86_400  # seconds


def all_but_last(steps: list[Step], keep: int) -> list[Step]:
    """Of each run, all but the last `keep` steps (by step), as far as they may go."""
    by_run = groupby(sorted(steps, key=lambda s: (s.run, s.step)), key=lambda s: s.run)
    old = [step for _, group in by_run for step in list(group)[:-keep]]
    return _may_go(old)


def older_than(steps: list[Step], days: float) -> list[Step]:
    """Steps whose captures were written more than `days` ago, as far as they may go."""
    limit = time.time() - days * DAY
    return _may_go([step for step in steps if step.facts()["mtime_ns"] / 1e9 < limit])


def _may_go(steps: list[Step]) -> list[Step]:
    """Not without tables: the tokens are all that there is then; and not twice."""
    return [step for step in steps if are_computed(step) and prunable_bytes(step)]
