"""TRL's GRPO with vLLM on the CPU: a few steps with the hook in it.

    python tests/real/grpo.py MODEL OUT synced|never-synced

OUT has `timtrack_hook.py` and gets `captures/<run>`. A run that is never synced trains on, while
vLLM goes on sampling with the weights of the checkpoint.
"""

import os
import sys
from functools import partial
from pathlib import Path

MODEL, OUT, RUN = Path(sys.argv[1]), Path(sys.argv[2]).resolve(), sys.argv[3]
os.environ.update(
    TIMTRACK_CAPTURES=str(OUT / "captures"),
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_NO_USAGE_STATS="1",
    HF_HUB_OFFLINE="1",
)
sys.path.insert(0, str(OUT))

import timtrack_hook  # noqa: E402, F401
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402
from trl.generation import vllm_generation  # noqa: E402

STEPS = 3
RATES = {"synced": 1e-5, "never-synced": 1e-4}
QUESTIONS = (
    "Tom has 3 apples and buys 4 more. How many has he?",
    "What is the capital of France, and what is it known for?",
    "Write a short poem about rain.",
    "How do I boil an egg?",
    "A train leaves at 9 and arrives at 11. How long does it take?",
    "Name three animals that can fly.",
    "Explain what a prime number is.",
    "Give me a name for a cat.",
)

# Nothing is compiled, and vLLM computes as it does by default on a GPU.
vllm_generation.LLM = partial(vllm_generation.LLM, enforce_eager=True, dtype="bfloat16")


def words_used_once(completions: list[str], **_: object) -> list[float]:
    """A reward that differs within a group: the share of words that are not repeated."""
    words = [text.lower().split() or ["nothing"] for text in completions]
    return [len(set(of_text)) / len(of_text) for of_text in words]


def send(trainer: GRPOTrainer) -> None:
    """The weights to vLLM; TRL's own way fails where vLLM packs parameters for the CPU."""
    model = trainer.model
    weights = [(name, held.detach()) for name, held in model.named_parameters()]
    weights.append(("lm_head.weight", model.lm_head.weight.detach()))  # tied, and listed once
    engine = trainer.vllm_generation.llm
    engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
    engine.reset_prefix_cache()


def main() -> None:
    """Train."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in QUESTIONS
    ]
    trainer = GRPOTrainer(
        model=str(MODEL),
        reward_funcs=words_used_once,
        args=GRPOConfig(
            output_dir=str(OUT / "checkpoints"),
            run_name=RUN,
            use_cpu=True,
            bf16=False,
            model_init_kwargs={"dtype": "float32"},
            use_vllm=True,
            vllm_mode="colocate",
            vllm_max_model_length=512,
            beta=0.0,
            learning_rate=RATES[RUN],
            lr_scheduler_type="constant",
            per_device_train_batch_size=16,
            num_generations=4,
            max_completion_length=48,
            max_steps=STEPS,
            save_strategy="no",
            report_to="none",
            seed=0,
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=tokenizer,
    )
    trainer.vllm_generation.sync_weights = (
        partial(send, trainer) if RUN == "synced" else lambda: None
    )
    trainer.train()


if __name__ == "__main__":
    main()
