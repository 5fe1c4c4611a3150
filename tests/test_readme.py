"""The README says what is so: generated parts, commands, output, file tree."""

import re
import shlex

import pytest

from tests import readme
from tests.given import ingest
from timtrack.flows.cli.main import main
from timtrack.flows.cli.options import parser
from timtrack.tasks.demo import published_run
from timtrack.tasks.lake.publish import write_tables
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step

TEXT = readme.README.read_text()
ROOT = readme.ROOT


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]


def test_generated_parts_are_current():
    assert readme.generated(TEXT) == TEXT, "run `make fix`"


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


def test_the_file_tree_is_complete():
    [tree] = re.findall(r"## What is where\n\n```text\n(.*?)```", TEXT, re.DOTALL)
    listed = {line.split()[0].rstrip("/") for line in tree.splitlines()}
    assert all((ROOT / name).exists() for name in listed)
    sources = [*(ROOT / "flows").glob("*.py"), *(ROOT / "tasks").glob("*.py")]
    for file in sources:
        assert file.relative_to(ROOT).as_posix() in listed or file.name == "__init__.py"
