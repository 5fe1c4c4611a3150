"""SkyRL's own trainer's steps with the hook in them, from the written file.

    python tests/frameworks/hooks_skyrl.py OUT/skyrl

The methods of `RayPPOTrainer` that its loop calls run as they are, with the generator's answer and
the forward's of of_skyrl.py: alone, with rows that fill up three ranks, with sampling support.
"""

import sys
from pathlib import Path
from typing import Any

import truth

OUT = truth.switched_on(Path(sys.argv[1]))
import timtrack_hook  # noqa: E402, F401
from of_skyrl import generated, trainer  # noqa: E402
from rollouts import GAPS, Rollout, rollouts  # noqa: E402

STEP = 3
RUNS = {"alone": (1, False), "three-ranks": (3, False), "replayed": (1, True)}


def trained(run: str, ranks: int, replayed: bool) -> list[truth.Row]:
    """A step up to the update; what its batch holds."""
    given = rollouts(GAPS[0])
    made = trainer(OUT, given)
    made.dispatch.get_lcm_dp_size = lambda: ranks
    made.cfg.trainer.run_name = run
    made.cfg.generator.sampling_params.temperature = 0.9
    made.cfg.generator.sampling_params.top_k = 4
    output = generated(given, replayed)
    output["stop_reasons"] = [ending(row) for row in range(len(given))]
    batch = made.convert_to_training_input(output, [one.uid for one in given])
    # The forward answers with the rollouts' log-probs, and for what fills up with the first one's.
    answers = made.dispatch.forward_from_staged().loss_fn_outputs
    answers += [answers[0]] * (len(batch["sequences"]) - len(answers))
    batch = made.fwd_logprobs_values_reward(batch)
    batch = made.compute_advantages_and_returns(batch)
    support = output.get("rollout_sample_support")
    return [
        row_of(batch, row, one, None if support is None else support[row])
        for row, one in enumerate(given)
    ]


def ending(row: int) -> str:
    return "length" if row == 1 else "stop"


def row_of(batch: Any, row: int, one: Rollout, support: Any) -> truth.Row:
    """SkyRL aligns responses on the right."""
    length = len(one.response)
    names = ("rollout_logprobs", "action_log_probs", "advantages")
    ids = batch["sequences"][row, -length:].tolist()
    mask = batch["loss_mask"][row, -length:].tolist()
    facts = {"reward": one.reward, "finish_reason": ending(row), "temperature": 0.9, "top_k": 4}
    numbers = [batch[name][row, -length:].tolist() for name in names]
    made = truth.row(ids, mask, *numbers, uid=one.uid, **facts)
    if support is not None:
        made["kept"] = [float((ids >= 0).sum()) for ids in support]
    return made


def main() -> None:
    """All runs."""
    told = {
        f"{run}/step_{STEP}/step_batch.pt": trained(run, *options) for run, options in RUNS.items()
    }
    truth.write(OUT, told)


if __name__ == "__main__":
    main()
