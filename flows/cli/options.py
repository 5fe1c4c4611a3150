"""What the `tim` command understands: verbs and their options."""

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from timtrack.flows import runner
from timtrack.tasks.captures.paths import Pattern
from timtrack.tasks.errors import TimtrackError
from timtrack.tasks.formatting import printable
from timtrack.tasks.tables import frameworks

T = TypeVar("T")

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
    below, named, complete, running = _below(), _named(), _complete(), _running()
    verbs = tim.add_subparsers(title="verbs", metavar="VERB", required=True, dest="verb")

    ingest = verbs.add_parser(
        "ingest", parents=[running], help="analyse captures: files, or folders of them"
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
        parents=[below, named, complete, running],
        help="analyse captures below a folder as they appear",
    )
    how = watch.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="go on until interrupted (the default)")
    how.add_argument("--once", action="store_true", help="analyse what is there, then stop")
    _alerting(watch)
    for verb in (ingest, watch):
        _mapping(verb)
    watch.add_argument("--every", type=float, default=2.0, help="seconds between looks")

    status = verbs.add_parser(
        "status", parents=[below, named], help="captures found, analysed, pending, set aside"
    )
    status.add_argument("--json", action="store_true")
    _mapping(status)

    serve = verbs.add_parser(
        "serve",
        parents=[below, named, complete, running],
        help="the same as a Prefect deployment, without a worker",
    )
    _alerting(serve)
    _mapping(serve)
    serve.add_argument("--every", type=float, default=60.0, help="seconds between sweeps")

    prune = verbs.add_parser("prune", help="delete token tables of old steps, keep their metrics")
    which = prune.add_mutually_exclusive_group(required=True)
    which.add_argument("--keep-last", type=_positive, metavar="N", help="steps of each run to keep")
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
    _mapping(whatif)

    _about_a_step(verbs)
    _about_runs(verbs)

    verbs.add_parser("formats", help="the files that are read, and how to get them written")
    inspect = verbs.add_parser(
        "inspect", help="what a file is: format, run, step, fields, what is missing"
    )
    inspect.add_argument("file", metavar="FILE", type=Path)
    _mapping(inspect)

    tables = verbs.add_parser("tables", help="list the tables, or the columns of one")
    tables.add_argument("name", nargs="?")

    ui = verbs.add_parser("ui", help="open MLflow on what was logged")
    ui.add_argument("--port", type=int, default=5000)

    demo = verbs.add_parser(
        "demo", help="published tokens of a real run, then two toy runs, watched"
    )
    demo.add_argument("--steps", type=_positive, default=20, help="GRPO steps of each toy run")
    demo.add_argument(
        "--codec",
        choices=("off", "rank16", "rank8", "codec", "scoring"),
        default="codec",
        help="codec of the second toy run; the first has none",
    )
    demo.add_argument("--seed", type=int, default=0)
    return tim


def _mapping(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--columns",
        type=_checked(_columns),
        metavar="PART=NAME,...",
        help="what a home-made dump calls its fields: logp_rollout=vllm,logp_train=fsdp,...",
    )


def _columns(text: str) -> str:
    from timtrack.tasks.readers.columns import (
        parse,  # not at the start of every `tim`: it brings polars
    )

    return parse(text).text


def _alerting(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--alerts",
        type=Path,
        metavar="FILE",
        help="when a run is a warning or critical (default: alerts.toml in the home, else bands)",
    )


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
    report.add_argument("--groups", type=_positive, default=4, help="prompts (default: 4)")
    report.add_argument("--per-group", type=_positive, default=2, help="rollouts of each")
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
        type=_checked(_between),
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
        type=_checked(_share),
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


def _between(text: str) -> tuple[int | None, int | None]:
    match = re.fullmatch(r"(\d*):(\d*)|(\d+)", text)
    if not match:
        raise ValueError(f"{text} is not a range of steps; write it as 10:20, 10:, :20 or 10")
    low, high = (match[3], match[3]) if match[3] else (match[1], match[2])
    return (int(low) if low else None, int(high) if high else None)


def _share(text: str) -> float:
    match = re.fullmatch(r"(\d+\.?\d*)(%?)", text)
    if not match:
        raise ValueError(f"{text} is not a share; write it as 50% or 0.5")
    return float(match[1]) / (100 if match[2] else 1)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def _below() -> argparse.ArgumentParser:
    """The folder of captures."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("root", metavar="DIR", type=Path)
    return options


def _named() -> argparse.ArgumentParser:
    """How captures are called below a folder."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--pattern",
        type=_checked(lambda text: Pattern(text).text),
        help="how captures are called below DIR, like '{run}/dumps/{step}.pt' (*, ? and **/ too)",
    )
    return options


def _complete() -> argparse.ArgumentParser:
    """When a capture is whole."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--quiet",
        type=float,
        metavar="SECONDS",
        default=30.0,
        help="without a write, after which an unreadable file is bad, not unfinished (default: 30)",
    )
    options.add_argument(
        "--marker",
        metavar="NAME",
        help="take a capture only when this file is beside it; {name} and {stem} are the capture's",
    )
    return options


def _running() -> argparse.ArgumentParser:
    """Where the work is done."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--runner",
        type=_checked(runner.check),
        help="threads[:N], processes[:N], dask[:N], dask:tcp://... "
        f"(default: ${runner.VARIABLE} or threads:{runner.WORKERS})",
    )
    options.add_argument(
        "--parity",
        type=_checked(frameworks.check),
        metavar="NAMES",
        help="log what verl, nemo_rl or slime would log too, under their names (comma between)",
    )
    return options


def _checked(check: Callable[[str], T]) -> Callable[[str], T]:
    """A type for argparse that shows the check's own words."""

    def checked(text: str) -> T:
        try:
            return check(text)
        except (ValueError, TimtrackError) as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked
