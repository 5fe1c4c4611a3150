"""A stage of the pipeline: a function, what its runs are called, and when it is tried again.

Prefect runs it as a task; a command that analyses a single capture calls it plainly, and never
imports Prefect, which takes longer to start than a small capture to analyse.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Named = str | Callable[[dict[str, Any]], str]


@dataclass(frozen=True)
class Retries:
    """How often a stage is tried again, after how long, and for which errors (all, if left out)."""

    pauses: tuple[float, ...] = ()  # seconds, one for each further try
    may_help: Callable[[Exception], bool] = lambda error: True


NONE = Retries()


@dataclass(frozen=True)
class Stage(Generic[P, R]):
    """A function of the pipeline; calling it is calling the function."""

    fn: Callable[P, R]
    name: Named  # of a run: a text with the arguments' names in braces, or made from the arguments
    retries: Retries = NONE

    def __call__(self, *args: P.args, **given: P.kwargs) -> R:
        """What the function returns, tried once."""
        return self.fn(*args, **given)

    @functools.cached_property
    def task(self) -> Any:
        """The same as a Prefect task, without a cache: the disk says what is done."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        untyped: Any = task  # its overloads do not know names that are made
        return untyped(
            self.fn,
            task_run_name=self.name,
            cache_policy=NO_CACHE,
            retries=len(self.retries.pauses),
            retry_delay_seconds=list(self.retries.pauses) or None,
            retry_condition_fn=functools.partial(_may_help, self.retries.may_help),
        )


def _may_help(may_help: Callable[[Exception], bool], _task: Any, _run: Any, state: Any) -> bool:
    return may_help(state.result(raise_on_failure=False))


def stage(name: Named, retries: Retries = NONE) -> Callable[[Callable[P, R]], Stage[P, R]]:
    """Make a stage of a function."""
    return lambda fn: Stage(fn, name, retries)


def is_in_flow() -> bool:
    """Whether a Prefect flow run calls this."""
    context = sys.modules.get("prefect.context")
    return bool(context and context.FlowRunContext.get())


def is_shown() -> bool:
    """Whether Prefect runs this; outside of its runs there is nobody to show anything to."""
    context = sys.modules.get("prefect.context")
    return bool(context and (context.FlowRunContext.get() or context.TaskRunContext.get()))
