"""Corrections by cells of tokens: the same numbers as token by token, at their bounds too."""

import polars as pl
import pytest
import torch

from tests.given import batch_fields, ingest
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.tables import corrections
from timtrack.tasks.tables.coefficients import coefficient, target
from timtrack.tasks.tables.compute import what_if
from timtrack.tasks.tables.query import run_query

OF_TOKENS = """
select
    frac(c = 0) as frac_tok_dropped,
    frac(c > 0 and c < target) as frac_tok_truncated_high,
    frac(c > target) as frac_tok_truncated_low,
    avg(c) as weight_mean,
    max(c) as weight_max,
    stddev_samp(c) as weight_std,
    avg(abs(c - target)) as bias_l1,
    avg(abs(c - r)) as bias_l1_vs_r,
    sum(advantage * c) / sum(abs(advantage)) as adv_net
from (
    select {c} as c, {target} as target, clipped_ratio as r, advantage from token_weights
)
"""


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """A third of the tokens with r = 1 exactly."""
    folder = tmp_path_factory.mktemp("equal")
    fields = batch_fields(rows=12, width=60, gap=0.4)
    is_equal = torch.arange(60) % 3 == 0
    both = fields["rollout_log_probs"], fields["old_log_probs"]
    fields["old_log_probs"] = torch.where(is_equal, *both)
    return ingest(save_step_batch(folder, 3, fields), folder / "lake")


@pytest.mark.parametrize(
    "text",
    [
        *("tis:1", "clip:0.9,1", "clip:1,1.1", "icepop:1,2", "icepop:0.5,1", "mask_token_hi:1"),
        *("rs_token_k1:0.8,1", "rs_token_k2:0.01", "rs_token_k3:0.02", "outlier:0.3,3"),
        *("tis_seq:1", "mis_seq_hi:1", "seq_mask_tis:0.98,1.02", "opsm:0.01", "dppo_tv:0.01"),
        *("dppo_kl_signed:0.001", "ipo:0.02", "sapo:2,3", "cispo:0.1,0.1", "veto_tis_token:0.2,1"),
        *("gate_kl:0.001", "gate_kl_both:0.002", "gate_kl_seq:0.01", "gate_kl_both_seq:0.01"),
        *("gate_tv_seq:0.05", "seq_mask_tis_hi:1", "rho_mask:0.8,1.2,1.1", "rho_mask_tv:0.3,1"),
        *("rho_mask_seq:0.9,1.1,1", "rho_mask:0.5,1,0.9"),
    ],
)
def test_a_setting_of_ones_own_is_what_it_is_token_by_token(text, step):
    setting = corrections.parse(text)
    table = what_if(step, [setting])["corrections"]
    by_cells = table.row(by_predicate=pl.col("setting") == setting.name, named=True)
    query = OF_TOKENS.format(c=coefficient(setting), target=target(setting))
    [by_tokens] = run_query([step], query).to_dicts()
    shown = {name: by_cells[name] for name in by_tokens}
    assert shown == pytest.approx(by_tokens, rel=1e-10, abs=1e-13)
