"""Sentences made from numbers: true of every capture that they can be printed on."""

import numpy as np
import polars as pl
import pytest

from tests import readme
from tests.given import Row, sql_connection, token_frame
from tests.given_tables import clean, codec, described, engines, judged, one_row
from timtrack.flows.settings import Settings
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.tables import frameworks, invariants
from timtrack.tasks.tables.compute import parity_tables
from timtrack.tasks.verdicts import advice
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import OURS
from timtrack.tasks.verdicts.diagnoses import NOTHING_FOUND
from timtrack.tasks.verdicts.finding import Finding


def text_of(tokens: pl.DataFrame) -> str:
    return "\n".join(finding.text for finding in judged(tokens).findings)


def test_the_published_run_in_words(published):
    step, computed = published
    text = "\n".join(finding.text for finding in assess(step.facts(), computed, OURS).findings)
    assert "The trainer's log-probs are rounded to 4 decimals." in text
    assert "Of 221 tokens with p_rollout > 0.99, 91 have p_train < 0.01" in text
    assert "they carry 48.8 % of the total |ln r|" in text
    assert "47 of 400 tokens score worse than uniform under the trainer" in text
    assert "(vocabulary 151,936, capture)" in text
    assert "A few tokens dominate averages of r here: the 1 % with the largest r (4 of 400)" in text
    assert "exponent" not in text  # of 4 tokens nothing is estimated
    assert "In 100 % of the rollouts |sum of ln r| is 20 or more" in text
    assert "At 22 places where rollouts share their prefix" in text
    assert "Too few prompt groups hold enough of the gap" in text


def test_tables_of_earlier_versions_are_judged_by_what_they_have(published):
    """Columns that SQL got later are not there, and nothing is said of them."""
    step, computed = published
    later = {
        "step_metrics": ["interval_t", "interval_t_of_r", "clusters_effective", "masked_tokens"],
        "lag_scan": ["diff_t", "correlation_t", "r2_rollout_t", "r2_train_t"],
        "culprits": ["lift_given_prob", "clusters"],
    }
    old = {name: table.drop(later.get(name, [])) for name, table in computed.items()}
    old["alignment"] = old["alignment"].with_columns(is_found=pl.lit(True))  # as one measure said
    judged = assess(step.facts(), old, OURS)
    assert judged.status == "cause found"
    assert not [f.text for f in judged.findings if f.of_capture or f.table == "culprits"]


def test_the_readme_shows_what_is_said(published):
    shown = readme.text()
    step, computed = published
    for finding in assess(step.facts(), computed, OURS).findings:
        assert f"{'!' if finding.matters else '-'} {finding.text}\n" in shown


def test_a_healthy_step_reads_as_healthy():
    step = judged(clean(0, 960, gap=1e-4))
    assert step.status == "healthy"
    assert [f.text for f in step.findings if f.matters] == []
    assert NOTHING_FOUND in [f.text for f in step.findings]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            {"shift": 1},
            "may be 1 token apart, the trainer's late or the rollout engine's early (+1; two",
        ),
        ({"temperature": 0.7}, "one side was computed at another temperature"),
        ({"probabilities": True}, "the trainer's log-probs are above 0: probabilities"),
    ],
)
def test_a_fault_of_the_capture_is_said_first(fault, sentence):
    first = judged(engines(**fault)).findings[0]
    assert sentence in first.text
    assert first.matters


def test_a_shifted_capture_is_suspect_and_gets_no_correction():
    step = judged(engines(shift=1))
    assert step.status == "capture suspect"
    assert "check the capture before you trust any number" in step.text
    assert step.advice == advice.Advice(None, advice.IN_DOUBT)
    assert step.advice.config == {}
    assert "Recommended" not in step.text + "".join(f.text for f in step.findings)


def test_a_lossy_codec_is_beyond_correction_and_not_suspect():
    step = judged(codec(0))
    assert step.status in ("beyond correction", "cause found")
    assert step.advice.setting is None
    assert "late" not in step.text
    assert NOTHING_FOUND in [f.text for f in step.findings]


# r with every moment, as if E[r] were 1: what the tail says of it


def of_ratios(d: np.ndarray, rollout: float = -30.0, groups: int = 32) -> pl.DataFrame:
    """Tokens with these ln r, spread over prompt groups."""
    rows = [
        {"row": i % groups, "uid": f"u{i % groups}", "pos": i // groups, "token_id": i % 7}
        | {"logp_rollout": rollout, "logp_train": rollout + float(x)}
        for i, x in enumerate(d)
    ]
    return token_frame(rows)


@pytest.mark.parametrize("width", [2.0, 3.0])
def test_a_log_normal_ratio_is_not_said_to_have_no_mean(width):
    d = np.random.default_rng(0).normal(-(width**2) / 2, width, 6400)
    text = text_of(of_ratios(d))
    assert "no mean" not in text
    assert "no variance" not in text
    assert "A few tokens dominate averages of r here: the 1 % with the largest r (64 of" in text
    assert "Hill's estimate of their tail exponent is" in text
    assert " ± " in text


def test_what_r_misses_is_said_of_this_sample_with_its_interval():
    """Full support, mean r is 1 in truth: a heavy tail makes it less in most samples."""
    d = np.random.default_rng(1).normal(-2.0, 1.0, 6400)
    text = text_of(of_ratios(d))
    assert "mean r is" in text
    assert "in this sample instead of 1" in text
    assert "95 % interval" in text or "no interval" in text
    assert "miss" not in text


def test_zeros_do_not_make_log_probs_rounded():
    """A sure model: 99.5 % of the log-probs are exactly 0, the others full float32."""
    rng = np.random.default_rng(2)
    logp = np.where(rng.random(8000) < 0.995, 0.0, -rng.exponential(1.0, 8000))
    rows = [
        {"row": i // 100, "uid": f"u{i // 400}", "pos": i % 100, "token_id": i % 50}
        | {"logp_rollout": float(x), "logp_train": float(x)}
        for i, x in enumerate(logp)
    ]
    text = text_of(token_frame(rows))
    assert "rounded" not in text


def test_no_correction_is_needed_is_not_said_where_the_tail_is_heavy():
    """0.06 % of the tokens at r = 70: mean |1 - r| is small, the ESS is not."""
    rng = np.random.default_rng(3)
    d = 1e-3 * rng.normal(size=9600)
    d[rng.choice(9600, 6, replace=False)] = np.log(70)
    step = judged(of_ratios(d))
    assert step.status != "healthy"
    assert "No correction is needed" not in step.text + text_of(of_ratios(d))


def test_what_frameworks_do_with_large_products_is_said_of_each():
    text = text_of(of_ratios(np.full(320, -2.5), groups=4))
    assert "verl, slime and SkyRL clip sequence weights there" in text
    assert "TRL, AReaL and NeMo RL do not clip" in text


def test_a_share_that_explains_nothing_is_printed_as_zero():
    rng = np.random.default_rng(4)
    tokens = clean(0, 960, gap=0.3).with_columns(
        logp_train=pl.Series(-rng.exponential(1.0, 960), dtype=pl.Float32)
    )
    [text] = [line for line in text_of(tokens).splitlines() if "The token alone explains" in line]
    assert "-" not in text.split("explains ")[1].split(" of the variance")[0]


def test_copies_are_counted_without_the_one_that_they_are_copies_of():
    tokens = clean(0, 320)
    again = tokens.filter(row=0)
    more = [again.with_columns(row=pl.lit(100 + i, pl.Int32)) for i in range(3)]
    text = text_of(pl.concat([tokens, *more]))
    assert "27.3 % of the rollouts with 16 trained tokens or more are copies of another" in text


# The noise floor


def repeated(
    rollout_noise: float, train_noise: float, gap: float, places: int = 40
) -> pl.DataFrame:
    """Two rollouts of each prompt that begin alike, scored again with this noise."""
    rng = np.random.default_rng(5)
    rows: list[Row] = []
    for group in range(8):
        base = -rng.exponential(1.0, places // 8) - 0.1
        for copy in range(2):
            for pos, logp in enumerate(base):
                rollout = logp + rollout_noise * rng.normal()
                train = logp - gap + train_noise * rng.normal()
                rows.append(
                    {"row": 2 * group + copy, "uid": f"u{group}", "pos": pos, "token_id": pos}
                    | {"logp_rollout": min(0.0, rollout), "logp_train": min(0.0, train)}
                )
    return token_frame(rows)


def noise(tokens: pl.DataFrame) -> Finding | None:
    found = [f for f in judged(tokens).findings if f.table == "noise_floor"]
    return found[0] if found else None


def test_engines_that_repeat_themselves_are_not_called_systematic():
    said = noise(repeated(0, 0, gap=0.5))
    assert "each engine repeats its own log-probs exactly" in said.text
    assert "systematic" not in said.text
    assert not said.matters


def test_a_coincidence_is_no_noise_floor():
    assert noise(repeated(0, 0, gap=0.5, places=8)) is None


@pytest.mark.parametrize(
    ("rollout", "train", "named"),
    [(0.0, 0.3, "the trainer differs from itself"), (0.3, 0.0, "the rollout engine differs")],
)
def test_one_engine_that_varies_while_the_other_does_not_is_named(rollout, train, named):
    said = noise(repeated(rollout, train, gap=0.1))
    assert named in said.text
    assert "own noise" in said.text
    assert said.matters


def test_noise_that_both_have_is_told_as_a_lower_bound():
    said = noise(repeated(0.1, 0.1, gap=0.5))
    assert "at least" in said.text
    assert not said.matters


def test_rounding_noise_on_improbable_tokens_is_no_culprit():
    """|ln r| grows as p falls, as noise of logits makes it; ids differ in how likely they are."""
    rng = np.random.default_rng(6)
    rows: list[Row] = []
    for row in range(160):
        ids = rng.zipf(1.3, 30) % 60
        p = np.clip(np.where(ids < 5, 0.97, 0.15) * np.exp(0.3 * rng.normal(size=30)), 0.01, 0.999)
        d = 0.02 * (1 - p) * rng.normal(size=30)
        rows += [
            {"row": row, "uid": f"u{row // 4}", "pos": t, "token_id": int(ids[t])}
            | {"logp_rollout": float(np.log(p[t])), "logp_train": float(np.log(p[t]) + d[t])}
            for t in range(30)
        ]
    tokens = token_frame(rows)
    with sql_connection(tokens) as connection:
        survivors = len(connection.sql("from culprits where survives").pl())
    assert survivors > 0  # the table has them, by their share alone
    assert [f.text for f in judged(tokens).findings if f.table == "culprits" and f.matters] == []


@pytest.mark.parametrize("gap", [1e-3, 0.3, 5.0, 50.0])
def test_identities_hold(gap):
    invariants.check(one_row(*described(seed=1, gap=gap)))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tv": 1.2}, "tv <= 1"),
        ({"frac_low_5": 0.9}, "frac_outside_5"),
        ({"ess_token": 1e-9}, "ess_token <= 1"),
        ({"kl_k3": -1e-3}, "0 <= kl_k3"),
        ({"ratio_mean": 3.0}, "ratio_mean"),
    ],
)
def test_a_broken_identity_is_named_with_its_step(changed, reason):
    row = one_row(*described(seed=1, gap=0.3))
    with pytest.raises(invariants.BrokenIdentity, match=r"r step 1: \d identities") as raised:
        invariants.check(row | changed)
    assert reason in str(raised.value)


def test_a_trainer_that_is_sure_of_the_contrary_breaks_no_identity(run_sql):
    """r so small that mean(r^2) - 1 has no digits of it left."""
    [row] = run_sql("step_metrics", {"logp_rollout": -0.1, "logp_train": -10.0})
    invariants.check(row)


def test_tables_of_older_sql_are_said_as_far_as_they_go(published):
    older = {"step_metrics": published[1]["step_metrics"]}
    assert assess({"meta": {}}, older, OURS).findings == ()
    assert frameworks.metrics(older, ["verl"]) == {}


def test_undefined_numbers_break_nothing():
    invariants.check(one_row(engines(rows=1, length=1)))


def test_frameworks_are_logged_when_asked_for(published, monkeypatch):
    monkeypatch.delenv("TIMTRACK_PARITY", raising=False)
    assert parity_tables(published[0], Settings.read().parity) == {}
    monkeypatch.setenv("TIMTRACK_PARITY", "verl,slime")
    asked = Settings.read().parity
    logged = frameworks.metrics(parity_tables(published[0], asked), asked)
    row = published[1]["step_metrics"].row(0, named=True)
    assert logged["verl/rollout_corr/kl"] == row["kl_k1"]
    assert logged["slime/mis_kl"] == pytest.approx(row["kl_k1_seqmean"], rel=1e-12)
    assert logged["verl/token/rollout_corr/rollout_is_max"] == 2
    with pytest.raises(TimtrackError, match="no framework rllm; there are verl, trl, nemo_rl"):
        Settings.read(parity="verl,rllm")
