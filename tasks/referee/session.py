"""The referee: score a step's tokens with a reference, and name the engine that is off, and why."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from timtrack.tasks.lake.steps import Step
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.referee import known, rollouts, trial, verdict
from timtrack.tasks.referee.bench import ENGINES, Bench
from timtrack.tasks.referee.model import checkpoints
from timtrack.tasks.referee.model.loading import Reference, load
from timtrack.tasks.referee.rollouts import Floats, Rollout
from timtrack.tasks.referee.trial import Say, Trial, is_same
from timtrack.tasks.referee.verdict import Engine, Noise, distance

ALONE = 2  # sequences that are scored by themselves too, for the noise of float32
EDGE = 0.99  # share of the tokens within the reference's noise in bfloat16


class BadQuestion(TimtrackError):
    """What the referee is asked does not fit together."""


@dataclass(frozen=True)
class Question:
    """What the referee is to do; the defaults are those of `tim referee`."""

    model: Path
    rows: tuple[int, ...] = ()  # those of the batch; none: `count` are chosen
    count: int = rollouts.ROWS
    seed: int = 0
    device: str | None = None
    hypotheses: tuple[str, ...] = ()  # none: until what is off is explained; `all`: every one
    previous: tuple[Path, ...] = ()
    adapter: Path | None = None
    minutes: float | None = None
    temperature: float | None = None
    trusted: bool = False


@dataclass(frozen=True)
class Answer:
    """What the referee found."""

    question: Question
    bench: Bench
    own: Noise  # of the reference
    engines: tuple[Engine, ...]
    trial: Trial
    perturbed: Mapping[str, Floats]  # log-probs [N] under noise, by name
    seconds: float
    seconds_of_reference: float
    told_by: str  # where the temperature comes from

    @property
    def sentences(self) -> list[str]:
        """The verdict, and what explains it."""
        return verdict.sentences(self.engines, self.own)

    @property
    def temperature(self) -> float:
        """That of the run, by which the reference's logits are divided."""
        return self.bench.reference.head.temperature


def ask(
    step: Step,
    question: Question,
    causes: Mapping[str, float],
    say: Say = lambda name, number, count: None,
    reference: Reference | None = None,
) -> Answer:
    """Score some sequences of a step again; `causes` are those of the step with their confidence.

    Raises BadModel, NotRescorable, BadQuestion, NoSuchStep.
    """
    began = time.monotonic()
    there = rollouts.read(step)
    taken = rollouts.chosen(there, question.count, question.seed, question.rows)
    loaded = reference or load(question.model, question.device, trusted=question.trusted)
    bench, told_by = _tempered(_bench(question, loaded, taken, there), question, step)
    return judged(bench, question, causes, told_by, say, began)


def judged(
    bench: Bench,
    question: Question,
    causes: Mapping[str, float],
    told_by: str = "default",
    say: Say = lambda name, number, count: None,
    began: float | None = None,
    noise: Noise | None = None,
) -> Answer:
    """Judge the engines on a bench, and try hypotheses on what is off."""
    start = time.monotonic() if began is None else began
    asked = known.chosen(question.hypotheses, causes)
    own = noise or noise_of(bench)
    passed = time.monotonic() - start
    more = known.perturbations(question.hypotheses)
    views = {name: known.perturbed_scores(bench, name) for name in more}
    away = [e for e in ENGINES if verdict.is_explicable(distance(bench, bench.logps(e)), own)]
    every = bool(question.hypotheses)
    far = [e for e in away if every or verdict.is_far(distance(bench, bench.logps(e)), own)]
    left = None if question.minutes is None else question.minutes - passed / 60
    limits = trial.Limits(far, not every, left)
    tried = trial.run(bench, asked if away else [], away, limits, say)
    found = tuple(verdict.engines(bench, own, tried))
    seconds = time.monotonic() - start
    return Answer(question, bench, own, found, tried, views, seconds, passed, told_by)


def _bench(
    question: Question, loaded: Reference, taken: Sequence[Rollout], there: Sequence[Rollout]
) -> Bench:
    vocabulary = loaded.head.layer.weight.shape[0]
    if over := [one.row for one in taken if max(one.ids) >= vocabulary]:
        raise BadQuestion(
            f"{len(over)} of {len(taken)} sequences have token ids beyond the model's vocabulary "
            f"of {vocabulary}, first row {over[0]}: {question.model} is not this capture's model"
        )
    adapter = checkpoints.adapter(question.adapter) if question.adapter else None
    if adapter:
        checkpoints.merge(loaded, adapter)
    previous = tuple(checkpoints.opened(folder, loaded) for folder in question.previous)
    batch = {one.row: one for one in there}
    return Bench(loaded, tuple(taken), batch, previous, adapter, question.seed)


def _at(bench: Bench, temperature: float) -> Bench:
    head = replace(bench.reference.head, temperature=temperature)
    return replace(bench, reference=replace(bench.reference, head=head))


def _tempered(bench: Bench, question: Question, step: Step) -> tuple[Bench, str]:
    """The reference at the run's temperature, and how that is known."""
    if question.temperature:
        return _at(bench, question.temperature), "given"
    said = [one.temperature for one in bench.rollouts if one.temperature]
    said = said or [step.facts()["meta"].get("temperature")]
    if isinstance(said[0], int | float) and said[0] > 0:
        return _at(bench, float(said[0])), "capture"
    tried = trial.run(bench, [known.all_of()["temperature"]], ENGINES, trial.Limits(()))
    best = [tried.ranked(engine)[0] for engine in ENGINES]
    sure = all(fit.explained_in_part > verdict.SURE for fit in best)
    if sure and is_same(*(fit.value for fit in best)):
        return _at(bench, float(np.sqrt(best[0].value * best[1].value))), "both engines"
    return bench, "default"


def noise_of(bench: Bench) -> Noise:
    """The reference's distance from itself."""
    alone = bench.of(bench.rollouts[:ALONE])
    single = np.concatenate([alone.of([one]).scored() for one in alone.rollouts])
    rounded = known.all_of()["computed_bf16"].score(bench, None)
    away = np.abs(rounded - bench.plain)
    edge = float(np.quantile(away, EDGE))
    float32 = distance(alone, single, alone.scored())
    return Noise(float32, distance(bench, rounded), edge, rounded)
