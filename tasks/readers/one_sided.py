"""Files with one engine's log-probs or none: what they are, and how to get the rest."""

from dataclasses import dataclass

from timtrack.tasks.readers.containers.contents import Contents


@dataclass(frozen=True)
class OneSided:
    """A format that is known by its names, and what to do about it."""

    container: str
    has: frozenset[str]
    text: str


KNOWN = (
    OneSided(
        "tensors",
        frozenset({"rollout_id", "samples"}),
        "this is slime's or miles's rollout_data: the rollout engine's side only. The trainer's is "
        "in train_data beside it (--dump-details DIR), and is read together with this file",
    ),
    OneSided(
        "jsonl",
        frozenset({"input", "output", "score"}),
        "this is verl's rollout_data_dir: texts and scores without log-probs. A hook of ten lines "
        "saves both engines' (README, Hooks)",
    ),
    OneSided(
        "jsonl",
        frozenset({"prompt_tokens", "response_tokens", "logprobs"}),
        "this is open-instruct's rollouts: the engine's log-probs only. Save the trainer's too, "
        "with tasks/hook.py, where they are recomputed",
    ),
    OneSided(
        "jsonl",
        frozenset({"input_ids", "labels", "logprobs", "group_id"}),
        "this is PipelineRL's stream: the engine's log-probs (and the reference's) only. Save the "
        "trainer's too, with tasks/hook.py, where the loss computes them",
    ),
    OneSided(
        "jsonl",
        frozenset({"response_tokens", "logprobs", "ref_logprobs"}),
        "this is the layout of RLLoggingBoard, which ROLL writes (save_logging_board_dir): "
        "the trainer's log-probs only. ROLL holds the engine's as infer_logprobs; save both with "
        "tasks/hook.py",
    ),
    OneSided(
        "jsonl",
        frozenset({"task_id", "head_version", "completion"}),
        "this is AReaL's rollout dump: texts and rewards without log-probs. Save `logprobs` and "
        "`prox_logp` with tasks/hook.py before the update",
    ),
    OneSided(
        "jsonl",
        frozenset({"traces", "run", "env"}),
        "this is prime-rl's trace stream; a step of it is named stream#<step>, beside the folder "
        "`stream`, once the trainer annotated it; or name the run's folder",
    ),
    OneSided(
        "jsonl",
        frozenset({"content", "input_lengths"}),
        "this is NeMo RL's train_data of distillation, without the policy's log-probs",
    ),
)


def advice_on(seen: Contents) -> str | None:
    """What is to say about a file that no reader can read, if it is known."""
    names = {str(name) for name in seen.top}
    known = (one for one in KNOWN if one.container == seen.container and one.has <= names)
    return next((one.text for one in known), None)
