"""Seconds and memory of frameworks' own metrics: `python peers.py CAPTURE` prints them as JSON.

Runs in the frameworks' environment (`make test-frameworks` makes it), on one capture in the tensors
that it came in, without a GPU. What a framework does for its log is timed, reading the file is not.
"""

import json
import sys
import time
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "frameworks"))

import stubs
import torch
import typing_extensions
from stopwatch import Stopwatch

stubs.stand_in_for("ray", "aiohttp", "pybase64", "torchdata", "skyrl_gym", "cloudpathlib")
typing.TypedDict = typing_extensions.TypedDict  # as tests/frameworks/of_skyrl.py says

Batch = Mapping[str, Any]
Metrics = Callable[[], int]  # computes them, and returns how many there are


def verl(batch: Batch) -> Metrics:
    """Its debug metrics, and its rollout correction with importance sampling by token."""
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
    from verl.utils.debug.metrics import calculate_debug_metrics

    names = ("responses", "attention_mask", "response_mask", "rollout_log_probs", "old_log_probs")
    proto = DataProto.from_dict(tensors={name: batch[name] for name in names})
    options = OmegaConf.create({"rollout_is": "token", "rollout_is_threshold": 2.0})

    def metrics() -> int:
        debug = calculate_debug_metrics(proto)
        return len(debug) + len(compute_rollout_correction_and_add_to_batch(proto, options)[1])

    return metrics


def skyrl(batch: Batch) -> Metrics:
    """The metrics of a mini batch and of its off-policy correction by token."""
    import ray

    ray.is_initialized = lambda: False  # so that losses are registered in this process
    from skyrl.backends.skyrl_train.utils.off_policy_correction_utils import (
        compute_off_policy_correction,
    )
    from skyrl.backends.skyrl_train.workers.worker_utils import (
        compute_minibatch_rollout_logprob_diff_metrics,
    )
    from skyrl.train.config.config import OffPolicyCorrectionConfig

    train, rollout = batch["old_log_probs"], batch["rollout_log_probs"]
    mask = batch["response_mask"].float()
    options = OffPolicyCorrectionConfig(tis_ratio_type="token", token_tis_ratio_clip_high=2.0)

    def metrics() -> int:
        logged = compute_minibatch_rollout_logprob_diff_metrics(train, rollout, mask)
        corrected = compute_off_policy_correction(
            old_log_probs=train,
            rollout_logprobs=rollout,
            loss_mask=mask,
            off_policy_correction=options,
        )
        return len(logged) + len(corrected[1])

    return metrics


PEERS = {"verl": verl, "skyrl": skyrl}


def main(capture: str) -> None:
    batch = torch.load(capture, weights_only=True, mmap=True)
    watch, measured = Stopwatch(), {}
    watch.begin()
    for name, peer in PEERS.items():
        metrics = peer(batch)
        metrics()  # pages of the file, and what torch sets up
        with watch.stage(name):
            began = time.perf_counter()
            count = metrics()
            seconds = time.perf_counter() - began
        measured[name] = {"numbers": count, "seconds": seconds, "peak": watch.peaks[name]}
    print(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1])
