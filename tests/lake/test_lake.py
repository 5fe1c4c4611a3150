"""The lake: whole steps or none, the same capture once, a changed one in place of the old."""

import json
import multiprocessing
from pathlib import Path

import polars as pl
import pytest

from tests.given import batch_fields, ingest
from tests.given_lake import files
from timtrack.tasks.captures.capture import identify
from timtrack.tasks.captures.source import Source
from timtrack.tasks.hook import write_step_batch
from timtrack.tasks.lake import publish
from timtrack.tasks.lake.publish import BadPlace, settle_step, write_step, write_tables
from timtrack.tasks.lake.steps import all_steps, find_step
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.tables.stored import are_computed
from timtrack.tasks.tokens.table import SCHEMA_VERSION


def test_a_step_says_where_it_came_from(saved, to_lake):
    path = saved(batch_fields())
    step = to_lake(path)
    facts = step.facts()
    assert facts["source"] == str(path)
    assert facts["sha256"] == identify(Source(path)).sha256
    assert facts["bytes"] == path.stat().st_size
    assert (facts["format"], facts["run"], facts["step"]) == ("step_batch", "run-a", 3)
    assert facts["rows"] == 6
    assert facts["tokens"] == len(pl.read_parquet(step.path / "tokens.parquet"))
    assert facts["measurement"] == "measured"


def test_the_same_capture_again_changes_nothing(saved, to_lake, tmp_path):
    path = saved(batch_fields())
    to_lake(path)
    before = files(tmp_path / "lake")
    to_lake(path)
    assert files(tmp_path / "lake") == before
    assert find_step(tmp_path / "lake", identify(Source(path))) is not None


def test_a_changed_capture_replaces_the_step_whole(saved, to_lake, tmp_path):
    first = to_lake(saved(batch_fields(seed=1)))
    write_tables(first, sql_version(), compute_step(first))
    second = to_lake(saved(batch_fields(seed=2)))
    assert all_steps(tmp_path / "lake") == [second]
    assert not first.path.exists()
    left = (tmp_path / "lake" / ".staging").iterdir()
    assert not [path for path in left if path.suffix != ".lock"]


def test_while_two_captures_of_a_step_are_visible_the_newer_counts(
    saved, to_lake, tmp_path, monkeypatch
):
    """What a reader sees between the new capture's arrival and the old one's removal."""
    monkeypatch.setattr(publish, "discard", lambda *_: None)
    to_lake(saved(batch_fields(seed=1)))
    second = to_lake(saved(batch_fields(seed=2)))
    assert all_steps(tmp_path / "lake") == [second]
    [count] = run_query(all_steps(tmp_path / "lake"), "select count(*) from tokens").row(0)
    assert count == second.facts()["tokens"]


def test_a_capture_that_changes_while_it_is_read_is_not_published(saved, tmp_path):
    path = saved(batch_fields(seed=1))
    capture = identify(Source(path))
    batch = Source(path).open()
    saved(batch_fields(seed=2, rows=8))
    with pytest.raises(BadCapture, match="changed while it was read"):
        write_step(tmp_path / "lake", capture, batch)
    assert not all_steps(tmp_path / "lake")


def test_names_of_runs_may_hold_anything(saved, to_lake, tmp_path):
    name = "grpo/lr=1e-6 ü%20.."
    step = to_lake(saved(batch_fields()), run=name)
    assert all_steps(tmp_path / "lake") == [step]
    assert step.path.is_relative_to(tmp_path / "lake")
    assert run_query([step], "select distinct run from tokens").item() == name


def test_runs_and_steps_are_columns_of_every_view(saved, to_lake, tmp_path):
    for run, number in (("a", 1), ("a", 10), ("b", 1)):
        step = to_lake(saved(batch_fields(seed=number)), run=run, step=number)
        write_tables(step, sql_version(), compute_step(step))
    steps = all_steps(tmp_path / "lake")
    for view in ("tokens", "sequences", "step_metrics"):
        keys = run_query(steps, f"select distinct run, step from {view} order by all").rows()
        assert keys == [("a", 1), ("a", 10), ("b", 1)]


def test_steps_with_different_views_are_read_together(saved, to_lake, tmp_path):
    fields = batch_fields()
    to_lake(saved(fields), step=1)
    to_lake(saved({**fields, "dense_log_probs": fields["old_log_probs"]}), step=2)
    counts = run_query(
        all_steps(tmp_path / "lake"),
        "select step, count(logp_dense) > 0 from trained_tokens group by step order by step",
    )
    assert counts.rows() == [(1, False), (2, True)]


def test_blocks_of_rows_give_the_same_table_as_one_block(saved, tmp_path, monkeypatch):
    from timtrack.tasks.readers.rows import layout

    path = saved(batch_fields(rows=20, width=30))
    whole = ingest(path, tmp_path / "whole")
    monkeypatch.setattr(layout, "BLOCK_CELLS", 60)
    parts = ingest(path, tmp_path / "parts")
    for name in ("tokens.parquet", "sequences.parquet"):
        assert pl.read_parquet(whole.path / name).equals(pl.read_parquet(parts.path / name))


def test_token_files_use_the_measured_encodings(saved, to_lake):
    import pyarrow.parquet as pq

    step = to_lake(saved(batch_fields()))
    group = pq.ParquetFile(step.path / "tokens.parquet").metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert "BYTE_STREAM_SPLIT" in columns["logp_train"].encodings
    assert "DELTA_BINARY_PACKED" in columns["pos"].encodings
    assert "RLE_DICTIONARY" in columns["uid"].encodings
    assert {column.compression for column in columns.values()} == {"ZSTD"}


def publish_once(path: Path, into: Path) -> str:
    return ingest(path, into).capture


def test_two_processes_publish_one_step(saved, tmp_path):
    path = saved(batch_fields(rows=64, width=64))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        ids = pool.starmap(publish_once, [(path, tmp_path / "lake")] * 4)
    [step] = all_steps(tmp_path / "lake")
    assert set(ids) == {step.capture}
    assert step.facts()["rows"] == 64


def test_the_trainers_writer_is_repeatable_and_atomic(tmp_path):
    fields = batch_fields()
    del fields["global_step"]
    path = write_step_batch(tmp_path / "run", 7, fields)
    first = path.read_bytes()
    assert write_step_batch(tmp_path / "other", 7, fields).read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["step_batch.pt"]
    assert identify(Source(path)).step == 7
    fields["x"] = lambda: None  # cannot be pickled
    with pytest.raises(Exception, match="pickle"):
        write_step_batch(tmp_path / "run", 7, fields)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["step_batch.pt"]


def test_capture_json_is_readable_without_us(saved, to_lake):
    step = to_lake(saved(batch_fields()))
    facts = json.loads((step.path / "capture.json").read_text())
    assert facts["schema_version"] == SCHEMA_VERSION


def test_a_step_without_tables_is_missing_from_no_answer(saved, to_lake, tmp_path):
    """Killed before its tables were written, or written by older SQL: computed for the answer."""
    for number in (1, 2):
        step = to_lake(saved(batch_fields(seed=number)), step=number)
    write_tables(step, sql_version(), compute_step(step))
    steps = all_steps(tmp_path / "lake")
    for view in ("step_metrics", "run_trend", "tokens"):
        found = run_query(steps, f"select distinct step from {view} order by step")
        assert found["step"].to_list() == [1, 2]
    assert not are_computed(steps[0])


def test_what_a_kill_left_of_an_older_capture_goes_with_the_next_ingest(
    saved, to_lake, tmp_path, monkeypatch
):
    with monkeypatch.context() as killed:
        killed.setattr(publish, "_discard_others", lambda _: None)
        to_lake(saved(batch_fields(seed=1)))
        to_lake(saved(batch_fields(seed=2)))
    first = identify(Source(saved(batch_fields(seed=1))))
    settle_step(find_step(tmp_path / "lake", first))
    assert [step.capture for step in all_steps(tmp_path / "lake")] == [first.id]


def test_a_lake_below_a_folder_with_an_equals_sign_is_refused(saved, tmp_path):
    """DuckDB would take lr=1e-6 for a column, and run=x for the run."""
    with pytest.raises(BadPlace, match="'lr=1e-6', which would become a column"):
        ingest(saved(batch_fields()), tmp_path / "lr=1e-6" / "lake")


def test_a_view_never_takes_the_name_of_what_is_computed(saved, to_lake):
    fields = batch_fields()
    plain = compute_step(to_lake(saved(fields)))["step_metrics"]
    fields["diff_log_probs"] = fields["old_log_probs"] * 0 - 7
    step = to_lake(saved(fields))
    assert compute_step(step)["step_metrics"].equals(plain)
    assert any("diff_log_probs left out" in note for note in step.facts()["notes"])
