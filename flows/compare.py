"""A comparison page of several runs, also logged to MLflow."""

from pathlib import Path

from timtrack.flows import execution
from timtrack.flows.settings import Settings
from timtrack.tasks.pipeline import stages


def compare(
    runs: list[str],
    home: Path,
    steps: tuple[int | None, int | None] = (None, None),
    baseline: str | None = None,
    output: Path | None = None,
    bands: Path | None = None,
) -> str:
    """Compare runs of the lake; a link to what MLflow has of it.

    `steps` are the first and the last to look at. The page goes to `output` as well, if given.
    `bands` is a file of bands that take precedence (default: TIMTRACK_BANDS). Raises NoSuchStep if
    a run or its steps are not there.
    """
    own_bands = Settings.read(bands=bands).bands
    return str(execution.call(stages.compare_runs, runs, home, steps, baseline, output, own_bands))
