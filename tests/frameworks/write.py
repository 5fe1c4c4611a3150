"""Captures by the published frameworks' own writers, and what their own functions say of them.

    .venv-frameworks/bin/python tests/frameworks/write.py OUT [framework ...]

Each framework has a process of its own: what stands in for a package of one would mislead another.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FRAMEWORKS = ("verl", "trl", "skyrl", "openrlhf", "ms_swift", "tinker")
# Frameworks that are known not to be there, and why; these do not fail the run.
UNAVAILABLE: dict[str, str] = {}


def main(out: Path, wanted: list[str]) -> int:
    """Write `out/<framework>/` for each; the number of those that could not be."""
    failed = 0
    for name in wanted or FRAMEWORKS:
        if name in UNAVAILABLE:
            print(f"{name}: left out, {UNAVAILABLE[name]}")
            continue
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        script = HERE / f"of_{name}.py"
        run = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
        if run.returncode:
            failed += 1
            reason = (run.stderr.strip() or "no reason given").splitlines()
            print(*reason[-12:-1], f"{name}: cannot be written, {reason[-1]}", sep="\n")
        else:
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            print(f"{name}: {size / 1e3:.0f} kB")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]), sys.argv[2:])))
