"""What somebody else needs to run the referee on a rollout: a capture of it and its group."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from timtrack.tasks import hook
from timtrack.tasks.lake.steps import REFEREE_FILE, Step, referee_folder
from timtrack.tasks.referee.rollouts import Floats, NotRescorable, Rollout, read


def files(step: Step, row: int) -> dict[str, bytes]:
    """`step_batch.pt` with a row and its prompt's others, `referee.json` if it was asked.

    Raises NotRescorable where the row has no prompt ids.
    """
    there = read(step)
    mine = next((one for one in there if one.row == row), None)
    if mine is None:
        raise NotRescorable(f"{step.name}: row {row} has no prompt ids: no model can score it")
    group = [one for one in there if one.row == row or (one.uid and one.uid == mine.uid)]
    found = {"step_batch.pt": _capture(step, group)}
    if folder := referee_folder(step):
        found[REFEREE_FILE] = (folder / REFEREE_FILE).read_bytes()
    return found


def _capture(step: Step, group: Sequence[Rollout]) -> bytes:
    facts = step.facts()["meta"]
    kept = {name: facts[name] for name in ("model", "temperature") if name in facts}
    with tempfile.TemporaryDirectory(prefix="timtrack-") as folder:
        file = hook.write_step_batch(folder, step.step, {**_fields(group), **kept})
        return Path(file).read_bytes()


def _fields(group: Sequence[Rollout]) -> dict[str, object]:
    """Prompts padded on the left, responses on the right; no log-prob is outside the mask."""
    prompts = _padded([one.prompt[::-1] for one in group], torch.long).flip(1)
    seen = _padded([[1] * len(one.prompt) for one in group], torch.long).flip(1)
    scored = [np.isfinite(one.rollout) & np.isfinite(one.train) for one in group]
    real = _padded([[1] * len(one.response) for one in group], torch.long)
    return {
        "prompts": prompts,
        "responses": _padded([one.response for one in group], torch.long),
        "attention_mask": torch.cat([seen, real], 1),
        "response_mask": _padded([list(mask) for mask in scored], torch.long),
        "rollout_log_probs": _padded([np.nan_to_num(one.rollout) for one in group]),
        "old_log_probs": _padded([np.nan_to_num(one.train) for one in group]),
        "uid": [one.uid or f"row-{one.row}" for one in group],
    }


def _padded(
    rows: Sequence[Sequence[float] | Floats], kind: torch.dtype = torch.float32
) -> torch.Tensor:
    parts = [torch.tensor(np.asarray(row, dtype=np.float64)).to(kind) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
