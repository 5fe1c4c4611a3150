"""What others wrote is shown, never obeyed, in Markdown, spreadsheets, pages and JSON."""

import csv
import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from markdown_it import MarkdownIt
from prefect.client.orchestration import get_client

from tests.given import ACTING, MARKUP, SHOWN, batch_fields, ingest
from timtrack.flows.cli.verbs import gating
from timtrack.flows.watch import watch
from timtrack.tasks.backlog import quarantine, survey
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages import cells, formatting
from timtrack.tasks.messages.errors import printable
from timtrack.tasks.pipeline import stages
from timtrack.tasks.reports import html, repro, run_page, samples
from timtrack.tasks.reports.charts.export import save_charts
from timtrack.tasks.reports.charts.step import draw_charts
from timtrack.tasks.reports.step_page import Choice
from timtrack.tasks.reports.step_page import page as report_page
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.stored import stored_tables, tables_folder
from timtrack.tasks.tracking.tracker import Tracker
from timtrack.tasks.verdicts import change_points, gate, summary
from timtrack.tasks.verdicts.assessment import assess
from timtrack.tasks.verdicts.bands import OURS

CONTROLS = [*map(chr, range(32)), "\x7f", "\ufffe", "\uffff"]


@pytest.fixture
def step(saved, home):
    """A step in the home's lake, with its tables; its run is named in Markdown."""
    made = ingest(saved({**batch_fields(), "run_name": MARKUP}), home / "lake")
    write_tables(made, sql_version(), compute_step(made))
    return made


def with_tokens(step: Step, texts: list[str]) -> dict[str, pl.DataFrame]:
    """The step's tables, the worst tokens called so, one after the other."""
    computed = stored_tables(step)
    worst = computed["worst_tokens"]
    named = [texts[i % len(texts)] for i in range(len(worst))]
    computed["worst_tokens"] = worst.with_columns(pl.Series("token", named))
    return computed


# Spreadsheets


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"]


def test_text_that_a_spreadsheet_would_compute_is_text(tmp_path):
    frame = pl.DataFrame({"text": [*FORMULAS, "a=1", "'", None], "n": [-1.5] * 10})
    cells.write_csv(frame, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [printable(f"'{text}") for text in FORMULAS]
    assert [row["text"] for row in rows] == [*shown, "a=1", "'", ""]
    assert {row["n"] for row in rows} == {"-1.5"}


def test_no_table_of_a_step_has_a_formula(step, tmp_path):
    computed = with_tokens(step, FORMULAS)
    shutil.rmtree(tables_folder(step))
    write_tables(step, sql_version(), computed)
    stages.draw_step(step, tmp_path / "files", OURS)
    with (tmp_path / "files" / "tables" / "worst_tokens.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["token"] for row in rows} == {printable(f"'{text}") for text in FORMULAS}
    assert float(rows[0]["logp_train"]) < 0


def test_no_table_of_a_comparison_or_a_zip_has_a_formula(saved, home, tmp_path):
    made = ingest(saved({**batch_fields(), "run_name": "=1+1"}), home / "lake")
    run_page.write(run_page.compare([made], ["=1+1"], None), tmp_path / "page", OURS)
    text = (tmp_path / "page" / "run_trend.csv").read_text()
    assert "\n'=1+1," in text and "\n=1+1" not in text
    sample = samples.read(made, [0])[0]
    token = pl.Series("token", ["=1+1"] * len(sample.tokens))
    repro.write(made, replace(sample, tokens=sample.tokens.with_columns(token)), tmp_path / "z")
    with zipfile.ZipFile(tmp_path / "z") as archive:
        assert ",'=1+1," in archive.read("tokens.csv").decode()


# Markdown


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)


OWN_MARKUP = r"`[^`]*`|```.*```|\[MLflow\]\(http://[^)]*\)"


def check_inert(markdown: str, headings: int = 1) -> ElementTree.Element:
    """No image, no HTML, no link but ours, no heading but ours; the page as XML."""
    page = ElementTree.fromstring(f"<page>{rendered(markdown)}</page>")
    found = [element.tag for element in page.iter()]
    assert not {"img", "iframe", "script"} & set(found)
    assert sum(tag in ("h1", "h2", "h3") for tag in found) == headings
    assert {a.text for a in page.iter("a")} <= {"MLflow"}
    # Showdown, by which MLflow shows it, knows no backslash before these.
    ours = markdown.replace(formatting.code(MARKUP), "")
    assert not re.search(r"<|www\.|://", re.sub(OWN_MARKUP, "", ours, flags=re.DOTALL))
    return page


def shown_in(page: ElementTree.Element) -> str:
    return "".join(page.itertext())


def test_a_steps_note_shows_names_and_notes_and_obeys_none(step):
    facts = step.path / "capture.json"
    told = json.loads(facts.read_text())
    told |= {"source": MARKUP, "notes": [MARKUP, f"- {MARKUP}\n# head", "1. one", "---"]}
    facts.write_text(json.dumps(told))
    page = check_inert(
        summary.markdown(step, assess(step.facts(), stored_tables(step), OURS)), headings=0
    )
    text = shown_in(page)
    assert text.count(MARKUP) == 4  # run, two notes, source
    assert f"- {MARKUP}\\n# head" in text
    assert "1. one" in text and "---" in text


def test_the_backlog_shows_paths_and_errors_and_obeys_none():
    record = quarantine.Record(f"/x/`{MARKUP}`\n# h", f"{MARKUP}\n# h", "then", "now", 1)
    seen = survey.Backlog(1, 0, [], [record], [], [], [], [], {Path(MARKUP): MARKUP})
    page = check_inert(survey.markdown(Path(f"/``{MARKUP}"), seen, [], 1.0))
    text = shown_in(page)
    assert f"set aside: /x/`{MARKUP}`\\n# h (since then, tried once): {MARKUP}\\n# h" in text
    assert f"cannot be looked into: {Path(MARKUP)}: {MARKUP}" in text
    assert f"Captures below {Path(f'/``{MARKUP}')}" in text


def test_a_gates_summary_obeys_no_name():
    outcome = gate.Outcome("kl_k3 < 1", False, "is 2", None)
    text = gating._markdown(MARKUP, [outcome], ["``` <img src=x>", ACTING])
    assert shown_in(check_inert(text)).count(MARKUP) == 1
    junit = ElementTree.fromstring(gating._junit(ACTING, [outcome], [ACTING]))
    assert junit.find(".//failure").text == SHOWN


def test_a_zips_readme_obeys_no_name(step, tmp_path):
    repro.write(step, samples.read(step, [0])[0], tmp_path / "z")
    with zipfile.ZipFile(tmp_path / "z") as archive:
        assert MARKUP in shown_in(check_inert(archive.read("README.md").decode()))


@pytest.mark.parametrize("text", ["a`b", "`", "``a`", " a ", "a\\", "a\n`b", ""])
def test_a_code_span_holds_backticks(text):
    page = ElementTree.fromstring(rendered(f"x {formatting.code(text)} y"))
    [span] = page.iter("code")
    assert span.text == (printable(text) or None) or not text.strip()


# What MLflow is given


def test_a_tokens_text_breaks_no_picture(step, tmp_path):
    written = f"a{''.join(CONTROLS)}b<&\"'"
    save_charts(draw_charts(with_tokens(step, [written])), tmp_path)
    svg = ElementTree.parse(tmp_path / "logp_density.svg")
    labels = [element.get("data-tip") or "" for element in svg.iter()]
    shown = repr(printable(written))
    assert any(shown in label for label in labels)


def test_pages_hold_no_control_characters(step, tmp_path):
    facts = step.path / "capture.json"
    told = json.loads(facts.read_text())
    told |= {"source": "/x/\udcff", "notes": [ACTING, *CONTROLS]}
    told["meta"]["model"] = ACTING
    facts.write_text(json.dumps(told))
    computed = with_tokens(step, CONTROLS)
    text, _ = report_page(
        step, computed, draw_charts(computed), assess(step.facts(), computed, OURS), Choice()
    )
    text.encode()  # a lone surrogate has no bytes
    body = text[text.index("<body>") : text.index('<script type="application/json"')]
    assert all(c.isprintable() or c == "\n" for c in body)
    assert SHOWN in body
    listed = html.table("x", pl.DataFrame({"a": [[ACTING[:5]]], "b": ["\x00"]}))
    assert str(listed).isprintable()


def strict(text: str) -> object:
    """JSON as other languages read it."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text.encode("ascii")
    return json.loads(text, parse_constant=refuse)


ODD_META = {
    "temperature": float("nan"),
    "top_p": float("inf"),
    "model": "m\ud800\x00\x1b",
    "key\ud800": "x",
    "dataset": float("nan"),
}


def test_what_a_capture_says_of_itself_is_strict_json_and_taken_by_mlflow(saved, home, tmp_path):
    fields = {**batch_fields(), **ODD_META, "odd\ud800_log_probs": [1.0]}
    made = ingest(saved(fields), home / "lake")
    meta = strict((made.path / "capture.json").read_text())["meta"]
    assert (meta["temperature"], meta["top_p"], meta["key\\ud800"]) == (None, None, "x")
    write_tables(made, sql_version(), compute_step(made))
    files = tmp_path / "files"
    stages.draw_step(made, files, OURS)
    for file in files.rglob("*.json"):
        assert strict(file.read_text())
    tracker = Tracker(home)
    run_id = tracker.log_step(made, {"kl_k1": 0.5}, files, "v1")
    tracker.note(run_id, 3, summary.markdown(made, assess(made.facts(), stored_tables(made), OURS)))
    run = tracker.client.get_run(run_id)
    assert run.data.params["model"] == r"m\ud800\x00\x1b"
    assert r"odd\\ud800\_log\_probs" in run.data.tags["mlflow.note.content"]


def test_facts_of_an_older_lake_that_are_no_json_are_summed_up(step, tmp_path):
    facts = step.path / "capture.json"
    told = json.loads(facts.read_text())
    told["meta"] |= {"temperature": float("nan"), "model": "\ud800"}
    facts.write_text(json.dumps(told))
    summary.write(step, assess(step.facts(), stored_tables(step), OURS), tmp_path / "summary.json")
    assert strict((tmp_path / "summary.json").read_text())["capture"]["meta"]["temperature"] is None
    repro.write(step, samples.read(step, [0])[0], tmp_path / "z")
    with zipfile.ZipFile(tmp_path / "z") as archive:
        strict(archive.read("capture.json").decode())


def test_a_long_param_is_cut(saved, home, tmp_path):
    made = ingest(saved({**batch_fields(), "model": "m" * 10_000}), home / "lake")
    tracker = Tracker(home)
    (tmp_path / "files").mkdir()
    run_id = tracker.log_step(made, {}, tmp_path / "files", "v1")
    assert len(tracker.client.get_run(run_id).data.params["model"]) == 500


def test_a_diary_s_events_are_printable(tmp_path):
    (tmp_path / "events.jsonl").write_text(json.dumps({"step": 1, "event": ACTING}) + "\n")
    assert change_points.events(tmp_path / "step_1.pt") == [{"step": 1, "event": SHOWN}]


# Prefect


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_prefect_is_told_in_lines_and_in_text(saved, home):
    """Names of task runs and messages of states go into its log as they are."""
    saved({**batch_fields(), "run_name": MARKUP}, "runs/a/step_3/step_batch.pt")
    odd = saved({}, f"runs/b/step_3/step_batch{ACTING}.pt")
    state = watch(odd.parents[2], home, quiet=0, return_state=True)
    with get_client(sync_client=True) as client:
        ours = [run for run in client.read_task_runs() if MARKUP in run.name or SHOWN in run.name]
        newest_last = sorted(client.read_artifacts(), key=lambda one: one.created)
        artifacts = {one.key: one for one in newest_last}
    assert f"step_batch{SHOWN}.pt" in state.message
    named = f"identify {printable(str(odd))}"
    assert [run.name for run in ours if run.name.startswith("identify")] == [named]
    for text in (state.message, *(run.name for run in ours), *(run.state.message for run in ours)):
        assert text is None or text.isprintable()
    [status] = json.loads(artifacts["timtrack-status"].data)
    assert MARKUP in shown_in(check_inert(status["run"], headings=0))
    watched, note = artifacts["watch-runs"], artifacts[stages._slug(MARKUP)]
    assert SHOWN in shown_in(check_inert(watched.data))
    check_inert(note.data, headings=0)
    assert MARKUP in shown_in(check_inert(note.description, headings=0))
