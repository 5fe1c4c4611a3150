"""`tim gate`: every verdict, every malformed rule, never a silent pass."""

from xml.etree import ElementTree

import pytest

from tests.given import batch_fields, ingest
from timtrack.flows.cli.main import main
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.tables.catalogue import catalogue, sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.verdicts import gate
from timtrack.tasks.verdicts.gate import BadRule

NUMBERS = {
    1: {"kl_k3": 0.001, "whatif/tis_token_2/ess_token": 0.99, "spearman": None},
    2: {"kl_k3": 0.003, "whatif/tis_token_2/ess_token": 0.95, "spearman": 0.9},
    3: {"kl_k3": 0.002, "whatif/tis_token_2/ess_token": 0.97, "spearman": float("nan")},
}


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ("kl_k3 < 0.01", True),
        ("kl_k3 < 0.003", False),
        ("kl_k3 <= 0.003", True),
        ("kl_k3 <= 0.3%", True),
        ("kl_k3 > 1e-4", True),
        ("kl_k3 >= 0.002", False),
        ("mean(kl_k3) == 0.002", True),
        ("mean(kl_k3) < 0.002", False),
        ("median( kl_k3 )<=.002", True),
        ("max(kl_k3) < 0.003", False),
        ("min(kl_k3) < 0.0011", True),
        ("last(kl_k3) < 2.1e-3", True),
        ("whatif/tis_token_2/ess_token > 95%", False),
        ("min(whatif/tis_token_2/ess_token) >= 0.95", True),
    ],
)
def test_rules_are_judged(rule, passed):
    assert gate.judge(gate.parse(rule), NUMBERS).passed is passed


def test_a_rule_for_every_step_says_where_it_broke_first():
    outcome = gate.judge(gate.parse("kl_k3 < 0.0015"), NUMBERS)
    assert outcome.step == 2
    assert outcome.text == "broken at 2 of 3 steps, first at 2: 0.003"


@pytest.mark.parametrize(
    "typed",
    [
        *("", "kl_k3", "kl_k3 <", "< 0.1", "kl_k3 0.1", "kl_k3 =< 0.1", "kl_k3 < 0,1", "kl_k3 < x"),
        *("kl_k3 < nan", "kl_k3 < inf", "kl_k3 < 0.1 and 1", "kl_k3 < 1; import os"),
        *("__import__('os') < 1", "sum(kl_k3) < 1", "mean(mean(kl_k3)) < 1", "mean(kl_k3 < 1"),
        "0.1 > kl k3",
    ],
)
def test_what_is_no_rule_is_refused(typed):
    with pytest.raises(BadRule):
        gate.parse(typed)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("kl_k9 < 1", "no metric kl_k9"),
        ("spearman < 2", "spearman of step 1 is undefined"),
        ("last(spearman) < 2", "undefined"),
    ],
)
def test_what_is_undefined_does_not_pass(rule, reason):
    with pytest.raises(BadRule, match=reason):
        gate.judge(gate.parse(rule), NUMBERS)


def test_no_steps_do_not_pass():
    with pytest.raises(BadRule, match="no step"):
        gate.judge(gate.parse("kl_k3 < 1"), {})


@pytest.mark.parametrize(
    ("before", "most", "passed"), [(0.001, 1.0, True), (0.001, 0.99, False), (0.004, 0.0, True)]
)
def test_a_rise_over_a_baseline(before, most, passed):
    baseline = {1: {"kl_k3": before}}
    assert gate.rise("kl_k3", NUMBERS, baseline, most).passed is passed


@pytest.mark.parametrize("baseline", [{}, {1: {"kl_k3": 0.0}}, {1: {"kl_k3": None}}])
def test_a_baseline_that_says_nothing_does_not_pass(baseline):
    with pytest.raises(BadRule):
        gate.rise("kl_k3", NUMBERS, baseline, 0.5)


def test_presets_are_rules_of_metrics_that_are_there():
    columns = catalogue()["step_metrics"].columns
    for preset in gate.presets().values():
        assert {gate.parse(rule).metric for rule in preset.rules} <= columns.keys()
        assert preset.says


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Three steps of `calm` with a gap of 0.01 nats, and of `wild` with 0.5."""
    home = tmp_path_factory.mktemp("gated")
    for run, gap in (("calm", 0.01), ("wild", 0.5)):
        for number in (1, 2, 3):
            fields = {**batch_fields(seed=number, gap=gap), "global_step": number}
            step = ingest(save_step_batch(home / run, number, fields), home / "lake")
            write_tables(step, sql_version(), compute_step(step))
    return home


def gated(home, *arguments):
    return main(["--home", str(home), "gate", *map(str, arguments)])


def test_a_run_within_its_limits_passes(two_runs, capsys):
    assert gated(two_runs, "calm", "--rule", "kl_k3 < 0.01", "--preset", "slime-ci") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["pass", "pass"]


def test_a_broken_rule_leaves_its_worst_tokens_in_every_file(two_runs, tmp_path, capsys):
    junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
    files = ["--junit", junit, "--summary", markdown]
    assert gated(two_runs, "wild", "--rule", "kl_k3 < 0.01", "--rule", "tv < 1", *files) == 1
    out = capsys.readouterr().out
    assert "FAIL  kl_k3 < 0.01  (broken at 3 of 3 steps, first at 1: " in out
    assert "wild step 1: CORRECTABLE: " in out
    assert "widest gaps of wild step 1:" in out
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert "widest gaps" in (suite.find("testcase/failure").text or "")
    assert "| **fail** | `kl_k3 < 0.01` |" in markdown.read_text()
    assert "widest gaps" in markdown.read_text()


def test_copies_are_not_judged_unless_the_engines_are_built_so(tmp_path, capsys):
    for number, gap in ((1, 0.01), (2, 0.0)):
        fields = {**batch_fields(seed=number, gap=gap), "global_step": number}
        step = ingest(save_step_batch(tmp_path / "copied", number, fields), tmp_path / "lake")
        write_tables(step, sql_version(), compute_step(step))
    assert gated(tmp_path, "copied", "--preset", "slime-ci") == 2
    said = capsys.readouterr().err
    assert "the same bits at 1 of 2 steps, first at 2: copies, not measured" in said
    assert gated(tmp_path, "copied", "--preset", "slime-ci", "--bit-equal") == 0


def test_a_baseline_is_a_limit(two_runs, capsys):
    assert gated(two_runs, "calm", "--baseline", "wild") == 0
    assert gated(two_runs, "wild", "--baseline", "calm", "--max-rise", "50%") == 1
    assert "FAIL  kl_k3 rises by at most 50 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["calm"], "nothing to judge"),
        (["calm", "--rule", "kl_k3 << 1"], "is not a rule"),
        (["calm", "--rule", "kl_k9 < 1"], "no metric kl_k9"),
        (["calm", "--preset", "nobody"], "no preset 'nobody'; there are nemo-rl-nightly"),
        (["none", "--rule", "kl_k3 < 1"], "no run 'none'"),
        (
            ["calm", "--rule", "kl_k3 < 1", "--steps", "7:9"],
            "no step in that range; it has 3 from",
        ),
        (["calm", "--rule", "noise_floor_train < 1"], "undefined"),
    ],
)
def test_what_cannot_be_judged_is_wrong_usage(two_runs, arguments, reason, capsys):
    assert gated(two_runs, *arguments) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["a:b", "1-2", "", "1:2:3"])
def test_steps_are_a_range(typed, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        gated(tmp_path, "run", "--rule", "tv < 1", "--steps", typed)
    assert stopped.value.code == 2


def test_steps_narrow_what_is_judged(two_runs, capsys):
    assert gated(two_runs, "calm", "--rule", "kl_k3 < 1", "--steps", "2:") == 0
    assert "all 2 steps" in capsys.readouterr().out


def test_the_summary_of_github_is_written_to(two_runs, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert gated(two_runs, "calm", "--rule", "kl_k3 < 1") == 0
    assert "| pass | `kl_k3 < 1` |" in (tmp_path / "summary.md").read_text()
