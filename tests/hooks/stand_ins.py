"""Packages with the frameworks' names and signatures, for a hook to be put into.

Each trainer takes the padded batch of `fields.pt` (tests/given.py) through the calls of its
framework's loop, in order. What the published packages do: tests/frameworks/hooks_*.py.
"""

from pathlib import Path

VERL = """
from types import SimpleNamespace as Of
import torch

class RayPPOTrainer:
    bypass = False

    def __init__(self):
        sampling = Of(temperature=0.9, top_p=1.0, top_k=-1)
        self.config = Of(
            trainer=Of(experiment_name="my-run"), actor_rollout_ref=Of(rollout=sampling)
        )
        self.global_steps, self.actor_rollout_wg = 7, None

    def fit(self):
        fields = torch.load("fields.pt")
        beside = {"uid": fields.pop("uid"), "num_cached_tokens": [2] * 6}
        batch = Of(batch={n: t for n, t in fields.items() if n != "global_step"})
        batch.non_tensor_batch = beside
        if not self.bypass:
            self._compute_old_log_prob(batch)
        batch.batch["response_mask"] = batch.batch["response_mask"] * 0  # rollout correction
        return self._update_actor(batch)

    def _get_dp_size(self, group, role):
        return 2

    def _compute_old_log_prob(self, batch):
        return "recomputed"

    def _update_actor(self, batch):
        return "updated"
"""

VERL_V1 = """
from types import SimpleNamespace as Of
import torch

class Queue:
    def kv_batch_get(self, keys, partition_id, select_fields):
        held = torch.load("rows.pt").items()
        return {n: Jagged(v) for n, v in held if n in select_fields and v is not None}

class Jagged(list):
    def unbind(self):
        return list(self)

tq = Queue()

class PPOTrainer:
    parameter_sync_step, local_trigger_step = 1, 0

    def __init__(self):
        sampling = Of(temperature=0.9, top_p=1.0, top_k=-1)
        self.config = Of(
            trainer=Of(experiment_name="my-run"), actor_rollout_ref=Of(rollout=sampling)
        )
        self.global_steps = 7
        self.actor_rollout_wg = Of(_dispatch_info={"actor": [0, 1]})

    def step(self):
        tags = [{"min_global_steps": 5, "max_global_steps": 6} for _ in range(6)]
        batch = Of(keys=list(range(6)), partition_id="train", tags=tags)
        return self._compute_advantage(batch, metrics={})

    def _compute_advantage(self, batch, metrics):
        return "advantages"
"""

TRL = """
from types import SimpleNamespace as Of
import torch

class GRPOTrainer:
    ranks, rank, accumulation = 1, 0, 1

    def __init__(self):
        self.args = Of(
            run_name="my-run", output_dir="out", steps_per_generation=1,
            gradient_accumulation_steps=self.accumulation,
        )
        self.accelerator = Of(num_processes=self.ranks, process_index=self.rank)
        self.model, self.state, self.num_iterations = Of(training=True), Of(global_step=6), 1
        self.temperature, self.top_p, self.top_k = 0.9, 1.0, 0
        self._last_loaded_step, self.eos_token_ids = 6, [1]
        self._tokenizer, self.reward_weights = Of(pad_token_id=0), torch.ones(1)

    def train(self):
        return self._generate_and_score_completions([])

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        return torch.arange(6.0 * self.ranks).unsqueeze(1)

    def _generate_and_score_completions(self, inputs):
        fields = torch.load("fields.pt")
        self._calculate_rewards([], [], [], [])
        width = fields["responses"].shape[1]
        return {
            "prompt_ids": fields["prompts"],
            "prompt_mask": fields["attention_mask"][:, :-width],
            "completion_ids": fields["responses"],
            "completion_mask": fields["attention_mask"][:, -width:],
            "tool_mask": fields["response_mask"],
            "sampling_per_token_logps": fields["rollout_log_probs"],
            "old_per_token_logps": fields["old_log_probs"],
            "advantages": fields["advantages"][:, 0],
            "pixel_values": torch.zeros(1000),
        }
"""

OPENRLHF = """
from dataclasses import dataclass
from types import SimpleNamespace as Of
import torch

@dataclass
class Experience:
    sequences: object
    attention_mask: object
    action_mask: object
    rollout_log_probs: object
    action_log_probs: object
    base_action_log_probs: object
    advantages: object
    rewards: object
    truncated: object
    index: object

    @staticmethod
    def concat_experiences(parts, pad_token_id):
        names = vars(parts[0])
        return Experience(**{n: joined([getattr(part, n) for part in parts]) for n in names})

def joined(values):
    if values[0] is None:
        return None
    return sum(values, []) if isinstance(values[0], list) else torch.cat(values)

class RemoteExperienceMaker:
    def __init__(self):
        self.args = Of(
            logger=Of(wandb=Of(run_name="my-run")),
            rollout=Of(n_samples_per_prompt=2, temperature=0.9, top_p=1.0),
        )
        self.tokenizer = Of(pad_token_id=0)
        self.actor_model_group = Of(_actor_handlers=[None] * 2, duplicate_actors=1)

    def make_experience_batch(self, rollout_samples):
        fields = torch.load("rows.pt")
        return [self.made(fields, row) for row in range(6)]

    def made(self, fields, row):
        width = 16
        ids = [torch.cat([fields[n][row] for n in ("prompts", "responses")])]
        start, end = len(fields["prompts"][row]) - 1, len(ids[0]) - 1
        def placed(values):
            whole = torch.zeros(1, width - 1)
            whole[0, start:end] = values.float()
            return whole
        return Experience(
            sequences=torch.nn.functional.pad(ids[0], (0, width - len(ids[0]))).unsqueeze(0),
            attention_mask=(torch.arange(width) < len(ids[0])).long().unsqueeze(0),
            action_mask=placed(fields["response_mask"][row]),
            rollout_log_probs=placed(fields["rollout_log_probs"][row]),
            action_log_probs=placed(fields["old_log_probs"][row]),
            base_action_log_probs=None,
            advantages=placed(fields["advantages"][row]),
            rewards=torch.tensor([float(row)]),
            truncated=torch.tensor([row == 1]),
            index=[row],
        )

class BasePPOTrainer:
    def __init__(self):
        self.experience_maker = RemoteExperienceMaker()

    def fit(self):
        return self.train_step([], 6)

    def train_step(self, rollout_samples, global_step):
        self.experience_maker.make_experience_batch(rollout_samples)
        return {}, global_step + 1
"""

SKYRL = """
from types import SimpleNamespace as Of
import torch

class Batch(dict):
    metadata = {}

class RayPPOTrainer:
    def __init__(self):
        self.cfg = Of(
            trainer=Of(run_name="my-run"),
            generator=Of(sampling_params=Of(temperature=0.9, top_p=1.0, top_k=-1)),
        )
        self.global_step = 7

    def train(self):
        output = {"stop_reasons": ["stop"] * 6}
        data = self.convert_to_training_input(output, [])
        return self.compute_advantages_and_returns(data)

    def convert_to_training_input(self, generator_output, uids):
        fields = torch.load("fields.pt")
        data = Batch(
            sequences=torch.cat([fields["prompts"], fields["responses"]], dim=1),
            attention_mask=fields["attention_mask"],
            response_mask=fields["attention_mask"][:, -fields["responses"].shape[1]:],
            loss_mask=fields["response_mask"],
            rollout_logprobs=fields["rollout_log_probs"],
            action_log_probs=fields["old_log_probs"],
            rewards=fields["token_level_scores"],
        )
        data.metadata = {"uids": fields["uid"], "pad_size": 0}
        data.advantages = fields["advantages"]
        return data

    def compute_advantages_and_returns(self, data):
        data["advantages"] = data.advantages
        return data
"""

# By hook: the module, the stand-in for it, and a statement that trains a step.
OF = {
    "verl": ("verl.trainer.ppo.ray_trainer", VERL, "RayPPOTrainer().fit()"),
    "verl-v1": ("verl.trainer.ppo.v1.trainer_base", VERL_V1, "PPOTrainer().step()"),
    "trl": ("trl.trainer.grpo_trainer", TRL, "GRPOTrainer().train()"),
    "openrlhf": ("openrlhf.trainer.ppo_trainer", OPENRLHF, "BasePPOTrainer().fit()"),
    "skyrl": ("skyrl.train.trainer", SKYRL, "RayPPOTrainer().train()"),
}


def installed(name: str, folder: Path) -> str:
    """Write a framework's stand-in below a folder; the module's name."""
    module, source, _ = OF[name]
    path = folder.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return module
