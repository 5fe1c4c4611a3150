"""Other architectures than Llama: scored as `transformers` alone does, sequence by sequence."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from tests.referee.faults import plain
from timtrack.tasks.referee.bench import Bench
from timtrack.tasks.referee.model.loading import BadModel, load
from timtrack.tasks.referee.rollouts import Rollout
from timtrack.tasks.referee.session import Question, judged
from timtrack.tasks.referee.verdict import guilty

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 2,
}
CONFIGS = {
    "Qwen2Config": SMALL | {"tie_word_embeddings": True},
    "Gemma2Config": SMALL | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
    "GptOssConfig": SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "GPT2Config": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4}
    | {"initializer_range": 0.3, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 2},
}


@pytest.fixture(scope="module", params=CONFIGS)
def bench(request, tmp_path_factory) -> Bench:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    config = getattr(transformers, request.param)(**CONFIGS[request.param])
    transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)
    reference = load(folder, "cpu")
    draw = np.random.default_rng(0)
    rows = []
    for row in range(4):
        prompt, response = (tuple(map(int, draw.integers(3, 97, n))) for n in (6 + 3 * row, 20))
        nothing = np.zeros(len(response))
        rows.append(Rollout(row, f"p{row}", prompt, response, nothing, nothing))
    return Bench(reference, tuple(rows), {one.row: one for one in rows})


def test_a_batch_is_scored_as_each_sequence_alone(bench):
    alone = [plain(bench.reference.model, one) for one in bench.rollouts]
    assert np.abs(np.concatenate(alone) - bench.plain).max() < 1e-4


def without_what_it_has(bench: Bench):
    """The scores with what this architecture has besides Llama gone wrong, and its hypothesis."""
    model = copy.deepcopy(bench.reference.model)
    name = type(model).__name__
    if name.startswith("Gemma2"):
        for layer in model.model.layers:
            layer.self_attn.attn_logit_softcapping = None
        return "softcap_off", [plain(model, one) for one in bench.rollouts]
    if name.startswith("GptOss"):
        for layer in model.model.layers:
            layer.self_attn.sinks.data.fill_(-1e30)
        return "sinks_off", [plain(model, one) for one in bench.rollouts]
    if name.startswith("GPT2"):
        most = max(len(one.prompt) for one in bench.rollouts)
        pads = [range(most - len(one.prompt), most + 20) for one in bench.rollouts]
        pairs = zip(bench.rollouts, pads, strict=True)
        return "padding_counted", [plain(model, o, position_ids=list(at)) for o, at in pairs]
    return pytest.skip("nothing that Llama lacks")


def test_what_only_some_architectures_have_is_named_where_it_is_missing(bench):
    name, rows = without_what_it_has(bench)
    there = tuple(
        replace(one, rollout=plain(bench.reference.model, one), train=row)
        for one, row in zip(bench.rollouts, rows, strict=True)
    )
    off = replace(bench, rollouts=there, batch={one.row: one for one in there})
    found = judged(off, Question(bench.reference.folder, hypotheses=("all",)), {})
    assert found.engines[1].fits[0].hypothesis.name == name
    assert guilty(found.engines) == ("train",)


def test_pickled_weights_and_code_of_the_checkpoint_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"auto_map": {}}')
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(BadModel, match="pickles, which can run code"):
        load(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(BadModel, match="names code of its own"):
        load(tmp_path)
    with pytest.raises(BadModel, match=r"has no config\.json"):
        load(tmp_path / "nothing")
