"""What is timed: `python contestants.py NAME CAPTURE OUT` prints seconds and peak memory as JSON.

Interpreter start and imports are not counted. Memory is the process's own (anonymous) peak.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path


def timtrack(capture: Path, out: Path, timed: Callable) -> None:
    """Load, Parquet, tables, charts, MLflow: every stage of the flow but Prefect itself."""
    import torch  # noqa: F401 - the reader imports it when it needs it

    from tasks import captures, charts, lake, summary, tables, tracking

    yield
    with timed("identify (sha256)"):
        identified = captures.identify(capture)
    with timed("load + Parquet"):
        step = lake.write_step(out / "lake", identified, captures.read(capture))
    with timed("tables"):
        lake.write_tables(step, tables.version(), tables.compute(step))
    files = out / "files"
    files.mkdir()
    with timed("charts"):
        charts.save(charts.draw(tables.stored(step)), files)
    tracker = tracking.Tracker(out)
    with timed("MLflow"):
        numbers = summary.metrics(tables.stored(step))
        tracker.log_step(step, numbers, files, tables.version())


def script(capture: Path, out: Path, timed: Callable) -> None:
    """The straightforward script: pandas table, the same headline numbers, the same three plots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    import pandas as pd
    import torch

    yield
    with timed("load + Parquet"):
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
    with timed("tables"):
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
    with timed("charts"):
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


def floor(capture: Path, out: Path, timed: Callable) -> None:
    """The least that must be done: read the captured columns, drop padding, write the bytes."""
    import torch

    yield
    names = ("responses", "rollout_log_probs", "old_log_probs", "advantages")
    with timed("load + Parquet"):
        batch = torch.load(capture, weights_only=True, mmap=True)
        with (out / "raw.bin").open("wb") as file:
            for start in range(0, len(batch["response_mask"]), 256):
                block = slice(start, start + 256)
                mask = batch["response_mask"][block].numpy() != 0
                for name in names:
                    file.write(batch[name][block].numpy()[mask].tobytes())


CONTESTANTS = {"timtrack": timtrack, "script": script, "floor": floor}


class AnonymousPeak(threading.Thread):
    """Samples the process's own memory; file pages that are mapped do not count."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.005):
            status = Path("/proc/self/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            self.bytes = max(self.bytes, int(line.split()[1]) * 1024)


def main(name: str, capture: str, out: str) -> None:
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(stage: str):
        started = time.perf_counter()
        yield
        seconds[stage] = time.perf_counter() - started

    contestant = CONTESTANTS[name](Path(capture), Path(out), timed)
    next(contestant)  # imports
    peak = AnonymousPeak()
    peak.start()
    next(contestant, None)
    peak.done.set()
    print(json.dumps({"seconds": seconds, "peak": peak.bytes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
