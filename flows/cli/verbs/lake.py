"""Verbs about the lake and the store: prune, fsck, ui."""

import os
import sys
from argparse import Namespace

from timtrack.flows.cli.exits import DONE, FAILED
from timtrack.flows.cli.printing import complain, say
from timtrack.tasks.messages import formatting


def prune(options: Namespace) -> int:
    """Delete token tables of old steps."""
    from timtrack.tasks.backlog import retention
    from timtrack.tasks.lake.publish import prune_tokens
    from timtrack.tasks.lake.steps import all_steps, prunable_bytes

    steps = [s for s in all_steps(options.home / "lake") if options.run in (None, s.run)]
    if options.keep_last:
        going = retention.all_but_last(steps, options.keep_last)
    else:
        going = retention.older_than(steps, options.older_than)
    going = [step for step in going if prunable_bytes(step)]  # not those pruned before
    sizes = [prunable_bytes(step) for step in going]
    for step, size in zip(going, sizes, strict=True):
        say(f"{step.name}: {formatting.size(size)}")
        if options.yes:
            prune_tokens(step)
    done = "deleted" if options.yes else "would be deleted (--yes does it)"
    say(
        f"token tables of {len(going)} of {len(steps)} steps, {formatting.size(sum(sizes))}, {done}"
    )
    return DONE


def fsck(options: Namespace) -> int:
    """Whether the lake's files are as they were written."""
    from timtrack.tasks.lake import integrity
    from timtrack.tasks.lake.steps import all_steps, step_faults

    steps = [s for s in all_steps(options.home / "lake") if options.run in (None, s.run)]
    faults = [fault for step in steps for fault in step_faults(step)]
    unknown = sum(not integrity.is_known(step.path) for step in steps)
    if unknown:
        say(f"{unknown} of {len(steps)} steps were written before digests were kept: not looked at")
    if faults:
        complain(f"{len(faults)} files are not as they were written:", *faults)
        return FAILED
    say(f"{len(steps) - unknown} steps, every file as it was written")
    return DONE


def ui(options: Namespace) -> int:
    """Serve MLflow over the logged runs."""
    from timtrack.tasks.tracking.store import local_store
    from timtrack.tasks.tracking.tracker import EXPERIMENT

    store = os.environ.get("MLFLOW_TRACKING_URI") or local_store(options.home)
    if store.startswith("http"):
        say(f"MLflow runs at {store}")
        return DONE
    say(
        f"MLflow on {store}, experiment {EXPERIMENT}: http://127.0.0.1:{options.port}/#/experiments"
    )
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # 12 processes fewer
    server = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    where = ["--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(options.port)]
    os.execv(sys.executable, [*server, *where])
