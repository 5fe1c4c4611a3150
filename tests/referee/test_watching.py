"""A watcher with a referee."""

import json

import pytest

from tests.referee.faults import FAULTS
from tests.referee.tiny import capture_fields
from timtrack.flows.watch import watch
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.tracking.tracker import Tracker
from timtrack.tasks.verdicts import rescoring


@pytest.mark.slow
def test_steps_whose_checkpoint_is_there_are_scored_again(tiny, saved, home, tmp_path, prefect):
    bench = tiny.engines(train=FAULTS["temperature"][1](tiny))
    for number in (2, 3, 4):
        saved(capture_fields(bench), f"captures/run-a/step_{number}/step_batch.pt")
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    for number in (3, 4):
        (checkpoints / f"checkpoint-{number}").symlink_to(tiny.model)
    watch(tmp_path / "captures", home, referee=checkpoints, referee_every=2)
    found = {step.step: rescoring.read(step) for step in all_steps(home / "lake")}
    assert [number for number, record in found.items() if record] == [4]
    assert found[4]["off"] == ["train"]
    tracker = Tracker(home)
    [run] = tracker.client.search_runs([tracker._experiment()])
    points = tracker.client.get_metric_history(run.info.run_id, "referee/train_abs_diff")
    assert [(point.step, point.value) for point in points] == [
        (4, pytest.approx(found[4]["engines"][1]["mean"]))
    ]
    summary = tracker.client.download_artifacts(run.info.run_id, "steps/4/summary.json")
    with open(summary) as file:  # noqa: PTH123
        assert json.load(file)["referee"]["off"] == ["train"]
