"""Verbs about one step: report, show, repro, whatif, certify, diff."""

import re
import webbrowser
from argparse import Namespace
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from timtrack.flows.cli.exits import DONE, FAILED, fail, written
from timtrack.flows.cli.printing import as_json
from timtrack.tasks.messages.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from timtrack.tasks.lake.steps import Step


def report(options: Namespace) -> int:
    """A step's page."""
    from timtrack.tasks.lake.conversion import is_file
    from timtrack.tasks.lake.steps import neighbour
    from timtrack.tasks.reports import step_page
    from timtrack.tasks.reports.charts import export
    from timtrack.tasks.reports.charts.step import draw_charts
    from timtrack.tasks.reports.samples import Choice
    from timtrack.tasks.tables.compute import tables_of
    from timtrack.tasks.verdicts import summary
    from timtrack.tasks.verdicts.assessment import assess

    choice = Choice(options.pick, options.groups, options.per_group, options.seed)
    lake, is_of_run = options.home / "lake", not is_file(options.what, options.columns)
    if options.away and not is_of_run:
        return fail(f"{options.what} is a capture: --previous and --next are of a run in the lake")
    if not is_of_run:
        export.start()
    with _step(options) as found:
        step = neighbour(lake, found, options.away) if options.away else found
        computed = tables_of(step)
        assessment = assess(step.facts(), computed, options.settings.bands)
        drawn = draw_charts(computed)
        page, _ = step_page.page(step, computed, drawn, assessment, choice, is_of_run)
        output = options.output or Path(f"{_file_name(step)}.html")
        told = {"summary": summary.content(step, assessment)} if options.format == "json" else None
    code = written(output, lambda: output.write_text(page), told)
    if options.open and code == DONE:
        webbrowser.open(output.absolute().as_uri())
    return code


def show(options: Namespace) -> int:
    """A sequence's tokens in the terminal."""
    from timtrack.flows.cli.screen.sample import print_sample
    from timtrack.tasks.reports import samples

    with _step(options) as step:
        sample = samples.read(step, [options.row])[options.row]
    print_sample(sample, options.around)
    return DONE


def repro(options: Namespace) -> int:
    """A sequence as a zip."""
    from timtrack.tasks.reports import repro, samples

    with _step(options) as step:
        sample = samples.read(step, [options.row])[options.row]
        output = options.output or Path(f"{_file_name(step)}-row-{options.row}.zip")
        more = {}
        if options.rescore:
            from timtrack.tasks.referee import rescore

            more = rescore.files(step, options.row)
        return written(output, lambda: repro.write(step, sample, output, more))


def whatif(options: Namespace) -> int:
    """What corrections would do to a step."""
    from timtrack.flows.cli.screen.answers import print_what_if
    from timtrack.tasks.tables import corrections
    from timtrack.tasks.tables.compute import what_if

    settings = [corrections.parse(text) for text in options.correction]
    with _step(options) as step:
        answer = what_if(step, settings)
    asked = [setting.name for setting in settings]
    print_what_if(step.name, answer, asked, options.format)
    return DONE


def diagnose(options: Namespace) -> int:
    """What causes a step's mismatch."""
    from timtrack.flows.cli.screen.answers import print_diagnosis
    from timtrack.tasks.verdicts import causes as diagnosis

    lake = options.home / "lake"
    found = diagnosis.of(options.what, lake, options.step, options.columns)
    step = found.step
    if options.format == "json":
        as_json([cause.as_dict(step.run, step.step) for cause in found.causes])
    else:
        print_diagnosis(found, options.settings.bands, step.path.is_relative_to(lake))
    return DONE


def certify(options: Namespace) -> int:
    """Whether both engines are bit-equal."""
    from timtrack.flows.cli.screen.answers import print_certificate
    from timtrack.tasks.lake.conversion import is_file
    from timtrack.tasks.verdicts import bit_equality

    if options.all and not is_file(options.what, options.columns):
        return _certify_all(options)
    with _step(options) as step:
        found = bit_equality.of(step)
    if options.format == "json":
        as_json(found.as_dict())
    else:
        print_certificate(found)
    if found.rounded and not found.unequal:
        return fail(f"equal in float32, not known in float64: {'; '.join(found.rounded)}")
    return DONE if found.is_zero else FAILED


def _certify_all(options: Namespace) -> int:
    """Which step of a run was unequal first, and how it went on."""
    from timtrack.flows.cli.screen.answers import print_certificates
    from timtrack.tasks.lake.steps import steps_between
    from timtrack.tasks.verdicts import bit_equality

    lake = options.home / "lake"
    steps = steps_between(lake, options.what, options.step, options.step)
    found = bit_equality.over_steps(steps)
    if options.format == "json":
        as_json([one.as_dict() for one in found])
    else:
        print_certificates(found)
    return DONE if all(one.is_zero for one in found) else FAILED


def diff(options: Namespace) -> int:
    """Two steps token by token."""
    from timtrack.flows.cli.screen.answers import print_pair
    from timtrack.tasks.reports import step_diff

    with _two_steps(options) as (a, b):
        pair = step_diff.compare(a, b)
    if options.format == "json":
        sides = {"a": {"run": a.run, "step": a.step}, "b": {"run": b.run, "step": b.step}}
        as_json({**sides, **pair.as_dict()})
    else:
        print_pair(a.name, b.name, pair)
    return DONE


@contextmanager
def _two_steps(options: Namespace) -> "Iterator[tuple[Step, Step]]":
    """The steps of two captures' files or runs; a file's run is called by the end of its path.

    Without a number it is a file's own, of a run the other's, or the latest of two runs.
    """
    from timtrack.tasks.lake.conversion import is_file, step_of
    from timtrack.tasks.lake.steps import latest_common_step

    lake, columns = options.home / "lake", options.columns
    names = [options.what, options.other]
    numbers = [options.step, options.step if options.other_step is None else options.other_step]
    files = [is_file(name, columns) for name in names]
    if numbers == [None, None] and not any(files):
        numbers = [latest_common_step(lake, *names)] * 2
    found: dict[int, Step] = {}
    with ExitStack() as stack:
        for side in sorted((0, 1), key=lambda side: not files[side]):  # files first
            run = _path_end(names[side], "ab"[side]) if files[side] else None
            number = numbers[side]
            if number is None and not files[side]:
                number = found[1 - side].step
            opened = step_of(names[side], lake, number, columns, run)
            found[side] = stack.enter_context(opened)
        yield found[0], found[1]


def _path_end(path: str, side: str) -> str:
    """A path as the name of a run, which is short, and different for each side."""
    name = printable(path).encode("ascii", "backslashreplace").decode()
    return f"{side}: {name if len(name) <= 70 else f'...{name[-67:]}'}"


def _step(options: Namespace) -> "AbstractContextManager[Step]":
    """The step of the capture's file or the run that a verb is asked about.

    Raises NoSuchStep and BadCapture.
    """
    from timtrack.tasks.lake.conversion import step_of

    return step_of(options.what, options.home / "lake", options.step, options.columns)


def _file_name(step: "Step") -> str:
    safe = re.sub(r"[^\w.+-]+", "_", step.run)
    return f"{safe}-step-{step.step}"
