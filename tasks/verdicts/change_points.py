"""Where a run's mismatch changed: change points of its headline numbers over steps.

One rule: a change must show in three ways. The best piecewise constant fit (`ruptures`) has it; the
level moves by several times what steps scatter on both sides, so that single spikes are none, and
by more than a quarter; and a steady drift does not fit as well. And as all headline numbers are of
the same log-ratios, one that only one of them shows is none.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from timtrack.tasks.messages.errors import BadCapture, printable
from timtrack.tasks.system.regular import opened

Array = NDArray[np.float64]

FEWEST = 8  # steps
SHORTEST = 3  # steps of a level
PENALTY = 3.0  # of a further change, times ln(steps), in variances of the noise
P_VALUE = 0.01
SCATTER = 4.0  # robust standard deviations that the level must move by
DRIFT = 0.8  # of the misfit of a line: a step must fit better than a steady drift
RELATIVE = 0.25  # part of the level that it must move by

# Of a diary beside a capture, which may be anything.
LONGEST_DIARY = 1 << 24  # bytes
LONGEST_EVENT = 200  # characters
LAST_STEP = 1 << 53

CHANGES = pl.Schema(
    {
        "run": pl.String(),
        "metric": pl.String(),
        "step": pl.Int64(),
        "step_low": pl.Int64(),
        "step_high": pl.Int64(),
        "before": pl.Float64(),
        "after": pl.Float64(),
        "p_value": pl.Float64(),
        "events": pl.String(),
    }
)


@dataclass(frozen=True)
class Change:
    """The index at which a new level begins, its 95 % range, medians on both sides.

    `p_value` is that of a Mann-Whitney test of both sides; the place was chosen before, so it says
    less than it seems to. Up to `limit` it is believed: of few steps, if the sides do not overlap.
    """

    at: int
    low: int
    high: int
    before: float
    after: float
    p_value: float
    limit: float


def changes(values: Sequence[float]) -> list[Change]:
    """Every change of a series, in order; none for fewer than FEWEST values."""
    series = np.asarray(values, dtype=np.float64)
    if len(series) < FEWEST or np.ptp(series) == 0:
        return []
    level = _scaled(series)
    places = _places(level)
    while True:
        edges = [0, *places, len(series)]
        candidates = [_change(series, level, *edges[i : i + 3]) for i in range(len(places))]
        rejected = [change for change in candidates if change.p_value > change.limit]
        if not rejected:
            return candidates
        # The least believable goes, and its neighbours are judged again without it.
        places.remove(max(rejected, key=lambda change: change.p_value).at)


def _scaled(values: Array) -> Array:
    """Numbers that span decades are compared by their logarithms."""
    positive = bool(np.all(values > 0))
    return np.log(values) if positive and values.max() > 3 * values.min() else values


def _places(level: Array) -> list[int]:
    """Where the best piecewise constant fit changes; single spikes are smoothed away before."""
    import ruptures
    from scipy.ndimage import median_filter

    noise = 1.4826 * np.median(np.abs(np.diff(level))) / np.sqrt(2)
    smooth = median_filter(level, 3, mode="nearest") / max(noise, 1e-6 * np.ptp(level))
    fit = ruptures.KernelCPD(kernel="linear", min_size=SHORTEST).fit(smooth[:, None])
    places = fit.predict(pen=PENALTY * np.log(len(level)))[:-1]
    return sorted({_sharpened(level, place) for place in places})


def _sharpened(level: Array, place: int) -> int:
    """Smoothing may move an edge by one step: the best place of the three around it."""
    near = range(max(SHORTEST, place - 1), min(len(level) - SHORTEST, place + 1) + 1)
    around = level[max(0, place - 2 * SHORTEST) : place + 2 * SHORTEST]
    start = max(0, place - 2 * SHORTEST)
    return min(near, key=lambda at: _misfit(around, at - start))


def _misfit(level: Array, at: int) -> float:
    """Sum of distances from the medians of both sides."""
    return float(sum(np.abs(side - np.median(side)).sum() for side in (level[:at], level[at:])))


def _bend(level: Array) -> float:
    """Sum of distances from a robust line (Theil, Sen); small for a steady drift."""
    from scipy.stats import theilslopes

    fit = theilslopes(level)
    return float(np.abs(level - fit.intercept - fit.slope * np.arange(len(level))).sum())


def _change(values: Array, level: Array, start: int, at: int, end: int) -> Change:
    """The change at a place between its neighbours; p-value 1 if there is no change."""
    from scipy.stats import mannwhitneyu

    sides = (level[start:at], level[at:end])
    before, after = float(np.median(values[start:at])), float(np.median(values[at:end]))
    residual = np.concatenate([side - np.median(side) for side in sides])
    scatter = 1.4826 * float(np.median(np.abs(residual)))
    distance = abs(float(np.median(sides[1]) - np.median(sides[0])))
    relative = abs(after - before) / max(min(abs(before), abs(after)), 1e-300)
    is_one = (
        distance > SCATTER * scatter
        and relative > RELATIVE
        and _misfit(level[start:end], at - start) < DRIFT * _bend(level[start:end])
    )
    p_value = float(mannwhitneyu(*sides).pvalue) if is_one else 1.0
    low, high = _range(level[start:end], at - start)
    limit = max(P_VALUE, 1.001 * 2 / comb(end - start, at - start))
    return Change(at, start + low, start + high, before, after, p_value, limit)


def _range(level: Array, at: int) -> tuple[int, int]:
    """Indices that fit nearly as well: squares within chi-square 3.84 of the best (95 %)."""
    count = len(level)
    places = range(1, count)
    rss = {i: sum(((s - np.median(s)) ** 2).sum() for s in (level[:i], level[i:])) for i in places}
    bound = rss[at] * np.exp(3.84 / count) + 1e-300
    near = [i for i in places if rss[i] <= bound]
    return min(near), max(near)


def of_runs(trend: pl.DataFrame, events: Mapping[str, Sequence[Mapping[str, Any]]]) -> pl.DataFrame:
    """The changes of every run and metric of `run_trend`, as CHANGES says.

    `step` is the first of the new level, `step_low` and `step_high` its 95 % range; `events` of the
    run that lie in that range, or at the step before it, are named.
    """
    rows = []
    by_series = trend.sort("step").group_by(["run", "metric"], maintain_order=True)
    for (run, metric), series in by_series:
        steps = series["step"].to_list()
        for change in changes(series["value"].to_list()):
            since, high = steps[change.low - 1], steps[change.high]
            run_events = [e for e in events.get(str(run), ()) if since <= e["step"] <= high]
            why = "; ".join(f"{e['step']}: {e['event']}" for e in run_events) or None
            where = (steps[change.at], steps[change.low], high)
            rows.append((run, metric, *where, change.before, change.after, change.p_value, why))
    return _corroborated(pl.DataFrame(rows, schema=CHANGES, orient="row"))


def _corroborated(found: pl.DataFrame) -> pl.DataFrame:
    """The changes in whose range another metric of the run changes too."""
    other = found.select("run", at="step", of="metric")
    shared = found.join(other, on="run").filter(
        (pl.col("metric") != pl.col("of")) & pl.col("at").is_between("step_low", "step_high")
    )
    return found.join(shared.select("run", "metric", "step"), ["run", "metric", "step"], "semi")


def events(source: Path) -> list[dict[str, Any]]:
    """The lines of an `events.jsonl` beside a capture or in its run's folder: step and event.

    Lines that are no such thing are left out: the file is somebody's diary.
    """
    for folder in (source.parent, source.parent.parent):
        if (text := _told(folder / "events.jsonl")) is not None:
            events = [event for line in text.splitlines() for event in _event(line)]
            return [dict(event) for event in dict.fromkeys(tuple(e.items()) for e in events)]
    return []


def _told(file: Path) -> str | None:
    """The first event of a diary, None if it cannot be read."""
    try:
        with opened(file) as diary:
            return diary.read(LONGEST_DIARY).decode(errors="backslashreplace")
    except (OSError, BadCapture):
        return None


def _event(line: str) -> Iterator[dict[str, Any]]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, an integer of thousands of digits, nested
        return
    step = event.get("step") if isinstance(event, dict) else None
    if type(step) is int and 0 <= step < LAST_STEP and "event" in event:
        yield {"step": step, "event": printable(str(event["event"])[:LONGEST_EVENT])}


def sentences(found: pl.DataFrame, trend: pl.DataFrame) -> list[str]:
    """One sentence a run: when it changed and in how many metrics, or why that is unknown."""
    lines = []
    for run in trend["run"].unique(maintain_order=True):
        count = trend.filter(pl.col("run") == run)["step"].n_unique()
        of_run = found.filter(pl.col("run") == run)
        if count < FEWEST:
            lines.append(f"{run}: {count} steps, too few to look for changes ({FEWEST} are needed)")
        elif of_run.is_empty():
            lines.append(f"{run}: no change over {count} steps")
        else:
            lines.append(f"{run}: {_onset(of_run)}")
    return lines


def _onset(of_run: pl.DataFrame) -> str:
    """The step at which most metrics change first."""
    counts = of_run.group_by("step").len().sort(["len", "step"], descending=[True, False])
    step, metrics = counts.row(0)
    rows = of_run.filter(pl.col("step") == step)
    low, high = rows["step_low"].min(), rows["step_high"].max()
    names = ", ".join(rows["metric"].sort().head(4))
    texts = rows["events"].drop_nulls()
    why = f"; events there: {texts[0]}" if len(texts) else ""
    more = f"; {len(counts) - 1} more change points" if len(counts) > 1 else ""
    where = f"changed at step {step} (95 %: {low!s} to {high!s})"
    return f"{where} in {metrics} metrics: {names}{why}{more}"
