"""Where the work of many captures is done: the same result from threads, processes and Dask."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests import formats
from tests.given import batch_fields, ingest
from tests.given_captures import ragged
from tests.given_lake import data, read, stored_points
from timtrack.flows import runner
from timtrack.flows.cli.main import main
from timtrack.flows.settings import Settings
from timtrack.tasks.captures.completeness import is_complete
from timtrack.tasks.captures.discovery import find_captures
from timtrack.tasks.captures.source import Source
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake.steps import all_steps, token_files
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.tables.compute import compute_step

DASK = pytest.mark.skipif(
    not runner.find_spec("prefect_dask"), reason="prefect-dask is not installed"
)


@pytest.mark.parametrize("text", ["threads", "threads:4", "processes:1"])
def test_known_runners(text, monkeypatch):
    monkeypatch.setenv("TIMTRACK_RUNNER", text)
    assert type(runner.made(Settings.read().runner)).__name__.lower().startswith(text[:6])


@pytest.mark.parametrize("text", ["ray", "threads:0", "threads:x", "processes:-1"])
def test_others_are_refused_with_the_list(text, capsys):
    with pytest.raises(runner.BadRunner, match="there are threads"):
        runner.check(text)
    with pytest.raises(SystemExit, match="2"):
        main(["watch", ".", "--runner", text])
    assert "there are threads" in capsys.readouterr().err


def test_dask_without_its_extra_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    with pytest.raises(runner.BadRunner, match="pip install"):
        runner.check("dask")


@DASK
def test_dask_takes_a_number_of_workers_or_a_scheduler():
    assert runner.made("dask:3").cluster_kwargs == {"n_workers": 3, "threads_per_worker": 1}
    assert runner.made("dask:tcp://host:8786").address == "tcp://host:8786"


def ranked(folder: Path, fields: dict, step: int, ranks: int, world: int | None = None) -> Path:
    """A batch as `ranks` trainers would save it, each some of its rows."""
    for rank in range(ranks):
        own = {name: value[rank::ranks] for name, value in fields.items()}
        save_step_batch(folder, step, own, rank=rank, world_size=world or ranks)
    return folder / f"step_{step}" / "step_batch.rank_0.pt"


def test_ranks_are_one_capture_that_equals_the_whole(tmp_path):
    batch = formats.a_batch()
    known = {**batch, "rank": [row % 3 for row in range(6)]}  # which a rank's own file says
    whole = ingest(save_step_batch(tmp_path / "one", 3, known), tmp_path / "lake")
    parts = ingest(ranked(tmp_path / "many", batch, 3, ranks=3), tmp_path / "lake")
    assert find_captures(tmp_path / "many") == [tmp_path / "many/step_3/step_batch.rank_0.pt"]
    assert [f.name for f in token_files(parts)] == [f"part-0000{i}.parquet" for i in range(3)]
    for one, other in zip(read(whole), read(parts), strict=True):
        assert_frame_equal(one, other)
    for name, table in compute_step(whole).items():
        other = compute_step(parts)[name].with_columns(pl.lit("one").alias("run"))
        assert_frame_equal(table, other, check_row_order=False)


def test_a_rank_that_is_missing_is_waited_for_and_said(tmp_path):
    path = ranked(tmp_path, formats.a_batch(), 3, ranks=3)
    assert is_complete(Source(path))
    path.with_name("step_batch.rank_2.pt").unlink()
    assert not is_complete(Source(path))
    step = ingest(path, tmp_path / "lake")
    assert "files of 2 of 3 ranks are there" in step.facts()["notes"]


def test_two_ranks_with_the_same_rows_are_refused(tmp_path):
    batch = formats.a_batch()
    for rank in (0, 1):
        save_step_batch(tmp_path, 3, {**batch, "row_index": list(range(6))}, rank, 2)
    with pytest.raises(BadCapture, match="6 of 12 rollouts are in two ranks' files"):
        ingest(tmp_path / "step_3" / "step_batch.rank_0.pt", tmp_path / "lake")
    assert not all_steps(tmp_path / "lake")


def test_ranks_that_are_not_of_one_step_are_refused(tmp_path):
    path = ranked(tmp_path, formats.a_batch(), 3, ranks=4)
    ranked(tmp_path, formats.a_batch(), 3, ranks=2)  # started again on fewer
    with pytest.raises(BadCapture, match=r"rank_2.* has world_size 4, expected 2"):
        Source(path).open()
    for rank in (2, 3):
        path.with_name(f"step_batch.rank_{rank}.pt").unlink()
    Source(path).open()
    other = ranked(tmp_path, formats.a_batch(), 4, ranks=2)
    other.with_name("step_batch.rank_1.pt").replace(path.with_name("step_batch.rank_1.pt"))
    with pytest.raises(BadCapture, match=r"rank_1.* has step 4, expected 3"):
        Source(path).open()
    path = ranked(tmp_path, formats.a_batch(), 5, ranks=3, world=2)
    with pytest.raises(BadCapture, match="files of 3 ranks, but world_size is 2"):
        Source(path).open()


def test_a_rank_without_rows_is_no_obstacle(tmp_path):
    batch = ragged(formats.a_batch())
    for rank, own in ((0, batch), (1, {name: value[:0] for name, value in batch.items()})):
        save_step_batch(tmp_path, 3, own, rank, 2)
    step = ingest(tmp_path / "step_3" / "step_batch.rank_0.pt", tmp_path / "lake")
    assert step.facts()["rows"] == 6


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_the_first_rank_may_come_last(home, tmp_path):
    path = ranked(tmp_path / "runs/a", formats.a_batch(), 5, ranks=3)
    late = path.replace(tmp_path / "late")
    assert main(["--home", str(home), "ingest", str(tmp_path / "runs")]) == 0
    [step] = all_steps(home / "lake")
    assert step.facts()["rows"] == 4
    late.replace(path)
    assert main(["--home", str(home), "ingest", str(tmp_path / "runs")]) == 0
    [step] = all_steps(home / "lake")
    assert step.facts()["rows"] == 6


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("text", ["processes:2", pytest.param("dask:2", marks=DASK)])
def test_a_backfill_gives_the_same_wherever_it_runs(text, saved, home, tmp_path, fresh_store):
    """One bad capture among them."""
    from timtrack.flows.outcomes import CapturesFailed
    from timtrack.flows.watch import watch

    for step in (1, 2, 3, 4):
        fields = {**batch_fields(seed=step), "global_step": step}
        saved(fields, f"runs/a/step_{step}/step_batch.pt")
    (tmp_path / "runs/a/step_2/step_batch.pt").write_bytes(b"no capture")
    ranked(tmp_path / "runs/a", formats.a_batch(), 5, ranks=3)
    part = ranked(tmp_path / "runs/a", formats.a_batch(), 6, ranks=3).with_stem("step_batch.rank_1")
    content = part.read_bytes()
    at = content.index(formats.a_batch()["old_log_probs"][1::3].numpy().tobytes()[-24:-16])
    part.write_bytes(content[:at] + b"damaged!" + content[at + 8 :])
    root, beside = tmp_path / "runs", tmp_path / "beside"
    beside.mkdir()
    (beside / "mlflow.db").write_bytes(fresh_store.read_bytes())
    with pytest.raises(CapturesFailed, match="2 of 6"):
        watch(root, beside, quiet=0)
    with pytest.raises(CapturesFailed, match="2 of 6") as raised:
        watch.with_options(task_runner=runner.made(text))(root, home, quiet=0)
    assert [o.step.step for o in raised.value.outcomes if o.step] == [1, 3, 4, 5]
    assert any("the file is damaged in" in str(o.error) for o in raised.value.outcomes)
    assert data(home) == data(beside)
    assert stored_points(home, "kl_k1") == stored_points(beside, "kl_k1")
