"""The parser of `tim`: its own options, and its verbs in groups."""

import argparse
import shutil
import textwrap
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NoReturn

from timtrack.flows.cli.options import analyse, look, operate
from timtrack.flows.cli.options.shared import add_home
from timtrack.flows.settings import default_home
from timtrack.tasks.messages.errors import printable

EXAMPLES = """\
examples:
  tim report step_batch.pt --open
  tim ingest step_batch.pt --run my-run --step 20
  tim sql "select step, kl_k1, frac_outside_5 from step_metrics"
  tim whatif my-run 20 --correction tis:3
  tim referee my-run 20 --model /checkpoints/my-run/step_20

`tim VERB --help` has a verb's options and examples.
"""


class _Parser(argparse.ArgumentParser):
    """Report a usage error in one line: the argument may be a file name that a shell expanded."""

    def error(self, message: str) -> NoReturn:
        """Tell and leave, as the original does."""
        super().error(printable(message))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help without the flat list of verbs: `_listed` has them in groups."""

    def add_argument(self, action: argparse.Action) -> None:
        """Any but the verb."""
        if action.dest != "verb":
            super().add_argument(action)


class Verbs:
    """The verbs of one group."""

    def __init__(self, subparsers: Any, title: str) -> None:
        self._subparsers, self.title = subparsers, title
        self.listed: dict[str, str] = {}  # what each does, by name

    def add(self, name: str, text: str, *examples: str, **given: Any) -> argparse.ArgumentParser:
        """A verb with what it does, examples of it, and what `add_parser` takes."""
        self.listed[name] = text
        verb: argparse.ArgumentParser = self._subparsers.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog="\n".join(["examples:", *(f"  tim {name} {one}".rstrip() for one in examples)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **given,
        )
        add_home(verb, argparse.SUPPRESS)
        return verb


def parser() -> argparse.ArgumentParser:
    """The parser of `tim`; `verb` in what it gives is the verb's name."""
    tim: argparse.ArgumentParser = _Parser(
        prog="tim",
        usage="tim [--home DIR] VERB ...",
        description="Track train-inference mismatch, token by token.",
        formatter_class=_Help,
    )
    add_home(tim, default_home())
    tim.add_argument("--version", action="version", version=f"timtrack {version('timtrack')}")
    subparsers = tim.add_subparsers(metavar="VERB", dest="verb", prog="tim")
    groups = [Verbs(subparsers, title) for title in ("look", "analyse", "operate")]
    for group, add in zip(groups, (look.add, analyse.add, operate.add), strict=True):
        add(group)
    tim.epilog = "\n".join([*(_listed(group.title, group.listed) for group in groups), EXAMPLES])
    return tim


def _listed(title: str, verbs: Mapping[str, str]) -> str:
    """A group of verbs, a paragraph each."""
    width = shutil.get_terminal_size().columns - 2
    lines = [f"{title}:"]
    for name, text in verbs.items():
        first = f"  {name:12}"
        lines += textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * 14)
    return "\n".join(lines) + "\n"
