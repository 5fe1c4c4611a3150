"""`tim gate`: check a run against rules in CI; its output, and the files it writes."""

import os
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

from timtrack.flows.cli.printing import as_json, complain, say
from timtrack.tasks.lake.steps import NoSuchStep, Step, is_bypass, steps_between
from timtrack.tasks.messages import formatting
from timtrack.tasks.messages.errors import printable
from timtrack.tasks.tables.compute import tables_of
from timtrack.tasks.verdicts import gate
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import Bands
from timtrack.tasks.verdicts.gate import BadRule, Numbers, Outcome
from timtrack.tasks.verdicts.numbers import LOGGED_FROM, logged

PASSED, BROKEN, NOT_JUDGED = 0, 1, 2
WORST = 10  # tokens that are attached to a broken gate
RISING = ("kl_k3", "abs_prob_diff_mean", "mult_prob_error")  # what a baseline is held against


def run(options: Namespace) -> int:
    """Judge, print, write; 0 passed, 1 broken, 2 could not be judged."""
    try:
        steps = steps_between(options.home / "lake", options.run, *options.steps)
        _check_measured(steps, options.bit_equal)
        outcomes = _judged(options, _numbers(steps))
    except (BadRule, NoSuchStep) as error:
        complain(f"tim: {error}")
        return NOT_JUDGED
    broken = next((outcome for outcome in outcomes if not outcome.passed), None)
    worst = _worst(steps, broken, options.settings.bands) if broken else []
    if options.format == "json":
        judged = {"run": options.run, "passed": broken is None}
        as_json({**judged, "outcomes": list(map(asdict, outcomes)), "worst": worst})
    else:
        say(*(f"{'pass' if o.passed else 'FAIL'}  {o.rule}  ({o.text})" for o in outcomes))
        say(*(["", *worst] if worst else []))
    _write(options, outcomes, worst)
    return BROKEN if broken else PASSED


def _check_measured(steps: list[Step], bit_equal: bool) -> None:
    """Raise BadRule for steps in which nothing was measured, unless the engines are built so."""
    copied = [step.step for step in steps if is_bypass(step.facts())]
    if copied and not bit_equal:
        raise BadRule(
            f"both engines' log-probs are the same bits at {len(copied)} of {len(steps)} steps, "
            f"first at {copied[0]}: copies, not measured; --bit-equal if the engines are built so"
        )


def _numbers(steps: list[Step]) -> Numbers:
    """What MLflow has of each step: metrics and what-if numbers, by name."""
    return {step.step: logged(tables_of(step, LOGGED_FROM)) for step in steps}


def _judged(options: Namespace, numbers: Numbers) -> list[Outcome]:
    typed = [*options.rule]
    for name in options.preset:
        if name not in gate.presets():
            raise BadRule(f"no preset {name!r}; there are {', '.join(gate.presets())}")
        typed += gate.presets()[name].rules
    if not typed and not options.baseline:
        raise BadRule("nothing to judge: give --rule, --preset or --baseline")
    rules = [gate.parse(text) for text in typed]
    outcomes = [gate.judge(rule, numbers) for rule in rules]
    if options.baseline:
        held = steps_between(options.home / "lake", options.baseline, *options.steps)
        _check_measured(held, options.bit_equal)
        before = _numbers(held)
        metrics = dict.fromkeys(rule.metric for rule in rules) or dict.fromkeys(RISING)
        outcomes += [gate.rise(m, numbers, before, options.max_rise) for m in metrics]
    return outcomes


def _worst(steps: list[Step], broken: Outcome, bands: Bands) -> list[str]:
    """The step that broke a rule, else the last: its assessment and its widest gaps, in lines."""
    step = next((step for step in steps if step.step == broken.step), steps[-1])
    computed = tables_of(step)
    assessment = assess(step.facts(), computed, bands)
    matter = (finding.text for finding in assessment.findings if finding.matters)
    rows = computed["worst_tokens"].head(WORST).to_dicts()
    lines = [
        f"  row {row['row']} pos {row['pos']} {row['token'] or row['token_id']!r}: "
        f"{formatting.nats(row['logp_rollout'])} -> {formatting.nats(row['logp_train'])}, "
        f"r {formatting.ratio(row['ratio'])}"
        for row in rows
    ]
    return [
        f"{step.name}: {assessment.status.upper()}: {assessment.text}",
        *(f"  ! {text}" for text in matter),
        f"widest gaps of {step.name}:",
        *lines,
    ]


def _write(options: Namespace, outcomes: list[Outcome], worst: list[str]) -> None:
    if options.junit:
        options.junit.write_text(_junit(options.run, outcomes, worst))
    given = os.environ.get("GITHUB_STEP_SUMMARY")
    summary_file = options.summary or (Path(given) if given else None)
    if summary_file:
        with summary_file.open("a") as file:
            file.write(_markdown(options.run, outcomes, worst))


def _junit(run_name: str, outcomes: list[Outcome], worst: list[str]) -> str:
    """A test suite with a case per rule."""
    broken = [outcome for outcome in outcomes if not outcome.passed]
    counts = {"tests": str(len(outcomes)), "failures": str(len(broken))}
    named = printable(run_name)  # XML has no control characters, not even escaped
    suite = ElementTree.Element("testsuite", {"name": f"timtrack gate {named}", **counts})
    for outcome in outcomes:
        case = ElementTree.SubElement(suite, "testcase", {"classname": named, "name": outcome.rule})
        if not outcome.passed:
            ElementTree.SubElement(case, "failure", {"message": outcome.text}).text = _text(worst)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _text(lines: list[str]) -> str:
    return "\n".join(map(printable, lines))


def _markdown(run_name: str, outcomes: list[Outcome], worst: list[str]) -> str:
    rows = [
        f"| {'pass' if outcome.passed else '**fail**'} | `{outcome.rule}` | {outcome.text} |"
        for outcome in outcomes
    ]
    told = ["", "```text", _text(worst).replace("```", "'''"), "```"] if worst else []
    head = [
        f"### timtrack gate: {formatting.markdown(run_name)}",
        "",
        "| | rule | seen |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows, *told]) + "\n"
