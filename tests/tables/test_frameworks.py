"""Captures that verl, TRL, SkyRL and OpenRLHF wrote themselves, against what their functions say.

`make test-frameworks` writes them anew with the published packages; these are the files that it
wrote (tests/frameworks/written).
"""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from tests.frameworks.compare import compared
from tests.given import ingest
from tests.given_lake import read

WRITTEN = Path(__file__).parents[1] / "frameworks" / "written"
# Numbers that are compared at the least: a reader or a table that is gone shows as fewer.
LEAST = {"verl": 700, "trl": 80, "skyrl": 90, "openrlhf": 60, "ms_swift": 60, "tinker": 6}


@pytest.mark.parametrize("framework", LEAST)
def test_tables_have_the_numbers_of_the_frameworks_own_functions(framework):
    found = compared(WRITTEN / framework)
    assert found.differing == {}
    assert len(found.equal) >= LEAST[framework]


def step_of(path: str, tmp_path: Path):
    return ingest(WRITTEN / path, tmp_path / "lake")


def test_trl_tokens_of_tools_are_not_trained_on_and_padding_is_no_prompt(tmp_path):
    path = "trl/moderate/step_3/step_batch.pt"
    batch = torch.load(WRITTEN / path, weights_only=True)
    step = step_of(path, tmp_path)
    tokens, rows = read(step)
    assert "response_mask" not in batch  # the names are TRL's own
    trained = (batch["completion_mask"] * batch["tool_mask"]).sum(dim=1)
    assert rows["trained_tokens"].to_list() == trained.tolist()
    assert rows["response_tokens"].to_list() == batch["completion_mask"].sum(dim=1).tolist()
    assert rows["prompt_tokens"].to_list() == batch["prompt_mask"].sum(dim=1).tolist()
    assert (batch["tool_mask"] * batch["completion_mask"]).sum() < batch["completion_mask"].sum()
    assert tokens.filter(~pl.col("is_trained"))["logp_rollout"].null_count() > 0
    by_row = tokens.group_by("row", maintain_order=True).agg(pl.col("advantage").first())
    kept = [row for row in range(len(rows)) if rows["response_tokens"][row]]
    assert by_row["advantage"].to_list() == pytest.approx(batch["advantages"][kept].tolist())


def test_trl_groups_are_prompts_whatever_their_padding(tmp_path):
    _, rows = read(step_of("trl/moderate/step_3/step_batch.pt", tmp_path))
    by_prompt = dict(
        zip(map(tuple, rows["prompt_ids"].to_list()), rows["uid"].to_list(), strict=True)
    )
    assert rows["uid"].n_unique() == len(by_prompt) < len(rows)


def test_a_token_that_vllm_could_not_score_is_counted_and_left_out(tmp_path):
    step = step_of("trl/unscored/step_3/step_batch.pt", tmp_path)
    facts = step.facts()
    assert (facts["nonfinite_rollout"], facts["nonfinite_train"]) == (1, 0)
    assert "no finite logp_rollout, first at row 0 position 2" in " ".join(facts["notes"])


@pytest.mark.parametrize("name", ["moderate", "wide", "replayed"])
def test_skyrl_files_say_which_rows_are_a_group(name, tmp_path):
    path = f"skyrl/{name}/dumped_data/global_step_3_training_input.pkl"
    step = step_of(path, tmp_path)
    tokens, rows = read(step)
    assert (step.step, step.facts()["format"]) == (3, "skyrl")
    assert rows["uid"].to_list() == [str(row // 2) for row in range(8)]
    assert tokens["is_trained"].sum() > 20


def test_an_experience_of_openrlhf_has_its_tokens_one_column_later(tmp_path):
    """Column t of its log-probs is about token t + 1 of the sequence."""
    path = "openrlhf/moderate/step_3/step_batch.pt"
    batch = torch.load(WRITTEN / path, weights_only=True)
    tokens, rows = read(step_of(path, tmp_path))
    for row, actions in enumerate(batch["action_mask"].bool()):
        at = actions.nonzero().flatten()
        own = tokens.filter(pl.col("is_trained"), row=row)
        assert own["token_id"].to_list() == batch["sequences"][row][at + 1].tolist()
        np.testing.assert_array_equal(own["logp_rollout"], batch["rollout_log_probs"][row][at])
        np.testing.assert_array_equal(own["logp_train"], batch["action_log_probs"][row][at])
        if len(at):
            prompt = batch["sequences"][row][: at[0] + 1]
            assert rows["prompt_ids"][row].to_list() == prompt.tolist()


def test_all_containers_of_a_verl_batch_are_there():
    told = json.loads((WRITTEN / "verl" / "expected.json").read_text())
    assert sum("same_as" in entry for entry in told["captures"].values()) >= 4
