"""verl's V1 trainer with the hook in it, from the written file.

    python tests/frameworks/hooks_verl_v1.py OUT/verl-v1

`PPOTrainer.step` runs as it is on verl's own configuration: padding and balancing over two ranks,
the recomputation, rejection, advantages, the update. A dict stands in for TransferQueue's servers,
and an actor that answers with the log-probs of rollouts.py for the workers.
"""

import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import truth
from rollouts import GAPS, Rollout, rollouts
from verl_parts import RANKS, RUNS, configuration, stand_ins, whole_sequence

OUT = truth.switched_on(Path(sys.argv[1]))
stand_ins()
import timtrack_hook  # noqa: E402, F401
import transfer_queue  # noqa: E402
from omegaconf import open_dict  # noqa: E402
from tensordict import TensorDict  # noqa: E402


@dataclass
class KVBatchMeta:
    """As TransferQueue's: keys and tags of a batch, whose fields are in the queue."""

    keys: list[str]
    tags: list[dict[str, Any]]
    partition_id: str = "train"
    fields: Any = None
    extra_info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def reorder(self, indices: list[int]) -> None:
        self.keys = [self.keys[i] for i in indices]
        self.tags = [self.tags[i] for i in indices]


HELD: dict[str, dict[str, Any]] = {}


def kv_batch_get(keys: list[str], partition_id: str, select_fields: Any = None) -> TensorDict:
    """The fields that all of these keys have, jagged where lengths differ."""
    known = set.intersection(*(set(HELD[key]) for key in keys))
    wanted = [name for name in select_fields or sorted(known) if name in known]
    return list_of_dict_to_tensordict([{n: HELD[key][n] for n in wanted} for key in keys])


def kv_batch_put(
    keys: list[str], partition_id: str, fields: TensorDict, tags: Any = None
) -> KVBatchMeta:
    """Add or replace fields."""
    for place, key in enumerate(keys):
        names = list(fields.keys())  # a TensorDict itself iterates over its rows
        HELD.setdefault(key, {}).update({name: fields[name][place] for name in names})
        TAGS[key] = tags[place] if tags else TAGS[key]
    return KVBatchMeta(keys, [TAGS[key] for key in keys], partition_id)


TAGS: dict[str, dict[str, Any]] = {}
transfer_queue.KVBatchMeta = KVBatchMeta
transfer_queue.kv_batch_get, transfer_queue.kv_batch_put = kv_batch_get, kv_batch_put

from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402
from verl.utils.tensordict_utils import list_of_dict_to_tensordict  # noqa: E402

UPDATES, STEPS = 2, 2  # updates between two transfers of weights


class Buffer:
    """The replay buffer: the rollouts of rollouts.py under keys of their own at each call."""

    def __init__(self) -> None:
        self.calls = itertools.count()

    def sample(self, global_steps: int, **_: Any) -> tuple[KVBatchMeta, dict[str, float]]:
        call = next(self.calls)
        given = rollouts(GAPS[call % len(GAPS)])
        keys = [f"{one.uid}.{call}_{row % 2}_0" for row, one in enumerate(given)]
        version = global_steps - 1
        tags = [tag(one, max(version - row % 2, 0), version) for row, one in enumerate(given)]
        fields = list_of_dict_to_tensordict([fields_of(one, call) for one in given])
        return kv_batch_put(keys, "train", fields, tags), {}


def tag(one: Rollout, oldest: int, newest: int) -> dict[str, Any]:
    """What verl notes of a trajectory beside its fields."""
    lengths = {"prompt_len": len(one.prompt), "response_len": len(one.response)}
    versions = {"min_global_steps": oldest, "max_global_steps": newest}
    return {**lengths, **versions, "seq_len": len(one.prompt) + len(one.response)}


def fields_of(one: Rollout, call: int) -> dict[str, Any]:
    """A trajectory as verl's agent loop puts it into the queue."""
    scores = torch.zeros(len(one.response))
    scores[-1] = one.reward
    whole = torch.tensor([*one.prompt, *one.response])
    return {
        "prompts": torch.tensor(one.prompt),
        "responses": torch.tensor(one.response),
        "response_mask": torch.tensor(one.mask),
        "loss_mask": torch.tensor(one.mask),
        "input_ids": whole,
        "position_ids": torch.arange(len(whole)),
        "rollout_log_probs": torch.tensor(one.logp_rollout),
        "rm_scores": scores,
        "uid": f"{one.uid}.{call}",
    }


class Workers:
    """Two ranks that score their parts of a batch; each remembers what it was given."""

    _dispatch_info: dict[str, list[int]] = {"actor": [0, 0, 1, 1]}  # noqa: RUF012

    def __init__(self) -> None:
        self.before_rejection: dict[str, Any] = {}
        self.updated: list[list[truth.Row]] = []

    def compute_log_prob(self, batch: KVBatchMeta) -> KVBatchMeta:
        self.before_rejection = {key: HELD[key]["response_mask"].tolist() for key in batch.keys}
        fields = [{"log_probs": scored(key), "entropy": -scored(key)} for key in batch.keys]
        return kv_batch_put(batch.keys, "train", list_of_dict_to_tensordict(fields))

    def update_actor(self, batch: KVBatchMeta) -> Any:
        share = len(batch) // RANKS
        self.updated.append(
            {
                row: self.row_of(key, batch.tags[row], row // share)
                for row, key in enumerate(batch.keys)
                if not batch.tags[row].get("is_padding")
            }
        )
        return tu.get_tensordict({}, non_tensor_dict={"metrics": {"mfu": 0.1, "grad_norm": 1.0}})

    def row_of(self, key: str, tags: dict[str, Any], rank: int) -> truth.Row:
        held = HELD[key]
        mask = self.before_rejection.get(key, held["response_mask"].tolist())
        numbers = (held[name].tolist() for name in ("rollout_log_probs", "old_log_probs"))
        facts = {
            "uid": held["uid"],
            "rank": rank,
            "reward": float(held["rm_scores"].sum()),
            "policy_version_min": tags["min_global_steps"] * UPDATES,
            "policy_version_max": tags["max_global_steps"] * UPDATES,
            "temperature": 1.0,
            "top_p": 1.0,
        }
        # Advantages come after rejection, later than the hook.
        return truth.row(held["responses"].tolist(), mask, *numbers, None, **facts)


def scored(key: str) -> torch.Tensor:
    """The actor's log-probs of a trajectory in the queue."""
    return whole_sequence(len(HELD[key]["prompts"]), HELD[key]["responses"].tolist())


def trainer(run: str, correction: dict[str, Any]) -> PPOTrainerSync:
    """verl's trainer on its own configuration, before its workers are made."""
    config = configuration(run, correction)
    with open_dict(config):
        config.data.train_batch_size = 2 * UPDATES
        config.actor_rollout_ref.actor.ppo_mini_batch_size = 6  # of 8 rows: 4 of padding
    made = object.__new__(PPOTrainerSync)
    made.config, made.use_critic, made.use_reference_policy = config, False, False
    made.parameter_sync_step, made.local_trigger_step, made.global_steps = UPDATES, 0, 1
    made.replay_buffer, made.actor_rollout_wg = Buffer(), Workers()
    made.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=["scored by the loop"])
    made.tokenizer, made.curr_step_profile = SimpleNamespace(eos_token_id=1), False
    made.checkpoint_manager = SimpleNamespace(sleep_replicas=lambda: None)
    made._add_batch_to_generate = lambda: None  # the buffer has rollouts enough
    made.distillation_config = None
    return made


def main() -> None:
    """All runs."""
    told = {}
    for run, correction in RUNS.items():
        HELD.clear()
        made = trainer(run, correction)
        for _ in range(STEPS):
            made.step({}, {})
            made.global_steps += 1
        for number, rows in enumerate(made.actor_rollout_wg.updated):
            told[f"{run}/step_{number + 1}/step_batch.pt"] = rows
    truth.write(OUT, told)


if __name__ == "__main__":
    main()
