"""A backfill over Dask workers: `python backfill.py CAPTURE COUNT OUT` prints JSON.

COUNT captures alike go into a lake by 1, 2 and 4 workers of a real cluster on this machine, each of
one thread, by what the flow hands to its task runner; then by `tim ingest`'s flow on two workers,
with Prefect and MLflow. Workers have imported before the clock runs.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import torch
from distributed import Client, LocalCluster
from prefect.testing.utilities import prefect_test_harness

WORKERS = (1, 2, 4)


def copies(capture: Path, count: int, root: Path) -> list[Path]:
    """Captures of the same size, no two alike."""
    batch = torch.load(capture, weights_only=True)
    files = [root / f"step_{step}" / "step_batch.pt" for step in range(1, count + 1)]
    for step, file in enumerate(files, 1):
        file.parent.mkdir(parents=True)
        batch["old_log_probs"] *= 1 + 1e-4
        torch.save({**batch, "global_step": step}, file)
    return files


def analysed(file: Path, home: Path) -> str:
    """What a worker does with a capture: into the lake, tables, charts, report."""
    from timtrack.tasks.captures.capture import identify, reading
    from timtrack.tasks.captures.source import Source
    from timtrack.tasks.lake.publish import write_step, write_tables
    from timtrack.tasks.pipeline import stages
    from timtrack.tasks.tables.catalogue import sql_version
    from timtrack.tasks.tables.compute import compute_step
    from timtrack.tasks.verdicts.bands import OURS

    identified = identify(Source(file), run="backfill")
    step = write_step(home / "lake", identified, **reading(identified))
    write_tables(step, sql_version(), compute_step(step))
    stages.draw_step(step, home / f"files-{step.step}", OURS)
    return step.name


def by_dask(files: list[Path], home: Path, workers: int) -> float:
    """Seconds of all captures."""
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        warm = home.with_name(f"{home.name}-warm")
        one_each = dict(zip(client.scheduler_info()["workers"], files, strict=False))
        client.gather(
            [
                client.submit(analysed, f, warm / str(i), workers=[w])
                for i, (w, f) in enumerate(one_each.items())
            ]
        )
        began = time.monotonic()
        client.gather(client.map(analysed, files, home=home))
        return time.monotonic() - began


def by_flow(files: list[Path], home: Path) -> float:
    """Seconds of the flow, the server and the cluster running."""
    from timtrack.flows import execution
    from timtrack.flows.analyse import analyse

    flow = execution.as_flow(analyse, "dask:2")
    flow(files[:1], home, run="backfill")
    began = time.monotonic()
    flow(files[1:], home, run="backfill")
    return (time.monotonic() - began) * len(files) / (len(files) - 1)


def main() -> None:
    capture, count, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    files = copies(capture, count, out / "captures")
    measured = {str(n): by_dask(files, out / f"lake-{n}", n) for n in WORKERS}
    with prefect_test_harness(server_startup_timeout=180):
        measured["flow"] = by_flow(files, out / "flow")
    shutil.rmtree(out / "captures")
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
