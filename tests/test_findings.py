"""Sentences made from numbers: true of the published run, calm about a healthy one."""

import pytest

from tasks import identities, parity
from tasks.findings import findings
from tests import readme
from tests.given import sql_connection
from tests.test_diagnoses import engines
from tests.test_sql import described, one_row

TABLES = (
    "alignment",
    "confident_contradictions",
    "context_blindness",
    "culprits",
    "noise_floor",
    "step_metrics",
    "tail",
)


def said(tokens) -> list:
    with sql_connection(tokens) as connection:
        return findings({name: connection.sql(f"from {name}").pl() for name in TABLES})


def test_the_published_run_in_words(published):
    text = "\n".join(finding.text for finding in findings(published[1]))
    assert "The trainer's log-probs were rounded to 4 decimals." in text
    assert "Of 221 tokens with p_rollout > 0.99, 91 have p_train < 0.01" in text
    assert "they carry 48.8 % of the total |ln r|" in text
    assert "47 of 400 tokens score worse than uniform under the trainer" in text
    assert "(vocabulary 151,936, capture)" in text
    assert (
        "The tail exponent of r is 0.7479 (from 4 tokens): importance weights have no mean." in text
    )
    assert "In 100 % of the rollouts |sum of ln r| is 20 or more" in text
    assert "At 22 places where rollouts share their prefix" in text
    assert "too few prompt groups" in text


def test_the_readme_shows_what_is_said(published):
    shown = readme.README.read_text()
    for finding in findings(published[1]):
        assert f"{'!' if finding.matters else '-'} {finding.text}\n" in shown


def test_a_healthy_step_reads_as_healthy():
    found = said(engines(noise=0.01))
    assert [f.text for f in found if f.matters] == []
    assert found[0].text.startswith("Nothing is wrong with the capture itself")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"shift": 1}, "The engines' log-probs are +1 positions off"),
        ({"temperature": 0.7}, "one side was computed at another temperature"),
        ({"probabilities": True}, "the trainer's log-probs are above 0: probabilities"),
    ],
)
def test_a_fault_of_the_capture_is_said_first(fault, sentence):
    first = said(engines(**fault))[0]
    assert sentence in first.text
    assert first.matters


@pytest.mark.parametrize("gap", [1e-3, 0.3, 5.0, 50.0])
def test_identities_hold(gap):
    identities.check(one_row(*described(seed=1, gap=gap)))


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
    with pytest.raises(identities.BrokenIdentity, match=r"r step 1: \d identities") as raised:
        identities.check(row | changed)
    assert reason in str(raised.value)


def test_a_trainer_that_is_sure_of_the_contrary_breaks_no_identity(run_sql):
    """r so small that mean(r^2) - 1 has no digits of it left."""
    [row] = run_sql("step_metrics", {"logp_rollout": -0.1, "logp_train": -10.0})
    identities.check(row)


def test_tables_of_older_sql_are_said_as_far_as_they_go(published, monkeypatch):
    monkeypatch.setenv(parity.VARIABLE, "verl")
    older = {"step_metrics": published[1]["step_metrics"]}
    assert findings(older) == []
    assert parity.metrics(older) == {}


def test_undefined_numbers_break_nothing():
    identities.check(one_row(engines(rows=1, length=1)))


def test_frameworks_are_logged_when_asked_for(published, monkeypatch):
    monkeypatch.delenv(parity.VARIABLE, raising=False)
    assert parity.metrics(published[1]) == {}
    monkeypatch.setenv(parity.VARIABLE, "verl,slime")
    logged = parity.metrics(published[1])
    row = published[1]["step_metrics"].row(0, named=True)
    assert logged["verl/rollout_corr/kl"] == row["kl_k1"]
    assert logged["slime/mis_kl"] == row["kl_k1_seqmean"]
    assert logged["verl/token/rollout_corr/rollout_is_max"] == 2
    monkeypatch.setenv(parity.VARIABLE, "verl,trl")
    with pytest.raises(ValueError, match="no framework trl; there are verl, nemo_rl, slime"):
        parity.metrics(published[1])
