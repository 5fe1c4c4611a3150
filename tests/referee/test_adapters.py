"""An adapter on the referee's checkpoint, made by hand as peft saves it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from tests.referee.tiny import World, capture_fields
from timtrack.flows.cli.main import main

RANK, ALPHA = 4, 12.0
PLACES = [f"model.layers.{n}.self_attn.{p}_proj" for n in range(4) for p in "qv"]


@pytest.fixture(scope="module")
def parts(tiny: World) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A [rank, in] and B [out, rank] of each place."""
    random = torch.Generator().manual_seed(3)
    weights = AutoModelForCausalLM.from_pretrained(tiny.model).state_dict()
    shapes = {place: weights[f"{place}.weight"].shape for place in PLACES}
    return {
        place: (
            0.15 * torch.randn(RANK, size, generator=random),
            0.15 * torch.randn(out, RANK, generator=random),
        )
        for place, (out, size) in shapes.items()
    }


@pytest.fixture(scope="module")
def adapter(parts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
    tensors = {}
    for place, (a, b) in parts.items():
        tensors[f"base_model.model.{place}.lora_A.weight"] = a.contiguous()
        tensors[f"base_model.model.{place}.lora_B.weight"] = b.contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def with_adapter(tiny: World, parts, factor: float) -> np.ndarray:
    """Log-probs [N] of the sequences by the model with so many times the adapter."""
    model = AutoModelForCausalLM.from_pretrained(tiny.model).eval()
    with torch.no_grad():
        for place, (a, b) in parts.items():
            model.get_submodule(place).weight += factor * ALPHA / RANK * b @ a
        scored = []
        for one in tiny.bench.rollouts:
            logits = model(torch.tensor([one.ids])).logits[0, len(one.prompt) - 1 : -1]
            of_all = logits.double().log_softmax(-1)
            scored.append(of_all.gather(1, torch.tensor(one.response)[:, None])[:, 0].numpy())
    return np.concatenate(scored)


def asked(tiny, saved, home, capsys, adapter, *more, **engines):
    """What `tim referee` says of engines with these log-probs."""
    file = saved(capture_fields(tiny.engines(**engines)), "run-a/step_3/step_batch.pt")
    given = ["--model", tiny.model, "--adapter", adapter, "--json", *more]
    capsys.readouterr()
    assert main(["--home", str(home), "referee", str(file), *map(str, given)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("factor", "named"), [(0.0, ("adapter_out", None)), (2.0, ("adapter_scale", 2.0))]
)
def test_an_engine_without_the_adapter_or_with_another_scale_is_named(
    tiny, parts, adapter, saved, home, capsys, factor, named
):
    whole, other = with_adapter(tiny, parts, 1.0), with_adapter(tiny, parts, factor)
    found = asked(tiny, saved, home, capsys, adapter, train=whole, rollout=other)
    assert found["off"] == ["rollout"]
    rollout, train = found["engines"]
    name, value = named
    assert rollout["best"]["hypothesis"] == name
    assert value is None or float(rollout["best"]["value"]) == pytest.approx(value, rel=0.05)
    assert train["mean"] < 1e-5


def test_an_adapter_of_another_model_is_refused(tiny, saved, home, tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 1, "lora_alpha": 1}))
    save_file({"base_model.model.x.lora_A.weight": torch.ones(1)}, tmp_path / "a.safetensors")
    file = saved(capture_fields(tiny.engines()))
    given = ["referee", str(file), "--model", str(tiny.model), "--adapter", str(tmp_path)]
    assert main(["--home", str(home), *given]) == 2
    assert "none of its tensors is for a weight of the model" in capsys.readouterr().err


def test_without_time_nothing_is_tried_and_that_is_said(tiny, parts, adapter, saved, home, capsys):
    other = with_adapter(tiny, parts, 0.0)
    found = asked(tiny, saved, home, capsys, adapter, "--minutes", 0, rollout=other)
    assert found["tried"] == [] and found["hypotheses"] == []
    assert {"adapter_out", "temperature", "window"} <= {*found["not_tried"]}
    assert set(found["off"]) == {"rollout", "train"}  # neither has the adapter
