"""The verb `referee`: score a step's tokens again, and say which engine is off, and why."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from timtrack.flows.cli.exits import DONE
from timtrack.flows.cli.printing import as_json, complain, say
from timtrack.tasks.messages import formatting

if TYPE_CHECKING:
    from timtrack.tasks.lake.steps import Step
    from timtrack.tasks.referee.session import Question
    from timtrack.tasks.referee.trial import Say

SHOWN = 8  # hypotheses of each engine in the terminal; all are in the table


def referee(options: Namespace) -> int:
    """Judge both engines of a step by a reference forward."""
    from timtrack.tasks.lake.conversion import step_of
    from timtrack.tasks.referee import results, session
    from timtrack.tasks.verdicts.causes import diagnose

    question, is_json = _question(options), options.format == "json"
    lake = options.home / "lake"
    with step_of(options.what, lake, options.step, options.columns) as step:
        causes = {cause.id: cause.confidence for cause in diagnose(step)}
        with _progress(quiet=is_json) as tell:
            answer = session.ask(step, question, causes, tell)
        is_kept = step.path.is_relative_to(lake)
        if is_kept:
            results.write(step, answer)
        record, found = results.as_dict(answer), results.hypotheses(answer)
        if is_json:
            listed = {**record, "hypotheses": found.to_dicts()}
            as_json(listed)
        else:
            _print(step, record, found)
        if is_kept:
            _log(step, options)
    return DONE


def _question(options: Namespace) -> "Question":
    from timtrack.tasks.referee.session import Question

    return Question(
        options.model,
        rows=tuple(options.row),
        count=options.rows,
        seed=options.seed,
        device=options.device,
        hypotheses=tuple(name for text in options.hypotheses for name in text.split(",") if name),
        previous=tuple(options.previous),
        adapter=options.adapter,
        minutes=options.minutes,
        temperature=options.temperature,
        trusted=options.trust_model,
    )


@contextmanager
def _progress(quiet: bool) -> "Iterator[Say]":
    """A bar on standard error, which hypothesis is tried now."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True, quiet=quiet)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("reference", total=None)

        def tell(name: str, number: int, count: int) -> None:
            bar.update(task, description=name, completed=number, total=count)

        yield tell


def _print(step: "Step", record: dict[str, Any], found: Any) -> None:
    from timtrack.flows.cli.screen.grids import print_table, say_wrapped
    from timtrack.tasks.verdicts import rescoring

    say_wrapped(step.name, "", *record["sentences"], "")
    print_table(rescoring.HEADER, rescoring.rows(record))
    told = {one["engine"] for one in record["engines"] if one["is_off"] or one["best"]}
    for engine, name in (("rollout", "rollout engine"), ("train", "trainer")):
        table = found.filter(engine=engine).head(SHOWN)
        if len(table) and engine in told:
            shown = [
                [
                    row["hypothesis"],
                    row["value"] or "",
                    formatting.share(max(0.0, row["explained"])),
                ]
                for row in table.to_dicts()
            ]
            say("")
            print_table([f"of the {name}'s distance", "value", "explained"], shown)
    say_wrapped("", rescoring.footnote(record))


def _log(step: "Step", options: Namespace) -> None:
    """The answer to MLflow, where the step was logged before."""
    from timtrack.tasks.pipeline import stages
    from timtrack.tasks.tracking.tracker import TrackingError

    try:
        stages.renew_step(step, options.home, options.settings.bands)
    except TrackingError as error:
        complain(f"not in MLflow: {error}")
