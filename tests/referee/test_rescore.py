"""What else takes the referee: a zip for somebody else, and a watcher."""

import zipfile

import numpy as np
import pytest

from tests.given import batch_fields, ingest
from tests.referee.faults import FAULTS
from tests.referee.test_verb import told
from tests.referee.tiny import capture_fields
from timtrack.flows.cli.main import main
from timtrack.tasks.referee import rollouts
from timtrack.tasks.referee.model.checkpoint_dirs import checkpoint_of


def test_a_repro_holds_what_the_referee_needs(tiny, saved, home, tmp_path, capsys):
    bench = tiny.engines(rollout=FAULTS["temperature"][1](tiny))
    step = ingest(saved(capture_fields(bench)), home / "lake")
    zipped = tmp_path / "repro.zip"
    told(capsys, "--home", home, "repro", step.run, "--row", 2, "--rescore", "-o", zipped)
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tmp_path / "elsewhere")
    file = tmp_path / "elsewhere" / "step_batch.pt"
    again = ingest(file, tmp_path / "other-lake")
    group = {one.prompt: one for one in rollouts.read(again)}
    mine = next(one for one in bench.rollouts if one.row == 2)
    assert set(group) == {mine.prompt}
    shown = told(capsys, "referee", file, "--model", tiny.model, "--hypotheses", "temperature")
    assert "divided by a temperature of 0.8" in " ".join(shown.out.split())


def test_sequences_without_prompt_ids_cannot_be_scored(saved, home, tiny, capsys):
    fields = batch_fields()
    del fields["prompts"], fields["attention_mask"]
    step = ingest(saved(fields), home / "lake")
    assert main(["--home", str(home), "referee", step.run, "--model", str(tiny.model)]) == 2
    assert "6 of 6 sequences have no prompt ids" in capsys.readouterr().err


@pytest.mark.parametrize(
    "place",
    [
        "global_step_20/actor/huggingface",
        "my-run/checkpoint-20",
        "step_20/policy/weights/model",
        "iter_0000020",
        "20",
    ],
)
def test_the_checkpoint_of_a_step_is_found_as_frameworks_leave_it(tmp_path, place):
    for folder in (place, place.replace("20", "2"), place.replace("20", "200")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").touch()
        (tmp_path / folder / "model.safetensors").touch()
    assert checkpoint_of(tmp_path, 20) == tmp_path / place
    assert checkpoint_of(tmp_path, 21) is None


def test_a_folder_without_safetensors_is_no_checkpoint(tmp_path):
    (tmp_path / "step_3").mkdir()
    (tmp_path / "step_3" / "config.json").touch()
    assert checkpoint_of(tmp_path, 3) is None


def test_sequences_are_spread_over_gap_and_prompts():
    def made(row: int, gap: float) -> rollouts.Rollout:
        logps = np.full(5, -1.0)
        return rollouts.Rollout(row, f"p{row % 4}", (1,), (2,) * 5, logps, logps + gap)

    there = [made(row, row / 10) for row in range(16)]
    taken = rollouts.chosen(there, 4, seed=1)
    assert sorted(one.row // 4 for one in taken) == [0, 1, 2, 3]
    assert len({one.uid for one in taken}) == 4
    assert [one.row for one in rollouts.chosen(there, 4, seed=1)] == [one.row for one in taken]
    assert [one.row for one in rollouts.chosen(there, named=(7, 3))] == [3, 7]
