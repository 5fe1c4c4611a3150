"""Terminal output of the verbs that answer a question."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from timtrack.flows.cli.printing import say
from timtrack.flows.cli.screen.frames import print_frame
from timtrack.flows.cli.screen.grids import print_table, print_wrapped, say_wrapped
from timtrack.tasks.captures.inspection import Inspection
from timtrack.tasks.messages import formatting
from timtrack.tasks.readers.reader import Reader
from timtrack.tasks.reports import step_diff
from timtrack.tasks.reports.step_diff import Pair
from timtrack.tasks.tables.catalogue import Table
from timtrack.tasks.tables.causes import undecidable
from timtrack.tasks.verdicts.advice import advise
from timtrack.tasks.verdicts.assessment import how_bad, is_healthy
from timtrack.tasks.verdicts.bands import Bands
from timtrack.tasks.verdicts.bit_equality import Certificate
from timtrack.tasks.verdicts.causes import TIMES_AS_FAR, Cause, Diagnosis
from timtrack.tasks.verdicts.sentences import link


def print_diagnosis(found: Diagnosis, bands: Bands, is_stored: bool) -> None:
    """How bad a step is, then each cause that fits: evidence, what decides, what to change.

    `is_stored`: the lake has the step, so a query over it is printed.
    """
    texts = [how_bad(found.facts, found.tables, bands), link(found.tables)]
    say(found.step.name)
    say_wrapped(*filter(None, texts))
    if not found.causes:
        _print_no_cause(is_healthy(found.facts, found.tables, bands))
    for place, cause in enumerate(found.causes, start=1):
        _print_cause(place, cause)
        if cause.look and is_stored:
            query = cause.look_at(found.step.run, found.step.step)
            say(f"   See it: {formatting.command(query)}")
    if found.causes:
        say_wrapped("", TIMES_AS_FAR)


def _print_no_cause(healthy: bool) -> None:
    if healthy:
        return say_wrapped("", "No known cause fits, and no number is outside its band.")
    unknown = (f"{one.id} {one.name}. {one.undecidable}" for one in undecidable())
    say_wrapped("", NO_CAUSE, *unknown, OR_OTHERS)


def _print_cause(place: int, cause: Cause) -> None:
    say_wrapped(
        "",
        f"{place}. {cause.name} ({cause.id}), confidence {cause.confidence:.2f} of 1"
        + (", by how the run's steps follow each other" if cause.scope == "run" else ""),
        f"   {cause.meaning}",
        *(f"   + {evidence.text}" for evidence in cause.evidence),
        *(f"   - {evidence.text}" for evidence in cause.against),
        *([f"   Looks alike: {cause.looks_alike}"] if cause.alike else []),
        f"   To be sure: {cause.experiment}",
        f"   Fix: {cause.fix}",
        *(f"     {framework}: {line}" for framework, line in cause.fixes.items()),
        f"   Seen in: {', '.join(cause.threads)}",
    )


NO_CAUSE = "No known cause fits. These cannot always be told from one step's log-probs:"
OR_OTHERS = (
    "Or it is weights, precision or layers (F10, F11, F21, F41, F42) in a way that leaves no "
    "signature, or something that has none yet. `tim referee` scores the tokens with the "
    "trainer's checkpoint and tells which engine is off."
)


def print_what_if(
    step: str, simulated: Mapping[str, pl.DataFrame], asked: list[str], form: str
) -> None:
    """The advice with how to set it, then every correction, those `asked` for marked."""
    table = simulated["corrections"]
    if form != "table":
        return print_frame(table, form)
    advice = advise(simulated)
    say(
        f"{step}: {advice.text}",
        "",
        "Weights act on r as captured, before the first update; what GSPO, DPPO or CISPO do to",
        "pi_new / pi_old is the same only where the old policy is the rollout's.",
        "",
    )
    if advice.config:
        print_wrapped(advice.config.items())
        say("")
    shown: dict[str, Callable[[dict[str, Any]], str]] = {
        "dropped": lambda row: formatting.share(row["frac_tok_dropped"]),
        "truncated": lambda row: formatting.share(
            row["frac_tok_truncated_high"] + row["frac_tok_truncated_low"]
        ),
        "mean weight": lambda row: formatting.number(row["weight_mean"]),
        "ESS tokens": lambda row: formatting.number(row["ess_token"]),
        "ESS rollouts": lambda row: formatting.number(row["ess_seq"]),
        "|A| kept": lambda row: formatting.number(row["adv_kept"]),
        "mean |c - r|": lambda row: formatting.number(row["bias_l1_vs_r"]),
        "not usable": lambda row: row["unusable"] or "",
    }
    rows = [
        [_marked(row["setting"], advice.setting, asked), *(cell(row) for cell in shown.values())]
        for row in table.to_dicts()
    ]
    print_table(["correction", *shown], rows)


def _marked(setting: str, best: str | None, asked: list[str]) -> str:
    return ("! " if setting == best else "> " if setting in asked else "  ") + setting


def print_pair(a: str, b: str, pair: Pair) -> None:
    """How two steps differ where they scored the same tokens."""
    say(f"{a} against {b}: {pair.text}")
    if pair.tokens.is_empty():
        say('the steps\' numbers side by side: tim sql "from run_pairs"')
        return
    say("")
    print_frame(step_diff.summary(pair.tokens), "table")
    say("", "widest differences between the trainers, b minus a:")
    print_frame(step_diff.widest(pair.tokens), "table")


def print_certificate(found: Certificate) -> None:
    """Whether the engines are bit-equal, and if not, by how much and where first."""
    equal = "equal in float32" if found.rounded else "zero-diff"
    said = "NOT bit-equal" if found.unequal else equal
    say(
        f"{found.run} step {found.step}: {said}, {found.unequal:,} of {found.tokens:,} trained "
        f"tokens unequal, in {found.unequal_rows:,} of {found.rows:,} rollouts"
    )
    if not found.unequal:
        return
    largest = f"{found.max_ulp:,} ULP of float32, {formatting.number(found.max_abs_diff)} nats"
    say(f"largest: {largest}", "", "tokens by distance in ULP:")
    histogram = [[name, f"{count:,}"] for name, count in found.ulp_histogram.items()]
    print_table(["ULP", "tokens"], histogram)
    places = ", ".join(f"{place['row']}:{place['pos']}" for place in found.first_unequal)
    say("", f"first unequal, row:pos: {places}", *_onset(found))


def _onset(found: Certificate) -> list[str]:
    """Where rows begin to be unequal, if several do so at one place."""
    onset = found.onset
    if onset is None or onset.share < 0.5:
        return []
    block = f", a multiple of {onset.block}" if onset.block else ""
    return [
        f"{formatting.share(onset.share)} of the unequal rollouts begin at token {onset.place} of "
        f"prompt and response{block}"
    ]


def print_certificates(found: Sequence[Certificate]) -> None:
    """Every step's inequality, and which was the first."""
    unequal = [one for one in found if one.unequal]
    run, steps = found[0].run, f"{len(found)} step{'s' * (len(found) > 1)}"
    if not unequal:
        say(f"{run}: zero-diff at all of {steps}, {found[0].step} to {found[-1].step}")
    else:
        first, last = unequal[0], unequal[-1]
        place = first.first_unequal[0]
        say(
            f"{run}: NOT bit-equal at {len(unequal)} of {steps}, first at step {first.step}, "
            f"row {place['row']} position {place['pos']}: "
            f"{formatting.share(first.unequal / first.tokens)} of its tokens, at step {last.step} "
            f"{formatting.share(last.unequal / last.tokens)}",
            *_onset(first),
        )
    rows = [
        [
            str(one.step),
            f"{one.tokens:,}",
            formatting.share(one.unequal / one.tokens),
            f"{one.max_ulp:,}",
            formatting.number(one.max_abs_diff),
        ]
        for one in found
    ]
    say("")
    print_table(["step", "tokens", "unequal", "max ULP", "max |ln r|"], rows)


def print_formats(readers: Iterable[Reader], form: str) -> None:
    """The readers: which files each takes in a folder, and how to have them written."""
    rows = [[reader.name, reader.files, reader.needs] for reader in readers]
    header = ["format", "files", "needs"]
    if form == "table":
        print_wrapped(rows, header)
    else:
        print_frame(pl.DataFrame(rows, header, orient="row"), form)


def print_inspection(found: Inspection) -> None:
    """What a file is, and what it lacks."""
    rows = [["format", found.format or "none that is read"], *map(list, found.facts.items())]
    print_wrapped(rows)
    say("")
    print_wrapped(found.fields.items(), ["field", "holds"])
    say(*(f"note: {note}" for note in found.notes))
    say("", f"cannot be read: {found.problem}" if found.problem else "can be read")


def print_tables(tables: Iterable[Table], form: str) -> None:
    """Tables by name, each with what it says."""
    by_name = sorted(tables, key=lambda table: table.name)
    if form == "table":
        print_wrapped([table.name, table.title] for table in by_name)
        return
    rows = [(table.name, ", ".join(table.grain), table.title) for table in by_name]
    print_frame(pl.DataFrame(rows, ["table", "grain", "text"], orient="row"), form)


def print_columns(table: Table, form: str) -> None:
    """The columns of a table."""
    if form == "table":
        say(table.title, f"One row for each: {', '.join(table.grain)}", "")
        print_wrapped(table.columns.items())
    else:
        columns = list(table.columns.items())
        print_frame(pl.DataFrame(columns, ["column", "text"], orient="row"), form)
