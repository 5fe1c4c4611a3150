"""`tim export`: the tables as views in a file that DuckDB opens without timtrack."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.given import batch_fields, ingest
from timtrack.flows.cli.main import main
from timtrack.tasks.lake.publish import prune_tokens, write_tables
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.tables import export
from timtrack.tasks.tables.catalogue import catalogue, sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import run_query

PUBLIC = [name for name, table in catalogue().items() if table.folder != "intermediate"]
ALONE = """
import json, sys
import duckdb
given = json.loads(sys.argv[1])
with duckdb.connect(given["file"], read_only=True) as database:
    if given["first"]:
        database.execute(given["first"])
    answers = [database.sql(sql).fetchall() for sql in given["asked"]]
assert not any(name.split(".")[0] in ("timtrack", "polars") for name in sys.modules)
print(json.dumps(answers, default=str))
"""


def alone(file, *asked, first=""):
    """The answers of a process that imports DuckDB and nothing else, in another folder."""
    given = json.dumps({"file": str(file), "asked": asked, "first": first})
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, given], capture_output=True, text=True, cwd="/", env=bare
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def counted(name: str) -> str:
    return f"select count(*) from {name}"


@pytest.fixture
def exported(filled, capsys):
    assert main(["--home", str(filled), "export"]) == 0
    file = filled / "timtrack.duckdb"
    assert capsys.readouterr().out == f"{file}\n"
    return file


def add_step(saved, home, number=4):
    fields = {**batch_fields(seed=number), "global_step": number}
    step = ingest(saved(fields, f"run-a/step_{number}/step_batch.pt"), home / "lake")
    write_tables(step, sql_version(), compute_step(step))


def test_every_public_table_answers_as_tim_sql_does(exported, saved, filled):
    add_step(saved, filled)
    steps = all_steps(filled / "lake")
    seen = alone(exported, *map(counted, PUBLIC))
    for name, [[count]] in zip(PUBLIC, seen, strict=True):
        assert count == run_query(steps, counted(name)).item(), name
    columns = ["run", "step", "kl_k3", "rows", "frac_outside_5"]
    sql = f"select {', '.join(columns)} from step_metrics order by step"
    assert alone(exported, sql)[0] == [list(row) for row in run_query(steps, sql).rows()]


def test_it_holds_views_and_macros_and_no_data(exported):
    with duckdb.connect(str(exported), read_only=True) as database:
        assert database.sql("from duckdb_tables()").fetchall() == []
        listed = database.sql(
            "select view_name, comment from duckdb_views() where not internal"
        ).fetchall()
    assert {*PUBLIC} <= {name for name, _ in listed}
    assert dict(listed)["step_metrics"] == catalogue()["step_metrics"].title


def test_steps_that_come_or_lose_their_tokens_need_no_other_export(exported, saved, filled):
    add_step(saved, filled)
    [first, _] = all_steps(filled / "lake")
    prune_tokens(first)
    metrics, tokens = "from step_metrics", "select distinct step from tokens"
    seen = alone(exported, f"select step {metrics} order by step", tokens)
    assert seen == [[[3], [4]], [[4]]]


def test_a_home_that_was_moved_is_named_by_a_variable_or_exported_again(exported, filled, tmp_path):
    moved = tmp_path / "it's [moved]"
    shutil.move(filled, moved)
    file, asked = moved / exported.name, counted("step_metrics")
    glob = str(moved).replace("[", "[[]")
    named = f"set variable timtrack_home = '{glob.replace(chr(39), chr(39) * 2)}'"
    assert alone(file, asked, first=named) == [[[1]]]
    assert main(["--home", str(moved), "export"]) == 0
    assert alone(file, asked) == [[[1]]]


def test_what_was_exported_stays_if_it_fails(exported, filled, monkeypatch):
    before = exported.read_bytes()
    monkeypatch.setattr(export, "_statements", lambda *_: ["create view a as select 1", "wrong"])
    with pytest.raises(export.NotExported, match="wrong"):
        export.write(filled, all_steps(filled / "lake"), exported)
    assert exported.read_bytes() == before
    assert [path.name for path in filled.glob("timtrack.duckdb*")] == [exported.name]


def test_it_can_be_made_again_while_it_is_open(exported, filled):
    with duckdb.connect(str(exported), read_only=True) as database:
        assert main(["--home", str(filled), "export"]) == 0
        assert database.sql(counted("step_metrics")).fetchall() == [(1,)]


def test_a_lake_without_steps_is_wrong_usage(tmp_path, capsys):
    assert main(["--home", str(tmp_path), "export", str(tmp_path / "x.duckdb")]) == 2
    assert "`tim ingest` puts them there" in capsys.readouterr().err
    assert not (tmp_path / "x.duckdb").exists()


def test_captures_are_all_that_a_capture_says(published):
    step, _ = published
    facts = step.facts()
    [row] = run_query([step], "from captures").to_dicts()
    assert json.loads(row.pop("meta")) == facts["meta"]
    assert row["model"] == facts["meta"]["model"]
    assert row["written_at"].timestamp() == pytest.approx(facts["mtime_ns"] / 1e9, abs=86400)
    same = ("run", "step", "source", "sha256", "bytes", "format", "tokenizer", "measurement")
    counts = ("rows", "tokens", "trained_tokens", "views", "notes", "vocabulary_size")
    assert {name: row[name] for name in (*same, *counts)} == {
        name: facts[name] for name in (*same, *counts)
    }
    assert row["capture"] == step.capture
    [(trainer,)] = run_query([step], "select meta ->> 'trainer' from captures").rows()
    assert trainer == facts["meta"]["trainer"]


def test_a_capture_s_path_may_be_no_utf_8(saved, tmp_path):
    path = saved(batch_fields(), "run-a/step_3/step_batch.pt")
    odd = Path(os.fsdecode(os.fsencode(path.parent) + b"\xff")) / path.name
    odd.parent.mkdir()
    path.rename(odd)
    step = ingest(odd, tmp_path / "lake", run="run-a", step=3)
    assert run_query([step], "select source from captures").item().endswith(r"\udcff/step_batch.pt")
