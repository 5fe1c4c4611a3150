"""Captures of vLLM, CTranslate2, Hugging Face and TRL with a real model, as they are judged."""

import re
from pathlib import Path

import pytest
import torch

import timtrack
from tests.real.run import OLD_WEIGHTS, RANGES
from timtrack.flows.cli.main import main
from timtrack.tasks.captures.capture import identify
from timtrack.tasks.captures.source import Source

ROOT = Path(__file__).parents[2]
WRITTEN = Path(__file__).parent / "written"
EVERY = [one for ranges in RANGES.values() for one in ranges]


def path_of(run: str, step: int) -> Path:
    return WRITTEN / run / f"step_{step}" / "step_batch.pt"


def k3_by_hand(path: Path) -> tuple[int, float]:
    """Trained tokens, and the mean of r - 1 - ln r over them, from the file itself."""
    held = torch.load(path)
    if "completion_ids" in held:
        mask = held["completion_mask"].bool()
        both = (held["sampling_per_token_logps"][mask], held["old_per_token_logps"][mask])
    else:
        both = (torch.cat(held["rollout_log_probs"]), torch.cat(held["old_log_probs"]))
    diff = both[1].double() - both[0].double()
    return len(diff), (diff.exp() - 1 - diff).mean().item()


@pytest.mark.parametrize("one", EVERY, ids=lambda one: f"{one.run}-{one.step}")
def test_k3_is_that_of_the_file_and_as_large_as_such_engines_make_it(one):
    path = path_of(one.run, one.step)
    identified = identify(Source(path))
    assert (identified.run, identified.step) == (one.run, one.step)
    tokens, k3 = k3_by_hand(path)
    [row] = timtrack.tables(path)["step_metrics"].to_dicts()
    assert row["tokens"] == tokens
    assert row["kl_k3"] == pytest.approx(k3, rel=1e-9, abs=1e-15)
    assert one.low <= row["kl_k3"] <= one.high


@pytest.mark.parametrize(
    ("run", "step"),
    [("synced", 1), ("synced", 3), ("hugging-face-bf16", 1), ("ctranslate2-float32", 1)],
)
def test_engines_that_only_round_have_no_cause(run, step):
    assert timtrack.diagnose(path_of(run, step)) == ()


def test_weights_that_were_never_sent_are_the_first_cause_after_two_updates():
    first, *_ = timtrack.diagnose(path_of("never-synced", 3))
    assert first.id == OLD_WEIGHTS


def test_the_shown_diagnosis_of_a_real_run_is_real(capsys, monkeypatch):
    shown = (ROOT / "README.md").read_text()
    [(asked, output)] = re.findall(r"```text\n\$ tim (diagnose .*?)\n(.*?)\n```", shown, re.DOTALL)
    monkeypatch.chdir(ROOT)
    assert main(asked.split()) == 0
    assert capsys.readouterr().out.startswith(output)


def test_trl_s_hook_saved_what_the_trainer_knew_of_each_row():
    for step in (1, 2, 3):
        held = torch.load(path_of("synced", step))
        assert len(held["completion_ids"]) == 16
        assert len(held["rewards"]) == 16
        assert held["policy_version"] == step - 1
        assert (held["temperature"], held["top_p"]) == (1.0, 1.0)
        assert set(held["finish_reason"]) <= {"stop", "length"}
        advantages = held["advantages"].view(-1, 4)  # by group, zero in the mean
        assert advantages.mean(dim=1).abs().max() < 1e-5
