"""What `tim` shows in a terminal. Text from captures is never taken for markup, nor obeyed.

Free of Prefect, so that `tim sql` starts fast; flows/cli/progress.py shows a flow while it runs.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from timtrack.flows.cli.printing import as_it_is, complain, say
from timtrack.tasks import formatting
from timtrack.tasks.captures.inspection import Inspection
from timtrack.tasks.readers.reader import Reader
from timtrack.tasks.reports import cells, step_diff, token_strip
from timtrack.tasks.reports.samples import Sample
from timtrack.tasks.reports.step_diff import Pair
from timtrack.tasks.tables.catalogue import Table
from timtrack.tasks.tables.stored import stored_tables
from timtrack.tasks.verdicts import summary
from timtrack.tasks.verdicts.advice import advise
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bit_equality import Certificate

if TYPE_CHECKING:
    from timtrack.flows.analyse import Outcome
    from timtrack.flows.watch import Hindrance
    from timtrack.tasks.verdicts.alerts import Change

WIDE = 12  # columns from which a single row is shown on its side


def show(outcomes: list["Outcome"]) -> None:
    """The headline of each analysed step, one line each, then what failed and why."""
    analysed = [outcome for outcome in outcomes if outcome.step and not outcome.error]
    if len(analysed) == 1:
        _print(_grid([], [[name, value] for name, value in _headline(analysed[0]).items()]))
    elif analysed:
        _print(_grid(["run", "step", *summary.SHORT], [_line(outcome) for outcome in analysed]))
    if len(analysed) == 1:
        _tell_findings(analysed[0])
    _tell_notes(analysed)
    for outcome in outcomes:
        if outcome.error:
            complain(f"failed: {outcome.path}: {outcome.error}")
    if links := dict.fromkeys(outcome.link for outcome in analysed):
        served = "" if os.environ.get("MLFLOW_TRACKING_URI") else ", served by `tim ui`"
        say(f"MLflow{served}:", *(f"  {link}" for link in links))


def tell(outcome: "Outcome") -> None:
    """One line for one capture."""
    if outcome.error:
        complain(f"failed: {outcome.path}: {outcome.error}")
    else:
        numbers = zip(summary.SHORT, _line(outcome)[2:], strict=True)
        said = ", ".join(f"{name} {value}" for name, value in numbers)
        again = ", taken again, in place of what was there" if outcome.is_again else ""
        say(f"{_named(outcome)}{again}: {said}")


def _named(outcome: "Outcome") -> str:
    """Run and step; in quotes where the name could be taken for the beginning of a message."""
    if outcome.step is None:
        return ""
    plain = re.fullmatch(r"[\w./@+~-]+( [\w./@+~-]+)*", outcome.step.run)
    return outcome.step.name if plain else f"{outcome.step.run!r} step {outcome.step.step}"


def tell_hindrance(hindrance: "Hindrance", is_last: bool) -> None:
    """One line for a sweep that could not be made."""
    error = hindrance.error
    again = "given up" if is_last else f"tried again in {hindrance.pause:.0f} s"
    complain(f"no sweep: {type(error).__name__}: {error}; {again}")


def tell_change(change: "Change") -> None:
    """One line for one run that is worse or better than it was."""
    say(f"{change.now.level.upper()}: {change.text} (was {change.before})")


def print_frame(frame: pl.DataFrame, form: str) -> None:
    """A query's answer: a table that fits the terminal, or all of it as CSV or JSON."""
    if not frame.width:
        return
    if form == "csv":
        as_it_is(_csv(frame))
    elif form == "json":
        as_it_is(formatting.as_json(frame.to_dicts(), default=str, indent=1) + "\n")
    elif len(frame) == 1 and frame.width >= WIDE:
        row = frame.row(0, named=True)
        _print(_grid([], [[name, _cell(value)] for name, value in row.items()]))
    else:
        _print(_grid(frame.columns, [[_cell(value) for value in row] for row in frame.iter_rows()]))


def _csv(frame: pl.DataFrame) -> str:
    """A query's answer as CSV: the data as they are, for a file or another program.

    Nothing is added for spreadsheets, as in MLflow's tables (tasks/reports/cells.py): a program
    that reads it would take that for data. Only on a terminal, where text could act and nothing
    is read back, it is escaped.
    """
    flat = _flat(frame)
    if not sys.stdout.isatty():
        return flat.write_csv()
    names = pl.DataFrame([list(map(formatting.printable, flat.columns))], orient="row")
    shown = (names, cells.legible(flat))
    return "".join(part.write_csv(include_header=False) for part in shown)


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists as JSON text, which CSV can hold."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    texts = [
        pl.Series(n, [formatting.as_json(v, default=str) for v in frame[n].to_list()])
        for n in nested
    ]
    return frame.with_columns(texts)


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
        _print(_grid([], [[framework, line] for framework, line in advice.config.items()]))
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
    _print(_grid(["correction", *shown], rows))


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
    console.print(Text(formatting.printable(drawn["header"]), style="bold"))
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
    _print(_grid(["ULP", "tokens"], histogram))
    places = ", ".join(f"{place['row']}:{place['pos']}" for place in found.first_unequal)
    say("", f"first unequal, row:pos: {places}")


def print_formats(readers: Iterable[Reader]) -> None:
    """The readers: which files each takes in a folder, and how to have them written."""
    rows = [[reader.name, reader.files, reader.needs] for reader in readers]
    _print(_grid(["format", "files", "needs"], rows))


def print_inspection(found: Inspection) -> None:
    """What a file is, and what it lacks."""
    rows = [["format", found.format or "none that is read"], *map(list, found.facts.items())]
    _print(_grid([], rows))
    say("")
    _print(_grid(["field", "holds"], [list(pair) for pair in found.fields.items()]))
    say(*(f"note: {note}" for note in found.notes))
    say("", f"cannot be read: {found.problem}" if found.problem else "can be read")


def print_headers(catalogue: dict[str, Table], name: str | None) -> None:
    """Every table with its title, or the columns of one."""
    if name is None:
        by_name = sorted(catalogue.values(), key=lambda table: table.name)
        _print(_grid([], [[table.name, table.title] for table in by_name]))
    else:
        table = catalogue[name]
        say(table.title, f"One row for each: {', '.join(table.grain)}", "")
        _print(_grid([], [[column, text] for column, text in table.columns.items()]))


def _headline(outcome: "Outcome") -> dict[str, str]:
    assert outcome.step
    numbers = summary.metrics(stored_tables(outcome.step))
    where = {"run": outcome.step.run, "step": str(outcome.step.step)}
    return {**where, **summary.headline(numbers)}


def _line(outcome: "Outcome") -> list[str]:
    assert outcome.step
    numbers = summary.metrics(stored_tables(outcome.step))
    printed = [summary.HEADLINE[name](numbers[name]) for name in summary.SHORT]
    return [outcome.step.run, str(outcome.step.step), *printed]


def _tell_findings(outcome: "Outcome") -> None:
    """What the diagnoses say, what matters marked."""
    assert outcome.step
    assessment = assess(outcome.step.facts(), stored_tables(outcome.step))
    say("", f"{assessment.status.upper()}: {assessment.text}", "")
    say(*(f"{'!' if finding.matters else '-'} {finding.text}" for finding in assessment.findings))
    say("")


def _tell_notes(analysed: list["Outcome"]) -> None:
    """What is to be known of the captures, each note once."""
    said: dict[str, list[str]] = {}
    for outcome in analysed:
        assert outcome.step
        for note in outcome.step.facts()["notes"]:
            said.setdefault(note, []).append(outcome.step.name)
    for note, names in said.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        say(f"note: {names[0]}{more}: {note}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return formatting.number(value)
    if isinstance(value, str):
        return value if formatting.printable(value) == value else repr(value)
    return "–" if value is None else str(value)


def _grid(header: list[str], rows: list[list[str]]) -> Grid:
    """Columns of plain text; without a header, the first column names the rows."""
    grid = Grid(box=None, pad_edge=False, show_header=bool(header), padding=(0, 3, 0, 0))
    for index in range(len(header or rows[0])):
        grid.add_column(
            _text(header[index]) if header else "", style="" if header or index else "bold"
        )
    for row in rows:
        grid.add_row(*map(_text, row))
    return grid


def _text(cell: str) -> Text:
    return Text(formatting.printable(cell))


def _print(grid: Grid) -> None:
    """At the terminal's width; when the output goes to a file, as wide as it needs."""
    console = Console()
    wide = console if console.is_terminal else Console(width=10_000)
    with wide.capture() as captured:
        wide.print(grid)
    as_it_is("".join(f"{line.rstrip()}\n" for line in captured.get().split("\n")[:-1]))
