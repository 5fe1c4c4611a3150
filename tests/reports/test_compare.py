"""Runs against each other: run tables, onset, diff, certificate, the comparison page."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pytest import approx

from tests.given import barriers, batch_fields, ingest, sql_connection, token_frame
from timtrack.flows.cli.main import main
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.lake.steps import Step, all_steps
from timtrack.tasks.reports import run_page, step_diff
from timtrack.tasks.reports.charts import over_steps
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.verdicts import bit_equality, change_points


def trend_rows(run: str, gaps: list[float]) -> list[dict]:
    """Two tokens a step, the trainer `gap` nats below."""
    return [
        {
            **{"run": run, "step": step, "pos": pos, "uid": f"u{pos}", "row": pos},
            **{"logp_rollout": -1.0 - pos, "logp_train": -1.0 - pos - gap},
        }
        for step, gap in enumerate(gaps, start=1)
        for pos in (0, 1)
    ]


def test_runs_are_compared_at_the_steps_that_both_have():
    tokens = token_frame([*trend_rows("a", [1.0, 2.0, 9.0]), *trend_rows("b", [3.0, 2.5])])
    with sql_connection(tokens) as connection:
        table = connection.sql("from run_pairs where metric = 'kl_k1'").pl()
    [row] = table.to_dicts()
    assert (row["run"], row["other"], row["steps"]) == ("a", "b", 2)
    assert row["value"] == approx(1.5)
    assert row["difference"] == approx(1.25)
    assert row["share_higher"] == 1
    assert row["se"] == approx(0, abs=1e-6)


def test_steps_are_compared_with_the_one_before():
    with sql_connection(token_frame(trend_rows("a", [1.0, 2.0, 5.0]))) as connection:
        query = "select step, previous_step, difference from step_pairs where metric = 'kl_k1'"
        rows = connection.sql(f"{query} order by step").fetchall()
    assert rows == [(2, 1, approx(1.0, abs=1e-6)), (3, 2, approx(3.0, abs=1e-6))]


@pytest.mark.parametrize(
    ("name", "key"), [("token_trend", "token_id"), ("position_trend", "pos_bin")]
)
def test_slopes_are_those_of_the_steps(name, key):
    gaps = [1.0, 2.0, 4.0, 4.5]
    with sql_connection(token_frame(trend_rows("a", gaps))) as connection:
        [row] = connection.sql(f"from {name}").pl().to_dicts()
    assert row["steps"] == 4
    assert row["kl_k1_slope"] == approx(np.polyfit([1, 2, 3, 4], gaps, 1)[0], rel=1e-6)
    assert row["tokens"] == 8


def test_prompts_are_followed_over_steps(saved, home):
    for number in (1, 2):
        fields = {**batch_fields(seed=1), "global_step": number}
        if number == 2:
            fields["prompts"] = fields["prompts"].clone()
            fields["prompts"][0] += 1  # asked at step 2 only
        step = ingest(saved(fields, f"r/step_{number}/step_batch.pt"), home / "lake")
    table = run_query(all_steps(home / "lake"), "from sample_trend")
    assert set(table["steps"]) == {2}
    assert set(table["step"]) == {1, 2}
    once = run_query([step], "select count(distinct prompt_ids) from sequences").item()
    assert table["prompt_hash"].n_unique() == once - 1


def noise(seed: int, count: int = 20, scatter: float = 0.3) -> np.ndarray:
    return np.exp(scatter * np.random.default_rng(seed).normal(size=count))


def test_a_change_is_found_where_it_is():
    for seed in range(20):
        values = 3e-5 * noise(seed)
        values[9:] = 4.4 * noise(seed + 100)[9:]
        [change] = change_points.changes(values)
        assert abs(change.at - 9) <= 1
        assert change.low <= change.at <= change.high
        assert (change.before, change.after) == (
            approx(np.median(values[: change.at])),
            approx(np.median(values[change.at :])),
        )


def test_runs_without_a_change_raise_no_alarm():
    calm = sum(bool(change_points.changes(3e-5 * noise(seed))) for seed in range(20))
    drifting = sum(
        bool(change_points.changes(noise(seed, scatter=0.2) * np.exp(0.1 * np.arange(20))))
        for seed in range(20)
    )
    assert calm + drifting <= 1


def test_two_changes_are_found():
    values = np.concatenate([noise(1, 15), 8 * noise(2, 15), 64 * noise(3, 15)])
    assert [change.at for change in change_points.changes(values)] == [15, 30]


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 7, [1.0] * 30, [0.0] * 12])
def test_nothing_is_said_of_too_few_or_of_constant_steps(values):
    assert change_points.changes(values) == []


def test_of_eight_steps_sides_must_not_overlap():
    apart = np.r_[noise(1, 4), 9.0 * noise(2, 4)]
    assert [change.at for change in change_points.changes(apart)] == [4]
    assert change_points.changes(np.r_[apart[:3], apart[6], apart[4:6], apart[3], apart[7]]) == []


@pytest.mark.parametrize(
    "strange",
    [
        b"\xff\xfe not UTF-8",
        b"1" * 5000,
        b"[" * 5000,
        b'{"step": 99999999999999999999, "event": "codec on"}',
        b'{"step": true, "event": "codec on"}',
        b'{"step": -1, "event": "codec on"}',
        b'{"step": 1e400, "event": "codec on"}',
        b'{"step": 10, "event": "codec on"}',
    ],
)
def test_a_strange_line_of_a_diary_takes_nothing_from_the_others(strange, tmp_path):
    diary = tmp_path / "run" / "events.jsonl"
    diary.parent.mkdir()
    diary.write_bytes(strange + b'\n{"step": 10, "event": "codec on"}\n' + strange)
    told = change_points.events(diary.parent / "step_10" / "step_batch.pt")
    assert told == [{"step": 10, "event": "codec on"}]


def test_a_diary_that_is_a_pipe_or_endless_is_not_waited_for(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    os.mkfifo(folder / "events.jsonl")
    assert change_points.events(folder / "step_10" / "step_batch.pt") == []
    (folder / "events.jsonl").unlink()
    with (folder / "events.jsonl").open("wb") as diary:
        diary.write(b'{"step": 1, "event": "' + b"x" * 1000 + b'"}\n')
        diary.write(b"[" * (17 << 20))
    [event] = change_points.events(folder / "step_10" / "step_batch.pt")
    assert event == {"step": 1, "event": "x" * 200}
    with (folder / "events.jsonl").open("wb") as diary:
        diary.truncate(1 << 40)  # holes
    assert change_points.events(folder / "step_10" / "step_batch.pt") == []


def test_changes_are_explained_by_events(tmp_path):
    diary = tmp_path / "run" / "events.jsonl"
    diary.parent.mkdir()
    lines = [{"step": 10, "event": "codec on"}, {"step": 3, "event": "sync"}, {"event": "odd"}]
    diary.write_text("\n".join([*map(json.dumps, lines), "not json", "[1]"]))
    told = change_points.events(diary.parent / "step_10" / "step_batch.pt")
    assert told == [{"step": 10, "event": "codec on"}, {"step": 3, "event": "sync"}]
    values = [*(1e-5 * noise(1, 9)), *(2.0 * noise(2, 11))]
    of_one = pl.DataFrame(
        {"run": "r", "step": list(range(1, 21)), "metric": "kl_k3", "value": values}
    )
    trend = pl.concat([of_one, of_one.with_columns(metric=pl.lit("tv"))])
    found = change_points.of_runs(trend, {"r": told})
    assert found.select("step", "events").rows() == [(10, "10: codec on")] * 2
    assert change_points.of_runs(of_one, {}).is_empty()  # what one metric alone shows is none
    [said] = change_points.sentences(found, trend)
    assert said.startswith("r: changed at step 10 (95 %: ")
    assert "events there: 10: codec on" in said
    short = trend.filter(pl.col("step") < 6)
    assert "5 steps, too few" in change_points.sentences(change_points.of_runs(short, {}), short)[0]


def stored(folder: Path, run: str, number: int, **changes) -> Step:
    fields = {**batch_fields(seed=5), **changes, "global_step": number}
    step = ingest(save_step_batch(folder / run, number, fields), folder / "lake")
    write_tables(step, sql_version(), compute_step(step))
    return step


def test_the_same_tokens_scored_again_are_compared_exactly(tmp_path):
    fields = batch_fields(seed=5)
    a = stored(tmp_path, "a", 1)
    order = list(reversed(range(6)))  # the other run's batch has them in another order
    again = {
        name: value[order] if hasattr(value, "shape") else [value[i] for i in order]
        for name, value in fields.items()
        if name != "global_step"
    }
    again["old_log_probs"] = again["old_log_probs"] - 0.25 * again["response_mask"]
    b = stored(tmp_path, "b", 1, **again)
    pair = step_diff.compare(a, b)
    assert (pair.relation, pair.matched) == ("same tokens", 6)
    assert len(pair.tokens) == int(fields["response_mask"].sum())
    by_engine = {row["engine"]: row for row in step_diff.summary(pair.tokens).to_dicts()}
    assert by_engine["rollout"]["unequal"] == 0
    assert by_engine["train"]["unequal"] == len(pair.tokens)
    assert by_engine["train"]["diff_mean"] == approx(-0.25, abs=1e-6)


def test_responses_that_part_are_compared_up_to_there(tmp_path):
    fields = batch_fields(seed=5)
    a = stored(tmp_path, "a", 1)
    other = fields["responses"].clone()
    other[:, 3] += 1
    other = other * fields["response_mask"] + fields["responses"] * (1 - fields["response_mask"])
    b = stored(tmp_path, "b", 1, responses=other)
    pair = step_diff.compare(a, b)
    if pair.relation == "same tokens":  # responses shorter than 4
        assert pair.tokens.group_by("a_row").len()["len"].max() <= 3
    else:
        assert pair.relation == "shared prefixes"
        assert pair.tokens["pos"].max() <= 2


def test_other_prompts_cannot_be_compared(tmp_path):
    a = stored(tmp_path, "a", 1)
    b = stored(tmp_path, "b", 1, prompts=batch_fields(seed=5)["prompts"] + 1)
    pair = step_diff.compare(a, b)
    assert pair.relation == "distributions only"
    assert "tokens cannot be compared" in pair.text


def test_diff_speaks(tmp_path, capsys):
    stored(tmp_path, "a", 1)
    stored(tmp_path, "b", 1)
    assert main(["--home", str(tmp_path), "diff", "a", "b"]) == 0
    assert "6 of 6 and 6 rollouts are the same" in capsys.readouterr().out
    stored(tmp_path, "c", 2)
    assert main(["--home", str(tmp_path), "diff", "a", "c"]) == 2
    assert "have no step in common" in capsys.readouterr().err
    assert (
        main(["--home", str(tmp_path), "diff", "a", "c", "--step", "1", "--other-step", "2"]) == 0
    )


def test_the_first_unequal_step_of_a_run_is_told(tmp_path, capsys):
    """Equal, then unequal from the same place on in every row, and more of it."""
    fields = batch_fields(seed=5)
    same = fields["rollout_log_probs"]
    for step, start in ((1, 99), (2, 4), (3, 2)):
        moved = same.clone()
        moved[:, start:] -= 0.01 * fields["response_mask"][:, start:]
        stored(tmp_path, "runs", step, old_log_probs=moved)
    assert main(["--home", str(tmp_path), "certify", "runs", "--all", "--json"]) == 1
    first, second, third = json.loads(capsys.readouterr().out)
    assert first["zero_diff"] and not second["zero_diff"]
    assert 0 < second["unequal"] < third["unequal"]
    assert {place["pos"] for place in second["first_unequal"]} == {4}
    assert main(["--home", str(tmp_path), "certify", "runs", "--all"]) == 1
    assert "NOT bit-equal at 2 of 3 steps, first at step 2, row 0 position 4" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["--home", str(tmp_path), "certify", "runs", "1", "--all"]) == 0


def test_a_block_at_whose_end_rows_become_unequal_is_named(tmp_path):
    """Every row from token 16 of prompt and response on."""
    fields = batch_fields(width=24, prompt=1, seed=5)
    fields["response_mask"][:] = 1
    fields["attention_mask"][:] = 1
    moved = fields["rollout_log_probs"].clone()
    moved[:, 15:] -= 0.01
    step = ingest(
        save_step_batch(tmp_path / "a", 1, {**fields, "old_log_probs": moved}), tmp_path / "lake"
    )
    onset = bit_equality.of(step).onset
    assert onset == bit_equality.Onset(place=16, share=1.0, block=16)


def test_ulp_counts_the_floats_between():
    one = np.float32(1)
    following = np.nextafter(one, np.float32(2))
    a = np.array([1, 1, 0.0, -1e-45, -2.5, -1.0], dtype=np.float32)
    b = np.array([1, following, -0.0, 1e-45, -2.5, -2.0], dtype=np.float32)
    assert bit_equality.ulp(a, b).tolist() == [0, 1, 0, 2, 0, 2**23]


def test_bit_equal_engines_are_certified(tmp_path, capsys):
    fields = batch_fields(seed=5)
    equal = stored(tmp_path, "equal", 1, old_log_probs=fields["rollout_log_probs"])
    assert bit_equality.of(equal).is_zero
    assert main(["--home", str(tmp_path), "certify", "equal"]) == 0
    almost = fields["rollout_log_probs"].clone()
    almost[2, 0] = float(np.nextafter(almost[2, 0].numpy(), np.float32(0)))
    found = bit_equality.of(stored(tmp_path, "almost", 1, old_log_probs=almost))
    assert (found.unequal, found.max_ulp, found.unequal_rows) == (1, 1, 1)
    assert found.first_unequal == [{"row": 2, "pos": 0}]
    assert found.ulp_histogram == {"0": found.tokens - 1, "1": 1}
    assert main(["--home", str(tmp_path), "certify", "almost", "1", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out.split("unequal, in 0 of 6 rollouts\n")[1])
    assert printed["zero_diff"] is False
    assert main(["--home", str(tmp_path), "certify", "nobody"]) == 2


def test_equal_in_float32_is_no_certificate_of_what_was_captured_in_float64(tmp_path, capsys):
    rollout = batch_fields()["rollout_log_probs"].double()
    both = {"rollout_log_probs": rollout, "old_log_probs": rollout * (1 - 1e-12)}
    found = bit_equality.of(stored(tmp_path, "double", 1, **both))
    assert found.unequal == 0
    assert not found.is_zero
    assert main(["--home", str(tmp_path), "certify", "double"]) == 2
    said = capsys.readouterr()
    assert "equal in float32, 0 of" in said.out
    assert "not known in float64: " in said.err


def test_histogram_bins_close_at_powers_of_two():
    counted = bit_equality._histogram(np.array([0, 1, 2, 3, 4, 5, 8, 9, 2**23]))
    assert counted == {"0": 1, "1": 1, "2": 1, "3-4": 2, "5-8": 2, "9-16": 1, "4194305-8388608": 1}


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    """A home with run `off` of ten steps, and `on`, whose trainer goes off at step 6."""
    home = tmp_path_factory.mktemp("compared")
    for number in range(1, 11):
        for run in ("off", "on"):
            gap = 2.0 if run == "on" and number >= 6 else 0.01
            fields = batch_fields(rows=12, width=20, seed=number, gap=gap)
            stored(home, run, number, **fields)
    (home / "on" / "events.jsonl").write_text('{"step": 6, "event": "codec on"}\n')
    return home


@pytest.mark.slow
def test_a_comparison_says_whether_inputs_match_and_when_a_run_changed(compared):
    steps = all_steps(compared / "lake")
    found = run_page.compare(steps, ["off", "on"], None)
    assert found.inputs == [
        "off and on: the same prompts at 10 of 10 common steps; responses may differ "
        "(`tim diff` says for which tokens)"
    ]
    assert set(found.changes["run"]) == {"on"}
    assert set(found.changes["step"]) == {6}
    assert set(found.changes["events"]) == {"6: codec on"}


@pytest.mark.slow
def test_older_weights_are_an_event(tmp_path):
    for number, version in enumerate([1, 2, 2, 3], start=1):
        stored(tmp_path, "a", number, policy_version=version)
    told = run_page.events(all_steps(tmp_path / "lake"))
    assert told == {"a": [{"step": 3, "event": "rollouts by weights 1 steps old, 0 before"}]}


@pytest.mark.slow
def test_a_baseline_turns_the_differences(compared):
    steps = all_steps(compared / "lake")
    plain = run_page.compare(steps, ["off", "on"], None).tables["run_pairs"]
    turned = run_page.compare(steps, ["off", "on"], "on").tables["run_pairs"]
    assert set(turned["run"]) == {"on"}
    assert turned["difference"].to_list() == (-plain["difference"]).to_list()


@pytest.mark.slow
def test_the_comparison_page_opens(compared, browser, prefect, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    output = tmp_path / "page.html"
    arguments = ["compare", "off", "on", "--baseline", "off", "-o", str(output), "--json"]
    assert main(["--home", str(compared), *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["runs"]) == (str(output), ["off", "on"])
    assert told["mlflow"].startswith("#/experiments/") or "/runs/" in told["mlflow"]
    [folder] = compared.glob("mlartifacts/*/artifacts/comparison")
    assert (folder / "comparison.html").read_text() == output.read_text()
    assert {"changes.csv", "run_pairs.csv"} <= {file.name for file in folder.iterdir()}
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(output.as_uri())
    page.wait_for_selector("body[data-drawn=all]")
    assert page.locator("figure svg").count() == 5
    answer = "off and on do not clearly differ (no interval excludes 0): on has KL (k3) "
    assert page.locator(".verdict").inner_text().startswith(f"Which is worse\n{answer}")
    text = page.inner_text("main")
    assert "the same prompts at 10 of 10 common steps" in text
    assert "on: changed at step 6" in text
    assert "off: no change over 10 steps" in text
    assert complaints == []
    assert barriers(page) == []
    page.set_viewport_size({"width": 390, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


@pytest.mark.slow
def test_a_run_that_is_not_there_is_wrong_usage(compared, capsys):
    assert main(["--home", str(compared), "compare", "off", "nobody"]) == 2
    assert "no run 'nobody'" in capsys.readouterr().err


def test_the_heat_map_has_the_same_scale_on_both_sides_of_zero():
    """A healthy run's -0.0077 nats are near white beside 5.5 of a broken one."""
    cells = [("healthy", -0.0077), ("broken", 5.5)]
    table = pl.DataFrame(
        [
            {"run": run, "step": 1, "pos_bin": 0, "tokens": 9, "kl_k1": gap, "kl_k3": 0.1}
            for run, gap in cells
        ]
    )
    chart = over_steps.position_heat(table).to_dict()
    assert chart["spec"]["encoding"]["color"]["scale"]["domain"] == [-5.5, 5.5]
    alone = over_steps.position_heat(table.with_columns(kl_k1=pl.lit(0.0))).to_dict()
    low, high = alone["spec"]["encoding"]["color"]["scale"]["domain"]
    assert low == -high < 0
