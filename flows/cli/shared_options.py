"""Options that several verbs have."""

import argparse
from pathlib import Path

from timtrack.flows import runner
from timtrack.flows.cli.argument_types import checked, columns
from timtrack.tasks.captures.paths import Pattern
from timtrack.tasks.tables import frameworks


def add_columns(verb: argparse.ArgumentParser) -> None:
    """The mapping of a home-made dump."""
    verb.add_argument(
        "--columns",
        type=checked(columns),
        metavar="PART=NAME,...",
        help="what a home-made dump calls its fields: logp_rollout=vllm,logp_train=fsdp,...",
    )


def add_alerts(verb: argparse.ArgumentParser) -> None:
    """The rules that runs are judged by."""
    verb.add_argument(
        "--alerts",
        type=Path,
        metavar="FILE",
        help="when a run is a warning or critical (default: alerts.toml in the home, else bands)",
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
        help="how captures are called below DIR, like '{run}/dumps/{step}.pt' (*, ? and **/ too)",
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
        help="without a write, after which an unreadable file is bad, not unfinished (default: 30)",
    )
    options.add_argument(
        "--marker",
        metavar="NAME",
        help="take a capture only when this file is beside it; {name} and {stem} are the capture's",
    )
    return options


def running() -> argparse.ArgumentParser:
    """Where the work is done."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--runner",
        type=checked(runner.check),
        help="threads[:N], processes[:N], dask[:N], dask:tcp://... "
        f"(default: ${runner.VARIABLE} or threads:{runner.WORKERS})",
    )
    options.add_argument(
        "--parity",
        type=checked(frameworks.check),
        metavar="NAMES",
        help="log what verl, nemo_rl or slime would log too, under their names (comma between)",
    )
    return options
