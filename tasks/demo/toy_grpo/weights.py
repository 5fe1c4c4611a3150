"""A batch as a token table, and a correction's coefficients of its tokens, by the SQL of timtrack.

One rule: the trainer has no formula of its own. What `tim whatif` computes is what it trains with.
"""

from collections.abc import Mapping

import polars as pl
import torch
from torch import Tensor

from timtrack.tasks.demo.toy_grpo.scoring import Batch
from timtrack.tasks.tables import corrections
from timtrack.tasks.tables.catalogue import tables_named
from timtrack.tasks.tables.compute import ADVISED_BY, tables_of_frames, token_coefficients
from timtrack.tasks.tables.corrections import Setting
from timtrack.tasks.verdicts.advice import advise

Frames = Mapping[str, pl.DataFrame]
KEY = {"run": pl.lit("toy"), "step": pl.lit(1), "capture": pl.lit("")}


def frames_of(batch: Batch, train: Tensor) -> Frames:
    """The batch's tokens and sequences, the trainer's log-probs being `train` [N, R]."""
    mask = batch.rollout.mask.bool()
    row, pos = mask.nonzero(as_tuple=True)
    tokens = {
        "row": row.numpy(),
        "pos": pos.numpy(),
        "token_id": batch.rollout.responses[mask].numpy(),
        "logp_rollout": batch.rollout.log_probs[mask].numpy(),
        "logp_train": train[mask].numpy(),
        "advantage": batch.advantages[row].numpy(),
    }
    lengths = mask.sum(1)
    sequences = {
        "row": range(len(mask)),
        "prompt_tokens": batch.prompt_real.sum(1).numpy(),
        "response_tokens": lengths.numpy(),
        "trained_tokens": lengths.numpy(),
        "reward": batch.rewards.numpy(),
    }
    uid = pl.col("row").replace_strict(dict(enumerate(batch.uid)), return_dtype=pl.String)
    trained = pl.lit(True)
    return {
        "tokens_file": pl.DataFrame(tokens).with_columns(uid=uid, is_trained=trained, **KEY),
        "sequences": pl.DataFrame(sequences).with_columns(uid=uid, turns=1, **KEY),
    }


def coefficients_of(frames: Frames, setting: Setting, like: Tensor) -> Tensor:
    """What each token's part of the loss is multiplied by, `like` [N, R]; 0 outside the mask."""
    frame = token_coefficients(frames, setting)
    weights = torch.zeros_like(like)
    row, pos, coefficient = (torch.tensor(frame[name].to_numpy()) for name in frame.columns)
    weights[row.long(), pos.long()] = coefficient.to(like.dtype)
    return weights


def recommended(frames: Frames) -> Setting | None:
    """What timtrack advises for this batch; None where nothing is needed or nothing is usable."""
    name = advise(tables_of_frames(frames, tables_named(" ".join(ADVISED_BY)))).setting
    return corrections.defaults()[name] if name and name != "none" else None
