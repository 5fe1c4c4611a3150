"""Options of the verb `referee`."""

from pathlib import Path
from typing import Any

from timtrack.flows.cli.options.shared import add_format, placed
from timtrack.flows.cli.options.types import positive


def add_referee(verbs: Any) -> None:
    """The verb that scores a step's tokens again."""
    referee = verbs.add(
        "referee",
        "score a step's tokens again with a checkpoint: which engine is off, and why",
        "my-run 20 --model /checkpoints/my-run/step_20",
        "step_batch.pt --model MODEL --previous OLDER --hypotheses all",
        parents=[placed()],
    )
    referee.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="DIR",
        help="the step's checkpoint in Hugging Face form, safetensors",
    )
    referee.add_argument(
        "--previous",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="checkpoints of earlier steps: which of them did an engine really use?",
    )
    referee.add_argument(
        "--adapter", type=Path, metavar="DIR", help="a LoRA adapter that belongs on --model"
    )
    referee.add_argument(
        "--rows", type=positive, default=8, metavar="N", help="sequences to score (default: 8)"
    )
    referee.add_argument(
        "--row",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help="this sequence of the batch instead (repeatable)",
    )
    _add_how(referee)


def add_watching_referee(watch: Any) -> None:
    """The referee of a watcher."""
    watch.add_argument(
        "--referee",
        type=Path,
        metavar="DIR",
        help="score a few sequences of steps again whose checkpoint is in DIR (default: off)",
    )
    watch.add_argument(
        "--referee-every",
        type=positive,
        default=10,
        metavar="N",
        help="only steps that are a multiple of N (default: 10)",
    )


def _add_how(referee: Any) -> None:
    referee.add_argument(
        "--hypotheses",
        action="append",
        default=[],
        metavar="all|NAME,...",
        help="try all, or these (default: until what is off is explained); "
        "perturbed_<sigma>_<draw> adds a scoring under noise",
    )
    referee.add_argument("--minutes", type=float, help="stop trying hypotheses after so long")
    referee.add_argument(
        "--temperature", type=float, help="temperature of the run (default: the capture's, else 1)"
    )
    referee.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    referee.add_argument(
        "--seed", type=int, default=0, help="of the choice of sequences (default: 0)"
    )
    referee.add_argument(
        "--trust-model",
        action="store_true",
        help="let the checkpoint bring code and pickles, which are then executed",
    )
    add_format(referee)
