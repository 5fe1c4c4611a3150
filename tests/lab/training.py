"""One run of the lab: trained, or known to equal the uncorrected one.

No captures are written. The uncorrected run of each mismatch and seed also says what timtrack would
have said of each of its steps: that is what the corrected runs are held against.
"""

import json
import random
from pathlib import Path
from typing import Any

import torch

from tests.lab.grid import SETTINGS, Run
from timtrack.tasks.demo.toy_grpo import problems, weights
from timtrack.tasks.demo.toy_grpo.decoder import Decoder
from timtrack.tasks.demo.toy_grpo.recipe import NONE, RECOMMENDED
from timtrack.tasks.demo.toy_grpo.rollout import Engine
from timtrack.tasks.demo.toy_grpo.trainer import Trainer, sampled
from timtrack.tasks.demo.toy_grpo.warm_up import warmed_up
from timtrack.tasks.tables.catalogue import tables_named
from timtrack.tasks.tables.compute import ADVISED_BY, tables_of_frames
from timtrack.tasks.verdicts.advice import advise

HELD_OUT, TRIES, HELD_OUT_SEED = 256, 2, 10**6
ACTS = 1e-4  # from 1: a correction all of whose weights are nearer does nothing
METRICS = ("kl_k1", "kl_k3", "abs_logp_diff_p50", "abs_logp_diff_p99_9", "ess_token")
SIGNS = ("improves_t", "gap_mean")  # what early warnings ask besides
NUMBERS = ("unusable", "ess_token", "ess_seq", "bias_l1_vs_r", "frac_tok_dropped", "adv_kept")
WEIGHTS = ("weight_mean", "weight_std", "frac_tok_dropped")

Outcome = dict[str, Any]


def done(run: Run, folder: Path) -> Outcome:
    """What came out of a run: as it is kept, else found out and kept."""
    file = run.file(folder)
    if file.exists():
        return dict(json.loads(file.read_text()))
    outcome = {**vars(run), **_outcome(run, folder)}
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".tmp")
    aside.write_text(json.dumps(outcome))
    aside.replace(file)
    return outcome


def _outcome(run: Run, folder: Path) -> Outcome:
    if run.correction == NONE:
        return trained(run, folder)
    plain = done(run.uncorrected, folder)
    if not acts(run.correction, plain["judged"]):
        return {**{name: plain[name] for name in ("rewards", "before", "after")}, "same_as": NONE}
    return trained(run, folder)


def acts(correction: str, judged: list[Outcome]) -> bool:
    """Whether a correction changes anything in a run that goes as the uncorrected one.

    Where it does not at any step, the two runs are one.
    """
    if correction == RECOMMENDED:
        return any(step["advice"] not in (None, NONE) for step in judged)
    if correction not in SETTINGS:
        return True
    weights_of = [step["settings"][correction] for step in judged]
    return any(
        abs(w["weight_mean"] - 1) > ACTS or w["weight_std"] > ACTS or w["frac_tok_dropped"] > 0
        for w in weights_of
    )


def trained(run: Run, folder: Path) -> Outcome:
    """Train, and score the policy on held-out problems before and after."""
    torch.set_num_threads(1)
    words = problems.tokenizer()
    trainer = Trainer(run.recipe, run.seed, warmed_up(folder, words), words)
    before = reward_of(trainer.model, trainer)
    rewards, used, judged = [], [], []
    for step in range(1, run.steps + 1):
        batch = trainer.roll_out()
        views = trainer.recompute(step, batch)
        if run.correction == NONE:
            judged.append(judgement(weights.frames_of(batch, views["train"])))
        trainer.learn(step, batch, views)
        rewards.append(round(batch.rewards.mean().item(), 6))
        used.append(trainer.used)
    outcome = {"rewards": rewards, "before": before, "after": reward_of(trainer.model, trainer)}
    extra = {"judged": judged} if run.correction == NONE else {"used": used}
    return {**outcome, "same_as": None, **extra}


def reward_of(model: Decoder, trainer: Trainer) -> float:
    """Mean reward of the weights on problems that are never trained on.

    As a clean engine samples them: float32, temperature 1, no codec; always the same problems and
    the same random numbers, so that differences between runs are paired.
    """
    rng, generator = random.Random(HELD_OUT_SEED), torch.Generator().manual_seed(HELD_OUT_SEED)
    engine = Engine(model, trainer.words.get_vocab_size(), torch.float32)
    drawn = [problems.draw(rng) for _ in range(HELD_OUT)]
    batch = sampled(drawn, TRIES, engine, trainer.words, generator)
    return round(batch.rewards.mean().item(), 6)


def judgement(frames: weights.Frames) -> Outcome:
    """What timtrack says of a step: headline numbers, the advice, the settings of the lab."""
    tables = tables_of_frames(frames, tables_named(" ".join((*ADVISED_BY, "signatures"))))
    metrics, signs = (tables[name].row(0, named=True) for name in ("step_metrics", "signatures"))
    rows = {row["setting"]: row for row in tables["corrections"].to_dicts()}
    wanted = dict.fromkeys((*NUMBERS, *WEIGHTS))
    settings = {
        name: {number: rows[name][number] for number in wanted} for name in (NONE, *SETTINGS)
    }
    advice = advise(tables).setting
    numbers = {name: metrics[name] for name in METRICS} | {name: signs[name] for name in SIGNS}
    return {**numbers, "advice": advice, "settings": settings}
