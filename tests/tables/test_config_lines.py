"""The line printed for a framework does what the row says, as the framework's own code does it.

Each line is parsed and carried out by a restatement of that framework (tests/tables/oracles),
written from its source by someone who had not seen the project's formulas.
"""

import numpy as np
import polars as pl
import pytest

from tests.given import sql_connection
from tests.given_tables import described
from tests.tables.oracles.framework_corrections import (
    Rows,
    coefficients,
    ms_swift,
    prime_rl_dppo,
    skyrl,
    vespo_trl,
)
from timtrack.tasks.tables import corrections
from timtrack.tasks.tables.coefficients import coefficient

GAPS = [0.02, 0.5, 3.0, 12.0, 40.0]
FLOOR = 3e-9  # e^-20, to which weights are clipped; frameworks that do not clip go below


@pytest.fixture(scope="module", params=GAPS)
def step(request):
    """Coefficients of every setting by token, and the same step as the frameworks hold it."""
    tokens, sequences = described(seed=11, gap=request.param)
    rng = np.random.default_rng(4)
    signs = pl.Series(rng.choice([-1.0, 0.0, 0.7], len(tokens)), dtype=pl.Float32)
    tokens = tokens.with_columns(advantage=signs)
    settings = corrections.defaults().values()
    columns = ", ".join(f"{coefficient(s)} as c{i}" for i, s in enumerate(settings))
    with sql_connection(tokens, sequences) as connection:
        query = f"select row, {columns} from token_weights order by row, pos"
        table = connection.sql(query).pl()
        query = "select logp_rollout, logp_train, advantage from trained_tokens order by row, pos"
        table = table.hstack(connection.sql(query).pl().cast(pl.Float64))
    names = {setting.name: f"c{i}" for i, setting in enumerate(settings)}
    by_row = table.partition_by("row", maintain_order=True)
    scores = ("logp_rollout", "logp_train", "advantage")
    parts = ([part[name].to_numpy() for part in by_row] for name in scores)
    return Rows(*parts), {n: table[c].to_numpy() for n, c in names.items()}


LINES = [
    (setting.name, framework, line)
    for setting in corrections.defaults().values()
    for framework, line in setting.config.items()
]


@pytest.mark.parametrize(("name", "framework", "line"), LINES, ids=lambda text: text[:40])
def test_a_printed_line_does_what_its_row_says(name, framework, line, step):
    rows, computed = step
    expected = np.concatenate(coefficients(framework, line, rows))
    np.testing.assert_allclose(computed[name], expected, rtol=1e-9, atol=FLOOR)


SKYRL_DPPO = {
    **{"policy_loss_type": "dppo", "dppo_type": "binary_kl"},
    **{"delta_low": 0.05, "delta_high": 0.05},
}
OTHERS = {
    "tis_seq_mean_2": lambda rows: ms_swift("sequence_truncate", 2.0, rows),
    "seq_mask_tis_hi_2": lambda rows: ms_swift("sequence_mask", 2.0, rows),
    "dppo_tv_0.2": lambda rows: prime_rl_dppo(rows, 0.2, 0.2),
    "dppo_kl_signed_0.05": lambda rows: skyrl(SKYRL_DPPO, rows),
    "vespo": lambda rows: vespo_trl(rows),
}


@pytest.mark.parametrize("name", OTHERS)
def test_settings_without_a_line_are_those_of_their_framework(name, step):
    rows, computed = step
    expected = np.concatenate(OTHERS[name](rows))
    beyond = np.abs(np.concatenate([p - q for p, q in zip(rows.train, rows.rollout, strict=True)]))
    same = beyond <= 20 if name == "dppo_tv_0.2" else np.ones(len(beyond), dtype=bool)
    np.testing.assert_allclose(computed[name][same], expected[same], rtol=1e-9, atol=FLOOR)
