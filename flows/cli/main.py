"""The `tim` command. Each verb imports what it needs: `tim --help` and `tim sql` start fast."""

import io
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from timtrack.flows.cli import environment
from timtrack.flows.cli.exits import DONE, INTERRUPTED, fail
from timtrack.flows.cli.options.parser import parser
from timtrack.flows.cli.printing import complain
from timtrack.flows.cli.verbs import captures, itself, lake, query, referee, runs, steps
from timtrack.tasks.messages.errors import TimtrackError

VERBS: dict[str, Callable[[Namespace], int]] = {
    "ingest": captures.ingest,
    "watch": captures.watch,
    "status": captures.status,
    "serve": captures.serve,
    "inspect": captures.inspect,
    "formats": itself.formats,
    "hook": itself.hook,
    "deployment": itself.deployment,
    "report": steps.report,
    "show": steps.show,
    "repro": steps.repro,
    "whatif": steps.whatif,
    "diagnose": steps.diagnose,
    "referee": referee.referee,
    "certify": steps.certify,
    "diff": steps.diff,
    "runs": runs.runs,
    "compare": runs.compare,
    "gate": runs.gate,
    "demo": runs.demo,
    "sql": query.sql,
    "tables": query.tables,
    "export": query.export,
    "completion": itself.completion,
    "prune": lake.prune,
    "fsck": lake.fsck,
    "ui": lake.ui,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 done, 1 some capture failed (the others are done), 2 wrong usage.

    Without a verb, `runs` where the home has any, else the help.
    """
    options = parser().parse_args(arguments)
    if options.verb is None:
        if not (options.home / "lake").is_dir():
            parser().print_help()
            return DONE
        options = parser().parse_args(["--home", str(options.home), "runs"])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no UTF-8
    environment.settle_environment()
    try:
        environment.begin_reading(options)
        options.settings = environment.settings(options)
        return VERBS[options.verb](options)
    except TimtrackError as error:
        return fail(*str(error).split("\n"))  # DuckDB points at the place in a line of its own
    except KeyboardInterrupt:
        complain("tim: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
