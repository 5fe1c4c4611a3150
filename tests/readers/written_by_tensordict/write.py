"""How the files beside this one were made: `formats.a_batch()` by tensordict 0.10.0, as verl does.

    python -m tests.readers.written_by_tensordict.write     # with tensordict installed

tensordict is not needed to read them, nor to run the tests.
"""

import io
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict

from tests import formats

HERE = Path(__file__).parent


class DataProto:
    """verl's, as far as its pickled form goes."""

    def __init__(self, state):
        self.state = state

    def __getstate__(self):
        return self.state


def main() -> None:
    sys.modules["verl"], sys.modules["verl.protocol"] = types.ModuleType("verl"), module
    batch = formats.a_batch()
    uid = np.array(batch.pop("uid"), dtype=object)
    tensors = TensorDict(batch, batch_size=[len(uid)])
    others = {"uid": uid, "data_source": np.array(["gsm8k"] * len(uid), dtype=object)}
    meta = {"temperature": 1.0, "global_steps": 7}
    inner = io.BytesIO()
    torch.save(tensors.contiguous().consolidate(), inner)
    whole = DataProto((inner.getvalue(), others, meta))
    torch.save(whole, HERE / "dataproto.pt")
    (HERE / "dataproto.dp").write_bytes(pickle.dumps(whole))
    triples = {
        name: (str(value.dtype), value.shape, value.contiguous().view(torch.uint8).numpy())
        for name, value in tensors.items()
    }
    by_numpy = DataProto((((len(uid),), None, triples), others, meta))
    (HERE / "dataproto_numpy.dp").write_bytes(pickle.dumps(by_numpy))
    torch.save(tensors, HERE / "tensordict.pt")
    tensors["uid"] = named(uid)
    tags = [{} for _ in uid]
    queue = {"tensordict": tensors, "tags": tags, "keys": list("abcdef"), "global_steps": 7}
    torch.save(queue, HERE / "tq_batch.pt")
    torch.save({**queue, "tensordict": jagged(tensors, uid)}, HERE / "tq_jagged.pt")


def named(uid):
    return NonTensorStack(*[NonTensorData(name) for name in uid.tolist()])


def jagged(tensors, uid):
    """As verl's V1 trainer keeps a batch: rows of their own lengths, no attention mask."""
    real = tensors["attention_mask"].bool()
    width = tensors["prompts"].shape[1]
    rows = {
        name: [row[keep] for row, keep in zip(value, masked, strict=True)]
        for name, value in tensors.items()
        if name not in ("attention_mask", "uid")
        for masked in [real[:, :width] if name == "prompts" else real[:, width:]]
    }
    found = {
        name: torch.nested.as_nested_tensor(values, layout=torch.jagged)
        for name, values in rows.items()
    }
    return TensorDict({**found, "uid": named(uid)}, batch_size=[len(real)])


module = types.ModuleType("verl.protocol")
DataProto.__module__, DataProto.__qualname__ = "verl.protocol", "DataProto"
module.DataProto = DataProto  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
