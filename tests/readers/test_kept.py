"""How many ids the sampler kept, as frameworks write it, and jagged tensors of several numbers."""

from pathlib import Path

import numpy as np
import torch

from tests import formats
from tests.given import batch_fields, ingest
from tests.given_captures import ragged
from tests.given_lake import read
from timtrack.tasks.tables.query import run_query

SKYRL = Path(__file__).parents[1] / "frameworks" / "written" / "skyrl" / "replayed"


def test_skyrl_dumps_the_ids_that_the_sampler_kept(tmp_path):
    """A file that SkyRL 0.4.0 wrote: four ids a token, three and padding at every other one."""
    [path] = SKYRL.rglob("*.pkl")
    step = ingest(path, tmp_path / "lake", run="r")
    tokens, _ = read(step)
    trained = tokens.filter("is_trained")
    assert trained["kept"].to_list() == [4 - pos % 2 for pos in trained["pos"]]
    counts = run_query([step], "select kept_from, tokens from gap_by_kept").rows()
    assert counts == [(2, (trained["kept"] == 3).sum()), (4, (trained["kept"] == 4).sum())]


def test_slime_has_it_in_the_trainers_file_too(tmp_path):
    """Where only that one was dumped."""
    batch = formats.a_batch()
    path = formats.slime(tmp_path, batch, 7)
    (tmp_path / "rollout_data" / "7.pt").unlink()
    content = torch.load(path)
    for sample in content["samples"]:
        sizes = np.arange(len(sample["log_probs"])) % 5
        sample["rollout_top_p_token_ids"] = torch.zeros(int(sizes.sum()), dtype=torch.int32)
        sample["rollout_top_p_token_offsets"] = torch.tensor(np.r_[0, sizes.cumsum()]).int()
    torch.save(content, path)
    tokens, _ = read(ingest(path, tmp_path / "lake", run="r"))
    trained = tokens.filter("is_trained")
    assert trained["kept"].to_list() == [pos % 5 for pos in trained["pos"]]


def test_experts_of_both_engines_in_jagged_tensors_are_read(tmp_path, saved, to_lake):
    """As verl's V1 trainer holds rows: one tensor of all tokens, and offsets."""
    rows = ragged(batch_fields())
    lengths = [len(ids) for ids in rows["responses"]]
    experts = torch.randint(1, 9, (sum(lengths), 3, 2), dtype=torch.int16)
    offsets = torch.tensor(np.r_[0, np.cumsum(lengths)])
    for name, values in (("routed_experts", experts), ("train_routed_experts", 9 - experts)):
        rows[name] = torch.nested.nested_tensor_from_jagged(values, offsets=offsets)
    step = to_lake(saved(rows))
    assert not [note for note in step.facts()["notes"] if "left out" in note]
    answer = run_query([step], "select layer, tokens from expert_overlap").rows()
    assert answer == [(layer, step.facts()["trained_tokens"]) for layer in range(3)]
