"""What is timed: `python contestants.py NAME CAPTURE OUT` prints seconds, memory and size as JSON.

Interpreter start and imports are not counted. Memory is the process's own (anonymous) peak, of each
stage for itself.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from stopwatch import Stopwatch
from tally import ALIKE

FLOOR_SECONDS = 1.0  # the floor is so fast that one pass says little: its median over this long
Steps = Iterator[dict[str, int] | None]  # None when all is imported, then size of the tokens

# The tables with the numbers and plots of the script, but for the medians by position.
SAME = {
    *("token_moments", "quantile_places", "token_spread", "rank_correlation", "sequence_metrics"),
    *("worst_tokens", "ratio_histogram", "prob_diff_histogram", "logp_density"),
}


def timtrack(capture: Path, out: Path, watch: Stopwatch) -> Steps:
    """Load, Parquet, tables, charts, report, MLflow: every stage of the flow but Prefect itself."""
    import torch  # noqa: F401 - the reader imports it when it needs it

    from timtrack.tasks.captures.capture import identify, reading
    from timtrack.tasks.captures.source import Source
    from timtrack.tasks.lake.publish import write_step, write_tables
    from timtrack.tasks.reports import step_page
    from timtrack.tasks.reports.charts.export import save_charts
    from timtrack.tasks.reports.charts.step import draw_charts
    from timtrack.tasks.tables import frameworks, invariants
    from timtrack.tasks.tables.catalogue import sql_version, tables_named
    from timtrack.tasks.tables.compute import computed_tables
    from timtrack.tasks.tables.stored import stored_tables
    from timtrack.tasks.tracking.tracker import Tracker
    from timtrack.tasks.verdicts import summary
    from timtrack.tasks.verdicts.assessment import assess
    from timtrack.tasks.verdicts.bands import OURS
    from timtrack.tasks.verdicts.numbers import logged

    without, whatif = tables_wanted()
    yield None
    with watch.stage("identify (sha256)"):
        identified = identify(Source(capture))
    with watch.stage("load + Parquet"):
        step = write_step(out / "lake", identified, **reading(identified))
    size = (step.path / "tokens.parquet").stat().st_size
    yield {"bytes": size, "tokens": step.facts()["tokens"]}
    with watch.stage("tables"):
        computed = computed_tables(step, without)
        invariants.check(computed["step_metrics"].row(0, named=True))
    with watch.stage("what-if"):
        computed = computed_tables(step, whatif) | computed
    with watch.stage("tables"):
        write_tables(step, sql_version(), computed)
    with watch.stage(ALIKE):
        computed_tables(step, tables_named(" ".join(SAME)))
    files = out / "files"
    (files / "tables").mkdir(parents=True)
    with watch.stage("charts"):
        computed = stored_tables(step)
        drawn = draw_charts(computed)
        save_charts(drawn, files)
    with watch.stage("report"):
        assessment = assess(step.facts(), computed, OURS)
        step_page.write(step, computed, drawn, assessment, files)
        summary.write(step, assessment, files / "summary.json")
        for name, table in computed.items():
            table.write_csv(files / "tables" / f"{name}.csv")
    tracker = Tracker(out)
    with watch.stage("MLflow"):
        computed = stored_tables(step)
        numbers = {f"mismatch/{name}": value for name, value in logged(computed).items()}
        numbers |= frameworks.metrics(computed, ())
        tracker.log_step(step, numbers, files, sql_version())


def tables_wanted() -> tuple[set[str], set[str]]:
    """The tables of a step without, and of, the what-if: that is what needs row_weightings."""
    from timtrack.tasks.tables.catalogue import catalogue, tables_named

    of_step = [name for name, table in catalogue().items() if table.folder == "step"]
    whatif = {name for name in of_step if "row_weightings" in tables_named(name)}
    rest = set(of_step) - whatif
    return tables_named(" ".join(rest)), tables_named(" ".join(whatif))


def script(capture: Path, out: Path, watch: Stopwatch) -> Steps:
    """The straightforward script: pandas table, the same headline numbers, the same three plots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    import pandas as pd
    import torch

    yield None
    with watch.stage("load + Parquet"):
        batch = torch.load(capture, weights_only=True)
        mask = batch["response_mask"].bool().numpy()
        row, pos = np.nonzero(mask)
        table = pd.DataFrame(
            {
                "row": row,
                "pos": pos,
                "uid": np.array(batch["uid"])[row],
                "token_id": batch["responses"].numpy()[mask],
                "logp_rollout": batch["rollout_log_probs"].numpy()[mask],
                "logp_train": batch["old_log_probs"].numpy()[mask],
                "advantage": batch["advantages"].numpy()[mask],
            }
        )
        table.to_parquet(out / "tokens.parquet")
    with watch.stage("tables"):
        q, p = table.logp_rollout.astype("float64"), table.logp_train.astype("float64")
        d = p - q
        r = np.exp(d)
        numbers = {
            "kl_k1": -d.mean(),
            "kl_k3": (r - 1 - d).mean(),
            "quantiles": d.abs().quantile([0.5, 0.9, 0.99, 0.999]).tolist(),
            "max": d.abs().max(),
            "pearson_logp": q.corr(p),
            "pearson_prob": np.exp(q).corr(np.exp(p)),
            "spearman": q.corr(p, method="spearman"),
            "prob_diff": (np.exp(p) - np.exp(q)).abs().mean(),
            "outside": {c: (d.abs() > np.log(c)).mean() for c in (2, 3, 5, 10)},
            "low": {c: (d < -np.log(c)).mean() for c in (2, 3, 5, 10)},
            "high": {c: (d > np.log(c)).mean() for c in (2, 3, 5, 10)},
            "ratio_mean": r.mean(),
            "tv": (1 - r).clip(lower=0).mean(),
            "ess": r.sum() ** 2 / (len(r) * (r**2).sum()),
        }
        by_row = pd.DataFrame({"row": table.row, "k1": -d, "k3": r - 1 - d, "a": d.abs()})
        by_row.groupby("row").agg(["mean", "max"]).to_csv(out / "sequences.csv")
        by_pos = pd.DataFrame({"bin": table.pos // 32, "k1": -d, "a": d.abs()})
        position = by_pos.groupby("bin").agg({"k1": "mean", "a": "median"})
        table.assign(a=d.abs()).nlargest(100, "a").to_csv(out / "worst.csv")
        (out / "numbers.json").write_text(json.dumps(numbers, default=float))
    with watch.stage("charts"):
        figures = {
            "ratio": lambda ax: ax.hist(d / np.log(10), bins=260, range=(-10, 3)),
            "prob": lambda ax: ax.hist((np.exp(p) - np.exp(q)).abs(), bins=50),
            "density": lambda ax: ax.hist2d(q, p, bins=60),
            "position": lambda ax: ax.plot(position.index, position.k1),
        }
        for name, draw in figures.items():
            figure, ax = plt.subplots()
            draw(ax)
            figure.savefig(out / f"{name}.png", dpi=150)
            plt.close(figure)
    yield {"bytes": (out / "tokens.parquet").stat().st_size, "tokens": len(table)}


def floor(capture: Path, out: Path, watch: Stopwatch) -> Steps:
    """The least that must be done: read the captured columns, drop padding, write the bytes."""
    import torch  # noqa: F401 - so that its import is not counted

    yield None
    passes: list[float] = []
    while sum(passes) < FLOOR_SECONDS:
        began = time.perf_counter()
        with watch.stage("load + Parquet"):
            written = _floor_pass(capture, out / "raw.bin")
        passes.append(time.perf_counter() - began)
        (out / "raw.bin").unlink()
    watch.seconds["load + Parquet"] = statistics.median(passes)
    yield {"bytes": written[0], "tokens": written[1]}


def _floor_pass(capture: Path, to: Path) -> tuple[int, int]:
    """Bytes and tokens written."""
    import torch

    tokens, names = 0, ("responses", "rollout_log_probs", "old_log_probs", "advantages")
    batch = torch.load(capture, weights_only=True, mmap=True)
    with to.open("wb") as file:
        for start in range(0, len(batch["response_mask"]), 256):
            block = slice(start, start + 256)
            mask = batch["response_mask"][block].numpy() != 0
            tokens += int(mask.sum())
            for name in names:
                file.write(batch[name][block].numpy()[mask].tobytes())
        return file.tell(), tokens


CONTESTANTS = {"timtrack": timtrack, "script": script, "floor": floor}


def main(name: str, capture: str, out: str) -> None:
    watch = Stopwatch()
    steps = CONTESTANTS[name](Path(capture), Path(out), watch)
    next(steps)  # imports
    watch.begin()
    facts: dict[str, object] = {}
    try:
        for found in steps:
            facts |= found or {}
    except Exception as error:  # how far it came is a result, too
        del watch.seconds[watch.last]
        facts["failed"] = f"{watch.last}: {str(error).splitlines()[0]}"
    print(json.dumps({"seconds": watch.seconds, "peaks": watch.peaks, **facts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
