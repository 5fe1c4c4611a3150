"""Verbs about captures: ingest, watch, serve, status, inspect."""

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timtrack.flows.cli.exits import DONE, FAILED, end_when_told, fail
from timtrack.flows.cli.printing import about, as_json, complain, say

if TYPE_CHECKING:
    from timtrack.tasks.lake.steps import Step


def ingest(options: Namespace) -> int:
    """Analyse captures: files, or folders of them."""
    from timtrack.tasks.captures.discovery import find_captures

    paths = [found for path in options.paths for found in find_captures(path)]
    paths = list(dict.fromkeys(path.absolute() for path in paths))
    if options.step is not None and len(paths) > 1:
        return fail(f"--step {options.step} names one capture, but {len(paths)} were found")
    if options.tokenizer and not options.tokenizer.is_file():
        return fail(f"--tokenizer {options.tokenizer} is not a file")
    from timtrack.flows.cli import ready
    from timtrack.flows.cli.screen.outcomes import facts, show_outcomes, show_step
    from timtrack.tasks.pipeline import tracking

    home, settings = options.home.absolute(), options.settings
    is_json = options.format == "json"
    shown: list[Step] = []

    def answer(step: "Step") -> None:  # who gave one capture has the answer before MLflow has it
        show_step(step, settings.bands)
        shown.append(step)

    given = {"run": options.run, "step": options.step, "tokenizer": options.tokenizer}
    given["columns"] = options.columns
    try:
        outcomes = ready.settled(paths, home, settings, **given)
        if outcomes is None:
            from timtrack.flows.cli.screen.progress import analyse_with_progress

            at_once = answer if len(paths) == 1 and not is_json else None
            outcomes = analyse_with_progress(paths, home, settings, at_once, **given)
    finally:
        tracking.end()
    if is_json:
        as_json([facts(outcome, settings.bands) for outcome in outcomes])
    else:
        show_outcomes(outcomes, settings.bands, shown)
    return FAILED if any(outcome.error for outcome in outcomes) else DONE


def watch(options: Namespace) -> int:
    """Analyse captures below a folder as they appear."""
    from timtrack.tasks.backlog import survey

    root, home = options.root.absolute(), options.home.absolute()
    settings = options.settings
    seen = survey.survey(root, home, options.pattern, options.columns, settings.parity)
    is_json = options.format == "json"
    announce = complain if is_json else say
    if options.once and seen.is_empty:
        announce("nothing to do")
        return DONE
    announce(
        f"watching {root}: {seen.found:,} found, {len(seen.pending):,} to analyse, "
        f"{len(seen.held):,} set aside; into {home}"
    )
    from timtrack.flows.cli.screen.following import watch_with_progress
    from timtrack.flows.cli.screen.outcomes import LINES, objects
    from timtrack.flows.watched import Watched

    end_when_told()
    watched = Watched(**_sweep(options), follows=not options.once)
    told = objects(settings.bands) if is_json else LINES
    failed = watch_with_progress(watched, home, options.once, options.every, settings.runner, told)
    return FAILED if failed else DONE


def _sweep(options: Namespace) -> dict[str, Any]:
    """The parameters of the flow `watch` that the options give."""
    settings = options.settings
    return {
        "root": options.root.absolute(),
        "quiet": options.quiet,
        "pattern": options.pattern,
        "marker": options.marker,
        "alerts": options.alerts and options.alerts.absolute(),
        "columns": options.columns,
        "parity": ",".join(settings.parity),
        "bands": settings.bands.own,
        "referee": options.referee and options.referee.absolute(),
        "referee_every": options.referee_every,
    }


def serve(options: Namespace) -> int:
    """The same as `watch` as a Prefect deployment, without a worker."""
    from prefect.client.schemas.objects import (
        ConcurrencyLimitConfig,
        ConcurrencyLimitStrategy,
    )

    from timtrack.flows import runner
    from timtrack.flows.watch import watch

    # Sweeps never overlap, and one that comes while another runs is dropped: the next sees all.
    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    settings = options.settings
    watch.with_options(task_runner=runner.made(settings.runner)).serve(
        name=f"watch-{options.root.name}",
        interval=options.every,
        parameters={
            name: str(value) if isinstance(value, Path) else value
            for name, value in {**_sweep(options), "home": options.home.absolute()}.items()
        }
        | {"critical_fails": True},
        global_limit=alone,
    )
    return DONE


def status(options: Namespace) -> int:
    """What of a folder is analysed, pending, set aside, and how the runs stand."""
    from timtrack.tasks.backlog import survey
    from timtrack.tasks.verdicts import alerts

    root, home = options.root.absolute(), options.home.absolute()
    seen = survey.survey(root, home, options.pattern, options.columns, options.settings.parity)
    counts = survey.counts(seen)
    runs = alerts.told(options.home)
    if options.format == "json":
        held = [vars(record) for record in seen.held]
        stand = {run: asdict(status) for run, status in runs.items()}
        failing = [vars(record) for record in seen.failing]
        refused = [{"run": s.run, "step": s.step, **asdict(why)} for s, why in seen.refused]
        closed = {str(folder): why for folder, why in seen.closed.items()}
        told = {"quarantine": held, "failing": failing, "refused": refused, "closed": closed}
        as_json({**counts, **told, "runs": stand})
        return DONE
    say(*(f"{name:12}  {value}" for name, value in counts.items()))
    for run, status in runs.items():
        say("; ".join([f"{run}: {status.level} since step {status.since}", *status.reasons]))
    say(*survey.troubles(seen))
    return DONE


def inspect(options: Namespace) -> int:
    """What a file is, and what it lacks."""
    from timtrack.flows.cli.screen.answers import print_inspection
    from timtrack.tasks.captures import inspection
    from timtrack.tasks.captures.source import Source
    from timtrack.tasks.messages.errors import BadCapture

    try:
        found = inspection.inspect_file(Source(options.file, options.columns))
    except BadCapture as error:
        return fail(about(options.file, str(error)))
    if options.format == "json":
        as_json(asdict(found))
    else:
        print_inspection(found)
    return FAILED if found.problem else DONE
