"""Where frameworks leave the checkpoint of a step in Hugging Face form.

| framework | folder of step 20 |
| --- | --- |
| verl | `global_step_20/actor/huggingface`, with `hf_model` among what a checkpoint contains |
| TRL | `checkpoint-20` |
| NeMo RL | `step_20/policy/weights/model/...`, consolidated safetensors |
| slime, miles | `iter_0000020` or `20`: what `--save-hf` names |
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

STEP = re.compile(
    r"(?:global_step_|checkpoint-|step[_-]|iter_|rollout_)?0*(?P<step>\d+)(?:[_-]hf)?"
)
DEPTH = 4  # folders between a step's and its model


def checkpoint_of(root: Path, step: int) -> Path | None:
    """The model of a step below `root`, or below a run's folder there; None without one."""
    for folder in (root, *_folders(root)):
        for place in _folders(folder):
            match = STEP.fullmatch(place.name)
            if match and int(match["step"]) == step and (found := _model(place, DEPTH)):
                return found
    return None


def _model(folder: Path, depth: int) -> Path | None:
    """The first folder with `config.json` and safetensors, itself or below."""
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return folder
    if not depth:
        return None
    return next((found for one in _folders(folder) if (found := _model(one, depth - 1))), None)


def _folders(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:  # gone, or not to be read
        return
    yield from (folder / name for name in names)
