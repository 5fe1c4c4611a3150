"""Where the work of many captures is done: the same result from threads, processes and Dask."""

import pytest

from flows import runner
from flows.cli import main
from tests.given import batch_fields
from tests.test_flow import stored_points
from tests.test_watch import data

DASK = pytest.mark.skipif(
    not runner.find_spec("prefect_dask"), reason="prefect-dask is not installed"
)


@pytest.mark.parametrize("text", ["threads", "threads:4", "processes:1"])
def test_known_runners(text, monkeypatch):
    monkeypatch.setenv(runner.VARIABLE, text)
    assert type(runner.chosen()).__name__.lower().startswith(text[:6])


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
def test_dask_takes_a_number_of_workers_or_a_scheduler(monkeypatch):
    monkeypatch.setenv(runner.VARIABLE, "dask:3")
    assert runner.chosen().cluster_kwargs == {"n_workers": 3, "threads_per_worker": 1}
    monkeypatch.setenv(runner.VARIABLE, "dask:tcp://host:8786")
    assert runner.chosen().address == "tcp://host:8786"


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("text", ["processes:2", pytest.param("dask:2", marks=DASK)])
def test_a_backfill_gives_the_same_wherever_it_runs(
    text, saved, home, tmp_path, monkeypatch, fresh_store
):
    """One bad capture among them."""
    from flows.analyse import CapturesFailed
    from flows.watch import watch

    for step in (1, 2, 3, 4):
        fields = {**batch_fields(seed=step), "global_step": step}
        saved(fields, f"runs/a/step_{step}/step_batch.pt")
    (tmp_path / "runs/a/step_2/step_batch.pt").write_bytes(b"no capture")
    root, beside = tmp_path / "runs", tmp_path / "beside"
    beside.mkdir()
    (beside / "mlflow.db").write_bytes(fresh_store.read_bytes())
    with pytest.raises(CapturesFailed, match="1 of 4"):
        watch(root, beside, quiet=0)
    monkeypatch.setenv(runner.VARIABLE, text)
    with pytest.raises(CapturesFailed, match="1 of 4") as raised:
        watch.with_options(task_runner=runner.chosen())(root, home, quiet=0)
    assert [o.step.step for o in raised.value.outcomes if o.step] == [1, 3, 4]
    assert data(home) == data(beside)
    assert stored_points(home, "kl_k1") == stored_points(beside, "kl_k1")
