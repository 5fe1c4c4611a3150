"""How stages run: by Prefect inside of its flow runs, else plainly, one after the other.

Plainly, Prefect is not even imported: it takes longer to start than a small capture to analyse.
The stages' rules for retries hold either way.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timtrack.flows import runner
from timtrack.tasks.pipeline.stage import Stage, is_in_flow

FEW = 4  # captures; for more, a task runner is worth its start

# Where Prefect looks for a server's address, and the word that a file with one contains.
VARIABLES = {"PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_HOME"}
FILES = {"prefect.toml": b"", "pyproject.toml": b"tool.prefect", ".env": b"prefect_"}
PROFILES = "~/.prefect/profiles.toml"


def as_flow(function: Callable[..., Any], on: str = runner.DEFAULT) -> Any:
    """A function that submits stages as the Prefect flow of its name, with the task runner `on`."""
    from prefect import flow

    untyped: Any = flow
    return untyped(function, name=function.__name__, task_runner=runner.made(on))


def is_plain(captures: int, on: str = runner.DEFAULT) -> bool:
    """Whether a function over so many captures is best called plainly: no server is there.

    Not if another task runner is asked for.
    """
    return captures <= FEW and on == runner.DEFAULT and not _has_server()


def _has_server() -> bool:
    if not (VARIABLES & os.environ.keys() or _may_be_named()):
        return False
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


def _may_be_named() -> bool:
    """Whether a file may say where a server is; one that cannot be read may."""
    try:
        is_named = Path(PROFILES).expanduser().exists()
        files = ((Path(name), word) for name, word in FILES.items())
        return is_named or any(f.is_file() and word in f.read_bytes().lower() for f, word in files)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return True


@dataclass(frozen=True)
class Done:
    """What became of a stage, as Prefect's futures and states tell it."""

    value: Any = None
    error: Exception | None = None

    def result(self, raise_on_failure: bool = True) -> Any:
        """Its result, or what it raised."""
        if self.error and raise_on_failure:
            raise self.error
        return self.error or self.value


def submit(stage: Stage[..., Any], *args: Any, after: Sequence[Any] = (), **given: Any) -> Any:
    """A stage handed to the flow's task runner, to begin when those `after` are done: a future."""
    if is_in_flow():
        return stage.task.submit(*args, wait_for=list(after), return_state=False, **given)
    if error := next((one.error for one in after if one.error), None):
        return Done(error=error)
    return _tried(stage, [_value(arg) for arg in args], given)


def is_done_now(future: Any) -> bool:
    """Whether a stage that was submitted has run already, and well: as it does without Prefect."""
    return isinstance(future, Done) and future.error is None


def call(stage: Stage[..., Any], *args: Any) -> Any:
    """A stage's result, from the flow itself; raises what it raises."""
    return stage.task(*args) if is_in_flow() else _tried(stage, list(args), {}).result()


def is_done(stage: Stage[..., Any], *args: Any) -> bool:
    """Whether a stage came to its end; what it raised shows in Prefect, if anywhere."""
    if is_in_flow():
        return bool(stage.task(*args, return_state=True).is_completed())
    return _tried(stage, list(args), {}).error is None


def _value(arg: Any) -> Any:
    """An argument, which may be another stage's future or a list of them."""
    if isinstance(arg, list):
        return [_value(one) for one in arg]
    return arg.result() if isinstance(arg, Done) else arg


def _tried(stage: Stage[..., Any], args: list[Any], given: dict[str, Any]) -> Done:
    """A stage by its own rules for retries."""
    for pause in (*stage.retries.pauses, None):
        try:
            return Done(stage(*args, **given))
        except Exception as error:
            done = Done(error=error)
            if pause is None or not stage.retries.may_help(error):
                break
        time.sleep(pause)
    return done
