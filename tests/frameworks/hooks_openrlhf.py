"""OpenRLHF's own trainer step with the hook in it, from the written file.

    python tests/frameworks/hooks_openrlhf.py OUT/openrlhf

`train_step` runs as it is: micro-batches, the actor's forward on two ranks, rewards, advantages,
the share-out. In the place of Ray's actors stand objects that answer with the log-probs of
rollouts.py. Once with micro-batches of two rows in order, once packed by length.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openrlhf_parts
import torch
import truth
from rollouts import GAPS, Rollout, rollouts

OUT = truth.switched_on(Path(sys.argv[1]))
openrlhf_parts.stand_ins()
import ray  # noqa: E402
import timtrack_hook  # noqa: E402, F401

ray.put = ray.get = lambda held: held

from openrlhf.trainer.ppo_trainer import BasePPOTrainer  # noqa: E402
from openrlhf.trainer.ray.launcher import RayActorGroup  # noqa: E402

STEPS, RANKS, PADDING = 2, 2, 0
OF_THE_PROMPT = -1.5
RUNS = {"in-order": False, "packed": True}
GIVEN = {(*one.prompt, *one.response): one for gap in GAPS for one in rollouts(gap)}


class Actor:
    """A rank of the actor: scores its micro-batches, and keeps what it is to train on."""

    def __init__(self, rank: int) -> None:
        self.rank, self.given = rank, []
        self.execute_batch = SimpleNamespace(remote=self.run)

    def run(self, method: str, held: dict[str, list[Any]], start: int, end: int) -> list[Any]:
        if method == "append":
            self.given += held["experience"][start:end]
            return []
        for ids in held["sequences"][start:end]:
            SCORED_BY.update({key_of(row): self.rank for row in ids})
        return [torch.stack([scored(row) for row in ids]) for ids in held["sequences"][start:end]]


SCORED_BY: dict[tuple[int, ...], int] = {}


def key_of(ids: torch.Tensor) -> tuple[int, ...]:
    """A padded row without its padding; no rollout has the id 0."""
    return tuple(one for one in ids.tolist() if one != PADDING)


def scored(ids: torch.Tensor) -> torch.Tensor:
    """Log-probs `[T - 1]` of every token but the first, the prompt's too."""
    one = GIVEN[key_of(ids)]
    values = [*[OF_THE_PROMPT] * (len(one.prompt) - 1), *one.logp_train]
    return torch.tensor([*values, *[0.0] * (len(ids) - 1 - len(values))])


def options(run: str, packed: bool) -> SimpleNamespace:
    """What of OpenRLHF's command line is asked for on the way."""

    def of(**named: Any) -> SimpleNamespace:
        return SimpleNamespace(**named)

    return of(
        algo=of(
            kl=of(target=None, init_coef=0.0, use_loss=False, estimator="k1"),
            advantage=of(estimator="group_norm", gamma=1.0, lambd=1.0, no_std_norm=False),
        ),
        train=of(dynamic_batch_enable=packed, colocate_all=False, colocate_actor_ref=False),
        actor=of(num_nodes=1, num_gpus_per_node=RANKS),
        ds=of(ring_attn_size=1, tensor_parallel_size=1, enable_sleep=False),
        rollout=of(
            n_samples_per_prompt=2,
            micro_batch_size=2,
            max_tokens_per_gpu=32,
            batch_size=4,
            temperature=0.9,
            top_p=0.95,
        ),
        reward=of(clip_range=(-10, 10), overlong_buffer_len=None, stop_properly_penalty_coef=None),
        critic=of(freezing_steps=-1),
        logger=of(wandb=of(key=None, run_name=run), tensorboard_dir=None),
        ckpt=of(best_metric_key=""),
    )


def trainer(run: str, packed: bool) -> BasePPOTrainer:
    """OpenRLHF's, with two ranks of an actor and no critic."""
    group = object.__new__(RayActorGroup)
    group._actor_handlers = [Actor(rank) for rank in range(RANKS)]
    group.duplicate_actors = 1
    group.async_run_method = lambda method_name, **_: [{}]
    tokenizer = SimpleNamespace(pad_token_id=PADDING, decode=lambda ids, **_: ["text"])
    strategy = SimpleNamespace(args=options(run, packed))
    return BasePPOTrainer(strategy, group, None, None, None, None, tokenizer)


def rows_of(group: RayActorGroup, given: list[Rollout]) -> dict[int, truth.Row]:
    """What the actor's ranks were given to train on, by the samples' order."""
    found = {}
    for actor in group._actor_handlers:
        for held in actor.given:
            for row, ids in enumerate(held.sequences):
                number = [[*one.prompt, *one.response] for one in given].index(list(key_of(ids)))
                found[number] = row_of(held, row, number, given[number])
        actor.given = []
    return found


def row_of(held: Any, row: int, number: int, one: Rollout) -> truth.Row:
    """A row from its first action on; one without any has no response."""
    mask = held.action_mask[row].bool().tolist()
    start = mask.index(True) if any(mask) else len(one.prompt) + len(one.response) - 1
    span = slice(start, len(one.prompt) + len(one.response) - 1)
    fields = (held.rollout_log_probs, held.action_log_probs, held.advantages)
    facts = {
        "uid": one.uid,
        "rank": SCORED_BY[key_of(held.sequences[row])],
        "reward": one.reward,
        "finish_reason": "length" if number == 1 else "stop",
        "temperature": 0.9,
        "top_p": 0.95,
    }
    ids = held.sequences[row, 1:][span].tolist()
    return truth.row(ids, mask[span], *(f[row, span].tolist() for f in fields), **facts)


def main() -> None:
    """Both runs."""
    told = {}
    for run, packed in RUNS.items():
        made = trainer(run, packed)
        for step in range(STEPS):
            given = rollouts(GAPS[step])
            samples = [
                openrlhf_parts.sampled(one, truncated=row == 1) for row, one in enumerate(given)
            ]
            made.train_step(samples, step)
            rows = rows_of(made.actor_model_group, given)
            told[f"{run}/step_{step + 1}/step_batch.pt"] = rows
    truth.write(OUT, told)


if __name__ == "__main__":
    main()
