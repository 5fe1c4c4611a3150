"""Objects of verl, tensordict and SkyRL in pickles, without importing these libraries.

What a pickle names becomes a stand-in that keeps the state it is given; `resolved` turns them into
plain dicts, lists and arrays. Each load gets its own classes: a pickle can write to what it names.
"""

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

from timtrack.tasks.readers.containers import pickled_numpy
from timtrack.tasks.readers.containers.bounds import ZIP, check_members

DTYPES = {
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("bfloat16", "float16", "float32", "float64"),
}


class Held:
    """Stands for an object; `value` is a plain one in its place."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def value(self) -> Any:
        """Overridden by what has a content."""
        return None


class DataProto(Held):
    """verl's batch: `(batch, non_tensor_batch, meta_info)`, the tensors as bytes or as arrays."""

    @property
    def value(self) -> Any:
        """The three as verl nests them."""
        if not isinstance(self.state, tuple) or len(self.state) < 3:
            raise UnpicklingError("a DataProto without batch, non_tensor_batch and meta_info")
        batch, others, meta = self.state[:3]
        if isinstance(batch, bytes):
            batch = _inner(batch)
        elif isinstance(batch, tuple) and len(batch) == 3 and isinstance(batch[2], dict):
            batch = {name: _of_triple(name, triple) for name, triple in batch[2].items()}
        return {"batch": batch, "non_tensor_batch": others, "meta_info": meta}


class NonTensorData(Held):
    """One value in a TensorDict."""

    @property
    def value(self) -> Any:
        """The value."""
        return _state(self).get("non_tensordict", {}).get("data")


class NonTensorStack(Held):
    """One value a row in a TensorDict."""

    @property
    def value(self) -> Any:
        """The values."""
        return [getattr(item, "value", item) for item in _state(self).get("tensordicts", [])]


class Jagged(Held):
    """torch's nested tensor of rows of their own lengths, as verl V1 keeps a batch."""

    @property
    def value(self) -> list[Any]:
        """A tensor a row."""
        state = _state(self)
        return _rows(state.get("_values"), state.get("_offsets"), state.get("_lengths"))


def _state(held: Held) -> dict[str, Any]:
    return held.state if isinstance(held.state, dict) else {}


def _rows(values: Any, offsets: Any, lengths: Any) -> list[Any]:
    """Rows that lie one after another in `values`, from `offsets`, as long as `lengths` if given.

    No offset is followed that leads out of `values`.
    """
    if not getattr(values, "ndim", 0) or getattr(offsets, "ndim", 0) != 1:
        raise UnpicklingError("a jagged tensor without values and flat offsets")
    for part in (offsets, lengths):
        if part is not None and part.nbytes > part.untyped_storage().nbytes():
            raise UnpicklingError(f"{len(part)} rows of a jagged tensor are declared, not there")
    bounds = offsets.tolist()
    stops = bounds[1:]
    if lengths is not None:
        stops = [start + n for start, n in zip(bounds[:-1], lengths.tolist(), strict=True)]
    found = list(zip(bounds[:-1], stops, strict=True))
    if any(not 0 <= start <= stop <= len(values) for start, stop in found):
        raise UnpicklingError(f"rows of a jagged tensor outside its {len(values)} values")
    return [values[start:stop] for start, stop in found]


class TrainingInputBatch(dict[Any, Any]):
    """SkyRL's batch, up to 2026-03 a dict that was pickled as one, with its state beside it."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def value(self) -> Any:
        """The fields of the state."""
        return _skyrl(self.state)


def for_torch() -> list[Any]:
    """What torch's restricted unpickler may call: `(stand-in, name in the file)`."""
    jagged = type("Jagged", (Jagged,), {})
    return [
        *pickled_numpy.STAND_INS,
        (type("DataProto", (DataProto,), {}), "verl.protocol.DataProto"),
        (type("TensorDict", (Held,), {}), "tensordict._td.TensorDict"),
        (type("NonTensorData", (NonTensorData,), {}), "tensordict.tensorclass.NonTensorData"),
        (type("NonTensorStack", (NonTensorStack,), {}), "tensordict.tensorclass.NonTensorStack"),
        (_made, "tensordict._reductions._make_td"),
        (jagged, "torch.nested._internal.nested_tensor.NestedTensor"),
        (lambda _: jagged(), "torch.nested._internal.nested_tensor._rebuild_njt"),
        (type("DimRange", (Held,), {}), "torch._dynamo.decorators._DimRange"),
        (_unpacked, "tensordict._reductions._rebuild_tensordict_files_consolidated"),
    ]


@contextmanager
def only_these() -> Iterator[None]:
    """torch's restricted unpickler with these stand-ins, and nothing that others allowed it.

    For the whole process: one thread at a time.
    """
    from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

    others = get_safe_globals()
    clear_safe_globals()
    add_safe_globals(for_torch())
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(others)


def for_pickle() -> dict[str, Any]:
    """What our own restricted unpickler may call, by name in the file."""
    batch = type("TrainingInputBatch", (TrainingInputBatch,), {})
    skyrl = ("skyrl.backends.skyrl_train.training_batch", "skyrl_train.training_batch")
    named = {
        name: type(f"_{item.__name__}", (item,), {}) if isinstance(item, type) else _own(item)
        for item, name in for_torch()
        if not name.startswith(("tensordict.", "torch."))
    }
    return named | {
        "torch.Size": lambda sizes=(): tuple(sizes),
        "torch.device": lambda *_: None,
        "_codecs.encode": lambda text, _="latin1": text.encode("latin1"),
        "collections.OrderedDict": lambda *items: dict(*items),
        **{f"{module}.TrainingInputBatch": batch for module in skyrl},
        **{f"{module}.TensorFormat": str for module in skyrl},  # since 0.4.0, an enum of texts
        **{f"{module}.TensorBatch": batch for module in skyrl},
        **{f"{module}._rebuild_tensor_batch": lambda _, state: _skyrl(state) for module in skyrl},
        # Tensors that old files have a second time: what they are made of is thrown away.
        "torch.storage._load_from_bytes": lambda _: None,
        "torch._utils._rebuild_tensor_v2": lambda *_: None,
    }


def _own(function: Any) -> Any:
    return lambda *arguments: function(*arguments)


def resolved(value: Any, depth: int = 4, done: dict[int, Any] | None = None) -> Any:
    """The loaded object with plain ones in place of stand-ins, as deep as captures nest.

    What is in it a thousand times is made once. `done` holds what it was made of, too: an object
    that is gone would leave its id to another.
    """
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, Held | TrainingInputBatch | pickled_numpy.Array):
        made = resolved(value.value, depth, done)
    elif depth and isinstance(value, dict):
        made = {key: resolved(item, depth - 1, done) for key, item in value.items()}
    elif depth and isinstance(value, list | tuple):
        made = [resolved(item, depth - 1, done) for item in value]
    else:
        return value
    done[id(value)] = (value, made)
    return made


def _made(_: Any, state: Any) -> Any:
    """A TensorDict as the dict of its tensors."""
    return dict(state["_tensordict"])


def _unpacked(meta: Any, storage: Any) -> dict[str, Any]:
    """A consolidated TensorDict: each leaf is a range of bytes of one storage."""
    leaves = meta["leaves"]
    found = {}
    for name, (dtype, shape, start, stop, _) in leaves.items():
        if not 0 <= start <= stop <= len(storage):
            raise UnpicklingError(f"{name} is bytes {start} to {stop} of {len(storage)}")
        found[name] = storage[start:stop].view(_dtype(dtype)).reshape(tuple(shape))
    return found


def _dtype(name: Any) -> Any:
    import torch

    short = str(name).removeprefix("torch.")
    if short not in DTYPES:
        raise UnpicklingError(f"a tensor of dtype {name!r}")
    return getattr(torch, short)


def _of_triple(name: str, triple: Any) -> Any:
    """`(dtype, shape, bytes as uint8 array)`, as verl writes with its numpy method."""
    if not isinstance(triple, tuple) or len(triple) != 3:
        raise UnpicklingError(f"{name} is not a dtype, a shape and an array")
    dtype, shape, array = triple
    plain = resolved(array)
    return _tensor(plain.tobytes(), dtype, shape)


def _tensor(data: bytes, dtype: Any, shape: Any) -> Any:
    import torch

    if not data:
        if 0 not in tuple(shape):
            raise UnpicklingError(f"a tensor of shape {tuple(shape)} without any bytes")
        return torch.empty(tuple(shape), dtype=_dtype(dtype))
    return torch.frombuffer(bytearray(data), dtype=_dtype(dtype)).reshape(tuple(shape))


def _inner(data: bytes) -> Any:
    """A torch.save inside another file."""
    import torch

    if data.startswith(ZIP):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_members(archive.infolist(), len(data))
    with only_these():
        return resolved(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))


def _skyrl(state: Any) -> dict[str, Any]:
    """SkyRL's state as a dict of tensors, lists and what it says about itself."""
    if not isinstance(state, dict) or not isinstance(state.get("batch_dict"), dict):
        raise UnpicklingError("a batch without its batch_dict")
    fields = {name: _skyrl_field(value) for name, value in state["batch_dict"].items()}
    return {**fields, "meta_info": state.get("metadata")}


def _skyrl_field(value: Any) -> Any:
    """A tensor as SkyRL packs it; None for what it packs otherwise."""
    if isinstance(value, bytes):
        return _inner(value) if value else None
    if not isinstance(value, Mapping):
        return None
    match value.get("format"):
        case "numpy":
            return _tensor(value["data"], value["dtype"], value["shape"])
        case "numpy_view":
            return resolved(value["data"])
        case "packed_tensor":
            values, offsets = (_skyrl_field(value[name]) for name in ("values", "cu_seqlens"))
            return None if values is None else _rows(values, offsets, None)
        case "torch":
            return _inner(value["data"])
    return None
