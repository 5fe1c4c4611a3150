"""Metrics under the frameworks' own names, logged beside ours if TIMTRACK_PARITY says so."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from timtrack.tasks.messages.errors import TimtrackError

if TYPE_CHECKING:  # the command line needs the names alone
    import polars as pl

VARIABLE = "TIMTRACK_PARITY"
FRAMEWORKS = ("verl", "nemo_rl", "slime")


class BadFramework(TimtrackError):
    """Not a framework whose names are known."""


def check(names: str) -> str:
    """The names, with commas between; raises BadFramework if one is not known."""
    if unknown := set(_split(names)) - set(FRAMEWORKS):
        raise BadFramework(f"no framework {', '.join(unknown)}; there are {', '.join(FRAMEWORKS)}")
    return names


def metrics(tables: "Mapping[str, pl.DataFrame]") -> dict[str, float | None]:
    """What the frameworks that were asked for would log: `verl/rollout_corr/kl`, `slime/mis_kl`.

    Numbers that belong to a correction's setting have that before the name:
    `verl/token/rollout_corr/rollout_is_mean`.
    """
    return {
        "/".join([framework, *_setting(row), row["name"]]): row["value"]
        for framework in asked()
        if f"{framework}_metrics" in tables  # a pruned step may have tables of older SQL
        for row in tables[f"{framework}_metrics"].to_dicts()
    }


def asked() -> list[str]:
    """The frameworks that TIMTRACK_PARITY names; raises BadFramework for others."""
    return _split(check(os.environ.get(VARIABLE, "")))


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _setting(row: dict[str, Any]) -> list[str]:
    setting = row.get("setting", "none")
    return [] if setting == "none" else [setting]
