"""Early warnings: steps of a run whose numbers have begun to grow while they are still small."""

from collections.abc import Callable, Sequence
from typing import Any

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.formatting import number, share
from timtrack.tasks.tables.query import run_query

FIRSTS = 8  # captured steps that the later ones are compared with
LIMIT = 6  # of a sum, as in `early_warning`
ASKED = "select * from early_warning where is_warning"
SIGNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "tail": lambda row: f"the tail of |ln r| (99.9th percentile {number(row['tail'])} nats)",
    "ess": lambda row: f"the effective sample size ({share(row['ess'])})",
    "tie": lambda row: f"how the gap goes with the advantage (t = {number(row['tie'])})",
}


def warnings(steps: Sequence[Step]) -> dict[int, str]:
    """What has moved, by step, for the steps of one run; none of a run of up to FIRSTS."""
    if len(steps) <= FIRSTS:
        return {}
    return {row["step"]: _text(row) for row in run_query(list(steps), ASKED).to_dicts()}


def _text(row: dict[str, Any]) -> str:
    signs = [say(row) for name, say in SIGNS.items() if row[f"{name}_sum"] > LIMIT]
    return f"early warning: worse than at the first {FIRSTS} steps, for some steps: " + ", ".join(
        signs
    )
