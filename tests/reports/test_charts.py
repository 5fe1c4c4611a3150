"""Charts: exactly their table, the published plots' lines and bands, captions that do not lie."""

import json
import struct

import polars as pl
import pytest

from tests.given import random_tokens, sql_connection, token_frame
from timtrack.tasks.reports.charts.distributions import ratio_caption
from timtrack.tasks.reports.charts.export import save_charts, save_page
from timtrack.tasks.reports.charts.step import DRAWN, draw_charts
from timtrack.tasks.reports.charts.theme import INK, ORANGE, RED


def tables_of(tokens):
    with sql_connection(tokens) as connection:
        names = ("ratio_histogram", "prob_diff_histogram", "logp_density", "gap_by_position")
        more = ("worst_tokens", "step_metrics", "attribution")
        more += ("gap_by_rollout_prob", "culprits", "lag_scan", "corrections", "alignment")
        return {name: connection.sql(f"from {name}").pl() for name in (*names, *more)}


@pytest.fixture(scope="module")
def drawn():
    views = pl.when("is_trained").then(pl.col("logp_train") * 0.9).alias("logp_dense")
    return draw_charts(tables_of(random_tokens(3, gap=1.0).with_columns(views)))


def test_every_chart_has_its_tables_name(drawn):
    assert set(drawn) == {
        "ratio_histogram",
        "prob_diff_histogram",
        "logp_density",
        "gap_by_position",
        "gap_by_rollout_prob",
        "culprits",
        "lag_scan",
        "attribution",
        "correction_frontier",
    }


def test_a_chart_is_left_out_when_a_table_is_missing():
    assert draw_charts({}) == {}


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
        "gap_by_position": ["position in the response (tokens)", "(nats)"],
        "gap_by_rollout_prob": ["p_rollout of the token", "median |ln r| (nats)"],
        "culprits": ["share of total |ln r| over share of tokens"],
        "lag_scan": ["lag (tokens)", "mean |difference| (nats)"],
        "attribution": ["part of KL(rollout || train), k1 (nats)", "engine + staleness"],
        "correction_frontier": ["bias: mean |coefficient - r|", "effective share of the tokens"],
    }
    assert all(title in text for title in expected[name])


def test_captions_are_made_from_the_numbers():
    healthy = tables_of(token_frame([{"pos": i, "logp_rollout": -1 - i / 9} for i in range(9)]))
    [seen, _] = ratio_caption(healthy["step_metrics"].row(0, named=True))
    assert seen == "no token lies outside [1/5, 5]; mean r = 1.625"
    broken = tables_of(token_frame([{"pos": 0}, {"pos": 1, "logp_train": -9.0}]))
    [seen, _] = ratio_caption(broken["step_metrics"].row(0, named=True))
    assert seen.startswith("50 % of tokens lie outside [1/5, 5]: 50 % below, 0 % above")


def test_files_show_without_a_network(drawn, tmp_path):
    save_charts(drawn, tmp_path)
    save_page(drawn, tmp_path / "charts.html")
    page = (tmp_path / "charts.html").read_text()
    assert "<script src=" not in page
    assert len(page) < 3_000_000
    for name in drawn:
        png = (tmp_path / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", png[16:24])
        assert width > 500 and height > 300
        spec = json.loads((tmp_path / f"{name}.vl.json").read_text())
        assert "vega-lite" in spec["$schema"]
