"""Verbs that judge steps and runs."""

from pathlib import Path
from typing import Any

from timtrack.flows.cli.options.referee import add_referee
from timtrack.flows.cli.options.shared import (
    TABLES,
    add_columns,
    add_format,
    between,
    placed,
)
from timtrack.flows.cli.options.types import checked, share
from timtrack.tasks.verdicts import gate


def add(verbs: Any) -> None:
    """Add them, the most wanted first."""
    diagnose = verbs.add(
        "diagnose",
        "what causes a step's mismatch, and how to fix it",
        "step_batch.pt",
        "my-run 20 --format json",
        parents=[placed()],
    )
    add_format(diagnose)
    add_referee(verbs)
    _whatif(verbs)
    certify = verbs.add(
        "certify",
        "check that both engines are bit-equal; exit code 0 yes, 1 no, 2 unknown",
        "my-run 20",
        "my-run --all",
        "step_batch.pt",
        parents=[placed()],
    )
    certify.add_argument("--all", action="store_true", help="every step: which was unequal first")
    add_format(certify)
    _diff(verbs)
    _compare(verbs)
    _gate(verbs)
    repro = verbs.add(
        "repro",
        "one sequence as a zip file for a bug report",
        "my-run 20 --row 833",
        parents=[placed()],
    )
    repro.add_argument("--row", type=int, required=True, help="index of the sequence in the batch")
    repro.add_argument("-o", "--output", type=Path, help="default: <run>-step-<n>-row-<row>.zip")
    repro.add_argument(
        "--rescore", action="store_true", help="with what `tim referee` needs to score it again"
    )


def _whatif(verbs: Any) -> None:
    whatif = verbs.add(
        "whatif",
        "what corrections (TIS, IcePop, masks, ...) would do to a step",
        "my-run 20 --correction tis:3",
        "step_batch.pt --format csv",
        parents=[placed()],
    )
    whatif.add_argument(
        "--correction",
        metavar="NAME:NUMBERS",
        action="append",
        default=[],
        help="one more setting, such as tis:3 or icepop:0.3,4 (repeatable)",
    )
    add_format(whatif, TABLES)


def _diff(verbs: Any) -> None:
    diff = verbs.add(
        "diff",
        "compare two steps token by token where they share tokens",
        "run-a run-b --step 20",
        "old/step_batch.pt new/step_batch.pt",
    )
    diff.add_argument("what", metavar="CAPTURE|RUN", help="a capture file, or a run in the lake")
    diff.add_argument("other", metavar="OTHER", help="the same, to compare with it")
    diff.add_argument(
        "--step", type=int, help="step of both (default: a file's own, or the latest of both runs)"
    )
    diff.add_argument("--other-step", type=int, help="step of OTHER, if different")
    add_columns(diff)
    add_format(diff)


def _compare(verbs: Any) -> None:
    compare = verbs.add(
        "compare",
        "compare runs over their steps, as one page",
        "run-a run-b --baseline run-a",
        parents=[between()],
    )
    compare.add_argument("runs", metavar="RUN", nargs="+")
    compare.add_argument("--baseline", metavar="RUN", help="the run to compare the others with")
    compare.add_argument(
        "-o", "--output", type=Path, default=Path("comparison.html"), help="default: %(default)s"
    )
    add_format(compare)


def _gate(verbs: Any) -> None:
    judged = verbs.add(
        "gate",
        "check a run against rules; exit code 0 pass, 1 fail, 2 undecidable",
        "my-run --rule 'kl_k3 < 0.01' --junit gate.xml",
        "new --baseline old --max-rise 20%",
        parents=[between()],
    )
    judged.add_argument("run", metavar="RUN")
    judged.add_argument(
        "--rule",
        action="append",
        default=[],
        help="such as 'kl_k3 < 0.01' (every step), 'mean(kl_k3) < 0.01', 'frac_outside_5 < 1%%'",
    )
    judged.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="NAME",
        help=f"a framework's own rules: {', '.join(gate.presets())}",
    )
    judged.add_argument(
        "--baseline",
        metavar="RUN",
        help="a run whose means this one must not exceed by more than --max-rise",
    )
    judged.add_argument(
        "--max-rise",
        type=checked(share),
        default=0.5,
        metavar="SHARE",
        help="allowed rise of the means over the baseline (default: 50%%)",
    )
    judged.add_argument(
        "--bit-equal",
        action="store_true",
        help="also judge steps whose log-probs are bit-identical: the engines are built to be",
    )
    judged.add_argument("--junit", type=Path, metavar="FILE", help="write the result as JUnit XML")
    judged.add_argument(
        "--summary",
        type=Path,
        metavar="FILE",
        help="append the result as Markdown (default: $GITHUB_STEP_SUMMARY)",
    )
    add_format(judged)
