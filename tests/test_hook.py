"""The README's hooks for verl, run as they stand against stand-ins with verl's names and shapes."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tasks import captures, lake
from tests import readme
from tests.given import batch_fields
from tests.test_step_batch import TOKEN_FIELDS, expected_tokens, ragged, read

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
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "verl"]:
        del sys.modules[name]


def hooks() -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", readme.README.read_text(), re.DOTALL)
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
    capture = captures.identify(tmp_path / "captures/my-run/step_7/step_batch.pt")
    assert (capture.run, capture.step) == ("my-run", 7)
    step = lake.write_step(tmp_path / "lake", capture, captures.read(capture.path))
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
    capture = captures.identify(tmp_path / "captures/my-run/step_9/step_batch.pt")
    step = lake.write_step(tmp_path / "lake", capture, captures.read(capture.path))
    expected = [{**row, "advantage": None} for row in expected_tokens(fields)]
    assert read(step)[0].to_dicts() == expected
    assert "1 synthetic padding rows (uid `pad...`) left out" in step.facts()["notes"]


class Jagged(list):
    """What the hook needs of a jagged tensor."""

    def unbind(self):
        return list(self)
