"""`tim hook NAME`: one file that needs torch alone, puts itself in, and never stops a training."""

import ast
import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import polars as pl
import pytest
import torch

from tests.given import batch_fields
from tests.given_captures import expected_tokens, ragged
from tests.given_lake import read
from tests.hooks.stand_ins import OF, installed
from timtrack.flows.cli.main import main
from timtrack.tasks.captures.capture import identify
from timtrack.tasks.captures.source import Source
from timtrack.tasks.hooks.written import FRAMEWORKS, hook_file
from timtrack.tasks.lake.publish import write_step

ADVANTAGES_LATER = ("verl-v1",)  # they come after the hook
ALONE = "import sys; sys.modules['timtrack'] = None; import timtrack_hook; "
FACTS = {
    "verl": {"rank": [0, 0, 0, 1, 1, 1], "cached_tokens": [2] * 6, "top_k": [-1] * 6},
    "verl-v1": {"rank": [0, 0, 0, 1, 1, 1], "policy_version_max": [6] * 6},
    "trl": {
        "reward": [0.0, 1, 2, 3, 4, 5],
        "policy_version_min": [6] * 6,
        "finish_reason": ["length"] * 6,
    },
    "openrlhf": {
        "reward": [0.0, 1, 2, 3, 4, 5],
        "rank": [0, 0, 0, 1, 1, 1],
        "pack": list(range(6)),
        "finish_reason": ["stop", "length", *["stop"] * 4],
    },
    "skyrl": {"reward": [1.0] * 6, "finish_reason": ["stop"] * 6},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a batch, where a trainer of any framework runs."""
    fields = batch_fields()
    torch.save(fields, tmp_path / "fields.pt")
    torch.save(ragged(fields), tmp_path / "rows.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("TIMTRACK_CAPTURES", raising=False)
    yield tmp_path
    for name in [n for n in sys.modules if n.split(".")[0] in (*FRAMEWORKS, "timtrack_hook")]:
        del sys.modules[name]


def put_in(name: str, place: Path):
    """The module of a framework's trainer with its hook in it."""
    module = installed(name, place)
    (place / "timtrack_hook.py").write_text(hook_file(name))
    importlib.invalidate_caches()
    importlib.import_module("timtrack_hook")
    return importlib.import_module(module)


def captured(place: Path) -> list[str]:
    return sorted(p.relative_to(place).as_posix() for p in place.glob("captures/**/*.pt"))


def in_lake(place: Path, path: str):
    capture = identify(Source(place / path))
    assert capture.run == "my-run"
    return read(write_step(place / "lake", capture, Source(capture.path).open()))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_hook_file_is_whole_for_python_3_9_and_needs_torch_alone(name, capsys):
    """It begins with how to switch it on, and no name of a part hides one of the writer."""
    assert main(["hook", name]) == 0
    tree = ast.parse(capsys.readouterr().out, feature_version=(3, 9))
    nodes = list(ast.walk(tree))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    froms = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    packages = {module.split(".")[0] for module in [*plain, *froms]}
    assert packages - sys.stdlib_module_names == {"torch"}
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    defined += [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets]
    assert len(defined) == len(set(defined))
    assert ast.get_docstring(tree).startswith("timtrack's hook for ")
    assert "witch it on" in hook_file(name)[:400] or "to be loaded" in hook_file(name)[:400]


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_hook_file_captures_a_step_where_timtrack_is_not_installed(name, place):
    module, _, statement = OF[name]
    installed(name, place)
    (place / "timtrack_hook.py").write_text(hook_file(name))
    trained = f"{ALONE}from {module} import *; {statement}"
    alone = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", trained], cwd=place, env=alone, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert captured(place) == ["captures/my-run/step_7/step_batch.pt"]
    tokens, rows = in_lake(place, "captures/my-run/step_7/step_batch.pt")
    [left_out] = [["entropy", "advantage"] if name in ADVANTAGES_LATER else ["entropy"]]
    expected = pl.DataFrame(expected_tokens(batch_fields()))
    same = ["uid", *left_out]  # TRL's and OpenRLHF's groups have names of their own
    assert tokens.drop(same).to_dicts() == expected.drop(same).to_dicts()
    assert rows["uid"].n_unique() == (6 if name == "trl" else 3)  # one prompt a row, there
    assert rows["temperature"].to_list() == [0.9] * 6
    for fact, values in FACTS[name].items():
        assert rows[fact].to_list() == values


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_no_hook_stops_a_training_whose_trainer_is_another(name, place, caplog):
    module = put_in(name, place)
    owners = {n: c for n, c in vars(module).items() if isinstance(c, type)}
    hooked = [
        (owner, method)
        for owner in owners.values()
        for method in vars(owner).values()
        if getattr(method, "of_timtrack", False)
    ]
    assert hooked
    for owner, method in hooked:
        before = method.__wrapped__
        trainer = object.__new__(owner)  # without a single attribute
        arguments = [object()] * (before.__code__.co_argcount - 1)
        try:
            expected = before(trainer, *arguments)
        except Exception as error:  # the trainer's own error is its own
            with pytest.raises(type(error)):
                method(trainer, *arguments)
        else:
            assert repr(method(trainer, *arguments)) == repr(expected)
    assert captured(place) == []


@pytest.mark.parametrize("name", ["verl", "verl-v1", "trl", "skyrl"])
def test_a_batch_of_one_engine_is_not_written_and_it_is_said_what_to_switch_on(name, place, caplog):
    for file in ("fields.pt", "rows.pt"):
        torch.save({**torch.load(place / file), "rollout_log_probs": None}, place / file)
    module = put_in(name, place)
    for _ in range(2):
        exec(OF[name][2], vars(module))
    assert captured(place) == []
    assert caplog.text.count("in the batch: ") == 1


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_hook_that_is_loaded_twice_is_put_in_once(name, place, monkeypatch):
    """As where the file is on the path and the plug-in is installed, too."""
    written = []
    module = put_in(name, place)
    again = importlib.util.spec_from_file_location("another_hook", place / "timtrack_hook.py")
    again.loader.exec_module(importlib.util.module_from_spec(again))
    hook = sys.modules["timtrack_hook"]
    monkeypatch.setattr(hook, "save_as_set", lambda *given: written.append(given))
    exec(OF[name][2], vars(module))
    assert len(written) == 1


def test_verl_keeps_the_mask_before_rejection_and_bypass_mode_goes_on(place):
    """In bypass mode nothing is recomputed, so that no mask is kept: verl's own counts."""
    module = put_in("verl", place)
    module.RayPPOTrainer.bypass = True
    trainer = module.RayPPOTrainer()
    assert trainer.fit() == "updated"
    [path] = captured(place)
    assert not torch.load(place / path)["response_mask"].any()
    module.RayPPOTrainer.bypass = False
    assert trainer.fit() == "updated"
    assert torch.load(place / path)["response_mask"].any()


def test_verl_v1_counts_updates_where_weights_are_sent_after_several(place):
    trainer = put_in("verl-v1", place).PPOTrainer()
    trainer.parameter_sync_step, trainer.local_trigger_step = 4, 2
    assert trainer.step() == "advantages"
    [path] = captured(place)
    assert path == "captures/my-run/step_27/step_batch.pt"  # 6 x 4 before, 2 within
    assert torch.load(place / path)["max_global_steps"] == [24] * 6


def test_trl_leaves_evaluation_out_and_overwrites_no_generation(place):
    module = put_in("trl", place)
    module.GRPOTrainer.accumulation = 2
    trainer = module.GRPOTrainer()
    trainer.model.training = False
    trainer.train()
    assert captured(place) == []
    trainer.model.training = True
    trainer.train(), trainer.train()
    trainer.state.global_step = 7
    trainer.train()
    folders = [path.split("/")[2] for path in captured(place)]
    assert folders == ["step_13", "step_14", "step_15"]  # two generations a step


def test_trl_s_ranks_write_their_own_rows_as_one_capture(place):
    module = put_in("trl", place)
    module.GRPOTrainer.ranks = 2
    for rank in (0, 1):
        module.GRPOTrainer.rank = rank
        module.GRPOTrainer().train()
    first, second = captured(place)
    assert (first, second) == tuple(
        f"captures/my-run/step_7/step_batch.rank_{rank}.pt" for rank in (0, 1)
    )
    _, rows = in_lake(place, first)
    assert sorted(rows["rank"].to_list()) == [0] * 6 + [1] * 6
    assert sorted(rows["reward"].to_list()) == [float(n) for n in range(12)]


def test_the_environment_says_where_how_often_and_how_much(place, monkeypatch):
    monkeypatch.setenv("TIMTRACK_CAPTURES", str(place / "elsewhere"))
    monkeypatch.setenv("TIMTRACK_EVERY", "7")
    monkeypatch.setenv("TIMTRACK_MAX_ROWS", "2")
    trainer = put_in("verl", place).RayPPOTrainer()
    for trainer.global_steps in (6, 7):
        trainer.fit()
    [path] = (place / "elsewhere").rglob("*.pt")
    assert path.parent.name == "step_7"
    assert len(torch.load(path)["responses"]) == 2


def test_what_the_environment_says_wrongly_is_logged(place, monkeypatch, caplog):
    monkeypatch.setenv("TIMTRACK_EVERY", "often")
    assert put_in("verl", place).RayPPOTrainer().fit() == "updated"
    assert "training goes on" in caplog.text
    assert captured(place) == []


def test_a_method_that_is_not_there_leaves_the_trainer_as_it_is(place, caplog):
    installed("verl", place)
    path = place / "verl/trainer/ppo/ray_trainer.py"
    path.write_text("class RayPPOTrainer:\n    def fit(self):\n        return 'updated'\n")
    (place / "timtrack_hook.py").write_text(hook_file("verl"))
    importlib.import_module("timtrack_hook")
    module = importlib.import_module("verl.trainer.ppo.ray_trainer")
    assert module.RayPPOTrainer().fit() == "updated"
    assert "the hook into verl.trainer.ppo.ray_trainer was not written" in caplog.text


IMPORTED = "import sys; from timtrack.tasks.hooks import verl_plugin; print(*sys.modules)"


@pytest.mark.parametrize("folder", ["", "captures"])
def test_verl_s_plug_in_does_nothing_unless_a_folder_is_named(folder):
    known = {**os.environ, "TIMTRACK_CAPTURES": folder}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], env=known, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert ("torch" in modules) == bool(folder)
    assert ("timtrack.tasks.hooks.verl_v1" in modules) == bool(folder)
    assert not modules & {"polars", "duckdb", "prefect", "mlflow", "pyarrow", "altair"}


def test_verl_finds_its_plug_in():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["verl.plugins"] == {
        "timtrack": "timtrack.tasks.hooks.verl_plugin"
    }
