"""What an MLflow run says of itself besides its metrics: parameters, source, user, colour."""

import getpass
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from timtrack.tasks.messages.errors import printable

COLOR_TAG = "mlflow.runColor"
# Okabe and Ito's colours, which everybody can tell apart, then darker ones of the same hues.
COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d00", "#1b1f8a"),
    *("#8a2a00", "#004d3b", "#7a2f5a", "#4b4b4b"),
)
LONGEST = 500  # characters of a param: what any MLflow takes
OF_A_STEP = {"global_step", "policy_version", "run_name", "step"}  # no property of a run
COMMITS = ("git_commit", "commit", "git_sha")
FOREIGN = re.compile(r"[^\w\-. :/]")


def params_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """Every scalar that the capture says of itself, as MLflow takes names and values."""
    items = facts["meta"].items()
    return {
        FOREIGN.sub("_", printable(name))[:250]: printable(str(value))[:LONGEST]
        for name, value in items
        if isinstance(value, str | int | float) and name and name not in (*OF_A_STEP, *COMMITS)
    }


def origin_of(facts: Mapping[str, Any]) -> dict[str, str]:
    """Where the captures come from, whose process logs them, the trainer's commit if it is known.

    As tags that MLflow's run list has columns for.
    """
    meta = facts["meta"]
    commit = next((str(meta[name]) for name in COMMITS if meta.get(name)), None)
    tags = {
        "mlflow.source.name": printable(str(_folder(Path(facts["source"])))),
        "mlflow.source.type": "LOCAL",
        "mlflow.user": printable(str(meta.get("user") or _user())),
        "mlflow.source.git.commit": commit and printable(commit),
    }
    return {name: value[:LONGEST] for name, value in tags.items() if value}


def color(taken: Iterable[str]) -> str:
    """The first colour that no other run has; of more runs than colours, the rarest."""
    counts = dict.fromkeys(COLORS, 0)
    for one in taken:
        if one in counts:
            counts[one] += 1
    return min(counts, key=lambda one: counts[one])


def _folder(source: Path) -> Path:
    """Where a run's captures lie, not one step's."""
    folder = source.parent
    return folder.parent if re.fullmatch(r"step_\d+", folder.name) else folder


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, in a container
        return ""
