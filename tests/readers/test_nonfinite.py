"""Log-probs that are not finite: left out and counted alike in every format, or refused."""

import json

import polars as pl
import pytest
import torch

from tests import formats
from tests.given import batch_fields, ingest
from tests.given_captures import STEP, WRITERS
from tests.given_lake import read
from timtrack.tasks.messages.errors import BadTokens
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.tokens.table import ADDED
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import OURS

NAMES = {"rollout": "rollout_log_probs", "train": "old_log_probs"}


def large(bad: dict[str, list[tuple[int, int]]]) -> dict:
    """A batch of 60 rows with these (row, position) not finite, by engine."""
    fields = batch_fields(rows=60, width=30)
    for engine, places in bad.items():
        for row, pos in places:
            fields[NAMES[engine]][row, pos] = float("nan")
    return fields


def first_trained(batch: dict, row: int) -> int:
    return int(batch["response_mask"][row].argmax())


@pytest.mark.parametrize("engine", ["rollout", "train"])
@pytest.mark.parametrize("name", [n for n in WRITERS if n != "prime_rl_traces"])
def test_every_format_leaves_such_a_token_out_and_counts_it(name, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "timtrack.tasks.tokens.checks.MOST_NONFINITE", 0.2
    )  # the formats' batch is small
    batch = formats.a_batch()
    place = (2, first_trained(batch, 2) + 1)
    batch[NAMES[engine]][place] = float("nan")
    step = ingest(WRITERS[name](tmp_path, batch, STEP), tmp_path / "lake")
    tokens, rows = read(step)
    [token] = tokens.filter(row=place[0], pos=place[1]).to_dicts()
    assert (token["is_trained"], token["logp_rollout"], token["logp_train"]) == (False, None, None)
    assert token[f"nonfinite_{engine}"] is True
    assert tokens["nonfinite_rollout"].sum() + tokens["nonfinite_train"].sum() == 1
    facts = step.facts()
    assert facts[f"nonfinite_{engine}"] == 1
    assert facts["trained_tokens"] == tokens["is_trained"].sum() == rows["trained_tokens"].sum()
    noted = f"have no finite logp_{engine}, first at row {place[0]} position {place[1]}"
    assert noted in " ".join(facts["notes"])


def test_what_a_trace_has_no_log_prob_for_is_counted_where_the_trainer_wrote_of_it(
    tmp_path, monkeypatch
):
    """null inside trainer_logprobs with an entropy beside it: trained on, but not finite."""
    monkeypatch.setattr("timtrack.tasks.tokens.checks.MOST_NONFINITE", 0.2)
    batch = formats.a_batch()
    place = (2, first_trained(batch, 2) + 1)
    batch["old_log_probs"][place] = float("nan")
    path = formats.prime_rl_traces(tmp_path, batch, STEP)
    step = ingest(path, tmp_path / "lake")
    assert step.facts()["nonfinite_train"] == 1


def test_the_numbers_are_those_of_the_other_tokens(saved, to_lake):
    fields = large({"train": [(3, 0)], "rollout": [(5, 0), (7, 0)]})
    step = to_lake(saved(fields))
    row = compute_step(step)["step_metrics"].row(0, named=True)
    mask = fields["response_mask"].bool()
    d = (fields["old_log_probs"] - fields["rollout_log_probs"]).double()
    finite = mask & torch.isfinite(d)
    assert (row["nonfinite_rollout"], row["nonfinite_train"]) == (2, 1)
    assert row["trained_tokens"] == int(finite.sum()) == int(mask.sum()) - 3
    assert row["kl_k1"] == pytest.approx(float(-d[finite].mean()), rel=1e-6)


@pytest.mark.parametrize(("count", "matters"), [(1, False), (5, True)])
def test_a_finding_from_a_thousandth_on(count, matters, saved, to_lake):
    fields = batch_fields(rows=120, width=30, gap=1e-5)
    longest = int(fields["response_mask"].sum(1).argmax())
    fields["rollout_log_probs"][longest, :count] = float("-inf")
    assert 1000 < int(fields["response_mask"].sum()) < 5000
    step = to_lake(saved(fields))
    judged = assess(step.facts(), compute_step(step), OURS)
    told = [f for f in judged.findings if "no finite log-prob by the rollout engine" in f.text]
    assert len(told) == matters
    assert (judged.status == "watch") == matters


def test_above_five_percent_the_capture_is_refused(saved, to_lake):
    fields = batch_fields(rows=60, width=30)
    fields["old_log_probs"][:12] = float("nan")
    with pytest.raises(BadTokens, match=r"no finite logp_train, first at .*More than 5%"):
        to_lake(saved(fields))


def test_a_view_without_a_value_is_null_there_and_the_token_stays(saved, to_lake):
    fields = large({})
    fields["dense_log_probs"] = fields["old_log_probs"].clone()
    fields["dense_log_probs"][4, 0] = float("-inf")
    step = to_lake(saved(fields))
    [token] = read(step)[0].filter(row=4, pos=0).to_dicts()
    assert token["is_trained"]
    assert token["logp_dense"] is None
    assert "1 of " in " ".join(step.facts()["notes"])
    assert "trained tokens have no finite logp_dense: NULL there" in " ".join(step.facts()["notes"])


def test_a_view_of_which_more_is_missing_is_refused(saved, to_lake):
    fields = large({})
    fields["dense_log_probs"] = fields["old_log_probs"].clone()
    fields["dense_log_probs"][:12] = float("nan")
    with pytest.raises(BadTokens, match=r"no finite logp_dense.*More than 5%: leave it out"):
        to_lake(saved(fields))


def test_such_a_token_ends_no_turn(saved, to_lake):
    row = int(large({})["response_mask"].sum(1).argmax())
    turns = [
        read(to_lake(saved(large(bad), f"{name}/step_1/step_batch.pt")))[1].filter(row=row)["turns"]
        for name, bad in (("a", {}), ("b", {"train": [(row, 3), (row, 4)]}))
    ]
    assert turns[0].to_list() == turns[1].to_list()


def test_an_exact_zero_of_nemo_rl_is_outside_the_trainers_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("timtrack.tasks.tokens.checks.MOST_NONFINITE", 0.2)
    batch = formats.a_batch()
    place = (2, first_trained(batch, 2) + 1)
    batch["old_log_probs"][place] = 0.0
    batch["rollout_log_probs"][place] = -3.0
    step = ingest(formats.nemo_rl(tmp_path, batch, STEP), tmp_path / "lake")
    assert step.facts()["nonfinite_train"] == 1
    assert "outside the trainer's top-p or top-k" in " ".join(step.facts()["notes"])
    batch["rollout_log_probs"][place] = -0.05  # the engine is as sure: a log-prob of 0
    step = ingest(formats.nemo_rl(tmp_path / "b", batch, STEP), tmp_path / "lake2")
    assert step.facts()["nonfinite_train"] == 0
    assert "top-p" not in " ".join(step.facts()["notes"])


@pytest.mark.parametrize("version", [1, 2])
def test_a_step_of_an_earlier_schema_answers_beside_new_ones(version, saved, to_lake):
    """Its capture may be gone: what the earlier schema lacks is NULL, not an error."""
    steps = [to_lake(saved(batch_fields(seed=n)), step=n) for n in (1, 2)]
    old = steps[0]
    later = {name for since, names in ADDED.items() if since > version for name in names}
    for table in ("tokens", "sequences"):
        file = old.path / f"{table}.parquet"
        pl.read_parquet(file).drop(later, strict=False).write_parquet(file)
    facts = old.facts() | {"schema_version": version}
    (old.path / "capture.json").write_text(json.dumps(facts))
    for chosen in ([old], steps):
        answer = run_query(chosen, "select step, kl_k3, nonfinite_train from step_metrics")
        assert answer["kl_k3"].null_count() == 0
        assert answer["nonfinite_train"].to_list() == [0] * len(chosen)
        rows = run_query(chosen, "select step, engine, rank, top_p from sequences where step = 1")
        assert rows.drop("step").null_count().row(0) == (len(rows),) * 3


@pytest.mark.parametrize("placeholder", [-1e4, -1e9, -65504.0, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("engine", ["rollout", "train"])
def test_a_placeholder_is_no_log_prob(engine, placeholder, saved, to_lake):
    """2 of them, and a NaN: three are left out, and it is said why."""
    fields = large({engine: [(3, 0)]})
    fields[NAMES[engine]][5, 0] = fields[NAMES[engine]][7, 0] = placeholder
    fields[NAMES[engine]][9, 0] = -9_999.0  # improbable, but a number
    step = to_lake(saved(fields))
    tokens, _ = read(step)
    assert step.facts()[f"nonfinite_{engine}"] == 3
    assert tokens.filter(row=5, pos=0)[f"logp_{engine}"].to_list() == [None]
    assert tokens[f"logp_{engine}"].min() == -9_999.0
    notes = " ".join(step.facts()["notes"])
    assert f"have no finite logp_{engine}, first at row 3 position 0, row 5 position 0" in notes
    assert "(2 of them -10,000 nats or less: placeholders): not trained on here" in notes


def test_a_capture_of_placeholders_is_refused(saved, to_lake):
    fields = batch_fields(rows=60, width=30)
    fields["old_log_probs"][:12] = -1e9
    with pytest.raises(
        BadTokens, match=r"of them -10,000 nats or less: placeholders.*More than 5%"
    ):
        to_lake(saved(fields))


def test_placeholders_outside_the_mask_are_not_counted(saved, to_lake):
    fields = batch_fields(rows=60, width=30)
    fields["old_log_probs"][fields["response_mask"] == 0] = -1e9
    step = to_lake(saved(fields))
    assert "placeholders" not in " ".join(step.facts()["notes"])


def test_a_placeholder_of_a_view_is_null(saved, to_lake):
    fields = large({})
    fields["dense_log_probs"] = fields["old_log_probs"].clone()
    fields["dense_log_probs"][4, 0] = -1e9
    step = to_lake(saved(fields))
    assert read(step)[0].filter(row=4, pos=0)["logp_dense"].to_list() == [None]


# What is NaN beside the log-probs


def advantage_notes(step) -> list[str]:
    return [note for note in step.facts()["notes"] if "advantage" in note]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_advantages_that_are_nan_throughout_are_told_of(value, saved, to_lake):
    fields = large({})
    fields["advantages"] = torch.full_like(fields["advantages"], value)
    step = to_lake(saved(fields))
    count = int(fields["response_mask"].sum())
    expected = f"advantage has no finite value on all {count} trained tokens: taken as unknown"
    assert advantage_notes(step) == [expected]
    assert read(step)[0]["advantage"].null_count() == count


def test_a_part_of_the_advantages_that_is_nan_is_counted_under_the_mask(saved, to_lake):
    fields = large({})
    fields["advantages"][3, 0] = fields["advantages"][4, 0] = float("nan")
    fields["advantages"][fields["response_mask"] == 0] = float("nan")
    step = to_lake(saved(fields))
    count = int(fields["response_mask"].sum())
    expected = f"advantage has no finite value on 2 of {count} trained tokens: NULL there"
    assert advantage_notes(step) == [expected]


def test_one_advantage_a_row_may_be_nan_too(saved, to_lake):
    """It was stored as NaN, which no average survives."""
    fields = large({})
    fields["advantages"] = [1.0] * 59 + [float("nan")]
    step = to_lake(saved(fields))
    count, all_of = int(fields["response_mask"][59].sum()), int(fields["response_mask"].sum())
    expected = f"advantage has no finite value on {count} of {all_of} trained tokens: NULL there"
    assert advantage_notes(step) == [expected]
    assert read(step)[0]["advantage"].is_nan().sum() == 0


def test_no_advantages_are_no_matter(saved, to_lake):
    fields = {k: v for k, v in large({}).items() if k != "advantages"}
    assert advantage_notes(to_lake(saved(fields))) == []


# Names


def test_a_uid_that_is_a_number_here_and_text_there_is_told_of(saved, to_lake):
    fields = batch_fields()
    fields["uid"] = [1, "1", 1, "2", 3, "x"]
    step = to_lake(saved(fields))
    assert read(step)[1]["uid"].to_list() == ["1", "1", "1", "2", "3", "x"]
    [note] = [note for note in step.facts()["notes"] if "uid" in note]
    assert note.startswith("uid is a whole number in 2 rows, and in others a text of the same digi")


@pytest.mark.parametrize("uid", [[1, 1, 2, 2, 3, 3], ["1", "1", "2", "2", "a", "b"]])
def test_uids_of_one_kind_are_not(uid, saved, to_lake):
    step = to_lake(saved({**batch_fields(), "uid": uid}))
    assert not [note for note in step.facts()["notes"] if "uid" in note]


def test_mixed_uids_of_json_lines_are_told_of_too(tmp_path):
    path = formats.home_made(tmp_path, formats.a_batch(), "jsonl")
    old = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [{**record, "uid": 7 if row % 2 else "7"} for row, record in enumerate(old)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    step = ingest(path, tmp_path / "lake", columns=formats.COLUMNS, run="r", step=1)
    assert any(note.startswith("uid is a whole number in 3 rows") for note in step.facts()["notes"])
