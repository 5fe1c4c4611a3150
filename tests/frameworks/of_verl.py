"""verl's own DataProto files, and what its rollout correction says of them.

python tests/frameworks/of_verl.py OUT/verl
"""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import expectations
import numpy as np
import settings
import stubs
import torch
from padding import left_padded, right_padded
from rollouts import GAPS, rollouts

stubs.stand_in_for("ray")  # verl.protocol imports it; nothing here is remote

from omegaconf import OmegaConf  # noqa: E402
from tensordict import NonTensorData, NonTensorStack, TensorDict  # noqa: E402
from verl import DataProto  # noqa: E402
from verl.trainer.ppo.core_algos import get_policy_loss_fn  # noqa: E402
from verl.trainer.ppo.rollout_corr_helper import (  # noqa: E402
    compute_rollout_correction_and_add_to_batch,
)
from verl.utils.debug.metrics import calculate_debug_metrics  # noqa: E402
from verl.workers.config import ActorConfig  # noqa: E402

PREFIXES = ("algorithm.rollout_correction.", "actor_rollout_ref.actor.", "policy_loss.")
STEP = 3
# An advantage of 0 has no gradient to read a coefficient from; this one takes the same branch.
NEARLY_ZERO = -1e-20


def _rs(option: str, threshold: str | float) -> dict[str, Any]:
    return {"rollout_rs": option, "rollout_rs_threshold": threshold}


def _is(level: str, threshold: str | float) -> dict[str, Any]:
    return {"rollout_is": level, "rollout_is_threshold": threshold}


# Losses that weigh tokens by themselves, in bypass mode: the old log-probs are the rollout's.
BOUNDS = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 3.0}
# What corrections.toml has no line for, under timtrack's name for it if there is one.
FURTHER: list[tuple[str | None, dict[str, Any]]] = [
    ("rs_seq_mean_k1_0.999_1.001", _rs("seq_mean_k1", "0.999_1.001")),
    ("rs_seq_mean_k1_0.1_10", _rs("seq_mean_k1", "0.1_10.0")),
    ("mis_seq_0.5_2", _is("sequence", "0.5_2.0")),
    # The preset decoupled_seq_is_rs.
    ("mis_seq_0.5_2", {**_is("sequence", 2.0), **_rs("seq_sum_k1", "0.5_2.0")}),
    (None, _rs("seq_sum_k1", "0.5_2.0")),
    (None, _rs("seq_sum_k2", 5.0)),
    (None, _rs("seq_sum_k3", 5.0)),
    (None, _rs("seq_mean_k2", 0.1)),
    (None, _rs("seq_max_k3", 2.5)),
    (None, _rs("token_k1,seq_max_k2", "0.5_2.0,2.5")),
    (None, {**_is("sequence", 2.0), "rollout_is_batch_normalize": True}),
    ("dppo_tv_capped_0.2_3", {"loss_mode": "dppo_tv", **BOUNDS}),
    ("dppo_kl_capped_0.2_3", {"loss_mode": "dppo_kl", **BOUNDS}),
    ("sapo_1_1.05", {"loss_mode": "sapo", "tau_pos": 1.0, "tau_neg": 1.05}),
]


def batch(gap: str) -> DataProto:
    """The rollouts as the trainer holds them before the actor's update."""
    given = rollouts(gap)
    prompts, prompt_real = (left_padded(rows) for rows in _both([one.prompt for one in given]))
    ids, real = (right_padded(rows) for rows in _both([one.response for one in given]))
    attention_mask = torch.cat([prompt_real, real], dim=1)
    mask = right_padded([one.mask for one in given])
    scores = torch.zeros(ids.shape)
    scores[range(len(given)), real.sum(dim=1) - 1] = torch.tensor([one.reward for one in given])
    advantages = torch.tensor([[one.advantage] for one in given]) * mask
    return DataProto.from_dict(
        tensors={
            "prompts": prompts,
            "responses": ids,
            "attention_mask": attention_mask,
            "response_mask": mask,
            "rollout_log_probs": right_padded([r.logp_rollout for r in given], torch.float32),
            "old_log_probs": right_padded([r.logp_train for r in given], torch.float32),
            "token_level_scores": scores,
            "advantages": advantages,
        },
        non_tensors={"uid": np.array([one.uid for one in given], dtype=object)},
        meta_info={"global_steps": STEP, "temperature": 1.0},
    )


def _both(rows: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    return rows, [[1] * len(row) for row in rows]


def save(gap: str, folder: Path) -> Iterator[str]:
    """Write a batch; the moderate one in every container that verl has, under a step's folder."""
    proto = batch(gap)
    here = folder / gap / f"step_{STEP}"
    here.mkdir(parents=True, exist_ok=True)
    proto.save_to_disk(here / "dataproto.dp")
    yield f"{gap}/step_{STEP}/dataproto.dp"
    if gap != GAPS[0]:
        return
    torch.save(proto, here / "dataproto.pt")
    os.environ["VERL_DATAPROTO_SERIALIZATION_METHOD"] = "numpy"
    proto.save_to_disk(here / "dataproto_numpy.dp")
    del os.environ["VERL_DATAPROTO_SERIALIZATION_METHOD"]
    torch.save(proto.batch, here / "tensordict.pt")
    torch.save(proto.batch.contiguous().consolidate(), here / "tensordict_consolidated.pt")
    torch.save(queued(proto), here / "tq_batch.pt")
    others = ["dataproto.pt", "dataproto_numpy.dp", "tensordict.pt", "tensordict_consolidated.pt"]
    yield from (f"{gap}/step_{STEP}/{name}" for name in [*others, "tq_batch.pt"])


def queued(proto: DataProto) -> dict[str, Any]:
    """What verl's V1 trainer writes of its queue: rows of their own lengths, no padding at all."""
    tensors = proto.batch
    width = tensors["prompts"].shape[1]
    real = tensors["attention_mask"].bool()
    rows = {
        name: [row[keep] for row, keep in zip(tensor, kept, strict=True)]
        for name, tensor in tensors.items()
        if name != "attention_mask"
        for kept in [real[:, :width] if name == "prompts" else real[:, width:]]
    }
    found = {
        name: torch.nested.as_nested_tensor(values, layout=torch.jagged)
        for name, values in rows.items()
    }
    uids = proto.non_tensor_batch["uid"].tolist()
    named = NonTensorStack(*[NonTensorData(uid) for uid in uids])
    return {
        "tensordict": TensorDict({**found, "uid": named}, batch_size=[len(uids)]),
        "tags": [{} for _ in uids],
        "keys": [f"{uid}_{row}" for row, uid in enumerate(uids)],
        "global_steps": STEP,
    }


def said_of(gap: str) -> dict[str, Any]:
    """All that verl logs of a batch, and every correction's weights."""
    always = corrected(gap, {})[1]
    debug = calculate_debug_metrics(in_float64(gap))
    told = {name: options_of(line) for name, line in settings.lines("verl")}
    wanted = [*told.items(), *(one for one in FURTHER if told.get(one[0]) != one[1])]
    return {
        "metrics": expectations.numbers({**always, **debug}),
        "corrections": [correction(gap, *one, set(always)) for one in wanted],
    }


def options_of(line: str) -> dict[str, Any]:
    """`algorithm.rollout_correction.rollout_is=token ...` as verl's config has it."""
    words = line.split()
    for prefix in PREFIXES:
        words = [word.removeprefix(prefix) for word in words]
    if other := [word for word in words if "." in word.partition("=")[0]]:
        raise ValueError(f"this module does not know {' '.join(other)}")
    return dict(OmegaConf.from_dotlist(words))


def in_float64(gap: str) -> DataProto:
    """The batch with its float32 numbers as float64: no difference below is one of rounding."""
    proto = batch(gap)
    for name, tensor in proto.batch.items():
        if tensor.dtype == torch.float32:
            proto.batch[name] = tensor.double()
    return proto


def corrected(gap: str, options: dict[str, Any]) -> tuple[DataProto, dict[str, Any]]:
    """The batch after verl's correction, and what it logs."""
    return compute_rollout_correction_and_add_to_batch(in_float64(gap), OmegaConf.create(options))


def correction(
    gap: str, setting: str | None, options: dict[str, Any], known: set[str]
) -> dict[str, Any]:
    """One option: a rejected token's coefficient is 0, without importance weights the others' 1."""
    if "loss_mode" in options:
        return by_loss(gap, setting, options)
    after, logged = corrected(gap, options)
    kept = after.batch["response_mask"].double()
    weights = after.batch.get("rollout_is_weights", torch.ones_like(kept))
    both = {"rollout_is", "rollout_rs"} <= options.keys()  # each is logged as it is alone
    own = {name: value for name, value in logged.items() if name not in known and not both}
    mask = batch(gap).batch["response_mask"]
    return expectations.correction(setting, options, mask, weights * kept, own)


def by_loss(gap: str, setting: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """What a loss multiplies each token's gradient by, read from the gradient."""
    fields = in_float64(gap).batch
    mask = fields["response_mask"]
    advantages = fields["advantages"].masked_fill(fields["advantages"] == 0, NEARLY_ZERO)
    log_prob = fields["old_log_probs"].clone().requires_grad_()
    told = {name: value for name, value in options.items() if name != "loss_mode"}
    value, _ = get_policy_loss_fn(options["loss_mode"])(
        old_log_prob=fields["rollout_log_probs"],
        log_prob=log_prob,
        advantages=advantages,
        response_mask=mask,
        loss_agg_mode="seq-mean-token-mean",
        config=ActorConfig(strategy="fsdp", rollout_n=2, ppo_micro_batch_size_per_gpu=1, **told),
    )
    value.backward()
    share = 1 / mask.sum(dim=1, keepdim=True).clamp(min=1) / mask.any(dim=1).sum()
    return expectations.correction(setting, options, mask, -log_prob.grad / advantages / share)


def main(folder: Path) -> None:
    """Write `folder`."""
    captures: dict[str, Any] = {}
    for gap in GAPS:
        first, *others = save(gap, folder)
        captures[first] = said_of(gap)
        captures |= {other: {"same_as": first} for other in others}
    expectations.write(folder, "verl", version("verl"), captures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
