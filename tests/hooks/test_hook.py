"""The writer that trainers call: whole captures or none, and never an error."""

import ast
import os
import sys
import threading
from pathlib import Path

import polars as pl
import pytest
import torch

from tests.given import batch_fields
from tests.given_lake import read
from timtrack.tasks import hook
from timtrack.tasks.captures.capture import identify
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.publish import write_step


@pytest.fixture
def unseen(monkeypatch):
    """Nothing was logged yet in this process."""
    monkeypatch.setattr(hook, "_LOGGED", set())


def test_a_folder_may_be_text(tmp_path):
    path = hook.save_step_batch(str(tmp_path / "run"), 3, batch_fields())
    assert path == tmp_path / "run/step_3/step_batch.pt"
    assert path.is_file()


def test_what_cannot_be_written_is_logged_once_and_never_raised(
    tmp_path, unseen, caplog, monkeypatch
):
    (tmp_path / "file").write_text("no folder")
    for step in (1, 2, 3):
        assert hook.save_step_batch(tmp_path / "file", step, batch_fields()) is None
    assert caplog.text.count("training goes on") == 1
    caplog.clear()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    for step in (1, 2, 3):
        assert hook.save_step_batch(tmp_path / "run", step, batch_fields()) is None
    assert caplog.text.count("No space left on device") == 1
    assert list((tmp_path / "run").rglob("*.pt*")) == []


def test_only_every_nth_step_is_written(tmp_path):
    written = [hook.save_step_batch(tmp_path, n, batch_fields(), every=10) for n in range(21)]
    assert [path.parent.name for path in written if path] == ["step_0", "step_10", "step_20"]


def test_of_many_rows_whole_groups_are_kept_and_it_is_said(tmp_path):
    fields = batch_fields(rows=12)  # groups of 2
    path = hook.save_step_batch(tmp_path / "run", 3, fields, max_rows=5)
    whole = hook.save_step_batch(tmp_path / "whole", 3, fields)
    step, other = (
        write_step(tmp_path / "lake", c, Source(c.path).open())
        for c in map(identify, (Source(path), Source(whole)))
    )
    tokens, rows = read(step)
    assert rows["row"].to_list() == [0, 1, 2, 3]
    assert tokens.to_dicts() == read(other)[0].filter(pl.col("row") < 4).to_dicts()
    assert "4 of 12 rows of the batch were saved" in step.facts()["notes"]


def test_rows_of_a_rank_have_no_place_in_the_whole_batch(tmp_path):
    paths = [
        hook.save_step_batch(tmp_path, 3, batch_fields(12, seed=n), n, 2, max_rows=5)
        for n in (0, 1)
    ]
    assert all("row_index" not in torch.load(path) for path in paths)


def test_of_a_group_larger_than_that_the_first_rows_are_kept(tmp_path):
    path = hook.save_step_batch(tmp_path, 3, batch_fields(12), max_rows=1)
    assert torch.load(path)["row_index"] == [0]


def test_in_the_background_the_same_bytes_are_written_from_a_copy(tmp_path):
    fields = batch_fields()
    expected = hook.save_step_batch(tmp_path / "a", 3, fields).read_bytes()
    path = hook.save_step_batch(tmp_path / "b", 3, fields, background=True)
    fields["old_log_probs"].zero_()  # the trainer goes on with its tensors
    hook._writers[os.getpid()].submit(int).result()  # what was handed over before is written
    assert path.read_bytes() == expected


def test_captures_that_come_faster_than_they_are_written_are_left_out(
    tmp_path, unseen, caplog, monkeypatch
):
    held = threading.Event()
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda *given: (held.wait(60), save(*given)))
    paths = [hook.save_step_batch(tmp_path, n, batch_fields(), background=True) for n in range(5)]
    held.set()
    hook._writers[os.getpid()].submit(int).result()
    assert [path is not None for path in paths] == [True, True, False, False, False]
    assert [path.is_file() for path in paths if path] == [True, True]
    assert caplog.text.count("captures come faster than they are written") == 1


def test_the_hook_is_one_file_for_python_3_9_that_needs_torch_alone():
    source = Path(hook.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    nodes = list(ast.walk(tree))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    froms = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    packages = {name.split(".")[0] for name in [*plain, *froms]}
    assert packages - sys.stdlib_module_names == {"torch"}
    assert "from __future__ import annotations" in source
