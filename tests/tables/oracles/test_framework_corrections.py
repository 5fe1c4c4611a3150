"""The restated corrections of frameworks, on a few tokens that can be checked by hand."""

from math import exp

import numpy as np
import pytest
from pytest import approx, raises

from tests.tables.oracles.framework_corrections import (
    Rows,
    coefficients,
    hydra_value,
    ms_swift,
    openrlhf,
    prime_rl_dppo,
    sapo_trl,
    skyrl,
    slime_yaml,
    vespo_trl,
)

IS = "algorithm.rollout_correction.rollout_is"
RS = "algorithm.rollout_correction.rollout_rs"
BYPASS = "algorithm.rollout_correction.bypass_mode=true"
ACTOR = "actor_rollout_ref.actor."
MIS = (
    "--use-tis --custom-config-path mis.yaml --custom-tis-function-path "
    "examples.train_infer_mismatch_helper.mis.compute_mis_weights_with_cp, with mis.yaml: "
)
MODE = "vllm_importance_sampling_mode"
MAX, MIN = "vllm_importance_sampling_clip_max", "vllm_importance_sampling_clip_min"


def of_ratios(*rows, advantage=1.0):
    """Rows whose tokens have these ratios train / rollout."""
    d = [np.log(np.array(row, dtype=float)) for row in rows]
    rollout = [np.full(len(x), -200.0) for x in d]
    adv = [np.full(len(x), advantage, dtype=float) for x in d]
    return Rows(rollout, [q + x for q, x in zip(rollout, d, strict=True)], adv)


def of_logs(*rows, advantage=1.0):
    """Rows whose tokens have these log-ratios."""
    rollout = [np.full(len(x), -500.0) for x in rows]
    train = [q + np.array(x, dtype=float) for q, x in zip(rollout, rows, strict=True)]
    return Rows(rollout, train, [np.full(len(x), advantage, dtype=float) for x in rows])


def of_probs(*tokens):
    """One row of tokens (rollout's probability, trainer's, advantage)."""
    q, p, a = (np.array(x, dtype=float) for x in zip(*tokens, strict=True))
    return Rows([np.log(q)], [np.log(p)], [a])


def flat(arrays):
    """All tokens, to be compared with a list; no absolute tolerance, so that 0 is exactly 0."""
    return approx(np.concatenate(arrays).tolist(), rel=1e-9, abs=0)


def lists(arrays):
    return [x.tolist() for x in arrays]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5_5.0", "0.5_5.0"),
        ("0.5_5", 0.55),
        ("0.125_8", 0.1258),
        ("1_5", 15),
        ("1e-3_2.0", "1e-3_2.0"),
        (".5_2.0", ".5_2.0"),
        ("'0.5_5'", "0.5_5"),
        ("2.0", 2.0),
        ("null", None),
        ("None", "None"),
        ("True", True),
        ("seq_sum_k1", "seq_sum_k1"),
    ],
)
def test_hydra_reads_an_underscore_between_digits_as_part_of_a_number(text, value):
    assert hydra_value(text) == value
    assert type(hydra_value(text)) is type(value)


@pytest.mark.parametrize(
    ("framework", "line"),
    [
        ("verl", f"{IS}=tokens"),
        ("verl", f"{IS}_veto_threshold=1e-4"),
        ("verl", f"{IS}=token {IS}_threshold=5.0_0.5"),
        ("verl", f"{RS}=token_k1"),
        ("verl", f"{RS}=seq_max_k1 {RS}_threshold=0.5_2.0"),
        ("verl", f"{RS}=token_k2 {RS}_threshold=0.5_2.0"),
        ("verl", f"{RS}=token_k1,token_k2 {RS}_threshold=2.0"),
        ("verl", f"{ACTOR}policy_loss.loss_mode=dppo"),
        ("trl", f'{MODE}="token_clip"'),
        ("trl", f'{MODE}="token_truncate", {MAX}=None'),
        ("trl", f"{MIN}=3.0"),
        ("trl", "vllm_importance_sampling_ratio=2.0"),
        ("trl", 'loss_type="vespo"'),
        ("slime", "--use-tis --tis-cap 2.0"),
        ("slime", "--use-tis --custom-config-path mis.yaml"),
        ("slime", MIS + "{tis_level: token}"),
        ("roll", ""),
    ],
)
def test_what_a_framework_does_not_know_is_an_error(framework, line):
    with raises((ValueError, TypeError)):
        coefficients(framework, line, of_ratios([1.0, 2.0]))


def test_verl_truncates_tokens_and_zeroes_them_outside_two_bounds():
    rows = of_ratios([0.1, 1.0, 3.0, 10.0])
    assert lists(coefficients("verl", f"{IS}_threshold=2.0", rows)) == [[1, 1, 1, 1]]
    weights = coefficients("verl", f"{IS}=token {IS}_threshold=2.0", rows)
    assert flat(weights) == [0.1, 1, 2, 2]
    assert flat(coefficients("verl", f"{IS}=token {IS}_threshold=0.5_5.0", rows)) == [0, 1, 3, 0]
    lost = coefficients("verl", f"{IS}=token {IS}_threshold=0.5_5", rows)
    assert flat(lost) == [0.1, 0.55, 0.55, 0.55]


def test_verl_clips_the_sum_of_a_row_but_for_rejection_its_tokens():
    rows = of_logs([30.0, -29.0], [-30.0, -1.0])
    weights = coefficients("verl", f"{IS}=sequence {IS}_threshold=5.0", rows)
    assert flat(weights) == [exp(1)] * 2 + [exp(-20)] * 2
    # clipped tokens: 20 - 20 = 0 and -20 - 1 = -21
    assert lists(coefficients("verl", f"{RS}=seq_sum_k1 {RS}_threshold=0.9_1.1", rows)) == [
        [1, 1],
        [0, 0],
    ]


def test_verl_normalises_by_all_tokens_or_by_rows():
    rows = of_ratios([1.0, 1.0, 1.0], [0.5])
    line = f"{IS}_batch_normalize=true {IS}_threshold=2.0 {IS}="
    assert flat(coefficients("verl", line + "token", rows)) == [8 / 7] * 3 + [4 / 7]
    assert flat(coefficients("verl", line + "sequence", rows)) == [4 / 3] * 3 + [2 / 3]


@pytest.mark.parametrize(
    ("rule", "threshold", "kept"),
    [
        ("token_k1", "0.5_2.0", [[1, 1, 1], [0, 1]]),
        ("token_k1", "0.2_1.5", [[1, 0, 1], [1, 1]]),  # bounds 1 / r: 0.67 <= r <= 5
        ("token_k1", "2.0", [[1, 1, 1], [0, 1]]),
        ("token_k2", "0.25", [[1, 1, 1], [0, 1]]),  # (ln 2)^2 / 2 = 0.24
        ("token_k3", "0.25", [[1, 1, 0], [0, 1]]),  # 2 - 1 - ln 2 = 0.31, 0.5 - 1 + ln 2 = 0.19
        ("seq_sum_k1", "0.5_2.0", [[1, 1, 1], [0, 0]]),
        ("seq_mean_k1", "0.5_2.0", [[1, 1, 1], [1, 1]]),  # ln 3 / 2 < ln 2
        ("seq_sum_k2", "0.5", [[1, 1, 1], [0, 0]]),  # 0.48 and 0.60
        ("seq_mean_k2", "0.2", [[1, 1, 1], [0, 0]]),  # 0.16 and 0.30
        ("seq_sum_k3", "0.7", [[1, 1, 1], [0, 0]]),  # 0.5 and 0.90
        ("seq_mean_k3", "0.2", [[1, 1, 1], [0, 0]]),
        ("seq_max_k2", "0.25", [[1, 1, 1], [0, 0]]),
        ("seq_max_k3", "0.35", [[1, 1, 1], [0, 0]]),
    ],
)
def test_verl_rejects_by_each_of_its_rules(rule, threshold, kept):
    rows = of_ratios([1.0, 0.501, 1.999], [3.0, 1.0])
    line = f"{RS}={rule} {RS}_threshold={threshold}"
    assert lists(coefficients("verl", line, rows)) == kept


def test_verl_multiplies_weights_with_what_several_rules_keep():
    rows = of_ratios([1.0, 4.0, 0.25], [4.0, 4.0])
    line = (
        f"{IS}=token {IS}_threshold=2.0 "
        f"""'{RS}="token_k1,seq_mean_k1"' '{RS}_threshold="0.2_5.0,0.5_2.0"'"""
    )
    assert flat(coefficients("verl", line, rows)) == [1, 2, 0.25, 0, 0]


def test_verl_dppo_acts_with_old_as_rollout_only_and_caps_the_ratio():
    rows = of_probs((0.1, 0.6, 1), (0.6, 0.1, 1), (0.6, 0.1, -1), (0.6, 0.1, 0), (0.01, 0.1, 1))
    line = f"{ACTOR}policy_loss.loss_mode=dppo_tv"
    assert lists(coefficients("verl", line, rows)) == [[1, 1, 1, 1, 1]]
    assert flat(coefficients("verl", f"{line} {BYPASS}", rows)) == [0, 1 / 6, 0, 0, 3]
    uncapped = coefficients("verl", f"{line} {BYPASS} {ACTOR}clip_ratio_c=20.0", rows)
    assert flat(uncapped) == [0, 1 / 6, 0, 0, 10]
    # clip_ratio is read only where clip_ratio_low and clip_ratio_high are null
    wide = f"{line} {BYPASS} {ACTOR}clip_ratio=0.9"
    assert flat(coefficients("verl", wide, rows)) == [0, 1 / 6, 0, 0, 3]
    wide += f" {ACTOR}clip_ratio_low=null {ACTOR}clip_ratio_high=null"
    assert flat(coefficients("verl", wide, rows)) == [3, 1 / 6, 1 / 6, 1 / 6, 3]


def test_verl_dppo_kl_drops_by_the_binary_kl_on_the_side_of_the_advantage():
    # 0.5 ln(0.5 / 0.9) + 0.5 ln(0.5 / 0.1) = 0.51; 0.5 ln(0.5 / 0.4) + 0.5 ln(0.5 / 0.6) = 0.020
    rows = of_probs((0.5, 0.9, 1), (0.5, 0.9, -1), (0.5, 0.4, -1), (0.5, 0.1, -1), (0.5, 0.1, 0))
    line = f"{ACTOR}policy_loss.loss_mode=dppo_kl {BYPASS}"
    assert flat(coefficients("verl", line, rows)) == [0, 1.8, 0.8, 0, 0]


def test_verl_rejects_and_weighs_nothing_in_bypass_mode():
    rows = of_ratios([1.1, 1.5, 0.5])
    line = f"{BYPASS} {IS}=token {RS}=token_k1 {RS}_threshold=0.99_1.01"
    assert flat(coefficients("verl", line, rows)) == [1.1, 0, 0.5]  # the PPO clip of 0.2


def test_trl_bounds_tokens_and_products_without_a_clip():
    rows = of_ratios([0.1, 4.0], [2.0, 2.0])
    assert flat(coefficients("trl", "", rows)) == [0.4, 0.4, 0, 0]  # the default: upper bound 3
    assert flat(coefficients("trl", f'{MODE}="token_truncate", {MAX}=2.0', rows)) == [0.1, 2, 2, 2]
    two = f'{MODE}="token_truncate", {MIN}=0.5, {MAX}=2.0'
    assert flat(coefficients("trl", two, rows)) == [0.5, 2, 2, 2]
    assert flat(coefficients("trl", f'{MODE}="token_mask", {MIN}=0.5', rows)) == [0, 0, 2, 2]
    assert flat(coefficients("trl", f'{MODE}="sequence_truncate"', rows)) == [0.4, 0.4, 3, 3]
    assert lists(coefficients("trl", "vllm_importance_sampling_correction=False", rows)) == [
        [1, 1],
        [1, 1],
    ]


def test_trl_products_leave_the_range_of_float32():
    rows = of_logs([-60.0, -50.0], [-60.0, -20.0], [50.0, 50.0])
    masked = coefficients("trl", f'{MODE}="sequence_mask", {MAX}=3.0', rows)
    assert flat(masked) == [0, 0, exp(-80), exp(-80), 0, 0]
    truncated = coefficients("trl", f'{MODE}="sequence_truncate", {MIN}=0.1', rows)
    assert lists(truncated) == [[0.1, 0.1], [0.1, 0.1], [3, 3]]


def test_trl_drops_rows_of_negative_advantage_far_from_the_rollout():
    line = "vllm_importance_sampling_correction=False, off_policy_mask_threshold=0.5"
    low, high = [exp(-0.6), exp(-0.6)], [exp(-1.0), exp(0.2)]
    assert lists(coefficients("trl", line, of_ratios(low, high, advantage=-1))) == [[0, 0], [1, 1]]
    assert lists(coefficients("trl", line, of_ratios(low, advantage=0))) == [[1, 1]]
    # alone, the threshold leaves the default correction on
    both = coefficients("trl", "off_policy_mask_threshold=0.5", of_ratios([0.5], advantage=1))
    assert flat(both) == [0.5]


def test_trl_vespo_sums_the_logs_of_bounded_ratios():
    assert lists(vespo_trl(of_ratios([1.0, 1.0]))) == [[1, 1]]
    # w = 2: 2^2 e^-3 for A >= 0, 2^3 e^-2 for A < 0
    assert flat(vespo_trl(of_ratios([4.0, 0.5]))) == [4 * exp(-3)] * 2
    assert flat(vespo_trl(of_ratios([4.0, 0.5], advantage=-1))) == [8 * exp(-2)] * 2
    line = f'loss_type="vespo", {MODE}="token_truncate"'
    assert flat(coefficients("trl", line, of_ratios([9.0, 1 / 3]))) == [1, 1]  # 3 / 3
    masked = coefficients("trl", line.replace("truncate", "mask"), of_ratios([9.0, 1.0]))
    assert masked[0][0] == approx(exp(3) * 1e-16, rel=1e-6, abs=0)  # a masked token counts as 1e-8


def test_trl_sapo_gate_is_one_on_policy_and_falls_off():
    assert flat(sapo_trl(of_ratios([1.0]))) == [1]
    s = 1 / (1 + exp(-1.0))
    assert flat(sapo_trl(of_ratios([2.0]))) == [8 * s * (1 - s)]
    s = 1 / (1 + exp(-1.05))
    assert flat(sapo_trl(of_ratios([2.0], advantage=0))) == [8 * s * (1 - s)]
    assert sapo_trl(of_logs([300.0, -300.0]))[0] == approx([0, 0], abs=1e-99)


def test_slime_clips_tokens_with_flags():
    rows = of_ratios([0.1, 1.0, 10.0])
    assert lists(coefficients("slime", "", rows)) == [[1, 1, 1]]
    assert flat(coefficients("slime", "--use-tis --tis-clip 2.0 --tis-clip-low 0", rows)) == [
        0.1,
        1,
        2,
    ]
    two = "--use-tis --tis-clip 5.0 --tis-clip-low 0.5"
    assert flat(coefficients("slime", two, rows)) == [0.5, 1, 5]
    path = " --custom-tis-function-path slime.backends.megatron_utils.loss.icepop_function"
    assert flat(coefficients("slime", two + path, rows)) == [0, 1, 0]


def mis(**changes):
    """The line of slime's mis.py with a file that differs from the usual one in these keys."""
    keys = {
        "use_tis": "true",
        "use_rs": "false",
        "tis_level": "token",
        "rs_level": "token",
        "tis_mode": "mask",
        "tis_lower_bound": "0.5",
        "tis_upper_bound": "5.0",
        "rs_lower_bound": "null",
        "rs_upper_bound": "null",
        "rs_veto_threshold": "null",
        "tis_batch_normalize": "false",
    }
    return MIS + "{" + ", ".join(f"{k}: {v}" for k, v in {**keys, **changes}.items()) + "}"


def test_slime_mis_masks_clips_and_truncates_at_three_levels():
    rows = of_ratios([0.25, 1.0, 8.0], [0.1, 0.1])
    assert flat(coefficients("slime", mis(), rows)) == [0, 1, 0, 0, 0]
    assert flat(coefficients("slime", mis(tis_mode="clip"), rows)) == [0.5, 1, 5, 0.5, 0.5]
    assert flat(coefficients("slime", mis(tis_mode="truncate"), rows)) == [0.25, 1, 5, 0.1, 0.1]
    product = coefficients("slime", mis(tis_level="sequence"), rows)
    assert flat(product) == [2, 2, 2, 0, 0]
    geometric = coefficients("slime", mis(tis_level="geometric"), rows)
    assert flat(geometric) == [2 ** (1 / 3)] * 3 + [0, 0]
    unset = coefficients("slime", mis(tis_lower_bound="null", tis_mode="clip"), rows)
    assert flat(unset) == [0.25, 1, 5, 0.2, 0.2]
    assert lists(coefficients("slime", mis(use_tis="false"), rows)) == [[1, 1, 1], [1, 1]]


def test_slime_mis_clips_sums_and_means_not_tokens():
    rows = of_logs([30.0, -29.0], [-30.0, -30.0])
    line = mis(tis_mode="truncate", tis_level="sequence")
    assert flat(coefficients("slime", line, rows)) == [exp(1)] * 2 + [exp(-20)] * 2
    line = mis(tis_mode="truncate", tis_level="geometric")
    assert flat(coefficients("slime", line, rows)) == [exp(0.5)] * 2 + [exp(-20)] * 2


def test_slime_mis_normalises_with_the_weights_of_dropped_tokens():
    rows = of_ratios([0.25, 1.0, 8.0, 0.75])  # mean 2.5
    assert flat(coefficients("slime", mis(tis_batch_normalize="true"), rows)) == [0, 0.4, 0, 0.3]
    with raises(ValueError, match="geometric"):
        coefficients("slime", mis(tis_level="geometric", tis_batch_normalize="true"), rows)


def test_slime_mis_rejects_and_vetoes_only_with_use_rs():
    rows = of_ratios([1e-5, 1.0, 3.0], [1.0, 1.0, 3.0])
    trunc = {"tis_mode": "truncate", "rs_upper_bound": "2.0", "rs_veto_threshold": "1.0e-4"}
    off = coefficients("slime", mis(**trunc), rows)
    assert flat(off) == [1e-5, 1, 3, 1, 1, 3]
    on = coefficients("slime", mis(**trunc, use_rs="true"), rows)
    assert flat(on) == [0, 0, 0, 1, 1, 0]
    with raises(TypeError, match="dot"):
        coefficients("slime", mis(use_rs="true", rs_veto_threshold="1e-4"), rows)


def test_slime_reads_a_block_of_yaml_like_braces():
    block = "\nuse_tis: true  # a comment\ntis_level: 'token'\nrs_veto_threshold: 1e-4\nlow: null\n"
    assert slime_yaml(block) == slime_yaml(
        "{use_tis: true, tis_level: token, rs_veto_threshold: 1e-4, low: null}"
    )
    assert slime_yaml(block)["rs_veto_threshold"] == "1e-4"


def test_skyrl_sums_a_row_over_the_tokens_that_its_token_mask_left():
    rows = of_ratios([2.0, 1.5, 100.0], [1.0, 1e-5, 1.0])
    assert flat(skyrl({"tis_ratio_type": "token"}, rows)) == [2, 1.5, 2, 1, 1e-5, 1]
    assert flat(skyrl({"tis_ratio_type": "sequence"}, rows)) == [5] * 3 + [1e-5] * 3
    bounds = {"token_mask_is_threshold_low": 0.5, "token_mask_is_threshold_high": 2.0}
    assert lists(skyrl(bounds, of_ratios([1.0, 3.0]))) == [[1, 0]]
    both = skyrl({**bounds, "tis_ratio_type": "sequence"}, of_ratios([1.5, 1.2, 3.0]))
    assert flat(both) == [1.8, 1.8, 0]
    outlier = skyrl({"outlier_token_is_threshold_low": 1e-4}, rows)
    assert lists(outlier) == [[1, 1, 1], [0, 0, 0]]
    assert lists(skyrl({"sequence_mask_metric": "product"}, of_ratios([2.0, 0.5], [2.5]))) == [
        [1, 1],
        [0],
    ]
    geometric = skyrl({"sequence_mask_metric": "geometric"}, of_ratios([1.005, 1.0], [1.02]))
    assert lists(geometric) == [[1, 1], [0]]
    with raises(ValueError, match="tis_ratio"):
        skyrl({"tis_ratio": "token"}, rows)


def test_dppo_at_zero_advantage_differs_between_skyrl_and_prime_rl():
    rows = of_probs((0.1, 0.6, 1), (0.6, 0.1, -1), (0.6, 0.1, 0), (0.01, 0.1, 1))
    assert flat(skyrl({"policy_loss_type": "dppo"}, rows)) == [0, 0, 1 / 6, 10]
    assert flat(prime_rl_dppo(rows)) == [0, 0, 0, 10]
    assert flat(prime_rl_dppo(rows, low=0.6, high=0.6)) == [6, 1 / 6, 1 / 6, 10]
    kl = {"policy_loss_type": "dppo", "dppo_type": "binary_kl", "delta_low": 0.05}
    assert flat(skyrl(kl, of_probs((0.5, 0.3, -1), (0.5, 0.4, -1)))) == [0, 0.8]  # 0.087, 0.020


def test_ms_swift_takes_the_geometric_mean_of_clipped_tokens():
    rows = of_ratios([1.0, 9.0], [4.0, 0.25])
    assert flat(ms_swift("token_truncate", 2.0, rows)) == [1, 2, 2, 0.25]
    assert flat(ms_swift("token_mask", 2.0, rows)) == [1, 0, 0, 0.25]
    assert flat(ms_swift("sequence_truncate", 2.0, rows)) == [2, 2, 1, 1]
    assert flat(ms_swift("sequence_mask", 2.0, rows)) == [0, 0, 4, 0.25]
    assert flat(ms_swift("sequence_truncate", 2.0, of_logs([60.0, -20.0]))) == [1, 1]
    assert lists(ms_swift(None, 2.0, rows)) == [[1, 1], [1, 1]]


def test_openrlhf_gates_with_ratio_or_divergence_and_keeps_the_tokens_ratio():
    rows = of_ratios([0.1, 1.0, 10.0], [4.0, 1.0])
    assert lists(openrlhf({}, rows)) == [[1, 1, 1], [1, 1]]
    assert flat(openrlhf({"level": "token"}, rows)) == [0, 1, 0, 4, 1]
    assert flat(openrlhf({"level": "token", "mode": "clip"}, rows)) == [0.5, 1, 5, 4, 1]
    sequence = openrlhf({"level": "seq", "threshold": [0.5, 1.5]}, rows)
    assert flat(sequence) == [0.1, 1, 10, 0, 0]
    tv = {"level": "token", "gating": "tv", "threshold": [0.25]}
    assert flat(openrlhf(tv, of_probs((0.5, 0.7, 1), (0.5, 0.8, 1)))) == [1.4, 0]
    kl = {"level": "token", "gating": "binary_kl", "threshold": [0.05]}
    assert flat(openrlhf(kl, of_probs((0.5, 0.4, 1), (0.5, 0.3, 1)))) == [0.8, 0]
    with raises(ValueError, match="upper bound"):
        openrlhf({"level": "token", "gating": "tv"}, rows)


def test_a_row_without_trained_tokens_changes_nothing():
    rows = of_ratios([2.0, 0.5], [])
    [full, empty] = coefficients("verl", f"{IS}=sequence {IS}_batch_normalize=true", rows)
    assert (full.tolist(), len(empty)) == ([1, 1], 0)
