"""Options shared by several verbs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from timtrack.flows import runner
from timtrack.flows.cli.options.types import checked, columns, step_range
from timtrack.flows.settings import RUNNER
from timtrack.tasks.captures.paths import Pattern
from timtrack.tasks.tables import frameworks

TABLES = ("table", "csv", "json", "jsonl", "markdown", "parquet")  # forms of rows
FACTS = ("table", "json")  # forms of anything else


def add_home(parser: argparse.ArgumentParser, default: Path | str) -> None:
    """Where lake and store are; before the verb and after it."""
    parser.add_argument(
        "--home",
        type=Path,
        default=default,
        metavar="DIR",
        help="directory of lake and local MLflow store (default: $TIMTRACK_HOME or ./timtrack)",
    )


def add_format(
    verb: argparse.ArgumentParser, forms: Sequence[str] = FACTS, default: str | None = "table"
) -> None:
    """How an answer is printed."""
    verb.add_argument(
        "--format",
        choices=forms,
        default=default,
        help="all but table are for programs (default: table)",
    )
    verb.add_argument(
        "--json", action="store_const", const="json", dest="format", help="as --format json"
    )


def placed() -> argparse.ArgumentParser:
    """One step: of a capture's file, or of a run in the lake."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("what", metavar="CAPTURE|RUN", help="a capture file, or a run in the lake")
    options.add_argument("step", metavar="STEP", nargs="?", type=int, help="default: the latest")
    add_columns(options)
    return options


def between() -> argparse.ArgumentParser:
    """Some steps of a run."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--steps",
        type=checked(step_range),
        default=(None, None),
        metavar="A:B",
        help="only these steps, inclusive; A or B may be omitted (default: all)",
    )
    return options


def _frameworks(text: str) -> str:
    frameworks.parse(text)
    return text


def add_columns(verb: argparse.ArgumentParser) -> None:
    """The mapping of a home-made dump."""
    verb.add_argument(
        "--columns",
        type=checked(columns),
        metavar="PART=NAME,...",
        help="field names of a custom dump, such as logp_rollout=vllm,logp_train=fsdp",
    )


def add_alerts(verb: argparse.ArgumentParser) -> None:
    """The rules that runs are judged by."""
    verb.add_argument(
        "--alerts",
        type=Path,
        metavar="FILE",
        help="rules for warning and critical runs (default: alerts.toml in --home, else bands)",
    )


def below() -> argparse.ArgumentParser:
    """The folder of captures."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("root", metavar="DIR", type=Path)
    return options


def named() -> argparse.ArgumentParser:
    """How captures are called below a folder."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--pattern",
        type=checked(lambda text: Pattern(text).text),
        help="filename pattern of captures under DIR, such as '{run}/dumps/{step}.pt' (*, ?, **/)",
    )
    return options


def complete() -> argparse.ArgumentParser:
    """When a capture is whole."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--quiet",
        type=float,
        metavar="SECONDS",
        default=30.0,
        help="seconds without a write before an unreadable file counts as corrupt (default: 30)",
    )
    options.add_argument(
        "--marker",
        metavar="NAME",
        help="take a capture only once this file is beside it; {name}, {stem}: of the capture",
    )
    return options


def running() -> argparse.ArgumentParser:
    """Where the work is done."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--runner",
        type=checked(runner.check),
        help="threads[:N], processes[:N], dask[:N], dask:tcp://... "
        f"(default: ${RUNNER} or threads:{runner.WORKERS})",
    )
    options.add_argument(
        "--parity",
        type=checked(_frameworks),
        metavar="NAMES",
        help="also log what these frameworks would log, under their names (comma-separated): "
        + ", ".join(frameworks.FRAMEWORKS),
    )
    return options
