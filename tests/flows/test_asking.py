"""`tim sql`: what it reads, what a terminal shows, what files and programs get."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.cells import cell_len

from timtrack.flows.cli.main import main
from timtrack.flows.cli.screen.fit import fitted
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.messages import formatting
from timtrack.tasks.tables.query import run_query

ONE = "select run, step, kl_k1 from step_metrics"


@pytest.fixture
def tim(filled):
    return lambda *arguments: main(["--home", str(filled), *arguments])


@pytest.fixture
def expected(filled):
    return lambda sql: run_query(all_steps(filled / "lake"), sql)


def plain(text: str) -> list[str]:
    """The lines of a terminal's text, without styles."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


# A terminal


def test_a_table_that_fits_is_not_touched():
    found = fitted(["run", "kl"], [["a" * 30, "1"]], 34)
    assert (found.header, found.rows, found.hidden) == (["run", "kl"], [["a" * 30, "1"]], 0)


def test_long_texts_are_cut_before_columns_go_and_names_never():
    row = ["a-run-with-a-long-name-of-45-letters-for-all-i", "a text of very many words " * 3]
    found = fitted(["run", "text"], [row], 76)
    assert found.rows == [[row[0], "a text of very many wor…"]]
    assert found.hidden == 0


def test_columns_go_from_the_middle_and_are_counted():
    header = [f"column_{n}" for n in range(10)]
    found = fitted(header, [["1"] * 10] * 5, 50)
    assert found.header == ["column_0", "column_1", "…", "column_8", "column_9"]
    assert found.hidden == 6
    assert len("  ".join(found.header)) <= 50


def test_few_rows_of_very_many_columns_are_shown_one_by_one():
    header = [f"column_{n}" for n in range(100)]
    assert fitted(header, [["1"] * 100] * 3, 80) is None
    assert fitted(header, [["1"] * 100] * 4, 80).hidden == 93
    assert fitted(["a" * 50, "b" * 50], [["1", "2"]] * 9, 80) is None


def test_a_terminal_gets_40_rows_and_the_count_of_the_others(narrow, tim, capsys):
    narrow()
    assert tim("sql", "select i from range(52513) as t(i)") == 0
    lines = plain(capsys.readouterr().out)
    assert lines[:2] == ["i", "0"]
    assert lines[-2:] == ["39", "... 52,473 more rows"]


def test_exactly_40_rows_are_all(narrow, tim, capsys):
    narrow()
    assert tim("sql", "from range(40)") == 0
    assert plain(capsys.readouterr().out)[-1] == "39"


@pytest.mark.parametrize("table", ["worst_tokens", "tokens", "step_metrics", "captures"])
def test_no_line_of_a_table_is_wider_than_the_terminal(narrow, tim, expected, table, capsys):
    narrow()
    assert tim("sql", f"from {table} limit 4") == 0
    lines = plain(capsys.readouterr().out)
    columns = expected(f"from {table} limit 4").columns
    if lines[0].startswith("run:"):
        assert [line.split(":")[0] for line in lines if line][: len(columns)] == columns
    else:
        assert all(cell_len(line) <= 80 for line in lines)
        shown = lines[0].split()
        assert {*shown} - {"…"} <= {*columns}
        if "…" in shown:
            assert f"{len(columns) - len(shown) + 1} more columns" in " ".join(lines)


def test_a_step_s_metrics_are_a_line_each(narrow, tim, expected, capsys):
    narrow()
    assert tim("sql", "from step_metrics") == 0
    shown = dict(line.split(":", 1) for line in plain(capsys.readouterr().out))
    frame = expected("from step_metrics")
    assert list(shown) == frame.columns
    assert shown["kl_k3"].strip() == f"{frame['kl_k3'].item():.4g}"


def test_a_plan_is_drawn(narrow, tim, capsys):
    narrow()
    assert tim("sql", "explain select 1") == 0
    assert plain(capsys.readouterr().out)[0].startswith("╭")


def test_without_a_terminal_a_table_is_whole(tim, capsys):
    assert tim("sql", "select i, 'a text of many words, that no one cuts' from range(99) t(i)") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 100
    assert "no one cuts" in lines[-1]


def test_zero_has_no_sign(tim, capsys):
    assert formatting.number(-0.0) == "0"
    assert tim("sql", "select -0.0::float as z") == 0
    assert capsys.readouterr().out == "z\n0\n"


# What is read


def test_sql_comes_from_a_file_or_from_standard_input(tim, expected, tmp_path, monkeypatch, capsys):
    (tmp_path / "q.sql").write_text(f"-- a comment\n{ONE};\n")
    printed = []
    for arguments in (["-f", str(tmp_path / "q.sql")], ["-"], []):
        monkeypatch.setattr("sys.stdin", io.StringIO(ONE))
        assert tim("sql", *arguments, "--json") == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed == [expected(ONE).to_dicts()] * 3


@pytest.mark.parametrize("sql", ["", "  ", "-- nothing", ";"])
def test_no_sql_is_wrong_usage(tim, sql, capsys):
    assert tim("sql", sql) == 2
    assert "no statement in the SQL" in capsys.readouterr().err


def test_sql_that_cannot_be_read_is_wrong_usage(tim, tmp_path, monkeypatch, capsys):
    assert tim("sql", "-f", str(tmp_path / "nowhere.sql")) == 2
    assert "nowhere.sql" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert tim("sql") == 2
    assert "with -f FILE, or on standard input" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        tim("sql", "select 1", "-f", "q.sql")


# What is written


READ = {
    "csv": pl.read_csv,
    "json": pl.read_json,
    "jsonl": pl.read_ndjson,
    "parquet": pl.read_parquet,
}


@pytest.mark.parametrize("suffix", READ)
def test_a_file_holds_every_row_in_the_form_of_its_suffix(tim, expected, suffix, tmp_path, capsys):
    file = tmp_path / f"answer.{suffix}"
    sql = "select row, pos, logp_train::double as logp from tokens"
    assert tim("sql", sql, "-o", str(file)) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert_frame_equal(READ[suffix](file), expected(sql), check_dtypes=False)


def test_markdown_has_a_row_a_line_and_escapes_bars(tim, tmp_path):
    assert tim("sql", "select 'a|b' as \"|x|\", 1.5 as y", "-o", str(tmp_path / "a.md")) == 0
    lines = (tmp_path / "a.md").read_text().splitlines()
    assert lines == [r"| \|x\| | y |", "| --- | --- |", r"| a\|b | 1.5 |"]


def test_a_suffix_that_names_no_format_is_wrong_usage(tim, tmp_path, capsys):
    assert tim("sql", ONE, "-o", str(tmp_path / "a.xlsx")) == 2
    assert ".xlsx names no format; there are .csv, .json" in capsys.readouterr().err
    assert tim("sql", ONE, "-o", str(tmp_path / "a.csv"), "--format", "table") == 2
    assert "a table is for a terminal" in capsys.readouterr().err
    assert tim("sql", ONE, "-o", str(tmp_path / "a.xlsx"), "--format", "csv") == 0
    assert (tmp_path / "a.xlsx").read_text().startswith("run,step,kl_k1\n")


def test_parquet_goes_into_a_pipe_and_not_onto_a_terminal(tim, expected, capfdbinary, monkeypatch):
    assert tim("sql", ONE, "--format", "parquet") == 0
    assert_frame_equal(pl.read_parquet(capfdbinary.readouterr().out), expected(ONE))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert tim("sql", ONE, "--format", "parquet") == 2
    assert b"Parquet is not for a terminal" in capfdbinary.readouterr().err


def test_json_lines_hold_an_object_each(tim, expected, capsys):
    sql = "select row, pos from tokens limit 3"
    assert tim("sql", sql, "--format", "jsonl") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == expected(sql).to_dicts()


def test_a_copy_says_how_many_rows_it_wrote(tim, tmp_path, capsys):
    file = tmp_path / "out.csv"
    assert tim("sql", "--allow-files", f"copy (from range(1234)) to '{file}'") == 0
    assert capsys.readouterr().out == "1,234 rows copied\n"
    assert len(file.read_text().splitlines()) == 1235


@pytest.mark.slow
def test_ctrl_c_ends_a_query_with_one_line(filled):
    sql = "select count(*) from range(1000000) a, range(1000000) b, range(9) c where a.range < 9e9"
    command = [sys.executable, "-m", "timtrack.flows.cli", "--home", str(filled), "sql", sql]
    query = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not _is_busy(query.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    query.send_signal(signal.SIGINT)
    out, err = query.communicate(timeout=120)
    assert (query.returncode, out, err) == (130, "", "tim: interrupted\n")


IMPORTS = 6  # CPU seconds, more than they take


def _is_busy(pid: int) -> bool:
    """Whether it has computed for longer than it imports: the query runs.

    Python that is interrupted inside an `exec` of its imports ends by the signal itself (a shell
    says 130, `returncode` says -2).
    """
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_name[11]) / os.sysconf("SC_CLK_TCK") > IMPORTS  # the 14th field, in ticks
