"""verl's own training loop with the hook in it, from the written file.

    python tests/frameworks/hooks_verl.py OUT/verl

`RayPPOTrainer.fit` runs as it is on verl's own configuration: sampling, balancing over two ranks,
the recomputation, rejection, advantages, the update. In the place of the workers stand an engine
that hands over the rollouts of rollouts.py and an actor that answers with their log-probs.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import truth
from padding import left_padded, right_padded
from rollouts import GAPS, Rollout, rollouts
from verl_parts import RANKS, RUNS, configuration, stand_ins, whole_sequence

OUT = truth.switched_on(Path(sys.argv[1]))
stand_ins()
import timtrack_hook  # noqa: E402, F401
from verl import DataProto  # noqa: E402
from verl.single_controller.base.decorator import _split_args_kwargs_data_proto  # noqa: E402
from verl.trainer.ppo.ray_trainer import RayPPOTrainer  # noqa: E402
from verl.utils import tensordict_utils as tu  # noqa: E402

STEPS = 2


class Engine:
    """Rollouts of rollouts.py for whatever is asked, with the facts that verl's servers add."""

    def __init__(self) -> None:
        self.step = 0

    def generate_sequences(self, asked: DataProto) -> DataProto:
        given = rollouts(GAPS[self.step % len(GAPS)])
        assert len(asked) == len(given)
        self.step += 1
        prompts, prompt_real = (left_padded(rows) for rows in both([r.prompt for r in given]))
        ids, real = (right_padded(rows) for rows in both([r.response for r in given]))
        attention = torch.cat([prompt_real, real], dim=1)
        scores = torch.zeros(ids.shape)
        scores[range(len(given)), real.sum(dim=1) - 1] = torch.tensor([r.reward for r in given])
        return DataProto.from_dict(
            tensors={
                "prompts": prompts,
                "responses": ids,
                "input_ids": torch.cat([prompts, ids], dim=1),
                "attention_mask": attention,
                "position_ids": (attention.cumsum(dim=1) - 1).clamp(min=0),
                "response_mask": right_padded([r.mask for r in given]),
                "rollout_log_probs": right_padded([r.logp_rollout for r in given], torch.float32),
                "rm_scores": scores,
            },
            non_tensors={
                "multi_modal_inputs": objects([{}] * len(given)),
                "min_global_steps": objects([self.step - 1] * len(given)),
                "max_global_steps": objects([self.step - 1] * len(given)),
                "num_cached_tokens": objects(list(range(len(given)))),
            },
            meta_info={"timing": {}},
        )


class Workers:
    """Two ranks that score their parts of a batch; each remembers what it was given."""

    _dispatch_info: dict[str, list[int]] = {"actor": [0, 0, 1, 1]}  # noqa: RUF012

    def __init__(self) -> None:
        self.masks: list[torch.Tensor] = []
        self.updated: list[list[truth.Row]] = []

    def compute_log_prob(self, batch: Any) -> Any:
        parts, _ = _split_args_kwargs_data_proto(RANKS, batch)
        self.scored_by = [rank for rank, part in enumerate(parts[0]) for _ in range(len(part))]
        self.masks.append(batch["response_mask"].clone())
        of_rows = [found(batch, row) for row in range(len(batch))]
        scored = [whole_sequence(len(one.prompt), one.response) for one in of_rows]
        log_probs = torch.nested.as_nested_tensor(scored, layout=torch.jagged)
        fields = {"log_probs": log_probs, "entropy": log_probs.clone()}
        return tu.get_tensordict(fields, non_tensor_dict={"metrics": {"mfu": 0.1}})

    def update_actor(self, batch: Any) -> Any:
        own = self.masks[-1] if self.masks else batch["response_mask"]
        self.updated.append([self.row_of(batch, own, row) for row in range(len(batch))])
        return tu.get_tensordict({}, non_tensor_dict={"metrics": {"mfu": 0.1, "grad_norm": 1.0}})

    def row_of(self, batch: Any, mask: torch.Tensor, row: int) -> truth.Row:
        one = found(batch, row)
        length = len(one.response)
        names = ("rollout_log_probs", "old_log_probs", "advantages")
        numbers = (batch[name][row, :length].tolist() for name in names)
        ids = batch["responses"][row, :length].tolist()
        facts = {
            "uid": tu.get(batch, "uid")[row],
            "rank": self.scored_by[row] if self.masks else row // (len(batch) // RANKS),
            "reward": one.reward,
            "cached_tokens": tu.get(batch, "num_cached_tokens")[row],
            "policy_version_min": tu.get(batch, "min_global_steps")[row],
            "temperature": 1.0,
            "top_k": -1,
        }
        return truth.row(ids, mask[row, :length].tolist(), *numbers, **facts)


def both(rows: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Rows, and ones in their place."""
    return rows, [[1] * len(row) for row in rows]


def objects(items: list[Any]) -> Any:
    """As verl holds what is no tensor."""
    made = np.empty(len(items), dtype=object)
    made[:] = items
    return made


def found(batch: Any, row: int) -> Rollout:
    """The rollout that a row is, whatever its place."""
    ids = batch["responses"][row].tolist()
    every = [one for gap in GAPS for one in rollouts(gap)]
    return next(one for one in every if ids[: len(one.response)] == one.response)


def trainer(run: str, correction: dict[str, Any]) -> RayPPOTrainer:
    """verl's trainer on its own configuration, before its workers are made."""
    made = object.__new__(RayPPOTrainer)
    made.config = configuration(run, correction)
    made.use_critic = made.use_rm = made.use_reference_policy = False
    made.train_dataset, made.train_dataloader = [], [prompts() for _ in range(STEPS)]
    made.total_training_steps = STEPS
    made.actor_rollout_wg, made.async_rollout_manager = Workers(), Engine()
    made.checkpoint_manager = SimpleNamespace(
        update_weights=lambda *_: None, sleep_replicas=lambda: None
    )
    made.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: 1)
    made._load_checkpoint = lambda: None
    made._init_dump_executor()
    return made


def prompts() -> dict[str, Any]:
    """What the data loader gives: as many prompts as rollouts.py has groups."""
    count = len(rollouts(GAPS[0])) // 2
    return {"dummy": torch.zeros(count, 1), "raw_prompt": objects(["?"] * count)}


def main() -> None:
    """All runs."""
    told = {}
    for run, correction in RUNS.items():
        made = trainer(run, correction)
        made.fit()
        for number, rows in enumerate(made.actor_rollout_wg.updated):
            told[f"{run}/step_{number + 1}/step_batch.pt"] = rows
    truth.write(OUT, told)


if __name__ == "__main__":
    main()
