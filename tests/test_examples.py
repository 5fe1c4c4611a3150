"""The notebook's cells run in order, on what the demo ingests first."""

import ast
import json

from tests.given import ingest
from tests.readme import ROOT
from timtrack.tasks.demo import published_run
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step

NOTEBOOK = json.loads((ROOT / "examples" / "explore.ipynb").read_text())


def test_the_notebook_runs(home, tmp_path, monkeypatch):
    step = ingest(published_run.write_capture(tmp_path / "captures"), home / "lake")
    write_tables(step, sql_version(), compute_step(step))
    monkeypatch.setenv("TIMTRACK_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    known, shown = {}, []
    for cell in NOTEBOOK["cells"]:
        if cell["cell_type"] == "code":
            shown.append(shown_by("".join(cell["source"]), known))
    assert any("qwen2.5" in text for text in shown)
    assert known["run"] == step.run
    assert len(known["tokens"]) == step.facts()["tokens"]
    assert (tmp_path / "report.html").stat().st_size > 100_000


def shown_by(source: str, known: dict[str, object]) -> str:
    """Run a cell; the text of its last expression, as a notebook shows it."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), known)
    return (
        ""
        if last is None
        else str(eval(compile(ast.Expression(last.value), "cell", "eval"), known))
    )


def test_it_is_kept_without_output():
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
