"""The step_batch reader: every layout gives the same token table, and bad files give none."""

import numpy as np
import pytest
import torch
from pytest import approx

from tests.given import batch_fields, ingest
from tests.given_captures import expected_tokens, ragged
from tests.given_lake import read
from timtrack.tasks.captures.capture import identify
from timtrack.tasks.captures.discovery import find_captures
from timtrack.tasks.captures.source import Source
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.messages.errors import BadCapture


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ">f4"])
def test_a_padded_numpy_batch_is_read_as_its_tensors_are(dtype, tmp_path):
    """Without a response_mask, attention_mask alone says what padding is."""
    fields = {k: v for k, v in batch_fields(seed=3).items() if k != "response_mask"}
    arrays = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in fields.items()}
    arrays = {k: v.astype(dtype) if "log_probs" in k else v for k, v in arrays.items()}
    tokens, other = (
        read(ingest(save_step_batch(tmp_path / name, 1, given), tmp_path / name / "lake"))[0]
        for name, given in (("tensors", fields), ("arrays", arrays))
    )
    assert len(other) == int(fields["attention_mask"][:, 4:].sum())
    assert other["is_trained"].all()
    assert other["token_id"].to_list() == tokens["token_id"].to_list()
    assert other["logp_train"].to_list() == approx(tokens["logp_train"].to_list(), abs=2e-3)


@pytest.mark.parametrize(
    ("name", "one", "section", "other"),
    [
        ("uid", ["a"] * 6, "non_tensor_batch", ["b"] * 6),
        ("rewards", [1.0] * 6, "batch", torch.zeros(6)),
        ("global_step", 3, "meta_info", 77),
        ("run_name", "a", "meta_info", "b"),
        ("old_log_probs", [[-1.0]] * 6, "batch", [[-1.0, -2.0]] * 6),
    ],
)
def test_what_is_told_twice_must_say_the_same(name, one, section, other, saved):
    with pytest.raises(BadCapture, match=f"{name} is there twice, with other content in {section}"):
        Source(saved({**batch_fields(), name: one, section: {name: other}})).open()


@pytest.mark.parametrize(
    ("used", "one", "left", "other"),
    [
        ("global_step", 3, "training_step", 4),
        ("advantages", torch.zeros(6, 10), "advantage", torch.ones(6, 10)),
        ("token_level_scores", torch.zeros(6, 10), "token_level_rewards", torch.ones(6, 10)),
        ("uid", ["a"] * 6, "group_id", ["b"] * 6),
        ("advantages", torch.zeros(6, 10), "advantage", torch.ones(6, 10).to_sparse()),
    ],
)
def test_a_second_name_with_other_values_is_noted(used, one, left, other, saved):
    batch = Source(saved({**batch_fields(), used: one, left: other})).open()
    (note,) = [note for note in batch.notes if f"{left} has other values and is left out" in note]
    assert note.startswith(f"{used} is used as ")
    same = Source(saved({**batch_fields(), used: one, left: one})).open()
    assert not any("other values" in note for note in same.notes)


@pytest.mark.parametrize(("step", "taken"), [("20", 20), (20.0, 20), (True, 7), (1.5, 7), ("x", 7)])
def test_a_step_that_is_no_whole_number_is_noted(step, taken, saved):
    path = saved({**batch_fields(), "global_step": step}, "a/step_7/step_batch.pt")
    assert identify(Source(path)).step == taken
    noted = f"global_step is {step!r}, not a whole number: not used as the step"
    assert (noted in Source(path).open().notes) == (taken == 7)


def test_rewards_that_are_not_finite_are_null_and_counted(saved, to_lake):
    rewards = [1.0, float("inf"), float("nan"), 0.0, 0.0, None]
    fields = {k: v for k, v in batch_fields().items() if k != "token_level_scores"}
    step = to_lake(saved({**fields, "rewards": rewards}))
    assert "reward has no finite value in 3 of 6 rows: NULL there" in step.facts()["notes"]
    assert read(step)[1]["reward"].to_list() == [1.0, None, None, 0.0, 0.0, None]


def test_what_is_told_twice_alike_is_one(saved, to_lake):
    fields = batch_fields()
    more = {"extra": {"deep": [1]}, "temperature": float("nan"), "uid": list(fields["uid"])}
    twice = {**fields, **more, "meta_info": {**more, "uid": np.array(fields["uid"], dtype=str)}}
    assert to_lake(saved(twice)).facts()["rows"] == 6


def test_a_field_that_is_there_twice_is_refused_if_its_numbers_differ(saved, to_lake):
    fields = batch_fields()
    same = {**fields, "batch": {"old_log_probs": fields["old_log_probs"].clone()}}
    assert to_lake(saved(same)).facts()["trained_tokens"] > 0
    other = {**fields, "batch": {"old_log_probs": fields["old_log_probs"] - 1}}
    with pytest.raises(BadCapture, match="old_log_probs is there twice, with other content in ba"):
        to_lake(saved(other))


def test_names_that_are_not_utf8_stay_apart(saved, to_lake):
    fields = batch_fields()
    fields["uid"] = [b"\xff", b"\xfe", b"\xff", "\ud800", "\ud801", b"plain"]
    rows = read(to_lake(saved(fields)))[1]
    assert rows["uid"].to_list() == ["\\xff", "\\xfe", "\\xff", "\\ud800", "\\ud801", "plain"]


def test_what_padding_holds_is_no_reward(saved, to_lake):
    fields = batch_fields()
    real = fields["attention_mask"][:, 4:]
    fields["token_level_scores"] = torch.where(real == 1, 0.5, -1.0)
    rewards = read(to_lake(saved(fields)))[1].sort("row")["reward"]
    assert rewards.to_list() == (0.5 * real.sum(1)).tolist()


def test_an_undefined_advantage_is_null(saved, to_lake):
    fields = batch_fields()
    fields["advantages"][2, 0] = float("nan")
    [token] = read(to_lake(saved(fields)))[0].filter(row=2, pos=0).to_dicts()
    assert token["advantage"] is None


def listed(fields: dict) -> dict:
    """As the hook once wrote NumPy batches: each padded array as a list of its padded rows."""
    return {
        name: [row.tolist() for row in value] if isinstance(value, torch.Tensor) else value
        for name, value in fields.items()
    }


@pytest.mark.parametrize("masked", [False, True])
def test_padded_rows_in_lists_are_as_long_as_attention_mask_says(masked, saved, to_lake):
    """Without a response_mask every padded token was taken as trained on."""
    fields = batch_fields(seed=3)
    if not masked:
        del fields["response_mask"]
    real = fields["attention_mask"][:, 4:]
    assert int(real.sum()) < real.numel()
    tokens, rows = read(to_lake(saved(listed(fields))))
    expected, same = read(to_lake(saved(fields, "run-b/step_3/step_batch.pt")))
    assert len(tokens) == tokens["is_trained"].sum() == int(real.sum())
    compared = ["row", "pos", "token_id", "is_trained", "logp_rollout", "logp_train", "advantage"]
    assert tokens.select(compared).equals(expected.select(compared))
    assert rows["prompt_ids"].to_list() == same["prompt_ids"].to_list()


def whole_attention(fields: dict) -> dict:
    """Lists of responses without padding beside the padded [B, P + R] attention_mask."""
    rows = {k: v for k, v in ragged(fields).items() if k != "response_mask"}
    return {**rows, "attention_mask": fields["attention_mask"]}


def test_lists_without_padding_beside_a_padded_attention_mask_stay_whole(saved, to_lake):
    fields = batch_fields(seed=3)
    tokens, _ = read(to_lake(saved(whole_attention(fields))))
    assert len(tokens) == int(fields["attention_mask"][:, 4:].sum())
    assert tokens["is_trained"].all()


def test_an_attention_mask_that_tells_nothing_of_lists_is_not_passed_over(saved, to_lake):
    """One token of a response less: where is it?"""
    fields = whole_attention(batch_fields(seed=3))
    fields["attention_mask"] = fields["attention_mask"].clone()
    fields["attention_mask"][0, -1] = 0
    with pytest.raises(BadCapture, match="attention_mask does not fit the lists of tokens"):
        to_lake(saved(fields))
    masked = {**fields, "response_mask": [torch.ones(len(v)) for v in fields["responses"]]}
    notes = to_lake(saved(masked)).facts()["notes"]
    assert any(note.startswith("attention_mask is not used") for note in notes)


def nested(fields: dict, tensors: str, others: str, meta: str) -> dict:
    return {
        tensors: {k: v for k, v in fields.items() if isinstance(v, torch.Tensor)},
        others: {"uid": fields["uid"]},
        meta: {"global_steps": fields["global_step"]},
    }


def renamed(fields: dict, **names: str) -> dict:
    return {names.get(name, name): value for name, value in fields.items()}


SAME = {
    "flat": lambda f: f,
    "ragged": ragged,
    "DataProto": lambda f: nested(f, "batch", "non_tensor_batch", "meta_info"),
    "fork": lambda f: nested(f, "batch_tensors", "batch_non_tensors", "batch_meta_info"),
    "train and vllm": lambda f: renamed(
        f, old_log_probs="train_log_probs", rollout_log_probs="vllm_log_probs"
    ),
    "minus one pads": lambda f: {
        **f,
        "rollout_log_probs": torch.where(f["response_mask"] == 1, f["rollout_log_probs"], -1.0),
    },
    "bool masks": lambda f: {**f, "response_mask": f["response_mask"].bool()},
    "no attention_mask": lambda f: {k: v for k, v in f.items() if k != "attention_mask"},
    "input_ids": lambda f: {
        **{k: v for k, v in f.items() if k not in ("prompts", "responses")},
        "input_ids": torch.cat([f["prompts"], f["responses"]], dim=1),
    },
    "float64": lambda f: {**f, "old_log_probs": f["old_log_probs"].double()},
    "strided": lambda f: {**f, "old_log_probs": f["old_log_probs"].t().contiguous().t()},
}


@pytest.mark.parametrize("variant", SAME)
def test_every_layout_reads_as_the_same_tokens(saved, to_lake, variant):
    fields = batch_fields()
    tokens, sequences = read(to_lake(saved(SAME[variant](fields))))
    assert tokens.to_dicts() == expected_tokens(fields)
    assert sequences["reward"].to_list() == [1.0] * 6
    assert sequences["turns"].to_list() == [1] * 6


def test_npz_reads_as_the_same_tokens(tmp_path, to_lake):
    fields = batch_fields()
    arrays = {k: np.asarray(v) for k, v in fields.items()}
    (tmp_path / "step_3").mkdir()
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "step_3" / "step_batch.npz", **arrays)
        step = to_lake(tmp_path / "step_3" / "step_batch.npz", run="run-a")
        assert read(step)[0].to_dicts() == expected_tokens(fields)
        assert step.step == 3


def test_npz_members_larger_than_memory_blocks_are_mapped(tmp_path, monkeypatch):
    from timtrack.tasks.readers.containers import npz, tensors

    monkeypatch.setattr(npz, "SMALL_MEMBER", 0)
    monkeypatch.setattr(npz, "TINY", 8)
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(12.0).reshape(3, 4), step=np.array(3))
    loaded = tensors.load(tmp_path / "a.npz")
    assert loaded["x"].tolist() == np.arange(12.0).reshape(3, 4).tolist()
    assert loaded["step"].item() == 3


def test_multi_turn_masks_have_holes(saved, to_lake):
    """Tool tokens stay in the table without numbers, whatever the engines wrote there."""
    fields = batch_fields(rows=2, width=6)
    fields["response_mask"][0] = torch.tensor([1, 1, 0, 0, 1, 1])
    fields["old_log_probs"][0, 2] = 12.0
    fields["rollout_log_probs"][0, 3] = float("nan")
    tokens, sequences = read(to_lake(saved(fields)))
    row = tokens.filter(row=0)
    assert row["is_trained"].to_list() == [True, True, False, False, True, True]
    assert row["logp_train"].null_count() == row["logp_rollout"].null_count() == 2
    assert sequences["turns"][0] == 2
    assert sequences["trained_tokens"][0] == 4


def test_left_padding_of_prompts_is_removed(saved, to_lake):
    fields = batch_fields()
    _, sequences = read(to_lake(saved(fields)))
    for row in range(6):
        keep = fields["attention_mask"][row, :4].bool()
        assert sequences["prompt_ids"][row].to_list() == fields["prompts"][row][keep].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_and_said(saved, to_lake, dtype):
    fields = batch_fields()
    fields["rollout_log_probs"] = fields["rollout_log_probs"].to(dtype)
    step = to_lake(saved(fields))
    fields["rollout_log_probs"] = fields["rollout_log_probs"].float()
    assert read(step)[0].to_dicts() == expected_tokens(fields)
    assert any("rollout_log_probs is" in note for note in step.facts()["notes"])


def test_further_log_probs_are_views(saved, to_lake):
    fields = batch_fields()
    fields["dense_log_probs"] = fields["old_log_probs"] * 0.5
    fields["ref_log_prob"] = fields["old_log_probs"] * 0.25
    step = to_lake(saved(fields))
    tokens, _ = read(step)
    assert step.facts()["views"] == ["dense", "ref"]
    kept = fields["response_mask"] == 1
    assert tokens.filter("is_trained")["logp_dense"].to_list() == (
        fields["dense_log_probs"][kept].tolist()
    )


@pytest.mark.parametrize(
    "uid",
    [
        np.array(["a", "b"] * 3),
        np.array(["a", "b"] * 3, dtype=object),
        torch.tensor([0, 1] * 3),
    ],
)
def test_uids_come_in_many_containers(saved, to_lake, uid):
    _, sequences = read(to_lake(saved({**batch_fields(), "uid": uid})))
    assert sequences["uid"].n_unique() == 2


def test_without_uid_rows_with_the_same_prompt_are_a_group(saved, to_lake):
    fields = batch_fields(rows=4)
    fields["prompts"][1] = fields["prompts"][0]
    fields["attention_mask"][1, :4] = fields["attention_mask"][0, :4]
    del fields["uid"]
    _, sequences = read(to_lake(saved(fields)))
    assert sequences["uid"][0] == sequences["uid"][1]
    assert sequences["uid"].n_unique() == 3


def test_one_advantage_and_reward_a_row(saved, to_lake):
    fields = batch_fields(rows=4)
    del fields["token_level_scores"]
    fields["advantages"] = torch.arange(4.0)
    fields["rewards"] = [0.5, 1.0, 0.0, 0.25]
    tokens, sequences = read(to_lake(saved(fields)))
    assert sequences["reward"].to_list() == [0.5, 1.0, 0.0, 0.25]
    assert (tokens["advantage"] == tokens["row"]).all()


def test_synthetic_rows_are_left_out_and_counted(saved, to_lake):
    """verl V1 adds rows with uid `pad<hex>` and no trained token to even out its ranks."""
    fields = batch_fields(rows=4)
    fields["uid"][2] = "pad3f"
    fields["response_mask"][2] = 0
    step = to_lake(saved(fields))
    assert set(read(step)[0]["row"]) == {0, 1, 3}
    assert "1 synthetic padding rows (uid `pad...`) left out" in step.facts()["notes"]


def test_the_mask_before_rejection_is_used(saved, to_lake):
    """verl V1 overwrites response_mask with its rejection mask and keeps loss_mask."""
    fields = batch_fields()
    fields["loss_mask"] = fields["response_mask"].clone()
    fields["response_mask"][:, ::2] = 0
    tokens, _ = read(to_lake(saved(fields)))
    assert tokens["is_trained"].all()


def test_policy_versions_are_kept(saved, to_lake):
    fields = {**batch_fields(rows=2), "min_global_steps": [1, 2], "max_global_steps": [3, 3]}
    _, sequences = read(to_lake(saved(fields)))
    assert sequences["policy_version_min"].to_list() == [1, 2]
    assert sequences["policy_version_max"].to_list() == [3, 3]


def test_what_the_file_says_of_itself_is_kept(saved, to_lake):
    fields = {**batch_fields(), "meta_info": {"model": "m", "temperature": 0.7, "x": torch.ones(2)}}
    meta = to_lake(saved(fields)).facts()["meta"]
    assert meta == {"global_step": 3, "model": "m", "temperature": 0.7}


def without(*names: str):
    return lambda f: {k: v for k, v in f.items() if k not in names}


BAD = {
    "no trainer": (
        without("old_log_probs"),
        "missing the trainer.s log-probs .old_log_probs or train_log_probs",
    ),
    "no rollout": (
        without("rollout_log_probs"),
        "missing the rollout engine.s log-probs .rollout_log_probs or vllm",
    ),
    "no responses": (without("responses"), "missing responses"),
    "no mask": (without("response_mask", "attention_mask"), "missing response mask"),
    "two trainers": (
        lambda f: {**f, "train_log_probs": f["old_log_probs"]},
        "old_log_probs and train_log_probs are names for the same thing",
    ),
    "other shape": (
        lambda f: {**f, "old_log_probs": f["old_log_probs"][:, :-1]},
        r"old_log_probs has shape \[6, 9\], expected \[6, 10\] as responses has",
    ),
    "other rows": (
        lambda f: {**f, "uid": f["uid"][:-1]},
        "uid has 5 entries, expected 6 rows",
    ),
    "integers": (
        lambda f: {**f, "old_log_probs": f["old_log_probs"].long()},
        "old_log_probs holds int64, expected float numbers",
    ),
    "one dimension": (
        lambda f: {**f, "old_log_probs": f["old_log_probs"].flatten()},
        r"old_log_probs is a float32 tensor of shape \[60\], expected a padded",
    ),
    "ragged lengths": (
        lambda f: {**ragged(f), "old_log_probs": [torch.zeros(3) - 1] * 6},
        "old_log_probs has another length than the response in . rows, first at row 0: 3, expected",
    ),
    "left-padded responses": (
        lambda f: {**f, "attention_mask": f["attention_mask"].flip(1)},
        "responses must be right padded",
    ),
    "NaN": (
        lambda f: {**f, "old_log_probs": torch.full_like(f["old_log_probs"], float("nan"))},
        "tokens under the mask have no finite logp_train, first at row 0 position 0",
    ),
    "probabilities": (
        lambda f: {**f, "old_log_probs": f["old_log_probs"].exp()},
        "tokens have logp_train above 0 nats, first at row 0 position 0 .*not probabilities",
    ),
    "nothing trained": (
        lambda f: {**f, "response_mask": torch.zeros_like(f["response_mask"])},
        "0 of [0-9]+ response tokens in 6 rows are trained on",
    ),
    "not computed": (
        lambda f: {**f, "old_log_probs": torch.zeros_like(f["old_log_probs"])},
        "logp_train is 0 on all [0-9]+ trained tokens: these log-probs were not computed",
    ),
    "a list": (lambda f: [f], "the file holds a list, expected a dict of tensors"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_batch_is_refused_and_the_lake_stays_as_it_was(saved, to_lake, tmp_path, fault):
    spoil, message = BAD[fault]
    with pytest.raises(BadCapture, match=message):
        to_lake(saved(spoil(batch_fields())))
    assert not [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]


class Evil:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('/tmp/timtrack-was-run').write_text('x')",)


def broken_files(folder):
    whole = folder / "whole.pt"
    torch.save(batch_fields(), whole)
    content = whole.read_bytes()
    torch.save({**batch_fields(), "x": Evil()}, folder / "code.pt")
    np.savez(folder / "objects.npz", uid=np.array(["a", Evil()], dtype=object))
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.pt").write_text("not a tensor in sight")
    for percent in (1, 50, 95, 99):
        (folder / f"cut{percent}.pt").write_bytes(content[: len(content) * percent // 100])
    return {
        "code.pt": "refused: to load it, `exec` would have to be called",
        "objects.npz": "without running code from it",
        "empty.pt": r"the file is empty \(0 bytes\)",
        "text.pt": "neither torch.save's format nor .npz",
        **{f"cut{p}.pt": "the file is cut short or damaged" for p in (1, 50, 95, 99)},
    }


def test_broken_and_hostile_files_are_refused_and_run_nothing(tmp_path):
    from pathlib import Path

    for name, message in broken_files(tmp_path).items():
        with pytest.raises(BadCapture, match=message):
            ingest(tmp_path / name, tmp_path / "lake", run="r", step=1)
    assert not Path("/tmp/timtrack-was-run").exists()
    assert not (tmp_path / "lake").exists()


def test_log_probs_a_rounding_above_zero_are_kept_and_said(saved, to_lake):
    fields = batch_fields()
    fields["old_log_probs"][0, 0] = 1e-5
    step = to_lake(saved(fields))
    assert read(step)[0]["logp_train"][0] == pytest.approx(1e-5)
    assert any(note.startswith("1 log-probs are above 0") for note in step.facts()["notes"])


def test_bit_equal_log_probs_are_named_bypass(saved, to_lake):
    fields = batch_fields()
    fields["old_log_probs"] = fields["rollout_log_probs"].clone()
    facts = to_lake(saved(fields)).facts()
    assert facts["measurement"] == "bypass"
    assert any("bypass mode" in note and "not measured" in note for note in facts["notes"])


PATHS = {
    "a/run-7/step_20/step_batch.pt": ("run-7", 20),
    "a/run-7/global_step_40/step_batch.pt": ("run-7", 40),
    "run-7/step-005/dump/step_batch.pt": ("run-7", 5),
    "run-7/step_batch_12.pt": ("run-7", 12),
}


@pytest.mark.parametrize("name", PATHS)
def test_run_and_step_are_taken_from_the_path(saved, name):
    capture = identify(Source(saved(without("global_step")(batch_fields()), name)))
    assert (capture.run, capture.step) == PATHS[name]


def test_the_file_knows_better_than_its_path_and_the_option_better_than_both(saved):
    path = saved({**batch_fields(), "run_name": "said"}, "run-7/step_20/step_batch.pt")
    capture = identify(Source(path))
    assert (capture.run, capture.step) == ("said", 3)
    capture = identify(Source(path), run="told", step=4)
    assert (capture.run, capture.step) == ("told", 4)


def test_an_unknown_step_is_an_error_that_says_how_to_give_it(saved):
    path = saved(without("global_step")(batch_fields()), "run/step_batch.pt")
    with pytest.raises(BadCapture, match=r"does not say its training step; .* or give --step"):
        identify(Source(path))


def test_captures_are_found_in_step_order_and_twins_once(saved, tmp_path):
    for step in (10, 9, 100):
        saved(batch_fields(), f"run/step_{step}/step_batch.pt")
    saved(batch_fields(), "run/step_9/model.pt")
    np.savez(tmp_path / "run/step_9/step_batch.npz", x=1)
    found = find_captures(tmp_path / "run")
    assert [path.parent.name for path in found] == ["step_9", "step_10", "step_100"]
    assert {path.name for path in found} == {"step_batch.pt"}


FACTS = {
    "rank": torch.tensor([0, 0, 0, 1, 1, 1]),
    "engine": ["a", "b", "a", "b", "a", "b"],
    "pack": [0, 0, 1, 1, 2, 2],
    "finish_reason": ["stop", "length", "stop", "stop", None, "stop"],
    "cached_tokens": [0, 3, 0, 3, 0, 3],
    "weight_checksum": ["c0ffee"] * 5 + ["badcab"],
    "temperature": [1.0, 1.0, 1.0, 0.7, 0.7, 0.7],
    "top_p": [1.0] * 6,
    "top_k": [-1] * 6,
}


def test_who_sampled_and_scored_a_row_is_kept(saved, to_lake):
    _, sequences = read(to_lake(saved({**batch_fields(), **FACTS})))
    for name, values in FACTS.items():
        expected = values.tolist() if isinstance(values, torch.Tensor) else values
        assert sequences[name].to_list() == expected, name


def test_a_single_fact_counts_for_all_rows(saved, to_lake):
    facts = {"engine": "replica-3", "meta_info": {"temperature": 0.7, "top_k": 50}, "rank": 2}
    _, sequences = read(to_lake(saved({**batch_fields(), **facts})))
    assert sequences.select("engine", "temperature", "top_k", "rank").unique().rows() == [
        ("replica-3", 0.7, 50, 2)
    ]


def test_a_fact_that_cannot_be_read_is_left_out_and_said(saved):
    wrong = {"engine": ["a"], "top_p": "most", "rank": [0.5] * 6, "kept": torch.zeros(6, 3)}
    batch = Source(saved({**batch_fields(), **wrong})).open()
    for name in wrong:
        assert [note for note in batch.notes if name in note and note.endswith("left out")], name
    assert next(iter(batch.blocks())).sequences["engine"].null_count() == 6


def test_facts_that_no_column_holds_keep_no_capture_out(saved, to_lake):
    fields = batch_fields()
    huge = {"rank": [2**40] * 6, "cached_tokens": [-(2**31)] * 6, "top_k": [1e300] * 6}
    of_tokens = {"kept": torch.full(fields["responses"].shape, 1e30)}
    tokens, sequences = read(to_lake(saved({**fields, **huge, **of_tokens})))
    assert tokens["kept"].null_count() == len(tokens)
    assert all(sequences[name].null_count() == 6 for name in huge)


def test_weights_of_each_token_give_the_rows_oldest_and_newest(saved, to_lake):
    fields = batch_fields()
    mask = fields["response_mask"].bool()
    versions = torch.full(mask.shape, 5.0)
    versions[2, 2:] = 6
    versions[~mask] = 99
    tokens, sequences = read(to_lake(saved({**fields, "policy_versions": versions})))
    trained = tokens.filter("is_trained")
    wanted = [versions[row, pos].item() for row, pos in trained.select("row", "pos").rows()]
    assert trained["policy_version"].to_list() == wanted
    others = len(tokens) - len(trained)
    assert tokens.filter(~tokens["is_trained"])["policy_version"].null_count() == others
    columns = ("row", "policy_version_min", "policy_version_max")
    ends = {row: ends for row, *ends in sequences.select(*columns).rows()}
    assert ends[2] == [5, 6]
    assert all(both == [5, 5] for row, both in ends.items() if row != 2)
