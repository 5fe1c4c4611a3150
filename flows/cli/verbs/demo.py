"""The demo: the published tokens, then two toy runs that are watched while they train."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from timtrack.flows.cli.printing import say
from timtrack.flows.cli.screen.frames import print_frame
from timtrack.flows.cli.screen.outcomes import show_outcomes
from timtrack.flows.cli.screen.progress import COLUMNS, analyse_with_progress
from timtrack.flows.follow import Hindrance, follow
from timtrack.flows.outcomes import Outcome
from timtrack.flows.settings import Settings
from timtrack.flows.watched import Watched
from timtrack.tasks.demo import published_run
from timtrack.tasks.demo.toy_grpo.recipe import ANCHOR_LATENCY
from timtrack.tasks.lake.steps import all_steps
from timtrack.tasks.messages.errors import TimtrackError, printable
from timtrack.tasks.tables.query import run_query

COMPARISON = """
select
    run,
    count(*) as steps,
    arg_min(reward, step) as first_reward,
    arg_max(reward, step) as last_reward,
    median(kl_k1) as kl_k1,
    median(kl_k3) as kl_k3,
    median(abs_logp_diff_p50) as abs_logp_diff_p50,
    median(frac_outside_5) as frac_outside_5,
    median(pearson_logp) as pearson_logp,
    median(ratio_mean) as ratio_mean
from step_metrics
inner join (
    select run, step, avg(reward) as reward from sequence_metrics group by run, step
) using (run, step)
group by run
order by run
"""
ATTRIBUTION = """
select run, component, avg(k1) as k1, avg(abs_p50) as abs_p50, avg(share_abs) as share_abs
from attribution group by run, component order by run, component
"""


class TrainerFailed(TimtrackError):
    """The toy trainer did not come to its end."""


@dataclass(frozen=True)
class Toy:
    """A toy run, by the trainer's options."""

    codec: str
    steps: int
    seed: int
    latency: int = ANCHOR_LATENCY
    correction: str | None = None

    @property
    def label(self) -> str:
        """What distinguishes it from the other runs of a demo."""
        return f"{self.codec} with {self.correction}" if self.correction else self.codec

    @property
    def name(self) -> str:
        """The run's."""
        latency = "" if self.latency == ANCHOR_LATENCY else f"-latency{self.latency}"
        correction = f"-{re.sub('[:,]', '_', self.correction)}" if self.correction else ""
        return f"toy-{self.codec}{latency}{correction}-seed{self.seed}"

    @property
    def arguments(self) -> list[str]:
        """On the trainer's command line."""
        numbers = ["--steps", self.steps, "--seed", self.seed, "--latency", self.latency]
        correction = ["--correction", self.correction] if self.correction else []
        return ["--codec", self.codec, *map(str, numbers), *correction]


def demonstrate(home: Path, toy: Toy, settings: Settings) -> int:
    """Analyse the published tokens, train without and with a codec, compare; count failures.

    With a correction, a third run is `toy`.
    """
    say("1. The 400 published tokens of a Qwen2.5-1.5B GRPO run with a compression codec, step 20")
    captures = home / "captures"
    published = published_run.write_capture(captures / "published")
    outcomes = analyse_with_progress([published], home, settings)
    show_outcomes(outcomes, settings.bands)
    plain = Toy("off", toy.steps, toy.seed)
    toys = list(dict.fromkeys([plain, replace(toy, correction=None), toy]))
    codecs = ", ".join(one.label for one in toys)
    say("", f"2. A toy GRPO run, {toy.steps} steps each, seed {toy.seed}; codec {codecs}")
    for one in toys:
        outcomes += _watched_run(captures / "toy", home, one)
    show_outcomes([outcome for outcome in outcomes if outcome.error], settings.bands)
    _compare(home, [one.name for one in toys], toy.steps)
    _link(home, outcomes)
    return sum(1 for outcome in outcomes if outcome.error)


def _watched_run(root: Path, home: Path, toy: Toy) -> list[Outcome]:
    """Train in a process of its own, and analyse its captures as they come."""
    run = root / toy.name
    places = ["--out", str(run), "--cache", str(root)]
    trainer_module = "timtrack.tasks.demo.toy_grpo.grpo"
    command = [sys.executable, "-m", trainer_module, *places, *toy.arguments]
    outcomes = []
    console = Console(stderr=True)
    with (
        Progress(*COLUMNS, console=console, disable=not console.is_terminal) as progress,
        _process(command) as trainer,
    ):
        trained = progress.add_task(f"train {toy.label}: warm-up", total=toy.steps)
        analysed = progress.add_task(f"analyse {toy.label}", total=toy.steps)
        teller = threading.Thread(target=_tell, args=(trainer, progress, trained, toy.label))
        teller.start()
        for told in follow(
            Watched(run, follows=True), home, lambda: trainer.poll() is not None, every=0.5
        ):
            if isinstance(told, Hindrance):
                raise told.error
            outcomes.append(told)
            progress.update(analysed, completed=len(outcomes))
        teller.join()
    if trainer.returncode:
        raise TrainerFailed(f"the toy trainer ended with exit code {trainer.returncode}; see above")
    return outcomes


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The trainer, ended with us whatever happens."""
    path = os.pathsep.join(filter(None, sys.path))  # where it is not installed
    passive = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=passive)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _tell(trainer: subprocess.Popen[str], progress: Progress, bar: TaskID, label: str) -> None:
    """Show what the trainer prints."""
    for line in trainer.stdout or ():
        said = f"train {label}: {line.strip()}"
        match = re.match(r"step (\d+)/", line)
        done = int(match[1]) if match else 0
        progress.update(bar, completed=done, description=printable(said))
        if progress.disable and (match is None or int(match[1]) % 5 == 0):
            say(said)  # no terminal: a line now and then


def _link(home: Path, outcomes: list[Outcome]) -> None:
    """Where each run is in MLflow, and the page with its last step's charts on disk."""
    last = {o.step.run: (o.step.step, o.link) for o in outcomes if o.step and o.link}
    for run, (step, link) in last.items():
        say("", f"{run}: {link}")
        run_id = link.split("/runs/")[-1].split("?")[0]
        for page in (home / "mlartifacts" / run_id).glob(f"artifacts/steps/{step}/report.html"):
            say(f"  charts of step {step}: {page}")


def _compare(home: Path, runs: list[str], last: int) -> None:
    """The runs' steps up to `last`: an earlier demo may have left more."""
    steps = [s for s in all_steps(home / "lake") if s.run in runs and s.step <= last]
    say("", "The runs, medians over their steps (rewards: first and last step)")
    print_frame(run_query(steps, COMPARISON), "table")
    say("", "Where the gap comes from, means over steps (k1 in nats)")
    print_frame(run_query(steps, ATTRIBUTION), "table")
