"""One rollout in a terminal, token by token."""

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from timtrack.flows.cli.printing import say
from timtrack.tasks.messages.errors import printable
from timtrack.tasks.reports import token_strip
from timtrack.tasks.reports.samples import Sample

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
