"""What TRL's GRPOTrainer makes of rollouts, as its hook sees it, and the weights it computes.

    python tests/frameworks/of_trl.py OUT/trl

A trainer on the CPU with a model made here; its `rollout_func` returns samples of that model with
log-probs that are off by the gaps of rollouts.py, in the place of vLLM.
"""

import ast
import math
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import expectations
import settings
import torch
from datasets import Dataset
from padding import right_padded
from rollouts import GAPS, Rollout, rollouts
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

STEP = 3
VOCABULARY = 256
SHARPNESS = 6.0  # standard deviation of the logits: samples about -1 nat, the rarest token -30
UNSCORED = ((0, 2),)  # a token that vLLM has no log-prob for
DEFAULT, CLIP_MAX = "sequence_mask", 3.0  # vllm_importance_sampling_mode, _clip_max
OPTIONS = {  # a line of corrections.toml names some; the others are as here
    "vllm_importance_sampling_mode": DEFAULT,
    "vllm_importance_sampling_clip_min": None,
    "vllm_importance_sampling_clip_max": None,
}


class NoVLLM:
    """In the place of the engine: weights are sent to nobody."""

    def __init__(self, **_: Any) -> None:
        pass

    def sync_weights(self) -> None:
        """Nothing to send."""


grpo_trainer.VLLMGeneration = NoVLLM


def model() -> LlamaForCausalLM:
    """A transformer of one layer, always the same."""
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=False,
        )
    )
    torch.nn.init.normal_(made.lm_head.weight, std=SHARPNESS / math.sqrt(32))
    return made


def tokenizer() -> PreTrainedTokenizerFast:
    """Ids of words; the trainer only decodes with it."""
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    made = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")


@torch.no_grad()
def sampled(policy: LlamaForCausalLM, given: list[Rollout]) -> tuple[list[list[int]], torch.Tensor]:
    """Responses of the policy, of the given lengths, and its log-probs [B, R] of them.

    Where the engine is to be far above the trainer, the token that is rarest by the trainer.
    """
    dice = torch.Generator().manual_seed(1)
    responses, log_probs = [], []
    for one in given:
        ids, own = list(one.prompt), []
        for rollout, train in zip(one.logp_rollout, one.logp_train, strict=True):
            by_model = policy(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            by_model[:2] = -math.inf  # neither padding nor end
            rare = train - rollout < -5
            drawn = torch.multinomial(by_model.exp(), 1, generator=dice)
            chosen = by_model[2:].argmin() + 2 if rare else drawn[0]
            ids.append(int(chosen))
            own.append(by_model[chosen].item())
        responses.append(ids[len(one.prompt) :])
        log_probs.append(own)
    return responses, right_padded(log_probs, torch.float32)


def engine(gap: str, unscored: bool) -> Any:
    """`rollout_func`: prompts' ids, completions' ids, the engine's log-probs, the tools' mask."""
    given = rollouts(gap)

    def rollout(_: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        responses, own = sampled(trainer.model, given)
        log_probs: list[list[float | None]] = []
        for row, one in enumerate(given):
            diff = torch.tensor(one.logp_train) - torch.tensor(one.logp_rollout)
            log_probs.append((own[row, : len(diff)] - diff).clamp(max=-0.02).tolist())
            for pos, trained in enumerate(one.mask):
                if not trained:
                    log_probs[row][pos] = 0.0  # what TRL has for a tool's tokens
        for row, pos in UNSCORED if unscored else ():
            log_probs[row][pos] = None
        return {
            "prompt_ids": [one.prompt for one in given],
            "completion_ids": responses,
            "logprobs": log_probs,
            "env_mask": [one.mask for one in given],
        }

    return rollout


def trainer(gap: str, unscored: bool, folder: str) -> GRPOTrainer:
    """TRL's, with what it does by default when vLLM samples for it."""
    given = rollouts(gap)
    config = GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        report_to="none",
        use_vllm=True,
        beta=0.0,
        per_device_train_batch_size=len(given),
        num_generations=2,
        max_completion_length=16,
    )
    return GRPOTrainer(
        model=model(),
        reward_funcs=lambda prompts, **_: [one.reward for one in given],
        args=config,
        train_dataset=Dataset.from_list(prompts_of(given)),
        processing_class=tokenizer(),
        rollout_func=engine(gap, unscored),
    )


def prompts_of(given: list[Rollout]) -> list[dict[str, str]]:
    """The trainer's inputs, one a rollout."""
    return [{"prompt": one.uid} for one in given]


def generated(
    made: GRPOTrainer, gap: str, options: dict[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """What TRL's trainer computes of a batch with these options, and what it logs of sampling."""
    for name, value in options.items():
        setattr(made, name, value)
    made.model.train()
    made._metrics["train"].clear()
    torch.manual_seed(0)
    batch = made._generate_and_score_completions(prompts_of(rollouts(gap)))
    logged = {name: values[-1] for name, values in made._metrics["train"].items()}
    return batch, {name: value for name, value in logged.items() if name.startswith("sampling/")}


def save(gap: str, folder: Path, unscored: bool = False) -> tuple[str, GRPOTrainer, dict[str, Any]]:
    """Write what the hook sees; the file, the trainer, what is always logged."""
    with tempfile.TemporaryDirectory() as scratch:
        made = trainer(gap, unscored, scratch)
    batch, logged = generated(made, gap, {})
    name = f"{'unscored' if unscored else gap}/step_{STEP}/step_batch.pt"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    torch.save(batch, folder / name)
    told = {"under": DEFAULT, "metrics": expectations.numbers(logged), "corrections": []}
    return name, made, told


def options_of(line: str) -> dict[str, Any]:
    """A line of corrections.toml, `name=value, name=value`, as arguments."""
    call = ast.parse(f"dict({line})", mode="eval").body
    return {word.arg: ast.literal_eval(word.value) for word in call.keywords}


def correction(
    made: GRPOTrainer, gap: str, setting: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """One line: the importance sampling ratio, or the off-policy mask."""
    if options.get("loss_type") == "vespo":
        return vespo(made, gap, setting, {k: v for k, v in options.items() if k != "loss_type"})
    if "off_policy_mask_threshold" in options:
        return off_policy(made, gap, setting, options)
    if options.get("vllm_importance_sampling_correction") is False:
        batch, _ = generated(made, gap, OPTIONS)
        return expectations.correction(setting, options, mask_of(batch), torch.ones(1, 1))
    batch, logged = generated(made, gap, OPTIONS | options)
    ratio = batch["importance_sampling_ratio"]
    own = {name: value for name, value in logged.items() if "ratio" in name}
    mode, low, high = (options.get(name) for name in OPTIONS)
    under = mode if high == CLIP_MAX and low is None else None
    return expectations.correction(setting, options, mask_of(batch), ratio, own, under)


def mask_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The tokens that TRL's loss counts."""
    return batch["completion_mask"] * batch["tool_mask"]


def off_policy(
    made: GRPOTrainer, gap: str, setting: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """The mask of whole rollouts in the first update, where the policy is the old one."""
    batch, _ = generated(made, gap, OPTIONS)
    kept = made.get_off_policy_mask(
        advantages=batch["advantages"].unsqueeze(1),
        per_token_logps=batch["old_per_token_logps"],
        sampling_per_token_logps=batch["sampling_per_token_logps"],
        mask=mask_of(batch),
        off_policy_threshold=options["off_policy_mask_threshold"],
    )
    return expectations.correction(setting, options, mask_of(batch), kept)


def vespo(
    made: GRPOTrainer, gap: str, setting: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    """VESPO's weight in the first update: of the engine's ratio alone, the policy's being 1.

    Without options of vLLM's correction the old log-probs are taken to be the engine's.
    """
    batch, _ = generated(made, gap, OPTIONS | options)
    log_ratio = batch["old_per_token_logps"] - batch["sampling_per_token_logps"]
    weight = made.get_gamma_weights(
        advantages=batch["advantages"].unsqueeze(1),
        log_ratio_per_token=torch.zeros_like(log_ratio) if options else log_ratio,
        mask=mask_of(batch),
        importance_sampling_ratio=batch["importance_sampling_ratio"] if options else None,
    )
    return expectations.correction(
        setting, {"loss_type": "vespo", **options}, mask_of(batch), weight
    )


def bounded(mode: str, high: float | None) -> dict[str, Any]:
    """A mode and its upper bound."""
    return {
        "vllm_importance_sampling_mode": mode,
        "vllm_importance_sampling_clip_max": high,
    }


# Under timtrack's names; what has none is not in corrections.toml.
FURTHER: list[tuple[str | None, dict[str, Any]]] = [
    ("tis_token_3", bounded("token_truncate", CLIP_MAX)),
    ("tis_seq_unclipped_2", bounded("sequence_truncate", 2.0)),
    (
        "mis_seq_unclipped_0.5_2",
        {**bounded("sequence_mask", 2.0), "vllm_importance_sampling_clip_min": 0.5},
    ),
    ("vespo", {"loss_type": "vespo"}),
]


def said_of(made: GRPOTrainer, gap: str) -> list[dict[str, Any]]:
    """Every correction that TRL has."""
    told = {name: options_of(line) for name, line in settings.lines("trl")}
    wanted = [*told.items(), *(one for one in FURTHER if told.get(one[0]) != one[1])]
    return [correction(made, gap, setting, options) for setting, options in wanted]


def main(folder: Path) -> None:
    """Write `folder`."""
    captures: dict[str, Any] = {}
    for gap in GAPS:
        name, made, told = save(gap, folder)
        captures[name] = told | {"corrections": said_of(made, gap)}
    name, _, told = save(GAPS[0], folder, unscored=True)
    captures[name] = told
    expectations.write(folder, "trl", version("trl"), captures)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
