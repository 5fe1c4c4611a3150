"""`tim referee`, from a capture to lake, SQL, MLflow and terminal."""

import json

import numpy as np
import pytest

from tests.given import ingest
from tests.referee.faults import FAULTS
from tests.referee.tiny import capture_fields
from timtrack.flows.cli.main import main
from timtrack.tasks.lake.steps import REFEREE_FILE, all_steps, step_faults
from timtrack.tasks.tables.query import run_query
from timtrack.tasks.verdicts import rescoring


@pytest.fixture
def off(tiny, saved, home):
    """A home with a step whose trainer looks back 32 tokens only."""
    bench = tiny.engines(train=FAULTS["window"][1](tiny))
    file = saved(capture_fields(bench), "run-a/step_3/step_batch.pt")
    ingest(file, home / "lake")
    return home, file


def told(capsys, *arguments):
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 0
    return capsys.readouterr()


def test_the_referee_names_engine_and_hypothesis(off, tiny, capsys, narrow):
    home, _ = off
    narrow()
    shown = told(capsys, "--home", home, "referee", "run-a", "3", "--model", tiny.model)
    text = " ".join(shown.out.split())
    assert "look at the trainer" in text
    assert "when attention looks back 32 tokens" in text
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "not in MLflow: no step of run run-a was logged" in shown.err


def test_the_report_says_which_engine_is_off(off, tiny, tmp_path, capsys):
    home, _ = off
    told(capsys, "--home", home, "referee", "run-a", "--model", tiny.model)
    page = tmp_path / "page.html"
    told(capsys, "--home", home, "report", "run-a", "-o", page)
    text = page.read_text()
    assert '<h2 id="referee">Which engine is off</h2>' in text
    assert "look at the trainer" in text
    assert '<td class="n">bfloat16</td>' in text


def test_what_it_found_lies_beside_the_step(off, tiny, capsys):
    home, _ = off
    told(capsys, "--home", home, "referee", "run-a", "--model", tiny.model)
    [step] = all_steps(home / "lake")
    assert not list(step_faults(step))
    named = run_query([step], "from hypotheses where is_named").to_dicts()
    assert [(row["engine"], row["hypothesis"], row["value"]) for row in named] == [
        ("train", "window", "32")
    ]
    tokens = run_query([step], "from reference_tokens")
    scored = np.concatenate([one.train - one.rollout for one in tiny.bench.rollouts])
    assert len(tokens) == len(scored)
    assert np.abs(tokens["rollout_diff"].to_numpy()).max() < 1e-5
    links = {r["component"]: r for r in run_query([step], "from reference_attribution").to_dicts()}
    assert links["train"]["share_abs"] == pytest.approx(1, abs=1e-3)
    assert sum(link["share_abs"] for link in links.values()) == pytest.approx(1)
    record = rescoring.read(step)
    assert record and record["off"] == ["train"]


def test_asked_again_its_answer_takes_the_place_of_the_first(off, tiny, capsys):
    home, _ = off
    for rows in (4, 2):
        told(capsys, "--home", home, "referee", "run-a", "--model", tiny.model, "--rows", rows)
    [step] = all_steps(home / "lake")
    [folder] = step.path.glob("referee-*")
    assert len(json.loads((folder / REFEREE_FILE).read_text())["rows"]) == 2


def test_a_file_is_judged_without_a_lake(off, tiny, capsys):
    home, file = off
    arguments = ("--model", tiny.model, "--json", "--hypotheses", "window,temperature")
    found = json.loads(told(capsys, "--home", home, "referee", file, *arguments).out)
    assert found["off"] == ["train"]
    assert {row["hypothesis"] for row in found["hypotheses"]} == {"window", "temperature"}
    [step] = all_steps(home / "lake")
    assert rescoring.read(step) is None


def test_scorings_under_noise_are_kept_as_views(off, tiny, capsys):
    home, _ = off
    names = "perturbed_0.01_0,perturbed_0.01_1,perturbed_0.1_0"
    arguments = ("--model", tiny.model, "--hypotheses", names)
    told(capsys, "--home", home, "referee", "run-a", *arguments)
    [step] = all_steps(home / "lake")
    table = run_query(
        [step],
        "select view_name, sum(moved_mean * tokens) / sum(tokens) as moved "
        "from perturbations group by view_name order by view_name",
    )
    moved = dict(table.iter_rows())
    assert moved["reference"] == 0
    assert 0 < moved["perturbed_0.01_0"] != moved["perturbed_0.01_1"]
    assert moved["perturbed_0.1_0"] > 3 * moved["perturbed_0.01_0"]
