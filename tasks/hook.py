"""The writer for trainers: one call leaves a capture that timtrack reads. Needs torch only.

One rule: a capture appears whole or not at all, and the same content gives the same bytes.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch


def save_step_batch(
    folder: Path,
    step: int,
    batch: Mapping[str, Any],
    rank: int | None = None,
    world_size: int | None = None,
) -> Path:
    """Write `folder/step_<step>/step_batch.pt` atomically and return its path.

    Where each data-parallel rank holds its own rows, each calls this with its `rank`, and the files
    `step_batch.rank_<rank>.pt` are one capture, whole when there are `world_size` of them.

    `batch` maps names as verl uses them to what the trainer has: token fields as padded `[B, R]`
    tensors or lists of B 1-D tensors (`responses`, `response_mask`, `rollout_log_probs`,
    `old_log_probs`, further `<view>_log_probs`, `advantages`), `prompts`, `uid` as strings,
    rewards, and single numbers and strings. Tensors are copied to the CPU, views are cut out.
    """
    name = "step_batch.pt" if rank is None else f"step_batch.rank_{rank}.pt"
    target = folder / f"step_{step}" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{name}.{os.getpid()}")
    said = {"global_step": step, "rank": rank, "world_size": world_size}
    try:
        # An open file, not its name: torch.save would write the temporary name into the archive.
        with aside.open("wb") as file:
            told = {name: value for name, value in said.items() if value is not None}
            torch.save({**told, **{k: _plain(v) for k, v in batch.items()}}, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def _plain(value: Any) -> Any:
    """Tensors detached, on the CPU and with a storage of their own, inside lists and dicts too."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy arrays and numbers, object arrays of uids among them
        return value.tolist()
    return value


def when_imported(name: str, patch: Callable[[ModuleType], None]) -> None:
    """Call `patch(module)` as soon as the module `name` is imported, or now if it is.

    For hooks that are loaded while the trainer's package is itself half imported.
    """
    if name in sys.modules:
        patch(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Waiting(name, patch))


class _Waiting(MetaPathFinder):
    """Steps in when one module is looked up, once, and lets the real finders load it."""

    def __init__(self, name: str, patch: Callable[[ModuleType], None]) -> None:
        self.name, self.patch = name, patch

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_patch(module: ModuleType) -> None:
            load(module)
            self.patch(module)

        spec.loader.exec_module = load_and_patch  # type: ignore[method-assign]
        return spec
