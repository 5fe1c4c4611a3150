"""Charts: exactly their table, the published plots' lines and bands, captions that do not lie."""

import json
import math
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from scipy.stats import t

from tests.given import random_tokens, sql_connection, token_frame
from timtrack.tasks.reports.charts.distributions import ratio_caption
from timtrack.tasks.reports.charts.export import pictures, save_charts
from timtrack.tasks.reports.charts.step import DRAWN, charts_of
from timtrack.tasks.reports.charts.theme import INK, ORANGE, RED


def tables_of(tokens):
    with sql_connection(tokens) as connection:
        names = ("ratio_histogram", "prob_diff_histogram", "logp_density", "gap_along_response")
        more = ("worst_tokens", "step_metrics", "attribution", "logp_diff_histogram")
        more += ("gap_by_rollout_prob", "culprits", "lag_scan", "corrections", "alignment")
        return {name: connection.sql(f"from {name}").pl() for name in (*names, *more)}


@pytest.fixture(scope="module")
def drawn():
    views = pl.when("is_trained").then(pl.col("logp_train") * 0.9).alias("logp_dense")
    return charts_of(tables_of(random_tokens(3, gap=1.0).with_columns(views)))


def test_every_chart_has_its_tables_name(drawn):
    assert set(drawn) == {
        "ratio_histogram",
        "prob_diff_histogram",
        "logp_density",
        "logp_diff_histogram",
        "gap_along_response",
        "gap_by_rollout_prob",
        "culprits",
        "lag_scan",
        "attribution",
        "correction_frontier",
    }


def test_a_chart_is_left_out_when_a_table_is_missing():
    assert charts_of({}) == {}


def test_the_main_plot_has_its_lines_and_bands(drawn):
    spec = drawn["ratio_histogram"].to_dict()
    data = spec["datasets"]
    marks = [(layer["mark"], data[layer["data"]["name"]]) for layer in spec["layer"]]
    rules = [(rows[0]["at"], mark["color"]) for mark, rows in marks if mark["type"] == "rule"]
    assert rules == [
        (0.2, RED),
        (5.0, RED),
        (0.5, ORANGE),
        (2.0, ORANGE),
        (1.0, INK),
    ]
    bands = [(r[0]["low"], r[0]["high"]) for mark, r in marks if mark["type"] == "rect"]
    assert bands == [(0.2, 5.0), (0.5, 2.0)]


@pytest.mark.parametrize("name", [chart.__name__ for chart in DRAWN])
def test_axes_name_quantity_and_unit(drawn, name):
    text = json.dumps(drawn[name].to_dict())
    expected = {
        "ratio_histogram": ["p_train / p_rollout", "share of trained tokens"],
        "prob_diff_histogram": ["|p_train - p_rollout|", "share of trained tokens"],
        "logp_density": ["log-prob by the rollout engine (nats)", "by the trainer (nats)"],
        "gap_along_response": ["position in the response (tokens)", "(nats)"],
        "logp_diff_histogram": ["|ln r| (nats, log axis)", "share of trained tokens"],
        "gap_by_rollout_prob": ["p_rollout of the token", "median |ln r| (nats)"],
        "culprits": ["share of total |ln r| over share of tokens"],
        "lag_scan": ["lag (tokens)", "mean |difference| (nats)"],
        "attribution": ["part of KL(rollout || train), k1 (nats)", "engine + staleness"],
        "correction_frontier": ["bias: mean |coefficient - r|", "effective share of the tokens"],
    }
    assert all(title in text for title in expected[name])


def test_captions_are_made_from_the_numbers():
    healthy = tables_of(token_frame([{"pos": i, "logp_rollout": -1 - i / 9} for i in range(9)]))
    [_, seen] = ratio_caption(healthy["step_metrics"].row(0, named=True))
    assert seen == "no token lies outside [1/5, 5]; mean r = 1.625"
    broken = tables_of(token_frame([{"pos": 0}, {"pos": 1, "logp_train": -9.0}]))
    [_, seen] = ratio_caption(broken["step_metrics"].row(0, named=True))
    assert seen.startswith("50 % of tokens lie outside [1/5, 5]: 50 % below, 0 % above")


def test_files_show_without_a_network(drawn, tmp_path):
    save_charts(pictures(drawn), tmp_path)
    for name, chart in drawn.items():
        svg = ElementTree.parse(tmp_path / f"{name}.svg").getroot()
        assert int(svg.get("width")) > 400 and int(svg.get("height")) > 150
        text = " ".join(svg.itertext())
        assert chart.to_dict()["title"]["text"] in text
        spec = json.loads((tmp_path / f"{name}.vl.json").read_text())
        assert "vega-lite" in spec["$schema"]


def test_pictures_on_one_page_share_no_id(drawn):
    ids = [
        element.get("id")
        for picture in pictures(drawn).values()
        for element in ElementTree.fromstring(picture.svg).iter()
        if element.get("id")
    ]
    assert len(ids) == len(set(ids))


def bars_of(chart):
    """The data of a histogram's bars."""
    spec = chart.to_dict()
    [layer] = [layer for layer in spec["layer"] if layer["mark"]["type"] == "bar"]
    return spec["datasets"][layer["data"]["name"]], layer["encoding"]


def test_a_healthy_step_shows_how_its_gaps_are_spread():
    drawn = charts_of(tables_of(random_tokens(5, gap=1e-4)))
    assert "prob_diff_histogram" not in drawn  # one bar
    bars, encoding = bars_of(drawn["logp_diff_histogram"])
    assert len(bars) > 10
    assert all(bar["left"] < 1e-2 for bar in bars)
    assert "scale" not in encoding["y"] or encoding["y"]["scale"].get("type") != "log"
    [_, encoding] = bars_of(drawn["ratio_histogram"])
    assert encoding["x"]["scale"]["domain"] == [0.5, 2.0]
    assert encoding["y"]["scale"]["type"] == "log"  # two bars of about a half, or one that towers


def test_the_outermost_tokens_are_one_bar():
    gaps = np.concatenate([np.full(2000, 0.01), [-15.0], [9.0]])
    rows = [
        {"row": i % 50, "pos": i // 50, "logp_rollout": -20.0, "logp_train": -20.0 + gap}
        for i, gap in enumerate(gaps)
    ]
    bars, _ = bars_of(charts_of(tables_of(token_frame(rows)))["ratio_histogram"])
    tips = [bar["tip"] for bar in bars]
    assert tips[0].startswith("r below ") and tips[0].endswith("1 token, 0.05 %")
    assert tips[-1].startswith("r from ")
    assert sum(bar["share"] for bar in bars) == pytest.approx(1)
    assert [bar["left"] < bar["right"] for bar in bars] == [True] * len(bars)


def test_stretches_hold_as_many_tokens_and_their_intervals(run_sql):
    random = np.random.default_rng(0)
    rows = [
        {
            "row": row,
            "uid": f"u{row // 2}",
            "pos": pos,
            "logp_train": float(np.float32(-1 + random.normal(0, 1 + pos / 50))),
        }
        for row in range(24)
        for pos in range(random.integers(3, 60))
    ]
    table = run_sql("gap_along_response", *rows)
    frame = token_frame(rows)
    for stretch in table:
        within = frame.filter(pl.col("pos").is_between(stretch["pos_from"], stretch["pos_to"]))
        gap = (within["logp_train"].cast(float) - within["logp_rollout"].cast(float)).abs()
        assert stretch["tokens"] == len(within)
        assert stretch["abs_logp_diff_mean"] == pytest.approx(gap.mean())
        sums = within.with_columns(d=gap - gap.mean()).group_by("uid").agg(pl.len(), pl.sum("d"))
        n, d = sums["len"].to_numpy(), sums["d"].to_numpy()
        effective, clusters = n.sum() ** 2 / (n**2).sum(), len(n)
        if effective < 4.999:
            assert stretch["abs_logp_diff_low"] is stretch["abs_logp_diff_high"] is None
            continue
        error = math.sqrt(clusters / (clusters - 1) * (d**2).sum()) / n.sum()
        margin = t.ppf(0.975, effective - 1) * error
        assert stretch["abs_logp_diff_high"] == pytest.approx(gap.mean() + margin)
        assert stretch["abs_logp_diff_low"] == pytest.approx(max(0, gap.mean() - margin))
    assert sum(stretch["tokens"] for stretch in table) == len(rows)
    assert max(stretch["tokens"] for stretch in table) < 3 * len(rows) / 16


def test_gaps_are_counted_by_size_and_side(run_sql):
    gaps = [0.0, 1e-9, 1e-7, 0.5, -0.5, 3.0, -40.0, 2e-4]
    rows = [
        {"pos": i, "logp_rollout": -50.0 - 0.0, "logp_train": -50.0 + gap}
        for i, gap in enumerate(gaps)
    ]
    exact = [float(np.float32(-50.0 + gap)) + 50.0 for gap in gaps]
    table = run_sql("logp_diff_histogram", *rows)
    assert [row["bin"] for row in table] == list(range(-1, 72))
    for row in table[1:]:
        inside = [g for g in exact if g and row["diff_low"] <= abs(g) < row["diff_high"]]
        assert (row["tokens"], row["tokens_low"]) == (len(inside), sum(g < 0 for g in inside))
    assert table[0]["tokens"] == exact.count(0.0)
