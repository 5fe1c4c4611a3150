"""Verbs about timtrack itself: formats, hook, deployment, completion."""

import argparse
from importlib.resources import files
from pathlib import Path

from timtrack.flows.cli.exits import DONE
from timtrack.flows.cli.printing import as_it_is

CAPTURES = ("what", "other")  # arguments that name a capture's file or a run


def formats(options: argparse.Namespace) -> int:
    """The files that are read."""
    from timtrack.flows.cli.screen.answers import print_formats
    from timtrack.tasks.readers.registry import readers

    print_formats(readers(), options.format)
    return DONE


def hook(options: argparse.Namespace) -> int:
    """The hook for a framework, as a file that needs torch alone."""
    from timtrack.tasks.hooks.written import hook_file

    as_it_is(hook_file(options.framework))
    return DONE


def deployment(options: argparse.Namespace) -> int:
    """What `prefect deploy --all` reads, for where there is no checkout."""
    as_it_is((files("timtrack.flows") / "prefect.yaml").read_text())
    return DONE


def completion(options: argparse.Namespace) -> int:
    """A script that completes verbs, options, choices and file names."""
    import shtab

    from timtrack.flows.cli.options.parser import parser

    tim = parser()
    for action in _actions(tim):
        if action.type is Path or action.dest in CAPTURES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    as_it_is(shtab.complete(tim, options.shell) + "\n")
    return DONE


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments of a parser and of its verbs; argparse has no public way to list them."""
    found = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            found += [inner for verb in action.choices.values() for inner in _actions(verb)]
    return found
