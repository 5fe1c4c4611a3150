"""What captures say that have more than the sampled tokens' log-probs: lists, the sampler's cut."""

from collections.abc import Iterator

from timtrack.tasks.messages.formatting import number, share
from timtrack.tasks.verdicts.finding import Finding, Tables

MOSTLY = 0.5  # part of the mean |ln r| that replay removes, from which the cut is the matter


def whole_distributions(tables: Tables) -> Iterator[Finding]:
    """How far apart the engines are over all ids."""
    for row in tables["top_k_agreement"].to_dicts():
        yield Finding(
            "top_k_agreement",
            f"By the ids that both engines listed at {row['tokens']:,} tokens, the total variation "
            f"distance of their whole distributions is {number(row['tv_low_mean'])} to "
            f"{number(row['tv_high_mean'])} on average; the likeliest id is the same at "
            f"{share(row['frac_same_top'])} of them.",
            matters=False,
        )


def replayed(tables: Tables) -> Iterator[Finding]:
    """What is left of the gap if the trainer renormalises over the ids that the sampler kept."""
    for row in tables["sampling_replay"].to_dicts():
        before, after = row["abs_logp_diff_mean"], row["abs_logp_diff_mean_replayed"]
        yield Finding(
            "sampling_replay",
            f"If the trainer renormalised over the ids that the sampler kept "
            f"({share(row['kept_mass_mean'])} of its probability mass on average), mean |ln r| of "
            f"these {row['tokens']:,} tokens would be {number(after)} nats instead of "
            f"{number(before)}, and mean r {number(row['ratio_mean_replayed'])} instead of "
            f"{number(row['ratio_mean'])}.",
            matters=after < (1 - MOSTLY) * before,
        )
