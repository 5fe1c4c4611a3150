"""The run that this project started from: its 400 published tokens (published/) as a capture."""

import csv
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).parent / "published"
RUN, STEP = "qwen2.5-1.5b-gsm8k-codec", 20
META = {
    "run_name": RUN,
    "model": "Qwen2.5-1.5B-Instruct",
    "dataset": "GSM8K",
    "algorithm": "GRPO",
    "rollout_engine": "vLLM",
    "trainer": "FSDP, PowerSGD + signed_ema codec",
    "vocabulary_size": 151936,
    "source": "the first 50 tokens of 8 samples, as printed in the published report",
}


def write_capture(folder: Path) -> Path:
    """Write the published tokens as `folder/<run>/step_20/step_batch.pt`, log-probs as printed.

    With a tokenizer.json of the token ids that occur. 8 rows; responses are whole, the mask holds
    the 50 tokens of each whose log-probs are printed.
    """
    from timtrack.tasks.hook import write_step_batch

    (folder / RUN).mkdir(parents=True, exist_ok=True)
    shutil.copy(PUBLISHED / "tokenizer.json", folder / RUN)
    return write_step_batch(folder / RUN, STEP, batch())


def batch() -> dict[str, Any]:
    """The capture's fields: lists of 8 tensors `[L_i]`, L_i = 90 to 337."""
    import torch

    samples = json.loads((PUBLISHED / "seed_samples.json").read_text())

    def printed(sample: dict[str, Any], column: str) -> torch.Tensor:
        values = [float(t[column]) for t in tokens() if int(t["sample_row"]) == sample["row"]]
        return torch.tensor(values + [0.0] * sample["n_hidden"])

    return {
        "row_index": [sample["row"] for sample in samples],
        "uid": [sample["uid"] for sample in samples],
        "rewards": [sample["reward"] for sample in samples],
        "prompts": [torch.tensor(sample["derived_prompt_token_ids"]) for sample in samples],
        "responses": [torch.tensor(sample["derived_response_token_ids"]) for sample in samples],
        "response_mask": [(torch.arange(s["n_tokens"]) < s["n_shown"]).long() for s in samples],
        "rollout_log_probs": [printed(s, "logp_vllm") for s in samples],
        "old_log_probs": [printed(s, "logp_fsdp") for s in samples],
        "meta_info": META,
    }


@cache
def tokens() -> list[dict[str, str]]:
    """The 400 rows as printed."""
    with (PUBLISHED / "seed_tokens.csv").open(newline="") as file:
        return list(csv.DictReader(file))
