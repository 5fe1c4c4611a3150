"""A rollout in the terminal and as a zip, a step's page: `tim show`, `tim repro`, `tim report`."""

import csv
import io
import json
import re
import zipfile

import pytest

from tests.given import batch_fields, ingest
from timtrack.flows.cli.main import main
from timtrack.tasks.demo import published_run
from timtrack.tasks.lake.publish import prune_tokens, write_tables
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    step = ingest(published_run.write_capture(folder), folder / "lake")
    write_tables(step, sql_version(), compute_step(step))
    return folder


def run(home, *arguments):
    return main(["--home", str(home), *map(str, arguments)])


def test_show_prints_the_published_numbers(home, capsys):
    assert run(home, "show", published_run.RUN, 20, "--row", 833) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("row 833 · uid e975aa99 · 126 tokens (50 trained) ·")
    goal = next(line for line in lines if line.strip().startswith("39 "))
    wanted = "39 'goal' -0.5303 -19.9256 -19.3953 0.5884 0.0000 3.8e-09"
    assert goal.split() == wanted.split()
    assert lines[-1] == "... 76 more tokens"


def test_show_goes_to_a_position(home, capsys):
    assert run(home, "show", published_run.RUN, "--row", 833, "--around", 39) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [pos for pos in shown if pos.isdigit()] == [str(pos) for pos in range(27, 52)]


def test_a_row_that_is_not_there_is_said(home, capsys):
    assert run(home, "show", published_run.RUN, "--row", 2) == 2
    assert "has no row 2" in capsys.readouterr().err


def test_repro_has_all_that_a_bug_report_needs(home, tmp_path, capsys):
    target = tmp_path / "issue.zip"
    assert run(home, "repro", published_run.RUN, 20, "--row", 833, "-o", target) == 0
    with zipfile.ZipFile(target) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    assert set(files) == {"README.md", "tokens.csv", "sample.json", "capture.json"}
    rows = list(csv.DictReader(io.StringIO(files["tokens.csv"])))
    told = [row for row in published_run.tokens() if row["sample_row"] == "833"]
    assert [float(row["logp_train"]) for row in rows[:50]] == pytest.approx(
        [float(row["logp_fsdp"]) for row in told]
    )
    assert rows[50]["logp_train"] == ""
    sample = json.loads(files["sample.json"])
    assert len(sample["response_ids"]) == 126
    assert sample["prompt"].startswith("<|im_start|>system")
    assert len(sample["prompt_ids"]) > 100
    assert "pos 39, token_id 33939" in files["README.md"]
    assert json.loads(files["capture.json"])["run"] == published_run.RUN


def test_report_is_written_where_asked(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(home, "report", published_run.RUN, 20, "--pick", "random", "--seed", 7) == 0
    [page] = tmp_path.iterdir()
    assert capsys.readouterr().out.strip() == page.name == f"{published_run.RUN}-step-20.html"
    assert "prompts at random, seed 7 (--pick random)" in page.read_text()


def test_report_of_a_pruned_step_has_no_samples(home, tmp_path):
    folder = tmp_path / "pruned"
    step = ingest(published_run.write_capture(folder), folder / "lake")
    write_tables(step, sql_version(), compute_step(step))
    prune_tokens(step)
    assert run(folder, "report", published_run.RUN, "-o", tmp_path / "page.html") == 0
    assert "tokens were pruned" in (tmp_path / "page.html").read_text()


def test_a_page_leads_to_the_steps_beside_it(saved, tmp_path, capsys):
    files = [
        saved({**batch_fields(seed=n), "global_step": n}, f"r/step_{n}/a.pt") for n in (1, 5, 7)
    ]
    for file in files:
        ingest(file, tmp_path / "lake")
    page = tmp_path / "page.html"
    assert run(tmp_path, "report", "r", 5, "-o", page) == 0
    written = re.findall(r'data-copy="tim report ([^"]+)"', page.read_text())
    assert written == ["r 5 --previous --open", "r 5 --next --open"]
    for asked, title in (("--previous", "r step 1"), ("--next", "r step 7")):
        assert run(tmp_path, "report", "r", 5, asked, "-o", page) == 0
        assert f"<h1>{title}</h1>" in page.read_text()
    assert run(tmp_path, "report", "r", 7, "--next", "-o", page) == 2
    assert "step 7 is the last of run r" in capsys.readouterr().err
    assert run(tmp_path, "report", files[0], "--next", "-o", page) == 2
    assert "of a run in the lake" in capsys.readouterr().err
    assert run(tmp_path, "report", files[0], "-o", page) == 0
    assert "tim report" not in page.read_text()
