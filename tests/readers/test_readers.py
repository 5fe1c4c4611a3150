"""What frameworks write gives the token table that the same data gives as step_batch.pt."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from tests import formats
from tests.given import ingest
from tests.given_captures import BY_TENSORDICT, STEP, WRITERS
from tests.given_lake import read
from timtrack.flows.cli.main import main
from timtrack.tasks.backlog import quarantine
from timtrack.tasks.captures.capture import check_unchanged, identify
from timtrack.tasks.captures.completeness import is_complete
from timtrack.tasks.captures.discovery import find_captures
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.messages.errors import BadCapture
from timtrack.tasks.readers.containers import ranks
from timtrack.tasks.readers.nemo_rl import supersedes
from timtrack.tasks.readers.prime_rl import token_exports
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import OURS


@pytest.fixture
def batch():
    return formats.a_batch()


def same_groups(tokens: pl.DataFrame) -> list[int]:
    """The groups by the row that they begin with: names differ, members do not."""
    firsts = tokens.select(pl.col("row").min().over(pl.col("uid").cast(pl.String)))
    return firsts["row"].to_list()


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "step_batch"])
def test_every_format_reads_like_step_batch(name, batch, tmp_path):
    expected, sequences = read(
        ingest(formats.step_batch(tmp_path / "a", batch, STEP), tmp_path / "l")
    )
    path = WRITERS[name](tmp_path / name, batch, STEP)
    step = ingest(path, tmp_path / "lake")
    tokens, rows = read(step)
    assert step.step == STEP
    assert step.facts()["format"] == name
    known = [c for c in expected.columns if c not in ("uid", "entropy", "kept")]
    assert_frame_equal(tokens[known], expected[known])
    shared = ["row", "prompt_tokens", "response_tokens", "trained_tokens", "turns", "prompt_ids"]
    assert_frame_equal(rows[shared], sequences[shared])
    if name != "skyrl":  # which has none
        assert rows["reward"].to_list() == sequences["reward"].to_list()


@pytest.mark.parametrize("name", ["slime", "slime_ranks"])
def test_groups_and_weights_come_from_the_rollout_file(name, batch, tmp_path):
    _, expected = read(ingest(formats.step_batch(tmp_path / "a", batch, STEP), tmp_path / "l"))
    _, rows = read(ingest(WRITERS[name](tmp_path / "b", batch, STEP), tmp_path / "lake"))
    assert rows["uid"].to_list() == expected["uid"].to_list()
    assert set(rows["policy_version_min"]) == {STEP}
    assert set(rows["policy_version_max"]) == {STEP + 1}
    assert rows["finish_reason"].to_list() == ["length", "stop", "stop", "stop", "stop", "abort"]
    assert rows["cached_tokens"].to_list() == [0, 2, 4, 6, 8, 10]


def test_slime_says_which_rank_scored_a_row_and_what_top_p_kept(batch, tmp_path):
    tokens, rows = read(ingest(formats.slime(tmp_path, batch, STEP), tmp_path / "lake"))
    assert rows["rank"].to_list() == [0, 1, 0, 1, 0, 1]
    trained = tokens.filter("is_trained")
    assert trained["kept"].to_list() == [1 + pos % 3 for pos in trained["pos"]]


def test_prime_rl_says_which_rank_and_micro_batch(batch, tmp_path):
    _, rows = read(ingest(formats.prime_rl(tmp_path, batch, STEP), tmp_path / "lake"))
    assert rows["rank"].to_list() == [row % 2 for row in range(6)]
    assert rows["pack"].to_list() == [row // 4 for row in range(6)]


@pytest.mark.parametrize("name", list(WRITERS))
def test_without_a_group_the_prompt_is_one(name, batch, tmp_path):
    del batch["uid"]
    batch["uid"] = [f"u{row}" for row in range(6)]
    batch["prompts"][1] = batch["prompts"][0]
    batch["attention_mask"][1, :4] = batch["attention_mask"][0, :4]
    path = WRITERS[name](tmp_path / name, batch, STEP)
    shutil.rmtree(tmp_path / name / "rollout_data", ignore_errors=True)
    _, rows = read(ingest(path, tmp_path / "lake"))
    wanted = name in ("step_batch", "prime_rl_traces")  # which have a group
    assert (rows["uid"][0] == rows["uid"][1]) is not wanted


def test_a_mixed_directory_is_one_ingest(batch, tmp_path):
    for index, (name, write) in enumerate(WRITERS.items()):
        write(tmp_path / "runs" / name, formats.a_batch(index), STEP)
    found = find_captures(tmp_path / "runs")
    steps = [ingest(path, tmp_path / "lake") for path in found]
    assert {step.facts()["format"] for step in steps} == set(WRITERS)
    named = {"nemo_rl": "nemo_rl/exp_001", "prime_rl_traces": "run-1"}  # by the files
    assert {step.run for step in steps} == {named.get(name, name) for name in WRITERS}
    assert len(steps) == len(WRITERS)


def test_nemo_rl_up_to_v05_has_no_ids_and_a_guessed_mask(batch, tmp_path):
    expected, _ = read(ingest(formats.step_batch(tmp_path / "a", batch, STEP), tmp_path / "l"))
    step = ingest(formats.nemo_rl(tmp_path, batch, STEP, masked=False), tmp_path / "lake")
    tokens, rows = read(step)
    known = ["row", "pos", "is_trained", "logp_rollout", "logp_train"]
    assert_frame_equal(tokens[known], expected[known])
    assert tokens["token_id"].null_count() == len(tokens)
    assert rows["uid"].null_count() == len(rows)
    assert "no token_loss_mask" in " ".join(step.facts()["notes"])
    computed = compute_step(step)
    assert computed["step_metrics"]["token_r2_train"][0] is None
    assert computed["gap_by_token"].is_empty()
    assert assess(step.facts(), computed, OURS).findings


def test_nemo_rl_writes_what_json_does_not_have(batch, tmp_path):
    path = formats.nemo_rl(tmp_path, batch, STEP)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["prev_logprobs"][0][-1] = float("-inf")
    lines[1]["rewards"] = [float("nan")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, rows = read(ingest(path, tmp_path / "lake"))
    assert rows["reward"][1] is None
    lines[1]["prev_logprobs"][0][lines[1]["input_lengths"][0] - 1] = float("nan")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    step = ingest(path, tmp_path / "lake2")
    assert step.facts()["nonfinite_train"] == 1
    assert "no finite logp_train, first at row 1" in " ".join(step.facts()["notes"])


def test_nemo_rl_without_a_recompute_is_said(batch, tmp_path):
    batch["old_log_probs"] = torch.zeros_like(batch["old_log_probs"])
    with pytest.raises(BadCapture, match=r"logp_train is 0 on all .* not computed"):
        ingest(formats.nemo_rl(tmp_path, batch, STEP), tmp_path / "lake")


def test_samples_that_are_left_out_are_not_trained_on(batch, tmp_path):
    path = formats.nemo_rl(tmp_path, batch, STEP)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2]["sample_loss_mask"] = [0.0]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, rows = read(ingest(path, tmp_path / "lake"))
    assert rows["trained_tokens"][2] == 0
    assert rows["response_tokens"][2] > 0


def test_nemo_rl_restarts_are_one_run(batch, tmp_path):
    """exp_002 goes on from step 2, exp_003 begins anew."""
    logs = tmp_path / "logs"
    for name, steps in {"exp_001": (1, 2, 3), "exp_002": (2,), "exp_003": (1,)}.items():
        for step in steps:
            written = formats.nemo_rl(tmp_path / "aside", formats.a_batch(step), step)
            (logs / name).mkdir(parents=True, exist_ok=True)
            shutil.move(written, logs / name / written.name)
    found = find_captures(logs)
    names = [path.relative_to(logs).as_posix() for path in found]
    assert names == [
        *("exp_001/train_data_step1.jsonl", "exp_001/train_data_step3.jsonl"),
        *("exp_002/train_data_step2.jsonl", "exp_003/train_data_step1.jsonl"),
    ]
    runs = [identify(Source(path)).run for path in found]
    assert runs == ["logs/exp_001", "logs/exp_001", "logs/exp_001", "logs/exp_003"]
    old = logs / "exp_001/train_data_step2.jsonl"
    assert supersedes(found[2], old)
    assert not supersedes(old, found[2])


@pytest.mark.parametrize("size", [2, 4])
def test_context_parallel_slices_are_put_together(size, batch, tmp_path):
    expected, _ = read(ingest(formats.step_batch(tmp_path / "a", batch, STEP), tmp_path / "l"))
    path = formats.slime_ranks(tmp_path / "b", batch, STEP, cp_size=size)
    tokens, _ = read(ingest(path, tmp_path / "lake"))
    known = ["row", "pos", "token_id", "is_trained", "logp_rollout", "logp_train", "advantage"]
    assert_frame_equal(tokens[known], expected[known])


def rounded_by_miles(batch, root: Path, cp_size: int) -> Path:
    """The ranks' files with the engine's log-probs in bfloat16 (--true-on-policy-mode)."""
    rounded = {**batch, "rollout_log_probs": batch["rollout_log_probs"].bfloat16().float()}
    return formats.slime_ranks(root, rounded, STEP, cp_size=cp_size)


@pytest.mark.parametrize("size", [1, 2])
def test_miles_mirror_has_the_engines_log_probs_unrounded(size, batch, tmp_path):
    expected, _ = read(ingest(formats.step_batch(tmp_path / "a", batch, STEP), tmp_path / "l"))
    path = rounded_by_miles(batch, tmp_path / "b", size)
    known = ["row", "pos", "token_id", "is_trained", "logp_rollout", "logp_train"]
    rounded, _ = read(ingest(path, tmp_path / "rounded"))
    assert not rounded["logp_rollout"].equals(expected["logp_rollout"])
    mirror = formats.miles_mirror(tmp_path / "b", batch, STEP)
    assert mirror in Source(path).files()
    tokens, _ = read(ingest(path, tmp_path / "exact"))
    assert_frame_equal(tokens[known], expected[known])


def test_a_mirror_of_other_tokens_or_that_cannot_be_read_changes_nothing(batch, tmp_path):
    path = rounded_by_miles(batch, tmp_path, 1)
    rounded, _ = read(ingest(path, tmp_path / "rounded"))
    mirror = formats.miles_mirror(tmp_path, batch, STEP)
    table = pl.read_parquet(mirror)
    other = pl.col("tokens").list.eval(pl.element() + 1)
    moved = table.with_columns(pl.when(pl.col("sample_index") > 0).then(other).otherwise("tokens"))
    moved.write_parquet(mirror)
    step = ingest(path, tmp_path / "other")
    tokens, _ = read(step)
    assert not tokens.filter(row=0)["logp_rollout"].equals(rounded.filter(row=0)["logp_rollout"])
    assert tokens.filter(pl.col("row") > 0).equals(rounded.filter(pl.col("row") > 0))
    for content, reason in (
        (b"PAR1 and no more", f"dashboard_columns/rollout_{STEP}.parquet cannot be read"),
        (_parquet(pl.concat([table, table[:1]])), "it has samples twice"),
        (_parquet(table.drop("tokens")), "cannot be read"),
    ):
        mirror.write_bytes(content)
        step = ingest(path, tmp_path / f"lake {len(content)}")
        assert reason in " ".join(step.facts()["notes"])
        tokens, _ = read(step)
        assert tokens["logp_rollout"].equals(rounded["logp_rollout"])


def _parquet(table: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    table.write_parquet(file)
    return file.getvalue()


def test_slices_that_do_not_say_which_are_refused(batch, tmp_path):
    path = formats.slime_ranks(tmp_path, batch, STEP, cp_size=2)
    for file in path.parent.glob("*.pt"):
        content = torch.load(file)
        torch.save({k: v for k, v in content.items() if not k.startswith("cp_")}, file)
    with pytest.raises(BadCapture, match="slice of context parallelism"):
        ingest(path, tmp_path / "lake")


def test_a_missing_rank_is_said(batch, tmp_path):
    path = formats.slime_ranks(tmp_path, batch, STEP)
    for rank in (3, 4, 5):
        (path.parent / f"{STEP}_{rank}.pt").unlink()
    step = ingest(path, tmp_path / "lake")
    assert "3 of 6 rollouts are in the files of 3 ranks" in " ".join(step.facts()["notes"])
    path = formats.slime_ranks(tmp_path / "cp", batch, STEP, cp_size=2)
    for rank in (2, 4):  # of the first shard's last stage: context-parallel rank 0
        (path.parent / f"{STEP}_{rank}.pt").unlink()
    with pytest.raises(BadCapture, match="files of 1 of 2 context-parallel ranks"):
        ingest(path, tmp_path / "lake")


def test_slime_without_a_recompute_says_which_flag(batch, tmp_path):
    path = formats.slime(tmp_path, batch, STEP)
    content = torch.load(path)
    del content["samples"][2]["log_probs"]
    torch.save(content, path)
    with pytest.raises(BadCapture, match=r"1 samples, first 2: .*--get-mismatch-metrics"):
        ingest(path, tmp_path / "lake")


def test_what_one_line_lacks_is_null_there_and_stays_in_the_others(tmp_path):
    path = formats.prime_rl(tmp_path, formats.a_batch(), STEP)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    whole, _ = read(ingest(path, tmp_path / "whole"))
    lines[1]["advantages"] = lines[1]["entropy"] = None
    row = 2  # the second line of the first of two ranks
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokens, _ = read(ingest(path, tmp_path / "lake"))
    lacking = pl.col("row") == row
    for name in ("advantage", "entropy"):
        assert tokens.filter(lacking)[name].null_count() == len(tokens.filter(lacking))
        assert tokens.filter(~lacking)[name].equals(whole.filter(~lacking)[name])
        assert whole.filter("is_trained")[name].null_count() == 0


def test_another_rank_makes_another_capture(batch, tmp_path):
    path = formats.prime_rl(tmp_path, batch, STEP)
    before = identify(Source(path))
    assert [part.name for part in Source(path).files()] == ["rank_0.jsonl", "rank_1.jsonl"]
    second = path.with_name("rank_1.jsonl")
    lines = second.read_text().splitlines(keepends=True)
    second.write_text("".join(lines[:-1]))
    after = identify(Source(path))
    assert after.id != before.id
    assert after.stamp[:2] != before.stamp[:2]
    with pytest.raises(BadCapture, match="changed while it was read"):
        check_unchanged(before)
    assert not token_exports.recognises(second)


def test_a_stale_marker_does_not_count(batch, tmp_path):
    path = formats.prime_rl(tmp_path, batch, STEP)
    assert is_complete(Source(path))
    os.utime(path.with_name("rank_1.jsonl"))  # rewritten after a resume, STABLE is the old one's
    os.utime(path.with_name("STABLE"), (1, 1))
    assert not is_complete(Source(path))
    assert is_complete(Source(path), quiet=0)


def test_a_cut_line_is_refused_and_named(batch, tmp_path):
    path = formats.nemo_rl(tmp_path, batch, STEP)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadCapture, match="line 6 is cut short"):
        ingest(path, tmp_path / "lake")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ({"input": "a", "output": "b", "gts": "c", "score": 1.0, "step": 3}, "rollout_data_dir"),
        ({"prompt_tokens": [1], "response_tokens": [2], "logprobs": [0.1]}, "open-instruct"),
        ({"content": ["a"], "input_lengths": [3], "idx": 0}, "distillation"),
        ({"input_ids": [1], "labels": [1], "logprobs": [0], "group_id": "a"}, "PipelineRL"),
        ({"response_tokens": ["a"], "logprobs": [0], "ref_logprobs": [0]}, "infer_logprobs"),
        ({"anything": 1}, "no reader knows this file; it has anything"),
    ],
)
def test_one_side_is_said_with_what_is_missing(lines, says, tmp_path):
    path = tmp_path / "3.jsonl"
    path.write_text(json.dumps(lines) + "\n")
    with pytest.raises(BadCapture, match=says):
        Source(path).open()


def test_the_rollout_file_alone_is_one_side(batch, tmp_path):
    formats.slime(tmp_path, batch, STEP)
    with pytest.raises(BadCapture, match="rollout engine's side only"):
        Source(tmp_path / "rollout_data" / f"{STEP}.pt").open()


def test_the_lake_takes_a_chunk_after_the_other(batch, tmp_path, monkeypatch):
    """Blocks of a few tokens give the same as one."""
    path = formats.nemo_rl(tmp_path, batch, STEP)
    whole = read(ingest(path, tmp_path / "whole"))
    monkeypatch.setattr("timtrack.tasks.readers.rows.ragged.BLOCK_TOKENS", 5)
    parts = read(ingest(path, tmp_path / "parts"))
    for one, other in zip(whole, parts, strict=True):
        assert_frame_equal(one, other)
    assert len(all_steps(tmp_path / "parts")) == 1


@pytest.mark.parametrize("name", list(WRITERS))
def test_inspect_says_what_a_file_is(name, batch, tmp_path, capsys):
    path = WRITERS[name](tmp_path / name, batch, STEP)
    assert main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = dict(line.split(maxsplit=1) for line in lines[: lines.index("")])
    assert (told["format"], told["step"]) == (name, str(STEP))
    assert told["rollouts"] == "6"
    assert lines[-1] == "can be read"


def test_inspect_says_what_is_missing(batch, tmp_path, capsys):
    formats.slime(tmp_path, batch, STEP)
    assert main(["inspect", str(tmp_path / "rollout_data" / f"{STEP}.pt")]) == 1
    told = capsys.readouterr().out
    assert "format      none that is read" in told
    assert "samples.group_index" in told
    assert "cannot be read: this is slime's or miles's rollout_data" in told
    assert main(["inspect", str(tmp_path)]) == 2
    assert main(["formats"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}
    assert listed == set(WRITERS)


@pytest.mark.parametrize("layout", ["right", "dict"])
def test_skyrl_before_2026_03_padded_responses_on_the_right(layout, batch, tmp_path):
    expected, _ = read(ingest(formats.step_batch(tmp_path / "a", batch, STEP), tmp_path / "l"))
    path = formats.skyrl(tmp_path / "b", batch, STEP, layout)
    tokens, rows = read(ingest(path, tmp_path / "lake"))
    known = ["row", "pos", "token_id", "is_trained", "logp_rollout", "logp_train", "advantage"]
    assert_frame_equal(tokens[known], expected[known])
    assert rows["prompt_tokens"].sum() == int(batch["attention_mask"][:, :4].sum())


def test_skyrl_without_a_forward_is_said(batch, tmp_path, monkeypatch):
    whole = formats._pickled_as_skyrl
    monkeypatch.setattr(
        formats,
        "_pickled_as_skyrl",
        lambda fields, old: whole({**fields, "action_log_probs": None}, old),
    )
    with pytest.raises(BadCapture, match="missing action_log_probs: the trainer's forward was"):
        ingest(formats.skyrl(tmp_path, batch, STEP), tmp_path / "lake")


@pytest.mark.parametrize(
    "name",
    [
        *("dataproto.pt", "dataproto.dp", "dataproto_numpy.dp"),
        *("tensordict.pt", "tq_batch.pt", "tq_jagged.pt"),
    ],
)
def test_verls_own_containers_are_read_without_verl(name, batch, tmp_path):
    expected, sequences = read(ingest(formats.step_batch(tmp_path, batch, STEP), tmp_path / "l"))
    step = ingest(BY_TENSORDICT / name, tmp_path / "lake", step=STEP)
    tokens, rows = read(step)
    known = [c for c in expected.columns if c != "uid"]
    assert_frame_equal(tokens[known], expected[known])
    if name != "tensordict.pt":
        assert rows["uid"].to_list() == sequences["uid"].to_list()
        assert identify(Source(BY_TENSORDICT / name)).step == STEP


def test_jagged_rows_outside_their_values_are_refused(batch, tmp_path):
    rows = torch.nested.as_nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged)
    for offsets in ([0, 3, 6], [0, -1, 5], [3, 0, 5]):
        rows._offsets = torch.tensor(offsets)
        batch["rollout_log_probs"] = rows
        with pytest.raises(BadCapture, match="outside its 5 values"):
            Source(formats.step_batch(tmp_path, batch, STEP)).open()


def test_inspect_and_whatif_take_a_mapping(batch, tmp_path, capsys):
    path = formats.home_made(tmp_path, batch, "parquet")
    mapped = ["--columns", formats.COLUMNS]
    assert main(["inspect", str(path), *mapped]) == 0
    assert "format      columns" in capsys.readouterr().out
    assert main(["whatif", str(path), "7", *mapped, "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("\n") > 50


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "pt"])
def test_home_made_dumps_are_read_by_a_mapping(kind, batch, tmp_path):
    expected, sequences = read(ingest(formats.step_batch(tmp_path, batch, STEP), tmp_path / "l"))
    path = formats.home_made(tmp_path / "home", batch, kind)
    step = ingest(path, tmp_path / "lake", step=STEP, columns=formats.COLUMNS)
    tokens, rows = read(step)
    assert_frame_equal(tokens, expected)
    known = ["uid", "reward", "prompt_tokens", "prompt_ids", "turns"]
    assert_frame_equal(rows[known], sequences[known])
    assert step.facts()["columns"] == formats.COLUMNS
    other = identify(Source(path, f"{formats.COLUMNS},entropy=train"), step=STEP)
    assert other.id != step.capture


def test_arrays_side_by_side(batch, tmp_path):
    """Two .npy files and a mask; without ids, as some forks write them."""
    expected, _ = read(ingest(formats.step_batch(tmp_path / "a", batch, STEP), tmp_path / "l"))
    fields = ("rollout_log_probs", "old_log_probs", "response_mask")
    for name in fields:
        np.save(tmp_path / f"{name}.npy", batch[name].numpy())
    mapped = ("logp_rollout", "logp_train", "response_mask")
    columns = ",".join(f"{part}={name}.npy" for part, name in zip(mapped, fields, strict=True))
    path = tmp_path / "old_log_probs.npy"
    step = ingest(path, tmp_path / "lake", step=STEP, columns=columns)
    tokens, _ = read(step)
    trained = expected.filter("is_trained")
    known = ["row", "pos", "logp_rollout", "logp_train"]
    assert_frame_equal(tokens.filter("is_trained")[known], trained[known])
    assert tokens["token_id"].null_count() == len(tokens)
    before = identify(Source(path, columns), step=STEP)
    np.save(tmp_path / "rollout_log_probs.npy", batch["rollout_log_probs"].numpy() - 0.5)
    assert identify(Source(path, columns), step=STEP).id != before.id


def test_flat_arrays_are_one_rollout(tmp_path):
    for name in ("log_probs", "rollout_log_probs"):
        np.save(tmp_path / f"{name}.npy", -np.arange(1, 6, dtype=np.float32))
    columns = "logp_train=log_probs.npy,logp_rollout=rollout_log_probs.npy"
    step = ingest(tmp_path / "log_probs.npy", tmp_path / "lake", step=1, columns=columns)
    tokens, _ = read(step)
    assert tokens["logp_train"].to_list() == [-1, -2, -3, -4, -5]
    notes = " ".join(step.facts()["notes"])
    assert all(
        word in notes for word in ("no sample boundaries", "no token ids", "no response_mask")
    )


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ("logp_rollout", "is not part=name"),
        ("logp_rollout=a,logp_trian=b", "'logp_trian=b' is not part=name; parts are token_id"),
        ("logp_rollout=a", "does not say which column is logp_train"),
    ],
)
def test_a_bad_mapping_is_wrong_usage(columns, says, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["ingest", str(tmp_path), "--columns", columns])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_a_column_that_is_not_there_is_named(batch, tmp_path):
    path = formats.home_made(tmp_path, batch, "parquet")
    with pytest.raises(BadCapture, match="no vllm in the file; it has advantage, ids, mask"):
        Source(path, "logp_rollout=vllm,logp_train=train").open()
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadCapture, match="the table cannot be read"):
        Source(path, "logp_rollout=rollout,logp_train=train").open()
    np.save(tmp_path / "a.npy", np.array(["text"], dtype=object), allow_pickle=True)
    with pytest.raises(BadCapture, match=r"a\.npy is no array of numbers"):
        Source(tmp_path / "a.npy", "logp_rollout=a.npy,logp_train=a.npy").open()


def test_a_new_rank_is_seen_at_once_and_a_large_folder_listed_once(batch, tmp_path):
    path = formats.slime_ranks(tmp_path, batch, STEP)
    assert len(Source(path).files()) == 7  # six ranks and the rollout's
    shutil.copy(path, path.with_name(f"{STEP}_6.pt"))
    assert len(Source(path).files()) == 8
    os.utime(path.parent, (1, 1))  # long settled
    listed = ranks._grouped.cache_info().misses
    for file in path.parent.iterdir():
        Source(file).files()
    assert ranks._grouped.cache_info().misses == listed + 1


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_restart_takes_the_place_of_a_step(home, tmp_path):
    logs = tmp_path / "logs"
    for experiment, step, seed in (("exp_001", 1, 1), ("exp_001", 2, 2), ("exp_002", 2, 3)):
        written = formats.nemo_rl(tmp_path / "aside", formats.a_batch(seed), step)
        (logs / experiment).mkdir(parents=True, exist_ok=True)
        shutil.move(written, logs / experiment / written.name)
        assert main(["--home", str(home), "ingest", str(logs)]) == 0
    steps = all_steps(home / "lake")
    assert [(step.run, step.step) for step in steps] == [("logs/exp_001", 1), ("logs/exp_001", 2)]
    assert "exp_002" in steps[1].facts()["source"]


def test_samples_of_one_slime_rollout_keep_its_number(batch, tmp_path):
    path = formats.slime(tmp_path, batch, STEP)
    content = torch.load(path, weights_only=True)
    for at, sample in enumerate(content["samples"]):
        sample["rollout_ids"] = at // 2
    torch.save(content, path)
    _, rows = read(ingest(path, tmp_path / "lake"))
    assert rows["rollout_id"].to_list() == [at // 2 for at in range(len(rows))]


def npy_pair(folder: Path, batch: dict) -> tuple[Path, str]:
    """Two `.npy` files side by side, a rollout, and the columns that name them."""
    folder.mkdir(parents=True)
    for name in ("rollout_log_probs", "old_log_probs"):
        np.save(folder / f"{name}.npy", batch[name][0].numpy())
    columns = "logp_rollout=rollout_log_probs.npy,logp_train=old_log_probs.npy"
    return folder / "rollout_log_probs.npy", columns


def test_a_mended_second_file_of_a_mapped_capture_is_tried_again(batch, home, tmp_path):
    path, columns = npy_pair(tmp_path / "run" / "step_7", batch)
    second = path.with_name("old_log_probs.npy")
    whole = second.read_bytes()
    second.write_bytes(whole[:40])
    with pytest.raises(BadCapture) as raised:
        identify(Source(path, columns), run="r", step=7)
    quarantine.add(home, Source(path, columns), str(raised.value))
    assert quarantine.holds(home, Source(path, columns))
    second.write_bytes(whole)
    assert not quarantine.holds(home, Source(path, columns))
    assert identify(Source(path, columns), run="r", step=7).step == 7


def test_another_mapping_is_another_try(batch, home, tmp_path):
    path, columns = npy_pair(tmp_path / "run" / "step_7", batch)
    quarantine.add(home, Source(path, columns.replace("old", "odl")), "no such file")
    assert not quarantine.holds(home, Source(path, columns))


def test_all_files_of_a_mapped_capture_count_for_whether_it_is_whole(batch, tmp_path):
    path, columns = npy_pair(tmp_path / "run" / "step_7", batch)
    second = path.with_name("old_log_probs.npy")
    os.utime(path, (1e9, 1e9))
    second.write_bytes(second.read_bytes()[:40])  # just now, not finished
    assert not is_complete(Source(path, columns), quiet=60)
    os.utime(second, (1e9, 1e9))
    assert is_complete(Source(path, columns), quiet=60)


def test_lines_that_were_just_written_may_have_others_after_them(tmp_path):
    path = formats.home_made(tmp_path, formats.a_batch(), "jsonl")
    assert not is_complete(Source(path, formats.COLUMNS), quiet=60)
    os.utime(path, (1e9, 1e9))
    assert is_complete(Source(path, formats.COLUMNS), quiet=60)
