"""Verbs about the lake and the store: prune, fsck, ui."""

import os
import socket
import subprocess
import sys
import webbrowser
from argparse import Namespace
from typing import TYPE_CHECKING

from timtrack.flows.cli.exits import DONE, FAILED, fail
from timtrack.flows.cli.printing import as_json, complain, say
from timtrack.tasks.messages import formatting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from timtrack.tasks.lake.steps import Step


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
    freed = [(step, prunable_bytes(step)) for step in going]
    if options.yes:
        for step in going:
            prune_tokens(step)
    if options.format == "json":
        told = [{"run": step.run, "step": step.step, "bytes": size} for step, size in freed]
        as_json({"deleted": options.yes, "of_steps": len(steps), "steps": told})
    else:
        _tell_pruned(freed, len(steps), options.yes)
    return DONE


def _tell_pruned(freed: "Sequence[tuple[Step, int]]", of: int, is_done: bool) -> None:
    for step, size in freed:
        say(f"{step.name}: {formatting.size(size)}")
    done = "deleted" if is_done else "would be deleted (--yes does it)"
    total = formatting.size(sum(size for _, size in freed))
    say(f"token tables of {len(freed)} of {of} steps, {total}, {done}")


def fsck(options: Namespace) -> int:
    """Whether the lake's files are as they were written."""
    from timtrack.tasks.lake import integrity
    from timtrack.tasks.lake.steps import all_steps, step_faults

    steps = [s for s in all_steps(options.home / "lake") if options.run in (None, s.run)]
    faults = [fault for step in steps for fault in step_faults(step)]
    unknown = sum(not integrity.is_known(step.path) for step in steps)
    if options.format == "json":
        as_json({"steps": len(steps), "without_digests": unknown, "faults": faults})
        return FAILED if faults else DONE
    if unknown:
        say(f"{unknown} of {len(steps)} steps were written before digests were kept: not looked at")
    if faults:
        complain(f"{len(faults)} files are not as they were written:", *faults)
        return FAILED
    say(f"{len(steps) - unknown} steps, every file as it was written")
    return DONE


def ui(options: Namespace) -> int:
    """Serve MLflow over the logged runs."""
    server = f"http://127.0.0.1:{options.port}"
    running = os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")
    if not running and not _is_free(options.port):
        return fail(f"port {options.port} is taken; choose another with --port")
    if not running:
        say("starting MLflow")
    from timtrack.tasks.tracking.tracker import Tracker

    tracker = Tracker(options.home)
    path = tracker.overview()
    if running:
        say(f"{tracker.server}{path}")
        if options.open:
            webbrowser.open(f"{tracker.server}{path}")
        return DONE
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # 12 processes fewer
    told = [sys.executable, "-m", "timtrack.flows.cli.announce", server, path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.Popen([*told, *(["open"] if options.open else [])], env=environment)
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    where = ["--backend-store-uri", tracker.uri, "--host", "127.0.0.1", "--port", str(options.port)]
    os.execv(sys.executable, [*command, *where])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
