"""What others wrote cannot act on a terminal or a log, nor begin a line in it."""

import ast
import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from rich.progress import Progress

import timtrack.flows
from tests.given import ACTING, SHOWN, batch_fields, ingest
from timtrack.flows.cli import printing
from timtrack.flows.cli.main import main
from timtrack.flows.cli.screen import outcomes
from timtrack.flows.cli.screen.answers import print_inspection
from timtrack.flows.cli.screen.frames import print_frame
from timtrack.flows.cli.screen.outcomes import show_outcomes, tell, tell_change
from timtrack.flows.cli.screen.progress import COLUMNS
from timtrack.flows.cli.screen.sample import print_sample
from timtrack.flows.outcomes import Outcome
from timtrack.tasks.backlog import quarantine
from timtrack.tasks.captures import inspection
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import BadCapture, printable
from timtrack.tasks.reports import samples
from timtrack.tasks.verdicts.alerts import Change
from timtrack.tasks.verdicts.bands import OURS
from timtrack.tasks.verdicts.standing import Status


def lines_of(text: str) -> list[str]:
    """Lines as a terminal or a log has them; none may hold anything that acts."""
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    assert all(line.isprintable() for line in lines), lines
    return lines


@pytest.fixture
def step(saved, home):
    """A step in the home's lake."""
    return ingest(saved(batch_fields()), home / "lake")


def test_what_acts_or_hides_is_escaped_as_python_does():
    assert printable(ACTING) == SHOWN
    assert repr(ACTING)[1:-1] == SHOWN


@pytest.mark.parametrize("text", ["模型 한국어", "👩‍🔬 👍🏽 ❤️‍🔥", "e\u0301 नि", "C:\\new", "–", ""])
def test_what_can_be_read_stays(text):
    assert printable(text) == text


def test_a_joiner_joins_emoji_only():
    assert printable("run\u200d-a") == r"run\u200d-a"


def test_a_failed_capture_is_one_line_whatever_it_is_called(capsys):
    outcome = Outcome(Path(ACTING), error=BadCapture(ACTING))
    tell(outcome)
    show_outcomes([outcome], OURS)
    assert lines_of(capsys.readouterr().err) == [f"failed: {SHOWN}: {SHOWN}"] * 2


def test_a_change_is_one_line(capsys):
    status = Status("critical", 3, (ACTING,))
    tell_change(Change(ACTING, "healthy", status))
    [line] = lines_of(capsys.readouterr().out)
    assert line.startswith(f"CRITICAL: {SHOWN} is critical since step 3: {SHOWN}")


def test_more_lines_of_an_error_are_set_in(capsys):
    printing.complain("tim: wrong", "failed: all", "")
    assert capsys.readouterr().err == "tim: wrong\n  failed: all\n\n"


def test_nothing_is_printed_past_the_one_place():
    past = []
    for file in Path(timtrack.flows.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                past += [file.name] * (node.func.id == "print")
    assert set(past) == {"printing.py"}


def test_inspect_shows_names_of_fields_and_notes_in_lines(saved, capsys):
    fields = {**batch_fields(), ACTING: 1.0, "a\x1b[2J_log_probs": [1.0], "model": ACTING}
    path = saved(fields, "run/step_3/step_batch\x1b[2J\nx.pt")
    assert main(["inspect", str(path)]) == 0
    lines = lines_of(capsys.readouterr().out)
    assert any(line.startswith(SHOWN) for line in lines)
    assert any(line.startswith(r"note: a\x1b[2J_log_probs has no number") for line in lines)


def test_an_inspection_of_what_cannot_be_read_is_in_lines(capsys):
    found = inspection.Inspection(None, {"with": ACTING}, {ACTING: ACTING}, (ACTING,), ACTING)
    print_inspection(found)
    assert lines_of(capsys.readouterr().out)[-1] == f"cannot be read: {SHOWN}"


@pytest.mark.parametrize("arguments", [["inspect", ACTING], ["inspect", "x", f"--{ACTING}"]])
def test_wrong_usage_quotes_in_one_line(arguments, capsys):
    try:
        assert main(arguments) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert SHOWN in lines_of(capsys.readouterr().err)[-1]


def test_status_tells_of_captures_set_aside_in_lines(tmp_path, home, capsys):
    bad = tmp_path / "runs" / "step_1" / "step_batch\x1b[2J\nfound  9.pt"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"nonsense")
    quarantine.add(home, Source(bad), ACTING)
    told = ["--home", str(home), "status", str(bad.parents[1])]
    assert main(told) == 0
    assert lines_of(capsys.readouterr().out)[-1].endswith(f", tried once): {SHOWN}")
    assert main([*told, "--json"]) == 0
    printed = capsys.readouterr().out
    lines_of(printed)
    assert json.loads(printed)["quarantine"][0]["path"] == str(bad)


def test_a_progress_bar_takes_no_name_for_markup():
    screen_of = io.StringIO()
    console = Console(file=screen_of, force_terminal=True, width=200)
    with Progress(*COLUMNS, console=console) as progress:
        progress.add_task("[/b] of [red]x", total=1)
    assert "[/b] of [red]x" in screen_of.getvalue()


def test_a_rollouts_header_is_printable(step, capsys):
    sample = samples.read(step, [0])[0]
    token = pl.Series("token", [ACTING[:10]] * len(sample.tokens))
    odd = replace(sample, facts={**sample.facts, "uid": "\x1b[2J\n"}, tokens=sample.tokens)
    print_sample(replace(odd, tokens=odd.tokens.with_columns(token)), None)
    assert lines_of(capsys.readouterr().out)[0].startswith(r"row 0 · uid '\x1b[2J\n' · ")


# tim sql


HARD = pl.DataFrame({"a\x1b[2J": ["x\x1b[2J\nfailed: y", None, "=1+1", "-2"], "n": [1, -2, 3, 4]})


def test_a_query_s_table_is_escaped_in_headers_and_cells(capsys):
    print_frame(HARD, "table")
    lines = lines_of(capsys.readouterr().out)
    assert len(lines) == 1 + len(HARD)
    assert lines[0].startswith(r"a\x1b[2J")
    assert lines[1].startswith(r"'x\x1b[2J\nfailed: y'")


def test_csv_holds_the_data_when_a_program_reads_it(capsys):
    print_frame(HARD, "csv")
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))
    assert rows[0] == HARD.columns
    assert [row[0] or None for row in rows[1:]] == HARD["a\x1b[2J"].to_list()


def test_csv_on_a_terminal_is_escaped(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    print_frame(HARD, "csv")
    lines = lines_of(capsys.readouterr().out)
    assert lines == [r"a\x1b[2J,n", r"x\x1b[2J\nfailed: y,1", ",-2", "=1+1,3", "-2,4"]


def test_json_is_strict_and_shows_in_a_terminal(capsys):
    print_frame(pl.DataFrame({"a\x7f": ["\x1b\x7f\u202e"], "r": [float("nan")]}), "json")
    printed = capsys.readouterr().out
    lines_of(printed)
    assert printed.isascii()
    assert json.loads(printed) == [{"a\x7f": "\x1b\x7f\u202e", "r": None}]


def test_an_error_that_quotes_data_begins_no_line(step, home, capsys):
    query = "select 'x' || chr(10) || 'failed: y' || chr(27)"
    assert main(["--home", str(home), "sql", f"select cast(({query}) as int)"]) == 2
    lines = lines_of(capsys.readouterr().err)
    assert lines[0].startswith("tim: ")
    assert not any(line.startswith("failed") for line in lines)


@pytest.mark.parametrize(
    ("run", "shown"),
    [
        ("my-run.2 (a)", "'my-run.2 (a)' step 3"),
        ("my-run.2", "my-run.2 step 3"),
        ("lauf ü", "lauf ü step 3"),
        ("failed: x.pt: damaged", "'failed: x.pt: damaged' step 3"),
        (" ", "' ' step 3"),
    ],
)
def test_a_run_is_not_called_as_a_message_begins(run, shown):
    outcome = Outcome(Path("x"), Step(run, 3, "c", Path("y")))
    assert outcomes._named(outcome) == shown
