"""Task runners: threads of this process, processes, or Dask workers.

Logging to MLflow does not fan out: the flow itself does that, in step order. Does not import
Prefect until a runner is created, so that the command line can validate one.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from timtrack.tasks.messages.errors import TimtrackError

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

DEFAULT = "threads"

# Each holds a capture's tables in memory, and DuckDB uses every core by itself.
WORKERS = 2


class BadRunner(TimtrackError):
    """A runner that is not known, or cannot run here."""


def made(text: str) -> "TaskRunner[Any]":
    """The task runner of that name; raises BadRunner.

    `threads` (the default) or `processes`, with `:N` for N at a time; `dask` for a cluster of
    workers on this machine, or `dask:tcp://host:8786` for one whose workers see the same disk.
    """
    from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

    kind, rest = _parts(check(text))
    if kind == "dask":
        return _dask(rest)
    runner = ThreadPoolTaskRunner if kind == "threads" else ProcessPoolTaskRunner
    return runner(max_workers=int(rest or WORKERS))


def mend_server() -> None:
    """Have Prefect start the server of this process anew, where that has ended."""
    server = _own_server()
    if server.server_process and server.server_process.poll() is not None:
        server.stop()


def end_server() -> None:
    """End the server that Prefect started for this process, if it did."""
    _own_server().stop()


def _own_server() -> Any:
    from prefect.server.api.server import SubprocessASGIServer

    return SubprocessASGIServer()  # the one that there is


def check(text: str) -> str:
    """The text, if it names a runner that can run here; raises BadRunner."""
    kind, rest = _parts(text)
    has_number = not rest or (rest.isdecimal() and int(rest) > 0)
    if not (kind == "dask" or (kind in ("threads", "processes") and has_number)):
        raise BadRunner(
            f"no runner {text!r}; there are threads[:N], processes[:N], dask[:N] and dask:tcp://..."
        )
    if kind == "dask" and not find_spec("prefect_dask"):
        raise BadRunner("the runner dask needs the extra: pip install 'timtrack[dask]'")
    return text


def _parts(text: str) -> tuple[str, str]:
    kind, _, rest = text.partition(":")
    return kind, rest


def _dask(rest: str) -> "TaskRunner[Any]":
    from prefect_dask.task_runners import DaskTaskRunner

    if rest and not rest.isdecimal():
        return DaskTaskRunner(address=rest)
    workers = {"n_workers": int(rest or WORKERS), "threads_per_worker": 1}
    return DaskTaskRunner(cluster_kwargs=workers)
