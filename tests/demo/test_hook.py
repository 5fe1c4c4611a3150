"""The README's hooks for verl, run as they stand against stand-ins with verl's names and shapes."""

import ast
import os
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from tests import readme
from tests.given import batch_fields
from tests.given_captures import TOKEN_FIELDS, expected_tokens, ragged
from tests.given_lake import read
from timtrack.tasks import hook
from timtrack.tasks.captures.capture import identify
from timtrack.tasks.captures.source import Source
from timtrack.tasks.lake.publish import write_step

V0 = """
class RayPPOTrainer:
    def fit(self, batch):
        self._compute_old_log_prob(batch)
        batch.batch["response_mask"] = batch.batch["response_mask"] * 0  # rollout correction
        return self._update_actor(batch)
    def _compute_old_log_prob(self, batch):
        return "recomputed"
    def _update_actor(self, batch):
        return "updated"
"""
V1 = """
tq = None
class PPOTrainer:
    def _compute_advantage(self, batch, metrics):
        return "advantages"
"""


@pytest.fixture
def verl(tmp_path, monkeypatch):
    """A package `verl` with the two trainers, and a place to work in."""
    for name, content in {"ray_trainer.py": V0, "v1/trainer_base.py": V1}.items():
        path = tmp_path / "verl/trainer/ppo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "timtrack_hook", hook)  # what `tim hook` prints
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "verl"]:
        del sys.modules[name]


def hooks() -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", readme.text(), re.DOTALL)
    return [block for block in blocks if "when_imported" in block]


CONFIG = SimpleNamespace(trainer=SimpleNamespace(experiment_name="my-run"))


def test_the_hook_for_padded_batches_keeps_the_mask_before_rejection(verl, tmp_path):
    exec(hooks()[0], {})
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    fields = batch_fields()
    trainer = RayPPOTrainer()
    trainer.config, trainer.global_steps = CONFIG, 7
    tensors = {k: v for k, v in fields.items() if isinstance(v, torch.Tensor)}
    uid = np.array(fields["uid"], dtype=object)
    assert trainer.fit(SimpleNamespace(batch=tensors, non_tensor_batch={"uid": uid})) == "updated"
    capture = identify(Source(tmp_path / "captures/my-run/step_7/step_batch.pt"))
    assert (capture.run, capture.step) == ("my-run", 7)
    step = write_step(tmp_path / "lake", capture, Source(capture.path).open())
    assert read(step)[0].to_dicts() == expected_tokens(fields)


def test_the_hook_for_jagged_batches_writes_lists_and_padding_rows_go(verl, tmp_path):
    import verl.trainer.ppo.v1.trainer_base as base

    fields = batch_fields()
    lists = ragged(fields)
    lists["rm_scores"] = lists.pop("token_level_scores")
    lists["uid"] = [*fields["uid"], "pad3f"]
    names = [n for n in (*TOKEN_FIELDS, "rm_scores", "prompts") if n in lists and n != "advantages"]
    held = {n: Jagged([*lists[n], torch.zeros(1, dtype=lists[n][0].dtype)]) for n in names}
    base.tq = SimpleNamespace(kv_batch_get=lambda **_: {**held, "uid": lists["uid"]})
    trainer = base.PPOTrainer()
    trainer.config, trainer.global_steps = CONFIG, 9
    batch = SimpleNamespace(keys=["k"], partition_id="train")
    exec(hooks()[1], {})  # the module is imported now: patched at once
    assert trainer._compute_advantage(batch, {}) == "advantages"
    capture = identify(Source(tmp_path / "captures/my-run/step_9/step_batch.pt"))
    step = write_step(tmp_path / "lake", capture, Source(capture.path).open())
    expected = [{**row, "advantage": None} for row in expected_tokens(fields)]
    assert read(step)[0].to_dicts() == expected
    assert "1 synthetic padding rows (uid `pad...`) left out" in step.facts()["notes"]


class Jagged(list):
    """What the hook needs of a jagged tensor."""

    def unbind(self):
        return list(self)


def test_the_hook_for_padded_batches_does_not_stop_a_training_in_bypass_mode(verl, tmp_path):
    """verl skips `_compute_old_log_prob` then, so that no mask was kept."""
    exec(hooks()[0], {})
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    fields = batch_fields()
    trainer = RayPPOTrainer()
    trainer.config, trainer.global_steps = CONFIG, 1
    tensors = {k: v for k, v in fields.items() if isinstance(v, torch.Tensor)}
    uid = np.array(fields["uid"], dtype=object)
    batch = SimpleNamespace(batch=tensors, non_tensor_batch={"uid": uid})
    assert trainer._update_actor(batch) == "updated"
    assert identify(Source(tmp_path / "captures/my-run/step_1/step_batch.pt")).step == 1


@pytest.mark.parametrize("block", [0, 1])
def test_no_hook_stops_a_training_whose_batch_is_another(block, verl, unseen, caplog):
    import verl.trainer.ppo.v1.trainer_base as base
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    exec(hooks()[block], {})
    nothing = SimpleNamespace(batch={}, non_tensor_batch={}, keys=[], partition_id="train")
    if block == 0:
        assert RayPPOTrainer()._compute_old_log_prob(nothing) == "recomputed"
        assert RayPPOTrainer()._update_actor(nothing) == "updated"
    else:
        assert base.PPOTrainer()._compute_advantage(nothing, {}) == "advantages"
    assert "training goes on" in caplog.text


def test_a_patch_that_fails_leaves_the_module_as_it_is(verl, unseen, caplog):
    hook.when_imported("verl.trainer.ppo.ray_trainer", lambda module: module.NoSuchTrainer)
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    assert RayPPOTrainer()._update_actor(None) == "updated"
    assert "the hook into verl.trainer.ppo.ray_trainer was not written" in caplog.text


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
