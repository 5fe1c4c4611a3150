"""`python -m tests.chaos --seed 7 --seconds 60`: exit code 0 if nothing differs, else 1."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.plan import KINDS
from tests.chaos.run import run


def main() -> int:
    """Run one seed after the other, each in a folder of its own."""
    options = _parser().parse_args()
    seconds = options.seconds or 60 * options.minutes
    failed = 0
    for seed in options.seeds:
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-", dir=options.into))
        report = run(seed, seconds, folder, options.without)
        print(report, flush=True)
        if report.failures:
            failed += 1
            print(f"\nlogs, lakes and captures: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", "--seeds", dest="seeds", type=int, nargs="+", default=[1])
    long = parser.add_mutually_exclusive_group()
    long.add_argument("--seconds", type=float, help="of disturbance, for each seed")
    long.add_argument("--minutes", type=float, default=1.0, help="the same in minutes (default: 1)")
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        choices=[name for _, name in KINDS],
        metavar="ACTION",
        help="leave these out, the others stay as they are: %(choices)s",
    )
    parser.add_argument("--into", type=Path, help="where the folders are made")
    return parser


if __name__ == "__main__":
    sys.exit(main())
