"""The verbs that need no flow."""

import csv
import io
import json
import subprocess
import sys
from importlib.metadata import version

import polars as pl
import pytest

from tests.given import batch_fields
from timtrack.flows.cli.main import main
from timtrack.tasks.lake.publish import prune_tokens
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.tables.catalogue import WHEN_ASKED, catalogue
from timtrack.tasks.tables.database import open_inputs
from timtrack.tasks.tables.query import BadQuery, run_query
from timtrack.tasks.tables.stored import stored_tables, tables_folder


def test_tim_alone_shows_the_runs_of_the_home(filled, tmp_path, capsys):
    [step] = all_steps(filled / "lake")
    [kl_k3] = run_query([step], "select kl_k3 from step_metrics").row(0)
    assert main(["--home", str(filled)]) == 0
    shown = capsys.readouterr().out
    assert step.run in shown and f"{kl_k3:.4g}" in shown
    assert main(["--home", str(filled), "runs", "--format", "json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["run"], row["steps"], row["last"]) == (step.run, 1, step.step)
    assert row["kl_k3"] == kl_k3
    assert main(["--home", str(tmp_path / "nothing")]) == 0
    assert "tim ingest step_batch.pt" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"timtrack {version('timtrack')}\n"


def test_sql_answers_in_three_forms(filled, capsys):
    query = "select step, kl_k1 from step_metrics"
    [(step, kl_k1)] = run_query(all_steps(filled / "lake"), query).rows()
    printed = {}
    for form in ("table", "csv", "json"):
        assert main(["--home", str(filled), "sql", query, "--format", form]) == 0
        printed[form] = capsys.readouterr().out
    assert printed["table"].split() == ["step", "kl_k1", str(step), f"{kl_k1:.4g}"]
    [row] = csv.DictReader(io.StringIO(printed["csv"]))
    assert float(row["kl_k1"]) == kl_k1
    assert json.loads(printed["json"]) == [{"step": step, "kl_k1": kl_k1}]


def test_every_table_answers_over_the_lake(filled):
    # Not captured; no shared prefixes; no rollout of several turns; nothing wrong; one step.
    without = {"gap_by_entropy", "entropy_edges", "noise_floor", "token_turns", "causes"}
    without |= {"step_gain"}  # a view of the sampler after the step
    without |= {"cause_text", "token_texts"}  # a tokenizer
    without |= {"cause_routing", "expert_overlap", "gap_by_expert_changes", "gap_by_kept"}
    without |= {"replayed_tokens", "routed_tokens", "sampling_replay"}
    without |= {"top_k_agreement", "top_k_tokens"}
    later = {t.name for t in catalogue().values() if t.folder in WHEN_ASKED} - {"run_trend"}
    for name in catalogue():
        table = run_query(all_steps(filled / "lake"), f"from {name}")
        assert len(table) or name in without | later


def test_tables_are_found_however_they_are_written(filled):
    steps = all_steps(filled / "lake")
    assert run_query(steps, "select Step from STEP_METRICS").rows() == [(steps[0].step,)]


def test_tables_of_older_sql_lack_columns_not_answers(filled):
    """Of a pruned step nothing better can be had."""
    [step] = all_steps(filled / "lake")
    prune_tokens(step)
    folder = tables_folder(step)
    older = pl.read_parquet(folder / "step_metrics.parquet").drop("kl_k1_se")
    older.write_parquet(folder / "step_metrics.parquet")
    (folder / "culprits.parquet").unlink()
    folder.rename(folder.with_name("tables-0123456789ab"))
    [(se,)] = run_query([step], "select se from run_trend where metric = 'kl_k1'").rows()
    assert se is None
    assert len(run_query([step], "from culprits")) == 0
    assert len(run_query([step], "show tables")) > 40
    flags = stored_tables(step)["causes"].select("needs", "supports", "contradicts")
    assert flags.equals(flags.clear(len(flags)))  # of other conditions than the present ones


@pytest.mark.parametrize(
    ("name", "value"), [("TIMTRACK_RUNNER", "bogus"), ("TIMTRACK_PARITY", "typo")]
)
def test_a_wrong_environment_is_wrong_usage(name, value, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(name, value)
    assert main(["--home", str(tmp_path / "home"), "watch", str(tmp_path), "--once"]) == 2
    assert value in capsys.readouterr().err


def test_stored_tables_are_read_not_computed_again(filled):
    """Trends over many steps must not scan tokens."""
    [step] = all_steps(filled / "lake")
    (step.path / "tokens.parquet").unlink()
    assert len(run_query([step], "from step_metrics")) == 1


def test_wrong_sql_is_wrong_usage(filled, capsys):
    assert main(["--home", str(filled), "sql", "select kl from step_metrics"]) == 2
    assert 'tim: Binder Error: Referenced column "kl" not found' in capsys.readouterr().err


def test_an_empty_lake_says_how_to_fill_it(home, capsys):
    assert main(["--home", str(home), "sql", "select 1"]) == 2
    assert "`tim ingest` puts them there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "nowhere"], "nowhere does not exist"),
        (["ingest", "."], "no capture under .; `tim formats` says"),
        (["tables", "nothing"], "no table nothing; there are"),
    ],
)
def test_wrong_usage_is_told(home, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path / "home")
    (home / "mlflow.db").unlink()
    assert main(["--home", str(home), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_one_step_for_many_captures_is_wrong_usage(saved, home, tmp_path, capsys):
    for n in (1, 2):
        saved(batch_fields(), f"run/step_{n}/step_batch.pt")
    assert main(["--home", str(home), "ingest", str(tmp_path / "run"), "--step", "5"]) == 2
    assert "--step 5 names one capture, but 2 were found" in capsys.readouterr().err


def test_tables_lists_names_and_columns(capsys):
    assert main(["tables"]) == 0
    out = capsys.readouterr().out
    shown = {line.split()[0] for line in out.splitlines() if line[0] != " "}
    intermediate = {name for name, t in catalogue().items() if t.folder == "intermediate"}
    assert catalogue().keys() - intermediate <= shown
    assert not shown & intermediate
    assert main(["tables", "step_metrics"]) == 0
    out = capsys.readouterr().out
    assert "One row for each: run, step" in out
    assert "kl_k3" in out


def test_text_of_captures_is_not_markup(capsys):
    from timtrack.flows.cli.screen.frames import print_frame

    print_frame(__import__("polars").DataFrame({"token": ["[red]x[/]", "a\x1b[31m"]}), "table")
    assert capsys.readouterr().out.split() == ["token", "[red]x[/]", "'a\\x1b[31m'"]


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom timtrack.flows.cli.main import main\n"
    code += "try: main(['--help'])\nexcept SystemExit: pass\n"
    code += (
        "heavy = {'prefect', 'mlflow', 'torch', 'polars', 'duckdb', 'altair'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "; sys.exit(str(heavy) if heavy else 0)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout


def test_sql_imports_neither_prefect_nor_mlflow_nor_torch(filled):
    code = (
        "import sys; from timtrack.flows.cli.main import main;"
        "main(['--home', sys.argv[1], 'sql', 'select 1']);"
        "heavy = {'prefect', 'mlflow', 'torch', 'altair'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-c", code, str(filled)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_answers_that_are_hard_to_print(filled, capsys):
    """Lists in CSV, infinity in JSON."""
    home = ["--home", str(filled), "sql"]
    assert main([*home, "select [1, 2] as ids", "--format", "csv"]) == 0
    assert capsys.readouterr().out == 'ids\n"[1, 2]"\n'
    assert main([*home, "select 'inf'::double as r", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"r": None}]


@pytest.mark.parametrize("size", ["lots", "512", "-1GB", "1GB; drop"])
def test_memory_that_is_no_size_is_wrong_usage(size, monkeypatch, capsys):
    monkeypatch.setenv("TIMTRACK_MEMORY", size)
    assert main(["formats"]) == 2
    assert f"TIMTRACK_MEMORY is {size!r}, expected a size like 512MiB" in capsys.readouterr().err


def test_queries_hold_no_more_than_they_are_given(monkeypatch):
    monkeypatch.setenv("TIMTRACK_MEMORY", "64MiB")
    with open_inputs([]) as connection:
        [(limit,)] = connection.sql("select current_setting('memory_limit')").fetchall()
    assert limit == "64.0 MiB"


def test_a_query_opens_only_what_it_names(filled):
    """Of hundreds of steps, the token files are not touched to read a table."""
    [step] = all_steps(filled / "lake")
    (step.path / "tokens.parquet").write_bytes(b"no Parquet")
    assert run_query([step], "select rows from step_metrics")["rows"].to_list() == [6]
    with pytest.raises(BadQuery, match=r"tokens\.parquet"):
        run_query([step], "select count(*) from tokens")
