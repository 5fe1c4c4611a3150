"""The lab's answers as sentences and as rows of tables, for the page and the documents."""

import polars as pl

from tests.lab.answers import calibration, correlations, paired
from tests.lab.grid import CORRECTIONS, KINDS, MISMATCHES

Rows = list[tuple[str, ...]]


def tables(table: pl.DataFrame) -> dict[str, Rows]:
    """Every answer as the rows of a table, by name."""
    return {
        "kept": kept_rows(table),
        "correlations": correlation_rows(table),
        "calibration": calibration_rows(table),
        "paired": paired_rows(table),
        "warned": warned_rows(table),
    }


def answers(found: dict[str, Rows]) -> dict[str, list[str]]:
    """The same in sentences, by question."""
    return {
        "What predicts the reward": [
            f"{name}: rank correlation {within} between the settings within a mismatch, {together} "
            "over all mismatches together."
            for name, within, *_, together in found["correlations"]
        ],
        "Is the verdict calibrated": [_calibrated(*row) for row in found["calibration"]],
        "Reward above uncorrected": [f"{name}: {more}" for name, more, *_ in found["paired"]],
        "Early warnings": [
            f"{mismatch}: {fell} of {runs} fell back, {told} were warned of, {both} both."
            for mismatch, runs, fell, told, both in found["warned"]
        ],
    }


def _calibrated(verdict: str, runs: str, plain: str, advised: str, alp: str, best: str) -> str:
    return (
        f"{verdict[:1].upper()}{verdict[1:]} ({runs} runs): training works in {plain} uncorrected, "
        f"{advised} with what is recommended, {alp} with ALP, {best} with the best setting."
    )


def kept_rows(table: pl.DataFrame) -> Rows:
    """Mismatch by correction: the share of the clean run's gain that is kept, mean over seeds."""
    means = {
        (mismatch, correction): kept
        for mismatch, correction, kept in table.group_by("mismatch", "correction")
        .agg(pl.col("kept").mean())
        .iter_rows()
    }
    kl = dict(table.group_by("mismatch").agg(pl.col("kl_k3").mean()).iter_rows())
    return [
        (m, f"{kl[m]:.1e}", *(f"{means[m, c]:.0%}" for c in CORRECTIONS))
        for m in MISMATCHES
        if m in kl
    ]


def correlation_rows(table: pl.DataFrame) -> Rows:
    """What predicts the reward: by number of the simulator, rank correlations by kind."""
    found = correlations(table).items()
    return [(name, *(of[kind].text() for kind in (*KINDS, "together"))) for name, of in found]


def calibration_rows(table: pl.DataFrame) -> Rows:
    """What is said, and in how many runs training works."""
    return [
        (c.verdict, *map(str, (c.runs, c.plain, c.recommended, c.alp, c.best)))
        for c in calibration(table)
    ]


def paired_rows(table: pl.DataFrame) -> Rows:
    """By correction, the reward gained more than uncorrected, by kind."""
    found = paired(table).items()
    return [(name, *(of[kind].text("+.3f") for kind in KINDS)) for name, of in found]


FELL = 0.15  # reward_fall from which a run has fallen back


def warned_rows(table: pl.DataFrame) -> Rows:
    """Uncorrected runs by mismatch: how many fell back, were warned of, and both."""
    plain = table.filter(correction="none")
    fell, told = pl.col("reward_fall") >= FELL, pl.col("warned_at").is_not_null()
    counted = plain.group_by("mismatch", maintain_order=True).agg(
        runs=pl.len(), fell=fell.sum(), warned=told.sum(), both=(fell & told).sum()
    )
    rows = {row[0]: (row[0], *map(str, row[1:])) for row in counted.iter_rows()}
    return [rows[m] for m in MISMATCHES if m in rows]
