"""`tim sql` reads the lake and nothing else, and every path means itself."""

from pathlib import Path

import polars as pl
import pytest

from tests.given import batch_fields, ingest
from timtrack.flows.cli.main import main
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.lake.steps import token_files
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.tables.read_only import file_list
from timtrack.tasks.tables.stored import stored_tables, tables_folder
from timtrack.tasks.verdicts import bit_equality


@pytest.fixture
def analysed(saved, home):
    step = ingest(saved(batch_fields()), home / "lake")
    write_tables(step, sql_version(), compute_step(step))
    return step


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    "query",
    [
        "copy (select 1 as x) to '{table}' (format parquet)",
        "copy (select 1 as x) to '{elsewhere}'",
        "explain analyze copy (select 1) to '{elsewhere}'",
        "EXPLAIN  (analyze) copy (select 1) to '{elsewhere}'",
        "select 1; copy (select 1) to '{elsewhere}'",
        "attach '{elsewhere}'",
        "install httpfs",
        "load parquet",
        "set enable_external_access = true",
        "export database '{elsewhere}'",
        "create table x as select 1",
        "prepare p as copy (select 1) to '{elsewhere}'",
        "call pragma_version()",
        "from read_csv('{secret}')",
        "from read_text('{secret}')",
        "from glob('/*')",
        "from '{secret}'",
        "select * from query('copy (select 1) to ''{elsewhere}''')",
    ],
)
def test_a_query_that_does_more_than_read_the_lake_is_refused(
    query, analysed, home, tmp_path, capsys
):
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    table = tables_folder(analysed) / "step_metrics.parquet"
    before = contents(tmp_path)
    filled = query.format(table=table, elsewhere=tmp_path / "new", secret=secret)
    assert main(["--home", str(home), "sql", filled]) == 2
    assert capsys.readouterr().err.startswith("tim: ")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "query",
    [
        "select kl_k3 from step_metrics",
        "from tokens limit 3",
        "with a as (from step_metrics) select count(*) from a",
        "describe step_metrics",
        "summarize step_metrics",
        "explain select 1",
        "explain analyze select count(*) from tokens",
        "pivot ratio_histogram on step using sum(tokens)",
        "values (1)",
        "from duckdb_columns() limit 1",
    ],
)
def test_what_only_reads_is_answered(query, analysed, home, capsys):
    assert main(["--home", str(home), "sql", query]) == 0
    assert capsys.readouterr().out


def test_files_are_written_when_asked_for(analysed, home, tmp_path):
    query = f"copy (select kl_k3 from step_metrics) to '{tmp_path / 'out.csv'}'"
    assert main(["--home", str(home), "sql", "--allow-files", query]) == 0
    assert (tmp_path / "out.csv").read_text().startswith("kl_k3\n")


@pytest.mark.parametrize(
    ("name", "other"), [("exp[1]", "exp1"), ("a*b", "axb"), ("q?", "qz"), ("it's", "its")]
)
def test_a_home_reads_its_own_files_whatever_its_name(name, other, saved, tmp_path):
    """The other home's path is what the first one's would match as a pattern."""
    steps = {}
    for seed, folder in enumerate((name, other)):
        fields = batch_fields(seed=seed, gap=0.1 * (seed + 1))
        steps[folder] = ingest(saved(fields, f"{seed}/step_3/step_batch.pt"), tmp_path / folder)
        write_tables(steps[folder], sql_version(), compute_step(steps[folder]))
    own, theirs = (
        run_query([steps[folder]], "select kl_k3 from step_metrics")["kl_k3"].to_list()
        for folder in (name, other)
    )
    assert own == stored_tables(steps[name])["step_metrics"]["kl_k3"].to_list() != theirs
    tokens = run_query(
        [steps[name]], "select count(*) as n, count(distinct run) as runs from tokens"
    )
    assert tokens.row(0) == (steps[name].facts()["tokens"], 1)
    assert bit_equality.of(steps[name]).tokens == steps[name].facts()["trained_tokens"]


def test_a_list_of_files_is_sql_that_names_only_them():
    assert file_list([Path("/a[1]/it's*.parquet")]) == "['/a[[]1[]]/it''s[*].parquet']"


@pytest.mark.parametrize("size", [2**63, 2**31 + 1, -1, 10**40])
def test_a_vocabulary_beyond_any_is_not_believed(size, saved, to_lake):
    """It would not fit the table of all captures, and no query of any run would be answered."""
    fields = {**batch_fields(), "vocab_size": size}
    step = to_lake(saved(fields))
    other = to_lake(saved(batch_fields(seed=1), "b/step_1/step_batch.pt"))
    assert step.facts()["vocabulary_size"] is None
    answer = run_query([step, other], "select run, worse_than_uniform from context_blindness")
    assert answer["run"].n_unique() == 2


def test_frames_of_home_made_tables_with_odd_names_are_read(tmp_path):
    from tests import formats

    path = formats.home_made(tmp_path / "exp[1]", formats.a_batch(), "parquet")
    formats.home_made(tmp_path / "exp1", formats.a_batch(seed=9), "parquet")
    step = ingest(path, tmp_path / "lake", step=7, columns=formats.COLUMNS)
    assert isinstance(pl.read_parquet(token_files(step), glob=False), pl.DataFrame)
    assert step.facts()["rows"] == len(formats.a_batch()["responses"])
