"""The referee beside a watcher: a few sequences of a step, once its checkpoint is there."""

from collections.abc import Iterable
from pathlib import Path

from timtrack.flows import execution
from timtrack.flows.outcomes import Outcome, warn
from timtrack.flows.settings import Settings
from timtrack.tasks.lake.steps import Step, referee_folder
from timtrack.tasks.messages.errors import TimtrackError
from timtrack.tasks.pipeline import stages
from timtrack.tasks.pipeline.stage import stage

ROWS = 4  # sequences
MINUTES = 5.0


def rescore(
    outcomes: Iterable[Outcome], home: Path, settings: Settings, root: Path | None, every: int
) -> None:
    """Ask about the steps that were analysed now; one that cannot be scored keeps no other out."""
    if root is None:
        return
    from timtrack.tasks.referee.model.checkpoint_dirs import checkpoint_of

    for step in [one.step for one in outcomes if one.step and one.link]:
        model = None if step.step % every else checkpoint_of(root, step.step)
        if model is None or referee_folder(step):
            continue
        try:
            execution.call(referee_step, step, model, home, settings)
        except (TimtrackError, OSError) as error:
            warn(f"{step.name}: the referee did not score it: {error}")


@stage("referee {step.name}")
def referee_step(step: Step, model: Path, home: Path, settings: Settings) -> None:
    """Score a few sequences of a step with its checkpoint; what was found goes into its place."""
    from timtrack.tasks.referee import results, session
    from timtrack.tasks.verdicts.causes import diagnose

    causes = {cause.id: cause.confidence for cause in diagnose(step)}
    question = session.Question(model, count=ROWS, minutes=MINUTES)
    results.write(step, session.ask(step, question, causes))
    stages.renew_step(step, home, settings.bands)
