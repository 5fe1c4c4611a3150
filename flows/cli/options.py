"""Verbs and options of `tim`."""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from timtrack.flows.cli.argument_types import checked, positive, share, step_range
from timtrack.flows.cli.referee_options import add_referee, add_watching_referee
from timtrack.flows.cli.shared_options import (
    add_alerts,
    add_columns,
    below,
    complete,
    named,
    running,
)
from timtrack.flows.settings import default_home
from timtrack.tasks.messages.errors import printable

EXAMPLES = """\
examples:
  tim ingest step_batch.pt --run my-run --step 20
  tim ingest /checkpoints/my-run
  tim watch /checkpoints
  tim sql "select step, kl_k1, frac_outside_5 from step_metrics"
  tim whatif my-run 20 --correction tis:3
  tim show my-run 20 --row 833 --around 39
  tim referee my-run 20 --model /checkpoints/my-run/step_20
  tim tables step_metrics
  tim ui
"""


class _Parser(argparse.ArgumentParser):
    """Report a usage error in one line: the argument may be a file name that a shell expanded."""

    def error(self, message: str) -> NoReturn:
        """Tell and leave, as the original does."""
        super().error(printable(message))


def parser() -> argparse.ArgumentParser:
    """The parser of `tim`; `verb` in what it gives is the verb's name."""
    tim: argparse.ArgumentParser = _Parser(
        prog="tim",
        description="Track train-inference mismatch, token by token.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tim.add_argument(
        "--home",
        type=Path,
        default=default_home(),
        help="directory of lake and local MLflow store (default: $TIMTRACK_HOME or ./timtrack)",
    )
    tim.add_argument("--version", action="version", version=f"timtrack {version('timtrack')}")
    verbs = tim.add_subparsers(title="verbs", metavar="VERB", dest="verb")

    ingest = verbs.add_parser(
        "ingest", parents=[running()], help="analyse captures: files, or directories of them"
    )
    ingest.add_argument("paths", metavar="PATH", nargs="+", type=Path)
    ingest.add_argument(
        "--run", help="name of the training run (default: from the file, else from its path)"
    )
    ingest.add_argument("--step", type=int, help="training step; only for a single capture")
    ingest.add_argument(
        "--tokenizer", type=Path, help="tokenizer.json (default: the one beside the capture)"
    )

    watch = verbs.add_parser(
        "watch",
        parents=[below(), named(), complete(), running()],
        help="analyse captures below a directory as they appear",
    )
    how = watch.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="run until interrupted (default)")
    how.add_argument("--once", action="store_true", help="analyse what is there, then exit")
    add_alerts(watch)
    add_watching_referee(watch)
    for verb in (ingest, watch):
        add_columns(verb)
    watch.add_argument(
        "--every", type=float, default=2.0, help="seconds between scans (default: %(default)g)"
    )

    status = verbs.add_parser(
        "status",
        parents=[below(), named()],
        help="captures found, analysed, pending and quarantined; status of the runs",
    )
    status.add_argument("--json", action="store_true")
    add_columns(status)

    serve = verbs.add_parser(
        "serve",
        parents=[below(), named(), complete(), running()],
        help="the same as a Prefect deployment that needs no worker",
    )
    add_alerts(serve)
    add_columns(serve)
    serve.add_argument(
        "--every", type=float, default=60.0, help="seconds between sweeps (default: %(default)g)"
    )

    prune = verbs.add_parser("prune", help="delete the token tables of old steps; metrics stay")
    which = prune.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--keep-last", type=positive, metavar="N", help="keep the last N steps of each run"
    )
    which.add_argument(
        "--older-than", type=float, metavar="DAYS", help="steps captured more than DAYS days ago"
    )
    prune.add_argument("--run", help="only this run")
    prune.add_argument(
        "--yes", action="store_true", help="delete; without it, only list what would be deleted"
    )

    fsck = verbs.add_parser("fsck", help="verify the checksums of all files in the lake")
    fsck.add_argument("--run", help="only this run")

    sql = verbs.add_parser("sql", help="query everything in the lake with DuckDB")
    sql.add_argument("query", help="a SELECT over the tables that `tim tables` lists")
    sql.add_argument(
        "--format",
        choices=("table", "csv", "json"),
        default="table",
        help="csv and json have all digits and unescaped text (default: %(default)s)",
    )
    sql.add_argument(
        "--allow-files",
        action="store_true",
        help="allow everything DuckDB can do: read and write any file, ATTACH, INSTALL",
    )

    whatif = verbs.add_parser(
        "whatif", help="what corrections (TIS, IcePop, masks, ...) would do to a step"
    )
    whatif.add_argument("what", metavar="CAPTURE|RUN", help="a capture file, or a run in the lake")
    whatif.add_argument("step", metavar="STEP", nargs="?", type=int, help="default: the latest")
    whatif.add_argument(
        "--correction",
        metavar="NAME:NUMBERS",
        action="append",
        default=[],
        help="one more setting, such as tis:3 or icepop:0.3,4 (repeatable)",
    )
    whatif.add_argument("--format", choices=("table", "csv", "json"), default="table")
    add_columns(whatif)

    diagnose = verbs.add_parser("diagnose", help="what causes a step's mismatch, and how to fix it")
    diagnose.add_argument(
        "what", metavar="CAPTURE|RUN", help="a capture file, or a run in the lake"
    )
    diagnose.add_argument("step", metavar="STEP", nargs="?", type=int, help="default: the latest")
    diagnose.add_argument("--json", action="store_true")
    add_columns(diagnose)

    add_referee(verbs)
    _about_a_step(verbs)
    _about_runs(verbs)

    verbs.add_parser("formats", help="capture formats, and how to have your framework write them")
    verbs.add_parser("deployment", help="print prefect.yaml, for `prefect deploy --all`")
    verbs.add_parser(
        "hook", help="print the capture hook for trainers: one file that needs only torch"
    )
    inspect = verbs.add_parser(
        "inspect", help="what a file is: format, run, step, fields, and what is missing"
    )
    inspect.add_argument("file", metavar="FILE", type=Path)
    add_columns(inspect)

    tables = verbs.add_parser("tables", help="list the tables, or the columns of one")
    tables.add_argument("name", nargs="?")

    ui = verbs.add_parser("ui", help="serve the MLflow UI on what was logged")
    ui.add_argument("--port", type=int, default=5000)

    demo = verbs.add_parser(
        "demo",
        help="analyse the published tokens of a real run, then two toy runs while they train",
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
    demo.add_argument("--seed", type=int, default=0)
    return tim


def _about_a_step(verbs: Any) -> None:
    """Verbs that show one step, of a capture's file or of a run in the lake."""
    placed = argparse.ArgumentParser(add_help=False)
    placed.add_argument("what", metavar="CAPTURE|RUN", help="a capture file, or a run in the lake")
    placed.add_argument("step", metavar="STEP", nargs="?", type=int, help="default: the latest")
    add_columns(placed)

    report = verbs.add_parser("report", parents=[placed], help="write the report of a step")
    report.add_argument("-o", "--output", type=Path, help="default: <run>-step-<n>.html")
    report.add_argument("--open", action="store_true", help="open it in the browser")
    report.add_argument(
        "--pick",
        choices=("worst", "spread", "random", "median", "first"),
        default="worst",
        help="which prompts to sample, by mean |ln r| (default: %(default)s)",
    )
    report.add_argument(
        "--groups", type=positive, default=4, help="number of prompts (default: %(default)s)"
    )
    report.add_argument(
        "--per-group", type=positive, default=2, help="sequences per prompt (default: %(default)s)"
    )
    report.add_argument("--seed", type=int, default=0, help="seed of --pick random")

    show = verbs.add_parser(
        "show", parents=[placed], help="the tokens of one sequence, in the terminal"
    )
    show.add_argument("--row", type=int, required=True, help="index of the sequence in the batch")
    show.add_argument(
        "--around", type=int, metavar="POS", help="show the tokens around this position"
    )

    repro = verbs.add_parser(
        "repro", parents=[placed], help="one sequence as a zip file for a bug report"
    )
    repro.add_argument("--row", type=int, required=True, help="index of the sequence in the batch")
    repro.add_argument("-o", "--output", type=Path, help="default: <run>-step-<n>-row-<row>.zip")
    repro.add_argument(
        "--rescore", action="store_true", help="with what `tim referee` needs to score it again"
    )


def _about_runs(verbs: Any) -> None:
    """Verbs that hold runs against limits, or against each other."""
    between = argparse.ArgumentParser(add_help=False)
    between.add_argument(
        "--steps",
        type=checked(step_range),
        default=(None, None),
        metavar="A:B",
        help="only these steps, inclusive; A or B may be omitted (default: all)",
    )

    listed = verbs.add_parser("runs", help="the runs of the home: what `tim` alone shows")
    listed.add_argument("--format", choices=("table", "csv", "json"), default="table")

    compare = verbs.add_parser(
        "compare", parents=[between], help="compare runs over their steps, as one page"
    )
    compare.add_argument("runs", metavar="RUN", nargs="+")
    compare.add_argument("--baseline", metavar="RUN", help="the run to compare the others with")
    compare.add_argument(
        "-o", "--output", type=Path, default=Path("comparison.html"), help="default: %(default)s"
    )

    diff = verbs.add_parser("diff", help="compare two steps token by token where they share tokens")
    diff.add_argument("run", metavar="RUN")
    diff.add_argument("other", metavar="OTHER")
    diff.add_argument(
        "--step", type=int, help="step of both runs (default: the latest that both have)"
    )
    diff.add_argument("--other-step", type=int, help="step of OTHER, if different")

    certify = verbs.add_parser(
        "certify", help="check that both engines are bit-equal; exit code 0 yes, 1 no, 2 unknown"
    )
    certify.add_argument("run", metavar="RUN")
    certify.add_argument("step", metavar="STEP", nargs="?", type=int, help="default: the latest")
    certify.add_argument("--all", action="store_true", help="every step: which was unequal first")
    certify.add_argument("--json", action="store_true")
    _about_a_gate(verbs, between)


def _about_a_gate(verbs: Any, between: argparse.ArgumentParser) -> None:
    """The verb that holds a run to rules."""
    gate = verbs.add_parser(
        "gate",
        parents=[between],
        help="check a run against rules; exit code 0 pass, 1 fail, 2 undecidable",
    )
    gate.add_argument("run", metavar="RUN")
    gate.add_argument(
        "--rule",
        action="append",
        default=[],
        help="such as 'kl_k3 < 0.01' (every step), 'mean(kl_k3) < 0.01', 'frac_outside_5 < 1%%'",
    )
    gate.add_argument("--preset", action="append", default=[], help="a framework's own rules")
    gate.add_argument(
        "--baseline",
        metavar="RUN",
        help="a run whose means this one must not exceed by more than --max-rise",
    )
    gate.add_argument(
        "--max-rise",
        type=checked(share),
        default=0.5,
        metavar="SHARE",
        help="allowed rise of the means over the baseline, such as 50%% (default)",
    )
    gate.add_argument(
        "--bit-equal",
        action="store_true",
        help="also judge steps whose log-probs are bit-identical: the engines are built to be",
    )
    gate.add_argument("--junit", type=Path, metavar="FILE", help="write the result as JUnit XML")
    gate.add_argument(
        "--summary",
        type=Path,
        metavar="FILE",
        help="append the result as Markdown (default: $GITHUB_STEP_SUMMARY)",
    )
