"""Verbs that take captures in, and look after the lake."""

import argparse
from pathlib import Path
from typing import Any

from timtrack.flows.cli.options.referee import add_watching_referee
from timtrack.flows.cli.options.shared import (
    add_alerts,
    add_columns,
    add_format,
    below,
    complete,
    named,
    running,
)
from timtrack.flows.cli.options.types import checked, correction, positive
from timtrack.tasks.hooks.written import FRAMEWORKS, GENERIC

SHELLS = ("bash", "zsh", "fish")


def add(verbs: Any) -> None:
    """Add them, the most wanted first."""
    _demo(verbs)
    _ingest(verbs)
    _watch(verbs)
    _serve(verbs)
    _prune(verbs)
    fsck = verbs.add("fsck", "verify the checksums of all files in the lake", "", "--run my-run")
    fsck.add_argument("--run", help="only this run (default: all)")
    add_format(fsck)
    export = verbs.add(
        "export",
        "a DuckDB file with every table as a view, for any tool",
        "",
        "lake.duckdb",
    )
    export.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        type=Path,
        help="default: timtrack.duckdb in the home",
    )
    hook = verbs.add(
        "hook",
        "print the capture hook for a trainer: one file that needs only torch",
        "verl-v1 > timtrack_hook.py",
        "trl > timtrack_hook.py",
        "> timtrack_hook.py",
    )
    hook.add_argument(
        "framework",
        nargs="?",
        choices=(*FRAMEWORKS, GENERIC),
        default=GENERIC,
        help="what it hooks into; the file begins with how to switch it on (default: %(default)s, "
        "`save_step_batch` to be called by a trainer)",
    )
    verbs.add("deployment", "print prefect.yaml, for `prefect deploy --all`", "> prefect.yaml")
    completion = verbs.add(
        "completion",
        "print what completes verbs and options in a shell",
        "bash > ~/.local/share/bash-completion/completions/tim",
        "zsh > ~/.zfunc/_tim",
        "fish > ~/.config/fish/completions/tim.fish",
    )
    completion.add_argument("shell", choices=SHELLS)


def _demo(verbs: Any) -> None:
    demo = verbs.add(
        "demo",
        "analyse the published tokens of a real run, then two toy runs while they train",
        "",
        "--steps 5 --codec rank8",
        "--codec rank16 --correction tis:2",
    )
    demo.add_argument(
        "--steps",
        type=positive,
        default=20,
        help="GRPO steps of each toy run (default: %(default)s)",
    )
    demo.add_argument(
        "--codec",
        choices=("off", "rank16", "rank8", "codec", "scoring"),
        default="codec",
        help="codec of the second toy run; the first has none (default: %(default)s)",
    )
    demo.add_argument(
        "--correction",
        metavar="NAME:NUMBERS",
        type=checked(correction),
        help="train a third run like the second, with this correction: tis:2, icepop:0.5,5, ..., "
        "alp (adaptive layerwise perturbation), or recommended: at each step what timtrack advises",
    )
    demo.add_argument(
        "--latency",
        type=positive,
        default=5,
        help="age of the weights that the codec's anchor gradient is computed with, in steps "
        "(default: %(default)s)",
    )
    demo.add_argument(
        "--seed", type=int, default=0, help="seed of the toy runs (default: %(default)s)"
    )


def _ingest(verbs: Any) -> None:
    ingest = verbs.add(
        "ingest",
        "analyse captures: files, or directories of them",
        "step_batch.pt --run my-run --step 20",
        "/checkpoints/my-run",
        parents=[running()],
    )
    ingest.add_argument("paths", metavar="PATH", nargs="+", type=Path)
    ingest.add_argument(
        "--run", help="name of the training run (default: from the file, else from its path)"
    )
    ingest.add_argument(
        "--step", type=int, help="training step; only for a single capture (default: the file's)"
    )
    ingest.add_argument(
        "--tokenizer", type=Path, help="tokenizer.json (default: the one beside the capture)"
    )
    add_columns(ingest)
    add_format(ingest)


def _watch(verbs: Any) -> None:
    watch = verbs.add(
        "watch",
        "analyse captures below a directory as they appear",
        "/checkpoints",
        "/dumps --pattern '{run}/dump_{step}.pt' --once",
        parents=[below(), named(), complete(), running()],
    )
    how = watch.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="run until interrupted (default)")
    how.add_argument("--once", action="store_true", help="analyse what is there, then exit")
    _add_sweeps(watch)
    add_format(watch)
    watch.add_argument(
        "--every", type=float, default=2.0, help="seconds between scans (default: %(default)g)"
    )


def _add_sweeps(verb: argparse.ArgumentParser) -> None:
    """What a sweep does beyond finding captures."""
    add_alerts(verb)
    add_watching_referee(verb)
    add_columns(verb)


def _serve(verbs: Any) -> None:
    serve = verbs.add(
        "serve",
        "`tim watch` as a Prefect deployment that needs no worker",
        "/checkpoints --every 300",
        parents=[below(), named(), complete(), running()],
    )
    _add_sweeps(serve)
    serve.add_argument(
        "--every", type=float, default=60.0, help="seconds between sweeps (default: %(default)g)"
    )


def _prune(verbs: Any) -> None:
    prune = verbs.add(
        "prune",
        "delete the token tables of old steps; metrics stay",
        "--keep-last 50",
        "--older-than 30 --yes",
    )
    which = prune.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--keep-last", type=positive, metavar="N", help="keep the last N steps of each run"
    )
    which.add_argument(
        "--older-than", type=float, metavar="DAYS", help="steps captured more than DAYS days ago"
    )
    prune.add_argument("--run", help="only this run (default: all)")
    prune.add_argument(
        "--yes", action="store_true", help="delete; without it, only list what would be deleted"
    )
    add_format(prune)
