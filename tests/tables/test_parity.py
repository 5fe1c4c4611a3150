"""The tables of frameworks' numbers against restatements from the frameworks' own sources."""

import re
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from pytest import approx

from tests.given import sequence_frame, sql_connection, token_frame
from tests.parity import (
    of_ms_swift,
    of_openrlhf_nemo,
    of_packed,
    of_prime_rl,
    of_roll,
    of_slime,
    of_trl_skyrl,
    of_verl,
)
from tests.parity.batches import Named, Padded, capture, padded
from timtrack.tasks.tables import frameworks
from timtrack.tasks.tables.catalogue import catalogue
from timtrack.tasks.tables.frameworks import FRAMEWORKS

# Names that other tests compare: those without a setting (tests/by_numpy.py).
ELSEWHERE = {
    "verl": {"none", "token", "sequence"},
    "slime": {"none"},
    "miles": {"none"},
    "nemo_rl": {"none"},
}
RESTATED: dict[str, Callable[[Padded], Named]] = {
    "verl": of_verl.metrics,
    "trl": of_trl_skyrl.trl,
    "skyrl": of_trl_skyrl.skyrl,
    "ms_swift": of_ms_swift.ms_swift,
    "openrlhf": of_openrlhf_nemo.openrlhf,
    "nemo_rl": of_openrlhf_nemo.nemo_rl,
    "slime": of_slime.slime,
    "miles": of_slime.miles,
    "roll": of_roll.roll,
    "areal": of_packed.areal,
    "open_instruct": of_packed.open_instruct,
    "tinker": of_packed.tinker,
    "mimo": of_packed.mimo,
}


def table_of(framework: str, tokens: pl.DataFrame, sequences: pl.DataFrame) -> Named:
    with sql_connection(tokens, sequences) as connection:
        rows = connection.sql(f"from {framework}_metrics").pl().to_dicts()
    return {(row.get("setting", "none"), row["name"]): row["value"] for row in rows}


def assert_same(ours: Named, theirs: Named, known: set[str]) -> None:
    """Equal where restated; what is not restated belongs to settings that are known elsewhere."""
    assert {key[0] for key in ours.keys() - theirs.keys()} <= known
    assert theirs.keys() <= ours.keys()
    for key, value in theirs.items():
        if value is None:
            assert ours[key] is None, key
        else:  # to the 1e-8 that some add to a denominator
            assert ours[key] == approx(value, rel=1e-6, abs=1e-10), key


@pytest.mark.parametrize("gap", [1e-3, 0.3, 3.0])
@pytest.mark.parametrize("framework", RESTATED)
def test_a_table_has_the_numbers_of_the_frameworks_source(framework, gap):
    for seed in range(3):
        tokens, sequences = capture(seed, gap)
        theirs = RESTATED[framework](padded(tokens, sequences))
        ours = table_of(framework, tokens, sequences)
        assert_same(ours, theirs, ELSEWHERE.get(framework, set()))


@pytest.mark.parametrize("gap", [1e-3, 0.3, 3.0])
def test_prime_rl_has_the_numbers_of_its_source(gap):
    tokens, sequences = capture(1, gap)
    batch = padded(tokens, sequences)
    entropy = padded(tokens.with_columns(logp_rollout=pl.col("entropy")), sequences).q
    assert_same(
        table_of("prime_rl", tokens, sequences), of_prime_rl.prime_rl(batch, entropy), set()
    )


def test_mlflow_takes_every_name():
    tokens, sequences = capture(0, 0.5)
    with sql_connection(tokens, sequences) as connection:
        tables = {f"{n}_metrics": connection.sql(f"from {n}_metrics").pl() for n in FRAMEWORKS}
    named = frameworks.metrics(tables, FRAMEWORKS)
    assert len(named) == sum(map(len, tables.values()))
    assert all(re.fullmatch(r"[\w\-. :/]+", name) and len(name) <= 250 for name in named)
    assert "mimo/train_infer_diff/new_infer/F_tau_1.5" in named


def test_every_framework_has_a_table_and_is_restated():
    tables = {name for name, table in catalogue().items() if table.folder == "frameworks"}
    assert tables == {f"{framework}_metrics" for framework in FRAMEWORKS}
    assert set(RESTATED) | {"prime_rl"} == set(FRAMEWORKS)


def test_what_needs_advantages_is_unknown_without_them():
    tokens, sequences = capture(0, 0.5)
    unknown_number = pl.lit(None, pl.Float32)
    tokens = tokens.with_columns(advantage=unknown_number, entropy=unknown_number)
    prime = table_of("prime_rl", tokens, sequences)
    assert {value for (setting, _), value in prime.items() if setting == "dppo"} == {None}
    assert prime["none", "kl_ent_ratio/mean"] is None
    assert prime["ipo", "is_masked/mean"] is not None
    instruct = table_of("open_instruct", tokens, sequences)
    unknown = {value for (setting, _), value in instruct.items() if setting == "mask_tv_divergence"}
    assert unknown == {None}
    assert instruct["clamp", "val/rho_weight"] is not None


def test_ratios_beyond_float32_are_as_the_frameworks_have_them():
    """Of e^120, TRL's exp overflows and is bounded, NeMo RL's counts as 0."""
    rows = [
        {"row": 0, "pos": 0, "logp_rollout": -121.0, "logp_train": -1.0},
        {"row": 1, "pos": 0, "logp_rollout": -1.0, "logp_train": -1.0},
    ]
    tokens = token_frame(rows)
    sequences = sequence_frame(tokens)
    trl, nemo = (table_of(name, tokens, sequences) for name in ("trl", "nemo_rl"))
    assert trl["token_truncate", "sampling/importance_sampling_ratio/max"] == 3
    assert trl["sequence_mask", "sampling/importance_sampling_ratio/mean"] == 0.5
    assert nemo["none", "sampling_importance_ratio"] == 0.5
    assert nemo["sequence_level", "sampling_importance_ratio"] == 0.5


def test_a_token_that_vllm_could_not_score_counts_for_trl_with_ratio_1():
    rows = [
        {"row": 0, "pos": 0, "logp_train": -1.0 + np.log(2)},
        {"row": 0, "pos": 1, "is_trained": False, "nonfinite_rollout": True},
    ]
    tokens = token_frame(rows)
    trl = table_of("trl", tokens, sequence_frame(tokens))
    assert trl["token_mask", "sampling/importance_sampling_ratio/mean"] == approx(1.5)
    assert trl["none", "sampling/sampling_logp_difference/mean"] == approx(np.log(2))
