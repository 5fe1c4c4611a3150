"""How stages run: by Prefect inside of its flow runs, else plainly, one after the other.

A flow's function that is called plainly (`analyse.fn`) needs no server, which takes longer to start
than a small capture to analyse. The stages' rules for retries hold either way.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefect.context import FlowRunContext
from prefect.settings import get_current_settings

FEW = 4  # captures; for more, a task runner is worth its start


def is_plain(captures: int) -> bool:
    """Whether a flow over so many captures is best called plainly: no server is there."""
    return captures <= FEW and not get_current_settings().api.url


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


def submit(stage: Any, *args: Any, after: Sequence[Any] = (), **given: Any) -> Any:
    """A stage handed to the flow's task runner, to begin when those `after` are done: a future."""
    if FlowRunContext.get():
        return stage.submit(*args, wait_for=list(after), return_state=False, **given)
    if error := next((one.error for one in after if one.error), None):
        return Done(error=error)
    return _tried(stage, [_value(arg) for arg in args], given)


def is_done_now(future: Any) -> bool:
    """Whether a stage that was submitted has run already, and well: as it does without Prefect."""
    return isinstance(future, Done) and future.error is None


def call(stage: Any, *args: Any) -> Any:
    """A stage's result, from the flow itself; raises what it raises."""
    return stage(*args) if FlowRunContext.get() else _tried(stage, list(args), {}).result()


def is_done(stage: Any, *args: Any) -> bool:
    """Whether a stage came to its end; what it raised shows in Prefect, if anywhere."""
    if FlowRunContext.get():
        return bool(stage(*args, return_state=True).is_completed())
    return _tried(stage, list(args), {}).error is None


def _value(arg: Any) -> Any:
    """An argument, which may be another stage's future or a list of them."""
    if isinstance(arg, list):
        return [_value(one) for one in arg]
    return arg.result() if isinstance(arg, Done) else arg


def _tried(stage: Any, args: list[Any], given: dict[str, Any]) -> Done:
    """A stage by its own rules for retries."""
    for attempt in range(stage.retries + 1):
        try:
            return Done(stage.fn(*args, **given))
        except Exception as error:
            done = Done(error=error)
        condition = stage.retry_condition_fn
        if attempt == stage.retries or (condition and not condition(stage, None, done)):
            break
        delays = stage.retry_delay_seconds
        pauses = delays if isinstance(delays, list) else [delays or 0]
        time.sleep(pauses[min(attempt, len(pauses) - 1)])
    return done
