"""What a framework's hook costs a step: `python -m tests.bench.hook_cost OUT` prints JSON.

A batch of 1,024 rows of up to 1,024 response tokens, padded to 1,024, goes through the stand-ins of
tests/hooks, with and without the hook; the difference, in milliseconds, as the median of five
steps: in the foreground, until the capture is on the disk, and in the background.
"""

import importlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tests.given import batch_fields
from tests.given_captures import ragged
from tests.hooks.stand_ins import OF, installed
from timtrack.tasks.hooks.written import hook_file

ROWS, WIDTH, STEPS = 1024, 1024, 5
NAMES = ("verl", "verl-v1", "trl", "skyrl")  # OpenRLHF's stand-in has six rows


def milliseconds(statement: str, module: Any) -> float:
    """A step of the stand-in's trainer, its batch being in memory."""
    code = compile(statement, "a step", "exec")
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        exec(code, vars(module))
        times.append(time.perf_counter() - began)
        time.sleep(float(os.environ.get("PAUSE", "0")))
    return 1000 * statistics.median(times)


def measured(name: str, out: Path) -> dict[str, float]:
    """One framework: without the hook, then with it, both ways."""
    module_name, _, statement = OF[name]
    installed(name, out)
    module = importlib.import_module(module_name)
    bare = milliseconds(statement, module)
    (out / "timtrack_hook.py").write_text(hook_file(name))
    sys.modules.pop("timtrack_hook", None)
    importlib.import_module("timtrack_hook")
    found = {}
    for where, set_to in (("foreground", "0"), ("background", "1")):
        os.environ["TIMTRACK_BACKGROUND"] = set_to
        # A step of a real trainer takes longer than the writing; here, wait for the writer.
        os.environ["PAUSE"] = "3" if set_to == "1" else "0"
        os.environ["TIMTRACK_CAPTURES"] = str(out / name / where)
        found[where] = milliseconds(statement, module) - bare
    os.environ["PAUSE"] = "0"
    [file] = (out / name / "foreground").rglob("*.pt")
    return {**found, "megabytes": file.stat().st_size / 1e6}


def main(out: Path) -> None:
    """All that have a batch of any size."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    sys.path.insert(0, str(out))
    fields = batch_fields(ROWS, WIDTH, 256)
    held = {"fields.pt": fields, "rows.pt": ragged(fields)}
    torch.load = lambda name: dict(held[name])
    print(json.dumps({name: measured(name, out) for name in NAMES}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
