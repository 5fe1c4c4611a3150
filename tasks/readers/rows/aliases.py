"""Which names a field has: verl's and those of others, by the part that it plays."""

from typing import Any

Fields = dict[str, Any]

# Of several names for one thing the first found counts, with a note if another has other values;
# but two names for one engine's log-probs,
# for the responses or for the mask in one file are an error.
ALIASES = {
    "token_id": ("responses", "response_ids", "completion_ids"),
    "logp_rollout": (
        "rollout_log_probs",
        "vllm_log_probs",
        "sglang_log_probs",
        "inference_log_probs",
        "sampling_per_token_logps",
    ),
    "logp_train": (
        "old_log_probs",
        "train_log_probs",
        "trainer_log_probs",
        "actor_log_probs",
        "old_per_token_logps",
    ),
    "response_mask": ("response_mask", "completion_mask"),
    "prompts": ("prompts", "prompt_ids"),
    "advantage": ("advantages", "advantage"),
    "entropy": ("entropys", "entropies", "entropy"),
    "is_masked": ("is_masked",),
    "mismatch_kl": ("mismatch_kl",),
    "reward": ("token_level_scores", "rm_scores", "token_level_rewards", "rewards", "reward"),
    "uid": ("uid", "uids", "group_id"),
    "row": ("row_index",),  # index in the whole batch, when only some of its rows are captured
    "rollout_id": ("rollout_id",),
    "policy_version_min": ("min_global_steps", "policy_version_min", "policy_version"),
    "policy_version_max": ("max_global_steps", "policy_version_max", "policy_version"),
    "policy_version": ("policy_versions", "token_versions", "versions"),
    "kept": ("kept", "num_kept", "kept_tokens"),
    "rank": ("rank", "dp_rank", "data_parallel_rank"),
    "engine": ("engine", "engine_id", "replica", "replica_id", "server_id"),
    "pack": ("pack", "pack_id", "micro_batch", "micro_batch_id"),
    "finish_reason": ("finish_reason", "finish_reasons", "stop_reason"),
    "cached_tokens": ("cached_tokens", "num_cached_tokens"),
    "weight_checksum": ("weight_checksum", "rollout_weight_checksum"),
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "run": ("run", "run_name", "experiment_name"),
    "step": ("global_step", "global_steps", "training_step", "step"),
}
# What a capture says of rows and tokens beside their numbers.
NAMES_OF_ROWS = ("engine", "finish_reason", "weight_checksum")
WHOLE_OF_ROWS = ("rank", "pack", "cached_tokens", "top_k")
NUMBERS_OF_ROWS = ("temperature", "top_p")
FACTS_OF_ROWS = (*NAMES_OF_ROWS, *WHOLE_OF_ROWS, *NUMBERS_OF_ROWS)
FACTS_OF_TOKENS = ("policy_version", "kept")


def named(fields: Fields, part: str) -> Any:
    """The field that plays a part, under the first of its names that is there."""
    return fields.get(name_of(fields, part))


def name_of(fields: Fields, part: str) -> str:
    """The first of a part's names that is there, else the part itself."""
    return next((name for name in ALIASES[part] if name in fields), part)
