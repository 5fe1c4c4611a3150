"""`tim fsck`: what is not as it was written is named, and nobody writes to it by mistake."""

import json
import shutil
import stat

import pytest

from tests.given import batch_fields, ingest
from timtrack.flows.cli.main import main
from timtrack.tasks.lake.publish import prune_tokens, write_tables
from timtrack.tasks.lake.steps import is_pruned, prunable_bytes
from timtrack.tasks.tables.catalogue import sql_version
from timtrack.tasks.tables.compute import compute_step
from timtrack.tasks.tables.query import run_query


@pytest.fixture
def step(saved, home):
    step = ingest(saved(batch_fields()), home / "lake")
    write_tables(step, sql_version(), compute_step(step))
    return step


@pytest.fixture
def fsck(home, capsys):
    def run() -> tuple[int, str]:
        code = main(["--home", str(home), "fsck"])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def spoil(file) -> None:
    """The same size, another byte in the middle."""
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_lake_as_it_was_written_is_in_order(step, fsck):
    assert fsck() == (0, "1 steps, every file as it was written\n")


@pytest.mark.parametrize("name", ["tokens.parquet", "sequences.parquet", "tables/step_metrics"])
def test_a_changed_byte_is_named(name, step, fsck):
    table = step.path / f"tables-{sql_version()}" / "step_metrics.parquet"
    file = table if name.startswith("tables/") else step.path / name
    spoil(file)
    code, said = fsck()
    assert code == 1
    size = file.stat().st_size
    assert said.startswith("1 files are not as they were written:\n")
    assert f"{file}: {size} bytes with digest " in said


def test_a_file_that_is_gone_is_named(step, fsck):
    (step.path / "sequences.parquet").unlink()
    assert fsck()[1].splitlines()[1] == (
        f"  {step.path / 'sequences.parquet'}: No such file or directory"
    )


def test_a_facts_file_that_cannot_be_read_is_named(step, fsck):
    (step.path / "capture.json").chmod(0o644)
    (step.path / "capture.json").write_text("{")
    code, said = fsck()
    assert (code, "capture.json: cannot be read" in said) == (1, True)


def test_pruned_steps_are_in_order(step, fsck):
    prune_tokens(step)
    assert fsck() == (0, "1 steps, every file as it was written\n")


def test_steps_of_before_are_counted_apart(step, fsck):
    facts = json.loads((step.path / "capture.json").read_text())
    del facts["files"]
    (step.path / "capture.json").chmod(0o644)
    (step.path / "capture.json").write_text(json.dumps(facts))
    code, said = fsck()
    assert code == 0
    assert said.startswith("1 of 1 steps were written before digests were kept: not looked at\n")


def test_what_is_in_the_lake_is_read_only(step):
    files = [file for file in step.path.rglob("*") if file.is_file()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o444}
    shutil.rmtree(step.path)  # and can be deleted all the same


def test_a_prune_that_was_killed_between_two_files_leaves_no_half_step(step, monkeypatch):
    really, deleted = type(step.path).unlink, []

    def unlink(path, *given, **options):
        if deleted:
            raise KeyboardInterrupt
        deleted.append(path)
        really(path, *given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(type(step.path), "unlink", unlink)
        with pytest.raises(KeyboardInterrupt):
            prune_tokens(step)
    assert prunable_bytes(step) > 0
    assert is_pruned(step)
    assert run_query([step], "select count(*) from tokens").item() == 0
    assert run_query([step], "select count(*) from sequences").item() == 0
    assert len(run_query([step], "from step_metrics")) == 1
    prune_tokens(step)
    assert prunable_bytes(step) == 0
