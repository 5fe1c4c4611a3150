"""The package as others use it: `import timtrack`, a wheel without the checkout, the hook alone."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import timtrack
from tests.given import batch_fields, ingest
from timtrack.flows.cli.main import main
from timtrack.tasks.hook import save_step_batch
from timtrack.tasks.tables.compute import compute_step

ROOT = Path(__file__).parents[1]
HEAVY = ("polars", "duckdb", "torch", "numpy", "prefect", "mlflow", "altair", "pyarrow")


def test_importing_timtrack_imports_nothing_heavy():
    code = f"import sys, timtrack; sys.exit(str({{*{HEAVY}}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


@pytest.fixture
def capture(saved):
    return saved(batch_fields(gap=0.5))


def test_a_capture_is_read_and_assessed_without_a_lake(capture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokens = timtrack.read(capture)
    step = ingest(capture, tmp_path / "aside")
    assert len(tokens) == step.facts()["tokens"]
    assert timtrack.tables(capture)["step_metrics"].equals(compute_step(step)["step_metrics"])
    assert timtrack.assess(capture).text
    assert [cause.id for cause in timtrack.diagnose(capture)] == []
    assert timtrack.report(capture).startswith("<!DOCTYPE html>")
    assert not (tmp_path / "timtrack").exists()


def test_a_lake_is_asked_by_run_and_by_sql(capture, tmp_path):
    ingest(capture, tmp_path / "lake")
    [kl] = timtrack.sql("select kl_k1 from step_metrics", tmp_path)["kl_k1"]
    assert timtrack.tables("run-a", 3, home=tmp_path)["step_metrics"]["kl_k1"].to_list() == [kl]
    with timtrack.connect(tmp_path) as connection:
        assert connection.sql("select kl_k1 from step_metrics").fetchall() == [(kl,)]


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda home: timtrack.sql("select 1", home), "no steps in"),
        (lambda home: timtrack.assess("nobody", home=home), "no run 'nobody'"),
        (lambda home: timtrack.read(home / "gone.pt"), "gone.pt"),
    ],
)
def test_what_cannot_be_answered_is_one_kind_of_error(ask, text, tmp_path):
    with pytest.raises((timtrack.TimtrackError, FileNotFoundError), match=text):
        ask(tmp_path)


def test_the_hook_is_one_file_for_python_3_9(tmp_path, capsys):
    assert main(["hook"]) == 0
    source = capsys.readouterr().out
    (tmp_path / "timtrack_hook.py").write_text(source)
    tree = ast.parse(source, feature_version=(3, 9))
    named = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    named += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    others = {name.split(".")[0] for name in named if name} - set(sys.stdlib_module_names)
    assert others == {"torch"}
    code = "import torch, timtrack_hook as h; h.save_step_batch('run', 1, {'x': torch.zeros(2)})"
    beside = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=beside, check=True)
    assert (tmp_path / "run" / "step_1" / "step_batch.pt").exists()


@pytest.mark.slow
def test_a_wheel_works_beside_a_script_called_tasks(tmp_path):
    """All that it reads is in it; no module of the working directory is taken for one of ours."""
    (tmp_path / "source").mkdir()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for name in ("pyproject.toml", "README.md", "LICENSE", "flows", "tasks", "sql"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / "source" / name)
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, tmp_path / "source"], check=True)
    [wheel] = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    folder = tmp_path / "user"
    folder.mkdir()
    for name in ("tasks", "flows", "sql"):
        (folder / f"{name}.py").write_text("raise RuntimeError('the user’s own module')\n")
    save_step_batch(folder / "run-a", 3, batch_fields())
    code = (
        "import sys, timtrack; from timtrack.flows.cli.main import main;"
        f"assert timtrack.__file__.startswith({str(site)!r}), timtrack.__file__;"
        "assert timtrack.assess('run-a/step_3/step_batch.pt').text; main(['deployment'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "entrypoint: timtrack.flows.deployed.watch" in done.stdout
