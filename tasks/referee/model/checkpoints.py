"""Other weights of the same model: earlier checkpoints, and adapters.

One rule: a tensor is read when it is asked for, so that no second model is in memory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from timtrack.tasks.referee.model.loading import BadModel, Reference, load

ADAPTER = "base_model.model."  # what peft puts before a name


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a checkpoint by the names that the model has for them."""

    folder: Path
    files: Mapping[str, Path]  # by tensor
    loaded: Any = None  # the model itself, where its names are not those of the files
    tied: str | None = None  # the embeddings, for an output layer that shares them

    @property
    def name(self) -> str:
        """The folder as people know it: `global_step_40/actor` rather than `huggingface`."""
        return "/".join(self.folder.absolute().parts[-2:])

    def tensor(self, name: str) -> torch.Tensor | None:
        """A parameter's value there; None where it has none of that name."""
        if self.loaded is not None:
            found: torch.Tensor | None = self.loaded.state_dict().get(name)
            return found
        if name not in self.files and name.endswith("lm_head.weight") and self.tied:
            name = self.tied
        return _read(self.files[name], name) if name in self.files else None


def _read(file: Path, name: str) -> torch.Tensor:
    with safe_open(file, "pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name)
    return tensor


def _names(folder: Path) -> dict[str, Path]:
    """The file of each tensor below a folder; raises BadModel."""
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as opened:
                found |= dict.fromkeys(opened.keys(), file)
        except (OSError, SafetensorError) as error:
            raise BadModel(f"{file}: not a safetensors file: {error}") from error
    if not found:
        raise BadModel(f"{folder} has no *.safetensors; --previous and --adapter need them")
    return found


def opened(folder: Path, reference: Reference) -> Checkpoint:
    """A checkpoint of the same architecture; raises BadModel where it is of another."""
    files = _names(folder)
    embeddings = reference.model.get_input_embeddings()  # type: ignore[operator]
    tied = next(f"{n}.weight" for n, m in reference.model.named_modules() if m is embeddings)
    found = Checkpoint(folder, files, tied=tied)
    own = dict(reference.model.named_parameters())
    if missing := own.keys() - files.keys() - {"lm_head.weight"}:
        if len(missing) == len(own):
            raise BadModel(f"{folder} has none of the model's {len(own)} tensors")
        return Checkpoint(folder, {}, load(folder, str(reference.device)).model)
    for name, value in own.items():
        with safe_open(files.get(name, files[tied]), "pt") as file:
            shape = list(file.get_slice(name if name in files else tied).get_shape())
        if shape != list(value.shape):
            raise BadModel(f"{folder}: {name} is {shape}, the model's is {list(value.shape)}")
    return found


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter as peft saves it: what it adds to weights."""

    folder: Path
    files: Mapping[str, Path]
    scale: float
    rank: int

    def delta(self, name: str) -> torch.Tensor | None:
        """What it adds to the parameter of this name [out, in]; None where it adds nothing."""
        stem = ADAPTER + name.removesuffix(".weight")
        parts = [f"{stem}.lora_{part}.weight" for part in "AB"]
        if not all(part in self.files for part in parts):
            return None
        a, b = (_read(self.files[part], part).float() for part in parts)
        return self.scale * (b @ a)


def adapter(folder: Path) -> Adapter:
    """The adapter in a folder: `adapter_config.json` and `adapter_model.safetensors`."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError) as error:
        raise BadModel(f"{folder} has no adapter_config.json with r and lora_alpha") from error
    scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    return Adapter(folder, _names(folder), scale, rank)


def merge(reference: Reference, adapter: Adapter) -> None:
    """Add an adapter to the reference's weights; raises BadModel if it fits none of them."""
    changed = 0
    for name, parameter in reference.model.named_parameters():
        if (delta := adapter.delta(name)) is not None:
            parameter.data += delta.to(parameter.dtype).to(parameter.device)
            changed += 1
    if not changed:
        raise BadModel(f"{adapter.folder}: none of its tensors is for a weight of the model")
