"""A tiny lab to its end, and again where it was; its table and answers by hand."""

import json

import duckdb
import numpy as np
import polars as pl
import pytest
import torch
from pytest import approx

from tests.given import ingest
from tests.lab import answers, sentences, to_mlflow
from tests.lab.__main__ import trained
from tests.lab.grid import CLEAN, MISMATCHES, Run, runs
from tests.lab.page import page
from tests.lab.table import SQL, lab, write_database, written, written_answers
from tests.lab.training import acts, done
from timtrack.tasks.demo.toy_grpo.grpo import captured
from timtrack.tasks.tables.catalogue import COLUMN, tables_named
from timtrack.tasks.tables.compute import computed_tables
from timtrack.tasks.verdicts.causes import NEEDED, causes_of

DIRTY = "codec of rank 16"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """2 mismatches x 2 corrections x 1 seed x 2 steps."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lab")
    planned = list(runs([CLEAN, DIRTY], ["tis_token_2", "none"], [0], steps=2))
    return folder, planned, trained(planned, folder, workers=1)


def test_a_tiny_lab_comes_to_its_end(tiny):
    folder, planned, outcomes = tiny
    assert [run.correction for run in planned] == ["none", "tis_token_2"] * 2
    assert len(outcomes) == 4
    table = write_database(outcomes, folder)
    assert len(table) == 4
    with duckdb.connect(folder / "lab.duckdb", read_only=True) as connection:
        assert connection.sql("from lab").fetchall() == table.rows()
        assert len(connection.sql("from judgements").fetchall()) == 2 * 2 * 6
    assert pl.read_parquet(folder / "lab.parquet").equals(table)


def test_a_correction_that_cannot_act_is_not_trained(tiny):
    same = {(o["mismatch"], o["correction"]): o["same_as"] for o in tiny[2]}
    assert same == {
        (CLEAN, "none"): None,
        (CLEAN, "tis_token_2"): "none",
        (DIRTY, "none"): None,
        (DIRTY, "tis_token_2"): None,
    }


def test_it_goes_on_where_it_was(tiny):
    """What is there is not trained again; what is missing is, and gives the same numbers."""
    folder, planned, outcomes = tiny
    kept = {run: run.file(folder).stat().st_mtime_ns for run in planned}
    planned[-1].file(folder).unlink()
    again = trained(planned, folder, workers=1)
    assert again == outcomes
    for run in planned[:-1]:
        assert run.file(folder).stat().st_mtime_ns == kept[run]


def test_advice_acts_where_something_is_recommended():
    calm = {"advice": "none", "settings": {}}
    assert not acts("recommended", [calm, {**calm, "advice": None}])
    assert acts("recommended", [calm, {**calm, "advice": "tis_token_2"}])
    assert acts("alp", [calm])


def outcome(mismatch: str, correction: str, seed: int, after: float, **more) -> dict:
    run = {"mismatch": mismatch, "correction": correction, "seed": seed, "steps": 4}
    rewards = [0.5, 0.75, 0.25, after]
    return {**run, "same_as": None, "before": 0.25, "after": after, "rewards": rewards, **more}


def said(unusable: str | None, bias: float, ess: float, advice: str | None) -> dict:
    number = {"ess_token": ess, "ess_seq": ess, "frac_tok_dropped": 0.0, "adv_kept": 1.0}
    settings = {
        "none": {**number, "unusable": None, "bias_l1_vs_r": 0.3},
        "tis_token_2": {**number, "unusable": unusable, "bias_l1_vs_r": bias},
    }
    metrics = dict.fromkeys(("kl_k1", "abs_logp_diff_p50", "abs_logp_diff_p99_9", "gap_mean"), 0.1)
    numbers = {**metrics, "kl_k3": 0.5, "ess_token": ess, "improves_t": 0.0}
    return {**numbers, "advice": advice, "settings": settings}


def test_the_table_by_hand():
    """Gains are 0.5 clean, 0.25 uncorrected, 0.375 corrected."""
    judged = [said(None, 0.1, 0.75, None), said("biased", 0.1, 0.25, "none")] * 2
    rows = lab(
        [
            outcome(CLEAN, "none", 3, 0.75, judged=[said(None, 0.0, 1.0, "none")] * 4),
            outcome("stale", "none", 3, 0.5, judged=judged),
            outcome("stale", "tis_token_2", 3, 0.625),
        ]
    )
    row = rows.row(by_predicate=pl.col("correction") == "tis_token_2", named=True)
    assert (row["gained"], row["kept"], row["more"]) == (0.375, 0.75, 0.125)
    assert (row["reward_first"], row["reward_last"]) == (0.5, 0.625)
    assert (row["ess_token"], row["bias"], row["usable"]) == (0.5, approx(0.1), 0.5)
    assert row["order_mean"] == 1.5  # first where it is usable, second where it is not
    assert (row["needless"], row["none_usable"]) == (0.5, 0.5)
    assert row["warned_at"] is None
    assert row["reward_fall"] == approx((0.75 + 0.25 + 0.625 + 0.5) / 4 - 0.625)
    assert rows.columns == [match["name"] for match in COLUMN.finditer(SQL)]


def given(effect: float, noise: float) -> pl.DataFrame:
    """Every mismatch x 4 settings x 5 seeds whose gain falls with the place in the order."""
    rng = np.random.default_rng(0)
    rows = []
    for mismatch in MISMATCHES:
        for place in range(1, 5):
            for seed in range(5):
                gained = 0.3 - effect * place + noise * rng.normal()
                row = {"mismatch": mismatch, "correction": f"c{place}", "seed": seed}
                numbers = {"ess_token": 1.0 / place, "ess_seq": 0.5, "bias": place / 10}
                numbers |= {"gained": gained, "more": gained - 0.25, "usable": 1.0}
                rows.append({**row, **numbers, "order_mean": float(place)})
    return pl.DataFrame(rows)


def test_an_order_that_predicts_is_seen_and_one_that_does_not_is_not():
    strong = answers.correlations(given(0.05, 0.001))
    for found in strong["place in the order of `corrections`"].values():
        assert found.value == approx(1, abs=0.05) and found.low > 0.9
    assert np.isnan(strong["ESS of rollouts"]["all"].value)  # constant: no order
    weak = answers.correlations(given(0.0, 0.1))["bias"]["all"]
    assert weak.low < 0 < weak.high


def test_what_is_gained_more_has_an_interval_that_covers_it():
    """Gains are 0.25, 0.2, 0.15, 0.1 in the mean, and 0.25 uncorrected."""
    for place, found in enumerate(answers.paired(given(0.05, 0.03)).values()):
        assert found["all"].value == approx(-0.05 * place, abs=0.02)
        assert found["all"].low < -0.05 * place < found["all"].high
        assert found["all"].high - found["all"].low < 0.05


def test_calibration_counts_runs_by_what_was_said():
    names = ("none", "tis_token_2", "alp", "recommended")
    kept = {"a": (1.0, 0.2, 0.9, 1.0), "b": (0.1, 0.6, 0.3, 0.2)}
    rows = [
        {
            **{"mismatch": mismatch, "seed": 0, "correction": name, "kept": value},
            **{"needless": 1.0 if mismatch == "a" else 0.2, "none_usable": 0.0},
        }
        for mismatch, values in kept.items()
        for name, value in zip(names, values, strict=True)
    ]
    needless, recommended, none = answers.calibration(pl.DataFrame(rows))
    assert (needless.runs, needless.plain, needless.best) == (1, 1, 0)
    assert (recommended.runs, recommended.plain, recommended.best) == (1, 0, 1)
    assert none.runs == 0


def test_what_was_written_is_whole():
    """Every mismatch with every correction, on all seeds; the answers are those of the table."""
    table = written()
    assert table.select("mismatch", "correction", "seed").is_unique().all()
    assert set(table["mismatch"]) == set(MISMATCHES)
    assert table.group_by("seed").len()["len"].n_unique() == 1
    found = written_answers()
    assert found["kept"] == sentences.kept_rows(table)
    assert found["calibration"] == sentences.calibration_rows(table)
    assert found["warned"] == sentences.warned_rows(table)


def test_the_page_and_mlflow_have_it(tmp_path):
    table = written()
    html = page(table, written_answers())
    for text in (DIRTY, "Reward kept", "Reward over steps", "rank correlation"):
        assert text in html
    few = table.filter(pl.col("seed") == 0, pl.col("mismatch").is_in([CLEAN, DIRTY]))
    experiment = to_mlflow.log(few, tmp_path)
    assert to_mlflow.log(few, tmp_path) == experiment  # the same again adds nothing
    client = to_mlflow.MlflowClient(to_mlflow.local_store(tmp_path))
    logged = client.search_runs([experiment])
    nested = [run for run in logged if to_mlflow.PARENT in run.data.tags]
    assert (len(logged), len(nested)) == (len(few) + 2, len(few))
    assert {run.data.tags[to_mlflow.PARENT] for run in nested} < {r.info.run_id for r in logged}
    last = few.row(0, named=True)
    [one] = [r for r in nested if r.info.run_name == f"{DIRTY}, {last['correction']}, seed 0"]
    assert one.data.metrics["reward"] == approx(last["rewards"][-1])


@pytest.mark.parametrize(
    ("mismatch", "steps", "cause"),
    [("engine at temperature 0.7", 1, "F1"), ("codec of rank 3", 1, "F41")],
)
def test_captures_of_the_lab_have_the_cause_that_was_put_there(mismatch, steps, cause, tiny):
    folder = tiny[0]
    recipe = Run(mismatch, "none", 0).recipe
    *_, last = captured(folder / mismatch, recipe, steps, 0, folder)
    tables = computed_tables(ingest(last.capture, folder / "lake"), tables_named(" ".join(NEEDED)))
    assert causes_of(tables)[0].id == cause


def test_a_run_is_the_same_again(tiny, tmp_path):
    folder, planned, outcomes = tiny
    for warm_up in folder.glob("warm-up-*.pt"):
        (tmp_path / warm_up.name).write_bytes(warm_up.read_bytes())
    again = done(planned[2], tmp_path)
    assert json.loads(json.dumps(again)) == outcomes[2]
