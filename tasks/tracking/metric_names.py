"""Names of metrics in MLflow, whose pages make a section of what is before the last slash.

The headline stays by itself, `mismatch/<name>`; the rest is `mismatch/more/<name>`, and standard
errors are last, `standard_errors/<name>`.
"""

from collections.abc import Mapping

HEADLINE = (
    *("kl_k3", "frac_outside_2", "frac_outside_5", "abs_logp_diff_p50", "kl_k1", "ratio_mean"),
    *("ess_token", "tv", "pearson_logp", "pearson_prob", "spearman"),
)
OURS = "mismatch/"
NAMES_TAG = "timtrack.names"  # of a run whose metrics have these names, not all `mismatch/<name>`
NAMES = "2"


def grouped(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """The metrics by their names, the headline first: MLflow shows what it was given first."""
    by_name = {_grouped(name): value for name, value in metrics.items()}
    first = {OURS + name: by_name[OURS + name] for name in HEADLINE if OURS + name in by_name}
    return first | by_name


def _grouped(name: str) -> str:
    own = name.removeprefix(OURS)
    if own == name or "/" in own or own in HEADLINE:  # not ours, or in a section of its own
        return name
    return f"standard_errors/{own[:-3]}" if own.endswith("_se") else f"{OURS}more/{own}"
