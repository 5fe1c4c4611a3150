"""What the `tim` command understands: verbs and their options."""

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

from timtrack.flows.cli.argument_types import checked, positive, share, step_range
from timtrack.flows.cli.shared_options import (
    add_alerts,
    add_columns,
    below,
    complete,
    named,
    running,
)
from timtrack.tasks.messages.errors import printable

EXAMPLES = """\
examples:
  tim ingest step_batch.pt --run my-run --step 20
  tim ingest /checkpoints/my-run
  tim watch /checkpoints
  tim sql "select step, kl_k1, frac_outside_5 from step_metrics"
  tim whatif my-run 20 --correction tis:3
  tim show my-run 20 --row 833 --around 39
  tim tables step_metrics
  tim ui
"""


class _Parser(argparse.ArgumentParser):
    """What is not understood may be a file's name that a shell put there: told in one line."""

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
        default=Path(os.environ.get("TIMTRACK_HOME", "timtrack")),
        help="folder of lake and local MLflow store (default: $TIMTRACK_HOME or ./timtrack)",
    )
    verbs = tim.add_subparsers(title="verbs", metavar="VERB", required=True, dest="verb")

    ingest = verbs.add_parser(
        "ingest", parents=[running()], help="analyse captures: files, or folders of them"
    )
    ingest.add_argument("paths", metavar="PATH", nargs="+", type=Path)
    ingest.add_argument(
        "--run", help="name of the training run (default: the file's, else its folder's)"
    )
    ingest.add_argument("--step", type=int, help="training step, of a single capture")
    ingest.add_argument(
        "--tokenizer", type=Path, help="tokenizer.json (default: one beside the capture)"
    )

    watch = verbs.add_parser(
        "watch",
        parents=[below(), named(), complete(), running()],
        help="analyse captures below a folder as they appear",
    )
    how = watch.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="go on until interrupted (the default)")
    how.add_argument("--once", action="store_true", help="analyse what is there, then stop")
    add_alerts(watch)
    for verb in (ingest, watch):
        add_columns(verb)
    watch.add_argument("--every", type=float, default=2.0, help="seconds between looks")

    status = verbs.add_parser(
        "status", parents=[below(), named()], help="captures found, analysed, pending, set aside"
    )
    status.add_argument("--json", action="store_true")
    add_columns(status)

    serve = verbs.add_parser(
        "serve",
        parents=[below(), named(), complete(), running()],
        help="the same as a Prefect deployment, without a worker",
    )
    add_alerts(serve)
    add_columns(serve)
    serve.add_argument("--every", type=float, default=60.0, help="seconds between sweeps")

    prune = verbs.add_parser("prune", help="delete token tables of old steps, keep their metrics")
    which = prune.add_mutually_exclusive_group(required=True)
    which.add_argument("--keep-last", type=positive, metavar="N", help="steps of each run to keep")
    which.add_argument("--older-than", type=float, metavar="DAYS", help="by the capture's time")
    prune.add_argument("--run", help="of this run only")
    prune.add_argument("--yes", action="store_true", help="do it; without, only say what would go")

    fsck = verbs.add_parser("fsck", help="whether the lake's files are as they were written")
    fsck.add_argument("--run", help="of this run only")

    sql = verbs.add_parser("sql", help="ask DuckDB about everything in the lake")
    sql.add_argument("query", help="SQL over the tables that `tim tables` lists")
    sql.add_argument(
        "--format",
        choices=("table", "csv", "json"),
        default="table",
        help="csv and json: all digits, and text as it is, for programs (default: table)",
    )
    sql.add_argument(
        "--allow-files",
        action="store_true",
        help="let the query do all that DuckDB can: read and write any file, attach, install",
    )

    whatif = verbs.add_parser(
        "whatif", help="what corrections (TIS, IcePop, masks, ...) would do to a step"
    )
    whatif.add_argument(
        "what", metavar="CAPTURE|RUN", help="a capture's file, or a run in the lake"
    )
    whatif.add_argument("step", metavar="STEP", nargs="?", type=int, help="default: the latest")
    whatif.add_argument(
        "--correction",
        metavar="NAME:NUMBERS",
        action="append",
        default=[],
        help="one more setting, as tis:3 or icepop:0.3,4 (may be repeated)",
    )
    whatif.add_argument("--format", choices=("table", "csv", "json"), default="table")
    add_columns(whatif)

    _about_a_step(verbs)
    _about_runs(verbs)

    verbs.add_parser("formats", help="the files that are read, and how to get them written")
    verbs.add_parser("deployment", help="print prefect.yaml, for `prefect deploy --all`")
    verbs.add_parser("hook", help="print the writer for trainers: one file that needs torch alone")
    inspect = verbs.add_parser(
        "inspect", help="what a file is: format, run, step, fields, what is missing"
    )
    inspect.add_argument("file", metavar="FILE", type=Path)
    add_columns(inspect)

    tables = verbs.add_parser("tables", help="list the tables, or the columns of one")
    tables.add_argument("name", nargs="?")

    ui = verbs.add_parser("ui", help="open MLflow on what was logged")
    ui.add_argument("--port", type=int, default=5000)

    demo = verbs.add_parser(
        "demo", help="published tokens of a real run, then two toy runs, watched"
    )
    demo.add_argument("--steps", type=positive, default=20, help="GRPO steps of each toy run")
    demo.add_argument(
        "--codec",
        choices=("off", "rank16", "rank8", "codec", "scoring"),
        default="codec",
        help="codec of the second toy run; the first has none",
    )
    demo.add_argument("--seed", type=int, default=0)
    return tim


def _about_a_step(verbs: Any) -> None:
    """Verbs that show one step of a run in the lake."""
    placed = argparse.ArgumentParser(add_help=False)
    placed.add_argument("run", metavar="RUN")
    placed.add_argument("step", metavar="STEP", nargs="?", type=int, help="default: the latest")

    report = verbs.add_parser("report", parents=[placed], help="write a step's page")
    report.add_argument("-o", "--output", type=Path, help="default: <run>-step-<n>.html")
    report.add_argument(
        "--pick",
        choices=("worst", "spread", "random", "median", "first"),
        default="worst",
        help="which prompts to show samples of, by their mean |ln r| (default: worst)",
    )
    report.add_argument("--groups", type=positive, default=4, help="prompts (default: 4)")
    report.add_argument("--per-group", type=positive, default=2, help="rollouts of each")
    report.add_argument("--seed", type=int, default=0, help="of --pick random")

    show = verbs.add_parser("show", parents=[placed], help="a rollout's tokens in the terminal")
    show.add_argument("--row", type=int, required=True, help="index of the rollout in the batch")
    show.add_argument("--around", type=int, metavar="POS", help="the tokens around this position")

    repro = verbs.add_parser(
        "repro", parents=[placed], help="a rollout as a zip to attach to an issue"
    )
    repro.add_argument("--row", type=int, required=True, help="index of the rollout in the batch")
    repro.add_argument("-o", "--output", type=Path, help="default: <run>-step-<n>-row-<row>.zip")


def _about_runs(verbs: Any) -> None:
    """Verbs that hold runs against limits, or against each other."""
    between = argparse.ArgumentParser(add_help=False)
    between.add_argument(
        "--steps",
        type=checked(step_range),
        default=(None, None),
        metavar="A:B",
        help="only these, both included; either may be left out (default: all)",
    )

    compare = verbs.add_parser(
        "compare", parents=[between], help="runs over their steps, as one page"
    )
    compare.add_argument("runs", metavar="RUN", nargs="+")
    compare.add_argument(
        "--baseline", metavar="RUN", help="the run that the others are held against"
    )
    compare.add_argument(
        "-o", "--output", type=Path, default=Path("comparison.html"), help="default: %(default)s"
    )

    diff = verbs.add_parser("diff", help="two steps token by token, as far as they share tokens")
    diff.add_argument("run", metavar="RUN")
    diff.add_argument("other", metavar="OTHER")
    diff.add_argument("--step", type=int, help="of both (default: the latest that both have)")
    diff.add_argument("--other-step", type=int, help="of OTHER, if it is another")

    certify = verbs.add_parser(
        "certify", help="are both engines bit-equal? exit code 0 yes, 1 no, 2 not known"
    )
    certify.add_argument("run", metavar="RUN")
    certify.add_argument("step", metavar="STEP", nargs="?", type=int, help="default: the latest")
    certify.add_argument("--json", action="store_true")
    _about_a_gate(verbs, between)


def _about_a_gate(verbs: Any, between: argparse.ArgumentParser) -> None:
    """The verb that holds a run to rules."""
    gate = verbs.add_parser(
        "gate",
        parents=[between],
        help="hold a run to rules: exit code 0 passed, 1 broken, 2 could not be judged",
    )
    gate.add_argument("run", metavar="RUN")
    gate.add_argument(
        "--rule",
        action="append",
        default=[],
        help="as 'kl_k3 < 0.01' (every step), 'mean(kl_k3) < 0.01', 'frac_outside_5 < 1%%'",
    )
    gate.add_argument("--preset", action="append", default=[], help="rules of a framework")
    gate.add_argument("--baseline", metavar="RUN", help="a run that this one is not to exceed")
    gate.add_argument(
        "--max-rise",
        type=checked(share),
        default=0.5,
        metavar="SHARE",
        help="of the means over the baseline's, as 50%% (the default)",
    )
    gate.add_argument(
        "--bit-equal",
        action="store_true",
        help="judge steps whose log-probs are the same bits, too: no copies, but engines built so",
    )
    gate.add_argument("--junit", type=Path, metavar="FILE", help="write the verdict as JUnit XML")
    gate.add_argument(
        "--summary",
        type=Path,
        metavar="FILE",
        help="append it as Markdown (default: $GITHUB_STEP_SUMMARY)",
    )
