"""Verbs about one step: report, show, repro, whatif, certify, diff."""

import re
import webbrowser
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from timtrack.flows.cli.exits import DONE, FAILED, fail, written
from timtrack.flows.cli.printing import as_it_is
from timtrack.tasks.messages import formatting

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from timtrack.tasks.lake.steps import Step


def report(options: Namespace) -> int:
    """A step's page."""
    from timtrack.tasks.reports import step_page
    from timtrack.tasks.reports.charts.step import draw_charts
    from timtrack.tasks.reports.samples import Choice
    from timtrack.tasks.tables.compute import tables_of
    from timtrack.tasks.verdicts.assessment import assess

    choice = Choice(options.pick, options.groups, options.per_group, options.seed)
    with _step(options) as step:
        computed = tables_of(step)
        assessment = assess(step.facts(), computed, options.settings.bands)
        page, _ = step_page.page(step, computed, draw_charts(computed), assessment, choice)
        output = options.output or Path(f"{_file_name(step)}.html")
    code = written(output, lambda: output.write_text(page))
    if options.open and code == DONE:
        webbrowser.open(output.absolute().as_uri())
    return code


def show(options: Namespace) -> int:
    """A sequence's tokens in the terminal."""
    from timtrack.flows.cli.answers import print_sample
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
    from timtrack.flows.cli.answers import print_what_if
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
    from timtrack.flows.cli.answers import print_causes
    from timtrack.tasks.verdicts import causes as diagnosis

    lake = options.home / "lake"
    step, causes = diagnosis.of(options.what, lake, options.step, options.columns)
    if options.json:
        listed = [cause.as_dict(step.run, step.step) for cause in causes]
        as_it_is(formatting.as_json(listed, indent=2) + "\n")
    else:
        print_causes(step, causes)
    return DONE


def certify(options: Namespace) -> int:
    """Whether both engines are bit-equal."""
    from timtrack.flows.cli.answers import print_certificate
    from timtrack.tasks.lake.steps import pick_step
    from timtrack.tasks.verdicts import bit_equality

    if options.all:
        return _certify_all(options)
    found = bit_equality.of(pick_step(options.home / "lake", options.run, options.step))
    if options.json:
        as_it_is(formatting.as_json(found.as_dict(), indent=2) + "\n")
    else:
        print_certificate(found)
    if found.rounded and not found.unequal:
        return fail(f"equal in float32, not known in float64: {'; '.join(found.rounded)}")
    return DONE if found.is_zero else FAILED


def _certify_all(options: Namespace) -> int:
    """Which step of a run was unequal first, and how it went on."""
    from timtrack.flows.cli.answers import print_certificates
    from timtrack.tasks.lake.steps import steps_between
    from timtrack.tasks.verdicts import bit_equality

    lake = options.home / "lake"
    steps = steps_between(lake, options.run, options.step, options.step)
    found = bit_equality.over_steps(steps)
    if options.json:
        as_it_is(formatting.as_json([one.as_dict() for one in found], indent=2) + "\n")
    else:
        print_certificates(found)
    return DONE if all(one.is_zero for one in found) else FAILED


def diff(options: Namespace) -> int:
    """Two steps token by token."""
    from timtrack.flows.cli.answers import print_pair
    from timtrack.tasks.lake.steps import latest_common_step, pick_step
    from timtrack.tasks.reports import step_diff

    home = options.home / "lake"
    number = options.step
    if number is None and options.other_step is None:
        number = latest_common_step(home, options.run, options.other)
    a = pick_step(home, options.run, number)
    other = number if options.other_step is None else options.other_step
    b = pick_step(home, options.other, other)
    pair = step_diff.compare(a, b)
    print_pair(a.name, b.name, pair)
    return DONE


def _step(options: Namespace) -> "AbstractContextManager[Step]":
    """The step of the capture's file or the run that a verb is asked about.

    Raises NoSuchStep and BadCapture.
    """
    from timtrack.tasks.lake.conversion import step_of

    return step_of(options.what, options.home / "lake", options.step, options.columns)


def _file_name(step: "Step") -> str:
    safe = re.sub(r"[^\w.+-]+", "_", step.run)
    return f"{safe}-step-{step.step}"
