"""Faults of a capture that `alignment` does not see: missing log-probs, rows or engines swapped."""

from collections.abc import Iterator

from timtrack.tasks.messages.formatting import number, share
from timtrack.tasks.verdicts import sampling
from timtrack.tasks.verdicts.finding import ENGINE, Finding, Tables

NONFINITE = 1e-3  # part of the tokens under the mask from which one without a log-prob matters


def nonfinite(tables: Tables) -> Iterator[Finding]:
    """Tokens under the mask without a log-prob."""
    row = tables["step_metrics"].row(0, named=True)
    for engine, name in ENGINE.items():
        missing = row[f"nonfinite_{engine}"]
        part = missing / row["masked_tokens"]
        if part > NONFINITE:
            yield Finding(
                "step_metrics",
                f"{missing:,} of {row['masked_tokens']:,} tokens under the mask ({share(part)}) "
                f"have no finite log-prob by the {name}: they are in none of these numbers, and "
                "may be the worst.",
                matters=True,
                of_capture=True,
            )


def row_match(tables: Tables) -> Iterator[Finding]:
    """Rows of the two engines that were joined wrongly."""
    for row in tables["row_match"].to_dicts():
        if row["misplaced"] < FEWEST_MISPLACED:
            continue
        step = row["shift"]
        where = f", most of them the row {step:+d} from theirs" if step else ""
        text = (
            f"In {row['misplaced']} of {row['rows']} rows the trainer's log-probs follow those "
            f"that the rollout engine gave another row{where} (median correlation "
            f"{number(row['r_other'])} over their first trained tokens, {number(row['r_own'])} "
            "with their own), although the tokens are others: rows of the two engines may be "
            "joined wrongly."
        )
        yield Finding("row_match", text, matters=True, of_capture=True)


FEWEST_MISPLACED = 2  # rows: two that were swapped


def sampled(tables: Tables) -> Iterator[Finding]:
    """Engines exchanged, or log-probs in another base, by the tokens that were sampled."""
    metrics = tables["step_metrics"].row(0, named=True)
    is_r_bounded = metrics["interval_t_of_r"] is not None
    for text in sampling.sentences(tables["sampling"].to_dicts(), is_r_bounded):
        yield Finding("sampling", text, matters=True, of_capture=True)
