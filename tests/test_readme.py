"""The documents say what is so: generated parts, commands, output, links, file tree."""

import re
import shlex
import shutil

import pytest

from tests import readme
from tests.given import ingest
from timtrack.flows.cli.main import main
from timtrack.flows.cli.options.parser import parser
from timtrack.tasks.demo import published_run
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step

TEXT = readme.text()
ROOT = readme.ROOT


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    lines = [line.split(" #")[0] for block in blocks for line in block.splitlines()]
    return [line.split(" > ")[0].strip() for line in lines]


DOCUMENTS = pytest.mark.parametrize(
    "document", readme.DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


@DOCUMENTS
def test_generated_parts_are_current(document):
    text = document.read_text()
    assert readme.generated(text) == text, "run `make fix`"


def test_every_generated_part_stands_somewhere():
    assert all(TEXT.count(f"<!-- {name}: generated") == 1 for name in readme.parts())


@DOCUMENTS
def test_links_lead_somewhere(document):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text()):
        file = (document.parent / target).resolve() if target else document
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{target}#{anchor}"


def test_the_readme_is_short():
    assert len(readme.DOCUMENTS[0].read_text().splitlines()) < 250


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("tim ")])
def test_tim_commands_are_understood(command):
    assert parser().parse_args(shlex.split(command)[1:]).verb


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_make_targets_are_there(command):
    assert f"\n{command.split()[1]}:" in (ROOT / "Makefile").read_text()


def test_every_command_is_of_a_kind_that_is_tested():
    # All but the first two by test_deploy.py and test_postgres.py.
    kinds = ("tim ", "make ", "prefect ", "export ", "createdb ", "mlflow ", "pip ")
    assert all(command.startswith(kinds) for command in commands())


def test_shown_output_is_real(home, capsys):
    """The console blocks, run on what the demo ingests."""
    path = published_run.write_capture(home / "captures")
    step = ingest(path, home / "lake")
    write_tables(step, sql_version(), compute_step(step))
    blocks = re.findall(r"```console\n\$ tim (.*?)\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    for command, output in blocks:
        assert main(["--home", str(home), *shlex.split(command)]) == 0
        assert capsys.readouterr().out == output


def test_the_queries_of_the_documents_run(home, tmp_path, monkeypatch):
    step = ingest(published_run.write_capture(tmp_path / "captures"), home / "lake")
    write_tables(step, sql_version(), compute_step(step))
    monkeypatch.chdir(tmp_path)
    queries = [command for command in commands() if command.startswith('tim sql "')]
    assert len(queries) >= 3
    for query in queries:
        assert main(["--home", str(home), *shlex.split(query)[1:]]) == 0, query


def test_the_file_tree_is_complete():
    [tree] = re.findall(r"## What is where\n\n```text\n(.*?)```", TEXT, re.DOTALL)
    listed = {line.split()[0].rstrip("/") for line in tree.splitlines() if line[0] != " "}
    assert all((ROOT / name).exists() for name in listed)
    rooms = {path.name for path in (ROOT / "tasks").iterdir() if path.name[0] not in "_."}
    assert {f"tasks/{name}" for name in rooms} <= listed


def test_the_python_of_the_readme_runs(home, tmp_path, monkeypatch):
    step = ingest(published_run.write_capture(tmp_path / "captures"), home / "lake")
    write_tables(step, sql_version(), compute_step(step))
    shutil.copy(step.facts()["source"], tmp_path / "step_batch.pt")
    monkeypatch.setenv("TIMTRACK_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(import timtrack.*?)```", TEXT, re.DOTALL)
    exec(code, {})
