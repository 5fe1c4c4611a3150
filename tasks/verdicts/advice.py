"""What to do about a step's mismatch: which correction to use, or why none helps.

One rule: nothing is recommended where the log-probs may be shifted, and "no correction is needed"
is never said of a step with a bad reading.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from timtrack.tasks.messages.formatting import interval, number, share
from timtrack.tasks.tables import corrections
from timtrack.tasks.verdicts.bands import OURS

Tables = Mapping[str, pl.DataFrame]
Rows = Mapping[str, Mapping[str, Any]]

# Mean |1 - r| up to which nothing needs to be corrected: what kl_k3 has at the end of its healthy
# band, 2e-3 nats. It does not see a few tokens that are far off; the ESS of r does.
NEEDLESS = 0.05
FAR = 0.2  # of mean r from 1, from which it is told
TAILLESS = 0.95  # ESS of the weights r from which no few tokens dominate: the end of its watch band
EQUAL = 1e-3  # of bias or ESS: less is no reason to prefer one setting

MASK = "icepop_0.5_5"  # what drops a few tokens that are far off, and leaves the others
ENOUGH = 0.01  # part of the tokens up to which dropping them is a remedy

EQUAL_BITS = (
    "There is nothing to correct: the log-probs are equal bit by bit, as in bypass mode, where "
    "nothing is measured."
)
IN_DOUBT = (
    "No correction is recommended: the log-probs may be shifted, so that r compares different "
    "tokens. Check the capture first."
)


FALSE_R = (
    "No correction is recommended: by the likely cause r is no ratio of two probabilities of the "
    "sampled tokens, and weights made of it are wrong. Mend the cause first."
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
    rows = {row["setting"]: row for row in tables["corrections"].to_dicts()}
    numbers = tables["step_metrics"].row(0, named=True) if "step_metrics" in tables else {}
    if numbers.get("abs_logp_diff_max") == 0:
        return Advice("none", EQUAL_BITS)
    if _is_needless(rows) and not _is_bad(numbers):
        return Advice("none", _needless(rows))
    if name := recommended(rows):
        return Advice(name, _recommended(name, rows[name]))
    if _is_mask_enough(rows[MASK]):
        return Advice(MASK, f"A few tokens are far off. {_recommended(MASK, rows[MASK])}")
    return Advice(None, f"None of {len(rows)} settings is usable. {_why(rows, numbers)}.")


def shift(tables: Tables) -> dict[str, Any] | None:
    """The row of `alignment` for log-probs that are believed to be read some tokens off."""
    alignment, scan = tables.get("alignment"), tables.get("lag_scan")
    if alignment is None or (scan is not None and "diff_t" not in scan.columns):
        return None  # older SQL asked one measure alone
    return next(iter(alignment.filter(pl.col("is_found"), name="shift").to_dicts()), None)


def recommended(rows: Rows) -> str | None:
    """The correction to use, or None if none is usable.

    Of the usable ones that some framework offers and that are as near to r, the one that keeps the
    most effective tokens; if none is as near, the nearest. Of equals the first in the file.
    """
    offered = [
        name
        for name, setting in corrections.defaults().items()
        if setting.config and name in rows and not rows[name]["unusable"] and _acts(rows, name)
    ]
    near = [name for name in offered if rows[name]["bias_l1_vs_r"] < NEEDLESS]
    if near:
        most = max(rows[name]["ess_token"] for name in near)
        return next(name for name in near if rows[name]["ess_token"] >= most - EQUAL)
    least = min((rows[name]["bias_l1_vs_r"] for name in offered), default=0.0)
    return next((name for name in offered if rows[name]["bias_l1_vs_r"] <= least + EQUAL), None)


def _acts(rows: Rows, name: str) -> bool:
    """Whether a setting does anything here that no correction does not."""
    alike = ("frac_tok_dropped", "ess_token", "bias_l1_vs_r")
    return any(rows[name][number] != rows["none"][number] for number in alike)


def _is_needless(rows: Rows) -> bool:
    none, weights = rows.get("none"), rows.get("is_token")
    return bool(
        none
        and weights
        and none["unusable"] is None
        and none["bias_l1_vs_r"] < NEEDLESS
        and weights["ess_token"] >= TAILLESS
    )


def _is_bad(numbers: Mapping[str, Any]) -> bool:
    """Whether a number is beyond its default band: averages may hide few tokens."""
    return any(reading.level == "bad" for reading in OURS.readings({}, numbers))


def _is_mask_enough(row: Mapping[str, Any]) -> bool:
    return bool(row["frac_tok_dropped"] <= ENOUGH and row["ess_token"] >= TAILLESS)


def _needless(rows: Rows) -> str:
    return (
        f"No correction is needed: r is {number(rows['none']['bias_l1_vs_r'])} away from 1 on "
        f"average, and weights r would keep an ESS of {number(rows['is_token']['ess_token'])}."
    )


def _recommended(name: str, row: Mapping[str, Any]) -> str:
    bounded = row["frac_tok_truncated_high"] + row["frac_tok_truncated_low"]
    return (
        f"Recommended: {name}; it drops {share(row['frac_tok_dropped'])} of the tokens, truncates "
        f"the weight of {share(bounded)}, keeps an ESS of {number(row['ess_token'])}, and its "
        f"weights are {number(row['bias_l1_vs_r'])} from r on average."
    )


def _why(rows: Rows, numbers: Mapping[str, Any]) -> str:
    """What is wrong with how many settings, what mean r says, what the common ones would cost."""
    reasons = Counter(row["unusable"] for row in rows.values() if row["unusable"])
    counts = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
    tis, mask = rows["tis_token_5"], rows["icepop_0.2_5"]
    cost = (
        f"TIS at 5 would keep an ESS of {number(tis['ess_token'])}, a mask at 5x drop "
        f"{share(mask['frac_tok_dropped'])} of the tokens"
    )
    parts = [counts[:1].upper() + counts[1:], *_mean_ratio(rows, numbers), cost]
    return "; ".join(parts)


def _mean_ratio(rows: Rows, numbers: Mapping[str, Any]) -> list[str]:
    """What mean r of this sample says, where it is far from 1."""
    mean = rows["is_token"]["weight_mean"]
    if abs(mean - 1) <= FAR:
        return []
    sentence = f"mean r is {number(mean)} in this sample instead of 1{_interval(numbers)}"
    if rows["none"]["unusable"] != "mean r is not 1":
        return [sentence]
    if mean < 1:
        return [
            f"{sentence}: the rest of the trainer's probability mass is on tokens that were not "
            "sampled, or the rollout engine reports log-probs that are too high, and no "
            "reweighting of this sample brings it back"
        ]
    return [
        f"{sentence}: it is at most 1 in expectation, so a few tokens hold it up, or the rollout "
        "engine did not sample by the log-probs that it reports"
    ]


def _interval(numbers: Mapping[str, Any]) -> str:
    if "interval_t" not in numbers:  # older SQL
        return ""
    if t := numbers.get("interval_t_of_r"):
        return interval(numbers["ratio_mean"], numbers["ratio_mean_se"], t)
    return f" ({no_interval(numbers)})"


def no_interval(numbers: Mapping[str, Any]) -> str:
    """Why averages of r have no interval here, in a few words."""
    if numbers.get("interval_t") is None:
        return f"{number(numbers['clusters_effective'])} effective prompt groups: no interval"
    return "a few tokens decide it: no interval"
