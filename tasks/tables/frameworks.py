"""Metrics under the frameworks' own names, logged beside ours where they are asked for."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from timtrack.tasks.messages.errors import TimtrackError

if TYPE_CHECKING:  # the command line needs the names alone
    import polars as pl

FRAMEWORKS = (
    *("verl", "trl", "nemo_rl", "slime", "miles", "skyrl", "openrlhf", "prime_rl", "areal"),
    *("ms_swift", "roll", "open_instruct", "tinker", "mimo"),
)


class BadFramework(TimtrackError):
    """Not a framework whose names are known."""


def parse(names: str) -> tuple[str, ...]:
    """Frameworks from their names with commas between; raises BadFramework if one is not known."""
    frameworks = tuple(name.strip() for name in names.split(",") if name.strip())
    if unknown := set(frameworks) - set(FRAMEWORKS):
        raise BadFramework(f"no framework {', '.join(unknown)}; there are {', '.join(FRAMEWORKS)}")
    return frameworks


def metrics(
    tables: "Mapping[str, pl.DataFrame]", frameworks: Iterable[str]
) -> dict[str, float | None]:
    """What these frameworks would log: `verl/rollout_corr/kl`, `slime/mis_kl`.

    Numbers that belong to a correction's setting have that before the name:
    `verl/token/rollout_corr/rollout_is_mean`. What MLflow refuses in a name is an underscore in
    these: `F(tau=2)` of the MiMo dashboard is `F_tau_2`.
    """
    return {
        "/".join([framework, *_setting(row), _allowed(row["name"])]): row["value"]
        for framework in frameworks
        if f"{framework}_metrics" in tables  # a pruned step may have tables of older SQL
        for row in tables[f"{framework}_metrics"].to_dicts()
    }


def _allowed(name: str) -> str:
    return re.sub(r"[^\w\-. :/]+", "_", name).strip("_")


def _setting(row: dict[str, Any]) -> list[str]:
    setting = row.get("setting", "none")
    return [] if setting == "none" else [setting]
