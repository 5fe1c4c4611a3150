"""Terminal output of the verbs that answer a question."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from timtrack.flows.cli.printing import say
from timtrack.tasks.captures.inspection import Inspection
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages import formatting
from timtrack.tasks.messages.errors import printable
from timtrack.tasks.readers.reader import Reader
from timtrack.tasks.reports import step_diff, token_strip
from timtrack.tasks.reports.samples import Sample
from timtrack.tasks.reports.step_diff import Pair
from timtrack.tasks.tables.catalogue import Table
from timtrack.tasks.tables.causes import undecidable
from timtrack.tasks.verdicts.advice import advise
from timtrack.tasks.verdicts.bit_equality import Certificate
from timtrack.tasks.verdicts.causes import Cause

if TYPE_CHECKING:
    pass
from timtrack.flows.cli.screen.grids import grid, print_frame, print_grid


def print_causes(step: Step, causes: Sequence[Cause]) -> None:
    """Each cause that fits: what it is, the evidence, what decides, what to change."""
    if not causes:
        say(f"{step.name}: no known cause fits. {NO_CAUSE}", "")
        say(*(f"{one.id} {one.name}. {one.undecidable}" for one in undecidable()))
        return
    say(step.name)
    for place, cause in enumerate(causes, start=1):
        say(
            "",
            f"{place}. {cause.name} ({cause.id}), confidence {cause.confidence:.2f} of 1"
            + (", by how the run's steps follow each other" if cause.scope == "run" else ""),
            f"   {cause.sentence}",
            *(f"   + {evidence.text}" for evidence in cause.evidence),
            *(f"   - {evidence.text}" for evidence in cause.against),
            f"   To be sure: {cause.experiment}",
            f"   Fix: {cause.fix}",
            *(f"     {framework}: {line}" for framework, line in cause.fixes.items()),
            *(
                [f"   See it: {formatting.command(cause.look_at(step.run, step.step))}"]
                if cause.look
                else []
            ),
            f"   Seen in: {', '.join(cause.threads)}",
        )


NO_CAUSE = (
    "A healthy step has none, and not all causes are known. These cannot be told from one step's "
    "log-probs:"
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
        print_grid(grid([], [[framework, line] for framework, line in advice.config.items()]))
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
    print_grid(grid(["correction", *shown], rows))


def _marked(setting: str, best: str | None, asked: list[str]) -> str:
    return ("! " if setting == best else "> " if setting in asked else "  ") + setting


# Backgrounds of tokens by ln r, dark enough for white text: orange below 0, blue above.
BACKGROUNDS = {
    **{-1: "#4a3a20", -2: "#6b4a17", -3: "#8f5a08", -4: "#b35c00"},
    **{1: "#1f3a56", 2: "#1d4a7a", 3: "#175a9c", 4: "#0b66c2"},
}

TOKEN_TABLE = ("pos", "token", "rollout logp", "trainer logp", "diff", "p_rollout", "p_train", "r")
ROWS, AROUND = 50, 12  # of the token table: at first, or on either side of a position


def print_sample(sample: Sample, around: int | None) -> None:
    """A rollout as the report has it: header, response coloured by ln r, token table."""
    drawn = token_strip.drawn(sample)
    count = len(drawn["text"])
    start = 0 if around is None else max(0, min(around, count) - AROUND)
    end = min(count, ROWS if around is None else around + AROUND + 1)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)
    console.print(Text(printable(drawn["header"]), style="bold"))
    response = Text()
    for text, band in zip(drawn["text"], drawn["band"], strict=True):
        style = "dim" if band is None else f"white on {BACKGROUNDS[band]}" if band else ""
        response.append(text, style)
    console.print(response)
    say("")
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(TOKEN_TABLE):
        grid.add_column(name, justify="left" if index == 1 else "right", overflow="fold")
    for pos in range(start, end):
        numbers = (drawn["cells"][pos] or "|" * 5).split("|")
        cells = [Text(cell) for cell in (str(pos), drawn["repr"][pos], *numbers)]
        if drawn["out"][pos]:
            cells[-1].stylize("white on #a61b1b")
        marked = "bold" if pos == around else "red" if drawn["wide"][pos] else ""
        grid.add_row(*cells, style=marked)
    console.print(grid)
    if end < count:
        say(f"... {count - end} more tokens")


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
    print_grid(grid(["ULP", "tokens"], histogram))
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
    print_grid(grid(["step", "tokens", "unequal", "max ULP", "max |ln r|"], rows))


def print_formats(readers: Iterable[Reader]) -> None:
    """The readers: which files each takes in a folder, and how to have them written."""
    rows = [[reader.name, reader.files, reader.needs] for reader in readers]
    print_grid(grid(["format", "files", "needs"], rows))


def print_inspection(found: Inspection) -> None:
    """What a file is, and what it lacks."""
    rows = [["format", found.format or "none that is read"], *map(list, found.facts.items())]
    print_grid(grid([], rows))
    say("")
    print_grid(grid(["field", "holds"], [list(pair) for pair in found.fields.items()]))
    say(*(f"note: {note}" for note in found.notes))
    say("", f"cannot be read: {found.problem}" if found.problem else "can be read")


def print_headers(catalogue: dict[str, Table], name: str | None) -> None:
    """Every table with its title, or the columns of one."""
    if name is None:
        shown = (table for table in catalogue.values() if table.folder != "intermediate")
        by_name = sorted(shown, key=lambda table: table.name)
        print_grid(grid([], [[table.name, table.title] for table in by_name]))
    else:
        table = catalogue[name]
        say(table.title, f"One row for each: {', '.join(table.grain)}", "")
        print_grid(grid([], [[column, text] for column, text in table.columns.items()]))
