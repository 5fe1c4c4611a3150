"""Batches under TRL's and OpenRLHF's names: what their masks mean, and what no such batch is."""

import pytest
import torch

from tests.given import ingest
from tests.given_lake import read
from timtrack.tasks.messages.errors import BadCapture


def an_experience() -> dict:
    """Two prompts of 2 tokens and answers of 3 and 2, padded on the right to 5."""
    return {
        "sequences": torch.arange(1, 11).reshape(2, 5),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]),
        "action_mask": torch.tensor([[0, 1, 1, 1], [0, 1, 1, 0]]),
        "rollout_log_probs": -torch.arange(1.0, 9.0).reshape(2, 4),
        "action_log_probs": -torch.arange(1.0, 9.0).reshape(2, 4) - 0.5,
        "entropy": torch.arange(8.0).reshape(2, 4),
    }


def test_an_experience_is_read_one_to_the_left(saved, to_lake):
    """Entry t is of token t + 1; a field as wide as the log-probs is of the same tokens."""
    tokens = read(to_lake(saved(an_experience())))[0].sort("row", "pos")
    assert tokens["token_id"].to_list() == [3, 4, 5, 8, 9]
    assert tokens["logp_rollout"].to_list() == [-2, -3, -4, -6, -7]
    assert tokens["logp_train"].to_list() == [-2.5, -3.5, -4.5, -6.5, -7.5]
    assert tokens["entropy"].to_list() == [1, 2, 3, 5, 6]


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        ([0, 1, 1, 1, 1], "of 1 rows is not ones from column 0 on, first at row 1"),
        ([1, 1, 1, 0, 0], "of 1 rows is 0 at an action, first at row 1"),
    ],
)
def test_padding_that_openrlhf_never_writes_is_refused(mask, says, saved, to_lake):
    fields = an_experience()
    fields["attention_mask"][1] = torch.tensor(mask)
    with pytest.raises(BadCapture, match=says):
        to_lake(saved(fields))


def a_trl_batch() -> dict:
    return {
        "completion_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]),
        "completion_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "tool_mask": torch.tensor([[1, 0, 1], [1, 1, 1]]),
        "rollout_log_probs": -torch.ones(2, 3),
        "old_log_probs": -torch.ones(2, 3),
    }


def as_lists(fields: dict) -> dict:
    """The same batch as lists of rows without padding."""
    lengths = fields["completion_mask"].sum(1).tolist()
    return {
        name: [row[:n] for row, n in zip(v, lengths, strict=True)] for name, v in fields.items()
    }


@pytest.mark.parametrize("as_written", [dict, as_lists])
def test_tokens_of_tools_are_real_but_not_trained_on(as_written, saved, tmp_path):
    fields = as_written(a_trl_batch())
    tokens = read(ingest(saved(fields), tmp_path / "lake"))[0].sort("row", "pos")
    assert tokens["token_id"].to_list() == [5, 6, 7, 8, 9]
    assert tokens["is_trained"].to_list() == [True, False, True, True, True]


def test_a_mask_of_tools_of_another_shape_is_refused(saved, to_lake):
    fields = {**a_trl_batch(), "tool_mask": torch.ones(2, 4)}
    with pytest.raises(BadCapture, match=r"tool_mask has shape \[2, 4\], expected \[2, 3\]"):
        to_lake(saved(fields))


def test_off_the_trainers_own_mask_tools_are_taken_too(saved, to_lake):
    fields = a_trl_batch()
    fields["response_mask"] = fields.pop("completion_mask")
    tokens = read(to_lake(saved(fields)))[0].sort("row", "pos")
    assert tokens["is_trained"].to_list() == [True, False, True, True, True]
