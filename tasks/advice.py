"""What to do about a step's mismatch: which correction to use, or why none helps.

One rule: nothing is recommended where the capture itself is in doubt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from tasks import corrections
from tasks.notation import interval, number, share

Tables = Mapping[str, pl.DataFrame]
Rows = Mapping[str, Mapping[str, Any]]

# Mean |1 - r| up to which nothing needs to be corrected: what kl_k3 has at the end of its healthy
# band, 2e-3 nats. It does not see a few tokens that are far off; the ESS of r does.
NEEDLESS = 0.05
TAILLESS = 0.95  # ESS of the weights r from which no few tokens dominate: the end of its watch band
EQUAL = 1e-3  # of bias or ESS: less is no reason to prefer one setting

IN_DOUBT = (
    "No correction is recommended: the log-probs may be shifted, so that r compares different "
    "tokens. Check the capture first."
)


@dataclass(frozen=True)
class Advice:
    """A setting of `corrections` (`none`: nothing is needed; None: none is usable), and why."""

    setting: str | None
    text: str

    @property
    def config(self) -> dict[str, str]:
        """How to set it, by framework that can."""
        return corrections.defaults()[self.setting].config if self.setting else {}


def advise(tables: Tables) -> Advice:
    """Advice from `corrections` and, as far as they are there, `alignment` and `step_metrics`."""
    if shift(tables):
        return Advice(None, IN_DOUBT)
    simulated = tables["corrections"]
    name = recommended(simulated)
    rows = {row["setting"]: row for row in simulated.to_dicts()}
    if name == "none":
        return Advice(name, _needless(rows))
    if name:
        return Advice(name, _recommended(name, rows[name]))
    return Advice(None, f"No setting is usable: {_why(rows, _mean_ratio(tables))}.")


def shift(tables: Tables) -> dict[str, Any] | None:
    """The row of `alignment` for log-probs that are believed to be read some tokens off."""
    alignment = tables.get("alignment")
    if alignment is None:
        return None
    return next(iter(alignment.filter(pl.col("is_found"), name="shift").to_dicts()), None)


def recommended(simulated: pl.DataFrame) -> str | None:
    """The setting to use, or None if none is usable.

    `none` where r is near 1 and no few tokens dominate. Else, of the usable ones that some
    framework offers and that are as near to r, the one that keeps the most effective tokens; if
    none is as near, the nearest. Of equals the first in the file.
    """
    rows = {row["setting"]: row for row in simulated.to_dicts()}
    if _is_needless(rows):
        return "none"
    usable = simulated.filter(pl.col("unusable").is_null())["setting"].to_list()
    offered = [
        name
        for name, setting in corrections.defaults().items()
        if setting.config and name in usable and name != "none"
    ]
    near = [name for name in offered if rows[name]["bias_l1_vs_r"] < NEEDLESS]
    if near:
        most = max(rows[name]["ess_token"] for name in near)
        return next(name for name in near if rows[name]["ess_token"] >= most - EQUAL)
    least = min((rows[name]["bias_l1_vs_r"] for name in offered), default=0.0)
    return next((name for name in offered if rows[name]["bias_l1_vs_r"] <= least + EQUAL), None)


def _is_needless(rows: Rows) -> bool:
    none, weights = rows.get("none"), rows.get("is_token")
    return bool(
        none
        and weights
        and none["unusable"] is None
        and none["bias_l1_vs_r"] < NEEDLESS
        and weights["ess_token"] >= TAILLESS
    )


def _needless(rows: Rows) -> str:
    return (
        f"No correction is needed: r is {number(rows['none']['bias_l1_vs_r'])} away from 1 on "
        f"average, and weights r would keep an ESS of {number(rows['is_token']['ess_token'])}."
    )


def _recommended(name: str, row: Mapping[str, Any]) -> str:
    bounded = row["frac_tok_truncated_high"] + row["frac_tok_truncated_low"]
    return (
        f"Recommended: {name}; it drops {share(row['frac_tok_dropped'])} of the tokens, bounds the "
        f"weight of {share(bounded)}, keeps an ESS of {number(row['ess_token'])} and is "
        f"{number(row['bias_l1_vs_r'])} away from r on average."
    )


def _mean_ratio(tables: Tables) -> str:
    """The mean of r of this sample with its interval, in words."""
    metrics = tables.get("step_metrics")
    if metrics is None:
        return ""
    row = metrics.row(0, named=True)
    if row.get("interval_t") is None:
        return f" ({row['clusters']} prompt groups are too few for an interval)"
    if row.get("interval_t_of_r") is None:
        return " (a few tokens decide it: no interval)"
    return interval(row["ratio_mean"], row["ratio_mean_se"], row["interval_t_of_r"])


def _why(rows: Rows, interval_of_mean: str) -> str:
    mean, tis, mask = rows["is_token"]["weight_mean"], rows["tis_token_5"], rows["icepop_0.2_5"]
    cost = (
        f"TIS at 5 would keep an ESS of {number(tis['ess_token'])}, a mask at 5x drop "
        f"{share(mask['frac_tok_dropped'])} of the tokens"
    )
    if rows["none"]["unusable"] != "mean r is not 1":
        return cost
    seen = f"mean r is {number(mean)} in this sample instead of 1{interval_of_mean}"
    if mean < 1:
        return (
            f"{seen}: the rest of the trainer's probability mass is on tokens that were not "
            "sampled, or the rollout engine reports log-probs that are too high, and no "
            f"reweighting of this sample brings it back; {cost}"
        )
    return (
        f"{seen}: it is at most 1 in expectation, so a few tokens hold it up, or the rollout "
        f"engine did not sample by the log-probs that it reports; {cost}"
    )


def masked(simulated: pl.DataFrame) -> str:
    """What to say where r is near 1 on average, but some numbers are bad."""
    row = simulated.row(by_predicate=pl.col("setting") == "icepop_0.5_5", named=True)
    return (
        "Weights would change little: a mask (icepop_0.5_5) would drop "
        f"{share(row['frac_tok_dropped'])} of the tokens."
    )
