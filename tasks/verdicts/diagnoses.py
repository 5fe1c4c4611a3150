"""What each diagnosis says, in one plain sentence made from its table's numbers.

One rule: a sentence is true of every capture that it can be printed on. A finding matters when a
reader should act on it or doubt something because of it.
"""

from collections.abc import Callable, Iterator

import polars as pl

from timtrack.tasks.messages.formatting import number, share
from timtrack.tasks.verdicts.bands import FEWEST_IN_TAIL
from timtrack.tasks.verdicts.capture_faults import nonfinite, row_match, sampled
from timtrack.tasks.verdicts.distributions import replayed, whole_distributions
from timtrack.tasks.verdicts.finding import ENGINE, OWNER, Finding, Row, Tables

# How a fault of the capture is called, worst first; those after `plateau` are remarks.
SEVERITY = (
    *("positive", "shift", "zeros", "temperature", "one_sided", "plateau"),
    *("duplicates", "bfloat16", "float16", "decimals"),
)

GRAVE = SEVERITY[: SEVERITY.index("plateau") + 1]

NOTHING_FOUND = (
    "The checks of the capture itself (shift, temperature, cut on one side, placeholders, clamps, "
    "rounding, copies) found nothing; they do not see every fault."
)


def _alignment(tables: Tables) -> Iterator[Finding]:
    rows = tables["alignment"].filter("is_found").to_dicts()
    for row in sorted(rows, key=lambda row: (SEVERITY.index(row["name"]), row["engine"])):
        text, is_grave = FAULTS[row["name"]](row), row["name"] in GRAVE
        yield Finding("alignment", text, is_grave, of_capture=True)
    if not rows:
        yield Finding("alignment", NOTHING_FOUND, matters=False, of_capture=True)


# Part of the total |ln r| below which a slice is nobody's concern: picked out of thousands of token
# ids, some rare ones always carry a few times their share.
WORTH_SAYING = 0.01

# Lift from which a slice is told of, beyond what the probability of its tokens explains: rounding
# noise is always larger on improbable tokens.
NOTABLE = 1.5
DOMINATED = 0.2  # part of the sum of r on its largest 1 % from which few tokens dominate averages
FEWEST_PLACES = 20  # with a shared prefix, from which engines are compared with themselves
NOISY = 0.1  # part of the gap's square from which an engine's own noise is a finding

FAULTS: dict[str, Callable[[Row], str]] = {
    "shift": lambda row: (
        f"{_shifted(row)} ({row['value']:+.0f}; two measures of `lag_scan` agree): check the "
        "capture before you trust any number of it, they would compare different tokens."
    ),
    "temperature": lambda row: (
        f"The trainer's log-odds are {number(row['value'])} times the rollout engine's: one side "
        "was computed at another temperature."
    ),
    "one_sided": lambda row: (
        f"{OWNER[row['engine']]} log-probs are hardly ever below the other's: it looks as if "
        "top-p, top-k or another cut was applied on that side only."
    ),
    "positive": lambda row: (
        f"{share(row['value'])} of {_lower(row)} log-probs are above 0: probabilities, or the "
        "wrong sign."
    ),
    "zeros": lambda row: (
        f"{share(row['value'])} of {_lower(row)} log-probs are exactly 0 where the other engine is "
        "not sure, as placeholders under the mask are."
    ),
    "plateau": lambda row: (
        f"{share(row['value'])} of {_lower(row)} log-probs are the same lowest value, as if they "
        "were clamped from below."
    ),
    "bfloat16": lambda row: f"{OWNER[row['engine']]} log-probs are rounded to bfloat16.",
    "float16": lambda row: f"{OWNER[row['engine']]} log-probs are rounded to float16.",
    "decimals": lambda row: f"{OWNER[row['engine']]} log-probs are rounded to 4 decimals.",
    "duplicates": lambda row: (
        f"{share(row['value'])} of the rollouts with 16 trained tokens or more are copies of "
        "another, with the same tokens and log-probs."
    ),
}


def _shifted(row: Row) -> str:
    """Which engine is shifted by how many tokens, or only the relative shift if that is unknown."""
    by = f"{abs(row['value']):.0f} token{'s' * (abs(row['value']) > 1)}"
    late = row["value"] > 0
    if row["engine"] == "both":
        first, second = ("late", "early") if late else ("early", "late")
        return (
            f"The engines' log-probs may be {by} apart, the trainer's {first} or the rollout "
            f"engine's {second}"
        )
    return f"{OWNER[row['engine']]} log-probs may be {by} {'late' if late else 'early'}"


def _lower(row: Row) -> str:
    return OWNER[row["engine"]].replace("The", "the")


def _tail(tables: Tables) -> Iterator[Finding]:
    row, metrics = tables["tail"].row(0, named=True), tables["step_metrics"].row(0, named=True)
    mass, alpha, count = row["top1pct_ratio_mass"], row["hill_alpha_up"], row["hill_k"]
    few = 10 * count / metrics["trained_tokens"]  # of few tokens, the largest hold much anyway
    if mass is not None and mass >= max(DOMINATED, few):
        exponent = ""
        if alpha is not None and count >= FEWEST_IN_TAIL:
            error = number(1.96 * alpha / count**0.5)
            exponent = f" Hill's estimate of their tail exponent is {number(alpha)} ± {error}."
        yield Finding(
            "tail",
            f"A few tokens dominate averages of r here: the 1 % with the largest r ({count:,} of "
            f"{metrics['trained_tokens']:,}) hold {share(mass)} of its sum.{exponent}",
            matters=True,
        )
    if saturated := metrics["frac_saturated_seq"]:
        yield Finding(
            "step_metrics",
            f"In {share(saturated)} of the rollouts |sum of ln r| is 20 or more. verl, slime and "
            "SkyRL clip sequence weights there: clipped weights are all alike, and their ESS near "
            "1 is no good sign. TRL, AReaL and NeMo RL do not clip the product, which is below "
            "3e-9 or above 4e8.",
            matters=True,
        )


def _context_blindness(tables: Tables) -> Iterator[Finding]:
    by_engine = {row["engine"]: row for row in tables["context_blindness"].to_dicts()}
    if not by_engine:  # a capture without token ids
        return
    train, rollout = by_engine["train"], by_engine["rollout"]
    if train["r2_token_id"] is None or rollout["r2_token_id"] is None:
        return
    yield Finding(
        "context_blindness",
        f"The token alone explains {_explained(train)} of the variance of the trainer's log-prob "
        f"and {_explained(rollout)} of the rollout engine's; "
        f"{train['worse_than_uniform']:,} of {train['tokens']:,} tokens score worse than uniform "
        f"under the trainer (vocabulary {train['vocabulary']:,}, {train['vocabulary_from']}).",
        matters=train["r2_token_id"] > rollout["r2_token_id"] + 0.2
        or train["frac_worse_than_uniform"] > rollout["frac_worse_than_uniform"] + 0.01,
    )


def _explained(row: Row) -> str:
    """Corrected for the number of ids, the share of one that explains nothing scatters about 0."""
    return share(max(0.0, row["r2_token_id"]))


def _noise_floor(tables: Tables) -> Iterator[Finding]:
    for row in tables["noise_floor"].to_dicts():
        if row["positions"] >= FEWEST_PLACES:
            yield _noise(row)


def _noise(row: Row) -> Finding:
    """What the engines' scatter about themselves says of the gap; a cached prefix scatters less."""
    where = f"At {row['positions']:,} places where rollouts share their prefix"
    scatter = {name: row[f"{name}_std"] for name in ENGINE}
    for engine, other in (("rollout", "train"), ("train", "rollout")):
        if (row[f"share_{engine}"] or 0) < NOISY or scatter[engine] <= 5 * scatter[other]:
            continue
        return Finding(
            "noise_floor",
            f"{where}, the {ENGINE[engine]} differs from itself by {number(scatter[engine])} nats, "
            f"the {ENGINE[other]} by {number(scatter[other])}: {share(row[f'share_{engine}'])} of "
            f"the gap's square there is the {ENGINE[engine]}'s own noise.",
            matters=True,
        )
    if not any(scatter.values()):
        return Finding(
            "noise_floor",
            f"{where}, each engine repeats its own log-probs exactly; the gap between them there "
            f"is {number(row['abs_logp_diff_mean'])} nats. An engine that takes the prefix from a "
            "cache repeats itself in any case.",
            matters=False,
        )
    return Finding(
        "noise_floor",
        f"{where}, the rollout engine differs from itself by {number(scatter['rollout'])} nats and "
        f"the trainer by {number(scatter['train'])}, at least; the gap there is "
        f"{number(row['abs_logp_diff_mean'])} nats.",
        matters=False,
    )


def _contradictions(tables: Tables) -> Iterator[Finding]:
    row = tables["confident_contradictions"].row(0, named=True)
    if row["contradictions"]:
        yield Finding(
            "confident_contradictions",
            f"Of {row['confident']:,} tokens with p_rollout > 0.99, {row['contradictions']:,} have "
            f"p_train < 0.01; they carry {share(row['share_abs_logp_diff'])} of the total |ln r|.",
            matters=True,
        )


def notable(culprits: pl.DataFrame) -> pl.DataFrame:
    """The slices to tell of: believed, beyond what their probability explains, not tiny."""
    return culprits.filter(
        pl.col("survives")
        & (pl.col("lift_low") > NOTABLE)
        & (pl.col("lift_given_prob") > NOTABLE)
        & (pl.col("share_abs_logp_diff") >= WORTH_SAYING)
    )


def carries(row: Row) -> str:
    """What a slice carries of the gap with how many of the tokens."""
    return (
        f"{culprit(row)} carries {share(row['share_abs_logp_diff'])} of the total |ln r| with "
        f"{share(row['share_tokens'])} of the tokens"
    )


def _culprits(tables: Tables) -> Iterator[Finding]:
    table = tables["culprits"]
    for row in notable(table).head(3).to_dicts():
        yield Finding(
            "culprits",
            f"{carries(row)}, {number(row['lift_given_prob'])} times what the probability of its "
            f"tokens explains. Its lift, the one share over the other, is {number(row['lift'])} "
            f"(95 % interval {number(row['lift_low'])} to {number(row['lift_high'])}).",
            matters=True,
        )
    if len(table) and table["q_value"].is_null().all():
        text = (
            "Too few prompt groups hold enough of the gap to test which tokens carry more than "
            "their share."
        )
        yield Finding("culprits", text, matters=False)


def culprit(row: Row) -> str:
    """A slice in words: `Token ' the'`, `Position 16 to 63`, `In the prompt: no`."""
    name = repr(row["slice"]) if row["kind"] == "token" else row["slice"]
    colon = ":" * (row["kind"] == "in the prompt")
    return f"{row['kind'].capitalize()}{colon} {name}"


# What each needs: tables, and columns that those of older SQL lack.
DIAGNOSES: dict[Callable[[Tables], Iterator[Finding]], dict[str, set[str]]] = {
    _alignment: {"alignment": set(), "lag_scan": {"diff_t"}},
    nonfinite: {"step_metrics": {"masked_tokens"}},
    _contradictions: {"confident_contradictions": set()},
    _context_blindness: {"context_blindness": set()},
    _tail: {"tail": set(), "step_metrics": {"frac_saturated_seq"}},
    _culprits: {"culprits": {"lift_given_prob"}},
    _noise_floor: {"noise_floor": set()},
    row_match: {"row_match": set()},
    sampled: {"sampling": set(), "step_metrics": {"interval_t_of_r"}},
    whole_distributions: {"top_k_agreement": set()},
    replayed: {"sampling_replay": set()},
}
