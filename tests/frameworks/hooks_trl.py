"""TRL's own training with the hook in it, from the written file.

    python tests/frameworks/hooks_trl.py OUT/trl

`GRPOTrainer.train` runs on the CPU with the model and the engine of of_trl.py, evaluation between
the steps: once with one generation a step, once with two.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import truth

OUT = truth.switched_on(Path(sys.argv[1]))
import timtrack_hook  # noqa: E402, F401
from datasets import Dataset  # noqa: E402
from of_trl import engine, model, prompts_of, tokenizer  # noqa: E402
from rollouts import GAPS, rollouts  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

GIVEN = rollouts(GAPS[0])
STEPS = 2
# Gradient accumulation by run: two micro-batches are a generation of eight completions.
RUNS = {"one-generation": 2, "two-generations": 4}
TEMPERATURE = 0.9


class Recording(GRPOTrainer):
    """Remembers what its training is given; evaluation is not training."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        if self.model.training:
            self.seen.append((self.state.global_step, batch))
        return batch


def trained(run: str, accumulation: int) -> Recording:
    """A trainer after its steps."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Recording(
            model=model(),
            reward_funcs=lambda prompts, **_: [one.reward for one in GIVEN],
            args=GRPOConfig(
                output_dir=scratch,
                run_name=run,
                use_cpu=True,
                bf16=False,
                report_to="none",
                use_vllm=True,
                temperature=TEMPERATURE,
                per_device_train_batch_size=len(GIVEN) // 2,
                per_device_eval_batch_size=len(GIVEN),
                steps_per_generation=2,
                gradient_accumulation_steps=accumulation,
                num_generations=2,
                max_completion_length=16,
                max_steps=STEPS,
                eval_strategy="steps",
                eval_steps=1,
                save_strategy="no",
            ),
            train_dataset=Dataset.from_list(prompts_of(GIVEN)),
            eval_dataset=Dataset.from_list(prompts_of(GIVEN[:4])),
            processing_class=tokenizer(),
            rollout_func=engine(GAPS[0], unscored=False),
        )
        made.seen = []
        made.train()
    return made


def rows_of(batch: dict[str, Any], version: int) -> list[truth.Row]:
    """What TRL's loss counts, and what is known beside it."""
    rows = []
    for row, one in enumerate(GIVEN):
        length = int(batch["completion_mask"][row].sum())
        ids = batch["completion_ids"][row, :length].tolist()
        mask = (batch["completion_mask"] * batch["tool_mask"])[row, :length].tolist()
        names = ("sampling_per_token_logps", "old_per_token_logps")
        numbers = (batch[name][row, :length].tolist() for name in names)
        advantage = [float(batch["advantages"][row])] * length
        facts = {
            "reward": one.reward,
            "finish_reason": "stop" if ids[-1] in (0, 1) else "length",
            "policy_version_min": version,
            "temperature": TEMPERATURE,
        }
        rows.append(truth.row(ids, mask, *numbers, advantage, uid=one.uid, **facts))
    return rows


def main() -> None:
    """Both runs."""
    told = {}
    for run, accumulation in RUNS.items():
        made = trained(run, accumulation)
        a_step = accumulation // 2
        assert len(made.seen) == STEPS * a_step
        for number, (done, batch) in enumerate(made.seen):
            rows = rows_of(batch, done * a_step)
            told[f"{run}/step_{number + 1}/step_batch.pt"] = rows
    truth.write(OUT, told)


if __name__ == "__main__":
    main()
